// Send and Data indications, ICMP (RFC 8656, 11), rows S and G of the hostile inputs.
#include <doctest/doctest.h>

#include "harness.h"

using namespace radiotower;
using namespace radiotower::test;

namespace {

struct Call {
  explicit Call(TowerOptions options = {}) : tower(std::move(options)), alice(tower.client("203.0.113.9:5000")) {
    REQUIRE(alice.allocates() == 0);
    REQUIRE(alice.permits("192.0.2.7:9") == 0);
  }
  void indicates(const Client::More& attributes) {
    std::array<std::uint8_t, 2048> space{};
    stun::TransactionId id;
    tower.random(id);
    stun::Writer w(space, Class::indication, Method::send, id);
    attributes(w);
    REQUIRE(w.ok());
    tower.input(alice.five_tuple, {w.bytes().begin(), w.bytes().end()});
  }
  Tower tower;
  Client& alice;
};

constexpr auto peer_type = Attribute::xor_peer_address;

}  // namespace

TEST_CASE("S01 A13 A14: Send without a peer or without DATA, or with a malformed peer, is dropped") {
  Call call;
  call.indicates([](stun::Writer& w) { w.add(Attribute::data, std::string_view("x")); });
  call.indicates([](stun::Writer& w) { w.add_xor_address(peer_type, at("192.0.2.7:9")); });
  for (const std::size_t size : {0, 4, 7, 9, 16, 19, 21})
    call.indicates([&](stun::Writer& w) { w.add(peer_type, Bytes(std::vector<std::uint8_t>(size, 1))).add(Attribute::data, std::string_view("x")); });
  CHECK(call.tower.peers_quiet());
  CHECK(call.alice.quiet());
  CHECK(call.tower.counters().dropped_bad_indication == 9);
}

TEST_CASE("S02 S06: Send to a peer without permission, or without an allocation, is dropped without a word") {
  Call call;
  call.alice.sends("192.0.2.8:9", "x");
  auto& nobody = call.tower.client("203.0.113.9:5001");
  const auto kept = call.tower.server->bytes_kept();
  nobody.sends("192.0.2.7:9", "x");
  CHECK(call.tower.server->bytes_kept() == kept);
  CHECK(call.tower.peers_quiet());
  CHECK(call.alice.quiet());
  CHECK(nobody.quiet());
}

TEST_CASE("S03 T9: zero-length DATA is an empty datagram") {
  Call call;
  call.alice.sends("192.0.2.7:9", "");
  CHECK(call.tower.peer_got("192.0.2.7:9") == "");
}

TEST_CASE("S04: DONT-FRAGMENT sets DF, and is a drop where DF cannot be set or the attribute has a value") {
  Call call;
  call.alice.sends("192.0.2.7:9", "whole", [](stun::Writer& w) { w.add_empty(Attribute::dont_fragment); });
  const auto sent = call.tower.take_sent();
  REQUIRE(sent);
  CHECK(sent->dont_fragment);
  call.alice.sends("192.0.2.7:9", "free");
  CHECK_FALSE(call.tower.take_sent()->dont_fragment);
  call.alice.sends("192.0.2.7:9", "bad", [](stun::Writer& w) { w.add(Attribute::dont_fragment, std::string_view("x")); });
  CHECK(call.tower.peers_quiet());
  TowerOptions options;
  options.dont_fragment = false;
  Call without(options);
  without.alice.sends("192.0.2.7:9", "x", [](stun::Writer& w) { w.add_empty(Attribute::dont_fragment); });
  CHECK(without.tower.peers_quiet());
}

TEST_CASE("S07: integrity in an indication is as if absent") {
  Call call;
  call.indicates([&](stun::Writer& w) {
    w.add_xor_address(peer_type, at("192.0.2.7:9")).add(Attribute::data, std::string_view("x"));
    w.add(Attribute::message_integrity, Bytes(std::vector<std::uint8_t>(20, 1)));
  });
  CHECK(call.tower.peer_got("192.0.2.7:9") == "x");
}

TEST_CASE("S08: many ports of one permitted address cost nothing each") {
  Call call;
  call.alice.sends("192.0.2.7:9", "x");
  const auto kept = call.tower.server->bytes_kept();
  for (int port = 1000; port < 3000; ++port) call.alice.sends("192.0.2.7:" + std::to_string(port), "x");
  CHECK(call.tower.server->bytes_kept() == kept);
}

TEST_CASE("A29 A37 A39: unknown required attributes drop it; of two peers or two DATA the first decides") {
  Call call;
  call.alice.sends("192.0.2.7:9", "x", [](stun::Writer& w) { w.add(static_cast<Attribute>(0x7777), std::string_view("?")); });
  CHECK(call.tower.peers_quiet());
  call.indicates([](stun::Writer& w) {
    w.add_xor_address(peer_type, at("192.0.2.7:9")).add_xor_address(peer_type, at("127.0.0.1:9"));
    w.add(Attribute::data, std::string_view("first")).add(Attribute::data, std::string_view("second"));
  });
  CHECK(call.tower.peer_got("192.0.2.7:9") == "first");
  call.indicates([](stun::Writer& w) {
    w.add_xor_address(peer_type, at("127.0.0.1:9")).add_xor_address(peer_type, at("192.0.2.7:9")).add(Attribute::data, std::string_view("x"));
  });
  CHECK(call.tower.peers_quiet());
}

TEST_CASE("T10: a Data indication has the peer, the data, and padding of zeros") {
  Call call;
  for (const char* data : {"", "a", "ab", "abc", "abcd", "abcde"}) {
    call.tower.peer_sends("192.0.2.7:4444", call.alice, data);
    const auto got = call.alice.take();
    REQUIRE(got);
    const auto m = got->message();
    REQUIRE(m);
    CHECK(m->is(Class::indication, Method::data));
    CHECK(got->payload() == data);
    CHECK(stun::read_xor_address(*m->find(peer_type), m->transaction_id())->address == at("192.0.2.7:4444"));
    for (std::size_t i = 36 + std::string_view(data).size(); i < got->bytes.size(); ++i) CHECK(got->bytes[i] == 0);
  }
}

TEST_CASE("IPv6: the same path for both families") {
  Tower tower;
  auto& six = tower.client("[2001:db8::9]:5000");
  REQUIRE(six.allocates([](stun::Writer& w) {
    const std::array<std::uint8_t, 4> v6{2, 0, 0, 0};
    w.add(Attribute::requested_address_family, Bytes(v6));
  }) == 0);
  REQUIRE(six.permits("[2001:db8::7]:9") == 0);
  six.sends("[2001:db8::7]:9", "six");
  CHECK(tower.peer_got("[2001:db8::7]:9") == "six");
  tower.peer_sends("[2001:db8::7]:9", six, "back");
  CHECK(six.take()->payload() == "back");
  REQUIRE(six.binds(0x4000, "[2001:db8::7]:9") == 0);
  tower.peer_sends("[2001:db8::7]:9", six, "channel");
  CHECK(six.take()->is_channel_data());
}

TEST_CASE("X08: a user's bytes and packets a second are bounded, both directions together, over all allocations") {
  TowerOptions options;
  options.secrets = {"north"};
  options.limits.bytes_per_second_per_user = 100'000;
  options.limits.packets_per_second_per_user = 0;
  Tower tower(options);
  const std::string name = std::to_string(tower.now.unix_time + 3600) + ":u";
  auto& c = tower.client("203.0.113.9:5000", name, stun::rest_password("north", name));
  REQUIRE(c.allocates() == 0);
  REQUIRE(c.binds(0x4000, "192.0.2.7:9") == 0);
  const std::string kilobyte(1000, 'x');
  int sent = 0;
  for (int i = 0; i < 1000; ++i) c.sends_channel(0x4000, kilobyte);
  while (tower.take_sent()) ++sent;
  CHECK(sent >= 95);
  CHECK(sent <= 105);
  CHECK(tower.counters().dropped_user_limit == static_cast<std::uint64_t>(1000 - sent));
  tower.advance(500ms);
  for (int i = 0; i < 1000; ++i) tower.peer_sends("192.0.2.7:9", c, kilobyte);
  CHECK(c.inbox.size() >= 45);
  CHECK(c.inbox.size() <= 55);
}

TEST_CASE("G01 G03 T14: ICMP comes as a Data indication with type, code and MTU, even with a channel") {
  Call call;
  REQUIRE(call.alice.binds(0x4000, "192.0.2.7:9") == 0);
  struct Case {
    turn::Icmp icmp;
    std::uint32_t data;
  };
  for (const Case& c : {Case{{3, 3, 0}, 0}, Case{{3, 4, 1280}, 1280}, Case{{11, 0, 77}, 0}, Case{{3, 1, 1280}, 0}}) {
    call.tower.icmp("192.0.2.7:9", call.alice.relayed(), c.icmp);
    const auto got = call.alice.take();
    REQUIRE(got);
    const auto m = got->message();
    REQUIRE(m->is(Class::indication, Method::data));
    CHECK_FALSE(m->has(Attribute::data));
    CHECK(stun::read_xor_address(*m->find(peer_type), m->transaction_id())->address == at("192.0.2.7:9"));
    const auto value = m->find(Attribute::icmp);
    REQUIRE(value);
    REQUIRE(value->size() == 8);
    CHECK(load_be16(value->data()) == 0);
    CHECK(load_be16(value->data() + 2) == (c.icmp.type << 9 | c.icmp.code));
    CHECK(load_be32(value->data() + 4) == c.data);
  }
}

TEST_CASE("G02: ICMP about a destination without permission, or of another type, is dropped") {
  Call call;
  call.tower.icmp("192.0.2.8:9", call.alice.relayed(), {3, 3, 0});
  for (const int type : {0, 4, 5, 8, 12, 13}) call.tower.icmp("192.0.2.7:9", call.alice.relayed(), {static_cast<std::uint8_t>(type), 0, 0});
  CHECK(call.alice.quiet());
  CHECK(call.tower.counters().icmp_ignored == 7);
}
