#include "epoll_streams.h"

#include <sys/epoll.h>

#include <utility>

#include "buffers.h"

namespace radiotower::io {

SocketId EpollStreams::add(Socket socket, std::uint64_t cookie, SocketKind kind) {
  const SocketId id = socket ? sockets_.add(socket.descriptor(), cookie, kind) : no_socket;
  if (id == no_socket) return no_socket;
  SocketTable::Slot& slot = *sockets_.find(id);
  slot.stream.connecting = kind == SocketKind::stream && is_connecting(slot.descriptor);
  if (!listen_to(id, slot)) {
    sockets_.remove(id);  // the Socket closes it
    return no_socket;
  }
  socket.release();
  return id;
}

SocketTable::Slot* EpollStreams::find(SocketId id) {
  SocketTable::Slot* slot = sockets_.find(id);
  return slot && slot->kind == SocketKind::stream && !slot->stream.releasing ? slot : nullptr;
}

/// Tells the kernel what is to be heard of it. Entering the set may fail for want of memory or of watches.
bool EpollStreams::listen_to(SocketId id, SocketTable::Slot& slot) {
  epoll_event event{};
  if (slot.stream.receives()) event.events |= EPOLLIN;
  if (!slot.stream.releasing && (slot.stream.wants_writable || slot.stream.connecting)) event.events |= EPOLLOUT;
  event.data.u64 = id;
  if (event.events == 0) {
    if (std::exchange(slot.registered, false)) epoll_ctl(epoll_, EPOLL_CTL_DEL, slot.descriptor, nullptr);
    return true;
  }
  if (epoll_ctl(epoll_, slot.registered ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, slot.descriptor, &event) == 0) slot.registered = true;
  return slot.registered;
}

void EpollStreams::want_writable(SocketId id) {
  SocketTable::Slot* slot = find(id);
  if (!slot || slot->stream.wants_writable) return;
  slot->stream.wants_writable = true;
  if (!listen_to(id, *slot)) starved_.add(id);
}

void EpollStreams::pause(SocketId id) {
  SocketTable::Slot* slot = find(id);
  if (!slot || slot->stream.paused) return;
  slot->stream.paused = true;
  listen_to(id, *slot);
}

void EpollStreams::resume(SocketId id) {
  SocketTable::Slot* slot = find(id);
  if (!slot || !slot->stream.paused) return;
  slot->stream.paused = false;
  if (!listen_to(id, *slot)) starved_.add(id);
}

void EpollStreams::release(SocketId id) {
  SocketTable::Slot* slot = find(id);
  if (!slot) return;
  slot->stream.releasing = true;
  listen_to(id, *slot);
  released_.push_back(id);
}

nanoseconds EpollStreams::begin_turn(nanoseconds timeout) {
  starved_.take_due(now_);
  for (const SocketId id : now_)
    if (SocketTable::Slot* slot = sockets_.find(id); slot && !listen_to(id, *slot)) starved_.add(id);
  now_.clear();
  return released_.empty() ? starved_.limit(timeout) : nanoseconds(0);
}

void EpollStreams::handle(SocketId id, std::uint32_t events, std::uint8_t* buffer, std::size_t& used, Receiver& receiver) {
  SocketTable::Slot* slot = sockets_.find(id);
  if (!slot) return;
  if (slot->kind == SocketKind::acceptor) return accept(id, receiver);
  constexpr std::uint32_t broken = EPOLLERR | EPOLLHUP;
  if ((events & (EPOLLOUT | broken)) && !slot->stream.releasing && (slot->stream.wants_writable || slot->stream.connecting)) {
    const bool asked = slot->stream.wants_writable;
    slot->stream.connecting = slot->stream.wants_writable = false;
    listen_to(id, *slot);
    if (asked) receiver.on_writable(id, slot->cookie);
    slot = sockets_.find(id);
  }
  if (!slot || !buffer || !slot->stream.receives() || !(events & (EPOLLIN | broken))) return;
  const ssize_t got = recv(slot->descriptor, buffer, Buffers::headroom + Buffers::payload, MSG_DONTWAIT);
  if (got > 0) {
    ++used;
    ++counters_.chunks_received;
    counters_.stream_bytes_received += static_cast<std::size_t>(got);
    return receiver.on_chunk({id, slot->cookie, {buffer, static_cast<std::size_t>(got)}});
  }
  const int error = got == 0 ? 0 : errno;
  if (error == EAGAIN || error == EINTR || error == ENOMEM || error == ENOBUFS) return;
  slot->stream.ended = true;
  if (error != 0) slot->error = error;
  listen_to(id, *slot);
  receiver.on_end(id, slot->cookie, slot->error);
}

void EpollStreams::accept(SocketId id, Receiver& receiver) {
  if (accept_some(sockets_, id, receiver, counters_) != Accepted::starved) return;
  SocketTable::Slot* slot = sockets_.find(id);
  if (!slot) return;
  if (std::exchange(slot->registered, false)) epoll_ctl(epoll_, EPOLL_CTL_DEL, slot->descriptor, nullptr);
  starved_.add(id);
}

void EpollStreams::give_up_released(Receiver& receiver) {
  now_.swap(released_);
  for (const SocketId id : now_) {
    SocketTable::Slot* slot = sockets_.find(id);
    if (!slot) continue;
    const std::uint64_t cookie = slot->cookie;
    receiver.on_released(cookie, Socket(sockets_.remove(id)));
  }
  now_.clear();
}

}  // namespace radiotower::io
