// The certificates and keys of a server (TLS 1.2 and 1.3, RFC 8446; DTLS 1.2, RFC 6347). Immutable and shared: a reload makes a new one, and
// a session keeps the one that it began with.
#pragma once

#include <openssl/ssl.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace radiotower::tls {

/// PEM files: the server's certificate first, then those of CAs between it and the root; and its key.
struct CertificateFiles {
  std::string certificate;
  std::string private_key;
};

/// What a certificate says, for logs and for an operator who asks.
struct CertificateFacts {
  std::string file;
  std::vector<std::string> names;  // of the subject alternative names: DNS names as they are, IP addresses as text
  std::int64_t not_before = 0, not_after = 0;  // seconds since 1970
  std::string fingerprint;                     // SHA-256, hexadecimal
};

class Identity {
 public:
  /// The first is for clients that name no server or one that none of these is for; the others are chosen by the name that a client asks for (SNI).
  /// Two of the same names and different types of key (RSA, EC) stand side by side, and each client gets the one that it can check.
  /// Null: `why` is a sentence for the operator, which names the file. `warnings` may have grown in either case: expired, not valid yet, a certificate
  /// without a name, a key that every user may read.
  static std::shared_ptr<const Identity> load(const std::vector<CertificateFiles>& files, std::string& why, std::vector<std::string>& warnings);
  ~Identity();
  Identity(const Identity&) = delete;
  Identity& operator=(const Identity&) = delete;

  /// TLS 1.2 and 1.3 over streams; AEAD alone, no renegotiation, no tickets, no early data; ALPN "stun.turn" and "stun.nat-discovery" (RFC 7443).
  SSL_CTX* for_streams() const { return streams_; }
  /// DTLS 1.2 over UDP (RFC 7350), the same otherwise. The cookie callbacks are the endpoint's to set, on each SSL or on the context.
  SSL_CTX* for_datagrams() const { return datagrams_; }
  const std::vector<CertificateFacts>& facts() const { return facts_; }  // in the order of the files

 private:
  Identity() = default;
  SSL_CTX* streams_ = nullptr;
  SSL_CTX* datagrams_ = nullptr;
  std::vector<CertificateFacts> facts_;
  struct Names;  // by name: the contexts of the others
};

}  // namespace radiotower::tls
