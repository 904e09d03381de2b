#include <CLI/CLI.hpp>

#include "../commands.h"

namespace radiotower::cli {

void add_certificate_command(CLI::App&, Run&) {}

}  // namespace radiotower::cli
