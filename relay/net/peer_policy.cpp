#include "radiotower/net/peer_policy.h"

#include <algorithm>
#include <charconv>

#include "join.h"

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

// docs/peers.md. Nothing but an exact `unsafe` entry opens these.
const std::vector<Network>& always_denied() {
  static const std::vector<Network> networks = {
      network("0.0.0.0/8", "unspecified"),                network("127.0.0.0/8", "loopback"),
      network("169.254.0.0/16", "link-local"),            network("224.0.0.0/4", "multicast"),
      network("240.0.0.0/4", "reserved"),                 network("::/128", "unspecified"),
      network("::1/128", "loopback"),                     network("fe80::/10", "link-local"),
      network("fec0::/10", "site-local"),                 network("ff00::/8", "multicast"),
      network("2002::/16", "6to4"),                       network("2001::/32", "teredo"),
  };
  return networks;
}

// Denied unless an allow entry covers them (IANA special-purpose address registries).
const std::vector<Network>& private_networks() {
  static const std::vector<Network> networks = {
      network("10.0.0.0/8", "rfc1918"),                   network("172.16.0.0/12", "rfc1918"),
      network("192.168.0.0/16", "rfc1918"),               network("100.64.0.0/10", "rfc6598"),
      network("192.0.0.0/24", "rfc6890"),                 network("192.0.2.0/24", "documentation"),
      network("192.31.196.0/24", "as112"),                network("192.52.193.0/24", "amt"),
      network("192.88.99.0/24", "6to4 relay"),            network("192.175.48.0/24", "as112"),
      network("198.18.0.0/15", "benchmarking"),           network("198.51.100.0/24", "documentation"),
      network("203.0.113.0/24", "documentation"),         network("64:ff9b:1::/48", "local nat64"),
      network("100::/64", "discard-only"),                network("100:0:0:1::/64", "dummy prefix"),
      network("2001::/23", "ietf protocols"),             network("2001:db8::/32", "documentation"),
      network("2620:4f:8000::/48", "as112"),              network("3fff::/20", "documentation"),
      network("5f00::/16", "segment routing"),            network("fc00::/7", "unique local"),
  };
  return networks;
}

constexpr std::uint16_t reflection_ports[] = {19, 53, 111, 123, 137, 161, 389, 1900, 5353, 11211};
// Another TURN server: two that relay to each other are a loop that feeds itself (RFC 8656, 21.1.7). No relayed address has these.
constexpr std::uint16_t turn_ports[] = {3478, 5349};

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

/// The IPv4 address inside an address under a NAT64 prefix of `length` bits (RFC 6052, 2.2; byte 8 is always skipped).
IpAddress nat64_inner(const IpAddress& ip, unsigned length) {
  std::uint8_t four[4];
  std::size_t at = length / 8;
  for (auto& byte : four) {
    if (at == 8) ++at;
    byte = ip.bytes[at++];
  }
  return IpAddress::v4(four);
}

/// An IPv4 address that is only dressed up as IPv6: mapped is seen by the family on the wire, these two by their bits.
/// Empty: it is not. "::" and "::1" are addresses of their own.
std::string_view disguise(const IpAddress& ip) {
  const std::uint8_t* b = ip.bytes.data();
  if (zero(ip, 0, 12) && !(zero(ip, 12, 15) && b[15] <= 1)) return "ipv4-compatible";
  // ::ffff:0:a.b.c.d, RFC 2765
  if (zero(ip, 0, 8) && b[8] == 0xFF && b[9] == 0xFF && zero(ip, 10, 12)) return "ipv4-translated";
  return {};
}

/// The IPv4 address that a router or tunnel would take out of an IPv6 address and send to.
std::optional<IpAddress> inner_v4(const IpAddress& ip, const std::vector<AddressRange>& nat64) {
  const std::uint8_t* b = ip.bytes.data();
  // 64:ff9b::/96
  if (b[0] == 0 && b[1] == 0x64 && b[2] == 0xFF && b[3] == 0x9B && zero(ip, 4, 12)) return nat64_inner(ip, 96);
  for (const auto& prefix : nat64) {
    if (!prefix.contains(ip)) continue;
    const unsigned length = prefix.prefix_length().value_or(96);
    const bool standard = length == 32 || length == 40 || length == 48 || length == 56 || length == 64;
    return nat64_inner(ip, standard ? length : 96);
  }
  // ISATAP, RFC 5214, 6.1
  if ((b[8] == 0 || b[8] == 2) && b[9] == 0 && b[10] == 0x5E && b[11] == 0xFE) return IpAddress::v4(b + 12);
  return std::nullopt;
}

/// How many addresses, as a number that can be compared: the difference of both ends.
std::array<std::uint8_t, 16> width(const AddressRange& range) {
  std::array<std::uint8_t, 16> difference{};
  int borrow = 0;
  for (int i = 15; i >= 0; --i) {
    const auto at = static_cast<std::size_t>(i);
    const int d = range.last.bytes[at] - range.first.bytes[at] - borrow;
    borrow = d < 0 ? 1 : 0;
    difference[at] = static_cast<std::uint8_t>(d + (borrow ? 256 : 0));
  }
  return difference;
}

bool narrower(const PeerRule& a, const PeerRule& b) {
  const auto wa = width(a.range), wb = width(b.range);
  if (wa != wb) return wa < wb;
  return a.port.has_value() && !b.port.has_value();
}

/// What the entries of peers.allow and peers.deny say about one peer. An allow entry counts unless a deny entry as
/// narrow or narrower covers the peer too. Where the port is not known (CreatePermission), an allow entry for some port
/// covers the address, since every later packet is judged with its port; a deny entry for one port does not.
struct Weighed {
  bool denied = false;
  bool allowed = false;
  bool port_named = false;    // ... by an entry with this very port
  bool single = false;        // ... by an entry of this one address
  bool single_port = false;   // ... of this one address and port
  bool unsafe = false;
  bool unsafe_port = false;
};

Weighed weigh(const PeerPolicySettings& settings, const IpAddress& ip, std::uint16_t port, bool port_known) {
  const PeerRule* deny = nullptr;
  for (const auto& rule : settings.deny) {
    if (!rule.range.contains(ip) || (rule.port && (!port_known || *rule.port != port))) continue;
    if (!deny || narrower(rule, *deny)) deny = &rule;
  }
  Weighed w;
  for (const auto& rule : settings.allow) {
    if (!rule.range.contains(ip) || (rule.port && port_known && *rule.port != port)) continue;
    if (deny && !narrower(rule, *deny)) continue;
    const bool single = rule.range.is_single();
    w.allowed = true;
    w.port_named |= rule.port.has_value();
    w.single |= single;
    w.single_port |= single && rule.port;
    w.unsafe |= single && rule.unsafe;
    w.unsafe_port |= single && rule.unsafe && rule.port;
  }
  w.denied = deny && !w.allowed;
  return w;
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
      why = join({"\"", word, "\" behind the address; only the word unsafe may stand there"});
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
      why = join({"\"", text, "\" lacks its closing bracket"});
      return std::nullopt;
    }
    host = text.substr(1, end - 1);
    if (host.find(':') == std::string_view::npos) {
      why = join({"\"", text, "\": brackets are for IPv6 alone"});
      return std::nullopt;
    }
    if (end + 1 < text.size()) {
      if (text[end + 1] != ':') {
        why = join({"\"", text, "\": only a port may stand behind the bracket"});
        return std::nullopt;
      }
      port = text.substr(end + 2);
      has_port = true;
    }
  } else if (const std::size_t colon = text.find(':');
             colon != std::string_view::npos && text.find(':', colon + 1) == std::string_view::npos) {
    host = text.substr(0, colon);
    port = text.substr(colon + 1);
    has_port = true;
  }
  if (has_port) {
    unsigned number = 0;
    const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
    if (port.empty() || error != std::errc() || end != port.data() + port.size() || number < 1 || number > 65535) {
      why = join({"port \"", port, "\" is not a number from 1 to 65535"});
      return std::nullopt;
    }
    rule.port = static_cast<std::uint16_t>(number);
  }
  const auto range = AddressRange::parse(host, why);
  if (!range) return std::nullopt;
  rule.range = *range;
  if (rule.unsafe && !rule.range.is_single()) {
    why = join({"unsafe opens one single address, not \"", host, "\""});
    return std::nullopt;
  }
  return rule;
}

std::string PeerRule::text() const {
  std::string text = range.text();
  if (port) text = join({range.first.is_v4() ? text : join({"[", text, "]"}), ":", std::to_string(*port)});
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

namespace {

bool is_own_endpoint(const PeerPolicySettings& settings, const IpAddress& ip, std::uint16_t port, bool own_address) {
  for (const auto& endpoint : settings.own_endpoints) {
    if (endpoint.port != port) continue;
    // A wildcard listens on each address of ours.
    if (endpoint.ip == ip || (endpoint.ip.is_unspecified() && own_address)) return true;
  }
  return false;
}

bool has_endpoint_at(const PeerPolicySettings& settings, const IpAddress& ip) {
  return std::any_of(settings.own_endpoints.begin(), settings.own_endpoints.end(),
                     [&](const auto& e) { return e.ip == ip; });
}

/// The IPv4 address inside a NAT64 or ISATAP address: what is not to be reached by its own name is not to be reached so
/// either.
PeerJudgement judge_inner(const PeerPolicySettings& settings, const TransportAddress& peer, bool port_known) {
  const IpAddress& ip = peer.ip;
  const Weighed rules = weigh(settings, ip, peer.port, port_known);
  if (const Network* n = find(always_denied(), ip)) return {PeerVerdict::always_denied, n->reason};
  if (has(settings.broadcast_addresses, ip)) return {PeerVerdict::always_denied, "broadcast"};
  if (rules.denied) return {PeerVerdict::denied_by_rule, "peers.deny"};
  if (has(settings.host_addresses, ip) || has(settings.relay_addresses, ip) || has_endpoint_at(settings, ip))
    return {PeerVerdict::own_host, "own host"};
  if (rules.allowed) return {};
  if (const Network* n = find(private_networks(), ip)) return {PeerVerdict::private_network, n->reason};
  return {};
}

}  // namespace

PeerJudgement PeerPolicy::judge(const TransportAddress& peer, Family family_on_wire, bool port_matters) const {
  const IpAddress& ip = peer.ip;
  const bool port_known = port_matters || peer.port != 0;

  // One address has one spelling: IPv4 inside IPv6, in whatever dress, is refused outright.
  if (family_on_wire != ip.family()) return {PeerVerdict::bad_spelling, "ipv4-mapped"};
  if (!ip.is_v4()) {
    if (const std::string_view form = disguise(ip); !form.empty()) return {PeerVerdict::bad_spelling, form};
  }

  const Weighed rules = weigh(settings_, ip, peer.port, port_known);
  if (!rules.unsafe) {
    // 6to4 and Teredo among them: RFC 8656, 21.4.
    if (const Network* n = find(always_denied(), ip)) return {PeerVerdict::always_denied, n->reason};
    if (has(settings_.broadcast_addresses, ip)) return {PeerVerdict::always_denied, "broadcast"};
  }
  if (rules.denied) return {PeerVerdict::denied_by_rule, "peers.deny"};
  // Before anything can say yes: nothing can be sent to port 0, and the caller's look-up of live ports takes 0 for "no
  // port".
  if (port_known && peer.port == 0) return {PeerVerdict::reflection_port, "port 0"};

  const bool own_relay = has(settings_.relay_addresses, ip);
  const bool own_address = own_relay || has(settings_.host_addresses, ip) || has_endpoint_at(settings_, ip);
  if (port_known && !rules.unsafe_port && is_own_endpoint(settings_, ip, peer.port, own_address || ip.is_loopback()))
    return {PeerVerdict::own_host, "own listener"};  // a client of ours must not become one again through us (P25)
  if (!rules.unsafe) {
    if (own_address && !own_relay && !rules.single) return {PeerVerdict::own_host, "own host"};
    if (settings_.allow_only && !rules.allowed) return {PeerVerdict::not_in_allow_list, "not in peers.allow"};
    if (own_relay && !rules.single_port) return {PeerVerdict::own_relayed, "own relayed address"};
  }

  if (port_known && is_reflection_port(peer.port) && !rules.port_named)
    return {PeerVerdict::reflection_port, "reflection port"};
  if (port_known && std::find(std::begin(turn_ports), std::end(turn_ports), peer.port) != std::end(turn_ports) && !rules.port_named)
    return {PeerVerdict::reflection_port, "port of a TURN server"};
  if (rules.unsafe || own_address) return {};
  if (!rules.allowed) {
    if (const Network* n = find(private_networks(), ip)) return {PeerVerdict::private_network, n->reason};
    for (const auto& prefix : settings_.nat64_prefixes)  // P18
      if (prefix.contains(ip)) return {PeerVerdict::private_network, "nat64"};
  }
  if (!ip.is_v4()) {
    if (const auto inner = inner_v4(ip, settings_.nat64_prefixes))
      return judge_inner(settings_, {*inner, peer.port, 0}, port_known);
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
