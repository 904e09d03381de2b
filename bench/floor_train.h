// A train of datagrams (UDP_GRO) as one message that the kernel cuts up again (UDP_SEGMENT), its ChannelData headers
// skipped or added.
#pragma once

#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>

#include "floor.h"
#include "radiotower/stun/protocol.h"

namespace radiotower::bare {

inline constexpr std::size_t header_size = stun::channel_header_size;
inline constexpr std::size_t gro_control = CMSG_SPACE(sizeof(int));

/// The size of each datagram, or 0 when `control` does not say so: then there is one.
inline std::size_t segment_size(const void* control, std::size_t length) {
  if (length < CMSG_LEN(sizeof(int))) return 0;
  cmsghdr head;
  std::memcpy(&head, control, sizeof head);
  if (head.cmsg_level != IPPROTO_UDP || head.cmsg_type != UDP_GRO) return 0;
  int size = 0;
  std::memcpy(&size, static_cast<const std::uint8_t*>(control) + CMSG_LEN(0), sizeof size);
  return static_cast<std::size_t>(size);
}

inline void write_header(std::uint8_t* out, const Flow& flow, std::size_t length) {
  std::memcpy(out, &flow.channel, sizeof flow.channel);
  store_be16(out + 2, static_cast<std::uint16_t>(length));
}

/// One message; must stay where it is, and the train with it, until it has been sent.
class TrainMessage {
 public:
  msghdr header;

  // Both take as many datagrams from the front of `train` as one message holds.
  void to_peer(MutableBytes& train, std::size_t segment, Flow& flow) {
    std::size_t count = 0;
    for (; count < most && !train.empty(); ++count) {
      const std::size_t size = std::min(segment, train.size());
      pieces_[count] = {train.data() + header_size, size - std::min(size, header_size)};
      train = train.subspan(size);
    }
    finish(flow.peer, count, segment - header_size);
  }
  void to_client(MutableBytes& train, std::size_t segment, Flow& flow) {
    write_header(prefix_, flow, segment);
    std::size_t count = 0, left = longest;
    for (; count < most && !train.empty(); ++count) {
      const std::size_t size = std::min(segment, train.size());
      if (count > 0 && size + header_size > left) break;
      left -= std::min(left, size + header_size);
      if (size < segment) write_header(last_prefix_, flow, size);
      pieces_[2 * count] = {size < segment ? last_prefix_ : prefix_, header_size};
      pieces_[2 * count + 1] = {train.data(), size};
      train = train.subspan(size);
    }
    finish(flow.client, 2 * count, segment + header_size);
  }

 private:
  static constexpr std::size_t most = 64;        // what every kernel with UDP_SEGMENT takes
  static constexpr std::size_t longest = 65507;  // of all datagrams together

  void finish(sockaddr_in& to, std::size_t pieces, std::size_t segment) {
    header = {};
    header.msg_name = &to;
    header.msg_namelen = sizeof to;
    header.msg_iov = pieces_.data();
    header.msg_iovlen = pieces;
    header.msg_control = control_;
    header.msg_controllen = sizeof control_;
    cmsghdr* const c = CMSG_FIRSTHDR(&header);
    c->cmsg_level = IPPROTO_UDP;
    c->cmsg_type = UDP_SEGMENT;
    c->cmsg_len = CMSG_LEN(sizeof(std::uint16_t));
    const auto value = static_cast<std::uint16_t>(segment);
    std::memcpy(CMSG_DATA(c), &value, sizeof value);
  }

  std::array<iovec, 2 * most> pieces_;
  alignas(cmsghdr) std::uint8_t control_[CMSG_SPACE(sizeof(std::uint16_t))];
  std::uint8_t prefix_[header_size], last_prefix_[header_size];
};

}  // namespace radiotower::bare
