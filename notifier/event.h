// An event of a CI system in one shape, whoever sent it. Made by sources/, kept in the queue as JSON, read by routes and rendering.
//
// Every text is as the sender wrote it (valid UTF-8, untrusted, of any length up to the body's): nothing is escaped or cut here.
// text.h does that when a post is made. Owns plain values alone. May not know: HTTP, Mattermost, the queue.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

namespace radiotower::notifier {

using Json = nlohmann::json;
using UnixSeconds = std::int64_t;

/// What became of the thing that an event is about. The words (word(), and `status = [...]` of a route) are the names here,
/// with blanks for underscores.
enum class Status : std::uint8_t {
  none,      // says nothing about success: a push, a note, a merge request
  pending,   // created, queued, waiting for a resource
  running,
  waiting,   // for a person: manual, blocked, approval
  success,   // also an alert that is resolved, a quality gate that is OK
  unstable,  // done, with a warning: Jenkins UNSTABLE, an old gate's WARN
  failed,    // also an alert that fires, a quality gate in ERROR
  canceled,
  skipped,
};
std::string_view word(Status status);
std::optional<Status> status_of(std::string_view word);
/// No later event of the same subject is expected: success, unstable, failed, canceled, skipped.
bool is_final(Status status);

/// A part of the event that has a name of its own: a job, a condition of a gate, an alert, a commit, an artifact, a failed test.
struct Item {
  std::string name;
  std::string url;     // empty: none. Not yet judged: only http(s) becomes a link
  std::string detail;  // one short text: "script_failure", "62.1 < 80", the author of a commit
  Status status = Status::none;
};

struct Event {
  std::string source;  // name of the section: "gitlab", "jenkins", ... as routes match it
  /// What it is about; the words of routes: pipeline, job, push, tag, merge_request, note, issue, deployment, release, wiki, feature_flag,
  /// emoji, milestone, vulnerability, access_token, member, group, project, build (Jenkins, Artifactory), gate, artifact, image, bundle,
  /// alert, message (Slack-shaped, generic), check (GitHub check_run/check_suite) - a source documents those it makes.
  std::string kind;
  std::string action;  // open, merge, deleted, deployed ...; empty where the status says all
  Status status = Status::none;
  bool security = false;  // a vulnerability, a security finding: goes to #alerts without any route

  std::string project;      // "group/app", "folder/job", the key of a Sonar project
  std::string project_url;
  std::string branch;       // without refs/heads/; of a tag: the tag's name; of a merge request: the source branch
  std::string target_branch;  // of a merge request; empty: none
  bool is_tag = false;
  std::optional<bool> on_default_branch;  // nullopt: the sender does not tell

  std::string title;  // "Pipeline #1234", "Build #16", "!7 Add the pump" - without project, status and branch
  std::string url;
  std::string text;   // free text, plain: a note, a release's description, the message of a curl
  std::string commit;        // full sha; empty: none
  std::string commit_title;
  std::string commit_url;
  std::string author;        // of the commit, as a name
  std::string author_email;
  std::string actor;         // who set it off, as a name or login; may equal author
  std::string actor_login;
  std::optional<double> duration_s;

  std::vector<Item> items;        // failed ones first; a source keeps at most 50
  std::size_t items_total = 0;    // as the sender counts them
  std::vector<std::pair<std::string, std::string>> facts;  // further short facts, in order: {"Environment", "production"}

  /// The one thing that a row of events tells about ("pipeline/https://gitlab/1234"): one post is edited along it. Empty: none.
  std::string subject;
  /// What "last time" means: events with the same key are compared (source, project, branch, kind and name). Empty: not compared.
  std::string history_key;
  /// The sender's own identity of this delivery; a second one within 24 h is dropped. Empty: never a duplicate.
  std::string dedup_key;

  Json slack;  // a Slack-shaped post as it came (text, attachments ...), for /v1/slack alone; else null
  std::string template_text;  // of a generic source with a template: the filled-in text, not defused; empty: none
};

Json to_json(const Event& event);
/// Of what to_json() made; a field that is missing keeps its default.
Event event_from_json(const Json& json);

}  // namespace radiotower::notifier
