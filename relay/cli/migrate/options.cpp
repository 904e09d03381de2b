#include "options.h"

#include <fmt/format.h>

#include <algorithm>

#include "radiotower/base/encoding.h"
#include "radiotower/service/configuration.h"

namespace radiotower::cli {

namespace {

using enum Verdict;
using enum Option::Takes;

constexpr bool protects = true, secret = true;

constexpr Option options[] = {
    // Listening.
    {"listening-port", value, mapped, "listen.udp, listen.tcp", "the port of every listener"},
    {"tls-listening-port", value, mapped, "listen.tls, listen.dtls", "the port of TLS; listen.tcp takes TLS too, where there is a certificate"},
    {"alt-listening-port", value, mapped, "listen.udp", "the second port of NAT discovery; without rfc5780 it has no use"},
    {"alt-tls-listening-port", value, ignored, "", "NAT discovery is over UDP alone"},
    {"listening-ip", repeated, mapped, "listen.udp, listen.tcp, listen.tls, relay.addresses", "where clients come in; without relay-ip also what relayed addresses are made of, as in coturn", protects},
    {"listening-device", value, refused, "listen.udp, listen.tcp", "sockets are not bound to an interface here: list its addresses instead"},
    {"relay-device", value, refused, "relay.addresses", "sockets are not bound to an interface here: list its addresses instead"},
    {"relay-ip", repeated, mapped, "relay.addresses", "what relayed addresses are made of"},
    {"external-ip", repeated, mapped, "relay.external", "what clients are told instead of an address behind a NAT; a name becomes dns:NAME"},
    {"tcp-proxy-port", value, refused, "listen.tcp, listen.proxy_protocol_from", "which front ends may send PROXY headers has to be said: add the port to listen.tcp, and the front ends to listen.proxy_protocol_from", protects},
    {"aux-server", repeated, mapped, "listen.udp, listen.tcp", "one more listener"},
    {"udp-self-balance", on_off, ignored, "", "the kernel spreads clients over the workers"},
    {"relay-threads", value, mapped, "workers.count", "threads; 0 is one a core here"},
    {"cpus", value, mapped, "workers.count", "threads, where relay-threads says nothing"},
    {"min-port", value, mapped, "relay.ports", "the lower end of the relay's ports"},
    {"max-port", value, mapped, "relay.ports", "the upper end of the relay's ports"},
    {"sock-buf-size", value, ignored, "", "sockets take what net.core.rmem_max allows: raise that sysctl"},
    {"udp-recvmmsg", on_off, ignored, "", "packets are always taken and sent in batches"},
    {"udp-recvmmsg-log", on_off, ignored, "", "packets are always taken and sent in batches"},
    {"udp-sendmmsg-log", on_off, ignored, "", "packets are always taken and sent in batches"},
    {"udp-gso", on_off, ignored, "", "used wherever the kernel has it"},
    {"multiplex-peer", on_off, refused, "", "a relayed address has a port of its own here, as RFC 8656 has it: open relay.ports in the firewall"},
    {"multiplex-peer-port", value, refused, "", "a relayed address has a port of its own here, as RFC 8656 has it: open relay.ports in the firewall"},
    {"multiplex-peer-max-peers", value, ignored, "", "of use for multiplex-peer alone"},
    // Credentials.
    {"lt-cred-mech", on_off, used, "credentials.users_file", "users with passwords work wherever there is a users file; with a shared secret coturn takes time-limited names alone, and so does the result", protects},
    {"no-auth", on_off, refused, "credentials.open_relay_for_everyone", "an open relay is never made by a translation: if anybody at all shall relay, write open_relay_for_everyone = true yourself", protects},
    {"use-auth-secret", presence, used, "credentials.secrets_file", "time-limited names work wherever there is a secrets file", protects},
    {"static-auth-secret", repeated, mapped, "credentials.secrets_file", "stands in the file secrets", protects, secret},
    {"rest-api-separator", value, mapped, "credentials.rest_separator", "what stands between expiry and user"},
    {"user", repeated, mapped, "credentials.users_file", "stands in the file users", protects, secret},
    {"userdb", value, used, "credentials.users_file, credentials.secrets_file", "its users, secrets, realms and keys are read into files, once"},
    {"db", value, used, "credentials.users_file, credentials.secrets_file", "its users, secrets, realms and keys are read into files, once"},
    {"psql-userdb", value, refused, "", "PostgreSQL is not read: copy its tables into an SQLite file of coturn's schema and give that with --db", false, secret},
    {"sql-userdb", value, refused, "", "PostgreSQL is not read: copy its tables into an SQLite file of coturn's schema and give that with --db", false, secret},
    {"mysql-userdb", value, refused, "", "MySQL is not read: copy its tables into an SQLite file of coturn's schema and give that with --db", false, secret},
    {"mongo-userdb", value, refused, "", "MongoDB is not read: copy its tables into an SQLite file of coturn's schema and give that with --db", false, secret},
    {"redis-userdb", value, refused, "", "Redis is not read: copy its users into an SQLite file of coturn's schema and give that with --db", false, secret},
    {"secret-key-file", value, refused, "", "of use for an encrypted MySQL password alone, and MySQL is not read"},
    {"redis-statsdb", value, refused, "control.socket", "there is no Redis: `radiotower events` and `radiotower sessions` tell the same", false, secret},
    {"realm", value, mapped, "realm", "what passwords and keys belong to", protects},
    {"server-name", value, mapped, "features.oauth_server_name", "the name that access tokens are made for; of use with oauth alone"},
    {"oauth", on_off, mapped, "features.oauth_keys_file", "access tokens, with the keys of the database's table oauth_key", protects},
    {"check-origin-consistency", on_off, ignored, "", "an allocation keeps its realm whatever ORIGIN comes later"},
    {"no-dynamic-ip-list", on_off, ignored, "", "no database is asked while the relay runs"},
    {"no-dynamic-realms", on_off, ignored, "", "no database is asked while the relay runs"},
    {"no-auth-pings", on_off, ignored, "", "no database is asked while the relay runs"},
    // Limits.
    {"user-quota", value, mapped, "limits.allocations_per_user", "counted by the user part of a time-limited name; for users with a password it stands in the file users", protects},
    {"total-quota", value, mapped, "limits.allocations", "of the whole relay", protects},
    {"max-bps", value, mapped, "limits.bytes_per_second_per_user", "twice the number: it counts both directions together here, and all allocations of a user", protects},
    {"bps-capacity", value, refused, "limits.bytes_per_second_per_user", "there is no limit for the whole relay: limit users and allocations", protects},
    // Transports.
    {"no-udp", on_off, mapped, "listen.udp", "no listener over UDP"},
    {"no-tcp", on_off, mapped, "listen.tcp", "no listener over plain TCP"},
    {"no-tls", on_off, mapped, "listen.tls", "no listener over TLS; without a certificate there is none anyway"},
    {"dtls", on_off, mapped, "listen.dtls", "DTLS on the port of TLS, and beside STUN on the listeners of UDP"},
    {"no-dtls", on_off, used, "listen.dtls", "DTLS is off unless it is asked for"},
    {"no-udp-relay", on_off, refused, "", "relaying over UDP is what this relay is for, and cannot be switched off", protects},
    {"no-tcp-relay", on_off, used, "features.tcp_relay", "TCP allocations (RFC 6062) are off by default", protects},
    // Times.
    {"stale-nonce", maybe, ignored, "", "a nonce always lives for 600 seconds"},
    {"max-allocate-lifetime", maybe, ignored, "", "a lifetime is at most 3600 seconds, always"},
    {"channel-lifetime", maybe, ignored, "", "a channel lives for 600 seconds, as RFC 8656 demands"},
    {"permission-lifetime", maybe, ignored, "", "a permission lives for 300 seconds, as RFC 8656 demands"},
    {"max-allocate-timeout", value, ignored, "", "a connection without an allocation is closed after 15 seconds of silence, after 60 once it has proved itself"},
    // TLS.
    {"cert", value, mapped, "listen.certificate", "PEM, the server's own first, then those of the CAs above it"},
    {"pkey", value, mapped, "listen.private_key", "PEM"},
    {"pkey-pwd", value, refused, "listen.private_key", "keys with a password are not read: `openssl pkey -in OLD -out NEW` takes it off; keep the file at 0640 root:radiotower", false, secret},
    {"raw-public-keys", on_off, refused, "", "TLS is with certificates alone"},
    {"cipher-list", value, ignored, "", "TLS is 1.2 and 1.3 with forward secrecy and AEAD alone, which is what such lists are for"},
    {"CA-file", value, refused, "", "certificates of clients are not asked for: whoever reaches the port may try a password", protects},
    {"ec-curve-name", value, ignored, "", "OpenSSL chooses the curve"},
    {"dh566", on_off, ignored, "", "key exchange is over elliptic curves"},
    {"dh1066", on_off, ignored, "", "key exchange is over elliptic curves"},
    {"dh2066", on_off, ignored, "", "key exchange is over elliptic curves"},
    {"dh-file", value, ignored, "", "key exchange is over elliptic curves"},
    {"tlsv1", on_off, refused, "", "TLS 1.0 is not spoken"},
    {"tlsv1_1", on_off, refused, "", "TLS 1.1 is not spoken"},
    {"no-tlsv1_2", on_off, refused, "", "TLS 1.2 stays beside 1.3, with forward secrecy and AEAD alone"},
    {"no-tlsv1", on_off, used, "", "TLS 1.0 is not spoken"},
    {"no-tlsv1_1", on_off, used, "", "TLS 1.1 is not spoken"},
    {"no-sslv2", on_off, used, "", "SSL is not spoken"},
    {"no-sslv3", on_off, used, "", "SSL is not spoken"},
    // Log and service.
    {"log-file", value, ignored, "", "the log goes to standard error, and with systemd to the journal: journalctl -u radiotower-relay"},
    {"no-stdout-log", on_off, ignored, "", "the log goes to standard error, and with systemd to the journal"},
    {"syslog", on_off, ignored, "", "the log goes to standard error, and with systemd to the journal, which forwards to syslog"},
    {"simple-log", on_off, ignored, "", "rotating is the journal's business"},
    {"syslog-facility", value, ignored, "", "the journal needs none"},
    {"log-min-level", value, mapped, "log.level", "how much is logged"},
    {"new-log-timestamp", on_off, ignored, "", "the journal has the time"},
    {"new-log-timestamp-format", value, ignored, "", "the journal has the time"},
    {"log-binding", on_off, ignored, "", "Binding requests are counted, not logged"},
    {"verbose", on_off, used, "log.level", "the level info has an allocation's begin and end, as by default"},
    {"Verbose", on_off, mapped, "log.level", "the level debug"},
    {"pidfile", value, ignored, "", "systemd knows the process"},
    {"proc-user", value, ignored, "", "the unit runs as the user radiotower"},
    {"proc-group", value, ignored, "", "the unit runs as the group radiotower"},
    {"daemon", on_off, ignored, "", "it runs in the foreground, as systemd wants it"},
    // Redirects and modes.
    {"alternate-server", repeated, mapped, "redirect.servers, redirect.when", "clients are sent on, once they have proved who they are"},
    {"udp-alternate-server", repeated, mapped, "redirect.servers, redirect.when", "clients are sent on, over plain TCP too"},
    {"tcp-alternate-server", repeated, mapped, "redirect.servers, redirect.when", "clients are sent on, over UDP too"},
    {"tls-alternate-server", repeated, mapped, "redirect.secure_servers, redirect.when", "clients over TLS and DTLS are sent on"},
    {"stun-only", on_off, mapped, "listen.stun_only", "every listener takes nothing but Binding requests", protects},
    {"no-stun", on_off, refused, "features.authenticated_binding", "Binding requests are always answered, as ICE needs it; authenticated_binding = true asks for credentials first"},
    {"secure-stun", on_off, mapped, "features.authenticated_binding", "Binding requests need credentials", protects},
    // Details of the protocol.
    {"fingerprint", on_off, used, "", "an answer has a FINGERPRINT where the request had one"},
    {"software-attribute", on_off, ignored, "", "SOFTWARE is not sent"},
    {"no-software-attribute", on_off, used, "", "SOFTWARE is not sent"},
    {"mobility", on_off, mapped, "features.mobility", "an allocation may follow its client"},
    {"keep-address-family", on_off, mapped, "relay.keep_address_family", "IPv6 clients get IPv6 addresses"},
    {"allocation-default-address-family", value, mapped, "relay.keep_address_family", "ipv4 is the default, keep is the key"},
    {"rfc5780", presence, mapped, "features.nat_discovery", "NAT discovery, where there are two addresses of a family"},
    {"no-rfc5780", presence, used, "features.nat_discovery", "NAT discovery is off unless it is asked for"},
    {"response-origin-only-with-rfc5780", presence, used, "", "RESPONSE-ORIGIN is sent with NAT discovery alone"},
    {"stun-backward-compatibility", on_off, ignored, "", "clients of the last fifteen years read XOR-MAPPED-ADDRESS"},
    {"no-stun-backward-compatibility", on_off, used, "", "classic STUN is not answered"},
    {"rfc3489-compatibility", on_off, refused, "", "classic STUN (RFC 3489) is not answered"},
    {"rfc5766-channel-numbers", on_off, mapped, "relay.rfc5766_channel_numbers", "channel numbers above 0x4FFF too"},
    {"respond-http-unsupported", on_off, ignored, "", "what is no STUN on a TCP port is closed"},
    {"drop-invalid-packets", on_off, used, "", "what is no STUN is always dropped"},
    {"drop-invalid-packets-log", on_off, ignored, "", "what is dropped is counted by reason, not logged"},
    {"include-reason-string", on_off, ignored, "", "an unproved source gets no long reasons"},
    {"unauthorized-ratelimit", on_off, used, "limits.error_answers_per_second", "error answers to an unproved source are always limited"},
    {"unauthorized-ratelimit-rps", maybe, mapped, "limits.error_answers_per_second", "per transport address; fifty times that for an IP address"},
    {"stateless-nonce", on_off, used, "", "nonces are always stateless"},
    {"stateless-nonce-secret", value, ignored, "", "the key of nonces is made at each start; clients ask again by themselves", false, secret},
    {"drain-min-allocations", maybe, ignored, "", "`radiotower drain` ends with the last allocation, or at its deadline"},
    // Peers.
    {"allow-loopback-peers", on_off, refused, "peers.allow", "loopback is never reached, but for single addresses with the word unsafe: allow = [\"127.0.0.1:PORT unsafe\"]", protects},
    {"no-loopback-peers", on_off, used, "", "loopback is never reached through the relay", protects},
    {"no-multicast-peers", on_off, used, "", "multicast is never reached through the relay", protects},
    {"denied-peer-ip", repeated, mapped, "peers.deny", "less what allowed-peer-ip opens, which wins as in coturn", protects},
    {"allowed-peer-ip", repeated, mapped, "peers.allow", "reached, whatever denied-peer-ip says", protects},
    {"server-relay", on_off, refused, "", "permissions are always checked", protects},
    // Administration.
    {"cli", on_off, used, "control.socket", "the telnet console is a Unix socket here, which the unit makes: `radiotower sessions`, kill, drain and their like"},
    {"no-cli", on_off, used, "", "there is no telnet console"},
    {"cli-ip", value, ignored, "", "there is no telnet console: `radiotower sessions` and its like use a Unix socket"},
    {"cli-port", value, ignored, "", "there is no telnet console: `radiotower sessions` and its like use a Unix socket"},
    {"cli-password", value, ignored, "", "the permissions of the Unix socket are the password", false, secret},
    {"cli-max-output-sessions", value, ignored, "", "`radiotower sessions` filters and sorts"},
    {"web-admin", on_off, ignored, "", "there is no web interface: users stand in a file, and `radiotower sessions` shows who is there"},
    {"web-admin-ip", value, ignored, "", "there is no web interface"},
    {"web-admin-port", value, ignored, "", "there is no web interface"},
    {"web-admin-listen-on-workers", on_off, ignored, "", "there is no web interface"},
    {"acme-redirect", value, refused, "", "no HTTP is answered: let the ACME client use port 80 or the DNS"},
    {"prometheus", presence, mapped, "metrics.listen, metrics.coturn_names", "metrics with coturn's names, on loopback unless prometheus-address says otherwise"},
    {"prometheus-port", value, mapped, "metrics.listen", "the port of the metrics"},
    {"prometheus-address", value, mapped, "metrics.listen", "the address of the metrics", protects},
    {"prometheus-path", value, ignored, "", "the path is /metrics"},
    {"prometheus-username-labels", presence, ignored, "", "metrics are never by user: `radiotower sessions` has them"},
    {"prometheus-tls", on_off, refused, "", "metrics are not over TLS: leave them on loopback, behind a front end that speaks it", protects},
    {"prometheus-cert", value, ignored, "", "of use for prometheus-tls alone"},
    {"prometheus-key", value, ignored, "", "of use for prometheus-tls alone"},
    // Of old files.
    {"external-port", value, ignored, "", "coturn does not know it any more either"},
    {"ne", value, ignored, "", "coturn does not know it any more either"},
    {"prod", on_off, ignored, "", "coturn does not know it any more either"},
    {"version", presence, ignored, "", "of use on a command line alone"},
};

std::string plain(std::string_view key) {
  std::string out = lower_case(key.substr(0, 64));
  std::replace(out.begin(), out.end(), '_', '-');
  out.erase(0, std::min(out.find_first_not_of('-'), out.size()));
  return out;
}

}  // namespace

std::string_view name(Verdict verdict) {
  switch (verdict) {
    case used: return "used";
    case mapped: return "mapped";
    case ignored: return "ignored";
    case refused: return "refused";
    case unknown: return "unknown";
  }
  return "";
}

std::span<const Option> coturn_options() { return options; }

const Option* find_option(std::string_view name) {
  const auto found = std::find_if(std::begin(options), std::end(options), [&](const Option& o) { return o.name == name; });
  return found == std::end(options) ? nullptr : &*found;
}

const Option* nearest_option(std::string_view key) {
  const std::string wanted = plain(key);
  const Option* best = nullptr;
  std::size_t best_distance = std::min<std::size_t>(4, wanted.size() / 4 + 1) + 1;
  if (key.size() > 64 || wanted.size() < 2) return nullptr;
  for (const Option& option : options) {
    const std::size_t distance = edit_distance(wanted, plain(option.name));
    if (distance > best_distance || (distance == best_distance && (!best || best->protects || !option.protects))) continue;
    best_distance = distance;
    best = &option;
  }
  return best;
}

std::string options_as_markdown() {
  std::string out = "| turnserver.conf | verdict | relay.toml | |\n|---|---|---|---|\n";
  for (const Option& option : options) {
    std::string keys;
    for (std::string_view rest = option.keys; !rest.empty();) {
      const std::size_t comma = std::min(rest.find(", "), rest.size());
      keys += fmt::format("{}`{}`", keys.empty() ? "" : ", ", rest.substr(0, comma));
      rest.remove_prefix(std::min(comma + 2, rest.size()));
    }
    out += fmt::format("| `{}` | {} | {} | {} |\n", option.name, name(option.verdict), keys, option.says);
  }
  return out;
}

}  // namespace radiotower::cli
