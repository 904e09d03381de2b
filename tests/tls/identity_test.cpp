// Certificates: which one a client gets, what is said about them, and what an operator reads when they cannot be used.
#include <doctest/doctest.h>

#include <unistd.h>

#include <ctime>

#include "harness.h"

namespace radiotower::tls {

namespace {

std::string why_not(const std::vector<CertificateFiles>& files) {
  std::string why;
  std::vector<std::string> warnings;
  return Identity::load(files, why, warnings) ? "" : why;
}
bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

/// The first name of the certificate that a client gets who asks for `server_name`.
std::string served(const std::shared_ptr<const Identity>& identity, const char* server_name, Client::Options options = {}) {
  options.server_name = server_name;
  Client client(options);
  Server server(identity);
  if (!shake_hands(client, server)) return "no handshake: " + server.session.why();
  CHECK(server.session.server_name() == (server_name ? server_name : ""));
  return client.peer();
}

}  // namespace

TEST_CASE("a client gets the certificate of the name that it asks for, else the first (RFC 6066, 3)") {
  Authority authority;
  const auto identity = load({authority.issue("a", {.names = "DNS:first.example.org,IP:192.0.2.1"}), authority.issue("b", {.names = "DNS:Second.Example.org"}),
                              authority.issue("c", {.names = "DNS:*.wild.example.org,DNS:wild.example.org"}),
                              authority.issue("d", {.names = "DNS:exact.wild.example.org,DNS:second.example.org"})});
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    const Client::Options options{.lowest = version, .highest = version};
    CHECK(served(identity, nullptr, options) == "first.example.org");
    CHECK(served(identity, "first.example.org", options) == "first.example.org");
    CHECK(served(identity, "other.example.net", options) == "first.example.org");
    CHECK(served(identity, "second.example.org", options) == "Second.Example.org");  // of two the earlier
    CHECK(served(identity, "SECOND.example.ORG", options) == "Second.Example.org");
    CHECK(served(identity, "second.example.org.", options) == "Second.Example.org");
    CHECK(served(identity, "any.wild.example.org", options) == "*.wild.example.org");
    CHECK(served(identity, "ANY.Wild.example.org", options) == "*.wild.example.org");
    CHECK(served(identity, "wild.example.org", options) == "*.wild.example.org");
    CHECK(served(identity, "exact.wild.example.org", options) == "exact.wild.example.org");
    CHECK(served(identity, "two.labels.wild.example.org", options) == "first.example.org");  // the star is one label
    CHECK(served(identity, ".wild.example.org", options) == "first.example.org");
    CHECK(served(identity, "192.0.2.1", options) == "first.example.org");  // no name at all, but a client that sends it is served
    CHECK(served(identity, std::string(255, 'x').c_str(), options) == "first.example.org");
  }
}

TEST_CASE("RSA beside EC for the same names: each client gets the one that it can check") {
  Authority authority;
  const auto identity = load({authority.issue("ec"), authority.issue("rsa", {}, rsa_key(2048))});
  for (const auto& [ciphers, type] : {std::pair{"ECDHE-RSA-AES128-GCM-SHA256", EVP_PKEY_RSA}, std::pair{"ECDHE-ECDSA-AES128-GCM-SHA256", EVP_PKEY_EC}}) {
    Client client({.highest = TLS1_2_VERSION, .ciphers = ciphers});
    Server server(identity);
    REQUIRE(shake_hands(client, server));
    const Certificate certificate(SSL_get1_peer_certificate(client.ssl.get()), X509_free);
    CHECK(EVP_PKEY_get_base_id(X509_get0_pubkey(certificate.get())) == type);
  }
}

TEST_CASE("the facts of a certificate are its names, dates and fingerprint") {
  Authority authority;
  const auto files = authority.issue("turn", {.names = "DNS:turn.example.org,DNS:*.example.org,IP:192.0.2.1,IP:2001:db8::1,email:a@example.org",
                                              .from = -5,
                                              .until = 1000});
  const auto identity = load({files, authority.issue("other", {.names = "DNS:other.example.org"})});
  REQUIRE(identity->facts().size() == 2);
  const CertificateFacts& facts = identity->facts()[0];
  CHECK(facts.file == files.certificate);
  CHECK(facts.names == std::vector<std::string>{"turn.example.org", "*.example.org", "192.0.2.1", "2001:db8::1"});
  CHECK(facts.not_after - facts.not_before == 1005);
  CHECK(std::abs(facts.not_before + 5 - static_cast<std::int64_t>(std::time(nullptr))) < 3600);
  CHECK(facts.fingerprint.size() == 64);
  CHECK(facts.fingerprint != identity->facts()[1].fingerprint);
  CHECK(identity->facts()[1].names == std::vector<std::string>{"other.example.org"});
}

TEST_CASE("what is doubtful is a warning and no refusal") {
  Authority authority;
  const auto warnings_of = [](const CertificateFiles& files) {
    std::string why;
    std::vector<std::string> warnings;
    REQUIRE_MESSAGE(Identity::load({files}, why, warnings), why);
    return warnings;
  };
  CHECK(warnings_of(authority.issue("good")).empty());
  const auto expired = authority.issue("expired", {.from = -7200, .until = -3600}), future = authority.issue("future", {.from = 3600, .until = 7200});
  auto warnings = warnings_of(expired);
  REQUIRE(warnings.size() == 1);
  CHECK(warnings[0].starts_with("the certificate " + expired.certificate + " expired on 20"));
  warnings = warnings_of(future);
  REQUIRE(warnings.size() == 1);
  CHECK(warnings[0].starts_with("the certificate " + future.certificate + " is not valid before 20"));
  CHECK(contains(warnings[0], "the clock of this machine is behind"));
  CHECK(served(load({expired}), nullptr) == "turn.example.org");

  const auto nameless = authority.issue("nameless", {.names = ""});
  warnings = warnings_of(nameless);
  REQUIRE(warnings.size() == 1);
  CHECK(contains(warnings[0], "no subject alternative name"));

  // Clients look for an address in IP entries alone (RFC 2818, 3.1).
  const auto misplaced = authority.issue("misplaced", {.names = "DNS:192.0.2.1,DNS:turn.example.org"});
  warnings = warnings_of(misplaced);
  REQUIRE(warnings.size() == 1);
  CHECK(contains(warnings[0], "192.0.2.1 in a DNS entry"));
  CHECK(warnings_of(authority.issue("placed", {.names = "IP:192.0.2.1,DNS:turn.example.org"})).empty());

  const auto open = authority.issue("open");
  std::filesystem::permissions(open.private_key, std::filesystem::perms{0640});
  CHECK(warnings_of(open).empty());
  std::filesystem::permissions(open.private_key, std::filesystem::perms{0644});
  warnings = warnings_of(open);
  REQUIRE(warnings.size() == 1);
  CHECK(contains(warnings[0], "every user of this machine may read the private key " + open.private_key));

  const auto chained = authority.issue("chained");
  const Key key = ec_key(), ca_key = ec_key();
  write_text(chained.certificate, pem(make_certificate(key, {})) + pem(make_certificate(ca_key, {.from = -20, .until = -10, .authority = true})));
  write_text(chained.private_key, pem(key));
  warnings = warnings_of(chained);
  REQUIRE(warnings.size() == 1);
  CHECK(warnings[0].starts_with("the CA's certificate number 2 in " + chained.certificate + " expired on"));
}

TEST_CASE("what cannot be used is a sentence that names the file") {
  Authority authority;
  const auto good = authority.issue("good");
  CHECK(why_not({good}).empty());
  CHECK(contains(why_not({}), "needs a certificate"));

  const auto bad = [&](const char* part, const CertificateFiles& files, const std::string& named) {
    const std::string why = why_not({good, files});
    CAPTURE(why);
    CHECK(contains(why, part));
    CHECK(contains(why, named));
    CHECK_FALSE(contains(why, "\n"));
  };
  const std::string none = authority.folder / "none", text = authority.folder / "text", broken = authority.folder / "broken";
  write_text(text, "hello\n");
  write_text(broken, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
  bad("No such file", {none, good.private_key}, none);
  bad("No such file", {good.certificate, none}, none);
  bad("Is a directory", {"/", good.private_key}, "the certificate /");
  bad("Invalid argument", {good.certificate, "/dev/null"}, "/dev/null");
  bad("holds no certificate in PEM form", {text, good.private_key}, text);
  bad("holds no certificate in PEM form", {good.private_key, good.private_key}, good.private_key);
  bad("is damaged", {broken, good.private_key}, broken);
  bad("it takes PEM", {good.certificate, text}, text);
  bad("it takes PEM", {good.certificate, good.certificate}, good.certificate);
  const auto other = authority.issue("other");
  bad("does not belong to the certificate", {good.certificate, other.private_key}, other.private_key);
  bad("begin with the server's own certificate", {good.certificate, other.private_key}, good.certificate);
  const Key rsa = rsa_key(2048);
  write_text(other.private_key, pem(rsa));
  bad("does not belong to the certificate", other, other.private_key);

  const std::string huge = authority.folder / "huge";
  write_text(huge, std::string(1024 * 1024 + 1, 'x'));
  bad("longer than 1 MiB", {huge, good.private_key}, huge);

  const auto encrypted = authority.issue("encrypted");
  const Key key = ec_key();
  write_text(encrypted.certificate, pem(make_certificate(key, {})));
  write_text(encrypted.private_key, pem(key, EVP_aes_128_cbc()));
  bad("protected by a passphrase", encrypted, encrypted.private_key);

  bad("too weak", authority.issue("weak", {}, rsa_key(1024)), "weak.pem");
  const auto sha1 = authority.issue("sha1");
  write_text(sha1.certificate, pem(make_certificate(key, {.digest = EVP_sha1()}, authority.certificate, authority.key)));
  write_text(sha1.private_key, pem(key));
  bad("too weak", sha1, sha1.certificate);

  const auto chain = authority.issue("chain");
  write_text(chain.certificate, pem(make_certificate(key, {})) + "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
  write_text(chain.private_key, pem(key));
  bad("certificate number 2 in", chain, chain.certificate);
}

TEST_CASE("a key that may not be read is named, with a hint") {
  Authority authority;
  const auto files = authority.issue("closed");
  std::filesystem::permissions(files.private_key, std::filesystem::perms::none);
  std::filesystem::permissions(authority.folder / "", std::filesystem::perms{0755});
  const bool root = geteuid() == 0;  // who may read everything
  if (root) REQUIRE(seteuid(65534) == 0);
  const std::string why = why_not({files});
  if (root) REQUIRE(seteuid(0) == 0);
  CHECK(contains(why, files.private_key));
  CHECK(contains(why, "readable for the user that the service runs as"));
}

TEST_CASE("a session keeps the identity that it began with") {
  Authority authority;
  auto identity = load({authority.issue("old", {.names = "DNS:old.example.org"}), authority.issue("named", {.names = "DNS:named.example.org"})});
  const std::weak_ptr<const Identity> old = identity;
  Client before, during({.server_name = "named.example.org"}), after;
  Server first(identity), second(identity);
  REQUIRE(shake_hands(before, first));
  identity = load({authority.issue("new", {.names = "DNS:new.example.org"})});
  CHECK_FALSE(old.expired());
  // A handshake that comes after the reload, of a session from before it.
  REQUIRE(shake_hands(during, second));
  CHECK(during.peer() == "named.example.org");
  Server third(identity);
  REQUIRE(shake_hands(after, third));
  CHECK(after.peer() == "new.example.org");
  REQUIRE(before.write(as_bytes("still here")));
  first.give(before.take());
  CHECK(first.received == "still here");
  CHECK(before.peer() == "old.example.org");
}

TEST_CASE("the names outlive the identity where an SSL does") {
  Authority authority;
  auto identity = load({authority.issue("a", {.names = "DNS:a.example.org"}), authority.issue("b", {.names = "DNS:b.example.org"})});
  Client client({.server_name = "b.example.org"});
  const std::unique_ptr<SSL, decltype(&SSL_free)> server(SSL_new(identity->for_streams()), SSL_free);
  identity.reset();
  SSL_set_bio(server.get(), BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
  CHECK_FALSE(client.shake_hands());
  const auto hello = client.take();
  BIO_write(SSL_get_rbio(server.get()), hello.data(), static_cast<int>(hello.size()));
  SSL_accept(server.get());
  std::vector<std::uint8_t> answer(BIO_ctrl_pending(SSL_get_wbio(server.get())));
  BIO_read(SSL_get_wbio(server.get()), answer.data(), static_cast<int>(answer.size()));
  client.give(answer);
  CHECK(client.shake_hands());
  CHECK(client.peer() == "b.example.org");
}

}  // namespace radiotower::tls
