#include "traffic.h"

#include <netinet/udp.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "measures.h"
#include "radiotower/stun/protocol.h"

namespace radiotower::bench {
namespace {

constexpr std::uint32_t batch = 32;  // messages sent before the receiving sockets are looked at
constexpr std::uint32_t receive_batch = 64;
constexpr std::size_t latency_buckets = 1 << 17;  // microseconds; the last one takes all that is longer
constexpr std::int64_t longest_spin = 20'000;
constexpr std::int64_t quiet = 50'000'000, longest_emptying = 2'000'000'000;

// One control message (UDP_SEGMENT out, UDP_GRO in), aligned as cmsghdr wants it.
struct alignas(cmsghdr) Control {
  std::array<std::uint8_t, CMSG_SPACE(sizeof(int))> bytes;
};

void set_segment_size(msghdr& message, Control& control, std::uint16_t size) {
  message.msg_control = control.bytes.data();
  message.msg_controllen = CMSG_SPACE(sizeof size);
  cmsghdr* c = CMSG_FIRSTHDR(&message);
  c->cmsg_level = SOL_UDP;
  c->cmsg_type = UDP_SEGMENT;
  c->cmsg_len = CMSG_LEN(sizeof size);
  std::memcpy(CMSG_DATA(c), &size, sizeof size);
}

// 0: the message is one datagram.
std::size_t segment_size(msghdr& message) {
  for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
    int size = 0;
    if (c->cmsg_level != SOL_UDP || c->cmsg_type != UDP_GRO) continue;
    std::memcpy(&size, CMSG_DATA(c), sizeof size);
    return static_cast<std::size_t>(size);
  }
  return 0;
}

}  // namespace

// Calls recvmmsg once and hands on each datagram. Messages are laid out once; what a call has changed is put back.
struct Traffic::Receiver {
  explicit Receiver(std::size_t size) : buffers(size * receive_batch) {
    for (std::uint32_t i = 0; i < receive_batch; ++i) {
      parts[i] = {buffers.data() + i * size, size};
      msghdr& m = messages[i].msg_hdr;
      m = {};
      m.msg_name = &sources[i];
      m.msg_iov = &parts[i];
      m.msg_iovlen = 1;
      m.msg_control = controls[i].bytes.data();
    }
    reset(receive_batch);
  }
  void reset(std::uint32_t used) {
    for (std::uint32_t i = 0; i < used; ++i) {
      messages[i].msg_hdr.msg_namelen = sizeof(sockaddr_in);
      messages[i].msg_hdr.msg_controllen = sizeof controls[i].bytes;
    }
  }
  template <typename Take>
  std::uint32_t receive(int socket, Take&& take) {
    const int n = recvmmsg(socket, messages.data(), receive_batch, MSG_DONTWAIT, nullptr);
    if (n <= 0) return 0;
    std::uint32_t datagrams = 0;
    for (std::uint32_t i = 0; i < static_cast<std::uint32_t>(n); ++i) {
      Bytes all(static_cast<const std::uint8_t*>(parts[i].iov_base), messages[i].msg_len);
      const std::size_t cut = segment_size(messages[i].msg_hdr);
      do {
        const std::size_t size = cut == 0 ? all.size() : std::min(cut, all.size());
        take(all.first(size), sources[i]);
        ++datagrams;
        all = all.subspan(size);
      } while (!all.empty());
    }
    reset(static_cast<std::uint32_t>(n));
    return datagrams;
  }
  std::vector<std::uint8_t> buffers;
  std::array<mmsghdr, receive_batch> messages;
  std::array<iovec, receive_batch> parts;
  std::array<sockaddr_in, receive_batch> sources;
  std::array<Control, receive_batch> controls;
};

Traffic::Traffic(Sessions& sessions, const Options& options)
    : sessions_(sessions), options_(options), payload_(options.size), latency_(latency_buckets),
      sessions_of_peer_(sessions.peers.size()), next_of_peer_(sessions.peers.size()),
      receiver_(std::make_unique<Receiver>(options.train > 1 ? 65536 : 2048)) {
  for (std::uint32_t i = 0; i < sessions.sessions.size(); ++i)
    sessions_of_peer_[sessions.sessions[i].peer].push_back(i);
  if (options.train > 1) {  // A receiver without it would have the server pay for cutting trains up.
    const int on = 1;
    for (const Session& s : sessions.sessions) setsockopt(s.socket, SOL_UDP, UDP_GRO, &on, sizeof on);
    for (int p : sessions.peers) setsockopt(p, SOL_UDP, UDP_GRO, &on, sizeof on);
  }
}

Traffic::~Traffic() = default;

void Traffic::send_to_server(std::uint32_t count) {
  const std::size_t segment = stun::channel_header_size + payload_.size();
  const bool is_train = options_.train > 1;
  for (std::uint32_t i = 0; i < count; ++i) {
    const std::uint32_t index = next_sender_;
    next_sender_ = next_sender_ + 1 == sessions_.sessions.size() ? 0 : next_sender_ + 1;
    const Stamp stamp{.session = index, .sent_at = steady_ns(), .run = run_, .direction = Direction::to_peer};
    for (std::uint32_t k = 0; k < options_.train; ++k)
      std::memcpy(packets_.data() + k * segment + stun::channel_header_size, &stamp, sizeof stamp);
    ssize_t n = 0;
    if (is_train) {
      Control control{};
      iovec part{packets_.data(), segment * options_.train};
      msghdr message{};
      message.msg_iov = &part;
      message.msg_iovlen = 1;
      set_segment_size(message, control, static_cast<std::uint16_t>(segment));
      n = sendmsg(sessions_.sessions[index].socket, &message, MSG_DONTWAIT);
    } else {
      n = send(sessions_.sessions[index].socket, packets_.data(), segment, MSG_DONTWAIT);
    }
    if (n > 0)
      result_.sent += options_.train;
    else
      ++result_.send_errors;
  }
}

// The sessions of one peer in turn: a peer is one socket, so that a batch is one call.
void Traffic::send_to_relayed(std::uint32_t count) {
  const std::uint32_t peer = next_sender_;
  next_sender_ = next_sender_ + 1 == sessions_.peers.size() ? 0 : next_sender_ + 1;
  const auto& own = sessions_of_peer_[peer];
  if (own.empty()) return;
  std::array<mmsghdr, batch> messages{};
  std::array<iovec, batch> parts;
  std::array<Control, batch> controls{};
  const std::int64_t now = steady_ns();
  const std::size_t train_size = payload_.size() * options_.train;
  for (std::uint32_t i = 0; i < count; ++i) {
    const std::uint32_t index = own[next_of_peer_[peer]];
    next_of_peer_[peer] = next_of_peer_[peer] + 1 == own.size() ? 0 : next_of_peer_[peer] + 1;
    const Stamp stamp{.session = index, .sent_at = now, .run = run_, .direction = Direction::to_client};
    std::uint8_t* const packet = packets_.data() + i * train_size;
    for (std::uint32_t k = 0; k < options_.train; ++k) std::memcpy(packet + k * payload_.size(), &stamp, sizeof stamp);
    parts[i] = {packet, train_size};
    msghdr& message = messages[i].msg_hdr;
    message.msg_name = &sessions_.sessions[index].relayed;
    message.msg_namelen = sizeof(sockaddr_in);
    message.msg_iov = &parts[i];
    message.msg_iovlen = 1;
    if (options_.train > 1) set_segment_size(message, controls[i], static_cast<std::uint16_t>(payload_.size()));
  }
  const int n = sendmmsg(sessions_.peers[peer], messages.data(), count, MSG_DONTWAIT);
  const std::uint32_t sent = n > 0 ? static_cast<std::uint32_t>(n) : 0;
  result_.sent += std::uint64_t{sent} * options_.train;
  result_.send_errors += count - sent;
}

void Traffic::count_latency(std::int64_t ns) {
  const auto us = static_cast<std::size_t>(std::max<std::int64_t>(ns, 0) / 1000);
  ++latency_[std::min(us, latency_buckets - 1)];
}

void Traffic::take(Bytes payload, std::uint32_t index, const sockaddr_in& source, std::int64_t now) {
  Stamp stamp;
  const bool whole = payload_.read(payload, stamp) && stamp.session < sessions_.sessions.size() &&
                     stamp.direction == direction_;
  if (whole && stamp.run != run_) return;
  bool is_right = whole;
  if (whole && direction_ == Direction::to_peer) {
    const Session& s = sessions_.sessions[stamp.session];
    is_right = s.peer == index && is_same(s.relayed, source);
  } else if (whole) {
    is_right = stamp.session == index;
  }
  if (!is_right) {
    ++result_.wrong;
    return;
  }
  ++result_.delivered;
  count_latency(now - stamp.sent_at);
}

std::uint32_t Traffic::receive_at_peers() {
  std::uint32_t datagrams = 0;
  for (std::uint32_t p = 0; p < sessions_.peers.size(); ++p) {
    std::int64_t now = 0;
    datagrams += receiver_->receive(sessions_.peers[p], [&](Bytes datagram, const sockaddr_in& source) {
      if (now == 0) now = steady_ns();
      take(datagram, p, source, now);
    });
  }
  return datagrams;
}

std::uint32_t Traffic::receive_at_clients(std::uint32_t sockets) {
  std::uint32_t datagrams = 0;
  for (std::uint32_t i = 0; i < sockets; ++i) {
    const std::uint32_t index = next_receiver_;
    next_receiver_ = next_receiver_ + 1 == sessions_.sessions.size() ? 0 : next_receiver_ + 1;
    std::int64_t now = 0;
    datagrams += receiver_->receive(sessions_.sessions[index].socket, [&](Bytes datagram, const sockaddr_in& source) {
      if (now == 0) now = steady_ns();
      const bool is_ours = datagram.size() >= stun::channel_header_size &&
                           load_be16(datagram.data()) == channel_number &&
                           load_be16(datagram.data() + 2) == payload_.size();
      take(is_ours ? datagram.subspan(stun::channel_header_size) : Bytes{}, index, source, now);
    });
  }
  return datagrams;
}

std::int64_t Traffic::percentile(double share) const {
  std::uint64_t all = 0, seen = 0;
  for (std::uint32_t n : latency_) all += n;
  for (std::size_t i = 0; i < latency_.size(); ++i) {
    seen += latency_[i];
    if (all > 0 && static_cast<double>(seen) >= share * static_cast<double>(all)) return static_cast<std::int64_t>(i);
  }
  return 0;
}

TrafficResult Traffic::run(Direction direction, double rate, double seconds) {
  direction_ = direction;
  ++run_;
  next_sender_ = 0;
  const std::size_t header = direction == Direction::to_peer ? stun::channel_header_size : 0;
  const std::size_t segment = header + payload_.size(), segments = std::size_t{options_.train} * batch;
  packets_.assign(segment * segments, 0);
  for (std::size_t i = 0; i < segments; ++i) {
    std::uint8_t* const packet = packets_.data() + i * segment;
    if (header != 0) {
      store_be16(packet, channel_number);
      store_be16(packet + 2, static_cast<std::uint16_t>(payload_.size()));
    }
    payload_.write(packet + header);
  }

  result_ = {};
  bool is_counting = false;
  std::int64_t idle = 0, server_cpu = 0, load_cpu = 0, machine_cpu = 0;
  double messages = 0;  // sent since the start, the uncounted ones too
  const double message_rate = rate / options_.train;
  const std::int64_t start = steady_ns(), opens = start + static_cast<std::int64_t>(seconds * 1e8),
                     closes = opens + static_cast<std::int64_t>(seconds * 1e9);
  std::int64_t now = start, opened = start;
  while (now < closes) {
    if (!is_counting && now >= opens) {
      is_counting = true;
      result_ = {};
      std::fill(latency_.begin(), latency_.end(), 0);
      idle = 0;
      machine_cpu = machine_busy_ns();
      load_cpu = own_thread_cpu_ns();
      server_cpu = process_cpu_ns(options_.server_pid);
      opened = steady_ns();
    }
    std::uint32_t due = batch;
    if (rate > 0) {
      const double behind = static_cast<double>(now - start) * 1e-9 * message_rate - messages;
      due = behind < 1 ? 0 : static_cast<std::uint32_t>(std::min<double>(behind, batch));
    }
    if (due > 0) {
      if (direction == Direction::to_peer)
        send_to_server(due);
      else
        send_to_relayed(due);
      messages += due;
    }
    const std::uint32_t received = receive(due);
    const std::int64_t then = steady_ns();
    // A turn that took longer was not spinning: another program had the core.
    if (due == 0 && received == 0) idle += std::min(then - now, longest_spin);
    now = then;
  }
  TrafficResult result = result_;
  result.elapsed_ns = steady_ns() - opened;
  result.server_cpu_ns = process_cpu_ns(options_.server_pid) - server_cpu;
  result.load_cpu_ns = own_thread_cpu_ns() - load_cpu - idle;
  result.machine_cpu_ns = machine_busy_ns() - machine_cpu - idle;
  result.latency_p50_us = percentile(0.5);
  result.latency_p99_us = percentile(0.99);
  result.latency_max_us = percentile(1);

  // What an overloaded server still holds would be counted in nobody's favour by the next run.
  const std::int64_t ended = steady_ns();
  for (std::int64_t last = ended, t = ended; t - last < quiet && t - ended < longest_emptying; t = steady_ns())
    if (receive(static_cast<std::uint32_t>(sessions_.sessions.size())) > 0) last = t;
  return result;
}

}  // namespace radiotower::bench
