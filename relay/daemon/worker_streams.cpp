// Of a Worker: what stands between the loop, the clients over TCP, TLS and DTLS, the peers over TCP, and the server.
#include <algorithm>
#include <utility>

#include "worker.h"

namespace radiotower::daemon {

void Worker::dtls_message(const net::TransportAddress& client, io::SocketId listener, turn::Train train) {
  turn::Actions& out = actions(train.segment == 0 ? 1 : 1 + train.bytes.size() / train.segment);
  const std::uint64_t strangers = server_->counters().strangers();
  const net::TransportAddress* const server = address_of(listener);
  if (!server) return;
  from_client({client, *server, net::Transport::dtls}, listener, train, out);
  stream_strangers_ += server_->counters().strangers() - strangers;  // the gate lets in who has a session
}

/// L32: all that it carried is given back at once.
void Worker::dtls_gone(const net::TransportAddress& client, io::SocketId listener) {
  const net::TransportAddress* const server = address_of(listener);
  if (!server) return;  // closed, so there was no allocation
  turn::Actions& out = actions();
  server_->client_gone({client, *server, net::Transport::dtls}, this_turn(), out);
  carry_out(out);
}

const net::TransportAddress* Worker::address_of(io::SocketId listener) const {
  const auto found = std::find(listener_ids_.begin(), listener_ids_.end(), listener);
  return found == listener_ids_.end() ? nullptr : &listeners_[static_cast<std::size_t>(found - listener_ids_.begin())].address;
}

// Streams: of clients (client_stream_bit), of peers (peer_stream_bit), and relayed addresses of TCP allocations, whose cookies are RelayIds.

void Worker::on_accept(io::SocketId, std::uint64_t cookie, io::Socket socket, const net::TransportAddress& from) {
  if (finished_) return;
  if ((cookie & client_acceptor_bit) == 0) return peers_->on_accept(turn::RelayId::from_u64(cookie), std::move(socket), from);
  const Listener& acceptor = acceptors_[cookie & ~client_acceptor_bit];
  const bool of_all = acceptor.address.ip.is_unspecified();  // a socket from the service manager
  streams_->on_accept(of_all ? io::local_address(socket) : acceptor.address, acceptor.transport == net::Transport::tls, std::move(socket), from);
}

void Worker::on_chunk(const io::Chunk& chunk) {
  if (finished_) return;
  if (chunk.cookie & client_stream_bit) streams_->on_chunk(chunk);
  else peers_->on_chunk(chunk);
}

void Worker::on_end(io::SocketId socket, std::uint64_t cookie, int error) {
  if (finished_) return;
  if (cookie & client_stream_bit) streams_->on_end(cookie, error);
  else peers_->on_end(socket, cookie, error);
}

void Worker::on_writable(io::SocketId socket, std::uint64_t cookie) {
  if (finished_) return;
  if (cookie & client_stream_bit) streams_->on_writable(cookie);
  else peers_->on_writable(socket, cookie);
}

void Worker::on_released(std::uint64_t cookie, io::Socket socket) {
  if (!finished_ && cookie & client_stream_bit) streams_->on_released(cookie, std::move(socket));
}

/// A train from a stream is ChannelData alone, which is not answered: room for one message is enough for all of it.
void Worker::stream_message(const net::FiveTuple& five_tuple, turn::SocketHandle via, turn::Train train) {
  turn::Actions& out = actions();
  const std::uint64_t strangers = server_->counters().strangers();
  from_client(five_tuple, via, train, out);
  // Whom TCP has let in is no flood of datagrams: the gate could do nothing about him, and would keep others out.
  stream_strangers_ += server_->counters().strangers() - strangers;
}

void Worker::stream_gone(const net::FiveTuple& five_tuple) {
  turn::Actions& out = actions();
  server_->client_gone(five_tuple, this_turn(), out);
  carry_out(out);
}

bool Worker::has_allocation(const net::FiveTuple& five_tuple) { return server_->has_allocation(five_tuple); }

void Worker::hand_over(unsigned worker, Parcel parcel) {
  if (world_.hand_over) world_.hand_over(worker, std::move(parcel));
}

std::optional<turn::ConnectionId> Worker::peer_accepted(turn::RelayId relay, const net::TransportAddress& peer) {
  turn::Actions& out = actions();
  const auto connection = server_->peer_accepted(relay, peer, this_turn(), out);
  carry_out(out);
  return connection;
}

void Worker::peer_connected(turn::ConnectionId connection) {
  turn::Actions& out = actions();
  server_->peer_connected(connection, this_turn(), out);
  carry_out(out);
}

void Worker::peer_connect_failed(turn::ConnectionId connection) {
  turn::Actions& out = actions();
  server_->peer_connect_failed(connection, this_turn(), out);
  carry_out(out);
}

void Worker::peer_gone(turn::ConnectionId connection) {
  turn::Actions& out = actions();
  server_->peer_gone(connection, this_turn(), out);
  carry_out(out);
}

bool Worker::charge_joined(turn::ConnectionId connection, std::size_t to_peer, std::size_t to_client) {
  return server_->charge_joined(connection, to_peer, to_client, this_turn());
}

/// What another worker has given up: see hand_over.h.
void Worker::take_in(Parcel parcel) {
  if (parcel.connection) streams_->receive(std::move(parcel));
}

}  // namespace radiotower::daemon
