#include "radiotower/service/exposition.h"

#include <limits>

#include <prometheus/text_serializer.h>

namespace radiotower {

namespace {

double seconds(std::chrono::nanoseconds value) { return static_cast<double>(value.count()) / 1e9; }

}  // namespace

void Exposition::family(std::string_view name, MetricType type, std::string_view help) {
  families_.push_back({std::string(name), std::string(help), type, {}});
}

void Exposition::add(MetricLabels labels, double value) {
  prometheus::ClientMetric& metric = families_.back().metric.emplace_back();
  for (const MetricLabel& label : labels)
    if (!label.name.empty()) metric.label.push_back({std::string(label.name), std::string(label.value)});
  (families_.back().type == MetricType::Counter ? metric.counter.value : metric.gauge.value) = value;
}

void Exposition::histogram(std::span<const std::uint64_t> counts, std::span<const std::chrono::nanoseconds> bounds, std::chrono::nanoseconds sum) {
  auto& histogram = families_.back().metric.emplace_back().histogram;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    histogram.sample_count += counts[i];
    histogram.bucket.push_back({histogram.sample_count, i < bounds.size() ? seconds(bounds[i]) : std::numeric_limits<double>::infinity()});
  }
  histogram.sample_sum = seconds(sum);
}

std::string Exposition::text() const { return prometheus::TextSerializer().Serialize(families_); }

}  // namespace radiotower
