// Packets by a schedule, or as many as can be sent, and what they cost.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "histogram.h"
#include "outbox.h"
#include "payload.h"
#include "schedule.h"
#include "sessions.h"

namespace radiotower::load {

struct TrafficResult {
  std::uint64_t sent = 0;  // datagrams
  std::uint64_t delivered =
      0;  // that came whole and from the right place while it was counted: what CPU time is divided by
  std::uint64_t arrived = 0;  // of those sent: also the ones that came after the end; what is missing was lost
  std::uint64_t wrong = 0;    // datagrams that were not whole, or from elsewhere
  std::uint64_t send_errors = 0;
  std::uint64_t own_drops = 0;  // lost because a socket of the load was full
  std::int64_t elapsed_ns = 0;
  std::int64_t server_cpu_ns = 0;
  std::int64_t load_cpu_ns = 0;     // of this program's thread, less the time it span with nothing to do
  std::int64_t machine_cpu_ns = 0;  // of all CPUs, less the same
  std::int64_t softirq_cpu_ns = 0;  // of ksoftirqd
  Histogram latency;                // from the send to the receipt of a packet
  Histogram lateness;               // of the load: from when a packet was due to its send

  double loss() const {
    return sent == 0 || arrived >= sent ? 0 : static_cast<double>(sent - arrived) / static_cast<double>(sent);
  }
  double delivered_a_second() const {
    return elapsed_ns == 0 ? 0 : static_cast<double>(delivered) * 1e9 / static_cast<double>(elapsed_ns);
  }
  void merge(const TrafficResult& other);
};

struct Plan {
  Schedule schedule;     // empty: as many as can be sent, of `size` bytes
  Ways ways = Ways::up;  // of saturation
  std::uint32_t size = 1000;
  std::uint32_t train = 1;  // datagrams in one send (UDP GSO); 1: one packet at a time
  double seconds = 1, warm_up = 0.1;
};

/// Called a few times a second while traffic is counted: how far it is, and what there is so far.
using Progress = std::function<void(double seconds, const TrafficResult& so_far)>;

/// One thread that sends and receives, so that it needs one core and never outruns its own receiving.
///
/// It waits on no socket but looks at them in turn: a socket somebody sleeps on makes the one who delivers to it pay
/// for the waking, and on loopback that is the server. Of the clients' sockets it looks at those that await a packet.
class Traffic {
 public:
  explicit Traffic(Sessions& sessions);
  ~Traffic();

  /// `warm_up` seconds go before, uncounted, and afterwards the queues are emptied.
  TrafficResult run(const Plan& plan, const Progress& progress = {});

 private:
  struct Receiver;
  struct Line {  // a stream, and how far it is
    Stream stream;
    std::uint64_t number = 0;
    Event next;
  };
  std::uint32_t send_due(std::int64_t since_start);
  std::uint32_t send_all_we_can();
  void send_up(std::uint32_t session, std::uint32_t packets, std::uint32_t size);
  void send_down(std::uint32_t session, std::uint32_t packets, std::uint32_t size);
  void flush(Outbox& box);
  std::uint32_t receive_at_peers();
  std::uint32_t receive_at_client(std::uint32_t session);
  std::uint32_t receive_awaited(std::uint32_t budget);
  std::uint32_t receive(std::uint32_t sent);
  void empty_queues();
  void take(Bytes payload, Direction direction, std::uint32_t at, const Name& source, std::int64_t now);
  void await(std::uint32_t session, std::uint32_t packets);

  Sessions& sessions_;
  Payload payload_;
  Plan plan_;
  std::vector<Line> lines_;
  bool sends_up_ = false, sends_down_ = false, is_counting_ = false;
  std::uint32_t warm_run_ = 0, run_ = 0;
  TrafficResult result_;
  std::int64_t now_ = 0;  // of this turn
  Outbox up_;
  std::vector<Outbox> down_;  // one a peer
  std::uint32_t next_up_ = 0, next_down_ = 0;
  bool is_up_turn_ = true;
  std::vector<std::vector<std::uint32_t>> sessions_of_peer_;
  std::vector<std::uint32_t> next_of_peer_;
  // Sessions that await packets, each once: a ring, since none of them is in it twice.
  std::vector<std::uint32_t> ring_, awaited_;
  std::vector<std::int64_t> awaited_since_;
  std::size_t ring_head_ = 0, ring_count_ = 0;
  std::uint32_t next_looked_at_ = 0;
  std::unique_ptr<Receiver> receiver_;
};

/// The most packets a second of which no more than 0.1 % are lost (or take 200 ms), found by raising the rate until
/// more are, then halving.
struct SearchResult {
  double rate = 0;          // offered, 0: more were lost at the lowest rate already
  bool load_bound = false;  // the load could not send more: the server may be able to
  TrafficResult best;
  unsigned steps = 0;
};
inline constexpr double tolerated_loss = 0.001;
SearchResult search(Traffic& traffic, Plan plan, double first_rate,
                    const std::function<void(double rate, const TrafficResult&)>& told);

}  // namespace radiotower::load
