// When strangers send more than a worker should spend on them: decides when the gate (relay/io/gate.h) goes up before the listeners, whom
// it suspects, what share of the others it lets in, and when it comes down. Pure: counts and times come in, a verdict comes out.
//
// A flood is seen in the first two milliseconds, before it has filled a receive buffer: what overflows there takes calls with it.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "radiotower/base/time.h"
#include "radiotower/net/address.h"

namespace radiotower::daemon {

class FloodWatch {
 public:
  static constexpr std::uint64_t flood_rate = 50'000;     // strangers' datagrams a second that raise the gate
  static constexpr std::uint64_t flood_at_least = 200;    // and as many at once: an office at nine o'clock is no flood
  static constexpr std::uint64_t wanted_rate = 20'000;    // what is let in of them while it is up
  static constexpr std::uint64_t suspect_rate = 2'000;    // of one address
  static constexpr std::uint64_t calm_rate = 5'000;       // below which, for `calm`, the gate comes down
  static constexpr nanoseconds first_look = milliseconds(2), look = milliseconds(50);  // more often in the first moments
  static constexpr nanoseconds calm = seconds(5);

  enum class Change : std::uint8_t { none, raise, renew, lower };

  /// After each turn of the loop. `strangers`: counted since the start (turn::Counters::strangers()); `kept_out`: what the kernel dropped
  /// before the listeners since the start. `renew`: suspects() or share() have changed, or it is time to let new clients in.
  Change after_turn(Time now, std::uint64_t strangers, std::uint64_t kept_out);

  /// In the midst of a turn that has brought more than `suddenly` of them since after_turn(): a turn of long trains takes ten milliseconds, in which
  /// a receive buffer overflows. `now` is this moment, `turn` when the turn began. raise or none.
  static constexpr std::uint64_t suddenly = 1'000;
  bool is_sudden(std::uint64_t strangers) const { return !up_ && strangers - turn_strangers_ >= suddenly; }
  Change amid_turn(Time now, Time turn, std::uint64_t strangers, std::uint64_t kept_out);

  /// True when `kept_out` will be looked at, so that nobody need count before.
  bool wants_drops(Time now) const { return up_ && now - window_ >= until_next_look(now); }

  /// True while it wants to hear of each stranger's datagram.
  bool listening() const { return listening_; }
  void saw(const net::IpAddress& source, std::uint64_t datagrams);

  bool is_up() const { return up_; }
  double share() const { return share_; }
  /// Addresses that each send more than anybody should; grows while the gate is up.
  const std::vector<net::IpAddress>& suspects() const { return suspects_; }
  std::uint64_t rate() const { return rate_; }  // strangers a second, as last seen
  Time raised_at() const { return raised_at_; }

 private:
  static constexpr std::size_t most_suspects = 64;
  struct Sample {
    net::IpAddress ip;
    std::uint64_t datagrams = 0;
  };
  Sample& sample_of(const net::IpAddress& ip);
  void settle_share(double share, std::uint64_t count, nanoseconds window);
  nanoseconds until_next_look(Time now) const { return now - raised_at_ < milliseconds(200) ? milliseconds(5) : look; }
  bool raise(Time now, std::uint64_t count, nanoseconds window);
  void start_window(Time now, std::uint64_t strangers, std::uint64_t kept_out);

  bool up_ = false, listening_ = false;
  double share_ = 1;
  std::uint64_t rate_ = 0;
  Time window_{}, raised_at_{}, busy_at_{};
  std::uint64_t strangers_ = 0, kept_out_ = 0;      // at the start of the window
  std::uint64_t turn_strangers_ = 0;                // at the turn before
  std::uint64_t seen_ = 0;                          // datagrams that saw() was told of in this window
  std::array<Sample, 256> samples_{};               // of this window, by a hash; the heavier of two that meet stays
  std::vector<net::IpAddress> suspects_;
};

}  // namespace radiotower::daemon
