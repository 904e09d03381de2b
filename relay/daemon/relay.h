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
#include "radiotower/service/log.h"
#include "worker.h"

namespace radiotower::daemon {

/// What stays for the life of the process.
struct RelayPlan {
  std::string version;
  Backend backend = Backend::automatic;
  nanoseconds gather{0};  // see io::LoopSettings
  unsigned workers = 0;                          // 0: one a core we may run on
  std::vector<net::TransportAddress> listeners;  // of UDP; each is opened once a worker (SO_REUSEPORT)
  std::vector<net::TransportAddress> dtls;       // of UDP too; one that `listeners` does not name takes DTLS alone. Not empty: all take it
  std::vector<net::TransportAddress> tcp, tls;   // likewise; `tcp` takes TLS too, where there is a certificate
  int listener_receive_buffer = 8 << 20;
  int relay_receive_buffer = 1 << 20;
  std::size_t moved_sockets = 64;  // of all workers together: see MovedClients
  OperatorSettings operators;
  std::optional<offload::OffloadSettings> offload;  // nullopt: off; its addresses are filled in at the start
  std::function<std::unique_ptr<offload::Offload>(const offload::OffloadSettings&, std::string&)> start_offload =
      offload::start;
};

/// The UDP sockets of a worker, in order, and what each takes: udp (DTLS too, where that is on), or dtls alone.
std::vector<std::pair<net::TransportAddress, net::Transport>> udp_listeners(const RelayPlan& plan);

class Relay {
 public:
  /// `wake` is called from any thread: a worker has ended, or the fast path wants to beat. No `connections`: the defaults.
  Relay(RelayPlan plan, std::shared_ptr<const turn::Settings> settings, Log& log, std::function<void()> wake,
        std::shared_ptr<const ConnectionSettings> connections = nullptr);
  ~Relay();  // stops; waits without limit

  /// Binds, attaches the offload, gives up what that needed, then starts the workers. False with a sentence for the
  /// operator in `why`; nothing runs then.
  bool start(std::string& why);
  /// Hands settings to every worker. Returns what of them takes effect with a restart only; empty when all of it has been taken over.
  std::string apply(std::shared_ptr<const turn::Settings> settings, std::shared_ptr<const ConnectionSettings> connections = nullptr);
  /// Allocations on addresses that are offered no longer, or that were told an external one that is not, have ended since: apply() again.
  bool holds_less() const;
  void stop();
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
  int listener_receive_buffer() const { return listener_receive_buffer_; }

 private:
  std::shared_ptr<const turn::Settings> with_what_is_held(std::shared_ptr<const turn::Settings> next);
  bool bind(std::vector<std::vector<Listener>>& listeners, std::string& why);
  bool bind_acceptors(std::vector<std::vector<Listener>>& acceptors, std::string& why);
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
  int listener_receive_buffer_ = 0;
  std::vector<net::IpAddress> held_;  // relay addresses that the policy knows beside those of the settings
};

/// Every core we may run on (sched_getaffinity(2)).
unsigned usable_cores();

/// Raises RLIMIT_NOFILE to its hard limit; returns what it is then.
std::uint64_t raise_descriptor_limit();

/// How many relay ports `limit` descriptors leave room for, once listeners, loops and the log have theirs.
std::uint64_t relay_ports_that_fit(std::uint64_t limit, std::size_t workers, std::size_t listeners);

}  // namespace radiotower::daemon
