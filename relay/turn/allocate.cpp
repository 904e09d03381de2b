// Allocate (RFC 8656, 7.2): the checks in the order of the section, then the ports, then, once they are bound, the answer.
#include <algorithm>

#include "server_impl.h"

namespace radiotower::turn {

using net::Family;
using stun::Attribute;
using stun::ErrorCode;

namespace {

constexpr std::uint8_t max_port_attempts = 64;  // ports that other programs hold are skipped, but not for ever

/// What an Allocate asks for, once its form is known to be right.
struct Wish {
  bool ipv4 = false;
  bool ipv6 = false;
  net::Transport transport = net::Transport::udp;
  bool additional = false;  // ADDITIONAL-ADDRESS-FAMILY: one of both is enough (step 9)
  Shared::Want want = Shared::Want::any;
  std::optional<Bytes> token;
  std::uint32_t lifetime = 0;
};

std::optional<ErrorCode> read_wish(const stun::Message& m, const Settings& settings, const Shared& shared, const net::FiveTuple& client, Wish& wish) {
  // Step 3: REQUESTED-TRANSPORT, 4 bytes, the protocol number first.
  const auto transport = m.find(Attribute::requested_transport);
  if (!transport || transport->size() != 4) return ErrorCode::bad_request;
  if (settings.tcp_relay && (*transport)[0] == static_cast<std::uint8_t>(net::Transport::tcp)) wish.transport = net::Transport::tcp;
  else if ((*transport)[0] != static_cast<std::uint8_t>(net::Transport::udp)) return ErrorCode::unsupported_transport_protocol;
  // RFC 6062, 5.1: over a client's TCP or TLS alone (C01), and without what makes sense for datagrams alone (C02).
  if (wish.transport == net::Transport::tcp && (!net::is_stream(client.transport) || m.has(Attribute::dont_fragment) || m.has(Attribute::even_port) ||
                                                m.has(Attribute::reservation_token)))
    return ErrorCode::bad_request;

  // Step 4: DONT-FRAGMENT is an empty attribute. (When DF cannot be set at all it counts as unknown: see allocate().)
  if (const auto df = m.find(Attribute::dont_fragment); df && !df->empty()) return ErrorCode::bad_request;

  // Step 5: RESERVATION-TOKEN excludes EVEN-PORT and both family attributes.
  const auto even = m.find(Attribute::even_port);
  const auto family = m.find(Attribute::requested_address_family);
  const auto additional = m.find(Attribute::additional_address_family);
  wish.token = m.find(Attribute::reservation_token);
  if (wish.token && (wish.token->size() != 8 || even || family || additional)) return ErrorCode::bad_request;

  // Step 6: not both family attributes. Forms of all of them.
  if (family && additional) return ErrorCode::bad_request;
  if (family && family->size() != 4) return ErrorCode::bad_request;
  if (additional && (additional->size() != 4 || (*additional)[0] != static_cast<std::uint8_t>(Family::ipv6)))
    return ErrorCode::bad_request;  // step 9: 0x01 there is a 400
  if (even && even->size() != 1) return ErrorCode::bad_request;

  // Step 7: REQUESTED-ADDRESS-FAMILY that we do not have is a 440; absent means IPv4, or where an operator wants it that of the client.
  wish.additional = additional.has_value();
  const bool keep = settings.keep_address_family && !family && !additional && client.client.family() == Family::ipv6 && shared.has_family(Family::ipv6);
  wish.ipv6 = additional || keep || (family && (*family)[0] == static_cast<std::uint8_t>(Family::ipv6));
  wish.ipv4 = !keep && (!family || (*family)[0] == static_cast<std::uint8_t>(Family::ipv4));
  if (!wish.ipv4 && !wish.ipv6) return ErrorCode::address_family_not_supported;
  if (!wish.token && !wish.additional && !shared.has_family(wish.ipv4 ? Family::ipv4 : Family::ipv6))
    return ErrorCode::address_family_not_supported;
  if (wish.additional && !shared.has_family(Family::ipv4) && !shared.has_family(Family::ipv6))
    return ErrorCode::address_family_not_supported;

  // Step 8: EVEN-PORT with the R bit asks for one port more, which a dual allocation cannot have.
  if (even) wish.want = (*even)[0] & 0x80 ? Shared::Want::even_pair : Shared::Want::even;
  if (additional && wish.want == Shared::Want::even_pair) return ErrorCode::bad_request;

  // LIFETIME: the larger of the default and what is asked for, up to the maximum.
  wish.lifetime = static_cast<std::uint32_t>(settings.default_lifetime.count());
  if (const auto value = m.find(Attribute::lifetime)) {
    const auto asked = stun::read_u32(*value);
    if (!asked) return ErrorCode::bad_request;
    const auto most = static_cast<std::uint32_t>(settings.max_lifetime.count());
    wish.lifetime = std::max(wish.lifetime, std::min(*asked, most));
  }
  return std::nullopt;
}

}  // namespace

/// RFC 8656, 21.4: Teredo (2001::/32) and 6to4 (2002::/16) clients MUST NOT be accepted.
bool Server::Impl::is_tunnel(const net::IpAddress& ip) {
  return !ip.is_v4() && ((ip.bytes[0] == 0x20 && ip.bytes[1] == 0x02) ||
                         (ip.bytes[0] == 0x20 && ip.bytes[1] == 0x01 && ip.bytes[2] == 0 && ip.bytes[3] == 0));
}

void Server::Impl::allocate(Request& request, Actions& out) {
  const stun::Message& m = request.message;

  // Step 2: the 5-tuple is in use -> 437, but a retransmission gets its first answer again (RFC 8489, 6.3.1).
  if (request.allocation) {
    Allocation& held = *request.allocation;
    if (held.reply.transaction_id != m.transaction_id() || !owns(request, held) || !(held.five_tuple == request.five_tuple))
      return refuse(request, ErrorCode::allocation_mismatch, out);
    if (!held.opening()) answer_allocate(held, out);
    return;
  }
  if (m.has(Attribute::dont_fragment) && !settings->dont_fragment) {
    const std::uint16_t type[] = {static_cast<std::uint16_t>(Attribute::dont_fragment)};
    return refuse_unknown_attributes(request, type, out);
  }
  if (const auto ticket = m.find(Attribute::mobility_ticket)) {  // RFC 8016, 3.1
    if (!settings->mobility) return refuse(request, ErrorCode::mobility_forbidden, out);
    if (!ticket->empty()) return refuse(request, ErrorCode::bad_request, out);
  }

  Wish wish;
  const net::IpAddress& client = request.five_tuple.client.ip;
  if (const auto error = read_wish(m, *settings, *shared, request.five_tuple, wish)) return refuse(request, *error, out);
  wish.lifetime = std::min(wish.lifetime, request.longest_lifetime);
  if (is_tunnel(client) || settings->denies(client)) return refuse(request, ErrorCode::forbidden, out);

  // Step 11: a relay that drains, or only spreads load, sends new clients away.
  if (redirects(request, settings->draining ? Redirect::When::draining : Redirect::When::always)) return refuse(request, ErrorCode::try_alternate, out);
  if (settings->draining) return refuse(request, ErrorCode::insufficient_capacity, out);
  const auto full = [&] { refuse(request, redirects(request, Redirect::When::full) ? ErrorCode::try_alternate : ErrorCode::insufficient_capacity, out); };

  // Step 10: the user's quota. Every relayed address counts, and so does a reservation (L24, X06). A port that was reserved has been counted.
  const Credential& c = request.credential;
  const std::string_view account_name = settings->authentication ? c.account : std::string_view("everyone");
  const std::uint32_t count = wish.token ? 0 : (wish.ipv4 && wish.ipv6) || wish.want == Shared::Want::even_pair ? 2 : 1;
  bool over_total = false;
  auto account = shared->admit(account_name, c.allocations, c.bytes_per_second, c.rest, request.realm->limits, count, over_total, request.realm->name,
                               request.realm->allocations, c.token);
  if (!account) {
    Event e;
    e.kind = Event::Kind::quota_reached;
    e.user = request.username;
    if (request.realm != &realms.front()) e.realm = request.realm->name;
    e.five_tuple = request.five_tuple;
    e.reason = over_total ? "limits.allocations" : "limits.allocations_per_user";
    out.events.push_back(std::move(e));
    return over_total ? full() : refuse(request, ErrorCode::allocation_quota_reached, out);
  }

  // Ports. Step 5: a reserved one, or step 8: fresh ones.
  std::optional<Shared::Port> v4, v6;
  std::uint16_t address_error = 0;
  if (wish.token) {
    const auto claimant = account;
    if (auto port = shared->claim(*wish.token, *claimant, request.now.steady, &account)) {
      const bool is_v4 = shared->relay_addresses()[port->address_index].local.is_v4();
      (is_v4 ? v4 : v6) = port;
    }
  } else {
    const auto& preferred = request.five_tuple.server.ip;
    if (wish.ipv4) v4 = shared->take_port(Family::ipv4, preferred, wish.want, account, request.now.steady);
    if (wish.ipv6) v6 = shared->take_port(Family::ipv6, preferred, wish.want, account, request.now.steady);
    const std::uint32_t got = (v4 ? 1u : 0u) + (v6 ? 1u : 0u) + (wish.want == Shared::Want::even_pair && (v4 || v6) ? 1u : 0u);
    if (got < count) shared->leave(account, count - got);
  }
  if (!v4 && !v6) {
    if (!wish.token) {
      Event e;
      e.kind = Event::Kind::ports_exhausted;
      e.user = request.username;
      if (request.realm != &realms.front()) e.realm = request.realm->name;
      e.five_tuple = request.five_tuple;
      out.events.push_back(std::move(e));
      return full();
    }
    return refuse(request, ErrorCode::insufficient_capacity, out);
  }
  if (wish.additional && !(v4 && v6)) {  // step 9: half of a dual allocation succeeds and says what became of the other
    const Family missing = v4 ? Family::ipv6 : Family::ipv4;
    address_error = static_cast<std::uint16_t>(shared->has_family(missing) ? ErrorCode::insufficient_capacity
                                                                           : ErrorCode::address_family_not_supported);
  }

  std::uint32_t index = 0;
  Allocation& allocation = table.insert(request.five_tuple, index);
  allocation.client_socket = request.via;
  allocation.transport = wish.transport;
  allocation.username = request.username;
  allocation.account = std::move(account);
  allocation.quota = (v4 ? 1u : 0u) + (v6 ? 1u : 0u) + (wish.want == Shared::Want::even_pair ? 1u : 0u);
  allocation.key = c.key;
  allocation.algorithm = request.algorithm;
  if (c.rest && !c.token) {
    if (const auto name = parse_rest_name(request.username, request.realm->directory->rest_separator())) allocation.rest_expiry = name->expiry;
  }
  allocation.token_expiry = request.token_expiry;
  allocation.made_at = request.now.steady;
  allocation.scheduled_at = never;
  allocation.reply.transaction_id = m.transaction_id();
  allocation.reply.fingerprint = m.has_fingerprint();
  allocation.reply.sha256 = request.sha256;
  allocation.reply.lifetime = wish.lifetime;
  allocation.reply.want = wish.want;
  allocation.reply.address_error = address_error;
  // A TCP allocation lives and dies with its control connection (RFC 6062, 5.1), so there is nothing to come back to.
  if (m.has(Attribute::mobility_ticket) && wish.transport == net::Transport::udp) give_ticket(allocation);
  if (v4) open_relay(allocation, index, Family::ipv4, *v4, request.now, out);
  if (v6) open_relay(allocation, index, Family::ipv6, *v6, request.now, out);
}

void Server::Impl::open_relay(Allocation& allocation, std::uint32_t index, Family family, const Shared::Port& port, Now now,
                              Actions& out) {
  Relay& relay = allocation.relay(family);
  relay.state = Relay::State::opening;
  relay.port = port;
  relay.expires_at = now.steady + seconds(allocation.reply.lifetime);
  out.opens.push_back({relay_id(index, allocation, family), {shared->relay_addresses()[port.address_index].local, port.port}, allocation.transport});
}

void Server::Impl::give_back(Allocation& allocation, Relay& relay, Now now) {
  if (allocation.reply.want == Shared::Want::even_pair) {  // the reserved sibling goes with it
    if (const auto sibling = shared->claim(relay.port.token, *allocation.account, now.steady)) shared->release(*sibling, now.steady);
  }
  shared->release(relay.port, now.steady);
}

void Server::Impl::relay_opened(RelayId id, SocketHandle socket, Now now, Actions& out) {
  Allocation* allocation = table.find(id.index, id.generation);
  if (!allocation || allocation->relay(id.family).state != Relay::State::opening) {
    out.closes.push_back(socket);  // nobody waits for it any more
    return;
  }
  Relay& relay = allocation->relay(id.family);
  relay.state = Relay::State::open;
  relay.socket = socket;
  shared->set_live(relay.port, true, allocation->transport);
  relay_settled(*allocation, id.index, now, out);
}

void Server::Impl::relay_failed(RelayId id, RelayFailure failure, Now now, Actions& out) {
  Allocation* allocation = table.find(id.index, id.generation);
  if (!allocation || allocation->relay(id.family).state != Relay::State::opening) return;
  Relay& relay = allocation->relay(id.family);
  const std::uint8_t attempts = relay.attempts;
  const net::IpAddress local = shared->relay_addresses()[relay.port.address_index].local;
  give_back(*allocation, relay, now);
  if (failure == RelayFailure::port_in_use && attempts + 1 < max_port_attempts) {
    // A port that somebody else on this host has: it rests in quarantine, and another one is tried.
    if (const auto port = shared->take_port(id.family, local, allocation->reply.want, allocation->account, now.steady)) {
      open_relay(*allocation, id.index, id.family, *port, now, out);
      relay.attempts = static_cast<std::uint8_t>(attempts + 1);
      return;
    }
  }
  const std::uint32_t count = allocation->reply.want == Shared::Want::even_pair ? 2 : 1;
  shared->leave(allocation->account, count);
  allocation->quota -= count;
  relay = Relay{};
  allocation->reply.address_error = static_cast<std::uint16_t>(ErrorCode::insufficient_capacity);
  relay_settled(*allocation, id.index, now, out);
}

/// All relay ports are open or have failed: now, and not before, the client is answered.
void Server::Impl::relay_settled(Allocation& allocation, std::uint32_t index, Now, Actions& out) {
  if (allocation.opening()) return;
  answer_allocate(allocation, out);
  if (!allocation.any_open()) {
    table.erase(index);
    return;
  }
  schedule(allocation, index);
  ++counters.allocations_made;
  out.events.push_back(event(Event::Kind::allocation_made, allocation));
}

void Server::Impl::answer_allocate(Allocation& allocation, Actions& out) {
  const AllocateReply& reply = allocation.reply;
  const bool success = allocation.any_open();
  stun::Writer writer(out.reply_space(), success ? stun::Class::success : stun::Class::error, stun::Method::allocate, reply.transaction_id);
  if (success) {
    for (const Relay& relay : allocation.relays)
      if (relay.state == Relay::State::open) writer.add_xor_address(Attribute::xor_relayed_address, relayed_address(relay));
    writer.add_u32(Attribute::lifetime, reply.lifetime);
    if (reply.want == Shared::Want::even_pair) {
      for (const Relay& relay : allocation.relays)
        if (relay.state == Relay::State::open) writer.add(Attribute::reservation_token, Bytes(relay.port.token));
    }
    writer.add_xor_address(Attribute::xor_mapped_address, allocation.five_tuple.client);
    if (allocation.mobility) writer.add(Attribute::mobility_ticket, ticket_of(allocation).text());
    if (reply.address_error != 0) {
      const Family missing = allocation.relay(Family::ipv4).state == Relay::State::open ? Family::ipv6 : Family::ipv4;
      writer.add(Attribute::address_error_code, Bytes(stun::address_error_value(missing, static_cast<ErrorCode>(reply.address_error))));
    }
  } else {
    ++counters.error_answers;
    writer.add_error(ErrorCode::insufficient_capacity, stun::reason_phrase(ErrorCode::insufficient_capacity));
  }
  if (settings->authentication) {
    if (settings->answer_software) writer.add(Attribute::software, std::string_view("radiotower"));
    if (reply.sha256) writer.add_integrity_sha256(allocation.key.bytes());
    else writer.add_integrity(allocation.key.bytes());
  }
  if (reply.fingerprint) writer.add_fingerprint();
  tallies.count(stun::Method::allocate, success ? Tallies::success : static_cast<std::uint16_t>(ErrorCode::insufficient_capacity));
  out.reply_used(writer.bytes().size());
  out.to_client(allocation.client_socket, allocation.five_tuple, writer.bytes());
}

}  // namespace radiotower::turn
