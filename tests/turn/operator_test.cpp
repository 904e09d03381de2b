// What an operator asks of the core: every allocation as it stands, and the end of some.
#include <doctest/doctest.h>

#include <algorithm>

#include "harness.h"

using namespace radiotower;
using namespace radiotower::test;
using namespace std::chrono_literals;

namespace {

std::vector<turn::AllocationFacts> all_of(Tower& tower) {
  std::vector<turn::AllocationFacts> all;
  std::uint32_t next = 0;
  do {
    const std::size_t before = all.size();
    next = tower.server->visit_allocations(tower.now.steady, next, 1, [&](const turn::AllocationFacts& facts) { all.push_back(facts); });
    CHECK(all.size() - before <= 1);
  } while (next != 0);
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.five_tuple.client < b.five_tuple.client; });
  return all;
}

std::size_t end(Tower& tower, const std::function<bool(const turn::AllocationFacts&)>& which, turn::EndReason reason = turn::EndReason::killed) {
  const std::size_t count = tower.server->end_allocations(which, reason, tower.now, tower.actions);
  tower.carry_out();
  return count;
}

}  // namespace

TEST_CASE("operators see every allocation: whose, where, for how long, and what it has relayed") {
  Tower tower;
  CHECK(all_of(tower).empty());
  auto& alice = tower.client("203.0.113.9:5000");
  auto& bob = tower.client("203.0.113.9:5001", "bob", "hunter2");
  REQUIRE(alice.allocates() == 0);
  tower.advance(100s);
  REQUIRE(bob.allocates() == 0);
  REQUIRE(alice.permits("192.0.2.7:9") == 0);
  REQUIRE(alice.binds(0x4000, "192.0.2.8:9") == 0);
  alice.sends_channel(0x4000, "12345");
  alice.sends("192.0.2.7:9", "123");
  tower.peer_sends("192.0.2.8:9", alice, "1234567");
  tower.advance(20s);
  const auto all = all_of(tower);
  REQUIRE(all.size() == 2);
  const auto& one = all[0];
  CHECK(one.user == "alice");
  CHECK(one.realm.empty());
  CHECK(one.five_tuple == alice.five_tuple);
  CHECK(one.has_client);
  CHECK(one.relayed == alice.relayed());
  CHECK(one.relayed2.port == 0);
  CHECK(one.relay_transport == net::Transport::udp);
  CHECK(one.age == 120s);
  CHECK(one.expires_in == 480s);
  CHECK(one.permissions == 2);
  CHECK(one.channels == 1);
  CHECK(one.shortcuts == 0);
  CHECK(one.packets_to_peer == 2);
  CHECK(one.bytes_to_peer == 8);
  CHECK(one.packets_to_client == 1);
  CHECK(one.bytes_to_client == 7);
  CHECK(all[1].user == "bob");
  CHECK(all[1].age == 20s);
  CHECK(all[1].permissions == 0);
  CHECK_FALSE(all[0].id == all[1].id);
  tower.advance(300s);  // permissions and channels that have run out do not count (RFC 8656, 9 and 12)
  CHECK(all_of(tower)[0].permissions == 0);
  tower.advance(601s);
  CHECK(all_of(tower).empty());
}

TEST_CASE("operators see both relayed addresses of a dual allocation") {
  Tower tower;
  auto& alice = tower.client("203.0.113.9:5000");
  REQUIRE(alice.allocates([](stun::Writer& w) {
    const std::array<std::uint8_t, 4> v6{2, 0, 0, 0};
    w.add(Attribute::additional_address_family, Bytes(v6));
  }) == 0);
  const auto all = all_of(tower);
  REQUIRE(all.size() == 1);
  CHECK(all[0].relayed == alice.relayed());
  CHECK(all[0].relayed2 == alice.relayed6());
}

TEST_CASE("an operator's end hits those that are named and no other; they are told by a 437 (RFC 8656, 8.2) [F01]") {
  Tower tower;
  auto& alice = tower.client("203.0.113.9:5000");
  auto& again = tower.client("203.0.113.9:5001");
  auto& bob = tower.client("203.0.113.9:5002", "bob", "hunter2");
  for (auto* c : {&alice, &again, &bob}) REQUIRE(c->allocates() == 0);
  REQUIRE(alice.permits("192.0.2.7:9") == 0);
  alice.sends("192.0.2.7:9", "12345");
  tower.events.clear();
  CHECK(end(tower, [](const turn::AllocationFacts&) { return false; }) == 0);
  CHECK(tower.events.empty());
  CHECK(end(tower, [](const turn::AllocationFacts& facts) { return facts.user == "alice"; }) == 2);
  CHECK(tower.server->allocation_count() == 1);
  CHECK(tower.open.size() == 1);
  CHECK(tower.shared->usage().used == 1);
  CHECK(tower.shared->usage().allocations == 1);
  REQUIRE(tower.events.size() == 2);
  for (const auto& event : tower.events) {
    CHECK(event.kind == turn::Event::Kind::allocation_ended);
    CHECK(event.end == turn::EndReason::killed);
    CHECK(event.user == "alice");
  }
  CHECK(tower.events[0].packets_to_peer + tower.events[1].packets_to_peer == 1);
  CHECK(alice.refreshes() == 437);
  CHECK(again.refreshes() == 437);
  CHECK(bob.refreshes() == 0);
  CHECK(bob.permits("192.0.2.7:9") == 0);
  CHECK(alice.allocates() == 0);  // it is no ban
  CHECK(turn::name(turn::EndReason::killed) == "killed");
  CHECK(turn::name(turn::EndReason::drained) == "drained");
}

TEST_CASE("an operator's end hangs up connections over TCP and TLS, and those alone") {
  Tower tower;
  auto& alice = tower.client("203.0.113.9:5000");
  REQUIRE(alice.allocates() == 0);
  tower.actions.clear();
  CHECK(tower.server->end_allocations([](const turn::AllocationFacts&) { return true; }, turn::EndReason::killed, tower.now, tower.actions) == 1);
  CHECK(tower.actions.hang_ups.size() == (net::is_stream(alice.five_tuple.transport) ? 1 : 0));
  tower.carry_out();
}

TEST_CASE("8656 7.2: a draining relay refuses strangers with 508 and serves who is there; a retransmitted Allocate gets its answer again [L28]") {
  Tower tower;
  auto& alice = tower.client("203.0.113.9:5000");
  alice.learns_nonce();
  alice.fixed_transaction_id = stun::TransactionId{1, 2, 3};
  REQUIRE(alice.allocates() == 0);
  const auto first = alice.relayed();
  tower.reload([](TowerOptions& options) { options.draining = true; });
  CHECK(alice.allocates() == 0);  // the same transaction: no second allocation
  CHECK(alice.relayed() == first);
  CHECK(tower.server->allocation_count() == 1);
  alice.fixed_transaction_id.reset();
  CHECK(alice.refreshes() == 0);
  CHECK(alice.permits("192.0.2.7:9") == 0);
  CHECK(alice.binds(0x4000, "192.0.2.8:9") == 0);
  auto& bob = tower.client("203.0.113.9:5001", "bob", "hunter2");
  CHECK(bob.allocates() == 508);
  tower.reload([](TowerOptions& options) { options.draining = false; });
  CHECK(bob.allocates() == 0);
}
