// Text for people: what the control commands print. Names of users come from the network, so nothing of them steers a terminal.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "printable.h"

namespace radiotower::cli {

/// At most `width` columns, a character taken for one; what is cut ends in "~".
std::string clipped(std::string_view printable_text, std::size_t width);
/// In columns, likewise.
std::size_t columns_of(std::string_view text);

std::string plural(std::uint64_t n, std::string_view word);  // "1 worker", "2 workers"
std::string bytes_text(double bytes);         // "0", "512", "1.2k", "34.5M"
std::string duration_text(std::uint64_t seconds);  // "45s", "12m03s", "3h07m", "2d04h"
/// "90s", "30m", "1h", "2d", "1h30m", "90" (seconds). nullopt: something else, or over 30 days.
std::optional<std::uint64_t> parse_duration(std::string_view text);
/// "14:03:07.250", local time.
std::string clock_text(double unix_seconds);
/// "2026-11-30 14:03:07", local time.
std::string date_text(std::int64_t unix_seconds);

}  // namespace radiotower::cli
