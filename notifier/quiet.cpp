#include "notifier/quiet.h"

#include <ctime>

namespace radiotower::notifier {

std::int64_t end_of_quiet(std::pair<int, int> quiet, std::int64_t now_ms) {
  const auto [from, to] = quiet;
  const std::time_t now = static_cast<std::time_t>(now_ms / 1000);
  std::tm local{};
  if (from == to || localtime_r(&now, &local) == nullptr) return 0;
  const int minute = local.tm_hour * 60 + local.tm_min;
  const bool over_midnight = from > to;
  const bool inside = over_midnight ? minute >= from || minute < to : minute >= from && minute < to;
  if (!inside) return 0;
  if (over_midnight && minute >= from) ++local.tm_mday;  // mktime() turns the 32nd into the 1st
  local.tm_hour = to / 60;
  local.tm_min = to % 60;
  local.tm_sec = 0;
  local.tm_isdst = -1;  // as the clock will stand then
  const std::time_t end = std::mktime(&local);
  return end <= now ? 0 : static_cast<std::int64_t>(end) * 1000;
}

}  // namespace radiotower::notifier
