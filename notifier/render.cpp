#include "notifier/render.h"

#include <algorithm>

#include <fmt/format.h>

#include "notifier/phrases.h"

namespace radiotower::notifier {

namespace {

constexpr std::size_t most_items = 10;
constexpr std::size_t most_commits = 5;
constexpr std::size_t most_facts = 10;

/// "**failed** – still failing (3rd, for 2 h) · 3 min 12 s"
std::string status_line(const Post& post) {
  const Event& event = post.event;
  std::string line;
  if (event.status != Status::none) {
    line = fmt::format("**{}**", state(event));
    if (const std::string change = change_words(post.change); !change.empty()) line += " – " + change;
  }
  if (event.duration_s) {
    if (const auto duration = duration_words(*event.duration_s)) line += (line.empty() ? "" : " · ") + *duration;
  }
  return line;
}

/// "`main` · [1a2b3c4d](…) Fix the pump – Ada Quill"
std::string commit_line(const Event& event) {
  std::string line;
  const auto part = [&](std::string_view separator, const std::string& text) {
    if (!text.empty()) line.append(line.empty() ? "" : separator).append(text);
  };
  part("", code_span(event.branch, 120));
  if (!event.target_branch.empty()) part(" → ", code_span(event.target_branch, 120));
  part(" · ", link(std::string_view(event.commit).substr(0, 8), event.commit_url, 12));
  part(event.commit.empty() ? " · " : " ", markdown_line(event.commit_title, 200));
  part(" – ", markdown_line(event.author, 80));
  return line;
}

std::string facts_line(const Event& event) {
  std::string line;
  std::size_t count = 0;
  for (const auto& [name, value] : event.facts) {
    const std::string shown_value = markdown_line(value, 120);
    if (shown_value.empty()) continue;
    if (++count > most_facts) break;
    line.append(line.empty() ? "" : " · ").append(markdown_line(name, 40)).append(": ").append(shown_value);
  }
  return line;
}

void add_items(Body& body, const Event& event) {
  const std::size_t most = event.kind == "push" ? most_commits : most_items;
  std::size_t shown = 0, passed = 0;
  for (const Item& item : event.items) {
    if (event.status != Status::none && item.status == Status::success) {
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
  if (event.status != Status::none && event.actor != event.author)
    if (const std::string actor = markdown_line(event.actor, 80); !actor.empty()) body.add("triggered by " + actor);
  body.add(facts_line(event));
  add_items(body, event);
  if (!event.text.empty()) {
    const bool is_all = event.kind == "message";
    if (!event.items.empty()) body.separate();
    body.add(is_all ? markdown_quote(event.text, 4000, 40) : markdown_quote(event.text, 1000, 8));
  }
  return std::move(body).finish();
}

Json built_in(const Post& post) {
  const Event& event = post.event;
  const std::string url = safe_url(event.url);
  Json attachment{{"fallback", headline(event, Place::plain)},
                  {"color", colour(event.security && event.status == Status::none ? Status::failed : event.status)},
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
