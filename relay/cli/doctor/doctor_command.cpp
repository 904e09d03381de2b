// `radiotower doctor`: what is wrong with a relay and its host, and how to mend it.
#include <CLI/CLI.hpp>
#include <ctime>
#include <fstream>
#include <iostream>
#include <memory>

#include "../commands.h"
#include "../url.h"
#include "host_checks.h"
#include "ice_checks.h"
#include "printer.h"

namespace radiotower::cli {

namespace {

constexpr const char* usual_config = "/etc/radiotower/relay.toml";

struct Options {
  std::string config, address, user, ca, name, media_server;
  std::string ice_file, secret_file;
  double timeout = 3;
  bool json = false, verbose = false;
};

constexpr std::size_t most_of_a_list = 4 << 20;  // a config.json is some 100 KiB

/// A byte more than is taken, where there is more.
std::string text_of(std::istream& in) {
  std::string text(most_of_a_list + 1, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(in.gcount()));
  return text;
}

/// False: `why` says what is wrong with the command line.
bool read_ice_question(const Options& o, IceQuestion& question, std::string& why) {
  if (o.ice_file == "-") {
    question.text = text_of(std::cin);
  } else {
    std::ifstream file(o.ice_file, std::ios::binary);
    if (!file) return why = "--ice: there is no file " + o.ice_file + " that you may read", false;
    question.text = text_of(file);
  }
  if (question.text.size() > most_of_a_list) return why = "--ice: " + o.ice_file + " is longer than any list of ICE servers", false;
  if (!o.secret_file.empty()) {
    if (o.secret_file == "-" && o.ice_file == "-") return why = "--ice and --secret-file cannot both be standard input", false;
    std::string warning;
    question.secret = read_secret(o.secret_file, why, warning);
    if (!question.secret) return why = "--secret-file: " + why, false;
  }
  std::ifstream hosts("/etc/hosts");
  if (hosts) question.hosts = text_of(hosts);
  question.ca_file = o.ca;
  question.timeout = std::chrono::milliseconds(static_cast<std::int64_t>(o.timeout * 1000));
  question.now = std::time(nullptr);
  return true;
}

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
  IceQuestion ice;
  std::string why;
  if (o.ice_file.empty() && !o.secret_file.empty()) return usage_error("doctor", "--secret-file is for the TURN entries of a list: --ice FILE gives it");
  if (!o.ice_file.empty() && !read_ice_question(o, ice, why)) return usage_error("doctor", why);
  ice.media_server = question.media_server;
  Printer printer({o.json, o.verbose, may_colour()});
  // A laptop where phones are has no relay to look at.
  if (o.ice_file.empty() || !question.config_file.empty()) check_host(*host, question, printer);
  if (!o.ice_file.empty()) check_ice(ice, printer);
  return printer.end();
}

}  // namespace

void add_doctor_command(CLI::App& app, Run& run) {
  auto* command = app.add_subcommand("doctor", "say what is wrong with a relay and its host, or with a list of ICE servers, and how to mend it");
  auto o = std::make_shared<Options>();
  command->add_option("--config", o->config, "the relay's configuration (default: /etc/radiotower/relay.toml if it is there)")->type_name("FILE");
  command->add_option("--address", o->address, "the address of this host that phones are given (default: a guess)")->type_name("IP");
  command->add_option("--user", o->user, "whom the relay runs as, by name or number (default: as the unit says, or the relay that runs)")->type_name("USER");
  command->add_option("--ca", o->ca, "the CA that phones trust, PEM")->type_name("FILE");
  command->add_option("--name", o->name, "the name that clients are given, beside the address")->type_name("NAME");
  command->add_option("--media-server", o->media_server,
                      "where Calls or rtcd takes media: may clients reach it through the relay?")->type_name("IP:PORT");
  command->add_option("--ice", o->ice_file,
                      "a list of ICE servers, each URL of which is used as a browser would: iceServers, iceserversconfigs, or Mattermost's config.json; - reads standard input")
      ->type_name("FILE");
  command->add_option("--secret-file", o->secret_file, "--ice: the relay's secrets, for TURN entries without user name")->type_name("FILE");
  command->add_option("--timeout", o->timeout, "--ice: give up on a connection or a request after this long")
      ->type_name("SECONDS")
      ->capture_default_str()
      ->check(CLI::Range(0.5, 60.0));
  command->add_flag("--json", o->json, "one object instead of text");
  command->add_flag("--verbose", o->verbose, "a line for each check that is good, too");
  command->footer("Examples:\n"
                  "  sudo radiotower doctor --address 192.168.0.105 --ca office-ca.pem --media-server 10.1.2.3:8443\n"
                  "  radiotower doctor --config /etc/radiotower/relay.toml --json\n"
                  "  radiotower doctor --ice ice.json --secret-file secrets --ca office-ca.pem --media-server 10.1.2.3:8443\n"
                  "Changes nothing. As root it sees most: whose ports those are, and the firewall.\n"
                  "With --ice on a host that has no relay (a laptop in the WLAN of the phones) the list alone is tested.\n"
                  "Exit codes: 0 good, 1 something does not work, 3 warnings alone, 2 the command line is wrong.");
  command->callback([o, &run] { run = [o] { return run_doctor(*o); }; });
}

}  // namespace radiotower::cli
