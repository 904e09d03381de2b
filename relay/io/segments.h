// Trains: datagrams of one flow that the kernel carries as one, in (UDP_GRO) and out (UDP_SEGMENT). Pure functions; no call is made
// here. Each datagram of a train but the last has the same size, and the last is no longer than the others.
#pragma once

#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

namespace radiotower::io {

/// Datagrams that lie at a fixed stride, as a received train leaves them, and as one leaves again: of each stride the first `skip`
/// bytes and the last `trim` are left out (trim <= stride), and `prefix` goes in front. stride 0: one datagram, all of `bytes`.
/// The prefix holds for every datagram; one whose header says another length is a Run of its own.
struct Run {
  const std::uint8_t* bytes = nullptr;
  std::uint32_t size = 0;  // of all, from the first stride to the end of the last datagram's payload
  std::uint16_t stride = 0;
  std::uint16_t skip = 0;
  std::uint16_t trim = 0;
  std::uint8_t prefix_size = 0;
  std::array<std::uint8_t, 4> prefix{};

  std::size_t datagrams() const { return stride == 0 || size == 0 ? 1 : (size + stride - 1) / stride; }
  /// On the wire, prefix and all; k < datagrams().
  std::size_t datagram_size(std::size_t k) const { return prefix_size + payload_size(k); }
  std::size_t payload_size(std::size_t k) const {
    if (stride == 0) return size;
    const std::size_t at = k * stride, rest = std::min<std::size_t>(stride, size - at);
    const std::size_t wanted = std::min<std::size_t>(rest, stride - trim);
    return wanted - std::min<std::size_t>(wanted, skip);
  }
  const std::uint8_t* payload(std::size_t k) const {
    return stride == 0 ? bytes : bytes + k * stride + std::min<std::size_t>(skip, size - k * stride);
  }
  std::size_t wire_size() const { return (datagrams() - 1) * datagram_size(0) + datagram_size(datagrams() - 1); }

  /// Writes what datagram k consists of, one piece or two (an empty datagram is one empty piece); returns how many.
  std::size_t pieces(std::size_t k, iovec* out) const {
    std::size_t n = 0;
    if (prefix_size > 0) out[n++] = {const_cast<std::uint8_t*>(prefix.data()), prefix_size};
    const std::size_t length = payload_size(k);
    if (length > 0 || n == 0) out[n++] = {const_cast<std::uint8_t*>(payload(k)), length};
    return n;
  }
  static constexpr std::size_t most_pieces = 2;  // of one datagram
};

/// How much the kernel takes as one: UDP_MAX_SEGMENTS was 64 before Linux 6.9, and header and all must fit 65,535 bytes in either family.
inline constexpr std::size_t most_datagrams = 64;
inline constexpr std::size_t most_bytes = 65535 - 40 - 8;

/// What is known of a train that is being put together.
struct TrainShape {
  std::uint16_t segment = 0;    // size of each datagram but the last
  std::uint16_t datagrams = 0;  // 0: nothing yet
  std::uint32_t bytes = 0;
  bool ended = false;      // by a datagram that is shorter: nothing can follow it
  bool has_empty = false;  // an empty datagram, which no train can hold
};

inline TrainShape shape_of(const Run& run) {
  const std::size_t n = run.datagrams(), first = run.datagram_size(0), last = run.datagram_size(n - 1);
  return {static_cast<std::uint16_t>(first), static_cast<std::uint16_t>(n), static_cast<std::uint32_t>((n - 1) * first + last), last < first, last == 0};
}

/// Appends `run` to the train. False, and nothing is changed, when the two cannot leave as one: another size, a train that has ended,
/// or more than the kernel takes.
inline bool join(TrainShape& train, const Run& run) {
  const TrainShape more = shape_of(run);
  if (train.ended || train.has_empty || more.has_empty || train.datagrams + more.datagrams > most_datagrams || train.bytes + more.bytes > most_bytes)
    return false;
  if (more.segment > train.segment || (more.segment < train.segment && more.datagrams > 1)) return false;
  train.ended = more.ended || more.segment < train.segment;
  train.datagrams = static_cast<std::uint16_t>(train.datagrams + more.datagrams);
  train.bytes += more.bytes;
  return true;
}

/// Calls `part(run)` for parts of `run` that the kernel takes as one each: one call as a rule. A header that is added makes a train longer
/// than it came.
template <typename Part>
void for_each_part(const Run& run, Part&& part) {
  const std::size_t n = run.datagrams(), each = std::max<std::size_t>(run.datagram_size(0), 1);
  const std::size_t most = std::clamp<std::size_t>(most_bytes / each, 1, most_datagrams);
  if (n <= most) return part(run);
  for (std::size_t at = 0; at < n; at += most) {
    Run some = run;
    some.bytes = run.bytes + at * run.stride;
    some.size = static_cast<std::uint32_t>(std::min<std::size_t>(run.size - at * run.stride, most * run.stride));
    part(some);
  }
}

}  // namespace radiotower::io
