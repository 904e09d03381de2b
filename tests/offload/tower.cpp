#include "tower.h"

#include <bpf/bpf.h>
#include <net/if.h>
#include <sched.h>
#include <time.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <stdexcept>

namespace radiotower::test {

namespace {

const char* const interfaces[] = {"inside", "outside", "aside"};

bool build() {
  for (int i = 1; i <= 3; ++i) {
    const std::string name = interfaces[i - 1], n = std::to_string(i), net = std::to_string(i - 1);
    const std::string lines[] = {
        "ip link add " + name + "0 address 02:00:00:00:0" + n + ":01 type veth peer name " + name +
            "1 address 02:00:00:00:0" + n + ":02",
        "ethtool -K " + name + "1 gro on",  // the other end polls, as a network card would
        "echo 1 > /proc/sys/net/ipv6/conf/" + name +
            "1/disable_ipv6",  // it says nothing by itself that the program would count
        "ip link set " + name + "0 up",
        "ip link set " + name + "1 up",
        "ip addr add 10.0." + net + ".1/24 dev " + name + "0",
        "ip addr add fd00:" + n + "::1/64 dev " + name + "0 nodad",
        "ip neigh replace 10.0." + net + ".2 lladdr 02:00:00:00:0" + n + ":02 dev " + name + "0 nud permanent",
        "ip neigh replace fd00:" + n + "::2 lladdr 02:00:00:00:0" + n + ":02 dev " + name + "0 nud permanent",
    };
    for (const std::string& line : lines)
      if (!run(line)) return false;
  }
  return true;
}

std::string entered() {
  if (geteuid() != 0) return "not root";
  if (unshare(CLONE_NEWNET) != 0) return std::string("no network namespace: ") + std::strerror(errno);
  if (!build()) return "no veth here (needs ip and ethtool)";
  set_forwarding(true, true);
  set_forwarding(false, true);
  std::string why;
  if (!offload::Program::load({1, 1, 1, 1}, why) && why.find(std::strerror(EPERM)) != std::string::npos) return why;
  return "";  // any other refusal is for the tests to find
}

}  // namespace

bool enter_namespace(std::string& why) {
  static const std::string cannot = entered();
  why = cannot;
  return cannot.empty();
}

bool run(const std::string& command) {
  return std::system(("exec >/dev/null 2>&1; " + command).c_str()) == 0;  // NOLINT: the commands are the tests' own
}

void set_forwarding(bool v4, bool on) {
  std::ofstream(v4 ? "/proc/sys/net/ipv4/conf/lo/forwarding" : "/proc/sys/net/ipv6/conf/lo/forwarding")
      << (on ? '1' : '0');
}

Time steady_now() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return Time(seconds(t.tv_sec) + nanoseconds(t.tv_nsec));
}

Datagram Call::from_client(const Octets& payload) const {
  Datagram d;
  d.source = flow.client;
  d.destination = flow.listener;
  d.payload = channel_data(flow.channel, payload);
  return d;
}

Datagram Call::from_peer(const Octets& payload) const {
  Datagram d;
  d.source = flow.peer;
  d.destination = flow.relay;
  d.payload = payload;
  return d;
}

offload::OffloadSettings Tower::settings() {
  offload::OffloadSettings settings;
  settings.interfaces = {{"inside0", false}, {"outside0", false}};
  for (const char* address : {"10.0.0.1", "10.0.1.1", "10.0.2.1", "fd00:1::1", "fd00:2::1"})
    settings.addresses.push_back(net::IpAddress::parse(address).value());
  return settings;
}

Tower::Tower(const std::vector<net::IpAddress>& more_addresses) {
  offload::OffloadSettings wanted = settings();
  wanted.addresses.insert(wanted.addresses.end(), more_addresses.begin(), more_addresses.end());
  wanted.max_flows = 64;
  wanted.max_users = 8;
  std::string why;
  std::unique_ptr<offload::Offload> started = offload::start(wanted, why);
  if (!started) throw std::runtime_error(why);
  offload_.reset(static_cast<offload::LiveOffload*>(started.release()));
  offload_->keep_alive(never);
  inside_ = if_nametoindex("inside0");
  outside_ = if_nametoindex("outside0");
}

Call Tower::call(bool client_v4, bool peer_v4) {
  return call(client_v4 ? "10.0.0.2:5000" : "[fd00:1::2]:5000", peer_v4 ? "10.0.1.2:6000" : "[fd00:2::2]:6000");
}

Call Tower::call(const char* client, const char* peer, std::uint16_t number, const Bucket* bucket) {
  Call made;
  made.flow.client = at(client);
  made.flow.peer = at(peer);
  made.flow.listener = at(made.flow.client.ip.is_v4() ? "10.0.0.1:3478" : "[fd00:1::1]:3478");
  made.flow.relay = at(made.flow.peer.ip.is_v4() ? "10.0.1.1:50000" : "[fd00:2::1]:50000");
  made.flow.channel = number;
  made.flow.bucket = bucket;
  made.id = offload_->add(made.flow, never);
  return made;
}

Result Tower::run_on(unsigned interface_index, const Octets& frame, std::uint32_t metadata) {
  const auto before = offload_->program().outcomes();
  Result result = run_uncounted(interface_index, frame, metadata);
  const auto after = offload_->outcomes();
  for (std::size_t i = 0; i < after.size(); ++i)
    if (after[i].packets != before[i]) result.outcome += after[i].name;
  return result;
}

Result Tower::run_uncounted(unsigned interface_index, const Octets& frame, std::uint32_t metadata) {
  Result result;
  Octets in(metadata);
  in.insert(in.end(), frame.begin(), frame.end());
  result.frame.resize(8192);
  xdp_md context{};
  context.data = metadata;
  context.data_end = static_cast<std::uint32_t>(in.size());
  context.ingress_ifindex = interface_index;
  xdp_md context_out{};
  LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = in.data(), .data_out = result.frame.data(),
              .data_size_in = static_cast<std::uint32_t>(in.size()),
              .data_size_out = static_cast<std::uint32_t>(result.frame.size()), .ctx_in = &context,
              .ctx_out = &context_out, .ctx_size_in = sizeof context, .ctx_size_out = sizeof context_out, .repeat = 1);
  if (bpf_prog_test_run_opts(offload_->program().descriptor(), &options) != 0) {
    result.outcome = std::string("BPF_PROG_TEST_RUN: ") + std::strerror(errno);
    return result;
  }
  result.action = static_cast<int>(options.retval);
  result.frame.resize(options.data_size_out);
  return result;
}

unsigned Tower::time(const Octets& frame, unsigned repeat) {
  Octets out(8192);
  xdp_md context{};
  context.data_end = static_cast<std::uint32_t>(frame.size());
  context.ingress_ifindex = inside_;
  LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = frame.data(), .data_out = out.data(),
              .data_size_in = static_cast<std::uint32_t>(frame.size()),
              .data_size_out = static_cast<std::uint32_t>(out.size()), .ctx_in = &context,
              .ctx_size_in = sizeof context, .repeat = static_cast<int>(repeat));
  if (bpf_prog_test_run_opts(offload_->program().descriptor(), &options) != 0)
    throw std::runtime_error("BPF_PROG_TEST_RUN");
  return options.duration;
}

}  // namespace radiotower::test
