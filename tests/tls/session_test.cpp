// TLS over memory: what goes in at one end comes out at the other, whatever way the bytes are cut, and the end of a session is told from a cut.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <random>
#include <thread>

#include "harness.h"

namespace radiotower::tls {

namespace {

std::string noise(std::size_t size, unsigned seed = 1) {
  std::mt19937 random(seed);
  std::string out(size, 0);
  for (char& c : out) c = static_cast<char>(random());
  return out;
}

constexpr int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
Client::Options only(int version) { return {.lowest = version, .highest = version}; }

}  // namespace

TEST_CASE("a megabyte each way arrives as it was, with TLS 1.2 and 1.3, in pieces of a byte too [T01]") {
  Authority authority;
  const auto identity = load({authority.issue("turn")});
  for (const int version : versions) {
    for (const std::size_t piece : {std::size_t{1}, std::size_t{7}, std::size_t{1448}, SIZE_MAX}) {
      CAPTURE(version);
      CAPTURE(piece);
      Client client({.lowest = version, .highest = version, .server_name = "turn.example.org", .trusted = authority.certificate.get()});
      Server server(identity);
      CHECK_FALSE(server.session.is_open());
      CHECK_FALSE(server.session.write(as_bytes("too early")));
      REQUIRE(shake_hands(client, server, piece));
      CHECK(server.session.protocol() == (version == TLS1_2_VERSION ? "TLSv1.2" : "TLSv1.3"));
      CHECK(server.session.server_name() == "turn.example.org");
      CHECK(server.session.alpn().empty());
      CHECK(SSL_get_verify_result(client.ssl.get()) == X509_V_OK);

      const std::string up = noise(1 << 20, 1), down = noise(1 << 20, 2);
      REQUIRE(client.write(as_bytes(up)));
      server.give(client.take(), piece);
      CHECK(server.received == up);
      REQUIRE(server.session.write(as_bytes(down)));
      client.give(server.take());
      CHECK(client.read() == down);
      CHECK(server.last == Session::Read::want_more);
    }
  }
}

TEST_CASE("a handshake that is cut at any byte goes on with the next [T03]") {
  Authority authority;
  const auto identity = load({authority.issue("turn")});
  for (const int version : versions) {
    std::size_t longest = 1;
    for (std::size_t at = 1; at < longest + 1; at += 3) {
      Client client(only(version));
      Server server(identity);
      bool done = false;
      for (int turn = 0; turn < 4 && !(done && server.session.is_open()); ++turn) {
        done = client.shake_hands();
        const auto flight = client.take();
        longest = std::max(longest, flight.size());
        const std::size_t cut = std::min(at, flight.size());
        server.give(Bytes(flight).first(cut));
        server.give(Bytes(flight).subspan(cut));
        client.give(server.take());
      }
      REQUIRE(server.session.is_open());
      client.write(as_bytes("hello"));
      server.give(client.take());
      REQUIRE(server.received == "hello");
    }
  }
}

TEST_CASE("records of one byte are read, many a call, and a call ends [T15]") {
  Authority authority;
  const auto identity = load({authority.issue("turn")});
  for (const int version : versions) {
    Client client(only(version));
    Server server(identity);
    REQUIRE(shake_hands(client, server));
    const std::string text = noise(20'000);
    for (const char c : text) REQUIRE(client.write(as_bytes({&c, 1})));
    server.give(client.take());
    CHECK(server.received == text);
    CHECK(server.reads == (text.size() + 63) / 64);
  }
}

TEST_CASE("a hello in records of one byte is understood [T15]") {
  Authority authority;
  const auto identity = load({authority.issue("turn")});
  for (const int version : versions) {
    Client client(only(version));
    Server server(identity);
    client.shake_hands();
    const auto hello = client.take();
    std::vector<std::uint8_t> cut;
    for (std::size_t i = 5; i < hello.size(); ++i) {
      const std::uint8_t record[] = {hello[0], hello[1], hello[2], 0, 1, hello[i]};
      cut.insert(cut.end(), record, record + sizeof record);
    }
    CHECK(server.give(cut) == Session::Read::want_more);
    client.give(server.take());
    CHECK(shake_hands(client, server));
  }
}

TEST_CASE("a small buffer gets a record in pieces, several records come in one") {
  Authority authority;
  const auto identity = load({authority.issue("turn")});
  Client client;
  Server server(identity);
  REQUIRE(shake_hands(client, server));
  const std::string text = noise(5000);
  client.write(as_bytes(text));
  const auto wire = client.take();
  server.session.give(wire);
  std::string got;
  std::uint8_t into[48];
  for (std::size_t size = 0; server.session.read(into, size) == Session::Read::data;) {
    REQUIRE(size <= sizeof into);
    got.append(reinterpret_cast<const char*>(into), size);
  }
  CHECK(got == text);

  client.write(as_bytes("one"));
  client.write(as_bytes("two"));
  server.give(client.take());
  CHECK(server.received == "onetwo");
  CHECK(server.reads == 1);
  CHECK(server.session.write({}));
  CHECK(server.take().empty());
}

TEST_CASE("close_notify ends a session, after the data that came before it") {
  Authority authority;
  const auto identity = load({authority.issue("turn")});
  for (const int version : versions) {
    Client client(only(version));
    Server server(identity);
    REQUIRE(shake_hands(client, server));
    client.write(as_bytes("last words"));
    SSL_shutdown(client.ssl.get());
    CHECK(server.give(client.take()) == Session::Read::closed);
    CHECK(server.received == "last words");
    CHECK_FALSE(server.session.is_open());
    CHECK(server.session.why().empty());
    CHECK(server.give(as_bytes("whatever")) == Session::Read::closed);
    // Its half is over, ours is not (RFC 8446, 6.1): what it asked is answered.
    CHECK(server.session.write(as_bytes("the answer")));
    server.session.close();
    CHECK_FALSE(server.session.write(as_bytes("too late")));
    client.give(server.take());
    std::array<char, 32> answer;
    CHECK(SSL_read(client.ssl.get(), answer.data(), static_cast<int>(answer.size())) == 10);
    CHECK(SSL_shutdown(client.ssl.get()) == 1);
  }
}

TEST_CASE("our close_notify is sent once; what the other side still says is read") {
  Authority authority;
  const auto identity = load({authority.issue("turn")});
  for (const int version : versions) {
    Client client(only(version));
    Server server(identity);
    server.session.close();  // in the midst of a handshake it is nothing
    CHECK(server.take().empty());
    REQUIRE(shake_hands(client, server));
    client.write(as_bytes("under way"));
    server.session.close();
    server.session.close();
    CHECK_FALSE(server.session.is_open());
    CHECK_FALSE(server.session.write(as_bytes("too late")));
    const auto alert = server.take();
    CHECK(alert.size() < 64);
    client.give(alert);
    char nothing;
    const int result = SSL_read(client.ssl.get(), &nothing, 1);
    CHECK(SSL_get_error(client.ssl.get(), result) == SSL_ERROR_ZERO_RETURN);
    server.give(client.take());
    CHECK(server.received == "under way");
  }
}

TEST_CASE("a record that is cut gives nothing, neither data nor an end") {
  Authority authority;
  const auto identity = load({authority.issue("turn")});
  Client client;
  Server server(identity);
  REQUIRE(shake_hands(client, server));
  client.write(as_bytes("whole or not at all"));
  SSL_shutdown(client.ssl.get());
  const auto wire = client.take();
  const std::size_t first = 5U + load_be16(wire.data() + 3);
  for (std::size_t i = 0; i + 1 < wire.size(); ++i) {
    REQUIRE(server.give(Bytes(wire).subspan(i, 1)) == Session::Read::want_more);
    REQUIRE(server.received == (i + 1 < first ? "" : "whole or not at all"));
  }
  CHECK(server.session.is_open());
  CHECK(server.give(Bytes(wire).last(1)) == Session::Read::closed);
}

TEST_CASE("a changed record fails with an alert, and nothing of it comes out") {
  Authority authority;
  const auto identity = load({authority.issue("turn")});
  for (const int version : versions) {
    for (const std::size_t at : {std::size_t{0}, std::size_t{1}, std::size_t{3}, std::size_t{5}, std::size_t{20}, std::size_t{30}}) {
      CAPTURE(at);
      Client client(only(version));
      Server server(identity);
      REQUIRE(shake_hands(client, server));
      client.write(as_bytes("before"));
      auto wire = client.take();
      client.write(as_bytes("a message of some length"));
      auto changed = client.take();
      changed[at] ^= 0x80;
      wire.insert(wire.end(), changed.begin(), changed.end());
      CHECK(server.give(wire) == Session::Read::failed);
      CHECK(server.received == "before");
      CHECK_FALSE(server.session.why().empty());
      CHECK_FALSE(server.session.write(as_bytes("too late")));
      CHECK_FALSE(server.session.is_open());
      CHECK(server.give(client.take()) == Session::Read::failed);
      client.give(server.take());
      client.read();
      CHECK(client.alert > 0);
    }
  }
}

TEST_CASE("a client may have new keys, and go on (RFC 8446, 4.6.3)") {
  Authority authority;
  const auto identity = load({authority.issue("turn")});
  Client client;
  Server server(identity);
  REQUIRE(shake_hands(client, server));
  for (int round = 0; round < 30; ++round) {
    REQUIRE(SSL_key_update(client.ssl.get(), SSL_KEY_UPDATE_REQUESTED) == 1);
    REQUIRE(client.write(as_bytes("x")));
    server.give(client.take(), round % 2 ? 1 : SIZE_MAX);
    REQUIRE(server.session.write(as_bytes("y")));
    client.give(server.take());
    REQUIRE(client.read() == "y");
  }
  CHECK(server.received == std::string(30, 'x'));
  // With data in between there is no end to it.
  for (int round = 0; round < 10; ++round) {
    for (int i = 0; i < 5 * 1024; ++i) REQUIRE(client.write(as_bytes("z")));
    for (int i = 0; i < 5; ++i) {
      REQUIRE(SSL_key_update(client.ssl.get(), SSL_KEY_UPDATE_NOT_REQUESTED) == 1);
      REQUIRE(SSL_do_handshake(client.ssl.get()) == 1);
    }
    REQUIRE(server.give(client.take()) == Session::Read::want_more);
  }
}

TEST_CASE("a session goes from thread to thread, one at a time") {
  Authority authority;
  const auto identity = load({authority.issue("turn")});
  Client client;
  Server server(identity);
  const auto elsewhere = [](auto&& work) { std::thread(work).join(); };
  for (int turn = 0; turn < 3; ++turn) {
    client.shake_hands();
    elsewhere([&] { server.give(client.take()); });
    client.give(server.take());
  }
  REQUIRE(server.session.is_open());
  for (int round = 0; round < 20; ++round) {
    client.write(as_bytes("ping"));
    elsewhere([&] { server.give(client.take()); });
    elsewhere([&] { server.session.write(as_bytes("pong")); });
    client.give(server.take());
    REQUIRE(client.read() == "pong");
  }
  CHECK(server.received.size() == 80);
}

TEST_CASE("an idle session says about what it keeps") {
  Authority authority;
  Server server(load({authority.issue("turn")}));
  CHECK(server.session.bytes_kept() > 4096);
  CHECK(server.session.bytes_kept() < 32'768);
  server.session.outgoing().reserve(100'000);
  CHECK(server.session.bytes_kept() > 100'000);
}

TEST_CASE("DTLS 1.2 has the same certificates, and no older one is spoken (RFC 7350)") {
  Authority authority;
  const auto identity = load({authority.issue("a", {.names = "DNS:a.example.org"}), authority.issue("b", {.names = "DNS:b.example.org"})});
  const auto make = [](SSL_CTX* context, SSL* other) {
    std::unique_ptr<SSL, decltype(&SSL_free)> ssl(SSL_new(context), SSL_free);
    SSL_set_options(ssl.get(), SSL_OP_NO_QUERY_MTU);
    DTLS_set_link_mtu(ssl.get(), 1400);
    BIO *in = BIO_new(BIO_s_mem()), *out = other ? SSL_get_rbio(other) : BIO_new(BIO_s_mem());
    if (other) {
      BIO_free(in);
      in = SSL_get_wbio(other);
      BIO_up_ref(in);
      BIO_up_ref(out);
    }
    BIO_set_mem_eof_return(in, -1);
    BIO_set_mem_eof_return(out, -1);
    SSL_set_bio(ssl.get(), in, out);
    return ssl;
  };
  const std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context(SSL_CTX_new(DTLS_client_method()), SSL_CTX_free);
  SSL_CTX_set_security_level(context.get(), 0);
  const auto client = make(context.get(), nullptr), server = make(identity->for_datagrams(), client.get());
  SSL_set_tlsext_host_name(client.get(), "b.example.org");
  for (int turn = 0; turn < 4; ++turn) {
    SSL_connect(client.get());
    SSL_accept(server.get());
  }
  CHECK(SSL_is_init_finished(server.get()));
  CHECK(SSL_is_init_finished(client.get()));
  CHECK(std::string(SSL_get_version(server.get())) == "DTLSv1.2");
  const Certificate certificate(SSL_get1_peer_certificate(client.get()), X509_free);
  REQUIRE(certificate);
  CHECK(X509_check_host(certificate.get(), "b.example.org", 0, 0, nullptr) == 1);

  SSL_CTX_set_min_proto_version(context.get(), DTLS1_VERSION);
  SSL_CTX_set_max_proto_version(context.get(), DTLS1_VERSION);
  const auto old = make(context.get(), nullptr), refusing = make(identity->for_datagrams(), old.get());
  for (int turn = 0; turn < 4; ++turn) {
    SSL_connect(old.get());
    SSL_accept(refusing.get());
  }
  CHECK_FALSE(SSL_is_init_finished(refusing.get()));
}

}  // namespace radiotower::tls
