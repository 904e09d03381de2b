// STUN and TURN URLs (RFC 7064, RFC 7065) and the plain HOST[:PORT] of the command line. Pure: nothing is resolved here.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "radiotower/net/address.h"

namespace radiotower::cli {

inline constexpr std::uint16_t default_port = 3478;      // stun, turn (RFC 7064, 3.2; RFC 7065, 3.2)
inline constexpr std::uint16_t default_tls_port = 5349;  // stuns, turns

/// A host as it was written, without the brackets of an IPv6 address, and a port.
struct HostPort {
  std::string host;
  std::uint16_t port = default_port;
  bool ipv6_literal = false;

  std::string text() const;  // "tower.lan:3478", "[2001:db8::1]:3478"
  static HostPort of(const net::TransportAddress& address);
};

/// "tower.lan", "192.0.2.1:3479", "[2001:db8::1]:3478", "2001:db8::1"; `why` gets a sentence when it is something else.
std::optional<HostPort> parse_host_port(std::string_view text, std::uint16_t port_when_absent, std::string& why);

/// HOST[:PORT] or stun:HOST[:PORT]: a server that is asked over UDP.
std::optional<HostPort> parse_stun_target(std::string_view text, std::string& why);

enum class Scheme : std::uint8_t { stun, stuns, turn, turns };

struct Url {
  Scheme scheme = Scheme::turn;
  HostPort server;
  bool port_given = false;
  std::optional<net::Transport> asked;  // what stands behind ?transport=: udp or tcp

  bool secure() const { return scheme == Scheme::stuns || scheme == Scheme::turns; }
  /// UDP for stun: and turn:, TLS for stuns: and turns:, unless another is asked for: turns:...?transport=udp is DTLS (RFC 7350, 4.6.1).
  net::Transport transport() const;
  std::string text() const;  // with its port and, for turn: and turns:, its transport
};

std::string stun_url(const HostPort& server);      // "stun:HOST:PORT"; a ?transport in it would be refused by Chrome
/// The URLs that browsers take for these transports: turn: for UDP and TCP, turns: with `tls_port` for TLS.
std::vector<std::string> turn_urls(const HostPort& server, std::uint16_t tls_port, const std::vector<net::Transport>& transports);

/// HOST[:PORT], stun:HOST[:PORT] or stuns:HOST[:PORT] (RFC 7064).
std::optional<Url> parse_stun_url(std::string_view text, std::string& why);
/// turn:HOST[:PORT][?transport=udp|tcp] or turns:... (RFC 7065).
std::optional<Url> parse_turn_url(std::string_view text, std::string& why);

}  // namespace radiotower::cli
