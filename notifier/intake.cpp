#include "notifier/intake.h"

#include <fmt/format.h>

#include <chrono>

#include "notifier/clock.h"

namespace radiotower::notifier {

namespace {

constexpr std::size_t most_in_a_commit = 500;
constexpr std::size_t most_waiting = 5'000;  // beyond it the disk is far too slow, and senders are told to come back

}  // namespace

Intake::Intake(std::unique_ptr<Queue> queue, std::shared_ptr<const Settings> settings, Log& log,
               std::function<void()> stored, const HashKey& key)
    : queue_(std::move(queue)),
      log_(log),
      stored_(std::move(stored)),
      lines_(key, seconds(60), 30),
      settings_(std::move(settings)) {}

Intake::~Intake() { stop(); }

void Intake::start() {
  thread_ = std::thread([this] { run(); });
}

void Intake::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void Intake::submit(Event event, Done done) {
  {
    const std::lock_guard lock(mutex_);
    if (!stopping_ && waiting_.size() < most_waiting) {
      waiting_.push_back({std::move(event), std::move(done)});
      done = nullptr;
    }
  }
  if (!done) return wake_.notify_one();
  counters_.full.fetch_add(1, std::memory_order_relaxed);
  done(Taken::full);
}

void Intake::apply(std::shared_ptr<const Settings> settings) {
  const std::lock_guard lock(mutex_);
  settings_ = std::move(settings);
}

std::optional<std::string> Intake::trouble() const {
  const std::lock_guard lock(mutex_);
  return trouble_;
}

void Intake::run() {
  std::vector<Waiting> batch;
  for (;;) {
    std::shared_ptr<const Settings> settings;
    {
      std::unique_lock lock(mutex_);
      // A beat a second, also when nothing comes: the watchdog watches it.
      wake_.wait_for(lock, std::chrono::seconds(1), [&] { return stopping_ || !waiting_.empty(); });
      beats_.fetch_add(1, std::memory_order_relaxed);
      if (waiting_.empty() && stopping_) return;
      const std::size_t n = std::min(waiting_.size(), most_in_a_commit);
      batch.assign(std::make_move_iterator(waiting_.begin()),
                   std::make_move_iterator(waiting_.begin() + static_cast<std::ptrdiff_t>(n)));
      waiting_.erase(waiting_.begin(), waiting_.begin() + static_cast<std::ptrdiff_t>(n));
      settings = settings_;
    }
    try {
      if (batch.empty()) look_whether_it_works(*settings);
      else store(batch, *settings);
    } catch (const std::exception& error) {  // memory: who has not been answered is, by the server's own deadline
      log_.write(Priority::error, "intake failed", error.what());
    }
    batch.clear();
  }
}

void Intake::store(std::vector<Waiting>& batch, const Settings& settings) {
  std::vector<Event> events;
  events.reserve(batch.size());
  for (auto& waiting : batch) events.push_back(std::move(waiting.event));
  std::vector<Queue::Result> results;
  try {
    // The bound is looked at once a batch: it may be passed by one batch, which is less than one hundredth of it by
    // default.
    if (queue_->size() >= static_cast<std::int64_t>(settings.queue_limit)) {
      counters_.full.fetch_add(batch.size(), std::memory_order_relaxed);
      begin_trouble("queue full", fmt::format("{} posts wait or are dead, as many as queue_limit allows", settings.queue_limit));
      for (auto& waiting : batch) waiting.done(Taken::full);
      return;
    }
    results = queue_->store(events, unix_now(), [&](const Event& event, const Change& change, std::string& why) {
      return route(settings, event, change, why);
    });
  } catch (const SqlError& error) {
    failed(batch, error.what());
    return reconnect_after(error);
  } catch (const std::exception& error) {
    // Our own mistake, with one event: it must not take the others with it, nor the thread.
    if (batch.size() == 1) return failed(batch, error.what());
    for (std::size_t i = 0; i < batch.size(); ++i) {
      std::vector<Waiting> one;
      one.push_back({std::move(events[i]), std::move(batch[i].done)});
      store(one, settings);
    }
    return;
  }
  counters_.commits.fetch_add(1, std::memory_order_relaxed);
  end_trouble();
  bool posts = false;
  for (std::size_t i = 0; i < batch.size(); ++i) {
    const Event& event = events[i];
    switch (results[i].stored) {
      case Stored::stored:
        posts = true;
        counters_.stored.fetch_add(1, std::memory_order_relaxed);
        log_.write(Priority::debug, "event stored", "",
                   {{"source", event.source},
                    {"kind", event.kind},
                    {"project", event.project},
                    {"status", word(event.status)}});
        batch[i].done(Taken::stored);
        break;
      case Stored::duplicate:
        counters_.duplicate.fetch_add(1, std::memory_order_relaxed);
        log_.write(
            Priority::info, "duplicate dropped", "",
            {{"source", event.source}, {"kind", event.kind}, {"project", event.project}, {"key", event.dedup_key}});
        batch[i].done(Taken::duplicate);
        break;
      case Stored::unrouted:
        counters_.unrouted.fetch_add(1, std::memory_order_relaxed);
        // Whoever has just set up a webhook tries it with an event that no route is for.
        if (std::uint64_t more = 0; lines_.admit(as_bytes(event.source + ' ' + event.kind + ' ' + results[i].why), steady_now(), more))
          log_.write(Priority::info, "event not posted", results[i].why,
                     {{"source", event.source}, {"kind", event.kind}, {"project", event.project}, {"status", word(event.status)}, Field::if_any("more", more)});
        batch[i].done(Taken::unrouted);
        break;
    }
  }
  if (posts) stored_();
}

void Intake::failed(std::vector<Waiting>& batch, const std::string& what) {
  counters_.failed.fetch_add(batch.size(), std::memory_order_relaxed);
  begin_trouble("events not stored", what);
  for (auto& waiting : batch) waiting.done(Taken::failed);
}

void Intake::begin_trouble(const std::string& event, const std::string& what) {
  bool first;
  {
    const std::lock_guard lock(mutex_);
    first = trouble_ != what;
    trouble_ = what;
  }
  if (first) log_.write(Priority::error, event, what + "; senders get 503");
}

void Intake::end_trouble() {
  std::optional<std::string> over;
  {
    const std::lock_guard lock(mutex_);
    over.swap(trouble_);
  }
  if (over) log_.write(Priority::notice, "queue works again", "events are stored again");
}

/// Whoever asks /healthz before sending anything would wait for ever for an event that shows that all is well again.
void Intake::look_whether_it_works(const Settings& settings) {
  if (!trouble()) return;
  try {
    queue_->expect_room();
    if (queue_->size() < static_cast<std::int64_t>(settings.queue_limit)) end_trouble();
  } catch (const SqlError& error) {  // not yet
    reconnect_after(error);
  }
}

void Intake::reconnect_after(const SqlError& error) {
  if (error.kind != SqlError::Kind::broken) return;
  try {
    queue_->reconnect();
  } catch (const SqlError&) {  // the next batch fails, says why and tries again
  }
}

}  // namespace radiotower::notifier
