// What is shaped as for an incoming webhook of Slack or Mattermost: {text, attachments ...}. A form's payload= is decoded by the caller.
//
// Kind made: message, with what a post can show of the body in Event::slack. Nothing is dropped. Nothing is known of what a second, equal one means.
#include "notifier/sources/fields.h"

namespace radiotower::notifier {

namespace {

/// Copies what slack_post.cpp reads, within bounds, so that the queue keeps no megabytes that nobody would see.
class Copy {
 public:
  Json run(const Json& body) {
    Json kept = Json::object();
    texts(body, kept, {"text"});
    if (!kept.contains("text")) kept["text"] = text_of_blocks(list(body, "blocks"));
    for (const Json& attachment : list(body, "attachments")) {
      Json& copies = kept["attachments"];
      if (copies.size() >= most_counted) break;
      Json& copy = copies.emplace_back(Json::object());  // beyond those that are shown they are counted alone
      if (copies.size() > most_attachments || !attachment.is_object()) continue;
      texts(attachment, copy, {"pretext", "author_name", "author_link", "title", "title_link", "text", "footer", "fallback", "color"});
      for (const Json& field : list(attachment, "fields")) {
        if (!field.is_object() || copy["fields"].size() >= most_fields) continue;
        Json& copied = copy["fields"].emplace_back(Json::object());
        texts(field, copied, {"title", "value"});
        if (field.contains("short") && field["short"].is_boolean()) copied["short"] = field["short"];
      }
    }
    return kept;
  }

 private:
  static constexpr std::size_t most_attachments = 20, most_fields = 30, most_counted = 200, longest_text = 65'536, most_bytes = 131'072;

  void texts(const Json& from, Json& to, std::initializer_list<const char*> keys) {
    for (const char* key : keys) {
      const auto found = from.find(key);
      if (found == from.end() || !(found->is_string() || found->is_number() || found->is_boolean())) continue;
      std::string value = found->is_string() ? found->get<std::string>() : found->dump();
      cut(value, std::min(longest_text, most_bytes - bytes_));
      bytes_ += value.size();
      if (!value.empty()) to[key] = std::move(value);
    }
  }

  static std::string text_of_blocks(const Json& blocks) {
    std::string all;
    for (const Json& block : blocks) {
      if (!block.is_object() || all.size() > longest_text) continue;
      if (const std::string part = text(block, "text", "text"); !part.empty()) all.append(all.empty() ? "" : "\n").append(part);
    }
    cut(all, longest_text);
    return all;
  }

  std::size_t bytes_ = 0;
};

}  // namespace

Parsed parse_slack(const Arrival& arrival) {
  const Json& body = arrival.body;
  const Json& attachments = list(body, "attachments");
  if (text(body, "text").empty() && attachments.empty() && list(body, "blocks").empty()) {
    return Malformed{"this is not Slack-shaped: neither text nor attachments"};
  }
  Event event;
  event.kind = "message";
  event.slack = Copy().run(body);
  event.actor = text(body, "username");
  for (const Json& attachment : attachments) {
    for (const char* key : {"title", "fallback", "pretext", "text"}) {
      if (event.title.empty()) event.title = first_line(text(attachment, key));
    }
    if (event.url.empty()) event.url = text(attachment, "title_link");
    // Colours with a name say how it went; a hex colour may be the logo's.
    if (event.status == Status::none) event.status = lenient_status(text(attachment, "color"));
  }
  if (event.title.empty()) event.title = first_line(text(event.slack, "text"));
  return event;
}

}  // namespace radiotower::notifier
