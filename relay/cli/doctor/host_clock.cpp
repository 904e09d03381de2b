// The clock: time-limited credentials and certificates are judged by it.

#include "host_checks.h"
#include "radiotower/base/calendar.h"

namespace radiotower::cli {

namespace {

constexpr std::int64_t earliest = 1767225600;  // 2026-01-01: this program is younger
constexpr std::int64_t slack = 300;

}  // namespace

void check_clock(const Examined& e, Findings& findings) {
  const ClockState clock = e.host.clock();
  int error = 0;
  const auto file = e.question.config_file.empty() ? std::nullopt : e.host.status(e.question.config_file, error);
  const bool before_file = file && clock.now + slack < file->changed;
  if (clock.now < earliest || before_file) {
    findings.add({"clock.date", Severity::fault,
                  "the clock of this host is behind: it says " + utc_minute(clock.now) + (before_file ? ", and the configuration was written " + utc_minute(file->changed) : std::string()) +
                      "; expired passwords are taken, and certificates look as if not valid yet",
                  "set it (timedatectl set-time), or let it follow a time server of your network: NTP= in /etc/systemd/timesyncd.conf", ""});
  } else if (clock.synchronised && !*clock.synchronised) {
    findings.add({"clock.synchronised", Severity::note,
                  "no time server sets the clock of this host; where it differs from Mattermost's by more than a password lives, calls get no relay",
                  "one NTP server for all hosts: NTP= in /etc/systemd/timesyncd.conf", ""});
  } else {
    findings.add({"clock.date", clock.synchronised ? Severity::good : Severity::unknown,
                  clock.synchronised ? "the clock follows a time server" : "whether the clock follows a time server is not known", "", ""});
  }
}

}  // namespace radiotower::cli
