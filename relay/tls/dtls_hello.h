// The first two messages of a DTLS handshake (RFC 6347, 4.2.1), read and written without a session. Pure.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "radiotower/base/bytes.h"

namespace radiotower::tls {

constexpr std::size_t record_header_size = 13, handshake_header_size = 12, cookie_size = 32;
using DtlsCookie = std::array<std::uint8_t, cookie_size>;

/// Points into the datagram.
struct ClientHello {
  Bytes sequence_number;  // of its record: 6 bytes
  Bytes random;           // 32 bytes
  Bytes cookie;           // empty: none
  bool knows_dtls_1_2 = false;
};

/// Whether a datagram begins with a record in the clear that begins a ClientHello, be it whole or good or not.
bool begins_client_hello(Bytes datagram);

/// A whole ClientHello in the clear at the front of a datagram. One in fragments is not taken: it would have to be kept before its sender has proved
/// anything (4.2.1 asks for that only where the whole of it fits into none).
std::optional<ClientHello> read_client_hello(Bytes datagram);

/// The front of a datagram that a client may send within its handshake; `early`: where its first record of a later epoch begins, or the end. OpenSSL
/// keeps room for what a fragment announces, up to 100 KB and for ten messages ahead; of a client we await a whole ClientHello, and a ClientKeyExchange.
Bytes front_of_flight(Bytes datagram, std::size_t& early);

constexpr std::size_t hello_verify_request_size = record_header_size + handshake_header_size + 3 + cookie_size;
std::array<std::uint8_t, hello_verify_request_size> hello_verify_request(const ClientHello& hello, const DtlsCookie& cookie);

/// The fatal alert protocol_version (RFC 5246, 7.2.2).
std::array<std::uint8_t, record_header_size + 2> version_alert(const ClientHello& hello);

}  // namespace radiotower::tls
