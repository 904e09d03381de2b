#include "notifier/phrases.h"

#include <algorithm>
#include <array>
#include <cmath>

#include <fmt/format.h>

#include "radiotower/base/encoding.h"

namespace radiotower::notifier {

namespace {

constexpr std::size_t longest_name = 120;
constexpr std::string_view allowed_to_fail = "allowed to fail";  // in the detail of a job

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

/// What an action is called in a sentence, where adding "ed" does not do: "Ada ACTIVE title BEHIND", "title PASSIVE" when nobody is named.
struct Action {
  std::string_view action, active, passive, behind = {};
};
constexpr std::array<Action, 24> actions{{
    {"open", "opened", "was opened"},
    {"reopen", "reopened", "was reopened"},
    {"create", "created", "was created"},
    {"publish", "published", "was published"},
    {"edit", "edited", "was edited"},
    {"add", "added", "was added"},
    {"set", "set", "was set"},
    {"submit", "submitted", "was submitted"},
    {"approval", "approved", "was approved"},
    {"unapproved", "withdrew the approval of", "is no longer approved"},
    {"unapproval", "withdrew an approval of", "lost an approval"},
    {"changes requested", "requested changes on", "needs changes"},
    {"synchronize", "updated", "was updated"},
    {"ready", "marked", "is ready", " as ready"},
    {"on", "switched on", "was switched on"},
    {"off", "switched off", "was switched off"},
    {"award", "reacted with", "was given"},
    {"revoke", "removed the reaction", "was removed"},
    {"rejected", "requested changes on", "needs changes"},
    {"property added", "added a property to", "got a property"},
    {"property deleted", "took a property from", "lost a property"},
    {"access denied", "denied access to", "was denied access"},
    {"access requested", "asked for access for", "asked for access"},
    {"transfer", "transferred", "was transferred"},
}};

/// "merge" -> "merged". The actions of the sources are verbs, some already in the past.
std::string past(std::string_view action) {
  std::string word(action.substr(0, 40));
  std::replace(word.begin(), word.end(), '_', ' ');
  if (word.ends_with("ed") || word.ends_with("en")) return word;
  return word + (word.ends_with('e') ? "d" : "ed");
}

const Action* find_action(std::string_view action) {
  std::string words(action.substr(0, 40));
  std::replace(words.begin(), words.end(), '_', ' ');
  for (const Action& a : actions)
    if (a.action == words) return &a;
  return nullptr;
}

/// "Wiki page Priming" -> "wiki page Priming" in the middle of a sentence: only words that the sources put there themselves.
std::string in_sentence(std::string title) {
  for (const std::string_view word :
       {"Release ", "Wiki page ", "Milestone ", "Project ", "Group ", "Package ", "Feature flag ", "Build #", "Confidential ",
        "Access token ", "Code scanning alert ", "Leaked secret", "Vulnerability", "Security alert"})
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

/// The person that a sentence of no status begins with; empty where it begins with none. (Raw.)
std::string_view named_person(const Event& event) {
  if (event.status != Status::none) return {};
  if (event.kind == "message" || event.kind == "access_token" || event.kind == "member") return {};
  return !event.actor.empty() ? event.actor : event.author;
}

/// The first fact of that name, else empty. (Raw.)
std::string_view fact(const Event& event, std::string_view name) {
  for (const auto& [key, value] : event.facts)
    if (key == name) return value;
  return {};
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
  if (is("create")) return fmt::format("{} created branch {}{}", who, branch, commits == 0 ? "" : " with" + amount);
  const std::string commit = shown(place, std::string_view(event.commit).substr(0, 8), 12);
  if (commits == 0 && !branch.empty() && !commit.empty()) return fmt::format("{} moved {} to {}", who, branch, commit);
  return fmt::format("{} {}{}{}", who, event.action == "force-pushed" ? "force-pushed" : "pushed", amount,
                     branch.empty() ? "" : " to " + branch);
}

/// What is done with a release bundle, by the first word of its action; alone, "completed" is that of its creation.
struct BundleWork {
  std::string_view action, noun, participle, preposition;
};
constexpr std::array<BundleWork, 4> bundle_works{{
    {"distribute", "Distribution", "distributed", "to"},
    {"delete", "Deletion", "deleted", "from"},
    {"promotion", "Promotion", "promoted", "to"},
    {"", "Creation", "created", ""},
}};

const BundleWork* bundle_work(const Event& event) {
  if (event.kind != "bundle" || event.status == Status::none) return nullptr;
  const std::size_t blank = event.action.find(' ');
  const std::string_view verb = blank == std::string::npos ? "" : std::string_view(event.action).substr(0, blank);
  for (const BundleWork& work : bundle_works)
    if (work.action == verb) return &work;
  return nullptr;
}

/// Where a bundle goes, if the sentence has room for it. (Raw.)
std::string_view bundle_place(const Event& event) {
  const std::string_view nodes = fact(event, "To"), to = nodes.empty() ? fact(event, "Environment") : nodes;
  return characters(to) > longest_name ? std::string_view() : to;
}

/// "Release bundle 1.4.0 was distributed to edge", "Deletion of release bundle 1.4.0 failed"
std::string bundle_sentence(const Event& event, const BundleWork& work, Place place) {
  const std::string title = title_or_kind(event, place);
  std::string where = work.preposition.empty() ? "" : shown(place, bundle_place(event), longest_name);
  if (!where.empty()) where = fmt::format(" {} {}", work.preposition, where);
  if (event.status == Status::success) return fmt::format("{} was {}{}", title, work.participle, where);
  if (event.status == Status::running) return fmt::format("{} is being {}{}", title, work.participle, where);
  return fmt::format("{} of {}{} {}", work.noun, in_sentence(title), where, verdict(event));
}

/// "pull request #7 Add the valve", "issue #13 The pump drips": a number alone does not say of what.
std::string numbered(const Event& event, Place place) {
  const std::string title = title_or_kind(event, place);
  if (!event.title.starts_with('#')) return title;
  if (event.kind == "merge_request") return "pull request " + title;
  std::string type = lower_case(fact(event, "Type").substr(0, 40));
  type = shown(place, type, 40);
  return (type.empty() ? "issue" : type) + " " + title;
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
  switch (event.status) {
    case Status::failed: return 3;
    case Status::unstable:
    case Status::waiting: return 2;
    case Status::canceled: return 1;
    default: return 0;
  }
}

std::string_view verdict(const Event& event) {
  const std::string_view kind = event.kind;
  const bool alert = kind == "alert", vulnerability = kind == "vulnerability";
  switch (event.status) {
    case Status::none: return "";
    case Status::pending: return "is pending";
    case Status::running: return "is running";
    case Status::waiting:
      if (kind == "deployment" || event.action == "approval") return "is waiting for approval";
      if (kind == "pipeline" || kind == "job") return "is waiting for somebody to start it";
      return kind == "check" ? "requires action" : "is waiting";
    case Status::success:
      if (alert) return "is resolved";
      if (vulnerability) return "is closed";
      return kind == "deployment" || kind == "bundle" || kind == "message" ? "succeeded" : "passed";
    case Status::unstable:
      if (kind == "job") return "failed (allowed to fail)";
      return kind == "gate" || kind == "message" ? "has warnings" : "is unstable";
    case Status::failed: return alert ? "is firing" : vulnerability ? "is open" : "failed";
    case Status::canceled: return "was canceled";
    case Status::skipped: return "was skipped";
  }
  return "";
}

std::string verdict_of_many(const Event& event) {
  std::string words(verdict(event));
  constexpr std::pair<std::string_view, std::string_view> beginnings[] = {
      {"is ", "are "}, {"was ", "were "}, {"has ", "have "}, {"requires ", "require "}};
  for (const auto& [one, many] : beginnings)
    if (words.starts_with(one)) {
      words.replace(0, one.size(), many);
      break;
    }
  if (words.ends_with(" it")) words.replace(words.size() - 2, 2, "them");
  return words;
}

std::string_view state(const Event& event) {
  std::string_view words = verdict(event);
  if (event.kind == "alert" || event.kind == "vulnerability") {
    if (words.starts_with("is ")) words.remove_prefix(3);
    return words;
  }
  if (words == "has warnings") return "with warnings";
  return event.status == Status::success ? words : word(event.status);
}

std::string state_words(const Post& post) {
  // An alert that fires for a second time is no more than that: its change says the state, too.
  const std::string change = post.event.kind == "alert" ? change_words(post.change, post.event.kind) : std::string();
  return change.empty() ? std::string(state(post.event)) : change;
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

std::string change_words(const Change& change, std::string_view kind) {
  const bool alert = kind == "alert";
  const std::string_view still = alert ? "still firing" : "still failing", fixed = alert ? "resolved" : "fixed";
  const std::optional<std::string> lasted =
      change.lasted_s > 0 ? duration_words(static_cast<double>(change.lasted_s)) : std::nullopt;
  switch (change.turn) {
    case Turn::broken: return alert ? "" : "broken";
    case Turn::still_failing:
      if (change.streak < 2) return std::string(still);
      return fmt::format("{} ({}{})", still, ordinal(change.streak), lasted ? ", for " + *lasted : "");
    case Turn::fixed:
      if (lasted) return fmt::format("{} after {}", fixed, *lasted);
      return alert ? "" : std::string(fixed);
    case Turn::none:
    case Turn::first:
    case Turn::still_good: break;
  }
  return {};
}

std::string full_title(const Event& event) {
  const std::string_view request = event.kind == "gate" ? fact(event, "Pull request") : std::string_view();
  return request.empty() || event.title.empty() ? event.title : event.title + " for pull request " + std::string(request);
}

std::string sentence(const Event& event, Place place) {
  if (event.status != Status::none) {
    if (const BundleWork* work = bundle_work(event)) return bundle_sentence(event, *work, place);
    const bool several = event.kind == "alert" && event.items_total != 1 &&
                         event.title.starts_with(std::to_string(event.items_total) + " ");
    std::string words = title_or_kind(event, place);
    words.append(" ").append(several ? verdict_of_many(event) : verdict(event));
    if (event.kind == "gate")
      if (const std::string request = shown(place, fact(event, "Pull request"), 40); !request.empty())
        words.append(" for pull request ").append(request);
    return words;
  }
  if (event.kind == "push" || event.kind == "tag") return push_sentence(event, place);
  if (event.kind == "message" || event.kind == "access_token") return title_or_kind(event, place);
  const std::string who = person(event, place);
  const bool nobody = who == "Somebody";
  if (event.kind == "note")
    return fmt::format("{} commented on {}", who, in_sentence(title_or_kind(event, place)));
  if (event.action.empty())
    return nobody ? title_or_kind(event, place) : fmt::format("{}: {}", who, title_or_kind(event, place));
  const Action* action = find_action(event.action);
  const bool has_title = !shown(place, event.title, 8).empty();
  // "!7 Add the pump" says itself what it is; "v1.2" does not.
  const bool names_itself = event.kind == "emoji" || event.kind == "member" || event.title.find(' ') != std::string::npos;
  const std::string what = !has_title ? "the " + kind_words(event.kind, 1)
                           : event.kind == "merge_request" || event.kind == "issue" ? numbered(event, place)
                           : names_itself ? title_or_kind(event, place)
                                          : kind_words(event.kind, 1) + " " + title_or_kind(event, place);
  if (event.kind == "member") {  // the sender names nobody but the member
    const std::string role = shown(place, fact(event, "Access"), 40);
    if (event.action == "updated") return what + (role.empty() ? " has a new role" : "'s role is now " + role);
    if (event.action == "added" && !role.empty()) return fmt::format("{} was added as {}", what, role);
  }
  if (nobody || event.kind == "member")
    return capitalised(
        fmt::format("{} {}", what, action ? std::string(action->passive) : "was " + shown(place, past(event.action), 40)));
  if (event.kind == "release" && event.action == "create") return fmt::format("{} published {}", who, in_sentence(what));
  return fmt::format("{} {} {}{}", who, action ? std::string(action->active) : shown(place, past(event.action), 40),
                     in_sentence(what), action ? action->behind : "");
}

bool names_author(const Event& event) { return !event.author.empty() && named_person(event) == event.author; }

bool shows_branch(const Event& event) { return event.status != Status::none || (" " + event.title).ends_with(" " + event.branch); }

bool says_fact(const Event& event, std::string_view name, std::string_view value) {
  if (event.kind == "deployment") {
    const std::string_view environment = fact(event, "Environment");
    if (name == "Environment") return event.title.ends_with(" to " + std::string(value)) && characters(event.title) <= longest_title;
    return name == "Tier" && value == environment;
  }
  if (const BundleWork* work = bundle_work(event))
    return !work->preposition.empty() && value == bundle_place(event) && (name == "To" || name == "Environment");
  if (event.kind == "gate") return name == "Pull request" && event.status != Status::none;
  if (event.kind == "member") return name == "Access" && (event.action == "added" || event.action == "updated");
  return event.kind == "issue" && name == "Type" && event.title.starts_with('#') && !event.action.empty();
}

std::string fact_value(std::string_view value, std::size_t limit) {
  if (const std::size_t newline = value.find('\n'); newline != std::string_view::npos)
    return link(value.substr(0, newline), value.substr(newline + 1), limit);
  const std::string url = safe_url(value);
  if (url.empty()) return markdown_line(value, limit);
  std::string_view label = url;
  label.remove_prefix(label.find("://") + 3);
  if (label.find('/') == label.size() - 1) label.remove_suffix(1);
  return link(label, url, limit);
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
  // What was allowed to fail says so itself.
  const bool differs = item.status != Status::none && item.status != event_status;
  if (differs && item.detail.find(allowed_to_fail) == std::string::npos) line.append(word(item.status)).append(": ");
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
