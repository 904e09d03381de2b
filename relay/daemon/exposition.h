// The two text formats that Prometheus reads: its own, 0.0.4, and OpenMetrics 1.0. Writes what it is told, and escapes label values.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "radiotower/turn/tallies.h"

namespace radiotower::daemon {

enum class TextFormat : std::uint8_t { prometheus, open_metrics };

/// key="value", with the value escaped.
std::string label(std::string_view key, std::string_view value);

class Exposition {
 public:
  explicit Exposition(TextFormat format) : format_(format) {}

  enum class Kind : std::uint8_t { counter, gauge, histogram };
  /// Its samples follow. A counter's name ends in _total; where it does not (coturn's names), OpenMetrics has no type for it.
  void family(std::string_view name, Kind kind, std::string_view help);
  /// `labels`: key="value" pairs with commas between, perhaps none.
  void sample(std::string_view labels, std::uint64_t value);
  void sample(std::string_view labels, double value);
  template <std::size_t N>
  void histogram(const turn::Histogram<N>& histogram, const std::array<nanoseconds, N>& bounds) {
    std::uint64_t all = 0;
    for (std::size_t i = 0; i < N; ++i) bucket(bound(bounds[i]), all += histogram.counts[i]);
    bucket("+Inf", all += histogram.counts[N]);
    end_histogram(histogram.sum, all);
  }
  std::string text() &&;

 private:
  static std::string seconds_text(nanoseconds value);
  std::string bound(nanoseconds value) const;
  void bucket(std::string_view le, std::uint64_t count);
  void end_histogram(nanoseconds sum, std::uint64_t count);

  TextFormat format_;
  std::string name_, text_;
};

}  // namespace radiotower::daemon
