#include "sockets.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/sock_diag.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>

namespace radiotower::load {

namespace {

[[noreturn]] void give_up(const std::string& what) {
  throw std::runtime_error(fmt::format("{}: {}", what, std::strerror(errno)));
}

}  // namespace

bool Name::is_same(const Name& other) const {
  if (value.any.sa_family != other.value.any.sa_family) return false;
  if (value.any.sa_family == AF_INET)
    return value.v4.sin_port == other.value.v4.sin_port && value.v4.sin_addr.s_addr == other.value.v4.sin_addr.s_addr;
  return value.v6.sin6_port == other.value.v6.sin6_port &&
         std::memcmp(&value.v6.sin6_addr, &other.value.v6.sin6_addr, sizeof value.v6.sin6_addr) == 0;
}

InNamespace::InNamespace(const std::string& name) {
  if (name.empty()) return;
  const std::string file = "/run/netns/" + name;
  const int wanted = open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (wanted < 0) give_up("network namespace " + name);
  before_ = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
  const bool entered = before_ >= 0 && setns(wanted, CLONE_NEWNET) == 0;
  const int error = errno;
  close(wanted);
  if (entered) return;
  if (before_ >= 0) close(before_);
  errno = error;
  give_up("network namespace " + name);
}

InNamespace::~InNamespace() {
  if (before_ < 0) return;
  // Sockets that were opened in the other namespace would go on there; what comes next here must not.
  if (setns(before_, CLONE_NEWNET) != 0) std::abort();
  close(before_);
}

net::TransportAddress offset(const net::TransportAddress& first, std::uint32_t addresses, std::uint32_t ports) {
  net::TransportAddress result = first;
  std::uint8_t* const last = result.ip.bytes.data() + 12;  // of either family
  store_be32(last, load_be32(last) + addresses);
  result.port = static_cast<std::uint16_t>(first.port == 0 ? 0 : first.port + ports);
  return result;
}

int open_socket(net::Family family, const std::optional<net::TransportAddress>& local, int receive_buffer) {
  const int domain = family == net::Family::ipv4 ? AF_INET : AF_INET6;
  const int socket = ::socket(domain, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (socket < 0) give_up("socket");
  // FORCE goes past rmem_max and needs CAP_NET_ADMIN: towards the clients the load's own sockets overflow first.
  if (setsockopt(socket, SOL_SOCKET, SO_RCVBUFFORCE, &receive_buffer, sizeof receive_buffer) != 0)
    setsockopt(socket, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
  if (local) {
    const Name name(*local);
    if (bind(socket, &name.value.any, name.length) != 0) {
      const int error = errno;
      close(socket);
      errno = error;
      give_up("bind to " + local->text());
    }
  }
  return socket;
}

net::TransportAddress local_address(int socket) {
  Name name;
  name.length = sizeof name.value;
  if (getsockname(socket, &name.value.any, &name.length) != 0) return {};
  return net::TransportAddress::from_sockaddr(&name.value.any, name.length).value_or(net::TransportAddress{});
}

std::uint64_t drops_of(int socket) {
  std::uint32_t memory[SK_MEMINFO_VARS] = {};
  socklen_t length = sizeof memory;
  if (getsockopt(socket, SOL_SOCKET, SO_MEMINFO, memory, &length) != 0) return 0;
  return memory[SK_MEMINFO_DROPS];
}

void want_descriptors(std::size_t needed) {
  rlimit descriptors{};
  getrlimit(RLIMIT_NOFILE, &descriptors);
  descriptors.rlim_cur = descriptors.rlim_max;
  setrlimit(RLIMIT_NOFILE, &descriptors);
  if (needed + 64 > descriptors.rlim_max)
    throw std::runtime_error(fmt::format("{} sockets are more than this process may open ({}, ulimit -Hn)", needed,
                                         std::uint64_t{descriptors.rlim_max}));
}

}  // namespace radiotower::load
