// Of Control: the counters, whole when SIGUSR1 asks for them, and once a minute what was dropped.
#include <string_view>
#include <utility>
#include <vector>

#include "control.h"
#include "counter_sums.h"

namespace radiotower::daemon {

void Control::print_counters() {
  for (const auto& worker : relay_.workers()) {
    const auto report = worker->report(milliseconds(300));
    const unsigned number = worker->number();
    if (!report) {
      log_.write(Priority::warning, "counters", "this worker does not answer", {{"worker", number}});
      continue;
    }
    log_.write(Priority::notice, "counters of worker", "",
               {{"worker", number}, {"allocations", std::uint64_t{report->allocations}}, {"sockets", std::uint64_t{report->sockets}},
                {"armed", std::uint64_t{report->armed}}, {"bytes_kept", std::uint64_t{report->bytes_kept}},
                {"turns_seen", worker->heartbeat()}, {"gate", report->gate_is_up ? "up" : "down"}, {"dropped_retired_listener", report->dropped_retired}});
    const auto group = [&](std::string_view name, const auto& counters) {
      std::vector<Field> fields{{"worker", number}};
      counters.for_each([&](std::string_view counter, std::uint64_t value) { fields.emplace_back(counter, value); });
      log_.write(Priority::notice, name, "", fields);
    };
    group("counters of turn", report->counters);
    group("counters of loop", report->loop);
    if (!relay_.plan().tcp.empty() || !relay_.plan().tls.empty()) group("counters of streams", report->streams);
    if (report->moved.sockets_opened + report->moved.passed_on + report->moved.passed_on_lost + report->moved.taken_in != 0)
      group("counters of moved clients", report->moved);
    if (!relay_.plan().dtls.empty()) group("counters of dtls", report->dtls);
    for (std::size_t i = 0; i < report->drops_of_listeners.size(); ++i)
      log_.write(Priority::notice, "counters of listener", "",
                 {{"worker", number}, {"listener", report->listeners[i].text()}, {"kernel_drops", report->drops_of_listeners[i]}});
  }
  print_offload();
  const auto usage = relay_.shared().usage();  // the last line: who reads the log knows by it that all is there
  log_.write(Priority::notice, "counters of ports", "",
             {{"range", std::uint64_t{usage.range}}, {"free", std::uint64_t{usage.free}}, {"used", std::uint64_t{usage.used}},
              {"reserved", std::uint64_t{usage.reserved}}, {"quarantined", std::uint64_t{usage.quarantined}},
              {"accounts", std::uint64_t{usage.accounts}}, {"allocations", std::uint64_t{usage.allocations}},
              {"log_lines_dropped", log_.dropped()}});
}

void Control::print_offload() {
  if (!relay_.fast_path()) return;
  const offload::Offload& offload = relay_.fast_path()->offload();
  const std::vector<offload::Outcome> outcomes = offload.outcomes();
  std::vector<Field> fields{{"flows", std::uint64_t{offload.flows()}}};
  for (const auto& outcome : outcomes) fields.emplace_back(outcome.name, outcome.packets);
  log_.write(Priority::notice, "counters of offload", "", fields);
}

/// Bad packets are counted, never logged one by one (X10): once a minute one line says what was dropped since the last.
void Control::print_drops() {
  CounterSums sums;
  for (const auto& worker : relay_.workers()) {
    const auto report = worker->report(milliseconds(300));
    if (!report) return;  // a sum without it would go backwards; the next minute has all
    sums.add(*report);
  }
  const auto drops = sums.drops();
  drops_.resize(drops.size());
  std::vector<Field> fields;
  for (std::size_t i = 0; i < drops.size(); ++i)
    if (const auto told = std::exchange(drops_[i], drops[i].sum); drops[i].sum > told) fields.emplace_back(drops[i].counter, drops[i].sum - told);
  if (!fields.empty()) log_.write(Priority::info, "packets dropped", "in the last minute", fields);
}

}  // namespace radiotower::daemon
