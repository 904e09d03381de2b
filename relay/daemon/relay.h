// The workers of a relay and what they share: binds the listeners, attaches the offload, starts and stops the threads, hands settings to them.
// Knows no signals and no operators, so that tests can run one.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "config.h"
#include "fast_path.h"
#include "listeners.h"
#include "radiotower/service/log.h"
#include "worker.h"

namespace radiotower::daemon {

/// What stays for the life of the process, beside the relay addresses and the port range of the settings.
struct RelayPlan : ListenPlan {  // which a reload changes
  std::string version;
  Backend backend = Backend::automatic;
  nanoseconds gather{0};  // see io::LoopSettings
  unsigned workers = 0;                          // 0: one a core we may run on
  int listener_receive_buffer = 8 << 20;
  int relay_receive_buffer = 1 << 20;
  std::size_t moved_sockets = 64;  // of all workers together: see MovedClients
  OperatorSettings operators;
  std::optional<offload::OffloadSettings> offload;  // nullopt: off; its addresses are filled in at the start
  std::function<std::unique_ptr<offload::Offload>(const offload::OffloadSettings&, std::string&)> start_offload =
      offload::start;
  std::vector<std::shared_ptr<const io::BoundSocket>> inherited;  // from the service manager: see Listeners
};

class Relay {
 public:
  /// `wake` is called from any thread: a worker has ended, or the fast path wants to beat. No `connections`: the defaults.
  Relay(RelayPlan plan, std::shared_ptr<const turn::Settings> settings, Log& log, std::function<void()> wake,
        std::shared_ptr<const ConnectionSettings> connections = nullptr);
  ~Relay();  // stops; waits without limit

  /// Binds, attaches the offload, gives up what that needed, then starts the workers. False with a sentence for the
  /// operator in `why`; nothing runs then.
  bool start(std::string& why);
  /// Opens the listeners that `next` has beyond ours. False with a sentence for the operator: then nothing has changed.
  bool open_listeners(const ListenPlan& next, std::string& why) { return listeners_->open(next, why); }
  /// Hands settings to every worker, and the listeners that open_listeners() has opened. Returns what of them takes effect with a restart only; empty when all of it has been taken over.
  std::string apply(std::shared_ptr<const turn::Settings> settings, std::shared_ptr<const ConnectionSettings> connections = nullptr);
  /// But for the sockets' paths, which stay.
  void set_operators(OperatorSettings next) {
    next.control_socket = plan_.operators.control_socket;
    next.metrics_listen = plan_.operators.metrics_listen;
    plan_.operators = std::move(next);
  }
  /// What the last apply() has changed of the listeners, a sentence for each.
  const std::vector<std::string>& listener_changes() const { return listeners_->changes(); }
  /// Closes retired listeners whose last allocation has ended. To be called every second or so; costs nothing while there are none.
  void tend();
  void stop(turn::EndReason reason = turn::EndReason::shutdown);  // what the log says of allocations that are left
  /// True when every worker has ended.
  bool ended() const;
  bool broken() const;  // a worker ended that nobody stopped

  const std::vector<std::unique_ptr<Worker>>& workers() const { return workers_; }
  const Worker::Started& started() const { return started_; }  // of the first worker
  const RelayPlan& plan() const { return plan_; }
  const turn::Settings& settings() const { return *settings_; }
  const std::shared_ptr<const turn::Settings>& shared_settings() const { return settings_; }
  const ConnectionSettings& connections() const { return *connections_; }
  const turn::Shared& shared() const { return *shared_; }  // once started
  EventSinks& sinks() { return sinks_; }
  FastPath* fast_path() { return fast_path_.get(); }       // nullptr: there is none
  /// The smallest that a listener got, in bytes: those of the start may be granted more than sockets of later.
  int listener_receive_buffer() const { return listeners_->smallest_receive_buffer(); }

 private:
  void wait();  // for all workers, before the first of them goes: they hand clients to each other
  bool start_fast_path(std::string& why);

  RelayPlan plan_;
  std::shared_ptr<const turn::Settings> first_;  // as at the start: what is bound for life
  std::shared_ptr<const turn::Settings> settings_;
  Log& log_;
  std::function<void()> wake_;
  HashKey hash_key_;
  turn::NonceMint nonces_;
  std::shared_ptr<const turn::TicketMint> tickets_;
  std::unique_ptr<FastPath> fast_path_;  // outlives the buckets of shared_ and what the workers have given
  std::shared_ptr<turn::Shared> shared_;
  std::shared_ptr<const ConnectionSettings> connections_;
  std::shared_ptr<ConnectionCounts> connection_counts_;
  std::unique_ptr<std::atomic<Worker*>[]> by_number_;  // null where a worker has not started yet
  std::vector<std::unique_ptr<Worker>> workers_;
  EventSinks sinks_;
  Worker::Started started_;
  std::unique_ptr<Listeners> listeners_;
  Time tended_at_{};
};

/// Every core we may run on (sched_getaffinity(2)).
unsigned usable_cores();

/// Raises RLIMIT_NOFILE to its hard limit; returns what it is then.
std::uint64_t raise_descriptor_limit();

/// How many relay ports `limit` descriptors leave room for, once listeners, loops and the log have theirs.
std::uint64_t relay_ports_that_fit(std::uint64_t limit, std::size_t workers, std::size_t listeners);

}  // namespace radiotower::daemon
