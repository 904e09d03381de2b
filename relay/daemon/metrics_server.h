// GET /metrics: the text format of Prometheus, on loopback or a Unix socket, from a thread of its own. Counters of the moment, never per user.
#pragma once

#include <memory>
#include <string>

#include "config.h"
#include "operations.h"
#include "radiotower/service/log.h"

namespace radiotower::daemon {

class MetricsServer {
 public:
  /// nullptr with a sentence in `why`: it cannot listen. `operations` and `log` outlive it.
  static std::unique_ptr<MetricsServer> start(const OperatorSettings& settings, Operations& operations, Log& log, std::string& why);
  virtual ~MetricsServer() = default;  // ends the thread

 protected:
  MetricsServer() = default;
};

}  // namespace radiotower::daemon
