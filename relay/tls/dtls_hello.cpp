#include "dtls_hello.h"

#include <algorithm>
#include <utility>

namespace radiotower::tls {

namespace {

constexpr std::uint8_t alert = 21, handshake = 22;         // ContentType
constexpr std::uint8_t client_hello = 1, verify_request = 3, client_key_exchange = 16;  // HandshakeType
constexpr std::size_t longest_key_exchange = 1024;  // a point of P-384 takes 98
constexpr std::uint16_t dtls_1_0 = 0xFEFF, dtls_1_2 = 0xFEFD;

std::uint32_t load_be24(const std::uint8_t* p) { return std::uint32_t{p[0]} << 16 | load_be16(p + 1); }
void store_be24(std::uint8_t* p, std::size_t v) {
  p[0] = static_cast<std::uint8_t>(v >> 16);
  store_be16(p + 1, static_cast<std::uint16_t>(v));
}

/// Takes a vector with a length of `length_size` bytes off the front of `rest`.
bool take_vector(Bytes& rest, std::size_t length_size, Bytes& vector) {
  if (rest.size() < length_size) return false;
  const std::size_t length = length_size == 1 ? rest[0] : load_be16(rest.data());
  if (rest.size() - length_size < length) return false;
  vector = rest.subspan(length_size, length);
  rest = rest.subspan(length_size + length);
  return true;
}

/// A record in answer to `hello` has its sequence number (4.2.1), and the version that all clients read before they have agreed on one.
void write_record_header(std::uint8_t* p, std::uint8_t type, const ClientHello& hello, std::size_t length) {
  p[0] = type;
  store_be16(p + 1, dtls_1_0);
  store_be16(p + 3, 0);  // epoch
  std::copy(hello.sequence_number.begin(), hello.sequence_number.end(), p + 5);
  store_be16(p + 11, static_cast<std::uint16_t>(length));
}

}  // namespace

bool begins_client_hello(Bytes datagram) {
  return datagram.size() > record_header_size && datagram[0] == handshake && load_be16(datagram.data() + 3) == 0 &&
         datagram[record_header_size] == client_hello;
}

std::optional<ClientHello> read_client_hello(Bytes datagram) {
  if (datagram.size() < record_header_size + handshake_header_size || !begins_client_hello(datagram) || datagram[1] != 0xFE) return std::nullopt;
  const std::size_t record_length = load_be16(datagram.data() + 11);
  if (record_length > datagram.size() - record_header_size || record_length < handshake_header_size) return std::nullopt;

  const Bytes message = datagram.subspan(record_header_size, record_length);
  const std::size_t length = load_be24(message.data() + 1), offset = load_be24(message.data() + 6), fragment = load_be24(message.data() + 9);
  if (offset != 0 || fragment != length || length != message.size() - handshake_header_size) return std::nullopt;

  Bytes body = message.subspan(handshake_header_size);
  if (body.size() < 34 || body[0] != 0xFE) return std::nullopt;
  ClientHello hello;
  hello.sequence_number = datagram.subspan(5, 6);
  hello.knows_dtls_1_2 = load_be16(body.data()) <= dtls_1_2;  // newer ones have smaller numbers
  hello.random = body.subspan(2, 32);
  body = body.subspan(34);
  Bytes session, suites, compressions, extensions;
  if (!take_vector(body, 1, session) || session.size() > 32 || !take_vector(body, 1, hello.cookie)) return std::nullopt;
  if (!take_vector(body, 2, suites) || suites.size() < 2 || suites.size() % 2 != 0) return std::nullopt;
  if (!take_vector(body, 1, compressions) || compressions.empty()) return std::nullopt;
  if (!body.empty() && (!take_vector(body, 2, extensions) || !body.empty())) return std::nullopt;
  return hello;
}

namespace {

bool is_awaited(Bytes fragments) {
  while (!fragments.empty()) {
    if (fragments.size() < handshake_header_size) return false;
    const std::size_t length = load_be24(fragments.data() + 1), size = load_be24(fragments.data() + 9);
    if (size > fragments.size() - handshake_header_size) return false;
    const bool good = (fragments[0] == client_hello && size == length) || (fragments[0] == client_key_exchange && length <= longest_key_exchange);
    if (!good) return false;
    fragments = fragments.subspan(handshake_header_size + size);
  }
  return true;
}

}  // namespace

Bytes front_of_flight(Bytes datagram, std::size_t& early) {
  std::size_t at = 0;
  bool has_early = false;
  while (datagram.size() - at >= record_header_size) {
    const std::uint8_t* record = datagram.data() + at;
    const std::size_t length = load_be16(record + 11);
    if (length > datagram.size() - at - record_header_size) break;
    if (load_be16(record + 3) != 0) {
      if (!std::exchange(has_early, true)) early = at;
    } else if (record[0] == handshake && !is_awaited(datagram.subspan(at + record_header_size, length))) {
      break;
    }
    at += record_header_size + length;
  }
  if (!has_early) early = at;
  return datagram.first(at);
}

std::array<std::uint8_t, hello_verify_request_size> hello_verify_request(const ClientHello& hello, const DtlsCookie& cookie) {
  std::array<std::uint8_t, hello_verify_request_size> out{};
  constexpr std::size_t length = 3 + cookie_size;
  write_record_header(out.data(), handshake, hello, handshake_header_size + length);
  std::uint8_t* p = out.data() + record_header_size;
  p[0] = verify_request;
  store_be24(p + 1, length);
  store_be24(p + 9, length);  // message_seq and fragment_offset are 0
  p += handshake_header_size;
  store_be16(p, dtls_1_0);  // 4.2.1: whatever version is negotiated later
  p[2] = cookie_size;
  std::copy(cookie.begin(), cookie.end(), p + 3);
  return out;
}

std::array<std::uint8_t, record_header_size + 2> version_alert(const ClientHello& hello) {
  std::array<std::uint8_t, record_header_size + 2> out{};
  write_record_header(out.data(), alert, hello, 2);
  out[record_header_size] = 2;       // fatal
  out[record_header_size + 1] = 70;  // protocol_version
  return out;
}

}  // namespace radiotower::tls
