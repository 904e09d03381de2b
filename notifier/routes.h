// Where an event goes. Pure functions of settings, event and change.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "notifier/event.h"
#include "notifier/history.h"
#include "notifier/settings.h"

namespace radiotower::notifier {

/// What is to be posted where: kept in the queue as JSON until Mattermost has it.
struct Post {
  std::string channel;  // as the route says; the lane in which order is kept
  std::string mention;  // text of ours, not escaped: "@build-cop @alice"
  std::string username;
  std::string template_text;
  std::string route;  // its name
  std::optional<std::pair<int, int>> quiet;
  Event event;
  Change change;
};
Json to_json(const Post& post);
Post post_from_json(const Json& json);

/// "group/*", "release/**", "!main" as in Route. Case matters.
bool glob(std::string_view pattern, std::string_view text);

/// Posts of the first matching route, or of all; empty with a sentence in `why` ("no route", "not a final state",
/// "route 3 drops it"). A webhook alone posts final states and changes, unless the route has every_state; with a bot
/// each state is posted, which edits one post.
std::vector<Post> route(const Settings& settings, const Event& event, const Change& change, std::string& why);

/// The built-in routes: builds (pipeline, build, deployment, release, tag, message ...) to #builds; failures of the
/// default branch, failed gates, firing alerts and security findings to #alerts. Both may apply to one event.
std::vector<Route> built_in_routes();

}  // namespace radiotower::notifier
