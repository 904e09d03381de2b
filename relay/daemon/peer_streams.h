// The connections with peers of one worker (RFC 6062): owns their sockets. Connects, accepts, and after the ConnectionBind carries bytes between the peer
// and the client's data connection, which StreamClients owns. What a peer sends before waits in the kernel, whose window is the bound (5.2, 5.3; C09).
//
// Nothing is lost and nothing piles up: who sends faster than the other side takes is not read from. A FIN is passed on behind the last byte, so that one
// side may go on after the other has ended (5.5); both have ended, or nothing moves for a while, and the connection is closed.
//
// One thread. The server is told at on_*() and in end_of_turn(), never while its actions are carried out.
#pragma once

#include <cstdint>
#include <optional>
#include <unordered_map>
#include <vector>

#include "radiotower/base/time.h"
#include "radiotower/io/loop.h"
#include "radiotower/turn/actions.h"
#include "stream_clients.h"

namespace radiotower::daemon {

class PeerStreams {
 public:
  /// The worker, as seen from here: turn::Server's calls of the same names, with their actions carried out.
  class Above {
   public:
    virtual const Now& this_turn() = 0;
    virtual std::optional<turn::ConnectionId> peer_accepted(turn::RelayId relay, const net::TransportAddress& peer) = 0;
    virtual void peer_connected(turn::ConnectionId connection) = 0;
    virtual void peer_connect_failed(turn::ConnectionId connection) = 0;
    virtual void peer_gone(turn::ConnectionId connection) = 0;
    virtual bool charge_joined(turn::ConnectionId connection, std::size_t to_peer, std::size_t to_client) = 0;  // touches no actions

   protected:
    ~Above() = default;
  };

  struct Limits {  // tests make them small
    std::size_t high = 64 << 10;       // bytes that a peer has not taken: the client is not read from
    std::size_t low = 16 << 10;        // and from here on it is again
    seconds half_open{60};             // one side has ended, and the other moves nothing
    seconds broken{5};                 // likewise, but it has ended in a way that leaves nobody to talk to
    milliseconds over_limit{10};       // until a user over the limit of its bandwidth is looked at again
  };

  PeerStreams(io::Loop& loop, StreamClients& clients, Above& above) : loop_(loop), clients_(clients), above_(above) {}
  PeerStreams(const PeerStreams&) = delete;
  PeerStreams& operator=(const PeerStreams&) = delete;

  void set_limits(const Limits& limits) { limits_ = limits; }

  // What the server asks for; callable while actions are carried out.
  /// False: it has failed at once, and the server is to be told so by the caller.
  bool connect(const turn::ConnectPeer& request);
  void join(const turn::JoinPeer& request);
  void close(turn::ConnectionId connection);

  // What the loop brings; see io::Receiver. Cookies have peer_stream_bit and the ConnectionId.
  void on_accept(turn::RelayId relay, io::Socket socket, const net::TransportAddress& from);
  void on_chunk(const io::Chunk& chunk);
  void on_end(io::SocketId socket, std::uint64_t cookie, int error);
  void on_writable(io::SocketId socket, std::uint64_t cookie);

  // What StreamClients brings; see StreamClients::Above.
  void on_client_bytes(turn::SocketHandle client, MutableBytes bytes);
  void on_client_room(turn::SocketHandle client);
  bool on_client_ended(turn::SocketHandle client);
  void on_client_finished(turn::SocketHandle client);
  void on_client_gone(turn::SocketHandle client);

  /// Lets go of what has ended, and looks after those who wait.
  void end_of_turn();
  Time next_deadline() const { return over_.empty() ? next_deadline_ : Time{}; }  // `never`: none

  std::size_t size() const { return peers_.size(); }
  std::size_t bytes_kept() const;

 private:
  enum class State : std::uint8_t { connecting, waiting, joined };
  struct Peer {
    turn::ConnectionId id = 0;
    io::SocketId socket = io::no_socket;          // no_socket: broken, while something of it is still to be delivered
    turn::SocketHandle client = turn::no_socket;  // likewise, once joined; what comes for it is thrown away
    State state = State::connecting;
    bool peer_ended = false, client_ended = false;  // nothing more will come from there
    bool peer_paused = true, client_paused = false;
    bool client_full = false;     // it has more than a little to take
    bool over_limit = false;
    bool told_peer = false, told_client = false;  // the FIN
    bool client_has_all = false;  // and it has left, behind everything else
    bool looked_at = false;       // is in that list
    bool counted_out = false;     // broken: its moment has begun
    bool over = false;            // to be let go of at the end of the turn
    Time moved_at{};              // kept from the first end on
    std::vector<std::uint8_t> waiting;  // for the peer; taken from the front in steps
    std::size_t taken = 0;              // of `waiting`
    std::size_t left() const { return waiting.size() - taken; }
  };

  Peer* find(turn::ConnectionId id);
  Peer* find_cookie(io::SocketId socket, std::uint64_t cookie);
  Peer* find_client(turn::SocketHandle client);
  bool add(turn::ConnectionId id, io::Socket socket, State state);
  void to_client(Peer& peer, MutableBytes bytes);
  void to_peer(Peer& peer, Bytes bytes);
  void flush(Peer& peer);
  void break_peer(Peer& peer);
  void charge(Peer& peer, std::size_t to_peer, std::size_t to_client);
  void settle(Peer& peer);
  bool is_half_open(const Peer& peer) const { return peer.state == State::joined && (peer.client_ended || peer.peer_ended); }
  bool is_broken(const Peer& peer) const { return (peer.socket == io::no_socket || peer.client == turn::no_socket) && peer.left() == 0; }
  Time patience_ends(const Peer& peer) const;
  void look_at(Peer& peer, Time when);
  void let_go(Peer& peer);

  io::Loop& loop_;
  StreamClients& clients_;
  Above& above_;
  Limits limits_;
  std::unordered_map<turn::ConnectionId, Peer> peers_;  // ids are random numbers of our own
  std::unordered_map<turn::SocketHandle, turn::ConnectionId> by_client_;
  std::vector<turn::ConnectionId> over_;
  std::vector<turn::ConnectionId> looked_at_;  // half open, or over the limit
  std::vector<turn::ConnectionId> scratch_;
  Time next_deadline_ = never;
};

}  // namespace radiotower::daemon
