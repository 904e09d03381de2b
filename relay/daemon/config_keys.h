// The table of keys: where each lives in a Config, what is checked of its value, and whether a reload changes it. Private to the daemon's
// configuration. A new key is a row here, and one in docs/configuration.md.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "config.h"
#include "config_checks.h"

namespace radiotower::daemon {

/// Where the value of a key lives.
struct File {
  std::string* path;
};
struct Ports {
  std::uint16_t* first;
  std::uint16_t* last;
};
using Slot = std::variant<std::string*, File, Ports, char*, std::vector<Text>*, bool*, std::uint32_t*,
                          std::uint64_t*, Xdp*>;

using Check = bool (*)(const std::string& value, const Place& place, std::string& spelling);  // see config_checks.h

/// One row a key: the file, the flags, the hints for misspelt keys, the reload and --print-config all go by this table.
struct Key {
  std::string_view name;  // with its table: "listen.udp"
  Slot (*slot)(Config&);
  Check check = nullptr;
  bool reloads = true;  // false: fixed for the life of the process
  std::uint64_t largest = std::numeric_limits<std::uint32_t>::max();
};

/// In the order of the manual.
std::span<const Key> config_keys();

}  // namespace radiotower::daemon
