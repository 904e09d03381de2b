#include "notifier/delivery.h"

#include <fmt/format.h>

#include "notifier/delivery_state.h"

namespace radiotower::notifier {

using namespace std::chrono_literals;

namespace {

constexpr auto sweep_each = 60s;
constexpr auto queue_rests = 1s;  // after it failed

}  // namespace

std::chrono::milliseconds back_off(std::uint32_t attempts, double random, std::chrono::milliseconds shortest) {
  if (attempts == 0) return 0ms;
  constexpr std::chrono::milliseconds longest = 5min;
  const auto whole = attempts > 9 ? longest : std::min<std::chrono::milliseconds>(longest, shortest * (1 << (attempts - 1)));
  return whole / 2 + std::chrono::milliseconds(static_cast<std::int64_t>(static_cast<double>(whole.count()) / 2 * random));
}

Delivery::Delivery(std::unique_ptr<Queue> queue, std::shared_ptr<const Settings> settings, Log& log, RandomSource random,
                   std::chrono::milliseconds shortest_back_off)
    : state_(std::make_unique<State>(std::move(queue), std::move(settings), log, std::move(random), shortest_back_off)) {}

Delivery::~Delivery() { stop(0ms); }

void Delivery::start() {
  state_->thread = std::thread([this] { state_->run(); });
}

void Delivery::wake() {
  state_->woken = true;
  const std::lock_guard lock(state_->mutex);
  state_->client->wake();
}

void Delivery::stop(std::chrono::milliseconds patience) {
  if (!state_->thread.joinable()) return;
  {
    const std::lock_guard lock(state_->mutex);
    state_->stopping = true;
    state_->stop_at = steady_now() + patience;
    state_->client->wake();
  }
  state_->thread.join();
}

void Delivery::apply(std::shared_ptr<const Settings> settings) {
  const std::lock_guard lock(state_->mutex);
  state_->next_settings = std::move(settings);
  state_->client->wake();
}

const DeliveryCounters& Delivery::counters() const { return state_->counters; }
std::uint64_t Delivery::beats() const { return state_->beats.load(std::memory_order_relaxed); }

// --- the thread

/// What rests after a failure is tried now.
void Delivery::State::hurry() {
  try {
    if (const auto resting = queue->hurry(); resting > 0) log.write(Priority::notice, "trying again", fmt::format("{} channel{} rested after a failure", resting, resting == 1 ? "" : "s"));
  } catch (const SqlError& e) {
    queue_failed(e);
  }
}

void Delivery::State::run() {
  next_sweep = steady_now() + sweep_each;
  hurry();
  for (;;) {
    beats.fetch_add(1, std::memory_order_relaxed);
    {
      const std::lock_guard lock(mutex);
      if (stopping && ((works.empty() && records.empty()) || steady_now() >= stop_at)) break;
    }
    try {
      turn();
    } catch (const std::exception& e) {  // memory, or libcurl: what was begun is settled by turn(), late
      log.write(Priority::error, "delivery failed", e.what());
      std::this_thread::sleep_for(1s);
    }
  }
  try {
    finish();
  } catch (const std::exception& e) {
    log.write(Priority::error, "delivery failed", e.what());
  }
}

void Delivery::State::turn() {
  take_settings();
  write_records();
  const auto now = steady_now();
  bool may_start = false;
  {
    const std::lock_guard lock(mutex);
    may_start = !stopping && next_settings == nullptr;
  }
  // A conversation that broke off inside has nobody who would end it.
  std::vector<std::pair<std::string, std::uint64_t>> orphans;
  for (const auto& [channel, work] : works)
    if (work.in_flight && now >= work.ends) orphans.emplace_back(channel, work.serial);
  for (const auto& [channel, serial] : orphans) {
    Answer answer;
    answer.outcome = Outcome::ambiguous;
    answer.reason = "the request came to no end";
    settle(channel, serial, answer);
  }
  if (may_start) {
    ping_doubtful(now);
    if (woken.exchange(false) || look || now >= next_look) start_posts(now);
    if (now >= next_sweep) sweep(now);
  }
  client->turn(patience(steady_now()));
}

void Delivery::State::take_settings() {
  std::shared_ptr<const Settings> next;
  {
    const std::lock_guard lock(mutex);
    next = next_settings;
  }
  // What is on its way goes by the old ones; nothing begins meanwhile.
  if (!next || client->in_flight() > 0) return;
  try {
    auto fresh = std::make_unique<Client>(next->mattermost);
    settings = next;
    connect(std::move(fresh));
    hurry();  // what was wrong may have been mended
  } catch (const std::runtime_error& e) {
    log.write(Priority::error, "settings of delivery refused", fmt::format("{}; the ones before stay", e.what()));
  }
  const std::lock_guard lock(mutex);
  if (next_settings == next) next_settings.reset();
  look = true;
}

std::chrono::milliseconds Delivery::State::patience(SteadyTime now) {
  SteadyTime next = std::min(next_look, now + look_each);
  bool may_start = true;
  {
    const std::lock_guard lock(mutex);
    if (stopping) next = std::min(now + look_each, stop_at);
    may_start = !stopping && next_settings == nullptr;
  }
  if (!may_start) next = std::max(next, now + 10ms);  // nothing begins: only answers are waited for
  if (may_start && look && !queue_is_failing && all.available(now) > 0 && works.size() < lanes_at_once) return 0ms;
  if (all.available(now) == 0) next = std::min(next, now + all.until_next(now));
  if (queue_is_failing || !records.empty()) next = std::min(next, queue_rests_until);
  for (const auto& [name, server] : servers)
    if (server.doubtful && !server.pinging) next = std::min(next, server.next_ping);
  return std::max(1ms, std::chrono::ceil<std::chrono::milliseconds>(next - now));
}

void Delivery::State::sweep(SteadyTime now) {
  next_sweep = now + sweep_each;
  if (!queue_works(now)) return;
  std::erase_if(buckets, [&](auto& entry) { return entry.second.is_full(now) && !works.contains(entry.first); });
  try {
    queue->sweep(unix_now());
  } catch (const SqlError& e) {
    queue_failed(e);
  }
}

/// What is still on its way may be posted or not: the next one to own the queue counts that.
void Delivery::State::finish() {
  queue_rests_until = {};
  const auto now = unix_now();
  for (auto& [channel, work] : works) {
    if (!work.in_flight) continue;
    records.push_back({channel, [ids = work.ids, name = channel, now](Queue& q) { q.retry(ids, name, 0, true, "the notifier was stopped before the answer", now); }});
  }
  write_records();
  try {
    queue->release_all();
  } catch (const SqlError&) {  // their leases run out
  }
  if (!records.empty())
    log.write(Priority::error, "queue failing", fmt::format("{} results were not written: those posts may be sent once more", records.size()));
}

// --- the queue

bool Delivery::State::queue_works(SteadyTime now) {
  if (!queue_is_failing) return true;
  if (now < queue_rests_until) return false;
  try {
    if (must_reconnect) queue->reconnect();
    must_reconnect = false;
    return true;
  } catch (const SqlError& e) {
    queue_failed(e);
    return false;
  }
}

void Delivery::State::queue_failed(const SqlError& error) {
  must_reconnect = must_reconnect || error.kind == SqlError::Kind::broken;
  queue_rests_until = steady_now() + queue_rests;
  if (queue_is_failing) return;
  queue_is_failing = true;
  log.write(Priority::error, "queue failing", fmt::format("{}; nothing is sent that could not be recorded, and it is tried again each second", error.what()));
}

void Delivery::State::queue_works_again() {
  if (!queue_is_failing) return;
  queue_is_failing = false;
  log.write(Priority::notice, "queue works again", "");
}

void Delivery::State::record(const std::string& channel, std::function<void(Queue&)> write) {
  records.push_back({channel, std::move(write)});
  write_records();
}

/// In order, and until it works: an answer that was heard is not forgotten because a disk is full.
void Delivery::State::write_records() {
  while (!records.empty()) {
    if (!queue_works(steady_now())) return;
    beats.fetch_add(1, std::memory_order_relaxed);
    try {
      records.front().write(*queue);
    } catch (const SqlError& e) {
      return queue_failed(e);
    }
    queue_works_again();
    const auto work = works.find(records.front().channel);
    if (work != works.end()) {
      for (const auto id : work->second.ids) done.erase(id);
      works.erase(work);
    }
    records.pop_front();
    look = true;
  }
}

}  // namespace radiotower::notifier
