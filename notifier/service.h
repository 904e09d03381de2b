// The running notifier: puts the parts together, then waits for signals and watches.
//
//   SIGTERM, SIGINT   takes nothing more, finishes the posts in hand, ends
//   SIGHUP            settings and certificate anew: good ones are swapped in, bad ones change nothing
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "notifier/settings.h"
#include "radiotower/service/log.h"

namespace radiotower::notifier {

/// Blocks the signals above: before the first thread is made.
void block_signals();

/// The soft limit of descriptors up to the hard one.
void raise_descriptor_limit();

/// Runs until a signal ends it; `config_path` is read again at SIGHUP. Exit status: 0 good, 1 it could not start.
int serve(std::shared_ptr<const Settings> settings, const std::string& config_path, Log& log);

/// Log level of the settings.
Priority log_level(const Settings& settings);

}  // namespace radiotower::notifier
