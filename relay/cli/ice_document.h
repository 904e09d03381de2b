// A list of ICE servers as somebody wrote it: a browser's iceServers, the setting of Mattermost Calls, that of rtcd, or a whole config.json. Pure.
// Nothing is judged here beyond what cannot be read: `radiotower page` refuses a list with a mistake, `radiotower doctor` explains each.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace radiotower::cli {

struct IceEntry {
  std::vector<std::string> urls;       // as they were written, in their order
  std::string username, credential;    // empty: there is none
  bool misspelt = false;               // it has "credentials", which nobody looks at, and no "credential"
  std::string wrong;                   // why it is no entry at all, a sentence without full stop; empty: it is one
};

/// What stands beside the list in the settings of Calls.
struct CallsSettings {
  std::optional<std::string> secret;         // turnstaticauthsecret
  std::optional<std::int64_t> minutes;       // turncredentialsexpirationminutes
  std::optional<std::int64_t> udp_port;      // udpserverport
  std::string host_override, rtcd_url;       // icehostoverride, rtcdserviceurl
};

struct IceDocument {
  enum class Form : std::uint8_t {
    list,   // an array alone, or a browser's configuration: whose it is cannot be told
    calls,  // it stands in iceserversconfigs: entries without user name get one from Calls
    rtcd,   // ice_servers
  };
  Form form = Form::list;
  std::vector<IceEntry> entries;
  std::optional<CallsSettings> settings;  // where the document has more of Calls' settings than the list
};

/// Takes an array of RTCIceServer, an object that holds one as `iceServers`, `ice_servers` or `iceserversconfigs`, and a whole config.json of
/// Mattermost; the list may stand in a string, as it does there. nullopt, and a sentence in `why`, when there is no list in it.
std::optional<IceDocument> read_ice_document(std::string_view json, std::string& why);

/// Fit for a terminal: printable ASCII, at most 200 characters of it; anything else becomes '?'.
std::string shown(std::string_view text);

}  // namespace radiotower::cli
