#include "relay.h"

#include <sched.h>
#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <thread>
#include <utility>

#include <fmt/format.h>

#include "clock.h"
#include "operations.h"
#include "privileges.h"

namespace radiotower::daemon {

namespace {

using namespace std::chrono_literals;

// What a loop has room for at least, since a reload may raise limits.connections and add listeners. Only the kernel's table of files is made at once: 8 bytes each.
constexpr std::size_t many_connections = 100'000, many_listeners = 4096;
constexpr nanoseconds tend_interval = 2s;

HashKey make_hash_key() {
  HashKey key;
  system_random()({reinterpret_cast<std::uint8_t*>(&key), sizeof key});
  return key;
}

template <typename T>
void add_missing(std::vector<T>& to, const std::vector<T>& from) {
  for (const auto& one : from)
    if (std::find(to.begin(), to.end(), one) == to.end()) to.push_back(one);
}

template <typename T>
bool lacks(const std::vector<T>& in, const std::vector<T>& of) {
  return std::any_of(of.begin(), of.end(), [&](const T& one) { return std::find(in.begin(), in.end(), one) == in.end(); });
}

/// A listener that is still open though no configuration names it any more stays guarded: nobody is relayed to one of ours (P25).
std::shared_ptr<const turn::Settings> with_open_listeners(std::shared_ptr<const turn::Settings> next, const Listeners& listeners) {
  std::vector<net::TransportAddress> udp = listeners.retired();
  for (const auto& [address, transport] : udp_listeners(listeners.plan())) udp.push_back(address);
  std::vector<net::TransportAddress> all = udp;
  add_missing(all, listeners.plan().tcp);
  add_missing(all, listeners.plan().tls);
  const bool guarded = !lacks(next->peers->settings().own_endpoints, all);
  if (guarded && !lacks(next->listeners, udp)) return next;
  auto settings = std::make_shared<turn::Settings>(*next);
  add_missing(settings->listeners, udp);
  if (!guarded) {
    net::PeerPolicySettings peers = next->peers->settings();
    add_missing(peers.own_endpoints, all);
    settings->peers = std::make_shared<net::PeerPolicy>(std::move(peers));
  }
  return settings;
}

}  // namespace

unsigned usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0) return static_cast<unsigned>(std::max(1, CPU_COUNT(&set)));
  return std::max(1u, std::thread::hardware_concurrency());  // more cores than a cpu_set_t holds
}

std::uint64_t raise_descriptor_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 1024;
  const rlimit most{limit.rlim_max, limit.rlim_max};
  if (limit.rlim_cur != limit.rlim_max && setrlimit(RLIMIT_NOFILE, &most) == 0) return most.rlim_cur;
  return limit.rlim_cur;
}

std::uint64_t relay_ports_that_fit(std::uint64_t limit, std::size_t workers, std::size_t listeners) {
  const std::uint64_t ours = 32 + workers * (4 + listeners);  // a loop has its ring or epoll, an eventfd, a timer
  return limit > ours ? limit - ours : 0;
}

Relay::Relay(RelayPlan plan, std::shared_ptr<const turn::Settings> settings, Log& log, std::function<void()> wake,
             std::shared_ptr<const ConnectionSettings> connections)
    : plan_(std::move(plan)),
      settings_(std::move(settings)),
      log_(log),
      wake_(std::move(wake)),
      hash_key_(make_hash_key()),
      nonces_(system_random()),
      tickets_(std::make_shared<turn::TicketMint>(system_random())),
      connections_(connections ? std::move(connections) : std::make_shared<ConnectionSettings>()),
      connection_counts_(std::make_shared<ConnectionCounts>(hash_key_, static_cast<std::size_t>(raise_descriptor_limit() / 2))) {
  if (plan_.workers == 0) plan_.workers = usable_cores();
}

Relay::~Relay() {
  stop();
  wait();
}

void Relay::wait() {
  for (const auto& worker : workers_) worker->join();
}

/// False: an interface was asked for by name, and there is no offload on it. `auto` takes what it gets, and says why
/// when it gets nothing.
bool Relay::start_fast_path(std::string& why) {
  if (!plan_.offload) return true;
  offload::OffloadSettings wanted = *plan_.offload;
  const auto add = [&](const net::IpAddress& ip) {
    auto& all = wanted.addresses;
    if (std::find(all.begin(), all.end(), ip) == all.end()) all.push_back(ip);
  };
  for (const auto& [listener, transport] : udp_listeners(plan_)) add(listener.ip);
  for (const auto& address : settings_->relay_addresses) add(address.local);
  auto offload = plan_.start_offload(wanted, why);
  // Also where nothing was attached: they were granted for this alone.
  std::string why_not_dropped;
  if (!drop_offload_capabilities(why_not_dropped)) {
    why = fmt::format("capabilities of the start would stay for life: {}", why_not_dropped);
    offload.reset();
  }
  if (offload) {
    for (const auto& note : offload->notes()) log_.write(Priority::notice, "offload", note);
    fast_path_ = std::make_unique<FastPath>(std::move(offload), wake_);
    return true;
  }
  if (!wanted.automatic) {
    why = fmt::format("no offload, which offload.xdp asks for: {}", why);
    return false;
  }
  log_.write(Priority::warning, "offload", fmt::format("off, so user space relays every packet: {}", why));
  return true;
}

bool Relay::start(std::string& why) {
  listeners_ = std::make_unique<Listeners>(plan_.workers, plan_.listener_receive_buffer, std::move(plan_.inherited));
  if (!listeners_->open(plan_, why) || !start_fast_path(why)) return false;
  auto opened = listeners_->settle();
  for (const auto& text : listeners_->drop_unused()) log_.write(Priority::warning, "socket not used", text);
  for (const auto& text : listeners_->inherited()) log_.write(Priority::notice, "socket from the service manager", text);
  BucketSource* buckets = fast_path_ ? &fast_path_->offload().buckets() : nullptr;
  shared_ = std::make_shared<turn::Shared>(*settings_, system_random(), hash_key_, buckets);
  WorkerOptions options;
  options.backend = plan_.backend;
  options.loop.gather = plan_.gather;
  options.relay_receive_buffer = plan_.relay_receive_buffer;
  // Room for a range and for addresses of later.
  const std::size_t ports = std::max<std::size_t>(16384, std::size_t{settings_->last_port} - settings_->first_port + 1);
  const std::size_t addresses = std::max<std::size_t>(2, settings_->relay_addresses.size());
  // Never more than there can be descriptors: the kernel refuses a larger table to io_uring.
  const std::size_t connections = std::max<std::size_t>(connections_->total, many_connections);
  options.loop.max_sockets = std::min<std::size_t>(ports * addresses + many_listeners + connections + plan_.moved_sockets + 16,
                                                   raise_descriptor_limit());
  by_number_ = std::make_unique<std::atomic<Worker*>[]>(plan_.workers);
  const auto hand_over = [this](unsigned number, Parcel parcel) {
    Worker* const worker = number < plan_.workers ? by_number_[number].load(std::memory_order_acquire) : nullptr;
    if (worker) worker->hand_over(std::move(parcel));
  };
  const TellWorker tell = [this](unsigned number, ClientMail mail) {
    Worker* const worker = number < plan_.workers ? by_number_[number].load(std::memory_order_acquire) : nullptr;
    return worker && worker->tell(std::move(mail));
  };
  const std::size_t moved_sockets = (plan_.moved_sockets + plan_.workers - 1) / plan_.workers;
  for (unsigned i = 0; i < plan_.workers; ++i) {
    options.number = i;
    std::vector<Listener> listeners, acceptors;
    for (auto& listener : opened[i].opened) (net::is_stream(listener.transport) ? acceptors : listeners).push_back(std::move(listener));
    workers_.push_back(std::make_unique<Worker>(options, std::move(listeners),
                                                WorkerWorld{shared_, settings_, nonces_, hash_key_, log_, wake_, fast_path_.get(), connections_,
                                                            connection_counts_, hand_over, tickets_, tell, moved_sockets, &sinks_, !plan_.dtls.empty()},
                                                std::move(acceptors)));
    Worker::Started started;
    try {
      started = workers_.back()->start();
    } catch (const std::system_error& error) {
      started.why = fmt::format("no thread: {}", error.what());
    }
    if (started.backend.empty()) {
      why = fmt::format("worker {} cannot start: {}", i, started.why);
      stop();
      wait();
      workers_.clear();
      return false;
    }
    by_number_[i].store(workers_.back().get(), std::memory_order_release);
    if (i == 0) started_ = started;
  }
  return true;
}

void Relay::apply(std::shared_ptr<const turn::Settings> settings, std::shared_ptr<const ConnectionSettings> connections) {
  settings_ = with_what_is_held(std::move(settings));
  if (connections) connections_ = std::move(connections);
  std::vector<NextListeners> next(workers_.size());
  const bool other_listeners = listeners_->is_pending();
  if (other_listeners) {
    next = listeners_->settle();
    static_cast<ListenPlan&>(plan_) = listeners_->plan();
  }
  settings_ = with_open_listeners(settings_, *listeners_);
  for (std::size_t i = 0; i < workers_.size(); ++i)
    workers_[i]->apply(settings_, connections_, other_listeners ? std::optional(std::move(next[i])) : std::nullopt);
}

/// A retired listener takes no new allocations, so one that nobody uses stays so. A worker that does not answer may hold some.
void Relay::tend() {
  const std::vector<net::TransportAddress> retired = listeners_->retired();
  const Time now = steady_now();
  if (retired.empty() || now - tended_at_ < tend_interval) return;
  tended_at_ = now;
  std::vector<net::TransportAddress> unused = retired;
  for (const auto& worker : workers_) {
    const auto used = std::make_shared<std::vector<net::TransportAddress>>();
    const bool answered = worker->ask(
        [used, retired](turn::Server& server, Now, turn::Actions&) {
          server.for_each_client([&](const net::FiveTuple& five_tuple) {
            if (std::find(retired.begin(), retired.end(), five_tuple.server) == retired.end() || net::is_stream(five_tuple.transport)) return;
            if (std::find(used->begin(), used->end(), five_tuple.server) == used->end()) used->push_back(five_tuple.server);
          });
        },
        100ms);
    if (!answered) return;
    std::erase_if(unused, [&](const auto& address) { return std::find(used->begin(), used->end(), address) != used->end(); });
    if (unused.empty()) return;
  }
  auto next = listeners_->close(unused);
  for (std::size_t i = 0; i < workers_.size(); ++i) workers_[i]->change_listeners(std::move(next[i]));
  for (const auto& address : unused) log_.write(Priority::notice, "listener closed", "the last call there has ended", {{"listener", address.text()}});
}

/// Offers what the settings say. Relay addresses and external forms that live allocations have besides stay guarded: a peer there is a live
/// relayed port of ours or nobody.
std::shared_ptr<const turn::Settings> Relay::with_what_is_held(std::shared_ptr<const turn::Settings> next) {
  if (!shared_) return next;
  for (const auto& ip : shared_->offer(*next))
    log_.write(Priority::error, "no room", fmt::format("{} cannot be offered beside all that live allocations hold; reload when some have ended", ip.text()));
  held_ = shared_->known_addresses();
  net::PeerPolicySettings peers = next->peers->settings();
  const std::size_t named = peers.relay_addresses.size();
  add_missing(peers.relay_addresses, held_);
  if (peers.relay_addresses.size() == named) return next;
  auto settings = std::make_shared<turn::Settings>(*next);
  settings->peers = std::make_shared<net::PeerPolicy>(std::move(peers));
  return settings;
}

bool Relay::holds_less() const { return shared_ && !held_.empty() && shared_->known_addresses() != held_; }

void Relay::stop(turn::EndReason reason) {
  for (const auto& worker : workers_) worker->stop(reason);
}

bool Relay::ended() const {
  return std::all_of(workers_.begin(), workers_.end(), [](const auto& worker) {
    return worker->state() == Worker::State::ended || worker->state() == Worker::State::broken;
  });
}

bool Relay::broken() const {
  return std::any_of(workers_.begin(), workers_.end(), [](const auto& worker) { return worker->state() == Worker::State::broken; });
}

void EventSinks::add(EventSink& sink) {
  const std::lock_guard lock(mutex_);
  sinks_.push_back(&sink);
  any_.store(true, std::memory_order_release);
}

void EventSinks::remove(EventSink& sink) {
  const std::lock_guard lock(mutex_);
  sinks_.erase(std::remove(sinks_.begin(), sinks_.end(), &sink), sinks_.end());
  any_.store(!sinks_.empty(), std::memory_order_release);
}

void EventSinks::tell(unsigned worker, const turn::Event& event) {
  if (!any_.load(std::memory_order_acquire)) return;
  const std::lock_guard lock(mutex_);
  for (EventSink* const sink : sinks_) sink->on_event(worker, event);
}

}  // namespace radiotower::daemon
