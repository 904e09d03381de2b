// The clock that every lifetime of the relay is measured on (base/time.h), read.
#pragma once

#include <chrono>

#include "radiotower/base/time.h"

namespace radiotower::daemon {

inline Time steady_now() { return Time(std::chrono::steady_clock::now().time_since_epoch()); }

}  // namespace radiotower::daemon
