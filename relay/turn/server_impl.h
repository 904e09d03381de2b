// What the files of the server share: one request as it is worked on, and the state behind turn::Server. Private to the layer.
//
//   server.cpp             what came in, and whose it is            allocate.cpp           RFC 8656, 7
//   authentication.cpp     RFC 8489, 9.2                            refresh.cpp            RFC 8656, 8
//   answers.cpp            refusals, successes, limits on both      create_permission.cpp  RFC 8656, 10
//   relay_data.cpp         Send, ChannelData, peers, ICMP (11, 12)  channel_bind.cpp       RFC 8656, 12
//   shortcut.cpp           which channels may pass by               nat_discovery.cpp      RFC 5780
//   tcp_relay.cpp          RFC 6062, 5                              mobility.cpp           RFC 8016
#pragma once

#include <functional>
#include <queue>
#include <unordered_map>
#include <vector>

#include "allocation.h"
#include "answer_limit.h"
#include "radiotower/stun/message.h"
#include "radiotower/turn/server.h"

namespace radiotower::turn {

/// What the requests of one realm are judged by, made once a reload.
struct RealmState {
  std::string name;
  std::shared_ptr<const Directory> directory;  // never null
  Limits limits;                // `allocations`: of the whole relay
  std::uint32_t allocations = 0;  // of this realm; 0: no limit of its own
  bool retired = false;         // a reload has taken it away: only allocations that it made before know their keys
  std::vector<std::uint8_t> password_algorithms = {};  // value of PASSWORD-ALGORITHMS

  SecurityFeatures features() const { return {true, directory->offers_userhash()}; }
};

/// A request and what authentication has found out about it.
struct Request {
  Request(const stun::Message& m, const net::FiveTuple& tuple, SocketHandle socket, Now time, Allocation* held)
      : message(m), five_tuple(tuple), via(socket), now(time), allocation(held) {}

  const stun::Message& message;
  const net::FiveTuple& five_tuple;
  SocketHandle via;
  Now now;
  Allocation* allocation;  // of this 5-tuple, or the one that a ticket names, or nullptr
  enum class Ticket : std::uint8_t { none, malformed, unknown, replaced, current };  // of a Refresh (RFC 8016, 3.2.2)
  Ticket ticket = Ticket::none;
  Allocation* held_already = nullptr;  // of this 5-tuple, when a ticket names another

  const RealmState* realm = nullptr;  // set by authenticate()
  bool authenticated = false;
  bool sha256 = false;  // checked by, and so answered with, MESSAGE-INTEGRITY-SHA256 (RFC 8489, 9.2.4)
  std::string_view username;
  stun::PasswordAlgorithm algorithm = stun::PasswordAlgorithm::md5;
  Credential credential;  // its key protects the answer
  std::uint32_t longest_lifetime = 0xFFFFFFFF;  // of an allocation: what is left of an access token (RFC 7635, 9)
  UnixSeconds token_expiry = 0;                 // likewise, as a time; 0: no token
};

struct Server::Impl {
  Impl(std::shared_ptr<Shared> shared, std::shared_ptr<const Settings> settings, const NonceMint& nonces,
       const HashKey& hash_key, RandomSource random, Shortcuts* shortcuts);
  ~Impl();

  // server.cpp
  void from_client(const net::FiveTuple& five_tuple, SocketHandle via, MutableBytes datagram, Now now, Actions& out);
  void on_stun(const net::FiveTuple& five_tuple, SocketHandle via, MutableBytes datagram, Now now, Actions& out);
  void on_request(Request& request, Actions& out);
  stun::FirstByte classify(std::uint8_t first) const {
    const auto kind = stun::classify(first);
    const bool old_channel = settings->rfc5766_channel_numbers && first >= 0x50 && first <= 0x7F;
    return kind == stun::FirstByte::other && old_channel ? stun::FirstByte::channel_data : kind;
  }
  bool is_impossible_source(const net::TransportAddress& client) const;
  static bool is_tunnel(const net::IpAddress& client);
  bool is_stun_only(const net::TransportAddress& listener) const;
  void client_gone(const net::FiveTuple& five_tuple, Now now, Actions& out);
  void adopt(std::shared_ptr<const Settings> settings);
  void adopt_realms();
  void end(std::uint32_t index, EndReason reason, Now now, Actions& out);
  void close_relay(Allocation& allocation, Relay& relay, Now now, Actions& out);
  void schedule(Allocation& allocation, std::uint32_t index);
  void expire(Now now, Actions& out);

  // authentication.cpp: true when the request may go on; otherwise it has been answered or dropped.
  bool authenticate(Request& request, Actions& out);
  bool password_algorithms_agree(Request& request, Actions& out);
  void choose_realm(Request& request) const;
  const RealmState& realm_of(const Allocation& allocation) const;
  const RealmState* realm_named(std::string_view name) const;  // nullptr: there is none
  /// Whether it was the same user, in the same realm, who made the allocation. Whoever has a token owns what tokens made on his 5-tuple;
  /// what is elsewhere, if it is the token that was seen last.
  bool owns(const Request& request, const Allocation& allocation) const;
  bool open_token(Request& request, Bytes token);  // adds to candidates; false: it is worth nothing
  void adopt_token(Request& request);

  // answers.cpp
  void binding(const Request& request, Actions& out);
  void refuse(const Request& request, stun::ErrorCode code, Actions& out);
  void refuse_unknown_attributes(const Request& request, std::span<const std::uint16_t> types, Actions& out);
  bool refuse_unknown(const Request& request, Actions& out);  // false: there is nothing unknown
  bool may_answer(AnswerLimit& limit, const Request& request);  // false: counted, and to be left without an answer
  void challenge(const Request& request, stun::ErrorCode code, Actions& out);  // 401 and 438: REALM, NONCE, PASSWORD-ALGORITHMS
  void finish_success(const Request& request, stun::Writer& writer, Actions& out);
  /// `outcome`: see Tallies.
  void send_answer(const Request& request, std::uint16_t outcome, stun::Writer& writer, Actions& out);
  void protect(const Request& request, stun::Writer& writer);
  /// The server that this client is sent to; nullptr: none of its address family.
  const net::TransportAddress* alternate_for(const Request& request) const;
  bool redirects(const Request& request, Redirect::When reason) const;  // whether a 300 is the answer to that

  // The methods, one file each.
  void allocate(Request& request, Actions& out);
  void answer_allocate(Allocation& allocation, Actions& out);
  void open_relay(Allocation& allocation, std::uint32_t index, net::Family family, const Shared::Port& port, Now now, Actions& out);
  void relay_settled(Allocation& allocation, std::uint32_t index, Now now, Actions& out);
  void relay_opened(RelayId id, SocketHandle socket, Now now, Actions& out);
  void relay_failed(RelayId id, RelayFailure failure, Now now, Actions& out);
  void give_back(Allocation& allocation, Relay& relay, Now now);
  void refresh(Request& request, Actions& out);
  void create_permission(Request& request, Actions& out);
  void channel_bind(Request& request, Actions& out);

  // tcp_relay.cpp: RFC 6062
  void connect(Request& request, Actions& out);
  void connection_bind(Request& request, Actions& out);
  std::optional<ConnectionId> peer_accepted(RelayId relay, const net::TransportAddress& peer, Now now, Actions& out);
  void peer_connected(ConnectionId connection, Now now, Actions& out);
  void peer_connect_failed(ConnectionId connection, Now now, Actions& out);
  void peer_gone(ConnectionId connection, Now now, Actions& out);
  bool charge_joined(ConnectionId connection, std::size_t to_peer, std::size_t to_client, Now now);
  /// A ConnectionBind is about the allocation whose connection it names. False: it has been handed over.
  bool find_by_connection(Request& request, Actions& out);
  PeerConnection* find_connection(ConnectionId id, Allocation*& allocation);
  PeerConnection* add_connection(Allocation& allocation, const net::TransportAddress& peer, bool accepted, Time until);
  void drop_connection(Allocation& allocation, ConnectionId id);
  void close_connections(Allocation& allocation, const std::function<bool(const PeerConnection&)>& which, Actions& out);
  void expire_connections(Allocation& allocation, Now now, Actions& out);
  void close_forbidden_connections(Allocation& allocation, Actions& out);
  bool has_room_for_connection(const Allocation& allocation) const;
  void answer_connect(const Allocation& allocation, const PeerConnection& connection, std::optional<stun::ErrorCode> error, Actions& out);

  // nat_discovery.cpp: RFC 5780
  struct Alternates {
    net::TransportAddress asked;
    struct Way {
      net::TransportAddress address;
      SocketHandle socket = no_socket;
    };
    std::array<Way, 4> ways;  // by the flags of CHANGE-REQUEST, halved: 0 here, 1 other port, 2 other address, 3 both
  };
  void find_alternates();
  const Alternates* alternates_for(const Request& request) const;
  net::TransportAddress as_clients_see(net::TransportAddress address) const;
  void discover(const Request& request, Actions& out);

  // mobility.cpp: RFC 8016
  /// A Refresh with MOBILITY-TICKET is about the allocation that the ticket names. False: it has been answered, dropped or handed over.
  bool find_by_ticket(Request& request, Actions& out);
  bool may_move(const Request& request, Actions& out);
  void answer_moved(const Request& request, std::uint32_t lifetime, Actions& out);
  void begin_move(const Request& request, std::uint32_t lifetime, Actions& out);
  void abandon_move(Allocation& allocation, Actions& out);
  void complete_move(Allocation& allocation, Now now, Actions& out);
  void drop_carried(Allocation& allocation, Actions& out);
  Allocation* find_sender(const net::FiveTuple& five_tuple, Now now, Actions& out);
  void give_ticket(Allocation& allocation);
  Ticket ticket_of(const Allocation& allocation);
  const TicketMint& tickets();
  std::uint32_t next_serial();

  // relay_data.cpp
  void channel_data(Allocation* allocation, MutableBytes datagram, std::uint16_t stride, Now now, Actions& out);
  void train_from_client(const net::FiveTuple& five_tuple, SocketHandle via, Train train, Now now, Actions& out);
  void send_indication(const stun::Message& message, Allocation* allocation, MutableBytes datagram, Now now, Actions& out);
  void from_peer(RelayId id, const net::TransportAddress& peer, Train train, Now now, Actions& out);
  void icmp_from_peer(RelayId id, const net::TransportAddress& peer, const Icmp& icmp, Now now, Actions& out);
  bool charge(Allocation& allocation, std::size_t packets, std::size_t bytes, Time now);

  // shortcut.cpp
  Time shortcut_end(const Allocation& allocation, const Channel& channel) const;
  /// After a request or a reload: gives, moves and takes back what the allocation's channels now may have. Says nothing
  /// twice.
  void settle_shortcuts(Allocation& allocation, Time now);
  void take_back_shortcut(Allocation& allocation, Channel& channel);
  void take_back_shortcuts(Allocation& allocation, net::Family family);
  void count_shortcut(Allocation& allocation, Given& given, const ShortcutCounts& now);
  void count_shortcuts(Time now);

  // Peers: the one way to a PermittedPeer. `code` is forbidden or nothing; a refusal is noted as an event.
  std::optional<net::PermittedPeer> permit(Allocation& allocation, const stun::WireAddress& peer, bool port_matters, Now now,
                                           Actions* events);
  bool reachable(const net::PermittedPeer& peer, net::Transport transport = net::Transport::udp) const {
    return !peer.own_relayed() || shared->relayed_port_live(peer.address(), transport);
  }
  bool find_way(const net::PermittedPeer& peer, net::TransportAddress& send_to) const;  // data path, to peers that are own_relayed() alone
  /// Data path: what comes over UDP is not counted once more, since it is what the other ways leave of the counters: see Server::tallies.
  Tallies::Traffic* counted_way(const Allocation& allocation) {
    const net::Transport client = allocation.five_tuple.transport;
    return client == net::Transport::udp ? nullptr : &tallies.of(Tallies::way_of(client));
  }
  /// Installs or refreshes; false when the allocation holds as many as it may (508).
  bool install_permission(Allocation& allocation, const net::IpAddress& ip, Now now);
  bool may_add_peers(Allocation& allocation, std::size_t count, Now now);
  RelayId relay_id(std::uint32_t index, const Allocation& allocation, net::Family family) const {
    return {index, allocation.generation, family};
  }
  net::TransportAddress relayed_address(const Relay& relay) const;  // as the client is told: the external form
  Event event(Event::Kind kind, const Allocation& allocation) const;
  AllocationFacts facts(const Allocation& allocation, Time now) const;

  std::shared_ptr<Shared> shared;
  std::shared_ptr<const Settings> settings;
  NonceMint nonces;
  RandomSource random;
  AllocationTable table;
  AnswerLimit error_limit;
  AnswerLimit binding_limit;
  std::vector<Credential> candidates;  // scratch of authenticate()
  std::string token_account;           // likewise: what the name of a token's account is a view of
  Shortcuts* const shortcuts;
  Place place;
  std::vector<Alternates> alternates;  // of the listeners in `place`; empty: there are no two addresses
  std::uint32_t last_serial = 0;  // of a ticket
  std::size_t shortcuts_given = 0;  // channels that have one now
  std::vector<RealmState> realms;  // the default one, the others of the settings, then the retired ones
  std::unordered_map<std::string, std::uint32_t> realm_by_origin;
  HashKey redirect_key;  // which client goes to which server
  Counters counters;
  Tallies tallies;
  struct Whose {
    std::uint32_t index;
    std::uint32_t generation;
  };
  std::unordered_map<ConnectionId, Whose> connections;  // of this worker; ids are our own random numbers, so nobody chooses collisions

  struct Expiry {
    Time at;
    std::uint32_t index;
    std::uint32_t generation;
    bool operator>(const Expiry& other) const { return at > other.at; }
  };
  // One entry an allocation, looked at when due and put back if the allocation was refreshed meanwhile.
  std::priority_queue<Expiry, std::vector<Expiry>, std::greater<>> expiries;
};

}  // namespace radiotower::turn
