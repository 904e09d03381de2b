// `radiotower doctor`: what is wrong with a relay and its host, and how to mend it.
#include <CLI/CLI.hpp>
#include <memory>

#include "../commands.h"
#include "../url.h"
#include "host_checks.h"
#include "printer.h"

namespace radiotower::cli {

namespace {

constexpr const char* usual_config = "/etc/radiotower/relay.toml";

struct Options {
  std::string config, address, user, ca, name, media_server;
  bool json = false, verbose = false;
};

int run_doctor(const Options& o) {
  const auto host = this_host();
  HostQuestion question{o.config, std::nullopt, o.user, o.ca, o.name, std::nullopt};
  int error = 0;
  if (question.config_file.empty() && host->status(usual_config, error)) question.config_file = usual_config;
  if (!o.address.empty() && !(question.phone = net::IpAddress::parse(o.address)))
    return usage_error("doctor", "--address: \"" + o.address + "\" is not an IP address; it takes the one that phones are given, without a port");
  if (!o.media_server.empty() && !(question.media_server = net::TransportAddress::parse(o.media_server)))
    return usage_error("doctor", "--media-server: \"" + o.media_server + "\" is not an IP address and a port, as in 10.1.2.3:8443");
  if (!o.ca.empty() && !host->status(o.ca, error)) return usage_error("doctor", "--ca: there is no file " + o.ca);
  Printer printer({o.json, o.verbose, may_colour()});
  check_host(*host, question, printer);
  return printer.end();
}

}  // namespace

void add_doctor_command(CLI::App& app, Run& run) {
  auto* command = app.add_subcommand("doctor", "say what is wrong with the relay of this host, and how to mend it");
  auto o = std::make_shared<Options>();
  command->add_option("--config", o->config, "the relay's configuration (default: /etc/radiotower/relay.toml if it is there)")->type_name("FILE");
  command->add_option("--address", o->address, "the address of this host that phones are given (default: a guess)")->type_name("IP");
  command->add_option("--user", o->user, "whom the relay runs as, by name or number (default: as the unit says, or the relay that runs)")->type_name("USER");
  command->add_option("--ca", o->ca, "the CA that phones trust, PEM")->type_name("FILE");
  command->add_option("--name", o->name, "the name that clients are given, beside the address")->type_name("NAME");
  command->add_option("--media-server", o->media_server,
                      "where Calls or rtcd takes media: may clients reach it through the relay?")->type_name("IP:PORT");
  command->add_flag("--json", o->json, "one object instead of text");
  command->add_flag("--verbose", o->verbose, "a line for each check that is good, too");
  command->footer("Examples:\n"
                  "  sudo radiotower doctor --address 192.168.0.105 --ca office-ca.pem --media-server 10.1.2.3:8443\n"
                  "  radiotower doctor --config /etc/radiotower/relay.toml --json\n"
                  "Changes nothing. As root it sees most: whose ports those are, and the firewall.\n"
                  "Exit codes: 0 good, 1 something does not work, 3 warnings alone, 2 the command line is wrong.");
  command->callback([o, &run] { run = [o] { return run_doctor(*o); }; });
}

}  // namespace radiotower::cli
