// The two times of the relay. No clock is read here: the caller passes `Now` in, once a turn of its loop.
#pragma once

#include <chrono>
#include <cstdint>

namespace radiotower {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using std::chrono::seconds;

struct SteadyTag {
  using rep = std::int64_t;
  using period = std::nano;
  using duration = nanoseconds;
};

/// A point on a clock that never jumps (CLOCK_MONOTONIC). Every lifetime of the relay is measured on it.
using Time = std::chrono::time_point<SteadyTag, nanoseconds>;

/// Seconds since 1970. Used for one thing alone: the expiry in a REST user name.
using UnixSeconds = std::int64_t;

struct Now {
  Time steady;
  UnixSeconds unix_time = 0;
};

inline constexpr Time never = Time::max();

}  // namespace radiotower
