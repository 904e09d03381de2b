// The subcommands. Each registers its flags and says in `run` what to do once they are read; it returns the exit code:
// 0 good, 1 what was asked for failed, 2 it was asked for wrongly.
#pragma once

#include <functional>
#include <string>

namespace CLI {
class App;
}

namespace radiotower::cli {

using Run = std::function<int()>;

void add_certificate_command(CLI::App& app, Run& run);  // page/
void add_control_commands(CLI::App& app, Run& run);     // control/: sessions, kill, events, drain, reload, stats
void add_credentials_command(CLI::App& app, Run& run);
void add_doctor_command(CLI::App& app, Run& run);       // doctor/
void add_explain_command(CLI::App& credentials, Run& run);  // explain/: below `credentials`
void add_load_command(CLI::App& app, Run& run);
void add_migrate_command(CLI::App& app, Run& run);      // migrate/
void add_nat_command(CLI::App& app, Run& run);
void add_page_command(CLI::App& app, Run& run);         // page/
void add_stun_command(CLI::App& app, Run& run);
void add_turn_command(CLI::App& app, Run& run);

/// "radiotower: <text>" on standard error; returns 2.
int usage_error(const char* command, const std::string& text);
void warn(const std::string& text);

}  // namespace radiotower::cli
