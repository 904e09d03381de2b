// The addresses of this host: which ones phones are given, listened at, relayed from; and whom clients may reach from them.
#include <fmt/format.h>

#include <algorithm>

#include "host_checks.h"
#include "radiotower/net/peer_policy.h"

namespace radiotower::cli {

namespace {

std::vector<std::string> usable(const Examined& e) {
  std::vector<std::string> out;
  for (const auto& a : e.addresses)
    if (!a.loopback && !a.ip.is_link_local() && !a.deprecated_or_temporary && !is_inside_of_host(a.interface)) out.push_back(a.ip.text());
  return out;
}

void look_at_phone(const Examined& e, Findings& findings) {
  const std::string phone = e.phone.text();
  const bool behind_nat = e.built
      && std::any_of(e.built->settings->relay_addresses.begin(), e.built->settings->relay_addresses.end(),
                     [&](const auto& a) { return a.external == e.phone; });
  if (e.phone.is_unspecified()) {
    findings.add({"address.none", Severity::warning, "this host has no address on a network but itself",
                  "`ip address` shows what it has; is a cable out, or DHCP silent?", ""});
  } else if (e.of_host(e.phone)) {
    findings.add({"address.own", Severity::good,
                  fmt::format("phones are given {}, of {}{}", phone, e.of_host(e.phone)->interface,
                              e.phone_is_given ? "" : " (a guess; --address says another)"), "", ""});
    if (e.of_host(e.phone)->deprecated_or_temporary)
      findings.add({"address.temporary", Severity::warning,
                    fmt::format("{} is an address for a few hours (IPv6 privacy extensions), and then phones find nobody there",
                                phone), "give them the lasting one: ip -6 address show -temporary", ""});
    if (is_inside_of_host(e.of_host(e.phone)->interface))
      findings.add({"address.container", Severity::fault,
                    fmt::format("{} is of {}, a network inside this host: no phone reaches it", phone,
                                e.of_host(e.phone)->interface), fmt::format("give phones {}", joined(usable(e))), ""});
  } else if (behind_nat) {
    findings.add({"address.own", Severity::good, fmt::format("phones are given {}, which a NAT brings to this host (relay.external)", phone), "",
                  ""});
  } else {
    findings.add({"address.own", Severity::fault, fmt::format("{}, which phones are given, is no address of this host", phone),
                  fmt::format("it has {}; the address of a NAT before it belongs into relay.external = [\"{}/{}\"]", joined(usable(e)), phone,
                              usable(e).empty() ? "PRIVATE" : usable(e).front()), e.where("relay.external")});
  }
}

void look_at_relayed(const Examined& e, Findings& findings) {
  if (!e.built) return;
  const auto& addresses = e.built->settings->relay_addresses;
  const bool is_default = e.config.relay_addresses.empty();
  const bool has_external = std::any_of(addresses.begin(), addresses.end(), [](const auto& a) { return a.local != a.external; });
  std::vector<std::string> good;
  for (std::size_t i = 0; i < addresses.size(); ++i) {
    const auto& a = addresses[i];
    const auto* own = e.of_host(a.local);
    if (!own) continue;
    const bool first = std::none_of(addresses.begin(), addresses.begin() + static_cast<std::ptrdiff_t>(i),
                                    [&](const auto& b) { return b.local.family() == a.local.family(); });
    const std::string list = fmt::format("relay.addresses = [\"{}\"]", fmt::join(usable(e), "\", \""));
    if (is_inside_of_host(own->interface)) {
      findings.add({"relay.container", first ? Severity::fault : Severity::note,
                    fmt::format("{} of {} is {} that calls are relayed from, and that network is inside this host: nobody outside reaches it",
                                a.local.text(), own->interface, first ? "the first address" : "among the addresses"), list,
                    e.where("relay.addresses")});
    } else if (own->loopback || a.local.is_loopback()) {
      findings.add({"relay.loopback", Severity::warning,
                    fmt::format("calls are relayed from {}, which nobody outside this host reaches", a.local.text()), usable(e).empty()
                        ? "give this host an address on the network" : list, e.where("relay.addresses")});
    } else if (own->deprecated_or_temporary) {
      findings.add({"relay.temporary", Severity::warning,
                    fmt::format("{} is an address for a few hours (IPv6 privacy extensions), and calls end with it",
                                a.local.text()), list, e.where("relay.addresses")});
    } else {
      good.push_back(a.local == a.external ? a.local.text() : fmt::format("{} (told as {})", a.local.text(), a.external.text()));
      if (is_default && has_external && a.local == a.external && a.local.is_v4())
        findings.add({"relay.external", Severity::note,
                      fmt::format("{} has no entry in relay.external, as others have: clients are told {}", a.local.text(),
                                  a.local.text()), "an entry for it, or name the others in relay.addresses", e.where("relay.external")});
    }
  }
  if (!good.empty()) findings.add({"relay.addresses", Severity::good, fmt::format("calls are relayed from {}", joined(good)), "", ""});
}

void look_at_interfaces(const Examined& e, Findings& findings) {
  std::vector<std::string> seen, strict;
  for (const auto& a : e.addresses) {
    if (a.loopback || is_inside_of_host(a.interface) || std::find(seen.begin(), seen.end(), a.interface) != seen.end()) continue;
    seen.push_back(a.interface);
    if (const auto mtu = e.host.number("/sys/class/net/" + a.interface + "/mtu")) {
      if (*mtu < 1280)
        findings.add({"network.mtu", Severity::warning,
                      fmt::format("{} carries packets of {} bytes at most, and media may be of 1200 and more: video gets in pieces or not at all",
                                  a.interface, *mtu), fmt::format("ip link set {} mtu 1500, if the network does", a.interface), ""});
      else if (*mtu < 1500)
        findings.add({"network.mtu", Severity::note,
                      fmt::format("{} carries packets of {} bytes, less than the usual 1500 (a tunnel?): enough for media, not for each VPN inside",
                                  a.interface, *mtu), "", ""});
      else findings.add({"network.mtu", Severity::good, fmt::format("{} carries packets of {} bytes", a.interface, *mtu), "", ""});
    }
    const auto of = e.host.number("/proc/sys/net/ipv4/conf/" + a.interface + "/rp_filter"), of_all = e.host.number("/proc/sys/net/ipv4/conf/all/rp_filter");
    if (std::max(of.value_or(0), of_all.value_or(0)) == 1) strict.push_back(a.interface);
  }
  if (seen.size() > 1 && !strict.empty())
    findings.add({"network.reverse-path", Severity::note,
                  fmt::format("the kernel drops what comes in by {} from addresses that it would answer by another interface (rp_filter = 1)",
                              joined(strict)),
                  "where clients come in one way and are answered another: net.ipv4.conf.all.rp_filter = 2", ""});
}

}  // namespace

bool is_inside_of_host(std::string_view interface) {
  for (const std::string_view prefix : {"docker", "virbr", "podman", "cni", "flannel", "cali", "lxcbr", "lxdbr", "vboxnet", "cilium"})
    if (interface.starts_with(prefix)) return true;
  // Docker's other bridges; br-lan is somebody's own.
  return interface.starts_with("br-") && interface.size() == 15 && interface.find_first_not_of("0123456789abcdef", 3) == interface.npos;
}

void check_addresses(const Examined& e, Findings& findings) {
  look_at_phone(e, findings);
  look_at_relayed(e, findings);
  look_at_interfaces(e, findings);
}

namespace {

/// The whole list: whoever pastes it keeps what is open already.
std::string allow_with(const Examined& e, const std::string& entry) {
  std::string all = "peers.allow = [";
  for (const auto& text : e.config.allow) all += fmt::format("\"{}\", ", text.value);
  return all + fmt::format("\"{}\"]", entry);
}

}  // namespace

void check_peers(const Examined& e, Findings& findings) {
  if (!e.built || !e.config_is_read) return;
  const auto& policy = *e.built->settings->peers;
  for (const auto& a : e.built->settings->relay_addresses) {
    const auto judged = policy.judge({a.local, e.config.first_port, 0}, a.local.family());
    if (judged.verdict == net::PeerVerdict::denied_by_rule && !e.config.allow_only)
      findings.add({"peers.own-address", Severity::warning,
                    fmt::format("peers.deny covers {}, which calls are relayed from: two clients of this relay cannot reach each other",
                                a.local.text()),
                    fmt::format("take it out of peers.deny, or {}, which is narrower", allow_with(e, a.local.text())), e.where("peers.deny")});
  }
  if (!e.question.media_server) {
    if (e.config.allow.empty())
      findings.add({"peers.media-server", Severity::note,
                    "clients may reach no private address through this relay, and a media server of your network has one",
                    "--media-server IP:PORT asks for it; peers.allow = [\"10.1.2.3:8443\"] opens it", e.where("peers.allow")});
    else
      findings.add({"peers.media-server", Severity::unknown, "whether clients may reach the media server is not looked at",
                    "--media-server IP:PORT, as Calls and rtcd have it: 10.1.2.3:8443", ""});
    return;
  }
  const auto& media = *e.question.media_server;
  const auto judged = policy.judge(media, media.family());
  if (judged.verdict == net::PeerVerdict::permitted) {
    findings.add({"peers.media-server", Severity::good, fmt::format("clients may reach the media server {} through this relay", media.text()), "",
                  ""});
    return;
  }
  const auto refused = [&](std::string sentence, std::string mend, std::string key) {
    findings.add({"peers.media-server", Severity::fault, std::move(sentence), std::move(mend), e.where(key)});
  };
  const std::string open = allow_with(e, media.text());
  std::string entry;
  for (const auto& text : e.config.deny) {
    std::string why;
    const auto rule = net::PeerRule::parse(text.value, why);
    if (rule && rule->range.contains(media.ip) && (!rule->port || *rule->port == media.port))
      entry = fmt::format(" (\"{}\", {})", text.value, text.source);
  }
  switch (judged.verdict) {
    case net::PeerVerdict::denied_by_rule:
      return refused(fmt::format("peers.deny covers the media server {}{}: calls get 403", media.text(), entry),
                     open + ", which is narrower and wins", "peers.deny");
    case net::PeerVerdict::not_in_allow_list:
      return refused(fmt::format("peers.allow_only is on, and the media server {} is not in peers.allow: calls get 403", media.text()),
                     "add it: " + open, "peers.allow");
    case net::PeerVerdict::private_network:
      return refused(fmt::format("the media server {} has a private address, and {}: calls get 403", media.text(),
                                 e.config.allow.empty() ? "none are open" : "no entry of peers.allow opens it"), open, "peers.allow");
    case net::PeerVerdict::own_relayed:  // ports of allocations alone
    case net::PeerVerdict::own_host:
      return refused(fmt::format("the media server {} is on this host, whose own services nobody reaches through the relay: calls get 403",
                                 media.text()), open, "peers.allow");
    case net::PeerVerdict::always_denied:
      return refused(fmt::format("the media server {} has an address that no relay sends to ({}): calls get 403", media.text(), judged.reason),
                     "give it (ICE host override of Calls, ice_host_override of rtcd) the address that this relay reaches it at", "peers.allow");
    default:
      return refused(fmt::format("the relay refuses the media server {} ({}): calls get 403", media.text(), judged.reason), open, "peers.allow");
  }
}

}  // namespace radiotower::cli
