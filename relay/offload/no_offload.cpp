// What stands in for the offload in a build without it: it never starts, and says so.
#include "radiotower/offload/offload.h"

namespace radiotower::offload {

std::unique_ptr<Offload> start(const OffloadSettings&, std::string& why) {
  why = "this radiotower-relay was built without it";
  return nullptr;
}

std::string_view compiled_in() { return "not compiled in"; }

}  // namespace radiotower::offload
