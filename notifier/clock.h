// The two clocks of the notifier, read. Pure code does not include this: it is handed the time.
#pragma once

#include <chrono>

#include "notifier/queue.h"
#include "radiotower/base/time.h"

namespace radiotower::notifier {

/// For leases, rests and what is shown to people; may be set back. A second of it is 1000.
inline UnixMilliseconds unix_now() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}
/// Never jumps.
inline Time steady_now() { return Time(std::chrono::steady_clock::now().time_since_epoch()); }

}  // namespace radiotower::notifier
