// What an outcome means against the one before: broken, still failing, fixed. A pure function; the queue keeps its values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "notifier/event.h"

namespace radiotower::notifier {

/// What the queue remembers of a history_key.
struct History {
  Status status = Status::none;  // of the last final outcome: success or failed (unstable counts as failed); canceled and skipped change nothing
  std::uint32_t streak = 0;      // how many of that kind in a row
  UnixSeconds since = 0;         // when the first of them came
};

enum class Turn : std::uint8_t { none, first, broken, still_failing, fixed, still_good };
/// "broken", "still failing", "fixed"; the words of `status = [...]` of a route beside those of Status; empty for none, first, still_good.
std::string_view word(Turn turn);

struct Change {
  Turn turn = Turn::none;
  std::uint32_t streak = 0;      // still_failing: this is the 3rd failure in a row; fixed: after so many failures; first, broken: 1
  std::int64_t lasted_s = 0;     // fixed: how long it was broken; still_failing: since when
};

/// `before`: nullopt for the first time. Returns the change and leaves in `after` what is to be remembered; nullopt there: nothing changes.
Change compare(const std::optional<History>& before, Status status, UnixSeconds now, std::optional<History>& after);

}  // namespace radiotower::notifier
