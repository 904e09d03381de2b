// Checks against a host that is made up: what tests/doctor/run cannot set up without a machine of its own, systemd above all.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cerrno>
#include <map>
#include <set>

#include "host_checks.h"
#include "printer.h"

using namespace radiotower;
using namespace radiotower::cli;

namespace {

class MadeUpHost final : public Host {
 public:
  struct File {
    std::string text;
    FileStatus is;
  };
  std::map<std::string, File> files;
  std::map<std::string, std::string> links;
  std::map<std::string, HostUser> users;
  std::map<std::string, CommandResult> commands;  // by their first word
  std::vector<io::HostAddress> has;
  ClockState time{1'800'000'000, true};
  unsigned uid = 0;

  void put(const std::string& path, std::string text, unsigned mode = 0644, unsigned owner = 0, unsigned group = 0) {
    for (std::size_t slash = 0; slash != path.npos; slash = path.find('/', slash + 1)) files.try_emplace(slash == 0 ? "/" : path.substr(0, slash),
        File{"", {0755, 0, 0, true, 0}});
    files[path] = {std::move(text), {mode, owner, group, false, 0}};
  }

  std::optional<FileStatus> status(const std::string& path, int& error) const override {
    const auto found = files.find(path);
    error = ENOENT;
    return found == files.end() ? std::nullopt : std::optional(found->second.is);
  }
  std::optional<std::string> resolve(const std::string& path, int& error) const override {
    error = ENOENT;
    const auto target = links.find(path);
    const std::string& real = target == links.end() ? path : target->second;
    return files.contains(real) ? std::optional(real) : std::nullopt;
  }
  std::optional<std::string> read(const std::string& path, int& error) const override {
    const auto found = files.find(path);
    error = found == files.end() ? ENOENT : EACCES;
    return found == files.end() || (uid != 0 && (found->second.is.mode & 4) == 0) ? std::nullopt : std::optional(found->second.text);
  }
  std::vector<std::string> list(const std::string& folder) const override {
    std::set<std::string> names;
    for (const auto& [path, file] : files)
      if (path.starts_with(folder + "/")) names.insert(path.substr(folder.size() + 1, path.find('/', folder.size() + 1) - folder.size() - 1));
    return {names.begin(), names.end()};
  }
  std::string link(const std::string& path) const override { return links.contains(path) ? links.at(path) : std::string(); }
  std::optional<HostUser> user(const std::string& name) const override { return users.contains(name) ? std::optional(users.at(name)) : std::nullopt; }
  unsigned own_uid() const override { return uid; }
  std::uint64_t own_descriptor_limit() const override { return 1 << 20; }
  std::optional<CommandResult> run(const std::vector<std::string>& command) const override {
    const auto found = commands.find(command.front());
    return found == commands.end() ? std::nullopt : std::optional(found->second);
  }
  std::vector<io::HostAddress> addresses() const override { return has; }
  ClockState clock() const override { return time; }
  std::string io_uring_refused() const override { return {}; }
  Answer ask(net::Transport, const net::TransportAddress&) const override { return {}; }
  std::string certificate_shown(const net::TransportAddress&) const override { return {}; }
};

struct Collected final : Findings {
  std::vector<Finding> all;
  void add(Finding finding) override { all.push_back(std::move(finding)); }
  void group(std::string_view) override {}
  /// "fault: sentence" of a check; empty: it said nothing but good, or nothing.
  std::string of(std::string_view check) const {
    for (const auto& f : all)
      if (f.check == check && f.severity != Severity::good) return fmt::format("{}: {}", name(f.severity), f.sentence);
    return {};
  }
};

const std::string unit = "/usr/lib/systemd/system/radiotower-relay.service";

MadeUpHost a_host() {
  MadeUpHost host;
  host.put("/proc/sys/net/core/rmem_max", "8388608\n");
  host.put("/proc/sys/net/ipv4/ip_local_port_range", "16384\t32767\n");
  host.put("/run/systemd/system/x", "");
  host.put(unit, "[Service]\nUser=radiotower\nLimitNOFILE=131072\n# LoadCredential=users:/x\n");
  host.users["radiotower"] = {"radiotower", 990, {990, 4000}};
  host.has = {{*net::IpAddress::parse("192.168.0.105"), "eth0", false, false, 0, {}}};
  return host;
}

Collected look(const MadeUpHost& host, void (*check)(const Examined&, Findings&), const HostQuestion& question = {}) {
  Collected said, examined;
  check(examine(host, question, examined), said);
  return said;
}

}  // namespace

TEST_CASE("the unit: drop-ins over it, in the order of their names, the first folder's where two have a name") {
  MadeUpHost host = a_host();
  host.put("/etc/systemd/system/radiotower-relay.service.d/20.conf",
           "[Service]\nLimitNOFILE=4096:70000\nAmbientCapabilities=CAP_BPF CAP_NET_ADMIN\nLoadCredential=secrets:/etc/radiotower/secrets\n");
  host.put("/usr/lib/systemd/system/radiotower-relay.service.d/20.conf", "[Service]\nUser=root\n");
  host.put("/run/systemd/system/radiotower-relay.service.d/10.conf", "[Service]\nUser=relay\nLoadCredential=users:/u\nLoadCredential=\n");
  const Unit read = read_unit(host);
  CHECK(read.found);
  CHECK(read.user == "relay");
  CHECK(read.descriptor_limit == 70000);
  CHECK(read.capabilities.find("CAP_NET_ADMIN") != std::string::npos);
  CHECK(read.credentials == std::map<std::string, std::string>{{"secrets", "/etc/radiotower/secrets"}});
  CHECK_FALSE(read_unit(MadeUpHost()).found);
}

TEST_CASE("a file is in the way of a user: by its bits, by a folder above it, by nothing for root, and groups count") {
  MadeUpHost host;
  host.put("/etc/radiotower/secrets", "", 0640, 0, 4000);
  const HostUser in_group{"radiotower", 990, {990, 4000}}, other{"nobody", 65534, {65534}}, root{"root", 0, {0}};
  CHECK(in_the_way(host, "/etc/radiotower/secrets", in_group).empty());
  CHECK(in_the_way(host, "/etc/radiotower/secrets", root).empty());
  CHECK(in_the_way(host, "/etc/radiotower/secrets", other).find("nobody may not read /etc/radiotower/secrets (mode 0640") == 0);
  CHECK(in_the_way(host, "/etc/radiotower/gone", other) == "there is no file /etc/radiotower/gone");
  host.files["/etc/radiotower"].is.mode = 0750;
  CHECK(in_the_way(host, "/etc/radiotower/secrets", in_group) == "radiotower may not go into the folder /etc/radiotower (mode 0750)");
  // The owner has the owner's bits and no others, as the kernel has it.
  host.files["/etc/radiotower"].is.mode = 0755;
  host.put("/etc/radiotower/mine", "", 0044, 990, 4000);
  CHECK_FALSE(in_the_way(host, "/etc/radiotower/mine", in_group).empty());
}

TEST_CASE("what systemd says of the unit") {
  const auto state = [](std::string output) {
    MadeUpHost host = a_host();
    host.commands["systemctl"] = {0, std::move(output)};
    return look(host, check_service);
  };
  CHECK(state("LoadState=loaded\nActiveState=failed\nSubState=failed\nResult=exit-code\n").of("service.state") == "fault: the unit radiotower-relay.service has failed (exit-code)");
  CHECK(state("LoadState=loaded\nActiveState=activating\nSubState=auto-restart\nNRestarts=7\n").of("service.state").find("again and again (7 restarts)") != std::string::npos);
  CHECK(state("LoadState=not-found\nActiveState=inactive\n").of("service.state") == "note: there is no unit radiotower-relay.service");
  CHECK(state("LoadState=loaded\nActiveState=inactive\nSubState=dead\n").of("service.state") == "note: the unit radiotower-relay.service is inactive");
  CHECK(state("LoadState=loaded\nActiveState=active\nSubState=running\nUnitFileState=disabled\n").of("service.enabled").starts_with("warning: the relay runs now"));
  CHECK(state("LoadState=loaded\nActiveState=active\nSubState=running\nUnitFileState=enabled\nNeedDaemonReload=yes\n").of("service.reload").starts_with("warning: "));
  const auto good = state("LoadState=loaded\nActiveState=active\nSubState=running\nUnitFileState=enabled\nNeedDaemonReload=no\n");
  CHECK(good.all.size() == 1);
  CHECK(good.all.front().severity == Severity::good);
  MadeUpHost without = a_host();
  CHECK(look(without, check_service).of("service.state").starts_with("unknown: "));
}

TEST_CASE("the unit's limit counts while no relay runs, and a shell's is only worth a note") {
  MadeUpHost host = a_host();
  CHECK(look(host, check_kernel).of("kernel.descriptors").empty());
  host.put(unit, "[Service]\nUser=radiotower\nLimitNOFILE=1024\n");
  CHECK(look(host, check_kernel).of("kernel.descriptors").starts_with("warning: the unit may open 1024 descriptors"));
}

TEST_CASE("io_uring for a group alone") {
  MadeUpHost host = a_host();
  host.put("/proc/sys/kernel/io_uring_disabled", "1\n");
  host.put("/proc/sys/kernel/io_uring_group", "4000\n");
  CHECK(look(host, check_kernel).of("kernel.io-uring").empty());
  host.put("/proc/sys/kernel/io_uring_group", "-1\n");
  CHECK(look(host, check_kernel).of("kernel.io-uring").find("radiotower is not in the group") != std::string::npos);
}

TEST_CASE("whose port it is: IPv4 and IPv6 wildcards, by descriptor, and guessed without root") {
  MadeUpHost host = a_host();
  const std::string head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
  host.put("/proc/net/udp6", head + "  1: 00000000000000000000000000000000:0D96 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000   131        0 4711 2\n");
  host.put("/proc/77/comm", "turnserver\n");
  host.put("/proc/77/fd/5", "");
  host.links["/proc/77/fd/5"] = "socket:[4711]";
  CHECK(look(host, check_listeners).of("listeners.other-server") == "fault: UDP port 3478 is taken by coturn, another TURN server (turnserver, process 77), at [::]:3478");
  host.links.clear();
  CHECK(look(host, check_listeners).of("listeners.port-owner").starts_with("unknown: UDP port 3478 is taken by a program of user 131"));
  host.uid = 1000;
  host.files["/proc/77"].is.uid = 131;
  CHECK(look(host, check_listeners).of("listeners.other-server") == "fault: UDP port 3478 is taken by a program of user 131, who runs coturn, another TURN server, at [::]:3478");
  // TCP counts while it listens.
  host.put("/proc/net/tcp", head + "  1: 6900A8C0:0D96 0700A8C0:9C40 01 00000000:00000000 00:00000000 00000000     0        0 9 1\n  2: 0100007F:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 10 1\n");
  bool known = false;
  const auto sockets = bound_sockets(host, known);
  REQUIRE(sockets.size() == 2);
  CHECK(sockets[1].local.text() == "127.0.0.1:22");
  CHECK_FALSE(known);
}

TEST_CASE("the clock: behind this program's age, followed by nobody, not to be asked") {
  MadeUpHost host = a_host();
  CHECK(look(host, check_clock).of("clock.date").empty());
  host.time.synchronised = false;
  CHECK(look(host, check_clock).of("clock.synchronised").starts_with("note: "));
  host.time.synchronised.reset();
  CHECK(look(host, check_clock).of("clock.date").starts_with("unknown: "));
  host.time.now = 1'500'000'000;
  CHECK(look(host, check_clock).of("clock.date").starts_with("fault: the clock of this host is behind: it says 2017-07-14"));
}

TEST_CASE("addresses: IPv6 of privacy extensions, a host without any, strict reverse paths") {
  MadeUpHost host = a_host();
  const auto lasting = *net::IpAddress::parse("2001:db8::1"), passing = *net::IpAddress::parse("2001:db8::77");
  host.has.push_back({lasting, "eth0", false, false, 0, {}});
  host.has.push_back({passing, "eth0", false, true, 0, {}});
  HostQuestion question;
  question.phone = passing;
  CHECK(look(host, check_addresses, question).of("address.temporary").starts_with("warning: 2001:db8::77 is an address for a few hours"));
  question.phone = lasting;
  CHECK(look(host, check_addresses, question).of("address.temporary").empty());
  {
    Collected examined, said;
    Examined e = examine(host, {}, examined);
    auto settings = std::make_shared<turn::Settings>(*e.built->settings);
    settings->relay_addresses = {{passing, passing}};
    e.built->settings = settings;
    check_addresses(e, said);
    CHECK(said.of("relay.temporary").find("calls end with it") != std::string::npos);
  }
  host.has.push_back({*net::IpAddress::parse("10.0.0.1"), "eth1", false, false, 0, {}});
  host.put("/proc/sys/net/ipv4/conf/all/rp_filter", "1\n");
  CHECK(look(host, check_addresses).of("network.reverse-path").find("by eth0, eth1 from") != std::string::npos);
  host.put("/proc/sys/net/ipv4/conf/all/rp_filter", "2\n");
  CHECK(look(host, check_addresses).of("network.reverse-path").empty());
  host.has.clear();
  CHECK(look(host, check_addresses).of("address.none").starts_with("warning: "));
}

TEST_CASE("which networks are inside the host") {
  for (const char* inside : {"docker0", "br-0123456789ab", "virbr0", "podman1"}) CHECK(is_inside_of_host(inside));
  for (const char* outside : {"eth0", "br0", "br-lan", "br-0123456789xy", "enp3s0", "wlan0", "vmbr0"}) CHECK_FALSE(is_inside_of_host(outside));
}

TEST_CASE("the firewall cannot be read: by who asks, without nft, with the old iptables") {
  MadeUpHost host = a_host();
  CHECK(look(host, check_firewall).of("firewall.rules").find("there is no program nft here") != std::string::npos);
  host.commands["nft"] = {1, ""};
  CHECK(look(host, check_firewall).of("firewall.rules") == "unknown: the firewall of this host may not be read by you");
  host.commands["nft"] = {0, "what?"};
  CHECK(look(host, check_firewall).of("firewall.rules") == "unknown: what nft prints cannot be read");
  host.commands["nft"] = {0, R"({"nftables": [{"metainfo": {"version": "1.0.6"}}]})"};
  CHECK(look(host, check_firewall).of("firewall.rules").empty());
  host.put("/proc/net/ip_tables_names", "filter\n");
  CHECK(look(host, check_firewall).of("firewall.rules").find("old iptables") != std::string::npos);
}

TEST_CASE("capabilities of the offload, in the unit") {
  MadeUpHost host = a_host();
  Collected examined, said;
  Examined e = examine(host, {}, examined);
  e.config.xdp.word = "auto";
  check_offload(e, said);
  CHECK(said.of("offload.xdp") == "fault: the offload needs CAP_BPF, and the unit does not give it");
  host.put("/proc/sys/net/core/bpf_jit_enable", "0\n");
  e.unit.capabilities = "CAP_BPF CAP_NET_ADMIN CAP_PERFMON";
  Collected jit;
  check_offload(e, jit);
  CHECK(jit.of("offload.xdp").starts_with("warning: the kernel does not compile BPF programs"));
}
