// ChannelBind (RFC 8656, 12.2): the checks in the order of the section.
#include "server_impl.h"

namespace radiotower::turn {

using stun::Attribute;
using stun::ErrorCode;

void Server::Impl::channel_bind(Request& request, Actions& out) {
  const stun::Message& m = request.message;
  Allocation& allocation = *request.allocation;
  const Time now = request.now.steady;
  // Channels are of datagrams: for them this is no allocation, as one of UDP is none for Connect (RFC 6062).
  if (allocation.transport != net::Transport::udp) return refuse(request, ErrorCode::allocation_mismatch, out);

  // Both attributes, and well-formed; the two reserved bytes behind the number are ignored (RFC 8656, 18.1).
  const auto number_value = m.find(Attribute::channel_number);
  const auto peer_value = m.find(Attribute::xor_peer_address);
  if (!number_value || number_value->size() != 4 || !peer_value) return refuse(request, ErrorCode::bad_request, out);
  const auto peer = stun::read_xor_address(*peer_value, m.transaction_id());
  if (!peer) return refuse(request, ErrorCode::bad_request, out);

  // 0x4000-0x4FFF; up to 0x7FFF where clients of RFC 5766 are to be served.
  const std::uint16_t number = load_be16(number_value->data());
  const std::uint16_t last = settings->rfc5766_channel_numbers ? stun::last_channel_rfc5766 : stun::last_channel;
  if (number < stun::first_channel || number > last) return refuse(request, ErrorCode::bad_request, out);

  // The number not bound to another peer, the peer not to another number. A binding that has run out binds nobody (B11).
  Channel* by_number = allocation.find_channel(number);
  Channel* by_peer = allocation.find_channel(peer->address);
  if (by_number && by_number != by_peer && now < by_number->expires_at) return refuse(request, ErrorCode::bad_request, out);
  if (by_peer && by_number != by_peer && now < by_peer->expires_at) return refuse(request, ErrorCode::bad_request, out);

  if (allocation.relay(peer->family).state != Relay::State::open)
    return refuse(request, ErrorCode::peer_address_family_mismatch, out);

  const auto permitted = permit(allocation, *peer, true, request.now, &out);
  if (!permitted) return refuse(request, ErrorCode::forbidden, out);

  // Capacity: neither a channel nor a permission more than allowed; nothing is changed when one of both does not fit.
  for (Channel& c : allocation.channels)
    if (c.expires_at <= now) take_back_shortcut(allocation, c);
  std::erase_if(allocation.channels, [&](const Channel& c) { return c.expires_at <= now; });
  Channel* channel = allocation.find_channel(number);
  const std::uint32_t most = realm_of(allocation).limits.channels_per_allocation;
  if (!channel && most != 0 && allocation.channels.size() >= most) return refuse(request, ErrorCode::insufficient_capacity, out);
  const Permission* permission = allocation.find_permission(peer->address.ip);
  const bool fresh = !permission || permission->expires_at <= now;
  if ((fresh && !may_add_peers(allocation, 1, request.now)) || !install_permission(allocation, peer->address.ip, request.now))
    return refuse(request, ErrorCode::insufficient_capacity, out);

  if (!channel) {
    allocation.channels.push_back({*permitted, {}, number, 0, false, Time{}, nullptr});
    channel = &allocation.channels.back();
  }
  channel->peer = *permitted;
  channel->send_to = shared->inside(permitted->address());
  channel->forbidden = false;
  channel->expires_at = now + channel_lifetime;
  settle_shortcuts(allocation, now);

  stun::Writer writer(out.reply_space(), stun::Class::success, stun::Method::channel_bind, m.transaction_id());
  finish_success(request, writer, out);
}

}  // namespace radiotower::turn
