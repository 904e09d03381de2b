// Certificates for phones, looked at as a client does: X509_verify_cert with the address or the name.
#include "certificate.h"

#include <doctest/doctest.h>
#include <openssl/bio.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <fstream>

using namespace radiotower;
using namespace radiotower::cli::certificate;

namespace {

constexpr UnixSeconds now = 1'800'000'000, day = 86'400;
std::string why;

net::IpAddress ip(const char* text) { return *net::IpAddress::parse(text); }

Authority ca(OnlyFor only_for = {}, KeyType type = KeyType::ec, int days = ca_days) {
  auto made = make_authority("Office CA", type, days, only_for, now, why);
  REQUIRE_MESSAGE(made, why);
  return std::move(*made);
}

Issued issued_by(const Authority& authority, const Names& names, KeyType type = KeyType::ec, int days = default_days) {
  why.clear();
  auto made = issue(authority, names, type, days, now, why);
  REQUIRE_MESSAGE(made, why);
  return std::move(*made);
}

std::vector<Certificate> read(const std::string& pem) {
  std::unique_ptr<BIO, Freeing<BIO_free>> bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  std::vector<Certificate> out;
  while (X509* next = PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr)) out.emplace_back(next);
  return out;
}

/// What a client that trusts `root` says of the chain; X509_V_OK is 0.
int verdict(X509* root, const std::string& chain_pem, const char* address, const char* name, UnixSeconds when = now) {
  const auto chain = read(chain_pem);
  REQUIRE_FALSE(chain.empty());
  std::unique_ptr<X509_STORE, Freeing<X509_STORE_free>> store(X509_STORE_new());
  X509_STORE_add_cert(store.get(), root);
  STACK_OF(X509)* sent = sk_X509_new_null();
  for (std::size_t i = 1; i < chain.size(); ++i) sk_X509_push(sent, chain[i].get());
  std::unique_ptr<X509_STORE_CTX, Freeing<X509_STORE_CTX_free>> context(X509_STORE_CTX_new());
  X509_STORE_CTX_init(context.get(), store.get(), chain[0].get(), sent);
  auto* const wanted = X509_STORE_CTX_get0_param(context.get());
  X509_VERIFY_PARAM_set_purpose(wanted, X509_PURPOSE_SSL_SERVER);
  X509_VERIFY_PARAM_set_time(wanted, when);
  X509_VERIFY_PARAM_set_auth_level(wanted, 2);
  if (address) {
    const auto a = ip(address);
    X509_VERIFY_PARAM_set1_ip(wanted, a.is_v4() ? a.v4_bytes() : a.bytes.data(), a.is_v4() ? 4 : 16);
  }
  if (name) X509_VERIFY_PARAM_set1_host(wanted, name, 0);
  const int result = X509_verify_cert(context.get()) == 1 ? X509_V_OK : X509_STORE_CTX_get_error(context.get());
  sk_X509_free(sent);
  return result;
}

const Names office{{"tower.lan"}, {ip("192.168.0.105"), ip("fd00::105")}};

}  // namespace

TEST_CASE("a certificate is good for each of its addresses and names, and for no other") {
  for (const auto type : {KeyType::ec, KeyType::rsa}) {
    const auto authority = ca({}, type);
    const auto issued = issued_by(authority, office, type);
    X509* const root = authority.certificate.get();
    CHECK(verdict(root, issued.chain_pem, "192.168.0.105", nullptr) == X509_V_OK);
    CHECK(verdict(root, issued.chain_pem, "fd00::105", nullptr) == X509_V_OK);
    CHECK(verdict(root, issued.chain_pem, nullptr, "tower.lan") == X509_V_OK);
    CHECK(verdict(root, issued.chain_pem, "192.168.0.106", nullptr) == X509_V_ERR_IP_ADDRESS_MISMATCH);
    CHECK(verdict(root, issued.chain_pem, nullptr, "192.168.0.105") == X509_V_ERR_HOSTNAME_MISMATCH);  // no address in a DNS entry
    CHECK(verdict(ca().certificate.get(), issued.chain_pem, "192.168.0.105", nullptr) != X509_V_OK);
  }
}

TEST_CASE("it is what iOS asks for: serverAuth, a SAN, SHA-256, at most 825 days") {
  const auto authority = ca();
  const auto issued = issued_by(authority, office);
  const auto chain = read(issued.chain_pem);
  REQUIRE(chain.size() == 1);  // the root is on the phone
  X509* const leaf = chain[0].get();
  CHECK(X509_get_extended_key_usage(leaf) == XKU_SSL_SERVER);
  CHECK(X509_get_key_usage(leaf) == KU_DIGITAL_SIGNATURE);
  CHECK(X509_check_ca(leaf) == 0);
  CHECK(X509_get_signature_nid(leaf) == NID_ecdsa_with_SHA256);
  CHECK(ASN1_STRING_length(X509_get0_serialNumber(leaf)) == 20);
  CHECK(expiry_of(leaf) == now - 3600 + default_days * day);
  CHECK(issued.expires == expiry_of(leaf));
  // Clocks that are an hour behind.
  CHECK(verdict(authority.certificate.get(), issued.chain_pem, "192.168.0.105", nullptr, now - 3599) == X509_V_OK);
  CHECK(verdict(authority.certificate.get(), issued.chain_pem, "192.168.0.105", nullptr, now - 3601) == X509_V_ERR_CERT_NOT_YET_VALID);
  CHECK(verdict(authority.certificate.get(), issued.chain_pem, "192.168.0.105", nullptr, issued.expires + 1) == X509_V_ERR_CERT_HAS_EXPIRED);
  CHECK_FALSE(issue(authority, office, KeyType::ec, 826, now, why));
  CHECK(why.find("1 to 825 days") != std::string::npos);
}

TEST_CASE("two certificates have neither serial nor key in common") {
  const auto authority = ca();
  const auto one = issued_by(authority, office), two = issued_by(authority, office);
  CHECK(one.key_pem != two.key_pem);
  CHECK(ASN1_INTEGER_cmp(X509_get0_serialNumber(read(one.chain_pem)[0].get()), X509_get0_serialNumber(read(two.chain_pem)[0].get())) != 0);
}

TEST_CASE("a CA of one's own signs servers' certificates, and no further CAs") {
  const auto authority = ca();
  X509* const x = authority.certificate.get();
  CHECK(X509_check_ca(x) == 1);
  CHECK(X509_get_pathlen(x) == 0);
  CHECK(X509_get_key_usage(x) == (KU_KEY_CERT_SIGN | KU_CRL_SIGN));
  CHECK(subject_of(x) == "Office CA");
  CHECK(fingerprint_of(x).size() == 95);
}

TEST_CASE("--only-for: the CA vouches for nothing else, not even with its key in wrong hands (RFC 5280, 4.2.1.10)") {
  std::string no_why;
  const auto authority = ca({{"lan"}, {*net::AddressRange::parse("192.168.0.0/23", no_why)}});
  const Names inside{{"tower.lan", "lan"}, {ip("192.168.1.7")}};
  CHECK(verdict(authority.certificate.get(), issued_by(authority, inside).chain_pem, "192.168.1.7", nullptr) == X509_V_OK);
  const std::pair<const char*, const char*> others[] = {{"bank.example", nullptr}, {"notlan", nullptr}, {nullptr, "192.168.2.1"}, {nullptr, "fd00::1"}};
  for (const auto& [dns, address] : others) {
    Names outside;
    if (dns) outside.dns.push_back(dns);
    if (address) outside.addresses.push_back(ip(address));
    CAPTURE(dns ? dns : address);
    CHECK_FALSE(issue(authority, outside, KeyType::ec, default_days, now, why));
    CHECK(why.find("limited to other names or addresses") != std::string::npos);
  }
}

TEST_CASE("--only-for with a kind left out shuts that kind") {
  std::string no_why;
  const auto networks = ca({{}, {*net::AddressRange::parse("10.0.0.0/8", no_why), *net::AddressRange::parse("fd00::/8", no_why)}});
  CHECK(issue(networks, {{}, {ip("10.1.2.3"), ip("fd12::1")}}, KeyType::ec, 30, now, why));
  CHECK_FALSE(issue(networks, {{"tower.lan"}, {ip("10.1.2.3")}}, KeyType::ec, 30, now, why));
  const auto names = ca({{"lan"}, {}});
  CHECK(issue(names, {{"tower.lan"}, {}}, KeyType::ec, 30, now, why));
  CHECK_FALSE(issue(names, {{"tower.lan"}, {ip("10.1.2.3")}}, KeyType::ec, 30, now, why));
}

TEST_CASE("a CA is read back with its passphrase") {
  const auto made = ca();
  const auto certificate = to_pem(made.certificate.get()), key = to_pem(made.key.get(), "secret words");
  CHECK(is_encrypted(key));
  CHECK_FALSE(is_encrypted(to_pem(made.key.get(), "")));
  const auto again = read_authority(certificate, key, "secret words", now, why);
  REQUIRE_MESSAGE(again, why);
  CHECK(verdict(made.certificate.get(), issued_by(*again, office).chain_pem, "192.168.0.105", nullptr) == X509_V_OK);
  CHECK_FALSE(read_authority(certificate, key, "wrong words", now, why));
  CHECK(why == "the passphrase does not open the CA's key");
  CHECK_FALSE(read_authority(certificate, key, "", now, why));
}

TEST_CASE("what cannot issue is refused, and said why") {
  const auto made = ca();
  const auto certificate = to_pem(made.certificate.get()), key = to_pem(made.key.get(), "");
  const auto refusal = [&](const std::string& c, const std::string& k, UnixSeconds when = now) {
    CHECK_FALSE(read_authority(c, k, "", when, why));
    return why;
  };
  const auto issued = issued_by(made, office);
  CHECK(refusal(issued.chain_pem, issued.key_pem).find("is no CA") != std::string::npos);
  CHECK(refusal(certificate, to_pem(ca().key.get(), "")) == "the key is not that of \"Office CA\"");
  CHECK(refusal(certificate, key, now + 4000 * day).find("ran out on 2037-") != std::string::npos);
  CHECK(refusal(certificate, key, now - 2 * day).find("not valid yet") != std::string::npos);
  CHECK(refusal("", key).find("holds no certificate") != std::string::npos);
  CHECK(refusal(certificate, "").find("holds no private key") != std::string::npos);
  CHECK(refusal(certificate + issued.chain_pem, key).find("no chain") != std::string::npos);
  const auto short_lived = ca({}, KeyType::ec, 100);
  CHECK_FALSE(issue(short_lived, office, KeyType::ec, default_days, now, why));
  CHECK(why.find("itself runs out on") != std::string::npos);
  CHECK(why.find("--days 99") != std::string::npos);
  CHECK(issue(short_lived, office, KeyType::ec, 99, now, why));
  CHECK_FALSE(issue(made, {}, KeyType::ec, 10, now, why));
}

TEST_CASE("a CA without keyCertSign is refused") {
  auto made = ca();
  X509* const x = made.certificate.get();
  X509_EXTENSION_free(X509_delete_ext(x, X509_get_ext_by_NID(x, NID_key_usage, -1)));
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509_EXTENSION* usage = X509V3_EXT_conf_nid(nullptr, &context, NID_key_usage, "critical,digitalSignature");
  X509_add_ext(x, usage, -1);
  X509_EXTENSION_free(usage);
  X509_sign(x, made.key.get(), EVP_sha256());
  CHECK_FALSE(read_authority(to_pem(x), to_pem(made.key.get(), ""), "", now, why));
  CHECK(why.find("keyCertSign") != std::string::npos);
}

TEST_CASE("with an intermediate CA the chain goes from the server up, without the root") {
  auto root = ca();
  // An intermediate, made of a CA's certificate with another issuer and signature; the root has to allow one below it.
  X509* const r = root.certificate.get();
  X509_EXTENSION_free(X509_delete_ext(r, X509_get_ext_by_NID(r, NID_basic_constraints, -1)));
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509_EXTENSION* basic = X509V3_EXT_conf_nid(nullptr, &context, NID_basic_constraints, "critical,CA:TRUE");
  X509_add_ext(r, basic, -1);
  X509_EXTENSION_free(basic);
  X509_sign(r, root.key.get(), EVP_sha256());
  auto middle = make_authority("Floor 3 CA", KeyType::ec, 1000, {}, now, why);
  REQUIRE(middle);
  X509* const m = middle->certificate.get();
  X509_EXTENSION_free(X509_delete_ext(m, X509_get_ext_by_NID(m, NID_authority_key_identifier, -1)));
  X509_set_issuer_name(m, X509_get_subject_name(r));
  X509_sign(m, root.key.get(), EVP_sha256());
  const auto read_back = read_authority(to_pem(m) + to_pem(r), to_pem(middle->key.get(), ""), "", now, why);
  REQUIRE_MESSAGE(read_back, why);
  const auto issued = issued_by(*read_back, office);
  const auto chain = read(issued.chain_pem);
  REQUIRE(chain.size() == 2);
  CHECK(subject_of(chain[0].get()) == "tower.lan");
  CHECK(subject_of(chain[1].get()) == "Floor 3 CA");
  CHECK(verdict(r, issued.chain_pem, "192.168.0.105", nullptr) == X509_V_OK);
}

TEST_CASE("a DNS name is a name and no address") {
  for (const char* name : {"tower.lan", "tower", "*.office.lan", "a-b.example", "xn--bro-hoa.example"}) CHECK_MESSAGE(name_is_sound(name, why), name);
  for (const char* name : {"", ".", "tower.", ".lan", "a..b", "-a.lan", "a-.lan", "tower lan", "a,IP:1.2.3.4", "*", "*.", "a.*.lan", "tür.lan", "a\nb"})
    CHECK_FALSE_MESSAGE(name_is_sound(name, why), name);
  CHECK_FALSE(name_is_sound("192.168.0.105", why));
  CHECK(why == "192.168.0.105 is an address: --address 192.168.0.105");
}
