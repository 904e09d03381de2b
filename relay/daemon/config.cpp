#include "config.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <sstream>

#include <toml++/toml.h>

namespace radiotower::daemon {

namespace {

/// What a key may hold. One list serves the file, the flags, the hints for misspelt keys and --print-config.
enum class Kind : std::uint8_t { text, list, number, boolean };
struct Key {
  std::string_view name;  // with its table: "listen.udp"
  Kind kind;
};
constexpr Key keys[] = {
    {"realm", Kind::text},
    {"listen.udp", Kind::list},
    {"listen.deny_clients", Kind::list},
    {"relay.addresses", Kind::list},
    {"relay.external", Kind::list},
    {"relay.ports", Kind::text},
    {"relay.rfc5766_channel_numbers", Kind::boolean},
    {"credentials.secrets_file", Kind::text},
    {"credentials.users_file", Kind::text},
    {"credentials.rest_separator", Kind::text},
    {"credentials.strict_expiry", Kind::boolean},
    {"credentials.open_relay_for_everyone", Kind::boolean},
    {"peers.allow", Kind::list},
    {"peers.deny", Kind::list},
    {"peers.allow_only", Kind::boolean},
    {"limits.allocations_per_user", Kind::number},
    {"limits.bytes_per_second_per_user", Kind::number},
    {"limits.packets_per_second_per_user", Kind::number},
    {"limits.allocations", Kind::number},
    {"limits.permissions_per_allocation", Kind::number},
    {"limits.channels_per_allocation", Kind::number},
    {"limits.new_peers_per_second", Kind::number},
    {"limits.error_answers_per_second", Kind::number},
    {"limits.binding_answers_per_second", Kind::number},
    {"workers.count", Kind::number},
    {"workers.backend", Kind::text},
    {"log.format", Kind::text},
    {"log.level", Kind::text},
};

const Key* find_key(std::string_view name) {
  for (const Key& key : keys)
    if (key.name == name) return &key;
  return nullptr;
}

std::size_t distance(std::string_view a, std::string_view b) {  // Levenshtein
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0]++;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t above = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

/// "did you mean listen.udp?": the nearest key, or the same key of another table.
std::string suggestion(std::string_view unknown) {
  const Key* best = nullptr;
  std::size_t best_distance = std::max<std::size_t>(3, unknown.size() / 3) + 1;
  const auto last_part = [](std::string_view s) { return s.substr(s.rfind('.') == std::string_view::npos ? 0 : s.rfind('.') + 1); };
  for (const Key& key : keys) {
    std::size_t d = distance(unknown, key.name);
    if (last_part(unknown) == last_part(key.name)) d = std::min<std::size_t>(d, 1);
    if (d >= best_distance) continue;
    best_distance = d;
    best = &key;
  }
  return best ? fmt::format("did you mean {}?", best->name) : "docs/configuration.md lists the keys";
}

std::string_view kind_name(Kind kind) {
  switch (kind) {
    case Kind::text: return "a text in quotes";
    case Kind::list: return "a list of texts, [\"...\", \"...\"]";
    case Kind::number: return "a whole number";
    case Kind::boolean: return "true or false";
  }
  return "";
}

/// A value on its way into a Config, with the words for its place.
struct Place {
  std::string where;
  std::string key;
  ConfigErrors& errors;
  bool wrong(std::string what, std::string hint = {}) const {
    errors.push_back({where, key, std::move(what), std::move(hint)});
    return false;
  }
};

bool set_number(std::string_view key, std::int64_t value, Config& c, const Place& place) {
  if (value < 0) return place.wrong(fmt::format("{} is negative", value), "0 means no limit");
  const auto small = [&](std::uint32_t& out) {
    if (value > std::numeric_limits<std::uint32_t>::max()) return place.wrong(fmt::format("{} is too large", value), "0 means no limit");
    out = static_cast<std::uint32_t>(value);
    return true;
  };
  const auto large = [&](std::uint64_t& out) {
    out = static_cast<std::uint64_t>(value);
    return true;
  };
  if (key == "limits.allocations_per_user") return small(c.limits.allocations_per_user);
  if (key == "limits.bytes_per_second_per_user") return large(c.limits.bytes_per_second_per_user);
  if (key == "limits.packets_per_second_per_user") return large(c.limits.packets_per_second_per_user);
  if (key == "limits.allocations") return small(c.limits.allocations);
  if (key == "limits.permissions_per_allocation") return small(c.limits.permissions_per_allocation);
  if (key == "limits.channels_per_allocation") return small(c.limits.channels_per_allocation);
  if (key == "limits.new_peers_per_second") return small(c.limits.new_peers_per_second);
  if (key == "limits.error_answers_per_second") return small(c.limits.error_answers_per_second);
  if (key == "limits.binding_answers_per_second") return small(c.limits.binding_answers_per_second);
  if (value > 1024) return place.wrong(fmt::format("{} workers", value), "0 makes one a core, which is what nearly everybody wants");
  c.workers = static_cast<unsigned>(value);  // workers.count
  return true;
}

bool set_boolean(std::string_view key, bool value, Config& c) {
  if (key == "credentials.strict_expiry") c.strict_expiry = value;
  else if (key == "relay.rfc5766_channel_numbers") c.rfc5766_channel_numbers = value;
  else if (key == "credentials.open_relay_for_everyone") c.open_relay_for_everyone = value;
  else c.allow_only = value;
  return true;
}

bool one_of(std::string_view value, std::initializer_list<std::string_view> words, const Place& place) {
  if (std::find(words.begin(), words.end(), value) != words.end()) return true;
  std::string list;
  for (const auto word : words) list += fmt::format("{}\"{}\"", list.empty() ? "" : ", ", word);
  return place.wrong(fmt::format("\"{}\" is not known", value), "one of " + list);
}

bool set_text(std::string_view key, const std::string& value, const std::filesystem::path& folder, Config& c, const Place& place) {
  if (key == "realm") {
    if (value.empty()) return place.wrong("the realm is empty", "a name such as \"example.org\"; clients show it to nobody");
    if (value.size() > max_realm)
      return place.wrong(fmt::format("{} bytes are too long", value.size()),
                         fmt::format("at most {}: an answer to a stranger must not exceed three times what he sent", max_realm));
    for (const char ch : value)
      if (static_cast<unsigned char>(ch) < 0x20 || ch == '"' || ch == '\\' || ch == 0x7F)
        return place.wrong("control characters, quotes and backslashes have no place in a realm");
    c.realm = value;
    return true;
  }
  if (key == "relay.ports") {
    std::string what, hint;
    if (!parse_ports(value, c.first_port, c.last_port, what, hint)) return place.wrong(what, hint);
    return true;
  }
  if (key == "credentials.secrets_file" || key == "credentials.users_file") {
    if (value.empty()) return place.wrong("the file name is empty", "leave the key out when there is no such file");
    const std::filesystem::path path = value;
    (key == "credentials.secrets_file" ? c.secrets_file : c.users_file) = (path.is_absolute() || folder.empty() ? path : folder / path).string();
    return true;
  }
  if (key == "credentials.rest_separator") {
    if (value.size() != 1 || (value[0] >= '0' && value[0] <= '9') || static_cast<unsigned char>(value[0]) <= 0x20 || value[0] == 0x7F)
      return place.wrong(fmt::format("\"{}\" cannot separate an expiry from a user name", value), "one printable character that is no digit, \":\" as a rule");
    c.rest_separator = value[0];
    return true;
  }
  if (key == "workers.backend") {
    if (!one_of(value, {"auto", "io_uring", "epoll"}, place)) return false;
    c.backend = value;
    return true;
  }
  if (key == "log.format") {
    if (!one_of(value, {"text", "json"}, place)) return false;
    c.log_format = value;
    return true;
  }
  if (!one_of(value, {"error", "warning", "notice", "info", "debug"}, place)) return false;  // log.level
  c.log_level = value;
  return true;
}

bool check_listener(const std::string& value, const Place& place) {
  const auto address = net::TransportAddress::parse(value);
  if (address && address->port != 0) return true;
  const std::size_t colon = value.rfind(':');
  const std::string port = colon == std::string::npos ? "" : value.substr(colon + 1);
  if (address) return place.wrong("port 0 is no port to listen on", "3478 is the port of TURN");
  if (!port.empty() && port.find_first_not_of("0123456789") == std::string::npos)
    return net::TransportAddress::parse(value.substr(0, colon) + ":1")
               ? place.wrong(fmt::format("port {} is not a number from 1 to 65535", port), "3478 is the port of TURN")
               : place.wrong(fmt::format("\"{}\" is not an IP address and a port", value), "\"0.0.0.0:3478\", or \"[::]:3478\" with brackets round IPv6");
  return place.wrong(fmt::format("\"{}\" is not an IP address and a port", value), "\"0.0.0.0:3478\", or \"[::]:3478\" with brackets round IPv6");
}

bool check_address(const std::string& value, const Place& place) {
  if (net::IpAddress::parse(value)) return true;
  return place.wrong(fmt::format("\"{}\" is not an IP address", value), "an address of this host, without port: \"192.168.0.105\"");
}

bool check_external(const std::string& value, const Place& place) {
  const std::size_t slash = value.find('/');
  const auto first = net::IpAddress::parse(value.substr(0, slash));
  const auto second = slash == std::string::npos ? first : net::IpAddress::parse(value.substr(slash + 1));
  if (first && second && first->family() == second->family()) return true;
  return place.wrong(fmt::format("\"{}\" is not \"public/private\" or \"public\"", value), "\"198.51.100.7/192.168.0.105\": both addresses of one family");
}

bool check_rule(const std::string& value, bool allow, const Place& place) {
  std::string why;
  const auto rule = net::PeerRule::parse(value, why);
  if (!rule) return place.wrong(why, "\"10.1.2.3\", \"10.1.2.3:8443\", \"10.0.0.0/8\", \"[2001:db8::7]:8443\" or \"10.0.0.5-10.0.0.9\"");
  if (rule->unsafe && !allow) return place.wrong("unsafe belongs into peers.allow", "a deny entry needs no such word");
  return true;
}

bool set_list(std::string_view key, const std::vector<Text>& values, Config& c, const Place& place) {
  bool good = true;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const Text& v = values[i];
    const Place here{v.source, std::string(key), place.errors};
    bool fine = true;
    if (key == "listen.udp") fine = check_listener(v.value, here);
    else if (key == "relay.addresses") fine = check_address(v.value, here);
    else if (key == "relay.external") fine = check_external(v.value, here);
    else if (key == "listen.deny_clients") {
      std::string why;
      if (!net::AddressRange::parse(v.value, why)) fine = here.wrong(why, "\"10.1.2.3\", \"10.0.0.0/8\" or \"10.0.0.5-10.0.0.9\"");
    } else {
      fine = check_rule(v.value, key == "peers.allow", here);
    }
    for (std::size_t k = 0; fine && k < i; ++k)
      if (values[k].value == v.value) fine = here.wrong(fmt::format("\"{}\" stands there twice", v.value), "remove one of both");
    good = good && fine;
  }
  if (key == "listen.udp" && values.empty()) good = place.wrong("the relay would listen nowhere", "leave the key out for [\"0.0.0.0:3478\", \"[::]:3478\"]");
  if (!good) return false;
  if (key == "listen.udp") c.listen_udp = values;
  else if (key == "listen.deny_clients") c.deny_clients = values;
  else if (key == "relay.addresses") c.relay_addresses = values;
  else if (key == "relay.external") c.external = values;
  else if (key == "peers.allow") c.allow = values;
  else c.deny = values;
  return true;
}

std::string at_line(const std::string& path, const toml::node& node) { return fmt::format("{}:{}", path, node.source().begin.line); }

/// Walks the tables, so that a key nobody knows is found wherever it stands.
void read_table(const toml::table& table, const std::string& prefix, const std::string& path, Config& config, ConfigErrors& errors) {
  const auto folder = std::filesystem::path(path).parent_path();
  for (const auto& [k, node] : table) {
    const std::string name = prefix + std::string(k.str());
    const std::string where = fmt::format("{}:{}", path, k.source().begin.line);
    const Place place{where, name, errors};
    const Key* key = find_key(name);
    if (!key) {
      const bool table_of_ours = std::any_of(std::begin(keys), std::end(keys), [&](const Key& x) { return x.name.substr(0, name.size() + 1) == name + "."; });
      if (table_of_ours && node.is_table()) read_table(*node.as_table(), name + ".", path, config, errors);
      else if (table_of_ours) place.wrong("is a section, not a key", fmt::format("write [{}] and the keys below it", name));
      else place.wrong(node.is_table() ? "unknown section" : "unknown key", suggestion(name));
      continue;
    }
    bool good = false;
    const auto wrong_kind = [&] { return place.wrong(fmt::format("must be {}", kind_name(key->kind))); };
    switch (key->kind) {
      case Kind::text: good = node.is_string() ? set_text(name, node.as_string()->get(), folder, config, place) : wrong_kind(); break;
      case Kind::number: good = node.is_integer() ? set_number(name, node.as_integer()->get(), config, place) : wrong_kind(); break;
      case Kind::boolean: good = node.is_boolean() ? set_boolean(name, node.as_boolean()->get(), config) : wrong_kind(); break;
      case Kind::list: {
        const toml::array* array = node.as_array();
        std::vector<Text> values;
        bool texts = array != nullptr;
        if (array) {
          for (const toml::node& element : *array) {
            if (element.is_string()) values.push_back({element.as_string()->get(), at_line(path, element)});
            else texts = false;
          }
        }
        good = texts ? set_list(name, values, config, place) : wrong_kind();
        break;
      }
    }
    if (good) config.sources[name] = where;
  }
}

}  // namespace

std::string ConfigError::text() const {
  std::string text = where;
  if (!key.empty()) text += (text.empty() ? "" : ": ") + key;
  text += ": " + what;
  if (!hint.empty()) text += fmt::format(" (hint: {})", hint);
  return text;
}

std::string_view Config::source(std::string_view key) const {
  const auto found = sources.find(key);
  return found == sources.end() ? "default" : std::string_view(found->second);
}

bool parse_ports(std::string_view text, std::uint16_t& first, std::uint16_t& last, std::string& what, std::string& hint) {
  hint = "\"32768-65535\", the lower end first";
  const std::size_t dash = text.find('-');
  unsigned a = 0, b = 0;
  const auto number = [](std::string_view t, unsigned& out) {
    const auto [end, error] = std::from_chars(t.data(), t.data() + t.size(), out);
    return !t.empty() && error == std::errc() && end == t.data() + t.size();
  };
  if (dash == std::string_view::npos || !number(text.substr(0, dash), a) || !number(text.substr(dash + 1), b)) {
    what = fmt::format("\"{}\" is not a range of ports", text);
  } else if (a > 65535 || b > 65535) {
    what = fmt::format("port {} is out of range: the highest is 65535", std::max(a, b));
  } else if (a > b) {
    what = fmt::format("{}-{} is reversed", a, b);
    hint = fmt::format("did you mean \"{}-{}\"?", b, a);
  } else if (a < 1024) {
    what = fmt::format("port {} is below 1024", a);
    hint = "relayed addresses never use the ports of services (RFC 8656, 7.2)";
  } else {
    first = static_cast<std::uint16_t>(a);
    last = static_cast<std::uint16_t>(b);
    return true;
  }
  return false;
}

bool read_config_text(std::string_view text, const std::string& path, Config& config, ConfigErrors& errors) {
  const std::size_t before = errors.size();
  try {
    const toml::table table = toml::parse(text, path);
    read_table(table, "", path, config, errors);
  } catch (const toml::parse_error& e) {
    errors.push_back({fmt::format("{}:{}", path, e.source().begin.line), "", fmt::format("not TOML: {}", e.description()),
                      "texts stand in quotes, lists in brackets, sections as [name]"});
  }
  return errors.size() == before;
}

bool read_config_file(const std::string& path, Config& config, ConfigErrors& errors) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  if (std::filesystem::is_directory(path) || !file || !(text << file.rdbuf())) {
    if (file.good() || file.eof() || !std::filesystem::exists(path) || std::filesystem::is_directory(path)) {
      // An empty file is a good one: rdbuf() of nothing sets failbit and no more.
      std::error_code error;
      if (std::filesystem::is_regular_file(path, error) && std::filesystem::file_size(path, error) == 0) return true;
    }
    errors.push_back({path, "--config", "cannot be read", "does the file exist, and may this user read it?"});
    return false;
  }
  return read_config_text(text.str(), path, config, errors);
}

bool set_from_flag(std::string_view flag, std::string_view name, const std::vector<std::string>& values, Config& config, ConfigErrors& errors) {
  const Key* key = find_key(name);
  const Place place{std::string(flag), "", errors};
  bool good = false;
  if (!key) return place.wrong("unknown key");
  switch (key->kind) {
    case Kind::text: good = set_text(name, values.empty() ? "" : values.back(), {}, config, place); break;
    case Kind::boolean: good = set_boolean(name, values.empty() || values.back() == "true", config); break;
    case Kind::number: {
      std::int64_t number = 0;
      const std::string& text = values.empty() ? std::string() : values.back();
      const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
      good = !text.empty() && error == std::errc() && end == text.data() + text.size() ? set_number(name, number, config, place)
                                                                                      : place.wrong(fmt::format("\"{}\" is not a whole number", text));
      break;
    }
    case Kind::list: {
      std::vector<Text> texts;
      for (const auto& v : values) texts.push_back({v, std::string(flag)});
      good = set_list(name, texts, config, place);
      break;
    }
  }
  if (good) config.sources[std::string(name)] = std::string(flag);
  return good;
}

std::string print_config(const Config& c) {
  std::string out;
  const auto quoted = [](std::string_view v) {
    std::string text = "\"";
    for (const char ch : v) text += ch == '"' || ch == '\\' ? std::string("\\") + ch : std::string(1, ch);
    return text + "\"";
  };
  const auto list = [&](const std::vector<Text>& values) {
    std::string text = "[";
    for (const auto& v : values) text += (text.size() > 1 ? ", " : "") + quoted(v.value);
    return text + "]";
  };
  std::string section;
  for (const Key& key : keys) {
    const std::size_t dot = key.name.find('.');
    const std::string_view table = dot == std::string_view::npos ? "" : key.name.substr(0, dot);
    if (table != section) {
      section = table;
      out += fmt::format("\n[{}]\n", section);
    }
    std::string value;
    const std::string_view n = key.name;
    if (n == "realm") value = quoted(c.realm);
    else if (n == "listen.udp") value = list(c.listen_udp);
    else if (n == "listen.deny_clients") value = list(c.deny_clients);
    else if (n == "relay.addresses") value = list(c.relay_addresses);
    else if (n == "relay.external") value = list(c.external);
    else if (n == "relay.ports") value = fmt::format("\"{}-{}\"", c.first_port, c.last_port);
    else if (n == "relay.rfc5766_channel_numbers") value = c.rfc5766_channel_numbers ? "true" : "false";
    else if (n == "credentials.secrets_file" || n == "credentials.users_file") {
      const std::string& file = n == "credentials.secrets_file" ? c.secrets_file : c.users_file;
      if (file.empty()) {
        out += fmt::format("# {} is not set\n", n.substr(dot + 1));
        continue;
      }
      value = quoted(file);
    } else if (n == "credentials.rest_separator") value = quoted(std::string(1, c.rest_separator));
    else if (n == "credentials.strict_expiry") value = c.strict_expiry ? "true" : "false";
    else if (n == "credentials.open_relay_for_everyone") value = c.open_relay_for_everyone ? "true" : "false";
    else if (n == "peers.allow") value = list(c.allow);
    else if (n == "peers.deny") value = list(c.deny);
    else if (n == "peers.allow_only") value = c.allow_only ? "true" : "false";
    else if (n == "limits.allocations_per_user") value = std::to_string(c.limits.allocations_per_user);
    else if (n == "limits.bytes_per_second_per_user") value = std::to_string(c.limits.bytes_per_second_per_user);
    else if (n == "limits.packets_per_second_per_user") value = std::to_string(c.limits.packets_per_second_per_user);
    else if (n == "limits.allocations") value = std::to_string(c.limits.allocations);
    else if (n == "limits.permissions_per_allocation") value = std::to_string(c.limits.permissions_per_allocation);
    else if (n == "limits.channels_per_allocation") value = std::to_string(c.limits.channels_per_allocation);
    else if (n == "limits.new_peers_per_second") value = std::to_string(c.limits.new_peers_per_second);
    else if (n == "limits.error_answers_per_second") value = std::to_string(c.limits.error_answers_per_second);
    else if (n == "limits.binding_answers_per_second") value = std::to_string(c.limits.binding_answers_per_second);
    else if (n == "workers.count") value = std::to_string(c.workers);
    else if (n == "workers.backend") value = quoted(c.backend);
    else if (n == "log.format") value = quoted(c.log_format);
    else value = quoted(c.log_level);
    out += fmt::format("{} = {}  # {}\n", n.substr(dot == std::string_view::npos ? 0 : dot + 1), value, c.source(n));
  }
  return out;
}

}  // namespace radiotower::daemon
