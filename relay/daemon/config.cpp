#include "config.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <variant>

#include "config_checks.h"
#include "config_keys.h"

namespace radiotower::daemon {

namespace {

std::string_view last_part(std::string_view name) { return name.substr(name.rfind('.') + 1); }  // npos + 1 is 0
std::string_view section_of(std::string_view name) { return name.substr(0, name.find('.') == name.npos ? 0 : name.find('.')); }

const Key* find_key(std::string_view name) {
  for (const Key& key : config_keys())
    if (key.name == name) return &key;
  return nullptr;
}

/// "did you mean listen.udp?": the nearest key, or the same key of another section; for a section the nearest section.
std::string suggestion(std::string_view unknown, bool is_section) {
  constexpr std::size_t longest = 64;  // of what is compared: the work stays small whatever a file holds
  std::string_view best;
  std::size_t best_distance = std::max<std::size_t>(3, std::min(unknown.size(), longest) / 3) + 1;
  for (const Key& key : config_keys()) {
    const std::string_view candidate = is_section ? section_of(key.name) : key.name;
    if (candidate.empty() || unknown.size() > longest) continue;
    std::size_t d = edit_distance(unknown, candidate);
    if (!is_section && last_part(unknown) == last_part(key.name)) d = std::min<std::size_t>(d, 1);
    if (d >= best_distance) continue;
    best_distance = d;
    best = candidate;
  }
  if (best.empty() && unknown.find('-') != unknown.npos) return "no key has a dash in it; if it is coturn's: `radiotower migrate` translates a turnserver.conf";
  if (best.empty()) return "docs/configuration.md lists the keys";
  return is_section ? fmt::format("did you mean [{}]?", best) : fmt::format("did you mean {}?", best);
}

bool wrong_kind(const Key& key, const Slot& slot, const Place& place) {
  const std::string_view name = last_part(key.name);
  if (std::holds_alternative<std::vector<Text>*>(slot)) return place.wrong("must be a list of texts", fmt::format("{} = [\"...\", \"...\"]", name));
  if (std::holds_alternative<Xdp*>(slot))
    return place.wrong("must be \"off\", \"auto\" or a list of interfaces", fmt::format("{} = [\"eth0\"]", name));
  if (std::holds_alternative<bool*>(slot)) return place.wrong("must be true or false", fmt::format("{} = true, without quotes", name));
  if (std::holds_alternative<std::uint32_t*>(slot) || std::holds_alternative<std::uint64_t*>(slot))
    return place.wrong("must be a whole number", fmt::format("{} = 10, without quotes", name));
  return place.wrong("must be a text", fmt::format("{} = \"...\", in quotes", name));
}

bool set_number(const Key& key, std::int64_t value, const Slot& slot, const Place& place) {
  const std::string none = key.name == "workers.count"                    ? "0 makes one a core, which is what nearly everybody wants"
                           : key.name == "workers.gather_microseconds"    ? "400 are less than half a millisecond; 0 wakes for every packet"
                           : key.name == "shutdown.drain_seconds"         ? "0 ends at once"
                           : key.name == "relay.external_refresh_seconds" ? "0 asks at the start and at a reload alone"
                                                                          : "0 means no limit";
  if (value < 0) return place.wrong(fmt::format("{} is negative", value), none);
  const auto number = static_cast<std::uint64_t>(value);
  if (number > key.largest) return place.wrong(fmt::format("{} is out of range 0-{}", number, key.largest), none);
  if (const auto* small = std::get_if<std::uint32_t*>(&slot)) **small = static_cast<std::uint32_t>(number);
  else *std::get<std::uint64_t*>(slot) = number;
  return true;
}

bool set_text(const Key& key, const std::string& value, const std::filesystem::path& folder, const Slot& slot, const Place& place) {
  if (const auto* ports = std::get_if<Ports>(&slot)) {
    std::string what, hint;
    return parse_ports(value, *ports->first, *ports->last, what, hint) || place.wrong(what, hint);
  }
  if (const auto* file = std::get_if<File>(&slot)) {
    if (value.empty()) return place.wrong("the file name is empty", "leave the key out when there is no such file");
    const std::filesystem::path path = value;
    *file->path = (path.is_absolute() || folder.empty() ? path : folder / path).string();
    return true;
  }
  if (const auto* separator = std::get_if<char*>(&slot)) {
    const auto c = static_cast<unsigned char>(value.empty() ? 0 : value[0]);
    if (value.size() != 1 || c <= 0x20 || c >= 0x7F || (c >= '0' && c <= '9'))
      return place.wrong(fmt::format("\"{}\" cannot separate an expiry from a user name", value), "one printable character that is no digit, \":\" as a rule");
    **separator = value[0];
    return true;
  }
  if (const auto* xdp = std::get_if<Xdp*>(&slot)) {
    if (value != "off" && value != "auto")
      return place.wrong(fmt::format("\"{}\" is neither \"off\" nor \"auto\"", value),
                         fmt::format("interfaces stand in a list: {} = [\"eth0\"]", last_part(key.name)));
    **xdp = {value, {}};
    return true;
  }
  std::string spelling;
  if (!key.check(value, place, spelling)) return false;
  *std::get<std::string*>(slot) = value;
  return true;
}

bool set_list(const Key& key, const std::vector<Text>& values, const Slot& slot, const Place& place) {
  if (values.size() > 1000) return place.wrong(fmt::format("{} entries are more than 1000", values.size()), "CIDR blocks and ranges say it in fewer");
  if (values.empty() && std::holds_alternative<Xdp*>(slot))
    return place.wrong("no interface is named", "\"off\", or leave the key out");
  bool good = true;
  std::vector<std::string> spellings;
  for (const Text& entry : values) {
    const Place here{entry.source, place.key, place.errors};
    std::string spelling;
    bool fine = key.check(entry.value, here, spelling);
    if (fine && std::find(spellings.begin(), spellings.end(), spelling) != spellings.end())
      fine = here.wrong(fmt::format("\"{}\" stands there twice", entry.value), "remove one of both");
    spellings.push_back(std::move(spelling));
    good = good && fine;
  }
  if (!good) return false;
  if (const auto* xdp = std::get_if<Xdp*>(&slot)) **xdp = {"", values};
  else *std::get<std::vector<Text>*>(slot) = values;
  return true;
}

std::string at_line(const std::string& path, const toml::node& node) { return fmt::format("{}:{}", path, node.source().begin.line); }

bool set_from_toml(const Key& key, const toml::node& node, const std::string& path, Config& config, const Place& place) {
  const Slot slot = key.slot(config);
  if (std::holds_alternative<std::vector<Text>*>(slot) || (std::holds_alternative<Xdp*>(slot) && !node.is_string())) {
    if (!node.is_array()) return wrong_kind(key, slot, place);
    std::vector<Text> values;
    for (const toml::node& element : *node.as_array()) {
      const Place here{at_line(path, element), place.key, place.errors};
      if (!element.is_string()) return wrong_kind(key, slot, here);
      values.push_back({element.as_string()->get(), here.where});
    }
    return set_list(key, values, slot, place);
  }
  if (const auto* boolean = std::get_if<bool*>(&slot)) {
    if (!node.is_boolean()) return wrong_kind(key, slot, place);
    **boolean = node.as_boolean()->get();
    return true;
  }
  if (std::holds_alternative<std::uint32_t*>(slot) || std::holds_alternative<std::uint64_t*>(slot))
    return node.is_integer() ? set_number(key, node.as_integer()->get(), slot, place) : wrong_kind(key, slot, place);
  return node.is_string() ? set_text(key, node.as_string()->get(), std::filesystem::path(path).parent_path(), slot, place)
                          : wrong_kind(key, slot, place);
}

/// Walks the tables, so that a key nobody knows is found wherever it stands.
void read_table(const toml::table& table, const std::string& prefix, const std::string& path, Config& config, ConfigErrors& errors) {
  for (const auto& [k, node] : table) {
    const std::string name = prefix + std::string(k.str());
    const Place place{fmt::format("{}:{}", path, k.source().begin.line), name, errors};
    if (const Key* key = find_key(name)) {
      if (set_from_toml(*key, node, path, config, place)) config.sources[name] = place.where;
      continue;
    }
    if (name == "realms" && node.is_table()) {
      read_realms(*node.as_table(), path, config, errors);
      continue;
    }
    const bool ours = prefix.empty() && std::any_of(config_keys().begin(), config_keys().end(), [&](const Key& x) { return section_of(x.name) == name; });
    if (ours && node.is_table()) read_table(*node.as_table(), name + ".", path, config, errors);
    else if (ours) place.wrong("is a section, not a key", fmt::format("write [{}] and its keys on the lines below", name));
    else if (node.is_table()) place.wrong("unknown section", suggestion(name, true));
    else place.wrong("unknown key", suggestion(name, false));
  }
}

}  // namespace

std::string toml_text(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) out += fmt::format("\\u{:04X}", static_cast<unsigned char>(c));
    else out += c;
  }
  out += '"';
  return out;
}

namespace {

/// The value as TOML; empty when there is none.
std::string written(const Slot& slot) {
  struct Writer {
    std::string operator()(const Xdp* xdp) const {
      return xdp->word.empty() ? (*this)(&xdp->interfaces) : toml_text(xdp->word);
    }
    std::string operator()(const std::string* text) const { return toml_text(*text); }
    std::string operator()(const File& file) const { return file.path->empty() ? "" : toml_text(*file.path); }
    std::string operator()(const Ports& ports) const { return fmt::format("\"{}-{}\"", *ports.first, *ports.last); }
    std::string operator()(const char* separator) const { return toml_text({separator, 1}); }
    std::string operator()(const std::vector<Text>* list) const {
      std::string out = "[";
      for (const Text& entry : *list) out.append(out.size() > 1 ? ", " : "").append(toml_text(entry.value));
      return out + "]";
    }
    std::string operator()(const bool* value) const { return *value ? "true" : "false"; }
    std::string operator()(const std::uint32_t* value) const { return std::to_string(*value); }
    std::string operator()(const std::uint64_t* value) const { return std::to_string(*value); }
  };
  return std::visit(Writer{}, slot);
}

}  // namespace

std::string_view Config::source(std::string_view key) const {
  const auto found = sources.find(key);
  return found == sources.end() ? "default" : std::string_view(found->second);
}

bool parse_ports(std::string_view text, std::uint16_t& first, std::uint16_t& last, std::string& what, std::string& hint) {
  hint = "\"32768-65535\", the lower end first";
  const std::size_t dash = text.find('-');
  std::uint64_t a = 0, b = 0;
  const auto number = [](std::string_view t, std::uint64_t& out) {
    const auto [end, error] = std::from_chars(t.data(), t.data() + t.size(), out);
    return !t.empty() && error == std::errc() && end == t.data() + t.size();
  };
  if (dash == std::string_view::npos || !number(text.substr(0, dash), a) || !number(text.substr(dash + 1), b)) {
    what = fmt::format("\"{}\" is not a range of ports", text);
  } else if (std::max(a, b) > 65535) {
    what = fmt::format("port {} is out of range 1024-65535", std::max(a, b));
  } else if (a > b) {
    what = fmt::format("{}-{} is reversed", a, b);
    hint = fmt::format("did you mean \"{}-{}\"?", b, a);
  } else if (a < 1024) {  // RFC 8656, 7.2: no relayed address with a well-known port
    what = fmt::format("port {} is out of range 1024-65535", a);
    hint = "relayed addresses never use the ports of services (RFC 8656, 7.2); \"32768-65535\" is the default";
  } else {
    first = static_cast<std::uint16_t>(a);
    last = static_cast<std::uint16_t>(b);
    return true;
  }
  return false;
}

bool read_config_text(std::string_view text, const std::string& path, Config& config, ConfigErrors& errors) {
  const std::size_t before = errors.size();
  config.file = path;
  try {
    const toml::table table = toml::parse(text, path);
    read_table(table, "", path, config, errors);
  } catch (const toml::parse_error& e) {
    errors.push_back({fmt::format("{}:{}", path, e.source().begin.line), "", fmt::format("not TOML: {}", e.description()),
                      std::string_view(path).ends_with(".conf") ? "is it coturn's turnserver.conf? `radiotower migrate` makes a relay.toml of it" : toml_in_short});
  } catch (const TomlAssertion&) {
    errors.push_back({path, "", "not TOML: a key has a name that cannot be read", toml_in_short});
  }
  // toml++ keeps tables sorted by name; people read a file from its top.
  const auto line = [](const ConfigError& e) {
    unsigned number = 0;
    const std::size_t colon = e.where.rfind(':') + 1;
    std::from_chars(e.where.data() + colon, e.where.data() + e.where.size(), number);
    return number;
  };
  std::stable_sort(errors.begin() + static_cast<std::ptrdiff_t>(before), errors.end(),
                   [&](const ConfigError& a, const ConfigError& b) { return line(a) < line(b); });
  return errors.size() == before;
}

bool read_config_file(const std::string& path, Config& config, ConfigErrors& errors) {
  std::string why;
  const auto file = read_file(path, 1 << 20, why);
  if (!file) {
    errors.push_back({path, "", why, "--config names a TOML file that the user of the relay may read; without it the defaults are used"});
    return false;
  }
  return read_config_text(file->text, path, config, errors);
}

bool set_from_flag(std::string_view flag, std::string_view name, const std::vector<std::string>& values, Config& config, ConfigErrors& errors) {
  const Key* key = find_key(name);
  const Place place{std::string(flag), std::string(name), errors};
  if (!key) return place.wrong("unknown key", suggestion(name, false));
  const Slot slot = key->slot(config);
  const std::string last = values.empty() ? "" : values.back();
  bool good = false;
  const bool is_word = values.size() == 1 && (last == "off" || last == "auto");
  if (std::holds_alternative<std::vector<Text>*>(slot) || (std::holds_alternative<Xdp*>(slot) && !is_word)) {
    std::vector<Text> texts;
    for (const auto& value : values) texts.push_back({value, std::string(flag)});
    good = set_list(*key, texts, slot, place);
  } else if (const auto* boolean = std::get_if<bool*>(&slot)) {
    good = last == "true" || last == "false" || wrong_kind(*key, slot, place);
    if (good) **boolean = last == "true";
  } else if (std::holds_alternative<std::uint32_t*>(slot) || std::holds_alternative<std::uint64_t*>(slot)) {
    std::int64_t number = 0;
    const auto [end, error] = std::from_chars(last.data(), last.data() + last.size(), number);
    good = error == std::errc() && end == last.data() + last.size() ? set_number(*key, number, slot, place)
                                                                    : place.wrong(fmt::format("\"{}\" is not a whole number", last), fmt::format("{} 4", flag));
  } else {
    good = set_text(*key, last, {}, slot, place);
  }
  if (good) config.sources[std::string(name)] = std::string(flag);
  return good;
}

std::string print_config(const Config& config) {
  Config copy = config;  // slots point at what may be written
  std::string out, section;
  for (const Key& key : config_keys()) {
    if (const auto now = section_of(key.name); now != section) {
      section = now;
      out += fmt::format("\n[{}]\n", section);
    }
    const std::string value = written(key.slot(copy));
    if (value.empty()) out += fmt::format("# {} is not set\n", last_part(key.name));
    else out += fmt::format("{} = {}  # {}\n", last_part(key.name), value, config.source(key.name));
  }
  return out + print_realms(config);
}

OperatorSettings operator_settings(const Config& config) {
  OperatorSettings settings{config.control_socket, config.metrics_listen, config.metrics_coturn_names, config.drain_seconds};
  const char* const folder = std::getenv("RUNTIME_DIRECTORY");
  if (settings.control_socket.empty() && folder && *folder) {
    const std::string_view all(folder);  // of several directories the first
    settings.control_socket = std::string(all.substr(0, all.find(':'))) + "/control.sock";
  }
  return settings;
}

std::vector<KeyChange> changed_keys(const Config& before, const Config& after) {
  Config a = before, b = after;  // slots point at what may be written
  std::vector<KeyChange> changed;
  for (const Key& key : config_keys()) {
    std::string was = written(key.slot(a)), is = written(key.slot(b));
    if (was != is) changed.push_back({key.name, std::move(was), std::move(is), key.reloads});
  }
  return changed;
}

}  // namespace radiotower::daemon
