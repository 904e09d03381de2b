// What both loops do alike: the table of sockets, what control messages say, and which trains are refused.
#pragma once

#include <linux/filter.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "error_queue.h"
#include "radiotower/io/loop.h"
#include "send_queue.h"

#ifndef UDP_GRO
#define UDP_GRO 104
#endif

namespace radiotower::io {

enum class SocketKind : std::uint8_t { datagrams, acceptor, stream };

struct StreamState {
  bool paused : 1 = false;
  bool ended : 1 = false;           // on_end() has been told
  bool connecting : 1 = false;      // not asked for bytes yet: that would take the error which stream_error() is to tell
  bool releasing : 1 = false;
  bool wants_writable : 1 = false;
  bool watching : 1 = false;        // io_uring: a poll for it is in the kernel's hands
  bool greedy : 1 = false;          // io_uring: it filled a whole buffer, and gets one a turn until it says less
  bool counted : 1 = false;         // io_uring: among armed()
  bool receives() const { return !paused && !ended && !connecting && !releasing; }
};

/// Slots by index; a SocketId is index and generation, so that whatever comes late for a socket that is gone meets nobody.
class SocketTable {
 public:
  struct Slot {
    int descriptor = -1;
    std::uint16_t generation = 0;
    SocketKind kind = SocketKind::datagrams;
    StreamState stream;
    bool armed = false;
    bool registered = false;    // io_uring: it stands in the ring's table of files, at its own index; epoll: a stream is in the set
    bool no_trains = false;     // it, or the device behind it, has refused one
    int error = 0;              // of a stream: what broke it, as a call has told
    std::uint64_t cookie = 0;
    std::uint64_t dropped = 0;  // by the kernel, its receive buffer being full
  };
  static constexpr unsigned index_bits = 17;  // 131,071 sockets a loop
  static constexpr std::uint32_t index_mask = (1u << index_bits) - 1;

  explicit SocketTable(std::size_t most) : most_(std::min<std::size_t>(most, index_mask)) {}

  SocketId add(int descriptor, std::uint64_t cookie, SocketKind kind = SocketKind::datagrams) {
    std::uint32_t index;
    if (!free_.empty()) {
      index = free_.back();
      free_.pop_back();
    } else {
      if (slots_.size() >= most_) return no_socket;
      index = static_cast<std::uint32_t>(slots_.size());
      slots_.emplace_back();
    }
    Slot& slot = slots_[index];
    slot.descriptor = descriptor;
    slot.cookie = cookie;
    slot.kind = kind;
    slot.stream = {};
    slot.error = 0;
    slot.armed = slot.registered = slot.no_trains = false;
    slot.dropped = 0;
    ++size_;
    return id(index);
  }
  Slot* find(SocketId socket) {
    const std::uint32_t index = socket & index_mask;
    if (index >= slots_.size() || slots_[index].descriptor < 0 || slots_[index].generation != socket >> index_bits) return nullptr;
    return &slots_[index];
  }
  /// Returns the descriptor, which the caller closes.
  int remove(SocketId socket) {
    Slot* slot = find(socket);
    if (!slot) return -1;
    const int descriptor = std::exchange(slot->descriptor, -1);
    constexpr unsigned generations = (1u << (32 - index_bits)) - 1;  // all ones is never one: no_socket
    slot->generation = static_cast<std::uint16_t>((slot->generation + 1u) % generations);
    free_.push_back(socket & index_mask);
    --size_;
    return descriptor;
  }
  std::size_t size() const { return size_; }
  bool holds(std::uint32_t index) const { return index < slots_.size() && slots_[index].descriptor >= 0; }
  template <typename Visit>
  void for_each(Visit&& visit) {
    for (std::uint32_t i = 0; i < slots_.size(); ++i)
      if (slots_[i].descriptor >= 0) visit(id(i), slots_[i]);
  }

 private:
  SocketId id(std::uint32_t index) const { return static_cast<std::uint32_t>(slots_[index].generation) << index_bits | index; }
  std::vector<Slot> slots_;
  std::vector<std::uint32_t> free_;
  std::size_t most_;
  std::size_t size_ = 0;
};

/// Hands over what the error queue of a socket holds. False when there is more than one turn should spend on it.
inline bool report_errors(SocketTable& sockets, SocketId id, Receiver& receiver) {
  for (int i = 0; i < 64; ++i) {
    const SocketTable::Slot* slot = sockets.find(id);  // looked up again each time: the receiver may remove it, or add others
    SocketError error;
    if (!slot || !read_error_queue(slot->descriptor, error)) return true;
    error.socket = id;
    error.cookie = slot->cookie;
    receiver.on_socket_error(error);
  }
  return false;
}

/// The stride of a received train (UDP_GRO); 0: a single datagram.
inline std::uint16_t segment_of(msghdr& message) {
  for (cmsghdr* c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
    if (c->cmsg_level != IPPROTO_UDP || c->cmsg_type != UDP_GRO) continue;
    int size = 0;
    std::memcpy(&size, CMSG_DATA(c), sizeof size);
    return static_cast<std::uint16_t>(size);
  }
  return 0;
}
inline constexpr std::size_t control_size = CMSG_SPACE(sizeof(int));

inline void take_segment(std::uint16_t segment, Datagram& datagram, LoopCounters& counters) {
  if (segment == 0 || datagram.bytes.size() <= segment) {
    ++counters.received;
    return;
  }
  datagram.segment = segment;
  ++counters.trains_received;
  counters.received += (datagram.bytes.size() + segment - 1) / segment;
}

/// Adds what the kernel has dropped on a socket since it was asked last, and returns the whole. Asked for (SO_MEMINFO) rather than sent along
/// with every datagram (SO_RXQ_OVFL), which after a first drop costs each of them 3 %.
inline std::uint64_t count_drops(SocketTable::Slot& slot, LoopCounters& counters) {
  if (slot.kind != SocketKind::datagrams) return 0;
  std::uint32_t memory[SK_MEMINFO_VARS]{};
  socklen_t length = sizeof memory;
  if (getsockopt(slot.descriptor, SOL_SOCKET, SO_MEMINFO, memory, &length) == 0 && length > SK_MEMINFO_DROPS * sizeof memory[0]) {
    const auto more = static_cast<std::uint32_t>(memory[SK_MEMINFO_DROPS] - static_cast<std::uint32_t>(slot.dropped));  // the kernel counts in 32 bits
    slot.dropped += more;
    counters.kernel_drops += more;
  }
  return slot.dropped;
}

/// A train was refused with this errno: counted, and remembered for its destination or its socket.
inline void learn_refusal(const SendQueue::Entry& entry, int error, Trains& trains, SocketTable& sockets, LoopCounters& counters) {
  ++counters.trains_refused;
  SocketTable::Slot* slot = sockets.find(entry.socket);
  if (trains.learn(entry, error) && slot) slot->no_trains = true;
}

inline int attach_filter(int descriptor, const std::vector<FilterInstruction>& program) {
  static_assert(sizeof(FilterInstruction) == sizeof(sock_filter));
  if (program.empty()) {
    const int unused = 0;
    const bool gone = setsockopt(descriptor, SOL_SOCKET, SO_DETACH_FILTER, &unused, sizeof unused) == 0;
    return gone || errno == ENOENT ? 0 : errno;
  }
  sock_fprog p{};
  p.len = static_cast<unsigned short>(program.size());
  p.filter = const_cast<sock_filter*>(reinterpret_cast<const sock_filter*>(program.data()));
  return setsockopt(descriptor, SOL_SOCKET, SO_ATTACH_FILTER, &p, sizeof p) == 0 ? 0 : errno;
}

inline std::int64_t monotonic_ns() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * std::int64_t{1'000'000'000} + t.tv_nsec;
}

/// An eventfd: wakes a loop from another thread or from a signal handler.
class WakeUp {
 public:
  WakeUp() : descriptor_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {}
  ~WakeUp() {
    if (descriptor_ >= 0) close(descriptor_);
  }
  WakeUp(const WakeUp&) = delete;
  WakeUp& operator=(const WakeUp&) = delete;
  void signal() const {
    const int saved = errno;
    const std::uint64_t one = 1;
    while (write(descriptor_, &one, sizeof one) < 0 && errno == EINTR) {}
    errno = saved;
  }
  void clear() const {
    std::uint64_t count;
    while (read(descriptor_, &count, sizeof count) < 0 && errno == EINTR) {}
  }
  int descriptor() const { return descriptor_; }  // negative: out of descriptors

 private:
  int descriptor_;
};

}  // namespace radiotower::io
