// Jenkins: what its Notification, Generic Event, Outbound WebHook, Statistics Gatherer and Mattermost plugins send, and the small JSON
// that a Jenkinsfile sends with curl or httpRequest.
//
// Kind made: build (and message, for what is Slack-shaped). Dropped: "unknown kind": events that are no build's; "no news": a deleted build.
// COMPLETED and FINALIZED are one piece of news: they share a key, so the first that comes is posted and the other is a duplicate.
#include "notifier/sources/fields.h"

namespace radiotower::notifier {

namespace {

/// The names in "https://jenkins/view/x/job/team/job/app/job/feature%252Fx/42/", decoded once: team, app, "feature%2Fx".
std::vector<std::string> job_names(std::string url) {
  std::vector<std::string> segments, names;
  if (const auto scheme = url.find("://"); scheme != url.npos) url.erase(0, std::min(url.find('/', scheme + 3), url.size()));
  for (std::size_t from = 0; from < url.size();) {
    const auto end = std::min(url.find('/', from), url.size());
    if (end > from) segments.push_back(url.substr(from, end - from));
    from = end + 1;
  }
  for (std::size_t i = 0; i + 1 < segments.size(); ++i) {
    if (segments[i] == "job") names.push_back(percent_decoded(segments[++i]));
  }
  return names;
}

std::string without_remote(std::string branch) {
  for (const std::string_view prefix : {"refs/remotes/", "refs/heads/", "origin/", "*/"}) {
    if (branch.starts_with(prefix)) branch.erase(0, prefix.size());
  }
  return branch;
}

/// Project and branch. In a multibranch project the last job is the branch: the plugin says so, or its name is the branch that was checked
/// out, or it holds an encoded slash, which no other job can.
void set_job(Event& event, std::vector<std::string> names, const std::string& scm_branch, bool multibranch) {
  event.branch = without_remote(scm_branch);
  if (names.size() > 1) {
    const std::string last = percent_decoded(names.back());
    if (multibranch || last != names.back() || last == event.branch) {
      event.branch = last;
      names.pop_back();
    }
  }
  for (const std::string& name : names) event.project += (event.project.empty() ? "" : "/") + name;
}

void set_number(Event& event, const std::string& number, const std::string& phase) {
  event.title = "Build" + (number.empty() ? "" : " #" + number);
  const std::string build = !event.url.empty() ? event.url : number.empty() ? "" : event.project + '/' + event.branch + '#' + number;
  if (!build.empty()) event.subject = "build/" + build, event.dedup_key = build + ' ' + phase;
  if (!event.project.empty()) event.history_key = "build/" + event.project + '/' + event.branch;
}

constexpr auto final_phase = "final";

/// The log without what a Pipeline writes around each of its steps, and without its last line: the title says how it ended.
std::string without_frame(std::string_view log) {
  std::string out;
  while (!log.empty()) {
    const auto end = std::min(log.find('\n'), log.size() - 1) + 1;
    const std::string_view line = log.substr(0, end);
    if (!line.starts_with("[Pipeline]") && !line.starts_with("Finished: ")) out += line;
    log.remove_prefix(end);
  }
  return out;
}

Parsed notification(const Json& body) {
  const Json& build = at(body, "build");
  const std::string phase = text(build, "phase"), url = text(build, "full_url"), relative = first_of({text(build, "url"), text(body, "url")});
  Event event;
  event.kind = "build";
  event.url = url;
  event.status = phase == "QUEUED" ? Status::pending : phase == "STARTED" ? Status::running : lenient_status(text(build, "status"));
  set_job(event, job_names(first_of({url, relative})), text(build, "scm", "branch"), false);
  if (event.project.empty()) event.project = percent_decoded(text(body, "name"));
  // full_url is missing while nobody has told Jenkins its own URL.
  set_number(event, id(build, "number"), phase == "QUEUED" || phase == "STARTED" ? phase : final_phase);
  event.commit = text(build, "scm", "commit");
  if (const auto ms = number(build, "duration"); ms && *ms > 0) event.duration_s = *ms / 1000;
  const Json& culprits = list(build, "scm", "culprits");
  if (culprits.size() == 1) event.author = text(culprits[0]);
  else add_fact(event, "Changes by", joined(culprits, nullptr));
  event.text = text(build, "notes");
  // The end of the log tells what broke.
  if (event.text.empty() && event.status != Status::success) event.text = last_lines(without_frame(text(build, "log")), 10);
  const Json& tests = at(build, "test_summary");
  if (const std::size_t failed = whole(number(tests, "failed")); failed > 0) {
    const std::string report = url.empty() ? "" : url + (url.ends_with('/') ? "" : "/") + "testReport/";
    add_link(event, "Tests", std::to_string(failed) + " of " + std::to_string(whole(number(tests, "total"))) + " failed", report);
    for (const Json& test : list(tests, "failed_tests")) {
      if (test.is_string()) event.items.push_back({text(test), "", "", Status::failed});
    }
    event.items_total = std::max(failed, event.items.size());
  }
  return event;
}

Parsed generic_event(const Json& body) {
  const std::string type = text(body, "type");
  if (type == "run.deleted") return Dropped{"no news"};
  const bool ended = type == "run.completed" || type == "run.finalized";
  if (!ended && type != "run.initialize" && type != "run.started") return Dropped{"unknown kind"};
  const Json& run = at(body, "data");
  Event event;
  event.kind = "build";
  event.status = ended ? lenient_status(text(run, "result")) : type == "run.started" ? Status::running : Status::pending;
  std::vector<std::string> names = job_names(text(body, "source"));
  if (names.empty()) {
    for (const std::string& name : {text(run, "_parentFullName"), text(run, "_projectName")}) {
      if (!name.empty()) names.push_back(name);
    }
  }
  set_job(event, std::move(names), "", flag(run, "_multiBranch"));
  set_number(event, first_of({id(run, "number"), id(run, "id")}), ended ? final_phase : type);
  if (const auto ms = number(run, "duration"); ended && ms && *ms > 0) event.duration_s = *ms / 1000;
  event.text = text(run, "description");
  return event;
}

Parsed outbound(const Json& body) {
  const std::string what = text(body, "event"), name = text(body, "buildName");
  Event event;
  event.kind = "build";
  event.url = text(body, "buildUrl");
  event.status = lenient_status(what);
  set_job(event, job_names(event.url), "", false);
  if (event.project.empty()) event.project = text(body, "projectName");
  const bool numbered = name.size() > 1 && name[0] == '#' && name.find_first_not_of("0123456789", 1) == name.npos;
  set_number(event, numbered ? name.substr(1) : "", event.status == Status::running ? what : final_phase);
  if (!numbered && !name.empty()) event.title = "Build " + name;
  return event;
}

Parsed statistics(const Json& body) {
  const std::string result = text(body, "result"), server = text(body, "ciUrl");
  if (result.empty() || id(body, "number").empty()) return Dropped{"unknown kind"};  // of a queue, a step, a checkout, a job
  Event event;
  event.kind = "build";
  event.status = lenient_status(result);
  event.url = text(body, "buildUrl");
  if (event.url.find("://") == event.url.npos && !server.empty()) event.url = server + (server.ends_with('/') ? "" : "/") + event.url;
  set_job(event, job_names(event.url), text(body, "scmInfo", "branch"), false);
  if (event.project.empty()) event.project = first_of({text(body, "fullJobName"), text(body, "jobName")});
  set_number(event, id(body, "number"), event.status == Status::running ? "started" : final_phase);
  event.commit = text(body, "scmInfo", "commit");
  event.actor = text(body, "startedUsername");
  event.actor_login = text(body, "startedUserId");
  if (const auto ms = number(body, "duration"); ms && *ms > 0) event.duration_s = *ms / 1000;
  return event;
}

}  // namespace

Parsed parse_jenkins(const Arrival& arrival) {
  const Json& body = arrival.body;
  if (at(body, "build").is_object()) return notification(body);
  if (!text(body, "type").empty() && at(body, "data").is_object()) return generic_event(body);
  if (!text(body, "event").empty() && (!text(body, "buildUrl").empty() || !text(body, "buildName").empty())) return outbound(body);
  if (!text(body, "ciUrl").empty() || !text(body, "fullJobName").empty()) return statistics(body);
  if (at(body, "attachments").is_array()) return parse_slack(arrival);
  if (!is_small_json(body)) return Malformed{"this is no build of Jenkins: neither build, nor type with data, nor project and status"};
  Event event = from_small_json(body);
  event.kind = "build";
  return event;
}

}  // namespace radiotower::notifier
