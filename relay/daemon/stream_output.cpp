// What clients are sent: gathered within a turn, written once at its end, from where it lies. What the kernel does not take waits in the connection's queue.
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "radiotower/stun/protocol.h"
#include "stream_clients.h"

namespace radiotower::daemon {

namespace {

constexpr std::uint32_t none = StreamConnection::none;
constexpr std::array<std::uint8_t, 4> zeros{};
constexpr std::size_t pieces_at_once = 1020;  // IOV_MAX is 1024
constexpr std::size_t at_once = 16384;        // plain bytes that are encrypted before the socket is asked: what must leave then is little more

/// RFC 8656, 12.5: over a stream ChannelData is padded to a multiple of four, and its length does not count that.
std::uint8_t padding_of(std::size_t size) { return static_cast<std::uint8_t>((4 - size % 4) % 4); }

bool is_data_indication(Bytes message) { return message.size() >= 2 && message[0] == 0x00 && message[1] == 0x17; }
void forget_wire(StreamConnection& c) {
  std::vector<std::uint8_t>().swap(c.wire);
  c.wire_at = 0;
}
/// A success of a request that needs credentials: not Binding.
bool is_proof(Bytes message) { return message.size() >= 2 && message[0] == 0x01 && message[1] != 0x01 && (message[1] & 0x10) == 0; }

}  // namespace

void StreamClients::send(const turn::Send& send) {
  Connection* c = find(send.socket);
  if (!c) return;
  switch (c->stage) {
    case Stage::open:
    case Stage::joined:
    case Stage::leaving:
    case Stage::ending: break;
    default: return;
  }
  const bool channel_data = send.prefix_size != 0;
  Node node;
  node.bytes = send.bytes.data();
  node.size = static_cast<std::uint32_t>(send.bytes.size());
  node.stride = send.stride;
  node.skip = send.skip;
  node.trim = send.trim;
  node.prefix_size = send.prefix_size;
  node.prefix = send.prefix;
  node.padded = channel_data;
  node.media = channel_data || is_data_indication(send.bytes);
  if (!channel_data && !c->proved && is_proof(send.bytes)) c->proved = true;
  append(*c, node);
}

bool StreamClients::write_joined(turn::SocketHandle client, Bytes bytes) {
  Connection* c = find(client);
  if (!c || c->stage != Stage::joined) return true;  // its end is on the way
  Node node;
  node.bytes = const_cast<std::uint8_t*>(bytes.data());
  node.size = static_cast<std::uint32_t>(bytes.size());
  append(*c, node);
  c->pending += bytes.size();
  c->wants_room = c->queue.bytes() + c->pending > limits_.queue_when_crowded;
  return !c->wants_room;
}

void StreamClients::append(Connection& c, const Node& node) {
  const auto at = static_cast<std::uint32_t>(nodes_.size());
  nodes_.push_back(node);
  if (c.last_node == none) c.first_node = at;
  else nodes_[c.last_node].next = at;
  c.last_node = at;
  touch(c);
}

void StreamClients::touch(Connection& c) {
  if (std::exchange(c.dirty, true)) return;
  dirty_.push_back(c.handle);
}

void StreamClients::on_writable(std::uint64_t cookie) {
  Connection* c = find_cookie(cookie);
  if (!c) return;
  c->blocked = false;
  touch(*c);
}

bool StreamClients::has_output(const Connection& c) const {
  return !c.queue.empty() || c.wire_at < c.wire.size() || c.first_node != none || (c.session && !c.session->outgoing().empty());
}

/// The messages of this turn into pieces_: prefix, payload, padding. A prefix is written in front of its payload where that is free.
void StreamClients::gather(Connection& c) {
  pieces_.clear();
  for (std::uint32_t i = c.first_node; i != none; i = nodes_[i].next) {
    Node& node = nodes_[i];
    const auto add = [&](Bytes head, Bytes body) {
      pieces_.push_back({head, body, node.padded ? padding_of(head.size() + body.size()) : std::uint8_t{0}, node.media});
    };
    if (node.stride == 0) {
      std::copy_n(node.prefix.begin(), node.prefix_size, node.bytes - node.prefix_size);
      add({}, {node.bytes - node.prefix_size, std::size_t{node.size} + node.prefix_size});
      continue;
    }
    for (std::size_t at = 0; at < node.size; at += node.stride) {
      const std::size_t begin = at + node.skip, end = std::min<std::size_t>(at + node.stride - node.trim, node.size);
      add({node.prefix.data(), node.prefix_size}, {node.bytes + begin, end - begin});
    }
  }
  c.first_node = c.last_node = none;
  c.pending = 0;
}

void StreamClients::flush(Connection& c) {
  gather(c);
  std::size_t done = 0, part = 0;  // of pieces_: whole ones, and bytes of the next
  if (c.stage != Stage::leaving && !c.broken) {
    if (c.session) flush_tls(c, done);
    else flush_plain(c, done, part);
  }
  if (c.broken) {
    drop_output(c);
    return;
  }
  if (done < pieces_.size()) enqueue(c, done, part);
  trim(c);
  if (c.wants_room && c.queue.bytes() < limits_.queue_when_crowded / 2) {
    c.wants_room = false;
    rooms_.push_back(c.handle);
  }
}

/// Writes what waits, then what has come. Each as long as the kernel takes all of it.
void StreamClients::flush_plain(Connection& c, std::size_t& done, std::size_t& part) {
  trim(c);
  while (!c.blocked && !c.queue.empty()) {
    iovecs_.resize(pieces_at_once);
    std::size_t size = 0;
    const std::size_t count = c.queue.front(iovecs_.data(), pieces_at_once, size);
    const std::size_t taken = write(c, iovecs_.data(), count, size);
    queued_ -= taken;
    c.queue.took(taken);
  }
  while (!c.blocked && !c.broken && done < pieces_.size()) {
    iovecs_.clear();
    std::size_t size = 0, end = done;
    const auto add = [&](Bytes bytes) {
      if (bytes.empty()) return;
      iovecs_.push_back({const_cast<std::uint8_t*>(bytes.data()), bytes.size()});
      size += bytes.size();
    };
    for (; end < pieces_.size() && iovecs_.size() + 3 <= pieces_at_once; ++end) {
      add(pieces_[end].head);
      add(pieces_[end].body);
      add({zeros.data(), pieces_[end].padding});
    }
    std::size_t taken = write(c, iovecs_.data(), iovecs_.size(), size);
    if (taken == size) {
      done = end;
      continue;
    }
    while (taken >= pieces_[done].size()) taken -= pieces_[done++].size();
    part = taken;
  }
}

/// Whole messages, a record each: coturn's clients take a record for a message. No more is encrypted than the socket is likely to take, so that what
/// waits is plain and may be dropped.
void StreamClients::flush_tls(Connection& c, std::size_t& done) {
  tls::Session& session = *c.session;
  const auto leave = [&] {  // what is encrypted has to leave, whatever it is
    auto& outgoing = session.outgoing();
    if (outgoing.empty()) return;
    std::size_t taken = 0;
    if (!c.blocked && c.wire.empty()) {
      const iovec piece{outgoing.data(), outgoing.size()};
      taken = write(c, &piece, 1, outgoing.size());
    }
    if (taken < outgoing.size() && !c.broken) c.wire.insert(c.wire.end(), outgoing.begin() + static_cast<std::ptrdiff_t>(taken), outgoing.end());
    outgoing.clear();
  };
  if (!c.blocked && c.wire_at < c.wire.size()) {
    const iovec piece{c.wire.data() + c.wire_at, c.wire.size() - c.wire_at};
    c.wire_at += write(c, &piece, 1, piece.iov_len);
    if (c.wire_at == c.wire.size()) forget_wire(c);
  }
  leave();
  if (!c.encrypts) return;
  while (!c.blocked && !c.broken && (!c.queue.empty() || done < pieces_.size())) {
    trim(c);
    // The session's buffer is ours while it fills: one that is warm, for all.
    session.outgoing().swap(cipher_);
    bool good = true;
    for (std::size_t size = 0; good && size < at_once && (!c.queue.empty() || done < pieces_.size());) {
      Bytes message;
      if (!c.queue.empty()) {
        message = c.queue.next();
      } else {
        const Piece& piece = pieces_[done++];
        message = piece.body;
        if (!piece.head.empty() || piece.padding != 0) {
          plain_.assign(piece.head.begin(), piece.head.end());
          plain_.insert(plain_.end(), piece.body.begin(), piece.body.end());
          plain_.insert(plain_.end(), piece.padding, std::uint8_t{0});
          message = plain_;
        }
      }
      size += message.size();
      good = message.empty() || session.write(message);
      if (!c.queue.empty()) {
        queued_ -= message.size();
        c.queue.took(message.size());
      }
    }
    if (good) leave();
    session.outgoing().swap(cipher_);
    cipher_.clear();
    if (!good) {
      c.broken = true;
      put_down(c, End::error);
    }
  }
}

/// What the kernel took. Less than `size`: it will say when it takes more; or the connection is broken.
std::size_t StreamClients::write(Connection& c, const iovec* pieces, std::size_t count, std::size_t size) {
  ++counters_.writes;
  const std::ptrdiff_t n = loop_.write(c.socket, pieces, count);
  if (n < 0) {
    c.broken = c.blocked = true;
    put_down(c, End::error);
    return 0;
  }
  const auto taken = static_cast<std::size_t>(n);
  const Time now = above_.this_turn().steady;
  if (taken != 0 || c.took == Time{}) c.took = now;
  if (taken == size) {
    c.took = Time{};
    return taken;
  }
  c.blocked = true;
  loop_.want_writable(c.socket);
  schedule(c);
  return taken;
}

void StreamClients::enqueue(Connection& c, std::size_t from, std::size_t skip) {
  const Time now = above_.this_turn().steady;
  const std::size_t before = c.queue.bytes();
  for (std::size_t i = from; i < pieces_.size(); ++i) {
    const Piece& piece = pieces_[i];
    if (i == from && skip != 0) {
      const std::size_t of_head = std::min(skip, piece.head.size()), of_body = std::min(skip - of_head, piece.body.size());
      const std::size_t padding = piece.padding - (skip - of_head - of_body);
      c.queue.append(piece.head.subspan(of_head), piece.body.subspan(of_body), padding, false, now);
    } else {
      c.queue.append(piece.head, piece.body, piece.padding, piece.media, now);
    }
    ++counters_.queued;
    // A flood within one turn is not all kept before its front is dropped.
    if (!c.is_bytes && c.queue.bytes() > limits_.queue) counters_.media_dropped += c.queue.trim(limits_.queue, Time{});
  }
  queued_ += c.queue.bytes();
  queued_ -= before;
  counters_.bytes_queued_at_most = std::max<std::uint64_t>(counters_.bytes_queued_at_most, queued_);
}

/// The oldest media goes when there is too much of it, or when it is of no use any more. Answers stay: who asks without end and takes nothing is closed.
void StreamClients::trim(Connection& c) {
  if (c.queue.empty() || c.is_bytes) return;
  const std::size_t most = queued_ > limits_.queues ? limits_.queue_when_crowded : limits_.queue;
  const std::size_t before = c.queue.bytes();
  counters_.media_dropped += c.queue.trim(most, above_.this_turn().steady - limits_.media_age);
  queued_ += c.queue.bytes();
  queued_ -= before;
  if (c.queue.bytes() <= most) return;
  c.broken = true;
  put_down(c, End::overflow);
}

void StreamClients::drop_output(Connection& c) {
  queued_ -= c.queue.bytes();
  c.queue.clear();
  forget_wire(c);
  if (c.session) c.session->outgoing().clear();
}

}  // namespace radiotower::daemon
