// Access tokens of third-party authorisation (RFC 7635): who has one from the authorization server may use the relay, which never
// heard of him. Immutable after construction; shared between threads freely.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "radiotower/base/bytes.h"
#include "radiotower/base/time.h"
#include "radiotower/stun/crypto.h"

namespace radiotower::turn {

/// A long-term key shared with the authorization server (RFC 7635, 4.1).
struct TokenKey {
  enum class Algorithm : std::uint8_t { a128gcm, a256gcm };  // AEAD_AES_128_GCM, AEAD_AES_256_GCM (RFC 5116, 5)
  static constexpr std::size_t size(Algorithm algorithm) { return algorithm == Algorithm::a128gcm ? 16 : 32; }
  std::string kid;  // what a client gives as USERNAME
  Algorithm algorithm = Algorithm::a256gcm;
  std::array<std::uint8_t, 32> key{};  // the first size(algorithm) bytes
  UnixSeconds valid_until = 0;         // 0: for ever
};

/// What a token says, once it has been opened.
struct Token {
  stun::Key mac_key;          // 20 bytes (RFC 7635, 6.2: MUST), or 32
  UnixSeconds issued_at = 0;
  std::uint32_t lifetime = 0;  // seconds

  /// For how long it is good yet: lifetime + 5 - |now - issued_at| (RFC 7635, 7 and 9). 0: not any more, or not yet.
  std::uint32_t seconds_left(UnixSeconds now) const;
};

class Tokens {
 public:
  /// `server_name`: our name, which THIRD-PARTY-AUTHORIZATION tells clients and which is authenticated with every token (6.1, 6.2), so
  /// that a token for another relay with the same key is worth nothing here. Two keys of one kid: the later one counts.
  Tokens(std::string server_name, std::vector<TokenKey> keys);
  ~Tokens();  // keys are wiped
  Tokens(const Tokens&) = delete;
  Tokens& operator=(const Tokens&) = delete;

  const std::string& server_name() const { return server_name_; }
  bool empty() const { return keys_.empty(); }

  /// Opens the value of ACCESS-TOKEN: uint16 nonce length (12), nonce, then encrypted with 16 bytes of tag
  /// { uint16 key length, mac_key, uint64 time of issue in 1/65536 s (48.16), uint32 lifetime }.
  /// nullopt: unknown kid, a key that has run out, another form, or not authentic. Its time is the caller's to check.
  std::optional<Token> open(std::string_view kid, Bytes value, UnixSeconds now) const;

 private:
  std::string server_name_;
  std::unordered_map<std::string, TokenKey> keys_;
};

}  // namespace radiotower::turn
