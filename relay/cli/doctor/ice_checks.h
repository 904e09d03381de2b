// The end-to-end part of `radiotower doctor`: a list of ICE servers as clients get it, read for the traps that are known, and each URL of it used
// as a browser would: resolve, connect, TLS, Allocate, permission, packets there and back.
//
// Needs no relay on this host and no rights: it is for a laptop where phones are, too. Changes nothing; every allocation is given back.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "../client.h"
#include "../ice_document.h"
#include "../url.h"
#include "finding.h"

namespace radiotower::cli {

struct IceQuestion {
  std::string text;                                  // the list, JSON
  std::optional<std::string> secret;                 // of --secret-file, for TURN entries without user name
  std::optional<net::TransportAddress> media_server;
  std::string ca_file;                               // the CA that phones trust, PEM; empty: those that this host trusts
  std::chrono::milliseconds timeout{3000};           // of a connection, and of a request
  UnixSeconds now = 0;
  std::string hosts;                                 // what /etc/hosts says: names that phones do not know
};

/// One URL that is worth a try.
struct IceTarget {
  Url url;
  std::string text;       // as it was written, fit to print
  Credential credential;  // empty: there is none, so nothing can be allocated
  bool made = false;      // by a secret, as Calls does
  bool by_setting = false;  // by turnstaticauthsecret, which phones get theirs from

  bool is_turn() const { return url.scheme == Scheme::turn || url.scheme == Scheme::turns; }
};

/// All of it, in groups: the list, then one for each URL.
void check_ice(const IceQuestion& question, Findings& findings);

// Parts of it, for tests.

/// What can be told without sending anything. `question.media_server` is filled in from the settings of Calls where it is not given.
std::vector<IceTarget> check_ice_list(const IceDocument& document, IceQuestion& question, Findings& findings);
/// Uses one URL.
void check_ice_server(const IceTarget& target, const IceQuestion& question, Findings& findings);

/// What an error answer means: the word of its check, a sentence for what happened, and what to do.
struct ErrorMeaning {
  const char* check;
  const char* sentence;
  const char* mend;
};
/// Every code that a STUN or TURN server is known to send (RFC 8489, 18.3; RFC 8656, 19.3; RFC 6062; RFC 8445), and something for all others.
ErrorMeaning meaning_of(std::uint16_t code);

/// Whether somebody's /etc/hosts has this name.
bool is_in_hosts(std::string_view hosts, std::string_view name);

}  // namespace radiotower::cli
