// Channels (RFC 8656, 12), rows B and D of the hostile inputs.
#include <doctest/doctest.h>

#include "harness.h"

using namespace radiotower;
using namespace radiotower::test;

namespace {

struct Call {
  explicit Call(TowerOptions options = {}) : tower(std::move(options)), alice(tower.client("203.0.113.9:5000")) {
    REQUIRE(alice.allocates() == 0);
  }
  Tower tower;
  Client& alice;
};

std::vector<std::uint8_t> channel_data(std::uint16_t number, std::uint16_t length, std::size_t bytes) {
  std::vector<std::uint8_t> v(4 + bytes, 'x');
  store_be16(v.data(), number);
  store_be16(v.data() + 2, length);
  return v;
}

}  // namespace

TEST_CASE("B01 B02: channel numbers are 0x4000 to 0x4FFF") {
  Call call;
  for (const int number : {0x0000, 0x3FFF, 0x5000, 0x7FFF, 0xFFFF}) CHECK(call.alice.binds(static_cast<std::uint16_t>(number), "192.0.2.7:9") == 400);
  CHECK(call.alice.binds(0x4000, "192.0.2.7:9") == 0);
  CHECK(call.alice.binds(0x4FFF, "192.0.2.7:10") == 0);
}

TEST_CASE("rfc5766_channel_numbers: numbers up to 0x7FFF, for clients that are older than RFC 8656") {
  TowerOptions options;
  options.rfc5766_channel_numbers = true;
  Call call(options);
  CHECK(call.alice.binds(0x7FFF, "192.0.2.7:9") == 0);
  CHECK(call.alice.binds(0x8000, "192.0.2.7:10") == 400);
  call.alice.sends_channel(0x7FFF, "old");
  CHECK(call.tower.peer_got("192.0.2.7:9") == "old");
}

TEST_CASE("B03 A19 A20: both attributes, of the right form") {
  Call call;
  CHECK(call.alice.asks(Method::channel_bind, [](stun::Writer& w) { w.add_u32(Attribute::channel_number, 0x40000000); }) == 400);
  CHECK(call.alice.asks(Method::channel_bind, [](stun::Writer& w) { w.add_xor_address(Attribute::xor_peer_address, at("192.0.2.7:9")); }) == 400);
  for (const std::size_t size : {0, 2, 3, 5, 8}) {
    const std::vector<std::uint8_t> value(size, 0x40);
    CHECK(call.alice.asks(Method::channel_bind, [&](stun::Writer& w) {
      w.add(Attribute::channel_number, Bytes(value));
      w.add_xor_address(Attribute::xor_peer_address, at("192.0.2.7:9"));
    }) == 400);
  }
  CHECK(call.alice.asks(Method::channel_bind, [](stun::Writer& w) {  // reserved bytes set: ignored
    w.add_u32(Attribute::channel_number, 0x4000FFFF);
    w.add_xor_address(Attribute::xor_peer_address, at("192.0.2.7:9"));
  }) == 0);
}

TEST_CASE("A38: the first of two CHANNEL-NUMBERs decides") {
  Call call;
  CHECK(call.alice.asks(Method::channel_bind, [](stun::Writer& w) {
    w.add_u32(Attribute::channel_number, 0x40010000);
    w.add_u32(Attribute::channel_number, 0x40020000);
    w.add_xor_address(Attribute::xor_peer_address, at("192.0.2.7:9"));
  }) == 0);
  call.alice.sends_channel(0x4002, "second");
  CHECK(call.tower.peers_quiet());
  call.alice.sends_channel(0x4001, "first");
  CHECK(call.tower.peer_got("192.0.2.7:9") == "first");
}

TEST_CASE("B04 B05: neither a number nor a peer is bound twice") {
  Call call;
  REQUIRE(call.alice.binds(0x4000, "192.0.2.7:9") == 0);
  CHECK(call.alice.binds(0x4000, "192.0.2.8:9") == 400);
  CHECK(call.alice.binds(0x4001, "192.0.2.7:9") == 400);
  CHECK(call.alice.binds(0x4001, "192.0.2.7:10") == 0);  // another port is another peer
}

TEST_CASE("B06: the same pair again restarts channel and permission") {
  Call call;
  REQUIRE(call.alice.allocates() == 437);
  REQUIRE(call.alice.binds(0x4000, "192.0.2.7:9") == 0);
  for (int i = 0; i < 8; ++i) {
    call.tower.advance(250s);
    int code = call.alice.refreshes();
    if (code == 438) code = call.alice.refreshes();
    REQUIRE(code == 0);
    REQUIRE(call.alice.binds(0x4000, "192.0.2.7:9") == 0);
  }
  call.alice.sends_channel(0x4000, "alive");
  CHECK(call.tower.peer_got("192.0.2.7:9") == "alive");
}

TEST_CASE("B07: another family than the allocation's is a 443") {
  Call call;
  CHECK(call.alice.binds(0x4000, "[2001:db8::7]:9") == 443);
}

TEST_CASE("B09: a channel more than allowed is a 508") {
  TowerOptions options;
  options.limits.channels_per_allocation = 3;
  Call call(options);
  for (std::uint16_t i = 0; i < 3; ++i) REQUIRE(call.alice.binds(static_cast<std::uint16_t>(0x4000 + i), "192.0.2.7:" + std::to_string(9 + i)) == 0);
  CHECK(call.alice.binds(0x4003, "192.0.2.7:20") == 508);
  CHECK(call.alice.binds(0x4002, "192.0.2.7:11") == 0);
}

TEST_CASE("B11 T11: after 600 seconds a number may be bound to another peer at once") {
  Call call;
  REQUIRE(call.alice.binds(0x4000, "192.0.2.7:9") == 0);
  REQUIRE(call.alice.refreshes(3600) == 0);
  call.tower.advance(601s);
  int code = call.alice.binds(0x4000, "192.0.2.8:9");
  if (code == 438) code = call.alice.binds(0x4000, "192.0.2.8:9");
  CHECK(code == 0);
  call.alice.sends_channel(0x4000, "new");
  CHECK(call.tower.peer_got("192.0.2.8:9") == "new");
}

TEST_CASE("D01 D02 D05 H07: ChannelData that is not right is dropped") {
  Call call;
  REQUIRE(call.alice.binds(0x4000, "192.0.2.7:9") == 0);
  call.alice.sends_channel(0x4001, "unbound");
  call.alice.sends_raw(channel_data(0x4000, 6, 5));
  call.alice.sends_raw(channel_data(0x4000, 8, 5));
  call.alice.sends_raw(channel_data(0x4000, 0xFFFF, 5));
  call.alice.sends_raw({0x40});
  call.alice.sends_raw({0x40, 0x00});
  call.alice.sends_raw({0x40, 0x00, 0x00});
  for (const int first : {0x50, 0x5F, 0x60, 0x7F}) call.alice.sends_raw(channel_data(static_cast<std::uint16_t>(first << 8), 5, 5));
  CHECK(call.tower.peers_quiet());
  CHECK(call.alice.quiet());
  CHECK(call.tower.counters().dropped_bad_channel_data == 6);
}

TEST_CASE("D03: padding and trailing bytes are not relayed") {
  Call call;
  REQUIRE(call.alice.binds(0x4000, "192.0.2.7:9") == 0);
  for (const std::size_t extra : {1, 2, 3, 100}) {
    call.alice.sends_raw(channel_data(0x4000, 5, 5 + extra));
    CHECK(call.tower.peer_got("192.0.2.7:9") == "xxxxx");
  }
}

TEST_CASE("D04 T12: length 0 sends an empty datagram") {
  Call call;
  REQUIRE(call.alice.binds(0x4000, "192.0.2.7:9") == 0);
  call.alice.sends_channel(0x4000, "");
  CHECK(call.tower.peer_got("192.0.2.7:9") == "");
}

TEST_CASE("D06 D07: a channel is of one allocation") {
  Call call;
  REQUIRE(call.alice.binds(0x4000, "192.0.2.7:9") == 0);
  auto& nobody = call.tower.client("203.0.113.9:5001");
  const auto kept = call.tower.server->bytes_kept();
  nobody.sends_channel(0x4000, "x");
  CHECK(call.tower.server->bytes_kept() == kept);
  auto& bob = call.tower.client("203.0.113.9:5002", "bob", "hunter2");
  REQUIRE(bob.allocates() == 0);
  bob.sends_channel(0x4000, "x");
  CHECK(call.tower.peers_quiet());
}

TEST_CASE("D08: the channel lives, its permission has run out: client to peer is dropped") {
  Call call;
  REQUIRE(call.alice.binds(0x4000, "192.0.2.7:9") == 0);
  call.tower.advance(301s);
  call.alice.sends_channel(0x4000, "late");
  CHECK(call.tower.peers_quiet());
  REQUIRE(call.alice.permits("192.0.2.7:1") == 0);
  call.alice.sends_channel(0x4000, "again");
  CHECK(call.tower.peer_got("192.0.2.7:9") == "again");
}

TEST_CASE("D09 T10: with a channel, peer data comes as ChannelData and never as an indication") {
  Call call;
  REQUIRE(call.alice.binds(0x4ABC, "192.0.2.7:9") == 0);
  for (const char* data : {"", "a", "abcd", "hello"}) {
    call.tower.peer_sends("192.0.2.7:9", call.alice, data);
    const auto got = call.alice.take();
    REQUIRE(got);
    REQUIRE(got->is_channel_data());
    CHECK(load_be16(got->bytes.data()) == 0x4ABC);
    CHECK(got->payload() == data);
  }
}

TEST_CASE("D10: ChannelData that carries a STUN message is relayed as it is") {
  Call call;
  REQUIRE(call.alice.binds(0x4000, "192.0.2.7:9") == 0);
  const auto inner = call.alice.request(Method::binding, {}, false);
  call.alice.sends_channel(0x4000, as_text(inner));
  CHECK(call.tower.peer_got("192.0.2.7:9") == std::string(as_text(inner)));
  CHECK(call.alice.quiet());
}

TEST_CASE("a train of ChannelData of one channel leaves as one action, a mixed one falls apart") {
  Call call;
  REQUIRE(call.alice.binds(0x4000, "192.0.2.7:9") == 0);
  REQUIRE(call.alice.binds(0x4001, "192.0.2.7:10") == 0);
  const auto train = [](std::initializer_list<std::pair<std::uint16_t, std::string>> parts) {
    std::vector<std::uint8_t> bytes;
    for (const auto& [number, data] : parts) {
      const auto one = channel_data(number, static_cast<std::uint16_t>(data.size()), data.size());
      bytes.insert(bytes.end(), one.begin(), one.end());
      std::copy(data.begin(), data.end(), bytes.end() - static_cast<std::ptrdiff_t>(data.size()));
    }
    return bytes;
  };
  call.tower.input(call.alice.five_tuple, train({{0x4000, "aaaa"}, {0x4000, "bbbb"}, {0x4000, "cc"}}), 8);
  CHECK(call.tower.peer_got("192.0.2.7:9") == "aaaa");
  CHECK(call.tower.peer_got("192.0.2.7:9") == "bbbb");
  CHECK(call.tower.peer_got("192.0.2.7:9") == "cc");
  call.tower.input(call.alice.five_tuple, train({{0x4000, "aaaa"}, {0x4001, "bbbb"}, {0x4002, "cccc"}}), 8);
  CHECK(call.tower.peer_got("192.0.2.7:9") == "aaaa");
  CHECK(call.tower.peer_got("192.0.2.7:10") == "bbbb");
  CHECK(call.tower.peers_quiet());
  CHECK(call.tower.counters().packets_to_peer == 5);
}
