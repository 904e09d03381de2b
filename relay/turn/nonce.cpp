#include "radiotower/turn/nonce.h"

#include <algorithm>

#include "radiotower/stun/crypto.h"

namespace radiotower::turn {

namespace {

constexpr std::string_view cookie = "obMatJos2";  // RFC 8489, 9.2
constexpr std::size_t raw_size = 21;              // 4 of time, 17 of MAC: 28 characters of base64 without a spare bit
constexpr char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// 3 bytes to 4 characters, no allocation.
void encode(Bytes bytes, char* out) {
  for (std::size_t i = 0; i < bytes.size(); i += 3, out += 4) {
    const std::uint32_t v = std::uint32_t{bytes[i]} << 16 | std::uint32_t{bytes[i + 1]} << 8 | bytes[i + 2];
    for (int k = 0; k < 4; ++k) out[k] = alphabet[v >> (18 - 6 * k) & 63];
  }
}

int value_of(char c) {
  const char* found = std::find(alphabet, alphabet + 64, c);
  return found == alphabet + 64 ? -1 : static_cast<int>(found - alphabet);
}

/// The time of issue: the first 32 bits of the last 28 characters.
std::optional<std::uint32_t> issued_at(std::string_view encoded) {
  std::uint64_t v = 0;
  for (std::size_t i = 0; i < 6; ++i) {
    const int value = value_of(encoded[i]);
    if (value < 0) return std::nullopt;
    v = v << 6 | static_cast<std::uint64_t>(value);
  }
  return static_cast<std::uint32_t>(v >> 4);
}

std::uint32_t whole_seconds(Time now) {
  return static_cast<std::uint32_t>(std::chrono::duration_cast<seconds>(now.time_since_epoch()).count());
}

}  // namespace

NonceMint::NonceMint(const RandomSource& random) { random(key_); }

Nonce NonceMint::make_at(const net::TransportAddress& client, std::uint32_t issued, SecurityFeatures features) const {
  // Bit 0 is the rightmost of the 24 (RFC 8489, 18.1): "AAAB" is PASSWORD-ALGORITHMS, "AAAC" USERHASH.
  const std::array<std::uint8_t, 3> bits{0, 0, static_cast<std::uint8_t>((features.password_algorithms ? 1 : 0) | (features.userhash ? 2 : 0))};
  std::array<std::uint8_t, 3 + 4 + 16 + 2> covered;
  std::copy(bits.begin(), bits.end(), covered.begin());
  store_be32(covered.data() + 3, issued);
  std::copy(client.ip.bytes.begin(), client.ip.bytes.end(), covered.begin() + 7);
  store_be16(covered.data() + 23, client.port);
  const stun::Sha256 mac = stun::hmac_sha256(key_, covered);

  std::array<std::uint8_t, raw_size> raw;
  store_be32(raw.data(), issued);
  std::copy_n(mac.begin(), raw.size() - 4, raw.begin() + 4);

  Nonce nonce;
  std::copy(cookie.begin(), cookie.end(), nonce.text_.begin());
  encode(bits, nonce.text_.data() + cookie.size());
  encode(raw, nonce.text_.data() + cookie.size() + 4);
  return nonce;
}

Nonce NonceMint::make(const net::TransportAddress& client, Time now, SecurityFeatures features) const {
  return make_at(client, whole_seconds(now), features);
}

bool NonceMint::is_fresh(std::string_view nonce, const net::TransportAddress& client, Time now, SecurityFeatures features,
                         seconds lifetime) const {
  if (nonce.size() != Nonce::size) return false;
  const auto issued = issued_at(nonce.substr(13));
  if (!issued) return false;
  // One spelling only: what we would have issued then is what must have been sent back, to the character.
  const Nonce expected = make_at(client, *issued, features);
  if (!equal_in_constant_time(as_bytes(expected.text()), as_bytes(nonce))) return false;
  const std::uint32_t age = whole_seconds(now) - *issued;  // of the future: a huge age
  return age <= static_cast<std::uint32_t>(lifetime.count());
}

}  // namespace radiotower::turn
