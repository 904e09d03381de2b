// SonarQube: one webhook after each analysis, and after each change of an issue that turns the gate.
//
// Kind made: gate. Dropped: "no gate": an analysis of a project without a quality gate.
#include <array>
#include <cmath>
#include <cstdio>

#include "notifier/sources/fields.h"

namespace radiotower::notifier {

namespace {

/// "89.39828080229226" -> "89.4"; ratings are letters: 1 is A.
std::string value_of(const std::string& metric, const Json& json) {
  const auto value = number(json);
  if (!value) return text(json);
  if (metric.ends_with("_rating") && *value >= 1 && *value <= 5) return std::string(1, "ABCDE"[static_cast<int>(*value) - 1]);
  if (std::abs(*value) > 1e12) return id(json);
  std::array<char, 32> out{};
  const int size = std::snprintf(out.data(), out.size(), "%.10g", std::round(*value * 100) / 100);
  return {out.data(), static_cast<std::size_t>(size)};
}

Item condition_item(const Json& condition) {
  const std::string metric = text(condition, "metric"), state = text(condition, "status");
  Item item{lower_words(metric), "", "", state == "ERROR" ? Status::failed : Status::unstable};
  if (item.name.starts_with("new ")) item.name = item.name.substr(4) + " on new code";
  const std::string value = value_of(metric, at(condition, "value"));
  const char* const threshold_key = at(condition, "errorThreshold").is_null() ? "warningThreshold" : "errorThreshold";
  const std::string threshold = value_of(metric, at(condition, threshold_key));
  const std::string wanted = text(condition, "operator");  // what makes it fail: LT is "the value is less than the threshold"
  const bool rating = metric.ends_with("_rating");
  const char* const wish = wanted == "LESS_THAN" || wanted == "LT" ? ", required at least "
                           : wanted == "GREATER_THAN" || wanted == "GT" ? (rating ? ", required " : ", allowed at most ")
                           : wanted == "EQUALS" || wanted == "EQ" ? ", must not be "
                           : wanted == "NOT_EQUALS" || wanted == "NE" ? ", required " : ", threshold ";
  item.detail = value.empty() ? "" : threshold.empty() ? value : value + wish + threshold;
  if (rating && threshold > "A" && threshold < "E" && wish == std::string_view(", required ")) item.detail += " or better";
  return item;
}

}  // namespace

Parsed parse_sonarqube(const Arrival& arrival) {
  const Json& body = arrival.body;
  const std::string task = text(body, "status"), key = text(body, "project", "key"), gate = text(body, "qualityGate", "status");
  if (key.empty() && gate.empty()) return Malformed{"this is not a SonarQube webhook: neither project.key nor qualityGate"};
  if (gate.empty() && task != "FAILED" && task != "CANCELED") return Dropped{"no gate"};
  Event event;
  event.kind = "gate";
  event.status = gate.empty() ? lenient_status(task) : lenient_status(gate);
  event.project = first_of({key, text(body, "project", "name")});
  event.project_url = text(body, "project", "url");
  event.url = first_of({text(body, "branch", "url"), event.project_url, text(body, "serverUrl")});
  event.commit = text(body, "revision");
  const std::string name = first_line(text(body, "qualityGate", "name")), branch = text(body, "branch", "name");
  event.title = gate.empty() ? "Analysis" : "Quality gate" + (name.empty() ? "" : " " + name);
  if (lower_words(text(body, "project", "name")) != lower_words(key)) add_fact(event, "Name", text(body, "project", "name"));
  const bool pull_request = text(body, "branch", "type") == "PULL_REQUEST";
  if (pull_request) {  // its "name" is the number; the branch is not told
    event.on_default_branch = false;
    add_fact(event, "Pull request", branch);
  } else {
    event.branch = branch;
    if (const Json& main = at(body, "branch", "isMain"); main.is_boolean()) event.on_default_branch = main.get<bool>();
  }
  for (const Json& condition : list(body, "qualityGate", "conditions")) {
    const std::string state = text(condition, "status");
    if (state == "ERROR" || state == "WARN") event.items.push_back(condition_item(condition));
  }
  const std::string where = key + (pull_request ? "/pull request/" : "/") + branch;
  event.history_key = "gate/" + where;
  // The task is one analysis. A person's change of an issue has none; then the time of the change is the delivery's own.
  if (const std::string id = text(body, "taskId"); !id.empty()) event.dedup_key = id + '/' + task + '/' + gate;
  else if (!text(body, "changedAt").empty()) event.dedup_key = where + '/' + text(body, "changedAt") + '/' + gate;
  return event;
}

}  // namespace radiotower::notifier
