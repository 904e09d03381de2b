// CreatePermission (RFC 8656, 10.2): all of its peers or none; and what a permission is, for ChannelBind too.
#include <algorithm>

#include "server_impl.h"

namespace radiotower::turn {

using stun::Attribute;
using stun::ErrorCode;

std::optional<net::PermittedPeer> Server::Impl::permit(Allocation& allocation, const stun::WireAddress& peer, bool port_matters,
                                                       Now, Actions* events) {
  net::PeerJudgement judgement;
  auto permitted = settings->peers->permit(peer.address, peer.family, port_matters, &judgement);
  std::string_view reason = judgement.reason;
  if (permitted && permitted->own_relayed() && peer.address.port != 0) {
    const auto& relay = allocation.relay(peer.address.family());
    if (!reachable(*permitted, allocation.transport)) {
      permitted.reset();
      reason = "own address, no live relayed port";
    } else if (relay.state == Relay::State::open && shared->inside(peer.address) == shared->local(relay.port)) {
      permitted.reset();  // a loop of one (P26)
      reason = "the allocation itself";
    }
  }
  if (!permitted && events) {
    Event e = event(Event::Kind::peer_refused, allocation);
    e.peer = peer.address;
    e.reason = reason;
    events->events.push_back(std::move(e));
  }
  return permitted;
}

bool Server::Impl::may_add_peers(Allocation& allocation, std::size_t count, Now now) {
  const std::uint32_t rate = realm_of(allocation).limits.new_peers_per_second;
  if (rate == 0 || count == 0) return true;
  constexpr std::int64_t burst = 128;
  const std::int64_t each = 1'000'000'000 / rate;
  const std::int64_t t = now.steady.time_since_epoch().count();
  const std::int64_t full_at = std::max(allocation.peers_full_at, t) + static_cast<std::int64_t>(count) * each;
  if (full_at > t + burst * each) return false;
  allocation.peers_full_at = full_at;
  return true;
}

bool Server::Impl::install_permission(Allocation& allocation, const net::IpAddress& ip, Now now) {
  const Time expires_at = now.steady + permission_lifetime;
  if (Permission* held = allocation.find_permission(ip)) {
    *held = {ip, expires_at, false};
    return true;
  }
  // The place of one that has run out is free; a channel looks its permission up by address when the hint misses.
  for (Permission& p : allocation.permissions) {
    if (now.steady < p.expires_at) continue;
    p = {ip, expires_at, false};
    return true;
  }
  const std::uint32_t most = realm_of(allocation).limits.permissions_per_allocation;
  if (most != 0 && allocation.permissions.size() >= most) return false;
  if (allocation.permissions.size() >= 0xFFFF) return false;
  allocation.permissions.push_back({ip, expires_at, false});
  return true;
}

void Server::Impl::create_permission(Request& request, Actions& out) {
  Allocation& allocation = *request.allocation;

  std::vector<stun::WireAddress> peers;
  bool well_formed = true;
  request.message.for_each(Attribute::xor_peer_address, [&](Bytes value) {
    const auto peer = stun::read_xor_address(value, request.message.transaction_id());
    if (peer) peers.push_back(*peer);
    else well_formed = false;
  });
  if (peers.empty() || !well_formed) return refuse(request, ErrorCode::bad_request, out);
  for (const auto& peer : peers) {
    if (allocation.relay(peer.family).state != Relay::State::open)
      return refuse(request, ErrorCode::peer_address_family_mismatch, out);
  }
  for (const auto& peer : peers) {  // one that is forbidden, and none is installed (P03)
    if (!permit(allocation, peer, peer.address.port != 0, request.now, &out)) return refuse(request, ErrorCode::forbidden, out);
  }

  // Capacity, before anything is changed.
  std::vector<net::IpAddress> fresh;
  for (const auto& peer : peers) {
    const Permission* held = allocation.find_permission(peer.address.ip);
    if (held && request.now.steady < held->expires_at) continue;
    if (std::find(fresh.begin(), fresh.end(), peer.address.ip) == fresh.end()) fresh.push_back(peer.address.ip);
  }
  const auto alive = static_cast<std::size_t>(std::count_if(allocation.permissions.begin(), allocation.permissions.end(), [&](const Permission& p) {
    return request.now.steady < p.expires_at;
  }));
  const std::uint32_t most = realm_of(allocation).limits.permissions_per_allocation;
  if ((most != 0 && alive + fresh.size() > most) || !may_add_peers(allocation, fresh.size(), request.now))
    return refuse(request, ErrorCode::insufficient_capacity, out);

  for (const auto& peer : peers) install_permission(allocation, peer.address.ip, request.now);
  settle_shortcuts(allocation, request.now.steady);
  stun::Writer writer(out.reply_space(), stun::Class::success, stun::Method::create_permission, request.message.transaction_id());
  finish_success(request, writer, out);
}

}  // namespace radiotower::turn
