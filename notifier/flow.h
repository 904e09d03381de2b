// When a post may go, and who hears of it when none goes: token buckets, and the log lines of a destination that fails.
//
// Plain values and their rules; time is passed in. One thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "radiotower/base/time.h"
#include "radiotower/service/log.h"

namespace radiotower::notifier {

using SteadyTime = Time;

/// `burst` at once, and `per_second` after that.
class TokenBucket {
 public:
  TokenBucket(double per_second, double burst) : per_second_(per_second), burst_(burst), tokens_(burst) {}
  unsigned available(SteadyTime now);
  void take(SteadyTime now);
  /// Until there is one; 0: now.
  std::chrono::milliseconds until_next(SteadyTime now);
  bool is_full(SteadyTime now) const;
  /// Other limits from now on; what is in it stays, as far as it fits.
  void limit(double per_second, double burst);

 private:
  double at(SteadyTime now) const;
  void refill(SteadyTime now);
  double per_second_, burst_, tokens_;
  SteadyTime at_{};
};

/// One line when a destination begins to fail, one each 5 minutes while that lasts, one when it works again.
class FailingPlaces {
 public:
  explicit FailingPlaces(Log& log) : log_(log) {}
  /// `place`: a server, or a channel of one.
  void failed(const std::string& place, std::string_view channel, std::string_view reason, SteadyTime now);
  void worked(const std::string& place, SteadyTime now);

 private:
  struct Failing {
    SteadyTime since, told;
    std::uint64_t tries = 0;
  };
  Log& log_;
  std::map<std::string, Failing> failing_;  // as many as channels and servers
};

}  // namespace radiotower::notifier
