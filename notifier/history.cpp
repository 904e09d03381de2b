#include "notifier/history.h"

namespace radiotower::notifier {

std::string_view word(Turn turn) {
  switch (turn) {
    case Turn::broken: return "broken";
    case Turn::still_failing: return "still failing";
    case Turn::fixed: return "fixed";
    case Turn::none:
    case Turn::first:
    case Turn::still_good: break;
  }
  return {};
}

Change compare(const std::optional<History>& before, Status status, UnixSeconds now, std::optional<History>& after) {
  after.reset();
  const bool failed = status == Status::failed || status == Status::unstable;
  if (!failed && status != Status::success) return {};  // nothing became of it, or not yet
  const Status outcome = failed ? Status::failed : Status::success;

  if (!before || before->status == Status::none) {
    after = History{outcome, 1, now};
    return {Turn::first, 1, 0};
  }
  // The clock may have been set back, and two notifiers have two.
  const std::int64_t lasted = now > before->since ? now - before->since : 0;
  if (before->status == outcome) {
    after = History{outcome, before->streak == ~0U ? before->streak : before->streak + 1, before->since};
    return {failed ? Turn::still_failing : Turn::still_good, after->streak, failed ? lasted : 0};
  }
  after = History{outcome, 1, now};
  if (failed) return {Turn::broken, 1, 0};
  return {Turn::fixed, before->streak, lasted};
}

}  // namespace radiotower::notifier
