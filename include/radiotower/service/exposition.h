// The figures of one scrape in Prometheus' text format (0.0.4), which prometheus-cpp writes. Its registry and its server stay out of it: what is
// counted lies with those who count without a lock, and a scrape takes a copy.
#pragma once

#include <chrono>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <prometheus/metric_family.h>

namespace radiotower {

/// {"path", "ring"}; a value may hold anything. One without a name is left out.
struct MetricLabel {
  std::string_view name{}, value{};
};
using MetricLabels = std::initializer_list<MetricLabel>;
using MetricType = prometheus::MetricType;

class Exposition {
 public:
  /// Its samples follow.
  void family(std::string_view name, MetricType type, std::string_view help);
  /// As a double, which holds 2^53 exactly: 9 PB, for a counter of bytes.
  template <typename Number>
  void sample(MetricLabels labels, Number value) {
    add(labels, static_cast<double>(value));
  }
  /// A family of one sample without labels.
  template <typename Number>
  void one(std::string_view name, MetricType type, std::string_view help, Number value) {
    family(name, type, help);
    sample({}, value);
  }
  /// `counts[i]`: values up to `bounds[i]` and above the bound before; the last of `counts`: all above. Shown in seconds.
  void histogram(std::span<const std::uint64_t> counts, std::span<const std::chrono::nanoseconds> bounds, std::chrono::nanoseconds sum);

  std::string text() const;

 private:
  void add(MetricLabels labels, double value);

  std::vector<prometheus::MetricFamily> families_;
};

}  // namespace radiotower
