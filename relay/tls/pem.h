// A certificate, its chain and its key, read from PEM files; and what OpenSSL noted as an error, for a sentence.
#pragma once

#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <memory>
#include <string>
#include <vector>

#include "radiotower/tls/identity.h"

namespace radiotower::tls {

template <auto release>
struct Release {
  template <typename T>
  void operator()(T* object) const {
    release(object);
  }
};
template <typename T, auto release>
using Handle = std::unique_ptr<T, Release<release>>;

/// What OpenSSL has noted since the queue was last empty; it is empty then. The first entry is the cause, those after it are where it passed.
class Errors {
 public:
  Errors();
  bool any() const { return !codes_.empty(); }
  bool has(int library, int reason) const;
  std::string reason() const;

 private:
  std::vector<unsigned long> codes_;
};

struct ChainFree {
  void operator()(STACK_OF(X509) * chain) const { sk_X509_pop_free(chain, X509_free); }
};
struct Pem {
  Handle<X509, X509_free> certificate;
  std::unique_ptr<STACK_OF(X509), ChainFree> chain;  // may be empty, never null once read
  Handle<EVP_PKEY, EVP_PKEY_free> key;
};

/// False: `why` names the file. A warning about a key that everybody may read goes to `warnings`.
bool read_pem(const CertificateFiles& files, Pem& pem, std::string& why, std::vector<std::string>& warnings);
/// Into a context, beside what is there of other types of key. False: `why` names the file.
bool use(SSL_CTX* context, const CertificateFiles& files, const Pem& pem, std::string& why);

}  // namespace radiotower::tls
