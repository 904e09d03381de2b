// TCP allocations (RFC 6062): Connect, ConnectionBind, and the connections with peers that both are about.
//
// The core knows of a connection whose it is, with which peer, and until when it may wait; bytes go past it. A connection is
//   connecting  after a Connect, which is answered when it is up (5.2)
//   waiting     for the ConnectionBind, 30 seconds (5.2, 5.3)
//   joined      with a client data connection (5.4)
#include <algorithm>

#include "server_impl.h"

namespace radiotower::turn {

using stun::Attribute;
using stun::Class;
using stun::ErrorCode;
using stun::Method;

namespace {

constexpr seconds connect_patience{30};  // 5.2: MUST be at least 30 seconds
constexpr seconds bind_patience{30};     // 5.2, 5.3: then the peer's connection MUST be closed

}  // namespace

/// The allocation's connection of this id; nullptr when there is none any more.
PeerConnection* Server::Impl::find_connection(ConnectionId id, Allocation*& allocation) {
  const auto found = connections.find(id);
  allocation = found == connections.end() ? nullptr : table.find(found->second.index, found->second.generation);
  return allocation ? allocation->find_connection(id) : nullptr;
}

/// A ConnectionBind may come to any worker, but one alone has what it asks for. Before authentication, so that the allocation can vouch for its
/// user there; a message that does not even try to authenticate moves nobody.
bool Server::Impl::find_by_connection(Request& request, Actions& out) {
  const stun::Message& m = request.message;
  if (request.allocation || !net::is_stream(request.five_tuple.transport)) return true;  // refused below
  const auto value = m.find(Attribute::connection_id);
  const auto id = value ? stun::read_u32(*value) : std::nullopt;
  if (!id) return true;
  if (find_connection(*id, request.allocation)) return true;
  const auto worker = shared->worker_of(*id);
  if (!worker || *worker == place.worker || (settings->authentication && !m.has_integrity() && !m.has_integrity_sha256())) return true;
  ++counters.handed_over;
  // They were given to us writable: from_client().
  const MutableBytes bytes{const_cast<std::uint8_t*>(m.bytes().data()), m.bytes().size()};
  out.hand_overs.push_back({request.five_tuple, request.via, *worker, bytes});
  return false;
}

PeerConnection* Server::Impl::add_connection(Allocation& allocation, const net::TransportAddress& peer, bool accepted, Time until) {
  const auto id = shared->register_connection(place.worker);
  if (!id) return nullptr;
  const std::uint32_t index = table.index_of(allocation);
  connections[*id] = {index, allocation.generation};
  const auto state = accepted ? PeerConnection::State::waiting : PeerConnection::State::connecting;
  allocation.connections.push_back({*id, peer, accepted, state, until, {}, false, false});
  schedule(allocation, index);
  return &allocation.connections.back();
}

/// The world is told by the caller, where it does not know already.
void Server::Impl::drop_connection(Allocation& allocation, ConnectionId id) {
  shared->forget_connection(id);
  connections.erase(id);
  std::erase_if(allocation.connections, [&](const PeerConnection& c) { return c.id == id; });
  ++counters.peer_connections_ended;
}

void Server::Impl::close_connections(Allocation& allocation, const std::function<bool(const PeerConnection&)>& which, Actions& out) {
  std::vector<ConnectionId> closed;
  for (const auto& c : allocation.connections)
    if (which(c)) closed.push_back(c.id);
  for (const auto id : closed) {
    out.peer_closes.push_back({id});
    drop_connection(allocation, id);
  }
}

/// 30 seconds have passed without an answer of the peer (447), or without a ConnectionBind (C07).
void Server::Impl::expire_connections(Allocation& allocation, Now now, Actions& out) {
  for (const auto& c : allocation.connections) {
    if (c.state != PeerConnection::State::connecting || c.until > now.steady) continue;
    ++counters.peer_connects_failed;
    answer_connect(allocation, c, ErrorCode::connection_timeout_or_failure, out);
  }
  close_connections(allocation, [&](const PeerConnection& c) { return c.state != PeerConnection::State::joined && c.until <= now.steady; }, out);
}

/// After a reload: a peer that the new rules deny loses its connections, those that are up too (P36).
void Server::Impl::close_forbidden_connections(Allocation& allocation, Actions& out) {
  close_connections(allocation, [&](const PeerConnection& c) {
    const net::TransportAddress judged{c.peer.ip, c.accepted ? std::uint16_t{0} : c.peer.port};
    return !settings->peers->permit(judged, judged.family(), !c.accepted);
  }, out);
}

/// 5.2. The checks that need the allocation come first, as the section has it: a peer that is already there is told before all else.
void Server::Impl::connect(Request& request, Actions& out) {
  const stun::Message& m = request.message;
  Allocation& allocation = *request.allocation;
  if (allocation.transport != net::Transport::tcp) return refuse(request, ErrorCode::allocation_mismatch, out);

  const auto value = m.find(Attribute::xor_peer_address);
  const auto peer = value ? stun::read_xor_address(*value, m.transaction_id()) : std::nullopt;
  if (!peer) return refuse(request, ErrorCode::bad_request, out);
  if (allocation.relay(peer->family).state != Relay::State::open) return refuse(request, ErrorCode::peer_address_family_mismatch, out);
  const bool exists = std::any_of(allocation.connections.begin(), allocation.connections.end(),
                                  [&](const PeerConnection& c) { return c.peer == peer->address; });
  if (exists) return refuse(request, ErrorCode::connection_already_exists, out);
  const auto permitted = permit(allocation, *peer, true, request.now, &out);
  if (!permitted) return refuse(request, ErrorCode::forbidden, out);

  const auto connecting = std::count_if(allocation.connections.begin(), allocation.connections.end(),
                                        [](const PeerConnection& c) { return c.state == PeerConnection::State::connecting; });
  if (static_cast<std::size_t>(connecting) >= most_connecting || !has_room_for_connection(allocation) || !may_add_peers(allocation, 1, request.now))
    return refuse(request, ErrorCode::insufficient_capacity, out);
  PeerConnection* connection = add_connection(allocation, permitted->address(), false, request.now.steady + connect_patience);
  if (!connection) return refuse(request, ErrorCode::insufficient_capacity, out);
  connection->transaction_id = m.transaction_id();
  connection->fingerprint = m.has_fingerprint();
  connection->sha256 = request.sha256;
  ++counters.peer_connects;
  const Relay& relay = allocation.relay(peer->family);
  out.connects.push_back({connection->id,
                          {shared->relay_addresses()[relay.port.address_index].local, relay.port.port},
                          shared->inside(permitted->address())});
}

bool Server::Impl::has_room_for_connection(const Allocation& allocation) const {
  const std::uint32_t most = realm_of(allocation).limits.channels_per_allocation;  // a connection is to TCP what a channel is to UDP
  return most == 0 || allocation.connections.size() < most;
}

/// `error`: none for a success.
void Server::Impl::answer_connect(const Allocation& allocation, const PeerConnection& connection, std::optional<ErrorCode> error, Actions& out) {
  stun::Writer writer(out.reply_space(), error ? Class::error : Class::success, Method::connect, connection.transaction_id);
  if (error) {
    ++counters.error_answers;
    writer.add_error(*error, stun::reason_phrase(*error));
  } else {
    writer.add_u32(Attribute::connection_id, connection.id);  // 5.2: MUST
  }
  if (settings->authentication) {
    if (settings->answer_software) writer.add(Attribute::software, std::string_view("radiotower"));
    if (connection.sha256) writer.add_integrity_sha256(allocation.key.bytes());
    else writer.add_integrity(allocation.key.bytes());
  }
  if (connection.fingerprint) writer.add_fingerprint();
  tallies.count(Method::connect, error ? static_cast<std::uint16_t>(*error) : Tallies::success);
  out.reply_used(writer.bytes().size());
  out.to_client(allocation.client_socket, allocation.five_tuple, writer.bytes());
}

void Server::Impl::peer_connected(ConnectionId id, Now now, Actions& out) {
  Allocation* allocation = nullptr;
  PeerConnection* connection = find_connection(id, allocation);
  if (!connection || connection->state != PeerConnection::State::connecting) {
    out.peer_closes.push_back({id});  // nobody waits for it any more
    return;
  }
  connection->state = PeerConnection::State::waiting;
  connection->until = now.steady + bind_patience;
  schedule(*allocation, table.index_of(*allocation));
  answer_connect(*allocation, *connection, std::nullopt, out);
}

void Server::Impl::peer_connect_failed(ConnectionId id, Now, Actions& out) {
  Allocation* allocation = nullptr;
  PeerConnection* connection = find_connection(id, allocation);
  if (!connection || connection->state != PeerConnection::State::connecting) return;
  ++counters.peer_connects_failed;
  answer_connect(*allocation, *connection, ErrorCode::connection_timeout_or_failure, out);
  drop_connection(*allocation, id);
}

/// 5.3. A permission is needed here, and here alone: a Connect says by itself that the client wants the peer.
std::optional<ConnectionId> Server::Impl::peer_accepted(RelayId relay, const net::TransportAddress& source, Now now, Actions& out) {
  Allocation* allocation = table.find(relay.index, relay.generation);
  if (!allocation || allocation->transport != net::Transport::tcp || allocation->relay(relay.family).state != Relay::State::open)
    return std::nullopt;
  // Another client of this relay is known to its peers by the external address.
  net::TransportAddress peer = shared->outside(source, net::Transport::tcp);
  if (!(peer == source) && !allocation->find_permission(peer.ip)) peer = source;
  const Permission* permission = allocation->find_permission(peer.ip);
  if (!permission || !permission->permits(now.steady)) {
    ++counters.peers_turned_away;  // C08
    return std::nullopt;
  }
  PeerConnection* connection = nullptr;
  if (has_room_for_connection(*allocation)) connection = add_connection(*allocation, peer, true, now.steady + bind_patience);
  if (!connection) {
    ++counters.peers_turned_away;
    return std::nullopt;
  }
  ++counters.peer_accepts;
  stun::TransactionId transaction_id;
  random(transaction_id);
  stun::Writer writer(out.reply_space(), Class::indication, Method::connection_attempt, transaction_id);
  writer.add_xor_address(Attribute::xor_peer_address, peer);
  writer.add_u32(Attribute::connection_id, connection->id);
  out.reply_used(writer.bytes().size());
  out.to_client(allocation->client_socket, allocation->five_tuple, writer.bytes());
  return connection->id;
}

/// 5.4. `request.allocation` is the one that the id belongs to (find_by_connection), not one of this 5-tuple.
void Server::Impl::connection_bind(Request& request, Actions& out) {
  const stun::Message& m = request.message;
  if (!net::is_stream(request.five_tuple.transport)) return refuse(request, ErrorCode::bad_request, out);
  // What it carries from here on is the peer's: a connection that controls an allocation cannot be that (4.3: a new one).
  if (table.find(request.five_tuple)) return refuse(request, ErrorCode::bad_request, out);
  const auto value = m.find(Attribute::connection_id);
  const auto id = value ? stun::read_u32(*value) : std::nullopt;
  Allocation* allocation = nullptr;
  PeerConnection* connection = id ? find_connection(*id, allocation) : nullptr;
  if (!connection) return refuse(request, ErrorCode::bad_request, out);
  if (!owns(request, *allocation)) return refuse(request, ErrorCode::wrong_credentials, out);  // C06
  if (connection->state != PeerConnection::State::waiting) return refuse(request, ErrorCode::bad_request, out);

  connection->state = PeerConnection::State::joined;
  connection->until = never;
  ++counters.peer_connections_joined;
  stun::Writer writer(out.reply_space(), Class::success, Method::connection_bind, m.transaction_id());
  finish_success(request, writer, out);
  out.joins.push_back({*id, request.via});
}

void Server::Impl::peer_gone(ConnectionId id, Now, Actions&) {
  Allocation* allocation = nullptr;
  if (find_connection(id, allocation)) drop_connection(*allocation, id);
}

/// Bytes are counted after they have moved, and never dropped: who is over the limit waits.
bool Server::Impl::charge_joined(ConnectionId id, std::size_t to_peer, std::size_t to_client, Now now) {
  Allocation* allocation = nullptr;
  if (!find_connection(id, allocation)) return true;
  allocation->bytes_to_peer += to_peer;
  allocation->bytes_to_client += to_client;
  counters.bytes_to_peer += to_peer;
  counters.bytes_to_client += to_client;
  Tallies::Traffic& traffic = tallies.of(allocation->five_tuple.transport == net::Transport::tls ? Tallies::Way::joined_tls : Tallies::Way::joined_tcp);
  traffic.bytes_to_peer += to_peer;
  traffic.bytes_to_client += to_client;
  Account& account = *allocation->account;
  if (!account.limited()) return true;
  std::int64_t& left = allocation->lease.bytes;
  left -= static_cast<std::int64_t>(to_peer + to_client);
  if (left >= 0) return true;
  Account::Lease more;
  more.packets = 64;  // a stream has none: only bytes are leased
  if (!account.lease(static_cast<std::size_t>(-left), now.steady, more)) return false;
  left += more.bytes;
  return true;
}

}  // namespace radiotower::turn
