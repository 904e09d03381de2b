// Of Control: what other threads (the control socket, metrics) ask of it, and the drain.
#include <unistd.h>

#include <ctime>
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

ReloadResult Control::reload() {
  std::unique_lock lock(mutex_);
  if (over_) return {false, {"the relay is ending"}, {}, {}, {}};
  const std::uint64_t number = ++reloads_ordered_;
  lock.unlock();
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t n = ::write(wake_.number(), &one, sizeof one);
  lock.lock();
  done_.wait(lock, [&] { return reloads_done_ >= number || over_; });
  if (reloads_done_ < number) return {false, {"the relay is ending"}, {}, {}, {}};
  return reload_result_;
}

void Control::drain(std::optional<seconds> deadline) {
  {
    const std::lock_guard lock(mutex_);
    drain_ordered_ = Drain{deadline, true};
  }
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t n = ::write(wake_.number(), &one, sizeof one);
}

void Control::end_drain() {
  {
    const std::lock_guard lock(mutex_);
    drain_ordered_ = Drain{std::nullopt, false};
  }
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t n = ::write(wake_.number(), &one, sizeof one);
}

/// On the main thread, whenever the bell has rung.
void Control::obey_orders() {
  std::uint64_t number = 0;
  std::optional<Drain> order;
  {
    const std::lock_guard lock(mutex_);
    if (reloads_done_ < reloads_ordered_) number = reloads_ordered_;
    order = std::exchange(drain_ordered_, std::nullopt);
  }
  if (number != 0) {
    ReloadResult result = reload_now();
    {
      const std::lock_guard lock(mutex_);
      reload_result_ = std::move(result);
      reloads_done_ = number;
    }
    done_.notify_all();
  }
  if (!order) return;
  const bool was_draining = std::exchange(draining_, order->begins);
  drain_until_ = order->begins && order->deadline ? steady_now() + *order->deadline : never;
  if (was_draining != draining_) apply_drain();
  if (draining_)
    log_.write(Priority::notice, "draining", "no new allocations; ends with the last one",
               {Field::if_any("deadline_seconds", order->deadline ? static_cast<std::uint64_t>(order->deadline->count()) : 0)});
  else if (was_draining) log_.write(Priority::notice, "drain ended", "new allocations are taken again");
  update_standing();
}

/// Lays the drain over the settings as they were read, or takes it away.
void Control::apply_drain() {
  auto settings = std::make_shared<turn::Settings>(*configured_);
  settings->draining = settings->draining || draining_;
  relay_.apply(std::move(settings));
}

/// True: the last allocation has ended, or the deadline has come. The deadline ends what is left.
bool Control::drain_is_over(Time now) {
  if (!draining_) return false;
  if (now >= drain_until_) {
    log_.write(Priority::notice, "drained", "the deadline has come", {{"allocations_left", std::uint64_t{relay_.shared().usage().allocations}}});
    return true;
  }
  if (relay_.shared().usage().allocations != 0) return false;
  log_.write(Priority::notice, "drained", "the last allocation has ended");
  return true;
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
  for (const auto& worker : relay_.workers())
    if (auto report = worker->report(patience)) all.push_back(std::move(*report));
  return all;
}

std::vector<offload::Outcome> Control::offload_outcomes() {
  if (!relay_.fast_path()) return {};
  return relay_.fast_path()->offload().outcomes();
}

bool Control::allocations(std::vector<turn::AllocationFacts>& all, milliseconds patience) {
  bool whole = true;
  for (const auto& worker : relay_.workers()) {
    const auto part = std::make_shared<std::vector<turn::AllocationFacts>>();  // the worker may be late
    const bool answered = worker->ask(
        [part](turn::Server& server, Now now, turn::Actions&) {
          server.for_each_allocation(now.steady, [&](const turn::AllocationFacts& facts) { part->push_back(facts); });
        },
        patience);
    if (answered) all.insert(all.end(), part->begin(), part->end());
    whole = whole && answered;
  }
  return whole;
}

std::size_t Control::kill(const std::function<bool(const turn::AllocationFacts&)>& which, milliseconds patience) {
  std::size_t killed = 0;
  for (const auto& worker : relay_.workers()) {
    const auto count = std::make_shared<std::size_t>(0);
    const bool answered = worker->ask(
        [count, which](turn::Server& server, Now now, turn::Actions& out) { *count = server.end_allocations(which, turn::EndReason::killed, now, out); },
        patience);
    if (answered) killed += *count;
  }
  return killed;
}

}  // namespace radiotower::daemon
