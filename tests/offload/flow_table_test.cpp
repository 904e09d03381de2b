// Handles, slots and buckets: whoever holds an old handle reaches no other flow.
#include <doctest/doctest.h>

#include <set>

#include "tower.h"

using namespace radiotower;
using namespace radiotower::test;
using offload::no_flow;

namespace {

offload::Flow flow(const char* client, const char* peer, std::uint16_t number = channel) {
  return {at(client), at("10.0.0.1:3478"), at("10.0.1.1:50000"), at(peer), number, nullptr};
}

Time after(milliseconds elapsed) { return Time(seconds(1000)) + elapsed; }

struct Table {
  explicit Table(std::size_t slots) {
    std::string why;
    program = offload::Program::load({slots, 2, 1, 1}, why);
    REQUIRE(program != nullptr);
    buckets.emplace(program->buckets());
    flows.emplace(*program, *buckets);
  }
  std::unique_ptr<offload::Program> program;
  std::optional<offload::BucketPool> buckets;
  std::optional<offload::FlowTable> flows;
};

}  // namespace

TEST_CASE("a flow whose addresses are there already is refused, and leaves nothing behind") {
  NEEDS_NAMESPACE();
  Tower tower;
  const Call call = tower.call();
  CHECK(tower.offload().add(call.flow, never) == no_flow);
  CHECK(tower.offload().add(flow("10.0.0.2:5000", "10.0.1.2:6001"), never) == no_flow);          // the channel is taken
  CHECK(tower.offload().add(flow("10.0.0.2:5000", "10.0.1.2:6000", 0x4002), never) == no_flow);  // the peer is
  CHECK(tower.offload().flows() == 1);
  CHECK(tower.offload().add(flow("10.0.0.2:5000", "10.0.1.2:6002", 0x4002), never) !=
        no_flow);  // each half is free again
  CHECK(tower.offload().add(flow("10.0.0.2:5001", "10.0.1.2:6001"), never) != no_flow);
  CHECK(tower.offload().flows() == 3);
  CHECK(tower.inside(call.from_client(bytes(1))).outcome == "forwarded");
}

TEST_CASE("a full table says no, and a slot rests before another flow has it") {
  NEEDS_NAMESPACE();
  Table table(2);
  const auto a = table.flows->add(flow("10.0.0.2:1", "10.0.1.2:1"), never, after(milliseconds(0)));
  const auto b = table.flows->add(flow("10.0.0.2:2", "10.0.1.2:2"), never, after(milliseconds(0)));
  CHECK(a != no_flow);
  CHECK(b != no_flow);
  CHECK(table.flows->add(flow("10.0.0.2:3", "10.0.1.2:3"), never, after(milliseconds(0))) == no_flow);
  table.flows->remove(a, after(milliseconds(100)));
  CHECK(table.flows->add(flow("10.0.0.2:3", "10.0.1.2:3"), never, after(milliseconds(1099))) == no_flow);
  const auto c = table.flows->add(flow("10.0.0.2:3", "10.0.1.2:3"), never, after(milliseconds(1100)));
  CHECK(c != no_flow);
  CHECK(c != a);
  CHECK(static_cast<std::uint32_t>(c) == static_cast<std::uint32_t>(a));
  CHECK(table.flows->size() == 2);
}

TEST_CASE("an old handle reads, moves and removes nothing of its successor") {
  NEEDS_NAMESPACE();
  Table table(1);
  const auto old = table.flows->add(flow("10.0.0.2:1", "10.0.1.2:1"), never, after(milliseconds(0)));
  table.program->directions()[0].packets = 7;
  CHECK(table.flows->counts(old).packets_to_peer == 7);
  CHECK(table.flows->remove(old, after(milliseconds(0))).packets_to_peer == 7);
  CHECK(table.flows->remove(old, after(milliseconds(0))).packets_to_peer == 0);
  CHECK(table.flows->counts(old).packets_to_peer == 0);
  const auto next = table.flows->add(flow("10.0.0.2:1", "10.0.1.2:1"), after(milliseconds(5)), after(seconds(2)));
  table.program->directions()[0].packets = 9;
  table.flows->extend(old, Time{});
  CHECK(table.program->slots()[0].until == after(milliseconds(5)).time_since_epoch().count());
  CHECK(table.flows->counts(old).packets_to_peer == 0);
  CHECK(table.flows->remove(old, after(seconds(3))).packets_to_peer == 0);
  CHECK(table.flows->counts(next).packets_to_peer == 9);
  CHECK(table.flows->size() == 1);
  for (const offload::FlowId unknown : {no_flow, offload::FlowId{1}, ~offload::FlowId{0}}) {
    table.flows->extend(unknown, never);
    CHECK(table.flows->counts(unknown).packets_to_peer == 0);
    CHECK(table.flows->remove(unknown, after(seconds(3))).packets_to_peer == 0);
  }
}

TEST_CASE("the counts of a slot start at 0 for each flow") {
  NEEDS_NAMESPACE();
  Table table(1);
  const auto a = table.flows->add(flow("10.0.0.2:1", "10.0.1.2:1"), never, after(milliseconds(0)));
  for (auto& direction : table.program->directions()) direction.packets = direction.bytes = direction.dropped = 5;
  CHECK(table.flows->remove(a, after(milliseconds(0))).dropped_over_limit == 10);
  const auto b = table.flows->add(flow("10.0.0.2:1", "10.0.1.2:1"), never, after(seconds(1)));
  CHECK(table.flows->counts(b).packets_to_peer == 0);
  CHECK(table.flows->counts(b).bytes_to_client == 0);
  CHECK(table.flows->counts(b).dropped_over_limit == 0);
}

TEST_CASE("a slot serves many flows in turn, and the maps keep no entry of theirs") {
  NEEDS_NAMESPACE();
  Table table(4);
  std::set<offload::FlowId> ids;
  for (int round = 0; round < 200; ++round) {
    const auto id = table.flows->add(flow("10.0.0.2:1", "10.0.1.2:1"), never, after(seconds(2 * round)));
    REQUIRE(id != no_flow);
    CHECK(ids.insert(id).second);
    table.flows->remove(id, after(seconds(2 * round)));
  }
  CHECK(table.flows->size() == 0);
}

TEST_CASE("addresses that no packet can have, and those that are not the relay's, are refused") {
  NEEDS_NAMESPACE();
  Tower tower;
  const auto refused = [&](const char* client, const char* listener, const char* relay, const char* peer,
                           std::uint16_t number = channel) {
    return tower.offload().add({at(client), at(listener), at(relay), at(peer), number, nullptr}, never) == no_flow;
  };
  CHECK(refused("10.0.0.2:0", "10.0.0.1:3478", "10.0.1.1:50000", "10.0.1.2:6000"));
  CHECK(refused("10.0.0.2:1", "10.0.0.1:3478", "10.0.1.1:50000", "10.0.1.2:0"));
  CHECK(refused("0.0.0.0:1", "10.0.0.1:3478", "10.0.1.1:50000", "10.0.1.2:6000"));
  CHECK(refused("10.0.0.2:1", "10.0.0.1:3478", "10.0.1.1:50000", "127.0.0.1:6000"));
  CHECK(refused("10.0.0.2:1", "10.0.0.1:3478", "10.0.1.1:50000", "224.0.0.1:6000"));
  CHECK(refused("10.0.0.2:1", "10.0.0.1:3478", "[fd00:2::1]:50000", "[fe80::1]:6000"));
  CHECK(refused("10.0.0.2:1", "[fd00:1::1]:3478", "10.0.1.1:50000", "10.0.1.2:6000"));  // two families
  CHECK(refused("10.0.0.2:1", "10.0.0.1:3478", "10.0.1.1:50000", "[fd00:2::2]:6000"));
  CHECK(refused("10.0.0.2:1", "10.0.0.7:3478", "10.0.1.1:50000", "10.0.1.2:6000"));  // not ours
  CHECK(refused("10.0.0.2:1", "10.0.0.1:3478", "10.0.1.7:50000", "10.0.1.2:6000"));
  CHECK(refused("10.0.0.2:1", "10.0.0.1:3478", "10.0.1.1:50000", "10.0.1.1:50002"));  // our own relayed address
  CHECK(refused("10.0.0.2:1", "10.0.0.1:3478", "10.0.1.1:50000", "10.0.1.2:6000", 0x3fff));
  CHECK(refused("10.0.0.2:1", "10.0.0.1:3478", "10.0.1.1:50000", "10.0.1.2:6000", 0x8000));
  CHECK(tower.offload().flows() == 0);
  CHECK_FALSE(refused("10.0.0.2:1", "10.0.0.1:3478", "10.0.1.1:50000", "10.0.1.2:6000"));
}

TEST_CASE("buckets: as many as users, zeroed, and none of anybody else") {
  NEEDS_NAMESPACE();
  Table table(2);
  Bucket* a = table.buckets->take();
  Bucket* b = table.buckets->take();
  REQUIRE(a != nullptr);
  REQUIRE(b != nullptr);
  CHECK(a != b);
  CHECK(table.buckets->take() == nullptr);
  a->byte_rate = 5;
  a->bytes_full_at = 7;
  table.buckets->give_back(a);
  CHECK(table.buckets->take() == a);
  CHECK(a->byte_rate == 0);
  CHECK(a->bytes_full_at == 0);
  Bucket own;
  offload::Flow limited = flow("10.0.0.2:1", "10.0.1.2:1");
  limited.bucket = &own;
  CHECK(table.flows->add(limited, never, after(milliseconds(0))) == no_flow);
  limited.bucket = b;
  CHECK(table.flows->add(limited, never, after(milliseconds(0))) != no_flow);
}
