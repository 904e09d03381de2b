// The numbers of STUN and TURN, as IANA has them ("STUN Parameters", "TURN Channel Numbers").
// tests/data/iana-*.csv hold the registries; a test compares.
#pragma once

#include <cstddef>
#include <cstdint>

namespace radiotower::stun {

inline constexpr std::uint32_t magic_cookie = 0x2112A442;  // RFC 8489, 5
inline constexpr std::size_t header_size = 20;
inline constexpr std::uint32_t fingerprint_xor = 0x5354554E;  // RFC 8489, 14.7

enum class Method : std::uint16_t {
  binding = 0x001,
  allocate = 0x003,
  refresh = 0x004,
  send = 0x006,
  data = 0x007,
  create_permission = 0x008,
  channel_bind = 0x009,
  connect = 0x00A,
  connection_bind = 0x00B,
  connection_attempt = 0x00C,
};

enum class Class : std::uint8_t { request = 0, indication = 1, success = 2, error = 3 };

enum class Attribute : std::uint16_t {
  mapped_address = 0x0001,
  change_request = 0x0003,  // RFC 5780, 7.2
  username = 0x0006,
  message_integrity = 0x0008,
  error_code = 0x0009,
  unknown_attributes = 0x000A,
  channel_number = 0x000C,
  lifetime = 0x000D,
  xor_peer_address = 0x0012,
  data = 0x0013,
  realm = 0x0014,
  nonce = 0x0015,
  xor_relayed_address = 0x0016,
  requested_address_family = 0x0017,
  even_port = 0x0018,
  requested_transport = 0x0019,
  dont_fragment = 0x001A,
  access_token = 0x001B,  // RFC 7635, 6.2
  message_integrity_sha256 = 0x001C,
  password_algorithm = 0x001D,
  userhash = 0x001E,
  xor_mapped_address = 0x0020,
  reservation_token = 0x0022,
  padding = 0x0026,        // RFC 5780, 7.6
  response_port = 0x0027,  // RFC 5780, 7.5
  connection_id = 0x002A,  // RFC 6062, 6.2.1
  additional_address_family = 0x8000,
  address_error_code = 0x8001,
  password_algorithms = 0x8002,
  alternate_domain = 0x8003,
  icmp = 0x8004,
  software = 0x8022,
  alternate_server = 0x8023,
  fingerprint = 0x8028,
  response_origin = 0x802B,            // RFC 5780, 7.3
  other_address = 0x802C,              // RFC 5780, 7.4
  third_party_authorization = 0x802E,  // RFC 7635, 6.1
  origin = 0x802F,                     // draft-ietf-tram-stun-origin, 3
  mobility_ticket = 0x8030,            // RFC 8016, 3.3
};

enum class ErrorCode : std::uint16_t {
  try_alternate = 300,
  bad_request = 400,
  unauthenticated = 401,
  forbidden = 403,
  mobility_forbidden = 405,            // RFC 8016, 3.4
  unknown_attribute = 420,
  allocation_mismatch = 437,
  stale_nonce = 438,
  address_family_not_supported = 440,
  wrong_credentials = 441,
  unsupported_transport_protocol = 442,
  peer_address_family_mismatch = 443,
  connection_already_exists = 446,     // RFC 6062, 6.3
  connection_timeout_or_failure = 447,
  allocation_quota_reached = 486,
  server_error = 500,
  insufficient_capacity = 508,
};
const char* reason_phrase(ErrorCode code);

enum class PasswordAlgorithm : std::uint16_t { md5 = 0x0001, sha256 = 0x0002 };  // RFC 8489, 18.5

inline constexpr std::uint16_t first_channel = 0x4000;  // RFC 8656, 12
inline constexpr std::uint16_t last_channel = 0x4FFF;
inline constexpr std::uint16_t last_channel_rfc5766 = 0x7FFF;
inline constexpr std::size_t channel_header_size = 4;

/// The first byte tells the protocols of one port apart (RFC 7983; RFC 8656, 12, table 3).
enum class FirstByte : std::uint8_t { stun, channel_data, other };
constexpr FirstByte classify(std::uint8_t first) {
  if (first <= 3) return FirstByte::stun;
  if (first >= 0x40 && first <= 0x4F) return FirstByte::channel_data;
  return FirstByte::other;
}

}  // namespace radiotower::stun
