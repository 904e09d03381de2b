// Strangers who send junk to a server, and a client who asks it for allocations meanwhile. A thread each, beside the
// traffic.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "credentials.h"
#include "histogram.h"
#include "radiotower/net/address.h"

namespace radiotower::load {

struct FloodOptions {
  net::TransportAddress server;
  double rate = 0;          // datagrams a second; 0: as many as can be sent
  std::uint32_t train = 1;  // datagrams a send (UDP GSO): one core then makes many times what a server's core can take
  int core = -1;            // -1: where the rest of the program runs
  std::uint32_t sources = 64;
  std::uint32_t addresses = 8;  // over loopback: sources come from so many, none of which is a client's
  std::string netns;
};

struct FloodResult {
  std::uint64_t sent = 0, send_errors = 0;
  std::int64_t elapsed_ns = 0, cpu_ns = 0;
};

/// Random bytes, Binding requests, Allocates without credentials, ChannelData of nobody's channel, and STUN that is
/// malformed, in turn, from many sockets. It reads no answers: their sockets have room for hardly any.
class Flood {
 public:
  /// Opens the sockets and begins. Throws std::runtime_error with a sentence.
  explicit Flood(const FloodOptions& options);
  ~Flood();
  FloodResult stop();

 private:
  void run();
  FloodOptions options_;
  std::vector<int> sockets_;
  std::atomic<bool> is_stopping_{false};
  FloodResult result_;
  std::thread thread_;
};

struct ProbeResult {
  std::uint64_t tries = 0, failures = 0, retransmissions = 0;
  Histogram latency;         // from the first request to the allocation, the 401 and what had to be sent again included
  std::string last_failure;  // a sentence
};

/// A new client every few milliseconds, each with a socket of its own: Allocate, then Refresh with lifetime 0.
class Probe {
 public:
  Probe(const net::TransportAddress& server, const cli::Credential& credential, const std::string& netns);
  ~Probe();
  ProbeResult stop();

 private:
  void run();
  net::TransportAddress server_;
  cli::Credential credential_;
  std::string netns_;
  std::atomic<bool> is_stopping_{false};
  ProbeResult result_;
  std::thread thread_;
};

}  // namespace radiotower::load
