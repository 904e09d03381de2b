#include <CLI/CLI.hpp>

#include "../commands.h"

namespace radiotower::cli {

void add_doctor_command(CLI::App&, Run&) {}

}  // namespace radiotower::cli
