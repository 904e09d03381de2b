#include "stream_calls.h"

#include <limits.h>
#include <netinet/tcp.h>

#include <algorithm>

namespace radiotower::io {

namespace {

constexpr int most_accepts = 64;  // of one acceptor in a turn
constexpr std::int64_t patience = 100'000'000;

}  // namespace

bool is_connecting(int descriptor) {
  std::uint8_t state = TCP_ESTABLISHED;  // the first byte of struct tcp_info
  socklen_t length = sizeof state;
  return getsockopt(descriptor, IPPROTO_TCP, TCP_INFO, &state, &length) == 0 && (state == TCP_SYN_SENT || state == TCP_CLOSE);
}

std::ptrdiff_t write_stream(SocketTable& sockets, SocketId id, const iovec* pieces, std::size_t count, LoopCounters& counters) {
  SocketTable::Slot* slot = sockets.find(id);
  if (!slot || slot->kind != SocketKind::stream) return -EBADF;
  if (count == 0) return 0;
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(pieces);
  message.msg_iovlen = std::min<std::size_t>(count, IOV_MAX);
  ssize_t taken;
  do taken = sendmsg(slot->descriptor, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  while (taken < 0 && errno == EINTR);
  if (taken < 0) {
    if (errno != EAGAIN && errno != ENOBUFS && errno != ENOMEM) {
      slot->error = errno;
      return -slot->error;
    }
    taken = 0;
  }
  std::size_t whole = 0;
  for (std::size_t i = 0; i < count; ++i) whole += pieces[i].iov_len;
  ++counters.stream_writes;
  counters.stream_bytes_sent += static_cast<std::uint64_t>(taken);
  counters.stream_writes_short += static_cast<std::size_t>(taken) < whole;
  return taken;
}

int error_of_stream(SocketTable& sockets, SocketId id) {
  SocketTable::Slot* slot = sockets.find(id);
  if (!slot || slot->kind != SocketKind::stream) return EBADF;
  int error = 0;
  socklen_t length = sizeof error;
  if (getsockopt(slot->descriptor, SOL_SOCKET, SO_ERROR, &error, &length) == 0 && error != 0) slot->error = error;
  return slot->error;
}

Accepted accept_some(SocketTable& sockets, SocketId id, Receiver& receiver, LoopCounters& counters) {
  for (int i = 0; i < most_accepts; ++i) {
    const SocketTable::Slot* slot = sockets.find(id);  // looked up again each time: the receiver may remove it, or add others
    if (!slot) return Accepted::gone;
    sockaddr_in6 name{};
    socklen_t length = sizeof name;
    Socket socket(accept4(slot->descriptor, reinterpret_cast<sockaddr*>(&name), &length, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (socket) {
      ++counters.accepted;
      const auto from = net::TransportAddress::from_sockaddr(reinterpret_cast<const sockaddr*>(&name), length);
      receiver.on_accept(id, slot->cookie, std::move(socket), from.value_or(net::TransportAddress{}));
      continue;
    }
    switch (errno) {
      case EAGAIN: return Accepted::done;
      // A connection that has gone before it was accepted, or an error of its network, which accept(2) hands in: the next may be well.
      case EINTR:
      case ECONNABORTED:
      case ENETDOWN:
      case EPROTO:
      case ENOPROTOOPT:
      case EHOSTDOWN:
      case ENONET:
      case EHOSTUNREACH:
      case EOPNOTSUPP:
      case ENETUNREACH:
      case ETIMEDOUT:
      case EPERM: continue;  // a firewall on this host
      default:  // EMFILE, ENFILE, ENOBUFS, ENOMEM; whatever else there may be must not be tried again at once either
        ++counters.accept_failed;
        return Accepted::starved;
    }
  }
  return Accepted::done;
}

void Starved::add(SocketId id) {
  if (ids_.empty()) until_ = monotonic_ns() + patience;
  ids_.push_back(id);
}

nanoseconds Starved::limit(nanoseconds timeout) const {
  if (ids_.empty()) return timeout;
  const nanoseconds left(std::max<std::int64_t>(until_ - monotonic_ns(), 0));
  return timeout.count() < 0 ? left : std::min(timeout, left);
}

void Starved::take_due(std::vector<SocketId>& ids) {
  if (ids_.empty() || monotonic_ns() < until_) return;
  ids.insert(ids.end(), ids_.begin(), ids_.end());
  ids_.clear();
}

}  // namespace radiotower::io
