#include "radiotower/tls/identity.h"

namespace radiotower::tls {

struct Identity::Names {};
Identity::~Identity() = default;
std::shared_ptr<const Identity> Identity::load(const std::vector<CertificateFiles>&, std::string& why, std::vector<std::string>&) {
  why = "not built";
  return nullptr;
}

}  // namespace radiotower::tls
