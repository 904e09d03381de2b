// What /metrics says, as text, of a copy of what the relay has counted. docs/metrics.md is the manual; a test compares it with a scrape.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "operations.h"
#include "radiotower/service/exposition.h"
#include "radiotower/turn/shared.h"
#include "worker.h"

namespace radiotower::daemon {

/// Payload of allocations that have ended, as coturn counts it.
struct FinishedTraffic {
  std::uint64_t packets_to_peer = 0, bytes_to_peer = 0, packets_to_client = 0, bytes_to_client = 0;
};

struct Snapshot {
  Standing standing;
  struct OfWorker {
    WorkerReport report;    // of now, or the last one, so that no counter goes backwards
    bool answered = false;  // of now
  };
  std::vector<OfWorker> workers;
  turn::Shared::Usage usage;
  std::vector<offload::Outcome> offload;
  std::uint64_t log_lines_dropped = 0;
  std::map<std::string, FinishedTraffic, std::less<>> finished;  // by realm
};

std::string metrics_text(const Snapshot& snapshot, bool coturn_names);

/// Whether a counter has its place in what /metrics says, or stands there in another form. For the test that no new one is forgotten.
/// Groups: "turn", "loop", "streams", "dtls", "moved".
bool is_in_metrics(std::string_view group, std::string_view counter);

// Parts of metrics_text().
void add_process_metrics(Exposition& out);                          // metrics_process.cpp
void add_coturn_metrics(const Snapshot& snapshot, Exposition& out);  // metrics_coturn.cpp

/// Over all workers.
std::uint64_t sum_of_requests(const Snapshot& snapshot, stun::Method method, std::uint16_t outcome);
std::uint64_t sum_of_allocations(const Snapshot& snapshot, net::Transport client);

}  // namespace radiotower::daemon
