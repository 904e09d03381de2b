// GitLab's small kinds: wiki pages, feature flags, milestones, access tokens, and what has an event_name alone, with a title and a few
// facts each. Also what all of GitLab's bodies share.
#include "notifier/sources/fields.h"

namespace radiotower::notifier {

namespace {

/// "https://gitlab.city.example/city/pump/-/issues/7" -> "https://gitlab.city.example/city/pump"; empty when it is not such a one.
std::string project_of_url(const std::string& url) {
  const auto dash = url.find("/-/");
  return dash == url.npos ? std::string() : url.substr(0, dash);
}

std::string path_of_url(const std::string& url) {
  const auto host = url.find("://");
  const auto path = host == url.npos ? url.npos : url.find('/', host + 3);
  return path == url.npos ? std::string() : url.substr(path + 1);
}

struct EventName {
  std::string_view name;
  const char *kind, *action;
};
constexpr EventName event_names[] = {
    {"user_add_to_group", "member", "added"}, {"user_add_to_team", "member", "added"},
    {"user_update_for_group", "member", "updated"}, {"user_update_for_team", "member", "updated"},
    {"user_remove_from_group", "member", "removed"}, {"user_remove_from_team", "member", "removed"},
    {"user_access_request_to_group", "member", "access requested"}, {"user_access_request_to_project", "member", "access requested"},
    {"user_access_request_denied_for_group", "member", "access denied"}, {"user_access_request_denied_for_project", "member", "access denied"},
    {"user_access_request_revoked_for_group", "member", "request revoked"}, {"user_access_request_revoked_for_project", "member", "request revoked"},
    {"subgroup_create", "group", "created"}, {"subgroup_destroy", "group", "deleted"},
    {"group_create", "group", "created"}, {"group_destroy", "group", "deleted"}, {"group_rename", "group", "renamed"},
    {"project_create", "project", "created"}, {"project_destroy", "project", "deleted"}, {"project_rename", "project", "renamed"},
    {"project_transfer", "project", "transferred"},
};

Parsed by_event_name(const Json& body) {
  const std::string name = text(body, "event_name");
  if (name == "project_update") return Dropped{"no news"};
  if (name == "repository_update") return Dropped{"push tells it"};
  for (const EventName& row : event_names) {
    if (row.name != name) continue;
    Event event = gitlab_common(body, row.kind);
    event.action = row.action;
    const std::string group = first_of({text(body, "full_path"), text(body, "group_path"), text(body, "path")});
    if (event.kind == "member") {
      event.title = event.actor;
      if (event.project.empty()) event.project = first_of({group, text(body, "group_name")});
      add_fact(event, "Access", first_of({text(body, "group_access"), text(body, "access_level")}));
      add_fact(event, "Expires", text(body, "expires_at"));
    } else if (event.kind == "group") {
      event.project = group;
      event.title = "Group " + first_of({group, text(body, "name")});
      add_fact(event, "Formerly", text(body, "old_full_path"));
    } else {
      event.project = first_of({text(body, "path_with_namespace"), text(body, "path"), text(body, "name")});
      event.title = "Project " + first_of({text(body, "name"), event.project});
      event.actor = text(body, "owner_name");
      add_fact(event, "Formerly", text(body, "old_path_with_namespace"));
      add_fact(event, "Visibility", text(body, "project_visibility"));
    }
    return event;
  }
  return Dropped{"unknown kind"};
}

}  // namespace

Event gitlab_common(const Json& body, const char* kind) {
  Event event;
  event.kind = kind;
  // Jobs have no project object before GitLab 15.11, vulnerabilities have none at all.
  event.project_url = first_of({text(body, "project", "web_url"), text(body, "repository", "homepage"),
                                project_of_url(text(body, "object_attributes", "url"))});
  event.project = first_of({text(body, "project", "path_with_namespace"), text(body, "project_path_with_namespace"),
                            path_of_url(event.project_url), text(body, "project", "name"), text(body, "project_name")});
  event.actor = first_of({text(body, "user", "name"), text(body, "user", "username"), text(body, "user_name"), text(body, "user_username")});
  event.actor_login = first_of({text(body, "user", "username"), text(body, "user_username")});
  event.action = first_of({text(body, "object_attributes", "action"), text(body, "action")});
  event.url = text(body, "object_attributes", "url");
  return event;
}

Parsed gitlab_small(const Json& body) {
  const Json& object = at(body, "object_attributes");
  const std::string kind = text(body, "object_kind"), name = first_line(first_of({text(object, "title"), text(object, "name")}));
  if (kind == "wiki_page") {
    Event event = gitlab_common(body, "wiki");
    event.title = "Wiki page " + name;
    event.text = text(object, "message");
    return event;
  }
  if (kind == "feature_flag") {
    Event event = gitlab_common(body, "feature_flag");
    event.title = "Feature flag " + name;
    event.action = flag(object, "active") ? "on" : "off";
    event.text = text(object, "description");
    if (!event.project_url.empty()) event.url = event.project_url + "/-/feature_flags";
    return event;
  }
  if (kind == "milestone") {
    Event event = gitlab_common(body, "milestone");
    event.title = "Milestone " + name;
    event.text = text(object, "description");
    add_fact(event, "Due", text(object, "due_date"));
    if (!event.project_url.empty() && !id(object, "iid").empty()) event.url = event.project_url + "/-/milestones/" + id(object, "iid");
    return event;
  }
  if (kind != "access_token") return kind.empty() ? by_event_name(body) : Parsed(Dropped{"unknown kind"});
  Event event = gitlab_common(body, "access_token");
  const std::string expires = text(object, "expires_at");
  event.title = "Access token " + name + " expires" + (expires.empty() ? "" : " on " + expires);
  event.action = "expiring";
  if (event.project.empty()) event.project = first_of({text(body, "group", "full_path"), text(body, "group", "group_path")});
  return event;
}

}  // namespace radiotower::notifier
