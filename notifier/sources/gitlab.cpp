// GitLab: webhooks of projects and groups, and system hooks. What a body is stands in object_kind, or in event_name where there is none.
//
// Kinds made: pipeline, job, push, tag, merge_request, note, issue (also work items), deployment, release, wiki, feature_flag, emoji,
// milestone, vulnerability (security), access_token, member, group, project; the small ones are in gitlab_small.cpp.
// Dropped: "unknown kind"; "child pipeline"; "no news": a merge request or an issue that was edited without a new commit, notes that GitLab
// wrote itself, project_update; "push tells it": repository_update.
// Of what is confidential nothing is taken over that somebody wrote: a channel has other readers than the issue.
#include "notifier/sources/fields.h"

namespace radiotower::notifier {

namespace {

const Json& attributes(const Json& body) { return at(body, "object_attributes"); }

void set_commit(Event& event, const Json& commit) {
  event.commit = text(commit, "id");
  event.commit_title = first_of({first_line(text(commit, "title")), first_line(text(commit, "message"))});
  event.commit_url = text(commit, "url");
  event.author = text(commit, "author", "name");
  event.author_email = text(commit, "author", "email");
}

/// Where on the server: two projects may have the same number.
std::string place(const Event& event) { return first_of({event.project_url, event.project}) + '/'; }

std::string numbered(const char* sign, const Json& json) {
  const std::string title = first_line(text(json, "title"));
  return sign + first_of({id(json, "iid"), id(json, "id"), "?"}) + (title.empty() ? "" : " " + title);
}

std::string failure_reason(const Json& json, const char* key) {
  const std::string reason = text(json, key);
  return reason == "unknown_failure" ? std::string() : blanks_for_underscores(reason);
}

/// Of pipelines and jobs: here "created" is a state, the first.
Status status_here(const std::string& word) { return word == "created" ? Status::pending : lenient_status(word); }

Parsed pipeline(const Json& body) {
  const Json& pipeline = attributes(body);
  // One pipeline of a monorepo may have dozens of children, each with all its states: channels drown in them. The parent's own jobs
  // ("trigger" with strategy: depend) carry their outcome, so the parent tells.
  if (text(pipeline, "source") == "parent_pipeline") return Dropped{"child pipeline"};
  Event event = gitlab_common(body, "pipeline");
  const std::string number = id(pipeline, "id"), default_branch = text(body, "project", "default_branch");
  event.action.clear();
  event.status = status_here(text(pipeline, "status"));
  event.title = "Pipeline" + (number.empty() ? "" : " #" + number);
  if (event.url.empty() && !event.project_url.empty() && !number.empty()) event.url = event.project_url + "/-/pipelines/" + number;
  event.duration_s = notifier::number(pipeline, "duration");
  set_ref(event, text(pipeline, "ref"), default_branch);
  if (flag(pipeline, "tag")) event.is_tag = true, event.on_default_branch = false;
  set_commit(event, at(body, "commit"));
  if (event.commit.empty()) event.commit = text(pipeline, "sha");

  // A pipeline of a merge request runs on refs/merge-requests/N/head (or merge, train), or names the source branch: never the default one.
  const Json& request = at(body, "merge_request");
  constexpr std::string_view requests = "refs/merge-requests/";
  const bool detached = event.branch.starts_with(requests);
  std::string request_number = id(request, "iid");
  if (detached) {
    if (request_number.empty()) request_number = event.branch.substr(requests.size(), event.branch.find('/', requests.size()) - requests.size());
    event.branch.clear();
  }
  if (request.is_object()) {
    event.branch = first_of({text(request, "source_branch"), event.branch});
    event.target_branch = text(request, "target_branch");
  }
  const bool of_request = detached || request.is_object() || text(pipeline, "source") == "merge_request_event";
  if (of_request) event.on_default_branch = false;
  if (!request_number.empty()) {
    const std::string built = event.project_url.empty() ? "" : event.project_url + "/-/merge_requests/" + percent_encoded(request_number);
    add_link(event, "Merge request", "!" + request_number, first_of({text(request, "url"), built}));
  }

  for (const Json& build : list(body, "builds")) {
    if (text(build, "status") != "failed") continue;
    Item item{text(build, "name"), "", failure_reason(build, "failure_reason"), Status::failed};
    if (flag(build, "allow_failure")) {
      item.status = Status::unstable;
      item.detail += item.detail.empty() ? "allowed to fail" : " (allowed to fail)";
    }
    if (!event.project_url.empty() && !id(build, "id").empty()) item.url = event.project_url + "/-/jobs/" + id(build, "id");
    event.items.push_back(std::move(item));
  }
  const std::string name = text(pipeline, "name"), source = text(pipeline, "source");
  add_fact(event, "Name", name);
  if (source != "push" && source != "merge_request_event") add_fact(event, "Trigger", lower_words(source));
  if (!number.empty()) event.subject = "pipeline/" + place(event) + number;
  event.history_key = "pipeline/" + place(event) + (of_request ? "!" + request_number + '/' : "") + event.branch + '/' + name;
  return event;
}

Parsed job(const Json& body) {
  Event event = gitlab_common(body, "job");
  const std::string name = text(body, "build_name"), number = id(body, "build_id"), stage = text(body, "build_stage");
  event.action.clear();
  event.status = status_here(text(body, "build_status"));
  event.title = "Job " + first_of({name, "#" + number});
  if (!event.project_url.empty() && !number.empty()) event.url = event.project_url + "/-/jobs/" + number;
  event.duration_s = notifier::number(body, "build_duration");
  set_ref(event, text(body, "ref"), text(body, "project", "default_branch"));
  if (flag(body, "tag")) event.is_tag = true, event.on_default_branch = false;
  event.commit = text(body, "sha");  // commit.id is the number of the pipeline
  event.commit_title = first_line(text(body, "commit", "message"));
  event.author = text(body, "commit", "author_name");
  event.author_email = text(body, "commit", "author_email");
  add_fact(event, "Stage", stage);
  add_fact(event, "Environment", text(body, "environment", "name"));
  if (const std::string pipeline = id(body, "pipeline_id"); !pipeline.empty()) {
    add_link(event, "Pipeline", "#" + pipeline, event.project_url.empty() ? "" : event.project_url + "/-/pipelines/" + pipeline);
  }
  if (event.status == Status::failed) {
    add_fact(event, "Reason", failure_reason(body, "build_failure_reason"));
    if (flag(body, "build_allow_failure")) event.status = Status::unstable;
  }
  if (!number.empty()) event.subject = "job/" + place(event) + number;
  event.history_key = "job/" + place(event) + event.branch + '/' + stage + '/' + name;
  return event;
}

Parsed push(const Json& body) {
  const std::string ref = text(body, "ref"), before = text(body, "before"), after = text(body, "after");
  const bool tag = text(body, "object_kind") == "tag_push" || text(body, "event_name") == "tag_push" || ref.starts_with("refs/tags/");
  Event event = gitlab_common(body, tag ? "tag" : "push");
  const std::size_t total = std::max(whole(number(body, "total_commits_count")), list(body, "commits").size());
  set_ref(event, ref, text(body, "project", "default_branch"));
  if (tag) event.is_tag = true, event.on_default_branch = false;
  event.action = is_zero_sha(after) ? "deleted" : is_zero_sha(before) ? "created" : "pushed";
  event.title = push_title(event, total);
  if (tag) event.text = text(body, "message");
  if (event.action == "deleted") {
    event.url = event.project_url;
  } else {
    set_commits(event, list(body, "commits"), first_of({text(body, "checkout_sha"), after}), tag ? 0 : total);
    if (tag) event.items.clear(), event.items_total = 0;  // the commit that the tag is on, not news
    const bool compare = event.action == "pushed" && !tag;
    if (!event.project_url.empty()) {
      event.url = event.project_url + (compare ? "/-/compare/" + percent_encoded(before) + "..." + percent_encoded(after)
                                               : (tag ? "/-/tags/" : "/-/tree/") + percent_encoded(event.branch));
    }
  }
  return event;
}

Parsed merge_request(const Json& body) {
  const Json& request = attributes(body);
  Event event = gitlab_common(body, "merge_request");
  if (event.action == "update" && text(request, "oldrev").empty()) return Dropped{"no news"};
  event.title = numbered("!", request);
  set_commit(event, at(request, "last_commit"));
  set_ref(event, text(request, "source_branch"), "");
  event.on_default_branch = false;  // a fork's branch may have the default one's name
  event.target_branch = text(request, "target_branch");
  if (flag(request, "draft") || flag(request, "work_in_progress")) add_fact(event, "Draft", "yes");
  add_fact(event, "Assignees", joined(list(body, "assignees"), "name"));
  add_fact(event, "Reviewers", joined(list(body, "reviewers"), "name"));
  return event;
}

/// "#5 The pump drips", "confidential issue #5", "!7 Add the pump", "commit 0a1b2c3d Fix it", "snippet $3 ...": what is talked about.
std::string topic(const Json& body, bool& confidential) {
  const Json& issue = at(body, "issue");
  if (flag(issue, "confidential")) confidential = true;
  if (issue.is_object()) return confidential ? "confidential issue #" + first_of({id(issue, "iid"), id(issue, "id"), "?"}) : numbered("#", issue);
  if (at(body, "merge_request").is_object()) return numbered("!", at(body, "merge_request"));
  if (at(body, "snippet").is_object()) return "snippet " + numbered("$", at(body, "snippet"));
  const Json& commit = at(body, "commit");
  const std::string title = first_of({first_line(text(commit, "title")), first_line(text(commit, "message"))});
  if (commit.is_object()) return "commit " + short_sha(text(commit, "id")) + (title.empty() ? "" : " " + title);
  return first_of({lower_words(text(body, "object_attributes", "noteable_type")), lower_words(text(body, "object_attributes", "awardable_type"))});
}

Parsed note(const Json& body) {
  const Json& note = attributes(body);
  if (flag(note, "system")) return Dropped{"no news"};
  Event event = gitlab_common(body, "note");
  bool confidential = text(body, "event_type") == "confidential_note" || flag(note, "confidential") || flag(note, "internal");
  const std::string about = topic(body, confidential);
  event.title = about.empty() ? "something" : about;
  if (confidential) {
    // An internal note on a public issue or merge request: the topic is public, but who may read what is not worth a guess.
    if (!about.starts_with("confidential issue")) event.title = "something confidential";
    return event;
  }
  event.text = text(note, "note");
  if (const Json& request = at(body, "merge_request"); request.is_object()) {
    set_ref(event, text(request, "source_branch"), "");
    event.target_branch = text(request, "target_branch");
  } else if (at(body, "commit").is_object()) {
    set_commit(event, at(body, "commit"));
  }
  return event;
}

Parsed issue(const Json& body) {
  const Json& issue = attributes(body);
  Event event = gitlab_common(body, "issue");
  if (event.action == "update") return Dropped{"no news"};
  if (flag(issue, "confidential") || text(body, "event_type").starts_with("confidential")) {
    event.title = "Confidential issue #" + first_of({id(issue, "iid"), id(issue, "id"), "?"});
    return event;
  }
  event.title = numbered("#", issue);
  if (event.action == "open") event.text = text(issue, "description");
  if (text(issue, "type") != "Issue") add_fact(event, "Type", text(issue, "type"));
  if (text(issue, "severity") != "unknown") add_fact(event, "Severity", text(issue, "severity"));
  add_fact(event, "Assignees", joined(list(body, "assignees"), "name"));
  add_fact(event, "Labels", joined(list(body, "labels"), "title"));
  return event;
}

Parsed deployment(const Json& body) {
  Event event = gitlab_common(body, "deployment");
  const std::string environment = text(body, "environment"), number = id(body, "deployment_id"), commit_url = text(body, "commit_url");
  event.action.clear();
  event.status = status_here(text(body, "status"));
  event.title = "Deployment" + (environment.empty() ? "" : " to " + environment);
  event.url = text(body, "deployable_url");  // null when it was made through the API
  if (event.url.empty() && !event.project_url.empty()) event.url = event.project_url + "/-/environments";
  set_ref(event, text(body, "ref"), text(body, "project", "default_branch"));
  event.commit = first_of({commit_url.substr(commit_url.rfind('/') + 1), text(body, "short_sha")});
  event.commit_title = text(body, "commit_title");
  event.commit_url = commit_url;
  add_fact(event, "Environment", environment);
  add_fact(event, "Tier", text(body, "environment_tier"));
  add_fact(event, "Address", text(body, "environment_external_url"));
  if (!number.empty()) event.subject = "deployment/" + place(event) + number;
  event.history_key = "deployment/" + place(event) + environment;
  return event;
}

Parsed release(const Json& body) {
  Event event = gitlab_common(body, "release");
  const std::string name = text(body, "name"), tag = text(body, "tag");
  event.title = "Release " + first_of({name, tag});
  event.url = text(body, "url");
  event.text = text(body, "description");
  set_ref(event, tag.empty() ? "" : "refs/tags/" + tag, "");
  set_commit(event, at(body, "commit"));
  return event;
}

Parsed vulnerability(const Json& body) {
  const Json& finding = attributes(body);
  Event event = gitlab_common(body, "vulnerability");
  const std::string state = text(finding, "state");
  event.security = true;
  event.action = state;
  event.status = state == "resolved" ? Status::success : state == "dismissed" ? Status::none : Status::failed;
  event.title = "Vulnerability: " + first_of({first_line(text(finding, "title")), "without a title"});
  add_fact(event, "Severity", text(finding, "severity"));
  add_fact(event, "Found by", lower_words(text(finding, "report_type")));
  for (const Json& identifier : list(finding, "identifiers")) {
    if (lower_words(text(identifier, "external_type")) == "cve") add_fact(event, "Identifier", text(identifier, "name"));
  }
  add_fact(event, "File", text(finding, "location", "file"));
  add_fact(event, "Package", first_line(text(finding, "location", "dependency", "package", "name") + ' ' +
                                        text(finding, "location", "dependency", "version")));
  if (!event.url.empty()) event.subject = "vulnerability/" + event.url;
  return event;
}

Parsed emoji(const Json& body) {
  Event event = gitlab_common(body, "emoji");
  bool confidential = flag(body, "note", "confidential") || flag(body, "note", "internal");
  const std::string about = topic(body, confidential), name = text(body, "object_attributes", "name");
  event.title = name + (confidential && !at(body, "issue").is_object() ? "" : (event.action == "revoke" ? " from " : " to ") + about);
  event.url = text(body, "object_attributes", "awarded_on_url");
  return event;
}

struct ObjectKind {
  std::string_view name;
  Parsed (*parse)(const Json&);
};
constexpr ObjectKind object_kinds[] = {
    {"push", push}, {"tag_push", push}, {"pipeline", pipeline}, {"build", job}, {"job", job}, {"merge_request", merge_request},
    {"note", note}, {"issue", issue}, {"work_item", issue}, {"deployment", deployment}, {"release", release},
    {"emoji", emoji}, {"vulnerability", vulnerability},
};

/// Idempotency-Key (17.4) and webhook-id (19.0) are one a delivery, and the same when it is sent again. X-Gitlab-Event-UUID is shared by
/// all that one request set off: it needs the hook, the thing and its state beside it. webhook-id goes first: where there is a signature it
/// is signed, so that a delivery somebody caught cannot be new again under another key.
std::string delivery_key(const Arrival& arrival) {
  const std::string key = first_of({header(arrival, "webhook-id"), header(arrival, "idempotency-key")});
  const std::string event = header(arrival, "x-gitlab-event-uuid");
  if (!key.empty() || event.empty()) return key;
  const Json& body = arrival.body;
  return event + '/' + header(arrival, "x-gitlab-webhook-uuid") + '/' + first_of({text(body, "object_kind"), text(body, "event_name")}) + '/' +
         first_of({id(body, "object_attributes", "id"), id(body, "build_id"), id(body, "deployment_id"), id(body, "id"), text(body, "ref")}) + '/' +
         first_of({text(body, "object_attributes", "status"), text(body, "build_status"), text(body, "status"), text(body, "after")});
}

}  // namespace

Parsed parse_gitlab(const Arrival& arrival) {
  const std::string event_name = text(arrival.body, "event_name"), kind = first_of({text(arrival.body, "object_kind"), event_name});
  if (kind.empty()) return Malformed{"this is not a GitLab webhook: neither object_kind nor event_name"};
  Parsed parsed = gitlab_small(arrival.body);
  for (const ObjectKind& row : object_kinds) {
    if (row.name == kind) parsed = row.parse(arrival.body);
  }
  if (auto* event = std::get_if<Event>(&parsed)) event->dedup_key = delivery_key(arrival);
  return parsed;
}

}  // namespace radiotower::notifier
