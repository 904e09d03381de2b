// UDP and TCP sockets, opened the way a relay needs them. Owns one descriptor.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "radiotower/net/address.h"

namespace radiotower::io {

class Socket {
 public:
  Socket() = default;
  explicit Socket(int descriptor) : descriptor_(descriptor) {}
  Socket(Socket&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  Socket& operator=(Socket&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    return *this;
  }
  ~Socket();
  int descriptor() const { return descriptor_; }
  int release() { return std::exchange(descriptor_, -1); }
  explicit operator bool() const { return descriptor_ >= 0; }

 private:
  int descriptor_ = -1;
};

struct UdpOptions {
  bool reuse_port = false;     // listeners: one socket a worker
  bool report_errors = false;  // IP_RECVERR: relay sockets
  int receive_buffer = 0;      // bytes; tries SO_RCVBUFFORCE, then SO_RCVBUF; 0: the system's default
  int send_buffer = 0;
  bool trains = true;  // UDP_GRO where the kernel has it: what arrives in a row is handed over as one
};

/// Opens, sets and binds a non-blocking, close-on-exec UDP socket. IPv6 sockets are IPV6_V6ONLY; path MTU discovery is off, so that
/// the kernel fragments and never sets DF by itself (RFC 8656, 13: DF follows DONT-FRAGMENT alone).
/// On failure: an empty Socket, errno in `error`.
Socket open_udp(const net::TransportAddress& local, const UdpOptions& options, int& error);
net::TransportAddress local_address(const Socket& socket);
struct TcpOptions {
  bool reuse_port = false;     // SO_REUSEPORT beside SO_REUSEADDR: listeners, one a worker; relayed addresses, which also connect (RFC 6062, 5.2)
  int backlog = 1024;
};
/// A listening socket, bound, non-blocking, close-on-exec; IPv6 sockets are IPV6_V6ONLY. On failure: an empty Socket, errno in `error`.
Socket open_tcp_listener(const net::TransportAddress& local, const TcpOptions& options, int& error);
/// Begins to connect from `local` (port 0: any) to `peer`. Connected at once or on its way; empty with an errno when neither.
Socket connect_tcp(const net::TransportAddress& local, const net::TransportAddress& peer, int& error);

/// A socket that somebody else has bound, as a service manager does for us.
struct BoundSocket {
  Socket socket;
  net::TransportAddress address;  // may be a wildcard
  bool is_stream = false;  // a listening one of TCP; else UDP
  bool v6_only = true;     // false: "[::]" is of IPv4 too
};
/// What `descriptor` is, which is owned from here on; nullopt and closed, with a sentence in `why`, when it is neither of both.
std::optional<BoundSocket> take_bound(int descriptor, std::string& why);
/// Another descriptor of the same socket; empty: too many open files.
Socket duplicate(const Socket& socket);
/// Sets what open_udp() and open_tcp_listener() set, as far as it can be set once a socket is bound.
void adopt_udp(const Socket& socket, const UdpOptions& options);
void adopt_tcp_listener(const Socket& socket);

/// What the kernel has made of UdpOptions::receive_buffer, in the caller's unit (the kernel itself counts twice that).
int receive_buffer(const Socket& socket);

/// Addresses of this host's interfaces that are up.
struct HostAddress {
  net::IpAddress ip;
  std::string interface;
  bool loopback = false;
  bool deprecated_or_temporary = false;  // IPv6
  std::uint32_t scope = 0;               // link-local IPv6
  net::IpAddress broadcast;              // IPv4, else "::"
};
std::vector<HostAddress> host_addresses();

}  // namespace radiotower::io
