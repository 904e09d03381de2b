// The command line of radiotower-relay: what it overrides, and the modes that do not run a relay.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "config.h"

namespace radiotower::daemon {

enum class Mode : std::uint8_t { run, check, print_config, version };

struct Flags {
  Mode mode = Mode::run;
  std::string config_file;  // empty: the embedded defaults
  struct Override {
    std::string flag;  // "--ports"
    std::string key;   // "relay.ports"
    std::vector<std::string> values;
  };
  std::vector<Override> overrides;
};

/// nullopt: help was printed or the line was wrong and has been answered; the program exits with `status`. `answers`: false for the line of
/// another process, which anybody may have written: nothing is printed.
std::optional<Flags> parse_flags(int argc, const char* const* argv, int& status, bool answers = true);

/// The file, then the flags over it. False: `errors` has grown.
bool read_config(const Flags& flags, Config& config, ConfigErrors& errors);

}  // namespace radiotower::daemon
