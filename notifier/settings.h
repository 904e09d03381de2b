// The settings of the notifier as plain values, each checked: what config.cpp makes of the TOML file and everything
// else reads. Immutable once made: a reload makes new ones and swaps the pointer (shared_ptr<const Settings>) between
// two events.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "notifier/event.h"
#include "notifier/sources/source.h"

namespace radiotower::notifier {

/// [sources.NAME]: served at POST /v1/NAME.
struct Source {
  std::string name;
  Format format = Format::generic;
  std::vector<std::string>
      secrets;        // several during a rotation; "whsec_..." is a GitLab signing token; empty only with `open`
  bool open = false;  // allow_anyone = true
  GenericTemplate templates;
};

/// [[route]]. Empty lists match all. Globs: * is any text without "/", ** any text, ? one character; "!x" excludes.
struct Route {
  std::string name;  // "route 2 (notifier.toml:31)" for preview and metrics
  std::vector<std::string> source, project, branch, event, status;  // status: words of Status and of Turn
  bool only_on_change = false;
  std::optional<bool> default_branch;  // true: the default branch alone
  std::optional<bool> security;        // true: security findings alone, whatever their kind
  std::string channel;                 // without "#"; "@user" is a direct message; "" drops what it matches
  std::string mention;                 // "@build-cop": as it is to stand in the post
  bool mention_author = false;         // by [people]
  std::string template_text;           // Mustache (see render.h); empty: the built-in post
  std::string username;
  bool every_state = false;  // also states that are not final (a webhook alone posts final ones)
  std::optional<std::pair<int, int>>
      quiet;  // minutes of the day, local time: held back until its end; 22:00-07:00 is {1320, 420}
};

/// hook = "print": posts are printed instead of sent, for trying things out without a Mattermost.
inline constexpr const char* prints = "print";

/// One way out. All keys of [mattermost].
struct Mattermost {
  std::string hook;                          // incoming webhook; empty with a bot
  std::map<std::string, std::string> hooks;  // [mattermost.hooks]: channel -> hook of its own
  std::string url, token, team;  // bot: https://host[:port][/subpath], its token, the team's URL name; empty: no bot
  std::string ca_file;           // PEM; empty: the system's store
  std::string proxy;             // empty: none, whatever the environment says
  std::uint32_t timeout_s = 30;  // of a whole request, at least 15
  bool bot() const { return !token.empty(); }
};

/// [flood]
struct Flood {
  std::uint32_t posts_per_second = 10, burst = 100;                 // all channels together: Mattermost's own defaults
  std::uint32_t channel_posts_per_minute = 20, channel_burst = 10;  // what a person can read
  std::uint32_t digest_from = 3;  // so many waiting posts of a channel become one digest
};

struct Settings {
  std::vector<std::string> listen = {"127.0.0.1:8066"};
  std::string metrics_listen;            // empty: /metrics on `listen`, to loopback clients alone
  std::string certificate, private_key;  // PEM files; both or neither
  std::string state = "/var/lib/radiotower-notifier";
  std::string queue = "sqlite";               // or postgresql://...
  std::uint64_t queue_limit = 100'000;        // posts waiting and dead together; beyond it senders get 503
  std::uint32_t give_up_after_s = 72 * 3600;  // a post that could not be delivered for so long becomes a dead letter
  Mattermost mattermost;
  Flood flood;
  std::vector<Source> sources;
  std::vector<Route> routes;                  // never empty: the built-in ones when the file has none
  bool every_match = false;                   // route_match = "all": each route that matches, not the first alone
  std::map<std::string, std::string> people;  // CI login or e-mail (lower case) -> "@user"
  std::string log_level = "info", log_format = "text";
};

}  // namespace radiotower::notifier
