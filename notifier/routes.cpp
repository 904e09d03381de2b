#include "notifier/routes.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "radiotower/base/encoding.h"

namespace radiotower::notifier {

namespace {

/// True when no pattern of the list is for it: an empty list is for all. The "!" ones exclude; a list of only those is
/// for all the others.
bool matches(const std::vector<std::string>& patterns, std::string_view text) {
  bool any = false, only_excluding = true;
  for (const std::string& pattern : patterns) {
    if (pattern.starts_with('!')) {
      if (glob(std::string_view(pattern).substr(1), text)) return false;
    } else {
      only_excluding = false;
      any = any || glob(pattern, text);
    }
  }
  return any || only_excluding;
}

bool lists(const std::vector<std::string>& words, std::string_view word) {
  return !word.empty() && std::find(words.begin(), words.end(), word) != words.end();
}

/// Where the sender does not tell, the usual names are taken for it; what has no branch at all (a freestyle job) is
/// what there is.
bool on_default_branch(const Event& event) {
  if (event.is_tag) return false;
  if (event.on_default_branch) return *event.on_default_branch;
  return event.branch.empty() || event.branch == "main" || event.branch == "master" || event.branch == "trunk";
}

bool is_news(const Event& event, const Change& change) {
  return change.turn == Turn::broken || change.turn == Turn::fixed ||
         (change.turn == Turn::first && event.status == Status::failed) ||
         (change.turn == Turn::none && event.history_key.empty());
}

bool matches(const Route& r, const Event& event, const Change& change) {
  if (!matches(r.source, event.source) || !matches(r.project, event.project) || !matches(r.branch, event.branch) ||
      !matches(r.event, event.kind))
    return false;
  if (!r.status.empty() && !lists(r.status, word(event.status)) && !lists(r.status, word(change.turn))) return false;
  if (r.security && *r.security != event.security) return false;
  return !r.default_branch || *r.default_branch == on_default_branch(event);
}

std::string mention(const Settings& settings, const Route& r, const Event& event) {
  std::string out = r.mention;
  if (!r.mention_author) return out;
  for (const std::string* name : {&event.author_email, &event.actor_login, &event.author, &event.actor}) {
    const auto found = name->empty() ? settings.people.end() : settings.people.find(lower_case(*name));
    if (found == settings.people.end()) continue;
    if ((" " + out + " ").find(" " + found->second + " ") == std::string::npos)
      out += (out.empty() ? "" : " ") + found->second;
    break;
  }
  return out;
}

}  // namespace

bool glob(std::string_view pattern, std::string_view text) {
  // One row a character of the pattern: can what has been read of it end at this place of the text? So the work is the product of both
  // lengths, whatever stars there are, and names are short (sources/source.cpp).
  std::vector<char> here(text.size() + 1, 0);
  here[0] = 1;
  for (std::size_t p = 0; p < pattern.size(); ++p) {
    const bool star = pattern[p] == '*', crosses = star && pattern.substr(p, 2) == "**";
    if (star) {
      for (std::size_t t = 1; t <= text.size(); ++t) here[t] = here[t] || (here[t - 1] && (crosses || text[t - 1] != '/'));
    } else {
      for (std::size_t t = text.size(); t > 0; --t)
        here[t] = here[t - 1] && (pattern[p] == text[t - 1] || (pattern[p] == '?' && text[t - 1] != '/'));
      here[0] = 0;
    }
    if (crosses) ++p;
  }
  return here[text.size()] != 0;
}

std::vector<Post> route(const Settings& settings, const Event& event, const Change& change, std::string& why) {
  std::vector<Post> posts;
  std::vector<std::string_view> channels;
  why = "no route is for it";
  for (const Route& r : settings.routes) {
    if (!matches(r, event, change)) continue;
    if (r.only_on_change && !is_news(event, change)) {
      why = fmt::format("{} posts changes alone", r.name);
      continue;
    }
    // What waits for a person is told: it goes on when somebody has read it.
    const bool passing = event.status == Status::pending || event.status == Status::running;
    const bool edits = settings.mattermost.bot() && !event.subject.empty();
    if (passing && !r.every_state && !edits && !lists(r.status, word(event.status))) {
      why = fmt::format("{} posts final states alone", r.name);
      continue;
    }
    if (r.channel.empty()) {
      if (posts.empty()) why = fmt::format("{} drops it", r.name);
      break;
    }
    // One event is told once in a channel, whichever route was first.
    if (std::find(channels.begin(), channels.end(), r.channel) == channels.end()) {
      channels.push_back(r.channel);
      posts.push_back(
          {r.channel, mention(settings, r, event), r.username, r.template_text, r.name, r.quiet, event, change});
    }
    if (!settings.every_match) break;
  }
  if (!posts.empty()) why.clear();
  return posts;
}

std::vector<Route> built_in_routes() {
  Route builds;
  builds.name = "built in: builds";
  builds.event = {"pipeline", "build", "deployment", "release", "message", "check"};
  builds.channel = "builds";
  Route failures;
  failures.name = "built in: failures of the default branch";
  failures.event = {"pipeline", "build", "deployment"};
  failures.status = {"failed", "fixed"};
  failures.default_branch = true;
  failures.channel = "alerts";
  Route gates;
  gates.name = "built in: quality gates";
  gates.event = {"gate"};
  gates.status = {"failed", "fixed"};
  gates.channel = "alerts";
  Route alerts;
  alerts.name = "built in: alerts";
  alerts.event = {"alert"};
  alerts.channel = "alerts";
  Route findings;
  findings.name = "built in: security findings";
  findings.security = true;
  findings.channel = "alerts";
  return {builds, failures, gates, alerts, findings};
}

Json to_json(const Post& post) {
  Json json = {{"channel", post.channel}, {"route", post.route}, {"event", to_json(post.event)}};
  if (!post.mention.empty()) json["mention"] = post.mention;
  if (!post.username.empty()) json["username"] = post.username;
  if (!post.template_text.empty()) json["template"] = post.template_text;
  if (post.quiet) json["quiet"] = {post.quiet->first, post.quiet->second};
  if (post.change.turn != Turn::none)
    json["change"] = {{"turn", static_cast<int>(post.change.turn)},
                      {"streak", post.change.streak},
                      {"lasted_s", post.change.lasted_s}};
  return json;
}

Post post_from_json(const Json& json) {
  Post post;
  post.channel = json.value("channel", "");
  post.mention = json.value("mention", "");
  post.username = json.value("username", "");
  post.template_text = json.value("template", "");
  post.route = json.value("route", "");
  if (json.contains("quiet")) post.quiet = {json["quiet"].at(0).get<int>(), json["quiet"].at(1).get<int>()};
  if (json.contains("change")) {
    const Json& change = json["change"];
    post.change = {static_cast<Turn>(change.value("turn", 0)), change.value("streak", 0u),
                   change.value("lasted_s", std::int64_t{0})};
  }
  post.event = event_from_json(json.at("event"));
  return post;
}

}  // namespace radiotower::notifier
