// Prints what the program costs a packet, without a driver: BPF_PROG_TEST_RUN, root.
//
//     build/tests/offload/offload-time [ROUNDS]
//
// The kernel gives each run the frame that the run before has made. So two flows send to each other: their ChannelData
// is nested forty times towards the peers, and grows by a header a run towards the clients. The first run of each round
// is a cold one among forty.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <vector>

#include "capabilities.h"
#include "tower.h"

using namespace radiotower;
using namespace radiotower::test;

namespace {

constexpr unsigned repeat = 40;

void measure(const char* name, Tower& tower, const Octets& frame, int rounds) {
  std::vector<unsigned> times;
  for (int i = 0; i < rounds; ++i) times.push_back(tower.time(frame, repeat));
  std::sort(times.begin(), times.end());
  std::printf("%-40s median %4u ns, p10 %4u ns, p90 %4u ns (%d rounds of %u)\n", name, times[times.size() / 2],
              times[times.size() / 10], times[times.size() * 9 / 10], rounds, repeat);
}

void measure_family(bool v4, bool limited, int rounds) {
  const char* const host = v4 ? "10.0.0.3" : "fd00:1::3";
  const char* const other = v4 ? "10.0.0.2" : "fd00:1::2";
  const auto address = [](const char* ip, std::uint16_t port) {
    return net::TransportAddress{net::IpAddress::parse(ip).value(), port, 0};
  };
  // Each flow's output is the other's input, which only a test can arrange: one's relay and peer are the other's client
  // and listener, and both lie with neighbours.
  Tower tower({address(host, 1).ip, address(other, 1).ip});
  offload::Program& program = tower.offload().program();
  offload::BucketPool buckets(program.buckets());
  offload::FlowTable flows(program, buckets);
  Bucket* bucket = nullptr;
  if (limited) {
    bucket = buckets.take();
    bucket->byte_rate = bucket->packet_rate = 1'000'000'000'000;
  }
  const auto client = address(other, 5000), listener = address(host, 3478);
  const auto turned_client = address(host, 5001), turned_listener = address(other, 3479);
  // Towards peers: client -> listener becomes turned_client -> turned_listener, and back.
  flows.add({client, listener, turned_client, turned_listener, channel, bucket}, never, steady_now());
  flows.add({turned_client, turned_listener, client, listener, channel, bucket}, never, steady_now());
  // Towards clients: peer -> relay becomes relay' -> peer', and back.
  const auto peer = address(other, 6000), relay = address(host, 50000);
  const auto turned_peer = address(host, 6001), turned_relay = address(other, 50001);
  flows.add({turned_relay, turned_peer, relay, peer, channel, bucket}, never, steady_now());
  flows.add({relay, peer, turned_relay, turned_peer, channel, bucket}, never, steady_now());

  Datagram up;
  up.source = client;
  up.destination = listener;
  up.payload = bytes(840);
  for (unsigned i = 0; i < repeat; ++i) up.payload = channel_data(channel, up.payload);
  Datagram down;
  down.source = peer;
  down.destination = relay;
  down.payload = bytes(1000);

  const std::string kind = std::string(v4 ? "IPv4" : "IPv6") + (limited ? ", limited" : "");
  auto before = program.outcomes();
  measure((kind + ": client to peer").c_str(), tower, frame(up), rounds);
  measure((kind + ": peer to client").c_str(), tower, frame(down), rounds);
  const auto after = program.outcomes();
  const auto expected = 2 * static_cast<std::uint64_t>(rounds) * repeat;
  if (after[offload::outcome_forwarded] - before[offload::outcome_forwarded] != expected) {
    std::printf("not all of them were forwarded:");
    for (const auto& outcome : tower.offload().outcomes())
      if (outcome.packets != 0)
        std::printf(" %s=%llu", std::string(outcome.name).c_str(), static_cast<unsigned long long>(outcome.packets));
    std::printf("\n");
    std::exit(1);
  }

  Datagram foreign = up;
  foreign.destination = address(v4 ? "10.9.9.9" : "fd00:9::9", 443);
  measure((kind + ": not ours").c_str(), tower, frame(foreign), rounds);
}

}  // namespace

int main(int count, char** values) {
  std::string why;
  if (!enter_namespace(why)) {
    std::fprintf(stderr, "offload-time: %s\n", why.c_str());
    return 77;
  }
  for (const char* host : {"10.0.0.3", "fd00:1::3"})
    run(std::string("ip neigh replace ") + host + " lladdr 02:00:00:00:01:02 dev inside0 nud permanent");
  const int rounds = count > 1 ? std::max(std::atoi(values[1]), 10) : 5000;
  // With CAP_PERFMON the kernel trusts the program not to speculate, and leaves its barriers out.
  for (const bool trusted : {true, false}) {
    std::printf("%s CAP_PERFMON\n", trusted ? "with" : "without");
    if (!keep_capabilities(net_admin | bpf | (trusted ? perfmon : 0))) return 77;
    try {
      measure_family(true, false, rounds);
      measure_family(true, true, rounds);
      measure_family(false, false, rounds);
    } catch (const std::exception& refusal) {
      std::printf("%s\n", refusal.what());
    }
  }
  return 0;
}
