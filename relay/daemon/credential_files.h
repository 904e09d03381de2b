// The files of [credentials] and of realms: secrets and users, one a line. Every mistake is reported with its line, and none shows a secret.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "radiotower/service/configuration.h"
#include "radiotower/turn/directory.h"

namespace radiotower::daemon {

inline constexpr const char* make_a_secret = "head -c 32 /dev/urandom | base64";  // for hints

/// One secret a line; empty lines and lines that begin with # are skipped.
std::vector<std::string> read_secrets(const std::string& path, std::string_view key, ConfigErrors& errors);
/// "name:password" or "name:0xkey" a line, and behind blanks allocations=N and bytes_per_second=N.
std::vector<turn::User> read_users(const std::string& path, std::string_view key, ConfigErrors& errors);

}  // namespace radiotower::daemon
