// What both loops do alike: the table of sockets, and taking a train apart.
#pragma once

#include <netinet/in.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
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
    bool v6 = false;
    std::uint64_t cookie = 0;
  };
  static constexpr unsigned index_bits = 17;  // 131,071 sockets a loop
  static constexpr std::uint32_t index_mask = (1u << index_bits) - 1;

  explicit SocketTable(std::size_t most) : most_(std::min<std::size_t>(most, index_mask)) {}

  SocketId add(int descriptor, std::uint64_t cookie, bool v6) {
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
    slot.v6 = v6;
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

/// Calls `one(prefix, bytes, may_prepend)` for each datagram of an Outgoing. `may_prepend`: the bytes in front are free, so the prefix
/// may be written there; inside a train they belong to the datagram before.
template <typename One>
void for_each_datagram(const Outgoing& out, One&& one) {
  const Bytes prefix(out.prefix.data(), out.prefix_size);
  if (out.stride == 0) return one(prefix, out.bytes, true);
  for (std::size_t at = 0; at < out.bytes.size(); at += out.stride) {
    const MutableBytes whole = out.bytes.subspan(at, std::min<std::size_t>(out.stride, out.bytes.size() - at));
    one(prefix, whole.subspan(std::min<std::size_t>(out.skip, whole.size())), out.prefix_size > 0 && out.skip >= out.prefix_size && whole.size() >= out.skip);
  }
}

/// An eventfd: wakes a loop from another thread or from a signal handler.
class WakeUp {
 public:
  WakeUp() : descriptor_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {}
  ~WakeUp() { close(descriptor_); }
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
  int descriptor() const { return descriptor_; }

 private:
  int descriptor_;
};

/// The rare send with DF set: the option is of the socket, so it is set, used and taken back within one call.
inline int send_with_dont_fragment(int descriptor, bool v6, Bytes bytes, const sockaddr_in6& to, socklen_t length) {
  const int level = v6 ? IPPROTO_IPV6 : IPPROTO_IP, option = v6 ? IPV6_MTU_DISCOVER : IP_MTU_DISCOVER;
  const int set = v6 ? IPV6_PMTUDISC_DO : IP_PMTUDISC_DO, unset = v6 ? IPV6_PMTUDISC_DONT : IP_PMTUDISC_DONT;
  setsockopt(descriptor, level, option, &set, sizeof set);
  const ssize_t sent = sendto(descriptor, bytes.data(), bytes.size(), MSG_DONTWAIT, reinterpret_cast<const sockaddr*>(&to), length);
  const int error = sent < 0 ? errno : 0;
  setsockopt(descriptor, level, option, &unset, sizeof unset);
  return error;
}

}  // namespace radiotower::io
