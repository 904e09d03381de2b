// TLS over memory: what goes in at one end comes out at the other, whatever way the bytes are cut; what is no TLS, or TLS that we refuse, fails.
#include <doctest/doctest.h>

#include <algorithm>
#include <random>

#include "harness.h"

namespace radiotower::tls {

namespace {

std::string noise(std::size_t size, unsigned seed = 1) {
  std::mt19937 random(seed);
  std::string out(size, 0);
  for (char& c : out) c = static_cast<char>(random());
  return out;
}

}  // namespace

TEST_CASE("a megabyte each way arrives as it was, with TLS 1.2 and 1.3") {
  Authority authority;
  const auto identity = load({authority.issue("turn")});
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
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

}  // namespace radiotower::tls
