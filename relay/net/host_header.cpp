#include "radiotower/net/host_header.h"

#include <algorithm>
#include <string>

#include "radiotower/net/address.h"

namespace radiotower::net {

bool names_this_host(std::string_view host) {
  if (const std::size_t colon = host.rfind(':'); colon != host.npos && host.find_first_not_of("0123456789", colon + 1) == host.npos) {
    const std::string_view front = host.substr(0, colon);
    if (front.find(':') == front.npos || front.ends_with(']')) host = front;  // else it is in an IPv6 address without brackets
  }
  if (host.starts_with('[') && host.ends_with(']')) {
    const auto ip = IpAddress::parse(host.substr(1, host.size() - 2));
    return ip && !ip->is_v4();
  }
  std::string name(host);
  std::transform(name.begin(), name.end(), name.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  return name.empty() || name == "localhost" || name.ends_with(".localhost") || IpAddress::parse(name);
}

}  // namespace radiotower::net
