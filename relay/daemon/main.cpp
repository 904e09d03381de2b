// radiotower-relay: the configuration in, a relay until a signal ends it. Exit status: 0 good, 1 bad configuration or no start.
#include <openssl/crypto.h>
#include <sys/utsname.h>

#include <atomic>
#include <cstdio>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "address_watch.h"
#include "config.h"
#include "control.h"
#include "flags.h"
#include "privileges.h"
#include "radiotower/io/loop.h"
#include "radiotower/io/socket.h"
#include "radiotower/service/inherited.h"
#include "radiotower/service/log.h"
#include "radiotower/service/notify.h"
#include "radiotower/service/process.h"
#include "settings_builder.h"

namespace radiotower::daemon {

namespace {

constexpr const char* version = RADIOTOWER_VERSION;
constexpr milliseconds external_patience{5000};  // at the start, for what relay.external asks of the DNS or of a STUN server

Backend backend_of(const Config& config) {
  if (config.backend == "io_uring") return Backend::io_uring;
  return config.backend == "epoll" ? Backend::epoll : Backend::automatic;
}

Priority priority_of(const Config& config) {
  if (config.log_level == "error") return Priority::error;
  if (config.log_level == "warning") return Priority::warning;
  if (config.log_level == "notice") return Priority::notice;
  return config.log_level == "debug" ? Priority::debug : Priority::info;
}

LogFormat format_of(const Config& config) { return config.log_format == "json" ? LogFormat::json : LogFormat::text; }

/// Before there is a log, and for the modes that need none.
int complain(const ConfigErrors& errors, bool to_start = false) {
  const char* prefix = is_journal(2) ? "<3>" : "";
  for (const auto& error : errors) fmt::print(stderr, "{}{}\n", prefix, error.text());
  fmt::print(stderr, "{}radiotower-relay: {}{} mistake{} in the configuration\n", prefix, to_start ? "not started: " : "", errors.size(), errors.size() == 1 ? "" : "s");
  return 1;
}

int print_version() {
  utsname kernel{};
  uname(&kernel);
  std::string why;
  const bool uring = io::make_uring_loop({64, 64}, why) != nullptr;
  fmt::print("radiotower-relay {}\n", version);
  fmt::print("compiled in: liburing {}, {}, libsystemd {}\n", RADIOTOWER_LIBURING_VERSION,
             OpenSSL_version(OPENSSL_VERSION), notify::available() ? "yes" : "no (no readiness notice, no watchdog)");
  fmt::print("offload (XDP): {}\n", offload::compiled_in());
  fmt::print("found now: {} {}, io_uring {}\n", kernel.sysname, kernel.release, uring ? std::string("works") : fmt::format("does not work: {}; epoll is used", why));
  return 0;
}

int check(const Config& config) {
  ConfigErrors errors;
  const auto built = build_settings(config, io::host_addresses(), errors);
  if (!built) return complain(errors);
  for (const auto& note : built->notes) fmt::print("note: {}\n", note);
  fmt::print("the configuration is good\n");
  return 0;
}

/// The settings, or nullopt once every mistake stands in the log.
std::optional<Built> build(const Config& config, const std::vector<io::HostAddress>& host, Log& log) {
  ConfigErrors errors;
  auto built = build_settings(config, host, errors);
  for (const auto& error : errors) log.write(Priority::error, "configuration", error.text());
  if (built)
    for (const auto& note : built->notes) log.write(Priority::warning, "configuration", note);
  return built;
}

/// What a .socket unit has opened, said where it is of no use.
std::vector<std::shared_ptr<const io::BoundSocket>> inherited_sockets(std::vector<InheritedDescriptor> descriptors, Log& log) {
  std::vector<std::shared_ptr<const io::BoundSocket>> sockets;
  for (const auto& [descriptor, name] : descriptors) {
    std::string why;
    if (auto bound = io::take_bound(descriptor, why)) sockets.push_back(std::make_shared<const io::BoundSocket>(std::move(*bound)));
    else log.write(Priority::warning, "socket not used", fmt::format("descriptor {} of the service manager {}", descriptor, why), {Field::if_any("name", std::string_view(name))});
  }
  return sockets;
}

int run(const Flags& flags, const Config& config, std::vector<InheritedDescriptor> descriptors) {
  // Capabilities are a thread's own, and the log's exists before the offload that they are for: see privileges.h.
  const auto give_up = [] {
    std::string why;
    drop_offload_capabilities(why);
  };
  Log log({format_of(config), priority_of(config), 2, 1024, give_up});
  forbid_core_dumps();  // before the first secret is read
  const auto host = io::host_addresses();
  auto built = build(config, host, log);
  if (!built) {
    log.write(Priority::error, "not started", "the configuration has mistakes, named above");
    return 1;
  }

  std::atomic<Control*> awake{nullptr};
  FollowedAddresses addresses(log, [&awake] {
    if (Control* const control = awake.load()) control->wake();
  });
  addresses.adopt(config, *built, host);
  addresses.wait_for_answers(external_patience, *built);
  // What is in force: a reload says what it changes of that.
  struct InForce {
    Config config;
    FileFacts facts;
  } in_force{config, built->facts};
  const auto reload = [&](ReloadResult& result) -> std::optional<NextSettings> {
    Config next;
    ConfigErrors errors;
    const bool read = read_config(flags, next, errors);
    const auto host_now = io::host_addresses();
    auto anew = read ? build_settings(next, host_now, errors, addresses.answers()) : std::nullopt;
    for (const auto& error : errors) {
      result.errors.push_back(error.text());
      log.write(Priority::error, "configuration", error.text());
    }
    if (!anew) return std::nullopt;
    result.needs_restart = changes_that_wait(config, next);
    result.changes = changes_of(in_force.config, next);
    for (auto& change : in_force.facts.changes_to(anew->facts)) result.changes.push_back(std::move(change));
    result.notes = anew->notes;
    const auto taken = [&log, &in_force, &addresses, next, built = *anew, host_now] {
      for (const auto& note : built.notes) log.write(Priority::warning, "configuration", note);
      log.set_level(priority_of(next));
      log.set_format(format_of(next));
      in_force = {next, built.facts};
      addresses.adopt(next, built, host_now);
    };
    return NextSettings{anew->settings, anew->connections, anew->listeners, anew->dtls, anew->tcp, anew->tls, operator_settings(next), taken};
  };
  RelayPlan plan;
  plan.version = version;
  plan.backend = backend_of(config);
  plan.gather = microseconds(config.gather_microseconds);
  plan.workers = config.workers;
  plan.listeners = built->listeners;
  plan.dtls = built->dtls;
  plan.tcp = built->tcp;
  plan.tls = built->tls;
  plan.operators = operator_settings(config);
  plan.offload = offload_settings(config);
  plan.inherited = inherited_sockets(std::move(descriptors), log);
  Control control(std::move(plan), built->settings, reload, log, built->connections);
  control.follow(addresses);
  struct Asleep {  // by an exception too: before `control` goes, nobody wakes it any more
    FollowedAddresses& addresses;
    ~Asleep() { addresses.close(); }
  } const asleep{addresses};
  awake = &control;
  return control.run();
}

}  // namespace

}  // namespace radiotower::daemon

int main(int argc, char** argv) {
  using namespace radiotower;
  using namespace radiotower::daemon;
  try {
    int status = 0;
    const auto flags = parse_flags(argc, argv, status);
    if (!flags) return status;
    if (flags->mode == Mode::version) return print_version();
    Config config;
    ConfigErrors errors;
    if (!read_config(*flags, config, errors)) return complain(errors, flags->mode == Mode::run);
    switch (flags->mode) {
      case Mode::print_config: fmt::print("{}{}", print_config(config), print_on_host(config, radiotower::io::host_addresses())); return 0;
      case Mode::check: return check(config);
      case Mode::version:
      case Mode::run: break;
    }
    Control::block_signals();  // before the log's thread, the first one
    return run(*flags, config, take_inherited_descriptors());
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}radiotower-relay: {}\n", is_journal(2) ? "<3>" : "", error.what());
    return 1;
  }
}
