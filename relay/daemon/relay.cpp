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

constexpr std::size_t many_connections = 100'000;  // of clients, to have room for in a loop where limits.connections says none

HashKey make_hash_key() {
  HashKey key;
  system_random()({reinterpret_cast<std::uint8_t*>(&key), sizeof key});
  return key;
}

std::string bind_failure(const net::TransportAddress& address, int error, bool is_tcp = false) {
  const std::string text = address.text();
  switch (error) {
    case EADDRINUSE:
      return fmt::format("cannot listen on {}: another program has it; `ss -{}lpn 'sport = :{}'` says which", text, is_tcp ? 't' : 'u', address.port);
    case EADDRNOTAVAIL:
      return fmt::format("cannot listen on {}: this host has no such address (yet); `ip address` shows what it has", text);
    case EACCES:
      return fmt::format("cannot listen on {}: a port below 1024 needs CAP_NET_BIND_SERVICE, which the drop-in radiotower-relay-443.conf gives the service (docs/tls.md)", text);
    case EMFILE:
    case ENFILE: return fmt::format("cannot listen on {}: too many open files; raise LimitNOFILE=", text);
    default: return fmt::format("cannot listen on {}: {}", text, std::strerror(error));
  }
}

template <typename T>
void add_missing(std::vector<T>& to, const std::vector<T>& from) {
  for (const auto& one : from)
    if (std::find(to.begin(), to.end(), one) == to.end()) to.push_back(one);
}

/// What a new configuration no longer names and we still hold stays guarded: nobody is relayed to a listener of ours (P25).
std::shared_ptr<const turn::Settings> with_what_is_bound(const turn::Settings& next, const turn::Settings& bound) {
  auto settings = std::make_shared<turn::Settings>(next);
  add_missing(settings->listeners, bound.listeners);
  net::PeerPolicySettings peers = next.peers->settings();
  add_missing(peers.own_endpoints, bound.peers->settings().own_endpoints);
  settings->peers = std::make_shared<net::PeerPolicy>(std::move(peers));
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
      first_(settings),
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

std::vector<std::pair<net::TransportAddress, net::Transport>> udp_listeners(const RelayPlan& plan) {
  std::vector<std::pair<net::TransportAddress, net::Transport>> all;
  for (const auto& address : plan.listeners) all.emplace_back(address, net::Transport::udp);
  for (const auto& address : plan.dtls)
    if (std::find(plan.listeners.begin(), plan.listeners.end(), address) == plan.listeners.end()) all.emplace_back(address, net::Transport::dtls);
  return all;
}

bool Relay::bind(std::vector<std::vector<Listener>>& listeners, std::string& why) {
  listeners.clear();
  listener_receive_buffer_ = plan_.listener_receive_buffer;
  listeners.resize(plan_.workers);
  int error = 0;
  for (const auto& [address, transport] : udp_listeners(plan_)) {
    // SO_REUSEPORT would let a second relay of the same user take half of our packets without a word: ask without it first. More than
    // once, since the kernel may hold the sockets of an io_uring for a moment after the relay before us has ended.
    bool is_free = false;
    for (int i = 0; i < 10 && !is_free; ++i) {
      is_free = static_cast<bool>(io::open_udp(address, {}, error));
      if (is_free || error != EADDRINUSE) break;
      std::this_thread::sleep_for(50ms);
    }
    if (!is_free) {
      why = bind_failure(address, error);
      return false;
    }
    for (auto& list : listeners) {
      io::Socket socket = io::open_udp(address, {true, false, plan_.listener_receive_buffer, 0}, error);
      if (!socket) {
        why = bind_failure(address, error);
        return false;
      }
      listener_receive_buffer_ = std::min(listener_receive_buffer_, io::receive_buffer(socket));
      list.push_back({std::move(socket), address, transport});
    }
  }
  return true;
}

bool Relay::bind_acceptors(std::vector<std::vector<Listener>>& acceptors, std::string& why) {
  acceptors.clear();
  acceptors.resize(plan_.workers);
  const auto bind_all = [&](const std::vector<net::TransportAddress>& addresses, net::Transport transport) {
    int error = 0;
    for (const auto& address : addresses) {
      // Without SO_REUSEPORT first, and more than once: see bind(). That socket hears nobody, since none is queued in so short a time.
      bool is_free = false;
      for (int i = 0; i < 10 && !is_free; ++i) {
        is_free = static_cast<bool>(io::open_tcp_listener(address, {}, error));
        if (is_free || error != EADDRINUSE) break;
        std::this_thread::sleep_for(50ms);
      }
      for (std::size_t i = 0; i < acceptors.size() && is_free; ++i) {
        io::TcpOptions options;
        options.reuse_port = true;
        io::Socket socket = io::open_tcp_listener(address, options, error);
        is_free = static_cast<bool>(socket);
        acceptors[i].push_back({std::move(socket), address, transport});
      }
      if (is_free) continue;
      why = bind_failure(address, error, true);
      return false;
    }
    return true;
  };
  return bind_all(plan_.tcp, net::Transport::tcp) && bind_all(plan_.tls, net::Transport::tls);
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
  std::vector<std::vector<Listener>> listeners, acceptors;
  if (!bind(listeners, why) || !bind_acceptors(acceptors, why) || !start_fast_path(why)) return false;
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
  const std::size_t streams = plan_.tcp.size() + plan_.tls.size();
  const std::size_t connections = streams == 0 ? 0 : connections_->total != 0 ? connections_->total : many_connections;
  options.loop.max_sockets = std::min<std::size_t>(ports * addresses + plan_.listeners.size() + plan_.dtls.size() + streams + connections +
                                                       plan_.moved_sockets + 16,
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
    workers_.push_back(std::make_unique<Worker>(options, std::move(listeners[i]),
                                                WorkerWorld{shared_, settings_, nonces_, hash_key_, log_, wake_, fast_path_.get(), connections_,
                                                            connection_counts_, hand_over, tickets_, tell, moved_sockets, &sinks_, !plan_.dtls.empty()},
                                                std::move(acceptors[i])));
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

std::string Relay::apply(std::shared_ptr<const turn::Settings> settings, std::shared_ptr<const ConnectionSettings> connections) {
  // The listeners are bound. A reload is not refused for them: an interface that comes
  // or goes changes what "every address of the host" means, and must not keep a new secret out.
  std::string waits;
  const auto differs = [&](bool different, std::string_view what) {
    if (different) waits.append(waits.empty() ? "" : ", ").append(what);
  };
  differs(settings->listeners != first_->listeners || settings->peers->settings().own_endpoints != first_->peers->settings().own_endpoints, "listeners");
  settings_ = with_what_is_held(waits.empty() ? std::move(settings) : with_what_is_bound(*settings, *first_));
  if (connections) connections_ = std::move(connections);
  for (const auto& worker : workers_) worker->apply(settings_, connections_);
  return waits;
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

void Relay::stop() {
  for (const auto& worker : workers_) worker->stop();
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
