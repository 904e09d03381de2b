// What --help prints, and what a command line that is wrong gets: for a terminal of 100 columns.
#pragma once

namespace CLI {
class App;
class ParseError;
}  // namespace CLI

namespace radiotower::cli {

/// Before the subcommands are added, which take it over: descriptions are wrapped.
void wrap_help(CLI::App& app);

/// Prints --help, --version, or on standard error what is wrong; returns 0 or 2. `first`: the first argument, or nullptr.
int parse_failed(const CLI::App& app, const CLI::ParseError& error, const char* first);

}  // namespace radiotower::cli
