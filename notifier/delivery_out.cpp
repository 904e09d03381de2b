// From the queue to Mattermost: which lanes, one post or a digest, marked on disk before a byte leaves.
#include <fmt/format.h>

#include "notifier/delivery_state.h"
#include "notifier/render.h"

namespace radiotower::notifier {

using namespace std::chrono_literals;

namespace {

constexpr std::size_t posts_of_a_lane = 200;  // read at once: as many as one digest tells of

/// Kept in the props of a bot's post: what it is found by after a lost answer.
std::string identity_of(const QueuedPost& queued) { return fmt::format("{:x}-{:x}", queued.made, queued.id); }

}  // namespace

TokenBucket& Delivery::State::bucket(const std::string& channel, SteadyTime now) {
  const Flood& flood = settings->flood;
  auto& found = buckets.try_emplace(channel, flood.channel_posts_per_minute / 60.0, flood.channel_burst).first->second;
  (void)found.available(now);
  return found;
}

void Delivery::State::start_posts(SteadyTime now) {
  look = false;
  next_look = now + look_each;
  const std::size_t room = std::min<std::size_t>(all.available(now), lanes_at_once - std::min(lanes_at_once, works.size()));
  if (room == 0) {
    look = true;  // as soon as there is some
    return;
  }
  // With one server, as nearly all have, nothing need be claimed that could not be sent; but once a minute, for what waits too long.
  if (servers.size() == 1 && settings->mattermost.hooks.empty() && is_held(servers.begin()->second, now) && now < next_expiry) {
    if (servers.begin()->second.rests_until > now) next_look = std::min(next_look, servers.begin()->second.rests_until);
    return;
  }
  next_expiry = now + expiry_each;
  if (!queue_works(now)) return;
  std::vector<std::string> busy;
  for (const auto& [channel, work] : works) busy.push_back(channel);
  std::vector<Queue::Lane> lanes;
  try {
    const auto wall = unix_now();
    lanes = queue->claim(wall, lease(), room, posts_of_a_lane, busy);
    queue_works_again();
    for (const auto& [channel, id] : queue->take_buried()) {
      const std::int64_t ids[] = {id};
      tell_buried(channel, ids, "the answer was lost twice, so it may be posted already");
    }
    if (lanes.empty()) {
      const auto due = queue->next_due();
      if (due && *due > wall) next_look = std::min(next_look, now + std::chrono::milliseconds(*due - wall));
      return;
    }
  } catch (const SqlError& e) {
    return queue_failed(e);
  }
  look = true;  // there may be more
  for (auto& lane : lanes) {
    if (queue_is_failing) break;  // those left are ours and not busy: claim() gives them again
    begin(std::move(lane), now);
    beats.fetch_add(1, std::memory_order_relaxed);
  }
}

void Delivery::State::begin(Queue::Lane lane, SteadyTime now) {
  const std::string channel = lane.channel;
  if (std::any_of(lane.posts.begin(), lane.posts.end(), [&](const QueuedPost& post) { return done.contains(post.id); })) return give_back(channel, unix_now() + 1000);
  Server& server = servers[client->server_of(channel)];
  server.channel = channel;
  if (is_held(server, now)) {
    std::vector<std::int64_t> expired;
    for (const auto& queued : lane.posts)
      if (is_expired(queued)) expired.push_back(queued.id);
    if (!expired.empty()) {
      const std::string why = given_up(client->server_of(channel) + " does not answer");
      tell_buried(channel, expired, why);
      record(channel, [channel, expired, why](Queue& q) { q.bury(expired, channel, why, unix_now()); });
    }
    const auto rest = std::chrono::ceil<std::chrono::milliseconds>(server.rests_until - now).count();
    return give_back(channel, unix_now() + std::max<std::int64_t>(rest, 1000));
  }
  const unsigned tokens = bucket(channel, now).available(now);
  if (bot) return say(lane, now, tokens);
  if (tokens == 0) return give_back(channel, when_channel_may(channel, now));
  const auto waiting = static_cast<std::size_t>(lane.waiting);
  const std::size_t from = std::max<std::size_t>(2, settings->flood.digest_from);
  if (waiting >= from && waiting > tokens && !singles.contains(channel)) return post_digest(lane, now);
  post_one(lane, now);
}

void Delivery::State::give_back(const std::string& channel, UnixMilliseconds not_before) {
  record(channel, [channel, not_before](Queue& q) { q.release(channel, not_before); });
}

void Delivery::State::bury_unreadable(const std::string& channel, std::int64_t id, std::string_view why) {
  const std::string reason = fmt::format("no post can be made of it: {}", why);
  const std::int64_t ids[] = {id};
  tell_buried(channel, ids, reason);
  record(channel, [channel, id, reason](Queue& q) {
    const std::int64_t these[] = {id};
    q.bury(these, channel, reason, unix_now());
    q.release(channel, 0);
  });
}

std::optional<Post> Delivery::State::read(const std::string& channel, const QueuedPost& queued) {
  return made_of(channel, queued.id, [&] { return post_from_json(Json::parse(queued.json)); });
}

/// 0: it is not on disk that they are being sent, so they are not sent.
std::uint64_t Delivery::State::mark(Queue::Lane& lane, Work work, SteadyTime now) {
  const std::string channel = lane.channel;
  work.ends = now + lease();
  for (const auto& queued : lane.posts) {
    const bool is_sent = std::find(work.ids.begin(), work.ids.end(), queued.id) != work.ids.end();
    if (is_expired(queued)) work.expired.push_back(queued.id);
    if (is_sent && queued.ambiguous > 0) work.doubtful.push_back(queued.id);
    if (is_sent) work.attempts = std::max(work.attempts, queued.attempts + 1);
  }
  try {
    queue->sending(work.ids, unix_now());
  } catch (const SqlError& e) {
    queue_failed(e);
    give_back(channel, unix_now() + 1000);
    return 0;
  }
  all.take(now);
  if (!work.thread) bucket(channel, now).take(now);
  work.serial = ++last_serial;
  works[channel] = std::move(work);
  return last_serial;
}

void Delivery::State::post_one(Queue::Lane& lane, SteadyTime now) {
  const QueuedPost& queued = lane.posts.front();
  const auto payload = made_of(lane.channel, queued.id, [&] { return render(post_from_json(Json::parse(queued.json))); });
  if (!payload) return;
  Work work;
  work.ids = {queued.id};
  const auto serial = mark(lane, std::move(work), now);
  if (serial == 0) return;
  client->post_hook(lane.channel, *payload, [this, channel = lane.channel, serial](const Answer& answer) { settle(channel, serial, answer); });
}

void Delivery::State::post_digest(Queue::Lane& lane, SteadyTime now) {
  Work work;
  work.digest = true;
  std::vector<Post> posts;
  for (const auto& queued : lane.posts) {
    auto post = read(lane.channel, queued);
    if (!post) return;
    posts.push_back(std::move(*post));
    work.ids.push_back(queued.id);
  }
  Json payload;
  try {
    payload = render_digest(posts);
  } catch (const std::logic_error&) {  // a mistake of ours with one of them: they go one by one
    singles[lane.channel] = work.ids.size();
    return post_one(lane, now);
  }
  const auto serial = mark(lane, std::move(work), now);
  if (serial == 0) return;
  const auto back = [this, channel = lane.channel, serial](const Answer& answer) { settle(channel, serial, answer); };
  if (!bot) return client->post_hook(lane.channel, payload, back);
  Bot::Task task;
  task.channel = lane.channel;
  task.payload = payload;
  task.identity = identity_of(lane.posts.back());
  task.since = lane.posts.front().made;
  for (const auto& queued : lane.posts) task.may_be_there = task.may_be_there || queued.attempts > 0;
  bot->say(std::move(task), [back](const Bot::Result& result) { back(result.answer); });
}

/// The lane's first post the bot's way: its subject's post is edited, and of several states the newest is told alone.
void Delivery::State::say(Queue::Lane& lane, SteadyTime now, unsigned tokens) {
  const std::string channel = lane.channel;
  struct Read {
    const QueuedPost* queued;
    Post post;
  };
  std::vector<Read> all_read;
  for (const auto& queued : lane.posts) {
    auto post = read(channel, queued);
    if (!post) return;
    all_read.push_back({&queued, std::move(*post)});
  }
  const std::string subject = all_read.front().post.event.subject;
  Work work;
  Bot::Task task;
  const Read* newest = &all_read.front();
  std::set<std::string> subjects;
  std::size_t units = 0;  // posts that all of them would become
  for (const auto& each : all_read) {
    const bool same = !subject.empty() && each.post.event.subject == subject;
    if (each.post.event.subject.empty() || subjects.insert(each.post.event.subject).second) ++units;
    if (&each != &all_read.front() && !same) continue;
    if (!work.ids.empty()) task.earlier.push_back(identity_of(*newest->queued));
    newest = &each;
    work.ids.push_back(each.queued->id);
    // Also after a 500, which Mattermost may say after the post was saved.
    task.may_be_there = task.may_be_there || each.queued->attempts > 0;
  }
  try {
    if (!subject.empty()) work.thread = queue->thread(channel, subject);
  } catch (const SqlError& e) {
    queue_failed(e);
    return give_back(channel, unix_now() + 1000);
  }
  if (!work.thread) {
    if (tokens == 0) return give_back(channel, when_channel_may(channel, now));
    if (units > tokens && units >= std::max<std::size_t>(2, settings->flood.digest_from) && !singles.contains(channel)) return post_digest(lane, now);
  }
  const Event& event = newest->post.event;
  const auto rendered = made_of(channel, newest->queued->id, [&] {
    task.payload = render(newest->post);
    if (!subject.empty() && event.status == Status::failed) task.details = render_details(newest->post);
    return true;
  });
  if (!rendered) return;
  if (!subject.empty() && is_final(event.status)) task.call = newest->post.mention;
  work.subject = subject;
  task.channel = channel;
  task.identity = identity_of(*newest->queued);
  task.since = all_read.front().queued->made;
  if (work.thread) task.edit = Bot::Place{work.thread->post_id, work.thread->channel_id};
  const auto serial = mark(lane, std::move(work), now);
  if (serial == 0) return;
  bot->say(std::move(task), [this, channel, serial](const Bot::Result& result) {
    Work* said = in_flight(channel, serial);
    if (!said) return;
    // Each request of the conversation counts for Mattermost's limit; the first was counted when it began.
    for (unsigned i = 1; i < result.requests; ++i) all.take(steady_now());
    if (result.created) counters.posts.fetch_add(1, std::memory_order_relaxed);
    if (result.edited) counters.edits.fetch_add(1, std::memory_order_relaxed);
    if (result.replied) counters.replies.fetch_add(1, std::memory_order_relaxed);
    said->thread.reset();
    if (result.place) said->thread = Queue::Thread{result.place->post_id, result.place->channel_id};
    settle(channel, serial, result.answer);
  });
}

void Delivery::State::ping_doubtful(SteadyTime now) {
  for (auto& [name, server] : servers) {
    if (!server.doubtful || server.pinging || now < server.next_ping) continue;
    client->ping(server.channel, [this, server_name = name](const Answer& answer) {
      const auto found = servers.find(server_name);
      if (found == servers.end()) return;
      Server& asked = found->second;
      asked.pinging = false;
      asked.doubtful = answer.outcome != Outcome::delivered;
      asked.pings = asked.doubtful ? asked.pings + 1 : 0;
      asked.next_ping = steady_now() + rest_after(std::min(asked.pings, 5U));
      if (asked.doubtful) {
        places.failed(server_name, asked.channel, answer.reason, steady_now());
        counters.last_failure.store(unix_now() / 1000, std::memory_order_relaxed);
      }
      look = true;
    });
    server.pinging = true;
  }
}

}  // namespace radiotower::notifier
