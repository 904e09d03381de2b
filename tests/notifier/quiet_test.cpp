// Quiet hours over a day, over midnight and over the night the clock is moved.
#include "notifier/quiet.h"

#include <doctest/doctest.h>

#include <cstdlib>
#include <ctime>
#include <string>

using namespace radiotower::notifier;

namespace {

/// TZ for the length of a case; as a rule of its own, so that no zone database is needed.
struct Zone {
  explicit Zone(const char* rule) {
    if (const char* const was = std::getenv("TZ")) was_ = was, had_ = true;
    setenv("TZ", rule, 1);
    tzset();
  }
  ~Zone() {
    had_ ? setenv("TZ", was_.c_str(), 1) : unsetenv("TZ");
    tzset();
  }
  std::string was_;
  bool had_ = false;
};

std::int64_t at(int year, int month, int day, int hour, int minute, int second = 0) {
  std::tm local{};
  local.tm_year = year - 1900, local.tm_mon = month - 1, local.tm_mday = day;
  local.tm_hour = hour, local.tm_min = minute, local.tm_sec = second, local.tm_isdst = -1;
  return static_cast<std::int64_t>(std::mktime(&local)) * 1000;
}

constexpr std::pair night{1320, 420}, lunch{720, 780};

}  // namespace

TEST_CASE("quiet: within a day") {
  const Zone zone("UTC0");
  CHECK(end_of_quiet(lunch, at(2024, 5, 6, 11, 59, 59)) == 0);
  CHECK(end_of_quiet(lunch, at(2024, 5, 6, 12, 0)) == at(2024, 5, 6, 13, 0));
  CHECK(end_of_quiet(lunch, at(2024, 5, 6, 12, 59, 59) + 999) == at(2024, 5, 6, 13, 0));
  CHECK(end_of_quiet(lunch, at(2024, 5, 6, 13, 0)) == 0);
}

TEST_CASE("quiet: over midnight, at the end of a month and of a year") {
  const Zone zone("UTC0");
  CHECK(end_of_quiet(night, at(2024, 5, 6, 21, 59)) == 0);
  CHECK(end_of_quiet(night, at(2024, 5, 6, 22, 0)) == at(2024, 5, 7, 7, 0));
  CHECK(end_of_quiet(night, at(2024, 5, 7, 0, 0)) == at(2024, 5, 7, 7, 0));
  CHECK(end_of_quiet(night, at(2024, 5, 7, 6, 59)) == at(2024, 5, 7, 7, 0));
  CHECK(end_of_quiet(night, at(2024, 5, 7, 7, 0)) == 0);
  CHECK(end_of_quiet(night, at(2024, 2, 29, 23, 0)) == at(2024, 3, 1, 7, 0));
  CHECK(end_of_quiet(night, at(2024, 12, 31, 23, 0)) == at(2025, 1, 1, 7, 0));
}

TEST_CASE("quiet: to midnight, from midnight, the whole day but a minute, and none") {
  const Zone zone("UTC0");
  CHECK(end_of_quiet({1380, 0}, at(2024, 5, 6, 23, 30)) == at(2024, 5, 7, 0, 0));
  CHECK(end_of_quiet({0, 60}, at(2024, 5, 6, 0, 0)) == at(2024, 5, 6, 1, 0));
  CHECK(end_of_quiet({1, 0}, at(2024, 5, 6, 12, 0)) == at(2024, 5, 7, 0, 0));
  CHECK(end_of_quiet({1, 0}, at(2024, 5, 6, 0, 0)) == 0);
  CHECK(end_of_quiet({600, 600}, at(2024, 5, 6, 10, 0)) == 0);
}

TEST_CASE("quiet: it is the local day, and 7:00 is on the wall also after the clock was moved") {
  const Zone zone("CET-1CEST,M3.5.0,M10.5.0/3");
  CHECK(end_of_quiet(night, at(2024, 5, 6, 22, 30)) == at(2024, 5, 7, 7, 0));
  const auto spring = at(2024, 3, 30, 23, 0), autumn = at(2024, 10, 26, 23, 0);
  CHECK(end_of_quiet(night, spring) - spring == 7 * 3600 * 1000);  // the hour from 2:00 is left out
  CHECK(end_of_quiet(night, autumn) - autumn == 9 * 3600 * 1000);  // the hour from 2:00 comes twice
}
