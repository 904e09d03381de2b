#include "connect.h"

#include <fmt/format.h>

#include "json.h"

namespace radiotower::cli {

void add_connect_options(CLI::App& command, ConnectOptions& options) {
  command.add_option("--ca", options.ca_file, "TLS, DTLS: trust the CAs in this PEM file, and no others")->type_name("FILE");
  command.add_option("--server-name", options.server_name, "TLS, DTLS: the name or IP address that the certificate has to be for; the URL's by default")->type_name("NAME");
  command.add_flag("--insecure", options.insecure, "TLS, DTLS: say what is wrong with the certificate, and go on");
  command.add_option("--dns", options.dns, "ask this DNS server for SRV records")->type_name("ADDRESS[:PORT]");
  command.add_option("--timeout", options.timeout, "give up on a request after this long; over UDP it is repeated meanwhile (RFC 8489, 6.2.1)")
      ->type_name("SECONDS")
      ->capture_default_str()
      ->check(CLI::Range(0.05, 60.0));
  auto* four = command.add_flag("-4,--ipv4", options.ipv4, "reach the server over IPv4 only");
  command.add_flag("-6,--ipv6", options.ipv6, "reach the server over IPv6 only")->excludes(four);
}

namespace {

std::optional<net::TransportAddress> dns_server(const ConnectOptions& options, std::string& why) {
  const auto server = parse_host_port(options.dns, 53, why);
  const auto ip = server ? net::IpAddress::parse(server->host) : std::nullopt;
  if (ip && ip->is_v4()) return net::TransportAddress{*ip, server->port, 0};
  why = fmt::format("--dns \"{}\" is no IPv4 address: 192.0.2.53 or 192.0.2.53:5353", options.dns);
  return std::nullopt;
}

}  // namespace

bool connect_options_are_sound(const ConnectOptions& options, std::string& why) { return options.dns.empty() || dns_server(options, why).has_value(); }

std::optional<Destination> find_destination(const Url& url, const ConnectOptions& options, const RandomSource& random, Report& report) {
  const auto start = Clock::now();
  std::string why;
  std::optional<net::TransportAddress> dns;
  if (!options.dns.empty()) dns = dns_server(options, why);
  const Lookup lookup = find_servers(url, dns, random);
  const auto family = options.ipv4 ? std::optional(net::Family::ipv4) : options.ipv6 ? std::optional(net::Family::ipv6) : std::nullopt;
  why = lookup.why;
  for (const Candidate& candidate : lookup.candidates) {
    const auto addresses = resolve(candidate.server, family, why);
    if (addresses.empty()) {
      if (!candidate.found_by.empty()) why += fmt::format(" (the host of {}; this host's own resolver was asked for its address)", candidate.found_by);
      else if (!lookup.note.empty()) why += "; " + lookup.note;
      continue;
    }
    std::string detail = addresses.front().text();
    if (!candidate.found_by.empty()) detail += fmt::format(" (by {}: {})", candidate.found_by, candidate.server.text());
    if (addresses.size() > 1) detail += fmt::format(" (the first of {} addresses; -4 or -6 chooses the family)", addresses.size());
    report.step("resolve", Clock::now() - start, detail);
    if (!lookup.note.empty()) report.note(lookup.note);
    if (!url.secure() && (!options.ca_file.empty() || !options.server_name.empty() || options.insecure))
      report.note("this is asked without TLS, so no certificate is looked at: stuns: or turns: does that");
    report.fact("server", json_string(addresses.front().text()));
    report.fact("transport", json_string(std::string(net::name(candidate.transport))));
    return Destination{addresses.front(), candidate.transport, options.server_name.empty() ? url.server.host : options.server_name, addresses.size()};
  }
  report.failed("resolve", why, {"the host's name, and this host's resolver", "an address instead of a name: phones on a network without DNS need one"});
  return std::nullopt;
}

std::optional<Client> connect(const Destination& destination, const ConnectOptions& options, Credential credential, const RandomSource& random, bool told,
                              Report& report) {
  LinkFailure failure;
  const TlsOptions tls{destination.name, options.ca_file, options.insecure, "stun.turn"};
  auto link = open_link(destination.transport, destination.address, tls, options.patience(), failure);
  if (!link) {
    if (destination.addresses > 1) failure.check.emplace_back("the name has other addresses too: -4 or -6 chooses the family");
    report.failed(failure.step, failure.what, failure.check);
    return std::nullopt;
  }
  if (told) {
    for (const auto& step : link->steps()) {
      report.step(step.name, step.took, step.detail);
      if (!step.note.empty()) report.note(step.note);
    }
  }
  return Client(std::move(link), destination.address, std::move(credential), random, {options.patience()});
}

}  // namespace radiotower::cli
