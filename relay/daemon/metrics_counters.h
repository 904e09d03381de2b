// Where each plain counter of a worker goes in /metrics. One row a counter: whoever adds a counter adds a row, or a test fails.
#pragma once

#include <span>
#include <string_view>

#include "radiotower/service/exposition.h"

namespace radiotower::daemon {

struct CounterFamily {
  std::string_view name;
  MetricType type;
  std::string_view help;
};

struct CounterRow {
  std::string_view group, counter;
  std::string_view family{};  // empty: it is there in another form
  MetricLabel label{}, second_label{};
  std::string_view elsewhere{};  // which form that is
};

std::span<const CounterFamily> counter_families();
std::span<const CounterRow> counter_rows();

}  // namespace radiotower::daemon
