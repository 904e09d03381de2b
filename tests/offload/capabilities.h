// The capabilities of the relay's unit: what loads here loads there. The verifier judges a program by them, and
// compiles it by them too.
#pragma once

#include <linux/capability.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cstdint>

namespace radiotower::test {

inline constexpr std::uint64_t net_admin = std::uint64_t{1} << CAP_NET_ADMIN, bpf = std::uint64_t{1} << CAP_BPF,
                               perfmon = std::uint64_t{1} << CAP_PERFMON;

/// Exactly these; false when one of them is not there.
inline bool keep_capabilities(std::uint64_t mask) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, 2> data{};
  for (std::size_t i = 0; i < 2; ++i)
    data[i].effective = data[i].permitted = static_cast<std::uint32_t>(mask >> (32 * i));
  return syscall(SYS_capset, &header, data.data()) == 0;
}

}  // namespace radiotower::test
