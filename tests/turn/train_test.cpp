// Trains (UDP GRO): a received train must be worth exactly what its datagrams are worth one by one (RFC 8656, 12.5 and 12.6).
#include <doctest/doctest.h>

#include <algorithm>
#include <random>

#include "harness.h"

using namespace radiotower;
using namespace radiotower::test;
using namespace std::chrono_literals;

namespace {

struct Call {
  explicit Call(TowerOptions options = {}) : tower(std::move(options)), alice(tower.client("203.0.113.9:5000")) {
    REQUIRE(alice.allocates() == 0);
    REQUIRE(alice.binds(0x4000, "192.0.2.7:9") == 0);
    REQUIRE(alice.binds(0x4001, "192.0.2.7:10") == 0);
  }
  std::vector<std::string> peers_got() {
    std::vector<std::string> all;
    while (const auto sent = tower.take_sent()) all.push_back(sent->to.text() + " " + sent->data);
    return all;
  }
  Tower tower;
  Client& alice;
};

using Datagram = std::vector<std::uint8_t>;

Datagram channel_data(std::uint16_t number, std::size_t length, std::size_t padding = 0, char fill = 'x') {
  Datagram v(4 + length + padding, 0xEE);
  store_be16(v.data(), number);
  store_be16(v.data() + 2, static_cast<std::uint16_t>(length));
  std::fill_n(v.begin() + 4, length, static_cast<std::uint8_t>(fill));
  return v;
}

/// The datagrams as one buffer: all but the last must have the size of the first.
Datagram joined(const std::vector<Datagram>& train) {
  Datagram all;
  for (const auto& one : train) all.insert(all.end(), one.begin(), one.end());
  return all;
}

/// Both ways into two calls alike, and the same must come out.
std::size_t check_worth(const std::vector<Datagram>& train) {
  Call together, apart;
  std::size_t actions = 0;
  {
    // As the worker does it, to see how many sends a train becomes.
    const Datagram bytes = joined(train);
    std::vector<std::uint8_t> buffer(64);
    for (const auto byte : bytes) buffer.push_back(byte);
    for (int i = 0; i < 16; ++i) buffer.push_back(0);
    turn::Actions out;
    together.tower.server->from_client(together.alice.five_tuple, 1, {{buffer.data() + 64, bytes.size()}, static_cast<std::uint16_t>(train[0].size())},
                                       together.tower.now, out);
    actions = out.sends.size();
  }
  together.tower.input(together.alice.five_tuple, joined(train), static_cast<std::uint16_t>(train[0].size()));
  for (int twice = 0; twice < 2; ++twice)
    for (const auto& one : train) apart.tower.input(apart.alice.five_tuple, one);
  const auto got = together.peers_got();
  auto expected = apart.peers_got();
  expected.resize(expected.size() / 2);
  CHECK(got == expected);
  std::vector<std::uint64_t> a, b;
  together.tower.counters().for_each([&](std::string_view, std::uint64_t v) { a.push_back(v); });
  apart.tower.counters().for_each([&](std::string_view, std::uint64_t v) { b.push_back(v); });
  CHECK(a == b);
  return actions;
}

}  // namespace

TEST_CASE("12.6: trains leave in as few sends as their datagrams allow, and every one of these arrives") {
  const Datagram a = channel_data(0x4000, 20), other = channel_data(0x4001, 20), padded = channel_data(0x4000, 17, 3);
  const Datagram lie = [] {
    Datagram v = channel_data(0x4000, 20);
    store_be16(v.data() + 2, 21);
    return v;
  }();
  const Datagram stun = [] {  // a Binding request of 24 bytes: RFC 8489, 5, and no attribute but an unknown optional one
    Datagram v(24, 0);
    store_be16(v.data(), 1);
    store_be16(v.data() + 2, 4);
    store_be32(v.data() + 4, 0x2112A442);
    store_be16(v.data() + 20, 0xC001);
    return v;
  }();
  struct Case {
    const char* what;
    std::vector<Datagram> train;
    std::size_t sends;
  };
  const Case cases[] = {
      {"all of one channel", {a, a, a, a}, 1},
      {"a shorter last one", {a, a, channel_data(0x4000, 5)}, 1},
      {"an empty last one leaves alone", {a, a, channel_data(0x4000, 0)}, 2},
      {"all padded alike (12.5)", {padded, padded, padded}, 1},
      {"padded, the last one as long and not padded", {padded, padded, channel_data(0x4000, 17)}, 1},
      {"padded, the last one shorter and padded", {padded, padded, channel_data(0x4000, 6, 2)}, 1},
      {"padded differently: shorter, then longer", {a, padded, a}, 2},
      {"shorter ones by padding, one after the other", {padded, channel_data(0x4000, 16, 4), channel_data(0x4000, 16, 4)}, 2},
      {"two channels, block by block", {a, a, other, other}, 2},
      {"two channels in turn", {a, other, a, other}, 4},
      {"a length that is a lie in the middle", {a, a, lie, a, a}, 2},
      {"a length that is a lie in front", {lie, a, a}, 1},
      {"an unbound channel in the middle", {a, channel_data(0x4002, 20), a}, 2},
      {"a STUN message in the middle", {a, a, stun, a, a}, 3},
      {"neither STUN nor ChannelData", {a, Datagram(24, 0xFF), a}, 2},
      {"a last one that is cut", {a, a, Datagram(3, 0x40)}, 1},
      {"one that is no train", {a}, 1},
      {"empty ones", {channel_data(0x4000, 0), channel_data(0x4000, 0)}, 2},
      {"nothing but headers with padding", {channel_data(0x4000, 0, 20), channel_data(0x4000, 0, 20)}, 2},
  };
  for (const Case& c : cases) {
    CAPTURE(c.what);
    CHECK(check_worth(c.train) == c.sends);
  }
}

TEST_CASE("any train is worth what its datagrams are worth one by one") {
  std::mt19937 random(20261125);
  const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random() % n); };
  for (int round = 0; round < 300; ++round) {
    const std::size_t stride = 5 + below(40), count = 1 + below(12);
    std::vector<Datagram> train;
    for (std::size_t k = 0; k < count; ++k) {
      const std::size_t size = k + 1 == count ? 1 + below(stride) : stride;
      Datagram one(size, 0);
      for (auto& byte : one) byte = static_cast<std::uint8_t>(random());
      if (size >= 4 && below(10) != 0) {
        store_be16(one.data(), static_cast<std::uint16_t>(below(8) == 0 ? 0x4001 : 0x4000));
        const std::size_t room = size - 4;
        store_be16(one.data() + 2, static_cast<std::uint16_t>(below(6) != 0 ? room : below(room + 2)));
      }
      train.push_back(std::move(one));
    }
    CAPTURE(round);
    check_worth(train);
  }
}

TEST_CASE("12.5: a train from a peer becomes ChannelData datagram by datagram, the last with its own length") {
  Call call;
  call.tower.peer_sends("192.0.2.7:9", call.alice, "aaaaaabbbbbbcccccc", 6);
  call.tower.peer_sends("192.0.2.7:9", call.alice, "ddddddeeeeeeff", 6);
  call.tower.peer_sends("192.0.2.7:9", call.alice, "ggg", 6);
  for (const char* expected : {"aaaaaa", "bbbbbb", "cccccc", "dddddd", "eeeeee", "ff", "ggg"}) {
    const auto got = call.alice.take();
    REQUIRE(got);
    REQUIRE(got->is_channel_data());
    CHECK(load_be16(got->bytes.data()) == 0x4000);
    CHECK(load_be16(got->bytes.data() + 2) == std::string_view(expected).size());
    CHECK(got->payload() == expected);
  }
  CHECK(call.alice.quiet());
  CHECK(call.tower.counters().packets_to_client == 7);
  CHECK(call.tower.counters().bytes_to_client == 35);
}

TEST_CASE("11.3: a train from a peer without a channel becomes a Data indication for each of its datagrams") {
  Call call;
  REQUIRE(call.alice.permits("192.0.2.8:1") == 0);
  call.tower.peer_sends("192.0.2.8:77", call.alice, "aaaaaabbbbbbc", 6);
  for (const char* expected : {"aaaaaa", "bbbbbb", "c"}) {
    const auto got = call.alice.take();
    REQUIRE(got);
    const auto message = stun::Message::read(got->bytes);
    REQUIRE(message);
    const auto data = message->find(stun::Attribute::data);
    REQUIRE(data);
    CHECK(as_text(*data) == expected);
  }
  CHECK(call.alice.quiet());
}

TEST_CASE("a train is charged whole: over the user's limit none of it passes, and each datagram is counted") {
  TowerOptions options;
  options.secrets = {};
  options.users = {{"alice", "secret", {}, {}, 1000}};
  Call call(options);
  std::vector<Datagram> train(4, channel_data(0x4000, 100));
  call.tower.input(call.alice.five_tuple, joined(train), 104);
  CHECK(call.peers_got().size() == 4);
  train.assign(10, channel_data(0x4000, 100));
  call.tower.input(call.alice.five_tuple, joined(train), 104);
  CHECK(call.peers_got().empty());
  CHECK(call.tower.counters().dropped_user_limit == 10);
  call.tower.advance(1s);
  call.tower.input(call.alice.five_tuple, joined(train), 104);
  CHECK(call.peers_got().size() == 10);
}

TEST_CASE("a train that has lost its permission, its channel or its allocation is dropped and counted, datagram by datagram") {
  Call call;
  const Datagram train = joined(std::vector<Datagram>(5, channel_data(0x4000, 8)));
  call.tower.advance(301s);
  call.tower.input(call.alice.five_tuple, train, 12);
  CHECK(call.tower.counters().dropped_no_permission == 5);
  call.tower.peer_sends("192.0.2.7:9", call.alice, "aaaabbbbcc", 4);
  CHECK(call.tower.counters().dropped_peer_no_permission == 3);
  REQUIRE(call.alice.refreshes() == 0);
  call.tower.advance(300s);
  call.tower.input(call.alice.five_tuple, train, 12);
  CHECK(call.tower.counters().dropped_no_channel == 5);
  call.alice.learns_nonce();
  REQUIRE(call.alice.refreshes(0) == 0);
  call.tower.input(call.alice.five_tuple, train, 12);
  CHECK(call.tower.counters().dropped_no_allocation == 5);
  CHECK(call.tower.peers_quiet());
}
