// What systemd is told of us (sd_notify(3)). Without libsystemd, or without systemd around us, every call does nothing.
#pragma once

#include <optional>
#include <string_view>

#include "radiotower/base/time.h"

namespace radiotower::notify {

bool available();  // built with libsystemd

void ready(std::string_view status);
void reloading();
void stopping();
void status(std::string_view text);  // what `systemctl status` shows
/// While stopping: the service manager is to wait for so long until it hears this again, whatever TimeoutStopSec= says.
void extend_timeout(seconds by);
void watchdog();
/// WatchdogSec= of our unit; nullopt when systemd does not watch us.
std::optional<nanoseconds> watchdog_interval();

}  // namespace radiotower::notify
