// Answers a second by source, in memory that never grows: a table of buckets, each one point in time (GCRA), found by a keyed hash of the source.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "radiotower/base/time.h"

namespace radiotower {

/// Each slot: when its bucket will be whole again, in ns; zero is "long ago". `rate` a second, a burst of as many; not 0.
/// Two slots for a hash, and whichever grants: a flood that fills some does not silence whoever meets it in one.
template <std::size_t size>
bool take_from_slots(std::span<std::int64_t, size> slots, std::uint64_t hash, std::uint32_t rate, Time now) {
  const std::int64_t t = now.time_since_epoch().count();
  const std::int64_t each = 1'000'000'000 / rate;
  for (const std::uint64_t part : {hash, hash >> 32}) {
    std::int64_t& whole_at = slots[part % size];
    const std::int64_t next = std::max(whole_at, t) + each;
    if (next > t + each * rate) continue;
    whole_at = next;
    return true;
  }
  return false;
}

}  // namespace radiotower
