#include "exposition.h"

#include <utility>

#include <fmt/format.h>

namespace radiotower::daemon {

std::string label(std::string_view key, std::string_view value) {
  std::string text(key);
  text += "=\"";
  for (const char c : value) {
    if (c == '\n') text += "\\n";
    else if (c == '"' || c == '\\') text.append(1, '\\').append(1, c);
    else text += c;
  }
  return text += '"';
}

void Exposition::family(std::string_view name, Kind kind, std::string_view help) {
  name_ = name;
  std::string_view shown = name, type = kind == Kind::counter ? "counter" : kind == Kind::gauge ? "gauge" : "histogram";
  if (format_ == TextFormat::open_metrics && kind == Kind::counter) {  // the family is named without _total there
    if (shown.ends_with("_total")) shown.remove_suffix(6);
    else type = "unknown";
  }
  text_ += fmt::format("# HELP {0} {1}\n# TYPE {0} {2}\n", shown, help, type);
}

void Exposition::sample(std::string_view labels, std::uint64_t value) {
  text_ += labels.empty() ? fmt::format("{} {}\n", name_, value) : fmt::format("{}{{{}}} {}\n", name_, labels, value);
}

void Exposition::sample(std::string_view labels, double value) {
  text_ += labels.empty() ? fmt::format("{} {:.15g}\n", name_, value) : fmt::format("{}{{{}}} {:.15g}\n", name_, labels, value);
}

/// 2500000 ns is 0.0025.
std::string Exposition::seconds_text(nanoseconds value) {
  std::string text = fmt::format("{}.{:09}", value.count() / 1'000'000'000, value.count() % 1'000'000'000);
  while (text.back() == '0') text.pop_back();
  if (text.back() == '.') text.pop_back();
  return text;
}

std::string Exposition::bound(nanoseconds value) const {
  std::string text = seconds_text(value);
  if (format_ == TextFormat::open_metrics && text.find('.') == text.npos) text += ".0";
  return text;
}

void Exposition::bucket(std::string_view le, std::uint64_t count) { text_ += fmt::format("{}_bucket{{le=\"{}\"}} {}\n", name_, le, count); }

void Exposition::end_histogram(nanoseconds sum, std::uint64_t count) {
  text_ += fmt::format("{0}_sum {1}\n{0}_count {2}\n", name_, seconds_text(sum), count);
}

std::string Exposition::text() && {
  if (format_ == TextFormat::open_metrics) text_ += "# EOF\n";
  return std::move(text_);
}

}  // namespace radiotower::daemon
