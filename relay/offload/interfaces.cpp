#include "interfaces.h"

#include <bpf/bpf.h>
#include <ifaddrs.h>
#include <linux/ethtool.h>
#include <linux/if_link.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "netlink.h"

namespace radiotower::offload {

namespace {

struct Nature {
  bool ethernet = false;
  std::string driver;
};

Nature nature_of(const std::string& name) {
  Nature nature;
  const int query = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (query < 0) return nature;
  ifreq request{};
  name.copy(request.ifr_name, sizeof request.ifr_name - 1);
  if (ioctl(query, SIOCGIFHWADDR, &request) == 0) nature.ethernet = request.ifr_hwaddr.sa_family == ARPHRD_ETHER;
  ethtool_drvinfo driver{};
  driver.cmd = ETHTOOL_GDRVINFO;
  request.ifr_data = reinterpret_cast<char*>(&driver);
  if (ioctl(query, SIOCETHTOOL, &request) == 0)
    nature.driver.assign(driver.driver, strnlen(driver.driver, sizeof driver.driver));
  close(query);
  return nature;
}

int attach_in_mode(int program, unsigned index, std::uint32_t mode) {
  LIBBPF_OPTS(bpf_link_create_opts, options, .flags = mode);
  const int descriptor = bpf_link_create(program, static_cast<int>(index), BPF_XDP, &options);
  return descriptor >= 0 ? descriptor : -errno;
}

std::string refusal(int error) {
  switch (error) {
    case EBUSY:
    case EEXIST: return "another XDP program is on it, which is left alone";
    case EOPNOTSUPP: return "the driver has no native XDP";
    case EPERM: return "attaching needs CAP_BPF and CAP_NET_ADMIN";
    default:
      return std::string("the driver refuses native XDP: ") + std::strerror(error) +
             " (an MTU above 3,500 and LRO are common reasons)";
  }
}

}  // namespace

std::vector<std::string> interfaces_with(const std::vector<net::IpAddress>& addresses) {
  std::vector<std::string> names;
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) return names;
  for (const ifaddrs* entry = list; entry; entry = entry->ifa_next) {
    if (!entry->ifa_addr || !(entry->ifa_flags & IFF_UP) || (entry->ifa_flags & IFF_LOOPBACK)) continue;
    const std::size_t length = entry->ifa_addr->sa_family == AF_INET    ? 16
                               : entry->ifa_addr->sa_family == AF_INET6 ? 28
                                                                        : 0;
    const auto address = net::TransportAddress::from_sockaddr(entry->ifa_addr, length);
    if (length == 0 || !address || std::find(addresses.begin(), addresses.end(), address->ip) == addresses.end())
      continue;
    if (std::find(names.begin(), names.end(), entry->ifa_name) == names.end()) names.emplace_back(entry->ifa_name);
  }
  freeifaddrs(list);
  return names;
}

Link::Link(Link&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)),
      attached_(std::move(other.attached_)),
      transmits_(other.transmits_),
      is_veth_(other.is_veth_) {}

Link::~Link() {
  if (descriptor_ >= 0) close(descriptor_);
}

bool Link::attach(int program, const Interface& interface, bool automatic, std::string& why) {
  const auto refuse = [&](const std::string& reason) {
    why = interface.name + ": " + reason;
    return false;
  };
  const unsigned index = if_nametoindex(interface.name.c_str());
  if (index == 0) return refuse("no such interface");
  const Nature nature = nature_of(interface.name);
  if (!nature.ethernet) return refuse("no Ethernet interface");

  bool native = true;
  int descriptor = attach_in_mode(program, index, XDP_FLAGS_DRV_MODE);
  if (descriptor < 0 && interface.generic_allowed && descriptor != -EBUSY && descriptor != -EEXIST &&
      descriptor != -EPERM) {
    native = false;
    descriptor = attach_in_mode(program, index, XDP_FLAGS_SKB_MODE);
  }
  if (descriptor < 0) return refuse(refusal(-descriptor));
  descriptor_ = descriptor;
  attached_ = {interface.name, index, native};

  // Asked after the program is there, since some drivers can transmit only then. Older kernels do not tell.
  const auto features = xdp_features(index);
  transmits_ = !native || !features || (*features & xdp_transmits) != 0;
  // A veth takes frames for the other end only if that end polls (NAPI); they would be lost without a sign, which is
  // worse than slow.
  is_veth_ = nature.driver == "veth";
  if (is_veth_ && native && (!transmits_ || (automatic && !features))) {
    close(std::exchange(descriptor_, -1));
    // The kernel notices when the other end turns GRO on while it is up, or when this one comes up; not when it was turned
    // on before the other end came up.
    return refuse("a veth whose other end would lose the frames; turn GRO on there (ethtool -K NAME gro on; if it is on "
                  "already, off and on again)");
  }
  return true;
}

}  // namespace radiotower::offload
