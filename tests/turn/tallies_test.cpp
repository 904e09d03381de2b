// What is counted by method, code, reason and way: the sides of /metrics that one integer does not have.
#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>

#include "harness.h"
#include "radiotower/turn/tallies.h"

using namespace radiotower;
using namespace radiotower::test;
using turn::Tallies;

namespace {

std::uint64_t requests(const Tower& tower, Method method, std::uint16_t outcome) {
  const auto& t = tower.server->tallies();
  const auto m = std::find(t.methods.begin(), t.methods.end(), method) - t.methods.begin();
  const auto o = std::find(t.outcomes.begin(), t.outcomes.end(), outcome) - t.outcomes.begin();
  return t.requests[static_cast<std::size_t>(m)][static_cast<std::size_t>(o)];
}

std::uint64_t all_requests(const Tower& tower) {
  std::uint64_t sum = 0;
  for (const auto& method : tower.server->tallies().requests) sum = std::accumulate(method.begin(), method.end(), sum);
  return sum;
}

}  // namespace

TEST_CASE("tallies: every code that there is has a place, and is there once") {
  for (int code = 300; code < 700; ++code) {
    const bool is_ours = *stun::reason_phrase(static_cast<ErrorCode>(code)) != 0;
    CAPTURE(code);
    CHECK(std::count(Tallies::outcomes.begin(), Tallies::outcomes.end(), code) == (is_ours ? 1 : 0));
  }
}

TEST_CASE("tallies: requests are counted by method and by the code of their answer, each once") {
  Tower tower;
  auto& alice = tower.client("10.0.0.1:5000");
  REQUIRE(alice.allocates() == 0);  // asks for a nonce first
  CHECK(requests(tower, Method::allocate, 401) == 1);
  CHECK(requests(tower, Method::allocate, Tallies::success) == 1);
  CHECK(alice.allocates() == 437);
  CHECK(alice.permits("192.0.2.7:9") == 0);
  CHECK(alice.permits("10.1.2.3:9") == 403);
  CHECK(alice.binds(0x4000, "192.0.2.7:4000") == 0);
  CHECK(alice.binds(0x4000, "192.0.2.8:4000") == 400);
  CHECK(alice.refreshes() == 0);
  auto& mallory = tower.client("10.0.0.2:5000", "alice", "wrong");
  CHECK(mallory.allocates() == 401);
  CHECK(mallory.refreshes() == 401);
  auto& bob = tower.client("10.0.0.3:5000", "bob", "hunter2");
  bob.learns_nonce();
  CHECK(bob.refreshes() == 437);
  CHECK(requests(tower, Method::allocate, 437) == 1);
  CHECK(requests(tower, Method::create_permission, Tallies::success) == 1);
  CHECK(requests(tower, Method::create_permission, 403) == 1);
  CHECK(requests(tower, Method::channel_bind, Tallies::success) == 1);
  CHECK(requests(tower, Method::channel_bind, 400) == 1);
  CHECK(requests(tower, Method::refresh, Tallies::success) == 1);
  CHECK(requests(tower, Method::refresh, 401) == 1);
  CHECK(requests(tower, Method::refresh, 437) == 1);
  CHECK(requests(tower, Method::allocate, 401) == 4);  // two to ask for a nonce, one for the password, one of learns_nonce()
  CHECK(all_requests(tower) == tower.counters().stun_requests);
  CHECK(tower.server->tallies().authenticated == 8);
}

TEST_CASE("error answers to one stranger: what is not answered is a request too") {
  TowerOptions options;
  options.limits.error_answers_per_second = 10;
  Tower tower(options);
  auto& stranger = tower.client("10.0.0.9:5000");
  for (int i = 0; i < 100; ++i) stranger.sends_raw(stranger.request(Method::allocate, {}, false));
  CHECK(requests(tower, Method::allocate, 401) + requests(tower, Method::allocate, Tallies::unanswered) == 100);
  CHECK(requests(tower, Method::allocate, Tallies::unanswered) == tower.counters().dropped_answer_limit);
  CHECK(tower.counters().dropped_answer_limit > 0);
}

TEST_CASE("tallies: a quota and an exhausted range") {
  TowerOptions options;
  options.users.front().allocations = 1;
  options.first_port = options.last_port = 40000;
  Tower tower(options);
  auto& first = tower.client("10.0.0.1:5000");
  REQUIRE(first.allocates() == 0);
  CHECK(tower.client("10.0.0.2:5000").allocates() == 486);
  CHECK(tower.client("10.0.0.3:5000", "bob", "hunter2").allocates() == 508);
  CHECK(requests(tower, Method::allocate, 486) == 1);
  CHECK(requests(tower, Method::allocate, 508) == 1);
}

TEST_CASE("tallies: ends by reason, and how long allocations lived") {
  Tower tower;
  auto& alice = tower.client("10.0.0.1:5000");
  auto& bob = tower.client("10.0.0.2:5000", "bob", "hunter2");
  REQUIRE(alice.allocates() == 0);
  REQUIRE(bob.allocates() == 0);
  tower.advance(5s);
  CHECK(alice.refreshes(0) == 0);
  tower.advance(600s);
  const auto& t = tower.server->tallies();
  CHECK(t.ended[static_cast<std::size_t>(turn::EndReason::refreshed_to_zero)] == 1);
  CHECK(t.ended[static_cast<std::size_t>(turn::EndReason::expired)] == 1);
  CHECK(t.lives.counts[1] == 1);  // more than 1 s, at most 10 s
  CHECK(t.lives.counts[4] == 1);  // more than 5 minutes, at most 15
  CHECK(std::accumulate(t.lives.counts.begin(), t.lives.counts.end(), std::uint64_t{0}) == tower.counters().allocations_ended);
  CHECK(t.lives.sum >= 605s);
}

TEST_CASE("tallies: a value on a bound belongs to it, and the largest to none") {
  turn::Histogram<2> histogram;
  const std::array<nanoseconds, 2> bounds{10ns, 20ns};
  for (const auto value : {0ns, 10ns, 11ns, 20ns, 21ns, nanoseconds(1h)}) histogram.add(value, bounds);
  CHECK(histogram.counts == std::array<std::uint64_t, 3>{2, 2, 2});
}

TEST_CASE("tallies: payload by the client's transport adds up to the counters") {
  Tower tower;
  auto& alice = tower.client("10.0.0.1:5000");
  REQUIRE(alice.allocates() == 0);
  REQUIRE(alice.binds(0x4000, "192.0.2.7:4000") == 0);
  alice.sends_channel(0x4000, "hello");
  alice.sends("192.0.2.7:4001", "indicated");
  tower.peer_sends("192.0.2.7:4000", alice, "back");
  alice.sends_channel(0x4001, "nobody's");
  const auto& t = tower.server->tallies();
  const auto& way = t.of(Tallies::way_of(alice.five_tuple.transport));
  CHECK(way.packets_to_peer == 2);
  CHECK(way.bytes_to_peer == 14);
  CHECK(way.packets_to_client == 1);
  CHECK(way.bytes_to_client == 4);
  Tallies::Traffic sum;
  for (const auto& one : t.traffic) {
    sum.packets_to_peer += one.packets_to_peer;
    sum.bytes_to_peer += one.bytes_to_peer;
    sum.packets_to_client += one.packets_to_client;
    sum.bytes_to_client += one.bytes_to_client;
  }
  const auto& c = tower.counters();
  CHECK(sum.packets_to_peer == c.packets_to_peer);
  CHECK(sum.bytes_to_peer == c.bytes_to_peer);
  CHECK(sum.packets_to_client == c.packets_to_client);
  CHECK(sum.bytes_to_client == c.bytes_to_client);
}

TEST_CASE("tallies: allocations by client, family and relay transport") {
  Tower tower;
  auto& alice = tower.client("10.0.0.1:5000");
  REQUIRE(alice.allocates() == 0);
  const std::uint8_t v6[] = {2, 0, 0, 0};
  REQUIRE(tower.client("10.0.0.2:5000").allocates([&](stun::Writer& w) { w.add(Attribute::additional_address_family, Bytes(v6)); }) == 0);
  REQUIRE(tower.client("10.0.0.3:5000").allocates([&](stun::Writer& w) { w.add(Attribute::requested_address_family, Bytes(v6)); }) == 0);
  const auto counts = tower.server->count_allocations();
  const auto& clients = counts.clients;
  const auto place = static_cast<std::size_t>(std::find(clients.begin(), clients.end(), alice.five_tuple.transport) - clients.begin());
  for (const std::size_t family : {0, 1, 2}) {
    CHECK(counts.now[place][family][0] == 1);
    CHECK(counts.now[place][family][1] == 0);
  }
}
