#include "notifier/phrases.h"

#include <algorithm>
#include <array>
#include <cmath>

#include <fmt/format.h>

namespace radiotower::notifier {

namespace {

constexpr std::size_t longest_name = 120;
constexpr std::size_t longest_title = 200;

struct KindWords {
  std::string_view kind, one, many;
};
constexpr std::array<KindWords, 24> kinds{{
    {"pipeline", "pipeline", "pipelines"},
    {"job", "job", "jobs"},
    {"push", "push", "pushes"},
    {"tag", "tag", "tags"},
    {"merge_request", "merge request", "merge requests"},
    {"note", "comment", "comments"},
    {"issue", "issue", "issues"},
    {"deployment", "deployment", "deployments"},
    {"release", "release", "releases"},
    {"wiki", "wiki page", "wiki pages"},
    {"feature_flag", "feature flag", "feature flags"},
    {"emoji", "reaction", "reactions"},
    {"milestone", "milestone", "milestones"},
    {"vulnerability", "vulnerability", "vulnerabilities"},
    {"access_token", "access token", "access tokens"},
    {"member", "change of members", "changes of members"},
    {"build", "build", "builds"},
    {"gate", "quality gate", "quality gates"},
    {"artifact", "artifact", "artifacts"},
    {"image", "image", "images"},
    {"bundle", "bundle", "bundles"},
    {"alert", "alert", "alerts"},
    {"message", "message", "messages"},
    {"check", "check", "checks"},
}};

/// What an action is called in a sentence, where adding "ed" does not do: "Ada ACTIVE title", "title PASSIVE" when nobody is named.
struct Action {
  std::string_view action, active, passive;
};
constexpr std::array<Action, 26> actions{{
    {"open", "opened", "was opened"}, {"reopen", "reopened", "was reopened"}, {"create", "created", "was created"}, {"publish", "published", "was published"},
    {"edit", "edited", "was edited"}, {"add", "added", "was added"}, {"set", "set", "was set"}, {"submit", "submitted", "was submitted"},
    {"approval", "approved", "was approved"}, {"unapproved", "took back the approval of", "is approved no more"},
    {"unapproval", "took back an approval of", "lost an approval"}, {"changes_requested", "requested changes to", "is to be changed"},
    {"synchronize", "updated", "was updated"}, {"ready", "marked as ready", "is ready"}, {"on", "switched on", "was switched on"},
    {"off", "switched off", "was switched off"}, {"award", "reacted with", "was given"}, {"revoke", "took back", "was taken back"},
    {"rejected", "requested changes to", "is to be changed"}, {"property_added", "added a property to", "got a property"},
    {"property_deleted", "took a property from", "lost a property"}, {"property added", "added a property to", "got a property"},
    {"property deleted", "took a property from", "lost a property"}, {"access_denied", "denied access to", "was denied access"},
    {"access_requested", "asked for access for", "asked for access"}, {"transfer", "transferred", "was transferred"},
}};

/// "merge" -> "merged". The actions of the sources are verbs, some already in the past.
std::string past(std::string_view action) {
  std::string word(action.substr(0, 40));
  std::replace(word.begin(), word.end(), '_', ' ');
  if (word.ends_with("ed") || word.ends_with("en")) return word;
  return word + (word.ends_with('e') ? "d" : "ed");
}

const Action* find_action(std::string_view action) {
  for (const Action& a : actions)
    if (a.action == action) return &a;
  return nullptr;
}

/// "Wiki page Priming" -> "wiki page Priming" in the middle of a sentence: only words that the sources put there themselves.
std::string in_sentence(std::string title) {
  for (const std::string_view word : {"Release ", "Wiki page ", "Milestone ", "Project ", "Group ", "Package ", "Feature flag ", "Build #", "Confidential ", "Access token "})
    if (title.starts_with(word)) title[0] = static_cast<char>(title[0] + 32);
  return title;
}

std::string ordinal(std::uint32_t n) {
  const std::uint32_t tens = n % 100;
  const char* ending = tens >= 11 && tens <= 13 ? "th"
                       : n % 10 == 1            ? "st"
                       : n % 10 == 2            ? "nd"
                       : n % 10 == 3            ? "rd"
                                                : "th";
  return fmt::format("{}{}", n, ending);
}

std::string person(const Event& event, Place place) {
  const std::string& name = !event.actor.empty()    ? event.actor
                            : !event.author.empty() ? event.author
                                                    : event.actor_login;
  const std::string words = shown(place, name, longest_name);
  return words.empty() ? "Somebody" : words;
}

std::string branch_words(const Event& event, Place place) {
  return place == Place::markdown ? code_span(event.branch, longest_name) : plain_line(event.branch, longest_name);
}

std::string capitalised(std::string word) {
  if (!word.empty() && word[0] >= 'a' && word[0] <= 'z') word[0] = static_cast<char>(word[0] - 32);
  return word;
}

std::string title_or_kind(const Event& event, Place place) {
  const std::string title = shown(place, event.title, longest_title);
  return title.empty() ? capitalised(kind_words(event.kind, 1)) : title;
}

std::string push_sentence(const Event& event, Place place) {
  const std::string who = person(event, place), branch = branch_words(event, place);
  const std::string_view where = event.is_tag || event.kind == "tag" ? "tag" : "branch";
  const auto is = [&](std::string_view action) {
    return event.action == action || event.action == std::string(action) + "d";
  };
  if (is("delete") || event.action == "removed") return fmt::format("{} deleted {} {}", who, where, branch);
  if (where == "tag") return fmt::format("{} pushed tag {}", who, branch);
  const std::size_t commits = std::max(event.items_total, event.items.size());
  const std::string amount = commits == 0 ? "" : fmt::format(" {} {}", commits, commits == 1 ? "commit" : "commits");
  if (is("create"))
    return fmt::format("{} pushed the new branch {}{}", who, branch, commits == 0 ? "" : " with" + amount);
  return fmt::format("{} pushed{}{}", who, amount, branch.empty() ? "" : " to " + branch);
}

}  // namespace

std::string_view colour(Status status) {
  switch (status) {
    case Status::success: return "#2eb886";
    case Status::failed: return "#d0021b";
    case Status::unstable:
    case Status::waiting: return "#daa038";
    case Status::pending:
    case Status::running: return "#2d9ee0";
    case Status::none:
    case Status::canceled:
    case Status::skipped: break;
  }
  return "#8d939a";
}

int severity(const Event& event) {
  if (event.security) return 3;
  switch (event.status) {
    case Status::failed: return 3;
    case Status::unstable:
    case Status::waiting: return 2;
    case Status::canceled: return 1;
    default: return 0;
  }
}

std::string_view verdict(std::string_view kind, Status status) {
  const bool alert = kind == "alert";
  switch (status) {
    case Status::none: return "";
    case Status::pending: return "is pending";
    case Status::running: return "is running";
    case Status::waiting: return "waits for a person";
    case Status::success: return alert ? "is resolved" : kind == "vulnerability" ? "is closed" : kind == "deployment" ? "succeeded" : "passed";
    case Status::unstable: return "is unstable";
    case Status::failed: return alert ? "fires" : kind == "vulnerability" ? "is open" : "failed";
    case Status::canceled: return "was canceled";
    case Status::skipped: return "was skipped";
  }
  return "";
}

std::string_view state(const Event& event) {
  if (event.kind == "alert" && event.status == Status::failed) return "firing";
  if (event.kind == "alert" && event.status == Status::success) return "resolved";
  return event.status == Status::success ? verdict(event.kind, event.status) : word(event.status);
}

std::string kind_words(std::string_view kind, std::size_t count) {
  for (const KindWords& k : kinds)
    if (k.kind == kind) return std::string(count == 1 ? k.one : k.many);
  std::string word(kind.empty() ? "event" : kind.substr(0, 80));
  std::replace(word.begin(), word.end(), '_', ' ');
  return markdown_line(word, 40) + (count == 1 ? "" : "s");
}

std::optional<std::string> duration_words(double seconds) {
  if (!(seconds >= 0) || seconds > 1e9) return std::nullopt;
  const auto s = static_cast<std::int64_t>(std::llround(seconds));
  const auto pair = [](std::int64_t large, const char* large_unit, std::int64_t small, const char* small_unit) {
    return small == 0 ? fmt::format("{} {}", large, large_unit)
                      : fmt::format("{} {} {} {}", large, large_unit, small, small_unit);
  };
  if (s < 60) return fmt::format("{} s", s);
  if (s < 3600) return pair(s / 60, "min", s % 60, "s");
  if (s < 48 * 3600) return pair(s / 3600, "h", s % 3600 / 60, "min");
  return pair(s / 86400, "d", s % 86400 / 3600, "h");
}

std::string change_words(const Change& change) {
  const std::optional<std::string> lasted =
      change.lasted_s > 0 ? duration_words(static_cast<double>(change.lasted_s)) : std::nullopt;
  switch (change.turn) {
    case Turn::broken: return "broken";
    case Turn::still_failing:
      if (change.streak < 2) return "still failing";
      return fmt::format("still failing ({}{})", ordinal(change.streak), lasted ? ", for " + *lasted : "");
    case Turn::fixed: return lasted ? "fixed after " + *lasted : "fixed";
    case Turn::none:
    case Turn::first:
    case Turn::still_good: break;
  }
  return {};
}

std::string sentence(const Event& event, Place place) {
  if (event.status != Status::none) {
    const bool several = event.kind == "alert" && event.items_total != 1 && event.title.starts_with(std::to_string(event.items_total) + " ");
    if (several && is_final(event.status)) return fmt::format("{} {}", title_or_kind(event, place), event.status == Status::failed ? "fire" : "are resolved");
    return fmt::format("{} {}", title_or_kind(event, place), verdict(event.kind, event.status));
  }
  if (event.kind == "push" || event.kind == "tag") return push_sentence(event, place);
  if (event.kind == "message" || event.kind == "access_token") return title_or_kind(event, place);
  const std::string who = person(event, place);
  const bool nobody = who == "Somebody";
  if (event.kind == "note") return fmt::format("{} commented on {}", who, in_sentence(title_or_kind(event, place)));
  if (event.action.empty()) return nobody ? title_or_kind(event, place) : fmt::format("{}: {}", who, title_or_kind(event, place));
  const Action* action = find_action(event.action);
  const bool has_title = !shown(place, event.title, 8).empty();
  // "!7 Add the pump" says itself what it is; "v1.2" does not.
  const bool names_itself = event.kind == "merge_request" || event.kind == "issue" || event.kind == "emoji" || event.kind == "member" ||
                            event.title.find(' ') != std::string::npos;
  const std::string what = !has_title     ? "the " + kind_words(event.kind, 1)
                           : names_itself ? title_or_kind(event, place)
                                          : kind_words(event.kind, 1) + " " + title_or_kind(event, place);
  // Of a member the sender names nobody but the member.
  if (nobody || event.kind == "member")
    return capitalised(fmt::format("{} {}", what, action ? std::string(action->passive) : "was " + shown(place, past(event.action), 40)));
  if (event.kind == "release" && event.action == "create") return fmt::format("{} published {}", who, in_sentence(what));
  return fmt::format("{} {} {}", who, action ? std::string(action->active) : shown(place, past(event.action), 40), in_sentence(what));
}

std::string headline(const Event& event, Place place) {
  std::string out;
  const auto part = [&](std::string_view text) {
    if (!text.empty()) out.append(out.empty() ? "" : " · ").append(text);
  };
  part(shown(place, event.project, longest_name));
  if (event.status != Status::none) part(shown(place, event.branch, longest_name));
  part(sentence(event, place));
  return out;
}

std::string item_line(const Item& item, Status event_status) {
  constexpr std::size_t longest_item = 150;
  std::string line = "- ";
  if (item.status != Status::none && item.status != event_status) line.append(word(item.status)).append(": ");
  const std::string name = link(item.name, item.url, longest_item);
  line += name.empty() ? "(no name)" : name;
  const std::string detail = markdown_line(item.detail, longest_item);
  if (!detail.empty()) line.append(" – ").append(detail);
  return line;
}

bool Body::add(std::string_view line) {
  if (full_ || line.empty()) return !full_;
  constexpr std::size_t last_line = 4;  // "\n\n…"
  const std::size_t more = characters(line) + (text_.empty() ? 0 : separated_ ? 2 : 1);
  if (count_ + more + last_line > longest_post) {
    full_ = true;
    return false;
  }
  if (!text_.empty()) text_ += separated_ ? "\n\n" : "\n";
  text_ += line;
  count_ += more;
  separated_ = false;
  return true;
}

std::string Body::finish() && {
  if (full_) text_ += "\n\n…";
  return std::move(text_);
}

}  // namespace radiotower::notifier
