// Relay addresses, their external forms and the range of ports, as they change under live allocations: whoever has something keeps it.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "harness.h"
#include "radiotower/turn/address_book.h"

using namespace radiotower;
using namespace radiotower::test;
using turn::AddressBook;
using turn::PortPool;

namespace {

constexpr auto behind_nat = [](const char* external) {
  return std::vector<std::pair<std::string, std::string>>{{"198.18.0.1", external}};
};
std::string ip_of(const Client& client) { return client.relayed().ip.text(); }
std::string text(const net::IpAddress& ip, std::uint16_t port) { return net::TransportAddress{ip, port, 0}.text(); }
net::IpAddress ip(const char* text) { return *net::IpAddress::parse(text); }

/// The range of `usage` is `addresses` times that of the settings, and what is held outside.
void check_sums(const turn::Shared& shared) {
  const auto u = shared.usage();
  CHECK(u.free + u.used + u.reserved + u.quarantined == u.range);
}

}  // namespace

TEST_CASE("another external address is for new allocations alone") {
  Tower tower({.relay_addresses = behind_nat("198.51.100.7")});
  auto& alice = tower.client("203.0.113.9:5000");
  REQUIRE(alice.allocates() == 0);
  REQUIRE(alice.permits("192.0.2.7:9") == 0);
  CHECK(ip_of(alice) == "198.51.100.7");

  tower.reload([](TowerOptions& o) { o.relay_addresses = behind_nat("198.51.100.99"); });
  auto& bob = tower.client("203.0.113.9:5001", "bob", "hunter2");
  REQUIRE(bob.allocates() == 0);
  CHECK(ip_of(bob) == "198.51.100.99");
  for (const auto& [socket, port] : tower.open) CHECK(port.first.ip.text() == "198.18.0.1");  // both on the one local address

  // The one before goes on as if nothing had happened.
  alice.sends("192.0.2.7:4000", "still here");
  CHECK(tower.peer_got("192.0.2.7:4000") == "still here");
  tower.peer_sends("192.0.2.7:4000", alice, "and back");
  CHECK(alice.take()->payload() == "and back");
  CHECK(alice.refreshes() == 0);
}

TEST_CASE("L05: a retransmitted Allocate gets the same bytes after the external address has changed (RFC 8656, 7.2; RFC 8489, 6.3.1)") {
  Tower tower({.relay_addresses = behind_nat("198.51.100.7")});
  auto& alice = tower.client("203.0.113.9:5000");
  REQUIRE(alice.allocates() == 0);
  const std::array<std::uint8_t, 4> udp{17, 0, 0, 0};
  auto& carol = tower.client("203.0.113.9:5002");
  carol.learns_nonce();
  const auto request = carol.request(Method::allocate, [&](stun::Writer& w) { w.add(Attribute::requested_transport, Bytes(udp)); });
  const auto first = carol.exchange(request);
  REQUIRE(first);
  REQUIRE(first->error() == 0);
  tower.reload([](TowerOptions& o) {
    o.relay_addresses = behind_nat("198.51.100.99");
    o.first_port = 40000;
    o.last_port = 40099;
  });
  auto again = carol.exchange(request);
  REQUIRE(again);
  CHECK(again->bytes == first->bytes);
  tower.reload([](TowerOptions& o) { o.relay_addresses = {{"198.18.0.2", "198.18.0.2"}}; });  // the address itself is gone
  again = carol.exchange(request);
  REQUIRE(again);
  CHECK(again->bytes == first->bytes);
}

TEST_CASE("hairpin: two clients find each other by the external addresses they were told, the old one and the new one") {
  Tower tower({.relay_addresses = behind_nat("198.51.100.7")});
  auto& alice = tower.client("203.0.113.9:5000");
  REQUIRE(alice.allocates() == 0);
  tower.reload([](TowerOptions& o) { o.relay_addresses = behind_nat("198.51.100.99"); });
  auto& bob = tower.client("203.0.113.9:5001", "bob", "hunter2");
  REQUIRE(bob.allocates() == 0);
  const std::string a = alice.relayed().text(), b = bob.relayed().text();
  REQUIRE(alice.permits(b) == 0);
  REQUIRE(bob.binds(0x4000, a) == 0);
  alice.sends(b, "from the old one");
  auto got = bob.take();
  REQUIRE(got);
  CHECK(got->payload() == "from the old one");
  CHECK(got->is_channel_data());  // known by its old external address, of which the channel is
  bob.sends_channel(0x4000, "from the new one");
  got = alice.take();
  REQUIRE(got);
  CHECK(got->payload() == "from the new one");
  const auto peer = stun::read_xor_address(*got->message()->find(Attribute::xor_peer_address), got->message()->transaction_id());
  CHECK(peer->address.text() == b);

  SUBCASE("a port is live under the form its client was told, and under no other") {
    CHECK(tower.shared->relayed_port_live(alice.relayed()));
    CHECK(tower.shared->relayed_port_live(bob.relayed()));
    CHECK_FALSE(tower.shared->relayed_port_live(at(text(ip("198.51.100.99"), alice.relayed().port))));
    CHECK_FALSE(tower.shared->relayed_port_live(at(text(ip("198.51.100.7"), bob.relayed().port))));
    CHECK(tower.shared->relayed_port_live(at(text(ip("198.18.0.1"), alice.relayed().port))));
    CHECK(bob.permits(text(ip("198.51.100.99"), alice.relayed().port)) == 403);
  }
  SUBCASE("an old external address with nobody behind it is not ours any more") {
    REQUIRE(alice.refreshes(0) == 0);
    CHECK_FALSE(tower.shared->relayed_port_live(at(a)));
    const auto known = tower.shared->known_addresses();
    CHECK(std::find(known.begin(), known.end(), ip("198.51.100.7")) == known.end());
    bob.sends_channel(0x4000, "to nobody");  // until the next reload says so, it counts as ours and as dead
    CHECK(tower.peers_quiet());
    tower.reload([](TowerOptions& o) { o.allow.push_back("198.51.100.0/24"); });
    bob.sends_channel(0x4000, "to whoever has it now");
    CHECK(tower.peer_got(a) == "to whoever has it now");
  }
}

TEST_CASE("P26: an allocation is no peer of itself, by the old external address either") {
  Tower tower({.relay_addresses = behind_nat("198.51.100.7")});
  auto& alice = tower.client("203.0.113.9:5000");
  REQUIRE(alice.allocates() == 0);
  tower.reload([](TowerOptions& o) { o.relay_addresses = behind_nat("198.51.100.99"); });
  CHECK(alice.permits(alice.relayed().text()) == 403);
  CHECK(alice.permits(text(ip("198.18.0.1"), alice.relayed().port)) == 403);
  CHECK(alice.binds(0x4001, alice.relayed().text()) == 403);
}

TEST_CASE("another range of ports is for new allocations alone") {
  Tower tower({.relay_addresses = {{"198.18.0.1", "198.18.0.1"}}, .first_port = 40000, .last_port = 40009});
  std::vector<Client*> old;
  for (int i = 0; i < 6; ++i) {
    old.push_back(&tower.client("203.0.113.9:" + std::to_string(5000 + i)));
    REQUIRE(old.back()->allocates() == 0);
  }
  REQUIRE(old[0]->permits("192.0.2.7:9") == 0);
  tower.reload([](TowerOptions& o) {
    o.first_port = 50000;
    o.last_port = 50003;
  });
  auto usage = tower.shared->usage();
  CHECK(usage.used == 6);
  CHECK(usage.free == 4);
  CHECK(usage.range == 10);  // four of the range, and six that are held outside it
  for (int i = 0; i < 4; ++i) {
    auto& c = tower.client("203.0.113.9:" + std::to_string(6000 + i));
    REQUIRE(c.allocates() == 0);
    CHECK(c.relayed().port >= 50000);
  }
  CHECK(tower.client("203.0.113.9:7000").allocates() == 508);
  old[0]->sends("192.0.2.7:4000", "still here");
  CHECK(tower.peer_got("192.0.2.7:4000") == "still here");

  for (Client* c : old) REQUIRE(c->refreshes(0) == 0);
  usage = tower.shared->usage();
  CHECK(usage.quarantined == 6);
  CHECK(usage.range == 10);
  CHECK(tower.client("203.0.113.9:7001").allocates() == 508);  // what rests outside is not taken, however dry it is
  tower.advance(31s);
  CHECK(tower.client("203.0.113.9:7002").allocates() == 508);
  check_sums(*tower.shared);
}

TEST_CASE("a port that went out of the range rests on, and is not given anew before its time when the range comes back") {
  PortPool pool(40000, 40003, seeded_random(3));
  Time now(1000s);
  const auto port = *pool.take_any(now);
  pool.set_range(50000, 50001);
  pool.release(port, now);
  CHECK(pool.quarantined() == 1);
  CHECK(pool.range() == 3);
  pool.set_range(40000, 40003);
  CHECK(pool.quarantined() == 1);
  CHECK(pool.range() == 4);
  for (int i = 0; i < 3; ++i) CHECK(*pool.take_any(now + 1s) != port);
  CHECK(*pool.take_any(now + 31s) == port);
}

TEST_CASE("free + used + reserved + quarantined is always the range, whatever becomes of the range") {
  const RandomSource random = seeded_random(21);
  PortPool pool(40001, 40200, seeded_random(22));
  Time now(1000s);
  std::uint16_t first = 40001, last = 40200;
  std::vector<std::uint16_t> held;
  for (int i = 0; i < 20'000; ++i) {
    const std::uint32_t what = random_below(random, 64);
    if (what == 0) {
      first = static_cast<std::uint16_t>(40000 + random_below(random, 300));
      last = static_cast<std::uint16_t>(first + random_below(random, 100));
      pool.set_range(first, last);
    } else if (what == 1) {
      pool.set_range(1, 0);
      first = 1, last = 0;
      CHECK(pool.free() == 0);
    } else if (what < 24) {
      if (const auto p = pool.take_any(now)) {
        CHECK(*p >= first);
        CHECK(*p <= last);
        held.push_back(*p);
      }
    } else if (what < 32) {
      if (const auto p = pool.take_pair(now)) {
        CHECK(*p >= first);
        CHECK(*p < last);
        CHECK(pool.claim(static_cast<std::uint16_t>(*p + 1)));
        held.push_back(*p);
        held.push_back(static_cast<std::uint16_t>(*p + 1));
      }
    } else if (!held.empty()) {
      const std::size_t at = random_below(random, static_cast<std::uint32_t>(held.size()));
      pool.release(held[at], now);
      held.erase(held.begin() + static_cast<std::ptrdiff_t>(at));
    }
    now += milliseconds(random_below(random, 2000));
    CHECK(pool.used() == held.size());
    CHECK(pool.free() + pool.used() + pool.reserved() + pool.quarantined() == pool.range());
  }
}

TEST_CASE("an address that goes keeps its allocations, and one that comes back finds its ports as it left them") {
  Tower tower({.relay_addresses = {{"198.18.0.1", "198.18.0.1"}, {"198.18.0.2", "198.18.0.2"}}});
  auto& alice = tower.client("203.0.113.9:5000");  // came in on 198.18.0.1
  REQUIRE(alice.allocates() == 0);
  CHECK(ip_of(alice) == "198.18.0.1");
  REQUIRE(alice.permits("192.0.2.7:9") == 0);

  tower.reload([](TowerOptions& o) { o.relay_addresses = {{"198.18.0.2", "198.18.0.2"}}; });
  CHECK(tower.shared->ports_held(ip("198.18.0.1")) == 1);
  auto& bob = tower.client("203.0.113.9:5001", "bob", "hunter2");
  REQUIRE(bob.allocates() == 0);
  CHECK(ip_of(bob) == "198.18.0.2");
  CHECK(alice.refreshes() == 0);
  alice.sends("192.0.2.7:4000", "if the kernel lets it");
  CHECK(tower.peer_got("192.0.2.7:4000").has_value());
  // It counts as ours as long as somebody has it (P25).
  const auto known = tower.shared->known_addresses();
  CHECK(std::find(known.begin(), known.end(), ip("198.18.0.1")) != known.end());
  CHECK(bob.permits("198.18.0.1:40000") == 403);

  tower.reload([](TowerOptions& o) { o.relay_addresses = {{"198.18.0.1", "198.18.0.1"}, {"198.18.0.2", "198.18.0.2"}}; });
  auto& carol = tower.client("203.0.113.9:5002");
  REQUIRE(carol.allocates() == 0);
  CHECK(ip_of(carol) == "198.18.0.1");
  CHECK(tower.shared->ports_held(ip("198.18.0.1")) == 2);
  CHECK(tower.shared->usage().used == 3);
  REQUIRE(alice.refreshes(0) == 0);
  REQUIRE(bob.refreshes(0) == 0);
  REQUIRE(carol.refreshes(0) == 0);
  CHECK(tower.shared->usage().quarantined == 3);
  check_sums(*tower.shared);
}

TEST_CASE("a family that comes and goes: 440 without it (RFC 8656, 7.2)") {
  Tower tower({.relay_addresses = {{"198.18.0.1", "198.18.0.1"}}});
  const std::array<std::uint8_t, 4> v6{2, 0, 0, 0};
  const auto six = [&](stun::Writer& w) { w.add(Attribute::requested_address_family, Bytes(v6)); };
  CHECK(tower.client("203.0.113.9:5000").allocates(six) == 440);
  tower.reload([](TowerOptions& o) { o.relay_addresses.push_back({"2001:db8:1::1", "2001:db8:1::1"}); });
  auto& alice = tower.client("203.0.113.9:5001");
  CHECK(alice.allocates(six) == 0);
  tower.reload([](TowerOptions& o) { o.relay_addresses.pop_back(); });
  CHECK(tower.client("203.0.113.9:5002").allocates(six) == 440);
  CHECK(alice.refreshes() == 0);
}

TEST_CASE("a reserved port keeps address and external form until it is claimed, or its quota goes back (RFC 8656, 7.2)") {
  Tower tower({.relay_addresses = behind_nat("198.51.100.7")});
  auto& alice = tower.client("203.0.113.9:5000");
  const std::array<std::uint8_t, 1> pair{0x80};
  REQUIRE(alice.allocates([&](stun::Writer& w) { w.add(Attribute::even_port, Bytes(pair)); }) == 0);
  const auto value = *alice.last->message()->find(Attribute::reservation_token);
  const std::vector<std::uint8_t> token(value.begin(), value.end());
  tower.reload([](TowerOptions& o) {
    o.relay_addresses = behind_nat("198.51.100.99");
    o.first_port = o.last_port = 1024;
  });
  SUBCASE("claimed") {
    auto& second = tower.client("203.0.113.9:5001");
    REQUIRE(second.allocates([&](stun::Writer& w) { w.add(Attribute::reservation_token, Bytes(token)); }) == 0);
    CHECK(second.relayed().ip == alice.relayed().ip);
    CHECK(second.relayed().port == alice.relayed().port + 1);
  }
  SUBCASE("not claimed") {
    tower.advance(31s);
    CHECK(tower.shared->usage().reserved == 0);
    CHECK(tower.shared->usage().allocations == 1);
  }
  check_sums(*tower.shared);
}

TEST_CASE("addresses without end: places and forms are used again, and what is held stays what it is") {
  AddressBook book(seeded_random(5));
  const auto v4 = [](std::uint32_t i) { return net::IpAddress::v4(0x0A000000u + i); };
  std::vector<std::pair<std::uint32_t, std::uint16_t>> held;  // place, port
  for (std::uint32_t i = 1; i <= 1000; ++i) {  // a new prefix every day, for three years
    REQUIRE(book.offer({{v4(i), v4(100'000 + i)}}, 40000, 40009).empty());
    REQUIRE(book.offered().size() == 1);
    const auto offered = book.offered().front();
    CHECK(book.local(offered.place) == v4(i));
    CHECK(book.places() <= AddressBook::most_addresses);
    if (i > 30) continue;
    const auto port = *book.pool(offered.place).take_any(Time(1s));
    book.tell(offered.place, port, offered.form);
    book.set_live(offered.place, port, true, net::Transport::udp);
    held.emplace_back(offered.place, port);
  }
  for (std::uint32_t i = 1; i <= 30; ++i) {
    const auto [place, port] = held[i - 1];
    CHECK(book.local(place) == v4(i));
    CHECK(book.told(place, port) == v4(100'000 + i));
    CHECK(book.reach({v4(100'000 + i), port, 0}, net::Transport::udp) == net::TransportAddress{v4(i), port, 0});
    CHECK(book.reach({v4(i), port, 0}, net::Transport::udp) == net::TransportAddress{v4(i), port, 0});
    CHECK(book.reach({v4(100'000 + i), port, 0}, net::Transport::tcp) == std::nullopt);
    CHECK(book.inside({v4(100'000 + i), port, 0}) == net::TransportAddress{v4(i), port, 0});
    CHECK(book.outside({v4(i), port, 0}, net::Transport::udp) == net::TransportAddress{v4(100'000 + i), port, 0});
  }
  CHECK(book.known().size() == 2 * 30 + 2);

  SUBCASE("as many as can be: the rest finds no room, and is named") {
    std::vector<turn::RelayAddress> many;
    for (std::uint32_t i = 0; i < 40; ++i) many.push_back({v4(2000 + i), v4(2000 + i)});
    CHECK(book.offer(many, 40000, 40009).size() == 6);  // 30 are held
    CHECK(book.offered().size() == 34);
  }
}

TEST_CASE("the data path asks while addresses change: what is live is always found, under the form that was told") {
  const auto v4 = [](std::uint32_t i) { return net::IpAddress::v4(0x0A000000u + i); };
  turn::Settings settings;
  settings.first_port = 40000;
  settings.last_port = 40099;
  settings.relay_addresses = {{v4(1), v4(1001)}};
  turn::Shared shared(settings, seeded_random(6), HashKey{1, 2});
  bool over_total = false;
  const auto account = shared.admit("alice", {}, {}, false, {}, 1, over_total);
  const auto port = shared.take_port(net::Family::ipv4, v4(1), turn::Shared::Want::any, account, Time(1s));
  REQUIRE(port);
  shared.set_live(*port, true);
  const auto local = shared.local(*port), told = shared.told(*port);
  std::atomic<bool> over{false};
  std::atomic<int> wrong{0}, asked{0};
  std::vector<std::thread> workers;
  for (int i = 0; i < 2; ++i)
    workers.emplace_back([&] {
      while (!over) {
        const bool good = shared.maps_addresses() && shared.relayed_port_live(told) && shared.relayed_port_live(local) && shared.inside(told) == local &&
                          shared.outside(local) == told;
        wrong += good ? 0 : 1;
        ++asked;
      }
    });
  for (std::uint32_t i = 2; i < 300 || asked < 100; ++i) {
    settings.relay_addresses = {{v4(i % 200), v4(1000 + i)}};
    settings.last_port = static_cast<std::uint16_t>(40050 + i % 50);
    shared.offer(settings);
    const auto other = shared.take_port(net::Family::ipv4, v4(i), turn::Shared::Want::any, account, Time(1s));
    if (!other) continue;
    shared.set_live(*other, true);
    shared.release(*other, Time(1s));
  }
  over = true;
  for (auto& worker : workers) worker.join();
  CHECK(wrong == 0);
}
