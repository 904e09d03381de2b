// Addresses in one canonical form. Pure: no sockets, no resolver.
//
// An IPv4 address a.b.c.d is held as ::ffff:a.b.c.d, an IPv6 address as itself, so that one address has one spelling
// and one comparison serves both families (security: "one address, many spellings"). Whether a peer was *written* as
// a mapped IPv6 address on the wire is known only to the STUN reader (stun::WireAddress), which keeps the family beside it.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

#include "radiotower/base/bytes.h"

struct sockaddr;
struct sockaddr_in6;

namespace radiotower::net {

enum class Family : std::uint8_t { ipv4 = 1, ipv6 = 2 };  // the values of RFC 8489, 14.1

struct IpAddress {
  std::array<std::uint8_t, 16> bytes{};  // canonical, network order; all zero is "::"

  static IpAddress v4(std::uint32_t host_order);
  static IpAddress v4(const std::uint8_t* four);
  static IpAddress v6(const std::uint8_t* sixteen);  // ::ffff:a.b.c.d becomes the IPv4 address
  /// "192.0.2.1", "2001:db8::1"; no brackets, no port, no zone, no inet_aton shorthands ("10.1"). nullopt if it is anything else.
  static std::optional<IpAddress> parse(std::string_view text);

  bool is_v4() const {
    static constexpr std::uint8_t prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    return std::memcmp(bytes.data(), prefix, 12) == 0;
  }
  Family family() const { return is_v4() ? Family::ipv4 : Family::ipv6; }
  std::uint32_t v4_host_order() const { return load_be32(bytes.data() + 12); }  // is_v4() only
  const std::uint8_t* v4_bytes() const { return bytes.data() + 12; }           // is_v4() only, 4 bytes
  bool is_unspecified() const;
  bool is_loopback() const;
  bool is_multicast() const;
  bool is_link_local() const;
  /// Whom limits by source are counted for: whoever has one address of an IPv6 /64 has all of it, so the /64; an IPv4 address as it is.
  IpAddress as_source() const;

  std::string text() const;
  friend auto operator<=>(const IpAddress&, const IpAddress&) = default;
  friend bool operator==(const IpAddress& a, const IpAddress& b) {
    return std::memcmp(a.bytes.data(), b.bytes.data(), 16) == 0;
  }
};

/// An address and a port (RFC 8489, 3). `scope` is the interface index of a link-local IPv6 address (as in sockaddr_in6), else 0.
struct TransportAddress {
  IpAddress ip;
  std::uint16_t port = 0;
  std::uint32_t scope = 0;

  /// "192.0.2.1:3478", "[2001:db8::1]:3478". The port is required, decimal, 0-65535.
  static std::optional<TransportAddress> parse(std::string_view text);
  static std::optional<TransportAddress> from_sockaddr(const sockaddr* address, std::size_t length);

  Family family() const { return ip.family(); }
  std::string text() const;

  /// Writes a sockaddr_in (16 bytes) or sockaddr_in6 (28 bytes) into `out` (at least 28 bytes); returns the length.
  /// Needs no socket header here: the bytes are Linux's own layout.
  std::size_t to_sockaddr(void* out) const;

  friend auto operator<=>(const TransportAddress&, const TransportAddress&) = default;
  friend bool operator==(const TransportAddress& a, const TransportAddress& b) {
    return a.port == b.port && a.ip == b.ip && a.scope == b.scope;
  }
};

/// What tells one client from another (RFC 8656, 2: 5-tuple): the client's and the server's transport address, and the transport.
/// `udp` and `tcp` have the values of REQUESTED-TRANSPORT, which are those of IP.
enum class Transport : std::uint8_t { udp = 17, tcp = 6, tls = 1, dtls = 2 };
constexpr bool is_stream(Transport transport) { return transport == Transport::tcp || transport == Transport::tls; }
std::string_view name(Transport transport);  // "udp", "tcp", "tls", "dtls"
struct FiveTuple {
  TransportAddress client;
  TransportAddress server;
  Transport transport = Transport::udp;
  friend bool operator==(const FiveTuple&, const FiveTuple&) = default;
};

/// A contiguous range of addresses of one family, both ends included.
struct AddressRange {
  IpAddress first;
  IpAddress last;

  /// "10.0.0.0/8", "10.1.2.3", "10.1.2.3-10.1.2.9", and the same for IPv6. A CIDR whose host bits are set ("10.1.2.3/8"),
  /// a reversed range, mixed families and an impossible prefix length are refused; `why` then gets a sentence without full stop.
  static std::optional<AddressRange> parse(std::string_view text, std::string& why);

  bool contains(const IpAddress& ip) const { return ip.family() == first.family() && first <= ip && ip <= last; }
  bool is_single() const { return first == last; }
  /// The prefix length in bits of its own family (32 or 128 for a single address); nullopt when the range is no CIDR block.
  std::optional<unsigned> prefix_length() const;
  std::string text() const;  // the shortest form that parse() takes: one address, CIDR, or first-last
  friend bool operator==(const AddressRange&, const AddressRange&) = default;
};

}  // namespace radiotower::net
