// denied-peer-ip and allowed-peer-ip as peers.deny and peers.allow. In coturn an allowed range wins over every denied one; here the narrowest entry
// decides. So what is allowed is taken out of what is denied, and no order is left that could matter. Pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "radiotower/net/address.h"

namespace radiotower::cli {

struct PeerText {
  std::optional<net::AddressRange> range;
  bool understood_by_coturn = true;  // false: a CIDR block or text behind the address, which coturn never took
  bool mapped = false;               // IPv4 in a mapped spelling: such a peer is refused whatever the rules say. No range then
  std::string why;                   // a sentence, when there is no range
};
/// "10.0.0.0-10.255.255.255", "10.1.2.3"; and what people write by mistake.
PeerText read_peer_text(std::string_view text);

/// What of `denied` is in none of `allowed`, without overlaps, in the order of `denied`.
std::vector<net::AddressRange> subtract(const std::vector<net::AddressRange>& denied, const std::vector<net::AddressRange>& allowed);

/// Whether every address of `range` is in one of `ranges`.
bool covered(const net::AddressRange& range, const std::vector<net::AddressRange>& ranges);

/// Private networks that coturn reaches and this relay does not unless an entry says so, less what `denied` covers.
std::vector<std::string> open_private_networks(const std::vector<net::AddressRange>& denied, const std::vector<net::AddressRange>& allowed);

}  // namespace radiotower::cli
