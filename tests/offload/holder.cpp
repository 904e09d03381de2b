// Holds an Offload for tests/offload/run: started with interfaces, addresses and --alive MILLISECONDS, then obeys one
// command a line and answers each with one.
//
//   add CLIENT LISTENER RELAY PEER CHANNEL [BYTES PACKETS]   -> "flow N", or "no flow"
//   until N MILLISECONDS     from now        remove N        counts N        outcomes
//   stop-keepalive           and answer "stopped"            hang            sleeps and answers nothing more
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <sstream>
#include <thread>
#include <vector>

#include "capabilities.h"
#include "radiotower/offload/offload.h"

namespace {

using namespace radiotower;
using namespace radiotower::offload;

// How long a beat of keep_alive lasts; there are eight in that time, so that a busy machine may miss some.
constexpr int beats = 8;

Time now() {
  return Time(std::chrono::duration_cast<nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()));
}

[[noreturn]] void fail(const std::string& sentence) {
  std::fprintf(stderr, "offload-holder: %s\n", sentence.c_str());
  std::exit(2);
}

net::TransportAddress address(const std::string& text) {
  const auto parsed = net::TransportAddress::parse(text);
  if (!parsed) fail("no address: " + text);
  return *parsed;
}

void answer(const std::string& line) { std::cout << line << std::endl; }

std::string text_of(const Counts& c) {
  std::ostringstream out;
  out << "counts " << c.packets_to_peer << ' ' << c.bytes_to_peer << ' ' << c.packets_to_client << ' '
      << c.bytes_to_client << ' ' << c.dropped_over_limit;
  return out.str();
}

FlowId add(Offload& offload, std::istringstream& words) {
  std::string client, listener, relay, peer, channel;
  std::uint64_t bytes = 0, packets = 0;
  words >> client >> listener >> relay >> peer >> channel >> bytes >> packets;
  Flow flow{address(client),
            address(listener),
            address(relay),
            address(peer),
            static_cast<std::uint16_t>(std::stoul(channel, nullptr, 16)),
            nullptr};
  if (bytes != 0 || packets != 0) {
    Bucket* bucket = offload.buckets().take();
    if (!bucket) return no_flow;
    bucket->byte_rate = bytes;
    bucket->packet_rate = packets;
    flow.bucket = bucket;
  }
  return offload.add(flow, now() + seconds(3600));
}

void serve(Offload& offload, std::atomic<bool>& beating) {
  std::vector<FlowId> flows;
  const auto flow_of = [&](std::istringstream& words) {
    std::size_t number = 0;
    words >> number;
    return number < flows.size() ? flows[number] : no_flow;
  };
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    std::string command;
    words >> command;
    if (command == "add") {
      const FlowId flow = add(offload, words);
      if (flow != no_flow) flows.push_back(flow);
      answer(flow == no_flow ? "no flow" : "flow " + std::to_string(flows.size() - 1));
    } else if (command == "until") {
      const FlowId flow = flow_of(words);
      long from_now = 0;
      words >> from_now;
      offload.extend(flow, now() + milliseconds(from_now));
      answer("extended");
    } else if (command == "remove") {
      answer(text_of(offload.remove(flow_of(words))));
    } else if (command == "counts") {
      answer(text_of(offload.counts(flow_of(words))));
    } else if (command == "outcomes") {
      std::string all = "outcomes";
      for (const Outcome& outcome : offload.outcomes())
        if (outcome.packets != 0) all += " " + std::string(outcome.name) + "=" + std::to_string(outcome.packets);
      answer(all);
    } else if (command == "stop-keepalive") {
      beating = false;
      answer("stopped");
    } else if (command == "hang") {
      beating = false;
      for (;;) pause();
    } else {
      answer("unknown");
    }
  }
}

}  // namespace

int main(int count, char** values) {
  OffloadSettings settings;
  milliseconds alive{80};
  bool trusted = true;
  for (int i = 1; i < count; ++i) {
    const std::string option = values[i];
    const std::string value = i + 1 < count ? values[i + 1] : "";
    if (option == "--automatic") {
      settings.automatic = true;
      continue;
    }
    if (option == "--without-perfmon") {
      trusted = false;
      continue;
    }
    ++i;
    if (option == "--interface")
      settings.interfaces.push_back({value, false});
    else if (option == "--generic")
      settings.interfaces.push_back({value, true});
    else if (option == "--address")
      settings.addresses.push_back(net::IpAddress::parse(value).value_or(net::IpAddress{}));
    else if (option == "--alive")
      alive = milliseconds(std::stol(value));
    else
      fail("unknown option " + option);
  }
  if (!test::keep_capabilities(test::net_admin | test::bpf | (trusted ? test::perfmon : 0))) {
    answer("not permitted: needs CAP_NET_ADMIN, CAP_BPF and CAP_PERFMON");
    return 1;
  }
  std::string why;
  const auto offload = start(settings, why);
  if (!offload) {
    answer("not started: " + why);
    return 1;
  }
  test::keep_capabilities(0);
  std::atomic<bool> beating = true;
  offload->keep_alive(now() + alive);
  std::jthread heart([&](const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      if (beating) offload->keep_alive(now() + alive);
      std::this_thread::sleep_for(alive / beats);
    }
  });
  std::string ready = "ready";
  for (const Attached& on : offload->attached()) ready += " " + on.name + (on.native ? ":native" : ":generic");
  for (const std::string& note : offload->notes()) ready += " | " + note;
  answer(ready);
  serve(*offload, beating);
  return 0;
}
