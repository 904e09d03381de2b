// A CA of the operator's own, and certificates by it that phones take: every address and name that they use as a subject alternative name, a key that
// all of them know, and a life that iOS accepts. OpenSSL, and no files but where it says so.
#pragma once

#include <openssl/evp.h>
#include <openssl/x509.h>

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "radiotower/base/time.h"
#include "radiotower/net/address.h"

namespace radiotower::cli::certificate {

template <auto Free>
struct Freeing {
  template <class T>
  void operator()(T* it) const { Free(it); }
};
using Certificate = std::unique_ptr<X509, Freeing<X509_free>>;
using Key = std::unique_ptr<EVP_PKEY, Freeing<EVP_PKEY_free>>;

inline constexpr int default_days = 397;    // browsers accept 398 of public CAs; a year and a month is a good rhythm for others too
inline constexpr int most_days = 825;       // iOS and macOS refuse more of any CA (Apple's HT210176)
inline constexpr int ca_days = 3650;

enum class KeyType : std::uint8_t { ec, rsa };  // P-256; 2,048 bits, 3,072 of a CA

struct Names {
  std::vector<std::string> dns;
  std::vector<net::IpAddress> addresses;
};

/// What a CA may vouch for (RFC 5280, 4.2.1.10): names with all below them, and networks. A kind that has none is excluded altogether.
struct OnlyFor {
  std::vector<std::string> dns;
  std::vector<net::AddressRange> networks;  // CIDR blocks

  bool empty() const { return dns.empty() && networks.empty(); }
};

struct Authority {
  Certificate certificate;
  Key key;
  std::vector<Certificate> above;  // the certificates that vouch for it, in order, without a root; empty when it is one
};

/// True for "tower.lan", "*.lan"; else a sentence without full stop.
bool name_is_sound(std::string_view name, std::string& why);

/// A root that vouches for servers' certificates alone, from an hour ago on.
std::optional<Authority> make_authority(const std::string& name, KeyType type, int days, const OnlyFor& only_for, UnixSeconds now, std::string& why);

/// `certificates`: PEM, the CA that issues first, those above it behind. Refused with a sentence: what is no CA, may not sign certificates, has run out,
/// or does not belong to the key. `password` is that of the key; the empty one is for a key without.
std::optional<Authority> read_authority(std::string_view certificates, std::string_view key, const std::string& password, UnixSeconds now, std::string& why);
/// Whether a private key in PEM asks for a passphrase.
bool is_encrypted(std::string_view key_pem);

struct Issued {
  std::string chain_pem;  // the server's certificate, and the CAs between it and the root
  std::string key_pem;
  UnixSeconds expires = 0;
};

/// A new key and its certificate, verified as a client would for each of the names before it is handed out. An hour is taken off at the front for clocks
/// that are behind, so it holds for `days` less an hour.
std::optional<Issued> issue(const Authority& authority, const Names& names, KeyType type, int days, UnixSeconds now, std::string& why);

std::string to_pem(X509* certificate);
/// PKCS #8; encrypted (AES-256) unless the password is empty.
std::string to_pem(EVP_PKEY* key, const std::string& password);
std::string subject_of(X509* certificate);        // its common name, or all of the subject
std::string fingerprint_of(X509* certificate);    // SHA-256, "AB:CD:...", as phones show it
UnixSeconds expiry_of(X509* certificate);

/// The first certificate of a file as DER, which is what phones take from a web page.
std::optional<std::string> der_of_ca(const std::string& path, std::string& why);

}  // namespace radiotower::cli::certificate
