// What the tests of stun/ speak in: bytes from hex, the published vectors, a good message to break.
#pragma once

#include <cstdint>
#include <cstring>
#include <fstream>
#include <initializer_list>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "radiotower/stun/crypto.h"
#include "radiotower/stun/message.h"

namespace radiotower::stun {

/// On the heap and of the exact size, so that the address sanitizer sees a single byte read too far.
using Datagram = std::vector<std::uint8_t>;

inline Datagram from_hex_text(std::string_view text) {
  std::string digits;
  for (const char c : text)
    if (c != ' ' && c != '\n') digits.push_back(c);
  const auto bytes = from_hex(digits);
  return bytes ? Datagram(bytes->begin(), bytes->end()) : Datagram{};
}

inline std::ifstream open_data(const std::string& name) { return std::ifstream(std::string(TEST_DATA) + "/" + name); }

/// tests/data/stun-vectors.txt, by name.
inline Datagram published(const std::string& name) {
  std::ifstream file = open_data("stun-vectors.txt");
  std::string line, digits;
  bool inside = false;
  while (std::getline(file, line)) {
    if (line.rfind("= ", 0) == 0) inside = line.substr(2) == name;
    else if (inside && line.rfind("#", 0) != 0) digits += line;
  }
  return from_hex_text(digits);
}

inline constexpr TransactionId some_id = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
inline const Key some_key = long_term_key(PasswordAlgorithm::md5, "alice", "example.org", "secret");

struct Raw {
  std::uint16_t type;
  Datagram value;
};

/// A message of these attributes as they are, right or wrong; the header is right.
inline Datagram message_of(std::initializer_list<Raw> attributes, std::uint16_t type = 0x0003) {
  Datagram d(header_size);
  store_be16(d.data(), type);
  store_be32(d.data() + 4, magic_cookie);
  std::memcpy(d.data() + 8, some_id.data(), some_id.size());
  for (const Raw& a : attributes) {
    const std::size_t at = d.size();
    d.resize(at + 4 + (a.value.size() + 3) / 4 * 4);
    store_be16(d.data() + at, a.type);
    store_be16(d.data() + at + 2, static_cast<std::uint16_t>(a.value.size()));
    if (!a.value.empty()) std::memcpy(d.data() + at + 4, a.value.data(), a.value.size());
  }
  store_be16(d.data() + 2, static_cast<std::uint16_t>(d.size() - header_size));
  return d;
}

inline Raw raw(Attribute type, std::string_view text) {
  return {static_cast<std::uint16_t>(type), Datagram(text.begin(), text.end())};
}

/// An Allocate request as a client sends it: credentials, integrity, and a fingerprint when asked for.
inline Datagram allocate_request(bool fingerprint) {
  Datagram buffer(512);
  Writer w(buffer, Class::request, Method::allocate, some_id);
  w.add_u32(Attribute::requested_transport, 17u << 24);
  w.add(Attribute::username, "alice").add(Attribute::realm, "example.org").add(Attribute::nonce, "0123456789");
  w.add_integrity(some_key.bytes());
  if (fingerprint) w.add_fingerprint();
  buffer.resize(w.bytes().size());
  return buffer;
}

inline std::optional<ReadError> error_of(Bytes datagram) {
  ReadError error{};
  if (Message::read(datagram, &error)) return std::nullopt;
  return error;
}

/// Appends a message's fingerprint, its length field made right.
inline Datagram with_fingerprint(Datagram d) {
  store_be16(d.data() + 2, static_cast<std::uint16_t>(d.size() + 8 - header_size));
  const std::uint32_t crc = crc32(d) ^ fingerprint_xor;
  d.resize(d.size() + 8);
  store_be32(d.data() + d.size() - 8, 0x80280004);
  store_be32(d.data() + d.size() - 4, crc);
  return d;
}

/// Appends one attribute behind whatever the message ends with.
inline Datagram appended(Datagram d, const Raw& attribute) {
  const Datagram one = message_of({attribute});
  d.insert(d.end(), one.begin() + header_size, one.end());
  store_be16(d.data() + 2, static_cast<std::uint16_t>(d.size() - header_size));
  return d;
}

}  // namespace radiotower::stun
