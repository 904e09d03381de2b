// What is shaped as for an incoming webhook of Slack or Mattermost: {text, attachments ...}. A form's payload= is decoded by the caller.
//
// Kind made: message, with the whole body in Event::slack. Nothing is dropped. Nothing is known of what a second, equal one means.
#include "notifier/sources/fields.h"

namespace radiotower::notifier {

Parsed parse_slack(const Arrival& arrival) {
  const Json& body = arrival.body;
  const Json& attachments = list(body, "attachments");
  if (text(body, "text").empty() && attachments.empty() && list(body, "blocks").empty()) {
    return Malformed{"this is not Slack-shaped: neither text nor attachments"};
  }
  Event event;
  event.kind = "message";
  event.slack = body;
  event.text = text(body, "text");
  event.actor = text(body, "username");
  for (const Json& attachment : attachments) {
    for (const char* key : {"title", "fallback", "pretext", "text"}) {
      if (event.title.empty()) event.title = first_line(text(attachment, key));
    }
    if (event.url.empty()) event.url = text(attachment, "title_link");
    // Colours with a name say how it went; a hex colour may be the logo's.
    if (event.status == Status::none) event.status = lenient_status(text(attachment, "color"));
  }
  if (event.title.empty()) event.title = first_line(event.text);
  return event;
}

}  // namespace radiotower::notifier
