// Whether the firewall of this host lets in what the relay needs: asked of its rules, as a packet of this host itself goes round them.
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "firewall_rules.h"
#include "host_checks.h"

namespace radiotower::cli {

namespace {

constexpr std::uint16_t some_port = 50123;  // of a client

/// Another host of the same network.
net::IpAddress neighbour_of(net::IpAddress ip) {
  ip.bytes[15] = static_cast<std::uint8_t>(ip.bytes[15] ^ (ip.bytes[15] > 2 && ip.bytes[15] < 253 ? 1 : 7));
  return ip;
}

struct Way {
  std::string what;  // "UDP 3478 from clients"
  Packet packet;
  std::string_view key;
  std::string mend;
};

class Firewall {
 public:
  Firewall(const Examined& e, const FirewallRules& rules, Findings& findings) : e_(e), rules_(rules), findings_(findings) {}

  void look() {
    for (const auto& a : e_.built->listeners) at_listener(a, net::Transport::udp, "UDP", "listen.udp");
    for (const auto& a : e_.built->tcp) at_listener(a, net::Transport::tcp, "TCP", "listen.tcp");
    for (const auto& a : e_.built->tls) at_listener(a, net::Transport::tcp, "TLS", "listen.tls");
    for (const auto& a : e_.built->dtls) at_listener(a, net::Transport::udp, "DTLS", "listen.dtls");
    at_range();
    at_way_out();
  }

 private:
  void at_listener(const net::TransportAddress& address, net::Transport transport, const char* spoken, std::string_view key) {
    const auto* own = e_.of_host(address.ip);
    if (!own || own->loopback || (!e_.phone.is_unspecified() && e_.of_host(e_.phone) && address.ip != e_.phone)) return;
    const std::string what = fmt::format("{} port {}, which clients come to over {}", transport == net::Transport::udp ? "UDP" : "TCP", address.port,
                                         spoken);
    judge(rules_.in({transport, {neighbour_of(address.ip), some_port, 0}, address, own->interface}), "firewall.listeners", what,
          fmt::format("{} dport {}", net::name(transport), address.port), fmt::format("{}/{}", address.port, net::name(transport)), key);
  }

  void at_range() {
    const std::uint16_t first = e_.config.first_port, last = e_.config.last_port;
    std::set<std::uint16_t> samples{first, static_cast<std::uint16_t>(first + (last - first) / 2), last};
    for (const std::uint16_t port : rules_.ports())
      for (const int near : {port - 1, static_cast<int>(port), port + 1})
        if (near >= first && near <= last && samples.size() < 1000) samples.insert(static_cast<std::uint16_t>(near));
    for (const auto& a : e_.built->settings->relay_addresses) {
      const auto* own = e_.of_host(a.local);
      if (!own || own->loopback) continue;
      const bool family = e_.question.media_server && e_.question.media_server->family() == a.local.family();
      const net::TransportAddress from = family ? *e_.question.media_server : net::TransportAddress{neighbour_of(a.local), some_port, 0};
      Passage worst;
      std::uint16_t port = 0;
      std::size_t dropped = 0;
      for (const std::uint16_t sample : samples) {
        const Passage passage = rules_.in({net::Transport::udp, from, {a.local, sample, 0}, own->interface});
        dropped += passage.verdict == Passage::Verdict::dropped;
        if (passage.verdict <= worst.verdict) continue;
        worst = passage;
        port = sample;
      }
      const std::string what = dropped == samples.size() ? fmt::format("UDP ports {}-{}, which the relay takes media at", first, last)
                                                         : fmt::format("UDP port {} and perhaps others of {}-{}, which the relay takes media at",
                                                                       port, first, last);
      judge(worst, "firewall.relay-ports", what, fmt::format("udp dport {}-{}", first, last), fmt::format("{}-{}/udp", first, last), "relay.ports");
    }
  }

  void at_way_out() {
    if (!e_.question.media_server) return;
    for (const auto& a : e_.built->settings->relay_addresses) {
      const auto* own = e_.of_host(a.local);
      if (!own || own->loopback || a.local.family() != e_.question.media_server->family()) continue;
      judge(rules_.out({net::Transport::udp, {a.local, e_.config.first_port, 0}, *e_.question.media_server, own->interface}), "firewall.output",
            fmt::format("what the relay sends to the media server {}",
                        e_.question.media_server->text()), fmt::format("{} daddr {}", a.local.is_v4() ? "ip" : "ip6",
                                                                       e_.question.media_server->ip.text()), "", "");
      return;
    }
  }

  /// `match`: of the rule that would let it through; `port`: the same for a tool above nft.
  void judge(const Passage& passage, const char* check, const std::string& what, const std::string& match, std::string port, std::string_view key) {
    const std::string where = key.empty() ? std::string() : e_.where(key);
    if (!said_.insert(what).second) return;
    switch (passage.verdict) {
      case Passage::Verdict::passes:
        findings_.add({check, Severity::good, fmt::format("the firewall of this host lets through {}", what), "", ""}); break;
      case Passage::Verdict::perhaps:
        findings_.add({check, Severity::unknown, fmt::format("whether the firewall lets through {} is not clear from its {}", what, passage.by),
                       "try it from a phone: `radiotower page`", where});
        break;
      case Passage::Verdict::dropped: {
        std::string mend = fmt::format("nft insert rule {} {} accept, and the same in /etc/nftables.conf", passage.chain, match);
        if (passage.chain.find(" firewalld ") != std::string::npos && !port.empty())
          mend = fmt::format("firewall-cmd --permanent --add-port={} && firewall-cmd --reload", port);
        if (passage.has_ufw && !port.empty()) {
          std::replace(port.begin(), port.end(), '-', ':');
          mend = fmt::format("ufw allow {}", port);
        }
        findings_.add({check, Severity::fault, fmt::format("the firewall of this host drops {}: {}", what, passage.by), std::move(mend), where});
        break;
      }
    }
  }

  const Examined& e_;
  const FirewallRules& rules_;
  Findings& findings_;
  std::set<std::string> said_;
};

}  // namespace

void check_firewall(const Examined& e, Findings& findings) {
  if (!e.built) return;
  const bool legacy = e.host.text("/proc/net/ip_tables_names").find("filter") != std::string::npos;
  const auto unknown = [&](std::string sentence, std::string mend) { findings.add({"firewall.rules", Severity::unknown, std::move(sentence),
                                                                                   std::move(mend), ""}); };
  if (legacy)
    unknown("this host has rules of the old iptables, which are not looked at",
            "iptables-legacy-save shows them; do they let in what the relay needs?");
  const auto said = e.host.run({"nft", "-j", "list", "ruleset"});
  if (!said) {
    if (!legacy) unknown("the firewall of this host is not looked at: there is no program nft here", "apt install nftables, which changes no rule");
    return;
  }
  if (said->status != 0) return unknown("the firewall of this host may not be read by you", "run this as root");
  std::string why;
  const auto rules = FirewallRules::read(said->output, why);
  if (!rules) return unknown(why, "`nft list ruleset` shows the rules");
  if (rules->empty()) {
    if (!legacy)
      findings.add({"firewall.rules", Severity::good, "this host has no firewall rules; what stands between it and phones is not seen from here", "",
                    ""});
    return;
  }
  Firewall(e, *rules, findings).look();
}

}  // namespace radiotower::cli
