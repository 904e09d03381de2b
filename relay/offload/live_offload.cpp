#include "live_offload.h"

#include <bpf/libbpf.h>
#include <linux/capability.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <utility>

#include "netlink.h"

namespace radiotower::offload {

namespace {

Time steady_now() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return Time(seconds(t.tv_sec) + nanoseconds(t.tv_nsec));
}

constexpr std::array outcome_names{
#define RADIOTOWER_OUTCOME(name) std::string_view(#name),
    RADIOTOWER_OFFLOAD_OUTCOMES(RADIOTOWER_OUTCOME)
#undef RADIOTOWER_OUTCOME
};
static_assert(outcome_names.size() == outcome_count);

std::string forwarding_is_off(bool v4) {
  const std::string name = v4 ? "net.ipv4.conf.lo.forwarding" : "net.ipv6.conf.lo.forwarding";
  return name + " is 0, so that the kernel tells the program no way to an " + (v4 ? "IPv4" : "IPv6") +
         " address (sysctl -w " + name + "=1; of the loopback interface alone, it makes the host no router)";
}

/// Without CAP_PERFMON, which is a part of CAP_SYS_ADMIN, the kernel puts barriers against speculation into the
/// program.
bool is_trusted() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, 2> data{};
  if (syscall(SYS_capget, &header, data.data()) != 0) return false;
  const auto has = [&](unsigned capability) { return (data[capability / 32].effective >> (capability % 32) & 1) != 0; };
  return has(CAP_PERFMON) || has(CAP_SYS_ADMIN);
}

}  // namespace

LiveOffload::LiveOffload(std::unique_ptr<Program> program, const std::vector<net::IpAddress>& addresses)
    : program_(std::move(program)), addresses_(addresses), buckets_(program_->buckets()), flows_(*program_, buckets_) {}

std::string LiveOffload::attach(const OffloadSettings& settings) {
  for (const net::IpAddress& address : addresses_)
    if (!program_->add_address(address)) return "the table of the relay's own addresses cannot be filled";

  // The look-up of the way asks as if from lo; see the program.
  bool any_way = false;
  for (const bool v4 : {true, false}) {
    const bool wanted =
        std::any_of(addresses_.begin(), addresses_.end(), [&](const auto& a) { return a.is_v4() == v4; });
    if (!wanted) continue;
    if (loopback_forwards(v4 ? AF_INET : AF_INET6).value_or(true))
      any_way = true;
    else
      notes_.push_back(forwarding_is_off(v4));
  }
  if (!any_way) return notes_.empty() ? "there are no addresses to offload for" : notes_.front();

  std::vector<Interface> wanted = settings.interfaces;
  if (settings.automatic) {
    wanted.clear();
    for (std::string& name : interfaces_with(addresses_)) wanted.push_back({std::move(name), false});
  }
  for (const Interface& interface : wanted) {
    const auto same = [&](const Attached& a) { return a.name == interface.name; };
    if (std::any_of(attached_.begin(), attached_.end(), same)) continue;
    Link link;
    std::string why;
    if (!link.attach(program_->descriptor(), interface, settings.automatic, why)) {
      if (!settings.automatic) return why;
      notes_.push_back(std::move(why));
      continue;
    }
    attached_.push_back(link.attached());
    links_.push_back(std::move(link));
  }
  if (links_.empty()) {
    std::string why = "no interface can run the offload";
    for (const std::string& note : notes_) why += "; " + note;
    return why;
  }

  // A frame that came in by a driver can leave only by a driver; one that came in in generic mode by either.
  const bool any_native = std::any_of(attached_.begin(), attached_.end(), [](const Attached& a) { return a.native; });
  if (!is_trusted())
    notes_.emplace_back("without CAP_PERFMON at the start the kernel's barriers make a packet three times as dear");
  program_->redirect_back(std::any_of(links_.begin(), links_.end(), [](const Link& link) { return link.is_veth(); }));
  for (const Link& link : links_) {
    if (link.attached().native == any_native && link.transmits()) {
      if (!program_->add_egress(link.attached().index))
        return link.attached().name + ": the table of interfaces cannot be filled";
    } else if (links_.size() > 1) {
      notes_.push_back(link.attached().name +
                       ": takes no packets from the other interfaces, only back what came in by itself");
    }
  }
  return {};
}

bool LiveOffload::is_ours(const net::IpAddress& address) const {
  return std::find(addresses_.begin(), addresses_.end(), address) != addresses_.end();
}

FlowId LiveOffload::add(const Flow& flow, Time until) {
  // What goes to an address of ours must reach its socket; what comes to another one is not looked at.
  if (!is_ours(flow.listener.ip) || !is_ours(flow.relay.ip) || is_ours(flow.peer.ip) || is_ours(flow.client.ip))
    return no_flow;
  return flows_.add(flow, until, steady_now());
}

Counts LiveOffload::remove(FlowId flow) { return flows_.remove(flow, steady_now()); }

std::vector<Outcome> LiveOffload::outcomes() const {
  const Program::OutcomeCounts counts = program_->outcomes();
  std::vector<Outcome> named;
  named.reserve(outcome_count);
  for (std::size_t i = 0; i < outcome_count; ++i) named.push_back({outcome_names[i], counts[i]});
  return named;
}

std::unique_ptr<Offload> start(const OffloadSettings& settings, std::string& why) {
  constexpr std::size_t automatic_interfaces = 256;  // more than any host has addresses on
  const std::size_t interfaces = std::max(settings.interfaces.size(), automatic_interfaces);
  auto program = Program::load({settings.max_flows, settings.max_users, settings.addresses.size(), interfaces}, why);
  if (!program) {
    if (!is_trusted()) why += "; kernels before 6.8 need CAP_PERFMON besides";
    return nullptr;
  }
  auto offload = std::make_unique<LiveOffload>(std::move(program), settings.addresses);
  why = offload->attach(settings);
  if (!why.empty()) return nullptr;
  return offload;
}

std::string_view compiled_in() {
  static const std::string text =
      std::string("libbpf ") + (libbpf_version_string() + 1) + ", program compiled in";  // "v1.1"
  return text;
}

}  // namespace radiotower::offload
