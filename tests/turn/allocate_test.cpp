// Allocate (RFC 8656, 7.2), rows L of the hostile inputs.
#include <doctest/doctest.h>

#include <set>

#include "harness.h"

using namespace radiotower;
using namespace radiotower::test;

namespace {

using Four = std::array<std::uint8_t, 4>;
Client::More with(Attribute type, std::vector<std::uint8_t> value) {
  return [type, value](stun::Writer& w) { w.add(type, Bytes(value)); };
}
Client::More both(Client::More a, Client::More b) {
  return [a, b](stun::Writer& w) { a(w); b(w); };
}
const auto even = with(Attribute::even_port, {0x00});
const auto even_and_next = with(Attribute::even_port, {0x80});
const auto family_v6 = with(Attribute::requested_address_family, {2, 0, 0, 0});
const auto also_v6 = with(Attribute::additional_address_family, {2, 0, 0, 0});
std::uint32_t lifetime_of(const Packet& p) {
  const auto m = p.message();
  return *stun::read_u32(*m->find(Attribute::lifetime));
}

}  // namespace

TEST_CASE("Allocate: a client gets a relayed address of the range, and it is bound before the answer") {
  Tower tower;
  auto& alice = tower.client("203.0.113.9:5000");
  REQUIRE(alice.allocates() == 0);
  CHECK(alice.relayed().ip.text() == "198.18.0.1");
  CHECK(alice.relayed().port >= 32768);
  CHECK(lifetime_of(*alice.last) == 600);
  REQUIRE(tower.open.size() == 1);
  CHECK(tower.open.begin()->second.first == alice.relayed());
  CHECK(tower.counters().allocations_made == 1);
}

TEST_CASE("L01 L02 A18: REQUESTED-TRANSPORT is required, four bytes, and UDP (RFC 8656, 7.2, step 3)") {
  Tower tower;
  auto& alice = tower.client("203.0.113.9:5000");
  CHECK(alice.asks(Method::allocate) == 400);
  for (const std::size_t size : {0, 1, 3, 5, 8})
    CHECK(alice.asks(Method::allocate, with(Attribute::requested_transport, std::vector<std::uint8_t>(size, 17))) == 400);
  for (const int protocol : {6, 0, 1, 132, 255})
    CHECK(alice.asks(Method::allocate, with(Attribute::requested_transport, {static_cast<std::uint8_t>(protocol), 0, 0, 0})) == 442);
}

TEST_CASE("L03 A36: reserved bytes of REQUESTED-TRANSPORT are ignored, the first of two decides") {
  Tower tower;
  CHECK(tower.client("203.0.113.9:5000").asks(Method::allocate, with(Attribute::requested_transport, {17, 1, 2, 3})) == 0);
  CHECK(tower.client("203.0.113.9:5001").asks(Method::allocate, both(with(Attribute::requested_transport, {17, 0, 0, 0}),
                                                                  with(Attribute::requested_transport, {6, 0, 0, 0}))) == 0);
  CHECK(tower.client("203.0.113.9:5002").asks(Method::allocate, both(with(Attribute::requested_transport, {6, 0, 0, 0}),
                                                                  with(Attribute::requested_transport, {17, 0, 0, 0}))) == 442);
}

TEST_CASE("L04 T3: a second Allocate on one 5-tuple is a 437, protected") {
  Tower tower;
  auto& alice = tower.client("203.0.113.9:5000");
  REQUIRE(alice.allocates() == 0);
  CHECK(alice.allocates() == 437);
  CHECK(alice.last->message()->has_integrity());
  CHECK(tower.open.size() == 1);
}

TEST_CASE("L05 L06 S4: a retransmitted Allocate gets the same bytes, 50 times and 39 seconds later, and no second port") {
  Tower tower;
  auto& alice = tower.client("203.0.113.9:5000");
  alice.learns_nonce();
  const auto bytes = alice.request(Method::allocate, with(Attribute::requested_transport, {17, 0, 0, 0}));
  const auto first = alice.exchange(bytes);
  REQUIRE(first);
  CHECK(first->error() == 0);
  for (int i = 0; i < 50; ++i) {
    const auto again = alice.exchange(bytes);
    REQUIRE(again);
    CHECK(again->bytes == first->bytes);
  }
  tower.advance(39s);
  CHECK(alice.exchange(bytes)->bytes == first->bytes);
  CHECK(tower.open.size() == 1);
}

TEST_CASE("L05: a retransmission that carries a reservation token carries the same one") {
  Tower tower;
  auto& alice = tower.client("203.0.113.9:5000");
  alice.learns_nonce();
  const auto bytes = alice.request(Method::allocate, both(with(Attribute::requested_transport, {17, 0, 0, 0}), even_and_next));
  CHECK(alice.exchange(bytes)->bytes == alice.exchange(bytes)->bytes);
}

TEST_CASE("L07: DONT-FRAGMENT is a 420 that names it when DF cannot be set, and fine when it can") {
  Tower without({.dont_fragment = false});
  auto& alice = without.client("203.0.113.9:5000");
  CHECK(alice.allocates(with(Attribute::dont_fragment, {})) == 420);
  const auto m = alice.last->message();
  const auto unknown = m->find(Attribute::unknown_attributes);
  REQUIRE(unknown);
  REQUIRE(unknown->size() >= 2);
  CHECK(load_be16(unknown->data()) == 0x001A);
  Tower with_df;
  CHECK(with_df.client("203.0.113.9:5000").allocates(with(Attribute::dont_fragment, {})) == 0);
}

TEST_CASE("L08: EVEN-PORT gives an even port and leaves its sibling free") {
  Tower tower({.first_port = 40000, .last_port = 40003});
  for (int i = 0; i < 200; ++i) {
    auto& c = tower.client("203.0.113.9:" + std::to_string(1000 + i));
    REQUIRE(c.allocates(even) == 0);
    CHECK(c.relayed().port % 2 == 0);
    CHECK(tower.shared->usage().reserved == 0);
    CHECK(c.refreshes(0) == 0);
    tower.advance(31s);
  }
}

TEST_CASE("L09 T5: EVEN-PORT with R holds the next port for 30 seconds, and the token claims it from another 5-tuple") {
  Tower tower;
  auto& rtp = tower.client("203.0.113.9:5000");
  REQUIRE(rtp.allocates(even_and_next) == 0);
  CHECK(rtp.relayed().port % 2 == 0);
  const auto m = rtp.last->message();
  const auto value = m->find(Attribute::reservation_token);
  REQUIRE(value);
  REQUIRE(value->size() == 8);
  const std::vector<std::uint8_t> token(value->begin(), value->end());
  CHECK(tower.shared->usage().reserved == 1);
  tower.advance(29s);
  auto& rtcp = tower.client("203.0.113.9:5001");
  REQUIRE(rtcp.allocates(with(Attribute::reservation_token, token)) == 0);
  CHECK(rtcp.relayed().port == rtp.relayed().port + 1);
  CHECK(tower.shared->usage().reserved == 0);
  CHECK(tower.client("203.0.113.9:5002").allocates(with(Attribute::reservation_token, token)) == 508);  // L12: used
}

TEST_CASE("L09 L12 X06: a reservation that nobody claims is freed after 30 seconds") {
  Tower tower;
  auto& rtp = tower.client("203.0.113.9:5000");
  REQUIRE(rtp.allocates(even_and_next) == 0);
  const auto m = rtp.last->message();
  const auto value = *m->find(Attribute::reservation_token);
  const std::vector<std::uint8_t> token(value.begin(), value.end());
  tower.advance(31s);
  CHECK(tower.shared->usage().reserved == 0);
  CHECK(tower.client("203.0.113.9:5001").allocates(with(Attribute::reservation_token, token)) == 508);
  CHECK(tower.client("203.0.113.9:5002").allocates(with(Attribute::reservation_token, {1, 2, 3, 4, 5, 6, 7, 8})) == 508);
}

TEST_CASE("L13: a token of another user is a 508") {
  Tower tower;
  auto& alice = tower.client("203.0.113.9:5000");
  REQUIRE(alice.allocates(even_and_next) == 0);
  const auto m = alice.last->message();
  const auto value = *m->find(Attribute::reservation_token);
  const std::vector<std::uint8_t> token(value.begin(), value.end());
  CHECK(tower.client("203.0.113.9:5001", "bob", "hunter2").allocates(with(Attribute::reservation_token, token)) == 508);
}

TEST_CASE("L10: EVEN-PORT with R and no free pair is a 508, and nothing is left behind") {
  Tower tower({.first_port = 40001, .last_port = 40002});
  auto& alice = tower.client("203.0.113.9:5000");
  CHECK(alice.allocates(even_and_next) == 508);
  const auto usage = tower.shared->usage();
  CHECK(usage.free == usage.range);
  CHECK(usage.allocations == 0);
}

TEST_CASE("A21-A25 L11 L14-L17: forms and combinations (RFC 8656, 7.2, steps 4 to 9)") {
  struct Case {
    const char* what;
    Client::More more;
    int code;
  };
  const auto token = with(Attribute::reservation_token, {1, 2, 3, 4, 5, 6, 7, 8});
  const Case cases[] = {
      {"A21 EVEN-PORT empty", with(Attribute::even_port, {}), 400},
      {"A21 EVEN-PORT of 2", with(Attribute::even_port, {0, 0}), 400},
      {"A21 EVEN-PORT of 4", with(Attribute::even_port, {0, 0, 0, 0}), 400},
      {"A22 EVEN-PORT, reserved bits set", with(Attribute::even_port, {0x7F}), 0},
      {"A23 token of 7", with(Attribute::reservation_token, {1, 2, 3, 4, 5, 6, 7}), 400},
      {"A23 token of 9", with(Attribute::reservation_token, {1, 2, 3, 4, 5, 6, 7, 8, 9}), 400},
      {"A24 DONT-FRAGMENT with a value", with(Attribute::dont_fragment, {0}), 400},
      {"A25 family of 3", with(Attribute::requested_address_family, {1, 0, 0}), 400},
      {"A25 family, reserved bits set", with(Attribute::requested_address_family, {1, 9, 9, 9}), 0},
      {"L11 token and EVEN-PORT", both(token, even), 400},
      {"L11 token and family", both(token, family_v6), 400},
      {"L11 token and additional family", both(token, also_v6), 400},
      {"L14 EVEN-PORT R and additional family", both(even_and_next, also_v6), 400},
      {"L15 both families", both(family_v6, also_v6), 400},
      {"L16 additional family 0x01", with(Attribute::additional_address_family, {1, 0, 0, 0}), 400},
      {"L16 additional family 0x00", with(Attribute::additional_address_family, {0, 0, 0, 0}), 400},
      {"L16 additional family 0x03", with(Attribute::additional_address_family, {3, 0, 0, 0}), 400},
      {"L17 family 0x00", with(Attribute::requested_address_family, {0, 0, 0, 0}), 440},
      {"L17 family 0x03", with(Attribute::requested_address_family, {3, 0, 0, 0}), 440},
      {"L17 family 0xFF", with(Attribute::requested_address_family, {255, 0, 0, 0}), 440},
      {"A17 LIFETIME empty", with(Attribute::lifetime, {}), 400},
      {"A17 LIFETIME of 3", with(Attribute::lifetime, {0, 0, 1}), 400},
      {"A17 LIFETIME of 5", with(Attribute::lifetime, {0, 0, 1, 0, 0}), 400},
      {"A17 LIFETIME of 8", with(Attribute::lifetime, {0, 0, 1, 0, 0, 0, 0, 0}), 400},
      {"L33 MOBILITY-TICKET while mobility is off", with(static_cast<Attribute>(0x8030), {}), 405},
      {"A31 unknown optional", with(static_cast<Attribute>(0xC0DE), {1, 2, 3}), 0},
      {"A41 SOFTWARE of 800 bytes", with(Attribute::software, std::vector<std::uint8_t>(800, 0xFF)), 0},
  };
  Tower tower;
  int port = 5000;
  for (const auto& c : cases) {
    CAPTURE(c.what);
    CHECK(tower.client("203.0.113.9:" + std::to_string(port++)).allocates(c.more) == c.code);
  }
}

TEST_CASE("L17 L18: a family the relay does not have is a 440") {
  Tower only_v4({.relay_addresses = {{"198.18.0.1", "198.18.0.1"}}});
  CHECK(only_v4.client("203.0.113.9:5000").allocates(family_v6) == 440);
  Tower only_v6({.relay_addresses = {{"2001:db8:1::1", "2001:db8:1::1"}}});
  CHECK(only_v6.client("203.0.113.9:5000").allocates() == 440);
  auto& c = only_v6.client("203.0.113.9:5001");
  CHECK(c.allocates(family_v6) == 0);
  CHECK(c.relayed().ip.text() == "2001:db8:1::1");
}

TEST_CASE("L19: a dual allocation, and half of one with ADDRESS-ERROR-CODE") {
  Tower tower;
  auto& alice = tower.client("203.0.113.9:5000");
  REQUIRE(alice.allocates(also_v6) == 0);
  CHECK(alice.relayed().ip.is_v4());
  CHECK_FALSE(alice.relayed6().ip.is_v4());
  CHECK(tower.open.size() == 2);
  CHECK_FALSE(alice.last->message()->has(Attribute::address_error_code));

  Tower only_v4({.relay_addresses = {{"198.18.0.1", "198.18.0.1"}}});
  auto& bob = only_v4.client("203.0.113.9:5000");
  REQUIRE(bob.allocates(also_v6) == 0);
  const auto m = bob.last->message();
  const auto error = m->find(Attribute::address_error_code);
  REQUIRE(error);
  CHECK((*error)[0] == 2);  // of IPv6
  CHECK((*error)[2] * 100 + (*error)[3] == 440);
}

TEST_CASE("L20 L21 T6: lifetimes are at least 600 and at most 3600 seconds") {
  const std::pair<std::uint32_t, std::uint32_t> cases[] = {{0, 600}, {1, 600}, {600, 600}, {601, 601}, {3600, 3600}, {3601, 3600}, {0x7FFFFFFF, 3600}, {0xFFFFFFFF, 3600}};
  Tower tower;
  int port = 5000;
  for (const auto& [asked, given] : cases) {
    auto& c = tower.client("203.0.113.9:" + std::to_string(port++));
    REQUIRE(c.allocates([asked = asked](stun::Writer& w) { w.add_u32(Attribute::lifetime, asked); }) == 0);
    CHECK(lifetime_of(*c.last) == given);
  }
}

TEST_CASE("L22 L23 X05: the quota is the user's, however the REST name is dressed; other users still get ports") {
  TowerOptions options;
  options.secrets = {"north"};
  options.limits.allocations_per_user = 3;
  Tower tower(options);
  const auto rest = [&](int port, const std::string& user, int expiry) -> Client& {
    const std::string name = std::to_string(tower.now.unix_time + expiry) + ":" + user;
    return tower.client("203.0.113.9:" + std::to_string(port), name, stun::rest_password("north", name));
  };
  for (int i = 0; i < 3; ++i) CHECK(rest(5000 + i, "bob", 1000 + i).allocates() == 0);
  CHECK(rest(5003, "bob", 2000).allocates() == 486);
  CHECK(rest(5004, "carol", 2000).allocates() == 0);
  for (int i = 0; i < 30; ++i) CHECK(tower.client("203.0.113.9:" + std::to_string(6000 + i)).allocates() == 0);  // users file: no limit
}

TEST_CASE("L24 X06: dual allocations and unclaimed reservations count") {
  TowerOptions options;
  options.users = {{"alice", "secret", {}, 2, {}}};
  Tower tower(options);
  auto& first = tower.client("203.0.113.9:5000");
  REQUIRE(first.allocates(also_v6) == 0);
  CHECK(tower.client("203.0.113.9:5001").allocates() == 486);
  CHECK(first.refreshes(0) == 0);
  auto& second = tower.client("203.0.113.9:5002");
  REQUIRE(second.allocates(even_and_next) == 0);
  CHECK(tower.client("203.0.113.9:5003").allocates() == 486);
  CHECK(second.refreshes(0) == 0);
  CHECK(tower.client("203.0.113.9:5004").allocates() == 0);
  CHECK(tower.client("203.0.113.9:5005").allocates() == 486);  // the reservation still counts
  tower.advance(31s);
  CHECK(tower.client("203.0.113.9:5006").allocates() == 0);
}

TEST_CASE("L25: no port left is a 508") {
  Tower tower({.first_port = 40000, .last_port = 40001});
  CHECK(tower.client("203.0.113.9:5000").allocates() == 0);
  CHECK(tower.client("203.0.113.9:5001").allocates() == 0);
  CHECK(tower.client("203.0.113.9:5002").allocates() == 508);
}

TEST_CASE("a full relay says 508 when limits.allocations is reached") {
  TowerOptions options;
  options.limits.allocations = 1;
  Tower tower(options);
  CHECK(tower.client("203.0.113.9:5000").allocates() == 0);
  CHECK(tower.client("203.0.113.9:5001").allocates() == 508);
}

TEST_CASE("L26: Teredo and 6to4 clients are refused (RFC 8656, 21.4)") {
  Tower tower;
  CHECK(tower.client("[2001:0:1::1]:5000").allocates() == 403);
  CHECK(tower.client("[2002:c000:201::1]:5000").allocates() == 403);
  CHECK(tower.client("[2001:db8::1]:5000").allocates() == 0);
}

TEST_CASE("L27: a client on the deny list is refused") {
  TowerOptions options;
  options.denied_clients = {"203.0.113.0/24"};
  Tower tower(options);
  CHECK(tower.client("203.0.113.9:5000").allocates() == 403);
  CHECK(tower.client("203.0.112.9:5000").allocates() == 0);
}

TEST_CASE("L28: a draining relay says 300 with an alternate server, 508 without") {
  TowerOptions options;
  options.draining = true;
  Tower tower(options);
  CHECK(tower.client("203.0.113.9:5000").allocates() == 508);
  options.alternate_server = "198.18.0.2:3478";
  Tower other(options);
  auto& c = other.client("203.0.113.9:5000");
  CHECK(c.allocates() == 300);
  const auto m = c.last->message();
  CHECK(m->has_integrity());  // S17: a redirect MUST be protected
  const auto alternate = stun::read_address(*m->find(Attribute::alternate_server));
  REQUIRE(alternate);
  CHECK(alternate->address == at("198.18.0.2:3478"));
  CHECK(other.client("[2001:db8::1]:5000").allocates() == 508);  // never across families
}

TEST_CASE("L29: ports come from the range and not in order") {
  Tower tower({.first_port = 40000, .last_port = 49999});
  std::set<std::uint16_t> seen;
  int ascending = 0, last = 0;
  for (int i = 0; i < 1000; ++i) {
    auto& c = tower.client("203.0.113." + std::to_string(1 + i / 200) + ":" + std::to_string(1000 + i));
    REQUIRE(c.allocates() == 0);
    const int port = c.relayed().port;
    CHECK(port >= 40000);
    CHECK(port <= 49999);
    seen.insert(static_cast<std::uint16_t>(port));
    ascending += port > last ? 1 : 0;
    last = port;
  }
  CHECK(seen.size() == 1000);
  CHECK(ascending > 400);
  CHECK(ascending < 600);
}

TEST_CASE("L31: a freed port is not given out for 30 seconds, unless the pool is dry") {
  Tower tower({.first_port = 40000, .last_port = 40001});
  auto& first = tower.client("203.0.113.9:5000");
  REQUIRE(first.allocates() == 0);
  const auto freed = first.relayed().port;
  CHECK(first.refreshes(0) == 0);
  auto& second = tower.client("203.0.113.9:5001");
  REQUIRE(second.allocates() == 0);
  CHECK(second.relayed().port != freed);
  auto& third = tower.client("203.0.113.9:5002");  // dry: better an early port than none
  REQUIRE(third.allocates() == 0);
  CHECK(third.relayed().port == freed);
}

TEST_CASE("ports that other programs hold are skipped; when descriptors run out the answer is 508 and nothing leaks") {
  Tower tower({.first_port = 40000, .last_port = 40019});
  for (std::uint16_t p = 40000; p < 40010; ++p) tower.taken_ports.insert(p);
  for (int i = 0; i < 8; ++i) {
    auto& c = tower.client("203.0.113.9:" + std::to_string(5000 + i));
    CHECK(c.allocates() == 0);
    CHECK(c.relayed().port >= 40010);
  }
  tower.out_of_descriptors = true;
  auto& c = tower.client("203.0.113.9:6000");
  CHECK(c.allocates() == 508);
  CHECK(c.last->message()->has_integrity());
  CHECK(tower.shared->usage().used == 8);
  CHECK(tower.shared->usage().allocations == 8);
  tower.out_of_descriptors = false;
  CHECK(tower.client("203.0.113.9:6001").allocates() == 0);
}

TEST_CASE("the external address is what clients are told (NAT)") {
  Tower tower({.relay_addresses = {{"198.18.0.1", "198.51.100.7"}}});
  auto& alice = tower.client("203.0.113.9:5000");
  REQUIRE(alice.allocates() == 0);
  CHECK(alice.relayed().ip.text() == "198.51.100.7");
  CHECK(tower.open.begin()->second.first.ip.text() == "198.18.0.1");
}
