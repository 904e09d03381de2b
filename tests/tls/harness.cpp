#include "harness.h"

#include <cstdlib>
#include <fstream>

namespace radiotower::tls {

Folder::Folder() {
  std::string pattern = (std::filesystem::temp_directory_path() / "tls-XXXXXX").string();
  REQUIRE(mkdtemp(pattern.data()));
  path_ = pattern;
}
Folder::~Folder() { std::filesystem::remove_all(path_); }

Key ec_key() { return {EVP_EC_gen("P-256"), EVP_PKEY_free}; }
Key rsa_key(unsigned bits) { return {EVP_RSA_gen(bits), EVP_PKEY_free}; }

Certificate make_certificate(const Key& key, const Wanted& wanted, const Certificate& issuer, const Key& issuer_key) {
  static long serial = 1;
  const Certificate made(X509_new(), X509_free);
  X509_set_version(made.get(), 2);
  ASN1_INTEGER_set(X509_get_serialNumber(made.get()), ++serial);
  X509_gmtime_adj(X509_getm_notBefore(made.get()), wanted.from);
  X509_gmtime_adj(X509_getm_notAfter(made.get()), wanted.until);
  X509_set_pubkey(made.get(), key.get());
  X509_NAME* subject = X509_get_subject_name(made.get());
  const std::string name = "number " + std::to_string(serial);
  X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
  X509_set_issuer_name(made.get(), issuer ? X509_get_subject_name(issuer.get()) : subject);
  const auto extend = [&](int id, const std::string& value) {
    const std::unique_ptr<X509_EXTENSION, decltype(&X509_EXTENSION_free)> extension(X509V3_EXT_conf_nid(nullptr, nullptr, id, value.c_str()),
                                                                                  X509_EXTENSION_free);
    REQUIRE(extension);
    X509_add_ext(made.get(), extension.get(), -1);
  };
  if (!wanted.names.empty()) extend(NID_subject_alt_name, wanted.names);
  if (wanted.authority) extend(NID_basic_constraints, "critical,CA:TRUE");
  X509_sign(made.get(), issuer_key ? issuer_key.get() : key.get(), wanted.digest);
  return made;
}

void write_text(const std::string& file, std::string_view text) { std::ofstream(file, std::ios::binary) << text; }

namespace {
std::string text_of(const std::function<void(BIO*)>& write) {
  const std::unique_ptr<BIO, decltype(&BIO_free)> out(BIO_new(BIO_s_mem()), BIO_free);
  write(out.get());
  char* data = nullptr;
  const long size = BIO_get_mem_data(out.get(), &data);
  return {data, static_cast<std::size_t>(size)};
}
}  // namespace

std::string pem(const Certificate& certificate) {
  return text_of([&](BIO* out) { PEM_write_bio_X509(out, certificate.get()); });
}
std::string pem(const Key& key, const EVP_CIPHER* cipher) {
  return text_of(
      [&](BIO* out) { PEM_write_bio_PKCS8PrivateKey(out, key.get(), cipher, cipher ? "pass" : nullptr, cipher ? 4 : 0, nullptr, nullptr); });
}

Authority::Authority() : key(ec_key()) {
  Wanted wanted;
  wanted.names.clear();
  wanted.authority = true;
  certificate = make_certificate(key, wanted);
}
CertificateFiles Authority::issue(const std::string& file, const Wanted& wanted, Key own) {
  CertificateFiles files{folder / (file + ".pem"), folder / (file + ".key")};
  write_text(files.certificate, pem(make_certificate(own, wanted, certificate, key)) + pem(certificate));
  write_text(files.private_key, pem(own));
  std::filesystem::permissions(files.private_key, std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
  return files;
}

std::shared_ptr<const Identity> load(const std::vector<CertificateFiles>& files) {
  std::string why;
  std::vector<std::string> warnings;
  auto identity = Identity::load(files, why, warnings);
  REQUIRE_MESSAGE(identity, why);
  return identity;
}

Client::Client(const Options& options) {
  context.reset(SSL_CTX_new(TLS_client_method()));
  SSL_CTX_set_min_proto_version(context.get(), options.lowest);
  SSL_CTX_set_max_proto_version(context.get(), options.highest);
  SSL_CTX_set_security_level(context.get(), 0);
  if (options.ciphers) REQUIRE(SSL_CTX_set_cipher_list(context.get(), options.ciphers) == 1);
  if (options.trusted) {
    X509_STORE_add_cert(SSL_CTX_get_cert_store(context.get()), options.trusted);
    SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER, nullptr);
  }
  ssl.reset(SSL_new(context.get()));
  SSL_set_bio(ssl.get(), BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
  SSL_set_app_data(ssl.get(), this);
  SSL_set_info_callback(ssl.get(), [](const SSL* s, int where, int value) {
    if ((where & SSL_CB_READ_ALERT) == SSL_CB_READ_ALERT) static_cast<Client*>(SSL_get_app_data(s))->alert = value & 0xFF;
  });
  if (options.server_name) SSL_set_tlsext_host_name(ssl.get(), options.server_name);
  std::vector<unsigned char> list;
  for (const std::string& name : options.alpn) {
    list.push_back(static_cast<unsigned char>(name.size()));
    list.insert(list.end(), name.begin(), name.end());
  }
  if (!list.empty()) SSL_set_alpn_protos(ssl.get(), list.data(), static_cast<unsigned>(list.size()));
  SSL_set_connect_state(ssl.get());
}

bool Client::shake_hands() { return SSL_do_handshake(ssl.get()) == 1; }

std::vector<std::uint8_t> Client::take() {
  std::vector<std::uint8_t> out(BIO_ctrl_pending(SSL_get_wbio(ssl.get())));
  if (!out.empty()) REQUIRE(BIO_read(SSL_get_wbio(ssl.get()), out.data(), static_cast<int>(out.size())) == static_cast<int>(out.size()));
  return out;
}
void Client::give(Bytes wire) {
  if (!wire.empty()) REQUIRE(BIO_write(SSL_get_rbio(ssl.get()), wire.data(), static_cast<int>(wire.size())) == static_cast<int>(wire.size()));
}

std::string Client::read() {
  std::string all;
  char piece[16384];
  for (int got = 0; (got = SSL_read(ssl.get(), piece, sizeof piece)) > 0;) all.append(piece, static_cast<std::size_t>(got));
  return all;
}

std::string Client::peer() const {
  const Certificate certificate(SSL_get1_peer_certificate(ssl.get()), X509_free);
  const auto names = static_cast<GENERAL_NAMES*>(certificate ? X509_get_ext_d2i(certificate.get(), NID_subject_alt_name, nullptr, nullptr) : nullptr);
  std::string name;
  if (names) {
    const ASN1_STRING* value = sk_GENERAL_NAME_value(names, 0)->d.ia5;
    name.assign(reinterpret_cast<const char*>(ASN1_STRING_get0_data(value)), static_cast<std::size_t>(ASN1_STRING_length(value)));
    GENERAL_NAMES_free(names);
  }
  return name;
}

Session::Read Server::give(Bytes wire, std::size_t piece) {
  std::vector<std::uint8_t> into(16384);
  for (std::size_t at = 0; at < wire.size() || at == 0;) {
    const std::size_t n = std::min(piece, wire.size() - at);
    const std::vector<std::uint8_t> own(wire.begin() + static_cast<std::ptrdiff_t>(at), wire.begin() + static_cast<std::ptrdiff_t>(at + n));
    session.give(own);
    std::size_t size = 0;
    while ((last = session.read(into, size)) == Session::Read::data) {
      REQUIRE(size > 0);
      received.append(reinterpret_cast<const char*>(into.data()), size);
      ++reads;
    }
    at += n;
    if (last != Session::Read::want_more || n == 0) break;
  }
  return last;
}

bool shake_hands(Client& client, Server& server, std::size_t piece) {
  bool done = false;
  for (int turn = 0; turn < 8 && !(done && server.session.is_open()); ++turn) {
    done = client.shake_hands();
    server.give(client.take(), piece);
    client.give(server.take());
  }
  return done && server.session.is_open();
}

void carry(Client& client, Server& server, std::size_t piece) {
  for (int turn = 0; turn < 8; ++turn) {
    const auto up = client.take();
    if (!up.empty()) server.give(up, piece);
    const auto down = server.take();
    client.give(down);
    if (up.empty() && down.empty()) return;
    char nothing;
    SSL_peek(client.ssl.get(), &nothing, 1);  // takes in what is no data
  }
}

}  // namespace radiotower::tls
