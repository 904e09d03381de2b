// What senders write becomes an Event, a Dropped or a Malformed; nothing that anybody may send throws. The samples beside this file are
// invented, one for each kind and state; NOTIFIER_FOREIGN_SAMPLES may name a folder of real ones with an INDEX.tsv.
#include <doctest/doctest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <sstream>

#include "notifier/sources/fields.h"

using namespace radiotower::notifier;
namespace fs = std::filesystem;

namespace {

using Headers = std::map<std::string, std::string>;

std::string read(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {(std::istreambuf_iterator<char>(in)), {}};
}

Headers headers_of(std::string lines, char separator) {
  Headers headers;
  std::istringstream in(lines);
  for (std::string line; std::getline(in, line, separator);) {
    const auto colon = line.find(':');
    if (colon == line.npos) continue;
    std::string name = first_line(line.substr(0, colon));
    for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    headers[name] = first_line(line.substr(colon + 1));
  }
  return headers;
}

Parsed parsed(Format format, const Json& body, const Headers& headers = {}, const GenericTemplate* generic = nullptr, std::string_view raw = "") {
  const FindHeader find = [&](std::string_view wanted) -> std::string_view {
    const auto found = headers.find(std::string(wanted));
    return found == headers.end() ? std::string_view() : std::string_view(found->second);
  };
  return parse(Arrival{name(format), format, find, body, raw, generic});
}

struct Sample {
  std::string name;  // "gitlab/pipeline-failed"
  Format format;
  Json body;
  Headers headers;
  std::string raw;
};

const std::vector<Sample>& samples() {
  static const std::vector<Sample> all = [] {
    std::vector<Sample> found;
    for (const auto& entry : fs::recursive_directory_iterator(fs::path(NOTIFIER_TESTS) / "samples")) {
      if (entry.path().extension() != ".json") continue;
      const std::string folder = entry.path().parent_path().filename();
      std::string why, raw = read(entry.path());
      auto body = parse_json(raw, why);
      REQUIRE_MESSAGE(body, entry.path(), why);
      fs::path headers = entry.path();
      headers.replace_extension(".headers");
      found.push_back({folder + '/' + entry.path().stem().string(), *format_of(folder), *body, headers_of(read(headers), '\n'), raw});
    }
    std::sort(found.begin(), found.end(), [](const Sample& a, const Sample& b) { return a.name < b.name; });
    return found;
  }();
  return all;
}

const GenericTemplate templates{"{{alert.title}}: {{count}}", "{{#parts}}{{name}} {{/parts}}{{{alert.text}}}", "{{alert.project}}", "",
                                "{{alert.state}}", "{{&alert.link}}", "", "", "{{alert.id}}"};

Parsed of(const Sample& sample) {
  const bool templated = sample.name.starts_with("generic/template");
  return parsed(sample.format, sample.body, sample.headers, templated ? &templates : nullptr, sample.raw);
}

Event event(const std::string& name) {
  for (const Sample& sample : samples()) {
    if (sample.name != name) continue;
    const Parsed result = of(sample);
    REQUIRE_MESSAGE(std::holds_alternative<Event>(result), name);
    return std::get<Event>(result);
  }
  FAIL("no sample " << name);
  return {};
}

std::string fact(const Event& event, const std::string& name) {
  for (const auto& [key, value] : event.facts) {
    if (key == name) return value;
  }
  return {};
}

bool whole_utf8(const Event& event) {
  try {
    return is_utf8(to_json(event).dump());  // strict: it throws at the first byte that is none
  } catch (const Json::exception&) {
    return false;
  }
}

const std::map<std::string, std::string> expected_drops = {
    {"gitlab/pipeline-child", "child pipeline"},
    {"gitlab/merge_request-labels", "no news"},
    {"gitlab/issue-update", "no news"},
    {"gitlab/note-system", "no news"},
    {"gitlab/system-project_update", "no news"},
    {"gitlab/system-repository_update", "push tells it"},
    {"gitlab/system-user_create", "unknown kind"},
    {"gitlab/unknown", "unknown kind"},
    {"jenkins/generic_event-deleted", "no news"},
    {"jenkins/generic_event-item", "unknown kind"},
    {"jenkins/statistics-step", "unknown kind"},
    {"sonarqube/no_gate", "no gate"},
    {"alertmanager/empty", "no alerts"},
    {"artifactory/user-locked", "unknown kind"},
    {"github/ping", "ping"},
    {"github/create-branch", "push tells it"},
    {"github/delete-branch", "push tells it"},
    {"github/check_run-actions", "workflow_run tells it"},
    {"github/workflow_job", "workflow_run tells it"},
    {"github/pull_request-labeled", "no news"},
    {"github/issues-assigned", "no news"},
    {"github/release-created", "no news"},
    {"github/issue_comment-deleted", "no news"},
    {"github/deployment", "deployment_status tells it"},
    {"github/deployment_status-inactive", "no news"},
    {"github/star", "unknown kind"},
    {"gitea/create", "push tells it"},
    {"gitea/push-deleted", "delete tells it"},
    {"gitea/fork", "unknown kind"},
};

}  // namespace

TEST_CASE("every sample is an event, or dropped for the reason that the manual names") {
  CHECK(samples().size() >= 90);
  std::size_t dropped = 0;
  for (const Sample& sample : samples()) {
    CAPTURE(sample.name);
    const Parsed result = of(sample);
    const auto drop = expected_drops.find(sample.name);
    if (drop != expected_drops.end()) {
      ++dropped;
      REQUIRE(std::holds_alternative<Dropped>(result));
      CHECK(std::get<Dropped>(result).reason == drop->second);
      continue;
    }
    if (const auto* other = std::get_if<Dropped>(&result)) FAIL("dropped: " << other->reason);
    if (const auto* other = std::get_if<Malformed>(&result)) FAIL("malformed: " << other->why);
    const Event& made = std::get<Event>(result);
    CHECK(made.source == name(sample.format));
    CHECK_FALSE(made.kind.empty());
    CHECK_FALSE(made.title.empty());
    CHECK(made.items.size() <= 50);
    CHECK(made.items.size() <= made.items_total);
    CHECK(whole_utf8(made));
    for (const std::string& key : {made.subject, made.history_key, made.dedup_key}) CHECK(key.size() <= 300);
    CHECK(to_json(event_from_json(to_json(made))) == to_json(made));
  }
  CHECK(dropped == expected_drops.size());
}

namespace {

/// Calls `visit` with `body` after each change of each value in it.
template <class Visit>
std::size_t break_each(Json& body, Json& here, const Visit& visit) {
  static const Json others[] = {nullptr, 5, "x", Json::array(), Json::object(), Json::array({Json::object(), 1, nullptr}),
                                "\xF0\x9F\x9A\x80", true, -1e300};
  std::size_t count = 0;
  const auto each = [&](Json& value) {
    const Json kept = value;
    for (const Json& other : others) {
      value = other;
      visit(body);
      ++count;
    }
    value = kept;
    count += break_each(body, value, visit);
  };
  if (here.is_array()) {
    for (std::size_t i = 0; i < std::min<std::size_t>(here.size(), 3); ++i) each(here[i]);
  }
  if (!here.is_object()) return count;
  std::vector<std::string> keys;
  for (const auto& [key, value] : here.items()) keys.push_back(key);
  for (const std::string& key : keys) {
    each(here[key]);
    const Json kept = here[key];
    here.erase(key);
    visit(body);
    here[key] = kept;
    ++count;
  }
  return count;
}

}  // namespace

TEST_CASE("whatever one value of a body is, parsing ends well") {
  std::size_t count = 0, bad = 0;
  for (const Sample& sample : samples()) {
    Sample broken = sample;
    if (broken.raw.size() > 30'000) continue;
    count += break_each(broken.body, broken.body, [&](const Json&) {
      const Parsed result = of(broken);
      if (const auto* made = std::get_if<Event>(&result)) bad += whole_utf8(*made) ? 0 : 1;
      if (const auto* malformed = std::get_if<Malformed>(&result)) bad += malformed->why == "the body could not be read as this format" ? 1 : 0;
    });
    CHECK_MESSAGE(bad == 0, sample.name);
  }
  MESSAGE(count << " broken bodies");
}

TEST_CASE("no real sample is malformed") {
  const char* const folder = std::getenv("NOTIFIER_FOREIGN_SAMPLES");
  if (!folder) return;
  std::map<std::string, Headers> headers;
  std::ifstream index(fs::path(folder) / "INDEX.tsv");
  for (std::string line; std::getline(index, line);) headers[line.substr(0, line.find('\t'))] = [&] {
    std::istringstream columns(line);
    std::string column;
    for (int i = 0; i < 5; ++i) std::getline(columns, column, '\t');
    return headers_of(column, ';');
  }();
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string file = entry.path().filename();
    const auto format = format_of(file.substr(0, file.find('_')));
    if (entry.path().extension() != ".json" || !format) continue;
    CAPTURE(file);
    std::string why;
    const std::string raw = read(entry.path());
    const auto body = parse_json(raw, why);
    REQUIRE(body);
    const Parsed result = parsed(*format, *body, headers[file], nullptr, raw);
    if (const auto* malformed = std::get_if<Malformed>(&result)) FAIL_CHECK(malformed->why);
    if (const auto* dropped = std::get_if<Dropped>(&result)) MESSAGE(file << " dropped: " << dropped->reason);
    if (const auto* made = std::get_if<Event>(&result)) CHECK(whole_utf8(*made));
    if (std::getenv("NOTIFIER_SHOW") && std::holds_alternative<Event>(result)) MESSAGE(file << ' ' << to_json(std::get<Event>(result)).dump(1));
  }
}

TEST_CASE("JSON is read strictly") {
  std::string why;
  const auto refused = [&](std::string_view body) {
    why.clear();
    return !parse_json(body, why) && !why.empty();
  };
  CHECK(parse_json("{}", why));
  CHECK(parse_json("\xEF\xBB\xBF{}", why));
  CHECK((*parse_json(R"({"a":1,"a":2})", why))["a"] == 2);
  CHECK(refused(""));
  CHECK(refused(" \n"));
  CHECK(refused("\xEF\xBB\xBF\xEF\xBB\xBF{}"));
  CHECK(refused("{} x"));
  CHECK(refused("{}{}"));
  CHECK(refused(std::string_view("{}\0{", 4)));
  CHECK(refused(R"({"a":NaN})"));
  CHECK(refused(R"({"a":1e999})"));
  CHECK(refused(R"({"a":01})"));
  CHECK(refused(R"({"a":1,})"));
  CHECK(refused("{\"a\":1 /* comment */}"));
  CHECK(refused("{'a':1}"));
  CHECK(refused(R"({"a":"\ud800"})"));
  CHECK(refused(R"({"a":"\udc00x"})"));
  CHECK(refused("{\"a\":\"\xC3\x28\"}"));
  CHECK(refused("{\"a\":\"\xED\xA0\x80\"}"));
  CHECK(refused("{\"a\":\"\xC0\x80\"}"));
  CHECK(refused("{\"a\":\"\n\"}"));
  CHECK(parse_json(std::string(64, '[') + std::string(64, ']'), why));
  CHECK(refused(std::string(65, '[') + std::string(65, ']')));
  CHECK(refused(std::string(1'000'000, '[')));
  CHECK(parse_json("[\"" + std::string(100, '[') + "\\\"[\"]", why));
  CHECK(why.find('\xC3') == why.npos);
}

TEST_CASE("what is no webhook of its format is malformed, with a sentence") {
  const auto malformed = [](Format format, const Json& body) {
    const Parsed result = parsed(format, body);
    return std::holds_alternative<Malformed>(result) ? std::get<Malformed>(result).why : std::string();
  };
  CHECK(malformed(Format::gitlab, Json::object()) == "this is not a GitLab webhook: neither object_kind nor event_name");
  for (const Format format : {Format::gitlab, Format::jenkins, Format::sonarqube, Format::artifactory, Format::gitea, Format::github,
                              Format::alertmanager, Format::slack, Format::generic}) {
    CHECK(format_of(name(format)) == format);
    CHECK_FALSE(malformed(format, Json::object()).empty());
    CHECK_FALSE(malformed(format, Json::array()).empty());
    CHECK_FALSE(malformed(format, "x").empty());
    CHECK_FALSE(malformed(format, nullptr).empty());
  }
  CHECK_FALSE(format_of("gitlap"));
}

TEST_CASE("GitLab: pipelines") {
  const Event failed = event("gitlab/pipeline-failed");
  CHECK(failed.status == Status::failed);
  CHECK(failed.project == "city/pump");
  CHECK(failed.branch == "main");
  CHECK(failed.on_default_branch == true);
  CHECK(failed.title == "Pipeline #1234");
  CHECK(failed.url == "https://gitlab.city.example/city/pump/-/pipelines/1234");
  REQUIRE(failed.items.size() == 2);
  CHECK(failed.items[0].name == "unit tests");
  CHECK(failed.items[0].detail == "script failure");
  CHECK(failed.items[0].url == "https://gitlab.city.example/city/pump/-/jobs/501");
  CHECK(failed.items[1].status == Status::unstable);
  CHECK(failed.items[1].detail == "script failure (allowed to fail)");
  CHECK(failed.subject == "gitlab/pipeline/https://gitlab.city.example/city/pump/1234");
  CHECK(event("gitlab/pipeline-success").subject == failed.subject);
  CHECK(event("gitlab/pipeline-success").history_key == failed.history_key);
  CHECK(failed.dedup_key == "gitlab/6f1d6bd0-5e0b-4a44-9f0c-0d6f0b8e1a01");

  const Event detached = event("gitlab/pipeline-merge_request_head");
  CHECK(detached.branch == "add-valve");
  CHECK(detached.target_branch == "main");
  CHECK(detached.on_default_branch == false);
  CHECK(fact(detached, "Merge request") == "!7\nhttps://gitlab.city.example/city/pump/-/merge_requests/7");
  const Event orphan = event("gitlab/pipeline-merge_request_null");
  CHECK(orphan.branch.empty());
  CHECK(fact(orphan, "Merge request") == "!9\nhttps://gitlab.city.example/city/pump/-/merge_requests/9");

  CHECK(event("gitlab/pipeline-tag").is_tag);
  CHECK(event("gitlab/pipeline-manual").status == Status::waiting);
  CHECK(event("gitlab/pipeline-canceling").status == Status::running);
  CHECK(event("gitlab/pipeline-canceled").status == Status::canceled);
  CHECK(event("gitlab/pipeline-skipped").status == Status::skipped);
  CHECK(event("gitlab/pipeline-pending").status == Status::pending);
  CHECK(fact(event("gitlab/pipeline-scheduled"), "Trigger") == "schedule");
  CHECK(event("gitlab/pipeline-odd_types").status == Status::none);
}

TEST_CASE("GitLab: a second delivery is known by the sender's own key, and each state of a pipeline is news") {
  Json body = {{"object_kind", "pipeline"}, {"object_attributes", {{"id", 5}, {"status", "running"}}}};
  const auto key = [&](const Headers& headers) { return std::get<Event>(parsed(Format::gitlab, body, headers)).dedup_key; };
  const Headers old{{"x-gitlab-event-uuid", "e"}, {"x-gitlab-webhook-uuid", "w"}};
  CHECK(key({}).empty());
  CHECK(key({{"idempotency-key", "k"}, {"webhook-id", "i"}, {"x-gitlab-event-uuid", "e"}}) == "gitlab/i");  // the signed one
  CHECK(key({{"webhook-id", "i"}, {"x-gitlab-event-uuid", "e"}}) == "gitlab/i");
  const std::string running = key(old);
  CHECK(running == "gitlab/e/w/pipeline/5/running");
  body["object_attributes"]["status"] = "success";
  CHECK(key(old) != running);
  CHECK(key({{"idempotency-key", "k\xFF"}}).empty());
  CHECK(key({{"idempotency-key", std::string(300, 'k')}}).empty());
}

TEST_CASE("GitLab: jobs, pushes, tags") {
  const Event job = event("gitlab/job-failed");
  CHECK(job.status == Status::failed);
  CHECK(job.title == "Job unit tests");
  CHECK(job.commit == "5e0b4a449f0c0d6f0b8e1a016f1d6bd05e0b4a44");
  CHECK(fact(job, "Reason") == "script failure");
  CHECK(event("gitlab/job-allowed_to_fail").status == Status::unstable);
  CHECK(event("gitlab/job-manual").status == Status::waiting);
  CHECK(event("gitlab/job-old_without_project").project == "city/pump");

  const Event push = event("gitlab/push-commits");
  CHECK(push.title == "21 commits");
  CHECK(push.items_total == 21);
  CHECK(push.items.size() == 2);
  CHECK(push.commit_title == "Увеличить давление 🚰");
  CHECK(push.author == "Ada Quill");
  CHECK(push.url.find("/-/compare/") != std::string::npos);
  CHECK(event("gitlab/push-created").action == "created");
  CHECK(event("gitlab/push-deleted").action == "deleted");
  CHECK(event("gitlab/push-deleted").commit.empty());
  CHECK(event("gitlab/push-huge").items.size() == 50);
  CHECK(event("gitlab/push-huge").items_total == 400);
  const Event tag = event("gitlab/tag_push-created");
  CHECK(tag.kind == "tag");
  CHECK(tag.branch == "v1.4.0");
  CHECK(tag.is_tag);
  CHECK(tag.text == "Release 1.4.0");
  CHECK(event("gitlab/tag_push-deleted").title == "Tag deleted");
}

TEST_CASE("GitLab: nothing of what is confidential is taken over") {
  for (const char* name : {"gitlab/issue-confidential", "gitlab/note-confidential_issue", "gitlab/note-internal", "gitlab/emoji-confidential"}) {
    CAPTURE(name);
    const std::string all = to_json(event(name)).dump();
    CHECK(all.find("SECRET") == all.npos);
  }
  CHECK(event("gitlab/issue-confidential").title == "Confidential issue #13");
  CHECK(event("gitlab/note-confidential_issue").title == "confidential issue #13");
  CHECK(event("gitlab/note-merge_request").title == "!7 Add the valve");
  CHECK(event("gitlab/note-commit").title == "commit 5e0b4a44 Tighten the valve");
}

TEST_CASE("GitLab: the rest") {
  const Event merged = event("gitlab/merge_request-merge");
  CHECK(merged.action == "merge");
  CHECK(merged.title == "!7 Add the valve");
  CHECK(merged.target_branch == "main");
  const Event deployed = event("gitlab/deployment-success");
  CHECK(deployed.status == Status::success);
  CHECK(deployed.title == "Deployment to production");
  CHECK(deployed.commit == "5e0b4a449f0c0d6f0b8e1a016f1d6bd05e0b4a44");
  CHECK(event("gitlab/deployment-running").subject == deployed.subject);
  CHECK(event("gitlab/deployment-blocked").status == Status::waiting);
  const Event finding = event("gitlab/vulnerability-confirmed");
  CHECK(finding.security);
  CHECK(finding.project == "city/pump");
  CHECK(finding.status == Status::failed);
  CHECK(fact(finding, "Identifier") == "CVE-2031-0001");
  CHECK(event("gitlab/vulnerability-resolved").status == Status::success);
  CHECK(event("gitlab/feature_flag-off").action == "off");
  CHECK(event("gitlab/member-added").kind == "member");
  CHECK(event("gitlab/member-added").project == "city");
  CHECK(event("gitlab/subgroup-created").kind == "group");
  CHECK(event("gitlab/project-created").project == "city/pump");
  CHECK(event("gitlab/release-create").branch == "v1.4.0");
}

TEST_CASE("Jenkins: COMPLETED and FINALIZED are one piece of news") {
  const Event completed = event("jenkins/notification-completed_failure"), finalized = event("jenkins/notification-finalized_failure");
  CHECK(completed.dedup_key == finalized.dedup_key);
  CHECK(completed.subject == event("jenkins/notification-started").subject);
  CHECK(completed.dedup_key != event("jenkins/notification-started").dedup_key);
  CHECK(finalized.project == "city/pump");
  CHECK(finalized.branch == "feature/valve");
  CHECK(finalized.status == Status::failed);
  CHECK(finalized.title == "Build #42");
  CHECK(finalized.duration_s == doctest::Approx(184.2));
  CHECK(finalized.items_total == 2);
  CHECK(fact(finalized, "Tests") == "2 of 128 failed\n" + finalized.url + "testReport/");
  CHECK(finalized.text == "ERROR: script returned exit code 2");
  CHECK(event("jenkins/notification-unstable").status == Status::unstable);
  CHECK(event("jenkins/notification-aborted").status == Status::canceled);
  CHECK(event("jenkins/notification-no_full_url").dedup_key == "jenkins/tower/main#7 final");
  CHECK(event("jenkins/generic_event-completed").dedup_key == event("jenkins/generic_event-finalized").dedup_key);
  CHECK(event("jenkins/generic_event-finalized").project == "city/pump");
  CHECK(event("jenkins/outbound-failure").project == "water works");
  CHECK(event("jenkins/statistics-started").url == "https://jenkins.city.example/job/city/job/tower/252/");
  CHECK(event("jenkins/curl").status == Status::failed);
  CHECK(event("jenkins/mattermost_plugin").kind == "message");
}

TEST_CASE("SonarQube: what fails a gate is told with its threshold") {
  const Event gate = event("sonarqube/gate-error");
  CHECK(gate.status == Status::failed);
  CHECK(gate.on_default_branch == true);
  REQUIRE(gate.items.size() == 3);
  CHECK(gate.items[0].name == "coverage on new code");
  CHECK(gate.items[0].detail == "62.1, required at least 80");
  CHECK(gate.items[1].detail == "89.4, allowed at most 3");
  CHECK(gate.items[2].detail == "C, required A");
  CHECK(gate.dedup_key == "sonarqube/AXtask1/SUCCESS/ERROR");
  CHECK(fact(event("sonarqube/gate-pull_request"), "Pull request") == "12");
  CHECK(event("sonarqube/gate-warn").status == Status::unstable);
  CHECK(event("sonarqube/task-failed").status == Status::failed);
  CHECK_FALSE(event("sonarqube/gate-no_branch").on_default_branch);
}

TEST_CASE("JFrog: domains, and what a repeat is") {
  const Event deployed = event("artifactory/artifact-deployed");
  CHECK(deployed.kind == "artifact");
  CHECK(deployed.url == "https://jfrog.city.example/artifactory/pump-local/1.4/pump%20house.tar.gz");
  CHECK(deployed.dedup_key.empty());
  CHECK_FALSE(event("artifactory/build-uploaded").dedup_key.empty());
  CHECK(event("artifactory/docker-pushed").title == "pump:1.4.0");
  CHECK(event("artifactory/release_bundle_v2-failed").status == Status::failed);
  CHECK(event("artifactory/artifact_property-added").action == "property added");
  CHECK(event("artifactory/distribution-completed").status == Status::success);
}

TEST_CASE("GitHub and Gitea") {
  const Event run = event("github/workflow_run-failure");
  CHECK(run.status == Status::failed);
  CHECK(run.title == "CI #42");
  CHECK(run.duration_s == doctest::Approx(125));
  CHECK(run.commit_url == "https://github.city.example/city/pump/commit/" + run.commit);
  CHECK(event("github/push-forced").action == "force-pushed");
  CHECK(event("github/dependabot_alert-created").title == "Dependabot alert #5: Leaky parser");
  CHECK(event("github/code_scanning_alert-created").title == "Code scanning alert #4: A leak");
  CHECK(event("github/secret_scanning_alert-created").title == "Leaked secret: City key (#6)");
  CHECK(run.on_default_branch == true);
  CHECK(run.dedup_key == "github/72d3162e-cc78-11e3-81ab-4c9367dc0958");
  CHECK(event("github/workflow_run-requested").subject == run.subject);
  CHECK(event("github/workflow_run-pull_request").on_default_branch == false);
  CHECK(event("github/pull_request-merged").action == "merge");
  CHECK(event("github/pull_request_review-approved").action == "approved");
  CHECK(event("github/push-tag").kind == "tag");
  CHECK(event("github/check_run-failure").kind == "check");
  CHECK(event("github/code_scanning_alert-created").security);
  CHECK(event("github/dependabot_alert-created").security);
  CHECK(event("github/dependabot_alert-fixed").status == Status::success);
  CHECK(event("github/secret_scanning_alert-created").security);
  CHECK(event("gitea/push-commits").title == "2 commits");
  CHECK(event("gitea/delete-tag").is_tag);
  CHECK(event("gitea/workflow_run-success").status == Status::success);
  CHECK(event("gitea/action_run-failure").status == Status::failed);
  CHECK(event("gitea/package-created").title == "Package pump 1.4.0");
}

TEST_CASE("Alertmanager: a group is one event") {
  const Event firing = event("alertmanager/firing"), resolved = event("alertmanager/resolved");
  CHECK(firing.status == Status::failed);
  CHECK(resolved.status == Status::success);
  CHECK(firing.subject == resolved.subject);
  CHECK(firing.dedup_key.empty());  // a reminder has the same bytes
  CHECK(firing.items.size() == 2);
  CHECK(firing.items[0].detail == "The pressure is 9.1 bar");
}

TEST_CASE("Slack-shaped: the body is kept, the colour tells the status") {
  const Event message = event("slack/attachment-danger");
  CHECK(message.status == Status::failed);
  CHECK(message.kind == "message");
  CHECK(message.slack["attachments"].size() == 1);
  CHECK(event("slack/attachment-good").status == Status::success);
  CHECK(event("slack/text").status == Status::none);
}

TEST_CASE("generic: templates") {
  const Event made = event("generic/template");
  CHECK(made.title == "Pressure <high> & rising: 3");
  CHECK(made.text == "pump tower The text");
  CHECK(made.status == Status::failed);
  CHECK(made.url == "https://grid.city.example/a?b=1&c=2");
  CHECK(made.dedup_key == "generic/77");

  const auto filled = [](const std::string& text, const Json& body) {
    const GenericTemplate wanted{"t", text, "", "", "", "", "", "", ""};
    return std::get<Event>(parsed(Format::generic, body, {}, &wanted)).text;
  };
  CHECK(filled("{{a}}|{{b}}|{{c}}|{{d}}|{{e}}", {{"a", 1}, {"b", true}, {"c", false}, {"d", nullptr}, {"e", 1.5}}) == "1|true|||1.5");
  CHECK(filled("{{#a}}yes{{/a}}{{^a}}no{{/a}}", {{"a", ""}}) == "no");
  CHECK(filled("{{>a}}", {{"a", "{{>a}}"}}).empty());  // a sender's text is no template
  CHECK(filled("{{a}}", {{"a", "{{b}}"}, {"b", "x"}}) == "{{b}}");
  CHECK(filled("{{#", {{"a", 1}}).empty());
  Json many;
  for (int i = 0; i < 3000; ++i) many["a"].push_back("x");
  many["big"] = std::string(500'000, 'y') + "é";
  CHECK(filled("{{#a}}{{#a}}{{#a}}{{big}}{{/a}}{{/a}}{{/a}}", many).size() <= 64 * 1024);
  CHECK(filled("{{#a}}{{.}}{{/a}}", many).size() == 3000);
  CHECK(filled("{{big}}", many).size() == 16'384);
  // Nested sections, with what stands in them on one line.
  CHECK(filled("{{#a}}{{#a}}a literal of twenty {{/a}}{{/a}}", many) == "…");
  many["u"] = std::string(16 * 1024 - 1, 'y') + "é";
  CHECK(filled("{{u}}", many).size() == 16 * 1024 - 1);  // no half of a character
}

TEST_CASE("keys are bounded and without control characters") {
  Json body = {{"title", "t"}, {"project", std::string(5000, 'p')}, {"status", "ok"}, {"id", std::string("a\0b", 3)}};
  const Event made = std::get<Event>(parsed(Format::generic, body));
  CHECK(made.status == Status::success);
  CHECK(made.history_key.size() == 8 + 64);
  CHECK(made.dedup_key.size() == 8 + 64);
}

TEST_CASE("status words") {
  for (const char* name : {"none", "pending", "running", "waiting", "success", "unstable", "failed", "canceled", "skipped"}) {
    REQUIRE(status_of(name));
    CHECK(word(*status_of(name)) == name);
  }
  CHECK_FALSE(status_of("FAILED"));
  CHECK(is_final(Status::skipped));
  CHECK_FALSE(is_final(Status::waiting));
  CHECK_FALSE(is_final(Status::none));
  CHECK(lenient_status("SUCCESS") == Status::success);
  CHECK(lenient_status("NOT_BUILT") == Status::skipped);
  CHECK(lenient_status("Error") == Status::failed);
  CHECK(lenient_status("timed_out") == Status::failed);
  for (const char* other : {"nonsense", "created", "CREATED", "UPDATED", "deleted", "open"}) CHECK(lenient_status(other) == Status::none);
  CHECK(event("gitlab/job-created").status == Status::pending);  // GitLab's first state
}

TEST_CASE("the small JSON: the branch is no part of the project") {
  const auto project = [](const char* name, const char* branch) {
    return std::get<Event>(parsed(Format::generic, {{"project", name}, {"branch", branch}, {"status", "ok"}})).project;
  };
  CHECK(project("city/pump/main", "main") == "city/pump");
  CHECK(project("city/pump/feature%2Fvalve", "feature/valve") == "city/pump");
  CHECK(project("city/pump/feature/valve", "feature/valve") == "city/pump");
  CHECK(project("city/pump/main", "refs/heads/main") == "city/pump");
  CHECK(project("city/main", "") == "city/main");
  CHECK(project("main", "main") == "main");
  CHECK(project("/main", "main") == "/main");
  CHECK(project("city/domain", "main") == "city/domain");
}

TEST_CASE("facts are one line each, but for a link") {
  Event event;
  add_fact(event, "A", "passed\nhttps://x.example");
  add_link(event, "B", "!7\nhttps://x.example", "https://git.example/7");
  add_link(event, "C", "!7", "");
  add_link(event, "D", "", "https://git.example/7");
  const std::vector<std::pair<std::string, std::string>> expected = {
      {"A", "passed https://x.example"}, {"B", "!7 https://x.example\nhttps://git.example/7"}, {"C", "!7"}};
  CHECK(event.facts == expected);
}

TEST_CASE("events survive the queue") {
  CHECK(to_json(Event{}) == Json::object());
  Event event;
  event.kind = "pipeline";
  event.status = Status::failed;
  event.security = event.is_tag = true;
  event.on_default_branch = false;
  event.duration_s = 1.5;
  event.items = {{"job", "https://x.example", "why", Status::failed}};
  event.items_total = 9;
  event.facts = {{"a", "b"}, {"c", ""}};
  event.slack = {{"text", "t"}};
  const Event again = event_from_json(to_json(event));
  CHECK(to_json(again) == to_json(event));
  CHECK(again.items[0].status == Status::failed);
  CHECK(again.items_total == 9);
  CHECK(again.facts.size() == 2);
  CHECK(again.on_default_branch == false);
  CHECK(event_from_json("no event").kind.empty());
}
