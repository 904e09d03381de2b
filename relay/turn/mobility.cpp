// Mobility (RFC 8016): an allocation that follows its client from one 5-tuple to the next.
//
// A Refresh with a ticket announces the new 5-tuple. From there on the allocation is found under both, and peers' data goes on to the old one,
// until the client sends something to a peer from the new one, or the old connection closes (3.2.2). One announced 5-tuple is remembered at most.
#include <utility>

#include "server_impl.h"

namespace radiotower::turn {

using stun::Attribute;
using stun::ErrorCode;

const TicketMint& Server::Impl::tickets() {
  if (!place.tickets) place.tickets = std::make_shared<TicketMint>(random);
  return *place.tickets;
}

std::uint32_t Server::Impl::next_serial() {
  if (++last_serial == 0) ++last_serial;
  return last_serial;
}

Ticket Server::Impl::ticket_of(const Allocation& allocation) { return tickets().make({place.worker, allocation.index, allocation.mobility->serial}); }

/// RFC 8016, 3.1.2: an empty MOBILITY-TICKET in an Allocate asks for one. An index too large for a ticket goes without.
void Server::Impl::give_ticket(Allocation& allocation) {
  if (allocation.index >= TicketPlace::most_indexes || place.worker >= TicketPlace::most_workers) return;
  allocation.mobility = std::make_unique<Mobility>();
  allocation.mobility->serial = next_serial();
}

/// Before authentication: the allocation's own key may be what the request is protected with. What the ticket is worth is answered after it.
bool Server::Impl::find_by_ticket(Request& request, Actions& out) {
  const auto value = request.message.find(Attribute::mobility_ticket);
  if (!value) return true;
  request.ticket = value->size() == Ticket::size ? Request::Ticket::unknown : Request::Ticket::malformed;
  if (!settings->mobility || request.ticket == Request::Ticket::malformed) return true;
  const auto read = tickets().open(*value);
  if (!read) return true;
  if (read->worker != place.worker) {
    // Only a client that has shown that it receives at its address, by a nonce, may make another worker work.
    const auto nonce = request.message.find(Attribute::nonce);
    const bool has_integrity = request.message.has_integrity() || request.message.has_integrity_sha256();
    // The allocation's realm is known to its own worker alone.
    const auto is_fresh = [&](const RealmState& realm) {
      return nonces.is_fresh(as_text(*nonce), request.five_tuple.client, request.now.steady, realm.features(), settings->nonce_lifetime);
    };
    const bool is_shown = !settings->authentication || (has_integrity && nonce && std::any_of(realms.begin(), realms.end(), is_fresh));
    // Datagrams of DTLS can be read by the worker alone that made its handshake: such a client gets a 437, and allocates anew.
    const bool can_go = request.five_tuple.transport != net::Transport::dtls;
    if (request.allocation || !can_go || !is_shown) return true;  // a 437; or a challenge, and then again
    ++counters.handed_over;
    const Bytes bytes = request.message.bytes();
    out.hand_overs.push_back({request.five_tuple, request.via, read->worker, {const_cast<std::uint8_t*>(bytes.data()), bytes.size()}});
    return false;
  }
  Allocation* named = table.at(read->index);
  if (!named || !named->mobility) return true;
  const Mobility& mobility = *named->mobility;
  if (read->serial == mobility.serial) request.ticket = Request::Ticket::current;
  else if (mobility.replaced != 0 && read->serial == mobility.replaced) request.ticket = Request::Ticket::replaced;
  else return true;
  request.held_already = std::exchange(request.allocation, named);
  return true;
}

/// RFC 8016, 3.2.2. False: it has been answered.
bool Server::Impl::may_move(const Request& request, Actions& out) {
  const auto no = [&](ErrorCode code) {
    refuse(request, code, out);
    return false;
  };
  if (!settings->mobility) return no(ErrorCode::mobility_forbidden);
  // No relay of ours has ever made it. One whose seal does not open may be of before a restart: 437 is what tells its client to allocate anew.
  if (request.ticket == Request::Ticket::malformed) return no(ErrorCode::bad_request);
  if (request.ticket == Request::Ticket::unknown || !request.allocation->any_open()) return no(ErrorCode::allocation_mismatch);
  const Allocation& allocation = *request.allocation;
  const Mobility& mobility = *allocation.mobility;
  if (!owns(request, allocation)) return no(ErrorCode::wrong_credentials);
  if (request.ticket == Request::Ticket::replaced) {
    // Good for one thing: the answer to the Refresh that replaced it was lost.
    if (mobility.transaction_id != request.message.transaction_id() || !(mobility.came_from == request.five_tuple))
      return no(ErrorCode::allocation_mismatch);
    answer_moved(request, mobility.lifetime, out);
    return false;
  }
  if (request.held_already && request.held_already != &allocation) return no(ErrorCode::allocation_mismatch);
  const net::FiveTuple& latest = allocation.is_moving ? mobility.next : allocation.five_tuple;
  if ((allocation.is_moving || allocation.has_client) && latest == request.five_tuple) return no(ErrorCode::bad_request);  // it has not moved
  if (settings->denies(request.five_tuple.client.ip) || is_tunnel(request.five_tuple.client.ip)) return no(ErrorCode::forbidden);
  return true;
}

void Server::Impl::answer_moved(const Request& request, std::uint32_t lifetime, Actions& out) {
  stun::Writer writer(out.reply_space(), stun::Class::success, stun::Method::refresh, request.message.transaction_id());
  writer.add_u32(Attribute::lifetime, lifetime);
  writer.add(Attribute::mobility_ticket, ticket_of(*request.allocation).text());
  finish_success(request, writer, out);
}

/// The client has announced that it is to be found at the request's 5-tuple; a place that it announced before and never used is forgotten (F13).
void Server::Impl::begin_move(const Request& request, std::uint32_t lifetime, Actions& out) {
  Allocation& allocation = *request.allocation;
  Mobility& mobility = *allocation.mobility;
  mobility.replaced = std::exchange(mobility.serial, next_serial());
  mobility.transaction_id = request.message.transaction_id();
  mobility.came_from = request.five_tuple;
  mobility.lifetime = lifetime;
  abandon_move(allocation, out);
  if (allocation.is_at(request.five_tuple)) return;  // back to where it had not left yet
  table.begin_move(allocation, request.five_tuple, request.via);
  out.carries.push_back({request.five_tuple, request.via, true});
  if (!allocation.has_client) complete_move(allocation, request.now, out);  // no old 5-tuple to wait for
}

void Server::Impl::abandon_move(Allocation& allocation, Actions& out) {
  if (!allocation.is_moving) return;
  out.carries.push_back({allocation.mobility->next, allocation.mobility->next_socket, false});
  table.abandon_move(allocation);
}

void Server::Impl::complete_move(Allocation& allocation, Now now, Actions& out) {
  for (Channel& channel : allocation.channels) take_back_shortcut(allocation, channel);  // they lead to where the client was
  const net::FiveTuple before = allocation.five_tuple;
  drop_carried(allocation, out);
  table.complete_move(allocation);
  allocation.mobility->is_carried = true;
  ++counters.allocations_moved;
  Event e = event(Event::Kind::allocation_moved, allocation);
  e.moved_from = before;
  out.events.push_back(std::move(e));
  settle_shortcuts(allocation, now.steady);
}

/// The 5-tuple where the client is will be its no more.
void Server::Impl::drop_carried(Allocation& allocation, Actions& out) {
  if (!allocation.mobility || !std::exchange(allocation.mobility->is_carried, false) || !allocation.has_client) return;
  out.carries.push_back({allocation.five_tuple, allocation.client_socket, false});
}

/// For messages that are relayed: the first of them from an announced 5-tuple makes it the client's.
Allocation* Server::Impl::find_sender(const net::FiveTuple& five_tuple, Now now, Actions& out) {
  Allocation* allocation = table.find(five_tuple);
  if (allocation && allocation->is_moving && allocation->mobility->next == five_tuple) complete_move(*allocation, now, out);
  return allocation;
}

/// L32: what a connection carried is given back at once, unless its client holds a ticket and may come back with it. Then the allocation waits
/// for it until its lifetime ends, and counts for its user as before (L24).
void Server::Impl::client_gone(const net::FiveTuple& five_tuple, Now now, Actions& out) {
  Allocation* allocation = table.find(five_tuple);
  if (!allocation) return;
  if (allocation->is_moving) {
    if (allocation->mobility->next == five_tuple) return abandon_move(*allocation, out);
    return complete_move(*allocation, now, out);  // RFC 8016, 3.2.2: the old connection is closed
  }
  if (!allocation->mobility || !settings->mobility) return end(allocation->index, EndReason::connection_closed, now, out);
  drop_carried(*allocation, out);
  table.lose_client(*allocation);
}

}  // namespace radiotower::turn
