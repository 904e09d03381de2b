#include "outbox.h"

#include <netinet/udp.h>

#include <cstring>

namespace radiotower::load {

namespace {

std::uint8_t zeros[4];

}  // namespace

void set_segment_size(msghdr& message, Control& control, std::uint16_t size) {
  message.msg_control = control.bytes.data();
  message.msg_controllen = CMSG_SPACE(sizeof size);
  cmsghdr* c = CMSG_FIRSTHDR(&message);
  c->cmsg_level = SOL_UDP;
  c->cmsg_type = UDP_SEGMENT;
  c->cmsg_len = CMSG_LEN(sizeof size);
  std::memcpy(CMSG_DATA(c), &size, sizeof size);
}

Outbox::Outbox(int socket, const Framing& framing, const Payload& payload)
    : socket_(socket), framing_(framing), bytes_(slot * capacity) {
  for (std::size_t i = 0; i < capacity; ++i) payload.write(bytes_.data() + i * slot + Framing::room);
}

void Outbox::add(const Stamp& stamp, const Name* to, const net::TransportAddress* framed_for, bool joins) {
  std::uint8_t* const payload = bytes_.data() + packets_ * slot + Framing::room;
  std::memcpy(payload, &stamp, sizeof stamp);
  std::size_t header = 0, padding = 0;
  if (framed_for != nullptr) {
    framing_.write_header(payload, stamp.size, *framed_for, ++number_);
    header = framing_.header_size(*framed_for);
    padding = framing_.padding(stamp.size);
  }
  if (joins && count_ > 0) {
    msghdr& message = messages_[count_ - 1].msg_hdr;
    if (packets_of_[count_ - 1] == 1)
      set_segment_size(message, controls_[count_ - 1], static_cast<std::uint16_t>(header + stamp.size + padding));
    ++packets_of_[count_ - 1];
  } else {
    msghdr& message = messages_[count_].msg_hdr;
    message = {};
    message.msg_iov = &parts_[part_];
    if (to != nullptr) {
      message.msg_name = const_cast<sockaddr*>(&to->value.any);  // the kernel reads it only
      message.msg_namelen = to->length;
    }
    packets_of_[count_++] = 1;
  }
  msghdr& message = messages_[count_ - 1].msg_hdr;
  parts_[part_++] = {payload - header, header + stamp.size};
  ++message.msg_iovlen;
  if (padding != 0) {
    parts_[part_++] = {zeros, padding};
    ++message.msg_iovlen;
  }
  ++packets_;
}

Outbox::Sent Outbox::flush() {
  Sent sent;
  std::uint32_t done = 0;
  if (count_ == 1) {
    if (sendmsg(socket_, &messages_[0].msg_hdr, MSG_DONTWAIT) >= 0) done = 1;
  } else if (count_ > 1) {
    const int n = sendmmsg(socket_, messages_.data(), count_, MSG_DONTWAIT);
    if (n > 0) done = static_cast<std::uint32_t>(n);
  }
  for (std::uint32_t i = 0; i < done; ++i) sent.packets += packets_of_[i];
  sent.failed = packets_ - sent.packets;
  packets_ = count_ = 0;
  part_ = 0;
  return sent;
}

}  // namespace radiotower::load
