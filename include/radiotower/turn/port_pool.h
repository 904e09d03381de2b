// The ports of one relay address (RFC 8656, 7.2; RFC 6056). Not thread-safe: turn::Shared holds the lock.
//
// Invariant, checked by test after every operation: free() + used() + reserved() + quarantined() == range(), which is the range and
// what is still held, or rests, outside it since it was changed.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "radiotower/base/random.h"
#include "radiotower/base/time.h"

namespace radiotower::turn {

class PortPool {
 public:
  static constexpr seconds quarantine{30};   // a freed port waits this long, unless the pool is dry (L31)
  static constexpr seconds reservation{30};  // RFC 8656, 7.2: at least 30 s

  PortPool(std::uint16_t first, std::uint16_t last, RandomSource random);

  /// Another range from now on; first > last: none. What is held stays held, and what rests goes on resting, wherever it lies; a port outside
  /// the range is not given out again.
  void set_range(std::uint16_t first, std::uint16_t last);

  /// A random free port, now used. When none is free the longest-quarantined one. nullopt: the range is exhausted.
  std::optional<std::uint16_t> take_any(Time now);
  /// A random free even port (EVEN-PORT, R=0); the odd sibling is left alone.
  std::optional<std::uint16_t> take_even(Time now);
  /// A random even port whose successor is free too: the even one is used, the odd one reserved (EVEN-PORT, R=1).
  std::optional<std::uint16_t> take_pair(Time now);
  /// A reserved port becomes used (RESERVATION-TOKEN). False when it is not reserved.
  bool claim(std::uint16_t port);
  /// A used or reserved port goes into quarantine. Asserts that it was used or reserved.
  void release(std::uint16_t port, Time now);

  std::size_t free() const { return free_.size(); }
  std::size_t used() const { return used_; }
  std::size_t reserved() const { return reserved_; }
  std::size_t quarantined() const { return quarantined_; }
  std::size_t range() const { return width() + outside_; }

 private:
  enum class State : std::uint8_t { none, free, used, reserved, quarantined };  // none: outside the range
  std::size_t width() const { return first_ <= last_ ? std::size_t{last_} - first_ + 1 : 0; }
  bool in_range(std::uint16_t port) const { return port >= first_ && port <= last_; }
  std::optional<std::uint16_t> take_even_matching(Time now, bool pair);  // finds, does not take
  void end_quarantines(Time now);
  void make_free(std::uint16_t port);      // of no range: gone
  void end_one_quarantine();
  void take_from_free(std::uint16_t port, State next);
  State& state(std::uint16_t port) { return state_[port]; }

  std::uint16_t first_ = 1;
  std::uint16_t last_ = 0;
  RandomSource random_;
  std::vector<State> state_;
  std::vector<std::uint16_t> free_;      // unordered; a random place is taken and filled with the last
  std::vector<std::uint16_t> place_;     // port -> index in free_
  struct Waiting {
    std::uint16_t port;
    Time until;
  };
  std::deque<Waiting> waiting_;  // oldest first
  std::size_t outside_ = 0;  // held or resting, and outside the range
  std::size_t used_ = 0;
  std::size_t reserved_ = 0;
  std::size_t quarantined_ = 0;
};

}  // namespace radiotower::turn
