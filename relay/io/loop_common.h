// What both loops do alike: the table of sockets, and taking a train apart.
#pragma once

#include <netinet/in.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>
#include <vector>

#include "error_queue.h"
#include "radiotower/io/loop.h"

namespace radiotower::io {

/// Slots by index; a SocketId is index and generation, so that whatever comes late for a socket that is gone meets nobody.
class SocketTable {
 public:
  struct Slot {
    int descriptor = -1;
    std::uint16_t generation = 0;
    bool armed = false;
    std::uint64_t cookie = 0;
  };
  static constexpr unsigned index_bits = 17;  // 131,071 sockets a loop
  static constexpr std::uint32_t index_mask = (1u << index_bits) - 1;

  explicit SocketTable(std::size_t most) : most_(std::min<std::size_t>(most, index_mask)) {}

  SocketId add(int descriptor, std::uint64_t cookie) {
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
    slot.armed = false;
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

/// Calls `one(prefix, bytes, may_prepend)` for each datagram of an Outgoing. `may_prepend`: the bytes in front are free, so the prefix
/// may be written there. They are in front of the first; inside a train they belong to the datagram before, unless enough is skipped.
template <typename One>
void for_each_datagram(const Outgoing& out, One&& one) {
  const Bytes prefix(out.prefix.data(), out.prefix_size);
  if (out.stride == 0) return one(prefix, out.bytes, true);
  for (std::size_t at = 0; at < out.bytes.size(); at += out.stride) {
    const MutableBytes whole = out.bytes.subspan(at, std::min<std::size_t>(out.stride, out.bytes.size() - at));
    const std::size_t skipped = std::min<std::size_t>(out.skip, whole.size());
    one(prefix, whole.subspan(skipped), at == 0 || skipped >= out.prefix_size);
  }
}

/// What became of a datagram that was sent by a call of its own.
struct SentNow {
  int error = 0;
  bool retried = false;  // an ICMP error of an earlier datagram was in its way
  bool queued_error = false;  // the socket's error queue holds something
};

/// Sends one datagram, of one or two pieces, outside of any batch. DF is an option of the socket, so it is set, used and taken back
/// here: nothing else leaves in between, since a socket belongs to one thread.
inline SentNow send_now(int descriptor, std::array<iovec, 2> pieces, std::size_t count, const sockaddr_in6& to, socklen_t length,
                        bool dont_fragment) {
  const bool v6 = to.sin6_family == AF_INET6;
  const int level = v6 ? IPPROTO_IPV6 : IPPROTO_IP, option = v6 ? IPV6_MTU_DISCOVER : IP_MTU_DISCOVER;
  const int set = v6 ? IPV6_PMTUDISC_DO : IP_PMTUDISC_DO, unset = v6 ? IPV6_PMTUDISC_DONT : IP_PMTUDISC_DONT;
  msghdr message{};
  message.msg_name = const_cast<sockaddr_in6*>(&to);
  message.msg_namelen = length;
  message.msg_iov = pieces.data();
  message.msg_iovlen = count;

  SentNow result;
  if (dont_fragment) setsockopt(descriptor, level, option, &set, sizeof set);
  for (int attempts = 0; attempts < 4; ++attempts) {
    result.error = sendmsg(descriptor, &message, MSG_DONTWAIT) < 0 ? errno : 0;
    if (result.error == EINTR) continue;
    if (result.error == 0 || !may_be_of_an_earlier_datagram(result.error)) break;
    result.queued_error = true;
    if (std::exchange(result.retried, true)) break;
  }
  if (dont_fragment) setsockopt(descriptor, level, option, &unset, sizeof unset);
  return result;
}

inline void count(const SentNow& result, LoopCounters& counters) {
  if (result.error != 0) return count_send_failure(result.error, counters);
  if (result.retried) ++counters.send_retried;
  ++counters.sent;
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
