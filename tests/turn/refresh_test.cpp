// Refresh (RFC 8656, 8.2), rows F of the hostile inputs.
#include <doctest/doctest.h>

#include "harness.h"

using namespace radiotower;
using namespace radiotower::test;

namespace {

Client::More family(int value) {
  return [value](stun::Writer& w) {
    const std::array<std::uint8_t, 4> bytes{static_cast<std::uint8_t>(value), 0, 0, 0};
    w.add(Attribute::requested_address_family, Bytes(bytes));
  };
}
Client::More also_v6() {
  return [](stun::Writer& w) {
    const std::array<std::uint8_t, 4> bytes{2, 0, 0, 0};
    w.add(Attribute::additional_address_family, Bytes(bytes));
  };
}
std::uint32_t lifetime_of(const Packet& p) { return *stun::read_u32(*p.message()->find(Attribute::lifetime)); }

}  // namespace

TEST_CASE("F01 B10: no allocation is a 437 for each request") {
  Tower tower;
  auto& alice = tower.client("203.0.113.9:5000");
  CHECK(alice.refreshes() == 437);
  CHECK(alice.permits("192.0.2.7:9") == 437);
  CHECK(alice.binds(0x4000, "192.0.2.7:9") == 437);
}

TEST_CASE("F02 F03: Refresh with lifetime 0 ends the allocation; the same again is a 437") {
  Tower tower;
  auto& alice = tower.client("203.0.113.9:5000");
  REQUIRE(alice.allocates() == 0);
  const auto bytes = alice.request(Method::refresh, [](stun::Writer& w) { w.add_u32(Attribute::lifetime, 0); });
  const auto first = alice.exchange(bytes);
  REQUIRE(first);
  CHECK(first->error() == 0);
  CHECK(lifetime_of(*first) == 0);
  CHECK(tower.open.empty());
  CHECK(tower.server->allocation_count() == 0);
  CHECK(tower.shared->usage().used == 0);
  CHECK(alice.exchange(bytes)->error() == 437);
  CHECK(tower.events.back().end == turn::EndReason::refreshed_to_zero);
}

TEST_CASE("F04 A35 A17: lifetimes asked for in a Refresh") {
  Tower tower;
  auto& alice = tower.client("203.0.113.9:5000");
  REQUIRE(alice.allocates() == 0);
  CHECK(alice.refreshes() == 0);
  CHECK(lifetime_of(*alice.last) == 600);
  CHECK(alice.refreshes(1) == 0);
  CHECK(lifetime_of(*alice.last) == 600);
  CHECK(alice.refreshes(0xFFFFFFFF) == 0);
  CHECK(lifetime_of(*alice.last) == 3600);
  CHECK(alice.refreshes(600, [](stun::Writer& w) { w.add_u32(Attribute::lifetime, 0); }) == 0);  // the first decides
  CHECK(tower.server->allocation_count() == 1);
  for (const std::size_t size : {0, 3, 5, 8}) {
    const std::vector<std::uint8_t> value(size, 0);
    CHECK(alice.refreshes({}, [&](stun::Writer& w) { w.add(Attribute::lifetime, Bytes(value)); }) == 400);
  }
}

TEST_CASE("F05: a family that the allocation does not have is a 443") {
  Tower tower;
  auto& alice = tower.client("203.0.113.9:5000");
  REQUIRE(alice.allocates() == 0);
  CHECK(alice.refreshes({}, family(2)) == 443);
  CHECK(alice.refreshes({}, family(1)) == 0);
}

TEST_CASE("F06: ending one family of a dual allocation leaves the other alone") {
  Tower tower;
  auto& alice = tower.client("203.0.113.9:5000");
  REQUIRE(alice.allocates(also_v6()) == 0);
  const auto v4 = alice.relayed();
  REQUIRE(alice.permits("192.0.2.7:9") == 0);
  REQUIRE(alice.binds(0x4000, "192.0.2.7:9") == 0);
  CHECK(alice.refreshes(0, family(2)) == 0);
  CHECK(tower.open.size() == 1);
  alice.sends_channel(0x4000, "still here");
  CHECK(tower.peer_got("192.0.2.7:9") == "still here");
  tower.peer_sends("192.0.2.7:9", v4, "so am I");
  CHECK(alice.take()->payload() == "so am I");
  CHECK(alice.permits("[2001:db8::7]:9") == 443);
  CHECK(alice.refreshes(0) == 0);
  CHECK(tower.server->allocation_count() == 0);
}

TEST_CASE("F07 I21: another user on this 5-tuple is a 441, and a 401 while he has not proved who he is") {
  Tower tower;
  auto& alice = tower.client("203.0.113.9:5000");
  REQUIRE(alice.allocates() == 0);
  auto& bob = tower.client("203.0.113.9:5000", "bob", "hunter2");
  alice.inbox.clear();
  CHECK(bob.refreshes(0) == 441);
  bob.password = "wrong";
  CHECK(bob.refreshes(0) == 401);
  CHECK(tower.server->allocation_count() == 1);
}

TEST_CASE("F08: from another port it is another 5-tuple") {
  Tower tower;
  REQUIRE(tower.client("203.0.113.9:5000").allocates() == 0);
  CHECK(tower.client("203.0.113.9:5001").refreshes() == 437);
}

TEST_CASE("F09: after its lifetime an allocation is gone, port, quota and all") {
  Tower tower;
  auto& alice = tower.client("203.0.113.9:5000");
  REQUIRE(alice.allocates() == 0);
  tower.advance(599s);
  CHECK(tower.server->allocation_count() == 1);
  tower.advance(2s);
  CHECK(tower.server->allocation_count() == 0);
  CHECK(tower.open.empty());
  CHECK(tower.shared->usage().allocations == 0);
  CHECK(tower.events.back().kind == turn::Event::Kind::allocation_ended);
  CHECK(tower.events.back().end == turn::EndReason::expired);
  alice.nonce.clear();
  CHECK(alice.refreshes() == 437);
}

TEST_CASE("a refreshed allocation lives on from the refresh") {
  Tower tower;
  auto& alice = tower.client("203.0.113.9:5000");
  REQUIRE(alice.allocates() == 0);
  for (int i = 0; i < 20; ++i) {
    tower.advance(500s);
    int code = alice.refreshes();
    if (code == 438) code = alice.refreshes();
    CHECK(code == 0);
  }
  CHECK(tower.server->allocation_count() == 1);
}

TEST_CASE("F10: a live allocation outlasts its REST credential, unless strict_expiry is set") {
  for (const bool strict : {false, true}) {
    CAPTURE(strict);
    TowerOptions options;
    options.secrets = {"north"};
    options.strict_expiry = strict;
    Tower tower(options);
    const std::string name = std::to_string(tower.now.unix_time + 300) + ":alice";
    auto& alice = tower.client("203.0.113.9:5000", name, stun::rest_password("north", name));
    REQUIRE(alice.allocates() == 0);
    tower.advance(301s);
    CHECK(alice.refreshes() == (strict ? 401 : 0));
    auto& again = tower.client("203.0.113.9:5001", name, stun::rest_password("north", name));
    CHECK(again.allocates() == 401);  // I23
  }
}

TEST_CASE("F11: data after the end is dropped, both orders") {
  Tower tower;
  auto& alice = tower.client("203.0.113.9:5000");
  REQUIRE(alice.allocates() == 0);
  REQUIRE(alice.binds(0x4000, "192.0.2.7:9") == 0);
  const auto relayed = alice.relayed();
  alice.sends_channel(0x4000, "before");
  CHECK(alice.refreshes(0) == 0);
  alice.sends_channel(0x4000, "after");
  CHECK(tower.peer_got("192.0.2.7:9") == "before");
  CHECK(tower.peers_quiet());
  tower.peer_sends("192.0.2.7:9", relayed, "late");
  CHECK(alice.quiet());
}

TEST_CASE("the wall clock may jump: only REST expiry is measured on it") {
  Tower tower;
  auto& alice = tower.client("203.0.113.9:5000");
  REQUIRE(alice.allocates() == 0);
  tower.jump_wall_clock(-100000s);
  CHECK(alice.refreshes() == 0);
  tower.jump_wall_clock(200000s);
  CHECK(alice.refreshes() == 0);
}
