// From notifier.toml to Settings. A bad configuration never starts: every mistake is reported with file, line, key and
// a hint. Reads the files that it names (secrets, hook, token, certificates' presence); touches no network.
// docs/notifier.md is the manual of the keys.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "notifier/settings.h"
#include "radiotower/service/configuration.h"

namespace radiotower::notifier {

/// False: `errors` has grown. A file name that is not absolute is looked for in $CREDENTIALS_DIRECTORY (systemd's
/// LoadCredential=) and then beside the configuration file. `notes`: what an operator should know, as sentences.
bool read_settings(const std::string& path, Settings& settings, ConfigErrors& errors, std::vector<std::string>& notes);
/// The same of text, for tests and the embedded defaults; `path` names it and is what relative files are relative to.
bool read_settings_text(std::string_view text, const std::string& path, Settings& settings, ConfigErrors& errors,
                        std::vector<std::string>& notes);

/// "alerts", or "@ada" for a direct message: what may stand as route.channel.
bool is_channel_name(std::string_view channel);
inline constexpr const char* channel_name_in_short =
    "lower-case letters, digits, - and _: \"alerts\", or \"@user\"; it is in the channel's link, not in its title";
/// "#alerts", or "@ada".
std::string channel_as_shown(std::string_view channel);

/// Keys that differ and that a reload cannot change.
std::vector<std::string> keys_that_need_a_restart(const Settings& running, const Settings& next);

}  // namespace radiotower::notifier
