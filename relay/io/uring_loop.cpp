// The loop on io_uring: one enter a turn submits the sends of thousands of sockets and reaps the receives of all of them.
//
// Receives: one multishot recvmsg a socket, armed once, with buffers of a provided ring. A buffer is laid out by the kernel as
// [io_uring_recvmsg_out 16][name 32][payload], so that 48 bytes in front of the payload are free once the name has been read.
// Sends: IORING_OP_SEND with an address, MSG_DONTWAIT and CQE_SKIP_SUCCESS: they finish inside io_uring_enter, successes leave no
// completion, and the bytes may be given back as soon as enter has returned and the failures among them have been looked at.
#include <liburing.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <new>
#include <utility>

#include "buffers.h"
#include "loop_common.h"

namespace radiotower::io {

namespace {

constexpr unsigned submission_entries = 1024;
constexpr unsigned completion_entries = 16384;
constexpr std::uint16_t buffer_group = 1;
constexpr std::size_t name_size = 32;
constexpr std::size_t send_slots = 8192;

enum class Kind : std::uint64_t { receive = 1, send = 2, cancel = 3, wake = 4 };
constexpr std::uint64_t user_data(Kind kind, std::uint64_t rest) { return static_cast<std::uint64_t>(kind) << 56 | rest; }

std::string sentence(const char* call, int error) {
  std::string text = std::string(call) + ": " + std::strerror(error);
  if (error == EPERM || error == EACCES || error == ENOSYS) {
    if (std::FILE* f = std::fopen("/proc/sys/kernel/io_uring_disabled", "re")) {
      const int value = std::fgetc(f);
      std::fclose(f);
      if (value == '1' || value == '2') return text + " (kernel.io_uring_disabled = " + static_cast<char>(value) + ")";
    }
    text += " (a container's seccomp profile refuses it, or the kernel was built without)";
  }
  return text;
}

class UringLoop final : public Loop {
 public:
  explicit UringLoop(const LoopSettings& settings) : sockets_(settings.max_sockets), buffers_(settings.buffers), slots_(send_slots) {
    receive_.msg_namelen = name_size;
    lent_.reserve(settings.buffers);
  }

  ~UringLoop() override {
    sockets_.for_each([](SocketId, SocketTable::Slot& slot) { close(slot.descriptor); });
    for (const int descriptor : closing_) close(descriptor);
    if (has_ring_) io_uring_queue_exit(&ring_);
    if (buffer_ring_) munmap(buffer_ring_, buffer_ring_size_);
  }

  bool open(std::string& why) {
    io_uring_params params{};
    // What helps, then less: each flag is from another kernel (6.1 has them all).
    const unsigned attempts[] = {
        IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_R_DISABLED,
        IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_R_DISABLED,
    };
    int error = 0;
    for (const unsigned flags : attempts) {
      params = {};
      params.flags = flags | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;
      params.cq_entries = completion_entries;
      error = -io_uring_queue_init_params(submission_entries, &ring_, &params);
      if (error != EINVAL) break;
    }
    if (error != 0) {
      why = sentence("io_uring_setup", error);
      return false;
    }
    has_ring_ = true;
    if (!register_buffers(why)) return false;
    restrict_operations();
    if (!register_with_kernel(IORING_REGISTER_ENABLE_RINGS, nullptr, 0)) {
      why = sentence("io_uring_register (enable)", errno);
      return false;
    }
    io_uring_register_ring_fd(&ring_);  // saves a look-up an enter; without it everything works as well
    watch_for_wake_up();
    return probe(why);
  }

  std::string_view name() const override { return "io_uring"; }

  SocketId add(Socket socket, std::uint64_t cookie) override {
    sockaddr_storage local{};
    socklen_t length = sizeof local;
    getsockname(socket.descriptor(), reinterpret_cast<sockaddr*>(&local), &length);
    const SocketId id = sockets_.add(socket.descriptor(), cookie, local.ss_family == AF_INET6);
    if (id == no_socket) return no_socket;
    socket.release();
    arm(id, *sockets_.find(id));
    return id;
  }

  void remove(SocketId id) override {
    SocketTable::Slot* slot = sockets_.find(id);
    if (!slot) return;
    if (slot->armed) {
      io_uring_sqe* sqe = entry();
      io_uring_prep_cancel64(sqe, user_data(Kind::receive, id), 0);
      io_uring_sqe_set_data64(sqe, user_data(Kind::cancel, 0));
      sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
      slot->armed = false;
      --armed_;
    }
    closing_.push_back(sockets_.remove(id));  // closed once what is queued on it has left
  }

  void send(const Outgoing& out) override {
    SocketTable::Slot* slot = sockets_.find(out.socket);
    if (!slot) return;
    for_each_datagram(out, [&](Bytes prefix, MutableBytes bytes, bool may_prepend) {
      MutableBytes whole = bytes;
      if (!prefix.empty()) {
        if (!may_prepend) return send_in_two(*slot, prefix, bytes, out.to);
        whole = {bytes.data() - prefix.size(), bytes.size() + prefix.size()};
        std::copy(prefix.begin(), prefix.end(), whole.begin());
      }
      queue(*slot, out.socket, whole, out.to, out.dont_fragment);
    });
  }

  bool turn(nanoseconds timeout, Receiver& receiver) override {
    ++counters_.turns;
    rearm();
    // With many buffers lent out the sends go first, by themselves, so that their buffers are back before more is received.
    if (lent_.size() * 2 > buffers_.count() || !closing_.empty()) {
      if (!submit()) return false;
      reap_failed_sends(receiver);
      give_back();
      close_removed();
    }
    io_uring_cqe* cqe = nullptr;
    int result;
    if (timeout.count() < 0) {
      result = io_uring_submit_and_wait(&ring_, 1);
    } else if (timeout.count() == 0) {
      result = io_uring_submit_and_get_events(&ring_);
    } else {
      __kernel_timespec time{};
      time.tv_sec = timeout.count() / 1'000'000'000;
      time.tv_nsec = timeout.count() % 1'000'000'000;
      result = io_uring_submit_and_wait_timeout(&ring_, &cqe, 1, &time, nullptr);
    }
    if (result < 0 && result != -ETIME && result != -EINTR && result != -EAGAIN && result != -EBUSY) return false;

    if (IO_URING_READ_ONCE(*ring_.sq.kflags) & IORING_SQ_CQ_OVERFLOW) {
      ++counters_.completion_overflow;  // the kernel keeps what did not fit; the next enter brings it
      io_uring_get_events(&ring_);
    }
    // What was lent in the last turn has been sent by the enter above, and is given back when the failures have been seen.
    lent_before_ = lent_.size();
    // Bounded: a receive needs a buffer, and there are so many; the rest are failures of sends of this turn.
    unsigned head = 0, seen = 0;
    io_uring_for_each_cqe(&ring_, head, cqe) {
      ++seen;
      complete(*cqe, receiver);
      if (seen == completion_entries / 2) break;
    }
    io_uring_cq_advance(&ring_, seen);
    give_back_first(lent_before_);
    close_removed();
    return true;
  }

  void wake() override { wake_.signal(); }
  const LoopCounters& counters() const override { return counters_; }
  std::size_t sockets() const override { return sockets_.size(); }
  std::size_t armed() const override { return armed_; }

 private:
  struct SendSlot {
    sockaddr_in6 to;
    SocketId socket = no_socket;
    const std::uint8_t* bytes = nullptr;
    std::uint32_t size = 0;
    std::uint32_t sequence = 0;
  };

  bool register_buffers(std::string& why) {
    // liburing 2.3 has no io_uring_setup_buf_ring: the ring is made and registered by hand.
    buffer_ring_size_ = buffers_.count() * sizeof(io_uring_buf);
    void* memory = mmap(nullptr, buffer_ring_size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
      why = sentence("mmap", errno);
      return false;
    }
    buffer_ring_ = static_cast<io_uring_buf_ring*>(memory);
    io_uring_buf_reg reg{};
    reg.ring_addr = reinterpret_cast<std::uint64_t>(buffer_ring_);
    reg.ring_entries = static_cast<std::uint32_t>(buffers_.count());
    reg.bgid = buffer_group;
    if (const int error = -io_uring_register_buf_ring(&ring_, &reg, 0); error != 0) {
      why = sentence("io_uring_register (buffer ring; Linux 5.19 or later has it)", error);
      return false;
    }
    io_uring_buf_ring_init(buffer_ring_);
    for (std::size_t i = 0; i < buffers_.count(); ++i) add_buffer(static_cast<std::uint16_t>(i), static_cast<int>(i));
    io_uring_buf_ring_advance(buffer_ring_, static_cast<int>(buffers_.count()));
    return true;
  }

  /// seccomp cannot see what a ring is asked to do, so the ring itself is told what it may do (security.md, "Sandbox").
  void restrict_operations() {
    std::array<io_uring_restriction, 10> r{};
    std::size_t n = 0;
    for (const int op : {IORING_OP_RECVMSG, IORING_OP_SEND, IORING_OP_SENDMSG, IORING_OP_ASYNC_CANCEL, IORING_OP_POLL_ADD, IORING_OP_TIMEOUT}) {
      r[n].opcode = IORING_RESTRICTION_SQE_OP;
      r[n++].sqe_op = static_cast<std::uint8_t>(op);
    }
    r[n].opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED;
    r[n++].sqe_flags = IOSQE_BUFFER_SELECT | IOSQE_CQE_SKIP_SUCCESS;
    for (const int op : {IORING_REGISTER_ENABLE_RINGS, IORING_REGISTER_RING_FDS, IORING_UNREGISTER_RING_FDS}) {
      r[n].opcode = IORING_RESTRICTION_REGISTER_OP;
      r[n++].register_op = static_cast<std::uint8_t>(op);
    }
    register_with_kernel(IORING_REGISTER_RESTRICTIONS, r.data(), static_cast<unsigned>(n));  // a kernel without them is no reason not to start
  }

  /// liburing 2.3 as Debian has it declares, but does not export, the calls for restrictions and enabling.
  bool register_with_kernel(unsigned operation, const void* argument, unsigned count) {
    return syscall(__NR_io_uring_register, ring_.ring_fd, operation, argument, count) == 0;
  }

  /// Sends a datagram to itself through the very operations the loop lives on: a kernel before 6.1 lacks one or the other.
  bool probe(std::string& why) {
    struct Ear final : Receiver {
      void on_datagram(const Datagram& d) override { heard = d.bytes.size() == 4; }
      void on_socket_error(const SocketError&) override {}
      void on_wake() override {}
      bool heard = false;
    } ear;
    int error = 0;
    Socket socket = open_udp({net::IpAddress::v4(0x7F000001), 0, 0}, {}, error);
    if (!socket) return true;  // no loopback to ask: the real sockets will tell
    const net::TransportAddress self = local_address(socket);
    const SocketId id = add(std::move(socket), 0);
    std::array<std::uint8_t, 4> hello{'p', 'r', 'o', 'b'};
    Outgoing out;
    out.socket = id;
    out.to = self;
    out.bytes = hello;
    send(out);
    for (int i = 0; i < 20 && !ear.heard; ++i) turn(milliseconds(20), ear);
    const bool unsupported = !ear.heard;
    remove(id);
    turn(nanoseconds(0), ear);
    counters_ = {};
    if (unsupported) why = "multishot receive or send with an address does not work (Linux 6.1 or later has both)";
    return !unsupported;
  }

  io_uring_sqe* entry() {
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    while (!sqe) {
      submit();
      sqe = io_uring_get_sqe(&ring_);
    }
    return sqe;
  }

  void watch_for_wake_up() {
    io_uring_sqe* sqe = entry();
    io_uring_prep_poll_multishot(sqe, wake_.descriptor(), POLLIN);
    io_uring_sqe_set_data64(sqe, user_data(Kind::wake, 0));
  }

  bool submit() {
    const int result = io_uring_submit(&ring_);
    return result >= 0 || result == -EINTR || result == -EAGAIN || result == -EBUSY;
  }

  void arm(SocketId id, SocketTable::Slot& slot) {
    io_uring_sqe* sqe = entry();
    io_uring_prep_recvmsg_multishot(sqe, slot.descriptor, &receive_, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = buffer_group;
    io_uring_sqe_set_data64(sqe, user_data(Kind::receive, id));
    slot.armed = true;
    ++armed_;
  }

  void rearm() {
    for (const SocketId id : ended_) {
      SocketTable::Slot* slot = sockets_.find(id);
      if (!slot || slot->armed) continue;
      ++counters_.rearmed;
      arm(id, *slot);
    }
    ended_.clear();
  }

  void queue(SocketTable::Slot& socket, SocketId id, MutableBytes bytes, const net::TransportAddress& to, bool dont_fragment) {
    const std::uint32_t sequence = next_send_++;
    SendSlot& slot = slots_[sequence % send_slots];
    const auto length = static_cast<socklen_t>(to.to_sockaddr(&slot.to));
    slot.socket = id;
    slot.bytes = bytes.data();
    slot.size = static_cast<std::uint32_t>(bytes.size());
    slot.sequence = sequence;
    if (dont_fragment) {
      submit();  // in order behind what is queued already
      if (const int error = send_with_dont_fragment(socket.descriptor, socket.v6, bytes, slot.to, length)) count_send_failure(error, counters_);
      else ++counters_.sent;
      return;
    }
    io_uring_sqe* sqe = entry();
    io_uring_prep_send(sqe, socket.descriptor, bytes.data(), bytes.size(), MSG_DONTWAIT);
    io_uring_prep_send_set_addr(sqe, reinterpret_cast<const sockaddr*>(&slot.to), static_cast<std::uint16_t>(length));
    sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
    io_uring_sqe_set_data64(sqe, user_data(Kind::send, sequence));
    ++counters_.sent;  // taken back when it fails
  }

  /// A datagram of a train whose prefix has no room in front of it: two pieces, at once.
  void send_in_two(SocketTable::Slot& socket, Bytes prefix, Bytes bytes, const net::TransportAddress& to) {
    submit();
    sockaddr_in6 address;
    msghdr message{};
    message.msg_name = &address;
    message.msg_namelen = static_cast<socklen_t>(to.to_sockaddr(&address));
    std::array<iovec, 2> pieces{{{const_cast<std::uint8_t*>(prefix.data()), prefix.size()}, {const_cast<std::uint8_t*>(bytes.data()), bytes.size()}}};
    message.msg_iov = pieces.data();
    message.msg_iovlen = pieces.size();
    if (sendmsg(socket.descriptor, &message, MSG_DONTWAIT) < 0) count_send_failure(errno, counters_);
    else ++counters_.sent;
  }

  void complete(const io_uring_cqe& cqe, Receiver& receiver) {
    switch (static_cast<Kind>(cqe.user_data >> 56)) {
      case Kind::receive: return received(cqe, receiver);
      case Kind::send: return send_failed(static_cast<std::uint32_t>(cqe.user_data), -cqe.res, receiver);
      case Kind::cancel: return;
      case Kind::wake:
        wake_.clear();
        if (!(cqe.flags & IORING_CQE_F_MORE)) watch_for_wake_up();
        return receiver.on_wake();
    }
  }

  void received(const io_uring_cqe& cqe, Receiver& receiver) {
    const auto id = static_cast<SocketId>(cqe.user_data);
    SocketTable::Slot* slot = sockets_.find(id);
    if (slot && !(cqe.flags & IORING_CQE_F_MORE)) {
      slot->armed = false;
      --armed_;
      ended_.push_back(id);
    }
    if (cqe.flags & IORING_CQE_F_BUFFER) {
      const auto index = static_cast<std::uint16_t>(cqe.flags >> IORING_CQE_BUFFER_SHIFT);
      lent_.push_back(index);
      if (slot && cqe.res >= 0) hand_over(id, *slot, buffers_.at(index), cqe.res, receiver);
      return;
    }
    if (!slot || cqe.res >= 0) return;
    switch (-cqe.res) {
      case ENOBUFS: ++counters_.out_of_buffers; return;  // armed again in the next turn, when buffers are back
      case ECANCELED:
      case EINTR:
      case EAGAIN: return;
      default:
        if (may_be_of_an_earlier_datagram(-cqe.res)) return drain_error_queue(slot->descriptor, id, slot->cookie, receiver);
        ++counters_.receive_failed;
    }
  }

  void hand_over(SocketId id, const SocketTable::Slot& slot, std::uint8_t* buffer, int length, Receiver& receiver) {
    io_uring_recvmsg_out* out = io_uring_recvmsg_validate(buffer, length, &receive_);
    if (!out) {
      ++counters_.receive_failed;
      return;
    }
    if (out->flags & MSG_TRUNC) {
      ++counters_.truncated;
      return;
    }
    Datagram datagram;
    datagram.socket = id;
    datagram.cookie = slot.cookie;
    datagram.bytes = {buffer + Buffers::headroom, static_cast<std::size_t>(length) - Buffers::headroom};
    const auto from = net::TransportAddress::from_sockaddr(static_cast<const sockaddr*>(io_uring_recvmsg_name(out)),
                                                           std::min<std::size_t>(out->namelen, name_size));
    if (from) datagram.from = *from;
    ++counters_.received;
    receiver.on_datagram(datagram);
  }

  void send_failed(std::uint32_t sequence, int error, Receiver& receiver) {
    --counters_.sent;
    SendSlot& slot = slots_[sequence % send_slots];
    SocketTable::Slot* socket = slot.sequence == sequence ? sockets_.find(slot.socket) : nullptr;
    if (!socket || !may_be_of_an_earlier_datagram(error)) return count_send_failure(error, counters_);
    // An ICMP error of an earlier datagram waited on the socket and was reported on this one, which did not leave: it leaves now.
    drain_error_queue(socket->descriptor, slot.socket, socket->cookie, receiver);
    const std::size_t length = slot.to.sin6_family == AF_INET6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
    const ssize_t sent = sendto(socket->descriptor, slot.bytes, slot.size, MSG_DONTWAIT, reinterpret_cast<const sockaddr*>(&slot.to),
                                static_cast<socklen_t>(length));
    if (sent < 0) return count_send_failure(errno, counters_);
    ++counters_.send_retried;
    ++counters_.sent;
  }

  /// After a submit that did not wait: failures of sends stand first in the queue, before any new receive.
  void reap_failed_sends(Receiver& receiver) {
    io_uring_cqe* cqe = nullptr;
    unsigned head = 0, seen = 0;
    io_uring_for_each_cqe(&ring_, head, cqe) {
      const Kind kind = static_cast<Kind>(cqe->user_data >> 56);
      if (kind != Kind::send && kind != Kind::cancel) break;
      ++seen;
      complete(*cqe, receiver);
    }
    io_uring_cq_advance(&ring_, seen);
  }

  void add_buffer(std::uint16_t index, int place) {
    io_uring_buf_ring_add(buffer_ring_, buffers_.at(index), static_cast<unsigned>(Buffers::headroom + Buffers::payload), index,
                          static_cast<int>(buffers_.count() - 1), place);
  }
  void give_back_first(std::size_t count) {
    if (count == 0) return;
    for (std::size_t i = 0; i < count; ++i) add_buffer(lent_[i], static_cast<int>(i));
    io_uring_buf_ring_advance(buffer_ring_, static_cast<int>(count));
    lent_.erase(lent_.begin(), lent_.begin() + static_cast<std::ptrdiff_t>(count));
  }
  void give_back() { give_back_first(lent_.size()); }

  void close_removed() {
    for (const int descriptor : closing_) close(descriptor);
    closing_.clear();
  }

  io_uring ring_{};
  bool has_ring_ = false;
  SocketTable sockets_;
  Buffers buffers_;
  io_uring_buf_ring* buffer_ring_ = nullptr;
  std::size_t buffer_ring_size_ = 0;
  msghdr receive_{};                  // the form of every receive; the kernel reads it when a receive is armed
  std::vector<SendSlot> slots_;       // of the sends of this turn and the last
  std::uint32_t next_send_ = 0;
  std::vector<std::uint16_t> lent_;   // buffers in the hands of the receiver, oldest first
  std::size_t lent_before_ = 0;
  std::vector<SocketId> ended_;       // receives to arm again
  std::vector<int> closing_;
  std::size_t armed_ = 0;
  WakeUp wake_;
  LoopCounters counters_;
};

}  // namespace

std::unique_ptr<Loop> make_uring_loop(const LoopSettings& settings, std::string& why) {
  auto loop = std::make_unique<UringLoop>(settings);
  if (!loop->open(why)) return nullptr;
  return loop;
}

}  // namespace radiotower::io
