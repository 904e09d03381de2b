#include "radiotower/tls/session.h"

namespace radiotower::tls {

struct Session::Impl {
  std::vector<std::uint8_t> outgoing;
  std::string why;
};
Session::Session(std::shared_ptr<const Identity>) : impl_(std::make_unique<Impl>()) {}
Session::~Session() = default;
void Session::give(Bytes) {}
Session::Read Session::read(MutableBytes, std::size_t&) { return Read::failed; }
bool Session::write(Bytes) { return false; }
void Session::close() {}
std::vector<std::uint8_t>& Session::outgoing() { return impl_->outgoing; }
bool Session::is_open() const { return false; }
std::string_view Session::protocol() const { return ""; }
std::string_view Session::alpn() const { return ""; }
std::string_view Session::server_name() const { return ""; }
const std::string& Session::why() const { return impl_->why; }
std::size_t Session::bytes_kept() const { return 0; }

}  // namespace radiotower::tls
