#include "radiotower/stun/message.h"

#include <algorithm>

#include "radiotower/stun/crypto.h"
#include "xor_address.h"

namespace radiotower::stun {

namespace {

constexpr std::size_t padded(std::size_t length) { return (length + 3) & ~std::size_t{3}; }

/// The header as the sender had it when it computed the integrity: its length ends with that attribute (RFC 8489, 14.5).
std::array<std::uint8_t, header_size> header_until(Bytes message, std::size_t end) {
  std::array<std::uint8_t, header_size> header;
  std::copy_n(message.begin(), header_size, header.begin());
  store_be16(header.data() + 2, static_cast<std::uint16_t>(end - header_size));
  return header;
}

}  // namespace

bool is_known(std::uint16_t type) {
  switch (static_cast<Attribute>(type)) {
    case Attribute::mapped_address:
    case Attribute::change_request:
    case Attribute::username:
    case Attribute::message_integrity:
    case Attribute::error_code:
    case Attribute::unknown_attributes:
    case Attribute::channel_number:
    case Attribute::lifetime:
    case Attribute::xor_peer_address:
    case Attribute::data:
    case Attribute::realm:
    case Attribute::nonce:
    case Attribute::xor_relayed_address:
    case Attribute::requested_address_family:
    case Attribute::even_port:
    case Attribute::requested_transport:
    case Attribute::dont_fragment:
    case Attribute::access_token:
    case Attribute::message_integrity_sha256:
    case Attribute::password_algorithm:
    case Attribute::userhash:
    case Attribute::xor_mapped_address:
    case Attribute::reservation_token:
    case Attribute::padding:
    case Attribute::response_port:
    case Attribute::connection_id:
    case Attribute::response_origin:
    case Attribute::other_address:
    case Attribute::third_party_authorization:
    case Attribute::origin:
    case Attribute::mobility_ticket:
    case Attribute::additional_address_family:
    case Attribute::address_error_code:
    case Attribute::password_algorithms:
    case Attribute::alternate_domain:
    case Attribute::icmp:
    case Attribute::software:
    case Attribute::alternate_server:
    case Attribute::fingerprint: return true;
  }
  return false;
}

std::optional<Message> Message::read(Bytes datagram, ReadError* error) {
  const auto fail = [&](ReadError e) -> std::optional<Message> {
    if (error) *error = e;
    return std::nullopt;
  };
  // RFC 8489, 6.3: first two bits 00, the cookie, a sensible length; all silently.
  if (datagram.size() < header_size) return fail(ReadError::too_short);
  if ((datagram[0] & 0xC0) != 0) return fail(ReadError::not_stun);
  if (load_be32(datagram.data() + 4) != magic_cookie) return fail(ReadError::bad_cookie);
  const std::size_t length = load_be16(datagram.data() + 2);
  if (length % 4 != 0 || length + header_size != datagram.size()) return fail(ReadError::bad_length);
  // A stream can carry 20 + 65,532 bytes. Offsets are kept in 16 bits, so what would wrap them is refused (H15); no UDP
  // datagram gets there.
  if (datagram.size() > 0xFFFF) return fail(ReadError::bad_length);

  Message m;
  m.bytes_ = datagram;
  const std::uint16_t type = load_be16(datagram.data());
  // RFC 8489, 5: M11-M7 C1 M6-M4 C0 M3-M0.
  m.class_ = static_cast<Class>(((type >> 7) & 2) | ((type >> 4) & 1));
  m.method_ = static_cast<Method>((type & 0x000F) | ((type >> 1) & 0x0070) | ((type >> 2) & 0x0F80));
  std::copy_n(datagram.begin() + 8, m.transaction_id_.size(), m.transaction_id_.begin());

  std::size_t seen = 0;
  for (std::size_t at = header_size; at < datagram.size();) {
    if (datagram.size() - at < 4) return fail(ReadError::bad_attribute);
    if (++seen > max_attributes) return fail(ReadError::too_many_attributes);
    const std::uint16_t attribute = load_be16(datagram.data() + at);
    const std::size_t size = load_be16(datagram.data() + at + 2);
    if (padded(size) > datagram.size() - at - 4) return fail(ReadError::bad_attribute);
    const std::size_t next = at + 4 + padded(size);

    if (attribute == static_cast<std::uint16_t>(Attribute::fingerprint)) {
      // RFC 8489, 14.7: the last attribute; wrong, on a port shared with other protocols, means it is not STUN.
      if (size != 4 || next != datagram.size() || m.has_fingerprint_) return fail(ReadError::bad_fingerprint);
      if (load_be32(datagram.data() + at + 4) != (crc32(datagram.first(at)) ^ fingerprint_xor))
        return fail(ReadError::bad_fingerprint);
      m.has_fingerprint_ = true;
    } else if (attribute == static_cast<std::uint16_t>(Attribute::message_integrity)) {
      if (!m.has_integrity() && !m.has_integrity_sha256()) m.integrity_offset_ = static_cast<std::uint16_t>(at);
    } else if (attribute == static_cast<std::uint16_t>(Attribute::message_integrity_sha256)) {
      if (!m.has_integrity_sha256()) m.integrity_sha256_offset_ = static_cast<std::uint16_t>(at);
    } else if (!m.has_integrity() && !m.has_integrity_sha256()) {
      // What stands behind is not covered, so it is not there (14.5).
      m.entries_[m.count_++] = {attribute, static_cast<std::uint16_t>(size), static_cast<std::uint16_t>(at + 4)};
      if (attribute < 0x8000 && !is_known(attribute) && m.unknown_count_ < max_unknown) {
        const auto end = m.unknown_.begin() + m.unknown_count_;
        if (std::find(m.unknown_.begin(), end, attribute) == end) m.unknown_[m.unknown_count_++] = attribute;
      }
    }
    at = next;
  }
  return m;
}

std::optional<Bytes> Message::find(Attribute type) const {
  for (std::size_t i = 0; i < count_; ++i)
    if (entries_[i].type == static_cast<std::uint16_t>(type)) return value(entries_[i]);
  return std::nullopt;
}

bool Message::integrity_matches(Bytes key) const {
  if (!has_integrity() || load_be16(bytes_.data() + integrity_offset_ + 2) != 20) return false;
  const auto header = header_until(bytes_, integrity_offset_ + 24u);
  const Sha1 mac = hmac_sha1(key, header, bytes_.subspan(header_size, integrity_offset_ - header_size));
  return equal_in_constant_time(mac, bytes_.subspan(integrity_offset_ + 4u, mac.size()));
}

bool Message::integrity_sha256_matches(Bytes key) const {
  if (!has_integrity_sha256() || load_be16(bytes_.data() + integrity_sha256_offset_ + 2) != 32) return false;
  const auto header = header_until(bytes_, integrity_sha256_offset_ + 36u);
  const Sha256 mac = hmac_sha256(key, header, bytes_.subspan(header_size, integrity_sha256_offset_ - header_size));
  return equal_in_constant_time(mac, bytes_.subspan(integrity_sha256_offset_ + 4u, mac.size()));
}

namespace {

std::optional<WireAddress> read_plain(Bytes value) {
  if (value.size() < 4) return std::nullopt;
  // The first byte is reserved and ignored (RFC 8489, 14.1).
  const auto family = static_cast<net::Family>(value[1]);
  WireAddress a;
  a.family = family;
  a.address.port = load_be16(value.data() + 2);
  if (family == net::Family::ipv4 && value.size() == 8) a.address.ip = net::IpAddress::v4(value.data() + 4);
  else if (family == net::Family::ipv6 && value.size() == 20) a.address.ip = net::IpAddress::v6(value.data() + 4);
  else return std::nullopt;
  return a;
}

}  // namespace

std::optional<WireAddress> read_address(Bytes value) { return read_plain(value); }

std::optional<WireAddress> read_xor_address(Bytes value, const TransactionId& id) {
  if (value.size() != 8 && value.size() != 20) return std::nullopt;
  std::array<std::uint8_t, 20> copy;
  std::copy(value.begin(), value.end(), copy.begin());
  const MutableBytes plain(copy.data(), value.size());
  xor_address(plain, id);
  return read_plain(plain);
}

std::optional<std::uint32_t> read_u32(Bytes value) {
  if (value.size() != 4) return std::nullopt;
  return load_be32(value.data());
}

std::optional<ErrorValue> read_error_code(Bytes value) {
  if (value.size() < 4) return std::nullopt;
  const unsigned hundreds = value[2] & 7, number = value[3];
  if (hundreds < 3 || hundreds > 6 || number > 99) return std::nullopt;  // RFC 8489, 14.8
  return ErrorValue{static_cast<std::uint16_t>(hundreds * 100 + number), as_text(value.subspan(4))};
}

}  // namespace radiotower::stun
