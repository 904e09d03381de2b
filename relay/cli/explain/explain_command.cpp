// `radiotower credentials explain`: is this user name and password good, until when, and if not, why.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <ctime>
#include <filesystem>
#include <memory>

#include "../commands.h"
#include "credentials.h"
#include "daemon/config.h"
#include "explain.h"
#include "json.h"
#include "radiotower/base/calendar.h"
#include "radiotower/service/configuration.h"

namespace radiotower::cli {

namespace {

struct Options {
  std::string user, password, password_file, config_file, realm, separator;
  std::vector<std::string> secret_files, users_files;
  bool json = false;
};

constexpr std::size_t longest_file = 64 << 20;  // as the relay has it

std::string local_second(UnixSeconds time) {
  const std::time_t t = time;
  std::tm parts{};
  char text[64];
  localtime_r(&t, &parts);
  return {text, std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S %Z", &parts)};
}

bool read_text(const std::string& path, std::string& out, std::string& why) {
  const auto file = read_file(path, longest_file, why);
  if (!file) {
    why = fmt::format("{}: {}", path, why);
    return false;
  }
  out = file->text;
  return true;
}

/// Files, realm and separator of a relay.toml; what flags say wins.
bool read_configuration(const Options& o, ExplainInput& input, std::vector<std::string>& secrets, std::vector<std::string>& users, std::string& why) {
  daemon::Config config;
  ConfigErrors errors;
  if (!daemon::read_config_file(o.config_file, config, errors)) {
    why = errors.front().text();
    return false;
  }
  input.realm = config.realm;
  input.separator = config.rest_separator;
  std::string secrets_file = config.secrets_file, users_file = config.users_file;
  for (const auto& realm : config.realms) {
    input.other_realms.push_back(realm.name);
    if (o.realm != realm.name) continue;
    secrets_file = realm.secrets_file;
    users_file = realm.users_file;
    input.separator = realm.rest_separator.value_or(config.rest_separator);
  }
  input.other_realms.push_back(config.realm);
  if (secrets.empty() && !secrets_file.empty()) secrets.push_back(secrets_file);
  if (users.empty() && !users_file.empty()) users.push_back(users_file);
  return true;
}

void print_json(const ExplainInput& input, const Explanation& e) {
  const auto list = [](const std::vector<std::string>& texts) {
    std::string out;
    for (const auto& text : texts) out += (out.empty() ? "" : ", ") + json_string(text);
    return "[" + out + "]";
  };
  fmt::print(
      R"({{"ok": {}, "name": {}, "kind": {}, "user": {}, "realm": {}, "expires": {}, "seconds_left": {}, "secret": {}, "facts": {}, "verdict": {}, "check": {}}})"
      "\n",
      e.valid, json_string(input.username), json_string(e.kind), json_string(e.user), json_string(input.realm),
      e.expiry ? std::to_string(*e.expiry) : "null", e.expiry ? std::to_string(*e.expiry - input.now) : "null",
      e.secret.empty() ? "null" : json_string(e.secret), list(e.facts), json_string(e.verdict), list(e.advice));
}

void print_text(const ExplainInput& input, const Explanation& e) {
  fmt::print("{}\n", input.username);
  if (e.kind == "time-limited") fmt::print("  name      a time-limited one, for the user \"{}\"\n", e.user);
  else if (!e.user.empty()) fmt::print("  name      a user with a password, in the realm \"{}\"\n", input.realm);
  if (e.expiry) {
    const std::int64_t left = *e.expiry - input.now;
    const std::string here = local_second(*e.expiry), utc = utc_second(*e.expiry);
    fmt::print("  expiry    {}{}, {}\n", here, here == utc ? "" : " (" + utc + ")",
               left > 0 ? "in " + duration_text(left) : duration_text(-left) + " ago");
  }
  for (const auto& fact : e.facts) fmt::print("  found     {}\n", fact);
  fmt::print("{}\n", e.verdict);
  for (const auto& advice : e.advice) fmt::print("  check: {}\n", advice);
}

int run_explain(const Options& o) {
  const char* const command = "credentials explain";
  std::string why, warning;
  ExplainInput input;
  input.username = o.user;
  if (o.user.empty()) return usage_error(command, "the user name is empty");
  if (o.password.empty() == o.password_file.empty()) return usage_error(command, "give the password, or --password-file FILE (- for standard input)");
  if (!o.password_file.empty()) {
    const auto password = read_password(o.password_file, why, warning);
    if (!password) return usage_error(command, "--password-file: " + why);
    input.password = *password;
  } else {
    input.password = o.password;
    warning = "the password stands in the process list for everybody on this host while this runs: --password-file does not show it";
  }
  if (!warning.empty()) warn(warning);
  auto secrets = o.secret_files, users = o.users_files;
  if (!o.config_file.empty() && !read_configuration(o, input, secrets, users, why)) return usage_error(command, "--config: " + why);
  if (!o.realm.empty()) input.realm = o.realm;
  if (!o.separator.empty()) input.separator = o.separator.front();
  input.other_realms.push_back("radiotower");
  if (secrets.empty() && users.empty())
    return usage_error(command, "give --config relay.toml, or --secret-file and --users-file: without them there is nothing to compare with");
  for (const auto& path : secrets) {
    std::string text;
    if (!read_text(path, text, why)) return usage_error(command, "--secret-file: " + why);
    for (auto& secret : secrets_of(text, path)) input.secrets.push_back(std::move(secret));
  }
  for (const auto& path : users) {
    std::string text;
    if (!read_text(path, text, why)) return usage_error(command, "--users-file: " + why);
    for (auto& user : users_of(text, path)) input.users.push_back(std::move(user));
  }
  input.now = std::time(nullptr);
  const Explanation explanation = explain_credential(input);
  if (o.json) print_json(input, explanation);
  else print_text(input, explanation);
  return explanation.valid ? 0 : 1;
}

}  // namespace

void add_explain_command(CLI::App& credentials, Run& run) {
  auto* command = credentials.add_subcommand("explain", "say whether a user name and password are good, until when, and if not, why");
  auto o = std::make_shared<Options>();
  command->add_option("user", o->user, "the user name, as the client sends it")->required()->type_name("USER");
  command->add_option("password", o->password, "its password, for everybody on this host to see while this runs")->type_name("PASSWORD");
  command->add_option("--password-file", o->password_file, "a file whose first line is the password; - reads standard input")->type_name("FILE");
  command->add_option("--config", o->config_file, "take secrets, users, realm and separator from this relay.toml")->type_name("FILE");
  command->add_option("--secret-file", o->secret_files, "the relay's secrets file, with all its secrets; may be repeated")
      ->type_name("FILE")
      ->allow_extra_args(false);
  command->add_option("--users-file", o->users_files, "the relay's users file; may be repeated")->type_name("FILE")->allow_extra_args(false);
  command->add_option("--realm", o->realm, "the realm; with --config one of its realms, whose files are then taken")->type_name("NAME");
  command->add_option("--separator", o->separator, "what stands between expiry and user; a colon unless the configuration says otherwise")
      ->type_name("CHARACTER");
  command->add_flag("--json", o->json, "one JSON object instead of text");
  command->footer(
      "Examples:\n"
      "  radiotower credentials explain 1767225600:alice RjhlVen+DhQzYDfv//fV2MBBUwM= --secret-file secrets\n"
      "  radiotower credentials explain bob --password-file - --config /etc/radiotower/relay.toml\n"
      "Exit codes: 0 valid, 1 not valid, 2 the command line is wrong.");
  command->callback([o, &run] { run = [o] { return run_explain(*o); }; });
}

}  // namespace radiotower::cli
