// The way out: takes posts from the queue, lane by lane, and sees them to Mattermost. One thread, its own Queue and Client.
//
// A lane is a channel: one request at a time in each, so order holds; lanes run side by side. Two token buckets say when: one for all
// (Mattermost's rate limit), one a channel (what people can read); when a channel has `digest_from` or more posts due at the moment it may
// post again, they go out as one digest. After a lost answer nothing is repeated before a ping is answered.
// Back-off: 1 s doubling to 5 min, each jittered to between half and all of it; 429's Retry-After instead where given; a lane rests, and
// its posts wait in order. A 500 that comes back 8 times for one post, and anything for longer than give_up_after_s, is buried.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "notifier/mattermost.h"
#include "notifier/queue.h"
#include "notifier/settings.h"
#include "radiotower/base/random.h"
#include "radiotower/service/log.h"

namespace radiotower::notifier {

struct DeliveryCounters {  // relaxed; since the start of the process (those that survive it are the queue's)
  std::atomic<std::uint64_t> posts{0}, digests{0}, digested{0}, edits{0}, replies{0};
  std::atomic<std::uint64_t> retries{0}, rate_limited{0}, refused{0}, tls_failures{0}, buried{0};
  std::atomic<std::int64_t> last_success{0}, last_failure{0};  // unix seconds
};

class Delivery {
 public:
  /// Throws std::runtime_error with a sentence (ca_file). `shortest_back_off`: for tests, which are in a hurry.
  Delivery(std::unique_ptr<Queue> queue, std::shared_ptr<const Settings> settings, Log& log, RandomSource random,
           std::chrono::milliseconds shortest_back_off = std::chrono::seconds(1));
  ~Delivery();  // stop()
  void start();
  void wake();  // something was stored
  /// Finishes the requests in flight (up to `patience`), gives back the lanes, ends the thread.
  void stop(std::chrono::milliseconds patience);
  /// Before the next post, when those in flight are answered. Settings that can't be (ca_file) are refused in the log, and the old ones stay.
  void apply(std::shared_ptr<const Settings> settings);
  const DeliveryCounters& counters() const;
  /// Beats of the thread: for the watchdog.
  std::uint64_t beats() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// The back-off before try number `attempts` + 1: pure. `random` in [0, 1).
std::chrono::milliseconds back_off(std::uint32_t attempts, double random, std::chrono::milliseconds shortest = std::chrono::seconds(1));

}  // namespace radiotower::notifier
