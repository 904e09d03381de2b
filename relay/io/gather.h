// When packets come thick, a loop lets them gather for a moment before it wakes, as network cards do with interrupts: waking costs more
// than what there is to do for one packet, in a virtual machine several times as much. Seldom packets are never kept waiting.
// Pure: time and counts come in. The figures: bench/README.md.
#pragma once

#include <cstddef>
#include <cstdint>

#include "radiotower/base/time.h"

namespace radiotower::io {

class Gather {
 public:
  // Receives a second (a train is one) from which on it pays, and below which it ends.
  static constexpr std::int64_t begins_at = 8'000, ends_below = 6'000;
  static constexpr std::size_t enough = 32;  // of one turn: the loop is behind already, and waits for nothing

  /// `longest`: how long a packet may be kept waiting; zero: never.
  explicit Gather(nanoseconds longest) : longest_(longest) {}

  /// How long the next turn lets packets gather; zero: the first one wakes it.
  nanoseconds wait() const { return on_ && last_ < enough ? longest_ : nanoseconds(0); }
  bool on() const { return on_; }

  void after_turn(std::int64_t now_ns, std::size_t receives) {
    last_ = receives;
    received_ += static_cast<std::int64_t>(receives);
    ++(receives > 0 ? turns_ : empty_);
    const std::int64_t elapsed = now_ns - since_;
    if (elapsed < window_ns) return;
    // One turn that waited for long brings what it brings: a rate is one of a time that was looked at throughout.
    const std::int64_t rate = received_ * 1'000'000'000 / elapsed;
    if (!on_) {
      on_ = longest_.count() > 0 && rate >= begins_at && received_ < few * turns_ && now_ns >= not_before_;
    } else if (rate < ends_below || empty_ * 4 > turns_ + empty_) {
      on_ = false;
      if (rate >= ends_below) not_before_ = now_ns + pause_ns;  // bursts
    }
    since_ = now_ns;
    received_ = turns_ = empty_ = 0;
  }

 private:
  static constexpr std::int64_t window_ns = 5'000'000;
  static constexpr std::int64_t pause_ns = 500'000'000;
  static constexpr std::int64_t few = 3;  // packets of a turn, on the average: as many come by themselves where they come in bursts
  nanoseconds longest_;
  bool on_ = false;
  std::size_t last_ = 0;
  std::int64_t since_ = 0, received_ = 0, turns_ = 0, empty_ = 0, not_before_ = 0;
};

}  // namespace radiotower::io
