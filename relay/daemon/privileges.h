// What the start of the offload needs and nothing later does.
#pragma once

#include <string>

namespace radiotower::daemon {

/// Takes CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON and CAP_SYS_ADMIN from this thread and those it will start, for good, as
/// far as it has them. False with a sentence in `why` when the kernel or a filter of system calls does not let it.
bool drop_offload_capabilities(std::string& why);

}  // namespace radiotower::daemon
