// Why a relay takes a user name and password, or does not: the checks that it makes itself, and behind them the mistakes that people make.
// Pure: the contents of the files and the time come in as values.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "radiotower/base/time.h"

namespace radiotower::cli {

struct KnownSecret {
  std::string text;
  std::string place;  // "line 2 of secrets"
};
struct KnownUser {
  std::string name;
  std::string password;  // or "0x..." , a key
  std::string place;
};

struct ExplainInput {
  std::string username, password;
  std::vector<KnownSecret> secrets;
  std::vector<KnownUser> users;
  std::string realm = "radiotower";
  std::vector<std::string> other_realms;  // that a key may have been made for by mistake
  char separator = ':';
  UnixSeconds now = 0;
};

struct Explanation {
  bool valid = false;
  std::string kind;      // "time-limited", "user with a password", "unknown"
  std::string user;      // the user part of a time-limited name
  std::optional<UnixSeconds> expiry;
  std::string secret;    // the place of the secret that made the password; empty: none did
  std::vector<std::string> facts;  // what is found, in sentences without full stop
  std::string verdict;   // one sentence
  std::vector<std::string> advice;
};

Explanation explain_credential(const ExplainInput& input);

/// Secrets and users of a file's text, as the relay reads it; `name` is for the place.
std::vector<KnownSecret> secrets_of(std::string_view text, std::string_view name);
std::vector<KnownUser> users_of(std::string_view text, std::string_view name);

/// "3 days 4 hours", "12 minutes": the two largest units.
std::string duration_text(std::int64_t seconds);

}  // namespace radiotower::cli
