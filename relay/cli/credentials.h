// Credentials of the TURN REST scheme (coturn's use-auth-secret, Mattermost Calls), and the configuration of those who use them.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "radiotower/base/time.h"
#include "url.h"

namespace radiotower::cli {

struct Credential {
  std::string username;
  std::string password;
};

/// User name "<expiry>:<user>", password base64(HMAC-SHA1(secret, user name)).
Credential make_rest_credential(std::string_view secret, std::string_view user, UnixSeconds expiry);

/// The expiry of a REST user name; nullopt when it is none ("alice", "12x:alice").
std::optional<UnixSeconds> rest_expiry(std::string_view username);

/// True when the name can travel in USERNAME (RFC 8489, 14.3: less than 509 bytes, and here no control characters);
/// else `why` gets a sentence.
bool username_is_sound(std::string_view username, std::string& why);

/// What a browser's RTCPeerConnection takes as `iceServers`: an array of RTCIceServer. `turn`: see turn_urls().
std::string ice_servers_json(const HostPort& server, const std::vector<std::string>& turn, const Credential& credential);

/// The value of Mattermost Calls' setting `iceserversconfigs`. Each entry holds only stun: or only turn: URLs, a mixed one makes the
/// whole setting invalid. No user name stands in it: Calls makes a fresh one for every session from `turnstaticauthsecret`, while an
/// entry with one goes to the clients as it is, and would stop working at its expiry.
std::string calls_ice_servers_json(const HostPort& server, const std::vector<std::string>& turn);

/// A file of at most 1 MiB, "-" for standard input. nullopt and a sentence in `why` otherwise. `warning` gets a sentence when others may read it.
std::optional<std::string> read_small_file(const std::string& path, std::string& why, std::string& warning);

/// The first secret of a file as the relay reads it (one a line; empty lines and lines that begin with # do not count), "-" for
/// standard input. nullopt and a sentence in `why` when there is none. `warning` gets a sentence when others may read the file.
std::optional<std::string> read_secret(const std::string& path, std::string& why, std::string& warning);
/// The same from text.
std::optional<std::string> first_secret(std::string_view text);

/// The word of an example that somebody has forgotten to change: "changeme", "north" ... Anybody can guess such a secret. Empty: none is in it.
std::string_view placeholder_of(std::string_view secret);

/// The first line of a file, or of standard input for "-": a password.
std::optional<std::string> read_password(const std::string& path, std::string& why, std::string& warning);

}  // namespace radiotower::cli
