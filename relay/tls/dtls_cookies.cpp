#include "dtls_cookies.h"

#include <openssl/core_names.h>
#include <openssl/params.h>

#include <algorithm>
#include <new>
#include <utility>

#include "radiotower/base/rate_slots.h"

namespace radiotower::tls {

Cookies::Cookies(RandomSource random, nanoseconds period) : random_(std::move(random)), period_(period) {
  EVP_MAC* hmac = EVP_MAC_fetch(nullptr, "HMAC", nullptr);
  for (auto& secret : secrets_) secret = hmac ? EVP_MAC_CTX_new(hmac) : nullptr;
  EVP_MAC_free(hmac);
  if (!secrets_[0] || !secrets_[1]) {
    for (auto* secret : secrets_) EVP_MAC_CTX_free(secret);
    throw std::bad_alloc();
  }
}

Cookies::~Cookies() {
  for (auto* secret : secrets_) EVP_MAC_CTX_free(secret);
}

void Cookies::draw(std::size_t secret) {
  std::array<std::uint8_t, 32> key;
  random_(key);
  char digest[] = "SHA256";
  const OSSL_PARAM parameters[] = {OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0), OSSL_PARAM_construct_end()};
  if (EVP_MAC_init(secrets_[secret], key.data(), key.size(), parameters) != 1) throw std::bad_alloc();
}

void Cookies::turn(Time now) {
  if (drawn_ && now - drawn_at_ < period_) return;
  has_two_ = drawn_ && now - drawn_at_ < 2 * period_;
  current_ ^= 1;
  draw(current_);
  drawn_ = true;
  drawn_at_ = now;
}

/// Over the client's address and port, the socket, and what of its parameters a client must repeat with the cookie (RFC 6347, 4.2.1): its random.
DtlsCookie Cookies::made_with(std::size_t secret, const DtlsPath& path, const ClientHello& hello) {
  std::array<std::uint8_t, 16 + 2 + 4 + 4 + 32> text{};
  std::copy(path.client.ip.bytes.begin(), path.client.ip.bytes.end(), text.begin());
  store_be16(text.data() + 16, path.client.port);
  store_be32(text.data() + 18, path.client.scope);
  store_be32(text.data() + 22, path.socket);
  std::copy(hello.random.begin(), hello.random.end(), text.begin() + 26);
  DtlsCookie cookie{};
  std::size_t size = 0;
  EVP_MAC_CTX* context = secrets_[secret];
  if (EVP_MAC_init(context, nullptr, 0, nullptr) != 1 || EVP_MAC_update(context, text.data(), text.size()) != 1 ||
      EVP_MAC_final(context, cookie.data(), &size, cookie.size()) != 1 || size != cookie.size())
    random_(cookie);  // good for nothing, and nobody can guess it
  return cookie;
}

bool Cookies::is_good(const DtlsPath& path, const ClientHello& hello) {
  if (hello.cookie.size() != cookie_size) return false;
  return equal_in_constant_time(made_with(current_, path, hello), hello.cookie) ||
         (has_two_ && equal_in_constant_time(made_with(current_ ^ 1, path, hello), hello.cookie));
}

bool AddressLimit::allow(const net::IpAddress& ip, Time now) {
  return take_from_slots(std::span<std::int64_t, size>(slots_), siphash13(key_, ip.as_source().bytes), a_second_, now);
}

}  // namespace radiotower::tls
