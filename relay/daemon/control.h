// The main thread of the relay: binds the listeners, starts the workers, then waits for signals and watches.
//
//   SIGTERM, SIGINT   end within a second; the log gets every allocation that ends. With shutdown.drain_seconds: drain for so long at most,
//                     and end at the second one
//   SIGHUP            settings anew: good ones are swapped in, bad ones change nothing
//   SIGUSR1           counters into the log
//   SIGUSR2           drain: no new allocations; ends with the last one
//
// Touches no packet. May not know: how a configuration file looks (a reload is a function that main hands in).
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "operations.h"
#include "radiotower/service/log.h"
#include "relay.h"

namespace radiotower::daemon {

/// Tells a stalled worker from a living one by counting looks, not by a clock: when the whole process was stopped for a
/// minute, nobody has stalled.
class StallWatch {
 public:
  explicit StallWatch(unsigned looks) : looks_(looks) {}
  enum class Change : std::uint8_t { none, stalled, recovered };
  Change look(std::uint64_t heartbeat);
  bool stalled() const { return unchanged_ >= looks_; }

 private:
  unsigned looks_;
  unsigned unchanged_ = 0;
  std::uint64_t last_ = 0;
};

/// All workers of a process. The service manager's watchdog is fed while every one of them makes progress, and no longer: one that hangs has calls
/// that only a new start gives back.
class StallWatches {
 public:
  StallWatches(std::size_t workers, unsigned looks) : watches_(workers, StallWatch(looks)) {}
  /// `heartbeat(i)`: that of worker i. `changed(i, change)`: it has stalled, or recovered. True: feed the watchdog.
  bool look(const std::function<std::uint64_t(std::size_t)>& heartbeat, const std::function<void(std::size_t, StallWatch::Change)>& changed);
  bool all_alive() const;

 private:
  std::vector<StallWatch> watches_;
};

class Descriptor {
 public:
  explicit Descriptor(int number) : number_(number) {}
  ~Descriptor();
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int number() const { return number_; }

 private:
  int number_;
};

/// What a reload hands over once everything in it has been found good.
struct NextSettings {
  std::shared_ptr<const turn::Settings> settings;
  std::shared_ptr<const ConnectionSettings> connections;  // null: they stay as they are
  std::vector<net::TransportAddress> listeners, dtls, tcp, tls;  // as in ListenPlan
  OperatorSettings operators;
  std::function<void()> taken = nullptr;  // called once all of it is in force, and not when its listeners cannot be opened
};

/// What the relay's addresses follow beside its configuration (see address_watch.h). On the main thread alone.
class AddressFollower {
 public:
  virtual int descriptor() const = 0;  // readable: hear(). -1: there is none
  virtual void hear(Time now) = 0;
  virtual bool due(Time now) = 0;  // something may have changed, and has settled: rebuild()
  /// Settings as they are now, or nullopt: nothing has changed, or `errors` say what is wrong.
  virtual std::optional<NextSettings> rebuild(std::vector<std::string>& errors) = 0;

 protected:
  ~AddressFollower() = default;
};

class MetricsServer;
class ControlSocket;

class Control final : private Operations {
 public:
  /// New settings, or nullopt with what is wrong in `result`; what has changed stands in it too.
  using Reload = std::function<std::optional<NextSettings>(ReloadResult& result)>;

  /// To be called before any thread exists: they all inherit it, and only run() takes signals, from a descriptor.
  static void block_signals();

  Control(RelayPlan plan, std::shared_ptr<const turn::Settings> settings, Reload reload, Log& log,
          std::shared_ptr<const ConnectionSettings> connections = nullptr);
  ~Control();

  /// Before run(): where addresses that change are heard of; outlives it. wake(): due() may be true; from any thread, also before run().
  void follow(AddressFollower& addresses) { addresses_ = &addresses; }
  void wake();

  /// Runs the relay until a signal ends it. 0; 1 when it could not start or a worker broke.
  int run();

 private:
  static constexpr Time long_ago{-std::chrono::hours(1)};
  bool start();
  void take_signals();
  void hush();  // empties wake_
  void beat();
  ReloadResult reload() override;  // on any thread: the main one does it
  ReloadResult reload_now();
  void take_over(NextSettings next, ReloadResult& result);
  void put_in_force(NextSettings next);
  void tell_addresses(const turn::Settings& before, const turn::Settings& now);
  void follow_addresses(Time now);
  void drain(std::optional<seconds> deadline) override;
  void end_drain() override;
  void obey_orders();
  struct Drain {
    std::optional<seconds> deadline;
    bool begins = true;  // false: it ends
  };
  void order(Drain drain, bool waits);  // on any thread, but the main one cannot wait
  void begin_drain(std::optional<seconds> deadline);
  void stop_draining();
  void apply_drain();
  bool drain_is_over(Time now);
  void tell_of_drain(Time now);
  std::size_t allocations_left() const;
  Standing standing() override;
  std::vector<WorkerReport> reports(milliseconds patience) override;
  turn::Shared::Usage usage() override { return relay_.shared().usage(); }
  std::vector<offload::Outcome> offload_outcomes() override;
  std::uint64_t log_lines_dropped() override { return log_.dropped(); }
  unsigned allocations(std::vector<turn::AllocationFacts>& all, milliseconds patience) override;
  Killed kill(const std::function<bool(const turn::AllocationFacts&)>& which, milliseconds patience) override;
  void add_sink(EventSink& sink) override { relay_.sinks().add(sink); }
  void remove_sink(EventSink& sink) override { relay_.sinks().remove(sink); }
  void update_standing();
  bool start_operators(std::string& why);
  void print_counters();
  void print_drops();
  void print_offload();
  void watch();
  int shut_down();
  void tell_it_is_over();
  bool is_over();  // on any thread
  bool wait_for_workers(milliseconds patience);

  Log& log_;
  Reload reload_;
  Descriptor signals_;  // a signalfd
  // An eventfd: a worker has ended, or the first flow has come. Stands before relay_, whose threads ring it to their last
  // moment.
  Descriptor wake_;
  Relay relay_;
  StallWatches watches_{0, 1};
  bool reload_wanted_ = false;
  bool counters_wanted_ = false;
  bool stop_wanted_ = false;
  Time next_reload_ = long_ago;  // not before
  Time looked_at_{};
  Time pinged_at_ = long_ago;
  Time drops_at_{};
  std::vector<std::uint64_t> drops_;  // as last told, in the order of the counters

  // Orders of other threads; the main one carries them out.
  std::mutex mutex_;
  std::condition_variable done_;
  std::uint64_t reloads_ordered_ = 0, reloads_done_ = 0;  // under mutex_
  ReloadResult reload_result_;                            // under mutex_
  std::optional<Drain> drain_ordered_;  // under mutex_
  std::uint64_t drains_ordered_ = 0, drains_done_ = 0;  // under mutex_
  bool over_ = false;                   // under mutex_: nobody obeys any more
  Standing standing_;                   // under mutex_
  // Of the main thread.
  std::shared_ptr<const turn::Settings> configured_;  // as read, before a drain is laid over it
  AddressFollower* addresses_ = nullptr;
  Time held_looked_at_{};
  bool draining_ = false;
  bool ending_ = false;  // SIGTERM began the drain, or has found one: it cannot be undone
  turn::EndReason end_reason_ = turn::EndReason::shutdown;  // of the allocations that are left at the end
  seconds drain_at_end_{0};  // shutdown.drain_seconds
  Time drain_until_ = never;
  Time drain_told_at_ = long_ago;
  Time drain_looked_at_{};
  std::unique_ptr<MetricsServer> metrics_;
  std::unique_ptr<ControlSocket> socket_;
};

}  // namespace radiotower::daemon
