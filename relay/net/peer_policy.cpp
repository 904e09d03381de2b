#include "radiotower/net/peer_policy.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace radiotower::net {

namespace {

struct Network {
  AddressRange range;
  std::string_view reason;
};

Network network(const char* text, std::string_view reason) {
  std::string why;
  return {*AddressRange::parse(text, why), reason};
}

// security.md, "Peer addresses". Nothing but an exact `unsafe` entry opens these.
const std::vector<Network>& always_denied() {
  static const std::vector<Network> networks = {
      network("0.0.0.0/8", "unspecified"),     network("127.0.0.0/8", "loopback"),   network("169.254.0.0/16", "link-local"),
      network("224.0.0.0/4", "multicast"),     network("240.0.0.0/4", "reserved"),   network("::/128", "unspecified"),
      network("::1/128", "loopback"),          network("fe80::/10", "link-local"),   network("fec0::/10", "site-local"),
      network("ff00::/8", "multicast"),        network("2002::/16", "6to4"),         network("2001::/32", "teredo"),
  };
  return networks;
}

// Denied unless an allow entry covers them (IANA special-purpose address registries).
const std::vector<Network>& private_networks() {
  static const std::vector<Network> networks = {
      network("10.0.0.0/8", "rfc1918"),          network("172.16.0.0/12", "rfc1918"),     network("192.168.0.0/16", "rfc1918"),
      network("100.64.0.0/10", "rfc6598"),       network("192.0.0.0/24", "rfc6890"),      network("192.0.2.0/24", "documentation"),
      network("192.31.196.0/24", "as112"),       network("192.52.193.0/24", "amt"),       network("192.88.99.0/24", "6to4 relay"),
      network("192.175.48.0/24", "as112"),       network("198.18.0.0/15", "benchmarking"), network("198.51.100.0/24", "documentation"),
      network("203.0.113.0/24", "documentation"), network("64:ff9b:1::/48", "local nat64"), network("100::/64", "discard-only"),
      network("100:0:0:1::/64", "dummy prefix"), network("2001::/23", "ietf protocols"),  network("2001:db8::/32", "documentation"),
      network("2620:4f:8000::/48", "as112"),     network("3fff::/20", "documentation"),   network("5f00::/16", "segment routing"),
      network("fc00::/7", "unique local"),
  };
  return networks;
}

constexpr std::uint16_t reflection_ports[] = {19, 53, 111, 123, 137, 161, 389, 1900, 5353, 11211};

bool is_reflection_port(std::uint16_t port) {
  return std::find(std::begin(reflection_ports), std::end(reflection_ports), port) != std::end(reflection_ports);
}

const Network* find(const std::vector<Network>& networks, const IpAddress& ip) {
  for (const auto& n : networks)
    if (n.range.contains(ip)) return &n;
  return nullptr;
}

bool zero(const IpAddress& ip, std::size_t from, std::size_t to) {
  for (std::size_t i = from; i < to; ++i)
    if (ip.bytes[i] != 0) return false;
  return true;
}

/// The IPv4 address that an IPv6 address carries, and how. nullopt: none. `spelling` true: nothing but another way to write it.
std::optional<IpAddress> embedded_v4(const IpAddress& ip, const std::vector<AddressRange>& nat64, bool& spelling, std::string_view& form) {
  spelling = false;
  const std::uint8_t* b = ip.bytes.data();
  if (zero(ip, 0, 12) && !(b[12] == 0 && b[13] == 0 && b[14] == 0 && b[15] <= 1)) {  // ::a.b.c.d, not :: and ::1
    spelling = true;
    form = "ipv4-compatible";
    return IpAddress::v4(b + 12);
  }
  if (zero(ip, 0, 8) && b[8] == 0xFF && b[9] == 0xFF && zero(ip, 10, 12)) {  // ::ffff:0:a.b.c.d
    spelling = true;
    form = "ipv4-translated";
    return IpAddress::v4(b + 12);
  }
  if (b[0] == 0 && b[1] == 0x64 && b[2] == 0xFF && b[3] == 0x9B && zero(ip, 4, 12)) {  // 64:ff9b::/96
    form = "nat64";
    return IpAddress::v4(b + 12);
  }
  for (const auto& prefix : nat64) {
    if (!prefix.contains(ip)) continue;
    form = "nat64";
    return IpAddress::v4(b + 12);
  }
  if ((b[8] == 0 || b[8] == 2) && b[9] == 0 && b[10] == 0x5E && b[11] == 0xFE) {  // ISATAP, RFC 5214
    form = "isatap";
    return IpAddress::v4(b + 12);
  }
  return std::nullopt;
}

/// How many addresses, as a number that can be compared: the difference of both ends.
std::array<std::uint8_t, 16> width(const AddressRange& range) {
  std::array<std::uint8_t, 16> difference{};
  int borrow = 0;
  for (int i = 15; i >= 0; --i) {
    const int d = range.last.bytes[static_cast<std::size_t>(i)] - range.first.bytes[static_cast<std::size_t>(i)] - borrow;
    borrow = d < 0 ? 1 : 0;
    difference[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(d + (borrow ? 256 : 0));
  }
  return difference;
}

bool narrower(const PeerRule& a, const PeerRule& b) {
  const auto wa = width(a.range), wb = width(b.range);
  if (wa != wb) return wa < wb;
  return a.port.has_value() && !b.port.has_value();
}

bool covers(const PeerRule& rule, const TransportAddress& peer, bool port_matters) {
  return rule.range.contains(peer.ip) && (!rule.port || !port_matters || *rule.port == peer.port);
}

const PeerRule* narrowest(const std::vector<PeerRule>& rules, const TransportAddress& peer, bool port_matters) {
  const PeerRule* best = nullptr;
  for (const auto& rule : rules)
    if (covers(rule, peer, port_matters) && (!best || narrower(rule, *best))) best = &rule;
  return best;
}

template <typename Container, typename Value>
bool has(const Container& container, const Value& value) {
  return std::find(container.begin(), container.end(), value) != container.end();
}

}  // namespace

std::optional<PeerRule> PeerRule::parse(std::string_view text, std::string& why) {
  const auto blank = [](char c) { return c == ' ' || c == '\t'; };
  while (!text.empty() && blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && blank(text.back())) text.remove_suffix(1);
  if (text.empty()) {
    why = "an empty entry; remove it or write an address";
    return std::nullopt;
  }
  PeerRule rule;
  if (const std::size_t space = text.find_first_of(" \t"); space != std::string_view::npos) {
    std::string_view word = text.substr(space);
    while (!word.empty() && blank(word.front())) word.remove_prefix(1);
    if (word != "unsafe") {
      why = fmt::format("\"{}\" behind the address; only the word unsafe may stand there", word);
      return std::nullopt;
    }
    rule.unsafe = true;
    text = text.substr(0, space);
  }
  // A port: behind the bracket of IPv6, or behind the only colon there is.
  std::string_view host = text, port;
  bool has_port = false;
  if (text[0] == '[') {
    const std::size_t end = text.find(']');
    if (end == std::string_view::npos) {
      why = fmt::format("\"{}\" lacks its closing bracket", text);
      return std::nullopt;
    }
    host = text.substr(1, end - 1);
    if (end + 1 < text.size()) {
      if (text[end + 1] != ':') {
        why = fmt::format("\"{}\": only a port may stand behind the bracket", text);
        return std::nullopt;
      }
      port = text.substr(end + 2);
      has_port = true;
    }
  } else if (const std::size_t colon = text.find(':'); colon != std::string_view::npos && text.find(':', colon + 1) == std::string_view::npos) {
    host = text.substr(0, colon);
    port = text.substr(colon + 1);
    has_port = true;
  }
  if (has_port) {
    unsigned number = 0;
    const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
    if (port.empty() || error != std::errc() || end != port.data() + port.size() || number < 1 || number > 65535) {
      why = fmt::format("port \"{}\" is not a number from 1 to 65535", port);
      return std::nullopt;
    }
    rule.port = static_cast<std::uint16_t>(number);
  }
  const auto range = AddressRange::parse(host, why);
  if (!range) return std::nullopt;
  rule.range = *range;
  if (rule.unsafe && !rule.range.is_single()) {
    why = fmt::format("unsafe opens one single address, not \"{}\"", host);
    return std::nullopt;
  }
  return rule;
}

std::string PeerRule::text() const {
  std::string text = range.text();
  if (port) text = range.first.is_v4() ? fmt::format("{}:{}", text, *port) : fmt::format("[{}]:{}", text, *port);
  return unsafe ? text + " unsafe" : text;
}

std::string_view name(PeerVerdict verdict) {
  switch (verdict) {
    case PeerVerdict::permitted: return "permitted";
    case PeerVerdict::own_relayed: return "own relayed";
    case PeerVerdict::always_denied: return "always denied";
    case PeerVerdict::private_network: return "private network";
    case PeerVerdict::own_host: return "own host";
    case PeerVerdict::reflection_port: return "reflection port";
    case PeerVerdict::denied_by_rule: return "peers.deny";
    case PeerVerdict::not_in_allow_list: return "not in peers.allow";
    case PeerVerdict::bad_spelling: return "bad spelling";
  }
  return "";
}

PeerPolicy::PeerPolicy(PeerPolicySettings settings) : settings_(std::move(settings)) {}

PeerJudgement PeerPolicy::judge(const TransportAddress& peer, Family family_on_wire, bool port_matters) const {
  const IpAddress& ip = peer.ip;
  // One address has one spelling: IPv4 inside IPv6, in whatever dress, is refused outright.
  if (family_on_wire != ip.family()) return {PeerVerdict::bad_spelling, "ipv4-mapped"};
  std::optional<IpAddress> inner;
  if (!ip.is_v4()) {
    bool spelling = false;
    std::string_view form;
    inner = embedded_v4(ip, settings_.nat64_prefixes, spelling, form);
    if (inner && spelling) return {PeerVerdict::bad_spelling, form};
  }

  const PeerRule* allow = narrowest(settings_.allow, peer, port_matters);
  const PeerRule* deny = narrowest(settings_.deny, peer, port_matters);
  if (deny && (!allow || !narrower(*allow, *deny))) return {PeerVerdict::denied_by_rule, "peers.deny"};
  const bool exact = allow && allow->range.is_single();
  const bool unsafe = exact && allow->unsafe;

  // Our own listeners and control ports: only an unsafe entry that names the very port.
  if (port_matters && has(settings_.own_endpoints, TransportAddress{ip, peer.port, 0}) && !(unsafe && allow->port))
    return {PeerVerdict::own_host, "own listener"};
  if (unsafe) return {};

  if (const Network* n = find(always_denied(), ip)) return {PeerVerdict::always_denied, n->reason};
  if (inner) {  // judged by both forms: either denied is denied
    if (const Network* n = find(always_denied(), *inner)) return {PeerVerdict::always_denied, n->reason};
    if (has(settings_.host_addresses, *inner) || has(settings_.relay_addresses, *inner)) return {PeerVerdict::own_host, "own host"};
  }
  if (has(settings_.broadcast_addresses, ip)) return {PeerVerdict::always_denied, "broadcast"};

  const bool own_relay = has(settings_.relay_addresses, ip);
  if (own_relay || has(settings_.host_addresses, ip)) {
    if (exact && (!own_relay || allow->port || !port_matters)) return {};
    if (!own_relay) return {PeerVerdict::own_host, "own host"};
    if (settings_.allow_only) return {PeerVerdict::not_in_allow_list, "not in peers.allow"};
    return {PeerVerdict::own_relayed, "own relayed address"};
  }

  if (settings_.allow_only && !allow) return {PeerVerdict::not_in_allow_list, "not in peers.allow"};
  if (port_matters && peer.port == 0) return {PeerVerdict::reflection_port, "port 0"};
  const bool names_port = allow && allow->port;
  if (port_matters && is_reflection_port(peer.port) && !names_port) return {PeerVerdict::reflection_port, "reflection port"};
  if (!allow) {
    if (const Network* n = find(private_networks(), ip)) return {PeerVerdict::private_network, n->reason};
    if (inner) {
      if (const Network* n = find(private_networks(), *inner)) return {PeerVerdict::private_network, n->reason};
    }
  }
  return {};
}

std::optional<PermittedPeer> PeerPolicy::permit(const TransportAddress& peer, Family family_on_wire, bool port_matters,
                                                PeerJudgement* judgement) const {
  const PeerJudgement j = judge(peer, family_on_wire, port_matters);
  if (judgement) *judgement = j;
  if (j.verdict == PeerVerdict::permitted) return PermittedPeer(peer, false);
  if (j.verdict == PeerVerdict::own_relayed) return PermittedPeer(peer, true);
  return std::nullopt;
}

}  // namespace radiotower::net
