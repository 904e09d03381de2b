// The queue as the command line opens it: beside the running service, and perhaps as root.
#pragma once

#include <exception>
#include <memory>
#include <string>

#include "notifier/queue.h"
#include "notifier/settings.h"

namespace radiotower::notifier {

/// One line on stderr; 1, the exit status of what could not be done.
int complain(const std::string& what);

/// Root becomes the owner of the state directory first, for the rest of the process: files that root leaves there the
/// service could not open. Throws SqlError.
std::unique_ptr<Queue> open_queue(const Settings& settings);
/// SQLite's file is not there: the service has never run.
bool no_queue_yet(const Settings& settings);
/// A mistake of the database as one line; what may not be opened says who may.
int complain_of_queue(const Settings& settings, const std::exception& error);

/// Runs `work` on the queue.
template <typename Work>
int with_queue(const Settings& settings, Work&& work) {
  try {
    return work(*open_queue(settings));
  } catch (const std::exception& error) {
    return complain_of_queue(settings, error);
  }
}

}  // namespace radiotower::notifier
