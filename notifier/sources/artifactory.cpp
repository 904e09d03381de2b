// Artifactory and the rest of the JFrog platform: {domain, event_type, data}; some versions name the domain "destination".
//
// Kinds made: artifact (also its properties), image, build, bundle (release bundles of both versions, their promotion and distribution).
// Dropped: "unknown kind".
#include "notifier/sources/fields.h"

namespace radiotower::notifier {

namespace {

struct Domain {
  std::string_view name;
  const char* kind;
};
constexpr Domain domains[] = {
    {"artifact", "artifact"}, {"artifact_property", "artifact"}, {"artifact_lifecycle", "artifact"}, {"docker", "image"}, {"build", "build"},
    {"release_bundle", "bundle"}, {"release_bundle_v2", "bundle"}, {"release_bundle_v2_promotion", "bundle"}, {"distribution", "bundle"},
    {"destination", "bundle"}, {"artifactory_release_bundle", "bundle"},
};

/// The last word of "release_bundle_v2_promotion_completed"; most events have no state.
Status state_of(const std::string& type) {
  const std::string last = type.substr(type.rfind('_') + 1);
  return last == "completed" || last == "failed" || last == "started" || last == "aborted" ? lenient_status(last) : Status::none;
}

void set_artifact(Event& event, const Json& data, const std::string& origin) {
  const std::string path = first_of({text(data, "path"), text(data, "name")});
  event.project = text(data, "repo_key");
  event.title = first_of({path, "an artifact"});
  // jpd_origin is the platform's address, with or without Artifactory's own path.
  if (!origin.empty() && !event.project.empty() && !path.empty() && event.action != "deleted") {
    event.url = origin + (origin.ends_with("/artifactory") ? "/" : "/artifactory/") + percent_encoded(event.project) + '/' + percent_encoded(path);
  }
  add_fact(event, "From", text(data, "source_repo_path"));
  add_fact(event, "To", text(data, "target_repo_path"));
  const std::string property = text(data, "property_key"), values = joined(list(data, "property_values"), nullptr);
  if (!property.empty()) event.action = "property " + event.action, add_fact(event, "Property", property + (values.empty() ? "" : " = " + values));
}

}  // namespace

Parsed parse_artifactory(const Arrival& arrival) {
  const Json& body = arrival.body;
  const std::string type = text(body, "event_type"), domain = first_of({text(body, "domain"), text(body, "destination")});
  if (type.empty()) return Malformed{"this is not a webhook of JFrog: no event_type"};
  Event event;
  for (const Domain& row : domains) {
    if (row.name == domain) event.kind = row.kind;
  }
  if (event.kind.empty()) return Dropped{"unknown kind"};
  const Json& data = at(body, "data");
  std::string origin = text(body, "jpd_origin"), once;
  while (origin.ends_with('/')) origin.pop_back();
  constexpr std::string_view bundle_prefix = "release_bundle_v2_";
  event.action = lower_words(type.starts_with(bundle_prefix) ? type.substr(bundle_prefix.size()) : type);
  event.status = state_of(type);
  if (event.kind == "artifact") {
    set_artifact(event, data, origin);
  } else if (event.kind == "image") {
    const std::string tag = text(data, "tag");
    event.project = text(data, "repo_key");
    event.title = first_of({text(data, "image_name"), text(data, "name"), "an image"}) + (tag.empty() ? "" : ":" + tag);
    for (const Json& platform : list(data, "platforms")) {
      add_fact(event, "Platform", text(platform, "os") + '/' + text(platform, "architecture"));
    }
  } else if (event.kind == "build") {
    event.project = text(data, "build_name");
    event.title = "Build #" + first_of({id(data, "build_number"), "?"});
    if (event.action == "uploaded") once = text(data, "build_started");  // a number of a build is given once
  } else {
    const std::string version = id(data, "release_bundle_version"), transaction = id(data, "transaction_id");
    event.project = text(data, "release_bundle_name");
    event.title = "Release bundle" + (version.empty() ? "" : " " + version);
    add_fact(event, "Environment", first_of({text(data, "target_environment"), text(data, "environment")}));
    std::string nodes;
    for (const Json& node : list(data, "edge_node_info_list")) {
      if (const std::string name = text(node, "edge_node_name"); !name.empty()) nodes += (nodes.empty() ? "" : ", ") + name;
    }
    add_fact(event, "To", nodes);
    once = first_of({transaction, id(data, "created"), id(data, "promotion_created"), id(data, "promotion_created_millis")});
    if (event.status != Status::none) event.subject = "bundle/" + domain + '/' + event.project + '/' + version + '/' + once;
    if (event.status != Status::none) {
      // That a bundle could be distributed says nothing about its deletion.
      event.history_key = "bundle/" + domain + '/' + event.action.substr(0, event.action.rfind(' ') + 1) + '/' + event.project;
    }
    if (event.status == Status::failed) event.text = text(data, "status_message");
  }
  // JFrog gives its deliveries no identity. Two that are alike to the byte are one only where something in them happens but once: the
  // same tag may be pushed, moved away and pushed again.
  if (!once.empty()) event.dedup_key = sha256_hex(arrival.raw);
  return event;
}

}  // namespace radiotower::notifier
