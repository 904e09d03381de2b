// What the protocol core asks of the world: send bytes, open or close a relay port, note an event. Nothing else.
//
// One Actions object is reused for a whole turn of the loop: the core appends, the caller carries out and clears.
// Payloads are never copied: a Send points into the received buffer; replies of the core's own point into `reply_space`,
// which stays valid until clear().
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "radiotower/base/bytes.h"
#include "radiotower/base/time.h"
#include "radiotower/net/address.h"
#include "radiotower/net/peer_policy.h"

namespace radiotower::turn {

/// How the caller names one of its sockets. Opaque to the core, which only hands it back.
using SocketHandle = std::uint32_t;
inline constexpr SocketHandle no_socket = 0xFFFFFFFF;

/// Index and generation of an allocation, and which of its relayed addresses: a late completion never hits a successor.
struct RelayId {
  std::uint32_t index = 0;
  std::uint32_t generation = 0;  // 31 bits
  net::Family family = net::Family::ipv4;

  std::uint64_t to_u64() const {
    return std::uint64_t{index} << 32 | (generation & 0x7FFFFFFF) << 1 | (family == net::Family::ipv6 ? 1u : 0u);
  }
  static RelayId from_u64(std::uint64_t v) {
    return {static_cast<std::uint32_t>(v >> 32), static_cast<std::uint32_t>(v) >> 1, v & 1 ? net::Family::ipv6 : net::Family::ipv4};
  }
  friend bool operator==(const RelayId&, const RelayId&) = default;
};

/// Datagrams of one flow received as one buffer (UDP GRO): every `segment` bytes one, the last may be shorter.
/// A single datagram has segment == 0. At least `headroom` bytes in front of `bytes` and 4 behind it are writable by the core.
struct Train {
  static constexpr std::size_t headroom = 48;
  MutableBytes bytes;
  std::uint16_t segment = 0;
};

/// Datagram k of this send is: prefix, then the bytes from k * stride + skip up to (k + 1) * stride - trim or the end of `bytes`.
/// A single datagram has stride == 0 and is: prefix, then bytes (skip and trim are then 0). When prefix_size > 0 and stride == 0, the prefix_size
/// bytes in front of `bytes` are writable, so that prefix and payload can leave as one piece without a copy.
struct Send {
  SocketHandle socket = no_socket;
  net::TransportAddress to;
  MutableBytes bytes;
  std::uint16_t stride = 0;
  std::uint16_t skip = 0;
  std::uint16_t trim = 0;        // padding of ChannelData (RFC 8656, 12.5)
  std::uint8_t prefix_size = 0;  // 0 or 4 (a ChannelData header)
  bool dont_fragment = false;    // set DF on this one (Send indication with DONT-FRAGMENT)
  net::Transport transport = net::Transport::udp;  // to a client: its own; a stream wants ChannelData padded (RFC 8656, 12.5), which is the caller's to add
  std::array<std::uint8_t, 4> prefix{};
};

struct OpenRelay {  // answer with Server::relay_opened or relay_failed
  RelayId relay;
  net::TransportAddress address;
  net::Transport transport = net::Transport::udp;  // tcp: listen there, and bind with SO_REUSEADDR and SO_REUSEPORT (RFC 6062, 5.2)
};

/// A connection between a relayed address and a peer (RFC 6062). On the wire as CONNECTION-ID; unpredictable, of the whole process.
using ConnectionId = std::uint32_t;

struct ConnectPeer {  // answer with Server::peer_connected or peer_connect_failed; a ClosePeer after 30 seconds takes it back
  ConnectionId connection = 0;
  net::TransportAddress from;  // the relayed address, local form
  net::TransportAddress to;
};
/// From here on what the client's connection `client` brings goes to the peer as it is, and the other way round; first of all what has come
/// behind the ConnectionBind, and from the peer, meanwhile.
struct JoinPeer {
  ConnectionId connection = 0;
  SocketHandle client = no_socket;
};
struct ClosePeer {
  ConnectionId connection = 0;  // and, once joined, the client's data connection with it
};
/// The message concerns something that another worker holds: carry the client there, a stream with its connection, and give it to that worker's
/// Server as if it had come there first.
struct HandOver {
  net::FiveTuple five_tuple;
  SocketHandle via = no_socket;
  unsigned worker = 0;
  MutableBytes message;
};

/// An allocation has taken a 5-tuple that it was not made on, or has left it (RFC 8016). What comes from there belongs to this worker meanwhile.
struct Carry {
  net::FiveTuple five_tuple;
  SocketHandle via = no_socket;
  bool is_taken = false;  // false: left
};

enum class EndReason : std::uint8_t { refreshed_to_zero, expired, relay_failed, shutdown, credentials_gone, client_denied, connection_closed, killed, drained };
std::string_view name(EndReason reason);

struct Event {
  enum class Kind : std::uint8_t { allocation_made, allocation_ended, allocation_moved, peer_refused, quota_reached, ports_exhausted } kind{};
  std::string user;  // raw, as it came: the log escapes
  std::string realm;  // empty: the default one
  net::FiveTuple five_tuple;
  net::TransportAddress relayed;   // as the client knows it; made, ended, moved
  net::TransportAddress relayed2;  // of a dual allocation; port 0: none
  net::TransportAddress peer;      // peer_refused
  net::FiveTuple moved_from;       // allocation_moved: where the client was
  std::string_view reason;         // peer_refused, quota_reached: static text
  EndReason end{};
  std::uint64_t bytes_to_peer = 0, bytes_to_client = 0, packets_to_peer = 0, packets_to_client = 0;
  seconds duration{};
};

class Actions {
 public:
  Actions();

  std::vector<Send> sends;
  std::vector<OpenRelay> opens;
  std::vector<SocketHandle> closes;  // carry out after `sends`
  std::vector<SocketHandle> hang_ups;  // connections of clients; what is queued for them leaves first
  std::vector<ConnectPeer> connects;
  std::vector<JoinPeer> joins;         // after `sends`: the answer goes first
  std::vector<ClosePeer> peer_closes;
  std::vector<HandOver> hand_overs;
  std::vector<Carry> carries;  // in order
  std::vector<Event> events;

  bool empty() const {
    return sends.empty() && opens.empty() && closes.empty() && events.empty() && hang_ups.empty() && connects.empty() && joins.empty() &&
           peer_closes.empty() && hand_overs.empty() && carries.empty();
  }

  /// Room for one message of the core's own; valid until clear(). Never fails: the caller clears often enough (see reply_room_low).
  MutableBytes reply_space();
  /// Gives back what of the last reply_space() is not used.
  void reply_used(std::size_t size);
  /// Less than this many messages fit. A train may be answered with one for each of its datagrams: ask for as many and two more.
  bool reply_room_low(std::size_t messages = 2) const { return used_ + messages * reply_size > space_.size(); }

  void clear();

  /// To a client: its own transport address, the source of a datagram we have.
  void to_client(SocketHandle socket, const net::FiveTuple& client, MutableBytes bytes);
  /// To a peer: only one that the policy has permitted.
  void to_peer(SocketHandle socket, const net::PermittedPeer& peer, const net::TransportAddress& send_to, MutableBytes bytes);

 private:
  static constexpr std::size_t reply_size = 2048;
  std::vector<std::uint8_t> space_;
  std::size_t used_ = 0;
};

}  // namespace radiotower::turn
