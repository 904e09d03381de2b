#include "privileges.h"

#include <linux/capability.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>

#include <fmt/format.h>

namespace radiotower::daemon {

bool drop_offload_capabilities(std::string& why) {
  constexpr unsigned unwanted[] = {CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON, CAP_SYS_ADMIN};
  // 0: this thread; there is no such call for a whole process.
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct held[_LINUX_CAPABILITY_U32S_3] = {};
  if (syscall(SYS_capget, &header, held) != 0) {
    why = fmt::format("capget: {}", std::strerror(errno));
    return false;
  }
  bool any = false;
  for (const unsigned capability : unwanted) {
    auto& word = held[capability / 32];
    const std::uint32_t bit = std::uint32_t{1} << (capability % 32);
    any = any || ((word.effective | word.permitted | word.inheritable) & bit) != 0;
    word.effective &= ~bit;
    word.permitted &= ~bit;
    word.inheritable &= ~bit;
  }
  // The ambient set follows: the kernel keeps nothing in it that is not both permitted and inheritable.
  if (!any || syscall(SYS_capset, &header, held) == 0) return true;
  why = fmt::format("capset: {}; the unit needs SystemCallFilter=capset, see systemd/radiotower-relay-offload.conf",
                    std::strerror(errno));
  return false;
}

}  // namespace radiotower::daemon
