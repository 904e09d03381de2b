// What must not be lost: posts on their way, what was seen, how things stood last time. The only file that knows the tables.
//
// A Queue is one connection and belongs to one thread; several (also of other processes, also of other hosts with PostgreSQL) work on one
// database. Tables: post (waiting, sending, dead), lane (one a channel: whose turn it is), seen (24 h), history, thread (posts that are
// edited), counter (kept across restarts). See notifier/DESIGN.md for their columns.
//
// The rule of at least once: a post is marked `sending` on disk before a byte of it leaves, and removed after Mattermost's answer. One that
// is found `sending` by its next owner may have been posted: that is counted as ambiguous, it is sent once more, and if that answer is
// lost too it becomes a dead letter, for a person to look at. So there is one duplicate at most, and every one is counted.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "notifier/history.h"
#include "notifier/routes.h"
#include "notifier/sql.h"

namespace radiotower::notifier {

using UnixMilliseconds = std::int64_t;

enum class Stored : std::uint8_t { stored, duplicate, unrouted };  // all three are a 2xx

struct QueuedPost {
  std::int64_t id = 0;
  std::uint32_t attempts = 0;   // before this one
  std::uint32_t ambiguous = 0;  // of those, how many may have been posted
  UnixMilliseconds made = 0;
  std::string json;             // post_from_json()
};

struct DeadLetter {
  std::int64_t id = 0;
  std::string channel, reason, json;
  UnixMilliseconds made = 0, died = 0;
  std::uint32_t attempts = 0;
};

struct Depth {
  std::int64_t waiting = 0, sending = 0, dead = 0;
  UnixMilliseconds oldest = 0;  // of the waiting ones; 0: none
};

class Queue {
 public:
  /// `owner` names this notifier in the lanes: unique a process ("host:pid:random"). Throws SqlError.
  Queue(std::unique_ptr<Sql> sql, std::string owner);

  // --- in: one thread of the notifier
  using RouteEvent = std::function<std::vector<Post>(const Event&, const Change&, std::string& why)>;
  /// One transaction for all of them (group commit): each event is compared with the seen ones and with its history, routed, and its posts
  /// are stored. Throws SqlError when none of it was stored. `why` gets the router's sentence for an unrouted one.
  struct Result { Stored stored; std::string why; };
  std::vector<Result> store(std::span<const Event> events, UnixMilliseconds now, const RouteEvent& route);
  /// Posts waiting, being sent and dead: for the bound. Ask once a batch at most: it counts over an index (see queue.cpp for what it costs),
  /// and where that takes long, the answer is up to a second old but for what we stored ourselves.
  std::int64_t size();

  // --- out: one thread of the notifier
  struct Lane {
    std::string channel;
    std::vector<QueuedPost> posts;  // the oldest first: those that are due, at most `most`
    std::int64_t waiting = 0;       // all that are due in this lane, also beyond `most`; counted up to most_counted
    static constexpr std::int64_t most_counted = 10'000;
    static constexpr std::int64_t most_characters = 4 << 20;  // of `posts`; one post is there always
  };
  /// Lanes with something due that no other notifier works on, at most `lanes` of them, each leased to us for `lease`; those in `busy` are
  /// left out. Also takes back lanes of owners whose lease is over, and ours that are not in `busy`: what was left `sending` there is
  /// counted ambiguous and waits again, or is dead after the second time. The lane served longest ago comes first.
  std::vector<Lane> claim(UnixMilliseconds now, std::chrono::milliseconds lease, std::size_t lanes, std::size_t most, std::span<const std::string> busy);
  /// What claim() and take_over() have buried since this was last asked (channel, id), for the log.
  std::vector<std::pair<std::string, std::int64_t>> take_buried() { return std::exchange(buried_, {}); }
  /// Lanes that rest after a failure rest no longer: at a start, and when settings have changed. Returns how many.
  std::size_t hurry();
  /// Throws SqlError when nothing could be stored now: for who wants to know without an event.
  void expect_room() { sql_->expect_room(); }
  /// At start with SQLite: the lanes of a predecessor that was killed are ours at once (there is one process a state directory: it holds a lock).
  void take_over(UnixMilliseconds now);
  /// On disk before the first byte leaves; an attempt is counted and our lease on the lane begins anew. Throws SqlError (busy) when the
  /// lane is not ours any more: another notifier took it after our lease, and nothing of it may be sent.
  void sending(std::span<const std::int64_t> ids, UnixMilliseconds now);
  /// Mattermost has them: they are removed, whoever the lane belongs to by now.
  void delivered(std::span<const std::int64_t> ids, std::string_view channel);
  /// They wait again, the lane rests until `not_before` and is given back. With `ambiguous` the answer was lost: counted; a post for which
  /// that happens a second time is buried instead. Returns how many were buried. Nothing happens in a lane that is not ours any more.
  std::size_t retry(std::span<const std::int64_t> ids, std::string_view channel, UnixMilliseconds not_before, bool ambiguous, std::string_view reason, UnixMilliseconds now);
  void bury(std::span<const std::int64_t> ids, std::string_view channel, std::string_view reason, UnixMilliseconds now);
  /// Gives a lane back; with `not_before` it rests until then (flood control).
  void release(std::string_view channel, UnixMilliseconds not_before);
  /// At the end: all of ours, at once.
  void release_all();
  /// The next moment at which a resting lane or a held-back post is due; nullopt: nothing waits. A lane that anybody works on (also we)
  /// counts with the end of its lease: whoever has it knows better.
  std::optional<UnixMilliseconds> next_due();

  // --- threads of a bot: which post tells about a subject
  struct Thread { std::string post_id; std::string channel_id; };
  std::optional<Thread> thread(std::string_view channel, std::string_view subject);
  void set_thread(std::string_view channel, std::string_view subject, const Thread& thread, UnixMilliseconds now);
  void forget_thread(std::string_view channel, std::string_view subject);

  // --- counters that survive a restart, and housekeeping
  void count(std::string_view name, std::int64_t n = 1);
  std::vector<std::pair<std::string, std::int64_t>> counters();
  Depth depth();
  /// Removes what is older than it is kept: seen 24 h, history 180 days, threads 7 days; never a post. At most a few thousand rows a call.
  void sweep(UnixMilliseconds now);

  // --- dead letters, for the command line (also while the service runs)
  std::vector<DeadLetter> dead(std::size_t most, std::int64_t after_id = 0);
  std::optional<DeadLetter> dead_letter(std::int64_t id);
  /// Wait again, at the end of their lane, as if never tried. Empty ids: all. Returns how many.
  std::size_t retry_dead(std::span<const std::int64_t> ids, UnixMilliseconds now);
  /// Those alone: empty ids are none.
  std::size_t drop_dead(std::span<const std::int64_t> ids);

  /// After an SqlError of kind broken.
  void reconnect();

 private:
  struct Gone { std::int64_t ambiguous = 0, buried = 0; };
  std::vector<std::pair<std::string, std::int64_t>> buried_;
  Gone take_back(const std::string* channel, UnixMilliseconds now);
  void add(std::string_view name, std::int64_t n);

  std::unique_ptr<Sql> sql_;
  std::string owner_;
  std::chrono::milliseconds lease_{60'000};  // as claim() was told last
  std::int64_t size_ = 0;                    // as counted, and what we stored since; holds until:
  std::chrono::steady_clock::time_point counted_until_{};
};

}  // namespace radiotower::notifier
