// Refresh (RFC 8656, 8.2; with a ticket RFC 8016, 3.2.2).
#include <algorithm>

#include "server_impl.h"

namespace radiotower::turn {

using net::Family;
using stun::Attribute;
using stun::ErrorCode;

void Server::Impl::refresh(Request& request, Actions& out) {
  const stun::Message& m = request.message;
  Allocation& allocation = *request.allocation;

  // A family: only that relayed address is meant; one that the allocation does not have is a 443.
  bool ipv4 = true, ipv6 = true;
  if (const auto value = m.find(Attribute::requested_address_family)) {
    if (value->size() != 4) return refuse(request, ErrorCode::bad_request, out);
    ipv4 = (*value)[0] == static_cast<std::uint8_t>(Family::ipv4);
    ipv6 = (*value)[0] == static_cast<std::uint8_t>(Family::ipv6);
    const bool has = (ipv4 && allocation.relay(Family::ipv4).state == Relay::State::open) ||
                     (ipv6 && allocation.relay(Family::ipv6).state == Relay::State::open);
    if (!has) return refuse(request, ErrorCode::peer_address_family_mismatch, out);
  }

  auto lifetime = static_cast<std::uint32_t>(settings->default_lifetime.count());
  if (const auto value = m.find(Attribute::lifetime)) {
    const auto asked = stun::read_u32(*value);
    if (!asked) return refuse(request, ErrorCode::bad_request, out);
    const auto most = static_cast<std::uint32_t>(settings->max_lifetime.count());
    lifetime = *asked == 0 ? 0 : std::max(lifetime, std::min(*asked, most));
  }
  lifetime = std::min(lifetime, request.longest_lifetime);  // RFC 7635, 9

  if (request.ticket != Request::Ticket::none && (lifetime != 0 || !(ipv4 && ipv6))) {  // what ends needs no new ticket
    begin_move(request, lifetime, out);
    answer_moved(request, lifetime, out);
  } else {
    stun::Writer writer(out.reply_space(), stun::Class::success, stun::Method::refresh, m.transaction_id());
    writer.add_u32(Attribute::lifetime, lifetime);
    finish_success(request, writer, out);
  }

  const std::uint32_t index = table.index_of(allocation);
  for (const Family family : {Family::ipv4, Family::ipv6}) {
    Relay& relay = allocation.relay(family);
    if (relay.state != Relay::State::open || !(family == Family::ipv4 ? ipv4 : ipv6)) continue;
    relay.expires_at = request.now.steady + seconds(lifetime);
    const bool other_stays = allocation.relay(family == Family::ipv4 ? Family::ipv6 : Family::ipv4).state == Relay::State::open &&
                             !(ipv4 && ipv6);
    if (lifetime == 0 && other_stays) close_relay(allocation, relay, request.now, out);  // the other family is left untouched (F06)
  }
  if (lifetime == 0) {
    const bool all_ended = std::all_of(allocation.relays.begin(), allocation.relays.end(), [&](const Relay& r) {
      return r.state == Relay::State::none || r.expires_at <= request.now.steady;
    });
    if (all_ended) return end(index, EndReason::refreshed_to_zero, request.now, out);
  }
  settle_shortcuts(allocation, request.now.steady);
  schedule(allocation, index);
}

}  // namespace radiotower::turn
