#include "uring_streams.h"

#include <poll.h>

#include "buffers.h"

namespace radiotower::io {

namespace {

constexpr std::size_t whole_buffer = Buffers::headroom + Buffers::payload;  // as UringSetup::add_buffer() gives it
constexpr std::size_t modest = 2048;  // what remains when a fast sender's bytes have been taken is seldom less than this

/// Errors of the receive, not of the connection.
bool is_transient(int error) { return error == ENOBUFS || error == ECANCELED || error == EINTR || error == EAGAIN || error == ENOMEM; }

}  // namespace

SocketId UringStreams::add(Socket socket, std::uint64_t cookie, SocketKind kind) {
  const SocketId id = socket ? sockets_.add(socket.descriptor(), cookie, kind) : no_socket;
  if (id == no_socket) return no_socket;
  SocketTable::Slot& slot = *sockets_.find(id);
  slot.descriptor = socket.release();
  slot.stream.connecting = kind == SocketKind::stream && is_connecting(slot.descriptor);
  (slot.stream.connecting ? to_watch_ : to_arm_).push_back(id);
  count(slot);
  return id;
}

void UringStreams::forget(SocketId id, SocketTable::Slot& slot) {
  cancel_receive(id, slot);
  cancel_watch(id, slot);
  armed_ -= slot.stream.counted;
}

SocketTable::Slot* UringStreams::find(SocketId id) {
  SocketTable::Slot* slot = sockets_.find(id);
  return slot && slot->kind == SocketKind::stream && !slot->stream.releasing ? slot : nullptr;
}

void UringStreams::want_writable(SocketId id) {
  SocketTable::Slot* slot = find(id);
  if (!slot || slot->stream.wants_writable) return;
  slot->stream.wants_writable = true;
  if (!slot->stream.watching) to_watch_.push_back(id);
}

void UringStreams::pause(SocketId id) {
  SocketTable::Slot* slot = find(id);
  if (!slot || slot->stream.paused) return;
  slot->stream.paused = true;
  cancel_receive(id, *slot);
  count(*slot);
}

void UringStreams::resume(SocketId id) {
  SocketTable::Slot* slot = find(id);
  if (!slot || !slot->stream.paused) return;
  slot->stream.paused = false;
  if (!slot->armed && slot->stream.receives()) to_arm_.push_back(id);  // else the end of the receive that is being cancelled arms it again
  count(*slot);
}

void UringStreams::release(SocketId id) {
  SocketTable::Slot* slot = find(id);
  if (!slot) return;
  slot->stream.releasing = true;
  cancel_watch(id, *slot);
  cancel_receive(id, *slot);
  if (!slot->armed) released_.push_back(id);
  count(*slot);
}

void UringStreams::cancel_receive(SocketId id, const SocketTable::Slot& slot) {
  if (slot.armed) cancels_.push_back(user_data(slot.kind == SocketKind::acceptor ? Kind::accept : Kind::stream, id));
}

void UringStreams::cancel_watch(SocketId id, const SocketTable::Slot& slot) {
  if (slot.stream.watching) cancels_.push_back(user_data(Kind::writable, id));
}

/// armed(): what receives, and what shall not.
void UringStreams::count(SocketTable::Slot& slot) {
  const bool as_it_should_be = slot.armed || (slot.kind == SocketKind::stream && !slot.stream.receives());
  if (as_it_should_be == slot.stream.counted) return;
  slot.stream.counted = as_it_should_be;
  if (as_it_should_be) ++armed_;
  else --armed_;
}

void UringStreams::arm() {
  starved_.take_due(to_arm_);
  now_.swap(to_arm_);
  for (const SocketId id : now_) {
    SocketTable::Slot* slot = sockets_.find(id);
    if (slot && !slot->armed && slot->stream.receives() && !arm(id, *slot)) to_arm_.push_back(id);
  }
  now_.clear();
  now_.swap(to_watch_);
  for (const SocketId id : now_) {
    SocketTable::Slot* slot = find(id);
    if (slot && !slot->stream.watching && (slot->stream.wants_writable || slot->stream.connecting) && !watch(id, *slot)) to_watch_.push_back(id);
  }
  now_.clear();
}

bool UringStreams::arm(SocketId id, SocketTable::Slot& slot) {
  io_uring_sqe* sqe = submissions_.entry();
  if (!sqe) return false;
  if (slot.kind == SocketKind::acceptor) {
    io_uring_prep_poll_add(sqe, slot.descriptor, POLLIN);
    io_uring_sqe_set_data64(sqe, user_data(Kind::accept, id));
  } else {
    if (slot.stream.greedy) io_uring_prep_recv(sqe, slot.descriptor, nullptr, whole_buffer, 0);
    else io_uring_prep_recv_multishot(sqe, slot.descriptor, nullptr, 0, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = UringSetup::buffer_group;
    io_uring_sqe_set_data64(sqe, user_data(Kind::stream, id));
  }
  slot.armed = true;
  count(slot);
  return true;
}

bool UringStreams::watch(SocketId id, SocketTable::Slot& slot) {
  io_uring_sqe* sqe = submissions_.entry();
  if (!sqe) return false;
  io_uring_prep_poll_add(sqe, slot.descriptor, POLLOUT);
  io_uring_sqe_set_data64(sqe, user_data(Kind::writable, id));
  slot.stream.watching = true;
  return true;
}

void UringStreams::received(const io_uring_cqe& cqe, std::uint8_t* buffer, Receiver& receiver) {
  const auto id = static_cast<SocketId>(cqe.user_data);
  SocketTable::Slot* slot = sockets_.find(id);
  if (!slot) return;
  const bool more = cqe.flags & IORING_CQE_F_MORE;
  if (!more) slot->armed = false;
  if (cqe.res > 0 && buffer) {
    const auto length = static_cast<std::size_t>(cqe.res);
    if (!more) {
      slot->stream.greedy = length == whole_buffer || (slot->stream.greedy && length > modest);
    } else if (length == whole_buffer && !slot->stream.greedy) {
      slot->stream.greedy = true;
      cancel_receive(id, *slot);
    }
    ++counters_.chunks_received;
    counters_.stream_bytes_received += length;
    receiver.on_chunk({id, slot->cookie, {buffer, length}});
  }
  if (!more) receive_ended(id, cqe.res, receiver);
}

void UringStreams::receive_ended(SocketId id, int result, Receiver& receiver) {
  SocketTable::Slot* slot = sockets_.find(id);
  if (!slot) return;  // removed when it heard of the last bytes
  StreamState& stream = slot->stream;
  if (stream.releasing) {
    released_.push_back(id);  // an end, or an error, will be met by who reads from it next
  } else if (result > 0 || is_transient(-result)) {
    counters_.out_of_buffers += result == -ENOBUFS;
    if (stream.receives()) {
      ++counters_.rearmed;
      to_arm_.push_back(id);
    }
  } else {
    stream.ended = true;
    if (result < 0) slot->error = -result;
    count(*slot);
    receiver.on_end(id, slot->cookie, slot->error);
    return;
  }
  count(*slot);
}

void UringStreams::writable(const io_uring_cqe& cqe, Receiver& receiver) {
  const auto id = static_cast<SocketId>(cqe.user_data);
  SocketTable::Slot* slot = find(id);
  if (!slot) return;
  slot->stream.watching = false;
  if (cqe.res < 0) {
    to_watch_.push_back(id);
    return;
  }
  const bool was_connecting = slot->stream.connecting;
  const bool asked = slot->stream.wants_writable;
  slot->stream.connecting = slot->stream.wants_writable = false;
  if (was_connecting) {
    to_arm_.push_back(id);
    count(*slot);
  }
  if (asked) receiver.on_writable(id, slot->cookie);
}

void UringStreams::acceptable(const io_uring_cqe& cqe, Receiver& receiver) {
  const auto id = static_cast<SocketId>(cqe.user_data);
  SocketTable::Slot* slot = sockets_.find(id);
  if (!slot) return;
  slot->armed = false;
  count(*slot);
  switch (cqe.res < 0 ? Accepted::starved : accept_some(sockets_, id, receiver, counters_)) {
    case Accepted::done: to_arm_.push_back(id); return;
    case Accepted::starved: starved_.add(id); return;
    case Accepted::gone: return;
  }
}

void UringStreams::give_up_released(Receiver& receiver) {
  released_now_.swap(released_);
  for (const SocketId id : released_now_) {
    SocketTable::Slot* slot = sockets_.find(id);
    if (!slot) continue;
    const std::uint64_t cookie = slot->cookie;
    armed_ -= slot->stream.counted;
    receiver.on_released(cookie, Socket(sockets_.remove(id)));
  }
  released_now_.clear();
}

}  // namespace radiotower::io
