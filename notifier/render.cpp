#include "notifier/render.h"

#include <algorithm>

#include <fmt/format.h>

#include "notifier/phrases.h"

namespace radiotower::notifier {

namespace {

constexpr std::size_t most_items = 10;
constexpr std::size_t most_commits = 5;
constexpr std::size_t most_facts = 10;

/// "**failed** – still failing (3rd, for 2 h) · 3 min 12 s". Empty when there is no more to say than the title does.
std::string status_line(const Post& post) {
  const Event& event = post.event;
  const std::string change = change_words(post.change, event.kind);
  const std::string duration = event.duration_s ? duration_words(*event.duration_s).value_or("") : "";
  if (event.status == Status::none || (change.empty() && duration.empty())) return duration;
  std::string line = fmt::format("**{}**", state_words(post));
  if (!change.empty() && event.kind != "alert") line += " – " + change;
  if (!duration.empty()) line += " · " + duration;
  return line;
}

/// "`pump` → `main` · [1a2b3c4d](…) Fix the pump – Ada Quill"
std::string commit_line(const Event& event) {
  std::string line;
  const auto part = [&](std::string_view separator, const std::string& text) {
    if (!text.empty()) line.append(line.empty() ? "" : separator).append(text);
  };
  if (!event.target_branch.empty() || !shows_branch(event)) part("", code_span(event.branch, 120));
  if (!event.target_branch.empty()) part(" → ", code_span(event.target_branch, 120));
  part(" · ", link(std::string_view(event.commit).substr(0, 8), event.commit_url, 12));
  const std::string title = markdown_line(event.commit_title, 200), author = markdown_line(event.author, 80);
  part(event.commit.empty() ? " · " : " ", title);
  if (title.empty() && names_author(event)) return line;
  if (line.empty()) return author.empty() ? "" : "Author: " + author;
  part(" – ", author);
  return line;
}

std::string facts_line(const Event& event) {
  std::string line;
  std::size_t count = 0;
  for (const auto& [name, value] : event.facts) {
    if (says_fact(event, name, value)) continue;
    const std::string shown_value = fact_value(value, 120);
    if (shown_value.empty()) continue;
    if (++count > most_facts) break;
    line.append(line.empty() ? "" : " · ").append(markdown_line(name, 40)).append(": ").append(shown_value);
  }
  return line;
}

/// Its text without a first line that is the title.
std::string_view text_below_title(const Event& event) {
  std::string_view text = event.text;
  const std::size_t from = text.find_first_not_of(" \t\r\n");
  if (from == std::string_view::npos) return {};
  text.remove_prefix(from);
  if (event.title.empty() || characters(event.title) > longest_title || !text.starts_with(event.title)) return event.text;
  text.remove_prefix(event.title.size());
  const std::size_t end = std::min(text.find_first_not_of(" \t\r"), text.size());
  return end == text.size() ? std::string_view() : text[end] == '\n' ? text.substr(end + 1) : std::string_view(event.text);
}

void add_items(Body& body, const Event& event) {
  const std::size_t most = event.kind == "push" ? most_commits : most_items;
  // Of a resolved group of alerts the list says which.
  const bool hide_good = event.status != Status::none && !(event.kind == "alert" && event.status == Status::success);
  std::size_t shown = 0, passed = 0;
  for (const Item& item : event.items) {
    if (hide_good && item.status == Status::success) {
      ++passed;
    } else if (shown < most) {
      if (!body.add(item_line(item, event.status))) return;
      ++shown;
    }
  }
  // A source that counts more than it sent counts of one kind: of what failed, or of the commits.
  const std::size_t more = std::max(event.items_total, event.items.size()) - passed - shown;
  if (shown > 0 && more > 0) body.add(fmt::format("- and {} more", more));
}

std::string body_of(const Post& post) {
  const Event& event = post.event;
  Body body;
  if (!event.template_text.empty()) {
    body.add(defused_markdown(event.template_text, longest_post - 100));
    return std::move(body).finish();
  }
  body.add(status_line(post));
  // A push tells its branch in the title and its commits in the list.
  const bool pushed = event.status == Status::none && (event.kind == "push" || event.kind == "tag");
  if (!pushed) body.add(commit_line(event));
  // Who sets off that a vulnerability is found has little to do with it.
  if (event.status != Status::none && event.kind != "vulnerability" && event.actor != event.author)
    if (const std::string actor = markdown_line(event.actor, 80); !actor.empty()) body.add("Triggered by " + actor);
  body.add(facts_line(event));
  add_items(body, event);
  if (const std::string_view text = text_below_title(event); !text.empty()) {
    const bool is_all = event.kind == "message";
    if (!event.items.empty()) body.separate();
    body.add(is_all ? markdown_quote(text, 4000, 40) : markdown_quote(text, 1000, 8));
  }
  return std::move(body).finish();
}

Json built_in(const Post& post) {
  const Event& event = post.event;
  const std::string url = safe_url(event.url);
  Json attachment{{"fallback", headline(event, Place::plain)},
                  {"color", colour(event.status)},
                  {"title", headline(event, url.empty() ? Place::markdown : Place::plain)}};
  if (!url.empty()) attachment["title_link"] = url;
  if (std::string body = body_of(post); !body.empty()) attachment["text"] = std::move(body);
  return Json{{"attachments", Json::array({std::move(attachment)})}};
}

}  // namespace

Json render(const Post& post) {
  Json payload;
  if (!post.template_text.empty()) {
    const std::size_t above = post.mention.empty() ? 0 : characters(post.mention) + 1;
    if (const auto text = fill_template(post, above < longest_post ? longest_post - above : 0))
      payload = Json{{"text", *text}};
  }
  if (payload.is_null()) payload = post.event.slack.is_object() ? render_slack(post) : built_in(post);
  if (!post.mention.empty()) {
    std::string text = post.mention;
    if (const auto below = payload.find("text"); below != payload.end())
      text.append("\n").append(below->get_ref<const std::string&>());
    payload["text"] = std::move(text);
  }
  if (!post.username.empty()) payload["username"] = post.username;
  return payload;
}

Json render_details(const Post& post) {
  constexpr std::size_t most = 50;
  Body body;
  std::size_t shown = 0, failed = 0;
  for (const Item& item : post.event.items) {
    if (item.status != Status::failed && item.status != Status::unstable) continue;
    if (++failed <= most && body.add(item_line(item, Status::failed))) ++shown;
  }
  if (shown == 0) return nullptr;
  if (shown < failed) body.add(fmt::format("- and {} more", failed - shown));
  return Json{{"text", std::move(body).finish()}};
}

}  // namespace radiotower::notifier
