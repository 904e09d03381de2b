#include "notifier/config.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <set>

#include "notifier/history.h"
#include "notifier/mattermost.h"
#include "notifier/render.h"
#include "notifier/routes.h"
#include "notifier/sql.h"
#include "notifier/tls.h"
#include "radiotower/net/address.h"
#include "radiotower/service/toml.h"

namespace radiotower::notifier {

namespace {

/// One table of the file. Remembers which of its keys somebody asked for, so that the others can be called unknown.
class Section {
 public:
  Section(const toml::table& table, std::string name, const std::string& path, ConfigErrors& errors)
      : table_(table), name_(std::move(name)), path_(path), errors_(errors) {}

  const toml::node* find(std::string_view key) {
    known_.emplace(key);
    return table_.get(key);
  }
  bool wrong(const toml::node& node, std::string_view key, std::string what, std::string hint) const {
    errors_.push_back({where(node), full(key), std::move(what), std::move(hint)});
    return false;
  }
  bool wrong(std::string_view key, std::string what, std::string hint) const {
    const toml::node* node = table_.get(key);
    return wrong(node ? *node : static_cast<const toml::node&>(table_), key, std::move(what), std::move(hint));
  }
  bool has(std::string_view key) const { return table_.contains(key); }

  bool text(std::string_view key, std::string& out) {
    const toml::node* node = find(key);
    if (!node) return false;
    if (!node->is_string()) return wrong(*node, key, "must be a text", fmt::format("{} = \"...\", in quotes", key));
    if (node->as_string()->get().find('\0') != std::string::npos)
      return wrong(*node, key, "holds a NUL character", "plain text");
    out = node->as_string()->get();
    return true;
  }
  bool boolean(std::string_view key, bool& out) {
    const toml::node* node = find(key);
    if (!node) return false;
    if (!node->is_boolean())
      return wrong(*node, key, "must be true or false", fmt::format("{} = true, without quotes", key));
    out = node->as_boolean()->get();
    return true;
  }
  template <typename Number>
  bool number(std::string_view key, Number& out, std::int64_t smallest, std::int64_t largest) {
    const toml::node* node = find(key);
    if (!node) return false;
    if (!node->is_integer())
      return wrong(*node, key, "must be a whole number", fmt::format("{} = 10, without quotes", key));
    const std::int64_t value = node->as_integer()->get();
    if (value < smallest || value > largest)
      return wrong(*node, key, fmt::format("{} is out of range {}-{}", value, smallest, largest),
                   "docs/notifier.md says what it means");
    out = static_cast<Number>(value);
    return true;
  }
  /// A list of texts; where `single_too`, one text is a list of one.
  bool list(std::string_view key, std::vector<std::string>& out, bool single_too) {
    const toml::node* node = find(key);
    if (!node) return false;
    std::vector<std::string> values;
    if (node->is_string() && single_too) {
      values.push_back(node->as_string()->get());
    } else if (node->is_array()) {
      for (const toml::node& element : *node->as_array()) {
        if (!element.is_string())
          return wrong(element, key, "must be a list of texts", fmt::format("{} = [\"...\", \"...\"]", key));
        values.push_back(element.as_string()->get());
      }
    } else {
      return wrong(*node, key, "must be a list of texts", fmt::format("{} = [\"...\", \"...\"]", key));
    }
    if (values.empty()) return wrong(*node, key, "the list is empty", "leave the key out for all");
    if (values.size() > 1000)
      return wrong(*node, key, "more than 1000 entries", "globs such as \"group/*\" say it in fewer");
    out = std::move(values);
    return true;
  }
  template <typename Function>
  void section(std::string_view key, Function&& read) {
    const toml::node* node = find(key);
    if (!node) return;
    if (!node->is_table()) {
      wrong(*node, key, "is a section", fmt::format("[{}]", full(key)));
      return;
    }
    Section inner(*node->as_table(), full(key), path_, errors_);
    read(inner);
    inner.finish();
  }
  template <typename Function>
  void each(Function&& read) {  // every key, known before or not
    for (const auto& [key, node] : table_) {
      known_.emplace(key.str());
      read(std::string(key.str()), node);
    }
  }
  /// Complains about the keys that nobody asked for.
  void finish() {
    for (const auto& [key, node] : table_) {
      if (known_.contains(key.str())) continue;
      std::string_view best;
      std::size_t nearest = 4;
      for (const auto& candidate : known_)
        if (const std::size_t d = edit_distance(key.str().substr(0, 64), candidate); d < nearest)
          best = candidate, nearest = d;
      wrong(node, key.str(), "unknown key",
            best.empty() ? "docs/notifier.md lists the keys" : fmt::format("did you mean {}?", best));
    }
  }
  std::string full(std::string_view key) const {
    return name_.empty() ? std::string(key) : fmt::format("{}.{}", name_, key);
  }
  std::string where(const toml::node& node) const { return fmt::format("{}:{}", path_, node.source().begin.line); }
  std::string place() const { return where(table_); }
  const std::string& path() const { return path_; }
  ConfigErrors& errors() const { return errors_; }

 private:
  const toml::table& table_;
  std::string name_;
  const std::string& path_;
  ConfigErrors& errors_;
  std::set<std::string, std::less<>> known_;
};

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

void readable(Section& section, std::string_view key, const std::string& path) {
  std::string why;
  if (!read_file(path, 4 << 20, why))
    section.wrong(key, fmt::format("{} {}", path, why), "a PEM file that the service's user may read");
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

void read_mattermost(Section& section, Mattermost& m) {
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
  if (file_name(section, "ca_file", m.ca_file)) readable(section, "ca_file", m.ca_file);
  section.text("proxy", m.proxy);
  section.number("timeout_seconds", m.timeout_s, 15, 300);
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
      "image",        "bundle",  "alert", "message",      "check",         "user",      "package"};
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
    const bool direct = r.channel.starts_with('@');
    if (r.channel.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-_.", direct ? 1 : 0) != std::string::npos ||
        r.channel.size() > 64)
      section.wrong("channel", fmt::format("\"{}\" is not the name of a channel in URLs", r.channel),
                    "lower-case letters, digits, - and _: \"alerts\", or \"@user\"; it is in the channel's link, not "
                    "in its title");
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
  root.number("queue_limit", s.queue_limit, 100, 10'000'000);
  if (std::uint32_t hours = 0; root.number("give_up_after_hours", hours, 1, 24 * 365)) s.give_up_after_s = hours * 3600;
  root.text("public_url", s.public_url);
  std::string match = "first";
  one_of(root, "route_match", match, {"first", "all"});
  s.every_match = match == "all";
  root.section("tls", [&](Section& tls) {
    const std::size_t before = tls.errors().size();
    if (file_name(tls, "certificate", s.certificate)) readable(tls, "certificate", s.certificate);
    if (file_name(tls, "private_key", s.private_key)) readable(tls, "private_key", s.private_key);
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
    root.section("mattermost", [&](Section& section) { read_mattermost(section, s.mattermost); });
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
    flood.number("posts_per_second", f.posts_per_second, 1, 1000);
    flood.number("burst", f.burst, 1, 10'000);
    flood.number("channel_posts_per_minute", f.channel_posts_per_minute, 1, 10'000);
    flood.number("channel_burst", f.channel_burst, 1, 10'000);
    flood.number("digest_from", f.digest_from, 2, 10'000);
  });
  root.section("people", [&](Section& people) {
    people.each([&](const std::string& name, const toml::node& node) {
      const std::string user = node.is_string() ? node.as_string()->get() : "";
      if (user.size() < 2 || user[0] != '@' ||
          user.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-_.", 1) != std::string::npos)
        return void(people.wrong(node, name, "must be a Mattermost user", fmt::format("\"{}\" = \"@ada\"", name)));
      std::string lower = name;
      std::transform(lower.begin(), lower.end(), lower.begin(),
                     [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
      s.people[lower] = user;
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
      root.wrong("mattermost", fmt::format("no hook for #{} of {}", r.channel, r.name),
                 fmt::format("[mattermost.hooks] {} = \"https://.../hooks/...\", or one hook for all", r.channel));
}

}  // namespace

bool read_settings_text(std::string_view text, const std::string& path, Settings& settings, ConfigErrors& errors,
                        std::vector<std::string>& notes) {
  const std::size_t before = errors.size();
  try {
    const toml::table table = toml::parse(text, path);
    Section root(table, "", path, errors);
    read_root(root, settings, notes);
    root.finish();
  } catch (const toml::parse_error& e) {
    errors.push_back({fmt::format("{}:{}", path, e.source().begin.line), "",
                      fmt::format("not TOML: {}", e.description()), toml_in_short});
  } catch (const TomlAssertion&) {
    errors.push_back({path, "", "not TOML: a key has a name that cannot be read", toml_in_short});
  }
  return errors.size() == before;
}

bool read_settings(const std::string& path, Settings& settings, ConfigErrors& errors, std::vector<std::string>& notes) {
  std::string why;
  const auto file = read_file(path, 1 << 20, why);
  if (!file) {
    errors.push_back({path, "", why, "--config names the TOML file; ./quickstart notifier makes one to begin with"});
    return false;
  }
  if (!read_settings_text(file->text, path, settings, errors, notes)) return false;
  if ((file->mode & S_IROTH) && file->text.find("/hooks/") != std::string::npos)
    notes.push_back(fmt::format(
        "{} holds the hook, which is a secret, and everybody on this host may read it (chmod 0640; or hook_file)",
        path));
  return true;
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
