// Of Control: the counters, whole when SIGUSR1 asks for them, and once a minute what was dropped.
#include <string_view>
#include <vector>

#include "control.h"

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
  std::vector<std::string_view> names;
  std::vector<std::uint64_t> sums;
  bool first = true;
  for (const auto& worker : relay_.workers()) {
    const auto report = worker->report(milliseconds(300));
    if (!report) return;  // a sum without it would go backwards; the next minute has all
    std::size_t place = 0;
    const auto add = [&](std::string_view name, std::uint64_t value) {
      if (first) {
        names.push_back(name);
        sums.push_back(0);
      }
      sums[place++] += value;
    };
    report->counters.for_each([&](std::string_view name, std::uint64_t value) {
      if (name.substr(0, 8) == "dropped_") add(name, value);
    });
    add("dropped_retired_listener", report->dropped_retired);
    add("media_dropped", report->streams.media_dropped);
    add("dtls_dropped_limit", report->dtls.dtls_dropped_limit);
    add("dtls_dropped_too_large", report->dtls.dtls_dropped_too_large);
    add("truncated", report->loop.truncated);
    add("kernel_drops", report->loop.kernel_drops);
    add("send_full", report->loop.send_full);
    add("send_too_large", report->loop.send_too_large);
    add("send_unreachable", report->loop.send_unreachable);
    add("send_failed", report->loop.send_failed);
    first = false;
  }
  drops_.resize(sums.size());
  std::vector<Field> fields;
  for (std::size_t i = 0; i < sums.size(); ++i)
    if (sums[i] > drops_[i]) fields.emplace_back(names[i], sums[i] - drops_[i]);
  drops_ = sums;
  if (!fields.empty()) log_.write(Priority::info, "packets dropped", "in the last minute", fields);
}

}  // namespace radiotower::daemon
