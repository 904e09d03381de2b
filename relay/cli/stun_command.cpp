// `radiotower stun`: is there a STUN server, and where does it see us?
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "client.h"
#include "commands.h"
#include "json.h"
#include "report.h"

namespace radiotower::cli {

namespace {

struct Options {
  std::string target;
  double timeout = 10;
  bool ipv4 = false, ipv6 = false, json = false;
};

int run_stun(const Options& o) {
  const char* const command = "stun";
  std::string why;
  const auto target = parse_stun_target(o.target, why);
  if (!target) return usage_error(command, why);
  const auto timeout = std::chrono::milliseconds(static_cast<std::int64_t>(o.timeout * 1000));

  Report report(stun_url(*target), o.json);
  auto start = Clock::now();
  const auto family = o.ipv4 ? std::optional(net::Family::ipv4) : o.ipv6 ? std::optional(net::Family::ipv6) : std::nullopt;
  const auto addresses = resolve(*target, family, why);
  if (addresses.empty()) {
    report.failed("resolve", why, {"the host's name, and this host's resolver", "an address instead of a name"});
    return report.end({});
  }
  report.step("resolve", Clock::now() - start, addresses.front().text());

  auto client = Client::open(addresses.front(), {}, system_random(), {timeout}, why);
  if (!client) {
    report.failed("socket", why, {"the route to the server: ip route get " + addresses.front().ip.text(), "-4 or -6 chooses the family"});
    return report.end({});
  }
  start = Clock::now();
  Outcome outcome;
  const auto reflexive = client->binding(outcome);
  if (!reflexive) {
    Situation situation;
    situation.step = "Binding";
    situation.server = addresses.front().text();
    situation.timeout = timeout;
    auto check = advice(outcome, situation);
    if (addresses.size() > 1 && outcome.failure != Failure::refused) check.emplace_back("the name has other addresses too: -4 or -6 chooses the family");
    report.failed("Binding", describe(outcome, situation), std::move(check), outcome.code);
    return report.end({});
  }
  const bool translated = reflexive->ip != client->local().ip || reflexive->port != client->local().port;
  report.step("Binding", Clock::now() - start,
              outcome.sends > 1 ? fmt::format("answered after {} sends: the path loses packets, or the server was just starting", outcome.sends) : "answered");
  if (!client->software().empty()) report.note("the server calls itself " + client->software());
  report.fact("server", json_string(addresses.front().text()));
  report.fact("local_address", json_string(client->local().text()));
  report.fact("reflexive_address", json_string(reflexive->text()));
  report.fact("round_trip_milliseconds", fmt::format("{:.3f}", milliseconds_of(outcome.round_trip)));
  return report.end(fmt::format("reflexive address {}, round trip {:.1f} ms, {}", reflexive->text(), milliseconds_of(outcome.round_trip),
                                translated ? fmt::format("translated on the way from {}", client->local().text()) : "no address translation on the way"));
}

}  // namespace

void add_stun_command(CLI::App& app, Run& run) {
  auto* command = app.add_subcommand("stun", "ask a STUN server where it sees this host");
  auto o = std::make_shared<Options>();
  command->add_option("server", o->target, "HOST[:PORT] or stun:HOST[:PORT]")->required()->type_name("");
  command->add_option("--timeout", o->timeout, "give up after this long; requests are repeated meanwhile (RFC 8489, 6.2.1)")
      ->type_name("SECONDS")
      ->capture_default_str()
      ->check(CLI::Range(0.05, 60.0));
  auto* four = command->add_flag("-4,--ipv4", o->ipv4, "over IPv4 only");
  command->add_flag("-6,--ipv6", o->ipv6, "over IPv6 only")->excludes(four);
  command->add_flag("--json", o->json, "one JSON object instead of text");
  command->footer("Examples:\n"
                  "  radiotower stun tower.lan\n"
                  "  radiotower stun 192.0.2.1:3478 --timeout 2\n"
                  "  radiotower stun [2001:db8::1]:3478 --json");
  command->callback([o, &run] { run = [o] { return run_stun(*o); }; });
}

}  // namespace radiotower::cli
