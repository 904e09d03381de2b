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
#include "control_socket.h"
#include "metrics_server.h"
#include "radiotower/base/calendar.h"
#include "radiotower/service/notify.h"

namespace radiotower::daemon {

namespace {

using namespace std::chrono_literals;

constexpr nanoseconds look_interval = 500ms;
constexpr unsigned looks_until_stalled = 10;
constexpr nanoseconds least_rest = 25ms;  // between two reloads: a storm of SIGHUP becomes a few of them, and the last one counts
constexpr int rest_share = 4;             // and at least so many times as long as the last one took
constexpr nanoseconds drops_interval = 60s;
constexpr nanoseconds drain_interval = 200ms;
constexpr milliseconds workers_end_within = 3500ms;  // on a host that is busy, too; systemd takes its patience from TimeoutStopSec=5

sigset_t our_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2}) sigaddset(&set, signal);
  return set;
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
    if (address.external != address.local) text.append(address.external.text()).append(1, '/');  // "public/private", as relay.external has it
    text += address.local.text();
  }
  return text;
}

/// "turn.example.org until 2027-01-01" of each.
std::string certificates_text(const ConnectionSettings& connections) {
  std::string text;
  if (!connections.identity) return text;
  for (const auto& facts : connections.identity->facts()) {
    if (!text.empty()) text += ", ";
    for (const auto& name : facts.names) text.append(name).append(1, ' ');  // not fmt::join: GCC 12 sees an overflow in it that is not there
    text.append("until ").append(utc_day(facts.not_after));
  }
  return text;
}

}  // namespace

StallWatch::Change StallWatch::look(std::uint64_t heartbeat) {
  const bool was_stalled = stalled();
  unchanged_ = heartbeat == last_ ? std::min(unchanged_ + 1, looks_) : 0;
  last_ = heartbeat;
  if (stalled() == was_stalled) return Change::none;
  return was_stalled ? Change::recovered : Change::stalled;
}

bool StallWatches::look(const std::function<std::uint64_t(std::size_t)>& heartbeat, const std::function<void(std::size_t, StallWatch::Change)>& changed) {
  for (std::size_t i = 0; i < watches_.size(); ++i)
    if (const auto change = watches_[i].look(heartbeat(i)); change != StallWatch::Change::none) changed(i, change);
  return all_alive();
}

bool StallWatches::all_alive() const {
  return std::none_of(watches_.begin(), watches_.end(), [](const StallWatch& watch) { return watch.stalled(); });
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
      relay_(std::move(plan), std::move(settings), log, [this] { wake(); }, std::move(connections)) {
  if (signals_.number() < 0 || wake_.number() < 0) throw std::system_error(errno, std::generic_category(), "signalfd");
}

void Control::wake() {
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t n = ::write(wake_.number(), &one, sizeof one);
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
  configured_ = relay_.shared_settings();
  watches_ = StallWatches(relay_.workers().size(), looks_until_stalled);
  drain_at_end_ = seconds(plan.operators.drain_seconds);
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
  if (!start_operators(why)) {
    log_.write(Priority::error, "not started", why);
    return false;
  }
  update_standing();
  if (!plan.operators.control_socket.empty()) fields.emplace_back("control", plan.operators.control_socket);
  if (!plan.operators.metrics_listen.empty()) fields.emplace_back("metrics", plan.operators.metrics_listen);
  log_.write(Priority::notice, "ready", "", fields);
  return true;
}

int Control::run() {
  if (!start()) return 1;
  notify::ready(fmt::format("{} workers on {}", relay_.workers().size(), relay_.started().backend));
  looked_at_ = drops_at_ = steady_now();
  while (!stop_wanted_) {
    pollfd wait[3] = {{signals_.number(), POLLIN, 0}, {wake_.number(), POLLIN, 0}, {addresses_ ? addresses_->descriptor() : -1, POLLIN, 0}};
    const Time next_reload = reload_wanted_ ? next_reload_ : never;
    const Time next_beat = relay_.fast_path() ? relay_.fast_path()->next_beat() : never;
    const Time next_drain = draining_ ? drain_looked_at_ + drain_interval : never;
    const nanoseconds left = std::min({looked_at_ + look_interval, next_reload, next_beat, next_drain}) - steady_now();
    const auto timeout = std::clamp<std::int64_t>(std::chrono::ceil<milliseconds>(left).count(), 0, 500);
    if (poll(wait, 3, static_cast<int>(timeout)) < 0 && errno != EINTR) {
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
    if (reload_wanted_ && now >= next_reload_) {
      reload_wanted_ = false;
      reload_now();
      const Time done = steady_now();
      next_reload_ = done + std::max<nanoseconds>(least_rest, rest_share * (done - now));
    }
    if (wait[2].revents) addresses_->hear(now);
    follow_addresses(now);
    obey_orders();
    if (draining_ && now - drain_looked_at_ >= drain_interval) {
      drain_looked_at_ = now;
      tell_of_drain(now);
      if (drain_is_over(now)) break;
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
      case SIGUSR2:
        if (!ending_) order({std::nullopt, true}, false);
        break;
      default:
        if (ending_ || drain_at_end_ == 0s) stop_wanted_ = true;
        else {
          ending_ = true;
          notify::stopping();
          // A drain that is under way may have to end sooner, never later.
          const nanoseconds left = draining_ && drain_until_ != never ? drain_until_ - steady_now() : nanoseconds::max();
          begin_drain(std::max(seconds(0), std::min(drain_at_end_, std::chrono::ceil<seconds>(left))));
        }
        break;
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
  relay_.fast_path()->beat(steady_now(), watches_.all_alive());
}

ReloadResult Control::reload_now() {
  notify::reloading();
  ReloadResult result;
  auto next = reload_(result);
  std::string why;
  if (next && !relay_.open_listeners({next->listeners, next->dtls, next->tcp, next->tls}, why)) {
    log_.write(Priority::error, "configuration", why);
    result.errors.push_back(why);
    next.reset();
  }
  result.good = next.has_value();
  if (!next) {
    result.changes.clear();
    log_.write(Priority::error, "reload refused", fmt::format("{}; nothing was changed", result.errors.size() == 1 ? result.errors[0] : "the configuration has mistakes, named above"));
  } else {
    take_over(std::move(*next), result);
  }
  {
    const std::lock_guard lock(mutex_);
    ++(result.good ? standing_.reloads_good : standing_.reloads_refused);
    if (result.good) standing_.reloaded_at = ::time(nullptr);
  }
  update_standing();
  notify::ready(result.good ? "reloaded" : "reload refused, see the log; the settings before it are in force");
  if (ending_) notify::stopping();
  drain_told_at_ = long_ago;
  return result;
}

void Control::take_over(NextSettings next, ReloadResult& result) {
  if (next.taken) next.taken();
  drain_at_end_ = seconds(next.operators.drain_seconds);
  if (metrics_) metrics_->apply(next.operators);
  relay_.set_operators(next.operators);
  put_in_force(std::move(next));
  const auto& listeners = relay_.listener_changes();
  result.changes.insert(result.changes.end(), listeners.begin(), listeners.end());
  if (result.changes.empty() && result.needs_restart.empty()) result.changes.emplace_back("nothing has changed");
  for (const auto& change : result.changes) log_.write(Priority::notice, "changed", change);
  for (const auto& change : result.needs_restart)
    log_.write(Priority::warning, "needs a restart", fmt::format("{}; it stays as it was until then, the rest is taken over", change));
  // What a renewal is for is seen at once.
  const std::string certificates = certificates_text(relay_.connections());
  log_.write(Priority::notice, "reloaded", "", {Field::if_any("certificates", std::string_view(certificates))});
}

void Control::watch() {
  const bool all_alive = watches_.look([&](std::size_t i) { return relay_.workers()[i]->heartbeat(); },
                                       [&](std::size_t i, StallWatch::Change change) {
                                         const Field worker("worker", std::uint64_t{i});
                                         if (change == StallWatch::Change::stalled)
                                           log_.write(Priority::error, "worker stalled", "it has made no turn of its loop for five seconds", {worker});
                                         else log_.write(Priority::notice, "worker recovered", "", {worker});
                                       });
  if (all_alive) relay_.tend();
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
  tell_it_is_over();
  relay_.stop(end_reason_);
  const bool all_ended = wait_for_workers(workers_end_within);
  socket_.reset();  // afterwards: who listens to events hears of these ends too
  metrics_.reset();
  if (all_ended) {
    log_.write(Priority::notice, "ended", "");
    return 0;
  }
  // A worker that does not come back cannot be waited for, nor its memory be taken away under it: leave without destructors.
  log_.write(Priority::error, "ended", "a worker did not end in time and was left behind");
  log_.close(milliseconds(150));
  std::_Exit(1);
}

}  // namespace radiotower::daemon
