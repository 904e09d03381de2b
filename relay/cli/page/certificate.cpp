#include "certificate.h"

#include <fmt/format.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <cstring>
#include <ctime>

#include "radiotower/base/calendar.h"
#include "text.h"

namespace radiotower::cli::certificate {

namespace {

using page::refuse;
using Bio = std::unique_ptr<BIO, Freeing<BIO_free>>;

constexpr long hour = 3600, day = 24 * hour;

/// The reason of OpenSSL's last error; its queue is then empty.
std::string reason() {
  const auto code = ERR_peek_last_error();
  const char* text = code ? ERR_reason_error_string(code) : nullptr;
  ERR_clear_error();
  return text ? text : "OpenSSL does not say why";
}

Bio reading(std::string_view text) { return Bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size()))); }

std::string text_of(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  return size > 0 ? std::string(data, static_cast<std::size_t>(size)) : std::string();
}

int give_password(char* buffer, int size, int, void* password) {
  const auto& text = *static_cast<const std::string*>(password);
  if (size < 0 || text.size() > static_cast<std::size_t>(size)) return -1;
  std::memcpy(buffer, text.data(), text.size());
  return static_cast<int>(text.size());
}

Key make_key(KeyType type, unsigned rsa_bits) { return Key(type == KeyType::ec ? EVP_EC_gen("P-256") : EVP_RSA_gen(rsa_bits)); }

bool add(X509* to, X509* issuer, int nid, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, issuer, to, nullptr, nullptr, 0);
  X509_EXTENSION* made = X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str());
  const bool added = made && X509_add_ext(to, made, -1) == 1;
  X509_EXTENSION_free(made);
  return added;
}

/// A certificate that still wants its extensions and its signature.
Certificate begin(const std::string& common_name, EVP_PKEY* key, X509_NAME* issuer, UnixSeconds now, int days) {
  Certificate made(X509_new());
  X509* x = made.get();
  std::unique_ptr<BIGNUM, Freeing<BN_free>> serial(BN_new());
  // 159 bits with the highest set: positive, of 20 bytes, never 0 (RFC 5280, 4.1.2.2).
  const bool done = x && serial && X509_set_version(x, X509_VERSION_3) == 1 && BN_rand(serial.get(), 159, BN_RAND_TOP_ONE, BN_RAND_BOTTOM_ANY) == 1 &&
                    BN_to_ASN1_INTEGER(serial.get(), X509_get_serialNumber(x)) && X509_set_pubkey(x, key) == 1 &&
                    ASN1_TIME_set(X509_getm_notBefore(x), now - hour) && ASN1_TIME_set(X509_getm_notAfter(x), now - hour + days * day) &&
                    X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_UTF8, reinterpret_cast<const unsigned char*>(common_name.data()),
                                               static_cast<int>(common_name.size()), -1, 0) == 1 &&
                    X509_set_issuer_name(x, issuer ? issuer : X509_get_subject_name(x)) == 1;
  return done ? std::move(made) : nullptr;
}

using Subtrees = STACK_OF(GENERAL_SUBTREE);

bool push(Subtrees*& to, int type, const std::string& value) {
  if (!to) to = sk_GENERAL_SUBTREE_new_null();
  GENERAL_SUBTREE* const tree = GENERAL_SUBTREE_new();
  if (!to || !tree) return false;
  tree->base->type = type;
  ASN1_STRING* text = type == GEN_DNS ? static_cast<ASN1_STRING*>(ASN1_IA5STRING_new()) : ASN1_OCTET_STRING_new();
  if (type == GEN_DNS) tree->base->d.dNSName = text;
  else tree->base->d.iPAddress = text;
  return text && ASN1_STRING_set(text, value.data(), static_cast<int>(value.size())) == 1 && sk_GENERAL_SUBTREE_push(to, tree) > 0;
}

/// Address and mask, as RFC 5280 has a network.
std::string network_bytes(const net::AddressRange& range) {
  const bool v4 = range.first.is_v4();
  const std::size_t size = v4 ? 4 : 16, skip = 16 - size;
  std::string out(reinterpret_cast<const char*>(range.first.bytes.data()) + skip, size);
  const unsigned bits = range.prefix_length().value_or(0);
  for (std::size_t i = 0; i < size; ++i) {
    const unsigned ones = bits > 8 * i ? std::min(8U, bits - static_cast<unsigned>(8 * i)) : 0;
    out += static_cast<char>(static_cast<std::uint8_t>(0xFF00U >> ones));
  }
  return out;
}

bool add_constraints(X509* to, const OnlyFor& only_for) {
  const std::unique_ptr<NAME_CONSTRAINTS, Freeing<NAME_CONSTRAINTS_free>> all(NAME_CONSTRAINTS_new());
  if (!all) return false;
  bool done = true, v4 = false, v6 = false;
  for (const auto& name : only_for.dns) done = done && push(all->permittedSubtrees, GEN_DNS, name);
  for (const auto& network : only_for.networks) {
    done = done && push(all->permittedSubtrees, GEN_IPADD, network_bytes(network));
    (network.first.is_v4() ? v4 : v6) = true;
  }
  // A kind that nothing is said of would be free. A permitted network of one family shuts the other out by itself, but not in every program.
  if (only_for.dns.empty()) done = done && push(all->excludedSubtrees, GEN_DNS, "");
  if (!v4) done = done && push(all->excludedSubtrees, GEN_IPADD, std::string(8, '\0'));
  if (!v6) done = done && push(all->excludedSubtrees, GEN_IPADD, std::string(32, '\0'));
  return done && X509_add1_ext_i2d(to, NID_name_constraints, all.get(), 1, X509V3_ADD_APPEND) == 1;
}

/// As a client does: the chain up to the CA, for a server, and the name. Empty: all is well.
std::string verify(const Authority& authority, X509* leaf, const Names& names, UnixSeconds now) {
  const std::unique_ptr<X509_STORE, Freeing<X509_STORE_free>> store(X509_STORE_new());
  if (!store || X509_STORE_add_cert(store.get(), authority.certificate.get()) != 1) return reason();
  const auto once = [&](const std::string* dns, const net::IpAddress* ip) -> std::string {
    const std::unique_ptr<X509_STORE_CTX, Freeing<X509_STORE_CTX_free>> context(X509_STORE_CTX_new());
    if (!context || X509_STORE_CTX_init(context.get(), store.get(), leaf, nullptr) != 1) return reason();
    X509_VERIFY_PARAM* const wanted = X509_STORE_CTX_get0_param(context.get());
    X509_VERIFY_PARAM_set_flags(wanted, X509_V_FLAG_PARTIAL_CHAIN);  // the CA may be an intermediate one
    X509_VERIFY_PARAM_set_purpose(wanted, X509_PURPOSE_SSL_SERVER);
    X509_VERIFY_PARAM_set_time(wanted, now);
    if (dns) X509_VERIFY_PARAM_set1_host(wanted, dns->data(), dns->size());
    if (ip) X509_VERIFY_PARAM_set1_ip(wanted, ip->is_v4() ? ip->v4_bytes() : ip->bytes.data(), ip->is_v4() ? 4 : 16);
    if (X509_verify_cert(context.get()) == 1) return {};
    const int error = X509_STORE_CTX_get_error(context.get());
    ERR_clear_error();
    if (error == X509_V_ERR_PERMITTED_VIOLATION || error == X509_V_ERR_EXCLUDED_VIOLATION)
      return "this CA is limited to other names or addresses (its name constraints)";
    return X509_verify_cert_error_string(error);
  };
  std::string why = once(nullptr, nullptr);
  for (const auto& name : names.dns)
    if (why.empty() && !name.starts_with("*.")) why = once(&name, nullptr);
  for (const auto& address : names.addresses)
    if (why.empty()) why = once(nullptr, &address);
  return why;
}

UnixSeconds seconds_of(const ASN1_TIME* time) {
  std::tm parts{};
  return ASN1_TIME_to_tm(time, &parts) == 1 ? timegm(&parts) : 0;
}

}  // namespace

bool name_is_sound(std::string_view name, std::string& why) {
  if (net::IpAddress::parse(name)) return why = fmt::format("{} is an address: --address {}", name, name), false;
  std::string_view rest = name.starts_with("*.") ? name.substr(2) : name;
  bool sound = !rest.empty() && name.size() <= 253;
  while (sound && !rest.empty()) {
    const auto dot = rest.find('.');
    const auto label = rest.substr(0, dot);
    sound = !label.empty() && label.size() <= 63 && label.front() != '-' && label.back() != '-' && (dot == std::string_view::npos || dot + 1 < rest.size());
    for (const char c : label) sound = sound && ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_');
    rest.remove_prefix(dot == std::string_view::npos ? rest.size() : dot + 1);
  }
  if (!sound) why = fmt::format("\"{}\" is no DNS name, like tower.lan", name);
  return sound;
}

std::optional<Authority> make_authority(const std::string& name, KeyType type, int days, const OnlyFor& only_for, UnixSeconds now, std::string& why) {
  if (name.empty() || name.size() > 64) return refuse(why, "a CA's name has 1 to 64 characters");  // ub-common-name of RFC 5280
  Authority made;
  made.key = make_key(type, 3072);
  if (made.key) made.certificate = begin(name, made.key.get(), nullptr, now, days);
  X509* const x = made.certificate.get();
  const bool done = x && add(x, x, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") && add(x, x, NID_key_usage, "critical,keyCertSign,cRLSign") &&
                    add(x, x, NID_subject_key_identifier, "hash") && add(x, x, NID_authority_key_identifier, "keyid") &&
                    (only_for.empty() || add_constraints(x, only_for)) && X509_sign(x, made.key.get(), EVP_sha256()) > 0;
  if (!done) return refuse(why, reason());
  return made;
}

bool is_encrypted(std::string_view key) {
  return key.find("BEGIN ENCRYPTED PRIVATE KEY") != std::string_view::npos || key.find("Proc-Type: 4,ENCRYPTED") != std::string_view::npos;
}

std::optional<Authority> read_authority(std::string_view certificates, std::string_view key, const std::string& password, UnixSeconds now, std::string& why) {
  Authority read;
  const Bio pem = reading(certificates), key_pem = reading(key);
  while (Certificate next{PEM_read_bio_X509(pem.get(), nullptr, nullptr, nullptr)}) {
    if (!read.certificate) read.certificate = std::move(next);
    else if (X509_self_signed(next.get(), 0) != 1) read.above.push_back(std::move(next));
  }
  ERR_clear_error();
  if (!read.certificate) return refuse(why, "the CA's file holds no certificate in PEM (-----BEGIN CERTIFICATE-----)");
  X509* const ca = read.certificate.get();
  const std::string who = subject_of(ca);
  // With one of its own it is a root, or at least has all it needs: what else stands in the file is not its chain.
  X509* below = ca;
  for (const auto& next : read.above) {
    if (X509_check_issued(next.get(), below) != X509_V_OK)
      return refuse(why, fmt::format("the certificates of the CA's file are no chain: \"{}\" does not vouch for \"{}\"",
                                      subject_of(next.get()), subject_of(below)));
    below = next.get();
  }
  const bool is_ca = (X509_get_extension_flags(ca) & EXFLAG_CA) != 0, may_sign = (X509_get_key_usage(ca) & KU_KEY_CERT_SIGN) != 0;
  if (!is_ca) return refuse(why, fmt::format("\"{}\" is no CA: its basic constraints do not say CA:TRUE. Is that the certificate of a server?", who));
  if (!may_sign || X509_check_ca(ca) != 1)
    return refuse(why, fmt::format("\"{}\" may not sign certificates: keyCertSign is missing in its key usage", who));
  if (expiry_of(ca) <= now)
    return refuse(why, fmt::format("\"{}\" ran out on {}: make a new CA with --make-ca, and put it on all clients", who, utc_day(expiry_of(ca))));
  if (seconds_of(X509_get0_notBefore(ca)) > now) return refuse(why, fmt::format("\"{}\" is not valid yet: is this host's clock right?", who));
  read.key.reset(PEM_read_bio_PrivateKey(key_pem.get(), nullptr, give_password, const_cast<std::string*>(&password)));
  if (!read.key) {
    why = is_encrypted(key) ? "the passphrase does not open the CA's key" : "the CA's key file holds no private key in PEM (" + reason() + ")";
    ERR_clear_error();
    return std::nullopt;
  }
  if (X509_check_private_key(ca, read.key.get()) != 1) {
    ERR_clear_error();
    return refuse(why, fmt::format("the key is not that of \"{}\"", who));
  }
  return read;
}

std::optional<Issued> issue(const Authority& authority, const Names& names, KeyType type, int days, UnixSeconds now, std::string& why) {
  X509* const ca = authority.certificate.get();
  if (names.dns.empty() && names.addresses.empty()) return refuse(why, "a certificate needs a name or an address");
  if (days < 1 || days > most_days)
    return refuse(why, fmt::format("1 to {} days: iPhones and Macs refuse what is valid for longer, whoever issued it", most_days));
  const UnixSeconds expires = now - hour + days * day;
  X509* first_out = ca;
  for (const auto& above : authority.above)
    if (expiry_of(above.get()) < expiry_of(first_out)) first_out = above.get();
  if (expiry_of(first_out) < expires)
    return refuse(why, fmt::format("\"{}\" itself runs out on {}, before the certificate would: --days {}, or a new CA with --make-ca", subject_of(first_out),
                             utc_day(expiry_of(first_out)), (expiry_of(first_out) - now) / day));
  std::string alternatives;
  for (const auto& name : names.dns) alternatives += (alternatives.empty() ? "DNS:" : ",DNS:") + name;
  for (const auto& address : names.addresses) alternatives += (alternatives.empty() ? "IP:" : ",IP:") + address.text();
  // The spaces tell everybody that this is no DNS name, or name constraints would be held against it.
  const std::string common_name = !names.dns.empty() && names.dns.front().size() <= 64 ? names.dns.front() : "the relay of this network";
  const Key key = make_key(type, 2048);
  const Certificate leaf = key ? begin(common_name, key.get(), X509_get_subject_name(ca), now, days) : nullptr;
  X509* const x = leaf.get();
  // Ed25519 and its like hash by themselves.
  int digest_nid = NID_undef;
  const bool own_digest = EVP_PKEY_get_default_digest_nid(authority.key.get(), &digest_nid) == 2 && digest_nid == NID_undef;
  const bool done = x && add(x, ca, NID_basic_constraints, "critical,CA:FALSE") &&
                    add(x, ca, NID_key_usage, type == KeyType::rsa ? "critical,digitalSignature,keyEncipherment" : "critical,digitalSignature") &&
                    add(x, ca, NID_ext_key_usage, "serverAuth") && add(x, ca, NID_subject_alt_name, alternatives) &&
                    add(x, ca, NID_subject_key_identifier, "hash") &&
                    (!X509_get0_subject_key_id(ca) || add(x, ca, NID_authority_key_identifier, "keyid")) &&
                    X509_sign(x, authority.key.get(), own_digest ? nullptr : EVP_sha256()) > 0;
  if (!done) return refuse(why, reason());
  if (const auto wrong = verify(authority, x, names, now); !wrong.empty()) return refuse(why, "a client would refuse it: " + wrong);
  Issued issued{to_pem(x), to_pem(key.get(), {}), expires};
  if (X509_self_signed(ca, 0) != 1) issued.chain_pem += to_pem(ca);
  for (const auto& above : authority.above) issued.chain_pem += to_pem(above.get());
  return issued;
}

std::string to_pem(X509* certificate) {
  const Bio out(BIO_new(BIO_s_mem()));
  return out && PEM_write_bio_X509(out.get(), certificate) == 1 ? text_of(out.get()) : std::string();
}

std::string to_pem(EVP_PKEY* key, const std::string& password) {
  const Bio out(BIO_new(BIO_s_secmem()));
  const bool done = out && PEM_write_bio_PKCS8PrivateKey(out.get(), key, password.empty() ? nullptr : EVP_aes_256_cbc(), nullptr, 0, give_password,
                                                         const_cast<std::string*>(&password)) == 1;
  return done ? text_of(out.get()) : std::string();
}

std::string subject_of(X509* certificate) {
  const X509_NAME* const name = X509_get_subject_name(certificate);
  const int at = X509_NAME_get_index_by_NID(name, NID_commonName, -1);
  if (at >= 0) {
    unsigned char* text = nullptr;
    const int size = ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, at)));
    std::string out(reinterpret_cast<char*>(text), size > 0 ? static_cast<std::size_t>(size) : 0);
    OPENSSL_free(text);
    for (char& c : out)
      if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
    return out;
  }
  char line[256];
  return X509_NAME_oneline(name, line, sizeof line) ? line : "?";
}

std::string fingerprint_of(X509* certificate) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  if (X509_digest(certificate, EVP_sha256(), digest, &size) != 1) return {};
  std::string out;
  for (unsigned i = 0; i < size; ++i) out += fmt::format("{}{:02X}", i ? ":" : "", digest[i]);
  return out;
}

UnixSeconds expiry_of(X509* certificate) { return seconds_of(X509_get0_notAfter(certificate)); }

std::optional<std::string> der_of_ca(const std::string& path, std::string& why) {
  const Bio file(BIO_new_file(path.c_str(), "r"));
  const Certificate read(file ? PEM_read_bio_X509(file.get(), nullptr, nullptr, nullptr) : nullptr);
  ERR_clear_error();
  if (!file) return refuse(why, fmt::format("{}: {}", path, std::strerror(errno)));
  if (!read) return refuse(why, path + ": no certificate in PEM (-----BEGIN CERTIFICATE-----)");
  if (X509_check_ca(read.get()) == 0)
    return refuse(why, fmt::format("{}: \"{}\" is no CA; phones need the one that issued it", path, subject_of(read.get())));
  unsigned char* der = nullptr;
  const int size = i2d_X509(read.get(), &der);
  std::string out(reinterpret_cast<char*>(der), size > 0 ? static_cast<std::size_t>(size) : 0);
  OPENSSL_free(der);
  return out;
}

}  // namespace radiotower::cli::certificate
