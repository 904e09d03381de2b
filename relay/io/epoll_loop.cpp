// The loop for hosts and containers that refuse io_uring: epoll, recvmmsg, sendmmsg. Same contract, same tests.
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <new>
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
    if (epoll_ < 0 || wake_.descriptor() < 0) {
      why = std::string(epoll_ < 0 ? "epoll_create1: " : "eventfd: ") + std::strerror(errno);
      return false;
    }
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = wake_mark;
    if (epoll_ctl(epoll_, EPOLL_CTL_ADD, wake_.descriptor(), &event) == 0) return true;
    why = std::string("epoll_ctl: ") + std::strerror(errno);
    return false;
  }

  std::string_view name() const override { return "epoll"; }

  SocketId add(Socket socket, std::uint64_t cookie) override {
    const SocketId id = sockets_.add(socket.descriptor(), cookie);
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
      MutableBytes whole = bytes;
      if (!prefix.empty() && may_prepend) {
        whole = {bytes.data() - prefix.size(), bytes.size() + prefix.size()};
        std::copy(prefix.begin(), prefix.end(), whole.begin());
        prefix = {};
      }
      if (queue_.size() == most_queued || out.dont_fragment) flush();
      Queued& q = queue_.emplace_back();
      q.descriptor = slot->descriptor;
      q.length = static_cast<socklen_t>(out.to.to_sockaddr(&q.to));
      q.count = prefix.empty() ? 1 : 2;
      std::copy(prefix.begin(), prefix.end(), q.prefix.begin());
      q.pieces[prefix.empty() ? 0 : 1] = {whole.data(), whole.size()};
      if (!prefix.empty()) q.pieces[0] = {q.prefix.data(), prefix.size()};  // the queue never grows beyond what was reserved
      if (!out.dont_fragment) return;
      count(send_now(q.descriptor, q.pieces, q.count, q.to, q.length, true), counters_);
      queue_.pop_back();
    });
  }

  bool turn(nanoseconds timeout, Receiver& receiver) override {
    ++counters_.turns;
    flush();
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
      if (event.events & EPOLLERR) report_errors(sockets_, id, receiver);  // level-triggered: what is left is heard of again
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
    socklen_t length = 0;
    std::size_t count = 0;
    sockaddr_in6 to{};
    std::array<iovec, 2> pieces{};
    std::array<std::uint8_t, 4> prefix{};
  };

  void receive(SocketId id, std::size_t& used, Receiver& receiver) {
    SocketTable::Slot* slot = sockets_.find(id);
    if (!slot) return;  // removed by the receiver when it heard of an error
    auto& [messages, pieces, names] = receiving_;
    const std::size_t most = std::min(batch, per_turn_ - used);
    for (std::size_t i = 0; i < most; ++i) {
      pieces[i] = {buffer(used + i) + Buffers::headroom, Buffers::payload};
      messages[i].msg_hdr = {};
      messages[i].msg_hdr.msg_name = &names[i];
      messages[i].msg_hdr.msg_namelen = sizeof names[i];
      messages[i].msg_hdr.msg_iov = &pieces[i];
      messages[i].msg_hdr.msg_iovlen = 1;
    }
    const int received = recvmmsg(slot->descriptor, messages.data(), static_cast<unsigned>(most), MSG_DONTWAIT, nullptr);
    if (received < 0) {
      if (errno == EAGAIN || errno == EINTR) return;
      if (may_be_of_an_earlier_datagram(errno)) {
        report_errors(sockets_, id, receiver);
        return;
      }
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

  /// Runs of one socket leave with one sendmmsg. Not sorted: towards the clients everything is one run, of the listener; towards the
  /// peers there is a socket for each, and nothing to gather.
  void flush() {
    for (std::size_t from = 0; from < queue_.size();) {
      std::size_t to = from + 1;
      while (to < queue_.size() && to - from < batch && queue_[to].descriptor == queue_[from].descriptor) ++to;
      for (std::size_t i = from; i < to; ++i) {
        Queued& q = queue_[i];
        msghdr& m = sending_[i - from].msg_hdr;
        m = {};
        m.msg_name = &q.to;
        m.msg_namelen = q.length;
        m.msg_iov = q.pieces.data();
        m.msg_iovlen = q.count;
      }
      send_run(from, to);
      from = to;
    }
    queue_.clear();
  }

  void send_run(std::size_t from, std::size_t to) {
    bool retried = false;
    for (std::size_t done = from; done < to;) {
      const int sent = sendmmsg(queue_[done].descriptor, sending_.data() + (done - from), static_cast<unsigned>(to - done), MSG_DONTWAIT);
      if (sent > 0) {
        counters_.sent += static_cast<std::uint64_t>(sent);
        counters_.send_retried += std::exchange(retried, false);
        done += static_cast<std::size_t>(sent);
        continue;
      }
      if (errno == EINTR) continue;
      // An ICMP error that waited on the socket: this one has not left, and leaves now. What was said, EPOLLERR will tell.
      if (may_be_of_an_earlier_datagram(errno) && !std::exchange(retried, true)) continue;
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
  struct {  // members, so that a call does not clear them anew
    std::array<mmsghdr, batch> messages;
    std::array<iovec, batch> pieces;
    std::array<sockaddr_in6, batch> names;
  } receiving_{};
  std::array<mmsghdr, batch> sending_{};
  std::vector<int> closing_;
  WakeUp wake_;
  LoopCounters counters_;
};

}  // namespace

std::unique_ptr<Loop> make_epoll_loop(const LoopSettings& settings, std::string& why) try {
  auto loop = std::make_unique<EpollLoop>(settings);
  if (!loop->open(why)) return nullptr;
  return loop;
} catch (const std::bad_alloc&) {
  why = "no memory for the receive buffers";
  return nullptr;
}

}  // namespace radiotower::io
