#include "notifier/routes.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

using namespace radiotower::notifier;

namespace {

Event pipeline(Status status, std::string branch = "main") {
  Event event;
  event.source = "gitlab";
  event.kind = "pipeline";
  event.project = "city/pump";
  event.branch = std::move(branch);
  event.status = status;
  event.on_default_branch = event.branch == "main";
  event.history_key = "gitlab/city/pump/" + event.branch;
  event.subject = "pipeline/1";
  return event;
}

Settings with(std::vector<Route> routes, bool every_match = false) {
  Settings settings;
  settings.mattermost.hook = "https://chat/hooks/abc";
  settings.routes = std::move(routes);
  settings.every_match = every_match;
  return settings;
}

Route to(std::string channel) {
  Route route;
  route.name = "to " + channel;
  route.channel = std::move(channel);
  return route;
}

std::vector<std::string> channels(const Settings& settings, const Event& event, const Change& change = {}, std::string* why_not = nullptr) {
  std::string why;
  std::vector<std::string> out;
  for (const Post& post : route(settings, event, change, why)) out.push_back(post.channel);
  CHECK_EQ(out.empty(), !why.empty());
  if (why_not) *why_not = why;
  return out;
}

using Channels = std::vector<std::string>;

}  // namespace

TEST_CASE("globs: a star stops at a slash, two stars do not, a question mark is one character") {
  struct { const char* pattern; const char* text; bool matches; } rows[] = {
      {"main", "main", true},          {"main", "Main", false},      {"main", "main2", false},        {"", "", true},
      {"*", "", true},                 {"*", "feature", true},       {"*", "feature/x", false},       {"**", "feature/x", true},
      {"group/*", "group/app", true},  {"group/*", "group/a/b", false}, {"group/**", "group/a/b", true}, {"group/**", "group", false},
      {"**/app", "group/sub/app", true}, {"*/app", "group/sub/app", false}, {"release-?", "release-1", true}, {"release-?", "release-12", false},
      {"?", "/", false},               {"a*b*c", "a-b-b-c", true},   {"a*b*c", "a-b-b-d", false},     {"**a**b", "xxaxxab", true},
      {"*a/**", "ba/c", true},         {"[a]", "a", false},
  };
  for (const auto& row : rows) {
    CAPTURE(row.pattern);
    CAPTURE(row.text);
    CHECK_EQ(glob(row.pattern, row.text), row.matches);
  }
  CHECK(glob("**-*x", std::string(500, '-') + "x"));
  CHECK_FALSE(glob("**-*x", std::string(500, '-')));
  // Bounded work: no blow-up with many stars.
  std::string pattern, text(3000, 'a');
  for (int i = 0; i < 200; ++i) pattern += "*a";
  CHECK_FALSE(glob(pattern + "b", text));
}

TEST_CASE("the first route that matches decides; with route_match = all each does, and a channel gets an event once") {
  Route failures = to("alerts");
  failures.status = {"failed"};
  CHECK_EQ(channels(with({failures, to("builds")}), pipeline(Status::failed)), Channels{"alerts"});
  CHECK_EQ(channels(with({failures, to("builds")}), pipeline(Status::success)), Channels{"builds"});
  CHECK_EQ(channels(with({failures, to("builds"), to("alerts")}, true), pipeline(Status::failed)), Channels{"alerts", "builds"});
}

TEST_CASE("a route matches source, project, branch, event, status and default branch, and each may exclude") {
  Route route_of = to("x");
  route_of.project = {"city/*", "!city/secret"};
  Event event = pipeline(Status::failed);
  CHECK_EQ(channels(with({route_of}), event).size(), 1);
  event.project = "city/secret";
  CHECK(channels(with({route_of}), event).empty());
  event.project = "land/pump";
  CHECK(channels(with({route_of}), event).empty());

  Route not_main = to("x");
  not_main.branch = {"!main"};
  CHECK(channels(with({not_main}), pipeline(Status::failed)).empty());
  CHECK_EQ(channels(with({not_main}), pipeline(Status::failed, "feature/x")).size(), 1);

  Route of_default = to("x");
  of_default.default_branch = true;
  CHECK_EQ(channels(with({of_default}), pipeline(Status::failed)).size(), 1);
  CHECK(channels(with({of_default}), pipeline(Status::failed, "topic")).empty());

  Route of_jenkins = to("x");
  of_jenkins.source = {"jenkins"};
  CHECK(channels(with({of_jenkins}), pipeline(Status::failed)).empty());
}

TEST_CASE("states that are not final are posted only where asked for, or where a bot edits its post") {
  std::string why;
  CHECK(channels(with({to("builds")}), pipeline(Status::running), {}, &why).empty());
  CHECK_NE(why.find("final states"), std::string::npos);
  CHECK_EQ(channels(with({to("builds")}), pipeline(Status::waiting)).size(), 1);  // for a person, who has to hear of it
  Route every = to("builds");
  every.every_state = true;
  CHECK_EQ(channels(with({every}), pipeline(Status::running)).size(), 1);
  Route running = to("builds");
  running.status = {"running"};
  CHECK_EQ(channels(with({running}), pipeline(Status::running)).size(), 1);
  Settings bot = with({to("builds")});
  bot.mattermost.token = "token";
  CHECK_EQ(channels(bot, pipeline(Status::running)).size(), 1);
  Event without_subject = pipeline(Status::running);
  without_subject.subject.clear();
  CHECK(channels(bot, without_subject).empty());
}

TEST_CASE("only_on_change: broken, fixed and a first failure are news; the rest is not") {
  Route changes = to("builds");
  changes.only_on_change = true;
  const Settings settings = with({changes});
  CHECK_EQ(channels(settings, pipeline(Status::failed), {Turn::broken, 1, 0}).size(), 1);
  CHECK_EQ(channels(settings, pipeline(Status::success), {Turn::fixed, 1, 60}).size(), 1);
  CHECK_EQ(channels(settings, pipeline(Status::failed), {Turn::first, 1, 0}).size(), 1);
  CHECK(channels(settings, pipeline(Status::failed), {Turn::still_failing, 2, 60}).empty());
  CHECK(channels(settings, pipeline(Status::success), {Turn::first, 1, 0}).empty());
  CHECK(channels(settings, pipeline(Status::success), {Turn::still_good, 2, 0}).empty());
}

TEST_CASE("a status of a route may be a change: fixed") {
  Route fixed = to("alerts");
  fixed.status = {"failed", "fixed"};
  CHECK_EQ(channels(with({fixed}), pipeline(Status::success), {Turn::fixed, 1, 60}).size(), 1);
  CHECK(channels(with({fixed}), pipeline(Status::success), {Turn::still_good, 2, 60}).empty());
}

TEST_CASE("a route without a channel drops what it matches") {
  Route drop = to("");
  drop.project = {"city/noise"};
  Event event = pipeline(Status::failed);
  event.project = "city/noise";
  CHECK(channels(with({drop, to("builds")}), event).empty());
  CHECK(channels(with({drop, to("builds")}, true), event).empty());
}

TEST_CASE("who is to look: the route's mention, and the author by [people], once") {
  Route route_of = to("alerts");
  route_of.mention = "@build-cop";
  route_of.mention_author = true;
  Settings settings = with({route_of});
  settings.people = {{"ada@city.example", "@ada"}, {"quill", "@quill"}};
  Event event = pipeline(Status::failed);
  event.author_email = "Ada@City.Example";
  event.actor_login = "quill";
  std::string why;
  CHECK_EQ(route(settings, event, {}, why).at(0).mention, "@build-cop @ada");
  event.author_email = "[REDACTED]";
  CHECK_EQ(route(settings, event, {}, why).at(0).mention, "@build-cop @quill");
  settings.people["quill"] = "@build-cop";
  CHECK_EQ(route(settings, event, {}, why).at(0).mention, "@build-cop");
}

TEST_CASE("without any route: builds to #builds; failures of the default branch, gates, alerts and findings to #alerts") {
  const Settings settings = with(built_in_routes(), true);
  CHECK_EQ(channels(settings, pipeline(Status::success)), Channels{"builds"});
  CHECK_EQ(channels(settings, pipeline(Status::failed)), Channels{"builds", "alerts"});
  CHECK_EQ(channels(settings, pipeline(Status::success), {Turn::fixed, 1, 60}), Channels{"builds", "alerts"});
  CHECK_EQ(channels(settings, pipeline(Status::failed, "topic")), Channels{"builds"});
  Event gate = pipeline(Status::failed);
  gate.kind = "gate";
  CHECK_EQ(channels(settings, gate), Channels{"alerts"});
  gate.status = Status::success;
  CHECK(channels(settings, gate).empty());
  Event finding = pipeline(Status::none);
  finding.kind = "vulnerability";
  finding.security = true;
  CHECK_EQ(channels(settings, finding), Channels{"alerts"});
  Event push = pipeline(Status::none);
  push.kind = "push";
  CHECK(channels(settings, push).empty());
  Event jenkins = pipeline(Status::failed, "master");
  jenkins.kind = "build";
  jenkins.on_default_branch.reset();
  CHECK_EQ(channels(settings, jenkins), Channels{"builds", "alerts"});
}

TEST_CASE("a post survives the queue: to JSON and back") {
  Route route_of = to("alerts");
  route_of.mention = "@cop";
  route_of.username = "tower";
  route_of.template_text = "{{title}}";
  route_of.quiet = {1320, 420};
  std::string why;
  const Post post = route(with({route_of}), pipeline(Status::failed), {Turn::still_failing, 3, 7200}, why).at(0);
  const Post back = post_from_json(Json::parse(to_json(post).dump()));
  CHECK_EQ(to_json(back), to_json(post));
  CHECK_EQ(back.change.streak, 3);
  CHECK_EQ(back.quiet->second, 420);
  CHECK_EQ(back.event.project, "city/pump");
}
