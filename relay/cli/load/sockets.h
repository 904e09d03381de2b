// The sockets of clients and peers, in whichever network namespace they belong.
#pragma once

#include <netinet/in.h>

#include <cstdint>
#include <optional>
#include <string>

#include "radiotower/net/address.h"

namespace radiotower::load {

/// An address as the kernel takes it, either family.
struct Name {
  union {
    sockaddr any;
    sockaddr_in v4;
    sockaddr_in6 v6;
  } value{};
  socklen_t length = 0;

  Name() = default;
  explicit Name(const net::TransportAddress& address) { length = static_cast<socklen_t>(address.to_sockaddr(&value)); }
  bool empty() const { return length == 0; }
  /// Address, port and family; not the flow label and the scope that IPv6 adds.
  bool is_same(const Name& other) const;
};

/// Puts the calling thread into a named network namespace (ip netns) for its own lifetime; "" changes nothing.
/// Throws std::runtime_error with a sentence.
class InNamespace {
 public:
  explicit InNamespace(const std::string& name);
  ~InNamespace();
  InNamespace(const InNamespace&) = delete;
  InNamespace& operator=(const InNamespace&) = delete;

 private:
  int before_ = -1;
};

/// The n-th address and port of a row that begins with `first`.
net::TransportAddress offset(const net::TransportAddress& first, std::uint32_t addresses, std::uint32_t ports);

/// A non-blocking UDP socket, bound when there is a `local`. Throws std::runtime_error with a sentence.
int open_socket(net::Family family, const std::optional<net::TransportAddress>& local, int receive_buffer);
net::TransportAddress local_address(int socket);
/// Datagrams that the kernel has thrown away because this socket's buffer was full, since it was opened.
std::uint64_t drops_of(int socket);

/// Takes as many descriptors as this process may have; throws when `needed` are more.
void want_descriptors(std::size_t needed);

}  // namespace radiotower::load
