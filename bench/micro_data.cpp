// The data path: how a datagram finds its allocation among many, and trains of every form, both ways.
#include <benchmark/benchmark.h>

#include <random>

#include "micro_relay.h"

namespace {

using namespace radiotower;
using namespace radiotower::micro;

constexpr std::size_t payload = 1000, short_payload = 300;
constexpr std::size_t header = stun::channel_header_size;

// Finding. Argument: allocations. The order is random, so that with many of them nothing of the next one is in a cache.

const std::vector<std::uint32_t>& random_order(std::size_t below) {
  static std::vector<std::uint32_t> order(1 << 16);
  std::mt19937 engine(1);
  std::uniform_int_distribution<std::uint32_t> any(0, static_cast<std::uint32_t>(below) - 1);
  for (auto& index : order) index = any(engine);
  return order;
}

void allocations(benchmark::internal::Benchmark* b) {
  for (const int count : {100, 1000, 16000, 32768}) b->Arg(count);
}

// From a random client to its peer: the table of 5-tuples, then the allocation, its channel, its permission.
void find_by_five_tuple(benchmark::State& state) {
  Relay& r = Relay::with(static_cast<std::size_t>(state.range(0)));
  const auto& order = random_order(r.clients.size());
  Received received(channel_data(sizes(1, 100)));
  net::FiveTuple from = r.five_tuple();
  std::size_t i = 0;
  for (auto _ : state) {
    // Worked out: to look it up would be a cache miss of our own.
    from.client = Relay::address_of(order[i++ % order.size()]);
    r.server->from_client(from, listener, received.train(), r.now, r.actions);
    if (r.actions.sends.size() != 1) state.SkipWithError("not relayed");
    r.actions.clear();
  }
}
BENCHMARK(find_by_five_tuple)->Apply(allocations);

// From addresses that have no allocation: the table alone.
void miss_by_five_tuple(benchmark::State& state) {
  Relay& r = Relay::with(static_cast<std::size_t>(state.range(0)));
  const auto& order = random_order(r.clients.size());
  Received received(channel_data(sizes(1, 100)));
  net::FiveTuple stranger = r.five_tuple();
  std::size_t i = 0;
  for (auto _ : state) {
    stranger.client.ip = net::IpAddress::v4(0x0B000000 + order[i++ % order.size()]);
    r.server->from_client(stranger, listener, received.train(), r.now, r.actions);
    if (!r.actions.sends.empty()) state.SkipWithError("relayed");
  }
}
BENCHMARK(miss_by_five_tuple)->Apply(allocations);

// From a peer to the relay port of a random client.
void find_by_relay_id(benchmark::State& state) {
  Relay& r = Relay::with(static_cast<std::size_t>(state.range(0)));
  const auto& order = random_order(r.clients.size());
  std::vector<turn::RelayId> relays;  // in the order of use, so that they are prefetched
  for (const std::uint32_t index : order) relays.push_back(r.clients[index].relay);
  Received received(Buffer(100));
  std::size_t i = 0;
  for (auto _ : state) {
    r.server->from_peer(relays[i++ % relays.size()], r.peer, received.train(), r.now, r.actions);
    if (r.actions.sends.size() != 1) state.SkipWithError("not relayed");
    r.actions.clear();
  }
}
BENCHMARK(find_by_relay_id)->Apply(allocations);

// Trains. Argument: datagrams. Times are a train's; items a second are datagrams.

void trains(benchmark::internal::Benchmark* b) {
  for (const int count : {1, 2, 4, 8, 32}) b->Arg(count);
}
void trains_of_two_and_more(benchmark::internal::Benchmark* b) {
  for (const int count : {2, 4, 8, 32}) b->Arg(count);
}

void to_peer(benchmark::State& state, const Buffer& bytes, std::size_t segment) {
  Relay r;
  const auto count = static_cast<std::size_t>(state.range(0));
  Received received(bytes);
  for (auto _ : state) {
    r.server->from_client(r.five_tuple(), listener, received.train(count > 1 ? segment : 0), r.now, r.actions);
    benchmark::DoNotOptimize(r.actions.sends.data());
    if (r.actions.sends.empty()) state.SkipWithError("not relayed");
    r.actions.clear();
  }
  r.server->from_client(r.five_tuple(), listener, received.train(count > 1 ? segment : 0), r.now, r.actions);
  if (datagrams(r.actions) != count) state.SkipWithError("not all of the train was relayed");
  state.counters["sends"] = static_cast<double>(r.actions.sends.size());
  state.SetItemsProcessed(static_cast<std::int64_t>(state.iterations() * count));
}

void to_client(benchmark::State& state, const net::TransportAddress& peer, std::size_t last) {
  Relay r;
  const auto count = static_cast<std::size_t>(state.range(0));
  Received received(Buffer((count - 1) * payload + last));
  for (auto _ : state) {
    r.server->from_peer(r.clients.front().relay, peer, received.train(count > 1 ? payload : 0), r.now, r.actions);
    benchmark::DoNotOptimize(r.actions.sends.data());
    if (r.actions.sends.empty()) state.SkipWithError("not relayed");
    r.actions.clear();
  }
  r.server->from_peer(r.clients.front().relay, peer, received.train(count > 1 ? payload : 0), r.now, r.actions);
  if (datagrams(r.actions) != count) state.SkipWithError("not all of the train was relayed");
  state.counters["sends"] = static_cast<double>(r.actions.sends.size());
  state.SetItemsProcessed(static_cast<std::int64_t>(state.iterations() * count));
}

std::size_t count_of(const benchmark::State& state) { return static_cast<std::size_t>(state.range(0)); }

void to_peer_whole(benchmark::State& state) {
  to_peer(state, channel_data(sizes(count_of(state), payload)), header + payload);
}
BENCHMARK(to_peer_whole)->Apply(trains);

void to_peer_short_last(benchmark::State& state) {
  to_peer(state, channel_data(sizes(count_of(state), payload, short_payload)), header + payload);
}
BENCHMARK(to_peer_short_last)->Apply(trains_of_two_and_more);

// Padding is not asked for over UDP, but allowed (RFC 8656, 12.5): three bytes that must not reach the peer.
void to_peer_padded(benchmark::State& state) {
  to_peer(state, channel_data(sizes(count_of(state), payload + 1), true), header + payload + 4);
}
BENCHMARK(to_peer_padded)->Apply(trains);

// Each datagram on another channel than the one before: the worst a client can do.
void to_peer_mixed_channels(benchmark::State& state) {
  to_peer(state, channel_data(sizes(count_of(state), payload), false, true), header + payload);
}
BENCHMARK(to_peer_mixed_channels)->Apply(trains_of_two_and_more);

void to_peer_send_indications(benchmark::State& state) {
  const Buffer one = send_indication(at("198.51.100.7:5000"), payload);
  Buffer all;
  for (std::size_t i = 0; i < count_of(state); ++i) all.insert(all.end(), one.begin(), one.end());
  to_peer(state, all, one.size());
}
BENCHMARK(to_peer_send_indications)->Arg(1)->Arg(8);

void to_client_whole(benchmark::State& state) { to_client(state, at("198.51.100.7:5000"), payload); }
BENCHMARK(to_client_whole)->Apply(trains);

void to_client_short_last(benchmark::State& state) { to_client(state, at("198.51.100.7:5000"), short_payload); }
BENCHMARK(to_client_short_last)->Apply(trains_of_two_and_more);

// A peer with a permission and no channel.
void to_client_data_indications(benchmark::State& state) { to_client(state, at("203.0.113.9:5002"), payload); }
BENCHMARK(to_client_data_indications)->Arg(1)->Arg(8);

}  // namespace
