#include "radiotower/base/calendar.h"

#include <ctime>

namespace radiotower {

namespace {

std::string in_utc(UnixSeconds time, const char* format) {
  const std::time_t value = time;
  std::tm parts{};
  char text[64];
  if (!gmtime_r(&value, &parts)) return std::to_string(time);
  return {text, std::strftime(text, sizeof text, format, &parts)};
}

}  // namespace

std::string utc_day(UnixSeconds time) { return in_utc(time, "%Y-%m-%d"); }
std::string utc_minute(UnixSeconds time) { return in_utc(time, "%Y-%m-%d %H:%M UTC"); }
std::string utc_second(UnixSeconds time) { return in_utc(time, "%Y-%m-%d %H:%M:%S UTC"); }

}  // namespace radiotower
