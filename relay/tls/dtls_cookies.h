// Cookies of DTLS (RFC 6347, 4.2.1): an HMAC-SHA256 over who asks, under a secret of this process that changes with time, so that none is kept. And the bound on
// the answers to one address, in a table of fixed size.
#pragma once

#include <openssl/evp.h>

#include <array>
#include <cstdint>
#include <vector>

#include "dtls_hello.h"
#include "radiotower/base/random.h"
#include "radiotower/base/siphash.h"
#include "radiotower/base/time.h"
#include "radiotower/tls/dtls.h"

namespace radiotower::tls {

class Cookies {
 public:
  Cookies(RandomSource random, nanoseconds period);
  ~Cookies();
  Cookies(const Cookies&) = delete;
  Cookies& operator=(const Cookies&) = delete;

  /// Draws a new secret when it is time. The one before stays good for as long again.
  void turn(Time now);
  DtlsCookie make(const DtlsPath& path, const ClientHello& hello) { return made_with(current_, path, hello); }
  bool is_good(const DtlsPath& path, const ClientHello& hello);

 private:
  DtlsCookie made_with(std::size_t secret, const DtlsPath& path, const ClientHello& hello);
  void draw(std::size_t secret);

  RandomSource random_;
  nanoseconds period_;
  std::array<EVP_MAC_CTX*, 2> secrets_{};  // keyed once; each cookie begins anew from there
  std::size_t current_ = 0;
  bool has_two_ = false;
  Time drawn_at_{};
  bool drawn_ = false;
};

class AddressLimit {
 public:
  AddressLimit(const HashKey& key, std::uint32_t a_second) : key_(key), a_second_(a_second), slots_(size) {}
  bool allow(const net::IpAddress& ip, Time now);

 private:
  static constexpr std::size_t size = 16384;
  HashKey key_;
  std::uint32_t a_second_;
  std::vector<std::int64_t> slots_;  // when a bucket will be whole again, in ns
};

}  // namespace radiotower::tls
