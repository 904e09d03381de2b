// `radiotower credentials`: a time-limited user name and password, and where they go.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <ctime>
#include <memory>

#include "commands.h"
#include "credentials.h"
#include "json.h"
#include "radiotower/base/calendar.h"

namespace radiotower::cli {

namespace {

struct Options {
  std::string user = "radiotower";
  std::int64_t ttl = 86'400;
  std::string secret_file, secret, host;
  std::string format = "text";
  std::vector<std::string> transports{"udp"};
  std::uint16_t tls_port = default_tls_port;
};

constexpr std::int64_t max_ttl = std::int64_t{10} * 365 * 86'400;
constexpr std::int64_t max_ttl_of_relay = std::int64_t{7} * 86'400;  // turn::Directory

std::string joined(const std::vector<std::string>& urls) {
  std::string out;
  for (const auto& url : urls) out += (out.empty() ? "" : ", ") + json_string(url);
  return out;
}

int run_credentials(const Options& o) {
  const char* const command = "credentials";
  std::string why, warning;
  if (o.secret_file.empty() == o.secret.empty()) return usage_error(command, "give the secret with --secret-file FILE (- for standard input)");
  if (!username_is_sound(o.user, why)) return usage_error(command, why);
  if (o.ttl < 1 || o.ttl > max_ttl) return usage_error(command, "--ttl is a number of seconds, from 1 to ten years");
  std::optional<HostPort> server;
  if (!o.host.empty() && !(server = parse_host_port(o.host, default_port, why))) return usage_error(command, "--host: " + why);
  if (!server && (o.format == "ice" || o.format == "calls")) return usage_error(command, "--format " + o.format + " needs --host HOST[:PORT]");
  std::vector<net::Transport> transports;
  for (const auto& name : o.transports)
    transports.push_back(name == "udp" ? net::Transport::udp : name == "tcp" ? net::Transport::tcp : name == "tls" ? net::Transport::tls : net::Transport::dtls);
  const auto urls = server ? turn_urls(*server, o.tls_port, transports) : std::vector<std::string>{};
  std::string secret = o.secret;
  if (!o.secret_file.empty()) {
    const auto read = read_secret(o.secret_file, why, warning);
    if (!read) return usage_error(command, "--secret-file: " + why);
    secret = *read;
  } else {
    warning = "--secret shows the secret to everybody who may list processes: --secret-file does not";
  }
  if (!warning.empty()) warn(warning);
  if (o.ttl > max_ttl_of_relay)
    warn("radiotower-relay refuses a name that is good for longer than 7 days (--ttl 604800); coturn takes it. For longer: a user with a password, in users_file");

  const UnixSeconds expiry = std::time(nullptr) + o.ttl;
  const Credential credential = make_rest_credential(secret, o.user, expiry);
  if (!username_is_sound(credential.username, why)) return usage_error(command, why);

  if (o.format == "ice") {
    fmt::print("{}\n", ice_servers_json(*server, urls, credential));
  } else if (o.format == "calls") {
    fmt::print("{}\n", calls_ice_servers_json(*server, urls));
  } else if (o.format == "json") {
    fmt::print(R"({{"username": {}, "password": {}, "expires": {})", json_string(credential.username), json_string(credential.password), expiry);
    if (server)
      fmt::print(R"(, "uris": [{}], "ice_servers": {}, "calls_ice_servers": {})", joined(urls),
                 ice_servers_json(*server, urls, credential), calls_ice_servers_json(*server, urls));
    fmt::print("}}\n");
  } else {
    fmt::print("user name  {}\npassword   {}\nexpires    {}\n", credential.username, credential.password, utc_second(expiry));
    if (!server) return 0;
    fmt::print("\nfor a browser (RTCPeerConnection's iceServers):\n{}\n", ice_servers_json(*server, urls, credential));
    fmt::print("\nfor Mattermost Calls (iceserversconfigs; the secret itself goes into turnstaticauthsecret, and Calls makes\n"
               "a user name and password of its own for every session):\n{}\n",
               calls_ice_servers_json(*server, urls));
  }
  return 0;
}

}  // namespace

void add_credentials_command(CLI::App& app, Run& run) {
  auto* command = app.add_subcommand("credentials", "make a time-limited user name and password (TURN REST, coturn's use-auth-secret)");
  auto o = std::make_shared<Options>();
  command->add_option("--user", o->user, "the name behind the expiry")->type_name("NAME")->capture_default_str();
  command->add_option("--ttl", o->ttl, "how long it is good for")->type_name("SECONDS")->capture_default_str();
  command->add_option("--secret-file", o->secret_file, "the relay's secrets file, its first secret is used; - reads standard input")->type_name("FILE");
  command->add_option("--secret", o->secret, "the secret itself, for everybody on this host to see")->type_name("TEXT");
  command->add_option("--host", o->host, "the relay, as its clients reach it")->type_name("HOST[:PORT]");
  command->add_option("--transport", o->transports, "ways in, with commas: udp, tcp, tls (Firefox takes tls with a name alone, not with an address), dtls (no browser)")
      ->type_name("LIST")
      ->delimiter(',')
      ->capture_default_str()
      ->check(CLI::IsMember({"udp", "tcp", "tls", "dtls"}));
  command->add_option("--tls-port", o->tls_port, "the port of tls and dtls")->type_name("PORT")->capture_default_str()->check(CLI::Range(1, 65535));
  command->add_option("--format", o->format, "text, json, ice (a browser's iceServers) or calls (Mattermost's iceserversconfigs)")
      ->type_name("NAME")
      ->capture_default_str()
      ->check(CLI::IsMember({"text", "json", "ice", "calls"}));
  command->add_flag_callback("--json", [o] { o->format = "json"; }, "the same as --format json");
  command->footer("Examples:\n"
                  "  radiotower credentials --secret-file quickstart-data/secrets --host 192.0.2.1\n"
                  "  radiotower credentials --secret-file secrets --host tower.lan --transport udp,tcp,tls --tls-port 443\n"
                  "  radiotower credentials --secret-file /etc/radiotower/secrets --user alice --ttl 3600 --format json\n"
                  "  systemd-creds decrypt secrets.cred - | radiotower credentials --secret-file -");
  add_explain_command(*command, run);
  command->callback([o, command, &run] {  // called after that of a subcommand
    if (command->get_subcommands().empty()) run = [o] { return run_credentials(*o); };
  });
}

}  // namespace radiotower::cli
