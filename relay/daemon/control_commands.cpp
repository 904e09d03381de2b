#include "control_commands.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <utility>

#include <fmt/format.h>

#include "counter_sums.h"
#include "radiotower/turn/directory.h"

namespace radiotower::daemon {

namespace {

using namespace std::chrono_literals;
using turn::AllocationFacts;

constexpr milliseconds patience = 1000ms;  // for a worker
constexpr std::int64_t longest_deadline = 30 * 86'400;
constexpr std::size_t longest_id = 64;

/// What is wrong with a request, as a sentence.
struct Wrong {
  std::string sentence;
};

std::string text_of(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

Json answer_to(const Json& request_id) {
  Json json = Json::object();
  if (!request_id.is_null()) json["id"] = request_id;
  return json;
}

/// Nothing where every worker has answered.
void tell_of_silent(Json& json, unsigned workers) {
  if (workers == 0) return;
  json["whole"] = false;
  json["workers_silent"] = workers;
}

std::string in_quotes(std::string_view text) { return text_of(Json(std::string(text.substr(0, 64)))); }

std::string joined(const std::vector<std::string_view>& words) {
  std::string out;
  for (std::size_t i = 0; i < words.size(); ++i) out.append(i == 0 ? "" : i + 1 == words.size() ? " and " : ", ").append(words[i]);
  return out;
}

/// Only `known` ones may stand there, beside "command" and "id".
void check_fields(const Json& request, const std::string& command, std::vector<std::string_view> known) {
  for (const auto& [key, value] : request.items()) {
    if (key == "command" || key == "id" || std::find(known.begin(), known.end(), key) != known.end()) continue;
    throw Wrong{fmt::format("{} is no field of \"{}\"; {}", in_quotes(key), command,
                            known.empty() ? std::string("it has none") : fmt::format("it has {}", joined(known)))};
  }
}

std::optional<std::string> text_field(const Json& request, const char* name) {
  const auto found = request.find(name);
  if (found == request.end() || found->is_null()) return std::nullopt;
  if (!found->is_string()) throw Wrong{fmt::format("\"{}\" is to be a text in quotes", name)};
  return found->get<std::string>();
}

std::optional<std::uint64_t> number_field(const Json& request, const char* name, std::uint64_t most) {
  const auto found = request.find(name);
  if (found == request.end() || found->is_null()) return std::nullopt;
  if (!found->is_number_unsigned() || found->get<std::uint64_t>() > most) throw Wrong{fmt::format("\"{}\" is to be a whole number from 0 to {}", name, most)};
  return found->get<std::uint64_t>();
}

bool flag_field(const Json& request, const char* name) {
  const auto found = request.find(name);
  if (found == request.end() || found->is_null()) return false;
  if (!found->is_boolean()) throw Wrong{fmt::format("\"{}\" is to be true or false", name)};
  return found->get<bool>();
}

/// Which allocations a request is about. Owns what it compares with: it runs on workers' threads.
struct Choice {
  std::optional<std::string> session, user, realm, transport;
  std::optional<net::AddressRange> clients;
  std::optional<net::IpAddress> relayed_ip;
  std::optional<net::TransportAddress> relayed;
  std::optional<std::uint64_t> older_than;

  bool empty() const { return !session && !user && !realm && !transport && !clients && !relayed_ip && !relayed && !older_than; }
  bool holds(const AllocationFacts& f) const {
    const auto any_relayed = [&](const auto& matches) { return matches(f.relayed) || (f.relayed2.port != 0 && matches(f.relayed2)); };
    return (!session || *session == session_id(f)) && (!user || names_user(*user, f.user)) && (!realm || *realm == f.realm) &&
           (!transport || *transport == net::name(f.five_tuple.transport)) && (!clients || clients->contains(f.five_tuple.client.ip)) &&
           (!relayed_ip || any_relayed([&](const auto& a) { return a.ip == *relayed_ip; })) &&
           (!relayed || any_relayed([&](const auto& a) { return a == *relayed; })) &&
           (!older_than || f.age.count() > static_cast<std::int64_t>(*older_than));
  }
};

const std::vector<std::string_view> choice_fields = {"session", "user", "realm", "client", "transport", "relayed", "older_than"};

Choice choice_of(const Json& request) {
  Choice choice;
  choice.session = text_field(request, "session");
  choice.user = text_field(request, "user");
  choice.realm = text_field(request, "realm");
  choice.older_than = number_field(request, "older_than", std::numeric_limits<std::uint32_t>::max());
  choice.transport = text_field(request, "transport");
  if (choice.transport && *choice.transport != "udp" && *choice.transport != "tcp" && *choice.transport != "tls" && *choice.transport != "dtls")
    throw Wrong{R"("transport" is to be "udp", "tcp", "tls" or "dtls")"};
  if (const auto client = text_field(request, "client")) {
    std::string why;
    choice.clients = net::AddressRange::parse(*client, why);
    if (!choice.clients) throw Wrong{fmt::format(R"("client" is to be "192.0.2.7", "192.0.2.0/24" or the same of IPv6: {})", why)};
  }
  if (const auto relayed = text_field(request, "relayed")) {
    choice.relayed = net::TransportAddress::parse(*relayed);
    if (!choice.relayed) choice.relayed_ip = net::IpAddress::parse(*relayed);
    if (!choice.relayed && !choice.relayed_ip) throw Wrong{R"("relayed" is to be "192.0.2.7:40000", "[2001:db8::7]:40000" or an address without a port)"};
  }
  return choice;
}

Json session_json(const AllocationFacts& f) {
  Json json = {{"session", session_id(f)}, {"user", f.user}};
  if (!f.realm.empty()) json["realm"] = f.realm;
  json["client"] = f.five_tuple.client.text();
  if (!f.has_client) json["client_is_away"] = true;
  json["transport"] = net::name(f.five_tuple.transport);
  json["listener"] = f.five_tuple.server.text();
  json["relayed"] = f.relayed.text();
  if (f.relayed2.port != 0) json["relayed2"] = f.relayed2.text();
  json["relay_transport"] = net::name(f.relay_transport);
  json["age_seconds"] = f.age.count();
  json["expires_in_seconds"] = f.expires_in.count();
  json["permissions"] = f.permissions;
  json["channels"] = f.channels;
  json["offloaded_channels"] = f.shortcuts;
  json["bytes_to_peer"] = f.bytes_to_peer;
  json["packets_to_peer"] = f.packets_to_peer;
  json["bytes_to_client"] = f.bytes_to_client;
  json["packets_to_client"] = f.packets_to_client;
  return json;
}

std::uint64_t bytes_of(const AllocationFacts& f) { return f.bytes_to_peer + f.bytes_to_client; }

double rate_of(const AllocationFacts& f) { return static_cast<double>(bytes_of(f)) / static_cast<double>(std::max<std::int64_t>(1, f.age.count())); }

/// The most of something first, names in their order; equal ones by their relayed address, so that a list does not jump.
std::function<bool(const AllocationFacts&, const AllocationFacts&)> order_of(const std::string& by) {
  const auto most_first = [](auto value) {
    return [value](const AllocationFacts& a, const AllocationFacts& b) {
      if (value(a) != value(b)) return value(a) > value(b);
      return a.relayed < b.relayed;
    };
  };
  if (by == "bytes") return most_first(bytes_of);
  if (by == "rate") return most_first(rate_of);
  if (by == "age") return most_first([](const AllocationFacts& f) { return f.age; });
  if (by == "user")
    return [](const AllocationFacts& a, const AllocationFacts& b) { return a.user != b.user ? a.user < b.user : a.relayed < b.relayed; };
  throw Wrong{R"("sort" is to be "age", "bytes", "rate" or "user")"};
}

Answer sessions(Operations& operations, const Json& request, const Json& request_id) {
  auto known = choice_fields;
  known.insert(known.end(), {"sort", "limit"});
  check_fields(request, "sessions", known);
  const Choice choice = choice_of(request);
  const auto order = order_of(text_field(request, "sort").value_or("age"));
  const auto limit = number_field(request, "limit", std::numeric_limits<std::uint32_t>::max());
  std::vector<AllocationFacts> all;
  const unsigned silent = operations.allocations(all, patience);
  all.erase(std::remove_if(all.begin(), all.end(), [&](const AllocationFacts& f) { return !choice.holds(f); }), all.end());
  std::sort(all.begin(), all.end(), order);
  const std::size_t shown = limit ? std::min<std::size_t>(all.size(), *limit) : all.size();
  Answer answer;
  answer.sessions.emplace(std::move(all), shown, silent, request_id);
  return answer;
}

Json kill(Operations& operations, Log& log, const Json& request, const Json& request_id, const Asker& asker) {
  auto known = choice_fields;
  known.insert(known.end(), {"all", "dry_run"});
  check_fields(request, "kill", known);
  const Choice choice = choice_of(request);
  const bool all = flag_field(request, "all");
  if (choice.empty() && !all) throw Wrong{fmt::format("say which: {}, or \"all\":true", joined(choice_fields))};
  if (!choice.empty() && all) throw Wrong{"\"all\":true stands alone: together with another field it would say two things"};
  Json json = answer_to(request_id);
  if (flag_field(request, "dry_run")) {
    std::vector<AllocationFacts> list;
    const unsigned silent = operations.allocations(list, patience);
    json["ok"] = true;
    json["would_end"] = std::count_if(list.begin(), list.end(), [&](const AllocationFacts& f) { return choice.holds(f); });
    tell_of_silent(json, silent);
    return json;
  }
  Json said = request;
  said.erase("id");
  said.erase("command");
  const Killed killed = operations.kill([choice](const AllocationFacts& f) { return choice.holds(f); }, patience);
  const std::string which = text_of(said);
  std::vector<Field> fields{{"which", which}, {"allocations_ended", std::uint64_t{killed.ended}}};
  if (killed.silent != 0) fields.emplace_back("workers_silent", std::uint64_t{killed.silent});
  log.write(Priority::notice, "kill", fmt::format("ordered by {}", asker.text()), fields);
  json["ok"] = true;
  json["ended"] = killed.ended;
  tell_of_silent(json, killed.silent);
  return json;
}

Json counters_json(const CounterSums& sums) {
  Json json = Json::object();
  for (const auto& row : sums.rows())
    if (row.group == "turn") json[std::string(row.counter)] = row.sum;
  return json;
}

Json stats(Operations& operations, const Json& request, const Json& request_id) {
  check_fields(request, "stats", {});
  const Standing standing = operations.standing();
  const auto reports = operations.reports(patience);
  const auto usage = operations.usage();
  Json json = answer_to(request_id);
  json["ok"] = true;
  json["version"] = standing.version;
  json["started_at"] = standing.started_at;
  json["backend"] = standing.backend;
  if (!standing.why_not_io_uring.empty()) json["why_not_io_uring"] = standing.why_not_io_uring;
  json["offload"] = standing.offload;
  json["workers"] = standing.workers;
  if (reports.size() < standing.workers) json["workers_silent"] = standing.workers - reports.size();
  json["listeners"] = standing.listeners;
  json["relay_addresses"] = standing.relay_addresses;
  json["first_port"] = standing.first_port;
  json["last_port"] = standing.last_port;
  json["draining"] = standing.draining;
  json["drain_deadline"] = standing.drain_deadline ? Json(*standing.drain_deadline) : Json(nullptr);
  json["ending"] = standing.ending;
  json["reloads"] = {{"good", standing.reloads_good}, {"refused", standing.reloads_refused}, {"last_good_at", standing.reloaded_at}};
  json["certificates"] = Json::array();
  for (const auto& certificate : standing.certificates) json["certificates"].push_back({{"names", certificate.names}, {"not_after", certificate.not_after}});
  CounterSums sums;
  for (const auto& report : reports) sums.add(report);
  json["allocations"] = sums.of("worker", "allocations");
  json["users"] = usage.accounts;
  json["ports"] = {{"free", usage.free}, {"used", usage.used}, {"reserved", usage.reserved}, {"quarantined", usage.quarantined}, {"range", usage.range}};
  json["counters"] = counters_json(sums);
  json["kernel_drops"] = sums.of("loop", "kernel_drops");
  json["log_lines_dropped"] = operations.log_lines_dropped();
  return json;
}

constexpr std::string_view kinds[] = {"allocate", "refuse", "move", "end"};

std::string_view kind_of(const turn::Event& event) {
  switch (event.kind) {
    case turn::Event::Kind::allocation_made: return "allocate";
    case turn::Event::Kind::allocation_ended: return "end";
    case turn::Event::Kind::allocation_moved: return "move";
    case turn::Event::Kind::peer_refused:
    case turn::Event::Kind::quota_reached:
    case turn::Event::Kind::ports_exhausted: break;
  }
  return "refuse";
}

Answer events(const Json& request, const Json& request_id) {
  check_fields(request, "events", {"kinds", "user"});
  EventFilter filter;
  filter.user = text_field(request, "user");
  if (const auto found = request.find("kinds"); found != request.end() && !found->is_null()) {
    const auto bad = Wrong{R"("kinds" is to be a list of "allocate", "refuse", "move" and "end")"};
    if (!found->is_array() || found->size() > std::size(kinds)) throw bad;
    for (const auto& kind : *found) {
      if (!kind.is_string() || std::find(std::begin(kinds), std::end(kinds), kind.get<std::string>()) == std::end(kinds)) throw bad;
      filter.kinds.push_back(kind.get<std::string>());
    }
  }
  Json json = answer_to(request_id);
  json["ok"] = true;
  Answer answer;
  answer.line = text_of(json);
  answer.events = std::move(filter);
  answer.request_id = request_id;
  return answer;
}

Json drain(Operations& operations, Log& log, const Json& request, const Json& request_id, const Asker& asker) {
  check_fields(request, "drain", {"deadline"});
  const auto deadline = number_field(request, "deadline", longest_deadline);
  if (operations.standing().ending) throw Wrong{"the relay is ending already, since it got a SIGTERM; a second one ends it at once"};
  log.write(Priority::notice, "drain", fmt::format("ordered by {}", asker.text()));
  operations.drain(deadline ? std::optional(seconds(*deadline)) : std::nullopt);
  const Standing standing = operations.standing();
  Json json = answer_to(request_id);
  json["ok"] = true;
  json["drain_deadline"] = standing.drain_deadline ? Json(*standing.drain_deadline) : Json(nullptr);
  return json;
}

Json undrain(Operations& operations, Log& log, const Json& request, const Json& request_id, const Asker& asker) {
  check_fields(request, "undrain", {});
  if (operations.standing().ending) throw Wrong{"the relay is ending, since it got a SIGTERM; that cannot be taken back"};
  log.write(Priority::notice, "undrain", fmt::format("ordered by {}", asker.text()));
  const bool was_draining = operations.standing().draining;
  operations.end_drain();
  if (operations.standing().draining) throw Wrong{"the drain is over, but redirect.draining in the configuration still keeps new allocations out"};
  Json json = answer_to(request_id);
  json["ok"] = true;
  json["was_draining"] = was_draining;
  return json;
}

Json reload(Operations& operations, Log& log, const Json& request, const Json& request_id, const Asker& asker) {
  check_fields(request, "reload", {});
  log.write(Priority::notice, "reload", fmt::format("ordered by {}", asker.text()));
  const ReloadResult result = operations.reload();
  Json json = answer_to(request_id);
  json["ok"] = result.good;
  if (!result.good) json["error"] = "the reload was refused, and nothing was changed";
  json["errors"] = result.errors;
  json["changes"] = result.changes;
  json["needs_restart"] = result.needs_restart;
  json["notes"] = result.notes;
  return json;
}

/// What comes back in every answer: a small number or text.
Json id_of(const Json& request) {
  const auto found = request.find("id");
  if (found == request.end() || found->is_null()) return nullptr;
  if (found->is_number_integer() || (found->is_string() && found->get_ref<const std::string&>().size() <= longest_id)) return *found;
  throw Wrong{"\"id\" is to be a whole number or a text of at most 64 bytes"};
}

}  // namespace

std::string Asker::text() const { return fmt::format("uid {} pid {}", uid, pid); }

std::string session_id(const AllocationFacts& facts) { return fmt::format("{}-{}-{}", facts.worker, facts.id.index, facts.id.generation); }

std::string error_line(std::string_view sentence, const Json& request_id) {
  Json json = answer_to(request_id);
  json["ok"] = false;
  json["error"] = sentence;
  return text_of(json);
}

bool names_user(std::string_view wanted, std::string_view user) {
  if (user == wanted) return true;
  // A time of this century has ten digits: "1-alice" of a users file is a name of its own.
  constexpr std::size_t digits = 10;
  if (wanted.empty() || user.size() != digits + 1 + wanted.size() || !user.ends_with(wanted)) return false;
  return turn::parse_rest_name(user, user[digits]).has_value();
}

bool EventFilter::shows(const turn::Event& event) const {
  if (!kinds.empty() && std::find(kinds.begin(), kinds.end(), kind_of(event)) == kinds.end()) return false;
  return !user || names_user(*user, event.user);
}

std::string event_line(const ToldEvent& told, const Json& request_id) {
  const turn::Event& e = told.event;
  Json json = answer_to(request_id);
  json["event"] = kind_of(e);
  json["at"] = static_cast<double>(told.unix_milliseconds) / 1000.0;
  json["worker"] = told.worker;
  json["user"] = e.user;
  if (!e.realm.empty()) json["realm"] = e.realm;
  json["client"] = e.five_tuple.client.text();
  json["transport"] = net::name(e.five_tuple.transport);
  switch (e.kind) {
    case turn::Event::Kind::allocation_made:
    case turn::Event::Kind::allocation_moved:
    case turn::Event::Kind::allocation_ended:
      json["relayed"] = e.relayed.text();
      if (e.relayed2.port != 0) json["relayed2"] = e.relayed2.text();
      break;
    case turn::Event::Kind::peer_refused:
      json["peer"] = e.peer.port == 0 ? e.peer.ip.text() : e.peer.text();
      json["reason"] = fmt::format("peer: {}", e.reason);
      break;
    case turn::Event::Kind::quota_reached: json["reason"] = fmt::format("quota: {}", e.reason); break;
    case turn::Event::Kind::ports_exhausted: json["reason"] = "no relay port is left"; break;
  }
  if (e.kind == turn::Event::Kind::allocation_moved) json["was"] = e.moved_from.client.text();
  if (e.kind == turn::Event::Kind::allocation_ended) {
    json["reason"] = turn::name(e.end);
    json["seconds"] = e.duration.count();
    json["bytes_to_peer"] = e.bytes_to_peer;
    json["packets_to_peer"] = e.packets_to_peer;
    json["bytes_to_client"] = e.bytes_to_client;
    json["packets_to_client"] = e.packets_to_client;
  }
  return text_of(json);
}

std::optional<std::string> SessionLines::next() {
  if (over_) return std::nullopt;
  Json json = answer_to(request_id_);
  if (at_ < shown_) {
    json.update(session_json(all_[at_++]));
    return text_of(json);
  }
  over_ = true;
  json["ok"] = true;
  json["sessions"] = all_.size();
  json["shown"] = shown_;
  tell_of_silent(json, silent_);
  return text_of(json);
}

Answer ControlCommands::carry_out(std::string_view line, const Asker& asker) {
  Answer answer;
  Json request_id = nullptr;
  try {
    // Depth is bounded by what a line may hold, and the parser of this library does not recurse.
    const Json request = Json::parse(line, nullptr, false);
    if (request.is_discarded()) throw Wrong{R"(that is no JSON; a request is one object a line, as {"command":"stats"})"};
    if (!request.is_object()) throw Wrong{R"(a request is a JSON object, as {"command":"stats"})"};
    request_id = id_of(request);
    static const std::vector<std::string_view> commands = {"sessions", "kill", "events", "stats", "drain", "undrain", "reload"};
    const auto command = text_field(request, "command");
    if (!command) throw Wrong{fmt::format("\"command\" is missing; there are {}", joined(commands))};
    if (*command == "sessions") return sessions(operations_, request, request_id);
    if (*command == "events") return events(request, request_id);
    if (*command == "kill") answer.line = text_of(kill(operations_, log_, request, request_id, asker));
    else if (*command == "stats" || *command == "standing") answer.line = text_of(stats(operations_, request, request_id));
    else if (*command == "drain") answer.line = text_of(drain(operations_, log_, request, request_id, asker));
    else if (*command == "undrain") answer.line = text_of(undrain(operations_, log_, request, request_id, asker));
    else if (*command == "reload") answer.line = text_of(reload(operations_, log_, request, request_id, asker));
    else throw Wrong{fmt::format("there is no command {}; there are {}", in_quotes(*command), joined(commands))};
  } catch (const Wrong& wrong) {
    answer.line = error_line(wrong.sentence, request_id);
  } catch (const Json::exception& error) {
    answer.line = error_line(error.what(), request_id);
  }
  return answer;
}

}  // namespace radiotower::daemon
