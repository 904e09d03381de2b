// Stateless nonces (RFC 8489, 9.2): nothing is kept for a client that has not proved its address.
//
// A nonce is "obMatJos2" + 4 characters of security features (RFC 8489, 9.2.1) + 28 characters base64 of
// { 32-bit seconds of issue, 17 bytes of HMAC-SHA256(key, features | issue | client's IP address and port) }.
// No client address, no bit of features and no character can change without the MAC failing.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "radiotower/base/random.h"
#include "radiotower/base/time.h"
#include "radiotower/net/address.h"

namespace radiotower::turn {

/// Bits of the 24-bit feature set, bit 0 first (RFC 8489, 18.1).
struct SecurityFeatures {
  bool password_algorithms = true;
  bool userhash = false;
};

class Nonce {
 public:
  static constexpr std::size_t size = 9 + 4 + 28;
  std::string_view text() const { return {text_.data(), size}; }

 private:
  friend class NonceMint;
  std::array<char, size> text_;
};

/// One a process, copied to every worker: all must accept what one has issued.
class NonceMint {
 public:
  explicit NonceMint(const RandomSource& random);  // a fresh key: nonces from before a restart are stale, once

  Nonce make(const net::TransportAddress& client, Time now, SecurityFeatures features) const;

  /// Ours, for this client, with these features, not older than `lifetime` and not from the future.
  bool is_fresh(std::string_view nonce, const net::TransportAddress& client, Time now, SecurityFeatures features,
                seconds lifetime) const;

 private:
  Nonce make_at(const net::TransportAddress& client, std::uint32_t issued, SecurityFeatures features) const;
  std::array<std::uint8_t, 32> key_;
};

}  // namespace radiotower::turn
