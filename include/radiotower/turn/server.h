// The STUN/TURN server as a function: bytes, an address and a time go in, actions come out (RFC 8489, RFC 8656).
// No socket, no clock, no log. One a worker; not thread-safe; nothing is allocated for a relayed packet.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "radiotower/base/random.h"
#include "radiotower/base/siphash.h"
#include "radiotower/base/time.h"
#include "radiotower/net/address.h"
#include "radiotower/turn/actions.h"
#include "radiotower/turn/allocation_facts.h"
#include "radiotower/turn/counters.h"
#include "radiotower/turn/nonce.h"
#include "radiotower/turn/settings.h"
#include "radiotower/turn/shared.h"
#include "radiotower/turn/shortcuts.h"
#include "radiotower/turn/tallies.h"
#include "radiotower/turn/ticket.h"

namespace radiotower::turn {

enum class RelayFailure : std::uint8_t { port_in_use, no_resources };

/// An ICMP message about a datagram that one of our relay ports sent (RFC 8656, 11.5).
struct Icmp {
  std::uint8_t type = 0;
  std::uint8_t code = 0;
  std::uint32_t error_data = 0;  // the MTU for 3/4 and v6 2, else 0
};

/// Where a Server stands among those of the process.
struct Place {
  unsigned worker = 0;
  struct Listener {
    net::TransportAddress address;
    net::Transport transport = net::Transport::udp;
    SocketHandle socket = no_socket;  // udp: what can be sent from; no_socket otherwise
  };
  std::vector<Listener> listeners;  // of this worker
  std::shared_ptr<const TicketMint> tickets;  // of the process (RFC 8016); null: this Server's own
};

class Server {
 public:
  /// `shortcuts`: where channels may be passed by; outlives the Server. nullptr: nowhere, and no cost.
  Server(std::shared_ptr<Shared> shared, std::shared_ptr<const Settings> settings, const NonceMint& nonces,
         const HashKey& hash_key, RandomSource random, Shortcuts* shortcuts = nullptr);
  ~Server();  // takes back what shortcuts are left
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  /// To be called before the first datagram, where there is more than one worker or a feature that needs the listeners; and when the listeners change.
  void set_place(Place place);

  /// A datagram, or a train of them, from a client. From a stream: one whole message, or neighbouring ChannelData messages of one length as a
  /// train; `via` is then the connection itself. `via` is the caller's name for the listener it came to.
  void from_client(const net::FiveTuple& five_tuple, SocketHandle via, Train train, Now now, Actions& out);
  /// From the outside, to a relay port. `relay` may be one that has ended meanwhile: then nothing happens.
  void from_peer(RelayId relay, const net::TransportAddress& peer, Train train, Now now, Actions& out);
  /// `peer`: the destination of the datagram the ICMP message is about.
  void icmp_from_peer(RelayId relay, const net::TransportAddress& peer, const Icmp& icmp, Now now, Actions& out);

  /// The two answers to an OpenRelay. `port_in_use` makes the core try other ports, a bounded number of times.
  void relay_opened(RelayId relay, SocketHandle socket, Now now, Actions& out);
  void relay_failed(RelayId relay, RelayFailure failure, Now now, Actions& out);

  bool has_allocation(const net::FiveTuple& five_tuple) const;
  /// The client's connection (TCP, TLS, DTLS) has ended; its SocketHandle is not used any more. With a ticket (RFC 8016) the allocation waits for
  /// its client to come back.
  void client_gone(const net::FiveTuple& five_tuple, Now now, Actions& out);

  /// RFC 6062. A peer has connected to a relayed address: nullopt means close it at once (5.3), else the connection is known by this id.
  std::optional<ConnectionId> peer_accepted(RelayId relay, const net::TransportAddress& peer, Now now, Actions& out);
  void peer_connected(ConnectionId connection, Now now, Actions& out);
  void peer_connect_failed(ConnectionId connection, Now now, Actions& out);
  /// Bytes that a joined connection has carried, for the counters and the user's limit. False: the user is over it; read no more from
  /// either side, and ask again, with no bytes, in a hundredth of a second.
  bool charge_joined(ConnectionId connection, std::size_t to_peer, std::size_t to_client, Now now);
  /// A connection to a peer has ended, or its client's data connection has.
  void peer_gone(ConnectionId connection, Now now, Actions& out);

  /// Ends what has run out. Call when next_expiry() has come.
  void expire(Now now, Actions& out);
  Time next_expiry() const;  // `never` when nothing waits

  /// A reload: live allocations stay, permissions and channels are judged anew against the new peers (P36).
  void apply(std::shared_ptr<const Settings> settings, Now now, Actions& out);
  /// Ends every allocation; for the events alone, at shutdown. Clients are told nothing.
  void end_all(EndReason reason, Now now, Actions& out);

  /// Brings counters up to date with what passed by shortcuts, and takes back those that have run out by themselves.
  /// Call once a second or so, and before counters() are shown.
  void count_shortcuts(Time now);
  /// The 5-tuple of every allocation.
  void for_each_client(const std::function<void(const net::FiveTuple&)>& visit) const;

  /// At most `most` allocations as they stand, from place `first` on; returns the place to go on from, 0 after the last. In slices, since packets
  /// wait meanwhile; what lives through all of them is visited once. For operators: allocates.
  std::uint32_t visit_allocations(Time now, std::uint32_t first, std::size_t most, const std::function<void(const AllocationFacts&)>& visit) const;
  /// Ends those that `which` names, and returns how many. Clients are told nothing, as with end_all(); connections of those over TCP and TLS
  /// are hung up. Over UDP and DTLS a Refresh gets a 437.
  std::size_t end_allocations(const std::function<bool(const AllocationFacts&)>& which, EndReason reason, Now now, Actions& out);

  const Counters& counters() const;
  const Tallies& tallies() const;  // brought up to date as counters() are; it stays as it was then, save for the counts of requests and ends
  std::uint64_t authenticated_requests() const;  // of tallies(), without bringing anything up to date
  AllocationCounts count_allocations() const;  // walks through all of them
  std::size_t allocation_count() const;
  /// Bytes kept for the outside world: grows with allocations alone, never with unproved sources (X01-X04).
  std::size_t bytes_kept() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace radiotower::turn
