// The way out: whose turn a lane is, what becomes of its posts, and the dead ones.
#include <algorithm>
#include <set>

#include "notifier/queue.h"
#include "notifier/transaction.h"

// post.state: 0 waiting, 1 sending, 2 dead.

namespace radiotower::notifier {

namespace {

constexpr std::string_view lost_twice = "the answer was lost twice, so it may be posted already";

constexpr UnixMilliseconds longest_rest = 2 * 3600 * 1000;  // longer than any back-off, Retry-After or lease

struct NotOurs {};  // a lane that another notifier took

// What may be claimed at $1 by $2. A lane with something left `sending` is claimed as well: to take it back.
const std::string claimable =
    // $4: so far ahead is no rest and no lease of ours, but a clock that has been set back.
    "SELECT channel FROM lane WHERE (not_before <= $1 OR not_before > $4)"
    " AND (owner = '' OR owner = $2 OR lease_until <= $1 OR lease_until > $4)"
    " AND (EXISTS (SELECT 1 FROM post WHERE post.channel = lane.channel AND post.state = 0 AND post.not_before <= $1)"
    " OR EXISTS (SELECT 1 FROM post WHERE post.channel = lane.channel AND post.state = 1))"
    " ORDER BY lease_until, channel LIMIT $3";
const std::string claimable_locked = claimable + " FOR UPDATE SKIP LOCKED";

const std::string prolong =
    "UPDATE lane SET lease_until = $17 WHERE owner = $18"
    " AND channel IN (SELECT channel FROM post WHERE id IN " + these_ids + ") RETURNING channel";
const std::string mark_sending =
    "UPDATE post SET state = 1, attempts = attempts + 1 WHERE state = 0"
    " AND channel IN (SELECT channel FROM lane WHERE owner = $17) AND id IN " + these_ids + " RETURNING id";
const std::string remove = "DELETE FROM post WHERE id IN " + these_ids + " RETURNING id";
const std::string wait_again =
    "UPDATE post SET state = 0, reason = $17 WHERE state = 1 AND id IN " + these_ids + " RETURNING id";
const std::string bury_ambiguous =
    "UPDATE post SET state = 2, ambiguous = ambiguous + 1, died = $17, reason = $18"
    " WHERE state = 1 AND ambiguous > 0 AND id IN " + these_ids + " RETURNING id";
const std::string wait_ambiguous =
    "UPDATE post SET state = 0, ambiguous = ambiguous + 1, reason = $17"
    " WHERE state = 1 AND id IN " + these_ids + " RETURNING id";
const std::string bury_these =
    "UPDATE post SET state = 2, died = $17, reason = $18 WHERE state <> 2 AND id IN " + these_ids + " RETURNING id";
const std::string remove_dead =
    "DELETE FROM post WHERE state = 2 AND id IN " + these_ids + " RETURNING id, channel, json";

// The plus keeps the planner from taking all that is due (100,000 texts, perhaps) and sorting it: the lane is walked
// in its order.
constexpr auto due_posts =
    "SELECT id, attempts, ambiguous, made, json FROM post"
    " WHERE channel = $1 AND state = 0 AND +not_before <= $2 ORDER BY id LIMIT $3";

constexpr auto due_sizes =
    "SELECT LENGTH(json) FROM post"
    " WHERE channel = $1 AND state = 0 AND +not_before <= $2 ORDER BY id LIMIT $3";

// Up to Lane::most_counted: PostgreSQL takes 100 to 240 ms to count 100,000, and this is done with each claim.
constexpr auto how_many_due =
    "SELECT COUNT(*) FROM"
    " (SELECT 1 FROM post WHERE channel = $1 AND state = 0 AND not_before <= $2 LIMIT 10000) AS due";

// And it stays so until the commit.
constexpr auto is_ours = "UPDATE lane SET owner = owner WHERE channel = $1 AND owner = $2 RETURNING channel";
constexpr auto give_back =
    "UPDATE lane SET owner = '', not_before = CASE WHEN not_before < $3 THEN $3 ELSE not_before END"
    " WHERE channel = $1 AND owner = $2 RETURNING channel";

/// What Mattermost said, as both databases take it: UTF-8 without NUL, one that refused it would hold up the lane for
/// ever.
std::string clean(std::string_view reason) {
  auto text =
      Json::parse(Json(reason.substr(0, 1000)).dump(-1, ' ', false, Json::error_handler_t::replace)).get<std::string>();
  std::replace(text.begin(), text.end(), '\0', ' ');
  return text;
}

std::int64_t size_of(const std::vector<Row>& rows) { return static_cast<std::int64_t>(rows.size()); }

DeadLetter dead_letter_of(const Row& row) {
  return {row.number(0), row.text(1), row.text(2), row.text(3), row.number(4), row.number(5),
          static_cast<std::uint32_t>(row.number(6))};
}

}  // namespace

/// Within a transaction: what is `sending` in a lane, or in all of them, has nobody who sends it.
Queue::Gone Queue::take_back(const std::string* channel, UnixMilliseconds now) {
  const auto rows = channel == nullptr ? sql_->run("SELECT id, channel, ambiguous FROM post WHERE state = 1")
                                       : sql_->run("SELECT id, channel, ambiguous FROM post WHERE state = 1 AND channel = $1", {*channel});
  if (rows.empty()) return {};
  std::vector<std::int64_t> ids;
  for (const auto& row : rows) {
    ids.push_back(row.number(0));
    if (row.number(2) > 0) buried_.emplace_back(row.text(1), row.number(0));
  }
  const auto buried = size_of(run_for(*sql_, bury_ambiguous, ids, now, lost_twice));
  const auto waiting =
      size_of(run_for(*sql_, wait_ambiguous, ids, std::string_view("the notifier stopped before the answer")));
  return {buried + waiting, buried};
}

std::vector<Queue::Lane> Queue::claim(UnixMilliseconds now, std::chrono::milliseconds lease, std::size_t lanes,
                                      std::size_t most, std::span<const std::string> busy) {
  lease_ = lease;
  const std::int64_t limit = static_cast<std::int64_t>(lanes + busy.size());
  const auto is_busy = [&](const std::string& channel) {
    return std::find(busy.begin(), busy.end(), channel) != busy.end();
  };
  // A look first: most calls find nothing, and that needs no lock.
  const UnixMilliseconds far = now + longest_rest;
  const auto candidates = sql_->run(claimable.c_str(), {now, owner_, limit, far});
  if (std::all_of(candidates.begin(), candidates.end(), [&](const Row& row) { return is_busy(row.text(0)); }))
    return {};

  return in_transaction(*sql_, [&] {
    std::vector<Lane> claimed;
    Gone gone;
    for (const auto& row :
         sql_->run((sql_->skips_locked_rows() ? claimable_locked : claimable).c_str(), {now, owner_, limit, far})) {
      if (claimed.size() == lanes) break;
      Lane lane{row.text(0), {}, 0};
      if (is_busy(lane.channel)) continue;
      const auto [ambiguous, buried] = take_back(&lane.channel, now);
      gone.ambiguous += ambiguous;
      gone.buried += buried;
      // No more of a lane than is kept in memory without a thought, but one post always.
      std::int64_t few = 0, characters = 0;
      for (const auto& size : sql_->run(due_sizes, {lane.channel, now, static_cast<std::int64_t>(most)})) {
        characters += size.number(0);
        if (few > 0 && characters > Lane::most_characters) break;
        ++few;
      }
      for (const auto& post : sql_->run(due_posts, {lane.channel, now, few})) {
        lane.posts.push_back({post.number(0), static_cast<std::uint32_t>(post.number(1)),
                              static_cast<std::uint32_t>(post.number(2)), post.number(3), post.text(4)});
      }
      lane.waiting = sql_->run(how_many_due, {lane.channel, now}).at(0).number(0);
      sql_->run("UPDATE lane SET owner = $2, lease_until = $3, not_before = 0 WHERE channel = $1",
                {lane.channel, lane.posts.empty() ? std::string_view() : owner_, now + lease.count()});
      if (!lane.posts.empty()) claimed.push_back(std::move(lane));
    }
    add("ambiguous", gone.ambiguous);
    add("buried", gone.buried);
    return claimed;
  });
}

void Queue::take_over(UnixMilliseconds now) {
  in_transaction(*sql_, [&] {
    sql_->run("UPDATE lane SET owner = '' WHERE owner <> ''");
    const auto [ambiguous, buried] = take_back(nullptr, now);
    add("ambiguous", ambiguous);
    add("buried", buried);
    return true;
  });
}

void Queue::sending(std::span<const std::int64_t> ids, UnixMilliseconds now) {
  if (ids.empty()) return;
  try {
    in_transaction(*sql_, [&] {
      run_for(*sql_, prolong, ids, now + lease_.count(), std::string_view(owner_));
      if (run_for(*sql_, mark_sending, ids, std::string_view(owner_)).size() != ids.size()) throw NotOurs{};
      return true;
    });
  } catch (const NotOurs&) {
    throw SqlError(SqlError::Kind::busy, "the lane was taken by another notifier: our lease was over");
  }
}

void Queue::delivered(std::span<const std::int64_t> ids, std::string_view) {
  in_transaction(*sql_, [&] {
    add("delivered", size_of(run_for(*sql_, remove, ids)));
    return true;
  });
}

std::size_t Queue::retry(std::span<const std::int64_t> ids, std::string_view channel, UnixMilliseconds not_before,
                         bool ambiguous, std::string_view reason, UnixMilliseconds now) {
  const auto said = clean(reason);
  return in_transaction(*sql_, [&]() -> std::size_t {
    if (sql_->run(give_back, {channel, owner_, not_before}).empty()) return 0;
    if (!ambiguous) {
      run_for(*sql_, wait_again, ids, std::string_view(said));
      return 0;
    }
    const auto why = std::string(lost_twice) + ": " + said;
    const auto buried = size_of(run_for(*sql_, bury_ambiguous, ids, now, std::string_view(why)));
    const auto waiting = size_of(run_for(*sql_, wait_ambiguous, ids, std::string_view(said)));
    add("ambiguous", buried + waiting);
    add("buried", buried);
    return static_cast<std::size_t>(buried);
  });
}

void Queue::bury(std::span<const std::int64_t> ids, std::string_view channel, std::string_view reason,
                 UnixMilliseconds now) {
  const auto said = clean(reason);
  in_transaction(*sql_, [&] {
    if (!sql_->run(is_ours, {channel, owner_}).empty())
      add("buried", size_of(run_for(*sql_, bury_these, ids, now, std::string_view(said))));
    return true;
  });
}

void Queue::release(std::string_view channel, UnixMilliseconds not_before) {
  in_transaction(*sql_, [&] { return sql_->run(give_back, {channel, owner_, not_before}); });
}

void Queue::release_all() {
  in_transaction(*sql_, [&] { return sql_->run("UPDATE lane SET owner = '' WHERE owner = $1", {owner_}); });
}

std::size_t Queue::hurry() {
  return in_transaction(*sql_, [&] {
    return sql_->run("UPDATE lane SET not_before = 0 WHERE not_before > 0 AND (owner = '' OR owner = $1) RETURNING channel", {owner_}).size();
  });
}

std::optional<UnixMilliseconds> Queue::next_due() {
  std::optional<UnixMilliseconds> next;
  // Not a MIN over all: lanes are as many as channels, posts may be 100,000.
  for (const auto& row : sql_->run("SELECT not_before, CASE WHEN owner = '' THEN 0 ELSE lease_until END,"
                                   " COALESCE((SELECT MIN(post.not_before) FROM post WHERE post.channel = lane.channel "
                                   "AND post.state = 0), -1),"
                                   " CASE WHEN EXISTS (SELECT 1 FROM post WHERE post.channel = lane.channel AND "
                                   "post.state = 1) THEN 1 ELSE 0 END"
                                   " FROM lane")) {
    const auto waiting = row.number(2);
    const bool left_sending = row.number(3) != 0;
    if (waiting < 0 && !left_sending) continue;
    const auto due = std::max({row.number(0), row.number(1), left_sending ? 0 : waiting});
    next = std::min(next.value_or(due), due);
  }
  return next;
}

// --- dead letters

std::vector<DeadLetter> Queue::dead(std::size_t most, std::int64_t after_id) {
  std::vector<DeadLetter> letters;
  for (const auto& row : sql_->run("SELECT id, channel, reason, json, made, died, attempts FROM post WHERE state = 2 "
                                   "AND id > $1 ORDER BY id LIMIT $2",
                                   {after_id, static_cast<std::int64_t>(most)})) {
    letters.push_back(dead_letter_of(row));
  }
  return letters;
}

std::optional<DeadLetter> Queue::dead_letter(std::int64_t id) {
  const auto rows =
      sql_->run("SELECT id, channel, reason, json, made, died, attempts FROM post WHERE state = 2 AND id = $1", {id});
  if (rows.empty()) return std::nullopt;
  return dead_letter_of(rows[0]);
}

std::size_t Queue::retry_dead(std::span<const std::int64_t> ids, UnixMilliseconds now) {
  constexpr std::size_t at_once = 512;  // a transaction holds the writers up, and their texts are in memory
  const auto again = [&](std::span<const std::int64_t> these) {
    return in_transaction(*sql_, [&] {
      auto rows = run_for(*sql_, remove_dead, these);
      std::sort(rows.begin(), rows.end(), [](const Row& a, const Row& b) { return a.number(0) < b.number(0); });
      for (const auto& row : rows) {  // `made` anew too, or it would be given up at once
        sql_->run("INSERT INTO post (channel, not_before, made, json) VALUES ($1, 0, $2, $3)",
                  {row.text(1), now, row.text(2)});
      }
      add("retried_dead", size_of(rows));
      return rows.size();
    });
  };
  std::size_t done = 0;
  if (!ids.empty()) {
    for (; !ids.empty(); ids = ids.subspan(std::min(ids.size(), at_once)))
      done += again(ids.first(std::min(ids.size(), at_once)));
    return done;
  }
  const auto last =
      sql_->run("SELECT COALESCE(MAX(id), 0) FROM post").at(0).number(0);  // what dies from now on is not meant
  for (std::int64_t after = 0;;) {
    std::vector<std::int64_t> some;
    for (const auto& row : sql_->run(
             "SELECT id FROM post WHERE state = 2 AND id > $1 AND id <= $2 ORDER BY id LIMIT 512", {after, last})) {
      some.push_back(row.number(0));
    }
    if (some.empty()) return done;
    done += again(some);
    after = some.back();
  }
}

std::size_t Queue::drop_dead(std::span<const std::int64_t> ids) {
  return in_transaction(*sql_, [&] {
    const auto dropped = run_for(*sql_, remove_dead, ids).size();
    add("dropped_dead", static_cast<std::int64_t>(dropped));
    return dropped;
  });
}

}  // namespace radiotower::notifier
