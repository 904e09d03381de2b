#include "peer_rules.h"

#include <algorithm>

namespace radiotower::cli {

namespace {

net::IpAddress before(net::IpAddress ip) {
  for (std::size_t i = 16; i-- > 0;)
    if (ip.bytes[i]-- != 0) break;
  return ip;
}
net::IpAddress behind(net::IpAddress ip) {
  for (std::size_t i = 16; i-- > 0;)
    if (++ip.bytes[i] != 0) break;
  return ip;
}

/// An address of coturn's: blanks round it do not count.
std::optional<net::IpAddress> address(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return net::IpAddress::parse(text);
}

bool is_mapped_spelling(std::string_view text, const net::AddressRange& range) { return range.first.is_v4() && text.find(':') != text.npos; }

std::optional<net::AddressRange> as_coturn_does(std::string_view text) {
  const std::size_t dash = text.find('-');
  const auto first = address(text.substr(0, dash));
  const auto last = dash == text.npos ? first : address(text.substr(dash + 1));
  if (!first || !last || first->family() != last->family() || *last < *first) return std::nullopt;
  return net::AddressRange{*first, *last};
}

}  // namespace

PeerText read_peer_text(std::string_view text) {
  PeerText out;
  out.range = as_coturn_does(text);
  if (!out.range) {
    out.understood_by_coturn = false;
    const std::string_view alone = text.substr(0, text.find_first_of(" \t#;,"));
    if (alone.starts_with("::ffff:") && alone.find('/') != alone.npos) {
      out.mapped = true;
      return out;
    }
    out.range = as_coturn_does(alone);
    if (!out.range) out.range = net::AddressRange::parse(alone, out.why);
  }
  if (out.range && is_mapped_spelling(text, *out.range)) {
    out.mapped = true;
    out.range.reset();
  }
  return out;
}

std::vector<net::AddressRange> subtract(const std::vector<net::AddressRange>& denied, const std::vector<net::AddressRange>& allowed) {
  std::vector<net::AddressRange> out;
  for (const auto& range : denied) {
    std::vector<net::AddressRange> pieces{range};
    std::vector<net::AddressRange> holes = allowed;
    holes.insert(holes.end(), out.begin(), out.end());  // what stands there already need not stand there twice
    for (const auto& hole : holes) {
      std::vector<net::AddressRange> next;
      for (const auto& piece : pieces) {
        if (hole.first.family() != piece.first.family() || hole.last < piece.first || piece.last < hole.first) {
          next.push_back(piece);
          continue;
        }
        if (piece.first < hole.first) next.push_back({piece.first, before(hole.first)});
        if (hole.last < piece.last) next.push_back({behind(hole.last), piece.last});
      }
      pieces = std::move(next);
    }
    out.insert(out.end(), pieces.begin(), pieces.end());
  }
  return out;
}

bool covered(const net::AddressRange& range, const std::vector<net::AddressRange>& ranges) { return subtract({range}, ranges).empty(); }

std::vector<std::string> open_private_networks(const std::vector<net::AddressRange>& denied, const std::vector<net::AddressRange>& allowed) {
  std::vector<std::string> open;
  for (const char* network : {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"}) {
    std::string why;
    const auto range = *net::AddressRange::parse(network, why);
    std::vector<net::AddressRange> known = denied;
    known.insert(known.end(), allowed.begin(), allowed.end());
    if (!covered(range, known)) open.emplace_back(network);
  }
  return open;
}

}  // namespace radiotower::cli
