// `radiotower stun`: is there a STUN server, and where does it see us?
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "client.h"
#include "commands.h"
#include "connect.h"
#include "json.h"
#include "report.h"

namespace radiotower::cli {

namespace {

struct Options {
  std::string target, transport;
  ConnectOptions connect;
  bool json = false;
};

int run_stun(const Options& o) {
  const char* const command = "stun";
  std::string why;
  auto url = parse_stun_url(o.target, why);
  if (!url || !connect_options_are_sound(o.connect, why)) return usage_error(command, why);
  // A stun: URL names no transport (RFC 7064, 3.1), so it is said beside it.
  if (!o.transport.empty()) url->asked = o.transport == "tcp" ? net::Transport::tcp : net::Transport::udp;
  const auto timeout = o.connect.patience();

  Report report(url->text(), o.json);
  const RandomSource random = system_random();
  const auto destination = find_destination(*url, o.connect, random, report);
  if (!destination) return report.end({});
  auto client = connect(*destination, o.connect, {}, random, true, report);
  if (!client) return report.end({});
  auto start = Clock::now();
  Outcome outcome;
  const auto reflexive = client->binding(outcome);
  if (!reflexive) {
    Situation situation;
    situation.step = "Binding";
    situation.server = destination->address.text();
    situation.timeout = timeout;
    auto check = advice(outcome, situation);
    if (outcome.code == static_cast<std::uint16_t>(stun::ErrorCode::unauthenticated))
      check = {"the server wants credentials for Binding too (features.authenticated_binding, coturn's secure-stun): browsers learn no address there",
               "`radiotower turn` tests it with a user name and password"};
    if (destination->addresses > 1 && outcome.failure != Failure::refused) check.emplace_back("the name has other addresses too: -4 or -6 chooses the family");
    report.failed("Binding", describe(outcome, situation), std::move(check), outcome.code);
    return report.end({});
  }
  const bool translated = reflexive->ip != client->local().ip || reflexive->port != client->local().port;
  report.step("Binding", Clock::now() - start,
              outcome.sends > 1 ? fmt::format("answered after {} sends: the path loses packets, or the server was just starting", outcome.sends) : "answered");
  if (!client->software().empty()) report.note("the server calls itself " + client->software());
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
  command->add_option("server", o->target, "HOST[:PORT], stun:HOST[:PORT] or stuns:HOST[:PORT]")->required()->type_name("");
  command->add_option("--transport", o->transport, "for stun: udp (the default) or tcp; for stuns: tcp, which is TLS (the default), or udp, which is DTLS")->check(CLI::IsMember({"udp", "tcp"}));
  add_connect_options(*command, o->connect);
  command->add_flag("--json", o->json, "one JSON object instead of text");
  command->footer("Examples:\n"
                  "  radiotower stun tower.lan\n"
                  "  radiotower stun 192.0.2.1:3478 --timeout 2\n"
                  "  radiotower stun stuns:192.168.0.105 --ca office-ca.pem\n"
                  "  radiotower stun [2001:db8::1]:3478 --json");
  command->callback([o, &run] { run = [o] { return run_stun(*o); }; });
}

}  // namespace radiotower::cli
