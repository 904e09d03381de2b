// GitHub, and Gitea with its relatives Forgejo and Gogs, which send nearly the same. What a body is stands in a header alone.
//
// Kinds made: push, tag, pipeline (a run of a workflow), check, merge_request, issue, note, release, deployment, wiki, artifact (a
// package), vulnerability with `security` for alerts of code scanning, Dependabot and secret scanning.
// Dropped: "unknown kind"; "ping"; "no news": what changes neither state nor content (labels, assignees ...); "workflow_run tells it": its
// jobs and checks; "push tells it": a created ref, and GitHub's deleted one; "delete tells it": Gitea's push of a deleted ref;
// "deployment_status tells it".
#include "notifier/sources/fields.h"

namespace radiotower::notifier {

namespace {

struct Delivery {
  const Json& body;
  bool github;
};

std::string default_branch(const Delivery& delivery) { return text(delivery.body, "repository", "default_branch"); }
std::string person(const Json& user) { return first_of({text(user, "full_name"), text(user, "name"), text(user, "login"), text(user, "username")}); }

Event common(const Delivery& delivery, const char* kind, bool with_action = true) {  // without where the status says all
  const Json& repository = at(delivery.body, "repository");
  Event event;
  event.kind = kind;
  if (with_action) event.action = text(delivery.body, "action");
  const Json& owner = at(delivery.body, "organization");
  event.project = first_of({text(repository, "full_name"), text(owner, "login"), text(owner, "username")});
  event.project_url = text(repository, "html_url");
  event.actor = person(at(delivery.body, "sender"));
  event.actor_login = first_of({text(delivery.body, "sender", "login"), text(delivery.body, "sender", "username")});
  return event;
}

std::string numbered(const Json& json) {
  const std::string title = first_line(text(json, "title"));
  return '#' + first_of({id(json, "number"), "?"}) + (title.empty() ? "" : " " + title);
}

/// Actions in the words that GitLab's events have; the others of a pull request or issue are no news.
std::string news(const std::string& action) {
  static constexpr std::pair<std::string_view, const char*> words[] = {
      {"opened", "open"}, {"closed", "close"}, {"reopened", "reopen"}, {"ready_for_review", "ready"}, {"synchronize", "update"},
      {"synchronized", "update"}, {"deleted", "delete"}, {"published", "create"}, {"edited", "update"}, {"updated", "update"},
      {"created", "create"}, {"transferred", "transfer"},
  };
  for (const auto& [theirs, ours] : words) {
    if (theirs == action) return ours;
  }
  return {};
}

Parsed push(const Delivery& delivery) {
  const Json& body = delivery.body;
  const std::string ref = text(body, "ref"), before = text(body, "before"), after = text(body, "after");
  Event event = common(delivery, ref.starts_with("refs/tags/") ? "tag" : "push");
  event.action = flag(body, "deleted") || is_zero_sha(after)    ? "deleted"
                 : flag(body, "created") || is_zero_sha(before) ? "created"
                 : flag(body, "forced")                         ? "force-pushed"
                                                                : "pushed";
  if (event.action == "deleted" && !delivery.github) return Dropped{"delete tells it"};
  const std::size_t total = std::max(whole(number(body, "total_commits")), list(body, "commits").size());
  set_ref(event, ref, default_branch(delivery));
  event.title = push_title(event, total);
  event.url = first_of({text(body, "compare"), text(body, "compare_url"), event.project_url});
  if (event.action != "deleted") set_commits(event, list(body, "commits"), after, total);
  if (event.is_tag) event.items.clear(), event.items_total = 0;
  return event;
}

Parsed deleted(const Delivery& delivery) {
  if (delivery.github) return Dropped{"push tells it"};
  const bool tag = text(delivery.body, "ref_type") == "tag";
  Event event = common(delivery, tag ? "tag" : "push");
  set_ref(event, (tag ? "refs/tags/" : "refs/heads/") + text(delivery.body, "ref"), default_branch(delivery));  // a bare name
  event.action = "deleted";
  event.title = push_title(event, 0);
  event.url = event.project_url;
  return event;
}

void set_pull_request(Event& event, const Json& request) {
  event.title = numbered(request);
  event.url = text(request, "html_url");
  set_ref(event, text(request, "head", "ref"), "");
  event.on_default_branch = false;  // a fork's branch may have the default one's name
  event.target_branch = text(request, "base", "ref");
  event.commit = text(request, "head", "sha");
  event.author = person(at(request, "user"));
  event.project = first_of({event.project, text(request, "base", "repo", "full_name")});
}

Parsed pull_request(const Delivery& delivery) {
  const Json& request = at(delivery.body, "pull_request");
  Event event = common(delivery, "merge_request");
  event.action = event.action == "edited" ? "" : news(event.action);
  if (event.action.empty()) return Dropped{"no news"};
  if (event.action == "close" && (flag(request, "merged") || !text(request, "merged_at").empty())) event.action = "merge";
  set_pull_request(event, request);
  if (flag(request, "draft")) add_fact(event, "Draft", "yes");
  add_fact(event, "Reviewers", joined(list(request, "requested_reviewers"), "login"));
  return event;
}

Parsed review(const Delivery& delivery) {
  const Json& review = at(delivery.body, "review");
  const std::string state = first_of({lower_words(text(review, "state")), lower_words(text(review, "type"))});
  Event event = common(delivery, "merge_request");
  if (event.action == "dismissed" || event.action == "edited") return Dropped{"no news"};
  set_pull_request(event, at(delivery.body, "pull_request"));
  const bool refused = state.ends_with("rejected") || state == "changes requested";
  event.action = state.ends_with("approved") ? "approved" : refused ? "changes requested" : "reviewed";
  event.url = first_of({text(review, "html_url"), event.url});
  event.text = first_of({text(review, "body"), text(review, "content")});
  if (event.action == "reviewed" && event.text.empty()) return Dropped{"no news"};  // comments on lines come on their own
  return event;
}

Parsed issues(const Delivery& delivery) {
  const Json& issue = at(delivery.body, "issue");
  Event event = common(delivery, "issue");
  event.action = news(event.action);
  if (event.action.empty() || event.action == "update") return Dropped{"no news"};
  event.title = numbered(issue);
  event.url = text(issue, "html_url");
  if (event.action == "open") event.text = text(issue, "body");
  event.author = person(at(issue, "user"));
  add_fact(event, "Labels", joined(list(issue, "labels"), "name"));
  return event;
}

Parsed comment(const Delivery& delivery) {
  const Json &body = delivery.body, &comment = at(body, "comment");
  if (text(body, "action") != "created" && text(body, "action") != "reviewed") return Dropped{"no news"};
  Event event = common(delivery, "note");
  event.action = "create";
  const Json& about = at(body, "issue").is_object() ? at(body, "issue") : at(body, "pull_request");
  event.commit = text(comment, "commit_id");
  event.title = about.is_object() ? numbered(about) : "commit " + short_sha(event.commit);
  event.url = first_of({text(comment, "html_url"), text(about, "html_url")});
  event.text = first_of({text(comment, "body"), text(body, "review", "content")});
  return event;
}

Parsed release(const Delivery& delivery) {
  const Json& release = at(delivery.body, "release");
  Event event = common(delivery, "release");
  // GitHub sends created, published and released (or prereleased) for one and the same.
  event.action = event.action == "created" ? "" : news(event.action);
  if (event.action.empty() || flag(release, "draft")) return Dropped{"no news"};
  set_ref(event, "refs/tags/" + text(release, "tag_name"), "");
  event.title = "Release " + first_of({first_line(text(release, "name")), event.branch});
  event.url = text(release, "html_url");
  event.text = text(release, "body");
  event.author = person(at(release, "author"));
  if (flag(release, "prerelease")) add_fact(event, "Prerelease", "yes");
  return event;
}

/// `status` until it is completed, then `conclusion`; Gitea may have the outcome in either.
Status state_of(const Json& run) { return lenient_status(first_of({text(run, "conclusion"), text(run, "status")})); }

Parsed workflow_run(const Delivery& delivery) {
  const Json& run = at(delivery.body, "workflow_run");
  Event event = common(delivery, "pipeline", false);
  const std::string name = first_of({text(run, "name"), text(delivery.body, "workflow", "name"), text(run, "path"), text(run, "display_title")});
  const std::string number = id(run, "run_number"), trigger = text(run, "event");
  event.status = state_of(run);
  if (event.status == Status::waiting) event.action = "approval";
  event.title = first_of({first_line(name), "Workflow"}) + (number.empty() ? "" : " #" + number);
  event.url = text(run, "html_url");
  set_ref(event, text(run, "head_branch"), default_branch(delivery));
  event.commit = text(run, "head_sha");
  event.commit_title = first_of({first_line(text(run, "head_commit", "message")), first_line(text(run, "display_title"))});
  event.author = first_of({text(run, "head_commit", "author", "name"), person(at(run, "actor"))});
  event.author_email = text(run, "head_commit", "author", "email");
  const std::string began = first_of({text(run, "run_started_at"), text(run, "started_at")});
  if (is_final(event.status)) event.duration_s = seconds_between(began, first_of({text(run, "completed_at"), text(run, "updated_at")}));
  if (trigger.starts_with("pull_request")) {
    event.on_default_branch = false;
    if (const Json& requests = list(run, "pull_requests"); !requests.empty()) event.target_branch = text(requests[0], "base", "ref");
  }
  if (trigger != "push" && trigger != "pull_request") add_fact(event, "Trigger", lower_words(trigger));
  if (const std::string attempt = id(run, "run_attempt"); attempt != "1" && attempt != "0") add_fact(event, "Attempt", attempt);
  if (!id(run, "id").empty()) event.subject = "pipeline/" + event.project + '/' + id(run, "id");
  event.history_key = "pipeline/" + event.project + '/' + event.branch + '/' + (trigger.starts_with("pull_request") ? "!" : "") + name;
  return event;
}

/// Forgejo's: the end of a run alone.
Parsed action_run(const Delivery& delivery) {
  const Json& run = at(delivery.body, "run");
  Event event = common(delivery, "pipeline");
  const std::string name = text(run, "workflow_id"), number = id(run, "index_in_repo");
  event.project = first_of({event.project, text(run, "repository", "full_name")});
  event.project_url = first_of({event.project_url, text(run, "repository", "html_url")});
  event.status = lenient_status(first_of({text(run, "status"), event.action == "recover" ? "success" : event.action}));
  event.action.clear();
  event.title = first_of({name, "Workflow"}) + (number.empty() ? "" : " #" + number);
  event.url = text(run, "html_url");
  set_ref(event, text(run, "prettyref"), text(run, "repository", "default_branch"));
  event.commit = text(run, "commit_sha");
  event.commit_title = first_line(text(run, "title"));
  event.actor = person(at(run, "trigger_user"));
  event.actor_login = text(run, "trigger_user", "login");
  event.duration_s = seconds_between(text(run, "started"), text(run, "stopped"));
  if (!id(run, "id").empty()) event.subject = "pipeline/" + event.project + '/' + id(run, "id");
  event.history_key = "pipeline/" + event.project + '/' + event.branch + '/' + name;
  return event;
}

Parsed check(const Delivery& delivery) {
  const bool suite = at(delivery.body, "check_suite").is_object();
  const Json& check = suite ? at(delivery.body, "check_suite") : at(delivery.body, "check_run");
  if (text(check, "app", "slug") == "github-actions") return Dropped{"workflow_run tells it"};
  Event event = common(delivery, "check", false);
  const std::string name = first_of({first_line(text(check, "name")), text(check, "app", "name"), "Check"});
  event.title = name;
  event.status = state_of(check);
  event.url = first_of({text(check, "html_url"), text(check, "details_url"), event.project_url});
  set_ref(event, first_of({text(check, "head_branch"), text(check, "check_suite", "head_branch")}), default_branch(delivery));
  event.commit = text(check, "head_sha");
  event.commit_title = first_line(text(check, "head_commit", "message"));
  event.text = text(check, "output", "title");
  event.duration_s = seconds_between(text(check, "started_at"), text(check, "completed_at"));
  if (!id(check, "id").empty()) event.subject = (suite ? "suite/" : "check/") + event.project + '/' + id(check, "id");
  event.history_key = (suite ? "suite/" : "check/") + event.project + '/' + event.branch + '/' + name;
  return event;
}

/// The old way of a CI system to say how a commit did.
Parsed commit_status(const Delivery& delivery) {
  const Json& body = delivery.body;
  Event event = common(delivery, "check");
  const Json& branches = list(body, "branches");
  const std::string name = first_of({text(body, "context"), "Check"});
  event.title = name;
  event.status = lenient_status(text(body, "state"));
  event.url = first_of({text(body, "target_url"), event.project_url});
  event.commit = first_of({text(body, "sha"), text(body, "commit", "sha")});
  event.commit_title = first_line(text(body, "commit", "commit", "message"));
  event.text = text(body, "description");
  if (branches.size() == 1) set_ref(event, text(branches[0], "name"), default_branch(delivery));
  event.subject = "status/" + event.project + '/' + event.commit + '/' + name;
  if (!event.branch.empty()) event.history_key = "status/" + event.project + '/' + event.branch + '/' + name;
  return event;
}

Parsed deployment_status(const Delivery& delivery) {
  const Json &status = at(delivery.body, "deployment_status"), &deployment = at(delivery.body, "deployment");
  const std::string state = text(status, "state"), environment = first_of({text(status, "environment"), text(deployment, "environment")});
  if (state == "inactive") return Dropped{"no news"};  // a newer one took its place
  Event event = common(delivery, "deployment", false);
  event.status = lenient_status(state);
  event.title = "Deployment" + (environment.empty() ? "" : " to " + environment);
  event.text = text(status, "description");
  event.url = first_of({text(status, "log_url"), text(status, "target_url"), event.project_url});
  event.commit = text(deployment, "sha");
  set_ref(event, text(deployment, "ref"), default_branch(delivery));
  add_fact(event, "Environment", environment);
  add_fact(event, "Address", text(status, "environment_url"));
  if (!id(deployment, "id").empty()) event.subject = "deployment/" + event.project + '/' + id(deployment, "id");
  event.history_key = "deployment/" + event.project + '/' + environment;
  return event;
}

/// Code scanning, Dependabot, secret scanning.
Parsed security_alert(const Delivery& delivery) {
  const Json& alert = at(delivery.body, "alert");
  Event event = common(delivery, "vulnerability");
  if (event.action.starts_with("assign") || event.action.starts_with("unassign") || event.action == "updated_assignment") {
    return Dropped{"no news"};
  }
  const std::string title = first_line(first_of({text(alert, "security_advisory", "summary"), text(alert, "rule", "description"),
                                                 text(alert, "secret_type_display_name"), text(alert, "secret_type"), "Security alert"}));
  event.security = true;
  event.status = event.action == "fixed" || event.action == "resolved" || event.action == "closed_by_user" ? Status::success
                 : event.action.ends_with("dismissed") ? Status::none : Status::failed;
  event.action = lower_words(event.action);
  const std::string number = id(alert, "number");
  if (!text(alert, "secret_type").empty() || !text(alert, "secret_type_display_name").empty()) {
    event.title = "Leaked secret: " + title + (number.empty() ? "" : " (#" + number + ')');
  } else {
    const bool dependency = at(alert, "security_advisory").is_object() || at(alert, "dependency").is_object();
    event.title = (dependency ? "Dependabot alert" : "Code scanning alert") + (number.empty() ? "" : " #" + number) + ": " + title;
  }
  event.url = text(alert, "html_url");
  set_ref(event, first_of({text(delivery.body, "ref"), text(alert, "most_recent_instance", "ref")}), default_branch(delivery));
  event.commit = text(delivery.body, "commit_oid");
  if (event.action == "resolved" || event.action == "closed by user") add_fact(event, "Closed by", event.actor);
  add_fact(event, "Severity", first_of({text(alert, "security_advisory", "severity"), text(alert, "rule", "security_severity_level"),
                                        text(alert, "rule", "severity")}));
  add_fact(event, "Package", text(alert, "dependency", "package", "name"));
  add_fact(event, "Identifier", first_of({text(alert, "security_advisory", "cve_id"), text(alert, "rule", "id")}));
  add_fact(event, "Found by", text(alert, "tool", "name"));
  add_fact(event, "File", first_of({text(alert, "most_recent_instance", "location", "path"), text(alert, "dependency", "manifest_path")}));
  if (!event.url.empty()) event.subject = "vulnerability/" + event.url;
  return event;
}

Parsed package(const Delivery& delivery) {
  const Json& package = at(delivery.body, "package").is_object() ? at(delivery.body, "package") : at(delivery.body, "registry_package");
  Event event = common(delivery, "artifact");
  event.project = first_of({event.project, text(package, "repository", "full_name"), text(package, "owner", "login")});
  const std::string version = first_of({text(package, "version"), text(package, "package_version", "version")});
  event.title = "Package " + text(package, "name") + (version.empty() ? "" : " " + version);
  event.url = first_of({text(package, "package_version", "html_url"), text(package, "html_url")});
  add_fact(event, "Type", lower_words(first_of({text(package, "type"), text(package, "package_type"), text(package, "ecosystem")})));
  return event;
}

Parsed wiki(const Delivery& delivery) {
  Event event = common(delivery, "wiki");
  const Json& pages = list(delivery.body, "pages");  // GitHub's gollum
  const Json& page = pages.empty() ? delivery.body : pages[0];
  event.title = "Wiki page " + first_of({text(page, "title"), text(page, "page")});
  event.action = first_of({text(page, "action"), event.action});
  event.url = first_of({text(page, "html_url"), event.project_url.empty() ? "" : event.project_url + "/wiki"});
  event.text = first_of({text(page, "summary"), text(page, "comment")});
  return event;
}

struct Row {
  std::string_view name;
  Parsed (*parse)(const Delivery&);
  const char* dropped = nullptr;  // always, for this
};
constexpr Row rows[] = {
    {"push", push}, {"create", nullptr, "push tells it"}, {"delete", deleted}, {"ping", nullptr, "ping"},
    {"pull_request", pull_request}, {"pull_request_sync", pull_request}, {"pull_request_review", review}, {"pull_request_approved", review},
    {"pull_request_rejected", review}, {"pull_request_comment", comment}, {"pull_request_review_comment", comment},
    {"issues", issues}, {"issue_comment", comment}, {"commit_comment", comment}, {"release", release},
    {"workflow_run", workflow_run}, {"workflow_job", nullptr, "workflow_run tells it"}, {"action_run_success", action_run},
    {"action_run_failure", action_run}, {"action_run_recover", action_run}, {"check_run", check}, {"check_suite", check}, {"status", commit_status},
    {"deployment", nullptr, "deployment_status tells it"}, {"deployment_status", deployment_status}, {"code_scanning_alert", security_alert},
    {"dependabot_alert", security_alert}, {"secret_scanning_alert", security_alert}, {"package", package}, {"registry_package", package},
    {"wiki", wiki}, {"gollum", wiki},
};

/// The first of these headers that is there: Gitea and Forgejo send those of their ancestors, too.
std::string forge_header(const Arrival& arrival, const std::string& what) {
  if (arrival.format == Format::github) return header(arrival, "x-github-" + what);
  return first_of({header(arrival, "x-forgejo-" + what), header(arrival, "x-gitea-" + what), header(arrival, "x-gogs-" + what),
                   header(arrival, "x-github-" + what)});
}

}  // namespace

Parsed parse_forge(const Arrival& arrival) {
  const std::string kind = forge_header(arrival, "event");
  const bool github = arrival.format == Format::github;
  if (kind.empty()) return Malformed{github ? "this is not a GitHub webhook: no X-GitHub-Event" : "this is not a Gitea webhook: no X-Gitea-Event"};
  Parsed parsed = Dropped{"unknown kind"};
  for (const Row& row : rows) {
    if (row.name == kind) parsed = row.dropped ? Parsed(Dropped{row.dropped}) : row.parse({arrival.body, github});
  }
  if (auto* event = std::get_if<Event>(&parsed)) {
    event->dedup_key = forge_header(arrival, "delivery");
    if (event->commit_url.empty() && !event->commit.empty() && !event->project_url.empty()) {
      event->commit_url = event->project_url + "/commit/" + percent_encoded(event->commit);
    }
  }
  return parsed;
}

}  // namespace radiotower::notifier
