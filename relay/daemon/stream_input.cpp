// What clients send: bytes as TCP cut them, to whole messages.
#include <algorithm>
#include <utility>

#include "radiotower/net/proxy_protocol.h"
#include "radiotower/stun/framing.h"
#include "radiotower/stun/protocol.h"
#include "stream_clients.h"

namespace radiotower::daemon {

namespace {

constexpr std::uint8_t tls_handshake = 22;  // ContentType of a TLS record (RFC 8446, 5.1)
constexpr std::size_t longest_record = 16384 + 256;  // and what is round it (RFC 8446, 5.2; RFC 5246, 6.2.3)
constexpr std::size_t longest_train = 0xFFFF;
constexpr std::size_t spares_at_most = 64;

}  // namespace

void StreamClients::on_chunk(const io::Chunk& chunk) {
  Connection* c = find_cookie(chunk.cookie);
  if (!c) return;
  const std::size_t its = cost(*c, chunk.bytes.size());
  if (!c->later.empty() || (spent_ >= limits_.at_once && its > limits_.small)) return put_off(*c, chunk.bytes);
  spent_ += its;
  take(*c, chunk.bytes);
}

std::size_t StreamClients::cost(const Connection& c, std::size_t size) const {
  const bool shakes_hands = c.stage == Stage::handshake || (c.stage == Stage::first_byte && settings_->identity);
  return shakes_hands ? std::max(size, limits_.handshake_counts) : size;
}

/// Until a turn has time for it. That is not long, so the deadlines go on.
void StreamClients::put_off(Connection& c, Bytes bytes) {
  if (c.stage == Stage::ending || c.stage == Stage::draining || c.stage == Stage::closed) return;
  ++counters_.chunks_put_off;
  if (c.later.empty()) {
    backlog_.push_back(c.handle);
    loop_.pause(c.socket);
  }
  c.later.insert(c.later.end(), bytes.begin(), bytes.end());
  put_off_ += bytes.size();
  if (put_off_ > limits_.put_off) put_down(c, End::overflow);
}

/// In the order in which they came, a slice each.
void StreamClients::work_off() {
  constexpr std::size_t slice = 16 << 10;
  for (std::size_t spent = 0; spent < limits_.of_later && !backlog_.empty();) {
    Connection* c = find(backlog_.front());
    backlog_.pop_front();
    if (!c || c->later.empty() || c->stage == Stage::ending || c->stage == Stage::draining) continue;
    const std::size_t size = std::min(slice, c->later.size() - c->later_at);
    spent += cost(*c, size);
    const MutableBytes bytes = keep_message(Bytes(c->later).subspan(c->later_at, size));
    c->later_at += size;
    put_off_ -= size;
    const bool last = c->later_at == c->later.size();
    if (last) drop_later(*c);
    take(*c, bytes);
    if (!last) {
      backlog_.push_back(c->handle);
      continue;
    }
    if (std::exchange(c->later_ended, false)) on_end(client_stream_bit | c->handle, 0);
    else if (!c->paused && c->stage != Stage::leaving) loop_.resume(c->socket);
  }
  spent_ = 0;
}

void StreamClients::drop_later(Connection& c) {
  put_off_ -= c.later.size() - c.later_at;
  std::vector<std::uint8_t>().swap(c.later);
  c.later_at = 0;
}

void StreamClients::take(Connection& c, MutableBytes bytes) {
  if (c.stage == Stage::proxy_header) take_proxy_header(c, bytes);
  if (bytes.empty()) return;
  if (c.stage == Stage::first_byte) take_first_byte(c, bytes);
  switch (c.stage) {
    case Stage::handshake:
    case Stage::open:
    case Stage::joined: return c.session ? take_tls(c, bytes) : take_plain(c, bytes);
    case Stage::leaving: {
      auto& kept = c.session ? c.undecrypted : c.behind;
      kept.insert(kept.end(), bytes.begin(), bytes.end());
      return;
    }
    case Stage::proxy_header:
    case Stage::first_byte:
    case Stage::ending:
    case Stage::draining:
    case Stage::closed: return;
  }
}

/// Takes the header off the front of `bytes`.
void StreamClients::take_proxy_header(Connection& c, MutableBytes& bytes) {
  const std::size_t before = c.partial.size();
  const MutableBytes more = bytes.first(std::min(bytes.size(), net::longest_proxy_header - before));
  Bytes whole = more;
  if (before != 0) {
    c.partial.insert(c.partial.end(), more.begin(), more.end());
    whole = c.partial;
  }
  net::ProxyHeader header;
  std::size_t length = 0;
  switch (net::read_proxy_header(whole, header, length)) {
    case net::ProxyRead::wrong: return put_down(c, End::bad_proxy_header);
    case net::ProxyRead::incomplete:
      if (whole.size() >= net::longest_proxy_header) return put_down(c, End::bad_proxy_header);
      if (before == 0) keep_partial(c, more);
      bytes = {};
      return;
    case net::ProxyRead::complete: break;
  }
  drop_partial(c);
  bytes = bytes.subspan(length - before);
  ++counters_.proxy_headers;
  if (!header.local) {
    // Where the client connected to is the front end's; what we are asked about and relay from is our own.
    c.five_tuple.client = header.client;
    c.source = header.client.ip;
    if (turn_settings_->denies(c.source)) return put_down(c, End::denied);
    if (!counts_->enter(c.source, settings_->per_source)) return put_down(c, End::refused_source_cap);
    c.counted = true;
  }
  c.stage = Stage::first_byte;
  c.since = above_.this_turn().steady;
  if (!c.tls_alone) leave_handshake(c);
  schedule(c);
}

/// TLS begins with a handshake record, STUN with two zero bits, ChannelData with 0x40 to 0x4F: one byte tells.
void StreamClients::take_first_byte(Connection& c, MutableBytes bytes) {
  const bool is_tls = bytes[0] == tls_handshake && settings_->identity;
  if (!is_tls) {
    if (c.tls_alone) return put_down(c, End::bad_first_byte);
    open(c);
    return;
  }
  c.five_tuple.transport = net::Transport::tls;
  c.session = std::make_unique<tls::Session>(settings_->identity);
  c.stage = Stage::handshake;
  c.since = above_.this_turn().steady;
  enter_handshake(c);
  schedule(c);
}

void StreamClients::take_tls(Connection& c, MutableBytes wire) {
  tls::Session& session = *c.session;
  session.give(wire);
  // What a chunk brings lies in one piece: its records, and what the session has kept of one that was not whole.
  const MutableBytes room = arena_.take(wire.size() + 3 * longest_record);
  std::size_t used = 0;
  auto read = tls::Session::Read::data;
  while (read == tls::Session::Read::data) {
    std::size_t size = 0;
    read = session.read(room.subspan(used), size);
    if (read == tls::Session::Read::data) used += size;
  }
  arena_.keep(room, used);
  // What a client says with its last flight may end the session at once.
  if (c.stage == Stage::handshake && (session.is_open() || used != 0)) {
    c.encrypts = true;
    ++counters_.tls_handshakes;
    open(c);
  }
  if (!session.outgoing().empty()) touch(c);
  if (used != 0) take_plain(c, room.first(used));
  if (read == tls::Session::Read::closed) on_end(c.handle, 0);
  else if (read != tls::Session::Read::want_more) put_down(c, End::tls_failed);
}

/// Whole messages are handed on from where they lie, neighbouring ChannelData of one channel and length as a train.
void StreamClients::take_plain(Connection& c, MutableBytes bytes) {
  const bool old_channels = turn_settings_->rfc5766_channel_numbers;
  while (!bytes.empty()) {
    if (c.stage == Stage::joined) return above_.joined_bytes(c.handle, bytes);
    if (c.stage == Stage::leaving) {
      c.behind.insert(c.behind.end(), bytes.begin(), bytes.end());
      return;
    }
    if (c.stage != Stage::open) return;
    if (!c.partial.empty()) {
      if (!complete(c, bytes)) return;
      continue;
    }
    // T04: nobody has a channel before a request has succeeded, so what looks like its data is another protocol ("GET ").
    if (!c.proved && bytes[0] >= 0x40) return put_down(c, End::bad_message);
    const stun::Frame frame = stun::next_frame(bytes, old_channels);
    switch (frame.kind) {
      case stun::FrameKind::wrong: return put_down(c, End::bad_message);
      case stun::FrameKind::incomplete:
        c.wanted = frame.size != 0 ? frame.size : stun::channel_header_size;
        c.message_began = above_.this_turn().steady;
        keep_partial(c, bytes);
        return schedule(c);
      case stun::FrameKind::stun:
        c.heard = above_.this_turn().steady;
        hand_on(c, bytes.first(frame.size), 0);
        bytes = bytes.subspan(frame.size);
        break;
      case stun::FrameKind::channel_data: {
        const std::size_t length = frame.size <= longest_train ? stun::train_length(bytes.first(std::min(bytes.size(), longest_train)), frame) : frame.size;
        hand_on(c, bytes.first(length), length == frame.size ? std::uint16_t{0} : static_cast<std::uint16_t>(frame.size));
        bytes = bytes.subspan(length);
        break;
      }
    }
  }
}

/// Adds to the message that came in part, and hands it on when it is whole: then, or when it turns out to be none, true or false says whether to go on.
bool StreamClients::complete(Connection& c, MutableBytes& bytes) {
  const bool old_channels = turn_settings_->rfc5766_channel_numbers;
  const std::size_t have = c.partial.size(), missing = c.wanted - have;
  if (bytes.size() < missing || c.wanted <= stun::channel_header_size) {
    // Not the end of it, or not known yet where that is: what has come is judged at once.
    const std::size_t more = std::min(bytes.size(), missing);
    c.partial.insert(c.partial.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(more));
    bytes = bytes.subspan(more);
    const stun::Frame frame = stun::next_frame(c.partial, old_channels);
    if (frame.kind == stun::FrameKind::wrong) {
      put_down(c, End::bad_message);
      return false;
    }
    if (frame.kind == stun::FrameKind::incomplete) {
      if (frame.size != 0) c.wanted = frame.size;
      return true;
    }
    const MutableBytes message = keep_message(c.partial);  // ChannelData without payload: all of it is its header
    drop_partial(c);
    hand_on(c, message, 0);
    return true;
  }
  const MutableBytes message = arena_.take(c.wanted);
  std::copy(c.partial.begin(), c.partial.end(), message.begin());
  std::copy_n(bytes.begin(), missing, message.begin() + static_cast<std::ptrdiff_t>(have));
  bytes = bytes.subspan(missing);
  drop_partial(c);
  if (const auto kind = stun::next_frame(message, old_channels).kind; kind == stun::FrameKind::wrong || kind == stun::FrameKind::incomplete) {
    put_down(c, End::bad_message);
    return false;
  } else if (kind == stun::FrameKind::stun) {
    c.heard = above_.this_turn().steady;
  }
  hand_on(c, message, 0);
  return true;
}

void StreamClients::hand_on(Connection& c, MutableBytes bytes, std::uint16_t segment) {
  c.known = true;
  ++(segment == 0 ? counters_.messages : counters_.trains);
  above_.stream_message(c.five_tuple, c.handle, {bytes, segment});
}

void StreamClients::keep_partial(Connection& c, Bytes bytes) {
  if (!spare_.empty()) {
    c.partial = std::move(spare_.back());
    spare_.pop_back();
  }
  ++counters_.messages_pieced;
  c.partial.assign(bytes.begin(), bytes.end());
}

/// The buffer goes to the next who needs one.
void StreamClients::drop_partial(Connection& c) {
  std::vector<std::uint8_t> buffer;
  buffer.swap(c.partial);
  buffer.clear();
  if (buffer.capacity() != 0 && spare_.size() < spares_at_most) spare_.push_back(std::move(buffer));
}

}  // namespace radiotower::daemon
