// radiotower-relay: from the command line to a running relay.
#include <fmt/format.h>
#include <liburing.h>
#include <openssl/crypto.h>
#include <sys/utsname.h>

#include <cstdio>

#include "control.h"
#include "flags.h"
#include "notify.h"
#include "settings_builder.h"

namespace {

using namespace radiotower;
using namespace radiotower::daemon;

void print_errors(const ConfigErrors& errors) {
  for (const auto& e : errors) fmt::print(stderr, "{}\n", e.text());
}

void print_version() {
  utsname kernel{};
  uname(&kernel);
  std::string why;
  const bool uring = io::make_uring_loop({16, 16}, why) != nullptr;
  fmt::print("radiotower-relay {}\n", RADIOTOWER_VERSION);
  fmt::print("compiled in: liburing {}.{}, {}, libsystemd {}\n", IO_URING_VERSION_MAJOR, IO_URING_VERSION_MINOR,
             OpenSSL_version(OPENSSL_VERSION), notify::available() ? "yes" : "no");
  fmt::print("found now: {} {}, io_uring {}\n", kernel.sysname, kernel.release, uring ? "works" : "does not work: " + why + "; epoll is used");
}

Priority level_of(const std::string& name) {
  if (name == "error") return Priority::error;
  if (name == "warning") return Priority::warning;
  if (name == "notice") return Priority::notice;
  return name == "debug" ? Priority::debug : Priority::info;
}

std::string first_of(const ConfigErrors& errors) {
  return errors.size() == 1 ? errors[0].text() : fmt::format("{} (and {} more)", errors[0].text(), errors.size() - 1);
}

int run(const Flags& flags) {
  Config config;
  ConfigErrors errors;
  const bool readable = read_config(flags, config, errors);
  if (readable && flags.mode == Mode::print_config) {
    fmt::print("{}", print_config(config));
    return 0;
  }
  std::optional<Built> built;
  if (readable) built = build_settings(config, io::host_addresses(), errors);
  if (!built) {
    print_errors(errors);
    fmt::print(stderr, "radiotower-relay: not started: {} mistake{} in the configuration\n", errors.size(), errors.size() == 1 ? "" : "s");
    return 1;
  }
  if (flags.mode == Mode::check) {
    for (const auto& note : built->notes) fmt::print("note: {}\n", note);
    fmt::print("the configuration is good\n");
    return 0;
  }

  forbid_core_dumps();
  Control::block_signals();
  Log::Options log_options;
  log_options.format = config.log_format == "json" ? LogFormat::json : LogFormat::text;
  log_options.level = level_of(config.log_level);
  Log log(log_options);
  for (const auto& note : built->notes) log.write(Priority::warning, "note", note);

  RelayPlan plan;
  plan.version = RADIOTOWER_VERSION;
  plan.backend = config.backend == "epoll" ? Backend::epoll : config.backend == "io_uring" ? Backend::io_uring : Backend::automatic;
  plan.workers = config.workers;
  plan.listeners = built->listeners;

  // A reload reads the same file and flags again. What is fixed for the life of the process is compared by Relay::apply.
  const auto reload = [&flags, &log](std::string& why) -> std::shared_ptr<const turn::Settings> {
    Config next;
    ConfigErrors wrong;
    std::optional<Built> again;
    if (read_config(flags, next, wrong)) again = build_settings(next, io::host_addresses(), wrong);
    if (!again) {
      why = first_of(wrong);
      return nullptr;
    }
    log.set_level(level_of(next.log_level));
    return again->settings;
  };
  Control control(std::move(plan), built->settings, reload, log);
  const int status = control.run();
  log.close(milliseconds(300));
  return status;
}

}  // namespace

int main(int argc, char** argv) {
  int status = 0;
  const auto flags = parse_flags(argc, argv, status);
  if (!flags) return status;
  if (flags->mode == Mode::version) {
    print_version();
    return 0;
  }
  try {
    return run(*flags);
  } catch (const std::exception& e) {
    fmt::print(stderr, "radiotower-relay: not started: {}\n", e.what());
    return 1;
  }
}
