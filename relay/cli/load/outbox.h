// Packets that leave one socket in one call: stamped, framed, and in trains where they are wanted.
#pragma once

#include <sys/socket.h>

#include <array>
#include <cstdint>
#include <vector>

#include "framing.h"
#include "payload.h"
#include "sockets.h"

namespace radiotower::load {

// One control message (UDP_SEGMENT out, UDP_GRO in), aligned as cmsghdr wants it.
struct alignas(cmsghdr) Control {
  std::array<std::uint8_t, CMSG_SPACE(sizeof(int))> bytes;
};

/// Makes a message a train of datagrams of this size each (UDP GSO).
void set_segment_size(msghdr& message, Control& control, std::uint16_t size);

class Outbox {
 public:
  static constexpr std::uint32_t capacity = 64;  // packets: with their payloads less than a second-level cache holds
  struct Sent {
    std::uint32_t packets = 0, failed = 0;
  };

  Outbox(int socket, const Framing& framing, const Payload& payload);
  bool is_full() const { return packets_ == capacity; }
  bool empty() const { return packets_ == 0; }
  void set_socket(int socket) { socket_ = socket; }  // empty() only

  /// One packet more. `to`: nullptr for a connected socket. `framed_for`: the peer whose address a header names;
  /// nullptr: no header. A train goes on while `joins` is true: to the same address, of the same size. Not when
  /// is_full().
  void add(const Stamp& stamp, const Name* to, const net::TransportAddress* framed_for, bool joins);
  /// Sends all, and is empty.
  Sent flush();

 private:
  static constexpr std::size_t slot = Framing::room + max_size;
  int socket_;
  Framing framing_;
  std::vector<std::uint8_t> bytes_;
  std::array<mmsghdr, capacity> messages_{};
  std::array<std::uint32_t, capacity> packets_of_{};  // of each message
  std::array<iovec, 2 * std::size_t{capacity}> parts_{};
  std::array<Control, capacity> controls_{};
  std::uint32_t packets_ = 0, count_ = 0;
  std::size_t part_ = 0;
  std::uint64_t number_ = 0;
};

}  // namespace radiotower::load
