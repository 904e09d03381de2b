#include "control_link.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include <fmt/format.h>

namespace radiotower::cli {

std::string default_control_socket() {
  const char* const named = std::getenv("RADIOTOWER_SOCKET");
  return named && *named ? named : "/run/radiotower-relay/control.sock";
}

ControlLink::~ControlLink() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

bool ControlLink::open(const std::string& path, std::string& why) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    why = fmt::format("\"{}\" is no path of a socket: it may have 1 to {} bytes", path, sizeof address.sun_path - 1);
    return false;
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  descriptor_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (descriptor_ >= 0 && ::connect(descriptor_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return true;
  const int error = errno;
  switch (error) {
    case ENOENT:
      why = fmt::format("there is no {}: the relay does not run, or has its socket elsewhere (control.socket, --control-socket); --socket PATH says where", path);
      break;
    case EACCES:
    case EPERM: why = fmt::format("{} may not be opened by this user: be root, or a member of the group radiotower", path); break;
    case ECONNREFUSED:  // of a file that is no socket too
      if (struct stat is{}; ::stat(path.c_str(), &is) == 0 && !S_ISSOCK(is.st_mode)) {
        why = fmt::format("{} is no socket", path);
        break;
      }
      why = fmt::format("nobody listens on {}: the relay that made it has ended without a chance to remove it; start it again", path);
      break;
    case ENOTSOCK: why = fmt::format("{} is no socket", path); break;
    default: why = fmt::format("{}: {}", path, std::strerror(error)); break;
  }
  return false;
}

bool ControlLink::ask(const Json& request, std::string& why) {
  const std::string line = request.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  std::size_t sent = 0;
  while (sent < line.size()) {
    const ssize_t n = ::send(descriptor_, line.data() + sent, line.size() - sent, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EPIPE) return true;  // why it has hung up is in what it said last
    if (n < 0) {
      why = fmt::format("the relay does not listen any more: {}", std::strerror(errno));
      return false;
    }
    sent += static_cast<std::size_t>(n);
  }
  return true;
}

std::optional<Json> ControlLink::next(std::string& why, std::chrono::milliseconds patience) {
  why.clear();
  while (true) {
    if (const std::size_t end = in_.find('\n'); end != std::string::npos) {
      Json json = Json::parse(in_.begin(), in_.begin() + static_cast<std::ptrdiff_t>(end), nullptr, false);
      in_.erase(0, end + 1);
      if (json.is_object()) return json;
      why = "what listens there speaks something else than a relay's control socket";
      return std::nullopt;
    }
    pollfd wait{descriptor_, POLLIN, 0};
    const int ready = ::poll(&wait, 1, patience < std::chrono::milliseconds(0) ? -1 : static_cast<int>(patience.count()));
    if (ready < 0 && errno == EINTR) return std::nullopt;
    if (ready == 0) {
      why = fmt::format("the relay has not answered for {} seconds", patience.count() / 1000);
      return std::nullopt;
    }
    char bytes[64 * 1024];
    const ssize_t n = ::recv(descriptor_, bytes, sizeof bytes, 0);
    if (n < 0 && errno == EINTR) return std::nullopt;
    if (n <= 0) {
      why = "the relay has hung up: it has ended, or is ending";
      return std::nullopt;
    }
    in_.append(bytes, static_cast<std::size_t>(n));
  }
}

}  // namespace radiotower::cli
