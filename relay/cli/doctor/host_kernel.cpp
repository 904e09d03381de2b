// What the kernel grants: descriptors, buffers, io_uring, connection tracking; XDP where it is asked for; and what systemd says.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <sstream>

#include "host_checks.h"

namespace radiotower::cli {

namespace {

constexpr std::uint64_t few_descriptors = 4096;
constexpr std::int64_t listener_buffer = 8 << 20;  // what the relay asks for (daemon/control.h)

void look_at_descriptors(const Examined& e, Findings& findings) {
  std::uint64_t limit = e.host.own_descriptor_limit();
  std::string of = "a program started from here";
  std::string mend = "LimitNOFILE=131072 in the unit";
  if (e.relay != 0) {
    std::istringstream lines(e.host.text(fmt::format("/proc/{}/limits", e.relay)));
    for (std::string line; std::getline(lines, line);) {
      unsigned long long soft = 0, hard = 0;
      if (!line.starts_with("Max open files")) continue;
      if (std::sscanf(line.c_str(), "Max open files %llu %llu", &soft, &hard) == 2) limit = hard;
      of = "the relay that runs";
      if (!e.unit.found) mend = "ulimit -n 131072 in the shell that starts it; systemd: LimitNOFILE=131072 in the unit";
    }
  } else if (e.unit.descriptor_limit) {
    limit = *e.unit.descriptor_limit;
    of = "the unit";
  }
  const std::uint64_t ports = std::uint64_t{e.config.last_port} - e.config.first_port + 1;
  const std::uint64_t addresses = e.built ? std::max<std::size_t>(1, e.built->settings->relay_addresses.size()) : 1;
  std::uint64_t allocations = ports * addresses;
  if (e.config.limits.allocations != 0) allocations = std::min<std::uint64_t>(allocations, e.config.limits.allocations);
  const Severity severity = e.relay != 0 || e.unit.descriptor_limit ? Severity::warning : Severity::note;  // a shell's limit need not be the relay's
  const std::uint64_t spare = 256, connections = e.config.connections;
  if (limit < few_descriptors)
    findings.add({"kernel.descriptors", severity,
                  fmt::format("{} may open {} descriptors: with about {} calls it is full, as each takes one, and each client over TCP one more", of,
                              limit, limit > spare ? limit - spare : 0), mend, ""});
  else if (limit < std::min<std::uint64_t>(allocations + connections + spare, 32768 + spare))
    findings.add({"kernel.descriptors", Severity::note,
                  fmt::format("{} may open {} descriptors, and the relay has {} ports: with that many calls some are refused before the ports are used up", of, limit, allocations), mend + ", or a smaller relay.ports", e.where("relay.ports")});
  else findings.add({"kernel.descriptors", Severity::good, fmt::format("{} may open {} descriptors", of, limit), "", ""});
}

void look_at_buffers(const Examined& e, Findings& findings) {
  const auto most = e.host.number("/proc/sys/net/core/rmem_max");
  if (!most)
    findings.add({"kernel.buffers", Severity::unknown,
                  "how large a receive buffer may be cannot be read (net.core.rmem_max; a container does not show it)", "", ""});
  else if (*most < listener_buffer)
    findings.add({"kernel.buffers", Severity::warning,
                  fmt::format("a receive buffer may have {} bytes, and the relay asks for {}: bursts of packets are lost before it reads them",
                              *most, listener_buffer),
                  fmt::format("sysctl -w net.core.rmem_max={0} net.core.wmem_max={0}, and the same in /etc/sysctl.d/radiotower.conf",
                              listener_buffer), ""});
  else findings.add({"kernel.buffers", Severity::good, fmt::format("a receive buffer may have {} bytes", *most), "", ""});
}

void look_at_io_uring(const Examined& e, Findings& findings) {
  if (e.config.backend == "epoll") {
    findings.add({"kernel.io-uring", Severity::note, "the relay is told not to use io_uring, which carries more packets",
                  "workers.backend = \"auto\"", e.where("workers.backend")});
    return;
  }
  const auto switched_off = e.host.number("/proc/sys/kernel/io_uring_disabled").value_or(0);
  std::string why = e.host.io_uring_refused();
  if (switched_off == 2) why = "kernel.io_uring_disabled = 2";
  else if (switched_off == 1 && e.user && e.user->uid != 0) {
    const auto group = e.host.number("/proc/sys/kernel/io_uring_group").value_or(-1);
    if (std::none_of(e.user->groups.begin(), e.user->groups.end(), [&](unsigned g) { return g == group; }))
      why = fmt::format("kernel.io_uring_disabled = 1, and {} is not in the group of kernel.io_uring_group", e.user->name);
  }
  if (why.empty()) {
    findings.add({"kernel.io-uring", Severity::good, "the kernel lets programs use io_uring", "", ""});
    return;
  }
  const std::string mend = switched_off != 0 ? "sysctl -w kernel.io_uring_disabled=0, or leave it to epoll: workers.backend = \"epoll\""
      : "a container forbids it (its seccomp profile): allow io_uring_setup, io_uring_enter and io_uring_register";
  if (e.config.backend == "io_uring")
    findings.add({"kernel.io-uring", Severity::fault, fmt::format("workers.backend asks for io_uring, and the kernel refuses it: {}", why), mend,
                  e.where("workers.backend")});
  else
    findings.add({"kernel.io-uring", Severity::note,
                  fmt::format("the kernel refuses io_uring ({}), and the relay uses epoll: it works, and carries fewer packets", why), mend, ""});
}

void look_at_connection_tracking(const Examined& e, Findings& findings) {
  const auto most = e.host.number("/proc/sys/net/netfilter/nf_conntrack_max"), count = e.host.number("/proc/sys/net/netfilter/nf_conntrack_count");
  if (!most) return;
  const std::string mend = "sysctl -w net.netfilter.nf_conntrack_max=262144; or no tracking for the relay's ports: `notrack` in nft";
  if (count && *count * 10 > *most * 8)
    findings.add({"kernel.connection-tracking", Severity::warning,
                  fmt::format("the firewall keeps {} connections of {} at most: when it is full, packets of new calls are dropped", *count,
                              *most), mend, ""});
  else if (*most < 65536)
    findings.add({"kernel.connection-tracking", Severity::note,
                  fmt::format("the firewall keeps {} connections at most, and a call takes two and more", *most), mend, ""});
  else findings.add({"kernel.connection-tracking", Severity::good, fmt::format("the firewall has room for {} connections", *most), "", ""});
}

}  // namespace

void check_kernel(const Examined& e, Findings& findings) {
  look_at_descriptors(e, findings);
  look_at_buffers(e, findings);
  look_at_io_uring(e, findings);
  look_at_connection_tracking(e, findings);
}

void check_offload(const Examined& e, Findings& findings) {
  if (e.config.xdp.word == "off") return;
  const std::string where = e.where("offload.xdp");
  bool good = true;
  const auto add = [&](Severity severity, std::string sentence, std::string mend) {
    good = false;
    findings.add({"offload.xdp", severity, std::move(sentence), std::move(mend), where});
  };
  int error = 0;
  for (const auto& text : e.config.xdp.interfaces) {
    const std::string interface = text.value.substr(0, text.value.find(' '));
    if (!e.host.status("/sys/class/net/" + interface, error))
      add(Severity::fault, fmt::format("there is no interface {} on this host", interface), "`ip link` shows them");
  }
  if (const auto jit = e.host.number("/proc/sys/net/core/bpf_jit_enable"); jit && *jit == 0)
    add(Severity::warning, "the kernel does not compile BPF programs (net.core.bpf_jit_enable = 0): the offload costs more than it saves",
        "sysctl -w net.core.bpf_jit_enable=1");
  if (e.unit.found && e.user && e.user->uid != 0) {
    for (const char* capability : {"CAP_BPF", "CAP_NET_ADMIN"})
      if (e.unit.capabilities.find(capability) == std::string::npos) {
        add(Severity::fault, fmt::format("the offload needs {}, and the unit does not give it", capability),
            "the drop-in radiotower-relay-offload.conf; docs/configuration.md has the steps");
        break;
      }
  }
  for (const char* family : {"ipv4", "ipv6"}) {
    const auto forwards = e.host.number(fmt::format("/proc/sys/net/{}/conf/lo/forwarding", family));
    if (forwards && *forwards == 0)
      add(Severity::warning, fmt::format("net.{}.conf.lo.forwarding is 0, and the offload finds no way for a packet", family),
          fmt::format("sysctl -w net.{}.conf.lo.forwarding=1, which makes the host no router", family));
  }
  if (good) findings.add({"offload.xdp", Severity::good, "the offload finds what it needs", "", ""});
}

void check_service(const Examined& e, Findings& findings) {
  int error = 0;
  if (!e.host.status("/run/systemd/system", error)) {
    if (e.relay == 0) findings.add({"service.state", Severity::unknown, "systemd does not run here, so it is not asked about the unit", "", ""});
    return;
  }
  const auto said = e.host.run({"systemctl", "show", "radiotower-relay.service",
                                "--property=LoadState,ActiveState,SubState,Result,NRestarts,UnitFileState,NeedDaemonReload"});
  if (!said || said->status != 0) {
    findings.add({"service.state", Severity::unknown, "systemctl does not say how the unit is", "", ""});
    return;
  }
  std::map<std::string, std::string> is;
  std::istringstream lines(said->output);
  for (std::string line; std::getline(lines, line);)
    if (const std::size_t equals = line.find('='); equals != line.npos) is[line.substr(0, equals)] = line.substr(equals + 1);
  const char* log = "journalctl -u radiotower-relay -n 50 says why; mended, systemctl reset-failed radiotower-relay && systemctl start radiotower-relay";
  if (is["LoadState"] == "not-found")
    findings.add({"service.state", Severity::note, "there is no unit radiotower-relay.service", "the package brings it; `meson install` too", ""});
  else if (is["ActiveState"] == "failed")
    findings.add({"service.state", Severity::fault, fmt::format("the unit radiotower-relay.service has failed ({})", is["Result"]), log, ""});
  else if (is["SubState"] == "auto-restart")
    findings.add({"service.state", Severity::fault,
                  fmt::format("the unit radiotower-relay.service ends again and again ({} restarts)", is["NRestarts"]), log, ""});
  else if (is["ActiveState"] != "active" && e.relay == 0)
    findings.add({"service.state", Severity::note, fmt::format("the unit radiotower-relay.service is {}", is["ActiveState"]),
                  "systemctl enable --now radiotower-relay", ""});
  else if (is["ActiveState"] == "active" && is["UnitFileState"] == "disabled")
    findings.add({"service.enabled", Severity::warning, "the relay runs now, and will not after the next boot", "systemctl enable radiotower-relay",
                  ""});
  else findings.add({"service.state", Severity::good, fmt::format("the unit radiotower-relay.service is {}", is["ActiveState"]), "", ""});
  if (is["NeedDaemonReload"] == "yes")
    findings.add({"service.reload", Severity::warning, "the unit or a drop-in has changed, and systemd does not know yet",
                  "systemctl daemon-reload && systemctl restart radiotower-relay", ""});
}

}  // namespace radiotower::cli
