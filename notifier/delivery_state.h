// What delivery.cpp (the thread), delivery_out.cpp (from the queue to Mattermost) and delivery_back.cpp (its answers) share. Included by them alone.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <map>
#include <mutex>
#include <new>
#include <optional>
#include <set>
#include <utility>

#include "notifier/bot.h"
#include "notifier/clock.h"
#include "notifier/delivery.h"
#include "notifier/flow.h"

namespace radiotower::notifier {

inline constexpr std::size_t lanes_at_once = 16;
inline constexpr std::chrono::seconds expiry_each{60};
inline constexpr std::chrono::seconds look_each{1};  // for what others store: another notifier, the command line

/// All of it belongs to the thread, but for what stands below the mutex.
struct Delivery::State {
  /// What of a lane is on its way to Mattermost, or is on its way into the queue.
  struct Work {
    std::vector<std::int64_t> ids;       // marked `sending`
    std::vector<std::int64_t> expired;   // of the lane: too old to be tried once more
    std::vector<std::int64_t> doubtful;  // of ids: those whose answer was lost once before
    std::uint32_t attempts = 0;          // with this one
    std::string subject;                 // of a bot's post
    std::optional<Queue::Thread> thread;
    bool digest = false, in_flight = true;
    std::uint64_t serial = 0;  // an answer that comes after we gave it up finds another one, or none
    SteadyTime ends{};  // when its last request has surely ended
  };
  struct Server {
    bool doubtful = false, pinging = false;  // an answer was lost: nothing more until a ping is answered
    std::string channel;                     // one that leads to it
    std::uint32_t pings = 0;
    SteadyTime next_ping{}, rests_until{};
  };
  struct Record {
    std::string channel;
    std::function<void(Queue&)> write;
  };

  State(std::unique_ptr<Queue> q, std::shared_ptr<const Settings> s, Log& l, RandomSource r, std::chrono::milliseconds shortest)
      : queue(std::move(q)), settings(std::move(s)), log(l), random(std::move(r)), shortest_back_off(shortest), places(l),
        all(settings->flood.posts_per_second, settings->flood.burst) {
    connect(std::make_unique<Client>(settings->mattermost));
  }

  void connect(std::unique_ptr<Client> fresh) {
    bot.reset();
    const std::lock_guard lock(mutex);
    client = std::move(fresh);
    if (settings->mattermost.bot()) bot = std::make_unique<Bot>(*client, settings->mattermost.team);
    servers.clear();
    all.limit(settings->flood.posts_per_second, settings->flood.burst);
    buckets.clear();
  }

  // --- the thread
  void run();
  void hurry();
  void turn();
  void take_settings();
  std::chrono::milliseconds patience(SteadyTime now);
  void sweep(SteadyTime now);
  void finish();

  // --- the queue, which may fail
  bool queue_works(SteadyTime now);
  void queue_failed(const SqlError& error);
  void queue_works_again();
  void record(const std::string& channel, std::function<void(Queue&)> write);
  void write_records();

  // --- out
  void start_posts(SteadyTime now);
  void begin(Queue::Lane lane, SteadyTime now);
  void post_one(Queue::Lane& lane, SteadyTime now);
  void post_digest(Queue::Lane& lane, SteadyTime now);
  void say(Queue::Lane& lane, SteadyTime now, unsigned tokens);
  std::uint64_t mark(Queue::Lane& lane, Work work, SteadyTime now);
  void give_back(const std::string& channel, UnixMilliseconds not_before);
  void bury_unreadable(const std::string& channel, std::int64_t id, std::string_view why);
  /// What `make` makes of a post; nullopt: nothing can be made of it, and it has been buried. Out of memory is no fault of the post.
  template <typename Make>
  auto made_of(const std::string& channel, std::int64_t id, Make&& make) -> std::optional<decltype(make())> {
    try {
      return make();
    } catch (const std::bad_alloc&) {
      throw;
    } catch (const std::exception& e) {
      bury_unreadable(channel, id, e.what());
      return std::nullopt;
    }
  }
  std::optional<Post> read(const std::string& channel, const QueuedPost& queued);
  bool is_expired(const QueuedPost& queued) const { return queued.made <= unix_now() - std::int64_t{settings->give_up_after_s} * 1000; }
  std::string given_up(std::string_view why) const { return fmt::format("given up after {} h: {}", settings->give_up_after_s / 3600, why); }
  bool is_held(const Server& server, SteadyTime now) const { return server.doubtful || server.rests_until > now; }
  void ping_doubtful(SteadyTime now);

  // --- back
  Work* in_flight(const std::string& channel, std::uint64_t serial);
  void settle(const std::string& channel, std::uint64_t serial, const Answer& answer);
  void settle_delivered(const std::string& channel, Work& work);
  void settle_again(const std::string& channel, Work& work, const Answer& answer);
  void settle_refused(const std::string& channel, Work& work, const Answer& answer);
  void fewer_singles(const std::string& channel, std::size_t n);
  void forget_troubles(const std::string& channel, const Work& work);
  void tell_buried(const std::string& channel, std::span<const std::int64_t> ids, std::string_view reason);

  TokenBucket& bucket(const std::string& channel, SteadyTime now);
  UnixMilliseconds when_channel_may(const std::string& channel, SteadyTime now) {
    const auto wait = bucket(channel, now).until_next(now);
    return wait.count() > 0 ? unix_now() + wait.count() : 0;
  }
  std::chrono::milliseconds rest_after(std::uint32_t tries) { return back_off(tries, random_below(random, 1'000'000) / 1e6, shortest_back_off); }
  std::chrono::milliseconds lease() const { return std::chrono::seconds(settings->mattermost.timeout_s * (bot ? 8 : 2) + 30); }

  std::unique_ptr<Queue> queue;
  std::shared_ptr<const Settings> settings;
  Log& log;
  RandomSource random;
  const std::chrono::milliseconds shortest_back_off;
  DeliveryCounters counters;
  FailingPlaces places;
  std::unique_ptr<Client> client;
  std::unique_ptr<Bot> bot;

  TokenBucket all;
  std::map<std::string, TokenBucket> buckets;
  std::map<std::string, Server> servers;
  std::map<std::string, Work> works;           // by channel: these lanes are ours
  std::map<std::string, std::size_t> singles;  // so many posts of a channel go one by one, because a digest of them was refused
  std::map<std::int64_t, unsigned> server_errors;
  std::deque<Record> records;                  // what happened and is not on disk yet, in order
  std::set<std::int64_t> done;                 // of them: Mattermost has these
  std::uint64_t last_serial = 0;
  SteadyTime next_look{}, next_sweep{}, next_expiry{}, queue_rests_until{};
  bool queue_is_failing = false, must_reconnect = false, look = true;

  std::mutex mutex;  // of what follows, and of `client` itself
  std::shared_ptr<const Settings> next_settings;
  bool stopping = false;
  SteadyTime stop_at{};
  std::atomic<bool> woken{false};
  std::atomic<std::uint64_t> beats{0};
  std::thread thread;
};

}  // namespace radiotower::notifier
