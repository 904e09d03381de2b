// RFC 5780: Binding requests that ask where else an answer can come from. Off by default (features.nat_discovery), since an answer from
// another address, or to another port, is more than a client needs who only wants its reflexive address.
//
// Over UDP alone. A stream has one source and one destination, and a server opens none to a client (RFC 8489, 6.2.2); so over TCP, TLS and
// DTLS there is no other address, and CHANGE-REQUEST and its like are unknown attributes (RFC 5780, 6.1).
#include "radiotower/turn/nat_discovery.h"

#include <algorithm>

#include "server_impl.h"

namespace radiotower::turn {

using stun::Attribute;
using stun::Class;
using stun::ErrorCode;
using stun::Writer;

namespace {

constexpr std::uint32_t change_ip = 0x4;  // RFC 5780, 7.2
constexpr std::uint32_t change_port = 0x2;
/// The MTU of Ethernet, which is that of nearly every path: with the rest of the message around it the datagram leaves in fragments (7.6).
constexpr std::size_t longest_padding = 1500;
constexpr std::array<std::uint8_t, longest_padding> zeros{};

std::vector<std::uint16_t> common_ports(std::span<const net::TransportAddress> listeners, const net::IpAddress& a, const net::IpAddress& b) {
  std::vector<std::uint16_t> ports;
  for (const auto& one : listeners) {
    if (one.ip != a || std::find(ports.begin(), ports.end(), one.port) != ports.end()) continue;
    if (std::find(listeners.begin(), listeners.end(), net::TransportAddress{b, one.port}) != listeners.end()) ports.push_back(one.port);
  }
  return ports;
}

}  // namespace

std::optional<net::TransportAddress> DiscoveryPair::other(const net::TransportAddress& one, bool change_ip, bool change_port) const {
  if ((one.ip != first && one.ip != second) || (one.port != first_port && one.port != second_port)) return std::nullopt;
  return net::TransportAddress{(one.ip == first) != change_ip ? first : second, (one.port == first_port) != change_port ? first_port : second_port};
}

std::vector<DiscoveryPair> discovery_pairs(std::span<const net::TransportAddress> listeners) {
  std::vector<net::IpAddress> left;
  for (const auto& listener : listeners)
    if (!listener.ip.is_link_local() && std::find(left.begin(), left.end(), listener.ip) == left.end()) left.push_back(listener.ip);
  std::vector<DiscoveryPair> pairs;
  while (!left.empty()) {
    const net::IpAddress a = left.front();
    left.erase(left.begin());
    for (auto b = left.begin(); b != left.end(); ++b) {
      if (b->family() != a.family() || b->is_loopback() != a.is_loopback()) continue;
      const auto ports = common_ports(listeners, a, *b);
      if (ports.size() < 2) continue;
      pairs.push_back({a, *b, ports[0], ports[1]});
      left.erase(b);
      break;
    }
  }
  return pairs;
}

/// Made once: which listener of this worker stands for which. With SO_REUSEPORT every worker has all of them, so that it can answer from
/// any address whatever it was asked at.
void Server::Impl::find_alternates() {
  alternates.clear();
  std::vector<net::TransportAddress> udp;
  for (const auto& listener : place.listeners)
    if (listener.transport == net::Transport::udp && listener.socket != no_socket) udp.push_back(listener.address);
  const auto socket_of = [&](const net::TransportAddress& address) {
    return std::find_if(place.listeners.begin(), place.listeners.end(), [&](const Place::Listener& l) {
             return l.transport == net::Transport::udp && l.address == address;
           })->socket;
  };
  for (const auto& pair : discovery_pairs(udp)) {
    for (const auto& address : udp) {
      if (!pair.other(address, false, false)) continue;
      Alternates& entry = alternates.emplace_back();
      entry.asked = address;
      for (const std::uint32_t flags : {0u, change_ip, change_port, change_ip | change_port}) {
        auto& way = entry.ways[flags / 2];
        way.address = *pair.other(address, flags & change_ip, flags & change_port);
        way.socket = socket_of(way.address);
      }
    }
  }
}

/// nullptr: there is no other address for whoever asks this way (RFC 5780, 6.1: then no OTHER-ADDRESS, and 420 for CHANGE-REQUEST).
const Server::Impl::Alternates* Server::Impl::alternates_for(const Request& request) const {
  if (!settings->nat_discovery || request.five_tuple.transport != net::Transport::udp) return nullptr;
  const auto found = std::find_if(alternates.begin(), alternates.end(), [&](const Alternates& a) { return a.asked == request.five_tuple.server; });
  return found == alternates.end() ? nullptr : &*found;
}

/// The address as clients know it, where a 1:1 NAT stands before us.
net::TransportAddress Server::Impl::as_clients_see(net::TransportAddress address) const {
  for (const auto& relay : settings->relay_addresses)
    if (relay.local == address.ip) address.ip = relay.external;
  return address;
}

/// A Binding request over UDP that was found to hold nothing unknown.
void Server::Impl::discover(const Request& request, Actions& out) {
  const auto change = request.message.find(Attribute::change_request);
  const auto port = request.message.find(Attribute::response_port);
  const auto padding = request.message.find(Attribute::padding);
  // 7.5 draws a port and two bytes of padding: some count these in the length, some do not.
  if ((change && change->size() != 4) || (port && port->size() != 4 && port->size() != 2) || (port && padding))
    return refuse(request, ErrorCode::bad_request, out);

  net::FiveTuple five_tuple = request.five_tuple;
  if (port) {  // to the source's address in any case, never to a third one
    five_tuple.client.port = load_be16(port->data());
    if (five_tuple.client.port == 0) return refuse(request, ErrorCode::bad_request, out);
    if (is_impossible_source(five_tuple.client)) {  // ourselves: it would be an answer that nobody asked for
      ++counters.dropped_bad_source;
      tallies.count(request.message.method(), Tallies::unanswered);
      return;
    }
  }
  Request answered(request.message, five_tuple, request.via, request.now, request.allocation);
  answered.authenticated = request.authenticated;

  // Whoever is to get the answer is who has to be spared. Fragments are dearer to receive than whole datagrams: they have the tighter limit.
  if (!may_answer(padding ? error_limit : binding_limit, answered)) return;
  net::TransportAddress origin = request.five_tuple.server;
  const Alternates* elsewhere = alternates_for(request);
  const std::uint32_t flags = change ? load_be32(change->data()) & (change_ip | change_port) : 0;
  if (elsewhere) {  // Table 1
    answered.via = elsewhere->ways[flags / 2].socket;
    origin = elsewhere->ways[flags / 2].address;
  }

  ++counters.binding_answers;
  Writer writer(out.reply_space(), Class::success, stun::Method::binding, request.message.transaction_id());
  writer.add_xor_address(Attribute::xor_mapped_address, request.five_tuple.client);
  writer.add_address(Attribute::mapped_address, request.five_tuple.client);
  writer.add_address(Attribute::response_origin, as_clients_see(origin));
  if (elsewhere) writer.add_address(Attribute::other_address, as_clients_see(elsewhere->ways[(change_ip | change_port) / 2].address));
  // Never more than came: 7.6 lets a client send its MTU as well, and who sends less would get several times of it.
  if (padding) writer.add(Attribute::padding, Bytes(zeros).first(std::min(longest_padding, (padding->size() + 3) / 4 * 4)));
  protect(request, writer);
  send_answer(answered, Tallies::success, writer, out);
}

}  // namespace radiotower::turn
