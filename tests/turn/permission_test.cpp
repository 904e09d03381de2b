// Permissions and CreatePermission (RFC 8656, 9 and 10), rows P of the hostile inputs.
#include <doctest/doctest.h>

#include "harness.h"

using namespace radiotower;
using namespace radiotower::test;

namespace {

struct Call {  // an allocation of alice's
  explicit Call(TowerOptions options = {}) : tower(std::move(options)), alice(tower.client("203.0.113.9:5000")) {
    REQUIRE(alice.allocates() == 0);
  }
  Tower tower;
  Client& alice;
};

TowerOptions closed() {
  TowerOptions options;
  options.allow.clear();
  return options;
}

}  // namespace

TEST_CASE("P01 A12: CreatePermission needs at least one well-formed XOR-PEER-ADDRESS") {
  Call call;
  CHECK(call.alice.asks(Method::create_permission) == 400);
  for (const std::size_t size : {0, 4, 7, 9, 16, 19, 21}) {
    const std::vector<std::uint8_t> value(size, 1);
    CHECK(call.alice.asks(Method::create_permission, [&](stun::Writer& w) { w.add(Attribute::xor_peer_address, Bytes(value)); }) == 400);
  }
}

TEST_CASE("A14 A15 A16: the family byte decides, the reserved byte does not") {
  Call call;
  const auto code = [&](std::uint8_t reserved, std::uint8_t family, std::size_t size) {
    std::vector<std::uint8_t> value(size, 0);
    value[0] = reserved;
    value[1] = family;
    store_be16(value.data() + 2, static_cast<std::uint16_t>(4000 ^ 0x2112));
    if (size == 8) store_be32(value.data() + 4, 0xC0000207u ^ stun::magic_cookie);  // 192.0.2.7
    return call.alice.asks(Method::create_permission, [&](stun::Writer& w) { w.add(Attribute::xor_peer_address, Bytes(value)); });
  };
  for (const int family : {0x00, 0x03, 0xFF}) CHECK(code(0, static_cast<std::uint8_t>(family), 8) == 400);
  CHECK(code(0, 1, 20) == 400);
  CHECK(code(0, 2, 8) == 400);
  CHECK(code(0xFF, 1, 8) == 0);
}

TEST_CASE("P02: another family than the allocation's is a 443") {
  Call call;
  CHECK(call.alice.permits("[2001:db8::7]:9") == 443);
}

TEST_CASE("P03: 100 peers, one of them forbidden: 403, and none is installed") {
  Call call;
  std::vector<std::string> peers;
  for (int i = 1; i <= 99; ++i) peers.push_back("192.0.2." + std::to_string(i) + ":9");
  auto with_one_bad = peers;
  with_one_bad.insert(with_one_bad.begin() + 50, "127.0.0.1:9");
  CHECK(call.alice.permits(with_one_bad) == 403);
  call.tower.peer_sends("192.0.2.1:9", call.alice, "hello");
  CHECK(call.alice.quiet());
  CHECK(call.alice.permits(peers) == 0);
  call.tower.peer_sends("192.0.2.50:9", call.alice, "hello");
  CHECK(call.alice.take()->payload() == "hello");
}

TEST_CASE("P04-P24 B08 R03: addresses that are nobody's peer, through CreatePermission, ChannelBind and Send alike (P37)") {
  const char* refused4[] = {
      "0.0.0.0",         "0.1.2.3",        "127.0.0.1",     "127.255.255.254", "10.0.0.0",       "10.255.255.255", "172.16.0.0",
      "172.31.255.255",  "192.168.0.0",    "192.168.255.255", "100.64.0.1",    "169.254.169.254", "169.254.0.1",   "192.0.0.1",
      "192.0.2.1",       "198.51.100.1",   "203.0.113.1",   "198.19.255.255",  "192.31.196.1",   "192.52.193.1",   "192.88.99.1",
      "192.175.48.1",    "224.0.0.1",      "239.255.255.255", "240.0.0.1",     "255.255.255.255"};
  const char* refused6[] = {
      "::",                      "::1",                    "::127.0.0.1",      "::ffff:0:127.0.0.1", "64:ff9b::7f00:1",
      "64:ff9b::a00:1",          "64:ff9b::a9fe:a9fe",     "64:ff9b:1::1",     "2002:7f00:1::",      "2002:a00:1::",
      "2001:0:1::1",             "fe80::1",                "fec0::1",          "fc00::1",            "fd00::1",
      "ff02::1",                 "ff0e::1",                "100::1",           "100:0:0:1::1",       "2001:2::1",
      "2001:db8::1",             "2620:4f:8000::1",        "3fff::1",          "5f00::1",            "2a00:1:2:3:0:5efe:127.0.0.1",
      "2a00:1:2:3:200:5efe:10.0.0.1"};
  const char* allowed[] = {"172.15.255.255", "172.32.0.0", "8.8.8.8", "11.0.0.0", "9.255.255.255", "100.128.0.0", "223.255.255.255"};
  Call call(closed());
  auto& six = call.tower.client("[2a00::9]:5000");
  REQUIRE(six.allocates([](stun::Writer& w) {
    const std::array<std::uint8_t, 4> v6{2, 0, 0, 0};
    w.add(Attribute::requested_address_family, Bytes(v6));
  }) == 0);
  std::uint16_t channel = 0x4000;
  for (const char* text : refused4) {
    CAPTURE(text);
    const std::string peer = std::string(text) + ":4000";
    CHECK(call.alice.permits(peer) == 403);
    CHECK(call.alice.binds(channel++, peer) == 403);
    call.alice.sends(peer, "x");
  }
  for (const char* text : refused6) {
    CAPTURE(text);
    const std::string peer = "[" + std::string(text) + "]:4000";
    CHECK(six.permits(peer) == 403);
    CHECK(six.binds(channel++, peer) == 403);
    six.sends(peer, "x");
  }
  CHECK(call.tower.peers_quiet());
  for (const char* text : allowed) {
    CAPTURE(text);
    CHECK(call.alice.permits(std::string(text) + ":4000") == 0);
  }
  CHECK(six.permits("[2a00:1450::1]:4000") == 0);
}

TEST_CASE("P14: an IPv4 address written as mapped IPv6 is refused, even where the IPv4 address is allowed") {
  TowerOptions options = closed();
  options.allow = {"10.0.0.0/8"};
  Tower tower(options);
  auto& six = tower.client("[2a00::9]:5000");
  REQUIRE(six.allocates([](stun::Writer& w) {
    const std::array<std::uint8_t, 4> v6{2, 0, 0, 0};
    w.add(Attribute::requested_address_family, Bytes(v6));
  }) == 0);
  for (const char* text : {"127.0.0.1", "10.0.0.1", "169.254.169.254", "8.8.8.8"}) {
    const int code = six.asks(Method::create_permission, [&](stun::Writer& w) {
      // Written by hand: the library itself never writes such an address.
      std::array<std::uint8_t, 20> value{};
      value[1] = 2;
      std::array<std::uint8_t, 16> mapped = net::IpAddress::parse(text)->bytes;
      std::array<std::uint8_t, 16> mask;
      store_be32(mask.data(), stun::magic_cookie);
      const Bytes id = w.bytes().subspan(8, 12);
      std::copy(id.begin(), id.end(), mask.begin() + 4);
      for (std::size_t i = 0; i < 16; ++i) value[4 + i] = mapped[i] ^ mask[i];
      store_be16(value.data() + 2, 4000 ^ 0x2112);
      w.add(Attribute::xor_peer_address, Bytes(value));
    });
    CHECK(code == 403);
  }
}

TEST_CASE("P25 P28 P29: our own addresses are refused but for live relayed ports") {
  TowerOptions options = closed();
  options.relay_addresses = {{"198.18.0.1", "198.51.100.7"}};
  Call call(options);
  CHECK(call.alice.binds(0x4000, "198.18.0.1:3478") == 403);
  CHECK(call.alice.binds(0x4001, "198.18.0.1:22") == 403);
  CHECK(call.alice.permits("198.18.0.1:5432") == 403);
  CHECK(call.alice.binds(0x4002, "198.51.100.7:40000") == 403);
}

TEST_CASE("P26: the allocation's own relayed address is refused") {
  Call call(closed());
  CHECK(call.alice.binds(0x4000, call.alice.relayed().text()) == 403);
}

TEST_CASE("P27 hairpin: two clients of one relay reach each other, by the external address too") {
  for (const bool nat : {false, true}) {
    CAPTURE(nat);
    TowerOptions options = closed();
    options.relay_addresses = {{"198.18.0.1", nat ? "198.51.100.7" : "198.18.0.1"}};
    Tower tower(options);
    auto& alice = tower.client("203.0.113.9:5000");
    auto& bob = tower.client("203.0.113.9:5001", "bob", "hunter2");
    REQUIRE(alice.allocates() == 0);
    REQUIRE(bob.allocates() == 0);
    REQUIRE(alice.permits(bob.relayed().text()) == 0);
    REQUIRE(bob.binds(0x4001, alice.relayed().text()) == 0);
    alice.sends(bob.relayed().text(), "to bob");
    const auto got = bob.take();
    REQUIRE(got);
    CHECK(got->is_channel_data());
    CHECK(got->payload() == "to bob");
    bob.sends_channel(0x4001, "to alice");
    const auto back = alice.take();
    REQUIRE(back);
    CHECK(back->payload() == "to alice");
    const auto m = back->message();
    CHECK(stun::read_xor_address(*m->find(Attribute::xor_peer_address), m->transaction_id())->address == bob.relayed());
    // A port whose allocation has ended is no peer any more.
    CHECK(bob.refreshes(0) == 0);
    alice.sends(bob.relayed().text(), "gone");
    CHECK(bob.quiet());
    CHECK(tower.peers_quiet());
    CHECK(tower.counters().dropped_dead_relay_port + tower.counters().dropped_peer_denied == 1);
  }
}

TEST_CASE("P27: in allow-list mode our own relayed addresses are refused unless listed") {
  TowerOptions options;
  options.allow_only = true;
  options.allow = {"10.1.2.3:8443"};
  Tower tower(options);
  auto& alice = tower.client("203.0.113.9:5000");
  auto& bob = tower.client("203.0.113.9:5001", "bob", "hunter2");
  REQUIRE(alice.allocates() == 0);
  REQUIRE(bob.allocates() == 0);
  CHECK(alice.permits(bob.relayed().text()) == 403);
  CHECK(alice.permits("8.8.8.8:4000") == 403);
  CHECK(alice.permits("10.1.2.3:8444") == 403);
  CHECK(alice.permits("10.1.2.3:8443") == 0);
  CHECK(alice.permits("10.1.2.3:0") == 0);  // the port is ignored in CreatePermission
  CHECK(alice.binds(0x4000, "10.1.2.3:8443") == 0);
}

TEST_CASE("P31 P32: port 0 and reflection ports") {
  Call call(closed());
  CHECK(call.alice.binds(0x4000, "8.8.8.8:0") == 403);
  CHECK(call.alice.permits("8.8.8.8:0") == 0);
  call.alice.sends("8.8.8.8:0", "x");
  for (const int port : {19, 53, 111, 123, 137, 161, 389, 1900, 5353, 11211}) {
    CHECK(call.alice.binds(0x4000, "8.8.8.8:" + std::to_string(port)) == 403);
    call.alice.sends("8.8.8.8:" + std::to_string(port), "x");
  }
  CHECK(call.tower.peers_quiet());
  CHECK(call.alice.binds(0x4000, "8.8.8.8:443") == 0);
}

TEST_CASE("P30: another TURN server is no peer, unless an entry names its port") {
  Call call(closed());
  for (const int port : {3478, 5349}) {
    CHECK(call.alice.permits("8.8.8.8:" + std::to_string(port)) == 403);
    CHECK(call.alice.binds(0x4000, "8.8.8.8:" + std::to_string(port)) == 403);
  }
  call.tower.reload([](TowerOptions& o) { o.allow = {"8.8.8.8:3478"}; });
  CHECK(call.alice.binds(0x4000, "8.8.8.8:3478") == 0);
}

TEST_CASE("P36: what a reload denies stops at once, and what it allows again goes on") {
  Call call;
  REQUIRE(call.alice.binds(0x4000, "192.0.2.7:9") == 0);
  REQUIRE(call.alice.binds(0x4001, "192.0.2.8:9") == 0);
  call.tower.reload([](TowerOptions& o) { o.deny = {"192.0.2.7"}; });
  call.alice.sends_channel(0x4000, "no");
  call.alice.sends("192.0.2.7:9", "no");
  call.tower.peer_sends("192.0.2.7:9", call.alice, "no");
  CHECK(call.tower.peers_quiet());
  CHECK(call.alice.quiet());
  CHECK(call.tower.counters().dropped_peer_denied == 3);
  call.alice.sends_channel(0x4001, "yes");
  CHECK(call.tower.peer_got("192.0.2.8:9") == "yes");
  call.tower.reload([](TowerOptions& o) { o.deny.clear(); });
  call.alice.sends_channel(0x4000, "again");
  CHECK(call.tower.peer_got("192.0.2.7:9") == "again");
}

TEST_CASE("P38: one permission more than allowed is a 508, and the place of one that ran out is free") {
  Call call;
  for (int i = 0; i < 256; ++i) {
    if (i % 100 == 99) call.tower.advance(20s);  // new peers come at a bounded rate
    REQUIRE(call.alice.permits("192.0.2." + std::to_string(i) + ":9") == 0);
  }
  TowerOptions more;
  call.tower.reload([](TowerOptions& o) { o.allow.push_back("198.51.100.0/24"); });
  CHECK(call.alice.permits("198.51.100.1:9") == 508);
  CHECK(call.alice.binds(0x4000, "198.51.100.1:9") == 508);
  CHECK(call.alice.permits("192.0.2.1:9") == 0);  // one it has may be refreshed
  call.tower.advance(299s);
  CHECK(call.alice.permits("198.51.100.1:9") == 0);
}

TEST_CASE("X09: new peers come at five a second, after a burst") {
  Call call;
  int granted = 0;
  for (int i = 0; i < 256; ++i) granted += call.alice.permits("192.0.2." + std::to_string(i) + ":9") == 0 ? 1 : 0;
  CHECK(granted == 128);
  call.tower.advance(2s);
  CHECK(call.alice.permits("192.0.2.200:9") == 0);
}

TEST_CASE("P39 P40 T8: a permission lives 300 seconds, and neither Send nor ChannelData extends it") {
  Call call;
  REQUIRE(call.alice.permits("192.0.2.7:9") == 0);
  for (int i = 0; i < 299; ++i) {
    call.tower.advance(1s);
    call.alice.sends("192.0.2.7:9", "x");
    REQUIRE(call.tower.peer_got("192.0.2.7:9"));
  }
  call.tower.peer_sends("192.0.2.7:9", call.alice, "in time");
  CHECK(call.alice.take());
  call.tower.advance(1s);
  call.alice.sends("192.0.2.7:9", "late");
  call.tower.peer_sends("192.0.2.7:9", call.alice, "late");
  CHECK(call.tower.peers_quiet());
  CHECK(call.alice.quiet());
  CHECK(call.tower.counters().dropped_no_permission == 1);
  CHECK(call.tower.counters().dropped_peer_no_permission == 1);
}

TEST_CASE("P41 P42: a permission is of an address, whatever the port; other addresses are silent both ways") {
  Call call;
  REQUIRE(call.alice.permits("192.0.2.7:9") == 0);
  call.tower.peer_sends("192.0.2.7:4444", call.alice, "other port");
  const auto got = call.alice.take();
  REQUIRE(got);
  CHECK(got->payload() == "other port");
  CHECK(got->message()->is(Class::indication, Method::data));
  call.tower.peer_sends("192.0.2.8:9", call.alice, "stranger");
  CHECK(call.alice.quiet());
  CHECK(call.tower.counters().dropped_peer_no_permission == 1);
}

TEST_CASE("a refused peer leaves an event that names it and why") {
  Call call(closed());
  call.tower.events.clear();
  CHECK(call.alice.permits("10.1.2.3:8443") == 403);
  REQUIRE(call.tower.events.size() == 1);
  CHECK(call.tower.events[0].kind == turn::Event::Kind::peer_refused);
  CHECK(call.tower.events[0].peer == at("10.1.2.3:8443"));
  CHECK(call.tower.events[0].reason == "rfc1918");
}
