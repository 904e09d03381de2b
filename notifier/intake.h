// From events to the queue: one thread that stores what has come together since the last commit in one transaction
// (group commit), and only then answers the senders. Owns its Queue. May not know: sockets, formats.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "notifier/queue.h"
#include "notifier/settings.h"
#include "radiotower/service/log.h"

namespace radiotower::notifier {

enum class Taken : std::uint8_t {
  stored,
  duplicate,
  unrouted,
  full,
  failed
};  // full, failed: a 503, and nothing is kept

struct IntakeCounters {  // relaxed
  std::atomic<std::uint64_t> stored{0}, duplicate{0}, unrouted{0}, full{0}, failed{0}, commits{0};
};

class Intake {
 public:
  using Done = std::function<void(Taken)>;

  /// `stored` is called after each commit that made posts.
  Intake(std::unique_ptr<Queue> queue, std::shared_ptr<const Settings> settings, Log& log,
         std::function<void()> stored, const HashKey& key);
  ~Intake();  // stop()
  void start();
  /// Takes nothing more; what was submitted is stored and answered; then the thread ends.
  void stop();
  /// From any thread. `done` is called once, on the intake's thread - or at once, with `full`, when too much waits for
  /// the disk.
  void submit(Event event, Done done);
  void apply(std::shared_ptr<const Settings> settings);

  /// What keeps events from being stored right now: a sentence; nullopt while all is well.
  std::optional<std::string> trouble() const;
  const IntakeCounters& counters() const { return counters_; }
  std::uint64_t beats() const { return beats_.load(std::memory_order_relaxed); }

 private:
  struct Waiting {
    Event event;
    Done done;
  };
  void run();
  void store(std::vector<Waiting>& batch, const Settings& settings);
  void failed(std::vector<Waiting>& batch, const std::string& what);
  void begin_trouble(const std::string& event, const std::string& what);
  void end_trouble();
  void reconnect_after(const SqlError& error);
  void look_whether_it_works(const Settings& settings);

  std::unique_ptr<Queue> queue_;
  Log& log_;
  std::function<void()> stored_;
  IntakeCounters counters_;
  LineLimit lines_;  // the intake's thread alone
  std::atomic<std::uint64_t> beats_{0};

  mutable std::mutex mutex_;  // of all below
  std::condition_variable wake_;
  std::vector<Waiting> waiting_;
  std::shared_ptr<const Settings> settings_;
  std::optional<std::string> trouble_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace radiotower::notifier
