// radiotower-notifier: CI events in, Mattermost posts out. Exit status: 0 good, 1 a bad configuration or a failure, 2 a
// wrong use.
#include <curl/curl.h>
#include <fmt/format.h>
#include <malloc.h>
#include <openssl/crypto.h>
#include <sqlite3.h>

#include <CLI/CLI.hpp>
#include <boost/version.hpp>
#include <cstdlib>
#include <filesystem>

#include "notifier/commands.h"
#include "notifier/config.h"
#include "notifier/service.h"
#include "notifier/sql.h"
#include "radiotower/service/notify.h"
#include "radiotower/service/process.h"

namespace radiotower::notifier {

namespace {

constexpr const char* default_config = "/etc/radiotower/notifier.toml";

bool exists(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

int print_version() {
  fmt::print("radiotower-notifier {}\n", RADIOTOWER_VERSION);
  fmt::print("compiled in: Boost.Beast {}.{}.{}, {}, {}, SQLite {}, PostgreSQL queue {}, libsystemd {}\n",
             BOOST_VERSION / 100000, BOOST_VERSION / 100 % 1000, BOOST_VERSION % 100, OpenSSL_version(OPENSSL_VERSION),
             curl_version_info(CURLVERSION_NOW)->version
                 ? fmt::format("libcurl {}", curl_version_info(CURLVERSION_NOW)->version)
                 : "libcurl",
             sqlite3_libversion(), postgresql_compiled_in() ? "yes" : "no",
             notify::available() ? "yes" : "no (no readiness notice, no watchdog)");
  return 0;
}

/// The settings, or nullptr once every mistake stands on stderr.
std::shared_ptr<Settings> load(const std::string& path, bool say_notes) {
  auto settings = std::make_shared<Settings>();
  ConfigErrors errors;
  std::vector<std::string> notes;
  const char* prefix = is_journal(2) ? "<3>" : "";
  if (read_settings(path, *settings, errors, notes)) {
    if (say_notes)
      for (const auto& note : notes) fmt::print(stderr, "{}note: {}\n", is_journal(2) ? "<4>" : "", note);
    return settings;
  }
  for (const auto& error : errors) fmt::print(stderr, "{}{}\n", prefix, error.text());
  fmt::print(stderr, "{}radiotower-notifier: {} mistake{} in the configuration\n", prefix, errors.size(),
             errors.size() == 1 ? "" : "s");
  return nullptr;
}

int run(int argc, char** argv) {
  CLI::App app("radiotower-notifier: what GitLab, Jenkins, SonarQube and others tell, as posts in Mattermost",
               "radiotower-notifier");
  app.footer(
      fmt::format("Without a command it runs as a service. The configuration is {} unless --config names "
                  "another.\ndocs/notifier.md is the manual.",
                  default_config));
  std::string config = default_config;
  bool check = false, version = false;
  const auto* config_flag =
      app.add_option("-c,--config", config, "the configuration, TOML")->envname("RADIOTOWER_NOTIFIER_CONFIG");
  app.add_flag("--check", check, "check the configuration, say what it means, and end");
  app.add_flag("--version", version, "the version and the libraries it was built with");
  app.require_subcommand(0, 1);
  app.fallthrough();

  PostCommand command;
  auto* post_command = app.add_subcommand(
      "post",
      "hands an event on: JSON on stdin with --source, or described by flags (--text ... --status failed --link ...)");
  post_command->add_option("--source", command.source,
                           "what the JSON is: a [sources.NAME], or gitlab, jenkins, generic ...");
  post_command->add_option("--text", command.text, "the text");
  post_command->add_option("--title", command.title, "the title");
  post_command->add_option("--status", command.status,
                           "success, unstable, failed, canceled, skipped, running, pending, waiting");
  post_command->add_option("--link", command.link, "the URL that the title leads to");
  post_command->add_option("--project", command.project, "group/app");
  post_command->add_option("--branch", command.branch, "the branch");
  post_command->add_option("--commit", command.commit, "the commit's SHA");
  post_command->add_option("--author", command.author, "the author of the commit");
  post_command->add_option("--number", command.number, "the number of the build");
  post_command->add_option("--duration", command.duration, "how long it took, in seconds");
  post_command->add_option("--header", command.headers,
                           "a header that the sender would have set: \"X-GitHub-Event: push\"");
  post_command->add_option("--url", command.url, "a running service: http://notifier:8066")
      ->envname("RADIOTOWER_NOTIFIER_URL");
  post_command->add_option("--secret-file", command.secret_file,
                           "the source's secret (or RADIOTOWER_NOTIFIER_SECRET in the environment)");
  post_command->add_option("--ca-file", command.ca_file, "the CA of an HTTPS service, PEM");
  post_command->add_option("--wait", command.wait_s, "seconds to try while the service cannot be reached (30)")
      ->check(CLI::Range(0, 3600));

  std::string source, change, channel;
  std::vector<std::string> headers;
  auto* preview_command =
      app.add_subcommand("preview", "shows what would be posted for the event on stdin, where, and by which route");
  preview_command->add_option("--source", source, "what the JSON is: a [sources.NAME], or gitlab, jenkins ...")
      ->required();
  preview_command->add_option("--change", change, "as if it were: broken, \"still failing\" or fixed")
      ->check(CLI::IsMember({"broken", "still failing", "fixed"}));
  preview_command->add_option("--header", headers, "\"X-GitHub-Event: push\"");

  auto* test_command = app.add_subcommand("send-test", "posts one message now and explains what Mattermost says");
  test_command->add_option("channel", channel, "the channel's name in URLs, or @user")->required();

  auto* dead = app.add_subcommand("dead", "posts that were given up: refused, or too long without success");
  dead->require_subcommand(1);
  std::vector<std::int64_t> ids;
  std::int64_t id = 0;
  bool all = false;
  auto* list = dead->add_subcommand("list", "all of them, with the reasons");
  auto* show = dead->add_subcommand("show", "one of them, as it would be posted");
  show->add_option("id", id, "of `dead list`")->required();
  auto* retry = dead->add_subcommand("retry", "posts them again, at the end of their channel's queue");
  auto* drop = dead->add_subcommand("drop", "forgets them");
  for (auto* each : {retry, drop}) {
    each->add_option("ids", ids, "of `dead list`");
    each->add_flag("--all", all, "all that are there now");
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const int status = app.exit(error);
    return status == 0 ? 0 : 2;
  }

  if (version) return print_version();
  forbid_core_dumps();  // before the first secret is read
  const std::string program =
      config == default_config ? "radiotower-notifier" : fmt::format("radiotower-notifier --config {}", config);
  const bool remote = post_command->parsed() && !command.url.empty();
  const bool configured = config_flag->count() > 0 || exists(config);
  if (remote || (post_command->parsed() && !configured)) return post(command, nullptr);
  const auto settings = load(config, check || app.get_subcommands().empty());
  if (!settings) return 1;
  if (post_command->parsed()) return post(command, settings.get());
  if (preview_command->parsed()) return preview(*settings, source, change, headers);
  if (test_command->parsed()) return send_test(*settings, channel);
  if (list->parsed()) return dead_list(*settings, program);
  if (show->parsed()) return dead_show(*settings, id);
  if (retry->parsed()) return dead_retry(*settings, ids, all);
  if (drop->parsed()) return dead_drop(*settings, ids, all);
  if (check) {
    describe(*settings);
    fmt::print("the configuration is good\n");
    return 0;
  }
  block_signals();
  raise_descriptor_limit();
  Log log({settings->log_format == "json" ? LogFormat::json : LogFormat::text, log_level(*settings), 2, 1024, {}});
  return serve(settings, config, log);
}

}  // namespace

}  // namespace radiotower::notifier

int main(int argc, char** argv) {
  try {
    // Threads that parse and threads that send would each keep what their largest event took.
    mallopt(M_ARENA_MAX, 2);
    curl_global_init(CURL_GLOBAL_DEFAULT);
    return radiotower::notifier::run(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}radiotower-notifier: {}\n", radiotower::is_journal(2) ? "<3>" : "", error.what());
    return 1;
  }
}
