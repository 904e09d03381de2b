#include "notifier/config.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <set>

#include "notifier/config_section.h"
#include "notifier/history.h"
#include "notifier/mattermost.h"
#include "notifier/render.h"
#include "notifier/routes.h"
#include "notifier/sql.h"
#include "notifier/tls.h"
#include "notifier/tls_report.h"
#include "radiotower/base/encoding.h"
#include "radiotower/net/address.h"

namespace radiotower::notifier {

namespace {

std::string resolve(const std::string& name, const std::string& config_path) {
  const std::filesystem::path path = name;
  if (path.is_absolute()) return name;
  if (const char* credentials = std::getenv("CREDENTIALS_DIRECTORY"); credentials && *credentials) {
    const auto candidate = std::filesystem::path(credentials) / path;
    std::error_code ignored;
    if (std::filesystem::exists(candidate, ignored)) return candidate.string();
  }
  return (std::filesystem::path(config_path).parent_path() / path).string();
}

/// A file name, resolved; false when the key is absent or wrong.
bool file_name(Section& section, std::string_view key, std::string& out) {
  std::string name;
  if (!section.text(key, name)) return false;
  if (name.empty()) return section.wrong(key, "the file name is empty", "leave the key out when there is no such file");
  out = resolve(name, section.path());
  return true;
}

/// The one line of a file that holds one secret.
bool secret_of_file(Section& section, std::string_view key, std::string& out) {
  std::string path;
  if (!file_name(section, key, path)) return false;
  std::vector<std::string> lines;
  const std::size_t before = section.errors().size();
  for_each_secret_line(path, section.full(key), section.errors(),
                       [&](std::string_view line, int) { lines.emplace_back(line); });
  if (section.errors().size() != before) return false;
  if (lines.size() != 1)
    return section.wrong(key, fmt::format("{} holds {} lines instead of one", path, lines.size()),
                         "the secret alone, on one line");
  out = lines[0];
  return true;
}

bool readable(Section& section, std::string_view key, const std::string& path, bool secret = false) {
  std::string why;
  const auto file = read_file(path, 4 << 20, why);
  if (!file) return section.wrong(key, fmt::format("{} {}", path, why), "a PEM file that the service's user may read");
  // As for a file of secrets: the group may read it and nothing more.
  if (secret && (file->mode & (S_IROTH | S_IWOTH | S_IWGRP)))
    return section.wrong(key, fmt::format("mode {:04o} of {} lets others at it", file->mode, path),
                         fmt::format("chmod {}o-rwx {}", file->mode & S_IWGRP ? "g-w," : "", path));
  return true;
}

bool one_of(Section& section, std::string_view key, std::string& out, std::initializer_list<std::string_view> words) {
  std::string value;
  if (!section.text(key, value)) return false;
  if (std::find(words.begin(), words.end(), value) == words.end())
    return section.wrong(key, fmt::format("\"{}\" is not known", value),
                         fmt::format("one of \"{}\"", fmt::join(words, "\", \"")));
  out = value;
  return true;
}

void check_listener(Section& section, std::string_view key, const std::string& value) {
  const auto address = net::TransportAddress::parse(value);
  if (!address || address->port == 0)
    section.wrong(key, fmt::format("\"{}\" is not an IP address and a port", value),
                  "\"127.0.0.1:8066\", \"0.0.0.0:8066\", or \"[::]:8066\" with brackets round IPv6");
}

void check_template_key(Section& section, std::string_view key, const std::string& text, bool any_variable) {
  if (std::string why; !text.empty() && !check_template(text, why, any_variable))
    section.wrong(key, fmt::format("the template cannot be used: {}", why),
                  "\"{{title}} is {{status}}\", sections as {{#items}}...{{/items}}");
}

void read_mattermost(Section& section, Mattermost& m, std::vector<std::string>& notes) {
  std::string why, hint;
  std::string_view hook_key = "hook";
  if (section.text("hook", m.hook) && section.has("hook_file"))
    section.wrong("hook_file", "hook and hook_file say the same twice", "leave one of them out");
  if (secret_of_file(section, "hook_file", m.hook)) hook_key = "hook_file";
  if (!m.hook.empty() && m.hook != prints && !check_hook(m.hook, why, hint)) section.wrong(hook_key, why, hint);
  section.section("hooks", [&](Section& hooks) {
    hooks.each([&](const std::string& channel, const toml::node& node) {
      if (!node.is_string())
        return void(hooks.wrong(node, channel, "must be a text", "alerts = \"https://.../hooks/...\""));
      const std::string url = node.as_string()->get();
      if (!check_hook(url, why, hint)) hooks.wrong(node, channel, why, hint);
      m.hooks[channel] = url;
    });
  });
  if (section.text("url", m.url) && !check_base_url(m.url, why, hint)) section.wrong("url", why, hint);
  while (m.url.ends_with('/')) m.url.pop_back();
  secret_of_file(section, "token_file", m.token);
  section.text("team", m.team);
  if (section.has("token_file") && (m.url.empty() || m.team.empty()))
    section.wrong("token_file", "a bot needs url and team as well",
                  "url = \"https://192.168.0.105:8065\", team = \"city\" (the team's name in URLs)");
  if (!section.has("token_file") && (!m.url.empty() || !m.team.empty()))
    section.wrong(m.url.empty() ? "team" : "url", "is for a bot, and there is no token_file",
                  "token_file = \"bot-token\", or hook = \"https://.../hooks/...\" instead");
  if (m.hook.empty() && m.hooks.empty() && !section.has("token_file") && !section.has("hook") &&
      !section.has("hook_file"))
    section.wrong("hook", "there is no way to Mattermost",
                  "hook = \"https://192.168.0.105:8065/hooks/...\" (Mattermost: Integrations > Incoming Webhooks)");
  if (section.has("token_file") && (section.has("hook") || section.has("hook_file") || section.has("hooks")))
    notes.emplace_back("hook and [mattermost.hooks] are not used: token_file makes a bot");
  if (file_name(section, "ca_file", m.ca_file) && readable(section, "ca_file", m.ca_file)) {
    try {
      describe_ca_file(m.ca_file);
    } catch (const std::exception& error) {
      std::string_view what = error.what();
      if (constexpr std::string_view key = "mattermost.ca_file "; what.starts_with(key)) what.remove_prefix(key.size());
      section.wrong("ca_file", std::string(what), "the city's own CA as a PEM file");
    }
  }
  section.text("proxy", m.proxy);
  section.number("timeout_seconds", m.timeout_s, 15, 300,
                 "how long one request to Mattermost may take, from the connection to the answer; 30 by default");
}

void read_source(Section& section, Source& source) {
  std::string format;
  if (section.text("format", format)) {
    if (const auto known = format_of(format))
      source.format = *known;
    else
      section.wrong("format", fmt::format("\"{}\" is not known", format),
                    "gitlab, jenkins, sonarqube, artifactory, gitea, github, alertmanager, slack or generic");
  } else if (const auto own = format_of(source.name)) {
    source.format = *own;
  } else {
    section.wrong("format", fmt::format("what {} sends is not said", source.name),
                  "format = \"generic\", or name the section after the sender: [sources.gitlab]");
  }
  if (std::string path; file_name(section, "secrets_file", path)) {
    const std::size_t before = section.errors().size();
    for_each_secret_line(path, section.full("secrets_file"), section.errors(), [&](std::string_view line, int number) {
      if (line.size() < 12)
        section.errors().push_back({fmt::format("{}:{}", path, number), section.full("secrets_file"),
                                    fmt::format("{} characters are too few for a secret", line.size()),
                                    "at least 12; `openssl rand -hex 20` makes one"});
      // What GitLab signs with must be base64, or no signature would ever match.
      if (line.starts_with("whsec_") &&
          (line.size() % 4 != 2 ||
           line.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=", 6) !=
               std::string_view::npos))
        section.errors().push_back({fmt::format("{}:{}", path, number), section.full("secrets_file"),
                                    "begins with whsec_ and goes on with what is no base64",
                                    "the whole signing token as GitLab shows it"});
      source.secrets.emplace_back(line);
    });
    if (section.errors().size() == before && (source.secrets.empty() || source.secrets.size() > 8))
      section.wrong("secrets_file", fmt::format("{} holds {} secrets", path, source.secrets.size()),
                    "one a line; two during a rotation, at most 8");
  }
  section.boolean("allow_anyone", source.open);
  if (!section.has("secrets_file") && !source.open)
    section.wrong("secrets_file", "anybody could post here: no secret is set",
                  "secrets_file = \"...\", or allow_anyone = true where only trusted hosts can connect");
  if (section.has("secrets_file") && source.open)
    section.wrong("allow_anyone", "there is a secret, and it would not be asked for", "leave out one of both");
  GenericTemplate& t = source.templates;
  const std::pair<std::string_view, std::string*> templates[] = {
      {"title", &t.title}, {"text", &t.text},     {"project", &t.project}, {"branch", &t.branch}, {"status", &t.status},
      {"url", &t.url},     {"author", &t.author}, {"commit", &t.commit},   {"id", &t.id}};
  for (const auto& [key, text] : templates) {
    if (!section.text(key, *text)) continue;
    if (source.format != Format::generic)
      section.wrong(key, "templates are for format = \"generic\"", "leave the key out");
    check_template_key(section, key, *text, true);
  }
}

std::optional<std::pair<int, int>> quiet_hours(const std::string& text) {
  int from_hour = 0, from_minute = 0, to_hour = 0, to_minute = 0, used = 0;
  if (std::sscanf(text.c_str(), "%2d:%2d-%2d:%2d%n", &from_hour, &from_minute, &to_hour, &to_minute, &used) != 4 ||
      used != static_cast<int>(text.size()))
    return std::nullopt;
  if (from_hour < 0 || to_hour < 0 || from_hour > 23 || to_hour > 23 || from_minute < 0 || to_minute < 0 ||
      from_minute > 59 || to_minute > 59)
    return std::nullopt;
  const std::pair<int, int> minutes{from_hour * 60 + from_minute, to_hour * 60 + to_minute};
  return minutes.first == minutes.second ? std::nullopt : std::optional(minutes);
}

void read_route(Section& section, Route& r, const Settings& settings) {
  section.list("source", r.source, true);
  section.list("project", r.project, true);
  section.list("branch", r.branch, true);
  section.list("event", r.event, true);
  section.list("status", r.status, true);
  for (const std::string& name : r.source)
    if (name.find_first_of("*?!") == std::string::npos &&
        std::none_of(settings.sources.begin(), settings.sources.end(), [&](const Source& s) { return s.name == name; }))
      section.wrong("source", fmt::format("there is no [sources.{}]", name), "a route of it would never match");
  static const std::set<std::string, std::less<>> kinds = {
      "pipeline",     "job",     "push",  "tag",          "merge_request", "note",      "issue",
      "deployment",   "release", "wiki",  "feature_flag", "emoji",         "milestone", "vulnerability",
      "access_token", "member",  "group", "project",      "build",         "gate",      "artifact",
      "image",        "bundle",  "alert", "message",      "check",         "package"};
  for (const std::string& kind : r.event)
    if (kind.find_first_of("*?!") == std::string::npos && !kinds.contains(kind))
      section.wrong("event", fmt::format("\"{}\" is not known", kind),
                    fmt::format("one of {}", fmt::join(kinds, ", ")));
  for (const std::string& status : r.status)
    if (!status_of(status) && status != word(Turn::broken) && status != word(Turn::still_failing) &&
        status != word(Turn::fixed))
      section.wrong(
          "status", fmt::format("\"{}\" is not known", status),
          "success, unstable, failed, canceled, skipped, running, pending, waiting; broken, still failing, fixed");
  section.boolean("only_on_change", r.only_on_change);
  if (bool only = false; section.boolean("default_branch", only)) r.default_branch = only;
  if (bool only = false; section.boolean("security", only)) r.security = only;
  if (section.text("channel", r.channel)) {
    if (r.channel.starts_with('#')) r.channel.erase(0, 1);
    if (!is_channel_name(r.channel))
      section.wrong("channel", fmt::format("\"{}\" is not the name of a channel in URLs", r.channel),
                    channel_name_in_short);
  } else if (bool drop = false; !(section.boolean("drop", drop) && drop)) {
    section.wrong("channel", "the route leads nowhere",
                  "channel = \"alerts\", or drop = true to post nothing for what matches");
  }
  if (section.text("mention", r.mention)) {
    for (std::string_view rest = r.mention; !rest.empty();) {
      const std::size_t end = std::min(rest.find(' '), rest.size());
      const std::string_view word = rest.substr(0, end);
      if (!word.empty() && (word.size() < 2 || word[0] != '@' ||
                            word.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.",
                                                   1) != std::string_view::npos))
        section.wrong("mention", fmt::format("\"{}\" is not a mention", word),
                      "\"@build-cop\", several with blanks between");
      rest.remove_prefix(std::min(end + 1, rest.size()));
    }
  }
  section.boolean("mention_author", r.mention_author);
  if (section.text("template", r.template_text)) check_template_key(section, "template", r.template_text, false);
  section.text("username", r.username);
  section.boolean("every_state", r.every_state);
  if (std::string text; section.text("quiet_hours", text)) {
    r.quiet = quiet_hours(text);
    if (!r.quiet)
      section.wrong("quiet_hours", fmt::format("\"{}\" is not a span of the day", text),
                    "\"22:00-07:00\", in the host's time zone");
  }
}

void read_root(Section& root, Settings& s, std::vector<std::string>& notes) {
  if (root.list("listen", s.listen, true))
    for (const auto& listener : s.listen) check_listener(root, "listen", listener);
  if (root.text("metrics_listen", s.metrics_listen)) check_listener(root, "metrics_listen", s.metrics_listen);
  root.text("state", s.state);
  if (!std::filesystem::path(s.state).is_absolute())
    s.state = (std::filesystem::absolute(root.path()).parent_path() / s.state).string();
  if (!root.has("queue") || root.has("queue_file")) secret_of_file(root, "queue_file", s.queue);
  if (root.text("queue", s.queue) && root.has("queue_file"))
    root.wrong("queue_file", "queue and queue_file say the same twice", "leave one of them out");
  const bool postgresql = s.queue.starts_with("postgresql://") || s.queue.starts_with("postgres://");
  if (s.queue != "sqlite" && !postgresql)
    root.wrong(root.has("queue") ? "queue" : "queue_file", "is neither \"sqlite\" nor a PostgreSQL URL",
               "queue = \"sqlite\", or \"postgresql://user@host/database\"");
  if (postgresql && !postgresql_compiled_in())
    root.wrong("queue", "this program was built without PostgreSQL", "queue = \"sqlite\"; or build with libpq-dev");
  root.number("queue_limit", s.queue_limit, 100, 10'000'000,
              "how many posts may wait or be dead before senders get 503; 100000 by default");
  if (std::uint32_t hours = 0;
      root.number("give_up_after_hours", hours, 1, 24 * 365,
                  "after how many hours without success a post becomes a dead letter; 72 by default"))
    s.give_up_after_s = hours * 3600;
  std::string match = "first";
  one_of(root, "route_match", match, {"first", "all"});
  s.every_match = match == "all";
  root.section("tls", [&](Section& tls) {
    const std::size_t before = tls.errors().size();
    if (file_name(tls, "certificate", s.certificate)) readable(tls, "certificate", s.certificate);
    if (file_name(tls, "private_key", s.private_key)) readable(tls, "private_key", s.private_key, true);
    if (s.certificate.empty() != s.private_key.empty())
      tls.wrong(s.certificate.empty() ? "certificate" : "private_key", "certificate and private_key belong together",
                "set both for HTTPS, or none");
    if (s.certificate.empty() || s.private_key.empty() || tls.errors().size() != before) return;
    std::string why;
    if (!load_certificate(s.certificate, s.private_key, why))
      tls.wrong("certificate", why, "two PEM files: the certificate with its chain, and its key");
    else if (!why.empty())
      notes.push_back(why);
  });
  root.section("log", [&](Section& log) {
    one_of(log, "level", s.log_level, {"error", "warning", "notice", "info", "debug"});
    one_of(log, "format", s.log_format, {"text", "json"});
  });
  if (root.has("mattermost"))
    root.section("mattermost", [&](Section& section) { read_mattermost(section, s.mattermost, notes); });
  else
    root.wrong("mattermost", "there is no way to Mattermost",
               "[mattermost] with hook = \"https://192.168.0.105:8065/hooks/...\"");
  root.section("sources", [&](Section& sources) {
    sources.each([&](const std::string& name, const toml::node& node) {
      if (!node.is_table()) return void(sources.wrong(node, name, "is a section", fmt::format("[sources.{}]", name)));
      if (name.empty() || name.size() > 32 ||
          name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-_") != std::string::npos)
        sources.wrong(node, name, "cannot be a part of a URL", "lower-case letters, digits, - and _");
      Section section(*node.as_table(), sources.full(name), sources.path(), sources.errors());
      read_source(section, s.sources.emplace_back(Source{name, Format::generic, {}, false, {}}));
      section.finish();
    });
  });
  if (s.sources.empty())
    notes.emplace_back("no [sources.NAME]: nothing can come in over HTTP; `radiotower-notifier post` still works");
  for (const auto& source : s.sources)
    if (source.open) notes.push_back(fmt::format("[sources.{}] takes events from anyone who can connect", source.name));
  root.section("flood", [&](Section& flood) {
    Flood& f = s.flood;
    flood.number("posts_per_second", f.posts_per_second, 1, 1000,
                 "how many posts a second go out to all channels together; 10 by default, as Mattermost's own limit");
    flood.number("burst", f.burst, 1, 10'000,
                 "how many posts may go out at once before posts_per_second counts; 100 by default");
    flood.number("channel_posts_per_minute", f.channel_posts_per_minute, 1, 10'000,
                 "how many posts a minute a channel gets, as people can read them; 20 by default");
    flood.number("channel_burst", f.channel_burst, 1, 10'000,
                 "how many posts a channel gets at once before channel_posts_per_minute counts; 10 by default");
    flood.number("digest_from", f.digest_from, 2, 10'000,
                 "how many waiting posts of a channel become one digest; 3 by default");
  });
  root.section("people", [&](Section& people) {
    people.each([&](const std::string& name, const toml::node& node) {
      const std::string user = node.is_string() ? node.as_string()->get() : "";
      if (user.size() < 2 || user[0] != '@' ||
          user.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-_.", 1) != std::string::npos)
        return void(people.wrong(node, name, "must be a Mattermost user", fmt::format("\"{}\" = \"@ada\"", name)));
      s.people[lower_case(name)] = user;
    });
  });
  if (const toml::node* routes = root.find("route")) {
    const toml::array* array = routes->as_array();
    if (!array || std::any_of(array->begin(), array->end(), [](const toml::node& n) { return !n.is_table(); })) {
      root.wrong(*routes, "route", "is a list of sections", "[[route]], with two brackets");
    } else {
      for (const toml::node& node : *array) {
        Section section(*node.as_table(), "route", root.path(), root.errors());
        Route& r = s.routes.emplace_back();
        r.name = fmt::format("route {} ({})", s.routes.size(), section.place());
        read_route(section, r, s);
        section.finish();
      }
    }
  }
  if (s.routes.empty()) {
    s.routes = built_in_routes();
    s.every_match = true;
  }
  if (!s.mattermost.hook.empty() || s.mattermost.bot()) return;
  for (const auto& r : s.routes)
    if (!r.channel.empty() && !s.mattermost.hooks.contains(r.channel))
      root.wrong("mattermost", fmt::format("no hook for {} of {}", channel_as_shown(r.channel), r.name),
                 fmt::format("[mattermost.hooks] {} = \"https://.../hooks/...\", or one hook for all", r.channel));
}

/// What stands in the file itself and is a secret: "the hook", "a password"; empty: nothing.
std::string_view secret_in(const toml::table& table, const Settings& s) {
  const auto mattermost = table["mattermost"];
  if (mattermost["hook"].is_string() && s.mattermost.hook != prints) return "the hook";
  if (!s.mattermost.hooks.empty()) return "the hook";
  const auto has_password = [](std::string_view url) {
    const std::size_t scheme = url.find("://");
    if (url.find("password=") != std::string_view::npos) return true;
    if (scheme == std::string_view::npos) return false;
    const std::string_view authority = url.substr(scheme + 3, url.find_first_of("/?#", scheme + 3) - (scheme + 3));
    const std::size_t at = authority.rfind('@');
    return at != std::string_view::npos && authority.substr(0, at).find(':') != std::string_view::npos;
  };
  const bool password = (table["queue"].is_string() && has_password(s.queue)) || has_password(s.mattermost.proxy);
  return password ? "a password" : "";
}

bool read_text(std::string_view text, unsigned mode, const std::string& path, Settings& settings, ConfigErrors& errors,
               std::vector<std::string>& notes) {
  const std::size_t before = errors.size();
  if (mode & S_IWOTH)
    errors.push_back({path, "", fmt::format("mode {:04o} lets others change it", mode),
                      fmt::format("chmod o-w {}: who writes it decides where posts go", path)});
  try {
    const toml::table table = toml::parse(text, path);
    Section root(table, "", path, errors);
    read_root(root, settings, notes);
    root.finish();
    if (const auto secret = secret_in(table, settings); (mode & S_IROTH) && !secret.empty())
      notes.push_back(
          fmt::format("{0} holds {1}, which is a secret, and everybody on this host may read it (chmod o-r {0}; "
                      "or put it into a file of its own: hook_file, queue_file)",
                      path, secret));
  } catch (const toml::parse_error& e) {
    errors.push_back({fmt::format("{}:{}", path, e.source().begin.line), "",
                      fmt::format("not TOML: {}", e.description()), toml_in_short});
  } catch (const TomlAssertion&) {
    errors.push_back({path, "", "not TOML: a key has a name that cannot be read", toml_in_short});
  }
  return errors.size() == before;
}

}  // namespace

bool is_channel_name(std::string_view channel) {
  const std::string_view name = channel.substr(channel.starts_with('@') ? 1 : 0);
  return !name.empty() && channel.size() <= 64 &&
         name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-_.") == std::string_view::npos;
}

std::string channel_as_shown(std::string_view channel) {
  return channel.starts_with('@') ? std::string(channel) : fmt::format("#{}", channel);
}

bool read_settings_text(std::string_view text, const std::string& path, Settings& settings, ConfigErrors& errors,
                        std::vector<std::string>& notes) {
  return read_text(text, 0, path, settings, errors, notes);
}

bool read_settings(const std::string& path, Settings& settings, ConfigErrors& errors, std::vector<std::string>& notes) {
  std::string why;
  const auto file = read_file(path, 1 << 20, why);
  if (file) return read_text(file->text, file->mode, path, settings, errors, notes);
  const bool denied = faccessat(AT_FDCWD, path.c_str(), R_OK, AT_EACCESS) != 0 && errno == EACCES;
  errors.push_back({path, "", why,
                    denied ? "run it as root or as radiotower-notifier"
                           : "--config names the TOML file; ./quickstart notifier makes one to begin with"});
  return false;
}

std::vector<std::string> keys_that_need_a_restart(const Settings& running, const Settings& next) {
  std::vector<std::string> keys;
  if (running.listen != next.listen) keys.emplace_back("listen");
  if (running.metrics_listen != next.metrics_listen) keys.emplace_back("metrics_listen");
  if (running.state != next.state) keys.emplace_back("state");
  if (running.queue != next.queue) keys.emplace_back("queue");
  if (running.certificate.empty() != next.certificate.empty()) keys.emplace_back("tls");
  if (running.log_format != next.log_format) keys.emplace_back("log.format");
  return keys;
}

}  // namespace radiotower::notifier
