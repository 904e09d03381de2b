#include "notifier/tls.h"

#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "http_harness.h"

namespace radiotower::notifier {

namespace {

using Key = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;
using Certificate = std::unique_ptr<X509, decltype(&X509_free)>;

/// A folder for PEM files, gone with the test.
class Folder {
 public:
  Folder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "tls-XXXXXX").string();
    REQUIRE(mkdtemp(pattern.data()));
    path_ = pattern;
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  std::string operator/(const char* name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

Key make_key() { return {EVP_EC_gen("P-256"), EVP_PKEY_free}; }

/// Signed by itself; valid from now + `from` to now + `until`, in seconds.
Certificate make_certificate(EVP_PKEY* key, const char* name, long from = -60, long until = 3600) {
  Certificate certificate(X509_new(), X509_free);
  X509_set_version(certificate.get(), 2);
  ASN1_INTEGER_set(X509_get_serialNumber(certificate.get()), 1);
  X509_gmtime_adj(X509_getm_notBefore(certificate.get()), from);
  X509_gmtime_adj(X509_getm_notAfter(certificate.get()), until);
  X509_set_pubkey(certificate.get(), key);
  X509_NAME* subject = X509_get_subject_name(certificate.get());
  X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, reinterpret_cast<const unsigned char*>(name), -1, -1, 0);
  X509_set_issuer_name(certificate.get(), subject);
  X509_sign(certificate.get(), key, EVP_sha256());
  return certificate;
}

void write(const std::string& file, X509* certificate) {
  std::FILE* out = std::fopen(file.c_str(), "w");
  REQUIRE(out);
  PEM_write_X509(out, certificate);
  std::fclose(out);
}
void write(const std::string& file, EVP_PKEY* key, const EVP_CIPHER* cipher = nullptr) {
  std::FILE* out = std::fopen(file.c_str(), "w");
  REQUIRE(out);
  PEM_write_PKCS8PrivateKey(out, key, cipher, cipher ? "pass" : nullptr, cipher ? 4 : 0, nullptr, nullptr);
  std::fclose(out);
}
void write(const std::string& file, const char* text) { std::ofstream(file) << text; }

/// A client that speaks TLS; each call blocks.
class TlsClient {
 public:
  TlsClient(const HttpServer& server, int lowest = TLS1_2_VERSION, int highest = TLS1_3_VERSION, const char* ciphers = "ALL",
            const char* from = "127.0.0.1")
      : plain_(server, from) {
    signal(SIGPIPE, SIG_IGN);  // of a write to a server that has had enough
    const timeval most{patience / 1s, 0};
    setsockopt(plain_.descriptor(), SOL_SOCKET, SO_RCVTIMEO, &most, sizeof most);
    context_.reset(SSL_CTX_new(TLS_client_method()));
    SSL_CTX_set_min_proto_version(context_.get(), lowest);
    SSL_CTX_set_max_proto_version(context_.get(), highest);
    SSL_CTX_set_cipher_list(context_.get(), ciphers);
    SSL_CTX_set_security_level(context_.get(), 0);
    tls_.reset(SSL_new(context_.get()));
    SSL_set_fd(tls_.get(), plain_.descriptor());
    connected_ = SSL_connect(tls_.get()) == 1;
  }
  bool connected() const { return connected_; }
  SSL* tls() { return tls_.get(); }
  std::string peer() {
    const Certificate certificate(SSL_get1_peer_certificate(tls_.get()), X509_free);
    char name[64] = "";
    if (certificate) X509_NAME_get_text_by_NID(X509_get_subject_name(certificate.get()), NID_commonName, name, sizeof name);
    return name;
  }
  /// Sends, and reads until `end` is there or the connection's end.
  std::string ask(std::string_view bytes, std::string_view end = "\r\n\r\nGET / 0") {
    if (SSL_write(tls_.get(), bytes.data(), static_cast<int>(bytes.size())) <= 0) return "not sent";
    std::string all;
    char piece[4096];
    for (int got = 0; !all.ends_with(end) && (got = SSL_read(tls_.get(), piece, sizeof piece)) > 0;) all.append(piece, static_cast<std::size_t>(got));
    return all;
  }

 private:
  Client plain_;
  std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context_{nullptr, SSL_CTX_free};
  std::unique_ptr<SSL, decltype(&SSL_free)> tls_{nullptr, SSL_free};
  bool connected_ = false;
};

struct Tower {  // files, and the options that name them
  Tower() : key(make_key()) {
    write(folder / "cert.pem", make_certificate(key.get(), "first").get());
    write(folder / "key.pem", key.get());
    options = patient();
    options.certificate = folder / "cert.pem";
    options.private_key = folder / "key.pem";
  }
  Folder folder;
  Key key;
  HttpServer::Options options;
};

}  // namespace

TEST_CASE("HTTPS: requests over TLS 1.2 and 1.3, nothing older, AEAD alone, no tickets, no renegotiation") {
  Tower tower;
  House house(tower.options);
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    TlsClient client(house.server, version, version);
    REQUIRE(client.connected());
    CHECK(client.peer() == "first");
    CHECK(client.ask(get).starts_with("HTTP/1.1 200 OK\r\n"));
    CHECK(client.ask(get + get, "GET / 0").starts_with("HTTP/1.1 200 OK\r\n"));
    CHECK_FALSE(SSL_SESSION_has_ticket(SSL_get0_session(client.tls())));
  }
  CHECK_FALSE(TlsClient(house.server, TLS1_VERSION, TLS1_1_VERSION).connected());
  for (const char* weak : {"AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA", "ECDHE-ECDSA-AES256-SHA384"}) {
    CHECK_FALSE(TlsClient(house.server, TLS1_2_VERSION, TLS1_2_VERSION, weak).connected());
  }
  TlsClient client(house.server, TLS1_2_VERSION, TLS1_2_VERSION);
  SSL_renegotiate(client.tls());
  CHECK(SSL_do_handshake(client.tls()) != 1);
}

TEST_CASE("HTTPS: a body larger than many records, an answer too, and the end is told by close_notify") {
  Tower tower;
  House house(tower.options, {}, [](HttpRequest&& request, Responder respond) { respond({200, request.body + "."}); });
  TlsClient client(house.server);
  const std::string body(500'000, 'x');
  const std::string answer = client.ask(post(body.size(), "Connection: close\r\n") + body, "never");
  CHECK(answer.ends_with("\r\n\r\n" + body + "."));
  char byte = 0;
  CHECK(SSL_get_error(client.tls(), SSL_read(client.tls(), &byte, 1)) == SSL_ERROR_ZERO_RETURN);
}

TEST_CASE("plain HTTP to a port with TLS is told so, and to the log as well") {
  Tower tower;
  std::string told;
  tower.options.on_trouble = [&](std::string_view sentence, std::string_view) { told = sentence; };
  House house(tower.options);
  Client client(house.server);
  client.send(get);
  CHECK(client.answer().find("https://") != std::string::npos);
  CHECK(client.closed());
  CHECK(house.server.counters().tls_failures == 1);
  house.server.stop();
  CHECK(told.find("https://") != std::string::npos);
}

TEST_CASE("a client that does not trust the certificate is told to the log; one that only looks is not") {
  Tower tower;
  std::string told;
  tower.options.on_trouble = [&](std::string_view sentence, std::string_view) { told = sentence; };
  House house(tower.options);
  { Client looks(house.server); }
  CHECK(house.wait_for(house.server.counters().accepted, 1) == 1);
  CHECK(house.wait_for(house.server.counters().open, 0) == 0);
  CHECK(house.server.counters().tls_failures == 0);

  std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context(SSL_CTX_new(TLS_client_method()), SSL_CTX_free);
  SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER, nullptr);
  SSL_CTX_set_max_proto_version(context.get(), TLS1_2_VERSION);
  std::unique_ptr<SSL, decltype(&SSL_free)> tls(SSL_new(context.get()), SSL_free);
  Client plain(house.server);
  SSL_set_fd(tls.get(), plain.descriptor());
  CHECK(SSL_connect(tls.get()) != 1);
  CHECK(house.wait_for(house.server.counters().tls_failures, 1) == 1);
  house.server.stop();
  CHECK(told.find("does not trust our certificate") != std::string::npos);
}

TEST_CASE("a few KeyUpdates are served; a flood of them ends its connection, and others do not wait for it") {
  Tower tower;
  House house(tower.options);
  TlsClient updater(house.server, TLS1_3_VERSION), other(house.server);
  REQUIRE(updater.connected());
  for (int i = 0; i < 30; ++i) {
    SSL_key_update(updater.tls(), i % 2 ? SSL_KEY_UPDATE_REQUESTED : SSL_KEY_UPDATE_NOT_REQUESTED);
    REQUIRE(SSL_do_handshake(updater.tls()) == 1);
  }
  CHECK(updater.ask(get).starts_with("HTTP/1.1 200 OK\r\n"));
  int sent = 0;
  for (int result = 1; result == 1 && sent < 100'000; ++sent) {
    SSL_key_update(updater.tls(), SSL_KEY_UPDATE_NOT_REQUESTED);
    result = SSL_do_handshake(updater.tls());
  }
  CHECK(updater.ask(get).find("200 OK") == std::string::npos);
  CHECK(house.wait_for(house.server.counters().open, 1) == 1);
  CHECK(other.ask(get).starts_with("HTTP/1.1 200 OK\r\n"));
}

TEST_CASE("handshakes of one client are bounded, those of others go on; together they are bounded too") {
  Tower tower;
  tower.options.loopback_is_proxy = false;
  tower.options.handshakes = {0, 5};
  tower.options.client_handshakes = {0, 2};
  House house(tower.options);
  const auto connected = [&](const char* from) { return TlsClient(house.server, TLS1_2_VERSION, TLS1_3_VERSION, "ALL", from).connected(); };
  for (const char* from : {"127.0.0.2", "127.0.0.3"}) {
    CHECK(connected(from));
    CHECK(connected(from));
    CHECK_FALSE(connected(from));
  }
  CHECK(connected("127.0.0.4"));
  CHECK_FALSE(connected("127.0.0.4"));
  CHECK(house.server.counters().refused == 3);
}

TEST_CASE("handshakes that come all at once are all made, in turns") {
  Tower tower;
  House house(tower.options);
  std::atomic<int> answered = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 40; ++i) {
    threads.emplace_back([&] { answered += TlsClient(house.server).ask(get).starts_with("HTTP/1.1 200 OK\r\n"); });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(answered == 40);
}

TEST_CASE("a handshake has its deadline") {
  Tower tower;
  tower.options.head_within = 100ms;
  House house(tower.options);
  Client client(house.server);
  client.send("\x16\x03\x01");
  CHECK(client.closed());
  CHECK(house.server.counters().timeouts == 1);
}

TEST_CASE("a new certificate is for new connections; those that are open go on with the old one") {
  Tower tower;
  House house(tower.options);
  TlsClient before(house.server);
  REQUIRE(before.connected());
  write(tower.options.certificate, make_certificate(tower.key.get(), "second").get());
  std::string why = "untouched";
  CHECK(house.server.reload_certificate(why));
  CHECK(why.empty());
  CHECK(before.ask(get).starts_with("HTTP/1.1 200 OK\r\n"));
  TlsClient after(house.server);
  CHECK(after.peer() == "second");

  write(tower.options.private_key, make_key().get());
  CHECK_FALSE(house.server.reload_certificate(why));
  CHECK(why.find("does not belong to the certificate") != std::string::npos);
  CHECK(TlsClient(house.server).peer() == "second");
}

TEST_CASE("what is wrong with certificate or key is told in a sentence; what has expired works, with a warning") {
  Tower tower;
  const std::string certificate = tower.options.certificate, key = tower.options.private_key;
  std::string why;
  const auto refused = [&](const char* words) {
    CHECK_FALSE(load_certificate(certificate, key, why));
    CAPTURE(why);
    CHECK(why.find(words) != std::string::npos);
    write(certificate, make_certificate(tower.key.get(), "first").get());
    write(key, tower.key.get());
    CHECK(load_certificate(certificate, key, why));
    CHECK(why.empty());
  };
  std::filesystem::remove(certificate);
  refused("cannot read the certificate");
  std::filesystem::remove(key);
  refused("cannot read the private key");
  write(certificate, "no certificate\n");
  refused("holds no certificate in PEM form");
  write(certificate, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
  refused("is damaged");
  write(key, "no key\n");
  refused("cannot be used");
  write(key, tower.key.get(), EVP_aes_256_cbc());
  refused("is protected by a passphrase");
  write(key, make_key().get());
  refused("does not belong to the certificate");
  const Key rsa(EVP_RSA_gen(1024), EVP_PKEY_free);
  write(certificate, make_certificate(rsa.get(), "weak").get());
  write(key, rsa.get());
  refused("is too weak");

  write(certificate, make_certificate(tower.key.get(), "old", -7200, -3600).get());
  CHECK(load_certificate(certificate, key, why));
  CHECK(why.find("has expired") != std::string::npos);
  write(certificate, make_certificate(tower.key.get(), "future", 3600, 7200).get());
  CHECK(load_certificate(certificate, key, why));
  CHECK(why.find("is not valid yet") != std::string::npos);
  tower.options.private_key = tower.folder / "none";
  CHECK_THROWS_AS(HttpServer(tower.options, {}, {}), std::runtime_error);
}

}  // namespace radiotower::notifier
