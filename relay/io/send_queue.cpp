#include "send_queue.h"

#include <netinet/udp.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "error_queue.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

namespace radiotower::io {

namespace {

std::uint32_t mix(std::uint64_t value) { return static_cast<std::uint32_t>((value * 0x9E3779B97F4A7C15u) >> 40); }

std::uint32_t flow_hash(SocketId socket, const net::TransportAddress& to) {
  std::uint64_t tail;
  std::memcpy(&tail, to.ip.bytes.data() + 8, sizeof tail);
  return mix(tail ^ std::uint64_t{to.port} << 16 ^ std::uint64_t{socket} << 32);
}

bool same_destination(const sockaddr_in6& a, const sockaddr_in6& b, socklen_t length) { return std::memcmp(&a, &b, length) == 0; }

}  // namespace

std::array<std::uint8_t, 16> RefusedTrains::ip_of(const sockaddr_in6& to) {
  std::array<std::uint8_t, 16> ip{};
  if (to.sin6_family == AF_INET) std::memcpy(ip.data(), &reinterpret_cast<const sockaddr_in&>(to).sin_addr, 4);
  else std::memcpy(ip.data(), &to.sin6_addr, 16);
  return ip;
}

RefusedTrains::Place& RefusedTrains::place(const std::array<std::uint8_t, 16>& ip) {
  std::uint64_t halves[2];
  std::memcpy(halves, ip.data(), sizeof halves);
  return places_[mix(halves[0] ^ halves[1]) % places_.size()];
}

void RefusedTrains::remember(const sockaddr_in6& to, std::uint16_t segment) {
  if (places_.empty()) places_.resize(256);
  const auto ip = ip_of(to);
  place(ip) = {ip, segment, trains_until_asked_again};
}

bool RefusedTrains::refuses(const sockaddr_in6& to, std::uint16_t segment) {
  if (places_.empty()) return false;
  const auto ip = ip_of(to);
  Place& known = place(ip);
  if (known.segment == 0 || segment < known.segment || known.ip != ip) return false;
  if (--known.left == 0) known.segment = 0;
  return true;
}

SendQueue::SendQueue() : open_(open_places) {
  entries_.reserve(most_entries);
  runs_.reserve(most_runs);
}

void SendQueue::clear() {
  entries_.clear();
  runs_.clear();
  seal();
}

bool SendQueue::add(SocketId socket, int descriptor, const Outgoing& out) {
  Run run;
  run.bytes = out.bytes.data();
  run.size = static_cast<std::uint32_t>(out.bytes.size());
  if (out.stride != 0 && out.bytes.size() > out.stride) {
    run.stride = out.stride;
    run.skip = out.skip;
    run.trim = out.trim;
  } else if (out.stride != 0) {  // a train of one; what is in front of it may belong to the datagram before
    const std::size_t skip = std::min<std::size_t>(out.skip, out.bytes.size());
    run.bytes += skip;
    run.size = static_cast<std::uint32_t>(std::min<std::size_t>(out.bytes.size(), out.stride - out.trim) - skip);
  }
  if (out.prefix_size != 0 && out.stride == 0) {
    std::uint8_t* whole = out.bytes.data() - out.prefix_size;
    std::copy_n(out.prefix.begin(), out.prefix_size, whole);
    run.bytes = whole;
    run.size += out.prefix_size;
  } else {
    run.prefix = out.prefix;
    run.prefix_size = out.prefix_size;
  }
  if (run.stride == 0) return add_run(socket, descriptor, out.to, run);
  // All or nothing would need a look ahead; a train in three parts of which two have room does not happen at these sizes.
  if (runs_.size() + out.bytes.size() / out.stride / most_datagrams + 2 > most_runs || entries_.size() + 8 > most_entries) return false;
  for_each_part(run, [&](const Run& part) { add_run(socket, descriptor, out.to, part); });
  return true;
}

bool SendQueue::add_run(SocketId socket, int descriptor, const net::TransportAddress& to, const Run& run) {
  if (runs_.size() == most_runs) return false;
  sockaddr_in6 address;
  const auto length = static_cast<socklen_t>(to.to_sockaddr(&address));
  Open& open = open_[flow_hash(socket, to) % open_places];
  if (open.seal == seal_) {
    Entry& entry = entries_[open.entry];
    if (entry.socket == socket && entry.length == length && same_destination(entry.to, address, length) && join(entry.shape, run)) {
      const auto index = static_cast<std::uint16_t>(runs_.size());
      runs_.push_back({run, none});
      runs_[entry.last].next = index;
      entry.last = index;
      return true;
    }
  }
  if (entries_.size() == most_entries) return false;
  const auto index = static_cast<std::uint16_t>(runs_.size());
  open = {seal_, static_cast<std::uint16_t>(entries_.size())};
  runs_.push_back({run, none});
  entries_.push_back({socket, descriptor, address, length, shape_of(run), index, index});
  return true;
}

std::size_t SendQueue::pieces(const Entry& entry, iovec* out) const {
  std::size_t n = 0;
  for_each_run(entry, [&](const Run& run) {
    for (std::size_t k = 0, count = run.datagrams(); k < count; ++k) n += run.pieces(k, out + n);
  });
  return n;
}

void SegmentControl::attach(msghdr& message, std::uint16_t segment) {
  message.msg_control = space;
  message.msg_controllen = sizeof space;
  cmsghdr* c = CMSG_FIRSTHDR(&message);
  c->cmsg_level = IPPROTO_UDP;
  c->cmsg_type = UDP_SEGMENT;
  c->cmsg_len = CMSG_LEN(sizeof segment);
  std::memcpy(CMSG_DATA(c), &segment, sizeof segment);
}

bool Trains::learn(const SendQueue::Entry& entry, int error) {
  const bool about_the_path = error == EMSGSIZE || error == EINVAL;
  if (about_the_path) refused.remember(entry.to, entry.shape.segment);
  if (!told) {
    told = true;
    first = Loop::Refusal{error, {}, entry.shape.segment};
    if (const auto to = net::TransportAddress::from_sockaddr(reinterpret_cast<const sockaddr*>(&entry.to), entry.length)) first->to = *to;
  }
  return !about_the_path;
}

bool refuses_trains(int error) {
  return error == EIO || error == EINVAL || error == EMSGSIZE || error == ENOPROTOOPT || error == EOPNOTSUPP;
}

namespace {

/// One sendmsg. An ICMP error of an earlier datagram may be in its way once: then nothing was sent, and it is sent again.
int send_message(int descriptor, const msghdr& message, std::size_t datagrams, SentNow& now, LoopCounters& counters) {
  bool retried = false;
  for (int attempts = 0; attempts < 4; ++attempts) {
    const int error = sendmsg(descriptor, &message, MSG_DONTWAIT) < 0 ? errno : 0;
    if (error == EINTR) continue;
    if (error == 0) {
      counters.sent += datagrams;
      counters.send_retried += retried;
      return 0;
    }
    if (!may_be_of_an_earlier_datagram(error)) return error;
    now.queued_error = true;
    if (std::exchange(retried, true)) return error;
  }
  return EINTR;
}

void send_datagram(const Run& run, std::size_t k, int descriptor, msghdr& message, SentNow& now, LoopCounters& counters) {
  std::array<iovec, Run::most_pieces> some;
  message.msg_iov = some.data();
  message.msg_iovlen = run.pieces(k, some.data());
  if (const int error = send_message(descriptor, message, 1, now, counters); error != 0) count_send_failure(error, 1, counters);
}

/// DF is an option of the socket, so it is set, used and taken back: nothing else leaves in between, since a socket belongs to one thread.
class DontFragment {
 public:
  DontFragment(int descriptor, bool v6, bool wanted) : descriptor_(descriptor), v6_(v6), wanted_(wanted) {
    if (wanted_) set(v6_ ? IPV6_PMTUDISC_DO : IP_PMTUDISC_DO);
  }
  ~DontFragment() {
    if (wanted_) set(v6_ ? IPV6_PMTUDISC_DONT : IP_PMTUDISC_DONT);
  }

 private:
  void set(int value) const {
    setsockopt(descriptor_, v6_ ? IPPROTO_IPV6 : IPPROTO_IP, v6_ ? IPV6_MTU_DISCOVER : IP_MTU_DISCOVER, &value, sizeof value);
  }
  int descriptor_;
  bool v6_;
  bool wanted_;
};

}  // namespace

SentNow send_now(const SendQueue& queue, const SendQueue::Entry& entry, bool as_train, bool dont_fragment, LoopCounters& counters) {
  SentNow now;
  msghdr message{};
  message.msg_name = const_cast<sockaddr_in6*>(&entry.to);
  message.msg_namelen = entry.length;
  const DontFragment df(entry.descriptor, entry.to.sin6_family == AF_INET6, dont_fragment);
  if (as_train) {
    std::array<iovec, most_datagrams * Run::most_pieces> all;
    message.msg_iov = all.data();
    message.msg_iovlen = queue.pieces(entry, all.data());
    SegmentControl control;
    control.attach(message, entry.shape.segment);
    const int error = send_message(entry.descriptor, message, entry.shape.datagrams, now, counters);
    if (error == 0) {
      ++counters.trains_sent;
      return now;
    }
    if (!refuses_trains(error)) {
      count_send_failure(error, entry.shape.datagrams, counters);
      return now;
    }
    now.refused = error;
    message.msg_control = nullptr;
    message.msg_controllen = 0;
  }
  queue.for_each_run(entry, [&](const Run& run) {
    for (std::size_t k = 0, count = run.datagrams(); k < count; ++k) send_datagram(run, k, entry.descriptor, message, now, counters);
  });
  return now;
}

SentNow send_one_now(const SendQueue& queue, const SendQueue::Entry& entry, std::size_t k, LoopCounters& counters) {
  SentNow now;
  msghdr message{};
  message.msg_name = const_cast<sockaddr_in6*>(&entry.to);
  message.msg_namelen = entry.length;
  queue.for_each_run(entry, [&](const Run& run) {
    const std::size_t count = run.datagrams();
    if (k < count) send_datagram(run, k, entry.descriptor, message, now, counters);
    k -= count;  // wraps beyond every count once it has been met
  });
  return now;
}

}  // namespace radiotower::io
