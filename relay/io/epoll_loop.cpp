// The loop for hosts and containers that refuse io_uring: epoll, recvmmsg, sendmmsg. Same contract, same tests.
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <new>
#include <utility>

#include "buffers.h"
#include "epoll_streams.h"
#include "gather.h"
#include "loop_common.h"

namespace radiotower::io {

namespace {

constexpr std::size_t batch = 64;         // datagrams of one recvmmsg or sendmmsg
constexpr std::size_t batch_pieces = 2048;
static_assert(batch_pieces >= most_datagrams * Run::most_pieces);
constexpr std::size_t whole = ~std::size_t{0};
constexpr std::uint64_t wake_mark = ~std::uint64_t{0}, timer_mark = wake_mark - 1;

class EpollLoop final : public Loop {
 public:
  explicit EpollLoop(const LoopSettings& settings)
      : sockets_(settings.max_sockets), per_turn_(std::max<std::size_t>(settings.buffers / 2, batch)), buffers_(2 * per_turn_), gather_(settings.gather) {
    prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);  // of this thread: what it sleeps while packets gather is less than a millisecond
  }
  ~EpollLoop() override {
    sockets_.for_each([](SocketId, SocketTable::Slot& slot) { close(slot.descriptor); });
    for (const int descriptor : closing_) close(descriptor);
    if (timer_ >= 0) close(timer_);
    if (epoll_ >= 0) close(epoll_);
  }

  bool open(std::string& why) {
    const auto fails = [&](const char* call) {
      why = std::string(call) + ": " + std::strerror(errno);
      return false;
    };
    if (wake_.descriptor() < 0) return fails("eventfd");
    if ((epoll_ = epoll_create1(EPOLL_CLOEXEC)) < 0) return fails("epoll_create1");
    if ((timer_ = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)) < 0) return fails("timerfd_create");
    for (const auto& [descriptor, mark] : {std::pair{wake_.descriptor(), wake_mark}, {timer_, timer_mark}}) {
      epoll_event event{};
      event.events = EPOLLIN;
      event.data.u64 = mark;
      if (epoll_ctl(epoll_, EPOLL_CTL_ADD, descriptor, &event) != 0) return fails("epoll_ctl");
    }
    return true;
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
    count_drops(*slot, counters_);
    if (slot->kind == SocketKind::datagrams || slot->registered) epoll_ctl(epoll_, EPOLL_CTL_DEL, slot->descriptor, nullptr);
    closing_.push_back(sockets_.remove(id));
  }

  SocketId add_acceptor(Socket socket, std::uint64_t cookie) override { return streams_.add(std::move(socket), cookie, SocketKind::acceptor); }
  SocketId add_stream(Socket socket, std::uint64_t cookie) override { return streams_.add(std::move(socket), cookie, SocketKind::stream); }
  std::ptrdiff_t write(SocketId id, const iovec* pieces, std::size_t count) override {
    return write_stream(sockets_, id, pieces, count, counters_);
  }
  void want_writable(SocketId id) override { streams_.want_writable(id); }
  void pause(SocketId id) override { streams_.pause(id); }
  void resume(SocketId id) override { streams_.resume(id); }
  void release(SocketId id) override { streams_.release(id); }
  int stream_error(SocketId id) override { return error_of_stream(sockets_, id); }

  int set_filter(SocketId id, const std::vector<FilterInstruction>& program) override {
    const SocketTable::Slot* slot = sockets_.find(id);
    return slot ? attach_filter(slot->descriptor, program) : EBADF;
  }

  void send(const Outgoing& out) override {
    const SocketTable::Slot* slot = sockets_.find(out.socket);
    if (!slot) return;
    if (out.dont_fragment) flush();
    if (!queue_.add(out.socket, slot->descriptor, out)) {  // a full queue
      flush();
      if (!queue_.add(out.socket, slot->descriptor, out)) return;
    }
    if (!out.dont_fragment) return;
    note(queue_[0], send_now(queue_, queue_[0], false, true, counters_));
    queue_.clear();
  }

  bool turn(nanoseconds timeout, Receiver& receiver) override {
    ++counters_.turns;
    flush();
    for (const int descriptor : closing_) close(descriptor);
    closing_.clear();
    half_ ^= 1;  // what was handed over in the last turn lies in the other half, and stays until the end of this one
    std::size_t used = 0;

    timeout = streams_.begin_turn(timeout);
    std::array<epoll_event, 256> events;
    if (const nanoseconds time = std::min(gather_.wait(), timeout); time.count() > 0) {
      ++counters_.gathered;
      const timespec limit{0, time.count()};
      clock_nanosleep(CLOCK_MONOTONIC, 0, &limit, nullptr);
      timeout = nanoseconds(0);
    }
    if (timeout.count() > 0) arm_timer(timeout);
    const int ready = epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), timeout.count() == 0 ? 0 : -1);
    if (ready < 0) return errno == EINTR;
    // The kernel reports sockets that stay ready in the same order each time: after a turn that could not serve all, another one comes first.
    const std::size_t first = std::exchange(ran_full_, false) && ready > 0 ? counters_.turns % static_cast<std::size_t>(ready) : 0;
    for (std::size_t i = 0; i < static_cast<std::size_t>(ready); ++i) {
      const epoll_event& event = events[(first + i) % static_cast<std::size_t>(ready)];
      if (event.data.u64 == timer_mark) {
        std::uint64_t times;
        [[maybe_unused]] const ssize_t n = read(timer_, &times, sizeof times);
        timer_at_ = 0;
        continue;
      }
      if (event.data.u64 == wake_mark) {
        wake_.clear();
        receiver.on_wake();
        continue;
      }
      const auto id = static_cast<SocketId>(event.data.u64);
      SocketTable::Slot* slot = sockets_.find(id);
      if (!slot) continue;
      if (slot->kind != SocketKind::datagrams) {
        streams_.handle(id, event.events, used < per_turn_ ? buffer(used) : nullptr, used, receiver);
        continue;
      }
      if (event.events & EPOLLERR) report_errors(sockets_, id, receiver);  // level-triggered: what is left is heard of again
      if ((event.events & EPOLLIN) && used < per_turn_) receive(id, used, receiver);
    }
    ran_full_ = used >= per_turn_;
    streams_.give_up_released(receiver);
    gather_.after_turn(monotonic_ns(), used);
    return true;
  }

  void wake() override { wake_.signal(); }
  const LoopCounters& counters() const override { return counters_; }
  std::size_t sockets() const override { return sockets_.size(); }
  std::size_t armed() const override { return sockets_.size(); }  // level-triggered: a socket in the set is always armed
  std::uint64_t kernel_drops(SocketId socket) override {
    SocketTable::Slot* slot = sockets_.find(socket);
    return slot ? count_drops(*slot, counters_) : 0;
  }
  void count_kernel_drops() override {
    sockets_.for_each([&](SocketId, SocketTable::Slot& slot) { count_drops(slot, counters_); });
  }
  std::optional<Refusal> first_refusal() override { return std::exchange(trains_.first, std::nullopt); }

 private:
  /// As in the other loop: a timer beside the waits is cheaper than a timeout of each.
  void arm_timer(nanoseconds timeout) {
    const std::int64_t at = monotonic_ns() + timeout.count();
    if (timer_at_ != 0 && timer_at_ <= at) return;
    itimerspec time{};
    time.it_value = {timeout.count() / 1'000'000'000, timeout.count() % 1'000'000'000};
    timer_at_ = timerfd_settime(timer_, 0, &time, nullptr) == 0 ? at : 0;
  }

  void receive(SocketId id, std::size_t& used, Receiver& receiver) {
    SocketTable::Slot* slot = sockets_.find(id);
    if (!slot) return;  // removed by the receiver when it heard of an error
    auto& [messages, pieces, names, controls] = receiving_;
    const std::size_t most = std::min(batch, per_turn_ - used);
    for (std::size_t i = 0; i < most; ++i) {
      pieces[i] = {buffer(used + i) + Buffers::headroom, Buffers::payload};
      messages[i].msg_hdr = {};
      messages[i].msg_hdr.msg_name = &names[i];
      messages[i].msg_hdr.msg_namelen = sizeof names[i];
      messages[i].msg_hdr.msg_iov = &pieces[i];
      messages[i].msg_hdr.msg_iovlen = 1;
      messages[i].msg_hdr.msg_control = controls[i].space;
      messages[i].msg_hdr.msg_controllen = sizeof controls[i].space;
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
      take_segment(segment_of(messages[i].msg_hdr), datagram, counters_);
      receiver.on_datagram(datagram);
    }
  }

  std::uint8_t* buffer(std::size_t i) const { return buffers_.at(half_ * per_turn_ + i); }

  /// What leaves by one sendmmsg: neighbours of one socket. Not sorted: towards the clients everything is one run, of the listener;
  /// towards the peers there is a socket for each, and nothing to gather.
  void flush() {
    for (std::size_t i = 0; i < queue_.size(); ++i) {
      const SendQueue::Entry& entry = queue_[i];
      const SocketTable::Slot* slot = sockets_.find(entry.socket);
      const bool as_train = entry.shape.datagrams > 1 && trains_.allow(entry, !slot || slot->no_trains);
      if (as_train) {
        if (!batch_.takes(entry, SendQueue::most_pieces_of(entry))) send_batch();
        SegmentControl& control = batch_.controls[batch_.used];
        mmsghdr& m = batch_.message(entry, whole);
        m.msg_hdr.msg_iovlen = queue_.pieces(entry, m.msg_hdr.msg_iov);
        batch_.pieces_used += m.msg_hdr.msg_iovlen;
        control.attach(m.msg_hdr, entry.shape.segment);
        continue;
      }
      std::size_t k = 0;
      queue_.for_each_run(entry, [&](const Run& run) {
        for (std::size_t of_run = 0, count = run.datagrams(); of_run < count; ++of_run) {
          if (!batch_.takes(entry, Run::most_pieces)) send_batch();
          mmsghdr& m = batch_.message(entry, k++);
          m.msg_hdr.msg_iovlen = run.pieces(of_run, m.msg_hdr.msg_iov);
          batch_.pieces_used += m.msg_hdr.msg_iovlen;
        }
      });
    }
    send_batch();
    queue_.clear();
  }

  void send_batch() {
    bool retried = false;
    for (std::size_t done = 0; done < batch_.used;) {
      const auto left = static_cast<unsigned>(batch_.used - done);
      const int sent = sendmmsg(batch_.descriptor, &batch_.messages[done], left, MSG_DONTWAIT);
      if (sent > 0) {
        for (const std::size_t end = done + static_cast<std::size_t>(sent); done < end; ++done) {
          counters_.sent += batch_.datagrams(done);
          counters_.trains_sent += batch_.of_entry[done] == whole;
        }
        counters_.send_retried += std::exchange(retried, false);
        continue;
      }
      if (errno == EINTR) continue;
      const int error = errno;
      const SendQueue::Entry& entry = *batch_.entries[done];
      if (batch_.of_entry[done] == whole && refuses_trains(error)) {
        learn(entry, error);
        note(entry, send_now(queue_, entry, false, false, counters_));
      } else if (may_be_of_an_earlier_datagram(error) && !std::exchange(retried, true)) {
        continue;  // an ICMP error that waited on the socket: this one has not left, and leaves now. What was said, EPOLLERR will tell
      } else {
        count_send_failure(error, batch_.datagrams(done), counters_);
      }
      ++done;
      retried = false;
    }
    batch_.used = batch_.pieces_used = 0;
  }

  void note(const SendQueue::Entry& entry, const SentNow& now) {  // a queued error will be told by EPOLLERR
    if (now.refused != 0) learn(entry, now.refused);
  }

  void learn(const SendQueue::Entry& entry, int error) { learn_refusal(entry, error, trains_, sockets_, counters_); }

  int epoll_ = -1;
  int timer_ = -1;
  std::int64_t timer_at_ = 0;  // CLOCK_MONOTONIC; 0: none runs
  SocketTable sockets_;
  std::size_t per_turn_;
  Buffers buffers_;
  Gather gather_;
  std::size_t half_ = 0;
  SendQueue queue_;
  Trains trains_;
  struct {  // members, so that a call does not clear them anew
    std::array<mmsghdr, batch> messages;
    std::array<iovec, batch> pieces;
    std::array<sockaddr_in6, batch> names;
    struct Control {
      alignas(cmsghdr) char space[control_size];
    };
    std::array<Control, batch> controls;
  } receiving_{};
  struct Batch {
    std::array<mmsghdr, batch> messages;
    std::array<const SendQueue::Entry*, batch> entries;
    std::array<std::size_t, batch> of_entry;  // which datagram of its entry; whole: all as a train
    std::array<SegmentControl, batch> controls;
    std::array<iovec, batch_pieces> pieces;
    std::size_t used = 0, pieces_used = 0;
    int descriptor = -1;

    bool takes(const SendQueue::Entry& entry, std::size_t more) const {
      return used == 0 || (entry.descriptor == descriptor && used < batch && pieces_used + more <= batch_pieces);
    }
    mmsghdr& message(const SendQueue::Entry& entry, std::size_t which) {
      descriptor = entry.descriptor;
      entries[used] = &entry;
      of_entry[used] = which;
      mmsghdr& m = messages[used++];
      m.msg_hdr = {};
      m.msg_hdr.msg_name = const_cast<sockaddr_in6*>(&entry.to);
      m.msg_hdr.msg_namelen = entry.length;
      m.msg_hdr.msg_iov = &pieces[pieces_used];
      return m;
    }
    std::size_t datagrams(std::size_t i) const { return of_entry[i] == whole ? entries[i]->shape.datagrams : 1; }
  } batch_{};
  bool ran_full_ = false;  // the last turn ended for want of buffers
  std::vector<int> closing_;
  WakeUp wake_;
  LoopCounters counters_;
  EpollStreams streams_{epoll_, sockets_, counters_};
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
