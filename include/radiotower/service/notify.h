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
void watchdog();
/// WatchdogSec= of our unit; nullopt when systemd does not watch us.
std::optional<nanoseconds> watchdog_interval();

}  // namespace radiotower::notify
