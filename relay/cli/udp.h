// A UDP socket with deadlines, and names into addresses. The one place of the tool that calls the kernel about networks.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "radiotower/base/bytes.h"
#include "radiotower/net/address.h"
#include "url.h"

namespace radiotower::cli {

using Clock = std::chrono::steady_clock;

/// Addresses of a host, in the order of RFC 6724. Empty, with a sentence in `why`, when there is none.
std::vector<net::TransportAddress> resolve(const HostPort& target, std::optional<net::Family> family, std::string& why);

class UdpSocket {
 public:
  enum class Arrival : std::uint8_t { datagram, deadline, refused, failed };  // refused: ICMP says that nobody listens there

  UdpSocket() = default;
  UdpSocket(UdpSocket&& other) noexcept;
  UdpSocket& operator=(UdpSocket&& other) noexcept;
  ~UdpSocket();

  /// Connected: only datagrams of `remote` arrive, and what ICMP says about it is heard. `from`: an address of this host to send from.
  static std::optional<UdpSocket> connected_to(const net::TransportAddress& remote, std::string& why, const std::optional<net::IpAddress>& from = std::nullopt);
  /// Bound to this address, a free port when it has none.
  static std::optional<UdpSocket> bound_to(const net::TransportAddress& local, std::string& why);

  net::TransportAddress local() const;
  int release() { return std::exchange(fd_, -1); }
  /// An errno value, 0 when the datagram went out.
  int send(Bytes bytes);
  /// The DF bit from now on, whatever the kernel believes about the path. False: the kernel does not do that.
  bool forbid_fragments();
  int send_to(const net::TransportAddress& to, Bytes bytes);
  /// Waits until `deadline`. For a datagram: its size and where it came from.
  Arrival receive(MutableBytes buffer, Clock::time_point deadline, std::size_t& size, net::TransportAddress& from);
  int last_error() const { return last_error_; }

 private:
  explicit UdpSocket(int fd) : fd_(fd) {}
  static std::optional<UdpSocket> open(net::Family family, std::string& why);
  int fd_ = -1;
  int last_error_ = 0;
};

/// The address this host would send from to reach `remote`; sends nothing. nullopt when there is no route.
std::optional<net::IpAddress> source_address_towards(const net::TransportAddress& remote);

}  // namespace radiotower::cli
