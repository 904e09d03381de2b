#include <CLI/CLI.hpp>

#include "../commands.h"

namespace radiotower::cli {

void add_migrate_command(CLI::App&, Run&) {}

}  // namespace radiotower::cli
