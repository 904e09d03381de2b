// Sending clients to other relays: 300 with ALTERNATE-SERVER (RFC 8489, 10, 14.15 and 14.16; RFC 8656, 7.2).
#include <doctest/doctest.h>

#include <set>

#include "harness.h"

using namespace radiotower;
using namespace radiotower::test;
using When = turn::Redirect::When;

namespace {

TowerOptions redirecting(When when, std::vector<std::string> servers, std::string domain = {}) {
  TowerOptions options;
  options.also = [when, servers = std::move(servers), domain = std::move(domain)](turn::Settings& settings) {
    settings.redirect.when = when;
    settings.redirect.domain = domain;
    for (const auto& text : servers) settings.redirect.servers.push_back(at(text));
  };
  return options;
}

std::string alternate(const Client& c) {
  const auto value = c.last->message()->find(Attribute::alternate_server);
  return value ? stun::read_address(*value)->address.text() : "";
}

}  // namespace

TEST_CASE("8489 10 S17: a 300 goes to whoever has proved to hold a key, protected with it, and to nobody else [L28]") {
  auto options = redirecting(When::draining, {"198.18.0.2:3478"});
  options.draining = true;
  Tower tower(options);
  auto& c = tower.client("203.0.113.9:5000");
  c.learns_nonce();  // a stranger gets his 401, and no word of another server
  CHECK_FALSE(c.last->message()->has(Attribute::alternate_server));
  CHECK(c.allocates() == 300);
  CHECK(c.last->message()->has_integrity());
  CHECK(alternate(c) == "198.18.0.2:3478");
  c.sha256 = true;
  CHECK(c.allocates() == 300);
  CHECK(c.last->message()->has_integrity_sha256());
  CHECK(tower.counters().redirects == 2);
  auto& wrong = tower.client("203.0.113.9:5001", "alice", "wrong");
  CHECK(wrong.allocates() == 401);
  CHECK_FALSE(wrong.last->message()->has(Attribute::alternate_server));
}

TEST_CASE("8489 10: an open relay has no key to protect a 300 with, and says 508 [L28]") {
  auto options = redirecting(When::draining, {"198.18.0.2:3478"});
  options.draining = true;
  options.authentication = false;
  Tower tower(options);
  auto& c = tower.client("203.0.113.9:5000");
  const std::array<std::uint8_t, 4> udp{17, 0, 0, 0};
  const auto answer = c.exchange(c.request(Method::allocate, [&](stun::Writer& w) { w.add(Attribute::requested_transport, Bytes(udp)); }, false));
  CHECK(answer->error() == 508);
  CHECK_FALSE(answer->message()->has(Attribute::alternate_server));
}

TEST_CASE("8489 14.15: ALTERNATE-SERVER is of the client's family, never the server that was asked, and one client's is always the same [L28]") {
  Tower tower(redirecting(When::always, {"198.18.0.1:3478", "198.18.0.2:3478", "198.18.0.3:3478", "198.18.0.4:3478", "[2001:db8:2::1]:3478"}));
  std::map<std::string, int> hits;
  for (int i = 0; i < 300; ++i) {
    auto& c = tower.client("203.0.113.9:" + std::to_string(5000 + i));
    REQUIRE(c.allocates() == 300);
    const std::string first = alternate(c);
    ++hits[first];
    REQUIRE(c.allocates() == 300);
    CHECK(alternate(c) == first);
  }
  CHECK(hits.size() == 3);
  CHECK(hits.count("198.18.0.1:3478") == 0);
  for (const auto& [server, count] : hits) CHECK(count > 50);
  auto& v6 = tower.client("[2001:db8::1]:5000");
  CHECK(v6.allocates() == 300);
  CHECK(alternate(v6) == "[2001:db8:2::1]:3478");
}

TEST_CASE("8656 7.2 (11): `always` serves a family that no other server has; `draining` then says 508 [L28]") {
  auto options = redirecting(When::always, {"198.18.0.2:3478"});
  Tower tower(options);
  CHECK(tower.client("203.0.113.9:5000").allocates() == 300);
  CHECK(tower.client("[2001:db8::1]:5000").allocates() == 0);
  options.draining = true;
  Tower draining(options);
  CHECK(draining.client("203.0.113.9:5000").allocates() == 300);
  CHECK(draining.client("[2001:db8::1]:5000").allocates() == 508);
}

TEST_CASE("8656 7.2 (11): `full` sends on whom this relay has no room for; `draining` does not [L25, L28]") {
  for (const When when : {When::full, When::draining, When::always}) {
    for (const bool ports : {true, false}) {
      auto options = redirecting(when, {"198.18.0.2:3478"});
      if (ports) options.first_port = options.last_port = 40000;
      else options.limits.allocations = 1;
      Tower tower(options);
      if (when == When::always) {
        CHECK(tower.client("203.0.113.9:5000").allocates() == 300);
        continue;
      }
      CHECK(tower.client("203.0.113.9:5000").allocates() == 0);
      auto& late = tower.client("203.0.113.9:5001");
      CHECK(late.allocates() == (when == When::full ? 300 : 508));
      CHECK(alternate(late) == (when == When::full ? "198.18.0.2:3478" : ""));
    }
  }
  // The quota of a user is no matter of room.
  auto options = redirecting(When::full, {"198.18.0.2:3478"});
  options.users = {{"alice", "secret", {}, 1, {}}};
  Tower tower(options);
  CHECK(tower.client("203.0.113.9:5000").allocates() == 0);
  CHECK(tower.client("203.0.113.9:5001").allocates() == 486);
}

TEST_CASE("8656 7.2 (11): what is there stays: a draining relay refreshes, permits and relays [L28]") {
  auto options = redirecting(When::draining, {"198.18.0.2:3478"});
  Tower tower(options);
  auto& c = tower.client("203.0.113.9:5000");
  c.fixed_transaction_id = stun::TransactionId{7};
  REQUIRE(c.allocates() == 0);
  tower.reload([](TowerOptions& o) { o.draining = true; });
  CHECK(c.allocates() == 0);  // a retransmission of the first
  c.fixed_transaction_id.reset();
  CHECK(c.refreshes() == 0);
  CHECK(c.binds(0x4000, "192.0.2.7:9") == 0);
  c.sends_channel(0x4000, "on");
  CHECK(tower.peer_got("192.0.2.7:9") == "on");
  CHECK(tower.client("203.0.113.9:5001").allocates() == 300);
}

TEST_CASE("8656 7.2: a client that may not allocate at all is not sent to others [L27]") {
  auto options = redirecting(When::always, {"198.18.0.2:3478"});
  options.denied_clients = {"203.0.113.0/24"};
  Tower tower(options);
  CHECK(tower.client("203.0.113.9:5000").allocates() == 403);
}

TEST_CASE("8489 14.16: ALTERNATE-DOMAIN goes beside ALTERNATE-SERVER to clients over TLS and DTLS alone, whose servers may be others") {
  auto options = redirecting(When::always, {"198.18.0.2:3478"}, "turn.example.org");
  options.also = [before = options.also](turn::Settings& settings) {
    before(settings);
    settings.redirect.secure_servers = {at("198.18.0.2:5349")};
  };
  Tower tower(options);
  int port = 5000;
  for (const auto transport : {net::Transport::udp, net::Transport::tcp, net::Transport::tls, net::Transport::dtls}) {
    auto& c = tower.client("203.0.113.9:" + std::to_string(port++));
    c.five_tuple.transport = transport;
    CHECK(c.allocates() == 300);
    const bool secure = transport == net::Transport::tls || transport == net::Transport::dtls;
    CHECK(alternate(c) == (secure ? "198.18.0.2:5349" : "198.18.0.2:3478"));
    const auto domain = c.last->message()->find(Attribute::alternate_domain);
    CHECK(domain.has_value() == secure);
    if (domain) CHECK(as_text(*domain) == "turn.example.org");
  }
}
