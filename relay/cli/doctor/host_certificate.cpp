// The certificate, as a phone will see it: for the address it is given, by a CA that it trusts, today.
#include <fmt/format.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <filesystem>
#include <memory>

#include "../tls_link.h"
#include "host_checks.h"

namespace radiotower::cli {

namespace {

constexpr int few_days = 21;
constexpr int longest_life = 825;  // days: Apple's limit for servers, those of a private CA too

template <auto release>
struct Release {
  template <typename T>
  void operator()(T* object) const {
    release(object);
  }
};
using Certificate = std::unique_ptr<X509, Release<X509_free>>;
using Key = std::unique_ptr<EVP_PKEY, Release<EVP_PKEY_free>>;
using Memory = std::unique_ptr<BIO, Release<BIO_free>>;

int no_passphrase(char*, int, int, void*) { return -1; }

std::vector<Certificate> certificates_in(const std::string& text) {
  std::vector<Certificate> found;
  const Memory in(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
  while (X509* next = in ? PEM_read_bio_X509(in.get(), nullptr, no_passphrase, nullptr) : nullptr) found.emplace_back(next);
  ERR_clear_error();
  return found;
}

std::string name_of(const X509_NAME* name) {
  char text[256] = {};
  if (X509_NAME_get_text_by_NID(const_cast<X509_NAME*>(name), NID_commonName, text, sizeof text) > 0) return text;
  X509_NAME_oneline(name, text, sizeof text);
  return text;
}

int days_between(const ASN1_TIME* from, const ASN1_TIME* to) {
  int days = 0, seconds = 0;
  return ASN1_TIME_diff(&days, &seconds, from, to) == 1 ? days : 0;
}

std::string date_of(const ASN1_TIME* time) {
  std::tm fields{};
  char text[32];
  ASN1_TIME_to_tm(time, &fields);
  return {text, std::strftime(text, sizeof text, "%Y-%m-%d", &fields)};
}

struct Pair {
  std::string certificate, key;
  std::string where_certificate, where_key;
  bool handed_over = false;
  bool first = false;
};

std::vector<Pair> pairs_of(const Examined& e) {
  std::vector<Pair> pairs;
  const auto loaded = e.unit.credentials.find("private_key");
  if (!e.config.certificate.empty() || !e.config.private_key.empty())
    pairs.push_back({e.config.certificate, e.config.private_key, e.where("listen.certificate"), e.where("listen.private_key"),
                     loaded != e.unit.credentials.end() && loaded->second == e.config.private_key, true});
  const std::filesystem::path folder = std::filesystem::path(e.config.file).parent_path();
  for (const auto& text : e.config.more_certificates) {
    const std::size_t blank = text.value.find(' ');
    const std::string where = fmt::format("listen.more_certificates ({})", text.source);
    pairs.push_back({(folder / text.value.substr(0, blank)).string(), (folder / text.value.substr(blank + 1)).string(), where, where, false, false});
  }
  return pairs;
}

class Look {
 public:
  Look(const Examined& e, const Pair& pair, Findings& findings) : e_(e), pair_(pair), findings_(findings) {}

  void at_all() {
    if (!is_readable(pair_.certificate, pair_.where_certificate) || !is_readable(pair_.key, pair_.where_key)) return;
    int error = 0;
    const auto text = e_.host.read(pair_.certificate, error), key = e_.host.read(pair_.key, error);
    if (!text) return say("certificate.readable", Severity::unknown, fmt::format("{} may not be read by you", pair_.certificate), "run this as root");
    chain_ = certificates_in(*text);
    if (chain_.empty())
      return say("certificate.load", Severity::fault, fmt::format("{} holds no certificate in PEM form", pair_.certificate),
                 "a file with -----BEGIN CERTIFICATE-----, the relay's own first and then those of the CAs above it");
    if (key) {
      if (!at_key(*key)) return;
    } else {
      say("certificate.key", Severity::unknown,
          fmt::format("{} may not be read by you, so whether it is the key of the certificate is not known",
                      pair_.key), "run this as root", pair_.where_key);
    }
    at_dates();
    at_names();
    at_strength();
    at_order();
    at_what_is_shown();
    if (!e_.question.ca_file.empty()) at_ca();
    else if (X509_NAME_cmp(X509_get_subject_name(leaf()), X509_get_issuer_name(leaf())) == 0)
      say("certificate.self-signed", Severity::note,
          fmt::format("{} vouches for itself: each phone has to be told to trust this very file",
                      pair_.certificate), "a CA of your own, whose certificate phones take once: `radiotower certificate`");
    else
      say("certificate.chain", Severity::unknown,
          fmt::format("whether phones trust {}, which signed the certificate, is not looked at",
                      name_of(X509_get_issuer_name(leaf()))), "--ca FILE, with the CA that phones have been given");
  }

 private:
  X509* leaf() const { return chain_.front().get(); }
  void say(const char* check, Severity severity, std::string sentence, std::string mend = "", std::string where = "?") {
    if (severity == Severity::good) where.clear();
    findings_.add({check, severity, std::move(sentence), std::move(mend), where == "?" ? pair_.where_certificate : std::move(where)});
  }

  bool is_readable(const std::string& path, const std::string& where) {
    int error = 0;
    const auto status = e_.host.status(path, error);
    if (!status && error != EACCES) {
      say("certificate.readable", Severity::fault,
          path.empty() ? "a certificate and its key go together, and one of them is not given" : fmt::format("there is no file {}", path),
          "certificate = \"chain.pem\" and private_key = \"key.pem\", relative to the folder of the configuration file", where);
      return false;
    }
    if (e_.user && !pair_.handed_over) {
      if (const std::string what = in_the_way(e_.host, path, *e_.user); !what.empty()) {
        say("certificate.readable", Severity::fault, what,
            fmt::format("chgrp {0} {1} && chmod 0640 {1}; for a folder: chmod o+x", e_.user->name, path), where);
        return false;
      }
    }
    if (status && path == pair_.key && status->mode & 0007)
      say("certificate.permissions", Severity::warning,
          fmt::format("every user of this host gets at the private key {} (mode {:04o})", path,
                      status->mode), fmt::format("chmod o-rwx {}", path), where);
    else say("certificate.readable", Severity::good, fmt::format("{} is there{}", path, e_.user ? ", and " + e_.user->name + " may read it" : ""));
    return true;
  }

  /// False: the rest would be about another certificate than was meant.
  bool at_key(const std::string& text) {
    const Memory in(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
    const Key key(in ? PEM_read_bio_PrivateKey(in.get(), nullptr, no_passphrase, nullptr) : nullptr);
    ERR_clear_error();
    if (!key) {
      say("certificate.key", Severity::fault, fmt::format("{} holds no private key that can be used: no PEM, or behind a passphrase", pair_.key),
          "openssl pkey -in OLD -out NEW takes a passphrase off", pair_.where_key);
      return true;
    }
    if (X509_check_private_key(leaf(), key.get()) == 1) {
      say("certificate.key", Severity::good, fmt::format("{} is the key of the certificate", pair_.key));
      return true;
    }
    ERR_clear_error();
    for (std::size_t i = 1; i < chain_.size(); ++i) {
      const bool belongs = X509_check_private_key(chain_[i].get(), key.get()) == 1;
      ERR_clear_error();
      if (!belongs) continue;
      say("certificate.order", Severity::fault,
          fmt::format("the relay's own certificate has to be the first in {}, and is number {}", pair_.certificate,
                      i + 1), "cat certificate.pem intermediate.pem > chain.pem");
      return false;
    }
    say("certificate.key", Severity::fault, fmt::format("{} is not the key of the certificate {}", pair_.key, pair_.certificate),
        "the key that the certificate was asked for with; both are made in one go, and renewed together", pair_.where_key);
    return true;
  }

  void at_dates() {
    for (std::size_t i = 0; i < chain_.size(); ++i) {
      X509* certificate = chain_[i].get();
      const std::string what = i == 0 ? "the certificate " + pair_.certificate
          : fmt::format("the CA's certificate number {} in {}", i + 1, pair_.certificate);
      const ASN1_TIME *from = X509_get0_notBefore(certificate), *to = X509_get0_notAfter(certificate);
      const int left = days_between(nullptr, to);
      if (X509_cmp_current_time(to) < 0)
        say("certificate.expired", Severity::fault, fmt::format("{} expired on {}: clients refuse it", what, date_of(to)),
            "a new one, and a reload: systemctl reload radiotower-relay");
      else if (X509_cmp_current_time(from) > 0)
        say("certificate.expired", Severity::fault,
            fmt::format("{} is not valid before {}, or the clock of this host is behind", what, date_of(from)), "look at the clock: date");
      else if (left < few_days)
        say("certificate.days", Severity::warning, fmt::format("{} expires on {}, in {} day{}", what, date_of(to), left, left == 1 ? "" : "s"),
            "a new one, and a reload: systemctl reload radiotower-relay");
      else if (i == 0) say("certificate.days", Severity::good, fmt::format("{} is valid until {}, for {} days", what, date_of(to), left));
    }
    if (const int life = days_between(X509_get0_notBefore(leaf()), X509_get0_notAfter(leaf())); life > longest_life)
      say("certificate.lifetime", Severity::warning,
          fmt::format("the certificate is made for {} days, and iPhones refuse what is made for more than {}", life,
                      longest_life), "one that is renewed each year: -days 365");
  }

  void at_names() {
    const auto names = names_of(leaf());
    if (names.empty())
      return say("certificate.names", Severity::fault, "the certificate has no subject alternative name, and clients compare no other",
                 fmt::format("one with subjectAltName = IP:{}", e_.phone.is_unspecified() ? "192.168.0.105" : e_.phone.text()));
    if (!pair_.first) return;
    if (!e_.phone.is_unspecified()) {
      const std::string phone = e_.phone.text();
      if (X509_check_ip_asc(leaf(), phone.c_str(), 0) == 1) {
        say("certificate.address", Severity::good, fmt::format("the certificate is for {}, which phones are given", phone));
      } else {
        const bool as_dns = std::find(names.begin(), names.end(), "DNS:" + phone) != names.end();
        say("certificate.address", e_.phone_is_given ? Severity::fault : e_.question.name.empty() ? Severity::warning : Severity::note,
            as_dns ? fmt::format("the certificate holds {} in a DNS entry, where no client looks for an address", phone)
                   : fmt::format("the certificate is for {}, and not for the address {}{}", joined(names), phone,
                                 e_.phone_is_given ? ", which phones are given" : " (--address says which one phones are given)"),
            fmt::format("one whose subject alternative names hold IP:{}; `radiotower certificate` makes it", phone));
      }
    }
    if (e_.question.name.empty()) return;
    if (X509_check_host(leaf(), e_.question.name.c_str(), 0, 0, nullptr) == 1)
      say("certificate.name", Severity::good, fmt::format("the certificate is for {}", e_.question.name));
    else
      say("certificate.name", Severity::fault, fmt::format("the certificate is for {}, and not for {}", joined(names), e_.question.name),
          fmt::format("one whose subject alternative names hold DNS:{}", e_.question.name));
  }

  void at_strength() {
    const EVP_PKEY* key = X509_get0_pubkey(leaf());
    const int type = key ? EVP_PKEY_get_base_id(key) : 0, bits = key ? EVP_PKEY_get_bits(key) : 0;
    if ((type == EVP_PKEY_RSA && bits < 2048) || (type == EVP_PKEY_EC && bits < 256)) {
      say("certificate.strength", Severity::fault, fmt::format("the key of the certificate has {} bits, and clients refuse it", bits),
          "EC P-256, or RSA with 2048 bits");
      return;
    }
    for (std::size_t i = 0; i < chain_.size(); ++i) {
      X509* certificate = chain_[i].get();
      if (X509_NAME_cmp(X509_get_subject_name(certificate), X509_get_issuer_name(certificate)) == 0 && i != 0)
        continue;  // nobody checks a root's signature
      const int signature = X509_get_signature_nid(certificate);
      if (signature == NID_sha1WithRSAEncryption || signature == NID_md5WithRSAEncryption || signature == NID_ecdsa_with_SHA1)
        return say("certificate.strength", Severity::fault,
                   fmt::format("certificate number {} in {} is signed with SHA-1 or MD5, and clients refuse that", i + 1,
                               pair_.certificate), "have it signed with SHA-256");
    }
    const std::unique_ptr<EXTENDED_KEY_USAGE, Release<EXTENDED_KEY_USAGE_free>> usage(static_cast<EXTENDED_KEY_USAGE*>(X509_get_ext_d2i(leaf(), NID_ext_key_usage, nullptr, nullptr)));
    if (usage && !(X509_get_extended_key_usage(leaf()) & XKU_SSL_SERVER))
      return say("certificate.usage", Severity::fault, "the certificate is not for servers (its extended key usage has no serverAuth)",
                 "have it signed with extendedKeyUsage = serverAuth");
    say("certificate.strength", Severity::good, fmt::format("a key of {} bits, and a signature that clients take", bits));
  }

  void at_order() {
    for (std::size_t i = 0; i + 1 < chain_.size(); ++i) {
      if (X509_NAME_cmp(X509_get_issuer_name(chain_[i].get()), X509_get_subject_name(chain_[i + 1].get())) == 0) continue;
      say("certificate.order", Severity::warning,
          fmt::format("in {} certificate number {} was signed by {}, and number {} is of {}", pair_.certificate, i + 1,
                      name_of(X509_get_issuer_name(chain_[i].get())), i + 2, name_of(X509_get_subject_name(chain_[i + 1].get()))),
          "the relay's own first, then the CA that signed it, then the one above");
      return;
    }
  }

  /// A certificate renewed on the disk is not in use before a reload.
  void at_what_is_shown() {
    if (!pair_.first || e_.relay == 0 || !e_.built) return;
    const auto& streams = e_.built->tls.empty() ? e_.built->tcp : e_.built->tls;
    const auto listener = std::find_if(streams.begin(), streams.end(), [&](const auto& a) { return a.ip == e_.phone; });
    if (listener == streams.end()) return;
    const auto shown = certificates_in(e_.host.certificate_shown(*listener));
    if (shown.empty()) return;  // the check of listeners says why
    if (X509_cmp(shown.front().get(), leaf()) == 0) return say("certificate.in-use", Severity::good, "the relay that runs uses this certificate");
    if (!e_.config.more_certificates.empty()) return;  // one of those beside it, for clients of another kind of key
    say("certificate.in-use", Severity::warning,
        fmt::format("the relay that runs uses another certificate than {}, one that is valid until {}", pair_.certificate,
                    date_of(X509_get0_notAfter(shown.front().get()))),
        "systemctl reload radiotower-relay; without systemd: kill -HUP, which ends no call");
  }

  void at_ca() {
    const std::string& file = e_.question.ca_file;
    int error = 0;
    const auto text = e_.host.read(file, error);
    const auto trusted = text ? certificates_in(*text) : std::vector<Certificate>{};
    if (trusted.empty())
      return say("certificate.chain", text ? Severity::fault : Severity::unknown, fmt::format("{} holds no certificate in PEM form", file),
                 "--ca takes the CA's certificate, -----BEGIN CERTIFICATE-----", "");
    const std::unique_ptr<X509_STORE, Release<X509_STORE_free>> store(X509_STORE_new());
    for (const auto& ca : trusted) X509_STORE_add_cert(store.get(), ca.get());
    const auto free_stack = [](STACK_OF(X509) * stack) { sk_X509_free(stack); };
    const std::unique_ptr<STACK_OF(X509), decltype(free_stack)> others(sk_X509_new_null(), free_stack);
    for (std::size_t i = 1; i < chain_.size(); ++i) sk_X509_push(others.get(), chain_[i].get());
    const std::unique_ptr<X509_STORE_CTX, Release<X509_STORE_CTX_free>> context(X509_STORE_CTX_new());
    X509_STORE_CTX_init(context.get(), store.get(), leaf(), others.get());
    X509_STORE_CTX_set_flags(context.get(), X509_V_FLAG_NO_CHECK_TIME);  // dates are another check's
    const int good = X509_verify_cert(context.get());
    const int why = X509_STORE_CTX_get_error(context.get());
    ERR_clear_error();
    if (good == 1)
      return say("certificate.chain", Severity::good,
                 fmt::format("phones that trust {} trust the certificate", name_of(X509_get_subject_name(trusted.front().get()))));
    const X509* last = X509_STORE_CTX_get_current_cert(context.get());
    const std::string missing = name_of(X509_get_issuer_name(last ? last : leaf()));
    if (why == X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY || why == X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT
        || why == X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE)
      return say("certificate.chain", Severity::fault,
                 fmt::format("between the certificate and {} the one of {} is missing: phones do not look for it",
                             name_of(X509_get_subject_name(trusted.front().get())), missing),
                 fmt::format("put it below the relay's own: cat {} intermediate.pem > chain.pem; or is {} another CA?", pair_.certificate, file));
    say("certificate.chain", Severity::fault,
        fmt::format("phones that trust {} do not trust the certificate: {}", file,
                    X509_verify_cert_error_string(why)), "have it signed by the CA that phones have been given");
  }

  const Examined& e_;
  const Pair& pair_;
  Findings& findings_;
  std::vector<Certificate> chain_;
};

}  // namespace

void check_certificate(const Examined& e, Findings& findings) {
  const auto pairs = pairs_of(e);
  if (pairs.empty() && e.config_is_read)
    findings.add({"certificate.none", Severity::note,
                  "there is no certificate, so clients get in over UDP and TCP, and not with turns: or over DTLS", "certificate and private_key in [listen]; docs/tls.md", "listen.certificate"});
  for (const auto& pair : pairs) Look(e, pair, findings).at_all();
}

}  // namespace radiotower::cli
