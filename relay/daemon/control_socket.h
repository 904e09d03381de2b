// The control socket: a Unix stream socket whose file permissions are the authentication; JSON lines both ways, from a thread of its own.
// docs/control.md has the protocol.
#pragma once

#include <memory>
#include <string>

#include "config.h"
#include "operations.h"
#include "radiotower/service/log.h"

namespace radiotower::daemon {

class ControlSocket {
 public:
  /// nullptr with a sentence in `why`: it cannot listen. `operations` and `log` outlive it.
  static std::unique_ptr<ControlSocket> start(const OperatorSettings& settings, Operations& operations, Log& log, std::string& why);
  virtual ~ControlSocket() = default;  // ends the thread

 protected:
  ControlSocket() = default;
};

}  // namespace radiotower::daemon
