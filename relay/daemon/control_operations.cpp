// Of Control: what other threads (the control socket, metrics) ask of it, and the drain.
#include <algorithm>
#include <ctime>
#include <iterator>
#include <utility>

#include <fmt/format.h>

#include "clock.h"
#include "control.h"
#include "control_socket.h"
#include "metrics_server.h"
#include "radiotower/service/notify.h"

namespace radiotower::daemon {

using namespace std::chrono_literals;

Control::~Control() {
  tell_it_is_over();  // run() may have been left by an exception, and who has ordered something waits for us
  // Their threads call into this object.
  socket_.reset();
  metrics_.reset();
}

bool Control::start_operators(std::string& why) {
  const OperatorSettings& settings = relay_.plan().operators;
  Operations& self = *this;
  if (!settings.metrics_listen.empty() && !(metrics_ = MetricsServer::start(settings, self, log_, why))) {
    why = fmt::format("no metrics, which metrics.listen asks for: {}", why);
    return false;
  }
  if (!settings.control_socket.empty() && !(socket_ = ControlSocket::start(settings, self, log_, why))) {
    why = fmt::format("no control socket, which control.socket asks for: {}", why);
    return false;
  }
  return true;
}

void Control::tell_it_is_over() {
  {
    const std::lock_guard lock(mutex_);
    over_ = true;
  }
  done_.notify_all();
}

/// Who asks one worker after the other stops then: the end does not wait for each that is silent.
bool Control::is_over() {
  const std::lock_guard lock(mutex_);
  return over_;
}

ReloadResult Control::reload() {
  std::unique_lock lock(mutex_);
  if (over_) return {false, {"the relay is ending"}, {}, {}, {}};
  const std::uint64_t number = ++reloads_ordered_;
  lock.unlock();
  wake();
  lock.lock();
  done_.wait(lock, [&] { return reloads_done_ >= number || over_; });
  if (reloads_done_ < number) return {false, {"the relay is ending"}, {}, {}, {}};
  return reload_result_;
}

void Control::order(Drain drain, bool waits) {
  std::unique_lock lock(mutex_);
  if (over_) return;
  drain_ordered_ = drain;
  const std::uint64_t number = ++drains_ordered_;
  lock.unlock();
  wake();
  if (!waits) return;
  lock.lock();
  done_.wait(lock, [&] { return drains_done_ >= number || over_; });
}

void Control::drain(std::optional<seconds> deadline) { order({deadline, true}, true); }
void Control::end_drain() { order({std::nullopt, false}, true); }

/// On the main thread, whenever the bell has rung.
void Control::obey_orders() {
  std::uint64_t reload_number = 0, drain_number = 0;
  std::optional<Drain> order;
  {
    const std::lock_guard lock(mutex_);
    if (reloads_done_ < reloads_ordered_) reload_number = reloads_ordered_;
    order = std::exchange(drain_ordered_, std::nullopt);
    drain_number = drains_ordered_;
  }
  if (reload_number != 0) {
    ReloadResult result = reload_now();
    {
      const std::lock_guard lock(mutex_);
      reload_result_ = std::move(result);
      reloads_done_ = reload_number;
    }
    done_.notify_all();
  }
  if (!order) return;
  if (!ending_) {  // else the deadline of SIGTERM stands
    if (order->begins) begin_drain(order->deadline);
    else stop_draining();
  }
  {
    const std::lock_guard lock(mutex_);
    drains_done_ = drain_number;
  }
  done_.notify_all();
}

void Control::begin_drain(std::optional<seconds> deadline) {
  const bool was_draining = std::exchange(draining_, true);
  drain_until_ = deadline ? steady_now() + *deadline : never;
  if (!was_draining) apply_drain();
  std::vector<Field> fields;
  if (deadline) fields.emplace_back("deadline_seconds", static_cast<std::uint64_t>(deadline->count()));
  fields.emplace_back("allocations_left", std::uint64_t{allocations_left()});
  log_.write(Priority::notice, "draining",
             !ending_ ? "no new allocations; the relay ends with the last one"
                      : "SIGTERM: no new allocations; the relay ends with the last one, after shutdown.drain_seconds, or at a second SIGTERM",
             fields);
  update_standing();
  drain_told_at_ = long_ago;
  tell_of_drain(steady_now());
}

void Control::stop_draining() {
  drain_until_ = never;
  if (!std::exchange(draining_, false)) return;
  apply_drain();
  log_.write(Priority::notice, "drain ended", relay_.settings().draining ? "redirect.draining still keeps new allocations out" : "new allocations are taken again");
  notify::status("");
  update_standing();
}

/// Lays the drain over the settings as they were read, or takes it away; returns once every worker goes by it.
void Control::apply_drain() {
  auto settings = std::make_shared<turn::Settings>(*configured_);
  settings->draining = settings->draining || draining_;
  relay_.apply(std::move(settings));
  for (const auto& worker : relay_.workers()) worker->ask([](turn::Server&, Now, turn::Actions&) {}, 2s);
}

/// Relayed addresses that are held: one for each family of an allocation. A reservation that nobody has claimed is none, since to claim it
/// takes an Allocate.
std::size_t Control::allocations_left() const {
  const turn::Shared::Usage usage = relay_.shared().usage();
  return usage.allocations - std::min(usage.allocations, usage.reserved);
}

/// True: the last allocation has ended, or the deadline has come. The deadline ends what is left.
bool Control::drain_is_over(Time now) {
  if (!draining_) return false;
  const std::size_t left = allocations_left();
  if (left == 0) {
    log_.write(Priority::notice, "drained", "the last allocation has ended");
    return true;
  }
  if (now < drain_until_) return false;
  log_.write(Priority::notice, "drained", "the deadline has come, and ends what is left", {{"allocations_left", std::uint64_t{left}}});
  end_reason_ = turn::EndReason::drained;
  return true;
}

void Control::tell_of_drain(Time now) {
  if (now - drain_told_at_ < 5s) return;
  drain_told_at_ = now;
  const std::size_t left = allocations_left();
  const std::string deadline =
      drain_until_ == never ? "" : fmt::format(", {} s at most", std::max<std::int64_t>(0, std::chrono::duration_cast<seconds>(drain_until_ - now).count()));
  notify::status(fmt::format("draining: {} allocation{} left{}", left, left == 1 ? "" : "s", deadline));
  if (ending_) notify::extend_timeout(30s);  // heard again long before it has passed
}

void Control::update_standing() {
  Standing standing;
  const RelayPlan& plan = relay_.plan();
  const turn::Settings& settings = relay_.settings();
  standing.version = plan.version;
  standing.realm = settings.realm;
  standing.backend = relay_.started().backend;
  standing.why_not_io_uring = relay_.started().why;
  standing.offload = relay_.fast_path() ? relay_.fast_path()->interfaces() : "off";
  standing.workers = plan.workers;
  const auto list = [&](const char* transport, const std::vector<net::TransportAddress>& addresses) {
    for (const auto& address : addresses) standing.listeners.push_back(fmt::format("{} {}", transport, address.text()));
  };
  list("udp", plan.listeners);
  list("dtls", plan.dtls);
  list("tcp", plan.tcp);
  list("tls", plan.tls);
  for (const auto& address : settings.relay_addresses)
    standing.relay_addresses.push_back(address.external == address.local ? address.local.text()
                                                                         : fmt::format("{} as {}", address.local.text(), address.external.text()));
  standing.first_port = settings.first_port;
  standing.last_port = settings.last_port;
  standing.draining = settings.draining;
  standing.ending = ending_;
  if (draining_ && drain_until_ != never)
    standing.drain_deadline = ::time(nullptr) + std::chrono::duration_cast<seconds>(drain_until_ - steady_now()).count();
  if (relay_.connections().identity) standing.certificates = relay_.connections().identity->facts();
  const std::lock_guard lock(mutex_);
  standing.started_at = standing_.started_at != 0 ? standing_.started_at : ::time(nullptr);
  standing.reloads_good = standing_.reloads_good;
  standing.reloads_refused = standing_.reloads_refused;
  standing.reloaded_at = standing_.reloaded_at;
  standing_ = std::move(standing);
}

Standing Control::standing() {
  const std::lock_guard lock(mutex_);
  return standing_;
}

std::vector<WorkerReport> Control::reports(milliseconds patience) {
  std::vector<WorkerReport> all;
  for (const auto& worker : relay_.workers()) {
    if (auto report = worker->report(patience)) all.push_back(std::move(*report));
    else if (is_over()) break;
  }
  return all;
}

std::vector<offload::Outcome> Control::offload_outcomes() {
  if (!relay_.fast_path()) return {};
  return relay_.fast_path()->offload().outcomes();
}

unsigned Control::allocations(std::vector<turn::AllocationFacts>& all, milliseconds patience) {
  constexpr std::size_t slice = 256;  // some 100 us: packets wait for so long
  struct Part {
    std::vector<turn::AllocationFacts> facts;
    std::uint32_t next = 0;
  };
  auto silent = static_cast<unsigned>(relay_.workers().size());
  for (const auto& worker : relay_.workers()) {
    const Time until = steady_now() + patience;
    std::uint32_t next = 0;
    bool answered = false;
    do {
      const auto part = std::make_shared<Part>();  // the worker may be late
      part->facts.reserve(slice);
      answered = worker->ask(
          [part, next](turn::Server& server, Now now, turn::Actions&) {
            if (next == 0) server.count_shortcuts(now.steady);
            part->next = server.visit_allocations(now.steady, next, slice, [&](const turn::AllocationFacts& facts) { part->facts.push_back(facts); });
          },
          std::max(milliseconds(0), std::chrono::duration_cast<milliseconds>(until - steady_now())));
      if (!answered) break;
      all.insert(all.end(), std::make_move_iterator(part->facts.begin()), std::make_move_iterator(part->facts.end()));
      next = part->next;
    } while (next != 0);
    if (answered) --silent;
    else if (is_over()) break;
  }
  return silent;
}

Killed Control::kill(const std::function<bool(const turn::AllocationFacts&)>& which, milliseconds patience) {
  Killed killed{0, static_cast<unsigned>(relay_.workers().size())};
  for (const auto& worker : relay_.workers()) {
    const auto count = std::make_shared<std::size_t>(0);
    const bool answered = worker->ask(
        [count, which](turn::Server& server, Now now, turn::Actions& out) {
          server.count_shortcuts(now.steady);
          *count = server.end_allocations(which, turn::EndReason::killed, now, out);
        },
        patience);
    if (answered) killed.ended += *count, --killed.silent;
    else if (is_over()) break;
  }
  return killed;
}

}  // namespace radiotower::daemon
