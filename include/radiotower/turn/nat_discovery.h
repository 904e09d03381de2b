// NAT behaviour discovery, the server's part (RFC 5780): which listeners can answer for one another. Pure.
//
// A client learns what its NAT does by asking for answers from elsewhere: from the other port, the other address, or both. So the
// server needs two addresses of a family, and the same two ports on each.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "radiotower/net/address.h"

namespace radiotower::turn {

/// A1, A2, P1 and P2 of RFC 5780, 6: all four combinations are UDP listeners.
struct DiscoveryPair {
  net::IpAddress first, second;
  std::uint16_t first_port = 0, second_port = 0;

  /// For one of the four: the one with the other address, the other port, or both. nullopt for any other.
  std::optional<net::TransportAddress> other(const net::TransportAddress& one, bool change_ip, bool change_port) const;
};

/// Every UDP listener is in one pair at most, first come, first paired. Loopback is paired with loopback alone: OTHER-ADDRESS must lead the
/// client somewhere. Link-local addresses are left out, for OTHER-ADDRESS has no room for an interface. Empty: there is no pair.
std::vector<DiscoveryPair> discovery_pairs(std::span<const net::TransportAddress> udp_listeners);

}  // namespace radiotower::turn
