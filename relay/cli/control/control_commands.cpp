#include <CLI/CLI.hpp>

#include "../commands.h"

namespace radiotower::cli {

void add_control_commands(CLI::App&, Run&) {}

}  // namespace radiotower::cli
