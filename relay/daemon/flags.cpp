#include "flags.h"

#include <CLI/CLI.hpp>

namespace radiotower::daemon {

namespace {

struct FlagKey {
  const char* flag;
  const char* key;
  const char* help;
  const char* value;  // nullptr: a switch
  bool list = false;
};
constexpr FlagKey flag_keys[] = {
    {"--realm", "realm", "the realm of the credentials", "NAME"},
    {"--listen", "listen.udp", "listen here, UDP; may be repeated", "ADDRESS:PORT", true},
    {"--listen-tcp", "listen.tcp", "listen here, TCP; may be repeated", "ADDRESS:PORT", true},
    {"--listen-tls", "listen.tls", "listen here, TLS; may be repeated", "ADDRESS:PORT", true},
    {"--listen-dtls", "listen.dtls", "listen here, DTLS; may be repeated", "ADDRESS:PORT", true},
    {"--certificate", "listen.certificate", "for TLS and DTLS: PEM, the server's own first, then its CAs'", "FILE"},
    {"--private-key", "listen.private_key", "the certificate's key: PEM", "FILE"},
    {"--proxy-protocol-from", "listen.proxy_protocol_from", "a front end that sends PROXY headers; may be repeated", "ADDRESSES", true},
    {"--relay-address", "relay.addresses", "make relayed addresses of this one; may be repeated", "ADDRESS", true},
    {"--external", "relay.external", "behind a NAT: tell clients this address instead; may be repeated", "PUBLIC[/PRIVATE]", true},
    {"--ports", "relay.ports", "the ports of relayed addresses", "FIRST-LAST"},
    {"--secrets-file", "credentials.secrets_file", "shared secrets (coturn's static-auth-secret), one a line", "FILE"},
    {"--users-file", "credentials.users_file", "name:password, one a line", "FILE"},
    {"--allow-peer", "peers.allow", "a peer that may be reached; may be repeated", "PEER", true},
    {"--deny-peer", "peers.deny", "a peer that may not; may be repeated", "PEER", true},
    {"--allow-only", "peers.allow_only", "nothing but --allow-peer may be reached", nullptr},
    {"--workers", "workers.count", "threads; 0: one a core", "N"},
    {"--backend", "workers.backend", "how packets are read and sent: auto, io_uring or epoll", "NAME"},
    {"--offload-xdp", "offload.xdp", "off, auto, or an interface; may be repeated", "WORD|INTERFACE", true},
    {"--control-socket", "control.socket", "a Unix socket for `radiotower sessions`, `kill`, `drain` and so on", "PATH"},
    {"--metrics-listen", "metrics.listen", "metrics for Prometheus, over HTTP", "ADDRESS:PORT|unix:PATH"},
    {"--drain-seconds", "shutdown.drain_seconds", "on SIGTERM, let running calls end first, for so long at most", "N"},
    {"--log-format", "log.format", "the form of the log: text or json", "NAME"},
    {"--log-level", "log.level", "how much is logged: error, warning, notice, info or debug", "NAME"},
};

}  // namespace

std::optional<Flags> parse_flags(int argc, const char* const* argv, int& status, bool answers) {
  CLI::App app("radiotower-relay: a STUN/TURN server. Runs in the foreground and logs to standard error.", "radiotower-relay");
  app.footer("A relay needs credentials: --secrets-file or --users-file, or a configuration that names one.\n"
             "SIGHUP reloads the configuration and all its files; SIGUSR1 logs counters; SIGUSR2 drains; SIGTERM ends.");
  Flags flags;
  bool check = false, print = false, version = false;
  app.add_option("--config", flags.config_file, "read this file (docs/configuration.md)")->type_name("FILE");
  app.add_flag("--check", check, "validate the configuration and its files, then exit: 0 good, 1 bad");
  app.add_flag("--print-config", print, "print every setting with where it came from, then exit");
  app.add_flag("--version", version, "print version and features, compiled in and found now, then exit");
  // A list may be repeated, everything else says one thing: given twice, it is an error.
  std::vector<std::vector<std::string>> lists(std::size(flag_keys));
  std::vector<std::string> values(std::size(flag_keys));
  std::vector<CLI::Option*> options;
  for (std::size_t i = 0; i < std::size(flag_keys); ++i) {
    const FlagKey& f = flag_keys[i];
    if (!f.value) options.push_back(app.add_flag(f.flag, f.help));
    else if (f.list) options.push_back(app.add_option(f.flag, lists[i], f.help)->type_name(f.value)->allow_extra_args(false));
    else options.push_back(app.add_option(f.flag, values[i], f.help)->type_name(f.value));
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    status = answers && app.exit(e) == 0 ? 0 : 1;
    return std::nullopt;
  }
  for (std::size_t i = 0; i < std::size(flag_keys); ++i) {
    const FlagKey& f = flag_keys[i];
    if (options[i]->count() == 0) continue;
    flags.overrides.push_back({f.flag, f.key, f.list ? lists[i] : std::vector<std::string>{f.value ? values[i] : "true"}});
  }
  if (version) flags.mode = Mode::version;
  else if (print) flags.mode = Mode::print_config;
  else if (check) flags.mode = Mode::check;
  return flags;
}

bool read_config(const Flags& flags, Config& config, ConfigErrors& errors) {
  const std::size_t before = errors.size();
  if (!flags.config_file.empty()) read_config_file(flags.config_file, config, errors);
  for (const auto& o : flags.overrides) set_from_flag(o.flag, o.key, o.values, config, errors);
  return errors.size() == before;
}

}  // namespace radiotower::daemon
