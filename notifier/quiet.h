// Quiet hours: until when a post of a route with `quiet` is held back. A pure function of the time and TZ.
#pragma once

#include <cstdint>
#include <utility>

namespace radiotower::notifier {

/// `quiet`: [first, second) in minutes of the local day; {1320, 420} is 22:00 to 07:00 of the next day, equal ones are
/// no time at all. Returns the end of the quiet time that `now_ms` (Unix milliseconds) falls into; 0 when it falls into
/// none. On the day the clock is moved the end is the one on the wall.
std::int64_t end_of_quiet(std::pair<int, int> quiet, std::int64_t now_ms);

}  // namespace radiotower::notifier
