#include "radiotower/base/calendar.h"
#include "radiotower/tls/identity.h"

#include <openssl/x509v3.h>

#include <algorithm>
#include <ctime>
#include <map>

#include "pem.h"
#include "radiotower/base/encoding.h"
#include "radiotower/net/address.h"

namespace radiotower::tls {

namespace {

/// The names of RFC 7443. A client that offers both gets the first: it came to allocate.
constexpr std::string_view protocols[] = {"stun.turn", "stun.nat-discovery"};

/// Called only when the client offers something; one that offers nothing is served (RFC 7443 asks for no more).
int choose_protocol(SSL*, const unsigned char** out, unsigned char* out_size, const unsigned char* offered, unsigned size, void*) {
  for (const std::string_view ours : protocols) {
    for (unsigned at = 0; at < size && size - at - 1 >= offered[at]; at += 1U + offered[at]) {
      if (std::string_view(reinterpret_cast<const char*>(offered + at + 1), offered[at]) != ours) continue;
      *out = offered + at + 1;
      *out_size = offered[at];
      return SSL_TLSEXT_ERR_OK;
    }
  }
  return SSL_TLSEXT_ERR_ALERT_FATAL;  // no_application_protocol (RFC 7301, 3.2)
}

Handle<SSL_CTX, SSL_CTX_free> make_context(const SSL_METHOD* method, int lowest) {
  Handle<SSL_CTX, SSL_CTX_free> context(SSL_CTX_new(method));
  if (!context) return context;
  SSL_CTX* c = context.get();
  // Each is said, whatever the system's openssl.cnf says. Nothing but AEAD with an ephemeral key of an elliptic curve, in both versions: the finite
  // fields that OpenSSL would take too let a client buy milliseconds of ours with a few bytes.
  const bool set = SSL_CTX_set_min_proto_version(c, lowest) == 1 && SSL_CTX_set_max_proto_version(c, 0) == 1 &&
                   SSL_CTX_set_cipher_list(c, "ECDHE+AES128+AESGCM:ECDHE+AESGCM:ECDHE+CHACHA20:!PSK") == 1 &&
                   SSL_CTX_set_ciphersuites(c, "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256") == 1 &&
                   SSL_CTX_set1_groups_list(c, "X25519:P-256:P-384") == 1;
  if (!set) return nullptr;
  SSL_CTX_set_security_level(c, 2);
  SSL_CTX_clear_options(c, SSL_OP_ALLOW_UNSAFE_LEGACY_RENEGOTIATION | SSL_OP_ALLOW_CLIENT_RENEGOTIATION);
  // A client that puts ChaCha20 first has no AES in its processor.
  SSL_CTX_set_options(c, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_TICKET | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
  SSL_CTX_set_num_tickets(c, 0);
  SSL_CTX_set_max_early_data(c, 0);
  SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF);
  // The chain is what the file holds: to look for one in each handshake would verify the certificate against CAs that a server has no need of.
  SSL_CTX_set_mode(c, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_NO_AUTO_CHAIN);
  // With it one read goes on through all the records that are no data, however many.
  SSL_CTX_clear_mode(c, SSL_MODE_AUTO_RETRY);
  SSL_CTX_set_alpn_select_cb(c, choose_protocol, nullptr);
  return context;
}

std::int64_t seconds(const ASN1_TIME* time) {
  std::tm fields{};
  return ASN1_TIME_to_tm(time, &fields) == 1 ? static_cast<std::int64_t>(timegm(&fields)) : 0;
}

struct NamesFree {
  void operator()(GENERAL_NAMES* names) const { GENERAL_NAMES_free(names); }
};

CertificateFacts facts_of(X509* certificate, const std::string& file, std::vector<std::string>& dns_names) {
  CertificateFacts facts;
  facts.file = file;
  facts.not_before = seconds(X509_get0_notBefore(certificate));
  facts.not_after = seconds(X509_get0_notAfter(certificate));
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  if (X509_digest(certificate, EVP_sha256(), digest, &size) == 1) facts.fingerprint = to_hex({digest, size});
  const std::unique_ptr<GENERAL_NAMES, NamesFree> names(
      static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr)));
  for (int i = 0; names && i < sk_GENERAL_NAME_num(names.get()); ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(names.get(), i);
    int type = 0;
    const auto value = static_cast<const ASN1_STRING*>(GENERAL_NAME_get0_value(name, &type));
    if (type != GEN_DNS && type != GEN_IPADD) continue;
    const auto length = static_cast<std::size_t>(ASN1_STRING_length(value));
    const unsigned char* bytes = ASN1_STRING_get0_data(value);
    if (type == GEN_DNS) {
      dns_names.push_back(lower_case(std::string_view(reinterpret_cast<const char*>(bytes), length)));
      facts.names.emplace_back(reinterpret_cast<const char*>(bytes), length);
    } else if (length == 4 || length == 16) {
      facts.names.push_back((length == 4 ? net::IpAddress::v4(bytes) : net::IpAddress::v6(bytes)).text());
    }
  }
  return facts;
}

/// An address is looked for in IP entries alone (RFC 2818, 3.1).
void warn_of_addresses(const std::vector<std::string>& dns_names, const std::string& what, std::vector<std::string>& warnings) {
  for (const std::string& name : dns_names)
    if (net::IpAddress::parse(name)) warnings.push_back(what + " holds the address " + name + " in a DNS entry, where no client looks for it: it takes IP:" + name);
}

void warn_of_dates(X509* certificate, const std::string& what, std::vector<std::string>& warnings) {
  if (X509_cmp_current_time(X509_get0_notAfter(certificate)) < 0) {
    warnings.push_back(what + " expired on " + utc_minute(seconds(X509_get0_notAfter(certificate))) + ": clients will refuse it");
  } else if (X509_cmp_current_time(X509_get0_notBefore(certificate)) > 0) {
    warnings.push_back(what + " is not valid before " + utc_minute(seconds(X509_get0_notBefore(certificate))) +
                       ", or the clock of this machine is behind: clients will refuse it");
  }
}

}  // namespace

/// Of all pairs but the first. It lives as long as the first pair's contexts, whose callback looks into it.
struct Identity::Names {
  struct Contexts {
    Handle<SSL_CTX, SSL_CTX_free> streams, datagrams;
  };
  std::vector<std::unique_ptr<Contexts>> contexts;
  std::map<std::string, const Contexts*, std::less<>> exact;     // small letters; null: the first pair
  std::map<std::string, const Contexts*, std::less<>> wildcard;  // "*.example.org" as ".example.org"

  void add(const std::vector<std::string>& names, const Contexts* to) {
    for (const std::string& name : names) {  // where two pairs have a name, the earlier is taken
      if (name.starts_with("*.")) {
        wildcard.emplace(name.substr(1), to);
      } else {
        exact.emplace(name, to);
      }
    }
  }

  const Contexts* find(std::string_view asked) const {
    if (asked.ends_with('.')) asked.remove_suffix(1);
    const std::string name = lower_case(asked);
    if (const auto found = exact.find(name); found != exact.end()) return found->second;
    // The star stands for exactly one label (RFC 6125, 6.4.3).
    const std::size_t dot = name.find('.');
    if (dot == std::string::npos || dot == 0) return nullptr;
    const auto found = wildcard.find(std::string_view(name).substr(dot));
    return found == wildcard.end() ? nullptr : found->second;
  }

  static int choose(SSL* ssl, int*, void* names) {
    const char* asked = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    if (!asked) return SSL_TLSEXT_ERR_NOACK;
    const Contexts* found = nullptr;
    try {
      found = static_cast<const Names*>(names)->find(asked);
    } catch (...) {
      return SSL_TLSEXT_ERR_ALERT_FATAL;  // no memory, and OpenSSL knows no exceptions
    }
    if (found) SSL_set_SSL_CTX(ssl, SSL_is_dtls(ssl) ? found->datagrams.get() : found->streams.get());
    return SSL_TLSEXT_ERR_OK;
  }

  using Kept = std::shared_ptr<const Names>;
  static void forget(void*, void* kept, CRYPTO_EX_DATA*, int, long, void*) { delete static_cast<Kept*>(kept); }
  /// The context shares in owning the names: an SSL may outlive the Identity.
  static bool keep(SSL_CTX* context, const Kept& names) {
    static const int index = SSL_CTX_get_ex_new_index(0, nullptr, nullptr, nullptr, forget);
    auto kept = std::make_unique<Kept>(names);
    if (index < 0 || SSL_CTX_set_ex_data(context, index, kept.get()) != 1) return false;
    kept.release();
    SSL_CTX_set_tlsext_servername_callback(context, choose);
    SSL_CTX_set_tlsext_servername_arg(context, const_cast<Names*>(names.get()));
    return true;
  }
};

Identity::~Identity() {
  SSL_CTX_free(streams_);
  SSL_CTX_free(datagrams_);
}

std::shared_ptr<const Identity> Identity::load(const std::vector<CertificateFiles>& files, std::string& why, std::vector<std::string>& warnings) {
  why.clear();
  if (files.empty()) {
    why = "TLS needs a certificate and its key";
    return nullptr;
  }
  struct Slot {  // a pair of contexts, and what is in it
    SSL_CTX *streams, *datagrams;
    std::vector<std::string> names;
    std::vector<int> key_types;
  };
  std::vector<Slot> slots;
  std::shared_ptr<Identity> identity(new Identity);
  const auto names = std::make_shared<Names>();
  for (const CertificateFiles& pair : files) {
    Pem pem;
    if (!read_pem(pair, pem, why, warnings)) return nullptr;
    std::vector<std::string> dns_names;
    identity->facts_.push_back(facts_of(pem.certificate.get(), pair.certificate, dns_names));
    const int key_type = EVP_PKEY_get_base_id(pem.key.get());
    // RSA beside EC for the same names: both into one context, and OpenSSL takes the one that the client can check.
    Slot* slot = nullptr;
    for (Slot& s : slots)
      if (s.names == dns_names && std::find(s.key_types.begin(), s.key_types.end(), key_type) == s.key_types.end()) slot = slot ? slot : &s;
    if (!slot) {
      auto streams = make_context(TLS_server_method(), TLS1_2_VERSION);
      auto datagrams = make_context(DTLS_server_method(), DTLS1_2_VERSION);
      if (!streams || !datagrams) {
        why = "OpenSSL gives no context for TLS: " + Errors().reason();
        return nullptr;
      }
      slots.push_back({streams.get(), datagrams.get(), dns_names, {}});
      slot = &slots.back();
      if (slots.size() == 1) {
        identity->streams_ = streams.release();
        identity->datagrams_ = datagrams.release();
        names->add(dns_names, nullptr);
      } else {
        names->contexts.push_back(std::make_unique<Names::Contexts>(Names::Contexts{std::move(streams), std::move(datagrams)}));
        names->add(dns_names, names->contexts.back().get());
      }
    }
    slot->key_types.push_back(key_type);
    if (!use(slot->streams, pair, pem, why) || !use(slot->datagrams, pair, pem, why)) return nullptr;

    warn_of_dates(pem.certificate.get(), "the certificate " + pair.certificate, warnings);
    warn_of_addresses(dns_names, "the certificate " + pair.certificate, warnings);
    for (int i = 0; i < sk_X509_num(pem.chain.get()); ++i)
      warn_of_dates(sk_X509_value(pem.chain.get(), i), "the CA's certificate number " + std::to_string(i + 2) + " in " + pair.certificate, warnings);
    if (identity->facts_.back().names.empty())
      warnings.push_back("the certificate " + pair.certificate + " has no subject alternative name: clients compare no other, and will refuse it");
  }
  if (!Names::keep(identity->streams_, names) || !Names::keep(identity->datagrams_, names)) {
    why = "OpenSSL gives no memory for the names of the certificates";
    return nullptr;
  }
  return identity;
}

}  // namespace radiotower::tls
