// What becomes of posts by Mattermost's answer. Each answer ends in one record for the queue, which is written until it works.
#include <fmt/format.h>

#include "notifier/delivery_state.h"

namespace radiotower::notifier {

namespace {

constexpr unsigned server_errors_of_a_post = 8;  // answers of 500, until the post itself is to blame

void add(std::atomic<std::uint64_t>& counter, std::size_t n = 1) { counter.fetch_add(n, std::memory_order_relaxed); }

std::vector<std::int64_t> without(std::vector<std::int64_t> ids, const std::vector<std::int64_t>& others) {
  std::erase_if(ids, [&](std::int64_t id) { return std::find(others.begin(), others.end(), id) != others.end(); });
  return ids;
}

}  // namespace

Delivery::State::Work* Delivery::State::in_flight(const std::string& channel, std::uint64_t serial) {
  const auto found = works.find(channel);
  return found == works.end() || !found->second.in_flight || found->second.serial != serial ? nullptr : &found->second;
}

void Delivery::State::settle(const std::string& channel, std::uint64_t serial, const Answer& answer) {
  Work* settled = in_flight(channel, serial);
  if (!settled) return;
  settled->in_flight = false;
  Work work = *settled;  // the record that ends it takes it out of the map
  const auto now = steady_now();
  const std::string server = client->server_of(channel), place = fmt::format("{} at {}", channel, server);
  // An answer proves that the server is there, whatever it says.
  if (answer.status != 0 || answer.outcome == Outcome::delivered) places.worked(server, now);
  (answer.outcome == Outcome::delivered ? counters.last_success : counters.last_failure).store(unix_now() / 1000, std::memory_order_relaxed);
  if (answer.tls_failure) add(counters.tls_failures);
  switch (answer.outcome) {
    case Outcome::delivered:
      places.worked(place, now);
      return settle_delivered(channel, work);
    case Outcome::again:
    case Outcome::ambiguous:
      places.failed(answer.status == 0 ? server : place, channel, answer.reason, now);
      return settle_again(channel, work, answer);
    case Outcome::refused: return settle_refused(channel, work, answer);
  }
}

void Delivery::State::settle_delivered(const std::string& channel, Work& work) {
  if (work.digest) {
    add(counters.digests);
    add(counters.digested, work.ids.size());
  } else if (!bot) {
    add(counters.posts);
  }
  forget_troubles(channel, work);
  done.insert(work.ids.begin(), work.ids.end());
  // A bot's next post may be an edit, which is no flood: say() looks.
  const UnixMilliseconds not_before = bot ? 0 : when_channel_may(channel, steady_now());
  record(channel, [channel, not_before, work](Queue& q) {
    if (work.thread && !work.subject.empty()) q.set_thread(channel, work.subject, *work.thread, unix_now());
    q.delivered(work.ids, channel);
    q.release(channel, not_before);
  });
}

void Delivery::State::settle_again(const std::string& channel, Work& work, const Answer& answer) {
  add(counters.retries);
  const auto now = steady_now();
  auto rest = rest_after(work.attempts);
  if (answer.retry_after) rest = *answer.retry_after;
  Server& server = servers[client->server_of(channel)];
  server.channel = channel;
  if (answer.status == 429) {
    // Mattermost counts all requests of an address: whoever else goes on keeps the limit where it is.
    add(counters.rate_limited);
    server.rests_until = std::max(server.rests_until, now + rest);
  }
  bool ambiguous = answer.outcome == Outcome::ambiguous;
  if (ambiguous && !server.doubtful) {
    server.doubtful = true;
    server.pings = 0;
    server.next_ping = now;
  }
  std::vector<std::int64_t> dead;
  std::string why = answer.reason;
  if (answer.server_error && work.digest) {
    singles[channel] = work.ids.size();  // one of them may be what Mattermost stumbles over
  } else if (answer.server_error) {
    for (const auto id : work.ids) {
      if (++server_errors[id] >= server_errors_of_a_post) dead.push_back(id);
    }
    if (!dead.empty()) why = fmt::format("{}, {} times for this post", answer.reason, server_errors_of_a_post);
  }
  if (dead.empty() && !work.expired.empty()) {
    // Those whose answer was lost just now are ambiguous first: they may be posted.
    dead = ambiguous ? without(work.expired, work.ids) : work.expired;
    why = given_up(answer.reason);
  }
  const auto waiting = without(work.ids, dead);
  if (ambiguous && bot) {
    ambiguous = work.doubtful.empty();  // a second one is no danger: a bot looks for its post before it posts
  } else if (ambiguous) {
    tell_buried(channel, without(work.doubtful, dead), fmt::format("the answer was lost twice, so it may be posted already: {}", answer.reason));
  }
  tell_buried(channel, dead, why);
  for (const auto id : dead) server_errors.erase(id);
  fewer_singles(channel, dead.size());
  const UnixMilliseconds not_before = unix_now() + rest.count();
  record(channel, [=, reason = answer.reason, subject = work.subject, thread = work.thread](Queue& q) {
    if (thread && !subject.empty()) q.set_thread(channel, subject, *thread, unix_now());
    if (!dead.empty()) q.bury(dead, channel, why, unix_now());
    if (waiting.empty()) q.release(channel, not_before);
    else q.retry(waiting, channel, not_before, ambiguous, reason, unix_now());
  });
}

void Delivery::State::settle_refused(const std::string& channel, Work& work, const Answer& answer) {
  const UnixMilliseconds not_before = when_channel_may(channel, steady_now());
  const bool may_be_one_of_them = answer.status == 400 || answer.status == 413 || answer.status == 414;
  if (work.digest && may_be_one_of_them && work.ids.size() > 1) {
    singles[channel] = work.ids.size();
    return record(channel, [=, ids = work.ids, reason = answer.reason](Queue& q) { q.retry(ids, channel, not_before, false, reason, unix_now()); });
  }
  add(counters.refused);
  tell_buried(channel, work.ids, answer.reason);
  forget_troubles(channel, work);
  record(channel, [=, ids = work.ids, reason = answer.reason](Queue& q) {
    q.bury(ids, channel, reason, unix_now());
    q.release(channel, not_before);
  });
}

void Delivery::State::forget_troubles(const std::string& channel, const Work& work) {
  for (const auto id : work.ids) server_errors.erase(id);
  fewer_singles(channel, work.ids.size());
}

void Delivery::State::fewer_singles(const std::string& channel, std::size_t n) {
  const auto single = singles.find(channel);
  if (single == singles.end()) return;
  single->second -= std::min(single->second, n);
  if (single->second == 0) singles.erase(single);
}

void Delivery::State::tell_buried(const std::string& channel, std::span<const std::int64_t> ids, std::string_view reason) {
  add(counters.buried, ids.size());
  for (const auto id : ids) {
    log.write(Priority::warning, "dead letter", fmt::format("post {} will not be tried again (radiotower-notifier dead show {}): {}", id, id, reason),
              {{"id", static_cast<std::uint64_t>(id)}, {"channel", channel}});
  }
}

}  // namespace radiotower::notifier
