// What a service, or a tool that handles keys, asks of its own process at the start.
#pragma once

namespace radiotower {

/// No core dumps: memory holds keys. Also keeps other processes of our user from reading it (prctl(2), PR_SET_DUMPABLE).
void forbid_core_dumps();

}  // namespace radiotower
