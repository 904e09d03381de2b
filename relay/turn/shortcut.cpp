// Which channels may be shortcuts, and until when. Everything that changes an answer calls settle_shortcuts(), or,
// before it takes something away, take_back_shortcut(); so the rules stand in one place.
#include <algorithm>

#include "server_impl.h"

namespace radiotower::turn {

namespace {

constexpr Time not_at_all = Time::min();

/// An interface index has no place in a packet: what is reached through a link-local address goes the long way.
bool is_link_local(const net::TransportAddress& address) { return address.scope != 0 || address.ip.is_link_local(); }

}  // namespace

/// The first moment at which a packet of this channel would no longer be relayed.
Time Server::Impl::shortcut_end(const Allocation& allocation, const Channel& channel) const {
  const net::TransportAddress& peer = channel.peer.address();
  const net::FiveTuple& five_tuple = allocation.five_tuple;
  // A live relayed port of ours is looked at for each packet, and packets to one never leave the host.
  if (channel.forbidden || channel.peer.own_relayed() || !(channel.send_to == peer)) return not_at_all;
  if (five_tuple.transport != net::Transport::udp) return not_at_all;
  if (is_link_local(five_tuple.client) || is_link_local(five_tuple.server) || is_link_local(peer)) return not_at_all;
  if (allocation.account->limited() && !allocation.account->visible_bucket()) return not_at_all;
  const Relay& relay = allocation.relay(peer.family());
  const Permission* permission = allocation.find_permission(peer.ip);
  if (relay.state != Relay::State::open || !permission || permission->forbidden) return not_at_all;
  return std::min({channel.expires_at, permission->expires_at, relay.expires_at});
}

void Server::Impl::settle_shortcuts(Allocation& allocation, Time now) {
  if (!shortcuts) return;
  for (Channel& channel : allocation.channels) {
    const Time until = shortcut_end(allocation, channel);
    if (until <= now) {
      take_back_shortcut(allocation, channel);
    } else if (!channel.given) {
      const Relay& relay = allocation.relay(channel.peer.address().family());
      const net::IpAddress& local = shared->relay_addresses()[relay.port.address_index].local;
      const Bucket* bucket = allocation.account->visible_bucket();
      const ShortcutId id =
          shortcuts->give({allocation.five_tuple, {local, relay.port.port}, channel.send_to, channel.number, bucket}, until);
      if (id == no_shortcut) {
        ++counters.shortcuts_refused;  // asked for again with the next request that settles
        continue;
      }
      channel.given = std::make_unique<Given>(Given{id, until, {}});
      ++shortcuts_given;
    } else if (channel.given->until != until) {
      channel.given->until = until;
      shortcuts->move(channel.given->id, until);
    }
  }
}

void Server::Impl::take_back_shortcut(Allocation& allocation, Channel& channel) {
  if (!channel.given) return;
  const ShortcutCounts last = shortcuts->take_back(channel.given->id);
  count_shortcut(allocation, *channel.given, last);
  channel.given.reset();
  --shortcuts_given;
}

void Server::Impl::take_back_shortcuts(Allocation& allocation, net::Family family) {
  for (Channel& channel : allocation.channels)
    if (channel.peer.address().family() == family) take_back_shortcut(allocation, channel);
}

/// Counted like packets that the core has relayed itself, and besides as what they are.
void Server::Impl::count_shortcut(Allocation& allocation, Given& given, const ShortcutCounts& now) {
  const ShortcutCounts& before = given.counted;
  const std::uint64_t packets_to_peer = now.packets_to_peer - before.packets_to_peer;
  const std::uint64_t packets_to_client = now.packets_to_client - before.packets_to_client;
  const std::uint64_t bytes_to_peer = now.bytes_to_peer - before.bytes_to_peer;
  const std::uint64_t bytes_to_client = now.bytes_to_client - before.bytes_to_client;
  allocation.packets_to_peer += packets_to_peer;
  allocation.bytes_to_peer += bytes_to_peer;
  allocation.packets_to_client += packets_to_client;
  allocation.bytes_to_client += bytes_to_client;
  counters.packets_to_peer += packets_to_peer;
  counters.bytes_to_peer += bytes_to_peer;
  counters.packets_to_client += packets_to_client;
  counters.bytes_to_client += bytes_to_client;
  Tallies::Traffic& traffic = tallies.of(Tallies::Way::offload);
  traffic.packets_to_peer += packets_to_peer;
  traffic.bytes_to_peer += bytes_to_peer;
  traffic.packets_to_client += packets_to_client;
  traffic.bytes_to_client += bytes_to_client;
  counters.shortcut_packets_to_peer += packets_to_peer;
  counters.shortcut_packets_to_client += packets_to_client;
  counters.dropped_user_limit += now.dropped_user_limit - before.dropped_user_limit;
  given.counted = now;
}

/// What has run out by itself passes nothing, but holds a place that another could have: no timer an object, so it is
/// looked for here.
void Server::Impl::count_shortcuts(Time now) {
  if (shortcuts_given == 0) return;
  table.for_each([&](std::uint32_t, Allocation& allocation) {
    for (Channel& channel : allocation.channels) {
      if (!channel.given) continue;
      if (channel.given->until <= now) take_back_shortcut(allocation, channel);
      else count_shortcut(allocation, *channel.given, shortcuts->counts(channel.given->id));
    }
  });
}

}  // namespace radiotower::turn
