// Many posts of one channel as one: what failed first, equal ones as one line, all counted.
#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include <fmt/format.h>

#include "notifier/phrases.h"

namespace radiotower::notifier {

namespace {

constexpr std::size_t most_lines = 20;
constexpr std::size_t most_counts = 8;  // parts of the first line
constexpr std::size_t most_mentions = 10;
constexpr std::size_t longest_subject = 800;  // bytes: more than the 150 characters that are shown

struct Group {
  const Post* newest = nullptr;
  std::size_t count = 0;
  std::size_t last = 0;  // place of the newest
};

/// What a message of no project is about: its title or the beginning of its text. (Raw.)
std::string subject_of(const Event& event) {
  if (!event.title.empty()) return full_title(event);
  if (!event.text.empty()) return event.text.substr(0, longest_subject);
  const auto text = event.slack.is_object() ? event.slack.find("text") : event.slack.end();
  if (event.slack.is_object() && text != event.slack.end() && text->is_string() &&
      !text->get_ref<const std::string&>().empty())
    return text->get<std::string>().substr(0, longest_subject);
  if (event.slack.is_object())
    if (const auto list = event.slack.find("attachments"); list != event.slack.end() && list->is_array())
      for (const Json& attachment : *list)
        for (const char* key : {"title", "fallback", "text", "pretext"})
          if (attachment.is_object() && attachment.contains(key) && attachment[key].is_string() &&
              !attachment[key].get_ref<const std::string&>().empty())
            return attachment[key].get<std::string>().substr(0, longest_subject);
  return {};
}

std::vector<Group> groups_of(std::span<const Post> posts) {
  using Key = std::tuple<std::string_view, std::string_view, std::string_view, std::string_view, Status, std::string>;
  std::map<Key, Group> by_key;
  for (std::size_t i = 0; i < posts.size(); ++i) {
    const Event& event = posts[i].event;
    // Without a project only what it says tells a message from another; what is done with a bundle is in its action.
    Group& group = by_key[{event.source, event.kind, event.project, event.branch, event.status,
                           event.project.empty()    ? subject_of(event)
                           : event.kind == "bundle" ? event.action
                                                    : ""}];
    group.newest = &posts[i];
    group.last = i;
    ++group.count;
  }
  std::vector<Group> groups;
  for (const auto& [key, group] : by_key) groups.push_back(group);
  std::sort(groups.begin(), groups.end(), [](const Group& a, const Group& b) {
    const int worse = severity(a.newest->event), than = severity(b.newest->event);
    return worse != than ? worse > than : a.last > b.last;
  });
  return groups;
}

/// "7 pipelines failed", "3 pushes"
std::string count_words(const Event& event, std::size_t count) {
  std::string words = fmt::format("{} {}", count, kind_words(event.kind, count));
  const std::string did = count == 1 ? std::string(verdict(event)) : verdict_of_many(event);
  if (!did.empty()) words.append(" ").append(did);
  return words;
}

std::string first_line(std::span<const Post> posts) {
  struct Count {
    const Event* event;
    std::size_t count = 0;
    std::set<std::string> branches;
  };
  std::map<std::tuple<int, std::string_view, Status>, Count> counts;  // the worst first
  for (const Post& post : posts) {
    Count& c = counts[{-severity(post.event), post.event.kind, post.event.status}];
    c.event = &post.event;
    ++c.count;
    if (c.branches.size() < 2) c.branches.insert(post.event.branch);
  }
  std::string line;
  std::size_t shown = 0, shown_posts = 0;
  for (const auto& [key, c] : counts) {
    if (shown == most_counts) break;
    std::string part = count_words(*c.event, c.count);
    if (shown == 0) part = "**" + part + "**";
    // Of one branch all: that is worth the words, for what failed.
    if (severity(*c.event) > 0 && c.branches.size() == 1 && !c.branches.begin()->empty())
      part += " on " + code_span(*c.branches.begin(), 80);
    line.append(shown == 0 ? "" : ", ").append(part);
    shown_posts += c.count;
    ++shown;
  }
  if (shown_posts < posts.size()) line += fmt::format(", {} more", posts.size() - shown_posts);
  return line;
}

/// "- **failed** city/pump `main`: [Pipeline #1234](…) – broken ×12"
std::string group_line(const Group& group) {
  const Post& post = *group.newest;
  const Event& event = post.event;
  std::string line = "-";
  if (event.status != Status::none) {
    const std::string words = state_words(post);
    line += severity(event) > 0 ? fmt::format(" **{}**", words) : " " + words;
  }
  const auto part = [&](const std::string& text) {
    if (!text.empty()) line.append(" ").append(text);
  };
  part(markdown_line(event.project, 100));
  if (event.status != Status::none) part(code_span(event.branch, 80));
  if (line.size() > 1) line += ":";
  std::string label;
  if ((event.status == Status::none && event.kind != "message") || event.kind == "bundle") {
    // Harmless already; a link's label takes raw text, so that the sentence stands beside the link.
    const std::string what = sentence(event, Place::markdown);
    const std::string url = markdown_url(event.url);
    label = url.empty() ? what : what + " [↗](" + url + ")";
  } else {
    const std::string subject = subject_of(event);
    label = link(subject.empty() ? kind_words(event.kind, 1) : std::string_view(subject), event.url, 150);
  }
  part(label);
  const std::string change = event.kind == "alert" ? "" : change_words(post.change, event.kind);
  if (!change.empty()) line += " – " + change;
  if (group.count > 1) line += fmt::format(" ×{}", group.count);
  return line;
}

std::string mentions_of(std::span<const Post> posts) {
  std::vector<std::string_view> names;
  for (const Post& post : posts) {
    std::string_view rest = post.mention;
    while (!rest.empty() && names.size() < most_mentions) {
      const std::size_t end = std::min(rest.find(' '), rest.size());
      const std::string_view name = rest.substr(0, end);
      rest.remove_prefix(std::min(end + 1, rest.size()));
      if (!name.empty() && std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
    }
  }
  std::string text;
  for (const std::string_view name : names) text.append(text.empty() ? "" : " ").append(name);
  return text;
}

}  // namespace

Json render_digest(std::span<const Post> posts) {
  if (posts.empty()) return nullptr;
  const std::vector<Group> groups = groups_of(posts);
  const Post* worst = groups.front().newest;
  Body body;
  body.add(first_line(posts));
  std::size_t shown = 0, shown_posts = 0;
  for (const Group& group : groups) {
    if (shown == most_lines || !body.add(group_line(group))) break;
    shown_posts += group.count;
    ++shown;
  }
  if (shown_posts < posts.size()) {
    std::size_t failed = 0;
    for (std::size_t i = shown; i < groups.size(); ++i)
      failed += severity(groups[i].newest->event) == 3 ? groups[i].count : 0;
    body.add(fmt::format("- and {} more{}", posts.size() - shown_posts,
                         failed > 0 ? fmt::format(", {} of them failed", failed) : ""));
  }
  Json attachment{
      {"fallback", fmt::format("{} events, first of all: {}", posts.size(), headline(worst->event, Place::plain))},
      {"color", colour(worst->event.status)},
      {"text", std::move(body).finish()}};
  Json payload{{"attachments", Json::array({std::move(attachment)})}};
  if (std::string mentions = mentions_of(posts); !mentions.empty()) payload["text"] = std::move(mentions);
  const std::string& username = posts.front().username;
  if (!username.empty() &&
      std::all_of(posts.begin(), posts.end(), [&](const Post& post) { return post.username == username; }))
    payload["username"] = username;
  return payload;
}

}  // namespace radiotower::notifier
