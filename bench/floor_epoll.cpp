// epoll, with recvmmsg and sendmmsg, or with a call for each datagram.
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "floor.h"
#include "floor_train.h"

namespace radiotower::bare {

namespace {

constexpr std::size_t batch = 64;      // datagrams of one recvmmsg
constexpr std::size_t head_room = 64;  // in front of a datagram, for a header

class Poller {
 public:
  explicit Poller(Flows& flows) : flows_(flows), descriptor_(epoll_create1(EPOLL_CLOEXEC)) {
    if (descriptor_ < 0) give_up("epoll_create1", errno);
    add(listener_mark);
  }
  void add(std::uint32_t index) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u32 = index;
    if (epoll_ctl(descriptor_, EPOLL_CTL_ADD, flows_.socket_of(index), &event) != 0) give_up("epoll_ctl", errno);
  }

  template <typename Visit>
  void wait(Visit&& visit) {
    const int n = epoll_wait(descriptor_, events_.data(), static_cast<int>(events_.size()), -1);
    for (int i = 0; i < n; ++i) visit(events_[static_cast<std::size_t>(i)].data.u32);
  }

 private:
  Flows& flows_;
  const int descriptor_;
  std::array<epoll_event, 256> events_;
};

void answer(Flows& flows, Poller& poller, Bytes bytes, std::size_t segment, const sockaddr_in& client) {
  const std::size_t size = segment == 0 ? bytes.size() : segment;
  for (; !bytes.empty(); bytes = bytes.subspan(std::min(size, bytes.size())))
    if (const auto made = flows.answer(bytes.first(std::min(size, bytes.size())), client)) poller.add(*made);
}

class BatchLoop {
 public:
  explicit BatchLoop(Flows& flows)
      : flows_(flows),
        offload_(flows.options().offload),
        poller_(flows),
        buffers_(flows.options().buffers, head_room, offload_),
        in_(buffers_.count()),
        sources_(buffers_.count()),
        out_(buffers_.count()),
        headers_(buffers_.count()),
        trains_(offload_ ? buffers_.count() : 0) {
    for (std::size_t i = 0; i < buffers_.count(); ++i) {
      Source& s = sources_[i];
      s.piece = {buffers_.at(i) + head_room, buffers_.size() - head_room};
      msghdr& m = in_[i].msg_hdr;
      m.msg_name = &s.name;
      m.msg_namelen = sizeof s.name;
      m.msg_iov = &s.piece;
      m.msg_iovlen = 1;
      if (offload_) m.msg_control = s.control;
    }
  }

  [[noreturn]] void run() {
    for (;;) {
      poller_.wait([this](std::uint32_t index) { receive(index); });
      flush();
    }
  }

 private:
  struct Source {
    sockaddr_in name;
    iovec piece;
    alignas(cmsghdr) std::uint8_t control[gro_control];
  };
  struct Out {
    int socket = -1;
    iovec piece;
  };

  void receive(std::uint32_t index) {
    if (used_ == buffers_.count()) flush();
    const auto most = static_cast<unsigned>(std::min(batch, buffers_.count() - used_));
    if (offload_)
      for (unsigned i = 0; i < most; ++i) in_[used_ + i].msg_hdr.msg_controllen = gro_control;
    const int n = recvmmsg(flows_.socket_of(index), &in_[used_], most, MSG_DONTWAIT, nullptr);
    for (int k = 0; k < n; ++k) {
      const std::size_t i = used_++;
      const MutableBytes bytes{buffers_.at(i) + head_room, in_[i].msg_len};
      std::size_t segment = offload_ ? segment_size(sources_[i].control, in_[i].msg_hdr.msg_controllen) : 0;
      if (segment >= bytes.size()) segment = 0;
      if (index == listener_mark)
        from_client(sources_[i].name, bytes, segment);
      else
        from_peer(flows_.at(index), bytes, segment);
    }
  }

  void from_client(const sockaddr_in& client, MutableBytes bytes, std::size_t segment) {
    if (bytes.size() < header_size) return;
    if (stun::classify(bytes[0]) != stun::FirstByte::channel_data)
      return answer(flows_, poller_, bytes, segment, client);
    Flow* const flow = flows_.find(client);
    if (!flow) return;
    if (segment == 0) return send(flow->descriptor, bytes.subspan(header_size), flow->peer);
    while (!bytes.empty()) send(flow->descriptor, [&](TrainMessage& t) { t.to_peer(bytes, segment, *flow); });
  }

  void from_peer(Flow& flow, MutableBytes bytes, std::size_t segment) {
    if (segment == 0) {
      std::uint8_t* const start = bytes.data() - header_size;
      write_header(start, flow, bytes.size());
      return send(flows_.listener(), {start, bytes.size() + header_size}, flow.client);
    }
    while (!bytes.empty()) send(flows_.listener(), [&](TrainMessage& t) { t.to_client(bytes, segment, flow); });
  }

  void send(int descriptor, MutableBytes bytes, sockaddr_in& to) {
    if (queued_ == out_.size()) send_all();
    Out& out = out_[queued_];
    out.socket = descriptor;
    out.piece = {bytes.data(), bytes.size()};
    msghdr& m = headers_[queued_++].msg_hdr;
    m = {};
    m.msg_name = &to;
    m.msg_namelen = sizeof to;
    m.msg_iov = &out.piece;
    m.msg_iovlen = 1;
  }

  template <typename Fill>
  void send(int descriptor, Fill&& fill) {
    if (queued_ == out_.size()) send_all();
    out_[queued_].socket = descriptor;
    fill(trains_[queued_]);
    headers_[queued_].msg_hdr = trains_[queued_].header;
    ++queued_;
  }

  /// Runs of one socket leave with one call. A datagram that cannot is lost.
  void send_all() {
    for (std::size_t from = 0; from < queued_;) {
      std::size_t to = from + 1;
      while (to < queued_ && out_[to].socket == out_[from].socket) ++to;
      while (from < to) {
        const int n = sendmmsg(out_[from].socket, &headers_[from], static_cast<unsigned>(to - from), MSG_DONTWAIT);
        from += n > 0 ? static_cast<std::size_t>(n) : 1;
      }
    }
    queued_ = 0;
  }
  void flush() {
    send_all();
    used_ = 0;
  }

  Flows& flows_;
  const bool offload_;
  Poller poller_;
  Buffers buffers_;
  std::vector<mmsghdr> in_;      // one a buffer, each with its own Source, filled in once
  std::vector<Source> sources_;
  std::vector<Out> out_;         // beside headers_
  std::vector<mmsghdr> headers_;
  std::vector<TrainMessage> trains_;
  std::size_t used_ = 0, queued_ = 0;
};

}  // namespace

void run_recvmmsg(Flows& flows) { BatchLoop(flows).run(); }

void run_recvfrom(Flows& flows) {
  Poller poller(flows);
  std::array<std::uint8_t, head_room + 2048> buffer;
  std::uint8_t* const start = buffer.data() + head_room;
  const auto take = [&](std::uint32_t index) {
    sockaddr_in from;
    socklen_t length = sizeof from;
    const ssize_t n = recvfrom(flows.socket_of(index), start, buffer.size() - head_room, MSG_DONTWAIT,
                               reinterpret_cast<sockaddr*>(&from), &length);
    if (n < 0) return false;
    const auto size = static_cast<std::size_t>(n);
    if (index != listener_mark) {
      Flow& flow = flows.at(index);
      write_header(start - header_size, flow, size);
      sendto(flows.listener(), start - header_size, size + header_size, MSG_DONTWAIT,
             reinterpret_cast<const sockaddr*>(&flow.client), sizeof flow.client);
    } else if (size >= header_size && stun::classify(*start) == stun::FirstByte::channel_data) {
      if (const Flow* flow = flows.find(from))
        sendto(flow->descriptor, start + header_size, size - header_size, MSG_DONTWAIT,
               reinterpret_cast<const sockaddr*>(&flow->peer), sizeof flow->peer);
    } else {
      answer(flows, poller, {start, size}, 0, from);
    }
    return true;
  };
  for (;;)
    poller.wait([&](std::uint32_t index) {
      for (std::size_t i = 0; i < batch && take(index); ++i) {}
    });
}

}  // namespace radiotower::bare
