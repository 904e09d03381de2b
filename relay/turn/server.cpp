// What came in, and whose it is. The methods are in files of their own (see server_impl.h).
#include "radiotower/turn/server.h"

#include <algorithm>

#include "server_impl.h"

namespace radiotower::turn {

using stun::Class;
using stun::ErrorCode;
using stun::Method;

namespace {

HashKey random_key(const RandomSource& random) {
  HashKey key;
  random({reinterpret_cast<std::uint8_t*>(&key), sizeof key});
  return key;
}

}  // namespace

Server::Impl::Impl(std::shared_ptr<Shared> shared_state, std::shared_ptr<const Settings> first, const NonceMint& mint,
                   const HashKey& hash_key, RandomSource source, Shortcuts* by)
    : shared(std::move(shared_state)),
      nonces(mint),
      random(std::move(source)),
      table(hash_key),
      error_limit(random_key(random), first->limits.error_answers_per_second),
      binding_limit(random_key(random), first->limits.binding_answers_per_second),
      shortcuts(by),
      redirect_key(random_key(random)) {
  adopt(std::move(first));
}

Server::Impl::~Impl() {
  if (shortcuts_given == 0) return;
  table.for_each([&](std::uint32_t, Allocation& allocation) {
    for (auto& channel : allocation.channels) take_back_shortcut(allocation, channel);
  });
}

void Server::Impl::adopt(std::shared_ptr<const Settings> next) {
  settings = std::move(next);
  error_limit.set_rate(settings->limits.error_answers_per_second);
  binding_limit.set_rate(settings->limits.binding_answers_per_second);
  adopt_realms();
}

/// A source that cannot be answered, or whose answer would come back to us (H19).
bool Server::Impl::is_impossible_source(const net::TransportAddress& client) const {
  if (client.port == 0 || client.ip.is_unspecified() || client.ip.is_multicast()) return true;
  if (client.ip.is_v4() && (client.ip.v4_host_order() == 0xFFFFFFFF || client.ip.v4_host_order() >> 24 == 0)) return true;
  for (const auto& listener : settings->listeners)
    if (listener.port == client.port && listener.ip == client.ip) return true;
  const auto& broadcasts = settings->peers->settings().broadcast_addresses;
  return std::find(broadcasts.begin(), broadcasts.end(), client.ip) != broadcasts.end();
}

void Server::Impl::from_client(const net::FiveTuple& five_tuple, SocketHandle via, MutableBytes datagram, Now now, Actions& out) {
  switch (datagram.empty() ? stun::FirstByte::other : classify(datagram[0])) {  // RFC 7983; RFC 8656, 12, table 3
    case stun::FirstByte::channel_data: return channel_data(find_sender(five_tuple, now, out), datagram, 0, now, out);
    case stun::FirstByte::stun: return on_stun(five_tuple, via, datagram, now, out);
    case stun::FirstByte::other: ++counters.dropped_not_ours; return;
  }
}

void Server::Impl::on_stun(const net::FiveTuple& five_tuple, SocketHandle via, MutableBytes datagram, Now now, Actions& out) {
  if (is_impossible_source(five_tuple.client)) {
    ++counters.dropped_bad_source;
    return;
  }
  stun::ReadError error{};
  const auto message = stun::Message::read(datagram, &error);
  if (!message) {
    if (error == stun::ReadError::bad_fingerprint) ++counters.dropped_bad_fingerprint;
    else ++counters.dropped_malformed;
    return;
  }
  switch (message->message_class()) {
    case Class::request: {
      Request request(*message, five_tuple, via, now, table.find(five_tuple));
      return on_request(request, out);
    }
    case Class::indication:
      if (message->method() == Method::send) return send_indication(*message, find_sender(five_tuple, now, out), datagram, now, out);
      if (message->method() == Method::binding) return;  // a keep-alive (RFC 8489, 6.3.2)
      break;
    case Class::success:
    case Class::error: break;  // we ask nothing, so nothing is answered (RFC 8489, 6.3)
  }
  ++counters.dropped_unknown_method;
}

void Server::Impl::on_request(Request& request, Actions& out) {
  const Method method = request.message.method();
  switch (method) {
    case Method::binding:
      ++counters.stun_requests;
      if (settings->authenticated_binding && !authenticate(request, out)) return;
      return binding(request, out);
    case Method::allocate:
    case Method::refresh:
    case Method::create_permission:
    case Method::channel_bind: break;
    case Method::connect:
    case Method::connection_bind:
      if (settings->tcp_relay) break;
      [[fallthrough]];
    default: ++counters.dropped_unknown_method; return;  // RFC 8489, 6.3: discarded silently
  }
  if (is_stun_only(request.five_tuple.server)) {
    ++counters.dropped_unknown_method;
    return;
  }
  ++counters.stun_requests;
  if (method == Method::refresh && !find_by_ticket(request, out)) return;
  if (method == Method::connection_bind && !find_by_connection(request, out)) return;
  if (!authenticate(request, out)) return;
  ++tallies.authenticated;

  // RFC 8489, 6.3.1: after authentication, before anything of the method's own.
  if (refuse_unknown(request, out)) return;

  if (method == Method::allocate) return allocate(request, out);
  if (request.ticket != Request::Ticket::none && !may_move(request, out)) return;
  if (method == Method::connection_bind) return connection_bind(request, out);

  // RFC 8656, 5: every other request needs an allocation, and its user. One that is still being opened is not there yet.
  if (!request.allocation || !request.allocation->any_open()) return refuse(request, ErrorCode::allocation_mismatch, out);
  if (!owns(request, *request.allocation)) return refuse(request, ErrorCode::wrong_credentials, out);
  switch (method) {
    case Method::refresh: return refresh(request, out);
    case Method::create_permission: return create_permission(request, out);
    case Method::connect: return connect(request, out);
    default: return channel_bind(request, out);
  }
}

net::TransportAddress Server::Impl::relayed_address(const Relay& relay) const {
  return shared->told(relay.port);
}

Event Server::Impl::event(Event::Kind kind, const Allocation& allocation) const {
  Event e;
  e.kind = kind;
  e.user = allocation.username;
  if (allocation.account->realm() != settings->realm) e.realm = allocation.account->realm();
  e.five_tuple = allocation.five_tuple;
  for (const auto& relay : allocation.relays) {
    if (relay.state == Relay::State::none) continue;
    (e.relayed.port == 0 ? e.relayed : e.relayed2) = relayed_address(relay);
  }
  e.bytes_to_peer = allocation.bytes_to_peer;
  e.bytes_to_client = allocation.bytes_to_client;
  e.packets_to_peer = allocation.packets_to_peer;
  e.packets_to_client = allocation.packets_to_client;
  return e;
}

void Server::Impl::schedule(Allocation& allocation, std::uint32_t index) {
  const Time end = allocation.earliest_end();
  if (end >= allocation.scheduled_at) return;  // the entry in the queue comes first and will look again
  allocation.scheduled_at = end;
  expiries.push({end, index, allocation.generation});
}

void Server::Impl::close_relay(Allocation& allocation, Relay& relay, Now now, Actions& out) {
  assert(relay.state == Relay::State::open);
  take_back_shortcuts(allocation, &relay == &allocation.relays[0] ? net::Family::ipv4 : net::Family::ipv6);
  const net::Family family = &relay == &allocation.relays[0] ? net::Family::ipv4 : net::Family::ipv6;
  close_connections(allocation, [&](const PeerConnection& c) { return c.peer.family() == family; }, out);
  out.closes.push_back(relay.socket);
  shared->release(relay.port, now.steady);
  shared->leave(allocation.account);
  --allocation.quota;
  relay = Relay{};
}

void Server::Impl::end(std::uint32_t index, EndReason reason, Now now, Actions& out) {
  Allocation* found = table.at(index);
  if (!found) return;
  for (auto& channel : found->channels) take_back_shortcut(*found, channel);  // the event tells of all packets
  Event e = event(Event::Kind::allocation_ended, *found);
  e.end = reason;
  const nanoseconds life = now.steady - found->made_at;
  e.duration = std::chrono::duration_cast<seconds>(life);
  for (auto& relay : found->relays)
    if (relay.state == Relay::State::open) close_relay(*found, relay, now, out);
  abandon_move(*found, out);
  drop_carried(*found, out);
  // What is left of the quota belongs to a reservation that nobody has claimed: it goes back when that runs out.
  table.erase(index);
  ++counters.allocations_ended;
  ++tallies.ended[static_cast<std::size_t>(reason)];
  tallies.lives.add(life, Tallies::life_bounds);
  out.events.push_back(std::move(e));
}

bool Server::Impl::is_stun_only(const net::TransportAddress& listener) const {
  const auto& only = settings->stun_only;
  return std::find(only.begin(), only.end(), listener) != only.end();
}

/// As many as there is room to answer: any number of Connects may run out at one moment, also those of a time in which the process stood still. The rest
/// stays due, so next_expiry() says so.
void Server::Impl::expire(Now now, Actions& out) {
  shared->expire(now.steady);
  while (!expiries.empty() && expiries.top().at <= now.steady && !out.reply_room_low(most_connecting + 1)) {
    const Expiry due = expiries.top();
    expiries.pop();
    Allocation* allocation = table.find(due.index, due.generation);
    if (!allocation || allocation->scheduled_at != due.at) continue;
    bool alive = false;
    for (const auto& relay : allocation->relays)
      alive = alive || (relay.state != Relay::State::none && relay.expires_at > now.steady);
    if (!alive) {
      end(due.index, EndReason::expired, now, out);
      continue;
    }
    for (auto& relay : allocation->relays)
      if (relay.state == Relay::State::open && relay.expires_at <= now.steady) close_relay(*allocation, relay, now, out);
    expire_connections(*allocation, now, out);
    allocation->scheduled_at = never;
    schedule(*allocation, due.index);
  }
}

Server::Server(std::shared_ptr<Shared> shared, std::shared_ptr<const Settings> settings, const NonceMint& nonces,
               const HashKey& hash_key, RandomSource random, Shortcuts* shortcuts)
    : impl_(std::make_unique<Impl>(std::move(shared), std::move(settings), nonces, hash_key, std::move(random),
                                   shortcuts)) {}
Server::~Server() = default;

void Server::from_client(const net::FiveTuple& five_tuple, SocketHandle via, Train train, Now now, Actions& out) {
  if (train.segment == 0 || train.bytes.size() <= train.segment)
    return impl_->from_client(five_tuple, via, train.bytes, now, out);
  impl_->train_from_client(five_tuple, via, train, now, out);
}

void Server::from_peer(RelayId relay, const net::TransportAddress& peer, Train train, Now now, Actions& out) {
  impl_->from_peer(relay, peer, train, now, out);
}
void Server::icmp_from_peer(RelayId relay, const net::TransportAddress& peer, const Icmp& icmp, Now now, Actions& out) {
  impl_->icmp_from_peer(relay, peer, icmp, now, out);
}
void Server::relay_opened(RelayId relay, SocketHandle socket, Now now, Actions& out) { impl_->relay_opened(relay, socket, now, out); }
void Server::relay_failed(RelayId relay, RelayFailure failure, Now now, Actions& out) { impl_->relay_failed(relay, failure, now, out); }
void Server::expire(Now now, Actions& out) { impl_->expire(now, out); }
Time Server::next_expiry() const { return impl_->expiries.empty() ? never : impl_->expiries.top().at; }

void Server::apply(std::shared_ptr<const Settings> settings, Now now, Actions& out) {
  impl_->adopt(std::move(settings));
  for (const RealmState& realm : impl_->realms) impl_->shared->apply_limits(realm.limits, realm.name);
  // Live calls stay; what the new rules deny stops at once (P36), and what they allow again goes on. A client that is denied has
  // nothing left: refreshes would keep its allocation for as long as it likes.
  std::vector<std::uint32_t> denied;
  impl_->table.for_each([&](std::uint32_t index, Allocation& allocation) {
    if (allocation.is_moving && impl_->settings->denies(allocation.mobility->next.client.ip)) impl_->abandon_move(allocation, out);
    if (impl_->settings->denies(allocation.five_tuple.client.ip)) return denied.push_back(index);
    const net::PeerPolicy& peers = *impl_->settings->peers;
    for (auto& permission : allocation.permissions)
      permission.forbidden = !peers.permit({permission.ip, 0}, permission.ip.family(), false);
    for (auto& channel : allocation.channels) {
      const auto& address = channel.peer.address();
      const auto peer = peers.permit(address, address.family());
      channel.forbidden = !peer;
      if (!peer) continue;
      channel.peer = *peer;
      channel.send_to = impl_->shared->inside(address);  // an external address of ours may have become somebody else's, and the other way round
    }
    allocation.last_peer.reset();
    impl_->settle_shortcuts(allocation, now.steady);
    impl_->close_forbidden_connections(allocation, out);
  });
  for (const auto index : denied) impl_->end(index, EndReason::client_denied, now, out);
  impl_->expire(now, out);
}

void Server::end_all(EndReason reason, Now now, Actions& out) {
  std::vector<std::uint32_t> all;
  impl_->table.for_each([&](std::uint32_t index, Allocation&) { all.push_back(index); });
  for (const auto index : all) impl_->end(index, reason, now, out);
}

AllocationFacts Server::Impl::facts(const Allocation& allocation, Time now) const {
  Event event = this->event(Event::Kind::allocation_made, allocation);
  AllocationFacts facts;
  facts.worker = place.worker;
  facts.id = {allocation.index, allocation.generation, allocation.relays[0].state == Relay::State::open ? net::Family::ipv4 : net::Family::ipv6};
  facts.user = std::move(event.user);
  facts.realm = std::move(event.realm);
  facts.five_tuple = allocation.five_tuple;
  facts.has_client = allocation.has_client;
  facts.relayed = event.relayed;
  facts.relayed2 = event.relayed2;
  facts.relay_transport = allocation.transport;
  facts.age = std::chrono::duration_cast<seconds>(now - allocation.made_at);
  Time end{};
  for (const auto& relay : allocation.relays)
    if (relay.state == Relay::State::open) end = std::max(end, relay.expires_at);
  facts.expires_in = std::max(seconds(0), std::chrono::duration_cast<seconds>(end - now));
  facts.permissions = static_cast<std::uint32_t>(
      std::count_if(allocation.permissions.begin(), allocation.permissions.end(), [&](const Permission& p) { return p.permits(now); }));
  for (const auto& channel : allocation.channels) {
    if (channel.expires_at <= now || channel.forbidden) continue;
    ++facts.channels;
    if (channel.given) ++facts.shortcuts;
  }
  facts.bytes_to_peer = allocation.bytes_to_peer;
  facts.bytes_to_client = allocation.bytes_to_client;
  facts.packets_to_peer = allocation.packets_to_peer;
  facts.packets_to_client = allocation.packets_to_client;
  return facts;
}

std::uint32_t Server::visit_allocations(Time now, std::uint32_t first, std::size_t most, const std::function<void(const AllocationFacts&)>& visit) const {
  for (std::uint32_t place = first; place < impl_->table.places(); ++place) {
    const Allocation* allocation = impl_->table.at(place);
    if (!allocation || !allocation->any_open()) continue;
    if (most-- == 0) return place;
    visit(impl_->facts(*allocation, now));
  }
  return 0;
}

std::size_t Server::end_allocations(const std::function<bool(const AllocationFacts&)>& which, EndReason reason, Now now, Actions& out) {
  std::vector<std::uint32_t> chosen;
  impl_->table.for_each([&](std::uint32_t index, Allocation& allocation) {
    if (allocation.any_open() && which(impl_->facts(allocation, now.steady))) chosen.push_back(index);
  });
  for (const auto index : chosen) {
    const Allocation& allocation = *impl_->table.at(index);
    if (allocation.has_client && net::is_stream(allocation.five_tuple.transport)) out.hang_ups.push_back(allocation.client_socket);
    impl_->end(index, reason, now, out);
  }
  return chosen.size();
}

void Server::count_shortcuts(Time now) { impl_->count_shortcuts(now); }
void Server::for_each_client(const std::function<void(const net::FiveTuple&)>& visit) const {
  impl_->table.for_each([&](std::uint32_t, Allocation& allocation) { 
    if (allocation.has_client) visit(allocation.five_tuple);
    if (allocation.is_moving) visit(allocation.mobility->next);
  });
}

bool Server::has_allocation(const net::FiveTuple& five_tuple) const { return impl_->table.find(five_tuple) != nullptr; }
void Server::set_place(Place place) {
  if (!place.tickets) place.tickets = std::move(impl_->place.tickets);
  impl_->place = std::move(place);
  impl_->find_alternates();
}
void Server::client_gone(const net::FiveTuple& five_tuple, Now now, Actions& out) { impl_->client_gone(five_tuple, now, out); }
std::optional<ConnectionId> Server::peer_accepted(RelayId relay, const net::TransportAddress& peer, Now now, Actions& out) {
  return impl_->peer_accepted(relay, peer, now, out);
}
void Server::peer_connected(ConnectionId connection, Now now, Actions& out) { impl_->peer_connected(connection, now, out); }
void Server::peer_connect_failed(ConnectionId connection, Now now, Actions& out) { impl_->peer_connect_failed(connection, now, out); }
void Server::peer_gone(ConnectionId connection, Now now, Actions& out) { impl_->peer_gone(connection, now, out); }

bool Server::charge_joined(ConnectionId connection, std::size_t to_peer, std::size_t to_client, Now now) {
  return impl_->charge_joined(connection, to_peer, to_client, now);
}

const Counters& Server::counters() const { return impl_->counters; }
std::uint64_t Server::authenticated_requests() const { return impl_->tallies.authenticated; }

const Tallies& Server::tallies() const {
  const Counters& all = impl_->counters;
  Tallies::Traffic udp{all.packets_to_peer, all.bytes_to_peer, all.packets_to_client, all.bytes_to_client};
  for (std::size_t way = 0; way < Tallies::ways; ++way) {
    if (way == static_cast<std::size_t>(Tallies::Way::udp)) continue;
    const Tallies::Traffic& other = impl_->tallies.traffic[way];
    udp.packets_to_peer -= other.packets_to_peer;
    udp.bytes_to_peer -= other.bytes_to_peer;
    udp.packets_to_client -= other.packets_to_client;
    udp.bytes_to_client -= other.bytes_to_client;
  }
  impl_->tallies.of(Tallies::Way::udp) = udp;
  return impl_->tallies;
}

AllocationCounts Server::count_allocations() const {
  AllocationCounts counts;
  impl_->table.for_each([&](std::uint32_t, const Allocation& allocation) {
    if (!allocation.any_open()) return;
    const bool v4 = allocation.relays[0].state == Relay::State::open, v6 = allocation.relays[1].state == Relay::State::open;
    const auto relayed = v4 && v6 ? AllocationCounts::Relayed::dual : v4 ? AllocationCounts::Relayed::ipv4 : AllocationCounts::Relayed::ipv6;
    const auto& clients = AllocationCounts::clients;
    const auto client = static_cast<std::size_t>(std::find(clients.begin(), clients.end(), allocation.five_tuple.transport) - clients.begin());
    ++counts.now[client][static_cast<std::size_t>(relayed)][allocation.transport == net::Transport::tcp ? 1 : 0];
  });
  return counts;
}

std::size_t Server::allocation_count() const { return impl_->table.size(); }
std::size_t Server::bytes_kept() const {
  return impl_->table.bytes() + impl_->expiries.size() * sizeof(Impl::Expiry) + impl_->error_limit.bytes() + impl_->binding_limit.bytes();
}

}  // namespace radiotower::turn
