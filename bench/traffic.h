// Packets through all sessions in turn, for a time, and what they cost.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "payload.h"
#include "sessions.h"

namespace radiotower::bench {

struct TrafficResult {
  std::uint64_t sent = 0;       // datagrams
  std::uint64_t delivered = 0;  // datagrams that the receiver has got whole and from the right place
  std::uint64_t wrong = 0;      // datagrams that were not
  std::uint64_t send_errors = 0;
  std::int64_t elapsed_ns = 0;
  std::int64_t server_cpu_ns = 0;
  std::int64_t load_cpu_ns = 0;     // of this program, less the time it span with nothing to do
  std::int64_t machine_cpu_ns = 0;  // of all CPUs, less the same
  std::int64_t latency_p50_us = 0, latency_p99_us = 0, latency_max_us = 0;
};

/// One thread that sends and receives, so that it needs one core and never outruns its own receiving.
///
/// It waits on no socket but looks at them in turn: a socket somebody sleeps on makes the one who delivers to it pay
/// for the waking, and on loopback that is the server.
class Traffic {
 public:
  Traffic(Sessions& sessions, const Options& options);
  ~Traffic();

  /// `rate`: datagrams a second over all sessions, evenly spaced; 0: as many as can be sent. A tenth of `seconds`
  /// more goes before, uncounted, and afterwards the queues are emptied.
  TrafficResult run(Direction direction, double rate, double seconds);

 private:
  struct Receiver;
  void send_to_server(std::uint32_t count);
  void send_to_relayed(std::uint32_t count);
  std::uint32_t receive_at_peers();
  std::uint32_t receive_at_clients(std::uint32_t sockets);
  std::uint32_t receive(std::uint32_t count) {
    return direction_ == Direction::to_peer ? receive_at_peers() : receive_at_clients(count < 4 ? 4 : count);
  }
  void take(Bytes datagram, std::uint32_t index, const sockaddr_in& source, std::int64_t now);
  void count_latency(std::int64_t ns);
  std::int64_t percentile(double share) const;

  Sessions& sessions_;
  Options options_;
  Payload payload_;
  Direction direction_ = Direction::to_peer;
  std::uint32_t run_ = 0;
  TrafficResult result_;
  std::vector<std::uint32_t> latency_;  // packets a microsecond of delay
  std::vector<std::uint8_t> packets_;   // what is sent: a train for each message of a batch
  std::uint32_t next_sender_ = 0, next_receiver_ = 0;
  std::vector<std::vector<std::uint32_t>> sessions_of_peer_;
  std::vector<std::uint32_t> next_of_peer_;
  std::unique_ptr<Receiver> receiver_;
};

}  // namespace radiotower::bench
