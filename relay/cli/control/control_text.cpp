#include "control_text.h"

#include <algorithm>
#include <cmath>
#include <ctime>

#include <fmt/format.h>

namespace radiotower::cli {

namespace {

std::tm local(std::time_t time) {
  std::tm parts{};
  localtime_r(&time, &parts);
  return parts;
}

}  // namespace

std::size_t columns_of(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

std::string clipped(std::string_view text, std::size_t width) {
  if (columns_of(text) <= width) return std::string(text);
  if (width == 0) return {};
  std::string out;
  std::size_t columns = 0;
  for (const char c : text) {
    if ((static_cast<unsigned char>(c) & 0xC0) != 0x80 && ++columns >= width) break;
    out += c;
  }
  return out + "~";
}

std::string plural(std::uint64_t n, std::string_view word) { return fmt::format("{} {}{}", n, word, n == 1 ? "" : "s"); }

std::string bytes_text(double bytes) {
  if (bytes < 999.5) return fmt::format("{:.0f}", bytes);
  const char* unit = "kMGTP";
  bytes /= 1000;
  while (bytes >= 999.95 && unit[1] != '\0') bytes /= 1000, ++unit;
  return fmt::format("{:.1f}{}", bytes, *unit);
}

std::string duration_text(std::uint64_t seconds) {
  if (seconds < 60) return fmt::format("{}s", seconds);
  if (seconds < 3600) return fmt::format("{}m{:02}s", seconds / 60, seconds % 60);
  if (seconds < 86'400) return fmt::format("{}h{:02}m", seconds / 3600, seconds / 60 % 60);
  return fmt::format("{}d{:02}h", seconds / 86'400, seconds / 3600 % 24);
}

std::optional<std::uint64_t> parse_duration(std::string_view text) {
  constexpr std::uint64_t most = 30 * 86'400;
  std::uint64_t sum = 0, number = 0, last_unit = most;
  bool has_number = false, has_any = false;
  for (const char c : text) {
    if (c >= '0' && c <= '9') {
      number = number * 10 + static_cast<std::uint64_t>(c - '0');
      if (number > most) return std::nullopt;
      has_number = true;
      continue;
    }
    const std::uint64_t unit = c == 's' ? 1 : c == 'm' ? 60 : c == 'h' ? 3600 : c == 'd' ? 86'400 : 0;
    if (!has_number || unit == 0 || unit >= last_unit) return std::nullopt;
    sum += number * unit;
    number = 0;
    last_unit = unit;
    has_number = false;
    has_any = true;
  }
  if (has_number == has_any) return std::nullopt;  // empty, or "1h30"
  sum += number;
  return sum <= most ? std::optional(sum) : std::nullopt;
}

std::string clock_text(double unix_seconds) {
  const double whole = std::floor(unix_seconds);
  const std::tm parts = local(static_cast<std::time_t>(whole));
  return fmt::format("{:02}:{:02}:{:02}.{:03}", parts.tm_hour, parts.tm_min, parts.tm_sec, static_cast<int>((unix_seconds - whole) * 1000));
}

std::string date_text(std::int64_t unix_seconds) {
  const std::tm parts = local(static_cast<std::time_t>(unix_seconds));
  return fmt::format("{:04}-{:02}-{:02} {:02}:{:02}:{:02}", parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec);
}

}  // namespace radiotower::cli
