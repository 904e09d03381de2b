// What an nftables ruleset does with one packet, as far as can be told from outside. Pure: the ruleset comes in as text.
//
// A rule that holds something which is not understood (a match of iptables without a name of nft, a rate limit) may match or not: what it
// drops is then left out of account, and what it accepts makes the answer `perhaps`.
#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <string_view>

#include "radiotower/net/address.h"

namespace radiotower::cli {

/// The first packet of something, at this host's door.
struct Packet {
  net::Transport transport = net::Transport::udp;  // udp or tcp
  net::TransportAddress from, to;
  std::string interface;  // comes in by it, or goes out by it
};

struct Passage {
  enum class Verdict : std::uint8_t { passes, perhaps, dropped };
  Verdict verdict = Verdict::passes;
  std::string by;     // what drops it, or may: "rule drop, handle 7 in `nft -a list chain inet filter input`"
  std::string chain;  // "inet filter input": where it is dropped
  bool has_ufw = false;  // these rules are of ufw
};

class FirewallRules {
 public:
  /// `json`: what `nft -j list ruleset` prints. Null and a sentence: it is not that.
  static std::unique_ptr<FirewallRules> read(std::string_view json, std::string& why);
  virtual ~FirewallRules() = default;
  virtual bool empty() const = 0;  // no chain at input, output or before them
  virtual Passage in(const Packet& packet) const = 0;
  virtual Passage out(const Packet& packet) const = 0;
  /// Ports that rules speak of: where verdicts may change.
  virtual std::set<std::uint16_t> ports() const = 0;
};

}  // namespace radiotower::cli
