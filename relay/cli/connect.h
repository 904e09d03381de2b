// From a URL to a client with a link: what `radiotower stun` and `radiotower turn` do first, each step told to the report.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>

#include "client.h"
#include "report.h"
#include "srv.h"

namespace radiotower::cli {

struct ConnectOptions {
  std::string ca_file, server_name, dns;
  bool insecure = false, ipv4 = false, ipv6 = false;
  double timeout = 10;

  std::chrono::milliseconds patience() const { return std::chrono::milliseconds(static_cast<std::int64_t>(timeout * 1000)); }
};

/// --ca, --server-name, --insecure, --dns, --timeout, -4, -6.
void add_connect_options(CLI::App& command, ConnectOptions& options);
/// False: `why` says which option is wrong.
bool connect_options_are_sound(const ConnectOptions& options, std::string& why);

/// Where a URL leads to on this network.
struct Destination {
  net::TransportAddress address;
  net::Transport transport = net::Transport::udp;
  std::string name;  // what a certificate has to be for: the host of the URL, also when SRV leads elsewhere (RFC 5928, 5)
  std::size_t addresses = 1;
};
/// nullopt: the report has the failure.
std::optional<Destination> find_destination(const Url& url, const ConnectOptions& options, const RandomSource& random, Report& report);
std::optional<Client> connect(const Destination& destination, const ConnectOptions& options, Credential credential, const RandomSource& random, bool told,
                              Report& report);

}  // namespace radiotower::cli
