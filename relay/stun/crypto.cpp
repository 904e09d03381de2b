// OpenSSL's low-level digests are deprecated in favour of EVP, but an EVP context is allocated and its algorithm fetched
// on every use, which costs more than the hash of a short message; a SHA_CTX lives on the stack.
#define OPENSSL_SUPPRESS_DEPRECATED
#include "radiotower/stun/crypto.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/md5.h>
#include <openssl/sha.h>

#include <algorithm>

namespace radiotower::stun {

namespace {

struct Sha1Traits {
  using Context = SHA_CTX;
  using Digest = Sha1;
  static void init(Context& c) { SHA1_Init(&c); }
  static void update(Context& c, Bytes b) { SHA1_Update(&c, b.data(), b.size()); }
  static void final(Context& c, std::uint8_t* out) { SHA1_Final(out, &c); }
};
struct Sha256Traits {
  using Context = SHA256_CTX;
  using Digest = Sha256;
  static void init(Context& c) { SHA256_Init(&c); }
  static void update(Context& c, Bytes b) { SHA256_Update(&c, b.data(), b.size()); }
  static void final(Context& c, std::uint8_t* out) { SHA256_Final(out, &c); }
};

/// RFC 2104; the block of both hashes is 64 bytes.
template <typename Traits>
typename Traits::Digest hmac(Bytes key, Bytes first, Bytes second) {
  std::array<std::uint8_t, 64> block{};
  typename Traits::Context context;
  if (key.size() > block.size()) {
    Traits::init(context);
    Traits::update(context, key);
    Traits::final(context, block.data());
  } else {
    std::copy(key.begin(), key.end(), block.begin());
  }
  for (auto& byte : block) byte ^= 0x36;
  typename Traits::Digest digest;
  Traits::init(context);
  Traits::update(context, block);
  Traits::update(context, first);
  Traits::update(context, second);
  Traits::final(context, digest.data());
  for (auto& byte : block) byte ^= 0x36 ^ 0x5c;
  Traits::init(context);
  Traits::update(context, block);
  Traits::update(context, digest);
  Traits::final(context, digest.data());
  OPENSSL_cleanse(block.data(), block.size());
  return digest;
}

constexpr std::array<std::uint32_t, 256> make_crc_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t c = i;
    for (int bit = 0; bit < 8; ++bit) c = c & 1 ? 0xEDB88320u ^ (c >> 1) : c >> 1;
    table[i] = c;
  }
  return table;
}
constexpr auto crc_table = make_crc_table();

}  // namespace

Sha1 hmac_sha1(Bytes key, Bytes first, Bytes second) { return hmac<Sha1Traits>(key, first, second); }
Sha256 hmac_sha256(Bytes key, Bytes first, Bytes second) { return hmac<Sha256Traits>(key, first, second); }

Md5 md5(std::string_view text) {
  Md5 digest;
  MD5_CTX context;
  MD5_Init(&context);
  MD5_Update(&context, text.data(), text.size());
  MD5_Final(digest.data(), &context);
  return digest;
}

Sha256 sha256(std::string_view text) {
  Sha256 digest;
  SHA256_CTX context;
  SHA256_Init(&context);
  SHA256_Update(&context, text.data(), text.size());
  SHA256_Final(digest.data(), &context);
  return digest;
}

std::uint32_t crc32(Bytes data) {
  std::uint32_t c = 0xFFFFFFFF;
  for (const std::uint8_t byte : data) c = crc_table[(c ^ byte) & 0xFF] ^ (c >> 8);
  return ~c;
}

Key::Key(const Md5& k) : size_(static_cast<std::uint8_t>(k.size())) { std::copy(k.begin(), k.end(), bytes_.begin()); }
Key::Key(const Sha256& k) : size_(static_cast<std::uint8_t>(k.size())) { std::copy(k.begin(), k.end(), bytes_.begin()); }

Key::Key(Bytes k) : size_(static_cast<std::uint8_t>(std::min(k.size(), bytes_.size()))) { std::copy_n(k.begin(), size_, bytes_.begin()); }

Key long_term_key(PasswordAlgorithm algorithm, std::string_view username, std::string_view realm,
                  std::string_view password) {
  std::string text;
  text.reserve(username.size() + realm.size() + password.size() + 2);
  text.append(username).append(":").append(realm).append(":").append(password);
  Key key = algorithm == PasswordAlgorithm::sha256 ? Key(sha256(text)) : Key(md5(text));
  OPENSSL_cleanse(text.data(), text.size());  // passwords are not kept (RFC 8656, 5)
  return key;
}

Sha256 userhash(std::string_view username, std::string_view realm) {
  std::string text(username);
  text.append(":").append(realm);
  return sha256(text);
}

std::string rest_password(std::string_view secret, std::string_view username) {
  return base64(hmac_sha1(as_bytes(secret), as_bytes(username)));
}

std::string base64(Bytes bytes) {
  std::string text(4 * ((bytes.size() + 2) / 3) + 1, '\0');
  const int length =
      EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text.data()), bytes.data(), static_cast<int>(bytes.size()));
  text.resize(static_cast<std::size_t>(length));
  return text;
}

}  // namespace radiotower::stun
