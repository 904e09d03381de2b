// Checks of single values that more than one file of the configuration makes, and how values are written. Private to the daemon.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>

#include "config.h"
#include "radiotower/service/toml.h"

namespace radiotower::daemon {

/// A value on its way into a Config, with the words for its place.
struct Place {
  std::string where;
  std::string key;
  ConfigErrors& errors;
  bool wrong(std::string what, std::string hint) const {
    errors.push_back({where, key, std::move(what), std::move(hint)});
    return false;
  }
};

// Each says what is wrong with a text, or with one entry of a list, and returns false; otherwise leaves in `spelling` the one spelling
// that all equal entries share, so that a listener that is given twice is seen however it is written.
bool check_realm(const std::string& value, const Place& place, std::string& spelling);
bool check_listener(const std::string& value, const Place& place, std::string& spelling);
bool check_origin(const std::string& value, const Place& place, std::string& spelling);
bool check_redirect_server(const std::string& value, const Place& place, std::string& spelling);
bool check_redirect_when(const std::string& value, const Place& place, std::string& spelling);
bool check_domain(const std::string& value, const Place& place, std::string& spelling);       // empty: none
bool check_server_name(const std::string& value, const Place& place, std::string& spelling);  // likewise

/// The table "realms": one table a realm. Mistakes of single values; what realms have to do with each other is found when settings are built.
void read_realms(const toml::table& table, const std::string& path, Config& config, ConfigErrors& errors);
/// As TOML that could be read again; empty when there is no realm but the default one.
std::string print_realms(const Config& config);

bool one_of(const std::string& value, std::initializer_list<std::string_view> words, const Place& place);
std::string toml_text(std::string_view text);  // a TOML basic string

}  // namespace radiotower::daemon
