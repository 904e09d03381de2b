// The loop for hosts and containers that refuse io_uring: epoll, recvmmsg, sendmmsg. Same contract, same tests.
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "buffers.h"
#include "loop_common.h"

namespace radiotower::io {

namespace {

constexpr std::size_t batch = 64;         // datagrams of one recvmmsg or sendmmsg
constexpr std::size_t most_queued = 1024;  // sends; a full queue is flushed
constexpr std::uint64_t wake_mark = ~std::uint64_t{0};

class EpollLoop final : public Loop {
 public:
  explicit EpollLoop(const LoopSettings& settings)
      : sockets_(settings.max_sockets), per_turn_(std::max<std::size_t>(settings.buffers / 2, batch)), buffers_(2 * per_turn_) {
    queue_.reserve(most_queued);
  }
  ~EpollLoop() override {
    sockets_.for_each([](SocketId, SocketTable::Slot& slot) { close(slot.descriptor); });
    for (const int descriptor : closing_) close(descriptor);
    if (epoll_ >= 0) close(epoll_);
  }

  bool open(std::string& why) {
    epoll_ = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_ < 0) {
      why = std::string("epoll_create1: ") + std::strerror(errno);
      return false;
    }
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = wake_mark;
    epoll_ctl(epoll_, EPOLL_CTL_ADD, wake_.descriptor(), &event);
    return true;
  }

  std::string_view name() const override { return "epoll"; }

  SocketId add(Socket socket, std::uint64_t cookie) override {
    sockaddr_storage local{};
    socklen_t length = sizeof local;
    getsockname(socket.descriptor(), reinterpret_cast<sockaddr*>(&local), &length);
    const SocketId id = sockets_.add(socket.descriptor(), cookie, local.ss_family == AF_INET6);
    if (id == no_socket) return no_socket;
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = id;
    if (epoll_ctl(epoll_, EPOLL_CTL_ADD, socket.descriptor(), &event) != 0) {
      sockets_.remove(id);  // the Socket closes it
      return no_socket;
    }
    socket.release();
    return id;
  }

  void remove(SocketId id) override {
    SocketTable::Slot* slot = sockets_.find(id);
    if (!slot) return;
    epoll_ctl(epoll_, EPOLL_CTL_DEL, slot->descriptor, nullptr);
    closing_.push_back(sockets_.remove(id));
  }

  void send(const Outgoing& out) override {
    SocketTable::Slot* slot = sockets_.find(out.socket);
    if (!slot) return;
    for_each_datagram(out, [&](Bytes prefix, MutableBytes bytes, bool may_prepend) {
      if (queue_.size() == most_queued) flush(nullptr);
      Queued& q = queue_.emplace_back();
      q.descriptor = slot->descriptor;
      q.socket = out.socket;
      q.length = static_cast<socklen_t>(out.to.to_sockaddr(&q.to));
      q.pieces[0] = {bytes.data(), bytes.size()};
      q.count = 1;
      if (!prefix.empty() && may_prepend) {
        std::copy(prefix.begin(), prefix.end(), bytes.data() - prefix.size());
        q.pieces[0] = {bytes.data() - prefix.size(), bytes.size() + prefix.size()};
      } else if (!prefix.empty()) {
        std::copy(prefix.begin(), prefix.end(), q.prefix.begin());
        q.pieces[1] = q.pieces[0];
        q.pieces[0] = {nullptr, prefix.size()};  // q moves within the vector: its own prefix is pointed to when it is sent
        q.count = 2;
      }
      if (out.dont_fragment) {
        const Queued last = q;
        queue_.pop_back();
        flush(nullptr);  // in order
        const Bytes whole(static_cast<std::uint8_t*>(last.pieces[0].iov_base), last.pieces[0].iov_len);
        if (const int error = send_with_dont_fragment(last.descriptor, slot->v6, whole, last.to, last.length)) count_send_failure(error, counters_);
        else ++counters_.sent;
      }
    });
  }

  bool turn(nanoseconds timeout, Receiver& receiver) override {
    ++counters_.turns;
    flush(&receiver);
    for (const int descriptor : closing_) close(descriptor);
    closing_.clear();
    half_ ^= 1;  // what was handed over in the last turn lies in the other half, and stays until the end of this one
    std::size_t used = 0;

    std::array<epoll_event, 256> events;
    // Rounded up: a wait that ends early by a fraction of a millisecond would spin until the time has come.
    const std::int64_t ms = timeout.count() < 0 ? -1 : (timeout.count() + 999'999) / 1'000'000;
    const int ready = epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), static_cast<int>(std::min<std::int64_t>(ms, 3'600'000)));
    if (ready < 0) return errno == EINTR;
    for (int i = 0; i < ready; ++i) {
      const epoll_event& event = events[static_cast<std::size_t>(i)];
      if (event.data.u64 == wake_mark) {
        wake_.clear();
        receiver.on_wake();
        continue;
      }
      const auto id = static_cast<SocketId>(event.data.u64);
      SocketTable::Slot* slot = sockets_.find(id);
      if (!slot) continue;
      if (event.events & EPOLLERR) drain_error_queue(slot->descriptor, id, slot->cookie, receiver);
      if ((event.events & EPOLLIN) && used < per_turn_) receive(id, used, receiver);
    }
    return true;
  }

  void wake() override { wake_.signal(); }
  const LoopCounters& counters() const override { return counters_; }
  std::size_t sockets() const override { return sockets_.size(); }
  std::size_t armed() const override { return sockets_.size(); }  // level-triggered: a socket in the set is always armed

 private:
  struct Queued {
    int descriptor = -1;
    SocketId socket = no_socket;
    socklen_t length = 0;
    int count = 0;
    sockaddr_in6 to{};
    std::array<iovec, 2> pieces{};
    std::array<std::uint8_t, 4> prefix{};
  };

  void receive(SocketId id, std::size_t& used, Receiver& receiver) {
    std::array<mmsghdr, batch> messages;
    std::array<iovec, batch> pieces;
    std::array<sockaddr_in6, batch> names;
    const std::size_t most = std::min(batch, per_turn_ - used);
    for (std::size_t i = 0; i < most; ++i) {
      pieces[i] = {buffer(used + i) + Buffers::headroom, Buffers::payload};
      messages[i].msg_hdr = {};
      messages[i].msg_hdr.msg_name = &names[i];
      messages[i].msg_hdr.msg_namelen = sizeof names[i];
      messages[i].msg_hdr.msg_iov = &pieces[i];
      messages[i].msg_hdr.msg_iovlen = 1;
    }
    SocketTable::Slot* slot = sockets_.find(id);
    const int received = recvmmsg(slot->descriptor, messages.data(), static_cast<unsigned>(most), MSG_DONTWAIT, nullptr);
    if (received < 0) {
      if (errno == EAGAIN || errno == EINTR) return;
      if (may_be_of_an_earlier_datagram(errno)) return drain_error_queue(slot->descriptor, id, slot->cookie, receiver);
      ++counters_.receive_failed;
      return;
    }
    for (int k = 0; k < received; ++k) {
      const auto i = static_cast<std::size_t>(k);
      const std::size_t place = used++;
      slot = sockets_.find(id);  // the receiver may have removed it
      if (!slot) return;
      if (messages[i].msg_hdr.msg_flags & MSG_TRUNC) {
        ++counters_.truncated;
        continue;
      }
      Datagram datagram;
      datagram.socket = id;
      datagram.cookie = slot->cookie;
      datagram.bytes = {buffer(place) + Buffers::headroom, messages[i].msg_len};
      if (const auto from = net::TransportAddress::from_sockaddr(reinterpret_cast<sockaddr*>(&names[i]), messages[i].msg_hdr.msg_namelen))
        datagram.from = *from;
      ++counters_.received;
      receiver.on_datagram(datagram);
    }
  }

  std::uint8_t* buffer(std::size_t i) const { return buffers_.at(half_ * per_turn_ + i); }

  /// Runs of one socket leave with one sendmmsg.
  void flush(Receiver* receiver) {
    for (std::size_t from = 0; from < queue_.size();) {
      std::size_t to = from + 1;
      while (to < queue_.size() && to - from < batch && queue_[to].descriptor == queue_[from].descriptor) ++to;
      std::array<mmsghdr, batch> messages;
      for (std::size_t i = from; i < to; ++i) {
        Queued& q = queue_[i];
        if (q.count == 2) q.pieces[0].iov_base = q.prefix.data();
        msghdr& m = messages[i - from].msg_hdr;
        m = {};
        m.msg_name = &q.to;
        m.msg_namelen = q.length;
        m.msg_iov = q.pieces.data();
        m.msg_iovlen = static_cast<std::size_t>(q.count);
      }
      send_run(messages.data(), from, to, receiver);
      from = to;
    }
    queue_.clear();
  }

  void send_run(mmsghdr* messages, std::size_t from, std::size_t to, Receiver* receiver) {
    bool retried = false;
    for (std::size_t done = from; done < to;) {
      const int sent = sendmmsg(queue_[done].descriptor, messages + (done - from), static_cast<unsigned>(to - done), MSG_DONTWAIT);
      if (sent > 0) {
        counters_.sent += static_cast<std::uint64_t>(sent);
        done += static_cast<std::size_t>(sent);
        retried = false;
        continue;
      }
      if (errno == EINTR) continue;
      if (!retried && may_be_of_an_earlier_datagram(errno)) {  // an ICMP error that waited on the socket: this one has not left yet
        const Queued& q = queue_[done];
        const SocketTable::Slot* slot = sockets_.find(q.socket);
        if (receiver && slot) drain_error_queue(q.descriptor, q.socket, slot->cookie, *receiver);
        retried = true;
        ++counters_.send_retried;
        continue;
      }
      count_send_failure(errno, counters_);
      ++done;
      retried = false;
    }
  }

  int epoll_ = -1;
  SocketTable sockets_;
  std::size_t per_turn_;
  Buffers buffers_;
  std::size_t half_ = 0;
  std::vector<Queued> queue_;
  std::vector<int> closing_;
  WakeUp wake_;
  LoopCounters counters_;
};

}  // namespace

std::unique_ptr<Loop> make_epoll_loop(const LoopSettings& settings, std::string& why) {
  auto loop = std::make_unique<EpollLoop>(settings);
  if (!loop->open(why)) return nullptr;
  return loop;
}

}  // namespace radiotower::io
