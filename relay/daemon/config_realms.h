// The tables [realms."NAME"], [redirect] and the keys of access tokens: made into settings of the protocol core.
// The keys are explained in docs/configuration.md.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "settings_builder.h"

namespace radiotower::daemon {

/// Fills in `realms`, `stun_only`, `redirect`, `draining` and `tokens`. `settings` has its limits, listeners and relay addresses already.
void build_realms_and_redirects(const Config& config, const std::vector<io::HostAddress>& host, turn::Settings& settings, Built& built, ConfigErrors& errors);

/// The same for other addresses of the host: what of them names listeners. Reads no file.
void rebuild_realms_and_redirects(const Config& config, const std::vector<io::HostAddress>& host, turn::Settings& settings, Built& built, ConfigErrors& errors);

/// Keys shared with an authorization server (RFC 7635, 4.1), one a line: a kid, the key in base64, and behind blanks A128GCM or A256GCM (the
/// default), timestamp=N and lifetime=N. As coturn does, a key may be longer than its algorithm takes: what is behind does not count.
std::vector<turn::TokenKey> read_token_keys(const std::string& path, std::string_view key, ConfigErrors& errors);

}  // namespace radiotower::daemon
