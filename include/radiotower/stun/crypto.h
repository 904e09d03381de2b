// Hashes of STUN over OpenSSL: no allocation a call, safe from any thread.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "radiotower/base/bytes.h"
#include "radiotower/base/encoding.h"
#include "radiotower/stun/protocol.h"

namespace radiotower::stun {

using Sha1 = std::array<std::uint8_t, 20>;
using Sha256 = std::array<std::uint8_t, 32>;
using Md5 = std::array<std::uint8_t, 16>;

/// HMAC over the concatenation of the parts (an integrity check needs a changed header before unchanged bytes).
Sha1 hmac_sha1(Bytes key, Bytes first, Bytes second = {});
Sha256 hmac_sha256(Bytes key, Bytes first, Bytes second = {});
Md5 md5(std::string_view text);
Sha256 sha256(std::string_view text);
std::uint32_t crc32(Bytes data);  // ITU V.42, as FINGERPRINT wants it before the XOR

/// A long-term key: 16 bytes (MD5) or 32 (SHA-256) (RFC 8489, 9.2.2 and 18.5.1). Small enough to be held by value.
class Key {
 public:
  Key() = default;
  explicit Key(const Md5& k);
  explicit Key(const Sha256& k);
  explicit Key(Bytes k);  // at most 32 bytes: the key that an access token brings (RFC 7635, 6.2)
  Bytes bytes() const { return {bytes_.data(), size_}; }
  bool empty() const { return size_ == 0; }

 private:
  std::array<std::uint8_t, 32> bytes_{};
  std::uint8_t size_ = 0;
};
/// `username`, `realm`, `password` are taken as they are, already prepared (OpaqueString).
Key long_term_key(PasswordAlgorithm algorithm, std::string_view username, std::string_view realm, std::string_view password);
Sha256 userhash(std::string_view username, std::string_view realm);  // RFC 8489, 14.4

/// Password of a TURN REST credential: base64(HMAC-SHA1(secret, username)).
std::string rest_password(std::string_view secret, std::string_view username);

std::string base64(Bytes bytes);

}  // namespace radiotower::stun
