#include "peer_streams.h"

#include <sys/uio.h>

#include <algorithm>
#include <utility>

namespace radiotower::daemon {

PeerStreams::Peer* PeerStreams::find(turn::ConnectionId id) {
  const auto found = peers_.find(id);
  return found == peers_.end() || found->second.over ? nullptr : &found->second;
}

PeerStreams::Peer* PeerStreams::find_cookie(io::SocketId socket, std::uint64_t cookie) {
  Peer* peer = find(static_cast<turn::ConnectionId>(cookie));
  return peer && peer->socket == socket ? peer : nullptr;
}

PeerStreams::Peer* PeerStreams::find_client(turn::SocketHandle client) {
  const auto found = by_client_.find(client);
  return found == by_client_.end() ? nullptr : find(found->second);
}

std::size_t PeerStreams::bytes_kept() const {
  std::size_t sum = 0;
  for (const auto& [id, peer] : peers_) sum += sizeof peer + peer.waiting.capacity();
  return sum;
}

// ---------------------------------------------------------------------------------------------------------------------
// From the beginning of a connection to its end.

bool PeerStreams::add(turn::ConnectionId id, io::Socket socket, State state) {
  const io::SocketId added = loop_.add_stream(std::move(socket), peer_stream_bit | id);
  if (added == io::no_socket) return false;
  loop_.pause(added);  // until somebody takes what comes
  Peer& peer = peers_[id];
  peer.id = id;
  peer.socket = added;
  peer.state = state;
  return true;
}

bool PeerStreams::connect(const turn::ConnectPeer& request) {
  int error = 0;
  io::Socket socket = io::connect_tcp(request.from, request.to, error);
  if (!socket || !add(request.connection, std::move(socket), State::connecting)) return false;
  loop_.want_writable(find(request.connection)->socket);
  return true;
}

/// RFC 6062, 5.3: accepted in any case; one without permission closes with `socket`.
void PeerStreams::on_accept(turn::RelayId relay, io::Socket socket, const net::TransportAddress& from) {
  const auto id = above_.peer_accepted(relay, from);
  if (id && !add(*id, std::move(socket), State::waiting)) above_.peer_gone(*id);
}

void PeerStreams::join(const turn::JoinPeer& request) {
  Peer* peer = find(request.connection);
  if (!peer) return clients_.close(request.client);  // it has gone in this very turn
  peer->state = State::joined;
  peer->client = request.client;
  by_client_[request.client] = request.connection;
  if (!clients_.join(request.client)) {
    by_client_.erase(request.client);
    peer->client = turn::no_socket;
    return let_go(*peer);
  }
  settle(*peer);
}

void PeerStreams::close(turn::ConnectionId connection) {
  if (Peer* peer = find(connection)) let_go(*peer);
}

/// Both ends close, each after what has been written to it; the server hears of it at the end of the turn.
void PeerStreams::let_go(Peer& peer) {
  if (std::exchange(peer.over, true)) return;
  if (peer.socket != io::no_socket) loop_.remove(std::exchange(peer.socket, io::no_socket));
  if (peer.client != turn::no_socket) {
    by_client_.erase(peer.client);
    clients_.close(std::exchange(peer.client, turn::no_socket));
  }
  over_.push_back(peer.id);
}

/// No more to be had from the peer, nor will it take anything: what it has sent is still delivered. The client is read from until its own end, since a
/// socket that is closed with something unread takes back what it has sent.
void PeerStreams::break_peer(Peer& peer) {
  loop_.remove(std::exchange(peer.socket, io::no_socket));
  peer.peer_ended = true;
  peer.waiting.clear();
  peer.taken = 0;
  if (peer.state != State::joined) return let_go(peer);
  settle(peer);
}

// ---------------------------------------------------------------------------------------------------------------------
// The peer's side.

void PeerStreams::on_writable(io::SocketId socket, std::uint64_t cookie) {
  Peer* peer = find_cookie(socket, cookie);
  if (!peer) return;
  if (peer->state != State::connecting) return flush(*peer);
  const turn::ConnectionId id = peer->id;
  if (loop_.stream_error(socket) == 0) {
    peer->state = State::waiting;
    return above_.peer_connected(id);
  }
  above_.peer_connect_failed(id);
  if (Peer* failed = find(id)) let_go(*failed);
}

void PeerStreams::on_chunk(const io::Chunk& chunk) {
  Peer* peer = find_cookie(chunk.socket, chunk.cookie);
  if (!peer) return;
  to_client(*peer, chunk.bytes);
  settle(*peer);
}

void PeerStreams::on_end(io::SocketId socket, std::uint64_t cookie, int error) {
  Peer* peer = find_cookie(socket, cookie);
  if (!peer) return;
  if (peer->state == State::connecting) {
    const turn::ConnectionId id = peer->id;
    above_.peer_connect_failed(id);
    if (Peer* failed = find(id)) let_go(*failed);
    return;
  }
  peer->peer_ended = true;
  if (error != 0) return break_peer(*peer);
  settle(*peer);
}

void PeerStreams::to_client(Peer& peer, MutableBytes bytes) {
  if (peer.client == turn::no_socket) return;
  if (!clients_.write_joined(peer.client, bytes)) peer.client_full = true;
  charge(peer, 0, bytes.size());
}

/// All that the kernel takes of what waits.
void PeerStreams::flush(Peer& peer) {
  while (peer.left() != 0) {
    const iovec piece{peer.waiting.data() + peer.taken, peer.left()};
    const std::ptrdiff_t written = loop_.write(peer.socket, &piece, 1);
    if (written < 0) return break_peer(peer);
    if (written == 0) break;
    peer.taken += static_cast<std::size_t>(written);
  }
  if (peer.left() == 0) {
    peer.waiting.clear();
    peer.taken = 0;
  } else {
    if (peer.taken >= limits_.high) {
      peer.waiting.erase(peer.waiting.begin(), peer.waiting.begin() + static_cast<std::ptrdiff_t>(peer.taken));
      peer.taken = 0;
    }
    loop_.want_writable(peer.socket);
  }
  settle(peer);
}

void PeerStreams::to_peer(Peer& peer, Bytes bytes) {
  if (peer.socket == io::no_socket) return;
  charge(peer, bytes.size(), 0);
  std::size_t written = 0;
  if (peer.left() == 0) {
    const iovec piece{const_cast<std::uint8_t*>(bytes.data()), bytes.size()};
    const std::ptrdiff_t n = loop_.write(peer.socket, &piece, 1);
    if (n < 0) return break_peer(peer);
    written = static_cast<std::size_t>(n);
    if (written == bytes.size()) return;
    loop_.want_writable(peer.socket);
  }
  const Bytes rest = bytes.subspan(written);
  peer.waiting.insert(peer.waiting.end(), rest.begin(), rest.end());
}

// ---------------------------------------------------------------------------------------------------------------------
// The client's side.

void PeerStreams::on_client_bytes(turn::SocketHandle client, MutableBytes bytes) {
  Peer* peer = find_client(client);
  if (!peer) return;
  to_peer(*peer, bytes);
  settle(*peer);
}

void PeerStreams::on_client_room(turn::SocketHandle client) {
  Peer* peer = find_client(client);
  if (!peer) return;
  peer->client_full = false;
  settle(*peer);
}

/// True: close() follows from here.
bool PeerStreams::on_client_ended(turn::SocketHandle client) {
  Peer* peer = find_client(client);
  if (!peer) return false;
  peer->client_ended = true;
  settle(*peer);
  return true;
}

void PeerStreams::on_client_finished(turn::SocketHandle client) {
  Peer* peer = find_client(client);
  if (!peer) return;
  peer->client_has_all = true;
  settle(*peer);
}

/// It takes nothing any more; what it has sent before still goes to the peer, which is read from until its own end: see break_peer().
void PeerStreams::on_client_gone(turn::SocketHandle client) {
  Peer* peer = find_client(client);
  by_client_.erase(client);
  if (!peer) return;
  peer->client = turn::no_socket;
  peer->client_ended = true;
  peer->client_full = false;
  settle(*peer);
}

// ---------------------------------------------------------------------------------------------------------------------

void PeerStreams::charge(Peer& peer, std::size_t to_peer, std::size_t to_client) {
  if (above_.charge_joined(peer.id, to_peer, to_client)) return;
  peer.over_limit = true;
  look_at(peer, above_.this_turn().steady + limits_.over_limit);
}

/// What follows from what is known of a connection: who is read from, who is told of an end, whether all is over.
void PeerStreams::settle(Peer& peer) {
  if (peer.over) return;
  const bool joined = peer.state == State::joined;
  if (joined && peer.client_ended && peer.left() == 0 && peer.socket != io::no_socket && !std::exchange(peer.told_peer, true)) loop_.finish(peer.socket);
  if (joined && peer.peer_ended && peer.client != turn::no_socket && !std::exchange(peer.told_client, true)) clients_.finish_joined(peer.client);
  // A client that takes its last bytes slowly is left its time: closing would cut it short.
  const bool client_has_all = peer.client == turn::no_socket || peer.client_has_all;
  if (joined && peer.client_ended && peer.peer_ended && client_has_all && peer.left() == 0) return let_go(peer);

  if (!peer.peer_ended && peer.socket != io::no_socket) {
    const bool pause = !joined || peer.client_full || (peer.over_limit && peer.client != turn::no_socket);
    if (pause != peer.peer_paused) pause ? loop_.pause(peer.socket) : loop_.resume(peer.socket);
    peer.peer_paused = pause;
  }
  if (joined && !peer.client_ended) {
    const bool pause = peer.over_limit || peer.left() >= (peer.client_paused ? limits_.low : limits_.high);
    if (pause != peer.client_paused) pause ? clients_.pause(peer.client) : clients_.resume(peer.client);
    peer.client_paused = pause;
  }
  if (is_half_open(peer)) {
    // Who is broken has a moment from there on; else each byte counts.
    if (!is_broken(peer) || !std::exchange(peer.counted_out, true)) peer.moved_at = above_.this_turn().steady;
    look_at(peer, patience_ends(peer));
  }
}

Time PeerStreams::patience_ends(const Peer& peer) const {
  return peer.moved_at + (is_broken(peer) ? limits_.broken : limits_.half_open);
}

void PeerStreams::look_at(Peer& peer, Time when) {
  if (!std::exchange(peer.looked_at, true)) looked_at_.push_back(peer.id);
  next_deadline_ = std::min(next_deadline_, when);
}

void PeerStreams::end_of_turn() {
  while (!over_.empty()) {
    const turn::ConnectionId id = over_.back();
    over_.pop_back();
    peers_.erase(id);
    above_.peer_gone(id);  // of one that the server has given up itself, this says nothing new
  }
  if (next_deadline_ == never) return;
  const Time now = above_.this_turn().steady;
  if (next_deadline_ > now) return;
  next_deadline_ = never;
  scratch_.swap(looked_at_);
  for (const auto id : scratch_) {
    Peer* peer = find(id);
    if (!peer) continue;
    peer->looked_at = false;
    if (peer->over_limit) {
      peer->over_limit = !above_.charge_joined(id, 0, 0);
      if (peer->over_limit) look_at(*peer, now + limits_.over_limit);
    }
    if (is_half_open(*peer) && now >= patience_ends(*peer)) {
      let_go(*peer);
      continue;
    }
    const Time moved_at = peer->moved_at;
    settle(*peer);
    peer->moved_at = moved_at;  // to be looked at is not to move
    if (is_half_open(*peer) && !peer->over) look_at(*peer, patience_ends(*peer));
  }
  scratch_.clear();
  if (!over_.empty()) end_of_turn();
}

}  // namespace radiotower::daemon
