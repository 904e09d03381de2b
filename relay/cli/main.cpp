#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>

#include "commands.h"
#include "help.h"
#include "radiotower/service/process.h"

namespace radiotower::cli {

int usage_error(const char* command, const std::string& text) {
  fmt::print(stderr, "radiotower {}: {}\n(radiotower {} --help shows how it is used)\n", command, text, command);
  return 2;
}

void warn(const std::string& text) { fmt::print(stderr, "warning: {}\n", text); }

}  // namespace radiotower::cli

int main(int argc, char** argv) {
  radiotower::forbid_core_dumps();  // nearly every command reads a secret or a key, or makes one
  std::signal(SIGPIPE, SIG_IGN);  // a server that hangs up is an answer, not our end
  CLI::App app("radiotower: tests STUN and TURN servers from where their clients stand, and looks after a radiotower-relay.", "radiotower");
  radiotower::cli::wrap_help(app);
  app.set_version_flag("--version", "radiotower " RADIOTOWER_VERSION);
  app.require_subcommand(1);
  app.footer("Examples:\n"
             "  radiotower stun tower.lan\n"
             "  radiotower turn turn:tower.lan:3478 --user test --secret-file secrets\n"
             "  radiotower nat tower.lan\n"
             "  radiotower load turn:tower.lan --user test --secret-file secrets --rate 10000\n"
             "  radiotower credentials --secret-file secrets --host tower.lan\n"
             "  sudo radiotower doctor --address 192.168.0.105\n"
             "  sudo radiotower sessions --watch\n"
             "  sudo radiotower migrate /etc/turnserver.conf --output radiotower-new\n"
             "Exit codes: 0 it works, 1 it does not, 2 the command line is wrong; doctor: 3 warnings alone.");
  radiotower::cli::Run run;
  radiotower::cli::add_stun_command(app, run);
  radiotower::cli::add_turn_command(app, run);
  radiotower::cli::add_nat_command(app, run);
  radiotower::cli::add_load_command(app, run);
  radiotower::cli::add_credentials_command(app, run);
  radiotower::cli::add_doctor_command(app, run);
  radiotower::cli::add_page_command(app, run);
  radiotower::cli::add_certificate_command(app, run);
  radiotower::cli::add_control_commands(app, run);
  radiotower::cli::add_migrate_command(app, run);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return radiotower::cli::parse_failed(app, error, argc > 1 ? argv[1] : nullptr);
  }
  return run();
}
