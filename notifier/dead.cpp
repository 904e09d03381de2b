// The dead letters on the command line.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <span>

#include "notifier/clock.h"
#include "notifier/command_queue.h"
#include "notifier/commands.h"
#include "notifier/config.h"
#include "notifier/render.h"
#include "notifier/text.h"

namespace radiotower::notifier {

namespace {

std::string when(UnixMilliseconds at) {
  const std::time_t whole = at / 1000;
  std::tm t{};
  localtime_r(&whole, &t);
  return fmt::format("{:04}-{:02}-{:02} {:02}:{:02}", t.tm_year + 1900, t.tm_mon + 1, t.tm_mday, t.tm_hour, t.tm_min);
}

std::string summary(const DeadLetter& letter) {
  try {
    const Event event = post_from_json(Json::parse(letter.json)).event;
    return for_terminal(fmt::format("{} {} {} {}", event.project, event.branch, event.title, word(event.status)));
  } catch (const std::exception&) {
    return "(unreadable)";
  }
}

int none() {
  fmt::print("no dead letters\n");
  return 0;
}

int which() {
  complain("which? ids of `dead list`, or --all");
  return 2;
}

int unknown(std::span<const std::int64_t> ids, std::size_t n) {
  if (ids.size() == 1) return complain(fmt::format("there is no dead letter {}", ids[0]));
  return complain(n == 1 ? "1 of these ids is no dead letter" : fmt::format("{} of these ids are no dead letters", n));
}

std::vector<std::int64_t> each_once(std::vector<std::int64_t> ids) {
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

}  // namespace

int dead_list(const Settings& settings, const std::string& program) {
  if (no_queue_yet(settings)) return none();
  return with_queue(settings, [&](Queue& queue) {
    std::int64_t after = 0;
    std::size_t total = 0;
    for (;;) {
      const auto letters = queue.dead(200, after);
      if (letters.empty()) break;
      for (const DeadLetter& letter : letters) {
        if (total++ == 0)
          fmt::print("{:>8}  {:16}  {:20}  {}\n", "id", "since", "channel", "what, and why it could not be posted");
        fmt::print("{:>8}  {:16}  {:20}  {}\n{:>50}{}\n", letter.id, when(letter.died),
                   channel_as_shown(letter.channel), summary(letter), "", for_terminal(letter.reason));
        after = letter.id;
      }
    }
    if (total == 0) return none();
    fmt::print("{0} dead letter{1}: `{2} dead show ID`, `{2} dead retry ID...|--all`, `{2} dead drop ID...|--all`\n",
               total, total == 1 ? "" : "s", program);
    return 0;
  });
}

int dead_show(const Settings& settings, std::int64_t id) {
  if (no_queue_yet(settings)) return unknown({&id, 1}, 1);
  return with_queue(settings, [&](Queue& queue) {
    const auto letter = queue.dead_letter(id);
    if (!letter) return unknown({&id, 1}, 1);
    fmt::print("{} for {}: made {}, dead since {}, tried {}\nreason: {}\n\n", letter->id,
               channel_as_shown(letter->channel), when(letter->made), when(letter->died),
               letter->attempts == 1 ? "once" : fmt::format("{} times", letter->attempts),
               for_terminal(letter->reason));
    fmt::print("{}\n", for_terminal(render(post_from_json(Json::parse(letter->json))), isatty(1) != 0));
    return 0;
  });
}

int dead_retry(const Settings& settings, const std::vector<std::int64_t>& given, bool all) {
  const auto ids = each_once(given);
  if (ids.empty() && !all) return which();
  if (no_queue_yet(settings)) return all ? none() : unknown(ids, ids.size());
  return with_queue(settings, [&](Queue& queue) {
    const std::size_t n = queue.retry_dead(all ? std::span<const std::int64_t>() : std::span(ids), unix_now());
    if (n == 0 && all) return none();
    if (n != 0)
      fmt::print("{} wait{} again; the running service posts {}\n", n, n == 1 ? "s" : "", n == 1 ? "it" : "them");
    return all || n == ids.size() ? 0 : unknown(ids, ids.size() - n);
  });
}

int dead_drop(const Settings& settings, const std::vector<std::int64_t>& given, bool all) {
  const auto ids = each_once(given);
  if (ids.empty() && !all) return which();
  if (no_queue_yet(settings)) return all ? none() : unknown(ids, ids.size());
  return with_queue(settings, [&](Queue& queue) {
    std::vector<std::int64_t> these = ids;
    // Those that are there now: what dies meanwhile was not meant.
    for (std::int64_t after = 0; all;) {
      const auto letters = queue.dead(200, after);
      if (letters.empty()) break;
      for (const DeadLetter& letter : letters) these.push_back(after = letter.id);
    }
    const std::size_t n = queue.drop_dead(these);
    if (n == 0 && all) return none();
    if (n != 0) fmt::print("{} dropped\n", n);
    return all || n == ids.size() ? 0 : unknown(ids, ids.size() - n);
  });
}

}  // namespace radiotower::notifier
