// Clients that move to another 5-tuple, and with it to another worker (RFC 8016), with real sockets on loopback.
#include "daemon/moved_clients.h"

#include <doctest/doctest.h>

#include <set>

#include "station.h"

using namespace radiotower;
using namespace radiotower::daemon;
using namespace radiotower::daemon::test;

namespace {

SettingsWishes mobile() {
  SettingsWishes wishes;
  wishes.mobility = true;
  return wishes;
}

struct Sum {
  MovedCounters moved;
  turn::Counters turn;
  std::size_t sockets = 0, armed = 0, allocations = 0;
};
Sum sum_of(Station& station) {
  Sum sum;
  for (const auto& worker : station.relay->workers()) {
    const auto one = worker->report(milliseconds(patience));
    REQUIRE(one);
    sum.moved.sockets += one->moved.sockets;
    sum.moved.passing_on += one->moved.passing_on;
    sum.moved.passed_on += one->moved.passed_on;
    sum.moved.passed_on_lost += one->moved.passed_on_lost;
    sum.moved.taken_in += one->moved.taken_in;
    sum.moved.sockets_opened += one->moved.sockets_opened;
    sum.moved.sockets_refused += one->moved.sockets_refused;
    sum.turn.allocations_moved += one->counters.allocations_moved;
    sum.turn.handed_over += one->counters.handed_over;
    sum.sockets += one->sockets;
    sum.armed += one->armed;
    sum.allocations += one->allocations;
  }
  return sum;
}

/// Moves alice through sockets of her own until `count` moves have been made; data flows on after each of them. Returns the last.
std::unique_ptr<Client> wander(Station& station, std::unique_ptr<Client> alice, Udp& peer, int count) {
  const auto relayed = alice->relayed;
  std::string ticket = alice->ticket();
  REQUIRE(ticket.size() == 32);
  REQUIRE(alice->binds(0x4000, peer.address) == 0);
  for (int i = 0; i < count; ++i) {
    CAPTURE(i);
    auto next = std::make_unique<Client>(station.listener);
    REQUIRE(next->moves(ticket) == 0);
    CHECK(next->ticket() != ticket);
    ticket = next->ticket();
    sum_of(station);  // what one worker has told another, which may take longer than the client's next datagram, has been heard
    // Until data comes from the new one, the old one is served (RFC 8016, 3.2.2).
    alice->sends_channel(0x4000, "old");
    CHECK(text(peer.receive()) == "old");
    peer.send(relayed, as_bytes("to old"));
    CHECK(text(alice->socket.receive(), 4) == "to old");
    for (int k = 0; k < 20; ++k) {
      const std::string data = "new " + std::to_string(k);
      next->sends_channel(0x4000, data);
      CHECK(text(peer.receive()) == data);
      CHECK(peer.from == relayed);
      peer.send(relayed, as_bytes(data));
      CHECK(text(next->socket.receive(), 4) == data);
    }
    CHECK(next->permits(peer.address) == 0);
    CHECK(alice->permits(peer.address) == 437);
    alice = std::move(next);
  }
  return alice;
}

}  // namespace

TEST_CASE("a client that moves to each of four workers loses nothing, over sockets of its own") {
  for (const auto backend : backends) {
    Station station(backend, {}, 4);
    if (!station.works) continue;
    station.relay->apply(make_settings(station.listener, mobile()));  // a reload is enough
    Udp peer("127.0.0.3");
    auto alice = std::make_unique<Client>(station.listener);
    REQUIRE(alice->allocates_mobile() == 0);
    alice = wander(station, std::move(alice), peer, 40);
    Sum sum = sum_of(station);
    CHECK(sum.turn.allocations_moved == 40);
    CHECK(sum.turn.handed_over > 10);  // three of four
    CHECK(sum.turn.handed_over < 40);
    CHECK(sum.moved.sockets_opened == sum.turn.handed_over);
    CHECK(sum.moved.passed_on == sum.moved.taken_in);
    CHECK(sum.moved.passed_on == sum.turn.handed_over);  // the Refresh alone: what came after it came to the owner
    CHECK(sum.moved.sockets <= 1);
    CHECK(sum.moved.passing_on == 0);
    CHECK(sum.armed == sum.sockets);
    const auto line = station.reader.wait_for("allocation moved");
    CHECK(line.find("user=alice client=127.0.0.1:") != std::string::npos);
    CHECK(line.find(" was=127.0.0.1:") != std::string::npos);
    CHECK(alice->ends() == 0);
    sum = sum_of(station);
    CHECK(sum.moved.sockets == 0);
    CHECK(sum.sockets == 4);
    CHECK(sum.allocations == 0);
    // Where it was last is free for an allocation of its own, wherever that lands.
    CHECK(alice->allocates() == 0);
  }
}

TEST_CASE("where there can be no socket for it, its worker passes each datagram on") {
  for (const auto backend : backends) {
    Station station(backend, mobile(), 4, [](RelayPlan& plan) { plan.moved_sockets = 0; });
    if (!station.works) continue;
    Udp peer("127.0.0.3");
    auto alice = std::make_unique<Client>(station.listener);
    REQUIRE(alice->allocates_mobile() == 0);
    alice = wander(station, std::move(alice), peer, 20);
    Sum sum = sum_of(station);
    CHECK(sum.turn.allocations_moved == 20);
    CHECK(sum.moved.sockets_opened == 0);
    CHECK(sum.moved.sockets_refused == sum.turn.handed_over);
    CHECK(sum.moved.passed_on > 20 * sum.turn.handed_over);
    CHECK(sum.moved.passed_on == sum.moved.taken_in);
    CHECK(sum.moved.passed_on_lost == 0);
    CHECK(sum.moved.passing_on <= 1);
    CHECK(alice->ends() == 0);
    // Told from worker to worker: seen after a turn of each.
    CHECK(comes([&] { return sum_of(station).moved.passing_on == 0; }));
    CHECK(alice->allocates() == 0);
  }
}

TEST_CASE("more clients that have moved than there may be sockets for are all served") {
  Station station(Backend::automatic, mobile(), 2);
  REQUIRE(station.works);
  Udp peer("127.0.0.3");
  std::vector<std::unique_ptr<Client>> firsts, clients;  // all are kept, so that no port is used twice
  for (int i = 0; i < 256; ++i) {  // half of them are handed over, each worker has room for 32
    firsts.push_back(std::make_unique<Client>(station.listener));
    REQUIRE(firsts.back()->allocates_mobile() == 0);
    const std::string ticket = firsts.back()->ticket();
    REQUIRE(firsts.back()->binds(0x4000, peer.address) == 0);
    clients.push_back(std::make_unique<Client>(station.listener));
    REQUIRE(clients.back()->moves(ticket) == 0);
  }
  for (int round = 0; round < 3; ++round)
    for (std::size_t i = 0; i < clients.size(); ++i) {
      const std::string data = std::to_string(i);
      clients[i]->sends_channel(0x4000, data);
      CHECK(text(peer.receive()) == data);
      peer.send(peer.from, as_bytes(data));
      CHECK(text(clients[i]->socket.receive(), 4) == data);
    }
  Sum sum = sum_of(station);
  CHECK(sum.moved.sockets == 64);
  CHECK(sum.moved.passing_on > 0);
  CHECK(sum.moved.passing_on + sum.moved.sockets == sum.turn.handed_over);
  for (auto& client : clients) CHECK(client->ends() == 0);
  sum = sum_of(station);
  CHECK(sum.moved.sockets == 0);
  CHECK(sum.sockets == 2);
}

TEST_CASE("strangers find their worker while sockets come and go") {
  Station station(Backend::automatic, mobile(), 4);
  REQUIRE(station.works);
  Udp peer("127.0.0.3");
  std::vector<std::unique_ptr<Client>> others;
  for (int i = 0; i < 40; ++i) {
    others.push_back(std::make_unique<Client>(station.listener));
    REQUIRE(others.back()->allocates() == 0);
    REQUIRE(others.back()->binds(0x4000, peer.address) == 0);
  }
  std::vector<std::unique_ptr<Client>> places;
  places.push_back(std::make_unique<Client>(station.listener));
  REQUIRE(places.back()->allocates_mobile() == 0);
  std::string ticket = places.back()->ticket();
  for (int i = 0; i < 40; ++i) {
    places.push_back(std::make_unique<Client>(station.listener));
    REQUIRE(places.back()->moves(ticket) == 0);  // announced, and never used: the one before is forgotten
    ticket = places.back()->ticket();
    auto& other = *others[static_cast<std::size_t>(i)];
    other.sends_channel(0x4000, "hello");
    CHECK(text(peer.receive()) == "hello");
    CHECK(other.permits(peer.address) == 0);
  }
  CHECK(sum_of(station).moved.sockets <= 1);
}

TEST_CASE("a client whose own socket hears ICMP errors is served on") {
  for (const auto backend : backends) {
    Station station(backend, mobile(), 4);
    if (!station.works) continue;
    Udp peer("127.0.0.3");
    Client first(station.listener);
    REQUIRE(first.allocates_mobile() == 0);
    std::string ticket = first.ticket();
    const auto relayed = first.relayed;
    REQUIRE(first.binds(0x4000, peer.address) == 0);
    std::vector<std::unique_ptr<Client>> places;
    for (int i = 0; i < 20; ++i) places.push_back(std::make_unique<Client>(station.listener));
    for (auto& next : places) {
      REQUIRE(next->moves(ticket) == 0);
      ticket = next->ticket();
      next->sends_channel(0x4000, "x");
      CHECK(text(peer.receive()) == "x");
      next.reset();  // its port is closed: what peers send comes back as "port unreachable"
      for (int k = 0; k < 5; ++k) peer.send(relayed, as_bytes("anybody?"));
    }
    Client last(station.listener);
    REQUIRE(last.moves(ticket) == 0);
    last.sends_channel(0x4000, "y");
    CHECK(text(peer.receive()) == "y");
    const Sum sum = sum_of(station);
    CHECK(sum.armed == sum.sockets);
    CHECK(last.ends() == 0);
  }
}
