// Posts that came in Slack's shape. What is not named here does not pass: images and icons (each costs Mattermost up to
// 5 s and tells a stranger who reads), actions, menus, props, channel, username.
#include <array>
#include <cstdint>

#include "notifier/phrases.h"

namespace radiotower::notifier {

namespace {

constexpr std::size_t most_attachments = 20;
constexpr std::size_t most_fields = 30;
constexpr std::size_t most_bytes = 70'000;  // in all; JSON may double them (quotes, backslashes)

std::string text_of(const Json& object, const char* key) {
  const auto it = object.find(key);
  if (it == object.end()) return {};
  if (it->is_string()) return it->get<std::string>();
  if (it->is_number() || it->is_boolean()) return it->dump();
  return {};
}

/// good, warning, danger, #RRGGBB: others Mattermost may refuse some day.
bool is_colour(std::string_view text) {
  if (text == "good" || text == "warning" || text == "danger") return true;
  return text.size() == 7 && text[0] == '#' &&
         text.find_first_not_of("0123456789abcdefABCDEF", 1) == std::string_view::npos;
}

class SlackPost {
 public:
  Json run(const Json& slack) {
    Json payload = Json::object();
    const std::string text = text_of(slack, "text");
    put(payload, "text", defused_markdown(text, longest_post - 2000));  // a mention goes above it
    if (const auto list = slack.find("attachments"); list != slack.end() && list->is_array()) {
      Json attachments = Json::array();
      std::size_t left_out = 0;
      for (const Json& source : *list) {
        if (!source.is_object()) continue;
        if (attachments.size() == most_attachments) {
          ++left_out;
        } else if (Json one = attachment(source); !one.empty()) {
          attachments.push_back(std::move(one));
        }
      }
      if (left_out > 0) attachments.back()["footer"] = "and " + std::to_string(left_out) + " more";
      if (!attachments.empty()) payload["attachments"] = std::move(attachments);
    }
    if (payload.empty()) payload["text"] = "(a message without text)";
    // Of a post without attachments Mattermost fetches the first bare link for a preview, and waits 5 s for one it cannot reach.
    if (const auto found = payload.find("text");
        found != payload.end() && !payload.contains("attachments") && found->get_ref<const std::string&>().find("://") != std::string::npos) {
      Json one = {{"text", std::move(*found)}, {"fallback", plain_line(text, 400)}};
      payload = {{"attachments", Json::array({std::move(one)})}};
    }
    return payload;
  }

 private:
  void put(Json& object, const char* key, std::string value) {
    if (value.empty() || bytes_ + value.size() > most_bytes) return;
    bytes_ += value.size();
    object[key] = std::move(value);
  }

  Json attachment(const Json& source) {
    Json one = Json::object();
    put(one, "pretext", defused_markdown(text_of(source, "pretext"), 2000));
    put(one, "author_name", plain_line(text_of(source, "author_name"), 200));
    if (one.contains("author_name")) put(one, "author_link", safe_url(text_of(source, "author_link")));
    const std::string url = safe_url(text_of(source, "title_link"));
    // Without a link Mattermost shows the title as Markdown.
    put(one, "title",
        url.empty() ? defused_markdown(text_of(source, "title"), 300) : plain_line(text_of(source, "title"), 300));
    if (one.contains("title")) put(one, "title_link", url);
    put(one, "text", defused_markdown(text_of(source, "text"), 8000));
    if (const auto list = source.find("fields"); list != source.end() && list->is_array()) {
      Json fields = Json::array();
      for (const Json& field : *list) {
        if (!field.is_object() || fields.size() == most_fields) continue;
        Json shown = Json::object();
        put(shown, "title", plain_line(text_of(field, "title"), 200));
        put(shown, "value", defused_markdown(text_of(field, "value"), 2000));
        if (shown.empty()) continue;
        const auto is_short = field.find("short");
        shown["short"] = is_short != field.end() && is_short->is_boolean() && is_short->get<bool>();
        fields.push_back(std::move(shown));
      }
      if (!fields.empty()) one["fields"] = std::move(fields);
    }
    put(one, "footer", plain_line(text_of(source, "footer"), 200));
    const std::string fallback = plain_line(text_of(source, "fallback"), 400);
    if (one.empty()) put(one, "text", markdown_line(text_of(source, "fallback"), 400));
    if (one.empty()) return one;
    put(one, "fallback", fallback);
    if (const std::string colour = text_of(source, "color"); is_colour(colour)) one["color"] = colour;
    return one;
  }

  std::size_t bytes_ = 0;
};

}  // namespace

Json render_slack(const Post& post) { return SlackPost().run(post.event.slack); }

}  // namespace radiotower::notifier
