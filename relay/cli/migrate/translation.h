// From the lines of a turnserver.conf and coturn's database to relay.toml and its files, with a verdict for every line. Pure: nothing is read or
// written here, and what it has to know of the host comes in as a value.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "database.h"
#include "options.h"
#include "radiotower/net/address.h"
#include "turnserver_conf.h"

namespace radiotower::cli {

struct LineVerdict {
  int line = 0;
  std::string option;  // as it stands in the file, escaped; never a value that may be secret
  Verdict verdict = Verdict::unknown;
  std::string keys;    // "listen.udp, listen.tcp"
  std::string says;    // one sentence without full stop
  bool alarm = false;  // somebody may rely on it for security
};

struct OutFile {
  std::string name;  // in the folder of the result
  std::string text;
};

/// What of the host the choice of relay addresses depends on.
struct HostFacts {
  std::vector<net::IpAddress> usable;               // neither loopback nor link-local nor temporary
  std::optional<net::IpAddress> route_v4, route_v6;  // the address that packets to the Internet would leave with
};

struct TranslationInput {
  std::vector<ConfLine> lines;
  std::string name = "turnserver.conf";  // for comments
  std::string folder;                    // of the file, for relative names in it
  const CoturnDatabase* database = nullptr;
  std::string database_name;
  bool keep_private_peers = false;  // --keep-private-peers
  HostFacts host;
  std::string fresh_secret;  // random, for a relay that needs one though nobody is ever asked for it
};

struct Translation {
  std::vector<LineVerdict> lines;
  std::vector<std::string> database;     // what became of it, in sentences
  std::vector<std::string> alarms;       // what an operator must not miss
  std::vector<std::string> differences;  // what will behave differently from coturn
  std::vector<OutFile> files;            // relay.toml first; all others are secret
  bool complete = true;                  // false: a line is unknown or refused, or there is an alarm
};

Translation translate(const TranslationInput& input);

}  // namespace radiotower::cli
