// Reading and writing STUN messages (RFC 8489, 5, 14). Pure functions over bytes; nothing is copied, nothing is allocated.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string_view>

#include "radiotower/base/bytes.h"
#include "radiotower/net/address.h"
#include "radiotower/stun/protocol.h"

namespace radiotower::stun {

using TransactionId = std::array<std::uint8_t, 12>;

/// Why a datagram is not a STUN message we may look at. All of these are dropped silently (RFC 8489, 6.3) and counted.
enum class ReadError : std::uint8_t {
  too_short,         // under 20 bytes
  not_stun,          // first two bits not 00
  bad_cookie,
  bad_length,        // not a multiple of four, or not the datagram's own length
  bad_attribute,     // an attribute runs past the end, stray bytes
  too_many_attributes,  // more than Message::max_attributes
  bad_fingerprint,   // present and wrong, not last, not 4 bytes, or twice
};

/// A family as written on the wire and the canonical address (an IPv4-mapped IPv6 address becomes IPv4 in `address`,
/// while `family` still says ipv6).
struct WireAddress {
  net::Family family = net::Family::ipv4;
  net::TransportAddress address;
};

/// A view of one well-formed message. Lives as long as the bytes it was read from.
///
/// Yields the first attribute of a type only (RFC 8489, 14), and only those that stand before the first MESSAGE-INTEGRITY or
/// MESSAGE-INTEGRITY-SHA256 (14.5: what follows is ignored, save MESSAGE-INTEGRITY-SHA256 behind MESSAGE-INTEGRITY, and FINGERPRINT).
class Message {
 public:
  static constexpr std::size_t max_attributes = 128;  // a CreatePermission of a hundred peers is read, a datagram full of empty attributes is not
  static constexpr std::size_t max_unknown = 16;  // how many unknown comprehension-required types are remembered

  /// The datagram must hold exactly one message. A FINGERPRINT, when present, is checked here.
  static std::optional<Message> read(Bytes datagram, ReadError* error = nullptr);

  Method method() const { return method_; }  // any 12-bit value, also ones without a name
  Class message_class() const { return class_; }
  bool is(Class c, Method m) const { return class_ == c && method_ == m; }
  const TransactionId& transaction_id() const { return transaction_id_; }
  Bytes bytes() const { return bytes_; }

  /// The attribute's value without padding, or nullopt when it is absent (a present, empty one is an empty span).
  std::optional<Bytes> find(Attribute type) const;
  bool has(Attribute type) const { return find(type).has_value(); }
  bool has_fingerprint() const { return has_fingerprint_; }

  /// The unknown comprehension-required types among the covered attributes, first come, each once, at most max_unknown.
  std::span<const std::uint16_t> unknown_required() const { return {unknown_.data(), unknown_count_}; }

  /// Every XOR-PEER-ADDRESS before the integrity attribute, in order (CreatePermission has several; RFC 8656, 10.2).
  template <typename Visit>
  void for_each(Attribute type, Visit&& visit) const {
    for (std::size_t i = 0; i < count_; ++i)
      if (entries_[i].type == static_cast<std::uint16_t>(type)) visit(value(entries_[i]));
  }

  bool has_integrity() const { return integrity_offset_ != 0; }
  bool has_integrity_sha256() const { return integrity_sha256_offset_ != 0; }
  /// Checks MESSAGE-INTEGRITY (HMAC-SHA1; RFC 8489, 14.5) in constant time. False when it is absent or not 20 bytes long.
  bool integrity_matches(Bytes key) const;
  /// Checks MESSAGE-INTEGRITY-SHA256 (14.6). TURN gives no leave to truncate: only 32 bytes match.
  bool integrity_sha256_matches(Bytes key) const;

 private:
  struct Entry {
    std::uint16_t type;
    std::uint16_t length;
    std::uint16_t offset;  // of the value
  };
  Bytes value(const Entry& e) const { return bytes_.subspan(e.offset, e.length); }

  Bytes bytes_;
  Method method_{};
  Class class_{};
  TransactionId transaction_id_{};
  bool has_fingerprint_ = false;
  std::uint16_t integrity_offset_ = 0;         // of the attribute's header; 0: absent
  std::uint16_t integrity_sha256_offset_ = 0;
  std::uint8_t count_ = 0;
  std::uint8_t unknown_count_ = 0;
  std::array<Entry, max_attributes> entries_;  // covered attributes only; deliberately not zeroed, count_ of them are set
  std::array<std::uint16_t, max_unknown> unknown_;
};

// Values of attributes. nullopt: the form is wrong (length, family), which in a request is a 400.
std::optional<WireAddress> read_xor_address(Bytes value, const TransactionId& id);
std::optional<WireAddress> read_address(Bytes value);
std::optional<std::uint32_t> read_u32(Bytes value);  // LIFETIME; exactly 4 bytes
struct ErrorValue {
  std::uint16_t code = 0;
  std::string_view reason;
};
std::optional<ErrorValue> read_error_code(Bytes value);  // RFC 8489, 14.8

/// True for types that this library can name; the rest are "unknown" (420 when below 0x8000).
bool is_known(std::uint16_t attribute_type);

/// Writes one message into a buffer of the caller. Padding and reserved bytes are zero. When the buffer is too small
/// `ok()` turns false and nothing more is written. Order is the caller's: integrity next to last, fingerprint last.
class Writer {
 public:
  Writer(MutableBytes out, Class message_class, Method method, const TransactionId& id);

  Writer& add(Attribute type, Bytes value);
  Writer& add(Attribute type, std::string_view text) { return add(type, as_bytes(text)); }
  Writer& add_u32(Attribute type, std::uint32_t value);
  Writer& add_empty(Attribute type) { return add(type, Bytes{}); }
  Writer& add_xor_address(Attribute type, const net::TransportAddress& address);
  Writer& add_address(Attribute type, const net::TransportAddress& address);
  Writer& add_error(ErrorCode code, std::string_view reason);  // reason may be empty
  Writer& add_unknown_attributes(std::span<const std::uint16_t> types);
  Writer& add_integrity(Bytes key);         // MESSAGE-INTEGRITY over all so far
  Writer& add_integrity_sha256(Bytes key);  // MESSAGE-INTEGRITY-SHA256, 32 bytes
  Writer& add_fingerprint();

  bool ok() const { return ok_; }
  MutableBytes bytes() const { return out_.first(size_); }  // the message so far, its length field right

 private:
  std::uint8_t* append(Attribute type, std::size_t length);  // nullptr: no room
  MutableBytes out_;
  std::size_t size_ = 0;
  bool ok_ = true;
};

/// ADDRESS-ERROR-CODE (RFC 8656, 18.12), ICMP (18.13): values to hand to Writer::add.
std::array<std::uint8_t, 4> address_error_value(net::Family family, ErrorCode code);
std::array<std::uint8_t, 8> icmp_value(std::uint8_t type, std::uint8_t code, std::uint32_t error_data);

}  // namespace radiotower::stun
