// Where clients come in: whose the ports are, and whether the relay answers there.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <set>
#include <sstream>

#include "../control/control_link.h"
#include "host_checks.h"
#include "radiotower/base/calendar.h"

namespace radiotower::cli {

namespace {

struct Listener {
  net::Transport transport;  // as it is bound: udp or tcp
  net::Transport spoken;
  net::TransportAddress address;
  std::string_view key;
};

std::vector<Listener> listeners_of(const Examined& e) {
  std::vector<Listener> all;
  if (!e.built) return all;
  for (const auto& a : e.built->listeners) all.push_back({net::Transport::udp, net::Transport::udp, a, "listen.udp"});
  for (const auto& a : e.built->tcp) all.push_back({net::Transport::tcp, net::Transport::tcp, a, "listen.tcp"});
  for (const auto& a : e.built->tls) all.push_back({net::Transport::tcp, net::Transport::tls, a, "listen.tls"});
  for (const auto& a : e.built->dtls) all.push_back({net::Transport::udp, net::Transport::dtls, a, "listen.dtls"});
  return all;
}

bool clashes(const BoundSocket& socket, const Listener& listener) {
  return socket.transport == listener.transport && socket.local.port == listener.address.port &&
         (socket.local.ip == listener.address.ip || socket.local.ip.is_unspecified()
          || (socket.local.ip == net::IpAddress::v4(0U) && listener.address.ip.is_v4()));
}

std::string upper(net::Transport transport) {
  std::string text(net::name(transport));
  for (char& c : text) c = static_cast<char>(c - 'a' + 'A');
  return text;
}

/// Whose a port is, once for each program and port and not for each address.
void look_for_others(const Examined& e, const std::vector<Listener>& listeners, Findings& findings) {
  std::set<std::string> said;
  bool any = false;
  for (const auto& listener : listeners) {
    for (const auto& socket : e.sockets) {
      if (!clashes(socket, listener)) continue;
      if (socket.pid != 0 && is_relay(socket.program)) continue;
      any = true;
      const std::string_view server = turn_server_of(socket.program);
      const std::string who = socket.pid == 0 ? fmt::format("a program of user {}", socket.uid)
                              : socket.is_guess ? fmt::format("a program of user {}, who runs {}, another TURN server", socket.uid, server)
                              : server.empty() ? fmt::format("{} (process {})", socket.program, socket.pid)
                                               : fmt::format("{}, another TURN server ({}, process {})", server, socket.program, socket.pid);
      if (!said.insert(fmt::format("{} {} {}", who, upper(socket.transport), listener.address.port)).second) continue;
      findings.add({server.empty() ? "listeners.port-owner" : "listeners.other-server", socket.pid == 0 ? Severity::unknown : Severity::fault,
                    fmt::format("{} port {} is taken by {}, at {}", upper(socket.transport), listener.address.port, who, socket.local.text()),
                    server == "coturn" ? "systemctl disable --now coturn" : socket.pid == 0 ? "as root this says which, and whether it is the relay"
                        : "stop it, or choose another port here", e.where(listener.key)});
    }
  }
  if (!any && !listeners.empty())
    findings.add({"listeners.port-owner", Severity::good, "no other program has the ports that clients come to", "", ""});
}

void look_at_reach(const Examined& e, const std::vector<Listener>& listeners, Findings& findings) {
  const auto is_loopback = [&](const Listener& l) { return l.address.ip.is_loopback()
                                                   || (e.of_host(l.address.ip) && e.of_host(l.address.ip)->loopback); };
  if (!listeners.empty() && std::all_of(listeners.begin(), listeners.end(), is_loopback)) {
    findings.add({"listeners.loopback", Severity::fault, "the relay listens on this host's own loopback alone, where no phone reaches it",
                  fmt::format("listen.udp = [\"{}:3478\"], and listen.tcp likewise",
                              e.phone.is_unspecified() || e.phone.is_loopback() ? "0.0.0.0" : e.phone.text()), e.where("listen.udp")});
    return;
  }
  if (e.phone.is_unspecified() || !e.of_host(e.phone) || listeners.empty()) return;
  std::set<std::string> there;
  for (const auto& l : listeners)
    if (l.address.ip == e.phone) there.insert(upper(l.spoken));
  if (there.empty())
    findings.add({"listeners.address", e.phone_is_given ? Severity::fault : Severity::warning,
                  fmt::format("the relay does not listen at {}, which phones are given", e.phone.text()),
                  fmt::format("listen.udp = [\"{}:3478\"], and listen.tcp likewise", e.phone.text()), e.where("listen.udp")});
  else
    findings.add({"listeners.address", Severity::good, fmt::format("at {} the relay listens for {}", e.phone.text(), fmt::join(there, ", ")), "",
                  ""});
  // One of them may have been left on another address, or on loopback, alone.
  for (const auto& l : listeners)
    if (!there.empty() && there.insert(upper(l.spoken)).second)
      findings.add({"listeners.address", Severity::warning,
                    fmt::format("the relay listens for {} at {}, and not at {}, which phones are given", upper(l.spoken), l.address.text(), e.phone.text()),
                    fmt::format("{} = [\"{}:{}\"]", l.key, e.phone.is_v4() ? e.phone.text() : "[" + e.phone.text() + "]", l.address.port), e.where(l.key)});
}

void look_at_privileges(const Examined& e, const std::vector<Listener>& listeners, Findings& findings) {
  const auto first = e.host.number("/proc/sys/net/ipv4/ip_unprivileged_port_start").value_or(1024);
  if (e.relay != 0 || !e.user || e.user->uid == 0) return;
  for (const auto& l : listeners) {
    if (l.address.port >= first || e.unit.capabilities.find("CAP_NET_BIND_SERVICE") != std::string::npos) continue;
    findings.add({"listeners.privileged", Severity::fault,
                  fmt::format("port {} is below {}, where {} may not listen", l.address.port, first,
                              e.user->name), "the drop-in radiotower-relay-443.conf, which docs/configuration.md has the steps of", e.where(l.key)});
    return;
  }
}

/// What was written after the relay has read it. A certificate is compared with what the relay shows, by its own check.
void look_at_changes(const Examined& e, Findings& findings) {
  const std::string& named = e.config.control_socket;
  const auto configured = e.host.configured_at(named.empty() ? default_control_socket() : named, static_cast<int>(e.relay));
  if (!configured) return;
  std::vector<std::string> files = {e.question.config_file, e.config.secrets_file, e.config.users_file, e.config.oauth_keys_file};
  for (const auto& realm : e.config.realms) files.insert(files.end(), {realm.secrets_file, realm.users_file});
  std::string changed;
  for (const auto& file : files) {
    int error = 0;
    const auto status = file.empty() ? std::nullopt : e.host.status(file, error);
    if (status && status->changed > *configured + 1 && changed.find(file) == std::string::npos) changed += (changed.empty() ? "" : ", ") + file;
  }
  if (changed.empty())
    findings.add({"configuration.in-use", Severity::good, "the relay that runs has taken over the configuration as it stands", "", ""});
  else
    findings.add({"configuration.in-use", Severity::warning,
                  fmt::format("changed since the relay that runs has read it at {}, so what is said here does not hold yet: {}", utc_minute(*configured), changed),
                  "radiotower reload, which says what is refused and what needs a restart", ""});
}

void ask_it(const Examined& e, const std::vector<Listener>& listeners, Findings& findings) {
  if (e.relay == 0) {
    findings.add({"relay.running", Severity::note, "no relay runs on these ports, so none is asked for an answer",
                  "systemctl enable --now radiotower-relay", ""});
    return;
  }
  {
    findings.add({"relay.running", Severity::good, fmt::format("the relay runs, as process {}", e.relay), "", ""});
    const std::string command = e.host.text(fmt::format("/proc/{}/cmdline", e.relay));
    if (!e.question.config_file.empty() && command.find(std::string("--config") + '\0') != std::string::npos) {
      int error = 0;
      const std::string file = command.substr(command.find(std::string("--config") + '\0') + 9);
      const std::string theirs = file.c_str();
      const auto ours = e.host.resolve(e.question.config_file, error);
      const auto resolved = e.host.resolve(theirs.starts_with('/') ? theirs : fmt::format("/proc/{}/cwd/{}", e.relay, theirs), error);
      if (ours && resolved && *ours != *resolved)
        findings.add({"relay.configuration", Severity::warning,
                      fmt::format("the relay that runs was started with {}, and {} is looked at here", *resolved,
                                  e.question.config_file), fmt::format("--config {}", *resolved), ""});
    }
  }
  look_at_changes(e, findings);
  for (const auto& l : listeners) {
    if (l.address.ip != e.phone && !(e.phone.is_unspecified() || !e.of_host(e.phone))) continue;
    const bool is_bound = std::any_of(e.sockets.begin(), e.sockets.end(), [&](const auto& s) { return clashes(s, l); });
    const std::string what = fmt::format("{} over {}", l.address.text(), upper(l.spoken));
    if (!is_bound) {
      findings.add({"listeners.not-bound", Severity::fault, fmt::format("nobody listens at {}, though the configuration says so", what),
                    "radiotower reload, or systemctl reload radiotower-relay, which opens it; where it cannot be opened the reload says why", e.where(l.key)});
      continue;
    }
    const Answer answer = e.host.ask(l.spoken, l.address);
    if (answer.empty())
      findings.add({fmt::format("listeners.answers-{}", net::name(l.spoken)), Severity::good, fmt::format("{} answers", what), "", ""});
    else
      findings.add({"listeners.answers", Severity::fault, fmt::format("{} does not answer a Binding request from this host: {}", what, answer),
                    "the relay's log (journalctl -u radiotower-relay), and the firewall rules below", e.where(l.key)});
  }
}

}  // namespace

void check_listeners(const Examined& e, Findings& findings) {
  const auto listeners = listeners_of(e);
  look_for_others(e, listeners, findings);
  look_at_reach(e, listeners, findings);
  look_at_privileges(e, listeners, findings);
  ask_it(e, listeners, findings);
}

namespace {

struct PortRange {
  unsigned first = 0, last = 0;
};

/// "32768-65535,40000" of ip_local_reserved_ports.
std::vector<PortRange> ranges_in(const std::string& text) {
  std::vector<PortRange> ranges;
  std::istringstream in(text);
  for (std::string one; std::getline(in, one, ',');) {
    PortRange range;
    if (std::sscanf(one.c_str(), "%u-%u", &range.first, &range.last) == 1) range.last = range.first;
    if (range.last != 0) ranges.push_back(range);
  }
  std::sort(ranges.begin(), ranges.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  return ranges;
}

}  // namespace

void check_relay_ports(const Examined& e, Findings& findings) {
  const unsigned first = e.config.first_port, last = e.config.last_port;
  std::istringstream local(e.host.text("/proc/sys/net/ipv4/ip_local_port_range"));
  PortRange own;
  if (local >> own.first >> own.last) {
    const auto reserved = ranges_in(e.host.text("/proc/sys/net/ipv4/ip_local_reserved_ports"));
    // The first port of a range that is not reserved.
    const auto next_free = [&](unsigned port) {
      for (const auto& range : reserved)
        if (range.first <= port && range.last >= port) port = range.last + 1;
      return port;
    };
    // To reserve is a trap: with the kernel's own range 32768-60999 nothing would be left, and no program could connect anywhere.
    const PortRange beside = first > 2048 + 4096 ? PortRange{std::max(2048U, first > 18432 ? first - 16384 : 2048U), first - 1}
        : PortRange{last + 1, 65535};
    const std::string mend = beside.first < beside.last
        ? fmt::format("sysctl -w net.ipv4.ip_local_port_range=\"{} {}\", and the same in /etc/sysctl.d/radiotower.conf", beside.first, beside.last)
                                                        : std::string("a smaller relay.ports, and net.ipv4.ip_local_port_range beside it");
    const unsigned from = std::max(first, own.first), to = std::min(last, own.last);
    if (next_free(own.first) > own.last)
      findings.add({"kernel.ports-left", Severity::fault,
                    fmt::format("no port is left for what programs of this host send: {}-{} are theirs, and all of them are reserved", own.first,
                                own.last), mend, ""});
    if (from <= to && next_free(from) <= to)
      findings.add({"relay.port-range", Severity::warning,
                    fmt::format("other programs of this host are given ports {}-{} for what they send, and those are the relay's: now and then a call gets none", next_free(from), to), mend, e.where("relay.ports")});
    else findings.add({"relay.port-range", Severity::good, fmt::format("no other program is given a port of {}-{}", first, last), "", ""});
  } else {
    findings.add({"relay.port-range", Severity::unknown, "which ports this host gives to other programs cannot be read", "", ""});
  }
  if (!e.built) return;
  std::set<std::string> others;
  unsigned count = 0;
  for (const auto& socket : e.sockets) {
    if (socket.transport != net::Transport::udp || socket.local.port < first || socket.local.port > last
        || (socket.pid != 0 && is_relay(socket.program)))
      continue;
    const auto& addresses = e.built->settings->relay_addresses;
    const bool ours = socket.local.ip.is_unspecified()
        || std::any_of(addresses.begin(), addresses.end(), [&](const auto& a) { return a.local == socket.local.ip; });
    const bool listener = std::any_of(e.built->listeners.begin(), e.built->listeners.end(),
                                      [&](const auto& l) { return l.port == socket.local.port; });
    if (!ours || listener) continue;
    ++count;
    if (others.size() < 4)
      others.insert(fmt::format("{} ({})", socket.program.empty() ? fmt::format("user {}", socket.uid) : socket.program, socket.local.port));
  }
  if (count == 0) findings.add({"relay.ports-free", Severity::good, "no other program has a port of the relay's range", "", ""});
  else
    findings.add({"relay.ports-free", Severity::note,
                  fmt::format("{} of the relay's ports {} other programs': {}{}", count, count == 1 ? "is" : "are", fmt::join(others, ", "),
                              count > others.size() ? ", ..." : ""),
                  "harmless while it is a few; a program that always takes one wants another, or relay.ports another range", e.where("relay.ports")});
}

}  // namespace radiotower::cli
