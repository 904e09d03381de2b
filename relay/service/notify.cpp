#include "radiotower/service/notify.h"

#if RADIOTOWER_HAVE_SYSTEMD
#include <fmt/format.h>
#include <systemd/sd-daemon.h>
#include <time.h>
#endif

namespace radiotower::notify {

#if RADIOTOWER_HAVE_SYSTEMD

bool available() { return true; }

void ready(std::string_view status) { sd_notify(0, fmt::format("READY=1\nSTATUS={}", status).c_str()); }

void reloading() {
  // Type=notify-reload tells an old READY=1 from the one that ends this reload by the time of its beginning.
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  sd_notify(0, fmt::format("RELOADING=1\nMONOTONIC_USEC={}", std::int64_t{t.tv_sec} * 1'000'000 + t.tv_nsec / 1000).c_str());
}

void stopping() { sd_notify(0, "STOPPING=1"); }
void status(std::string_view text) { sd_notify(0, fmt::format("STATUS={}", text).c_str()); }
void extend_timeout(seconds by) { sd_notify(0, fmt::format("EXTEND_TIMEOUT_USEC={}", std::int64_t{by.count()} * 1'000'000).c_str()); }
void watchdog() { sd_notify(0, "WATCHDOG=1"); }

std::optional<nanoseconds> watchdog_interval() {
  std::uint64_t microseconds = 0;
  if (sd_watchdog_enabled(0, &microseconds) <= 0) return std::nullopt;
  return std::chrono::microseconds(microseconds);
}

#else

bool available() { return false; }
void ready(std::string_view) {}
void reloading() {}
void stopping() {}
void status(std::string_view) {}
void extend_timeout(seconds) {}
void watchdog() {}
std::optional<nanoseconds> watchdog_interval() { return std::nullopt; }

#endif

}  // namespace radiotower::notify
