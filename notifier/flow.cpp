#include "notifier/flow.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace radiotower::notifier {

namespace {

constexpr auto told_each = std::chrono::minutes(5);

std::uint64_t seconds_between(SteadyTime a, SteadyTime b) {
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::seconds>(b - a).count());
}

}  // namespace

double TokenBucket::at(SteadyTime now) const {
  return at_ == SteadyTime{} ? tokens_ : std::min(burst_, tokens_ + per_second_ * std::chrono::duration<double>(now - at_).count());
}

void TokenBucket::refill(SteadyTime now) {
  tokens_ = at(now);
  at_ = now;
}

unsigned TokenBucket::available(SteadyTime now) {
  refill(now);
  return static_cast<unsigned>(std::max(0.0, tokens_ + 1e-9));
}

void TokenBucket::take(SteadyTime now) {
  refill(now);
  tokens_ -= 1;
}

std::chrono::milliseconds TokenBucket::until_next(SteadyTime now) {
  refill(now);
  if (tokens_ + 1e-9 >= 1) return std::chrono::milliseconds(0);
  return std::chrono::milliseconds(static_cast<std::int64_t>(std::ceil((1 - tokens_) / per_second_ * 1000)));
}

bool TokenBucket::is_full(SteadyTime now) const { return at(now) >= burst_; }

void TokenBucket::limit(double per_second, double burst) {
  per_second_ = per_second;
  burst_ = burst;
  tokens_ = std::min(tokens_, burst);
}

void FailingPlaces::failed(const std::string& place, std::string_view channel, std::string_view reason, SteadyTime now) {
  auto [found, is_new] = failing_.try_emplace(place, Failing{now, now, 0});
  Failing& failing = found->second;
  ++failing.tries;
  if (is_new) {
    log_.write(Priority::warning, "not delivered", fmt::format("{}; posts wait and are tried again", reason), {{"channel", channel}});
  } else if (now - failing.told >= told_each) {
    failing.told = now;
    log_.write(Priority::warning, "still not delivered", reason,
               {{"channel", channel}, {"tries", failing.tries}, {"for_s", seconds_between(failing.since, now)}});
  }
}

void FailingPlaces::worked(const std::string& place, SteadyTime now) {
  const auto found = failing_.find(place);
  if (found == failing_.end()) return;
  log_.write(Priority::notice, "delivered again", place, {{"tries", found->second.tries}, {"for_s", seconds_between(found->second.since, now)}});
  failing_.erase(found);
}

}  // namespace radiotower::notifier
