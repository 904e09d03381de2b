#include "control.h"

#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <system_error>
#include <thread>
#include <utility>

#include <fmt/format.h>

#include "clock.h"
#include "radiotower/service/notify.h"
#include "privileges.h"

namespace radiotower::daemon {

namespace {

using namespace std::chrono_literals;

constexpr nanoseconds look_interval = 500ms;
constexpr unsigned looks_until_stalled = 10;
constexpr nanoseconds reload_interval = 250ms;  // a storm of SIGHUP makes four reloads a second, and the last one counts
constexpr nanoseconds drops_interval = 60s;
constexpr std::size_t many_connections = 100'000;  // of clients, to have room for in a loop where limits.connections says none

HashKey make_hash_key() {
  HashKey key;
  system_random()({reinterpret_cast<std::uint8_t*>(&key), sizeof key});
  return key;
}

sigset_t our_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGUSR1}) sigaddset(&set, signal);
  return set;
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

/// A sentence when the system's limit keeps receive buffers below what a burst takes, else nothing. `listener` is what
/// the listeners have got. A socket of a relay port is tried here and now: capabilities of the start are gone for them.
std::string small_buffers(const RelayPlan& plan, int listener) {
  int error = 0;
  const net::TransportAddress anywhere{net::IpAddress::v4(std::uint32_t{0}), 0, 0};
  const int relay = io::receive_buffer(io::open_udp(anywhere, {false, false, plan.relay_receive_buffer, 0}, error));
  const bool listener_is_small = listener < plan.listener_receive_buffer;
  if (!listener_is_small && relay >= plan.relay_receive_buffer) return {};
  return fmt::format("listeners have {} of {} bytes, relay ports {} of {}: a burst that is larger loses packets; raise "
                     "net.core.rmem_max to {}",
                     listener, plan.listener_receive_buffer, relay, plan.relay_receive_buffer,
                     listener_is_small ? plan.listener_receive_buffer : plan.relay_receive_buffer);
}

std::string joined(const std::vector<net::TransportAddress>& addresses) {
  std::string text;
  for (const auto& address : addresses) {
    if (!text.empty()) text += ' ';
    text += address.text();
  }
  return text;
}

std::string joined(const std::vector<turn::RelayAddress>& addresses) {
  std::string text;
  for (const auto& address : addresses) {
    if (!text.empty()) text += ' ';
    text += address.local.text();
    if (address.external != address.local) text.append(1, '/').append(address.external.text());
  }
  return text;
}

/// "2027-01-01".
std::string date(std::int64_t unix_time) {
  const auto time = static_cast<std::time_t>(unix_time);
  std::tm parts{};
  gmtime_r(&time, &parts);
  char text[16];
  return {text, std::strftime(text, sizeof text, "%Y-%m-%d", &parts)};
}

/// "turn.example.org until 2027-01-01" of each.
std::string certificates_text(const ConnectionSettings& connections) {
  std::string text;
  if (!connections.identity) return text;
  for (const auto& facts : connections.identity->facts()) {
    if (!text.empty()) text += ", ";
    for (const auto& name : facts.names) text.append(name).append(1, ' ');  // not fmt::join: GCC 12 sees an overflow in it that is not there
    text.append("until ").append(date(facts.not_after));
  }
  return text;
}

template <typename T>
void add_missing(std::vector<T>& to, const std::vector<T>& from) {
  for (const auto& one : from)
    if (std::find(to.begin(), to.end(), one) == to.end()) to.push_back(one);
}

/// What a new configuration no longer names and we still hold stays guarded: nobody is relayed to a listener of ours (P25).
std::shared_ptr<const turn::Settings> with_what_is_bound(const turn::Settings& next, const turn::Settings& bound) {
  auto settings = std::make_shared<turn::Settings>(next);
  settings->relay_addresses = bound.relay_addresses;
  settings->first_port = bound.first_port;
  settings->last_port = bound.last_port;
  add_missing(settings->listeners, bound.listeners);
  net::PeerPolicySettings peers = next.peers->settings();
  add_missing(peers.own_endpoints, bound.peers->settings().own_endpoints);
  add_missing(peers.relay_addresses, bound.peers->settings().relay_addresses);
  settings->peers = std::make_shared<net::PeerPolicy>(std::move(peers));
  return settings;
}

bool same_addresses(const std::vector<turn::RelayAddress>& a, const std::vector<turn::RelayAddress>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const auto& x, const auto& y) { return x.local == y.local && x.external == y.external; });
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

// ---------------------------------------------------------------------------------------------------------------------

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
  const std::size_t ports = std::size_t{settings_->last_port} - settings_->first_port + 1;
  // Never more than there can be descriptors: the kernel refuses a larger table to io_uring.
  const std::size_t streams = plan_.tcp.size() + plan_.tls.size();
  const std::size_t connections = streams == 0 ? 0 : connections_->total != 0 ? connections_->total : many_connections;
  options.loop.max_sockets = std::min<std::size_t>(ports * settings_->relay_addresses.size() + plan_.listeners.size() + plan_.dtls.size() + streams + connections +
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
                                                            connection_counts_, hand_over, tickets_, tell, moved_sockets, !plan_.dtls.empty()},
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
  // Live allocations hold these addresses and ports, and the listeners are bound. A reload is not refused for them: an interface that comes
  // or goes changes what "every address of the host" means, and must not keep a new secret out.
  std::string waits;
  const auto differs = [&](bool different, std::string_view what) {
    if (different) waits.append(waits.empty() ? "" : ", ").append(what);
  };
  differs(settings->listeners != first_->listeners || settings->peers->settings().own_endpoints != first_->peers->settings().own_endpoints, "listeners");
  differs(!same_addresses(settings->relay_addresses, first_->relay_addresses), "relay addresses");
  differs(settings->first_port != first_->first_port || settings->last_port != first_->last_port, "relay ports");
  settings_ = waits.empty() ? std::move(settings) : with_what_is_bound(*settings, *first_);
  if (connections) connections_ = std::move(connections);
  for (const auto& worker : workers_) worker->apply(settings_, connections_);
  return waits;
}

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

StallWatch::Change StallWatch::look(std::uint64_t heartbeat) {
  const bool was_stalled = stalled();
  unchanged_ = heartbeat == last_ ? std::min(unchanged_ + 1, looks_) : 0;
  last_ = heartbeat;
  if (stalled() == was_stalled) return Change::none;
  return was_stalled ? Change::recovered : Change::stalled;
}

// ---------------------------------------------------------------------------------------------------------------------

Descriptor::~Descriptor() {
  if (number_ >= 0) ::close(number_);
}

void Control::block_signals() {
  const sigset_t set = our_signals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  signal(SIGPIPE, SIG_IGN);  // a closed log is an error of write(2), not our end
}

Control::Control(RelayPlan plan, std::shared_ptr<const turn::Settings> settings, Reload reload, Log& log,
                 std::shared_ptr<const ConnectionSettings> connections)
    : log_(log),
      reload_(std::move(reload)),
      signals_([] {
        const sigset_t set = our_signals();
        return signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
      }()),
      wake_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)),
      relay_(std::move(plan), std::move(settings), log, [this] {
        const std::uint64_t one = 1;
        [[maybe_unused]] const ssize_t n = ::write(wake_.number(), &one, sizeof one);
      }, std::move(connections)) {
  if (signals_.number() < 0 || wake_.number() < 0) throw std::system_error(errno, std::generic_category(), "signalfd");
}

bool Control::start() {
  const turn::Settings& settings = relay_.settings();
  const std::uint64_t limit = raise_descriptor_limit();
  const RelayPlan& plan = relay_.plan();
  const std::uint64_t fit = relay_ports_that_fit(limit, plan.workers, udp_listeners(plan).size() + plan.tcp.size() + plan.tls.size());
  const std::uint64_t ports =
      (std::uint64_t{settings.last_port} - settings.first_port + 1) * std::max<std::size_t>(1, settings.relay_addresses.size());
  // A warning where calls of a busy office would meet the limit; elsewhere a fact for those who look for it.
  constexpr std::uint64_t few = 4096;
  if (fit < ports)
    log_.write(fit < few ? Priority::warning : Priority::debug, "few descriptors",
               fmt::format("at most {} allocations fit into the {} open files this process may have; the port range has room for {}: "
                           "raise LimitNOFILE= to {}", fit, limit, ports, ports + limit - fit));

  std::string why;
  if (!relay_.start(why)) {
    log_.write(Priority::error, "not started", why);
    return false;
  }
  if (const std::string said = small_buffers(relay_.plan(), relay_.listener_receive_buffer());
      !said.empty()) log_.write(Priority::warning, "small receive buffers", said);
  watches_.assign(relay_.workers().size(), StallWatch(looks_until_stalled));
  const Worker::Started& started = relay_.started();
  const std::string range = fmt::format("{}-{}", settings.first_port, settings.last_port);
  std::vector<Field> fields;
  fields.emplace_back("version", relay_.plan().version);
  fields.emplace_back("backend", started.backend);
  if (!started.why.empty()) fields.emplace_back("why_not_io_uring", started.why);
  const std::string listeners = joined(relay_.plan().listeners), relays = joined(settings.relay_addresses);
  fields.emplace_back("workers", relay_.plan().workers);
  fields.emplace_back("listeners", listeners);
  const std::string dtls = joined(plan.dtls), tcp = joined(plan.tcp), tls = joined(plan.tls);
  if (!dtls.empty()) fields.emplace_back("dtls", dtls);
  if (!tcp.empty()) fields.emplace_back("tcp", tcp);
  if (!tls.empty()) fields.emplace_back("tls", tls);
  const std::string certificates = certificates_text(relay_.connections());
  if (!certificates.empty()) fields.emplace_back("certificates", certificates);
  fields.emplace_back("relay", relays);
  fields.emplace_back("ports", range);
  const std::string offload = relay_.fast_path() ? relay_.fast_path()->interfaces() : "off";
  fields.emplace_back("offload", offload);
  log_.write(Priority::notice, "ready", "", fields);
  return true;
}

int Control::run() {
  if (!start()) return 1;
  notify::ready(fmt::format("{} workers on {}", relay_.workers().size(), relay_.started().backend));
  looked_at_ = drops_at_ = steady_now();
  while (!stop_wanted_) {
    pollfd wait[2] = {{signals_.number(), POLLIN, 0}, {wake_.number(), POLLIN, 0}};
    const Time next_reload = reload_wanted_ ? reloaded_at_ + reload_interval : never;
    const Time next_beat = relay_.fast_path() ? relay_.fast_path()->next_beat() : never;
    const nanoseconds left = std::min({looked_at_ + look_interval, next_reload, next_beat}) - steady_now();
    const auto timeout = std::clamp<std::int64_t>(std::chrono::ceil<milliseconds>(left).count(), 0, 500);
    if (poll(wait, 2, static_cast<int>(timeout)) < 0 && errno != EINTR) {
      log_.write(Priority::error, "control broken", std::strerror(errno));
      return 1;
    }
    if (wait[0].revents) take_signals();
    if (wait[1].revents) hush();  // before what it rang for is looked at
    if (relay_.broken() || (relay_.ended() && !stop_wanted_)) {
      log_.write(Priority::error, "ending", "a worker has broken down, so all end and the service manager may start anew");
      shut_down();
      return 1;
    }
    if (stop_wanted_) break;
    const Time now = steady_now();
    beat();
    if (reload_wanted_ && now - reloaded_at_ >= reload_interval) {
      reload_wanted_ = false;
      reload();
      reloaded_at_ = steady_now();
    }
    if (std::exchange(counters_wanted_, false)) print_counters();
    if (now - looked_at_ >= look_interval) {
      looked_at_ = now;
      watch();
    }
    if (now - drops_at_ >= drops_interval) {
      drops_at_ = now;
      print_drops();
    }
  }
  return shut_down();
}

void Control::take_signals() {
  signalfd_siginfo info{};
  while (::read(signals_.number(), &info, sizeof info) == sizeof info) {
    switch (info.ssi_signo) {
      case SIGHUP: reload_wanted_ = true; break;
      case SIGUSR1: counters_wanted_ = true; break;
      default: stop_wanted_ = true; break;
    }
  }
}

void Control::hush() {
  std::uint64_t count;
  [[maybe_unused]] const ssize_t n = ::read(wake_.number(), &count, sizeof count);
}

/// Between two of these the loop may be held up for long (a large users file): the program then passes everything up
/// for that time.
void Control::beat() {
  if (!relay_.fast_path()) return;
  const bool all_alive = std::none_of(watches_.begin(), watches_.end(), [](const auto& watch) { return watch.stalled(); });
  relay_.fast_path()->beat(steady_now(), all_alive);
}

void Control::reload() {
  notify::reloading();
  std::string why;
  std::shared_ptr<const ConnectionSettings> connections;
  auto settings = reload_(why, connections);
  const bool good = settings != nullptr;
  if (!good) {
    log_.write(Priority::error, "reload refused", fmt::format("{}; nothing was changed", why));
  } else if (const std::string waits = relay_.apply(std::move(settings), std::move(connections)); !waits.empty()) {
    log_.write(Priority::warning, "reloaded", fmt::format("all but what needs a restart: {}", waits));
  } else {
    // What a renewal is for is seen at once.
    const std::string certificates = certificates_text(relay_.connections());
    log_.write(Priority::notice, "reloaded", "", {Field::if_any("certificates", std::string_view(certificates))});
  }
  notify::ready(good ? "reloaded" : "reload refused, see the log; the settings before it are in force");
}

void Control::watch() {
  bool all_alive = true;
  for (std::size_t i = 0; i < watches_.size(); ++i) {
    switch (watches_[i].look(relay_.workers()[i]->heartbeat())) {
      case StallWatch::Change::none: break;
      case StallWatch::Change::stalled:
        log_.write(Priority::error, "worker stalled", "it has made no turn of its loop for five seconds", {{"worker", static_cast<std::uint64_t>(i)}});
        break;
      case StallWatch::Change::recovered:
        log_.write(Priority::notice, "worker recovered", "", {{"worker", static_cast<std::uint64_t>(i)}});
        break;
    }
    all_alive = all_alive && !watches_[i].stalled();
  }
  const auto interval = notify::watchdog_interval();
  const Time now = steady_now();
  if (all_alive && interval && now - pinged_at_ >= *interval / 3) {
    notify::watchdog();
    pinged_at_ = now;
  }
}

bool Control::wait_for_workers(milliseconds patience) {
  const Time until = steady_now() + patience;
  while (!relay_.ended()) {
    const nanoseconds left = until - steady_now();
    if (left <= 0ns) return false;
    hush();
    if (relay_.ended()) return true;  // looked again: the bell may have rung before it was silenced
    pollfd wait{wake_.number(), POLLIN, 0};
    poll(&wait, 1, static_cast<int>(std::chrono::ceil<milliseconds>(left).count()));
  }
  return true;
}

int Control::shut_down() {
  notify::stopping();
  relay_.stop();
  if (wait_for_workers(700ms)) {
    log_.write(Priority::notice, "ended", "");
    return 0;
  }
  // A worker that does not come back cannot be waited for, nor its memory be taken away under it: leave without destructors.
  log_.write(Priority::error, "ended", "a worker did not end in time and was left behind");
  log_.close(milliseconds(150));
  std::_Exit(1);
}

}  // namespace radiotower::daemon
