// Two questions to the kernel that neither ioctl nor libbpf 1.1 answers. Not by /proc/sys: the unit's sandbox hides it.
#pragma once

#include <cstdint>
#include <optional>

namespace radiotower::offload {

/// net.ipv4.conf.lo.forwarding or net.ipv6.conf.lo.forwarding; `family` is AF_INET or AF_INET6. nullopt: the kernel
/// does not say.
std::optional<bool> loopback_forwards(int family);

/// NETDEV_XDP_ACT_*; nullopt before Linux 6.3.
inline constexpr std::uint64_t xdp_transmits =
    4;  // NETDEV_XDP_ACT_NDO_XMIT: takes frames that came in by another interface
std::optional<std::uint64_t> xdp_features(unsigned interface_index);

}  // namespace radiotower::offload
