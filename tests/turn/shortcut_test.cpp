// Shortcuts: which channels may pass by the core, until when, and that their packets are counted all the same.
#include <doctest/doctest.h>

#include <algorithm>
#include <utility>

#include "harness.h"

using namespace radiotower;
using namespace radiotower::test;

namespace {

/// What passes by, in a map; and all that was ever said, in words.
class FakeShortcuts final : public turn::Shortcuts {
 public:
  struct Held {
    turn::Shortcut shortcut;
    Time until;
    turn::ShortcutCounts counts;
  };

  turn::ShortcutId give(const turn::Shortcut& shortcut, Time until) override {
    said.push_back("give " + shortcut.peer.text());
    if (full) return turn::no_shortcut;
    held[++last_id] = {shortcut, until, {}};
    return last_id;
  }
  void move(turn::ShortcutId id, Time until) override {
    said.push_back("move " + held.at(id).shortcut.peer.text());
    CHECK(held.at(id).until != until);
    held.at(id).until = until;
  }
  turn::ShortcutCounts counts(turn::ShortcutId id) override { return held.at(id).counts; }
  turn::ShortcutCounts take_back(turn::ShortcutId id) override {
    const auto found = held.find(id);
    REQUIRE(found != held.end());  // once, and only what was given
    said.push_back("take back " + found->second.shortcut.peer.text());
    const auto counts = found->second.counts;
    held.erase(found);
    return counts;
  }

  /// The one shortcut to that peer.
  Held& to(std::string_view peer) {
    const auto is_to = [&](const auto& h) { return h.second.shortcut.peer == at(peer); };
    const auto found = std::find_if(held.begin(), held.end(), is_to);
    REQUIRE(found != held.end());
    return found->second;
  }
  bool has(std::string_view peer) const {
    return std::any_of(held.begin(), held.end(), [&](const auto& h) { return h.second.shortcut.peer == at(peer); });
  }
  /// What was said since the last time.
  std::vector<std::string> heard() { return std::exchange(said, {}); }

  std::map<turn::ShortcutId, Held> held;
  std::vector<std::string> said;
  turn::ShortcutId last_id = 0;
  bool full = false;
};

class FakeBuckets final : public BucketSource {
 public:
  explicit FakeBuckets(std::size_t count) : left_(count) {}
  ~FakeBuckets() { CHECK(buckets_.empty()); }
  Bucket* take() override {
    if (left_ == 0) return nullptr;
    --left_;
    buckets_.push_back(std::make_unique<Bucket>());
    return buckets_.back().get();
  }
  void give_back(Bucket* bucket) override {
    const auto found = std::find_if(buckets_.begin(), buckets_.end(), [&](const auto& b) { return b.get() == bucket; });
    REQUIRE(found != buckets_.end());
    buckets_.erase(found);
    ++left_;
  }
  std::size_t left() const { return left_; }

 private:
  std::vector<std::unique_ptr<Bucket>> buckets_;
  std::size_t left_;
};

using Words = std::vector<std::string>;

/// Alice with an allocation, and shortcuts switched on.
struct Call {
  explicit Call(TowerOptions options = {}, std::string_view from = "203.0.113.9:5000")
      : tower([&] {
          options.shortcuts = &shortcuts;
          return std::move(options);
        }()),
        alice(tower.client(from)) {}
  Call& allocates() {
    REQUIRE(alice.allocates() == 0);
    return *this;
  }
  /// A nonce is good for ten minutes.
  int patient(const std::function<int()>& asks) {
    const int code = asks();
    return code == 438 ? asks() : code;
  }
  Time in(seconds time) const { return tower.now.steady + time; }

  FakeShortcuts shortcuts;
  Tower tower;
  Client& alice;
};

TowerOptions rest_user(turn::Limits limits = {}) {
  TowerOptions options;
  options.secrets = {"north"};
  options.limits = limits;
  return options;
}
Client& rest_client(Tower& tower, std::string_view address, const std::string& user) {
  const std::string name = std::to_string(tower.now.unix_time + 36000) + ":" + user;
  return tower.client(address, name, stun::rest_password("north", name));
}

constexpr auto dual = [](stun::Writer& w) { w.add_u32(Attribute::additional_address_family, 0x02000000); };
constexpr auto family = [](std::uint32_t f) {
  return [f](stun::Writer& w) { w.add_u32(Attribute::requested_address_family, f << 24); };
};

}  // namespace

TEST_CASE("shortcut: given with a ChannelBind, with the addresses of the wire, until the first of its ends") {
  Call call;
  call.allocates();
  CHECK(call.shortcuts.heard().empty());
  REQUIRE(call.alice.binds(0x4007, "192.0.2.7:9") == 0);
  CHECK(call.shortcuts.heard() == Words{"give 192.0.2.7:9"});
  const auto& held = call.shortcuts.to("192.0.2.7:9");
  CHECK(held.shortcut.five_tuple == call.alice.five_tuple);
  CHECK(held.shortcut.relay == call.alice.relayed());
  CHECK(held.shortcut.channel == 0x4007);
  CHECK(held.shortcut.bucket == nullptr);
  CHECK(held.until == call.in(300s));  // the permission's end
}

TEST_CASE("shortcut: a client that moves (RFC 8016) keeps those of its old 5-tuple until it sends from the new one, and has them there then") {
  TowerOptions options;
  options.mobility = true;
  Call call(options);
  const auto with = [](std::string ticket) { return [ticket](stun::Writer& w) { w.add(Attribute::mobility_ticket, std::string_view(ticket)); }; };
  const auto ticket_of = [](const Client& c) { return std::string(as_text(*c.last->message()->find(Attribute::mobility_ticket))); };
  REQUIRE(call.alice.allocates(with("")) == 0);
  const std::string ticket = ticket_of(call.alice);
  REQUIRE(call.alice.binds(0x4007, "192.0.2.7:9") == 0);
  call.shortcuts.to("192.0.2.7:9").counts = {3, 300, 2, 200};
  call.shortcuts.heard();
  auto& lte = call.tower.client("198.51.100.4:7000");
  REQUIRE(lte.refreshes({}, with(ticket)) == 0);
  CHECK(call.shortcuts.to("192.0.2.7:9").shortcut.five_tuple == call.alice.five_tuple);  // RFC 8016, 3.2.2: sent to the old one meanwhile
  call.shortcuts.heard();
  lte.sends_channel(0x4007, "moved");
  CHECK(call.shortcuts.heard() == Words{"take back 192.0.2.7:9", "give 192.0.2.7:9"});
  CHECK(call.shortcuts.to("192.0.2.7:9").shortcut.five_tuple == lte.five_tuple);
  CHECK(call.tower.counters().shortcut_packets_to_peer == 3);  // what passed by at the old place is counted
  // Over TCP there are none.
  auto& tcp = call.tower.client("198.51.100.4:7001");
  tcp.five_tuple.transport = net::Transport::tcp;
  REQUIRE(tcp.refreshes({}, with(ticket_of(lte))) == 0);
  tcp.sends_channel(0x4007, "moved on");
  CHECK(call.shortcuts.held.empty());
}

TEST_CASE("shortcut: a permission alone is none, and none is given when nobody takes them") {
  Call call;
  call.allocates();
  REQUIRE(call.alice.permits("192.0.2.7:9") == 0);
  CHECK(call.shortcuts.heard().empty());
  Tower tower;
  auto& bob = tower.client("203.0.113.9:5000");
  REQUIRE(bob.allocates() == 0);
  REQUIRE(bob.binds(0x4000, "192.0.2.7:9") == 0);
  tower.server->count_shortcuts(tower.now.steady);
  CHECK(bob.refreshes(0) == 0);
}

TEST_CASE("shortcut: behind a NAT it is the local form of the relayed address that stands on the wire") {
  TowerOptions options;
  options.relay_addresses = {{"198.18.0.1", "198.51.100.1"}};
  Call call(options);
  call.allocates();
  REQUIRE(call.alice.binds(0x4000, "192.0.2.7:9") == 0);
  const net::TransportAddress local{at("198.18.0.1:1").ip, call.alice.relayed().port};
  CHECK(call.shortcuts.to("192.0.2.7:9").shortcut.relay == local);
}

TEST_CASE("shortcut: ChannelBind, CreatePermission and Refresh move the end, and nothing is said twice") {
  Call call;
  call.allocates();
  REQUIRE(call.alice.binds(0x4000, "192.0.2.7:9") == 0);
  REQUIRE(call.alice.binds(0x4000, "192.0.2.7:9") == 0);  // at the same moment: nothing has changed
  CHECK(call.shortcuts.heard() == Words{"give 192.0.2.7:9"});

  call.tower.advance(200s);
  REQUIRE(call.alice.permits("192.0.2.7:1") == 0);  // the port of a permission does not matter
  CHECK(call.shortcuts.heard() == Words{"move 192.0.2.7:9"});
  CHECK(call.shortcuts.to("192.0.2.7:9").until == call.in(300s));
  REQUIRE(call.alice.permits("192.0.2.8:1") == 0);  // another peer's
  CHECK(call.shortcuts.heard().empty());

  call.tower.advance(150s);  // at 350: the allocation ends first, at 600
  REQUIRE(call.alice.binds(0x4000, "192.0.2.7:9") == 0);
  CHECK(call.shortcuts.heard() == Words{"move 192.0.2.7:9"});
  CHECK(call.shortcuts.to("192.0.2.7:9").until == call.in(250s));
  REQUIRE(call.alice.refreshes(1000) == 0);
  CHECK(call.shortcuts.heard() == Words{"move 192.0.2.7:9"});
  CHECK(call.shortcuts.to("192.0.2.7:9").until == call.in(300s));
  REQUIRE(call.alice.refreshes(2000) == 0);
  CHECK(call.shortcuts.heard().empty());
}

TEST_CASE("shortcut: where permissions are refreshed alone, the channel's own end comes first") {
  Call call;
  call.allocates();
  REQUIRE(call.alice.refreshes(3600) == 0);
  REQUIRE(call.alice.binds(0x4000, "192.0.2.7:9") == 0);
  const Time channel_end = call.in(600s);
  call.tower.advance(290s);
  REQUIRE(call.alice.permits("192.0.2.7:9") == 0);
  CHECK(call.shortcuts.to("192.0.2.7:9").until == call.in(300s));
  call.tower.advance(290s);
  REQUIRE(call.alice.permits("192.0.2.7:9") == 0);
  CHECK(call.shortcuts.to("192.0.2.7:9").until == channel_end);
}

TEST_CASE("shortcut: what a request is refused for leaves it alone") {
  Call call;
  call.allocates();
  REQUIRE(call.alice.binds(0x4000, "192.0.2.7:9") == 0);
  const Time until = call.shortcuts.to("192.0.2.7:9").until;
  call.shortcuts.heard();
  call.tower.advance(100s);
  CHECK(call.alice.binds(0x4000, "192.0.2.8:9") == 400);   // the number is bound
  CHECK(call.alice.binds(0x4001, "192.0.2.7:9") == 400);   // the peer is bound
  CHECK(call.alice.binds(0x3FFF, "192.0.2.9:9") == 400);
  CHECK(call.alice.binds(0x4002, "10.0.0.1:9") == 403);
  CHECK(call.alice.permits(Words{"192.0.2.7:9", "10.0.0.1:9"}) == 403);
  CHECK(call.alice.permits("[2001:db8::7]:9") == 443);
  CHECK(call.alice.refreshes({}, family(2)) == 443);
  CHECK(call.alice.allocates() == 437);
  auto& bob = call.tower.client("203.0.113.9:5000", "bob", "hunter2");
  call.alice.inbox.clear();
  CHECK(bob.refreshes(0) == 441);
  CHECK(bob.binds(0x4000, "192.0.2.7:9") == 441);
  bob.password = "wrong";
  CHECK(bob.refreshes(0) == 401);
  CHECK(call.shortcuts.heard().empty());
  CHECK(call.shortcuts.to("192.0.2.7:9").until == until);
}

TEST_CASE("shortcut: taken back within the Refresh that ends the allocation, and its counts are in the event") {
  Call call;
  call.allocates();
  REQUIRE(call.alice.binds(0x4000, "192.0.2.7:9") == 0);
  call.alice.sends_channel(0x4000, "hello");
  call.shortcuts.to("192.0.2.7:9").counts = {100, 10'000, 200, 40'000, 3};
  call.tower.server->count_shortcuts(call.tower.now.steady);
  CHECK(call.tower.counters().packets_to_peer == 101);
  call.shortcuts.to("192.0.2.7:9").counts = {150, 15'000, 300, 60'000, 4};
  REQUIRE(call.alice.refreshes(0) == 0);
  CHECK(call.shortcuts.held.empty());
  const auto& ended = call.tower.events.back();
  CHECK(ended.kind == turn::Event::Kind::allocation_ended);
  CHECK(ended.packets_to_peer == 151);
  CHECK(ended.bytes_to_peer == 15'005);
  CHECK(ended.packets_to_client == 300);
  CHECK(ended.bytes_to_client == 60'000);
  const auto& counters = call.tower.counters();
  CHECK(counters.packets_to_peer == 151);
  CHECK(counters.bytes_to_peer == 15'005);
  CHECK(counters.packets_to_client == 300);
  CHECK(counters.bytes_to_client == 60'000);
  CHECK(counters.dropped_user_limit == 4);
  CHECK(counters.shortcut_packets_to_peer == 150);
  CHECK(counters.shortcut_packets_to_client == 300);
}

TEST_CASE("shortcut: counted once, however often it is looked at") {
  Call call;
  call.allocates();
  REQUIRE(call.alice.binds(0x4000, "192.0.2.7:9") == 0);
  call.shortcuts.to("192.0.2.7:9").counts = {7, 70, 0, 0, 0};
  for (int i = 0; i < 3; ++i) call.tower.server->count_shortcuts(call.tower.now.steady);
  CHECK(call.tower.counters().shortcut_packets_to_peer == 7);
  CHECK(call.tower.counters().bytes_to_peer == 70);
}

TEST_CASE("shortcut: taken back when the allocation runs out") {
  Call call;
  call.allocates();
  REQUIRE(call.alice.binds(0x4000, "192.0.2.7:9") == 0);
  call.tower.advance(250s);
  REQUIRE(call.alice.binds(0x4000, "192.0.2.7:9") == 0);
  call.tower.advance(250s);
  REQUIRE(call.alice.binds(0x4000, "192.0.2.7:9") == 0);
  CHECK(call.shortcuts.to("192.0.2.7:9").until == call.in(100s));
  call.shortcuts.to("192.0.2.7:9").counts.packets_to_client = 5;
  call.tower.advance(101s);
  CHECK(call.shortcuts.held.empty());
  CHECK(call.tower.events.back().end == turn::EndReason::expired);
  CHECK(call.tower.events.back().packets_to_client == 5);
}

TEST_CASE("shortcut: taken back when all ends, and by a server that goes away without") {
  Call call;
  call.allocates();
  REQUIRE(call.alice.binds(0x4000, "192.0.2.7:9") == 0);
  auto& bob = call.tower.client("203.0.113.9:5001", "bob", "hunter2");
  REQUIRE(bob.allocates() == 0);
  REQUIRE(bob.binds(0x4000, "192.0.2.8:9") == 0);
  SUBCASE("end_all") { call.tower.server->end_all(turn::EndReason::shutdown, call.tower.now, call.tower.actions); }
  SUBCASE("the destructor") { call.tower.server.reset(); }
  CHECK(call.shortcuts.held.empty());
}

TEST_CASE("shortcut: one whose permission has run out is taken back when looked for, and given again with the permission") {
  Call call;
  call.allocates();
  REQUIRE(call.alice.binds(0x4000, "192.0.2.7:9") == 0);
  call.tower.advance(301s);
  CHECK(call.shortcuts.to("192.0.2.7:9").until < call.tower.now.steady);  // passes nothing already
  call.shortcuts.to("192.0.2.7:9").counts.packets_to_peer = 9;
  call.shortcuts.heard();
  call.tower.server->count_shortcuts(call.tower.now.steady);
  CHECK(call.shortcuts.heard() == Words{"take back 192.0.2.7:9"});
  CHECK(call.tower.counters().packets_to_peer == 9);
  REQUIRE(call.alice.permits("192.0.2.7:9") == 0);
  CHECK(call.shortcuts.heard() == Words{"give 192.0.2.7:9"});
  CHECK(call.shortcuts.to("192.0.2.7:9").until == call.in(299s));  // the channel's end: bound 301 s ago
}

TEST_CASE("shortcut: taken back when another permission gets the place of one that has run out") {
  TowerOptions options;
  options.limits.permissions_per_allocation = 1;
  Call call(options);
  call.allocates();
  REQUIRE(call.alice.binds(0x4000, "192.0.2.7:9") == 0);
  call.tower.advance(301s);
  call.shortcuts.heard();
  REQUIRE(call.alice.permits("192.0.2.8:9") == 0);
  CHECK(call.shortcuts.heard() == Words{"take back 192.0.2.7:9"});
}

TEST_CASE("shortcut: a number that is bound anew has the shortcut of its new peer, and the old one's is gone") {
  Call call;
  call.allocates();
  REQUIRE(call.alice.refreshes(3600) == 0);
  REQUIRE(call.alice.binds(0x4000, "192.0.2.7:9") == 0);
  call.shortcuts.heard();
  call.tower.advance(601s);
  REQUIRE(call.patient([&] { return call.alice.binds(0x4000, "192.0.2.8:9"); }) == 0);
  CHECK(call.shortcuts.heard() == Words{"take back 192.0.2.7:9", "give 192.0.2.8:9"});
  CHECK(call.shortcuts.held.size() == 1);
}

TEST_CASE("shortcut: the families of a dual allocation have ends of their own") {
  Call call;
  REQUIRE(call.alice.allocates(dual) == 0);
  REQUIRE(call.alice.binds(0x4000, "192.0.2.7:9") == 0);
  REQUIRE(call.alice.binds(0x4001, "[2001:db8::7]:9") == 0);
  CHECK(call.shortcuts.to("[2001:db8::7]:9").shortcut.relay == call.alice.relayed6());  // across families
  call.shortcuts.heard();
  SUBCASE("a Refresh to zero of one takes back its shortcuts alone") {
    call.shortcuts.to("[2001:db8::7]:9").counts.packets_to_peer = 4;
    REQUIRE(call.alice.refreshes(0, family(2)) == 0);
    CHECK(call.shortcuts.heard() == Words{"take back [2001:db8::7]:9"});
    CHECK(call.tower.counters().packets_to_peer == 4);
    CHECK(call.shortcuts.has("192.0.2.7:9"));
    REQUIRE(call.alice.permits("192.0.2.7:9") == 0);  // does not bring it back
    CHECK_FALSE(call.shortcuts.has("[2001:db8::7]:9"));
    REQUIRE(call.alice.refreshes(0) == 0);
    CHECK(call.shortcuts.held.empty());
    CHECK(call.tower.events.back().packets_to_peer == 4);
  }
  SUBCASE("one that is not refreshed ends alone") {
    call.tower.advance(400s);
    REQUIRE(call.alice.refreshes({}, family(1)) == 0);
    REQUIRE(call.alice.binds(0x4000, "192.0.2.7:9") == 0);
    REQUIRE(call.alice.binds(0x4001, "[2001:db8::7]:9") == 0);
    CHECK(call.shortcuts.to("192.0.2.7:9").until == call.in(300s));
    CHECK(call.shortcuts.to("[2001:db8::7]:9").until == call.in(200s));
    call.tower.advance(201s);
    CHECK(call.shortcuts.has("192.0.2.7:9"));
    CHECK_FALSE(call.shortcuts.has("[2001:db8::7]:9"));
  }
}

TEST_CASE("shortcut: a reload that forbids the peer takes it back, and one that allows it gives it again (P36)") {
  Call call;
  call.allocates();
  REQUIRE(call.alice.binds(0x4000, "192.0.2.7:9") == 0);
  REQUIRE(call.alice.binds(0x4001, "192.0.2.8:9") == 0);
  const Time until = call.shortcuts.to("192.0.2.7:9").until;
  call.shortcuts.heard();
  std::vector<std::string> deny;
  SUBCASE("the address") { deny = {"192.0.2.7"}; }
  SUBCASE("its port alone") { deny = {"192.0.2.7:9"}; }
  call.tower.advance(10s);
  call.tower.reload([&](TowerOptions& o) { o.deny = deny; });
  CHECK(call.shortcuts.heard() == Words{"take back 192.0.2.7:9"});
  call.tower.reload([](TowerOptions&) {});
  CHECK(call.alice.permits("192.0.2.8:9") == 0);
  CHECK(call.shortcuts.heard() == Words{"move 192.0.2.8:9"});
  call.tower.reload([](TowerOptions& o) { o.deny.clear(); });
  CHECK(call.shortcuts.heard() == Words{"give 192.0.2.7:9"});
  CHECK(call.shortcuts.to("192.0.2.7:9").until == until);
}

TEST_CASE("shortcut: a client that a reload denies has nothing left, and others go on") {
  Call call;
  call.allocates();
  REQUIRE(call.alice.binds(0x4000, "192.0.2.7:9") == 0);
  call.tower.reload([](TowerOptions& o) { o.denied_clients = {"203.0.112.0/24"}; });
  CHECK(call.shortcuts.held.size() == 1);
  call.tower.reload([](TowerOptions& o) { o.denied_clients = {"203.0.113.0/24"}; });
  CHECK(call.shortcuts.held.empty());
  REQUIRE(!call.tower.events.empty());
  CHECK(call.tower.events.back().end == turn::EndReason::client_denied);
  call.alice.sends_channel(0x4000, "to nobody");
  CHECK(call.tower.peers_quiet());
}

TEST_CASE("shortcut: never to a relayed address of our own, by whatever name") {
  TowerOptions options;
  SUBCASE("its own address") {}
  SUBCASE("the external one of a NAT") { options.relay_addresses = {{"198.18.0.1", "198.51.100.1"}}; }
  Call call(options);
  call.allocates();
  auto& bob = call.tower.client("203.0.113.9:5001", "bob", "hunter2");
  REQUIRE(bob.allocates() == 0);
  REQUIRE(call.alice.binds(0x4000, bob.relayed().text()) == 0);
  CHECK(call.shortcuts.heard().empty());
}

TEST_CASE("shortcut: never where a link-local address is involved") {
  TowerOptions options;
  options.allow = {"192.0.2.0/24", "2001:db8::/32", "fe80::7 unsafe"};
  SUBCASE("the client's") {
    Call call(options, "[fe80::9]:5000");
    call.allocates();
    REQUIRE(call.alice.binds(0x4000, "192.0.2.7:9") == 0);
    CHECK(call.shortcuts.heard().empty());
  }
  SUBCASE("the peer's") {
    Call call(options);
    REQUIRE(call.alice.allocates(family(2)) == 0);
    REQUIRE(call.alice.binds(0x4000, "[fe80::7]:9") == 0);
    CHECK(call.shortcuts.heard().empty());
  }
}

TEST_CASE("shortcut: never for a client that does not come over UDP") {
  Call call;
  call.alice.five_tuple.transport = net::Transport::tcp;
  call.allocates();
  REQUIRE(call.alice.binds(0x4000, "192.0.2.7:9") == 0);
  CHECK(call.shortcuts.heard().empty());
}

TEST_CASE("shortcut: one for which there is no room is counted, and asked for again with the next request") {
  Call call;
  call.allocates();
  call.shortcuts.full = true;
  REQUIRE(call.alice.binds(0x4000, "192.0.2.7:9") == 0);
  CHECK(call.tower.counters().shortcuts_refused == 1);
  call.alice.sends_channel(0x4000, "the long way");
  CHECK(call.tower.peer_got("192.0.2.7:9") == "the long way");
  call.shortcuts.full = false;
  REQUIRE(call.alice.permits("192.0.2.7:9") == 0);
  CHECK(call.shortcuts.has("192.0.2.7:9"));
  CHECK(call.alice.refreshes(0) == 0);
}

TEST_CASE("shortcut: a user's limit is one, whoever takes from it, and goes back with the last allocation") {
  FakeBuckets buckets(1);
  turn::Limits limits;
  limits.bytes_per_second_per_user = 1000;
  limits.packets_per_second_per_user = 0;
  auto options = rest_user(limits);
  options.buckets = &buckets;
  Call call(options);
  auto& carol = rest_client(call.tower, "203.0.113.9:6000", "carol");
  auto& again = rest_client(call.tower, "203.0.113.9:6001", "carol");
  REQUIRE(carol.allocates() == 0);
  REQUIRE(again.allocates() == 0);
  REQUIRE(carol.binds(0x4000, "192.0.2.7:9") == 0);
  REQUIRE(again.binds(0x4000, "192.0.2.8:9") == 0);
  const Bucket* bucket = call.shortcuts.to("192.0.2.7:9").shortcut.bucket;
  REQUIRE(bucket != nullptr);
  CHECK(bucket == call.shortcuts.to("192.0.2.8:9").shortcut.bucket);
  CHECK(bucket->byte_rate == 1000);
  CHECK(bucket->packet_rate == 0);

  // What passes by is taken from the same bucket: with the second used up, nothing is left for the long way.
  carol.sends_channel(0x4000, std::string(100, 'x'));
  CHECK(call.tower.peer_got("192.0.2.7:9"));
  const_cast<Bucket*>(bucket)->bytes_full_at = call.in(1s).time_since_epoch().count();
  carol.sends_channel(0x4000, std::string(100, 'x'));
  CHECK(call.tower.peers_quiet());
  CHECK(call.tower.counters().dropped_user_limit == 1);
  call.tower.advance(1s);
  carol.sends_channel(0x4000, std::string(100, 'x'));
  CHECK(call.tower.peer_got("192.0.2.7:9"));
  CHECK(bucket->bytes_full_at > call.tower.now.steady.time_since_epoch().count());

  call.tower.reload([](TowerOptions& o) { o.limits.bytes_per_second_per_user = 2000; });
  CHECK(bucket->byte_rate == 2000);
  CHECK(carol.refreshes(0) == 0);
  CHECK(buckets.left() == 0);
  CHECK(again.refreshes(0) == 0);
  CHECK(buckets.left() == 1);
}

TEST_CASE("shortcut: a limit that nobody else can see keeps its user's channels here; without one it does not matter") {
  FakeBuckets buckets(1);
  auto options = rest_user();
  options.buckets = &buckets;
  Call call(options);
  auto& carol = rest_client(call.tower, "203.0.113.9:6000", "carol");
  auto& dave = rest_client(call.tower, "203.0.113.9:6001", "dave");
  REQUIRE(carol.allocates() == 0);
  REQUIRE(dave.allocates() == 0);
  REQUIRE(carol.binds(0x4000, "192.0.2.7:9") == 0);
  REQUIRE(dave.binds(0x4000, "192.0.2.8:9") == 0);
  CHECK(call.shortcuts.heard() == Words{"give 192.0.2.7:9"});
  dave.sends_channel(0x4000, "the long way");
  CHECK(call.tower.peer_got("192.0.2.8:9") == "the long way");

  const auto unlimited = [](TowerOptions& o) {
    o.limits.bytes_per_second_per_user = 0;
    o.limits.packets_per_second_per_user = 0;
  };
  call.tower.reload(unlimited);
  CHECK(call.shortcuts.heard() == Words{"give 192.0.2.8:9"});
  CHECK(call.shortcuts.to("192.0.2.8:9").shortcut.bucket == nullptr);
  CHECK(call.shortcuts.to("192.0.2.7:9").shortcut.bucket != nullptr);  // it shows the next limit at once
  call.tower.reload([](TowerOptions& o) { o.limits.packets_per_second_per_user = 100; });
  CHECK(call.shortcuts.heard() == Words{"take back 192.0.2.8:9"});
  CHECK(call.shortcuts.to("192.0.2.7:9").shortcut.bucket->packet_rate == 100);
}

TEST_CASE("shortcut: users without a limit for good take no bucket from those who need one") {
  FakeBuckets buckets(1);
  TowerOptions options;
  options.buckets = &buckets;
  options.users[1].bytes_per_second = 1000;
  Call call(options);
  call.allocates();
  REQUIRE(call.alice.binds(0x4000, "192.0.2.7:9") == 0);
  CHECK(buckets.left() == 1);
  CHECK(call.shortcuts.to("192.0.2.7:9").shortcut.bucket == nullptr);
  auto& bob = call.tower.client("203.0.113.9:5001", "bob", "hunter2");
  REQUIRE(bob.allocates() == 0);
  REQUIRE(bob.binds(0x4000, "192.0.2.8:9") == 0);
  CHECK(call.shortcuts.to("192.0.2.8:9").shortcut.bucket->byte_rate == 1000);
}
