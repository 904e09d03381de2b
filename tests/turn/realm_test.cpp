// Several realms: by listener, by ORIGIN, else the default one (RFC 8656, 5; RFC 8489, 9.2; draft-ietf-tram-stun-origin, 3). And what a request is
// asked before it is served: Binding with credentials, listeners for Binding alone, the address family that a client gets.
#include <doctest/doctest.h>

#include "harness.h"

using namespace radiotower;
using namespace radiotower::test;

namespace {

constexpr const char* own_listener = "198.18.0.1:3479";

turn::Realm make_realm(const std::string& name, std::vector<turn::User> users, std::vector<std::string> secrets = {}) {
  turn::Realm realm;
  realm.name = name;
  turn::Directory::Input input;
  input.realm = name;
  input.users = std::move(users);
  input.rest_secrets = std::move(secrets);
  realm.directory = std::make_shared<turn::Directory>(std::move(input));
  return realm;
}

/// The default realm has alice and bob; call.example.org another alice, and carol, by its origin; games.example.org REST users, by its listener.
TowerOptions three_realms() {
  TowerOptions options;
  options.also = [](turn::Settings& settings) {
    auto call = make_realm("call.example.org", {{"alice", "other-secret", {}, {}, {}}, {"carol", "cheese", {}, {}, {}}});
    call.origins = {"https://call.example.org", "https://call.example.net:8443"};
    auto games = make_realm("games.example.org", {}, {"north-of-the-wall"});
    games.listeners = {at(own_listener)};
    games.limits.allocations_per_user = 2;
    games.limits.permissions_per_allocation = 1;
    settings.listeners.push_back(at(own_listener));
    settings.realms = {call, games};
  };
  return options;
}

Client& with_origin(Tower& tower, std::string_view address, std::string origin, std::string user, std::string password) {
  auto& c = tower.client(address, std::move(user), std::move(password));
  c.origin = std::move(origin);
  return c;
}

Client& gamer(Tower& tower, std::string_view address, const std::string& name = "dora") {
  const std::string user = std::to_string(tower.now.unix_time + 3600) + ":" + name;
  auto& c = tower.client(address, user, stun::rest_password("north-of-the-wall", user));
  c.five_tuple.server = at(own_listener);
  return c;
}

}  // namespace

TEST_CASE("stun-origin 3: the realm is that of the first ORIGIN that is known, whatever its letters; without one, the default") {
  Tower tower(three_realms());
  int port = 5000;
  const auto realm_for = [&](std::string origin) {
    auto& c = with_origin(tower, "203.0.113.9:" + std::to_string(port++), std::move(origin), "alice", "secret");
    c.learns_nonce();
    return c.realm;
  };
  CHECK(realm_for("") == "example.org");
  CHECK(realm_for("https://call.example.org") == "call.example.org");
  CHECK(realm_for("HTTPS://Call.Example.ORG") == "call.example.org");
  CHECK(realm_for("https://call.example.net:8443") == "call.example.org");
  CHECK(realm_for("https://call.example.net") == "example.org");
  CHECK(realm_for("https://call.example.org.evil.example") == "example.org");
  CHECK(realm_for(std::string(700, 'x')) == "example.org");

  auto& two = tower.client("203.0.113.9:6000");
  const std::array<std::uint8_t, 4> udp{17, 0, 0, 0};
  two.exchange(two.request(Method::allocate, [&](stun::Writer& w) {
    w.add(Attribute::requested_transport, Bytes(udp));
    w.add(Attribute::origin, std::string_view("https://unknown.example")).add(Attribute::origin, std::string_view("https://call.example.org"));
    w.add(Attribute::origin, std::string_view("https://old.example.org"));
  }, false));
  CHECK(as_text(*two.last->message()->find(Attribute::realm)) == "call.example.org");
  CHECK(tower.largest_answer_ratio_percent <= 300);
}

TEST_CASE("8656 5: a listener with a realm of its own serves that one alone, whatever ORIGIN says") {
  Tower tower(three_realms());
  auto& dora = gamer(tower, "203.0.113.9:5000");
  dora.origin = "https://call.example.org";
  CHECK(dora.allocates() == 0);
  CHECK(dora.realm == "games.example.org");
  auto& alice = tower.client("203.0.113.9:5001");
  alice.five_tuple.server = at(own_listener);
  CHECK(alice.allocates() == 401);
}

TEST_CASE("8489 9.2.4: one name in two realms is two users, and neither's password opens the other's realm") {
  Tower tower(three_realms());
  const std::string call = "https://call.example.org";
  CHECK(with_origin(tower, "203.0.113.9:5000", call, "alice", "other-secret").allocates() == 0);
  CHECK(tower.client("203.0.113.9:5001", "alice", "secret").allocates() == 0);
  CHECK(with_origin(tower, "203.0.113.9:5002", call, "alice", "secret").allocates() == 401);
  CHECK(tower.client("203.0.113.9:5003", "alice", "other-secret").allocates() == 401);
  CHECK(tower.client("203.0.113.9:5004", "carol", "cheese").allocates() == 401);

  // REALM of another realm than the request's is worth nothing, even with the right key for that other one.
  auto& liar = with_origin(tower, "203.0.113.9:5005", call, "carol", "cheese");
  liar.learns_nonce();
  liar.origin.clear();
  CHECK(liar.allocates() == 401);
}

TEST_CASE("8489 9.2.1, 14.11: PASSWORD-ALGORITHMS and the USERHASH bit are those of the realm, and so is the nonce") {
  Tower tower(three_realms());
  auto& carol = with_origin(tower, "203.0.113.9:5000", "https://call.example.org", "carol", "cheese");
  carol.learns_nonce();
  CHECK(carol.nonce.substr(9, 4) == "AAAD");  // both bits
  carol.userhash = true;
  CHECK(carol.allocates() == 0);
  auto& dora = gamer(tower, "203.0.113.9:5001");
  dora.learns_nonce();
  CHECK(dora.nonce.substr(9, 4) == "AAAB");  // REST users cannot be found by a hash
  CHECK(dora.allocates() == 0);

  const std::string key(16, 'k');
  auto options = three_realms();
  options.also = [key, before = options.also](turn::Settings& settings) {
    before(settings);
    turn::User old{"old", "", {}, {}, {}};
    old.key = stun::Key(as_bytes(key));
    settings.realms.push_back(make_realm("old.example.org", {old}));
    settings.realms.back().origins = {"https://old.example.org"};
  };
  Tower mixed(options);
  auto& old = with_origin(mixed, "203.0.113.9:5000", "https://old.example.org", "old", "");
  old.learns_nonce();
  CHECK(old.algorithms == std::vector<std::uint8_t>{0, 1, 0, 0});  // somebody there has an MD5 key alone
  auto& alice = mixed.client("203.0.113.9:5001");
  alice.learns_nonce();
  CHECK(alice.algorithms == std::vector<std::uint8_t>{0, 2, 0, 0, 0, 1, 0, 0});
  alice.sha256 = true;
  CHECK(alice.allocates() == 0);

  // A nonce of one realm is stale in one with other features, and the fresh one is that realm's.
  auto& wanders = gamer(tower, "203.0.113.9:5002", "emil");
  wanders.learns_nonce();
  wanders.nonce = carol.nonce;
  CHECK(wanders.allocates() == 438);
  CHECK(wanders.allocates() == 0);
}

TEST_CASE("8656 5: an allocation keeps its realm: later requests are of it without ORIGIN and with any other") {
  Tower tower(three_realms());
  auto& carol = with_origin(tower, "203.0.113.9:5000", "https://call.example.org", "carol", "cheese");
  REQUIRE(carol.allocates() == 0);
  carol.origin.clear();
  CHECK(carol.refreshes() == 0);
  CHECK(carol.permits("192.0.2.7:9") == 0);
  carol.origin = "https://unknown.example";
  CHECK(carol.binds(0x4000, "192.0.2.7:9") == 0);
  carol.origin = "https://call.example.org";
  CHECK(carol.refreshes(0) == 0);
}

TEST_CASE("8656 5: a user of another realm on a 5-tuple in use: 437 for Allocate, in his own realm; all else is judged by the allocation's realm") {
  Tower tower(three_realms());
  auto& carol = with_origin(tower, "203.0.113.9:5000", "https://call.example.org", "carol", "cheese");
  REQUIRE(carol.allocates() == 0);

  auto& alice = tower.client("203.0.113.9:5000");  // the default realm's, and no ORIGIN
  alice.learns_nonce();
  CHECK(alice.realm == "example.org");
  CHECK(alice.allocates() == 437);
  CHECK(alice.refreshes(0) == 401);
  CHECK(as_text(*alice.last->message()->find(Attribute::realm)) == "call.example.org");
  CHECK(alice.permits("192.0.2.7:9") == 401);

  // The same name in another realm is another user, also for a retransmission's sake.
  auto& first = tower.client("203.0.113.9:5001");
  first.fixed_transaction_id = stun::TransactionId{1, 2, 3};
  REQUIRE(first.allocates() == 0);
  auto& same_name = with_origin(tower, "203.0.113.9:5001", "https://call.example.org", "alice", "other-secret");
  same_name.fixed_transaction_id = first.fixed_transaction_id;
  CHECK(same_name.allocates() == 437);

  // And within the realm: 441 as ever.
  auto& other = with_origin(tower, "203.0.113.9:5000", "https://call.example.org", "alice", "other-secret");
  CHECK(other.refreshes() == 441);
}

TEST_CASE("8656 7.2 (10): quotas are counted realm by realm, with each realm's limits [L22]") {
  auto options = three_realms();
  options.secrets = {"north-of-the-wall"};  // the same secret and names in the default realm
  options.limits.allocations_per_user = 1;
  Tower tower(options);
  CHECK(gamer(tower, "203.0.113.9:5000").allocates() == 0);
  CHECK(gamer(tower, "203.0.113.9:5001").allocates() == 0);
  CHECK(tower.events.back().realm == "games.example.org");
  CHECK(gamer(tower, "203.0.113.9:5002").allocates() == 486);
  CHECK(tower.events.back().kind == turn::Event::Kind::quota_reached);
  CHECK(tower.events.back().realm == "games.example.org");
  CHECK(gamer(tower, "203.0.113.9:5003", "emil").allocates() == 0);
  for (const int expected : {0, 486}) {
    auto& c = gamer(tower, "203.0.113.9:51" + std::to_string(10 + expected % 7));
    c.five_tuple.server = at("198.18.0.1:3478");
    CHECK(c.allocates() == expected);
  }
  auto& dora = gamer(tower, "203.0.113.9:5004", "fritz");
  REQUIRE(dora.allocates() == 0);
  CHECK(dora.permits("192.0.2.1:9") == 0);
  CHECK(dora.permits("192.0.2.2:9") == 508);
}

TEST_CASE("8656 7.2 (10): a realm may have a total of its own; that of the relay counts them all [L22]") {
  auto options = three_realms();
  options.also = [before = options.also](turn::Settings& settings) {
    before(settings);
    settings.realms[0].limits.allocations = 2;
    settings.limits.allocations = 3;
  };
  Tower tower(options);
  const auto carol = [&](const char* address) -> Client& { return with_origin(tower, address, "https://call.example.org", "carol", "cheese"); };
  auto& first = carol("203.0.113.9:5000");
  CHECK(first.allocates() == 0);
  CHECK(carol("203.0.113.9:5001").allocates() == 0);
  CHECK(carol("203.0.113.9:5002").allocates() == 508);
  CHECK(tower.client("203.0.113.9:5003").allocates() == 0);
  CHECK(tower.client("203.0.113.9:5004").allocates() == 508);
  CHECK(first.refreshes(0) == 0);
  CHECK(carol("203.0.113.9:5005").allocates() == 0);
}

TEST_CASE("a reload that takes a realm away leaves its allocations alone, and nobody else gets in; it comes back the same") {
  Tower tower(three_realms());
  auto& carol = with_origin(tower, "203.0.113.9:5000", "https://call.example.org", "carol", "cheese");
  auto& dora = gamer(tower, "203.0.113.9:5001");
  REQUIRE(carol.allocates() == 0);
  REQUIRE(dora.allocates() == 0);
  const auto also = tower.options.also;
  tower.reload([&](TowerOptions& o) { o.also = {}; });
  CHECK(carol.refreshes() == 0);
  CHECK(dora.permits("192.0.2.7:9") == 0);
  CHECK(with_origin(tower, "203.0.113.9:5002", "https://call.example.org", "carol", "cheese").allocates() == 401);
  auto& other = with_origin(tower, "203.0.113.9:5000", "https://call.example.org", "alice", "other-secret");
  CHECK(other.refreshes() == 401);  // a user of the realm that is gone
  tower.reload([](TowerOptions&) {});  // twice
  CHECK(carol.refreshes() == 0);
  tower.reload([&](TowerOptions& o) { o.also = also; });
  CHECK(carol.refreshes(0) == 0);
  CHECK(carol.allocates() == 0);
  CHECK(dora.refreshes(0) == 0);
  CHECK(tower.shared->usage().accounts == 1);
}

TEST_CASE("8489 9.2.4: a reload that renames the default realm: allocations of the old one go on with their key, new clients are asked for the new one") {
  Tower tower;
  auto& alice = tower.client("203.0.113.9:5000");
  REQUIRE(alice.allocates() == 0);
  const std::string before = alice.realm;
  tower.reload([](TowerOptions& o) { o.realm = "renamed.example"; });
  CHECK(alice.refreshes() == 0);
  CHECK(alice.permits("192.0.2.7:9") == 0);
  CHECK(alice.realm == before);
  auto& late = tower.client("203.0.113.9:5001");
  REQUIRE(late.allocates() == 0);
  CHECK(late.realm == "renamed.example");
  tower.reload([&](TowerOptions& o) { o.realm = before; });  // and back again
  CHECK(alice.refreshes() == 0);
  CHECK(late.refreshes(0) == 0);
  CHECK(alice.refreshes(0) == 0);
  CHECK(alice.allocates() == 0);
  CHECK(tower.shared->usage().accounts == 1);
}

TEST_CASE("8489 9.2, secure STUN: with authenticated_binding, Binding requests need credentials and get protected answers; indications do not") {
  TowerOptions options;
  options.also = [](turn::Settings& settings) { settings.authenticated_binding = true; };
  Tower tower(options);
  auto& c = tower.client("203.0.113.9:5000");
  const auto challenged = c.exchange(c.request(Method::binding, {}, false));
  REQUIRE(challenged);
  CHECK(challenged->error() == 401);
  CHECK_FALSE(challenged->message()->has_integrity());
  CHECK(c.asks(Method::binding) == 0);
  const auto m = c.last->message();
  CHECK(m->has_integrity());
  CHECK(stun::read_xor_address(*m->find(Attribute::xor_mapped_address), m->transaction_id())->address == c.five_tuple.client);
  c.sha256 = true;
  CHECK(c.asks(Method::binding) == 0);
  CHECK(c.last->message()->has_integrity_sha256());
  CHECK(c.asks(Method::binding, [](stun::Writer& w) { w.add(static_cast<Attribute>(0x7777), std::string_view("?")); }) == 420);
  auto& wrong = tower.client("203.0.113.9:5001", "alice", "wrong");
  CHECK(wrong.asks(Method::binding) == 401);
  std::array<std::uint8_t, 20> space{};
  stun::Writer keep_alive(space, Class::indication, Method::binding, stun::TransactionId{});
  const auto bytes = keep_alive.bytes();
  CHECK_FALSE(c.exchange({bytes.begin(), bytes.end()}));
  CHECK(tower.largest_answer_ratio_percent <= 300);
  CHECK(c.allocates() == 0);
}

TEST_CASE("a listener for Binding alone answers nothing else, not even a 401, and keeps nothing [M02]") {
  TowerOptions options;
  options.also = [](turn::Settings& settings) { settings.stun_only = {at(own_listener)}; };
  Tower tower(options);
  auto& c = tower.client("203.0.113.9:5000");
  c.five_tuple.server = at(own_listener);
  const std::array<std::uint8_t, 4> udp{17, 0, 0, 0};
  const auto transport = [&](stun::Writer& w) { w.add(Attribute::requested_transport, Bytes(udp)); };
  for (const auto method : {Method::allocate, Method::refresh, Method::create_permission, Method::channel_bind})
    CHECK_FALSE(c.exchange(c.request(method, transport, false)));
  CHECK(c.exchange(c.request(Method::binding, {}, false))->error() == 0);
  c.sends("192.0.2.7:9", "nobody's");
  c.sends_channel(0x4000, "nobody's");
  CHECK(tower.peers_quiet());
  CHECK(tower.client("203.0.113.9:5000").allocates() == 0);  // the other listener serves all
}

TEST_CASE("8656 7.2 (7): without REQUESTED-ADDRESS-FAMILY an IPv6 client gets IPv4; with keep_address_family, IPv6") {
  TowerOptions options;
  Tower by_the_book(options);
  auto& book = by_the_book.client("[2001:db8::1]:5000");
  REQUIRE(book.allocates() == 0);
  CHECK(book.relayed().ip.is_v4());

  options.also = [](turn::Settings& settings) { settings.keep_address_family = true; };
  Tower tower(options);
  auto& v6 = tower.client("[2001:db8::1]:5000");
  REQUIRE(v6.allocates() == 0);
  CHECK_FALSE(v6.relayed().ip.is_v4());
  auto& v4 = tower.client("203.0.113.9:5000");
  REQUIRE(v4.allocates() == 0);
  CHECK(v4.relayed().ip.is_v4());
  const auto wants = [](std::uint8_t family) { return [family](stun::Writer& w) { w.add_u32(Attribute::requested_address_family, std::uint32_t{family} << 24); }; };
  auto& asks = tower.client("[2001:db8::1]:5001");
  REQUIRE(asks.allocates(wants(1)) == 0);
  CHECK(asks.relayed().ip.is_v4());
  auto& both = tower.client("[2001:db8::1]:5002");
  REQUIRE(both.allocates([](stun::Writer& w) { w.add_u32(Attribute::additional_address_family, 0x02000000); }) == 0);
  CHECK(both.relayed().ip.is_v4());
  CHECK_FALSE(both.relayed6().ip.is_v4());

  options.relay_addresses = {{"198.18.0.1", "198.18.0.1"}};
  Tower only_v4(options);
  auto& served = only_v4.client("[2001:db8::1]:5000");
  REQUIRE(served.allocates() == 0);  // rather than 440
  CHECK(served.relayed().ip.is_v4());
}

TEST_CASE("8656 7.2 (7): an IPv4 client with an IPv6 peer, and the reverse, by REQUESTED-ADDRESS-FAMILY") {
  Tower tower;
  const struct {
    const char *client, *peer;
    std::uint8_t family;
  } cases[] = {{"203.0.113.9:5000", "[2001:db8::7]:4000", 2}, {"[2001:db8::9]:5000", "192.0.2.7:4000", 1}};
  for (const auto& x : cases) {
    CAPTURE(x.client);
    auto& c = tower.client(x.client);
    REQUIRE(c.allocates([&](stun::Writer& w) { w.add_u32(Attribute::requested_address_family, std::uint32_t{x.family} << 24); }) == 0);
    CHECK(c.relayed().ip.is_v4() == (x.family == 1));
    CHECK(c.binds(0x4000, x.peer) == 0);
    c.sends_channel(0x4000, "there");
    CHECK(tower.peer_got(x.peer) == "there");
    tower.peer_sends(x.peer, c, "and back");
    CHECK(c.take()->payload() == "and back");
    c.sends(x.peer, "by Send");
    CHECK(tower.peer_got(x.peer) == "by Send");
  }
}
