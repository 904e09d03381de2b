// What TLS is not to take: old versions, weak suites, second handshakes, early data, foreign protocols, floods, garbage.
#include <doctest/doctest.h>

#include <random>

#include "harness.h"

namespace radiotower::tls {

namespace {

constexpr int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

struct Tower {
  Authority authority;
  std::shared_ptr<const Identity> identity = load({authority.issue("turn")});
};

}  // namespace

TEST_CASE("TLS 1.0 and 1.1 are refused [T14]") {
  Tower tower;
  for (const int version : {TLS1_VERSION, TLS1_1_VERSION}) {
    Client client({.lowest = version, .highest = version, .ciphers = "ALL:@SECLEVEL=0"});
    Server server(tower.identity);
    CHECK_FALSE(shake_hands(client, server));
    CHECK(server.last == Session::Read::failed);
    CHECK(server.session.why() == "it speaks neither TLS 1.2 nor 1.3");
    CHECK(client.alert == SSL_AD_PROTOCOL_VERSION);
  }
}

TEST_CASE("the hello of SSLv2 is refused, also where it offers TLS 1.2 [T14]") {
  Tower tower;
  for (const std::uint8_t minor : std::initializer_list<std::uint8_t>{0, 1, 3}) {
    // MSG-CLIENT-HELLO with three suites and a challenge of 16 bytes.
    std::vector<std::uint8_t> hello{0x80, 9 + 9 + 16, 1, 3, minor, 0, 9, 0, 0, 0, 16, 0, 0xC0, 0x2B, 0, 0xC0, 0x2F, 0, 0, 0xFF};
    hello.resize(2 + 9 + 9 + 16, 7);
    Server server(tower.identity);
    CHECK(server.give(hello) == Session::Read::failed);
    CHECK(contains(server.session.why(), "SSLv2"));
    CHECK(server.take().empty());
  }
}

TEST_CASE("suites without AEAD or without an elliptic curve's ephemeral key are refused") {
  Authority authority;
  const auto identity = load({authority.issue("turn", {}, rsa_key(2048)), authority.issue("turn-ec")});
  for (const char* suites : {"ECDHE-RSA-AES128-SHA256:@SECLEVEL=0", "ECDHE-ECDSA-AES256-SHA384", "AES128-GCM-SHA256", "DHE-RSA-AES128-GCM-SHA256", "AES128-SHA",
                             "ECDHE-RSA-AES128-SHA", "PSK-AES128-GCM-SHA256"}) {
    CAPTURE(suites);
    Client client({.highest = TLS1_2_VERSION, .ciphers = suites});
    Server server(identity);
    CHECK_FALSE(shake_hands(client, server));
    CHECK(server.last != Session::Read::data);
    CHECK_FALSE(server.session.is_open());
  }
  for (const char* suites : {"ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"}) {
    CAPTURE(suites);
    Client client({.highest = TLS1_2_VERSION, .ciphers = suites});
    Server server(identity);
    CHECK(shake_hands(client, server));
    CHECK(SSL_get_current_compression(client.ssl.get()) == nullptr);
  }
  Client client({.lowest = TLS1_3_VERSION});
  REQUIRE(SSL_set1_groups_list(client.ssl.get(), "ffdhe2048") == 1);
  Server server(identity);
  CHECK_FALSE(shake_hands(client, server));
}

TEST_CASE("nothing is resumed: no ticket, no session") {
  Tower tower;
  for (const int version : versions) {
    SSL_SESSION* first = nullptr;
    for (int round = 0; round < 2; ++round) {
      Client client({.lowest = version, .highest = version});
      if (first) SSL_set_session(client.ssl.get(), first);
      Server server(tower.identity);
      REQUIRE(shake_hands(client, server));
      CHECK(server.take().empty());
      client.read();
      CHECK_FALSE(SSL_session_reused(client.ssl.get()));
      SSL_SESSION* const session = SSL_get1_session(client.ssl.get());
      CHECK_FALSE(SSL_SESSION_has_ticket(session));
      SSL_SESSION_free(first);
      first = session;
    }
    SSL_SESSION_free(first);
  }
}

TEST_CASE("a second handshake is refused, and the session goes on [T14]") {
  Tower tower;
  Client client({.highest = TLS1_2_VERSION});
  Server server(tower.identity);
  REQUIRE(shake_hands(client, server));
  REQUIRE(SSL_renegotiate(client.ssl.get()) == 1);
  SSL_do_handshake(client.ssl.get());
  CHECK(server.give(client.take()) == Session::Read::want_more);
  CHECK(server.session.is_open());
  CHECK(server.session.write(as_bytes("still here")));
  client.give(server.take());
  SSL_do_handshake(client.ssl.get());
  CHECK(client.alert == SSL_AD_NO_RENEGOTIATION);
}

TEST_CASE("a flood of new keys ends the session") {
  Tower tower;
  for (const std::size_t piece : {SIZE_MAX, std::size_t{100}}) {
    Client client;
    Server server(tower.identity);
    REQUIRE(shake_hands(client, server));
    for (int i = 0; i < 1000; ++i) {
      REQUIRE(SSL_key_update(client.ssl.get(), SSL_KEY_UPDATE_REQUESTED) == 1);
      REQUIRE(SSL_do_handshake(client.ssl.get()) == 1);
    }
    CHECK(server.give(client.take(), piece) == Session::Read::failed);
    CAPTURE(server.session.why());
    CHECK(contains(server.session.why(), "again and again"));
    CHECK(server.take().size() < 5000);
  }
}

namespace {

SSL_SESSION* early_session = nullptr;
int use_early_session(SSL*, const EVP_MD*, const unsigned char** id, std::size_t* size, SSL_SESSION** session) {
  static const unsigned char name[] = "client";
  *id = name;
  *size = sizeof name - 1;
  SSL_SESSION_up_ref(early_session);
  *session = early_session;
  return 1;
}

}  // namespace

TEST_CASE("early data is refused and never delivered [T14]") {
  Tower tower;
  Client client({.lowest = TLS1_3_VERSION});
  // A key that the client believes to share with us is all that it takes to send early data.
  const std::vector<unsigned char> key(32, 7);
  early_session = SSL_SESSION_new();
  SSL_SESSION_set1_master_key(early_session, key.data(), key.size());
  static const unsigned char suite[] = {0x13, 0x01};
  SSL_SESSION_set_cipher(early_session, SSL_CIPHER_find(client.ssl.get(), suite));
  SSL_SESSION_set_protocol_version(early_session, TLS1_3_VERSION);
  SSL_SESSION_set_max_early_data(early_session, 10'000);
  SSL_set_psk_use_session_callback(client.ssl.get(), use_early_session);
  Server server(tower.identity);
  std::size_t written = 0;
  REQUIRE(SSL_write_early_data(client.ssl.get(), "early", 5, &written) == 1);
  server.give(client.take());
  client.give(server.take());
  REQUIRE(shake_hands(client, server));
  CHECK(SSL_get_early_data_status(client.ssl.get()) == SSL_EARLY_DATA_REJECTED);
  REQUIRE(client.write(as_bytes("late")));
  server.give(client.take());
  CHECK(server.received == "late");
  SSL_SESSION_free(early_session);
}

TEST_CASE("ALPN: ours is chosen, none is served, foreign ones alone are refused (RFC 7443; RFC 7301, 3.2)") {
  Tower tower;
  for (const int version : versions) {
    const auto chosen = [&](const std::vector<std::string>& offered) -> std::string {
      Client client({.lowest = version, .highest = version, .alpn = offered});
      Server server(tower.identity);
      if (!shake_hands(client, server)) {
        CHECK(server.last == Session::Read::failed);
        CHECK(client.alert == SSL_AD_NO_APPLICATION_PROTOCOL);
        CHECK(contains(server.session.why(), "stun.turn or stun.nat-discovery"));
        return "refused";
      }
      return std::string(server.session.alpn());
    };
    CHECK(chosen({}).empty());
    CHECK(chosen({"stun.turn"}) == "stun.turn");
    CHECK(chosen({"stun.nat-discovery"}) == "stun.nat-discovery");
    CHECK(chosen({"stun.nat-discovery", "stun.turn"}) == "stun.turn");
    CHECK(chosen({"h2", "http/1.1", "stun.turn"}) == "stun.turn");
    CHECK(chosen({"h2", "http/1.1"}) == "refused");
    CHECK(chosen({"webrtc"}) == "refused");
    CHECK(chosen({"stun.turnx", "stun.tur", "STUN.TURN", "x"}) == "refused");
  }
}

TEST_CASE("a client that does not trust us is said to, in words") {
  Tower tower;
  const Authority stranger;
  for (const int version : versions) {
    Client client({.lowest = version, .highest = version, .trusted = stranger.certificate.get()});
    Server server(tower.identity);
    CHECK_FALSE(shake_hands(client, server));
    server.give(client.take());
    CHECK(server.last == Session::Read::failed);
    CHECK(contains(server.session.why(), "does not trust our certificate"));
  }
}

TEST_CASE("what is no TLS fails at its first byte, without an answer [T04]") {
  Tower tower;
  using namespace std::string_literals;
  const std::pair<std::string, const char*> cases[] = {
      {"GET / HTTP/1.1\r\n\r\n", "HTTP"},      {"PRI * HTTP/2.0\r\n", "HTTP"},
      {"PROXY TCP4 1.2.3.4", "plain text"},      {"SSH-2.0-x\r\n", "plain text"},
      {"\0\x01\0\0\x21\x12\xA4\x42"s, "STUN"}, {"\r\n\r\n\0\r\nQUIT\n"s, "no TLS"},
      {"\x40\0\0\x04"s, "no TLS"},             {"\x17\x03\x03"s, "no TLS"},
      {" ", "no TLS"}};
  for (const auto& [bytes, part] : cases) {
    CAPTURE(bytes);
    for (const std::size_t size : {std::size_t{1}, bytes.size()}) {
      Server server(tower.identity);
      CHECK(server.give(as_bytes(bytes).first(size)) == Session::Read::failed);
      CHECK(contains(server.session.why(), part));
      CHECK(server.take().empty());
    }
  }
}

TEST_CASE("10,000 changed handshakes: each fails or goes on, nothing comes out, nothing grows") {
  Tower tower;
  std::mt19937 random(8446);
  const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random()) % n; };
  const auto change = [&](std::vector<std::uint8_t> bytes) {
    for (std::size_t n = 1 + below(4); n > 0 && !bytes.empty(); --n) {
      const std::size_t at = below(bytes.size());
      switch (below(6)) {
        case 0: bytes[at] ^= static_cast<std::uint8_t>(1 << below(8)); break;
        case 1: bytes[at] = static_cast<std::uint8_t>(random()); break;
        case 2: bytes.resize(at); break;
        case 3: bytes.insert(bytes.begin() + static_cast<std::ptrdiff_t>(at), 1 + below(40), static_cast<std::uint8_t>(random())); break;
        case 4: bytes.erase(bytes.begin() + static_cast<std::ptrdiff_t>(at), bytes.begin() + static_cast<std::ptrdiff_t>(at + below(bytes.size() - at))); break;
        case 5: bytes.insert(bytes.end(), bytes.begin() + static_cast<std::ptrdiff_t>(at), bytes.end()); break;
      }
    }
    return bytes;
  };
  unsigned failed = 0, opened = 0;
  for (int round = 0; round < 10'000; ++round) {
    const int version = versions[round % 2];
    static std::vector<std::uint8_t> hellos[2];
    Server server(tower.identity);
    if (round % 8 > 1) {  // the hello, which is the same each time
      auto& hello = hellos[round % 2];
      if (hello.empty()) {
        Client client({.lowest = version, .highest = version, .server_name = "turn.example.org", .alpn = {"stun.turn"}});
        client.shake_hands();
        hello = client.take();
      }
      server.give(change(hello), below(3) ? SIZE_MAX : 1 + below(50));
    } else {  // what comes after it
      Client client({.lowest = version, .highest = version});
      client.shake_hands();
      server.give(client.take());
      client.give(server.take());
      client.shake_hands();
      client.write(as_bytes("data"));
      server.give(change(client.take()), below(3) ? SIZE_MAX : 1 + below(50));
    }
    failed += server.last == Session::Read::failed;
    opened += server.session.is_open();
    REQUIRE((server.last != Session::Read::failed || !server.session.why().empty()));
    REQUIRE((server.received.empty() || server.received == "data"));
    REQUIRE(server.session.outgoing().size() < 20'000);
  }
  CHECK(failed > 4000);
  CHECK(opened < 2500);
}

}  // namespace radiotower::tls
