#include "radiotower/io/socket.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
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

namespace {

/// What every TCP socket here has; those that a listener accepts inherit it. A client that has silently gone is known after two minutes,
/// and NATs see a sign of life in time.
bool set_tcp(int d) {
  return set(d, SOL_SOCKET, SO_REUSEADDR, 1) && set(d, IPPROTO_TCP, TCP_NODELAY, 1) && set(d, SOL_SOCKET, SO_KEEPALIVE, 1) &&
         set(d, IPPROTO_TCP, TCP_KEEPIDLE, 60) && set(d, IPPROTO_TCP, TCP_KEEPINTVL, 15) && set(d, IPPROTO_TCP, TCP_KEEPCNT, 4);
}

Socket tcp(bool v4) {
  Socket socket(::socket(v4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  const bool ok = socket && set_tcp(socket.descriptor()) && (v4 || set(socket.descriptor(), IPPROTO_IPV6, IPV6_V6ONLY, 1));
  if (ok) return socket;
  const int saved = errno;
  socket = Socket();
  errno = saved;
  return {};
}

bool bind_to(int d, const net::TransportAddress& local) {
  sockaddr_in6 address;
  const auto length = static_cast<socklen_t>(local.to_sockaddr(&address));
  return bind(d, reinterpret_cast<const sockaddr*>(&address), length) == 0;
}

}  // namespace

Socket open_tcp_listener(const net::TransportAddress& local, const TcpOptions& options, int& error) {
  Socket socket = tcp(local.ip.is_v4());
  const int d = socket.descriptor();
  bool ok = d >= 0;
  if (ok && options.reuse_port) ok = set(d, SOL_SOCKET, SO_REUSEPORT, 1);
  ok = ok && bind_to(d, local) && listen(d, options.backlog) == 0;
  error = ok ? 0 : errno;
  return ok ? std::move(socket) : Socket();
}

Socket connect_tcp(const net::TransportAddress& local, const net::TransportAddress& peer, int& error) {
  Socket socket = tcp(peer.ip.is_v4());
  const int d = socket.descriptor();
  bool ok = d >= 0;
  // A relayed address listens and connects from the same port (RFC 6062, 5.2). Without a port of ours the kernel chooses one when it knows
  // the peer: then it may be one that is in use towards others.
  if (ok && local.port != 0) ok = set(d, SOL_SOCKET, SO_REUSEPORT, 1);
  if (ok && local.port == 0) set(d, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1);
  ok = ok && bind_to(d, local);
  if (ok) {
    sockaddr_in6 address;
    const auto length = static_cast<socklen_t>(peer.to_sockaddr(&address));
    ok = connect(d, reinterpret_cast<const sockaddr*>(&address), length) == 0 || errno == EINPROGRESS;
  }
  error = ok ? 0 : errno;
  return ok ? std::move(socket) : Socket();
}

std::optional<BoundSocket> take_bound(int descriptor, std::string& why) {
  BoundSocket bound;
  bound.socket = Socket(descriptor);
  const auto option = [&](int level, int name, int fallback) {
    int value = fallback;
    socklen_t length = sizeof value;
    return getsockopt(descriptor, level, name, &value, &length) == 0 ? value : fallback;
  };
  const int type = option(SOL_SOCKET, SO_TYPE, -1), family = option(SOL_SOCKET, SO_DOMAIN, -1);
  bound.is_stream = type == SOCK_STREAM;
  bound.v6_only = family != AF_INET6 || option(IPPROTO_IPV6, IPV6_V6ONLY, 1) != 0;
  bound.address = local_address(bound.socket);
  if (family != AF_INET && family != AF_INET6) why = type < 0 ? "is no socket" : "is a socket of neither IPv4 nor IPv6";
  else if (type != SOCK_STREAM && type != SOCK_DGRAM) why = "is a socket of neither TCP nor UDP";
  else if (bound.is_stream && option(SOL_SOCKET, SO_ACCEPTCONN, 0) == 0) why = "is a connection, and no listening socket (Accept=no is needed)";
  else if (bound.address.port == 0) why = "is bound to no port";
  else return bound;
  return std::nullopt;
}

Socket duplicate(const Socket& socket) { return Socket(fcntl(socket.descriptor(), F_DUPFD_CLOEXEC, 3)); }

void adopt_udp(const Socket& socket, const UdpOptions& options) {
  const int d = socket.descriptor();
  fcntl(d, F_SETFL, fcntl(d, F_GETFL) | O_NONBLOCK);
  if (local_address(socket).ip.is_v4()) set(d, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT);
  else set(d, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DONT);
  set_buffer(d, SO_RCVBUFFORCE, SO_RCVBUF, options.receive_buffer);
  set_buffer(d, SO_SNDBUFFORCE, SO_SNDBUF, options.send_buffer);
  if (options.trains) set(d, IPPROTO_UDP, UDP_GRO, 1);
}

void adopt_tcp_listener(const Socket& socket) {
  const int d = socket.descriptor();
  fcntl(d, F_SETFL, fcntl(d, F_GETFL) | O_NONBLOCK);
  set_tcp(d);
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
