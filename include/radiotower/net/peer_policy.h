// Who may be reached through the relay: one verdict function over one canonical form of an address.
//
// Only PeerPolicy::permit() makes a PermittedPeer, and only a PermittedPeer can be sent to, so that Send, ChannelData,
// CreatePermission and ChannelBind cannot go round it. Immutable after construction; shared between threads freely.
// The rules: docs/peers.md; RFC 8656, 21.1.4 and 21.4.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "radiotower/net/address.h"

namespace radiotower::net {

/// One line of `peers.allow` or `peers.deny`: "10.1.2.3:8443", "10.0.0.0/8", "[2001:db8::1]:8443", "2001:db8::/32",
/// "10.0.0.5-10.0.0.9", a range with ":port" behind it ("10.0.0.0/8:8443"; IPv6 in brackets "[2001:db8::/32]:8443"),
/// and for allow, of one single address, the word "unsafe" behind it ("127.0.0.1/32 unsafe").
struct PeerRule {
  AddressRange range;
  std::optional<std::uint16_t> port;  // none: every port
  bool unsafe = false;

  /// nullopt and a sentence in `why` when the text is no rule ("unsafe" on a range wider than one address is refused).
  static std::optional<PeerRule> parse(std::string_view text, std::string& why);
  std::string text() const;
};

enum class PeerVerdict : std::uint8_t {
  permitted,
  own_relayed,      // an address of this host that relays: permitted while its port is a live relayed port (the caller asks)
  always_denied,    // loopback, link-local, multicast ...: only an exact `unsafe` entry opens it
  private_network,  // denied unless an allow entry covers it
  own_host,         // another service of this host, or our own listener
  reflection_port,  // 19, 53, 111, 123, 137, 161, 389, 1900, 5353, 11211, and port 0 where a port is needed
  denied_by_rule,   // peers.deny
  not_in_allow_list,
  bad_spelling,     // an IPv4 address written as mapped, compatible or translated IPv6
};
std::string_view name(PeerVerdict verdict);  // "rfc1918"-like short word for the log: see PeerJudgement::reason

struct PeerJudgement {
  PeerVerdict verdict = PeerVerdict::permitted;
  std::string_view reason;  // static text: "rfc1918", "loopback", "6to4", "own listener", "peers.deny" ...
};

/// A peer that the policy allows. There is no other way to make one than PeerPolicy::permit().
class PermittedPeer {
 public:
  const TransportAddress& address() const { return address_; }
  bool own_relayed() const { return own_relayed_; }  // then the port must be a live relayed port at the time of sending

 private:
  friend class PeerPolicy;
  PermittedPeer(const TransportAddress& address, bool own) : address_(address), own_relayed_(own) {}
  TransportAddress address_;
  bool own_relayed_ = false;
};

struct PeerPolicySettings {
  std::vector<PeerRule> allow;
  std::vector<PeerRule> deny;
  bool allow_only = false;
  std::vector<IpAddress> host_addresses;        // every address of this host's interfaces
  std::vector<IpAddress> broadcast_addresses;   // of its IPv4 subnets
  std::vector<IpAddress> relay_addresses;       // the addresses relayed addresses are made of, private and external form both
  std::vector<TransportAddress> own_endpoints;  // our listeners, metrics, control; 0.0.0.0 or :: stands for every address of ours
  std::vector<AddressRange> nat64_prefixes;     // the operator's own (RFC 6052 lengths), denied unless allowed; empty by default
};

class PeerPolicy {
 public:
  explicit PeerPolicy(PeerPolicySettings settings);

  /// The one verdict. `family_on_wire`: the family the peer's address was written with. `port_matters` false: CreatePermission
  /// with port 0 (RFC 8656, 10.2: the port is ignored); a port given there is judged like everywhere else.
  /// Precedence: bad spelling; always denied (an exact `unsafe` allow entry overrides); then, of all allow and deny entries
  /// that cover address and port, the narrowest decides, deny on a tie (an entry with a port is narrower than one without);
  /// port 0 where a port is needed; own host (only an allow entry of exactly this one address opens it, our own endpoints only an
  /// `unsafe` one that names the port); allow-only; own relayed (an entry of this one address and port opens that port besides the
  /// live ones); reflection ports (an allow entry that names the port opens it); private networks; else permitted.
  /// An IPv6 address that a NAT64 or ISATAP router would turn into an IPv4 one must pass in both forms.
  /// Cost: bounded by the number of entries, no allocation.
  PeerJudgement judge(const TransportAddress& peer, Family family_on_wire, bool port_matters = true) const;

  /// The peer, when judge() says permitted or own_relayed; nullopt otherwise. `judgement`, when given, gets the verdict.
  std::optional<PermittedPeer> permit(const TransportAddress& peer, Family family_on_wire, bool port_matters = true,
                                      PeerJudgement* judgement = nullptr) const;

  const PeerPolicySettings& settings() const { return settings_; }

 private:
  PeerPolicySettings settings_;
};

}  // namespace radiotower::net
