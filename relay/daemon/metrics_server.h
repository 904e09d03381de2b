// GET /metrics: the text format of Prometheus, on loopback or a Unix socket, from a thread of its own. Counters of the moment, never per user.
//
// Bounds: 16 connections, beyond which the one goes that has waited longest for a request; a head of 8 KiB and no body; 10 s for the first
// request and for an answer to be taken, 75 s for a later request, 1,000 requests a connection. Scrapes within 50 ms of the last share the next one.
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

  /// A reload: coturn_names. Where it listens stays.
  virtual void apply(const OperatorSettings& settings) = 0;

 protected:
  MetricsServer() = default;
};

}  // namespace radiotower::daemon
