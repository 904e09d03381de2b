// The way in, the threads of a bot, the counters and what is kept how long. The way out: queue_lanes.cpp.
#include "notifier/queue.h"

#include <openssl/evp.h>

#include <algorithm>
#include <map>
#include <set>

#include "notifier/quiet.h"
#include "notifier/transaction.h"

namespace radiotower::notifier {

namespace {

constexpr UnixMilliseconds day = 24LL * 3600 * 1000;
constexpr UnixMilliseconds seen_for = day, history_for = 180 * day, threads_for = 7 * day;

// history.status, on disk: not the numbers of Status, which may grow.
constexpr std::int64_t never = 0, good = 1, bad = 2;

/// A key of the tables. Senders choose much of it, and PostgreSQL refuses an index entry of more than some 2,700 bytes
/// and any NUL: one such event would hold up its whole batch for ever. Long ones are known by their digest.
std::string key_of(std::string_view text) {
  if (text.size() <= 400 && text.find('\0') == std::string_view::npos) return std::string(text);
  std::array<unsigned char, 32> digest{};
  EVP_Digest(text.data(), text.size(), digest.data(), nullptr, EVP_sha256(), nullptr);
  std::string key = "sha256:";
  for (const unsigned byte : digest) {
    key += "0123456789abcdef"[byte >> 4];
    key += "0123456789abcdef"[byte & 15];
  }
  return key;
}

/// The outcome of `status` is remembered at all.
bool is_remembered(Status status) {
  std::optional<History> after;
  compare(std::nullopt, status, 0, after);
  return after.has_value();
}

/// Bytes that are not UTF-8 become U+FFFD: sources promise there are none, and an exception here would hold up the
/// batch.
std::string as_text(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

/// One batch within one try of its transaction. All that two notifiers could both touch is locked in the order of its
/// keys, kind by kind, so that they wait for each other instead of for ever: seen, history, lanes; counters last.
class Batch {
 public:
  Batch(Sql& sql, std::span<const Event> events, UnixMilliseconds now) : sql_(sql), events_(events), now_(now) {}

  std::size_t posts() const { return posts_.size(); }

  std::vector<Queue::Result> store(const Queue::RouteEvent& route) {
    find_new();
    lock_history();
    std::vector<Queue::Result> results;
    results.reserve(events_.size());
    for (const auto& event : events_) results.push_back(take(event, route));
    for (const auto& key : changed_) {
      const auto& known = *history_.at(key);
      sql_.run("UPDATE history SET status = $2, streak = $3, since = $4 WHERE key = $1",
               {key, known.status == Status::success ? good : bad, std::int64_t{known.streak}, known.since});
    }
    std::set<std::string> channels;
    for (const auto& post : posts_) channels.insert(post.channel);
    for (const auto& channel : channels)
      sql_.run("INSERT INTO lane (channel) VALUES ($1) ON CONFLICT (channel) DO NOTHING", {channel});
    for (const auto& post : posts_) {
      const auto not_before = post.quiet ? end_of_quiet(*post.quiet, now_) : 0;
      const auto json = as_text(to_json(post));
      sql_.run("INSERT INTO post (channel, not_before, made, json) VALUES ($1, $2, $3, $4)",
               {post.channel, not_before, now_, json});
    }
    return results;
  }

 private:
  void find_new() {
    for (const auto& event : events_) {
      if (!event.dedup_key.empty()) new_.insert(key_of(event.dedup_key));
    }
    std::erase_if(new_, [&](const std::string& key) {
      const auto rows = sql_.run(
          "INSERT INTO seen (key, at) VALUES ($1, $2)"
          " ON CONFLICT (key) DO UPDATE SET at = excluded.at WHERE seen.at <= $3 RETURNING at",
          {key, now_, now_ - seen_for});
      return rows.empty();
    });
  }

  void lock_history() {
    std::set<std::string> keys;
    for (const auto& event : events_) {
      if (!event.history_key.empty() && is_remembered(event.status) &&
          (event.dedup_key.empty() || new_.contains(key_of(event.dedup_key)))) {
        keys.insert(key_of(event.history_key));
      }
    }
    for (const auto& key : keys) {
      const auto rows = sql_.run(
          "INSERT INTO history (key, status, streak, since, at) VALUES ($1, 0, 0, 0, $2)"
          " ON CONFLICT (key) DO UPDATE SET at = excluded.at RETURNING status, streak, since",
          {key, now_});
      const auto& row = rows.at(0);
      auto& known = history_[key];
      if (row.number(0) == never) continue;
      known = History{row.number(0) == good ? Status::success : Status::failed,
                      static_cast<std::uint32_t>(row.number(1)), row.number(2)};
    }
  }

  Queue::Result take(const Event& event, const Queue::RouteEvent& route) {
    if (!event.dedup_key.empty() && new_.erase(key_of(event.dedup_key)) == 0) return {Stored::duplicate, {}};
    Change change;
    if (!event.history_key.empty() && is_remembered(event.status)) {
      const auto key = key_of(event.history_key);
      auto& known = history_.at(key);
      std::optional<History> after;
      change = compare(known, event.status, now_ / 1000, after);
      if (after) {
        known = after;
        changed_.insert(key);
      }
    }
    Queue::Result result{Stored::stored, {}};
    auto posts = route(event, change, result.why);
    if (posts.empty()) return {Stored::unrouted, std::move(result.why)};
    posts_.insert(posts_.end(), std::make_move_iterator(posts.begin()), std::make_move_iterator(posts.end()));
    return {Stored::stored, {}};
  }

  Sql& sql_;
  const std::span<const Event> events_;
  const UnixMilliseconds now_;
  std::set<std::string> new_;  // dedup keys that nobody has used; each is taken by the first event that has it
  std::map<std::string, std::optional<History>> history_;
  std::set<std::string> changed_;
  std::vector<Post> posts_;
};

}  // namespace

Queue::Queue(std::unique_ptr<Sql> sql, std::string owner) : sql_(std::move(sql)), owner_(std::move(owner)) {}

std::vector<Queue::Result> Queue::store(std::span<const Event> events, UnixMilliseconds now, const RouteEvent& route) {
  if (events.empty()) return {};
  sql_->expect_room();
  std::size_t posts = 0;
  auto stored = in_transaction(*sql_, [&] {
    Batch batch(*sql_, events, now);
    auto results = batch.store(route);
    posts = batch.posts();
    const auto count_of = [&](Stored which) {
      return std::count_if(results.begin(), results.end(),
                           [&](const Result& result) { return result.stored == which; });
    };
    add("duplicates", count_of(Stored::duplicate));
    add("stored", count_of(Stored::stored));
    add("unrouted", count_of(Stored::unrouted));
    return results;
  });
  size_ += static_cast<std::int64_t>(posts);
  return stored;
}

// 100,000 posts take less than 1 ms with SQLite, but 45 ms with PostgreSQL, which looks at each row for who may see it.
// A count that took more than 5 ms is good for 20 times as long: a twentieth of the time is spent on it at most.
std::int64_t Queue::size() {
  using std::chrono::steady_clock;
  const auto begun = steady_clock::now();
  if (begun < counted_until_) return size_;
  size_ = sql_->run("SELECT COUNT(*) FROM post").at(0).number(0);
  const auto took = steady_clock::now() - begun;
  counted_until_ = took < std::chrono::milliseconds(5)
                       ? steady_clock::time_point{}
                       : begun + std::min<steady_clock::duration>(21 * took, std::chrono::seconds(1));
  return size_;
}

// --- threads

std::optional<Queue::Thread> Queue::thread(std::string_view channel, std::string_view subject) {
  const auto key = key_of(subject);
  const auto rows =
      sql_->run("SELECT post_id, channel_id FROM thread WHERE channel = $1 AND subject = $2", {channel, key});
  if (rows.empty()) return std::nullopt;
  return Thread{rows[0].text(0), rows[0].text(1)};
}

void Queue::set_thread(std::string_view channel, std::string_view subject, const Thread& thread, UnixMilliseconds now) {
  const auto key = key_of(subject);
  in_transaction(*sql_, [&] {
    return sql_->run(
        "INSERT INTO thread (channel, subject, post_id, channel_id, at) VALUES ($1, $2, $3, $4, $5)"
        " ON CONFLICT (channel, subject)"
        " DO UPDATE SET post_id = excluded.post_id, channel_id = excluded.channel_id, at = excluded.at",
        {channel, key, thread.post_id, thread.channel_id, now});
  });
}

void Queue::forget_thread(std::string_view channel, std::string_view subject) {
  const auto key = key_of(subject);
  in_transaction(*sql_,
                 [&] { return sql_->run("DELETE FROM thread WHERE channel = $1 AND subject = $2", {channel, key}); });
}

// --- counters and housekeeping

/// Within a transaction, as the last thing it does and by the alphabet: every notifier wants the same few rows.
void Queue::add(std::string_view name, std::int64_t n) {
  if (n == 0) return;
  sql_->run("INSERT INTO counter (name, n) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET n = counter.n + excluded.n",
            {name, n});
}

void Queue::count(std::string_view name, std::int64_t n) {
  in_transaction(*sql_, [&] {
    add(name, n);
    return true;
  });
}

std::vector<std::pair<std::string, std::int64_t>> Queue::counters() {
  std::vector<std::pair<std::string, std::int64_t>> result;
  for (const auto& row : sql_->run("SELECT name, n FROM counter ORDER BY name"))
    result.emplace_back(row.text(0), row.number(1));
  return result;
}

Depth Queue::depth() {
  Depth depth;
  for (const auto& row : sql_->run("SELECT state, COUNT(*) FROM post GROUP BY state")) {
    (row.number(0) == 0 ? depth.waiting : row.number(0) == 1 ? depth.sending : depth.dead) = row.number(1);
  }
  depth.oldest = sql_->run("SELECT COALESCE(MIN(made), 0) FROM post WHERE state = 0").at(0).number(0);
  return depth;
}

void Queue::sweep(UnixMilliseconds now) {
  // One transaction each: what is swept by two notifiers at once makes the later one try again.
  in_transaction(*sql_, [&] {
    return sql_->run("DELETE FROM seen WHERE key IN (SELECT key FROM seen WHERE at <= $1 ORDER BY at LIMIT 20000)",
                     {now - seen_for});
  });
  in_transaction(*sql_, [&] {
    return sql_->run("DELETE FROM history WHERE key IN (SELECT key FROM history WHERE at <= $1 ORDER BY at LIMIT 1000)",
                     {now - history_for});
  });
  in_transaction(*sql_, [&] {
    return sql_->run(
        "DELETE FROM thread WHERE at <= $1 AND (channel, subject) IN"
        " (SELECT channel, subject FROM thread WHERE at <= $1 ORDER BY at LIMIT 1000)",
        {now - threads_for});
  });
  // SQLite's file keeps what was deleted for what comes; more than 16 MiB of that goes back to the disk, 8 MiB a call.
  if (!sql_->skips_locked_rows() && sql_->run("PRAGMA freelist_count").at(0).number(0) > 4096)
    sql_->run("PRAGMA incremental_vacuum(2048)");
}

void Queue::reconnect() { sql_->reconnect(); }

}  // namespace radiotower::notifier
