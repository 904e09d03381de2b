// From the beginning of a connection to its end.
#include "stream_clients.h"

#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "radiotower/net/hash.h"

namespace radiotower::daemon {

namespace {

/// How much the kernel takes of what has not left. Without it it takes megabytes from a client that reads nothing, each of them older than any call
/// can use; which media is to go is ours to say, and what is kept for such a client ours to bound.
constexpr int unsent_at_most = 128 << 10;

}  // namespace

Parcel::Parcel() = default;
Parcel::Parcel(Parcel&&) noexcept = default;
Parcel& Parcel::operator=(Parcel&&) noexcept = default;
Parcel::~Parcel() = default;

std::size_t StreamClients::Hash::operator()(const Ends& ends) const { return net::hash(key, {ends.client, ends.server, net::Transport::tcp}); }

StreamClients::StreamClients(io::Loop& loop, Above& above, Log& log, const HashKey& key, std::shared_ptr<ConnectionCounts> counts,
                             std::shared_ptr<const ConnectionSettings> settings, std::shared_ptr<const turn::Settings> turn_settings)
    : loop_(loop),
      above_(above),
      log_(log),
      counts_(std::move(counts)),
      settings_(std::move(settings)),
      turn_settings_(std::move(turn_settings)),
      by_ends_(0, Hash{key}),
      closed_(key, seconds(10), 30),
      refused_(key, seconds(10), 5) {
  wheel_.fill(Connection::none);
}

StreamClients::~StreamClients() {
  for (const Slot& slot : slots_) {
    if (!slot.connection) continue;
    counts_->leave();
    if (slot.connection->counted) counts_->leave(slot.connection->source);
  }
}

StreamClients::Connection* StreamClients::find(turn::SocketHandle handle) const {
  const std::size_t index = handle & index_mask;
  if (index >= slots_.size() || !slots_[index].connection || slots_[index].connection->handle != handle) return nullptr;
  return slots_[index].connection.get();
}

/// A place and a handle. The wheel begins to turn with the first.
StreamClients::Connection& StreamClients::make(std::unique_ptr<Connection> connection) {
  if (free_.empty()) {
    free_.push_back(static_cast<std::uint32_t>(slots_.size()));
    slots_.emplace_back();
  }
  const std::uint32_t index = free_.back();
  free_.pop_back();
  Slot& slot = slots_[index];
  slot.generation = (slot.generation + 1) % most_generations;
  slot.connection = std::move(connection);
  slot.connection->handle = slot.generation << index_bits | index;
  if (size_++ == 0) wheel_at_ = above_.this_turn().steady.time_since_epoch() / wheel_step;
  return *slot.connection;
}

void StreamClients::on_accept(const net::TransportAddress& listener, bool tls_alone, io::Socket socket, const net::TransportAddress& from) {
  const bool is_front_end = settings_->is_front_end(from.ip);
  if (turn_settings_->denies(from.ip)) {
    ++counters_.refused_denied;
    return;
  }
  if (size_ >= index_mask || !counts_->enter(settings_->total)) {
    ++counters_.refused_total_cap;
    std::uint64_t suppressed = 0;
    if (refused_.admit(as_bytes("total"), above_.this_turn().steady, suppressed))
      log_.write(Priority::warning, "connection refused", "there are as many as limits.connections lets be",
                 {{"client", from.text()}, {"connections", std::uint64_t{counts_->total()}}, Field::if_any("suppressed", suppressed)});
    return;
  }
  auto made = std::make_unique<Connection>();
  made->five_tuple = {from, listener, net::Transport::tcp};
  made->source = from.ip;
  made->since = made->heard = above_.this_turn().steady;
  made->tls_alone = tls_alone;
  made->stage = is_front_end ? Stage::proxy_header : Stage::first_byte;
  // Whom a front end speaks for is not known yet.
  if (!is_front_end && !counts_->enter(from.ip, settings_->per_source)) {
    counts_->leave();
    ++counters_.refused_source_cap;
    std::uint64_t suppressed = 0;
    if (refused_.admit(from.ip.bytes, above_.this_turn().steady, suppressed))
      log_.write(Priority::warning, "connection refused", "its address has as many as limits.connections_per_source lets it have",
                 {{"client", from.text()}, Field::if_any("suppressed", suppressed)});
    return;
  }
  made->counted = !is_front_end;
  setsockopt(socket.descriptor(), IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent_at_most, sizeof unsent_at_most);
  Connection& c = make(std::move(made));
  c.socket = loop_.add_stream(std::move(socket), client_stream_bit | c.handle);
  if (c.socket == io::no_socket) {
    ++counters_.refused_no_room;
    return free(c);
  }
  ++counters_.connections_accepted;
  if (is_front_end || tls_alone) enter_handshake(c);
  schedule(c);
}

/// The 5-tuple is settled, so messages may follow. False: another connection has it, which only a front end's word can bring about.
bool StreamClients::open(Connection& c) {
  if (!by_ends_.try_emplace({c.five_tuple.client, c.five_tuple.server}, c.handle).second) {
    ++counters_.refused_duplicate;
    put_down(c, End::duplicate);
    return false;
  }
  c.stage = Stage::open;
  c.heard = above_.this_turn().steady;
  leave_handshake(c);
  schedule(c);
  return true;
}

void StreamClients::on_end(std::uint64_t cookie, int error) {
  Connection* c = find_cookie(cookie);
  if (!c || c->stage == Stage::leaving) return;  // the other worker will be told
  if (error == 0 && !c->later.empty()) {
    c->later_ended = true;
    return;
  }
  c->input_ended = true;
  if (error == 0 && c->stage == Stage::joined && above_.joined_ended(c->handle)) return;
  put_down(*c, error == 0 ? End::by_client : End::error);
}

void StreamClients::put_down(Connection& c, End reason) {
  if (c.stage == Stage::ending || c.stage == Stage::closed) return;
  if (c.stage != Stage::draining) {
    c.end = reason;
    count(reason);
    note(c);
  } else {
    c.end = End::stalled;  // it had its time
  }
  leave_handshake(c);  // else a flood within one turn would find this one the oldest again and again
  c.stage = Stage::ending;
  ending_.push_back(c.handle);
}

/// What the server keeps for it goes at once (L32, T12). The connection follows when what is queued has left, where the other side may still take it.
void StreamClients::finish(Connection& c) {
  drop_partial(c);
  drop_later(c);
  const bool was_draining = c.drained_by != Time{};
  if (std::exchange(c.joined, false)) above_.joined_gone(c.handle);
  if (std::exchange(c.known, false)) above_.stream_gone(c.five_tuple);
  bool in_order = false;
  switch (c.end) {
    case End::by_client:
    case End::hung_up:
    case End::bad_message:
    case End::tls_failed:
    case End::idle:
    case End::silent: in_order = !was_draining; break;
    default: break;
  }
  if (in_order) {
    say_goodbye(c);
    if (has_output(c) && !c.broken) {
      c.stage = Stage::draining;
      c.drained_by = above_.this_turn().steady + limits_.drain;
      loop_.pause(c.socket);
      unschedule(c);
      return schedule(c);
    }
  }
  loop_.remove(c.socket);
  free(c);
}

/// What is queued, then TLS's close_notify.
void StreamClients::say_goodbye(Connection& c) {
  flush(c);
  if (!c.encrypts || !c.queue.empty() || std::exchange(c.said_goodbye, true)) return;
  c.session->close();
  flush(c);
}

void StreamClients::free(Connection& c) {
  unschedule(c);
  leave_handshake(c);
  drop_partial(c);
  drop_later(c);
  queued_ -= c.queue.bytes();
  const auto found = by_ends_.find({c.five_tuple.client, c.five_tuple.server});
  if (found != by_ends_.end() && found->second == c.handle) by_ends_.erase(found);
  if (c.counted) counts_->leave(c.source);
  counts_->leave();
  const std::uint32_t index = c.handle & index_mask;
  slots_[index].connection.reset();
  free_.push_back(index);
  --size_;
}

void StreamClients::count(End reason) {
  switch (reason) {
    case End::by_client: ++counters_.closed_by_client; return;
    case End::error: ++counters_.closed_error; return;
    case End::bad_message: ++counters_.closed_bad_message; return;
    case End::bad_first_byte: ++counters_.closed_bad_first_byte; return;
    case End::bad_proxy_header: ++counters_.closed_bad_proxy_header; return;
    case End::tls_failed: ++counters_.tls_failed; return;
    case End::silent: ++counters_.closed_silent; return;
    case End::slow_message: ++counters_.closed_slow_message; return;
    case End::slow_handshake: ++counters_.closed_slow_handshake; return;
    case End::idle: ++counters_.closed_idle; return;
    case End::crowded_out: ++counters_.closed_crowded_out; return;
    case End::stalled: ++counters_.closed_stalled; return;
    case End::overflow: ++counters_.closed_overflow; return;
    case End::hung_up: ++counters_.closed_hung_up; return;
    case End::denied: ++counters_.closed_denied; return;
    case End::refused_source_cap: ++counters_.refused_source_cap; return;
    case End::duplicate:
    case End::no_room:
    case End::broken: return;
  }
}

/// What an operator can do something about; all else is in the counters.
void StreamClients::note(const Connection& c) {
  std::uint64_t suppressed = 0;
  std::string sentence;
  switch (c.end) {
    case End::tls_failed: sentence = c.session ? c.session->why() : ""; break;
    case End::bad_proxy_header: sentence = "no PROXY header, which listen.proxy_protocol_from asks of this address"; break;
    default: return;
  }
  if (!closed_.admit(c.source.bytes, above_.this_turn().steady, suppressed)) return;
  log_.write(c.end == End::tls_failed ? Priority::info : Priority::warning, c.end == End::tls_failed ? "TLS failed" : "connection refused", sentence,
             {{"client", c.five_tuple.client.text()}, {"listener", c.five_tuple.server.text()}, Field::if_any("suppressed", suppressed)});
}

void StreamClients::end_of_turn() {
  work_off();
  check_deadlines();
  // What ends may make the server speak to others, so until nothing is left. By index: both lists may grow meanwhile.
  while (!dirty_.empty() || !ending_.empty()) {
    for (std::size_t i = 0; i < dirty_.size(); ++i) {
      Connection* c = find(dirty_[i]);
      if (!c) continue;
      c->dirty = false;
      if (c->stage == Stage::draining) {
        say_goodbye(*c);
        if (!has_output(*c)) put_down(*c, End::hung_up);
      } else if (c->finishing && c->stage == Stage::joined) {
        finish_writing(*c);
      } else if (c->stage != Stage::ending) {  // else below
        flush(*c);
      }
    }
    dirty_.clear();
    for (std::size_t i = 0; i < rooms_.size(); ++i) above_.joined_room(rooms_[i]);
    rooms_.clear();
    for (std::size_t i = 0; i < ending_.size(); ++i) {
      Connection* c = find(ending_[i]);
      if (c && c->stage == Stage::ending) finish(*c);
    }
    ending_.clear();
  }
  nodes_.clear();
}

void StreamClients::hang_up(turn::SocketHandle client) {
  if (Connection* c = find(client); c && c->stage != Stage::leaving) put_down(*c, End::hung_up);
}

void StreamClients::apply(std::shared_ptr<const ConnectionSettings> settings, std::shared_ptr<const turn::Settings> turn_settings) {
  settings_ = std::move(settings);
  turn_settings_ = std::move(turn_settings);
  if (turn_settings_->denied_clients.empty()) return;
  for (const Slot& slot : slots_)
    if (slot.connection && turn_settings_->denies(slot.connection->five_tuple.client.ip)) put_down(*slot.connection, End::denied);
}

const StreamCounters& StreamClients::counters() {
  counters_.connections = size_;
  counters_.in_handshake = young_;
  counters_.bytes_queued = queued_;
  return counters_;
}

MutableBytes StreamClients::keep_message(Bytes message) {
  const MutableBytes room = arena_.take(turn::Train::headroom + message.size() + 4);
  std::copy(message.begin(), message.end(), room.begin() + turn::Train::headroom);
  return room.subspan(turn::Train::headroom, message.size());
}

// ---------------------------------------------------------------------------------------------------------------------
// From worker to worker.

void StreamClients::hand_over(turn::SocketHandle client, unsigned worker, Bytes message) {
  Connection* c = find(client);
  if (!c || c->stage != Stage::open) return;
  c->stage = Stage::leaving;
  c->worker = worker;
  c->message.assign(message.begin(), message.end());
  c->drained_by = above_.this_turn().steady + limits_.drain;
  unschedule(*c);
  schedule(*c);
  loop_.release(c->socket);
}

void StreamClients::on_released(std::uint64_t cookie, io::Socket socket) {
  Connection* c = find_cookie(cookie);
  if (!c || c->stage != Stage::leaving) return;
  flush(*c);  // into its queue
  if (c->stage != Stage::leaving) return;  // which it has filled: it ends here
  if (std::exchange(c->known, false)) above_.stream_gone(c->five_tuple);
  unschedule(*c);
  auto& behind = c->session ? c->undecrypted : c->behind;
  behind.insert(behind.end(), c->later.begin() + static_cast<std::ptrdiff_t>(c->later_at), c->later.end());
  drop_later(*c);
  c->later_ended = false;  // it will be heard of there
  queued_ -= c->queue.bytes();
  by_ends_.erase({c->five_tuple.client, c->five_tuple.server});
  Parcel parcel;
  parcel.five_tuple = c->five_tuple;
  parcel.socket = std::move(socket);
  parcel.message = std::move(c->message);
  const unsigned worker = c->worker;
  const std::uint32_t index = c->handle & index_mask;
  parcel.connection = std::move(slots_[index].connection);
  free_.push_back(index);
  --size_;
  ++counters_.moved_out;
  above_.hand_over(worker, std::move(parcel));
}

void StreamClients::receive(Parcel parcel) {
  const Time now = above_.this_turn().steady;
  Connection& c = make(std::move(parcel.connection));
  queued_ += c.queue.bytes();
  c.stage = Stage::first_byte;
  c.socket = loop_.add_stream(std::move(parcel.socket), client_stream_bit | c.handle);
  if (c.socket == io::no_socket) {
    ++counters_.refused_no_room;
    return free(c);
  }
  ++counters_.moved_in;
  c.blocked = c.dirty = c.paused = false;
  c.first_node = c.last_node = Connection::none;
  c.slot = Connection::none;
  c.looked_at = never;
  c.drained_by = Time{};
  c.since = now;
  if (turn_settings_->denies(c.five_tuple.client.ip)) return put_down(c, End::denied);
  if (!open(c)) return;
  if (has_output(c)) touch(c);
  hand_on(c, keep_message(parcel.message), 0);
  const auto behind = std::exchange(c.behind, {}), undecrypted = std::exchange(c.undecrypted, {});
  if (!behind.empty()) take_plain(c, keep_message(behind));
  if (!undecrypted.empty()) take(c, keep_message(undecrypted));
}

// ---------------------------------------------------------------------------------------------------------------------
// RFC 6062: bytes to and from a peer.

bool StreamClients::join(turn::SocketHandle client) {
  Connection* c = find(client);
  if (!c || c->stage != Stage::open) return false;
  c->stage = Stage::joined;
  c->joined = c->is_bytes = true;
  unschedule(*c);
  schedule(*c);
  return true;
}

void StreamClients::finish_joined(turn::SocketHandle client) {
  Connection* c = find(client);
  if (!c || c->stage != Stage::joined) return;
  c->finishing = true;
  touch(*c);
}

void StreamClients::finish_writing(Connection& c) {
  say_goodbye(c);
  if (has_output(c) || c.broken || std::exchange(c.finished, true)) return;
  loop_.finish(c.socket);
  above_.joined_finished(c.handle);
}

void StreamClients::pause(turn::SocketHandle client) {
  Connection* c = find(client);
  if (!c || std::exchange(c->paused, true)) return;
  loop_.pause(c->socket);
}

void StreamClients::resume(turn::SocketHandle client) {
  Connection* c = find(client);
  if (!c || !std::exchange(c->paused, false)) return;
  if (c->later.empty()) loop_.resume(c->socket);
}

}  // namespace radiotower::daemon
