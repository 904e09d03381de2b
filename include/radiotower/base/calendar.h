// A point of time as people write it, in UTC. Reads no clock. A year that a calendar has no place for comes out as the seconds themselves.
#pragma once

#include <string>

#include "radiotower/base/time.h"

namespace radiotower {

std::string utc_day(UnixSeconds time);     // "2027-01-01"
std::string utc_minute(UnixSeconds time);  // "2027-01-01 00:00 UTC"
std::string utc_second(UnixSeconds time);  // "2027-01-01 00:00:00 UTC"

}  // namespace radiotower
