// Which addresses this host has: by netlink, because getifaddrs does not tell temporary and deprecated ones apart.
#include <arpa/inet.h>
#include <linux/if_addr.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "radiotower/io/socket.h"

namespace radiotower::io {

namespace {

bool is_up(int descriptor, const std::string& interface, bool& loopback) {
  ifreq request{};
  interface.copy(request.ifr_name, sizeof request.ifr_name - 1);
  if (ioctl(descriptor, SIOCGIFFLAGS, &request) != 0) return false;
  loopback = (request.ifr_flags & IFF_LOOPBACK) != 0;
  return (request.ifr_flags & IFF_UP) != 0;
}

}  // namespace

std::vector<HostAddress> host_addresses() {
  std::vector<HostAddress> found;
  const Socket netlink(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
  const Socket query(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!netlink) return found;
  struct {
    nlmsghdr header{};
    ifaddrmsg message{};
  } request;
  request.header.nlmsg_len = sizeof request;
  request.header.nlmsg_type = RTM_GETADDR;
  request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  request.message.ifa_family = AF_UNSPEC;
  if (send(netlink.descriptor(), &request, sizeof request, 0) < 0) return found;

  for (;;) {
    alignas(nlmsghdr) char buffer[32768];
    const ssize_t received = recv(netlink.descriptor(), buffer, sizeof buffer, 0);
    if (received < 0 && errno == EINTR) continue;
    if (received <= 0) return found;
    auto left = static_cast<unsigned>(received);
    for (auto* header = reinterpret_cast<nlmsghdr*>(buffer); NLMSG_OK(header, left); header = NLMSG_NEXT(header, left)) {
      if (header->nlmsg_type == NLMSG_DONE || header->nlmsg_type == NLMSG_ERROR) return found;
      if (header->nlmsg_type != RTM_NEWADDR) continue;
      const auto* message = static_cast<const ifaddrmsg*>(NLMSG_DATA(header));
      HostAddress address;
      std::uint32_t flags = message->ifa_flags;
      bool has_ip = false;
      auto length = static_cast<int>(IFA_PAYLOAD(header));
      for (auto* a = IFA_RTA(message); RTA_OK(a, length); a = RTA_NEXT(a, length)) {
        const auto* data = static_cast<const std::uint8_t*>(RTA_DATA(a));
        const bool v4 = message->ifa_family == AF_INET;
        // IFA_LOCAL is this end of a point-to-point link, where IFA_ADDRESS is the other; elsewhere they are the same.
        if (a->rta_type == IFA_LOCAL || (a->rta_type == IFA_ADDRESS && !has_ip)) {
          address.ip = v4 ? net::IpAddress::v4(data) : net::IpAddress::v6(data);
          has_ip = true;
        } else if (a->rta_type == IFA_BROADCAST && v4) {
          address.broadcast = net::IpAddress::v4(data);
        } else if (a->rta_type == IFA_FLAGS) {
          std::memcpy(&flags, data, sizeof flags);
        }
      }
      char name[IF_NAMESIZE] = {};
      if (!has_ip || !if_indextoname(message->ifa_index, name)) continue;
      address.interface = name;
      address.deprecated_or_temporary =
          message->ifa_family == AF_INET6 && (flags & (IFA_F_DEPRECATED | IFA_F_TEMPORARY | IFA_F_TENTATIVE | IFA_F_DADFAILED)) != 0;
      if (address.ip.is_link_local() && !address.ip.is_v4()) address.scope = message->ifa_index;
      if (is_up(query.descriptor(), address.interface, address.loopback)) found.push_back(address);
    }
  }
}

}  // namespace radiotower::io
