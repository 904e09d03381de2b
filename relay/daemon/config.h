// The configuration of the relay as plain values, each with where it came from; read from TOML and from flags.
//
// Nothing here touches the network. A bad configuration never starts: every mistake of a file is reported, with file, line, key
// and a hint, and none is guessed away. docs/configuration.md is the manual of the keys.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "radiotower/net/address.h"
#include "radiotower/net/peer_policy.h"
#include "radiotower/service/configuration.h"
#include "radiotower/turn/settings.h"

namespace radiotower::daemon {

/// A value as it was written, and where: lists keep a source for each entry, so that a later check can name the line.
struct Text {
  std::string value;
  std::string source;
};

/// offload.xdp: one word, or the interfaces.
struct Xdp {
  std::string word = "off";      // "off" or "auto"; empty: the list
  std::vector<Text> interfaces;  // "eth0", "eth0 generic"
};

/// One table [realms."NAME"].
struct RealmConfig {
  std::string name;
  std::string source;  // of the table
  std::vector<Text> origins, listeners;
  std::string secrets_file, users_file;
  std::optional<char> rest_separator;                       // none: that of [credentials]
  std::map<std::string, std::uint64_t, std::less<>> limits;  // key -> value, where it differs from [limits]
  std::map<std::string, std::string, std::less<>> sources;   // key -> "relay.toml:12"
};

/// What is for operators: a reload changes it but for the sockets' paths.
struct OperatorSettings {
  std::string control_socket;  // path; empty: off
  std::string metrics_listen;  // "127.0.0.1:9641", "unix:/run/radiotower-relay/metrics.sock"; empty: off
  bool coturn_names = false;   // coturn's names of metrics beside ours
  std::uint32_t drain_seconds = 0;  // SIGTERM drains for so long at most; 0: ends at once
};

struct Config {
  // realm, [listen], [relay]
  std::string realm = "radiotower";
  std::vector<Text> listen_udp = {{"0.0.0.0:3478", "default"}, {"[::]:3478", "default"}};
  // Streams and DTLS. tcp takes TLS too when there is a certificate; tls has its default only then.
  std::vector<Text> listen_tcp = {{"0.0.0.0:3478", "default"}, {"[::]:3478", "default"}};
  std::vector<Text> listen_tls = {{"0.0.0.0:5349", "default"}, {"[::]:5349", "default"}};
  std::vector<Text> listen_dtls;
  std::string certificate, private_key;  // PEM files; empty: none
  std::vector<Text> more_certificates;   // "certificate.pem key.pem": chosen by the name a client asks for (SNI)
  std::vector<Text> proxy_protocol_from;
  std::vector<Text> stun_only;  // listeners, of those above, that take nothing but Binding
  std::vector<Text> deny_clients;
  std::vector<Text> relay_addresses;  // empty: every usable address of the host
  // "198.51.100.7/192.168.0.105", or "198.51.100.7" where there is one relay address of that family
  // Or "dns:tower.example.org", "stun:stun.example.org:3478", each with "/192.168.0.105" behind it or without: asked for at the start and
  // every external_refresh_seconds.
  std::vector<Text> external;
  std::uint32_t external_refresh_seconds = 60;
  std::uint16_t first_port = 32768, last_port = 65535;
  bool rfc5766_channel_numbers = false;
  bool keep_address_family = false;
  // [credentials]
  std::string secrets_file, users_file;  // absolute or relative to the working directory; empty: none
  char rest_separator = ':';
  bool strict_expiry = false;
  bool open_relay_for_everyone = false;
  // [peers]
  std::vector<Text> allow, deny;
  bool allow_only = false;
  turn::Limits limits;
  std::uint32_t connections_per_source = 256, connections = 0;  // streams; 0: no limit
  // [features]
  bool tcp_relay = false, mobility = false, nat_discovery = false, authenticated_binding = false;
  std::string oauth_keys_file;
  std::string oauth_server_name;  // empty: the realm
  // [redirect]
  std::vector<Text> redirect_servers, redirect_secure_servers;
  std::string redirect_domain;
  std::string redirect_when = "draining";
  bool draining = false;
  std::vector<RealmConfig> realms;  // by name
  // [workers], [offload], [log]
  unsigned workers = 0;
  std::string backend = "auto";
  std::uint32_t gather_microseconds = 400;
  Xdp xdp;
  std::string log_format = "text";
  std::string log_level = "info";
  // [control], [metrics], [shutdown]
  std::string control_socket;  // empty: "control.sock" in $RUNTIME_DIRECTORY, which systemd sets, else none
  std::string metrics_listen;
  bool metrics_coturn_names = false;
  std::uint32_t drain_seconds = 0;

  std::string file;  // what was read, for mistakes that no line holds; empty: none
  std::map<std::string, std::string, std::less<>> sources;  // key -> "default", "relay.toml:12", "--realm"
  std::string_view source(std::string_view key) const;
};

/// Reads a file over `config`. False: `errors` has grown.
bool read_config_file(const std::string& path, Config& config, ConfigErrors& errors);
/// The same for text, for tests and the embedded defaults; `path` names it in errors and is what relative files are relative to.
bool read_config_text(std::string_view text, const std::string& path, Config& config, ConfigErrors& errors);

/// Sets one key from a flag, with the same checks as in a file: `values` has one entry for a plain key.
bool set_from_flag(std::string_view flag, std::string_view key, const std::vector<std::string>& values, Config& config, ConfigErrors& errors);

/// "32768-65535" -> both ends. False with a sentence and a hint.
bool parse_ports(std::string_view text, std::uint16_t& first, std::uint16_t& last, std::string& what, std::string& hint);

/// The longest realm with which a 401 over UDP stays within three times its request on the wire, IP and UDP headers counted.
inline constexpr std::size_t max_realm = 40;

/// With the default of control.socket filled in.
OperatorSettings operator_settings(const Config& config);

/// Every key with its value and where it came from, one a line, as TOML that could be read again.
std::string print_config(const Config& config);

/// The keys whose values differ, with both as TOML (empty: not set), in the order of the manual. Realms are not among them.
struct KeyChange {
  std::string_view key;
  std::string before, after;
  bool reloads = true;  // false: as it was until a restart
};
std::vector<KeyChange> changed_keys(const Config& before, const Config& after);

}  // namespace radiotower::daemon
