// `radiotower migrate`: turnserver.conf and coturn's database in, relay.toml and its files out, and a word on every line.
#include <arpa/inet.h>
#include <fmt/color.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <filesystem>
#include <memory>

#include "../commands.h"
#include "../printable.h"
#include "daemon/config.h"
#include "daemon/settings_builder.h"
#include "database.h"
#include "json.h"
#include "options.h"
#include "output.h"
#include "radiotower/base/encoding.h"
#include "radiotower/base/random.h"
#include "radiotower/io/socket.h"
#include "radiotower/service/configuration.h"
#include "translation.h"
#include "turnserver_conf.h"

namespace radiotower::cli {

namespace {

namespace fs = std::filesystem;

constexpr std::size_t longest_file = 16 << 20;
constexpr std::size_t most_unknown = 200;  // more, and it is another kind of file
constexpr const char* usual_database = "/var/lib/turn/turndb";

struct Options {
  std::string file, database, output = "migrated", out;
  bool force = false, json = false, dry_run = false, list = false, keep_private_peers = false;
};

struct Verification {
  bool starts = false;
  std::vector<std::string> mistakes, notes;
};

int failed(const std::string& what) {
  fmt::print(stderr, "radiotower migrate: {}\n", what);
  return 1;
}

/// The address that a packet to `far` would leave with; nothing is sent.
std::optional<net::IpAddress> route_to(int family, const char* far) {
  const int fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return std::nullopt;
  std::optional<net::IpAddress> out;
  sockaddr_storage address{};
  socklen_t size = family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
  address.ss_family = static_cast<sa_family_t>(family);
  void* ip = family == AF_INET ? static_cast<void*>(&reinterpret_cast<sockaddr_in*>(&address)->sin_addr)
                               : &reinterpret_cast<sockaddr_in6*>(&address)->sin6_addr;
  (family == AF_INET ? reinterpret_cast<sockaddr_in*>(&address)->sin_port : reinterpret_cast<sockaddr_in6*>(&address)->sin6_port) = htons(9);
  if (inet_pton(family, far, ip) == 1 && connect(fd, reinterpret_cast<sockaddr*>(&address), size) == 0 &&
      getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0) {
    const auto local = net::TransportAddress::from_sockaddr(reinterpret_cast<sockaddr*>(&address), size);
    if (local && !local->ip.is_loopback()) out = local->ip;
  }
  close(fd);
  return out;
}

HostFacts host_facts() {
  HostFacts facts;
  for (const auto& a : io::host_addresses())
    if (!a.loopback && !a.ip.is_loopback() && !a.ip.is_link_local() && !a.deprecated_or_temporary) facts.usable.push_back(a.ip);
  facts.route_v4 = route_to(AF_INET, "192.0.2.1");
  facts.route_v6 = route_to(AF_INET6, "2001:db8::1");
  return facts;
}

/// What the relay itself would say to the result, on this host.
Verification verify(const std::string& path, const std::string& toml) {
  Verification out;
  daemon::Config config;
  ConfigErrors errors;
  if (daemon::read_config_text(toml, path, config, errors)) {
    if (const auto built = daemon::build_settings(config, io::host_addresses(), errors)) {
      out.notes = built->notes;
      out.starts = true;
    }
  }
  for (const auto& error : errors) out.mistakes.push_back(error.text());
  return out;
}

std::string json_list(const std::vector<std::string>& texts) {
  std::string out = "[";
  for (const auto& text : texts) out += (out.size() > 1 ? ", " : "") + json_string(text);
  return out + "]";
}

std::vector<std::string> names(const std::vector<OutFile>& files, const std::string& folder) {
  std::vector<std::string> out;
  for (const auto& file : files) out.push_back(folder + "/" + file.name);
  return out;
}

void print_json(const Options& o, const Translation& t, const Verification& v, const std::string& folder) {
  std::string lines;
  for (const auto& line : t.lines) {
    lines +=
        fmt::format(R"({}{{"line": {}, "option": {}, "verdict": {}, "keys": {}, "says": {}, "alarm": {}}})", lines.empty() ? "" : ", ", line.line,
                    json_string(line.option), json_string(name(line.verdict)), json_string(line.keys), json_string(line.says), line.alarm);
  }
  fmt::print(
      R"({{"file": {}, "lines": [{}], "database": {}, "alarms": {}, "differences": {}, "files": {}, "written": {}, "starts": {}, "mistakes": {}, "notes": {}, "complete": {}, "ok": {}}})"
      "\n",
      json_string(o.file), lines, json_list(t.database), json_list(t.alarms), json_list(t.differences), json_list(names(t.files, folder)), !o.dry_run,
      v.starts, json_list(v.mistakes), json_list(v.notes), t.complete, t.complete && v.starts);
}

/// "  " in front, and wrapped at blanks so that it can be read in a terminal. What the file or the database says does not steer it.
void print_wrapped(std::string_view raw, std::size_t indent, std::string_view bullet) {
  constexpr std::size_t width = 100;
  const std::string shown = printable(raw);
  std::string_view text = shown;
  std::string line = fmt::format("{:>{}}", bullet, indent);
  std::size_t used = indent;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(' '), text.size());
    if (used + 1 + end > width && used > indent) {
      fmt::print("{}\n", line);
      line.assign(indent, ' ');
      used = indent;
    }
    line += fmt::format("{}{}", used == indent ? "" : " ", text.substr(0, end));
    used += end + (used == indent ? 0 : 1);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  fmt::print("{}\n", line);
}

void print_list(const char* title, const std::vector<std::string>& texts) {
  if (texts.empty()) return;
  fmt::print("\n{}\n", title);
  for (const auto& text : texts) print_wrapped(text, 4, "- ");
}

std::string coloured(Verdict verdict) {
  const std::string word = fmt::format("{:<8}", name(verdict));
  if (isatty(STDOUT_FILENO) == 0 || std::getenv("NO_COLOR")) return word;
  const auto colour = verdict == Verdict::unknown || verdict == Verdict::refused ? fmt::terminal_color::red
                      : verdict == Verdict::ignored                              ? fmt::terminal_color::yellow
                                                                                 : fmt::terminal_color::green;
  return fmt::format(fmt::fg(colour), "{}", word);
}

void print_text(const Options& o, const Translation& t, const Verification& v, const std::string& folder) {
  std::size_t width = 12;
  for (const auto& line : t.lines) width = std::max(width, std::min<std::size_t>(line.option.size(), 36));
  fmt::print("{}\n", o.file);
  for (const auto& line : t.lines)
    fmt::print("{:>5}  {}  {:<{}}  {}{}{}\n", line.line, coloured(line.verdict), line.option, width, line.keys.empty() ? "" : "-> ",
               line.keys.empty() ? "" : line.keys + ": ", printable(line.says));
  print_list("From the database:", t.database);
  print_list("ATTENTION:", t.alarms);
  print_list("What behaves differently from coturn:", t.differences);
  if (o.dry_run) {
    fmt::print("\nrelay.toml would be:\n\n{}", t.files.front().text);
  } else {
    fmt::print("\nWritten, for nobody but you to read: ");
    for (std::size_t i = 0; i < t.files.size(); ++i) fmt::print("{}{}", i == 0 ? "" : ", ", folder + "/" + t.files[i].name);
    fmt::print("\n");
  }
  print_list("The relay would not start with it on this host:", v.mistakes);
  print_list("The relay notes:", v.notes);
  if (!o.dry_run) {
    std::string files;
    for (const auto& file : t.files) files += " " + folder + "/" + file.name;
    fmt::print(
        "\n{}:\n  install -m 0640 -g radiotower{} /etc/radiotower/\n  radiotower-relay --config /etc/radiotower/relay.toml --check\n"
        "How to try it beside coturn, and to change over: docs/coming-from-coturn.md, or /usr/share/doc/radiotower-relay.\n",
        v.starts ? "To take it into use" : "To take it into use, once that is mended", files);
  }
  const auto count = [&](Verdict verdict) {
    return std::count_if(t.lines.begin(), t.lines.end(), [&](const auto& l) { return l.verdict == verdict; });
  };
  const bool has_bad_lines = count(Verdict::refused) + count(Verdict::unknown) != 0;
  const std::string missing = t.complete      ? ""
                              : !has_bad_lines ? "\nNOT EVERYTHING CAME ALONG: see ATTENTION."
                                               : fmt::format("\nNOT EVERYTHING CAME ALONG: see the lines refused and unknown{}.", t.alarms.empty() ? "" : ", and ATTENTION");
  fmt::print("\n{} used, {} mapped, {} ignored, {} refused, {} unknown. {}{}\n", count(Verdict::used), count(Verdict::mapped),
             count(Verdict::ignored), count(Verdict::refused), count(Verdict::unknown),
             v.starts ? "The relay starts with the result." : "THE RELAY DOES NOT START WITH THE RESULT.",
             missing);
}

std::string database_of(const Options& o, const std::vector<ConfLine>& lines, const std::string& folder) {
  if (!o.database.empty()) return o.database;
  for (auto line = lines.rbegin(); line != lines.rend(); ++line)
    if ((line->key == "userdb" || line->key == "db") && !line->byte_order_mark && !line->value.empty())
      return fs::path(line->value).is_absolute() ? line->value : (fs::path(folder) / line->value).string();
  return {};
}

/// A file that is none of coturn's must not become a relay.
std::string another_kind(const std::vector<ConfLine>& lines) {
  std::size_t known = 0, unknown = 0;
  for (const auto& line : lines) ++(find_option(line.key) && !line.byte_order_mark ? known : unknown);
  const auto has_dashes = [](const ConfLine& line) {
    return line.key.starts_with('-') && find_option(line.key.substr(std::min(line.key.find_first_not_of('-'), line.key.size())));
  };
  if (known == 0 && std::any_of(lines.begin(), lines.end(), has_dashes))
    return "holds options as a command line has them, so it is no turnserver.conf: write them without the dashes in front, one a line";
  if (known == 0 && unknown != 0) return "holds none of coturn's options, so it is no turnserver.conf";
  if (unknown > most_unknown) return fmt::format("has {} lines that coturn does not know, so it is no turnserver.conf", unknown);
  return {};
}

int run_migrate(const Options& o) {
  if (o.list) {
    fmt::print("{}", options_as_markdown());
    return 0;
  }
  if (o.file.empty()) return usage_error("migrate", "which turnserver.conf? On Debian it is /etc/turnserver.conf");
  std::string why;
  const auto text = read_file(o.file, longest_file, why);
  if (!text) return failed(fmt::format("{}: {}", o.file, why));
  TranslationInput input;
  input.lines = read_turnserver_conf(text->text);
  if (const auto other = another_kind(input.lines); !other.empty()) return failed(fmt::format("{}: {}", o.file, other));
  std::error_code ignored;
  input.folder = fs::absolute(o.file, ignored).parent_path().string();
  input.name = fs::path(o.file).filename().string();
  input.keep_private_peers = o.keep_private_peers;
  input.host = host_facts();
  std::array<std::uint8_t, 20> bytes{};
  system_random()(bytes);
  input.fresh_secret = to_hex(bytes);

  CoturnDatabase database;
  std::string database_trouble;
  const std::string path = database_of(o, input.lines, input.folder);
  if (!path.empty()) {
    if (read_coturn_database(path, database, why)) {
      input.database = &database;
      input.database_name = fs::path(path).filename().string();
    } else if (!o.database.empty()) {
      return failed(why);
    } else {
      database_trouble = why;
    }
  }
  Translation translation = translate(input);
  if (!database_trouble.empty()) {
    for (std::size_t i = 0; i < input.lines.size(); ++i)
      if ((input.lines[i].key == "userdb" || input.lines[i].key == "db") && translation.lines[i].verdict == Verdict::used) {
        translation.lines[i].verdict = Verdict::refused;
        translation.lines[i].says =
            fmt::format("is not read: {}. Its users and secrets are missing from the result: --db FILE, or as root", database_trouble);
      }
    translation.complete = false;
  } else if (path.empty() && fs::exists(usual_database, ignored)) {
    translation.differences.push_back(
        fmt::format("coturn reads {} too, though the file does not name it. If turnadmin has put users or secrets there: --db {}", usual_database,
                    usual_database));
  }

  std::string folder = o.out.empty() ? o.output : fs::path(o.out).parent_path().string();
  if (folder.empty()) folder = ".";
  if (!o.out.empty()) translation.files.front().name = fs::path(o.out).filename().string();
  Verification verification;
  if (o.dry_run) {
    std::string scratch = (fs::temp_directory_path(ignored) / "radiotower-migrate-XXXXXX").string();
    if (!mkdtemp(scratch.data())) return failed(fmt::format("{}: no folder for the check can be made there", scratch));
    if (!write_files(scratch, translation.files, true, why)) return failed(why);
    verification = verify(fmt::format("{}/{}", scratch, translation.files.front().name), translation.files.front().text);
    fs::remove_all(scratch, ignored);
  } else {
    if (!write_files(folder, translation.files, o.force, why)) return failed(why);
    verification = verify(fmt::format("{}/{}", folder, translation.files.front().name), translation.files.front().text);
  }
  if (o.json) print_json(o, translation, verification, folder);
  else print_text(o, translation, verification, folder);
  return translation.complete && verification.starts ? 0 : 1;
}

}  // namespace

void add_migrate_command(CLI::App& app, Run& run) {
  auto* command = app.add_subcommand("migrate", "make a relay.toml of coturn's turnserver.conf, with a verdict on every line");
  auto o = std::make_shared<Options>();
  command->add_option("file", o->file, "turnserver.conf; nothing is written to it")->type_name("FILE");
  command->add_option("--db", o->database, "coturn's SQLite database; without it the one that userdb names")->type_name("FILE");
  auto* output = command->add_option("--output", o->output, "the folder for relay.toml and its secret files, made if need be")
                     ->type_name("DIR")
                     ->capture_default_str();
  command->add_option("--out", o->out, "relay.toml itself; its secret files go beside it")->type_name("FILE")->excludes(output);
  command->add_flag("--keep-private-peers", o->keep_private_peers, "allow private networks as peers, as coturn does");
  command->add_flag("--force", o->force, "overwrite files that are there");
  command->add_flag("--dry-run", o->dry_run, "show relay.toml and write nothing");
  command->add_flag("--options", o->list, "every option of coturn's and what becomes of it, as a table");
  command->add_flag("--json", o->json, "one JSON object instead of text");
  command->footer(
      "Examples:\n"
      "  radiotower migrate /etc/turnserver.conf\n"
      "  radiotower migrate /etc/turnserver.conf --db /var/lib/turn/turndb --output /root/radiotower\n"
      "Exit codes: 0 everything came along and the relay starts with it; 1 the result is there, but a line\n"
      "is refused or unknown, or the relay would not start; also when a file cannot be read or written.\n"
      "docs/coming-from-coturn.md tells the rest.");
  command->callback([o, &run] { run = [o] { return run_migrate(*o); }; });
}

}  // namespace radiotower::cli
