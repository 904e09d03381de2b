// The loop on io_uring: one enter a turn submits the sends of thousands of sockets and reaps the receives of all of them.
//
// Receives: one multishot recvmsg a socket, armed once, with buffers of a provided ring. A buffer is laid out by the kernel as
// [io_uring_recvmsg_out 16][name 32][control 24][payload], so that what is in front of the payload is free once it has been read.
// Sends: IORING_OP_SEND with an address, for trains IORING_OP_SENDMSG, MSG_DONTWAIT and CQE_SKIP_SUCCESS: they finish inside
// io_uring_enter, and successes leave no completion. A failure may be an ICMP error of an earlier datagram, and is then sent again from the same bytes; so a received
// buffer goes back to the kernel only at the end of the turn that sent what was queued from it, when every failure has been seen.
#include <liburing.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <new>
#include <utility>

#include "buffers.h"
#include "gather.h"
#include "loop_common.h"
#include "uring_setup.h"
#include "uring_streams.h"

namespace radiotower::io {

namespace {

constexpr std::size_t most_buffers = 32768;  // of a provided buffer ring
constexpr std::size_t name_size = 32;
static_assert(sizeof(io_uring_recvmsg_out) + name_size + control_size == Buffers::headroom);
constexpr std::size_t most_messages = 1024;  // sends in flight that need a msghdr; they are free again once submitted
constexpr std::size_t most_pieces = 8192;
constexpr std::uint64_t whole = 0xFF;

constexpr std::uint64_t epoch_mask = 0xFFFFFFFF;

class UringLoop final : public Loop, private Submissions {
 public:
  explicit UringLoop(const LoopSettings& settings)
      : completions_(settings.completions),
        max_sockets_(settings.max_sockets),
        gather_(settings.gather),
        sockets_(settings.max_sockets),
        buffers_(std::bit_ceil(std::clamp<std::size_t>(settings.buffers, 8, most_buffers))) {
    receive_.msg_namelen = name_size;
    receive_.msg_controllen = control_size;
    lent_.reserve(buffers_.count());
  }

  ~UringLoop() override {
    sockets_.for_each([](SocketId, SocketTable::Slot& slot) { close(slot.descriptor); });
    for (const int descriptor : closing_) close(descriptor);
    ring_setup_.close();  // before the buffers that the kernel writes to
  }

  bool open(std::string& why) {
    if (wake_.descriptor() < 0) {
      why = std::string("eventfd: ") + std::strerror(errno);
      return false;
    }
    if (!ring_setup_.open(completions_, buffers_, std::min<std::size_t>(max_sockets_, SocketTable::index_mask), why)) return false;
    watch_for_wake_up();
    return probe(why);
  }

  std::string_view name() const override { return "io_uring"; }

  SocketId add(Socket socket, std::uint64_t cookie) override {
    const SocketId id = sockets_.add(socket.descriptor(), cookie);
    if (id == no_socket) return no_socket;
    SocketTable::Slot& slot = *sockets_.find(id);
    slot.descriptor = socket.release();
    if (ring_setup_.has_files) {
      if (!closing_.empty()) submit();  // what is queued may name the socket that had this place before
      slot.registered = io_uring_register_files_update(&ring_, id & SocketTable::index_mask, &slot.descriptor, 1) == 1;
    }
    arm(id, slot);
    return id;
  }

  void remove(SocketId id) override {
    SocketTable::Slot* slot = sockets_.find(id);
    if (!slot) return;
    count_drops(*slot, counters_);
    if (slot->kind != SocketKind::datagrams) {
      streams_.forget(id, *slot);
    } else if (slot->armed) {
      slot->armed = false;
      --armed_;
      cancels_.push_back(user_data(Kind::receive, id));
    }
    if (slot->registered) leaving_files_.push_back(id & SocketTable::index_mask);
    closing_.push_back(sockets_.remove(id));  // closed by the next turn, once what is queued on it has left
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
    if (out.dont_fragment) {  // DF is an option of the socket: what was queued before leaves before, this one alone
      flush();
      submit();
    }
    if (!queue().add(out.socket, slot->descriptor, out)) return send_beside(out, slot->descriptor);
    if (out.dont_fragment) send_last_now();
  }

  bool turn(nanoseconds timeout, Receiver& receiver) override {
    ++counters_.turns;
    if (!wake_armed_) watch_for_wake_up();
    look_at_errors(receiver);
    flush();
    const std::size_t lent_before = lent_.size();
    cancel_removed();
    const bool sends_only = lent_before * 2 > buffers_.count();
    if (sends_only) {
      // Most buffers wait for what is queued from them to leave. This turn only sends, and gives them back: to receive now would end
      // one multishot receive after the other for want of a buffer.
      if (!submit()) return false;
    } else {
      rearm();
      streams_.arm();
      if (!closing_.empty()) {  // a port that was given up must not stay bound for as long as this turn waits
        if (!submit()) return false;
        close_removed();
      }
      const bool unfinished = !in_error_.empty() || !ended_.empty() || !cancels_.empty() || !wake_armed_ || streams_.unfinished();
      if (!submit_and_wait(unfinished ? nanoseconds(0) : streams_.limit(timeout))) return false;
    }
    // Want of memory may leave sends in the queue: their slots and buffers then stay as they are until a later turn gets them out.
    const bool all_left = io_uring_sq_ready(&ring_) == 0 && flushed_ == queue().size();
    if (all_left) {
      ++epoch_;
      queue().clear();
      flushed_ = 0;
    }
    complete_all(receiver);
    if (io_uring_sq_ready(&ring_) == 0) streams_.give_up_released(receiver);  // else an entry not yet seen may name a descriptor
    if (!sends_only) gather_.after_turn(monotonic_ns(), lent_.size() - lent_before);
    if (all_left) give_back(lent_before);
    close_removed();
    if (leaving_ > 0) counters_.sent += static_cast<std::uint64_t>(std::exchange(leaving_, 0));
    return true;
  }

  void wake() override { wake_.signal(); }
  const LoopCounters& counters() const override { return counters_; }
  std::size_t sockets() const override { return sockets_.size(); }
  std::size_t armed() const override { return armed_; }
  std::uint64_t kernel_drops(SocketId socket) override {
    SocketTable::Slot* slot = sockets_.find(socket);
    return slot ? count_drops(*slot, counters_) : 0;
  }
  void count_kernel_drops() override {
    sockets_.for_each([&](SocketId, SocketTable::Slot& slot) { count_drops(slot, counters_); });
  }
  std::optional<Refusal> first_refusal() override { return std::exchange(trains_.first, std::nullopt); }

 private:
  struct Message {
    msghdr header;
    SegmentControl control;
  };

  /// Sends a datagram to itself through the very operations the loop lives on: a kernel before 6.1 lacks one or the other. What streams
  /// need beyond them came with the same kernel (6.0: multishot recv).
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
    for (int i = 0; i < 20 && !ear.heard && counters_.receive_failed + counters_.send_failed == 0; ++i) turn(milliseconds(20), ear);
    const bool unsupported = !ear.heard;
    remove(id);
    for (int i = 0; i < 2; ++i) turn(nanoseconds(0), ear);
    counters_ = {};
    if (unsupported) why = "multishot receive or send with an address does not work (Linux 6.1 or later has both)";
    return !unsupported;
  }

  /// An entry of the submission queue, which is sent off first if it is full. nullptr when the kernel takes nothing for now.
  io_uring_sqe* entry() override {
    for (int i = 0; i < 3; ++i) {
      if (io_uring_sqe* sqe = io_uring_get_sqe(&ring_)) return sqe;
      submit();
    }
    return nullptr;
  }

  void watch_for_wake_up() {
    io_uring_sqe* sqe = entry();
    wake_armed_ = sqe != nullptr;
    if (!sqe) return;
    io_uring_prep_poll_multishot(sqe, wake_.descriptor(), POLLIN);
    io_uring_sqe_set_data64(sqe, user_data(Kind::wake, 0));
  }

  /// Errors after which the next enter may well succeed: a signal, want of memory, a full completion queue (kernels before 5.19).
  bool after_enter(int result) {
    if (io_uring_sq_ready(&ring_) == 0) {
      leaving_ += std::exchange(queued_, 0);
      messages_used_ = pieces_used_ = 0;
    }
    return result >= 0 || result == -ETIME || result == -EINTR || result == -EAGAIN || result == -EBUSY;
  }
  bool submit() { return after_enter(io_uring_submit(&ring_)); }
  bool submit_and_wait(nanoseconds timeout) {
    if (timeout.count() < 0) return after_enter(io_uring_submit_and_wait(&ring_, 1));
    if (timeout.count() == 0) return after_enter(io_uring_submit_and_get_events(&ring_));
    if (const nanoseconds time = std::min(gather_.wait(), timeout); time.count() > 0) {
      __kernel_timespec limit{0, time.count()};
      io_uring_cqe* cqe = nullptr;
      ++counters_.gathered;
      return after_enter(io_uring_submit_and_wait_timeout(&ring_, &cqe, Gather::enough, &limit, nullptr));
    }
    // Without a timer nothing would end the wait in time: then there is none.
    return after_enter(arm_timer(timeout) ? io_uring_submit_and_wait(&ring_, 1) : io_uring_submit_and_get_events(&ring_));
  }

  /// A timer that runs beside the waits and is armed about once a second, since a timeout of its own would cost every wait two accesses to the
  /// timer hardware: in a virtual machine two exits, and a third of what a wake-up costs. One that is due earlier than needed ends a wait early.
  bool arm_timer(nanoseconds timeout) {
    const std::int64_t at = monotonic_ns() + timeout.count();
    if (timer_at_ != 0 && timer_at_ <= at) return true;
    io_uring_sqe* sqe = entry();
    if (!sqe) return false;
    timer_ = {timeout.count() / 1'000'000'000, timeout.count() % 1'000'000'000};
    io_uring_prep_timeout(sqe, &timer_, 0, 0);
    io_uring_sqe_set_data64(sqe, user_data(Kind::timer, 0));
    timer_at_ = at;
    return true;
  }

  void arm(SocketId id, SocketTable::Slot& slot) {
    io_uring_sqe* sqe = entry();
    if (!sqe) {
      ended_.push_back(id);  // the next turn tries again
      return;
    }
    io_uring_prep_recvmsg_multishot(sqe, slot.descriptor, &receive_, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    by_file(sqe, id, slot);
    sqe->buf_group = UringSetup::buffer_group;
    io_uring_sqe_set_data64(sqe, user_data(Kind::receive, id));
    slot.armed = true;
    ++armed_;
  }

  void rearm() {
    to_arm_.swap(ended_);
    for (const SocketId id : to_arm_) {
      SocketTable::Slot* slot = sockets_.find(id);
      if (!slot || slot->armed) continue;
      ++counters_.rearmed;
      arm(id, *slot);
    }
    to_arm_.clear();
  }

  void cancel_removed() {
    while (!cancels_.empty()) {
      io_uring_sqe* sqe = entry();
      if (!sqe) return;
      io_uring_prep_cancel64(sqe, cancels_.back(), 0);
      io_uring_sqe_set_data64(sqe, user_data(Kind::cancel, 0));
      sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
      cancels_.pop_back();
    }
  }

  SendQueue& queue() { return queues_[epoch_ & 1]; }

  /// Hands what send() has gathered to the ring.
  void flush() {
    SendQueue& all = queue();
    for (; flushed_ < all.size(); ++flushed_) {
      const SendQueue::Entry& entry = all[flushed_];
      if (entry.shape.datagrams == 1) {
        submit_datagram(entry, *all.first_run(entry), 0, 0);
        continue;
      }
      const SocketTable::Slot* slot = sockets_.find(entry.socket);
      if (trains_.allow(entry, !slot || slot->no_trains)) {
        submit_train(entry);
        continue;
      }
      std::size_t k = 0;
      all.for_each_run(entry, [&](const Run& run) {
        for (std::size_t i = 0, count = run.datagrams(); i < count; ++i) submit_datagram(entry, run, i, k++);
      });
    }
    all.seal();
  }

  /// Datagram `of_entry` of its entry, which is datagram `of_run` of this run.
  void submit_datagram(const SendQueue::Entry& entry, const Run& run, std::size_t of_run, std::size_t of_entry) {
    io_uring_sqe* sqe = nullptr;
    if (run.prefix_size == 0) {
      sqe = this->entry();
      if (sqe) {
        io_uring_prep_send(sqe, entry.descriptor, run.payload(of_run), run.payload_size(of_run), MSG_DONTWAIT);
        io_uring_prep_send_set_addr(sqe, reinterpret_cast<const sockaddr*>(&entry.to), static_cast<std::uint16_t>(entry.length));
      }
    } else if (Message* message = prepare_message(entry, Run::most_pieces, sqe)) {
      message->header.msg_iovlen = run.pieces(of_run, message->header.msg_iov);
      pieces_used_ += message->header.msg_iovlen;
    }
    if (sqe) submit_send(sqe, entry, of_entry, 1);
    else note(entry, send_one_now(queue(), entry, of_entry, counters_));
  }

  void submit_train(const SendQueue::Entry& entry) {
    io_uring_sqe* sqe = nullptr;
    Message* message = prepare_message(entry, SendQueue::most_pieces_of(entry), sqe);
    if (!message) return note(entry, send_now(queue(), entry, true, false, counters_));
    message->header.msg_iovlen = queue().pieces(entry, message->header.msg_iov);
    pieces_used_ += message->header.msg_iovlen;
    message->control.attach(message->header, entry.shape.segment);
    ++counters_.trains_sent;
    submit_send(sqe, entry, whole, entry.shape.datagrams);
  }

  /// A msghdr with room for that many pieces, and the entry of the ring that names it. It is read when the entry is submitted, and free
  /// again afterwards: these sends never wait. nullptr: the kernel takes nothing for now.
  Message* prepare_message(const SendQueue::Entry& entry, std::size_t pieces, io_uring_sqe*& sqe) {
    const auto no_room = [&] { return messages_used_ == messages_.size() || pieces_used_ + pieces > pieces_.size(); };
    if (no_room()) submit();
    sqe = no_room() ? nullptr : this->entry();
    if (!sqe) return nullptr;
    Message& message = messages_[messages_used_++];
    message.header = {};
    message.header.msg_name = const_cast<sockaddr_in6*>(&entry.to);
    message.header.msg_namelen = entry.length;
    message.header.msg_iov = &pieces_[pieces_used_];
    io_uring_prep_sendmsg(sqe, entry.descriptor, &message.header, MSG_DONTWAIT);
    return &message;
  }

  /// Names the socket by its place in the ring's table. One that is removed has left it, and is named by its descriptor as long as that is open.
  static void by_file(io_uring_sqe* sqe, SocketId id, const SocketTable::Slot& slot) {
    if (!slot.registered) return;
    sqe->fd = static_cast<int>(id & SocketTable::index_mask);
    sqe->flags |= IOSQE_FIXED_FILE;
  }

  void submit_send(io_uring_sqe* sqe, const SendQueue::Entry& entry, std::uint64_t of_entry, std::size_t datagrams) {
    if (const SocketTable::Slot* slot = sockets_.find(entry.socket)) by_file(sqe, entry.socket, *slot);
    sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
    io_uring_sqe_set_data64(sqe, user_data(Kind::send, (epoch_ & epoch_mask) << 24 | of_entry << 16 | flushed_));
    queued_ += static_cast<std::int64_t>(datagrams);
  }

  /// The entry just added, by a call of its own and with DF. What was queued before it has left.
  void send_last_now() {
    const SendQueue::Entry& entry = queue()[queue().size() - 1];
    note(entry, send_now(queue(), entry, false, true, counters_));
    flushed_ = queue().size();
    queue().seal();
  }

  /// More in one turn than the queue holds: what is in it goes to the kernel, and this leaves behind it by a call of its own.
  void send_beside(const Outgoing& out, int descriptor) {
    flush();
    submit();
    beside_.clear();
    if (!beside_.add(out.socket, descriptor, out)) return;
    for (std::size_t i = 0; i < beside_.size(); ++i)
      note(beside_[i], send_now(beside_, beside_[i], beside_[i].shape.datagrams > 1 && !beside_[i].shape.has_empty, out.dont_fragment, counters_));
  }

  void note(const SendQueue::Entry& entry, const SentNow& now) {
    if (now.queued_error) note_error(entry.socket);
    if (now.refused != 0) learn(entry, now.refused);
  }

  void learn(const SendQueue::Entry& entry, int error) { learn_refusal(entry, error, trains_, sockets_, counters_); }

  /// Everything there is. Bounded by the buffers, of which none is given back meanwhile, and by the sends that those caused.
  void complete_all(Receiver& receiver) {
    for (int round = 0; round < 64; ++round) {
      io_uring_cqe* cqe = nullptr;
      unsigned head = 0;
      io_uring_for_each_cqe(&ring_, head, cqe) {
        const io_uring_cqe one = *cqe;
        io_uring_cq_advance(&ring_, 1);  // first, so that a submission made by the receiver finds room for its completions
        complete(one, receiver);
      }
      if (!(IO_URING_READ_ONCE(*ring_.sq.kflags) & IORING_SQ_CQ_OVERFLOW)) return;
      ++counters_.completion_overflow;  // the kernel has kept what did not fit
      io_uring_get_events(&ring_);
    }
  }

  void complete(const io_uring_cqe& cqe, Receiver& receiver) {
    switch (static_cast<Kind>(cqe.user_data >> 56)) {
      case Kind::receive: return received(cqe, receiver);
      case Kind::send: return send_failed(cqe.user_data >> 24 & epoch_mask, cqe.user_data & 0xFFFF, cqe.user_data >> 16 & whole, -cqe.res);
      case Kind::cancel: return;  // what it was about had ended by itself
      case Kind::writable: return streams_.writable(cqe, receiver);
      case Kind::accept: return streams_.acceptable(cqe, receiver);
      case Kind::stream: {
        std::uint8_t* buffer = nullptr;
        if (cqe.flags & IORING_CQE_F_BUFFER) {
          lent_.push_back(static_cast<std::uint16_t>(cqe.flags >> IORING_CQE_BUFFER_SHIFT));
          buffer = buffers_.at(lent_.back());
        }
        return streams_.received(cqe, buffer, receiver);
      }
      case Kind::timer: timer_at_ = 0; return;
      case Kind::wake:
        wake_.clear();
        if (!(cqe.flags & IORING_CQE_F_MORE)) wake_armed_ = false;
        return receiver.on_wake();
    }
  }

  void received(const io_uring_cqe& cqe, Receiver& receiver) {
    const auto id = static_cast<SocketId>(cqe.user_data);
    SocketTable::Slot* slot = sockets_.find(id);
    if (slot && !(cqe.flags & IORING_CQE_F_MORE)) {
      slot->armed = false;
      --armed_;
      if (cqe.res >= 0 || !is_permanent(-cqe.res)) ended_.push_back(id);  // else it would end again at once, for ever
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
        if (may_be_of_an_earlier_datagram(-cqe.res)) {
          if (!report_errors(sockets_, id, receiver)) in_error_.push_back(id);
          return;
        }
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
    std::uint16_t segment = 0;
    if (out->controllen != 0) {
      msghdr control{};
      control.msg_control = buffer + sizeof *out + name_size;
      control.msg_controllen = std::min<std::size_t>(out->controllen, control_size);
      segment = segment_of(control);
    }
    take_segment(segment, datagram, counters_);
    receiver.on_datagram(datagram);
  }

  void send_failed(std::uint64_t epoch, std::size_t index, std::uint64_t of_entry, int error) {
    // The bytes and the entry of a send last through the turn that submits it. Nothing older is met here, since each turn looks at all
    // completions; but to send a stranger's bytes would be so bad that it is checked.
    const SendQueue& sent = queues_[epoch & 1];
    const bool fresh = (epoch == (epoch_ & epoch_mask) || epoch == ((epoch_ - 1) & epoch_mask)) && index < sent.size();
    if (!fresh) {
      --leaving_;
      return count_send_failure(error, 1, counters_);
    }
    const SendQueue::Entry& entry = sent[index];
    const std::size_t datagrams = of_entry == whole ? entry.shape.datagrams : 1;
    leaving_ -= static_cast<std::int64_t>(datagrams);
    const bool train_refused = of_entry == whole && refuses_trains(error);
    if (!sockets_.find(entry.socket) || !(train_refused || may_be_of_an_earlier_datagram(error)))
      return count_send_failure(error, datagrams, counters_);
    if (train_refused) {
      learn(entry, error);
      return note(entry, send_now(sent, entry, false, false, counters_));
    }
    note_error(entry.socket);
    const std::uint64_t retried = counters_.send_retried, before = counters_.sent;
    note(entry, of_entry == whole ? send_now(sent, entry, true, false, counters_) : send_one_now(sent, entry, of_entry, counters_));
    counters_.send_retried = retried + (counters_.sent != before);  // once, however often it was tried
  }

  void note_error(SocketId id) {
    if (in_error_.empty() || in_error_.back() != id) in_error_.push_back(id);
  }

  /// Sockets whose sends met an error. Not at once: the receiver may send, add and remove.
  void look_at_errors(Receiver& receiver) {
    errors_now_.swap(in_error_);
    for (const SocketId id : errors_now_)
      if (!report_errors(sockets_, id, receiver)) in_error_.push_back(id);
    errors_now_.clear();
  }

  void give_back(std::size_t count) {
    if (count == 0) return;
    for (std::size_t i = 0; i < count; ++i) ring_setup_.add_buffer(buffers_, lent_[i], static_cast<int>(i));
    io_uring_buf_ring_advance(ring_setup_.buffer_ring, static_cast<int>(count));
    lent_.erase(lent_.begin(), lent_.begin() + static_cast<std::ptrdiff_t>(count));
  }

  void close_removed() {
    if (closing_.empty() || io_uring_sq_ready(&ring_) != 0 || !cancels_.empty()) return;  // an entry not yet seen names a descriptor
    for (const int descriptor : closing_) close(descriptor);
    closing_.clear();
    for (const std::uint32_t index : leaving_files_) {
      const int none = -1;
      if (!sockets_.holds(index)) io_uring_register_files_update(&ring_, index, &none, 1);  // else a successor's is there already
    }
    leaving_files_.clear();
  }

  const unsigned completions_;
  const std::size_t max_sockets_;
  Gather gather_;
  UringSetup ring_setup_;
  io_uring& ring_ = ring_setup_.ring;
  SocketTable sockets_;
  Buffers buffers_;
  msghdr receive_{};                  // the form of every receive; the kernel reads it when a receive is armed
  std::array<SendQueue, 2> queues_;   // of this epoch and of the last, filled from the front to stay in the cache
  SendQueue beside_;                  // for what goes beyond
  std::vector<Message> messages_ = std::vector<Message>(most_messages);
  std::vector<iovec> pieces_ = std::vector<iovec>(most_pieces);
  std::size_t messages_used_ = 0, pieces_used_ = 0;  // since the last submission
  std::size_t flushed_ = 0;           // entries of this epoch's queue that the ring, or the kernel, has
  Trains trains_;
  std::uint64_t epoch_ = 0;           // counts turns, from one submission to the next
  std::int64_t queued_ = 0;                     // datagrams not yet submitted
  std::int64_t leaving_ = 0;                    // datagrams submitted, less those that failed, not yet counted as sent
  std::vector<std::uint16_t> lent_;             // buffers in the hands of the receiver, oldest first
  std::vector<SocketId> ended_, to_arm_;        // receives to arm again
  std::vector<SocketId> in_error_, errors_now_;  // sockets whose error queue is to be read
  std::vector<std::uint64_t> cancels_;          // user_data of what is to be cancelled, most of it of removed sockets
  std::vector<int> closing_;
  std::vector<std::uint32_t> leaving_files_;    // places of removed sockets in the ring's table of files
  bool wake_armed_ = false;
  __kernel_timespec timer_{};
  std::int64_t timer_at_ = 0;  // CLOCK_MONOTONIC; 0: none runs
  std::size_t armed_ = 0;
  WakeUp wake_;
  LoopCounters counters_;
  UringStreams streams_{*this, sockets_, counters_, cancels_, armed_};
};

}  // namespace

std::unique_ptr<Loop> make_uring_loop(const LoopSettings& settings, std::string& why) try {
  auto loop = std::make_unique<UringLoop>(settings);
  if (!loop->open(why)) return nullptr;
  return loop;
} catch (const std::bad_alloc&) {
  why = "no memory for the receive buffers";
  return nullptr;
}

}  // namespace radiotower::io
