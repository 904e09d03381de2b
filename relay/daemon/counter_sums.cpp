#include "counter_sums.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace radiotower::daemon {

void CounterSums::add(const WorkerReport& report) {
  const bool first = rows_.empty();
  std::size_t place = 0;
  for_each_counter(report, [&](std::string_view group, std::string_view counter, std::uint64_t value) {
    if (first) rows_.push_back({group, counter, value});
    else rows_[place++].sum += value;
  });
}

std::uint64_t CounterSums::of(std::string_view group, std::string_view counter) const {
  const auto found = std::find_if(rows_.begin(), rows_.end(), [&](const Row& row) { return row.group == group && row.counter == counter; });
  return found == rows_.end() ? 0 : found->sum;
}

std::vector<CounterSums::Row> CounterSums::drops() const {
  constexpr std::pair<std::string_view, std::string_view> others[] = {
      {"worker", "dropped_retired_listener"}, {"streams", "media_dropped"}, {"dtls", "dtls_dropped_limit"}, {"dtls", "dtls_dropped_too_large"},
      {"loop", "truncated"},                  {"loop", "kernel_drops"},     {"loop", "send_full"},          {"loop", "send_too_large"},
      {"loop", "send_unreachable"},           {"loop", "send_failed"}};
  std::vector<Row> drops;
  std::copy_if(rows_.begin(), rows_.end(), std::back_inserter(drops),
               [](const Row& row) { return row.group == "turn" && row.counter.starts_with("dropped_"); });
  for (const auto& [group, counter] : others) drops.push_back({group, counter, of(group, counter)});
  return drops;
}

}  // namespace radiotower::daemon
