// An allocation and what it owns (RFC 8656, 3.2), and the table that owns allocations. Private to the layer.
#pragma once

#include <array>
#include <cassert>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "radiotower/base/siphash.h"
#include "radiotower/base/time.h"
#include "radiotower/net/address.h"
#include "radiotower/net/peer_policy.h"
#include "radiotower/stun/crypto.h"
#include "radiotower/stun/message.h"
#include "radiotower/turn/actions.h"
#include "radiotower/turn/shared.h"
#include "radiotower/turn/shortcuts.h"

namespace radiotower::turn {

inline constexpr seconds permission_lifetime{300};  // RFC 8656, 9: MUST be 300 seconds
inline constexpr seconds channel_lifetime{600};     // RFC 8656, 12
inline constexpr std::size_t most_connecting = 16;  // Connects of one allocation that wait for their peers: each is a SYN to somebody

struct Permission {
  net::IpAddress ip;  // the port is not part of a permission (RFC 8656, 9)
  Time expires_at{};
  bool forbidden = false;  // a reload has denied this peer since

  bool permits(Time now) const { return !forbidden && now < expires_at; }
};

/// A shortcut as the core last spoke of it.
struct Given {
  ShortcutId id = no_shortcut;
  Time until{};
  ShortcutCounts counted;  // what is in the counters already
};

struct Channel {
  net::PermittedPeer peer;
  net::TransportAddress send_to;  // where peer is reached: the local form of one of our external addresses, else the same
  std::uint16_t number = 0;
  std::uint16_t permission = 0;   // a hint: where its permission stood last
  bool forbidden = false;
  Time expires_at{};
  std::unique_ptr<Given> given;  // apart, so that looking for a channel walks through fewer bytes; null: no shortcut
};

/// One relayed address of an allocation. A dual allocation has two, each with its own end (RFC 8656, 8.2).
struct Relay {
  enum class State : std::uint8_t { none, opening, open };
  State state = State::none;
  std::uint8_t attempts = 0;
  SocketHandle socket = no_socket;
  Shared::Port port;
  Time expires_at{};
};

/// A connection between a relayed address and a peer (RFC 6062).
struct PeerConnection {
  enum class State : std::uint8_t { connecting, waiting, joined };
  ConnectionId id = 0;
  net::TransportAddress peer;
  bool accepted = false;  // the peer has come: its port is its own choice
  State state = State::connecting;
  Time until{};  // connecting: for the peer; waiting: for the ConnectionBind; joined: `never`
  stun::TransactionId transaction_id{};  // of the Connect, and how its answer is to be protected
  bool fingerprint = false;
  bool sha256 = false;
};

/// What is needed to answer an Allocate, and to answer its retransmission with the same bytes (RFC 8656, 7.2; RFC 8489, 6.3.1).
struct AllocateReply {
  stun::TransactionId transaction_id{};
  bool fingerprint = false;
  bool sha256 = false;  // protect the answer with MESSAGE-INTEGRITY-SHA256
  std::uint32_t lifetime = 0;
  Shared::Want want = Shared::Want::any;
  std::uint16_t address_error = 0;  // ADDRESS-ERROR-CODE of the IPv6 half of a dual allocation; 0: none
};

/// What an allocation with a ticket remembers (RFC 8016). `next` is where its client has announced itself, and has sent nothing yet.
struct Mobility {
  std::uint32_t serial = 0;    // of the ticket that is out
  std::uint32_t replaced = 0;  // of the one before it, good for a retransmission of the Refresh that replaced it (3.2.2); 0: there was none
  stun::TransactionId transaction_id{};  // of that Refresh ...
  net::FiveTuple came_from;              // ... where it came from ...
  std::uint32_t lifetime = 0;            // ... and what it was granted
  net::FiveTuple next;
  SocketHandle next_socket = no_socket;
  bool is_carried = false;  // `five_tuple` is one that the allocation has moved to
};

struct Allocation {
  net::FiveTuple five_tuple;  // where the client is; without a client (see has_client), where it was last
  SocketHandle client_socket = no_socket;
  net::Transport transport = net::Transport::udp;  // of the relayed addresses: udp or tcp
  bool has_client = true;   // false: its connection is gone, and a ticket may bring it back (RFC 8016)
  bool is_moving = false;   // found under mobility->next too
  std::uint32_t index = 0;
  std::uint32_t generation = 0;
  std::unique_ptr<Mobility> mobility;  // null: nobody asked for a ticket
  std::uint32_t quota = 0;  // how many of the user's allocations this one counts for
  std::string username;
  std::shared_ptr<Account> account;
  stun::Key key;
  stun::PasswordAlgorithm algorithm{};
  UnixSeconds rest_expiry = 0;  // 0: not a REST user
  UnixSeconds token_expiry = 0;  // of the access token that was seen last (RFC 7635); 0: made without one
  AllocateReply reply;
  std::array<Relay, 2> relays;  // IPv4, IPv6
  Time made_at{};
  Time scheduled_at{};  // when the expiry queue looks at it next
  std::vector<Permission> permissions;
  std::vector<Channel> channels;
  std::vector<PeerConnection> connections;  // tcp
  std::optional<net::PermittedPeer> last_peer;  // of the last Send: its verdict is not asked for twice; cleared by a reload
  Account::Lease lease;
  std::int64_t peers_full_at = 0;  // new_peers_per_second: the time at which the burst is whole again, in ns
  std::uint64_t bytes_to_peer = 0, bytes_to_client = 0, packets_to_peer = 0, packets_to_client = 0;

  Relay& relay(net::Family family) { return relays[family == net::Family::ipv6 ? 1 : 0]; }
  const Relay& relay(net::Family family) const { return relays[family == net::Family::ipv6 ? 1 : 0]; }
  bool opening() const {
    return relays[0].state == Relay::State::opening || relays[1].state == Relay::State::opening;
  }
  bool any_open() const { return relays[0].state == Relay::State::open || relays[1].state == Relay::State::open; }
  Time earliest_end() const;
  bool is_at(const net::FiveTuple& t) const { return (has_client && five_tuple == t) || (is_moving && mobility->next == t); }

  Permission* find_permission(const net::IpAddress& ip) {
    for (auto& p : permissions)
      if (p.ip == ip) return &p;
    return nullptr;
  }
  const Permission* find_permission(const net::IpAddress& ip) const {
    return const_cast<Allocation*>(this)->find_permission(ip);
  }
  bool permits(const net::IpAddress& ip, Time now) {
    const Permission* p = find_permission(ip);
    return p && p->permits(now);
  }
  Channel* find_channel(std::uint16_t number) {
    for (auto& c : channels)
      if (c.number == number) return &c;
    return nullptr;
  }
  Channel* find_channel(const net::TransportAddress& peer) {
    for (auto& c : channels)
      if (c.peer.address().port == peer.port && c.peer.address().ip == peer.ip) return &c;
    return nullptr;
  }
  PeerConnection* find_connection(ConnectionId id) {
    for (auto& c : connections)
      if (c.id == id) return &c;
    return nullptr;
  }
  std::size_t bytes() const;
};

/// Owns the allocations of one worker; found by 5-tuple or by RelayId. The hash is keyed: nobody outside can choose collisions (X11).
class AllocationTable {
 public:
  explicit AllocationTable(const HashKey& key) : key_(key), index_(64) {}

  Allocation* find(const net::FiveTuple& five_tuple);
  Allocation* find(std::uint32_t index, std::uint32_t generation);
  Allocation* at(std::uint32_t index) { return index < slots_.size() ? slots_[index].allocation.get() : nullptr; }
  std::uint32_t places() const { return static_cast<std::uint32_t>(slots_.size()); }  // every index is below
  /// The 5-tuple must not be there yet. References stay valid until erase.
  Allocation& insert(const net::FiveTuple& five_tuple, std::uint32_t& index);
  void erase(std::uint32_t index);

  /// While a client moves, its allocation is found under two 5-tuples (RFC 8016, 3.2.2). `next` must not be there yet.
  void begin_move(Allocation& allocation, const net::FiveTuple& next, SocketHandle socket);
  void complete_move(Allocation& allocation);  // `next` is where the client is, the one before is gone
  void abandon_move(Allocation& allocation);   // `next` is gone
  void lose_client(Allocation& allocation);    // found by RelayId and ticket alone from here on

  std::uint32_t index_of(const Allocation& allocation) const { return allocation.index; }
  std::size_t size() const { return size_; }
  std::size_t bytes() const;
  template <typename Visit>
  void for_each(Visit&& visit) {
    for (std::uint32_t i = 0; i < slots_.size(); ++i)
      if (slots_[i].allocation) visit(i, *slots_[i].allocation);
  }

 private:
  struct Slot {
    std::unique_ptr<Allocation> allocation;
    std::uint32_t generation = 0;
  };
  struct Place {
    std::uint32_t hash = 0;
    std::uint32_t index = empty;
  };
  static constexpr std::uint32_t empty = 0xFFFFFFFF;

  std::uint32_t hash(const net::FiveTuple& t) const;
  std::size_t find_place(const net::FiveTuple& t, std::uint32_t h) const;
  void link(const net::FiveTuple& t, std::uint32_t index);
  void unlink(const net::FiveTuple& t);
  void grow();

  HashKey key_;
  std::vector<Slot> slots_;
  std::vector<std::uint32_t> free_;
  std::vector<Place> index_;  // open addressing, linear, at most half full
  std::size_t size_ = 0;
  std::size_t links_ = 0;  // places in use: one for each 5-tuple of an allocation
};

}  // namespace radiotower::turn
