#include "config_realms.h"

#include <fmt/format.h>
#include <openssl/crypto.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <limits>
#include <set>

#include "config_checks.h"
#include "credential_files.h"
#include "radiotower/base/encoding.h"

namespace radiotower::daemon {

namespace {

/// What of [limits] a realm may have for itself.
struct LimitKey {
  std::string_view name;
  std::uint64_t largest;
  void (*set)(turn::Limits&, std::uint64_t);
};
constexpr std::uint64_t largest_number = std::numeric_limits<std::uint32_t>::max();
constexpr auto largest_rate = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
const LimitKey limit_keys[] = {
    {"allocations_per_user", largest_number, [](turn::Limits& l, std::uint64_t v) { l.allocations_per_user = static_cast<std::uint32_t>(v); }},
    {"bytes_per_second_per_user", largest_rate, [](turn::Limits& l, std::uint64_t v) { l.bytes_per_second_per_user = v; }},
    {"packets_per_second_per_user", largest_rate, [](turn::Limits& l, std::uint64_t v) { l.packets_per_second_per_user = v; }},
    {"allocations", largest_number, [](turn::Limits& l, std::uint64_t v) { l.allocations = static_cast<std::uint32_t>(v); }},
    {"permissions_per_allocation", largest_number, [](turn::Limits& l, std::uint64_t v) { l.permissions_per_allocation = static_cast<std::uint32_t>(v); }},
    {"channels_per_allocation", largest_number, [](turn::Limits& l, std::uint64_t v) { l.channels_per_allocation = static_cast<std::uint32_t>(v); }},
    {"new_peers_per_second", largest_number, [](turn::Limits& l, std::uint64_t v) { l.new_peers_per_second = static_cast<std::uint32_t>(v); }},
};
constexpr std::string_view text_keys[] = {"origins", "listeners", "secrets_file", "users_file", "rest_separator"};

std::string table_name(std::string_view realm) { return fmt::format("realms.{}", toml_text(realm)); }
std::string at_line(const std::string& path, const toml::node& node) { return fmt::format("{}:{}", path, node.source().begin.line); }

std::string suggestion(std::string_view unknown) {
  std::string_view best;
  std::size_t distance = 4;
  const auto consider = [&](std::string_view name) {
    const std::size_t d = unknown.size() > 64 ? distance : edit_distance(unknown, name);
    if (d >= distance) return;
    distance = d;
    best = name;
  };
  for (const auto name : text_keys) consider(name);
  for (const auto& key : limit_keys) consider(key.name);
  return best.empty() ? "a realm has origins, listeners, secrets_file, users_file, rest_separator and limits of its own"
                      : fmt::format("did you mean {}?", best);
}

using Check = bool (*)(const std::string&, const Place&, std::string&);
bool read_list(const toml::node& node, const std::string& path, Check check, std::vector<Text>& out, const Place& place) {
  if (!node.is_array()) return place.wrong("must be a list of texts", "[\"...\", \"...\"]");
  std::vector<std::string> seen;
  bool good = true;
  for (const toml::node& element : *node.as_array()) {
    const Place here{at_line(path, element), place.key, place.errors};
    std::string spelling;
    if (seen.size() >= 1000) return here.wrong("more than 1000 entries", "one realm cannot have as many");
    if (!element.is_string()) {
      good = here.wrong("must be a list of texts", "[\"...\", \"...\"]");
      continue;
    }
    const std::string& value = element.as_string()->get();
    if (!check(value, here, spelling)) good = false;
    else if (std::find(seen.begin(), seen.end(), spelling) == seen.end()) out.push_back({spelling, here.where});
    else good = here.wrong(fmt::format("\"{}\" stands there twice", value), "remove one of both");
    seen.push_back(spelling);
  }
  return good;
}

bool read_value(std::string_view key, const toml::node& node, const std::string& path, RealmConfig& realm, const Place& place) {
  if (key == "origins") return read_list(node, path, check_origin, realm.origins, place);
  if (key == "listeners") return read_list(node, path, check_listener, realm.listeners, place);
  for (const LimitKey& limit : limit_keys) {
    if (limit.name != key) continue;
    if (!node.is_integer()) return place.wrong("must be a whole number", fmt::format("{} = 10, without quotes", key));
    const std::int64_t value = node.as_integer()->get();
    if (value < 0) return place.wrong(fmt::format("{} is negative", value), "0 means no limit");
    if (static_cast<std::uint64_t>(value) > limit.largest)
      return place.wrong(fmt::format("{} is out of range 0-{}", value, limit.largest), "0 means no limit");
    realm.limits.insert_or_assign(std::string(key), static_cast<std::uint64_t>(value));
    return true;
  }
  if (std::find(std::begin(text_keys), std::end(text_keys), key) == std::end(text_keys))
    return node.is_table() ? place.wrong("unknown section", "a realm has no sections: its keys stand right below [realms.\"NAME\"]")
                           : place.wrong("unknown key", suggestion(key));
  if (!node.is_string()) return place.wrong("must be a text", fmt::format("{} = \"...\", in quotes", key));
  const std::string& value = node.as_string()->get();
  if (key == "rest_separator") {
    if (value.size() != 1 || value[0] <= 0x20 || value[0] >= 0x7F || (value[0] >= '0' && value[0] <= '9'))
      return place.wrong(fmt::format("\"{}\" cannot separate an expiry from a user name", value),
                         "one printable character that is no digit, \":\" as a rule");
    realm.rest_separator = value[0];
    return true;
  }
  if (value.empty()) return place.wrong("the file name is empty", "leave the key out when there is no such file");
  const std::filesystem::path file = value, folder = std::filesystem::path(path).parent_path();
  (key == "secrets_file" ? realm.secrets_file : realm.users_file) = (file.is_absolute() || folder.empty() ? file : folder / file).string();
  return true;
}

/// The concrete addresses of one listener of listen.udp, tcp, tls or dtls; empty: there is no such listener.
std::vector<net::TransportAddress> addresses_of(const Config& config, const std::vector<io::HostAddress>& host, const net::TransportAddress& wanted) {
  bool exact = false, covered = false;
  for (const auto* list : {&config.listen_udp, &config.listen_tcp, &config.listen_tls, &config.listen_dtls}) {
    for (const Text& text : *list) {
      const auto listener = net::TransportAddress::parse(text.value);
      if (!listener || listener->port != wanted.port || listener->family() != wanted.family()) continue;
      exact = exact || listener->ip == wanted.ip;
      covered = covered || listener->ip.is_unspecified();
    }
  }
  if (wanted.ip.is_unspecified()) {
    std::vector<net::TransportAddress> all;
    for (const auto& a : host)
      if (exact && a.ip.family() == wanted.family()) all.push_back({a.ip, wanted.port, 0});
    return all;
  }
  const bool here = std::any_of(host.begin(), host.end(), [&](const auto& a) { return a.ip == wanted.ip; });
  return exact || (covered && here) ? std::vector{wanted} : std::vector<net::TransportAddress>{};
}

std::string known_listeners(const Config& config) {
  std::string out;
  for (const auto* list : {&config.listen_udp, &config.listen_tcp, &config.listen_tls, &config.listen_dtls})
    for (const Text& text : *list)
      if (out.find(text.value) == std::string::npos) out.append(out.empty() ? "" : ", ").append(text.value);
  return out;
}

void resolve(const Config& config, const std::vector<io::HostAddress>& host, const std::vector<Text>& texts, const std::string& key,
             std::vector<net::TransportAddress>& out, ConfigErrors& errors) {
  for (const Text& text : texts) {
    const auto found = addresses_of(config, host, *net::TransportAddress::parse(text.value));
    if (found.empty())
      errors.push_back({text.source, key, fmt::format("{} is no listener of this relay", text.value), fmt::format("one of {}", known_listeners(config))});
    out.insert(out.end(), found.begin(), found.end());
  }
}

// What a 401 over UDP may hold before it is larger than three times the smallest request that it answers.
std::size_t padded(std::size_t size) { return (size + 3) & ~std::size_t{3}; }
constexpr std::size_t room_for_names = 44;    // REALM and THIRD-PARTY-AUTHORIZATION, to an Allocate with nothing but REQUESTED-TRANSPORT
constexpr std::size_t realm_in_binding = 24;  // REALM, to a Binding request without attributes

void check_sizes(const Config& config, const std::string& realm, const std::string& where, const std::string& key,
                 const turn::Settings& settings, ConfigErrors& errors) {
  if (settings.tokens && padded(realm.size()) + padded(settings.tokens->server_name().size()) > room_for_names)
    errors.push_back({where, key,
                      fmt::format("realm \"{}\" and server name \"{}\" are too long together: a 401 over UDP must not exceed three times its "
                                  "request on the wire", realm, settings.tokens->server_name()),
                      fmt::format("at most {} bytes, each rounded up to a multiple of four; features.oauth_server_name may be shorter", room_for_names)});
  if (config.authenticated_binding && realm.size() > realm_in_binding)
    errors.push_back({where, key,
                      fmt::format("realm \"{}\" is too long for features.authenticated_binding: a 401 over UDP must not exceed three times a "
                                  "Binding request", realm),
                      fmt::format("at most {} bytes", realm_in_binding)});
}

turn::Realm build_realm(const Config& config, const RealmConfig& from, const std::vector<io::HostAddress>& host,
                        const turn::Settings& settings, Built& built, ConfigErrors& errors) {
  const std::string name = table_name(from.name);
  const auto wrong = [&](const std::string& where, std::string_view key, std::string what, std::string hint) {
    errors.push_back({where, key.empty() ? name : fmt::format("{}.{}", name, key), std::move(what), std::move(hint)});
  };
  turn::Realm realm;
  realm.name = from.name;
  realm.limits = settings.limits;
  realm.limits.allocations = 0;  // limits.allocations is the relay's
  for (const LimitKey& key : limit_keys)
    if (const auto value = from.limits.find(key.name); value != from.limits.end()) key.set(realm.limits, value->second);
  for (const Text& origin : from.origins) realm.origins.push_back(origin.value);
  resolve(config, host, from.listeners, name + ".listeners", realm.listeners, errors);

  if (from.name == config.realm)
    wrong(from.source, "", "is the default realm", "its users and limits stand in [credentials] and [limits]; give this one another name");
  if (from.origins.empty() && from.listeners.empty())
    wrong(from.source, "", "has neither origins nor listeners, so no request would be of it", "origins = [\"https://call.example.org\"]");
  if (config.open_relay_for_everyone)
    wrong(from.source, "", "an open relay asks nobody for credentials, so there is nothing for a realm to do",
          "remove it, or credentials.open_relay_for_everyone");
  else if (from.secrets_file.empty() && from.users_file.empty() && !settings.tokens)
    wrong(from.source, "", "has neither a secrets file nor a users file, so nobody could use it",
          "secrets_file = \"secrets\" or users_file = \"users\", in its own table");
  // A realm that is found by its ORIGIN has a request that is larger by that.
  if (!from.listeners.empty()) check_sizes(config, from.name, from.source, name, settings, errors);

  turn::Directory::Input input;
  input.realm = from.name;
  input.rest_separator = from.rest_separator.value_or(config.rest_separator);
  if (!from.secrets_file.empty()) input.rest_secrets = read_secrets(from.secrets_file, name + ".secrets_file", errors);
  if (!from.users_file.empty()) input.users = read_users(from.users_file, name + ".users_file", errors);
  if (!from.secrets_file.empty()) built.facts.add_secrets(name + ".secrets_file", input.rest_secrets);
  if (!from.users_file.empty()) built.facts.add_users(name + ".users_file", input.users);
  realm.directory = std::make_shared<turn::Directory>(std::move(input));
  return realm;
}

/// No request may be of two realms.
void check_apart(const Config& config, const std::vector<turn::Realm>& realms, ConfigErrors& errors) {
  std::map<std::string, const RealmConfig*> origins;
  std::map<net::TransportAddress, const RealmConfig*> listeners;
  for (std::size_t i = 0; i < realms.size(); ++i) {
    const RealmConfig& from = config.realms[i];
    const auto taken = [&](const Text& text, const char* key, const RealmConfig& by) {
      errors.push_back({text.source, fmt::format("{}.{}", table_name(from.name), key),
                        fmt::format("\"{}\" is of realm \"{}\" already", text.value, by.name), "remove one of both"});
    };
    for (const Text& origin : from.origins)
      if (const auto [held, fresh] = origins.emplace(origin.value, &from); !fresh) taken(origin, "origins", *held->second);
    bool said = false;
    for (const auto& listener : realms[i].listeners) {
      const auto [held, fresh] = listeners.emplace(listener, &from);
      if (fresh || held->second == &from || said) continue;
      taken(from.listeners.front(), "listeners", *held->second);
      said = true;
    }
  }
}

turn::Redirect build_redirect(const Config& config, const turn::Settings& settings, Built& built, ConfigErrors& errors) {
  turn::Redirect redirect;
  redirect.domain = config.redirect_domain;
  redirect.when = config.redirect_when == "always" ? turn::Redirect::When::always
                  : config.redirect_when == "full" ? turn::Redirect::When::full
                                                   : turn::Redirect::When::draining;
  // The same list may be given to every relay: each leaves itself out, also as a NAT shows it.
  const auto is_own = [&](const net::TransportAddress& server) {
    return std::any_of(settings.listeners.begin(), settings.listeners.end(), [&](const net::TransportAddress& listener) {
      if (listener == server) return true;
      return listener.port == server.port && std::any_of(settings.relay_addresses.begin(), settings.relay_addresses.end(), [&](const auto& a) {
               return a.local == listener.ip && a.external == server.ip;
             });
    });
  };
  const auto fill = [&](const std::vector<Text>& from, const char* key, std::vector<net::TransportAddress>& to) {
    for (const Text& text : from) {
      const auto server = *net::TransportAddress::parse(text.value);
      if (is_own(server)) built.notes.push_back(fmt::format("{}: {} is this relay itself, which sends nobody to itself", key, text.value));
      else to.push_back(server);
    }
    if (!from.empty() && to.empty()) errors.push_back({from.front().source, key, "names nobody but this relay", "other relays, or leave the key out"});
  };
  fill(config.redirect_servers, "redirect.servers", redirect.servers);
  fill(config.redirect_secure_servers, "redirect.secure_servers", redirect.secure_servers);
  if (config.redirect_servers.empty() && config.redirect_secure_servers.empty()) {
    for (const char* key : {"redirect.domain", "redirect.when"}) {
      const bool set = std::string_view(key) == "redirect.domain" ? !config.redirect_domain.empty() : redirect.when != turn::Redirect::When::draining;
      if (set) errors.push_back({std::string(config.source(key)), key, "there is no server to send clients to", "redirect.servers = [\"192.0.2.7:3478\"]"});
    }
  } else if (config.open_relay_for_everyone) {
    errors.push_back({std::string(config.source("redirect.servers")), "redirect.servers",
                      "an open relay cannot send clients away: that takes the keys of credentials (RFC 8489, 10)", "remove [redirect]"});
  }
  return redirect;
}

void resolve_stun_only(const Config& config, const std::vector<io::HostAddress>& host, turn::Settings& settings, Built& built, ConfigErrors& errors) {
  resolve(config, host, config.stun_only, "listen.stun_only", settings.stun_only, errors);
  const auto& only = settings.stun_only;
  const auto is_stun_only = [&](const auto& listener) { return std::find(only.begin(), only.end(), listener) != only.end(); };
  if (!settings.listeners.empty() && std::all_of(settings.listeners.begin(), settings.listeners.end(), is_stun_only))
    built.notes.push_back("every UDP listener is in listen.stun_only: nothing is relayed over UDP");
}

}  // namespace

bool check_origin(const std::string& value, const Place& place, std::string& spelling) {
  const std::string example = "as browsers write it, without a path: \"https://call.example.org\" or \"https://call.example.org:8443\"";
  const std::size_t colon = value.find("://");
  const std::string_view host = colon == std::string::npos ? std::string_view() : std::string_view(value).substr(colon + 3);
  if (value.size() > 267) return place.wrong(fmt::format("{} bytes are too long for an origin", value.size()), example);
  if (colon == 0 || host.empty() || host.find_first_of("/?#@") != host.npos ||
      std::any_of(value.begin(), value.end(), [](char c) { return static_cast<unsigned char>(c) <= 0x20 || static_cast<unsigned char>(c) >= 0x7F; }))
    return place.wrong(fmt::format("\"{}\" is not an origin", value), example);
  spelling = lower_case(std::string_view(value));
  return true;
}

bool check_redirect_server(const std::string& value, const Place& place, std::string& spelling) {
  constexpr const char* hint = "the address of another relay, as clients see it: \"192.0.2.7:3478\"";
  const auto server = net::TransportAddress::parse(value);
  if (!server || server->port == 0) return place.wrong(fmt::format("\"{}\" is not an IP address and a port", value), hint);
  if (server->ip.is_unspecified() || server->ip.is_multicast()) return place.wrong(fmt::format("no client can reach {}", value), hint);
  spelling = server->text();
  return true;
}

bool check_redirect_when(const std::string& value, const Place& place, std::string&) { return one_of(value, {"draining", "full", "always"}, place); }

bool check_domain(const std::string& value, const Place& place, std::string&) {
  if (value.size() > 253) return place.wrong(fmt::format("{} bytes are too long for a name", value.size()), "\"turn.example.org\"");
  for (const char c : value)
    if (!(c == '-' || c == '.' || (c >= '0' && c <= '9') || (lower_case(c) >= 'a' && lower_case(c) <= 'z')))
      return place.wrong(fmt::format("\"{}\" is not a domain name", value), "the name in the certificate of the other relays: \"turn.example.org\"");
  return true;
}

bool check_server_name(const std::string& value, const Place& place, std::string&) {
  std::string spelling;
  return value.empty() || check_realm(value, place, spelling);
}

void read_realms(const toml::table& table, const std::string& path, Config& config, ConfigErrors& errors) {
  config.realms.clear();
  for (const auto& [k, node] : table) {
    RealmConfig realm;
    realm.name = std::string(k.str());
    realm.source = fmt::format("{}:{}", path, k.source().begin.line);
    const std::string name = table_name(realm.name);
    const Place place{realm.source, name, errors};
    std::string spelling;
    if (!node.is_table()) {
      place.wrong("is a realm, not a key", fmt::format("write [{}] and its keys on the lines below", name));
      continue;
    }
    if (!check_realm(realm.name, place, spelling)) continue;
    for (const auto& [key, value] : *node.as_table()) {
      const std::string key_name(key.str());
      const Place here{fmt::format("{}:{}", path, key.source().begin.line), fmt::format("{}.{}", name, key_name), errors};
      if (read_value(key_name, value, path, realm, here)) realm.sources[key_name] = here.where;
    }
    config.realms.push_back(std::move(realm));
  }
}

std::string print_realms(const Config& config) {
  std::string out;
  for (const RealmConfig& realm : config.realms) {
    out += fmt::format("\n[{}]  # {}\n", table_name(realm.name), realm.source);
    const auto line = [&](std::string_view key, const std::string& value) {
      const auto source = realm.sources.find(key);
      out += source == realm.sources.end() ? fmt::format("# {} is not set\n", key) : fmt::format("{} = {}  # {}\n", key, value, source->second);
    };
    const auto list = [](const std::vector<Text>& texts) {
      std::string all = "[";
      for (const Text& text : texts) all.append(all.size() > 1 ? ", " : "").append(toml_text(text.value));
      return all + "]";
    };
    line("origins", list(realm.origins));
    line("listeners", list(realm.listeners));
    line("secrets_file", toml_text(realm.secrets_file));
    line("users_file", toml_text(realm.users_file));
    line("rest_separator", toml_text(std::string(1, realm.rest_separator.value_or(':'))));
    for (const LimitKey& key : limit_keys) {
      const auto value = realm.limits.find(key.name);
      line(key.name, value == realm.limits.end() ? "" : std::to_string(value->second));
    }
  }
  return out;
}

void build_realms_and_redirects(const Config& config, const std::vector<io::HostAddress>& host, turn::Settings& settings, Built& built,
                                ConfigErrors& errors) {
  settings.draining = config.draining;
  if (!config.oauth_keys_file.empty()) {
    auto keys = read_token_keys(config.oauth_keys_file, "features.oauth_keys_file", errors);
    built.facts.add_token_keys("features.oauth_keys_file", keys);
    settings.tokens = std::make_shared<turn::Tokens>(config.oauth_server_name.empty() ? config.realm : config.oauth_server_name, std::move(keys));
    if (config.open_relay_for_everyone)
      errors.push_back({std::string(config.source("features.oauth_keys_file")), "features.oauth_keys_file",
                        "an open relay asks nobody for a token", "remove this key, or credentials.open_relay_for_everyone"});
  }
  check_sizes(config, config.realm, std::string(config.source("realm")), "realm", settings, errors);
  for (const RealmConfig& realm : config.realms) settings.realms.push_back(build_realm(config, realm, host, settings, built, errors));
  check_apart(config, settings.realms, errors);

  resolve_stun_only(config, host, settings, built, errors);
  settings.redirect = build_redirect(config, settings, built, errors);
}

void rebuild_realms_and_redirects(const Config& config, const std::vector<io::HostAddress>& host, turn::Settings& settings, Built& built,
                                  ConfigErrors& errors) {
  for (std::size_t i = 0; i < settings.realms.size() && i < config.realms.size(); ++i) {
    settings.realms[i].listeners.clear();
    resolve(config, host, config.realms[i].listeners, table_name(config.realms[i].name) + ".listeners", settings.realms[i].listeners, errors);
  }
  settings.stun_only.clear();
  resolve_stun_only(config, host, settings, built, errors);
  settings.redirect = build_redirect(config, settings, built, errors);
}

std::vector<turn::TokenKey> read_token_keys(const std::string& path, std::string_view key, ConfigErrors& errors) {
  constexpr std::string_view form = "kid key-in-base64, then perhaps A128GCM or A256GCM, timestamp=N and lifetime=N";
  constexpr std::size_t longest_key = 256, longest_kid = 508;
  std::vector<turn::TokenKey> keys;
  std::set<std::string, std::less<>> kids;
  const std::size_t before = errors.size();
  for_each_secret_line(path, key, errors, [&](std::string_view line, int number) {
    const auto wrong = [&](std::string what, std::string_view hint) {
      errors.push_back({fmt::format("{}:{}", path, number), std::string(key), std::move(what), std::string(hint)});
    };
    std::vector<std::string_view> words;
    for (std::size_t at = 0; (at = line.find_first_not_of(" \t", at)) != line.npos;) {
      const std::size_t end = std::min(line.find_first_of(" \t", at), line.size());
      words.push_back(line.substr(at, end - at));
      at = end;
    }
    if (words.size() < 2) return wrong("is not a kid and a key", form);
    turn::TokenKey token_key;
    token_key.kid = words[0];
    if (words[0].size() > longest_kid) return wrong(fmt::format("a kid of {} bytes does not fit into USERNAME", words[0].size()), "at most 508 bytes");
    std::int64_t timestamp = -1, lifetime = -1;
    for (const std::string_view word : std::span(words).subspan(2)) {
      const std::size_t equals = std::min(word.find('='), word.size());
      const std::string_view option = word.substr(0, equals), value = word.substr(std::min(equals + 1, word.size()));
      std::int64_t parsed = -1;
      const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), parsed);
      const bool is_number = !value.empty() && error == std::errc() && end == value.data() + value.size() && parsed >= 0 && parsed < std::int64_t{1} << 48;
      if (word == "A128GCM") token_key.algorithm = turn::TokenKey::Algorithm::a128gcm;
      else if (word == "A256GCM") token_key.algorithm = turn::TokenKey::Algorithm::a256gcm;
      else if (option == "timestamp" && is_number) timestamp = parsed;
      else if (option == "lifetime" && is_number) lifetime = parsed;
      else if (option == "timestamp" || option == "lifetime") return wrong(fmt::format("\"{}\" is not understood", word), form);
      else return wrong("what stands behind the key is not understood", form);  // and not shown: it may be the rest of the key
    }
    const std::size_t size = turn::TokenKey::size(token_key.algorithm);
    auto bytes = from_base64(words[1]);
    if (!bytes) return wrong("the key is not base64", fmt::format("head -c {} /dev/urandom | base64", size));
    if (bytes->size() < size || bytes->size() > longest_key)
      return wrong(fmt::format("a key of {} bytes does not suit {}", bytes->size(), size == 16 ? "A128GCM" : "A256GCM"),
                   fmt::format("{} bytes: head -c {} /dev/urandom | base64", size, size));
    std::copy_n(bytes->begin(), size, token_key.key.begin());
    OPENSSL_cleanse(bytes->data(), bytes->size());
    if (lifetime > 0 && timestamp < 0) return wrong("a lifetime needs to begin some time", "timestamp=N beside it, in seconds since 1970");
    if (lifetime > 0) token_key.valid_until = timestamp + lifetime;  // RFC 7635, 4.1; 0 means for ever, as in coturn's tables
    if (!kids.insert(token_key.kid).second) return wrong(fmt::format("kid \"{}\" stands there twice", token_key.kid), "remove one of both");
    keys.push_back(std::move(token_key));
  });
  if (keys.empty() && errors.size() == before) errors.push_back({path, std::string(key), "holds no key", std::string(form)});
  return keys;
}

}  // namespace radiotower::daemon
