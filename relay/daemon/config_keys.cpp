// The rows of the table, and the checks of single values that they name.
#include "config_keys.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "external_address.h"

namespace radiotower::daemon {

bool check_realm(const std::string& value, const Place& place, std::string&) {
  if (value.empty()) return place.wrong("the realm is empty", "a name such as \"example.org\", or leave the key out");
  if (value.size() > max_realm)
    return place.wrong(fmt::format("{} bytes are too long: a 401 over UDP must not exceed three times its request on the wire", value.size()),
                       fmt::format("at most {} bytes", max_realm));
  for (const char c : value)
    if (static_cast<unsigned char>(c) < 0x20 || c == '"' || c == '\\' || c == 0x7F)
      return place.wrong("control characters, quotes and backslashes have no place in a realm", "a name such as \"example.org\"");
  return true;
}

bool check_listener(const std::string& value, const Place& place, std::string& spelling) {
  const auto address = net::TransportAddress::parse(value);
  if (address && address->port != 0) {
    spelling = address->text();
    return true;
  }
  const std::size_t colon = value.rfind(':');
  const std::string port = colon == std::string::npos ? "" : value.substr(colon + 1);
  if (!port.empty() && port.find_first_not_of("0123456789") == std::string::npos && net::TransportAddress::parse(value.substr(0, colon) + ":1"))
    return place.wrong(fmt::format("port {} is out of range 1-65535", port), "3478 is the port of STUN and TURN");
  return place.wrong(fmt::format("\"{}\" is not an IP address and a port", value), fmt::format("\"0.0.0.0:{0}\", or \"[::]:{0}\" with brackets round IPv6", place.key == "listen.tls" ? 5349 : 3478));
}

namespace {

bool check_pair_of_files(const std::string& value, const Place& place, std::string& spelling) {
  const std::size_t blank = value.find(' ');
  spelling = value;
  if (blank != std::string::npos && blank != 0 && blank + 1 < value.size() && value.find(' ', blank + 1) == std::string::npos) return true;
  return place.wrong(fmt::format("\"{}\" is not a certificate and its key", value), "two files with a blank between them: \"chain.pem key.pem\"");
}

bool check_clients(const std::string& value, const Place& place, std::string& spelling) {
  std::string why;
  const auto range = net::AddressRange::parse(value, why);
  if (!range) return place.wrong(why, "\"10.1.2.3\", \"10.0.0.0/8\" or \"10.0.0.5-10.0.0.9\"");
  spelling = range->text();
  return true;
}

bool check_relay_address(const std::string& value, const Place& place, std::string& spelling) {
  const auto ip = net::IpAddress::parse(value);
  if (!ip) return place.wrong(fmt::format("\"{}\" is not an IP address", value), "an address of this host, without port: \"192.168.0.105\"");
  if (ip->is_unspecified() || ip->is_multicast() || (ip->is_link_local() && !ip->is_v4()))
    return place.wrong(fmt::format("{} cannot be a relayed address", value), "leave the key out for every usable address of the host");
  spelling = ip->text();
  return true;
}

bool check_external(const std::string& value, const Place& place, std::string& spelling) {
  std::string what, hint;
  const auto entry = parse_external(value, what, hint);
  if (!entry) return place.wrong(what, hint);
  const std::string front = entry->source.empty() ? entry->address.text() : entry->source;
  spelling = fmt::format("{}/{}", front, entry->local ? entry->local->text() : entry->source.empty() ? front : "");
  return true;
}

bool check_rule(const std::string& value, const Place& place, std::string& spelling) {
  std::string why;
  const auto rule = net::PeerRule::parse(value, why);
  if (!rule) return place.wrong(why, "\"10.1.2.3\", \"10.1.2.3:8443\", \"10.0.0.0/8\", \"[2001:db8::7]:8443\" or \"10.0.0.5-10.0.0.9\"");
  spelling = rule->text();
  return true;
}

bool check_denied(const std::string& value, const Place& place, std::string& spelling) {
  std::string why;
  const auto rule = net::PeerRule::parse(value, why);
  if (rule && rule->unsafe) return place.wrong(fmt::format("\"{}\": unsafe has a meaning in peers.allow alone", value), "leave the word out");
  return check_rule(value, place, spelling);
}

}  // namespace

bool one_of(const std::string& value, std::initializer_list<std::string_view> words, const Place& place) {
  if (std::find(words.begin(), words.end(), value) != words.end()) return true;
  std::string list;
  for (const auto word : words) list += fmt::format("{}\"{}\"", list.empty() ? "" : ", ", word);
  return place.wrong(fmt::format("\"{}\" is not known", value), "one of " + list);
}

namespace {

bool check_backend(const std::string& value, const Place& place, std::string&) { return one_of(value, {"auto", "io_uring", "epoll"}, place); }
bool check_format(const std::string& value, const Place& place, std::string&) { return one_of(value, {"text", "json"}, place); }
bool check_level(const std::string& value, const Place& place, std::string&) {
  return one_of(value, {"error", "warning", "notice", "info", "debug"}, place);
}

bool check_interface(const std::string& value, const Place& place, std::string& spelling) {
  const std::size_t blank = value.find(' ');
  spelling = value.substr(0, blank);
  if (spelling == "off" || spelling == "auto")
    return place.wrong(fmt::format("\"{}\" stands alone, and not in a list", spelling), fmt::format("xdp = \"{}\"", spelling));
  const bool is_name = !spelling.empty() && spelling.size() < 16 &&
                       spelling.find_first_of("/: \t\n") == std::string::npos;
  if (is_name && (blank == std::string::npos || value.substr(blank) == " generic")) return true;
  return place.wrong(fmt::format("\"{}\" is not an interface", value),
                     "\"eth0\", or \"eth0 generic\" where its driver has no XDP; `ip link` shows them");
}

bool check_metrics_listen(const std::string& value, const Place& place, std::string& spelling) {
  if (value.empty() || (value.rfind("unix:/", 0) == 0 && value.size() > 6 && value.size() < 108)) return true;
  if (const auto address = net::TransportAddress::parse(value); address && address->port != 0) return check_listener(value, place, spelling);
  return place.wrong(fmt::format("\"{}\" is neither an IP address and a port nor a Unix socket", value), "\"127.0.0.1:9641\" or \"unix:/run/radiotower-relay/metrics.sock\"");
}

constexpr auto largest_rate = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
const Key keys[] = {
    {"realm", [](Config& c) -> Slot { return &c.realm; }, check_realm},
    {"listen.udp", [](Config& c) -> Slot { return &c.listen_udp; }, check_listener},
    {"listen.tcp", [](Config& c) -> Slot { return &c.listen_tcp; }, check_listener},
    {"listen.tls", [](Config& c) -> Slot { return &c.listen_tls; }, check_listener},
    {"listen.dtls", [](Config& c) -> Slot { return &c.listen_dtls; }, check_listener},
    {"listen.certificate", [](Config& c) -> Slot { return File{&c.certificate}; }},
    {"listen.private_key", [](Config& c) -> Slot { return File{&c.private_key}; }},
    {"listen.more_certificates", [](Config& c) -> Slot { return &c.more_certificates; }, check_pair_of_files},
    {"listen.proxy_protocol_from", [](Config& c) -> Slot { return &c.proxy_protocol_from; }, check_clients},
    {"listen.stun_only", [](Config& c) -> Slot { return &c.stun_only; }, check_listener},
    {"listen.deny_clients", [](Config& c) -> Slot { return &c.deny_clients; }, check_clients},
    {"relay.addresses", [](Config& c) -> Slot { return &c.relay_addresses; }, check_relay_address},
    {"relay.external", [](Config& c) -> Slot { return &c.external; }, check_external},
    {"relay.external_refresh_seconds", [](Config& c) -> Slot { return &c.external_refresh_seconds; }, nullptr, true, 86'400},
    {"relay.ports", [](Config& c) -> Slot { return Ports{&c.first_port, &c.last_port}; }},
    {"relay.rfc5766_channel_numbers", [](Config& c) -> Slot { return &c.rfc5766_channel_numbers; }},
    {"relay.keep_address_family", [](Config& c) -> Slot { return &c.keep_address_family; }},
    {"credentials.secrets_file", [](Config& c) -> Slot { return File{&c.secrets_file}; }},
    {"credentials.users_file", [](Config& c) -> Slot { return File{&c.users_file}; }},
    {"credentials.rest_separator", [](Config& c) -> Slot { return &c.rest_separator; }},
    {"credentials.strict_expiry", [](Config& c) -> Slot { return &c.strict_expiry; }},
    {"credentials.open_relay_for_everyone", [](Config& c) -> Slot { return &c.open_relay_for_everyone; }},
    {"peers.allow", [](Config& c) -> Slot { return &c.allow; }, check_rule},
    {"peers.deny", [](Config& c) -> Slot { return &c.deny; }, check_denied},
    {"peers.allow_only", [](Config& c) -> Slot { return &c.allow_only; }},
    {"limits.allocations_per_user", [](Config& c) -> Slot { return &c.limits.allocations_per_user; }},
    {"limits.bytes_per_second_per_user", [](Config& c) -> Slot { return &c.limits.bytes_per_second_per_user; }, nullptr, true, largest_rate},
    {"limits.packets_per_second_per_user", [](Config& c) -> Slot { return &c.limits.packets_per_second_per_user; }, nullptr, true, largest_rate},
    {"limits.allocations", [](Config& c) -> Slot { return &c.limits.allocations; }},
    {"limits.permissions_per_allocation", [](Config& c) -> Slot { return &c.limits.permissions_per_allocation; }},
    {"limits.channels_per_allocation", [](Config& c) -> Slot { return &c.limits.channels_per_allocation; }},
    {"limits.new_peers_per_second", [](Config& c) -> Slot { return &c.limits.new_peers_per_second; }},
    {"limits.error_answers_per_second", [](Config& c) -> Slot { return &c.limits.error_answers_per_second; }},
    {"limits.binding_answers_per_second", [](Config& c) -> Slot { return &c.limits.binding_answers_per_second; }},
    {"limits.connections_per_source", [](Config& c) -> Slot { return &c.connections_per_source; }},
    {"limits.connections", [](Config& c) -> Slot { return &c.connections; }},
    {"features.tcp_relay", [](Config& c) -> Slot { return &c.tcp_relay; }},
    {"features.mobility", [](Config& c) -> Slot { return &c.mobility; }},
    {"features.nat_discovery", [](Config& c) -> Slot { return &c.nat_discovery; }},
    {"features.authenticated_binding", [](Config& c) -> Slot { return &c.authenticated_binding; }},
    {"features.oauth_keys_file", [](Config& c) -> Slot { return File{&c.oauth_keys_file}; }},
    {"features.oauth_server_name", [](Config& c) -> Slot { return &c.oauth_server_name; }, check_server_name},
    {"redirect.servers", [](Config& c) -> Slot { return &c.redirect_servers; }, check_redirect_server},
    {"redirect.secure_servers", [](Config& c) -> Slot { return &c.redirect_secure_servers; }, check_redirect_server},
    {"redirect.domain", [](Config& c) -> Slot { return &c.redirect_domain; }, check_domain},
    {"redirect.when", [](Config& c) -> Slot { return &c.redirect_when; }, check_redirect_when},
    {"redirect.draining", [](Config& c) -> Slot { return &c.draining; }},
    {"workers.count", [](Config& c) -> Slot { return &c.workers; }, nullptr, false, 1024},
    {"workers.backend", [](Config& c) -> Slot { return &c.backend; }, check_backend, false},
    {"workers.gather_microseconds", [](Config& c) -> Slot { return &c.gather_microseconds; }, nullptr, false, 10'000},
    {"offload.xdp", [](Config& c) -> Slot { return &c.xdp; }, check_interface, false},
    {"log.format", [](Config& c) -> Slot { return &c.log_format; }, check_format},
    {"log.level", [](Config& c) -> Slot { return &c.log_level; }, check_level},
    {"control.socket", [](Config& c) -> Slot { return File{&c.control_socket}; }, nullptr, false},
    {"metrics.listen", [](Config& c) -> Slot { return &c.metrics_listen; }, check_metrics_listen, false},
    {"metrics.coturn_names", [](Config& c) -> Slot { return &c.metrics_coturn_names; }},
    {"shutdown.drain_seconds", [](Config& c) -> Slot { return &c.drain_seconds; }, nullptr, true, 86'400},
};

}  // namespace

std::span<const Key> config_keys() { return keys; }

}  // namespace radiotower::daemon
