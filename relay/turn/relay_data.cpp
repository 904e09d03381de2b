// The data path (RFC 8656, 11 and 12): Send indications and ChannelData to peers, what peers send to clients, ICMP.
// Nothing here allocates, locks, logs, reads a clock or copies a payload.
#include <algorithm>
#include <utility>

#include "server_impl.h"

namespace radiotower::turn {

using net::Family;
using stun::Attribute;

namespace {

/// Datagrams in `bytes` when each is `stride` long but the last.
std::size_t datagrams(std::size_t bytes, std::size_t stride) { return stride == 0 ? 1 : (bytes + stride - 1) / stride; }

}  // namespace

bool Server::Impl::charge(Allocation& allocation, std::size_t packets, std::size_t bytes, Time now) {
  Account& account = *allocation.account;
  if (!account.limited()) return true;
  Account::Lease& lease = allocation.lease;
  const auto need_bytes = static_cast<std::int64_t>(bytes);
  const auto need_packets = static_cast<std::int64_t>(packets);
  if (lease.bytes < need_bytes || lease.packets < need_packets) {
    if (!account.lease(bytes, now, lease) || lease.bytes < need_bytes || lease.packets < need_packets) {
      counters.dropped_user_limit += packets;
      return false;
    }
  }
  lease.bytes -= need_bytes;
  lease.packets -= need_packets;
  return true;
}

/// Behind a relayed address of ours there may be another allocation than before, with another form. False: there is none.
bool Server::Impl::find_way(const net::PermittedPeer& peer, net::TransportAddress& send_to) const {
  const auto found = shared->reach(peer.address());
  if (found) send_to = *found;
  return found.has_value();
}

/// A train is cut into runs of datagrams that can leave as one: ChannelData of one channel and one length, of which the last may be
/// shorter (and padded otherwise). Whatever is none, a STUN message or a lie, is looked at on its own.
void Server::Impl::train_from_client(const net::FiveTuple& five_tuple, SocketHandle via, Train train, Now now, Actions& out) {
  constexpr std::size_t header = stun::channel_header_size;
  const std::size_t stride = train.segment, size = train.bytes.size();
  const auto segment = [&](std::size_t at) { return train.bytes.subspan(at, std::min(stride, size - at)); };
  // The length of the payload when all is well with this datagram as ChannelData; an empty one leaves alone, no train can hold it.
  const auto payload_of = [&](MutableBytes bytes) -> std::size_t {
    if (bytes.size() <= header || classify(bytes[0]) != stun::FirstByte::channel_data) return 0;
    const std::size_t length = load_be16(bytes.data() + 2);
    return length <= bytes.size() - header ? length : 0;
  };
  Allocation* allocation = nullptr;
  bool is_known = false;
  for (std::size_t at = 0; at < size;) {
    const MutableBytes first = segment(at);
    const std::size_t length = payload_of(first);
    std::size_t end = at + first.size();  // of the run
    bool ended = length == 0 || first.size() < stride;
    while (!ended && end < size) {
      const MutableBytes next = segment(end);
      const std::size_t its = payload_of(next);
      if (its == 0 || its > length || load_be16(next.data()) != load_be16(first.data())) break;
      end += next.size();
      ended = its < length;
    }
    if (end - at <= stride) {
      from_client(five_tuple, via, first, now, out);
      is_known = false;  // a request may have made or ended the allocation
    } else {
      if (!std::exchange(is_known, true)) allocation = find_sender(five_tuple, now, out);
      channel_data(allocation, train.bytes.subspan(at, end - at), train.segment, now, out);
    }
    at = end;
  }
}

/// RFC 8656, 12.6. `stride`: 0 for one datagram; else every `stride` bytes are one, all of this channel, all but the last of one
/// length and the last no longer (train_from_client has looked).
void Server::Impl::channel_data(Allocation* allocation, MutableBytes datagram, std::uint16_t stride, Now now, Actions& out) {
  if (datagram.size() < stun::channel_header_size) {
    ++counters.dropped_bad_channel_data;
    return;
  }
  const std::uint16_t number = load_be16(datagram.data());
  const std::size_t length = load_be16(datagram.data() + 2);
  if (stride == 0 && length > datagram.size() - stun::channel_header_size) {  // longer is padding (12.5), shorter is a lie
    ++counters.dropped_bad_channel_data;
    return;
  }
  const std::size_t packets = datagrams(datagram.size(), stride);
  const std::size_t before_last = (packets - 1) * stride;
  const std::size_t last_length = load_be16(datagram.data() + before_last + 2);
  if (!allocation) {
    counters.dropped_no_allocation += packets;
    return;
  }
  Channel* channel = allocation->find_channel(number);
  if (!channel || channel->expires_at <= now.steady) {
    counters.dropped_no_channel += packets;
    return;
  }
  // D08: a channel alone does not let anything through, its permission must live too. Sending refreshes neither (T12).
  const net::IpAddress& ip = channel->peer.address().ip;
  auto& permissions = allocation->permissions;
  if (channel->permission >= permissions.size() || permissions[channel->permission].ip != ip) {
    const Permission* p = allocation->find_permission(ip);
    if (!p) {
      counters.dropped_no_permission += packets;
      return;
    }
    channel->permission = static_cast<std::uint16_t>(p - permissions.data());
  }
  const Permission& permission = permissions[channel->permission];
  if (channel->forbidden || permission.forbidden) {
    counters.dropped_peer_denied += packets;
    return;
  }
  if (now.steady >= permission.expires_at) {
    counters.dropped_no_permission += packets;
    return;
  }
  if (channel->peer.own_relayed() && !find_way(channel->peer, channel->send_to)) {
    counters.dropped_dead_relay_port += packets;
    return;
  }
  const Relay& relay = allocation->relay(ip.family());
  if (relay.state != Relay::State::open) {
    counters.dropped_no_allocation += packets;
    return;
  }
  const std::size_t payload = (packets - 1) * length + last_length;
  if (!charge(*allocation, packets, payload, now.steady)) return;

  allocation->packets_to_peer += packets;
  allocation->bytes_to_peer += payload;
  counters.packets_to_peer += packets;
  counters.bytes_to_peer += payload;
  if (Tallies::Traffic* way = counted_way(*allocation)) {
    way->packets_to_peer += packets;
    way->bytes_to_peer += payload;
  }
  if (stride == 0) return out.to_peer(relay.socket, channel->peer, channel->send_to, datagram.subspan(stun::channel_header_size, length));
  out.to_peer(relay.socket, channel->peer, channel->send_to, datagram.first(before_last + stun::channel_header_size + last_length));
  Send& train = out.sends.back();
  train.stride = stride;
  train.skip = stun::channel_header_size;
  train.trim = static_cast<std::uint16_t>(stride - stun::channel_header_size - length);
}

/// RFC 8656, 11.2: anything wrong is dropped without a word.
void Server::Impl::send_indication(const stun::Message& message, Allocation* allocation, MutableBytes datagram, Now now, Actions& out) {
  if (!allocation) {
    ++counters.dropped_no_allocation;
    return;
  }
  if (allocation->transport != net::Transport::udp) {  // RFC 6062: nothing there takes a datagram
    ++counters.dropped_bad_indication;
    return;
  }
  const auto peer_value = message.find(Attribute::xor_peer_address);
  const auto data = message.find(Attribute::data);
  const auto peer = peer_value ? stun::read_xor_address(*peer_value, message.transaction_id()) : std::nullopt;
  const auto dont_fragment = message.find(Attribute::dont_fragment);
  if (!peer || !data || !message.unknown_required().empty() || peer->address.port == 0 ||
      (dont_fragment && (!dont_fragment->empty() || !settings->dont_fragment))) {
    ++counters.dropped_bad_indication;
    return;
  }
  const Relay& relay = allocation->relay(peer->family);
  if (relay.state != Relay::State::open) {
    ++counters.dropped_bad_indication;
    return;
  }
  auto& last = allocation->last_peer;
  const bool known = last && last->address() == peer->address && peer->family == peer->address.family();
  if (!known) {
    const auto permitted = permit(*allocation, *peer, true, now, nullptr);
    if (!permitted) {
      ++counters.dropped_peer_denied;
      return;
    }
    last = permitted;
  }
  const Permission* permission = allocation->find_permission(peer->address.ip);
  if (!permission || !permission->permits(now.steady)) {
    ++counters.dropped_no_permission;
    return;
  }
  net::TransportAddress send_to = shared->inside(peer->address);
  if (last->own_relayed() && !find_way(*last, send_to)) {
    ++counters.dropped_dead_relay_port;
    return;
  }
  if (!charge(*allocation, 1, data->size(), now.steady)) return;

  ++allocation->packets_to_peer;
  allocation->bytes_to_peer += data->size();
  ++counters.packets_to_peer;
  counters.bytes_to_peer += data->size();
  if (Tallies::Traffic* way = counted_way(*allocation)) {
    ++way->packets_to_peer;
    way->bytes_to_peer += data->size();
  }
  const auto offset = static_cast<std::size_t>(data->data() - datagram.data());
  out.to_peer(relay.socket, *last, send_to, datagram.subspan(offset, data->size()));
  out.sends.back().dont_fragment = dont_fragment.has_value();
}

/// RFC 8656, 11.3 and 12.5: permission first, then the channel.
void Server::Impl::from_peer(RelayId id, const net::TransportAddress& source, Train train, Now now, Actions& out) {
  const std::size_t packets = datagrams(train.bytes.size(), train.segment);
  Allocation* allocation = table.find(id.index, id.generation);
  if (!allocation || allocation->relay(id.family).state != Relay::State::open) {
    counters.dropped_no_allocation += packets;
    return;
  }
  // Another client of this relay behind the same NAT mapping: its peer knows it by the external address (hairpin).
  const net::TransportAddress* peer = &source;
  net::TransportAddress mapped;
  if (shared->maps_addresses()) {
    mapped = shared->outside(source);
    if (!(mapped == source) && allocation->find_permission(mapped.ip)) peer = &mapped;
  }
  const Permission* permission = allocation->find_permission(peer->ip);
  if (!permission || now.steady >= permission->expires_at) {
    counters.dropped_peer_no_permission += packets;
    return;
  }
  if (permission->forbidden) {
    counters.dropped_peer_denied += packets;
    return;
  }
  if (!allocation->has_client) {
    counters.dropped_no_client += packets;
    return;
  }
  if (!charge(*allocation, packets, train.bytes.size(), now.steady)) return;
  allocation->packets_to_client += packets;
  allocation->bytes_to_client += train.bytes.size();
  counters.packets_to_client += packets;
  counters.bytes_to_client += train.bytes.size();
  if (Tallies::Traffic* way = counted_way(*allocation)) {
    way->packets_to_client += packets;
    way->bytes_to_client += train.bytes.size();
  }

  const Channel* channel = allocation->find_channel(*peer);
  const net::FiveTuple& client = allocation->five_tuple;
  const std::size_t stride = train.segment == 0 ? train.bytes.size() : train.segment;

  if (channel && now.steady < channel->expires_at && !channel->forbidden) {
    const auto send = [&](MutableBytes bytes, std::uint16_t every, std::size_t length) {
      out.to_client(allocation->client_socket, client, bytes);
      Send& last = out.sends.back();
      last.stride = every;
      last.prefix_size = stun::channel_header_size;
      store_be16(last.prefix.data(), channel->number);
      store_be16(last.prefix.data() + 2, static_cast<std::uint16_t>(length));
    };
    const std::size_t rest = packets <= 1 ? train.bytes.size() : train.bytes.size() - (packets - 1) * stride;
    if (packets <= 1) return send(train.bytes, 0, train.bytes.size());
    // The ChannelData header holds the length, so a shorter last datagram leaves on its own.
    const std::size_t whole = rest == stride ? packets : packets - 1;
    send(train.bytes.first(whole * stride), whole > 1 ? train.segment : std::uint16_t{0}, stride);
    if (whole < packets) {
      send(train.bytes.subspan(whole * stride), 0, rest);
      // Its prefix may not be written in front of it: those bytes belong to the datagram before. A stride says so.
      out.sends.back().stride = train.segment;
    }
    return;
  }

  // A Data indication: header, XOR-PEER-ADDRESS and the head of DATA go in front of the payload, padding behind.
  const std::size_t peer_size = 4 + 4 + (peer->ip.is_v4() ? 4u : 16u);
  const std::size_t head = stun::header_size + peer_size + 4;
  for (std::size_t k = 0; k < packets; ++k) {
    MutableBytes payload = packets == 1 ? train.bytes : train.bytes.subspan(k * stride, std::min(stride, train.bytes.size() - k * stride));
    const std::size_t padding = (4 - payload.size() % 4) % 4;
    MutableBytes indication;
    if (head + payload.size() + padding - stun::header_size > 0xFFFF) {
      ++counters.dropped_answer_too_large;  // a datagram of nearly 64 KiB has no room for the header round it
      continue;
    }
    if (packets == 1) {
      indication = {payload.data() - head, head + payload.size() + padding};
    } else {
      // Inside a train the bytes in front belong to the datagram before: the one place where a payload is moved.
      const MutableBytes room = out.reply_space();
      if (room.size() < head + payload.size() + padding) {
        ++counters.dropped_answer_too_large;
        continue;
      }
      indication = room.first(head + payload.size() + padding);
      std::memcpy(indication.data() + head, payload.data(), payload.size());
      out.reply_used(indication.size());
    }
    stun::TransactionId transaction_id;
    random(transaction_id);
    // DATA's own head is the last thing in front of the payload, which already lies where the value belongs.
    stun::Writer writer(indication.first(head), stun::Class::indication, stun::Method::data, transaction_id);
    writer.add_xor_address(Attribute::xor_peer_address, *peer);
    std::uint8_t* data_head = indication.data() + head - 4;
    store_be16(data_head, static_cast<std::uint16_t>(Attribute::data));
    store_be16(data_head + 2, static_cast<std::uint16_t>(payload.size()));
    std::memset(indication.data() + head + payload.size(), 0, padding);
    store_be16(indication.data() + 2, static_cast<std::uint16_t>(indication.size() - stun::header_size));
    out.to_client(allocation->client_socket, client, indication);
  }
}

/// RFC 8656, 11.5: always as a Data indication, even with a channel.
void Server::Impl::icmp_from_peer(RelayId id, const net::TransportAddress& destination, const Icmp& icmp, Now now, Actions& out) {
  Allocation* allocation = table.find(id.index, id.generation);
  const bool v4 = destination.ip.is_v4();
  // Destination unreachable and time exceeded; for IPv6 packet too big besides.
  const bool relayed_type = v4 ? icmp.type == 3 || icmp.type == 11 : icmp.type >= 1 && icmp.type <= 3;
  net::TransportAddress peer = destination;
  if (shared->maps_addresses()) peer = shared->outside(destination);
  // Who sent the ICMP message does not matter; whom the datagram was for must have a permission.
  const bool permitted = allocation && allocation->has_client && allocation->relay(id.family).state == Relay::State::open &&
                         allocation->permits(peer.ip, now.steady);
  if (!relayed_type || !permitted || !charge(*allocation, 1, 0, now.steady)) {
    ++counters.icmp_ignored;
    return;
  }
  const bool has_mtu = (v4 && icmp.type == 3 && icmp.code == 4) || (!v4 && icmp.type == 2);
  stun::TransactionId transaction_id;
  random(transaction_id);
  stun::Writer writer(out.reply_space(), stun::Class::indication, stun::Method::data, transaction_id);
  writer.add_xor_address(Attribute::xor_peer_address, peer);
  writer.add(Attribute::icmp, Bytes(stun::icmp_value(icmp.type, icmp.code, has_mtu ? icmp.error_data : 0)));
  out.reply_used(writer.bytes().size());
  out.to_client(allocation->client_socket, allocation->five_tuple, writer.bytes());
  ++counters.icmp_to_client;
}

}  // namespace radiotower::turn
