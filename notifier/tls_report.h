// Why a TLS connection was refused, in words that name the certificates: what users of private CAs ask for most.
//
// Records what OpenSSL's verification sees of one handshake; decides nothing: verification stays as strict as it is.
#pragma once

#include <openssl/ssl.h>

#include <memory>
#include <string>
#include <string_view>

namespace radiotower::notifier {

class TlsReport {
 public:
  /// Hooks itself into a context whose verification is on. The report must outlive the context.
  void watch(SSL_CTX* context);
  void clear();

  /// `shown` is host[:port] as configured, `host` without port, `ca_file` empty for the system's store. Empty: the handshake did not fail
  /// for its certificates.
  std::string explain(std::string_view shown, std::string_view host, const std::string& ca_file) const;
  /// The same for a certificate that is trusted and belongs to another name.
  std::string explain_wrong_name(std::string_view shown, std::string_view host) const;

 private:
  struct Free {
    void operator()(X509* certificate) const { X509_free(certificate); }
  };
  using Certificate = std::unique_ptr<X509, Free>;
  static int verified(int good, X509_STORE_CTX* store);

  Certificate shown_;   // the server's own
  Certificate failed_;  // at which verification ended: the server's, or an issuer's
  int error_ = X509_V_OK;
  int depth_ = 0;
};

/// "city-root-ca.pem (1 certificate: CN=City Root CA, valid until 2030-01-01)"; throws std::runtime_error with a sentence when the file cannot
/// be read or holds no certificate.
std::string describe_ca_file(const std::string& file);

}  // namespace radiotower::notifier
