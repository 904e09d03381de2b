// What the operator's interfaces (control socket, metrics) may ask of a running relay. Thread-safe; no call is made on a worker's thread.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "radiotower/base/time.h"
#include "radiotower/net/address.h"
#include "radiotower/offload/offload.h"
#include "radiotower/tls/identity.h"
#include "radiotower/turn/actions.h"
#include "radiotower/turn/allocation_facts.h"
#include "radiotower/turn/shared.h"
#include "worker.h"

namespace radiotower::daemon {

/// What came of a reload. Sentences, in the order of the file; no secret stands in any of them.
struct ReloadResult {
  bool good = false;
  std::vector<std::string> errors;         // "relay.toml:3: listen.udp: ..."; nothing was changed then
  std::vector<std::string> changes;        // "listen.tls: [] -> [\"0.0.0.0:443\"]", "credentials.users_file: 2 users more, 1 fewer"
  std::vector<std::string> needs_restart;  // "workers.count: 2 -> 4": what stays as it was until then
  std::vector<std::string> notes;
};

struct Killed {
  std::size_t ended = 0;     // allocations, on the workers that answered
  unsigned silent = 0;       // workers that did not: what they have may be alive
};

/// How the relay stands as a whole.
struct Standing {
  std::string version;
  std::string realm;  // the default one
  std::string backend;  // "io_uring", "epoll"
  std::string why_not_io_uring;  // empty: it is
  std::string offload;  // the interfaces; "off"
  std::int64_t started_at = 0;  // Unix seconds
  unsigned workers = 0;
  std::vector<std::string> listeners;  // "udp 0.0.0.0:3478"
  std::vector<std::string> relay_addresses;  // "192.168.0.105", "192.168.0.105 as 198.51.100.7"
  std::uint16_t first_port = 0, last_port = 0;
  bool draining = false;
  bool ending = false;  // draining because of SIGTERM: end_drain() does nothing
  std::optional<std::int64_t> drain_deadline;  // Unix seconds; none: when the last allocation ends
  std::uint64_t reloads_good = 0, reloads_refused = 0;
  std::int64_t reloaded_at = 0;  // Unix seconds of the last good one; 0: none
  std::vector<tls::CertificateFacts> certificates;
};

/// Hears of every turn::Event. Called on workers' threads, on the control path: must not block.
class EventSink {
 public:
  virtual void on_event(unsigned worker, const turn::Event& event) = 0;

 protected:
  ~EventSink() = default;
};

class Operations {
 public:
  virtual Standing standing() = 0;
  /// One a worker that answers within `patience`.
  virtual std::vector<WorkerReport> reports(milliseconds patience) = 0;
  virtual turn::Shared::Usage usage() = 0;
  virtual std::vector<offload::Outcome> offload_outcomes() = 0;  // empty: off
  virtual std::uint64_t log_lines_dropped() = 0;

  /// A copy of every allocation. Returns how many workers did not answer: their allocations are missing.
  virtual unsigned allocations(std::vector<turn::AllocationFacts>& all, milliseconds patience) = 0;
  /// Ends those that `which` names. `which` runs on workers' threads, one after the other; on one that is silent it may run later still.
  virtual Killed kill(const std::function<bool(const turn::AllocationFacts&)>& which, milliseconds patience) = 0;

  /// Waits until it has been done: as long as it takes to read the files.
  virtual ReloadResult reload() = 0;
  /// No new allocations from now on; the process ends with the last one, or at the deadline. None: no deadline. A second call replaces the deadline.
  /// Both wait until every worker knows.
  virtual void drain(std::optional<seconds> deadline) = 0;
  virtual void end_drain() = 0;  // new allocations are taken again

  /// Until it is removed; what `sink` is must live until remove_sink() has returned.
  virtual void add_sink(EventSink& sink) = 0;
  virtual void remove_sink(EventSink& sink) = 0;

 protected:
  ~Operations() = default;
};

}  // namespace radiotower::daemon
