// ACCESS-TOKEN (RFC 7635, 6.2). A token is opened on the control path alone: once an Allocate or a Refresh.
#include "radiotower/turn/tokens.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include <algorithm>
#include <memory>

namespace radiotower::turn {

namespace {

constexpr std::size_t nonce_size = 12;  // RFC 5116, 5.1: of both algorithms
constexpr std::size_t tag_size = 16;
constexpr std::size_t fields_size = 2 + 8 + 4;  // of the encrypted block, beside the key
constexpr std::size_t largest_mac_key = 32;
constexpr UnixSeconds delta = 5;  // RFC 7635, 7: RECOMMENDED

struct FreeContext {
  void operator()(EVP_CIPHER_CTX* context) const { EVP_CIPHER_CTX_free(context); }
};

/// AEAD decryption (RFC 5116, 2.2). False: it is not authentic, and `plain` holds nothing to be used.
bool decrypt(const TokenKey& key, Bytes nonce, Bytes associated, Bytes sealed, MutableBytes plain) {
  const std::unique_ptr<EVP_CIPHER_CTX, FreeContext> context(EVP_CIPHER_CTX_new());
  const EVP_CIPHER* cipher = key.algorithm == TokenKey::Algorithm::a128gcm ? EVP_aes_128_gcm() : EVP_aes_256_gcm();
  const Bytes text = sealed.first(sealed.size() - tag_size);
  std::array<std::uint8_t, tag_size> tag;
  std::copy_n(sealed.end() - tag_size, tag_size, tag.begin());
  int size = 0;
  return context && EVP_DecryptInit_ex(context.get(), cipher, nullptr, key.key.data(), nonce.data()) == 1 &&
         EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_AEAD_SET_TAG, tag_size, tag.data()) == 1 &&
         EVP_DecryptUpdate(context.get(), nullptr, &size, associated.data(), static_cast<int>(associated.size())) == 1 &&
         EVP_DecryptUpdate(context.get(), plain.data(), &size, text.data(), static_cast<int>(text.size())) == 1 &&
         static_cast<std::size_t>(size) == plain.size() && EVP_DecryptFinal_ex(context.get(), plain.data() + size, &size) == 1;
}

}  // namespace

std::uint32_t Token::seconds_left(UnixSeconds now) const {
  const UnixSeconds distance = now > issued_at ? now - issued_at : issued_at - now;
  const UnixSeconds left = UnixSeconds{lifetime} + delta - distance;
  return left <= 0 ? 0 : static_cast<std::uint32_t>(std::min<UnixSeconds>(left, 0xFFFFFFFF));
}

Tokens::Tokens(std::string server_name, std::vector<TokenKey> keys) : server_name_(std::move(server_name)) {
  for (TokenKey& key : keys) {
    keys_[key.kid] = key;
    OPENSSL_cleanse(key.key.data(), key.key.size());
  }
}

Tokens::~Tokens() {
  for (auto& [kid, key] : keys_) OPENSSL_cleanse(key.key.data(), key.key.size());
}

std::optional<Token> Tokens::open(std::string_view kid, Bytes value, UnixSeconds now) const {
  const auto found = keys_.find(std::string(kid));
  if (found == keys_.end() || (found->second.valid_until != 0 && found->second.valid_until <= now)) return std::nullopt;
  // Only the sizes that there are: nothing is decrypted that could not be a token.
  constexpr std::size_t head = 2 + nonce_size;
  if (value.size() <= head + fields_size + tag_size || load_be16(value.data()) != nonce_size) return std::nullopt;
  const std::size_t plain_size = value.size() - head - tag_size;
  const std::size_t key_size = plain_size - fields_size;
  if (key_size != 20 && key_size != largest_mac_key) return std::nullopt;

  std::array<std::uint8_t, fields_size + largest_mac_key> space;
  const MutableBytes plain(space.data(), plain_size);
  std::optional<Token> token;
  if (decrypt(found->second, value.subspan(2, nonce_size), as_bytes(server_name_), value.subspan(head), plain) &&
      load_be16(plain.data()) == key_size) {
    token.emplace();
    token->mac_key = stun::Key(plain.subspan(2, key_size));
    const std::uint8_t* at = plain.data() + 2 + key_size;
    token->issued_at = static_cast<UnixSeconds>(std::uint64_t{load_be32(at)} << 16 | load_be16(at + 4));  // the whole seconds
    token->lifetime = load_be32(at + 8);
  }
  OPENSSL_cleanse(space.data(), space.size());
  return token;
}

}  // namespace radiotower::turn
