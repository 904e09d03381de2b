// The offload as the turn core and the control thread see it: channels become flows of the XDP program, and the program
// is told that we live for as long as we do.
//
// One object a process. give() to take_back() come from any worker, next_beat() and beat() from the control thread
// alone. Owns the Offload. May not know: packets, settings, the log.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "radiotower/base/time.h"
#include "radiotower/offload/offload.h"
#include "radiotower/turn/shortcuts.h"

namespace radiotower::daemon {

class FastPath final : public turn::Shortcuts {
 public:
  /// `wake` makes the control thread call beat() soon. Called by a worker that has added the first flow.
  FastPath(std::unique_ptr<offload::Offload> offload, std::function<void()> wake);

  turn::ShortcutId give(const turn::Shortcut& shortcut, Time until) override;
  void move(turn::ShortcutId shortcut, Time until) override;
  turn::ShortcutCounts counts(turn::ShortcutId shortcut) override;
  turn::ShortcutCounts take_back(turn::ShortcutId shortcut) override;

  /// Lets the program forward for another `beat_lasts`, when that is due, there are flows, and all workers answer: one
  /// that hangs cannot take back what it has given. Nobody else does this, so a relay that hangs or is killed forwards
  /// nothing a moment later.
  void beat(Time now, bool workers_alive);
  Time next_beat() const { return next_beat_; }  // `never` while there are no flows

  // From kill -9 to the last packet: at most beat_lasts, and what a busy machine adds must still be below 100 ms. Three
  // beats may be late before packets go up. Fifty wake-ups a second are 0.1 % of a core, and none without flows.
  static constexpr milliseconds beat_interval{20};
  static constexpr milliseconds beat_lasts{80};

  offload::Offload& offload() { return *offload_; }
  std::string interfaces() const;  // "eth0 (native), eth1 (generic)"

 private:
  const std::unique_ptr<offload::Offload> offload_;
  const std::function<void()> wake_;
  std::atomic<bool> beating_{false};
  Time next_beat_ = never;  // the control thread's alone
};

}  // namespace radiotower::daemon
