// `radiotower sessions, kill, events, drain, reload, stats`: what asks a running relay over its control socket (docs/control.md).
#include <poll.h>
#include <unistd.h>

#include <cstdio>
#include <ctime>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "../commands.h"
#include "control_link.h"
#include "control_text.h"
#include "radiotower/net/peer_policy.h"
#include "sessions_view.h"

namespace radiotower::cli {

namespace {

int failed(const char* command, const std::string& why) {
  fmt::print(stderr, "radiotower {}: {}\n", command, printable(why));
  return 1;
}

std::string dumped(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }
std::string text_of(const Json& json, const char* name) {
  const auto found = json.find(name);
  return found == json.end() || found->is_null() ? std::string() : found->is_string() ? printable(found->get<std::string>()) : dumped(*found);
}
std::uint64_t number_of(const Json& json, const char* name) {
  const auto found = json.find(name);
  return found != json.end() && found->is_number_unsigned() ? found->get<std::uint64_t>() : 0;
}
std::vector<std::string> texts_of(const Json& json, const char* name) {
  std::vector<std::string> all;
  if (const auto found = json.find(name); found != json.end() && found->is_array())
    for (const Json& one : *found) all.push_back(one.is_string() ? printable(one.get<std::string>()) : dumped(one));
  return all;
}

/// One question, one answer. nullopt: it has been said why not.
std::optional<Json> ask(const char* command, ControlLink& link, const Json& request, bool may_fail = false) {
  std::string why;
  if (!link.ask(request, why)) {
    failed(command, why);
    return std::nullopt;
  }
  auto answer = link.next(why);
  if (!answer) {
    failed(command, why.empty() ? "interrupted" : why);
    return std::nullopt;
  }
  if (!may_fail && answer->value("ok", false) != true) {
    failed(command, text_of(*answer, "error"));
    return std::nullopt;
  }
  return answer;
}

/// What `sessions` and `kill` choose by.
struct Choice {
  std::string session, user, realm, client, transport, relayed, older_than;
  bool json_of(Json& json, std::string& why) const {
    const auto put = [&](const char* name, const std::string& value) {
      if (!value.empty()) json[name] = value;
    };
    put("session", session), put("user", user), put("realm", realm), put("client", client), put("transport", transport), put("relayed", relayed);
    if (!client.empty() && !net::AddressRange::parse(client, why)) {
      why = "--client: " + why;
      return false;
    }
    if (!relayed.empty() && !net::TransportAddress::parse(relayed) && !net::IpAddress::parse(relayed)) {
      why = fmt::format("--relayed {}: it is to be 192.0.2.7:40000, [2001:db8::7]:40000, or an address without a port", relayed);
      return false;
    }
    if (older_than.empty()) return true;
    const auto seconds = parse_duration(older_than);
    if (!seconds) why = fmt::format("--older-than {}: it is to be a time as 90s, 30m, 1h or 2d", older_than);
    else json["older_than"] = *seconds;
    return seconds.has_value();
  }
};

void add_choice(CLI::App& command, Choice& choice) {
  command.add_option("--user", choice.user, "of this user: alice stands for 1767225600:alice too")->type_name("NAME");
  command.add_option("--client", choice.client, "of clients at this address, or in this range")->type_name("IP[/BITS]");
  command.add_option("--transport", choice.transport, "of clients over udp, tcp, tls or dtls")->check(CLI::IsMember({"udp", "tcp", "tls", "dtls"}));
  command.add_option("--realm", choice.realm, "of this realm; not for the relay's own")->type_name("NAME");
  command.add_option("--relayed", choice.relayed, "with this relayed address")->type_name("IP[:PORT]");
  command.add_option("--older-than", choice.older_than, "that have been there for longer: 90s, 30m, 1h")->type_name("TIME");
  command.add_option("--session", choice.session, "this one alone, as the first column of sessions names it")->type_name("ID");
}

void add_socket(CLI::App& command, std::string& path) {
  path = default_control_socket();
  command.add_option("--socket", path, "the relay's control socket; RADIOTOWER_SOCKET says it too")->type_name("PATH")->capture_default_str();
}

struct KillOptions {
  std::string socket;
  Choice choice;
  bool all = false, yes = false, json = false;
};

int run_kill(const KillOptions& o) {
  const char* const command = "kill";
  std::string why;
  Json request = {{"command", "kill"}};
  if (!o.choice.json_of(request, why)) return usage_error(command, why);
  if (request.size() == 1 && !o.all) return usage_error(command, "say which: --user, --client, --session and so on, or --all");
  if (request.size() > 1 && o.all) return usage_error(command, "--all stands alone: together with another flag it would say two things");
  if (o.all) request["all"] = true;
  ControlLink link;
  if (!link.open(o.socket, why)) return failed(command, why);
  if (!o.yes && ::isatty(STDIN_FILENO) && ::isatty(STDERR_FILENO)) {
    Json question = request;
    question["dry_run"] = true;
    const auto answer = ask(command, link, question);
    if (!answer) return 1;
    const auto count = number_of(*answer, "would_end"), silent = number_of(*answer, "workers_silent");
    if (count > 1 || silent != 0) {
      fmt::print(stderr, "end {}{}? [y/N] ", plural(count, "allocation"), silent == 0 ? "" : fmt::format(", and those of {} that did not answer", plural(silent, "worker")));
      std::string said;
      std::getline(std::cin, said);
      if (said != "y" && said != "Y" && said != "yes") {
        fmt::print(stderr, "nothing was ended\n");
        return 1;
      }
    }
  }
  const auto answer = ask(command, link, request);
  if (!answer) return 1;
  const auto ended = number_of(*answer, "ended"), silent = number_of(*answer, "workers_silent");
  if (o.json) fmt::print("{}\n", dumped(*answer));
  else if (silent == 0 && ended == 0) fmt::print("there is no such allocation\n");
  else fmt::print("{} ended\n", plural(ended, "allocation"));
  if (silent == 0) return ended == 0 ? 1 : 0;
  // On the error output, so that it is seen whatever reads the other.
  return failed(command, fmt::format("{} did not answer: allocations there may be alive still. They end as soon as it answers, if it does; "
                                     "`radiotower sessions` shows what is left", plural(silent, "worker")));
}

struct EventsOptions {
  std::string socket, user;
  std::vector<std::string> kinds;
  bool json = false;
};

std::string event_text(const Json& e) {
  const std::string kind = text_of(e, "event");
  if (kind == "lost") return fmt::format("{} lost here: they came faster than they were read", plural(number_of(e, "count"), "event") + (number_of(e, "count") == 1 ? " was" : " were"));
  const auto at = e.find("at");
  std::string relayed = text_of(e, "relayed");
  if (e.contains("relayed2")) relayed += ", " + text_of(e, "relayed2");
  std::string said = fmt::format("{} {:<8} {}{} {} {}", clock_text(at != e.end() && at->is_number() ? at->get<double>() : 0), kind, text_of(e, "user"),
                                 e.contains("realm") ? " in " + text_of(e, "realm") : std::string(), text_of(e, "transport"), text_of(e, "client"));
  if (!relayed.empty()) said += ", relayed " + relayed;
  if (kind == "move") said += ", was " + text_of(e, "was");
  if (kind == "refuse") said += fmt::format("{}: {}", e.contains("peer") ? " to " + text_of(e, "peer") : std::string(), text_of(e, "reason"));
  if (kind == "end")
    said += fmt::format(": {} after {}, {} bytes in {} packets to peers, {} in {} to the client", text_of(e, "reason"), duration_text(number_of(e, "seconds")),
                        number_of(e, "bytes_to_peer"), number_of(e, "packets_to_peer"), number_of(e, "bytes_to_client"), number_of(e, "packets_to_client"));
  return said;
}

int run_events(const EventsOptions& o) {
  const char* const command = "events";
  std::string why;
  ControlLink link;
  if (!link.open(o.socket, why)) return failed(command, why);
  Json request = {{"command", "events"}};
  if (!o.user.empty()) request["user"] = o.user;
  if (!o.kinds.empty()) request["kinds"] = o.kinds;
  if (!ask(command, link, request)) return 1;
  while (const auto event = link.next(why, std::chrono::milliseconds(-1))) {
    fmt::print("{}\n", o.json ? dumped(*event) : event_text(*event));
    if (!link.has_line() && std::fflush(stdout) != 0) return 0;  // nobody reads on
  }
  return why.empty() ? 0 : failed(command, why);
}

struct DrainOptions {
  std::string socket, deadline;
  bool wait = false, cancel = false;
};

int wait_for_the_end(ControlLink& link) {
  const bool is_terminal = ::isatty(STDOUT_FILENO) != 0;
  std::uint64_t said = 0;
  bool has_said = false;
  std::string why;
  while (true) {
    if (!link.ask({{"command", "stats"}}, why)) break;
    const auto answer = link.next(why);
    if (!answer) break;
    if (answer->value("ok", false) != true) return failed("drain", text_of(*answer, "error"));
    if (answer->value("draining", false) != true) {
      if (is_terminal && has_said) fmt::print("\n");
      return failed("drain", "the drain was taken back: new allocations are taken again");
    }
    const std::uint64_t left = number_of(*answer, "allocations");
    if (!has_said || left != said || is_terminal) {
      fmt::print("{}{} left{}", is_terminal ? "\r" : "", plural(left, "allocation"), is_terminal ? "\x1b[K" : "\n");
      std::fflush(stdout);
    }
    said = left;
    has_said = true;
    pollfd wait{link.descriptor(), POLLIN, 0};
    ::poll(&wait, 1, 1000);  // it hangs up at its end
  }
  if (is_terminal && has_said) fmt::print("\n");
  fmt::print("the relay has ended\n");
  return 0;
}

int run_drain(const DrainOptions& o) {
  const char* const command = "drain";
  if (o.cancel && (o.wait || !o.deadline.empty())) return usage_error(command, "--cancel stands alone");
  Json request = {{"command", o.cancel ? "undrain" : "drain"}};
  if (!o.deadline.empty()) {
    const auto seconds = parse_duration(o.deadline);
    if (!seconds) return usage_error(command, fmt::format("--deadline {}: it is to be a time as 90s, 30m or 1h, up to 30d", o.deadline));
    request["deadline"] = *seconds;
  }
  std::string why;
  ControlLink link;
  if (!link.open(o.socket, why)) return failed(command, why);
  const auto answer = ask(command, link, request);
  if (!answer) return 1;
  if (o.cancel) {
    fmt::print("{}\n", answer->value("was_draining", true) ? "new allocations are taken again" : "there was no drain: new allocations are taken");
    return 0;
  }
  const auto until = answer->find("drain_deadline");
  if (until != answer->end() && until->is_number_integer())
    fmt::print("no new allocations from now on; the relay ends with the last one, at {} at the latest\n", date_text(until->get<std::int64_t>()));
  else fmt::print("no new allocations from now on; the relay ends with the last one, whenever that is; --deadline sets a time, --cancel takes it back\n");
  std::fflush(stdout);
  return o.wait ? wait_for_the_end(link) : 0;
}

struct PlainOptions {
  std::string socket;
  bool json = false;
};

int run_reload(const PlainOptions& o) {
  const char* const command = "reload";
  std::string why;
  ControlLink link;
  if (!link.open(o.socket, why)) return failed(command, why);
  const auto answer = ask(command, link, {{"command", "reload"}}, true);
  if (!answer) return 1;
  const bool good = answer->value("ok", false) == true;
  if (o.json) {
    fmt::print("{}\n", dumped(*answer));
    return good ? 0 : 1;
  }
  for (const auto& error : texts_of(*answer, "errors")) fmt::print(stderr, "error: {}\n", error);
  if (!good) return failed(command, text_of(*answer, "error"));
  const auto changes = texts_of(*answer, "changes"), waits = texts_of(*answer, "needs_restart");
  for (const auto& change : changes) fmt::print("  {}\n", change);
  for (const auto& change : waits) fmt::print("needs a restart: {}\n", change);
  for (const auto& note : texts_of(*answer, "notes")) fmt::print("note: {}\n", note);
  fmt::print("reloaded{}\n", waits.empty() ? "" : ", all but what needs a restart");
  return 0;
}

int run_stats(const PlainOptions& o) {
  const char* const command = "stats";
  std::string why;
  ControlLink link;
  if (!link.open(o.socket, why)) return failed(command, why);
  const auto answer = ask(command, link, {{"command", "stats"}});
  if (!answer) return 1;
  const Json& s = *answer;
  if (o.json) {
    fmt::print("{}\n", dumped(s));
    return 0;
  }
  const auto line = [](const char* name, const std::string& value) { fmt::print("{:<13}{}\n", name, value); };
  const auto list = [&](const char* name) {
    std::string out;
    for (const auto& one : texts_of(s, name)) out += (out.empty() ? "" : ", ") + one;
    return out;
  };
  const auto empty = Json::object();
  const auto part = [&](const char* name) -> const Json& {
    const auto found = s.find(name);
    return found != s.end() && found->is_object() ? *found : empty;
  };
  const auto up = static_cast<std::int64_t>(::time(nullptr)) - static_cast<std::int64_t>(number_of(s, "started_at"));
  line("relay", fmt::format("radiotower-relay {}, up {}, {}, {}, offload {}", text_of(s, "version"), duration_text(static_cast<std::uint64_t>(std::max<std::int64_t>(0, up))),
                            plural(number_of(s, "workers"), "worker"), text_of(s, "backend"), text_of(s, "offload")));
  if (s.contains("workers_silent")) line("", fmt::format("{} did not answer: what they have is missing below", plural(number_of(s, "workers_silent"), "worker")));
  if (s.value("draining", false) == true) {
    const auto until = s.find("drain_deadline");
    line("draining", until != s.end() && until->is_number_integer() ? "until " + date_text(until->get<std::int64_t>()) + " at the latest" : "until the last allocation ends");
  }
  line("listens on", list("listeners"));
  line("relays from", list("relay_addresses"));
  const Json& ports = part("ports");
  line("ports", fmt::format("{}-{}: {} free, {} used, {} reserved, {} quarantined", number_of(s, "first_port"), number_of(s, "last_port"), number_of(ports, "free"),
                            number_of(ports, "used"), number_of(ports, "reserved"), number_of(ports, "quarantined")));
  line("allocations", fmt::format("{}, by {}", number_of(s, "allocations"), plural(number_of(s, "users"), "user")));
  const Json& counters = part("counters");
  line("relayed", fmt::format("{} bytes in {} packets to peers, {} in {} to clients", bytes_text(static_cast<double>(number_of(counters, "bytes_to_peer"))),
                              number_of(counters, "packets_to_peer"), bytes_text(static_cast<double>(number_of(counters, "bytes_to_client"))),
                              number_of(counters, "packets_to_client")));
  std::string dropped;
  for (const auto& [key, value] : counters.items())
    if (key.rfind("dropped_", 0) == 0 && value.is_number_unsigned() && value != 0) dropped += fmt::format("{}{} {}", dropped.empty() ? "" : ", ", printable(key.substr(8)), dumped(value));
  if (number_of(s, "kernel_drops") != 0) dropped += fmt::format("{}kernel {}", dropped.empty() ? "" : ", ", number_of(s, "kernel_drops"));
  line("dropped", dropped.empty() ? "nothing" : dropped);
  const Json& reloads = part("reloads");
  std::string reloaded = fmt::format("{} good, {} refused", number_of(reloads, "good"), number_of(reloads, "refused"));
  if (const auto last = number_of(reloads, "last_good_at"); last != 0) reloaded += ", the last good one at " + date_text(static_cast<std::int64_t>(last));
  line("reloads", reloaded);
  if (const auto found = s.find("certificates"); found != s.end() && found->is_array())
    for (const Json& certificate : *found) {
      std::string names;
      for (const auto& name : texts_of(certificate, "names")) names += (names.empty() ? "" : ", ") + name;
      const auto end = static_cast<std::int64_t>(number_of(certificate, "not_after"));
      line("certificate", fmt::format("{}, until {}, {} days left", names, date_text(end).substr(0, 10), (end - static_cast<std::int64_t>(::time(nullptr))) / 86'400));
    }
  return 0;
}

void add_sessions(CLI::App& app, Run& run) {
  struct Options {
    SessionsOptions show;
    Choice choice;
    std::string watch;
  };
  auto* command = app.add_subcommand("sessions", "list the allocations of a running relay, once or live");
  auto o = std::make_shared<Options>();
  add_socket(*command, o->show.socket);
  add_choice(*command, o->choice);
  command->add_option("--sort", o->show.sort, "age, bytes, rate or user; the most of it first")->check(CLI::IsMember({"age", "bytes", "rate", "user"}))->capture_default_str();
  command->add_option("--limit", o->show.limit, "no more than these")->type_name("N");
  auto* watch = command->add_option("--watch", o->watch, "live, with rates; SECONDS between two pictures, 2 if not given; q ends")->type_name("SECONDS")->expected(0, 1);
  command->add_flag("--json", o->show.json, "one JSON object instead of text; with --watch one a line");
  command->footer("Examples:\n  radiotower sessions\n  radiotower sessions --watch --sort rate --limit 20\n  radiotower sessions --user alice --json");
  command->callback([o, watch, &run] {
    run = [o, watched = watch->count() != 0] {
      std::string why;
      if (!o->choice.json_of(o->show.filter, why)) return usage_error("sessions", why);
      if (watched) {
        char* end = nullptr;
        o->show.watch = o->watch.empty() ? 2 : std::strtod(o->watch.c_str(), &end);
        if (!(o->show.watch >= 0.1 && o->show.watch <= 60) || (end && *end != '\0')) return usage_error("sessions", "--watch takes 0.1 to 60 seconds");
      }
      return show_sessions(o->show);
    };
  });
}

}  // namespace

void add_control_commands(CLI::App& app, Run& run) {
  add_sessions(app, run);
  {
    auto* command = app.add_subcommand("kill", "end allocations of a running relay");
    auto o = std::make_shared<KillOptions>();
    add_socket(*command, o->socket);
    add_choice(*command, o->choice);
    command->add_flag("--all", o->all, "every one of them");
    command->add_flag("--yes", o->yes, "do not ask on a terminal when more than one would end");
    command->add_flag("--json", o->json, "one JSON object instead of text");
    command->footer("Flags together mean those for which all of it holds. Who is ended may come back: to keep a user\nout, change the credentials.\n"
                    "Exit codes: 0 ended; 1 there was none, or a worker of the relay did not answer, and what it has may be\nalive still.\n"
                    "Examples:\n  radiotower kill --session 0-17-1\n  radiotower kill --user alice\n  radiotower kill --client 192.0.2.0/24 --older-than 12h");
    command->callback([o, &run] { run = [o] { return run_kill(*o); }; });
  }
  {
    auto* command = app.add_subcommand("events", "show what happens on a running relay: allocations made, moved, ended; refusals");
    auto o = std::make_shared<EventsOptions>();
    add_socket(*command, o->socket);
    command->add_option("--user", o->user, "of this user alone: alice stands for 1767225600:alice too")->type_name("NAME");
    command->add_option("--kind", o->kinds, "allocate, refuse, move or end; may be repeated")->check(CLI::IsMember({"allocate", "refuse", "move", "end"}))->allow_extra_args(false);
    command->add_flag("--json", o->json, "one JSON object a line instead of text");
    command->footer("Runs until Ctrl-C, or until the relay ends.\nExamples:\n  radiotower events\n  radiotower events --kind refuse\n  radiotower events --user alice --json");
    command->callback([o, &run] { run = [o] { return run_events(*o); }; });
  }
  {
    auto* command = app.add_subcommand("drain", "take no new allocations, and end a running relay with the last one");
    auto o = std::make_shared<DrainOptions>();
    add_socket(*command, o->socket);
    command->add_option("--deadline", o->deadline, "end it then in any case: 90s, 30m, 1h")->type_name("TIME");
    command->add_flag("--wait", o->wait, "stay here until the relay has ended, and show how many allocations are left");
    command->add_flag("--cancel", o->cancel, "take new allocations again");
    command->footer("Running calls go on. With --wait, exit code 0: the relay has ended; 1: the drain was taken back.\n"
                    "Examples:\n  radiotower drain\n  radiotower drain --deadline 1h --wait\n  radiotower drain --cancel");
    command->callback([o, &run] { run = [o] { return run_drain(*o); }; });
  }
  for (const bool is_reload : {true, false}) {
    auto* command = is_reload ? app.add_subcommand("reload", "have a running relay read its configuration anew, and say what has changed")
                              : app.add_subcommand("stats", "show how a running relay stands");
    auto o = std::make_shared<PlainOptions>();
    add_socket(*command, o->socket);
    command->add_flag("--json", o->json, "one JSON object instead of text");
    command->footer(is_reload ? "Exit codes: 0 reloaded; 1 the configuration has mistakes, which are printed, and nothing was changed.\n"
                                "Example:\n  radiotower reload"
                              : "Examples:\n  radiotower stats\n  radiotower stats --json");
    command->callback([o, is_reload, &run] { run = [o, is_reload] { return is_reload ? run_reload(*o) : run_stats(*o); }; });
  }
}

}  // namespace radiotower::cli
