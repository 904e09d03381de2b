// The control socket: a Unix stream socket whose file permissions are the authentication; JSON lines both ways, from a thread of its own.
// docs/control.md has the protocol.
//
// Bounded in every direction: clients, the length of a line, how long one may be silent, how long one may not read. Who listens to events and
// reads too slowly loses events, and is told how many; no worker ever waits for him.
#pragma once

#include <memory>
#include <string>

#include "config.h"
#include "operations.h"
#include "radiotower/service/log.h"

namespace radiotower::daemon {

struct ControlBounds {
  std::size_t clients = 16;
  std::size_t line = 64 * 1024;           // bytes of a request, line feed included
  std::size_t output = 256 * 1024;        // bytes of answers that wait for one client; events beyond are lost to him
  std::size_t events = 8192;              // that wait for this thread; those beyond are lost to all
  milliseconds idle{120'000};             // without a request; not for those who listen to events
  milliseconds stalled{15'000};           // an answer waits, and nothing of it is taken
  milliseconds stalled_events{600'000};   // the same of those who listen to events
};

class ControlSocket {
 public:
  /// nullptr with a sentence in `why`: it cannot listen. `operations` and `log` outlive it.
  static std::unique_ptr<ControlSocket> start(const OperatorSettings& settings, Operations& operations, Log& log, std::string& why, ControlBounds bounds = {});
  virtual ~ControlSocket() = default;  // ends the thread and removes the file

 protected:
  ControlSocket() = default;
};

}  // namespace radiotower::daemon
