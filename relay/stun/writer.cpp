#include <algorithm>

#include "radiotower/stun/crypto.h"
#include "radiotower/stun/message.h"
#include "xor_address.h"

namespace radiotower::stun {

namespace {

std::size_t write_address(std::uint8_t* value, const net::TransportAddress& address) {
  const bool v4 = address.ip.is_v4();
  value[0] = 0;
  value[1] = static_cast<std::uint8_t>(address.family());
  store_be16(value + 2, address.port);
  if (v4) std::copy_n(address.ip.v4_bytes(), 4, value + 4);
  else std::copy_n(address.ip.bytes.data(), 16, value + 4);
  return v4 ? 8 : 20;
}

std::size_t address_size(const net::TransportAddress& address) { return address.ip.is_v4() ? 8 : 20; }

}  // namespace

Writer::Writer(MutableBytes out, Class message_class, Method method, const TransactionId& id) : out_(out) {
  if (out_.size() < header_size) {
    ok_ = false;
    return;
  }
  const auto m = static_cast<std::uint16_t>(method);
  const auto c = static_cast<std::uint16_t>(message_class);
  const int type = (m & 0x000F) | (m & 0x0070) << 1 | (m & 0x0F80) << 2 | (c & 1) << 4 | (c & 2) << 7;
  store_be16(out_.data(), static_cast<std::uint16_t>(type));
  store_be16(out_.data() + 2, 0);
  store_be32(out_.data() + 4, magic_cookie);
  std::copy(id.begin(), id.end(), out_.begin() + 8);
  size_ = header_size;
}

std::uint8_t* Writer::append(Attribute type, std::size_t length) {
  const std::size_t whole = 4 + ((length + 3) & ~std::size_t{3});
  if (!ok_ || length > 0xFFFF || out_.size() - size_ < whole || size_ + whole > 0xFFFF) {
    ok_ = false;
    return nullptr;
  }
  std::uint8_t* at = out_.data() + size_;
  store_be16(at, static_cast<std::uint16_t>(type));
  store_be16(at + 2, static_cast<std::uint16_t>(length));
  std::fill(at + 4, at + whole, std::uint8_t{0});  // padding is zero, and no byte leaves that was not set on purpose
  size_ += whole;
  store_be16(out_.data() + 2, static_cast<std::uint16_t>(size_ - header_size));
  return at + 4;
}

Writer& Writer::add(Attribute type, Bytes value) {
  if (std::uint8_t* at = append(type, value.size())) std::copy(value.begin(), value.end(), at);
  return *this;
}

Writer& Writer::add_u32(Attribute type, std::uint32_t value) {
  if (std::uint8_t* at = append(type, 4)) store_be32(at, value);
  return *this;
}

Writer& Writer::add_address(Attribute type, const net::TransportAddress& address) {
  if (std::uint8_t* at = append(type, address_size(address))) write_address(at, address);
  return *this;
}

Writer& Writer::add_xor_address(Attribute type, const net::TransportAddress& address) {
  if (std::uint8_t* at = append(type, address_size(address))) {
    const std::size_t size = write_address(at, address);
    TransactionId id;
    std::copy_n(out_.begin() + 8, id.size(), id.begin());
    xor_address({at, size}, id);
  }
  return *this;
}

Writer& Writer::add_error(ErrorCode code, std::string_view reason) {
  if (std::uint8_t* at = append(Attribute::error_code, 4 + reason.size())) {
    const auto number = static_cast<unsigned>(code);
    at[2] = static_cast<std::uint8_t>(number / 100);
    at[3] = static_cast<std::uint8_t>(number % 100);
    std::copy(reason.begin(), reason.end(), at + 4);
  }
  return *this;
}

Writer& Writer::add_unknown_attributes(std::span<const std::uint16_t> types) {
  if (std::uint8_t* at = append(Attribute::unknown_attributes, 2 * types.size())) {
    for (const std::uint16_t type : types) {
      store_be16(at, type);
      at += 2;
    }
  }
  return *this;
}

Writer& Writer::add_integrity(Bytes key) {
  const std::size_t covered = size_;
  // append() has made the header's length end with it (RFC 8489, 14.5).
  if (std::uint8_t* at = append(Attribute::message_integrity, 20)) {
    const Sha1 mac = hmac_sha1(key, out_.first(covered));
    std::copy(mac.begin(), mac.end(), at);
  }
  return *this;
}

Writer& Writer::add_integrity_sha256(Bytes key) {
  const std::size_t covered = size_;
  if (std::uint8_t* at = append(Attribute::message_integrity_sha256, 32)) {
    const Sha256 mac = hmac_sha256(key, out_.first(covered));
    std::copy(mac.begin(), mac.end(), at);
  }
  return *this;
}

Writer& Writer::add_fingerprint() {
  const std::size_t covered = size_;
  if (std::uint8_t* at = append(Attribute::fingerprint, 4))
    store_be32(at, crc32(out_.first(covered)) ^ fingerprint_xor);
  return *this;
}

std::array<std::uint8_t, 4> address_error_value(net::Family family, ErrorCode code) {
  const auto number = static_cast<unsigned>(code);
  return {static_cast<std::uint8_t>(family), 0, static_cast<std::uint8_t>(number / 100),
          static_cast<std::uint8_t>(number % 100)};
}

std::array<std::uint8_t, 8> icmp_value(std::uint8_t type, std::uint8_t code, std::uint32_t error_data) {
  // RFC 8656, 18.13: two reserved bytes, type in 7 bits and code in 9, error data.
  std::array<std::uint8_t, 8> value{};
  store_be16(value.data() + 2, static_cast<std::uint16_t>((type & 0x7F) << 9 | code));
  store_be32(value.data() + 4, error_data);
  return value;
}

}  // namespace radiotower::stun
