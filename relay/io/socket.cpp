#include "radiotower/io/socket.h"

#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>

#ifndef UDP_GRO
#define UDP_GRO 104
#endif

namespace radiotower::io {

Socket::~Socket() {
  if (descriptor_ >= 0) close(descriptor_);
}

namespace {

bool set(int descriptor, int level, int option, int value) {
  return setsockopt(descriptor, level, option, &value, sizeof value) == 0;
}

/// The forced form goes over net.core.rmem_max and wants CAP_NET_ADMIN. Without it the system's limit holds, which is no error; and
/// one refusal is enough to know, since each relay socket pays for every call made here.
void set_buffer(int descriptor, int forced, int plain, int size) {
  static std::atomic<bool> may_force = true;
  if (size <= 0) return;
  if (may_force.load(std::memory_order_relaxed)) {
    if (set(descriptor, SOL_SOCKET, forced, size)) return;
    if (errno == EPERM) may_force.store(false, std::memory_order_relaxed);
  }
  set(descriptor, SOL_SOCKET, plain, size);
}

}  // namespace

Socket open_udp(const net::TransportAddress& local, const UdpOptions& options, int& error) {
  const bool v4 = local.ip.is_v4();
  Socket socket(::socket(v4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  const int d = socket.descriptor();
  bool ok = d >= 0;
  // No path MTU discovery: the kernel then fragments and leaves DF alone (RFC 8656, 13). For IPv6 DONT likewise means: fragment here.
  if (v4) {
    ok = ok && set(d, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT);
    if (ok && options.report_errors) ok = set(d, IPPROTO_IP, IP_RECVERR, 1);
  } else {
    ok = ok && set(d, IPPROTO_IPV6, IPV6_V6ONLY, 1) && set(d, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DONT);
    if (ok && options.report_errors) ok = set(d, IPPROTO_IPV6, IPV6_RECVERR, 1);
  }
  if (ok && options.reuse_port) ok = set(d, SOL_SOCKET, SO_REUSEPORT, 1);
  if (ok) set_buffer(d, SO_RCVBUFFORCE, SO_RCVBUF, options.receive_buffer);
  if (ok) set_buffer(d, SO_SNDBUFFORCE, SO_SNDBUF, options.send_buffer);
  if (ok && options.trains) set(d, IPPROTO_UDP, UDP_GRO, 1);  // welcome where it is, and nothing is lost where it is not
  if (ok) {
    sockaddr_in6 address;
    const auto length = static_cast<socklen_t>(local.to_sockaddr(&address));
    ok = bind(d, reinterpret_cast<const sockaddr*>(&address), length) == 0;
  }
  error = ok ? 0 : errno;
  return ok ? std::move(socket) : Socket();
}

Socket open_tcp_listener(const net::TransportAddress&, const TcpOptions&, int& error) {
  error = ENOSYS;
  return {};
}
Socket connect_tcp(const net::TransportAddress&, const net::TransportAddress&, int& error) {
  error = ENOSYS;
  return {};
}

int receive_buffer(const Socket& socket) {
  int doubled = 0;
  socklen_t length = sizeof doubled;
  return getsockopt(socket.descriptor(), SOL_SOCKET, SO_RCVBUF, &doubled, &length) == 0 ? doubled / 2 : 0;
}

net::TransportAddress local_address(const Socket& socket) {
  sockaddr_in6 address{};
  socklen_t length = sizeof address;
  if (getsockname(socket.descriptor(), reinterpret_cast<sockaddr*>(&address), &length) != 0) return {};
  return net::TransportAddress::from_sockaddr(reinterpret_cast<const sockaddr*>(&address), length).value_or(net::TransportAddress{});
}

}  // namespace radiotower::io
