#include "notifier/event.h"

#include "notifier/sources/fields.h"

namespace radiotower::notifier {

namespace {

constexpr std::string_view words[] = {"none", "pending", "running", "waiting", "success", "unstable", "failed", "canceled", "skipped"};

constexpr std::pair<const char*, std::string Event::*> texts[] = {
    {"source", &Event::source}, {"kind", &Event::kind}, {"action", &Event::action}, {"project", &Event::project},
    {"project_url", &Event::project_url}, {"branch", &Event::branch}, {"target_branch", &Event::target_branch}, {"title", &Event::title},
    {"url", &Event::url}, {"text", &Event::text}, {"commit", &Event::commit}, {"commit_title", &Event::commit_title},
    {"commit_url", &Event::commit_url}, {"author", &Event::author}, {"author_email", &Event::author_email}, {"actor", &Event::actor},
    {"actor_login", &Event::actor_login}, {"subject", &Event::subject}, {"history_key", &Event::history_key},
    {"dedup_key", &Event::dedup_key}, {"template_text", &Event::template_text},
};
constexpr std::pair<const char*, std::string Item::*> item_texts[] = {{"name", &Item::name}, {"url", &Item::url}, {"detail", &Item::detail}};

template <class Owner, class Table>
void write_texts(const Owner& owner, const Table& table, Json& json) {
  for (const auto& [key, member] : table) {
    if (!(owner.*member).empty()) json[key] = owner.*member;
  }
}

template <class Owner, class Table>
void read_texts(const Json& json, const Table& table, Owner& owner) {
  for (const auto& [key, member] : table) owner.*member = text(json, key);
}

}  // namespace

std::string_view word(Status status) {
  const auto i = static_cast<std::size_t>(status);
  return i < std::size(words) ? words[i] : words[0];
}

std::optional<Status> status_of(std::string_view word) {
  for (std::size_t i = 0; i < std::size(words); ++i) {
    if (words[i] == word) return static_cast<Status>(i);
  }
  return std::nullopt;
}

bool is_final(Status status) {
  switch (status) {
    case Status::success:
    case Status::unstable:
    case Status::failed:
    case Status::canceled:
    case Status::skipped: return true;
    case Status::none:
    case Status::pending:
    case Status::running:
    case Status::waiting: break;
  }
  return false;
}

Json to_json(const Event& event) {
  Json json = Json::object();
  write_texts(event, texts, json);
  if (event.status != Status::none) json["status"] = word(event.status);
  if (event.security) json["security"] = true;
  if (event.is_tag) json["is_tag"] = true;
  if (event.on_default_branch) json["on_default_branch"] = *event.on_default_branch;
  if (event.duration_s) json["duration_s"] = *event.duration_s;
  if (event.items_total != 0) json["items_total"] = event.items_total;
  for (const Item& item : event.items) {
    Json& written = json["items"].emplace_back(Json::object());
    write_texts(item, item_texts, written);
    if (item.status != Status::none) written["status"] = word(item.status);
  }
  for (const auto& [name, value] : event.facts) json["facts"].push_back(Json::array({name, value}));
  if (!event.slack.is_null()) json["slack"] = event.slack;
  return json;
}

Event event_from_json(const Json& json) {
  Event event;
  read_texts(json, texts, event);
  event.status = status_of(text(json, "status")).value_or(Status::none);
  event.security = flag(json, "security");
  event.is_tag = flag(json, "is_tag");
  if (const Json& told = at(json, "on_default_branch"); told.is_boolean()) event.on_default_branch = told.get<bool>();
  event.duration_s = number(json, "duration_s");
  event.items_total = whole(number(json, "items_total"));
  for (const Json& written : list(json, "items")) {
    Item& item = event.items.emplace_back();
    read_texts(written, item_texts, item);
    item.status = status_of(text(written, "status")).value_or(Status::none);
  }
  for (const Json& fact : list(json, "facts")) {
    if (fact.is_array() && fact.size() == 2) event.facts.emplace_back(text(fact[0]), text(fact[1]));
  }
  event.slack = at(json, "slack");
  return event;
}

}  // namespace radiotower::notifier
