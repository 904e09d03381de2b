#include "notifier/tls_report.h"

#include <fmt/format.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <cerrno>
#include <cstring>
#include <ctime>
#include <stdexcept>
#include <vector>

namespace radiotower::notifier {

namespace {

constexpr std::size_t longest_name = 120, names_listed = 5, authorities_listed = 3;

struct FreeBio {
  void operator()(BIO* bio) const { BIO_free(bio); }
};
using Bio = std::unique_ptr<BIO, FreeBio>;
struct FreeX509 {
  void operator()(X509* certificate) const { X509_free(certificate); }
};
using OwnedCertificate = std::unique_ptr<X509, FreeX509>;

/// A certificate's text is anybody's: control characters are escaped, and length is bounded.
std::string text_of(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  std::string text(data, size > 0 ? static_cast<std::size_t>(size) : 0);
  if (text.size() > longest_name) text.replace(longest_name, std::string::npos, "...");
  return text;
}

/// The CN alone where there is one: the rest of a subject helps nobody to find the file.
std::string text_of(const X509_NAME* name) {
  const int at = X509_NAME_get_index_by_NID(name, NID_commonName, -1);
  const Bio bio(BIO_new(BIO_s_mem()));
  constexpr unsigned long style = ASN1_STRFLGS_ESC_CTRL | ASN1_STRFLGS_ESC_MSB | ASN1_STRFLGS_UTF8_CONVERT;
  if (at >= 0) {
    BIO_puts(bio.get(), "CN=");
    ASN1_STRING_print_ex(bio.get(), X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, at)), style);
  } else {
    X509_NAME_print_ex(bio.get(), name, 0, style | XN_FLAG_SEP_COMMA_PLUS | XN_FLAG_DN_REV | XN_FLAG_FN_SN);
  }
  const std::string text = text_of(bio.get());
  return text.empty() ? "(no name)" : text;
}

std::string text_of(const ASN1_TIME* time) {
  std::tm t{};
  if (ASN1_TIME_to_tm(time, &t) != 1) return "?";
  return fmt::format("{:04}-{:02}-{:02}", t.tm_year + 1900, t.tm_mon + 1, t.tm_mday);
}

std::string subject(const X509* certificate) { return text_of(X509_get_subject_name(certificate)); }
std::string issuer(const X509* certificate) { return text_of(X509_get_issuer_name(certificate)); }
std::string until(const X509* certificate) { return text_of(X509_get0_notAfter(certificate)); }
std::string from(const X509* certificate) { return text_of(X509_get0_notBefore(certificate)); }

/// "chat.city.example, 192.168.0.105"; "none" when it names nothing.
std::string names(const X509* certificate) {
  auto* all = static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr));
  std::string out;
  std::size_t listed = 0, left_out = 0;
  for (int i = 0; i < sk_GENERAL_NAME_num(all); ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(all, i);
    std::string text;
    if (name->type == GEN_DNS) {
      const Bio bio(BIO_new(BIO_s_mem()));
      ASN1_STRING_print_ex(bio.get(), name->d.dNSName, ASN1_STRFLGS_ESC_CTRL | ASN1_STRFLGS_ESC_MSB);
      text = text_of(bio.get());
    } else if (name->type == GEN_IPADD) {
      const unsigned char* bytes = ASN1_STRING_get0_data(name->d.iPAddress);
      if (ASN1_STRING_length(name->d.iPAddress) == 4) {
        text = fmt::format("{}.{}.{}.{}", bytes[0], bytes[1], bytes[2], bytes[3]);
      } else if (ASN1_STRING_length(name->d.iPAddress) == 16) {
        for (int k = 0; k < 16; k += 2) text += fmt::format("{}{:x}", k ? ":" : "", bytes[k] << 8 | bytes[k + 1]);
      }
    }
    if (text.empty()) continue;
    if (listed == names_listed) ++left_out;
    else {
      out += (listed++ ? ", " : "") + text;
    }
  }
  GENERAL_NAMES_free(all);
  if (left_out) out += fmt::format(" and {} more", left_out);
  return out.empty() ? "none" : out;
}

bool is_self_signed(const X509* certificate) {
  return X509_NAME_cmp(X509_get_subject_name(certificate), X509_get_issuer_name(certificate)) == 0;
}

std::string describe(const X509* certificate) {
  return fmt::format("{} (names: {}; {}; valid {} to {})", subject(certificate), names(certificate),
                     is_self_signed(certificate) ? "self-signed" : "issued by " + issuer(certificate), from(certificate), until(certificate));
}

std::vector<OwnedCertificate> read_ca_file(const std::string& file) {
  const Bio bio(BIO_new_file(file.c_str(), "r"));
  if (!bio) {
    const int error = errno;
    ERR_clear_error();
    throw std::runtime_error(fmt::format("mattermost.ca_file {}: {}", file, std::strerror(error)));
  }
  std::vector<OwnedCertificate> found;
  while (X509* certificate = PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr)) found.emplace_back(certificate);
  const unsigned long error = ERR_peek_last_error();
  ERR_clear_error();
  if (found.empty() || ERR_GET_REASON(error) != PEM_R_NO_START_LINE) {
    throw std::runtime_error(fmt::format("mattermost.ca_file {}: {}; it is to hold PEM blocks that begin with -----BEGIN CERTIFICATE-----", file,
                                         found.empty() ? std::string("there is no certificate in it")
                                                       : fmt::format("what comes after certificate {} cannot be read", found.size())));
  }
  return found;
}

std::string base_name(const std::string& file) { return file.substr(file.rfind('/') + 1); }

/// What ca_file holds, for a sentence about a certificate that it does not vouch for; an unreadable file is a sentence too.
std::string holdings(const std::string& ca_file) {
  if (ca_file.empty()) return "the system's store";
  try {
    return describe_ca_file(ca_file);
  } catch (const std::runtime_error& e) {
    return e.what();
  }
}

bool has_namesake(const std::string& ca_file, const X509_NAME* issuer) {
  if (ca_file.empty()) return false;
  try {
    for (const auto& certificate : read_ca_file(ca_file))
      if (X509_NAME_cmp(X509_get_subject_name(certificate.get()), issuer) == 0) return true;
  } catch (const std::runtime_error&) {
  }
  return false;
}

int our_index() {
  static const int index = SSL_CTX_get_ex_new_index(0, nullptr, nullptr, nullptr, nullptr);
  return index;
}

}  // namespace

std::string describe_ca_file(const std::string& file) {
  const auto found = read_ca_file(file);
  std::string list;
  for (std::size_t i = 0; i < found.size() && i < authorities_listed; ++i)
    list += fmt::format("{}{}, valid until {}", i ? "; " : "", subject(found[i].get()), until(found[i].get()));
  if (found.size() > authorities_listed) list += fmt::format("; and {} more", found.size() - authorities_listed);
  return fmt::format("{} ({} certificate{}: {})", base_name(file), found.size(), found.size() == 1 ? "" : "s", list);
}

void TlsReport::watch(SSL_CTX* context) {
  clear();
  SSL_CTX_set_ex_data(context, our_index(), this);
  SSL_CTX_set_verify(context, SSL_CTX_get_verify_mode(context), &TlsReport::verified);
  // Nothing is verified a second time in a connection's life, when this report may tell of another one.
  SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION);
}

void TlsReport::clear() {
  shown_.reset();
  failed_.reset();
  error_ = X509_V_OK;
  depth_ = 0;
}

int TlsReport::verified(int good, X509_STORE_CTX* store) {
  const auto* ssl = static_cast<SSL*>(X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx()));
  auto* report = static_cast<TlsReport*>(SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), our_index()));
  if (!report) return good;
  const auto keep = [](X509* certificate) {
    if (certificate) X509_up_ref(certificate);
    return Certificate(certificate);
  };
  if (!report->shown_) report->shown_ = keep(X509_STORE_CTX_get0_cert(store));
  if (!good && report->error_ == X509_V_OK) {
    report->error_ = X509_STORE_CTX_get_error(store);
    report->depth_ = X509_STORE_CTX_get_error_depth(store);
    report->failed_ = keep(X509_STORE_CTX_get_current_cert(store));
  }
  return good;
}

std::string TlsReport::explain(std::string_view at, std::string_view host, const std::string& ca_file) const {
  if (error_ == X509_V_OK || !shown_) return {};
  const X509* failed = failed_ ? failed_.get() : shown_.get();
  const std::string showed = fmt::format("{} showed the certificate of {}", at, describe(shown_.get()));
  const std::string whose = depth_ == 0 ? "it" : fmt::format("its issuer {}", subject(failed));
  switch (error_) {
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_CERT_SIGNATURE_FAILURE: {
      const std::string missing = is_self_signed(failed) ? subject(failed) : issuer(failed);
      if (has_namesake(ca_file, X509_get_issuer_name(failed)))
        return fmt::format("{}, which {} does not vouch for: it holds a {} with another key, maybe the one before a renewal: put the present one into "
                           "mattermost.ca_file", showed, holdings(ca_file), missing);
      return fmt::format("{}, which {} does not vouch for: put the issuer's certificate ({}) into {}", showed, holdings(ca_file), missing,
                         ca_file.empty() ? "a PEM file and name that as mattermost.ca_file" : "mattermost.ca_file");
    }
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
      return fmt::format("{}, which {} does not hold: put this certificate itself into {}, or give the server one of your CA", showed, holdings(ca_file),
                         ca_file.empty() ? "a PEM file, name that as mattermost.ca_file" : "mattermost.ca_file");
    case X509_V_ERR_CERT_HAS_EXPIRED:
      return fmt::format("{}: {} has expired on {}: renew it{}", showed, whose, until(failed),
                         depth_ == 0 ? " on the server" : ", and put the new one into mattermost.ca_file or onto the server");
    case X509_V_ERR_CERT_NOT_YET_VALID:
      return fmt::format("{}: {} is valid from {} on alone: is the clock of this host right?", showed, whose, from(failed));
    case X509_V_ERR_INVALID_CA:
    case X509_V_ERR_INVALID_PURPOSE:
    case X509_V_ERR_NO_ISSUER_PUBLIC_KEY:
      return fmt::format("{}: {} may not be used for this ({}): issue it anew with the right extensions", showed, whose, X509_verify_cert_error_string(error_));
    default: return fmt::format("{}: {} was refused: {} (host {})", showed, whose, X509_verify_cert_error_string(error_), host);
  }
}

std::string TlsReport::explain_wrong_name(std::string_view at, std::string_view host) const {
  if (!shown_) return {};
  return fmt::format("{} showed the certificate of {}, which is not made out to {}: write one of its names into the URL, or have {} added to the certificate", at,
                     describe(shown_.get()), host, host);
}

}  // namespace radiotower::notifier
