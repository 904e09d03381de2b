// What all workers have counted, added up: for the log, the control socket and /metrics alike.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "worker.h"

namespace radiotower::daemon {

/// `visit(group, counter, value)` for every counter of a worker, in the order in which they are declared. A counter is named by what counts it
/// and its name there: "turn", "loop", "streams", "dtls", "moved", and "worker" for what is the worker's own.
template <typename Visit>
void for_each_counter(const WorkerReport& report, Visit&& visit) {
  const auto group = [&](std::string_view name, const auto& counters) {
    counters.for_each([&](std::string_view counter, std::uint64_t value) { visit(name, counter, value); });
  };
  group("turn", report.counters);
  group("loop", report.loop);
  group("streams", report.streams);
  group("dtls", report.dtls);
  group("moved", report.moved);
  constexpr std::string_view worker = "worker";
  visit(worker, std::string_view("allocations"), std::uint64_t{report.allocations});
  visit(worker, std::string_view("sockets"), std::uint64_t{report.sockets});
  visit(worker, std::string_view("bytes_kept"), std::uint64_t{report.bytes_kept});
  visit(worker, std::string_view("gates_up"), std::uint64_t{report.gate_is_up});
  visit(worker, std::string_view("dropped_retired_listener"), report.dropped_retired);
}

class CounterSums {
 public:
  struct Row {
    std::string_view group, counter;
    std::uint64_t sum = 0;
  };

  void add(const WorkerReport& report);
  /// 0 as long as no worker has been added.
  std::uint64_t of(std::string_view group, std::string_view counter) const;
  /// In the order of for_each_counter(); none as long as no worker has been added.
  const std::vector<Row>& rows() const { return rows_; }
  /// Those that say that packets were lost, in the order in which the log tells them.
  std::vector<Row> drops() const;

 private:
  std::vector<Row> rows_;
};

}  // namespace radiotower::daemon
