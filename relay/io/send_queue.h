// What one turn of a loop sends, in the order it came, with neighbours of one flow put together into trains. Both loops fill one
// and hand it to the kernel, each in its own way.
//
// A flow is a socket and a destination. Order within a flow is kept; between flows there is none to keep.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "radiotower/io/loop.h"
#include "segments.h"

namespace radiotower::io {

/// Destinations whose path takes no segments of this size, and are sent single datagrams that the kernel may fragment. Remembered for a
/// number of trains rather than for a time, since no clock is read here; a lost entry costs one refused train.
class RefusedTrains {
 public:
  void remember(const sockaddr_in6& to, std::uint16_t segment);
  bool refuses(const sockaddr_in6& to, std::uint16_t segment);

 private:
  static constexpr std::uint16_t trains_until_asked_again = 1000;
  struct Place {
    std::array<std::uint8_t, 16> ip{};
    std::uint16_t segment = 0;  // 0: empty
    std::uint16_t left = 0;
  };
  static std::array<std::uint8_t, 16> ip_of(const sockaddr_in6& to);
  Place& place(const std::array<std::uint8_t, 16>& ip);
  std::vector<Place> places_;  // empty until the first refusal, so that nobody pays for a look who has had none
};

class SendQueue {
 public:
  static constexpr std::size_t most_entries = 4096;
  static constexpr std::size_t most_runs = 8192;
  static constexpr std::uint16_t none = 0xFFFF;

  struct Entry {
    SocketId socket = no_socket;
    int descriptor = -1;
    sockaddr_in6 to;
    socklen_t length = 0;
    TrainShape shape;
    std::uint16_t first = none, last = none;  // runs
  };

  SendQueue();

  bool empty() const { return entries_.empty(); }
  std::size_t size() const { return entries_.size(); }
  Entry& operator[](std::size_t i) { return entries_[i]; }
  const Entry& operator[](std::size_t i) const { return entries_[i]; }
  void clear();
  /// From here on nothing joins an entry that is in the queue already: they are with the kernel.
  void seal() { ++seal_; }

  /// False: no room, and nothing was added. A train longer than the kernel takes becomes several entries.
  bool add(SocketId socket, int descriptor, const Outgoing& out);

  template <typename Visit>
  void for_each_run(const Entry& entry, Visit&& visit) const {
    for (std::uint16_t i = entry.first; i != none; i = runs_[i].next) visit(runs_[i].run);
  }
  const Run* first_run(const Entry& entry) const { return &runs_[entry.first].run; }
  /// The pieces of a whole entry into `out`, which has room for most_pieces_of(entry).
  std::size_t pieces(const Entry& entry, iovec* out) const;
  static std::size_t most_pieces_of(const Entry& entry) { return entry.shape.datagrams * Run::most_pieces; }

 private:
  struct Link {
    Run run;
    std::uint16_t next = none;
  };
  struct Open {  // the youngest entry of a flow
    std::uint32_t seal = 0;
    std::uint16_t entry = none;
  };
  static constexpr std::size_t open_places = 512;

  bool add_run(SocketId socket, int descriptor, const net::TransportAddress& to, const Run& run);

  std::vector<Entry> entries_;
  std::vector<Link> runs_;
  std::vector<Open> open_;  // by a hash of the flow; two flows in one place cost a train, and no order
  std::uint32_t seal_ = 1;
};

/// UDP_SEGMENT as a control message.
struct SegmentControl {
  alignas(cmsghdr) char space[CMSG_SPACE(sizeof(std::uint16_t))];
  void attach(msghdr& message, std::uint16_t segment);
};

/// What a loop has learnt about trains.
struct Trains {
  /// From how many datagrams on a train of our own making pays; see bench/README.md.
  static constexpr std::size_t least = 3;
  RefusedTrains refused;
  std::optional<Loop::Refusal> first;
  bool told = false;

  bool allow(const SendQueue::Entry& entry, bool socket_cannot) {
    return entry.shape.datagrams >= least && !entry.shape.has_empty && !socket_cannot && !refused.refuses(entry.to, entry.shape.segment);
  }
  /// A train was refused with this errno. True: it holds for every train of this socket.
  bool learn(const SendQueue::Entry& entry, int error);
};

/// True for an errno that says: not as a train. EIO: the device cannot checksum; EINVAL and EMSGSIZE: a segment is larger than the path
/// takes; ENOPROTOOPT, EOPNOTSUPP: this kernel cannot at all.
bool refuses_trains(int error);

/// Sends an entry outside of any batch, as a train where `as_train` says so, and datagram by datagram where the kernel then refuses it.
/// Counts.
struct SentNow {
  int refused = 0;            // errno with which a train was refused; the datagrams have been sent one by one
  bool queued_error = false;  // the socket's error queue holds something
};
SentNow send_now(const SendQueue& queue, const SendQueue::Entry& entry, bool as_train, bool dont_fragment, LoopCounters& counters);
/// The same for one datagram of an entry.
SentNow send_one_now(const SendQueue& queue, const SendQueue::Entry& entry, std::size_t k, LoopCounters& counters);

}  // namespace radiotower::io
