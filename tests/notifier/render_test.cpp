// What people get to read, and that it stays within Mattermost's limits whatever an event holds.
#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <string>
#include <vector>

#include "notifier/render.h"
#include "notifier/text.h"

using namespace radiotower::notifier;

namespace {

Post failed_pipeline() {
  Post post;
  post.channel = "builds";
  Event& e = post.event;
  e.source = "gitlab";
  e.kind = "pipeline";
  e.status = Status::failed;
  e.project = "city/pump";
  e.branch = "main";
  e.title = "Pipeline #1234";
  e.url = "https://gitlab.example/city/pump/-/pipelines/1234";
  e.commit = "1a2b3c4d5e6f7a8b9c0d";
  e.commit_url = "https://gitlab.example/city/pump/-/commit/1a2b3c4d5e6f7a8b9c0d";
  e.commit_title = "Open the *valve* slowly";
  e.author = "Ada Quill";
  e.actor = "Ben Reed";
  e.duration_s = 192.4;
  e.items = {{"unit", "https://gitlab.example/city/pump/-/jobs/1", "script failure", Status::failed},
             {"lint", "", "", Status::unstable},
             {"compile", "", "", Status::success}};
  e.items_total = 3;
  post.change = {Turn::still_failing, 3, 7200};
  return post;
}

Post neutral(const char* kind, const char* action, const char* title) {
  Post post;
  Event& e = post.event;
  e.source = "gitlab";
  e.kind = kind;
  e.action = action;
  e.title = title;
  e.project = "city/pump";
  e.actor = "Ada Quill";
  e.url = "https://gitlab.example/x";
  return post;
}

const Json& attachment(const Json& payload) { return payload.at("attachments").at(0); }
std::string title(const Post& post) { return attachment(render(post)).at("title").get<std::string>(); }
std::string text(const Post& post) { return attachment(render(post)).value("text", ""); }

std::string without_code(std::string text) {
  for (std::size_t from = 0; (from = text.find('`', from)) != std::string::npos;) {
    if (from > 0 && text[from - 1] == '\\') {
      ++from;
      continue;
    }
    const std::size_t end = text.find('`', from + 1);
    text.erase(from, end == std::string::npos ? end : end + 1 - from);
  }
  return text;
}

/// Every text, wherever it is: within Mattermost's limit, and none that could notify.
void check_texts(const Json& json) {
  if (json.is_string()) {
    CHECK(characters(json.get_ref<const std::string&>()) <= longest_post);
    const auto& t = json.get_ref<const std::string&>();
    CHECK_MESSAGE(without_code(t).find("@all") == std::string::npos, t);
    CHECK(t.find("<!") == std::string::npos);
  }
  if (json.is_structured())
    for (const auto& [key, part] : json.items())
      if (key != "title_link") check_texts(part);  // a URL is no text
}
void check_limits(const Json& payload) {
  check_texts(payload);
  CHECK(payload.dump().size() < 200'000);
  CHECK((payload.contains("text") || payload.contains("attachments")));
}

Post huge(std::size_t field, std::size_t items, const std::string& piece) {
  std::string big;
  while (big.size() < field) big += piece;
  Post post = failed_pipeline();
  Event& e = post.event;
  for (std::string* s : {&e.project, &e.branch, &e.target_branch, &e.title, &e.text, &e.commit, &e.commit_title,
                         &e.author, &e.actor, &e.action})
    *s = big;
  e.url = "https://x.example/" + big;
  e.items.clear();
  for (std::size_t i = 0; i < items; ++i) {
    e.items.push_back(
        {big.substr(0, 2000), "https://x.example/" + std::string(1900, '('), big.substr(0, 2000), Status::failed});
    e.facts.emplace_back(big.substr(0, 2000), big.substr(0, 2000));
    e.facts.emplace_back("link", big.substr(0, 2000) + "\nhttps://x.example/" + big.substr(0, 500));
  }
  e.items_total = 1u << 30;
  return post;
}

}  // namespace

TEST_CASE("a failed pipeline") {
  const Json payload = render(failed_pipeline());
  CHECK_FALSE(payload.contains("text"));
  CHECK_FALSE(payload.contains("channel"));
  const Json& a = attachment(payload);
  CHECK(a.at("title") == "city/pump · main · Pipeline #1234 failed");
  CHECK(a.at("fallback") == a.at("title"));
  CHECK(a.at("title_link") == "https://gitlab.example/city/pump/-/pipelines/1234");
  CHECK(a.at("color") == "#d0021b");
  CHECK(a.at("text") ==
        "**failed** – still failing (3rd, for 2 h) · 3 min 12 s\n"
        "[1a2b3c4d](https://gitlab.example/city/pump/-/commit/1a2b3c4d5e6f7a8b9c0d) Open the \\*valve\\* "
        "slowly – Ada Quill\n"
        "Triggered by Ben Reed\n"
        "- [unit](https://gitlab.example/city/pump/-/jobs/1) – script failure\n"
        "- unstable: lint");
}

TEST_CASE("status in words, with what changed") {
  Post post = failed_pipeline();
  post.event.duration_s.reset();
  const auto first_line = [&](Status status, Change change) {
    post.event.status = status;
    post.change = change;
    const std::string t = text(post);
    return t.starts_with("**") ? t.substr(0, t.find('\n')) : "";
  };
  CHECK(first_line(Status::failed, {}).empty());  // the title says it
  CHECK(first_line(Status::failed, {Turn::broken, 1, 0}) == "**failed** – broken");
  CHECK(first_line(Status::failed, {Turn::still_failing, 2, 0}) == "**failed** – still failing (2nd)");
  CHECK(first_line(Status::failed, {Turn::still_failing, 11, 90}) ==
        "**failed** – still failing (11th, for 1 min 30 s)");
  CHECK(first_line(Status::failed, {Turn::still_failing, 21, 3 * 86400}) ==
        "**failed** – still failing (21st, for 3 d)");
  CHECK(first_line(Status::success, {Turn::fixed, 1, 7500}) == "**passed** – fixed after 2 h 5 min");
  CHECK(first_line(Status::success, {Turn::still_good, 9, 0}).empty());
  CHECK(first_line(Status::unstable, {}).empty());
  CHECK(first_line(Status::canceled, {}).empty());
  for (const double nonsense :
       {-1.0, 1e300, std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    post.event.duration_s = nonsense;
    CHECK(first_line(Status::running, {}).empty());
  }
  post.event.duration_s = 5;
  CHECK(first_line(Status::unstable, {}) == "**unstable** · 5 s");
  post.event.duration_s.reset();
  post.event.kind = "alert";
  CHECK(first_line(Status::failed, {Turn::broken, 1, 0}).empty());
  CHECK(first_line(Status::failed, {Turn::still_failing, 2, 7200}) == "**still firing (2nd, for 2 h)**");
  CHECK(first_line(Status::success, {Turn::fixed, 2, 7200}) == "**resolved after 2 h**");
  CHECK(first_line(Status::success, {Turn::fixed, 2, 0}).empty());
}

TEST_CASE("each kind has its own words for how it stands") {
  Post post = neutral("", "", "X");
  post.event.project.clear();
  const auto said = [&](const char* kind, Status status, const char* action = "") {
    post.event.kind = kind;
    post.event.status = status;
    post.event.action = action;
    return title(post);
  };
  CHECK(said("pipeline", Status::waiting) == "X is waiting for somebody to start it");
  CHECK(said("pipeline", Status::waiting, "approval") == "X is waiting for approval");
  CHECK(said("deployment", Status::waiting) == "X is waiting for approval");
  CHECK(said("job", Status::unstable) == "X failed (allowed to fail)");
  CHECK(said("message", Status::success) == "X succeeded");
  CHECK(said("vulnerability", Status::failed) == "X is open");
  CHECK(said("vulnerability", Status::success) == "X is closed");
  CHECK(said("gate", Status::unstable) == "X has warnings");
  CHECK(said("bundle", Status::failed, "delete failed") == "Deletion of X failed");
  CHECK(said("bundle", Status::failed, "failed") == "Creation of X failed");
  CHECK(said("bundle", Status::success, "other completed") == "X succeeded");
  post.event.facts = {{"Environment", "PROD"}};
  CHECK(said("bundle", Status::success, "promotion completed") == "X was promoted to PROD");
  CHECK(text(post) == "Triggered by Ada Quill");
  CHECK(said("bundle", Status::success, "completed") == "X was created");
  CHECK(text(post) == "Triggered by Ada Quill\nEnvironment: PROD");
  post.event.facts = {{"Pull request", "12"}};
  CHECK(said("gate", Status::failed) == "X failed for pull request 12");
  post.event.facts.clear();
  post.event.items_total = 2;
  post.event.title = "2 alerts";
  CHECK(said("alert", Status::failed) == "2 alerts are firing");
}

TEST_CASE("a fact that is an address is a link, and nothing else can be one") {
  Post post = neutral("deployment", "", "Deployment to production");
  const auto facts = [&](const char* value) {
    post.event.facts = {{"Environment", "production"}, {"Tier", "production"}, {"F", value}};
    return text(post);
  };
  CHECK(facts("https://pump.example/") == "F: [pump.example](https://pump.example/)");
  CHECK(facts("https://pump.example/a") == "F: [pump.example\u200B/a](https://pump.example/a)");
  CHECK(facts("!7\nhttps://git.example/7") == "F: [!7](https://git.example/7)");
  CHECK(facts("!7\njavascript:x") == "F: !7");
  CHECK(facts("see https://pump.example") == "F: see https:\u200B//pump.example");
  CHECK(facts("javascript:alert(1)").find("](") == std::string::npos);
  CHECK(facts("https://me@pump.example").find("](") == std::string::npos);
  CHECK(facts("](https://x.example) @all\nhttps://x.example/)<!all>@all") ==
        "F: [&#93;(https:\u200B//x.example) @\u200Ball](https://x.example/%29%3C!all%3E%40all)");
  CHECK(facts("staging") == "F: staging");
}

TEST_CASE("what the title says is not said again") {
  Post message = neutral("message", "", "Backup");
  message.event.text = "Backup";
  CHECK(text(message).empty());
  message.event.text = "Backup\nof 3 TB";
  CHECK(text(message) == "> of 3 TB");
  message.event.text = "Backups\nof 3 TB";
  CHECK(text(message) == "> Backups\n> of 3 TB");
  Post issue = neutral("issue", "open", "#9 Leak");
  issue.event.author = "Ada Quill";
  CHECK(text(issue).empty());
  issue.event.author = "Ben";
  CHECK(text(issue) == "Author: Ben");
  Post release = neutral("release", "create", "Release v1.2");
  release.event.branch = "v1.2";
  CHECK(text(release).empty());
  release.event.title = "Release Spring";
  CHECK(text(release) == "`v1.2`");
  Post alert = neutral("alert", "", "DiskFull");
  alert.event.actor.clear();
  alert.event.status = Status::success;
  alert.event.items = {{"DiskFull on a", "", "", Status::success}, {"DiskFull on b", "", "", Status::success}};
  CHECK(text(alert) == "- DiskFull on a\n- DiskFull on b");
}

TEST_CASE("colours follow the status") {
  Post post = failed_pipeline();
  const auto colour_of = [&](Status status) {
    post.event.status = status;
    return attachment(render(post)).at("color").get<std::string>();
  };
  CHECK(colour_of(Status::success) == "#2eb886");
  CHECK(colour_of(Status::unstable) == colour_of(Status::waiting));
  CHECK(colour_of(Status::running) == colour_of(Status::pending));
  CHECK(colour_of(Status::none) == colour_of(Status::skipped));
  CHECK(colour_of(Status::failed) != colour_of(Status::none));
  post.event.security = true;
  CHECK(colour_of(Status::failed) == "#d0021b");
  CHECK(colour_of(Status::none) == "#8d939a");  // dismissed
}

TEST_CASE("what says nothing about success is a sentence") {
  Post push = neutral("push", "", "");
  push.event.branch = "main";
  push.event.items = {{"Fix the pump", "https://gitlab.example/c/1", "Ada Quill", Status::none},
                      {"@all look", "", "Ben", Status::none}};
  push.event.items_total = 3;
  CHECK(title(push) == "city/pump · Ada Quill pushed 3 commits to main");
  CHECK(text(push) ==
        "- [Fix the pump](https://gitlab.example/c/1) – Ada Quill\n- @\u200Ball look – Ben\n- and 1 more");
  push.event.items.resize(1);
  push.event.items_total = 1;
  CHECK(title(push) == "city/pump · Ada Quill pushed 1 commit to main");
  push.event.action = "deleted";
  CHECK(title(push) == "city/pump · Ada Quill deleted branch main");
  push.event.action = "created";
  CHECK(title(push) == "city/pump · Ada Quill created branch main with 1 commit");
  push.event.action = "force-pushed";
  CHECK(title(push) == "city/pump · Ada Quill force-pushed 1 commit to main");
  push.event.items.clear();
  push.event.items_total = 0;
  push.event.commit = "1a2b3c4d5e6f";
  CHECK(title(push) == "city/pump · Ada Quill moved main to 1a2b3c4d");

  Post tag = neutral("tag", "", "");
  tag.event.branch = "v1.2";
  tag.event.is_tag = true;
  CHECK(title(tag) == "city/pump · Ada Quill pushed tag v1.2");

  Post request = neutral("merge_request", "open", "!7 Add the pump");
  request.event.branch = "pump";
  request.event.target_branch = "main";
  request.event.text = "First line\n\n> @all";
  CHECK(title(request) == "city/pump · Ada Quill opened !7 Add the pump");
  CHECK(text(request) == "`pump` → `main`\n> First line\n> \\> @\u200Ball");

  CHECK(title(neutral("merge_request", "merge", "!7 Add the pump")) == "city/pump · Ada Quill merged !7 Add the pump");
  CHECK(title(neutral("merge_request", "unapproved", "!7 A")) ==
        "city/pump · Ada Quill withdrew the approval of !7 A");
  CHECK(title(neutral("merge_request", "ready", "#7 A")) == "city/pump · Ada Quill marked pull request #7 A as ready");
  CHECK(title(neutral("merge_request", "changes requested", "!7 A")) ==
        "city/pump · Ada Quill requested changes on !7 A");
  CHECK(title(neutral("note", "", "!7 Add the pump")) == "city/pump · Ada Quill commented on !7 Add the pump");
  CHECK(title(neutral("issue", "close", "#9 Leak")) == "city/pump · Ada Quill closed issue #9 Leak");
  CHECK(title(neutral("release", "create", "v1.2")) == "city/pump · Ada Quill published release v1.2");
  CHECK(title(neutral("wiki", "update", "Home")) == "city/pump · Ada Quill updated wiki page Home");
  CHECK(title(neutral("artifact", "deployed", "pump.jar")) == "city/pump · Ada Quill deployed artifact pump.jar");
  CHECK(title(neutral("member", "add", "Ben Ink")) == "city/pump · Ben Ink was added");
  CHECK(title(neutral("feature_flag", "on", "Feature flag slow")) ==
        "city/pump · Ada Quill switched on feature flag slow");
  CHECK(title(neutral("note", "", "#17 Leak")) == "city/pump · Ada Quill commented on #17 Leak");
  Post nobody = neutral("bundle", "created", "Release bundle 1.0");
  nobody.event.actor.clear();
  CHECK(title(nobody) == "city/pump · Release bundle 1.0 was created");
  nobody.event.title = "pump";
  CHECK(title(nobody) == "city/pump · Bundle pump was created");
  CHECK(title(neutral("gizmo", "", "")) == "city/pump · Ada Quill: Gizmo");

  Post alert = neutral("alert", "", "DiskFull");
  alert.event.status = Status::failed;
  CHECK(title(alert) == "city/pump · DiskFull is firing");
  CHECK(text(alert) == "Triggered by Ada Quill");
}

TEST_CASE("a title is Markdown only without a link") {
  Post post = failed_pipeline();
  post.event.branch = "fix_*all*";
  CHECK(title(post) == "city/pump · fix_*all* · Pipeline #1234 failed");
  post.event.url = "javascript:alert(1)";
  const Json& payload = render(post);
  CHECK_FALSE(attachment(payload).contains("title_link"));
  CHECK(attachment(payload).at("title") == "city/pump · fix\\_\\*all\\* · Pipeline #1234 failed");
}

TEST_CASE("lists end, and what is left out is counted") {
  Post post = failed_pipeline();
  post.event.items.clear();
  for (int i = 0; i < 17; ++i) post.event.items.push_back({"job " + std::to_string(i), "", "", Status::failed});
  post.event.items_total = 0;
  CHECK(text(post).ends_with("- job 9\n- and 7 more"));
}

TEST_CASE("mention and user name are the route's, as they stand") {
  Post post = failed_pipeline();
  post.mention = "@build-cop @alice";
  post.username = "tower";
  const Json payload = render(post);
  CHECK(payload.at("text") == "@build-cop @alice");
  CHECK(payload.at("username") == "tower");
}

TEST_CASE("limits hold whatever an event holds") {
  for (const std::string piece : {"@all <!channel> ", "*", "(", "\U0001F600", "\n", "\"\\", "&"}) {
    Post post = huge(1u << 20, 50, piece);
    check_limits(render(post));
    check_limits(render_details(post));
    post.template_text = "{{title}} {{text}} {{#items}}{{name}} {{url}} {{detail}}\n{{/items}}";
    check_limits(render(post));
    post.template_text.clear();
    post.event.template_text = post.event.title;
    check_limits(render(post));
  }
  Post many = huge(100, 10'000, "@all ");
  check_limits(render(many));
  check_limits(render_details(many));
  const std::vector<Post> posts(500, huge(5000, 3, "@all "));
  check_limits(render_digest(posts));
}

TEST_CASE("a template: values are defused, what is empty is false, nothing is without an end") {
  Post post = failed_pipeline();
  post.event.text = "{{>title}} {{title}} @all";
  post.template_text =
      "{{project}} {{{branch}}} {{status}} [{{title}}]({{url}}){{#action}} never{{/action}}{{^action}} "
      "always{{/action}}: {{text}}\n"
      "{{#items}}\n* {{name}} {{detail}}{{#url}} {{link}}{{/url}}\n{{/items}}\n";
  CHECK(render(post).at("text") ==
        "city/pump main failed [Pipeline #1234](https://gitlab.example/city/pump/-/pipelines/1234) always: {{>title}} "
        "{{title}} @\u200Ball\n"
        "* unit script failure [unit](https://gitlab.example/city/pump/-/jobs/1)\n* lint \n* compile \n");
  post.mention = "@cop";
  post.template_text = "{{title}}";
  CHECK(render(post).at("text") == "@cop\nPipeline #1234");

  post.mention.clear();
  post.template_text = "{{title}} né";
  CHECK(render(post).at("text") == "Pipeline #1234 né");
  post.template_text = std::string(16'000, '*') + "{{title}}{{text}}{{#items}}é{{/items}}";
  post.event.text = std::string(5000, 'x');
  check_limits(render(post));
  CHECK(render(post).at("text").get<std::string>().ends_with("…"));

  post.event.items.assign(50, {"@all", "", std::string(500, 'x'), Status::failed});
  post.mention.clear();
  post.template_text = "{{#items}}{{#items}}{{#items}}{{#items}}{{detail}}{{/items}}{{/items}}{{/items}}{{/items}}";
  check_limits(render(post));
  for (const char* unusable : {"{{", "{{#a}}", "{{/a}}", "{{=}}", "  ", "{{nothing}}", "{{>title}}"}) {
    post.template_text = unusable;
    CHECK(render(post).contains("attachments"));  // the built-in post instead of none
  }
}

TEST_CASE("check_template says what is wrong") {
  std::string why;
  CHECK(check_template("{{title}} {{#items}}{{name}} {{link}}{{/items}} {{#facts}}{{name}}: {{value}}{{/facts}}", why));
  CHECK_FALSE(check_template("{{title", why));
  CHECK(why.starts_with("it is no Mustache"));
  CHECK_FALSE(check_template("{{#items}}{{name}}", why));
  CHECK_FALSE(check_template("{{titel}}", why));
  CHECK(why == "there is no variable \"titel\"");
  CHECK_FALSE(check_template("{{> other}}", why));
  CHECK_FALSE(check_template(std::string(20'000, 'x'), why));
  CHECK_FALSE(check_template("{{", why));
}

TEST_CASE("a post in Slack's shape keeps its looks and loses what acts") {
  Post post;
  post.event.source = "slack";
  post.event.kind = "message";
  post.event.slack = Json::parse(
      R"json({"text":"*Build* <!channel> <https://ci.example/1|#1>","username":"evil","channel":"#town-square","icon_url":"http://x/i.png",
    "props":{"card":"x"},"attachments":[{"fallback":"f @all","color":"danger","pretext":"![x](http://x/i.png)","author_name":"@all","author_link":"javascript:x",
    "author_icon":"http://x/i.png","title":"T <!here>","title_link":"https://ci.example/2","text":"@all **bold**","image_url":"http://x/i.png",
    "fields":[{"title":"A","value":1,"short":true},{"title":"B","value":"@here"},7],"actions":[{"type":"button"}],"footer":"f","footer_icon":"http://x"},
    {"color":"red","title":"only *title*","title_link":"//x"},{"image_url":"http://x/i.png"},"x"]})json");
  const Json payload = render(post);
  CHECK(payload == Json::parse(R"json({"text":"*Build* <\u200B!channel> [#1](https://ci.example/1)","attachments":[
    {"fallback":"f @\u200Ball","color":"danger","pretext":"!\u200B[x](http://x/i.png)","author_name":"@\u200Ball",
    "title":"T <\u200B!here>","title_link":"https://ci.example/2","text":"@\u200Ball **bold**",
    "fields":[{"title":"A","value":"1","short":true},{"title":"B","value":"@\u200Bhere","short":false}],"footer":"f"},
    {"title":"only *title*"}]})json"));

  post.event.slack = Json{{"attachments", Json::array()}};
  for (int i = 0; i < 40; ++i) {
    Json fields = Json::array();
    for (int k = 0; k < 100; ++k)
      fields.push_back({{"title", std::string(3000, '"')}, {"value", std::string(5000, '\\')}});
    post.event.slack["attachments"].push_back(
        {{"text", "@all"}, {"fields", fields}, {"title", std::string(5000, '*')}});
  }
  const Json large = render(post);
  check_limits(large);
  CHECK(large.at("attachments").at(0).at("fields").size() == 30);
  for (Json& one : post.event.slack["attachments"]) one.erase("fields");
  CHECK(render(post).at("attachments").size() == 20);
  CHECK(render(post).at("attachments").at(19).at("footer") == "and 20 more");
  for (const char* odd : {"{}", R"({"text":null})", R"({"attachments":{}})", R"({"text":["x"],"attachments":[[]]})"}) {
    post.event.slack = Json::parse(odd);
    check_limits(render(post));
  }
  // The text of blocks is taken out of them when they come.
  const Json blocks =
      Json::parse(R"({"blocks":[{"type":"section","text":{"type":"mrkdwn","text":"hello"}},{"type":"divider"}]})");
  const FindHeader none = [](std::string_view) { return std::string_view(); };
  post.event = std::get<Event>(parse({"slack", Format::slack, none, blocks, blocks.dump(), nullptr}));
  CHECK(render(post).at("text") == "hello");
}

TEST_CASE("a generic source's own text goes as Markdown of others") {
  Post post = neutral("message", "", "Backup");
  post.event.template_text = "**done** @all &#42; &#36;5";
  CHECK(text(post) == "**done** @\u200Ball &\u200B#42; &#36;5");
  post.event.template_text.clear();
  post.event.text = "a\nb";
  CHECK(text(post) == "> a\n> b");
}

TEST_CASE("details are the failed items with their links") {
  const Json details = render_details(failed_pipeline());
  CHECK(details ==
        Json{{"text", "- [unit](https://gitlab.example/city/pump/-/jobs/1) – script failure\n- unstable: lint"}});
  Post post = failed_pipeline();
  post.event.items.clear();
  CHECK(render_details(post).is_null());
}

TEST_CASE("a digest: the worst first, equal ones as one line, mentions once") {
  std::vector<Post> posts;
  for (int i = 0; i < 7; ++i) {
    posts.push_back(failed_pipeline());
    posts.back().event.title = "Pipeline #" + std::to_string(1230 + i);
    posts.back().event.url = "https://gitlab.example/p/" + std::to_string(1230 + i);
    posts.back().mention = i % 2 ? "@cop" : "@cop @ben";
    posts.back().change = {};
  }
  Post other = failed_pipeline();
  other.event.project = "city/valve";
  other.event.status = Status::success;
  other.change = {Turn::fixed, 1, 60};
  posts.insert(posts.begin(), other);
  Post push = neutral("push", "", "");
  push.event.branch = "main";
  push.event.items_total = 2;
  posts.push_back(push);
  posts.push_back(push);
  const Json payload = render_digest(posts);
  CHECK(payload.at("text") == "@cop @ben");
  CHECK(attachment(payload).at("color") == "#d0021b");
  CHECK(attachment(payload).at("text") ==
        "**7 pipelines failed** on `main`, 1 pipeline passed, 2 pushes\n"
        "- **failed** city/pump `main`: [Pipeline #1236](https://gitlab.example/p/1236) ×7\n"
        "- city/pump: Ada Quill pushed 2 commits to `main` [↗](https://gitlab.example/x) ×2\n"
        "- passed city/valve `main`: [Pipeline #1234](https://gitlab.example/city/pump/-/pipelines/1234) – fixed after "
        "1 min");
}

TEST_CASE("a digest of 500 different ones is short") {
  std::vector<Post> posts;
  for (int i = 0; i < 500; ++i) {
    posts.push_back(failed_pipeline());
    posts.back().event.branch = "b" + std::to_string(i);
    posts.back().mention = "@u" + std::to_string(i);
  }
  const Json payload = render_digest(posts);
  check_limits(payload);
  const std::string t = attachment(payload).at("text").get<std::string>();
  CHECK(std::count(t.begin(), t.end(), '\n') == 21);
  CHECK(t.starts_with("**500 pipelines failed**\n- **failed** city/pump `b499`"));
  CHECK(t.ends_with("- and 480 more, 480 of them failed"));
  CHECK(payload.at("text") == "@u0 @u1 @u2 @u3 @u4 @u5 @u6 @u7 @u8 @u9");
  CHECK(render_digest({}).is_null());
}

TEST_CASE("a preview for the terminal") {
  Post post = failed_pipeline();
  post.mention = "@cop";
  post.event.commit_title = "a <b> & \x1b[31m c";
  const std::string page = for_terminal(render(post), false, 60);
  CHECK(page ==
        "@cop\n"
        "  city/pump · main · Pipeline #1234 failed\n"
        "  https://gitlab.example/city/pump/-/pipelines/1234\n"
        "    failed – still failing (3rd, for 2 h) · 3 min 12 s\n"
        "    1a2b3c4d\n"
        "    (https://gitlab.example/city/pump/-/commit/1a2b3c4d5e6f7a8b9c0d)\n"
        "    a <b> & [31m c – Ada Quill\n"
        "    Triggered by Ben Reed\n"
        "    - unit (https://gitlab.example/city/pump/-/jobs/1) –\n"
        "      script failure\n"
        "    - unstable: lint\n");
  CHECK(page.find('\x1b') == std::string::npos);
  CHECK(for_terminal(render(post), true, 60).find("\x1b[1m\x1b[38;2;208;2;27m") != std::string::npos);
  for (const char* odd : {"null", "[]", "7", R"({"attachments":[7,null,{"fields":[7]}]})", R"({"text":7})"})
    CHECK_NOTHROW(for_terminal(Json::parse(odd), true));
}
