// The list of ICE servers that a page is to test, from what operators have at hand: a browser's iceServers, or the setting of Mattermost Calls. Pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "../url.h"

namespace radiotower::cli::page {

/// One URL of one ICE server: what is tested by itself.
struct Target {
  Url url;
  std::string text;  // of the URL as it was written, since browsers are told exactly that
  std::string username, credential;

  bool is_turn() const { return url.scheme == Scheme::turn || url.scheme == Scheme::turns; }
};

inline constexpr std::size_t max_targets = 16;  // more would take a phone minutes

/// Takes an array of RTCIceServer, an object that holds one as `iceServers`, `ice_servers` or `iceserversconfigs`, and a whole config.json of
/// Mattermost; the list may stand in a string, as it does there. URLs that no browser takes are left out, with a sentence in `notes`.
/// nullopt, and a sentence in `why`, when there is nothing to test. TURN entries may come without user name, see lacks_credential().
std::optional<std::vector<Target>> read_ice_list(std::string_view json, std::vector<std::string>& notes, std::string& why);

/// Whether any TURN entry has none: it then gets one made from the relay's secret.
bool lacks_credential(const std::vector<Target>& targets);

}  // namespace radiotower::cli::page
