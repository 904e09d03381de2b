// The steps of translate(). Private to the translation.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "translation.h"

namespace radiotower::cli {

/// relay.toml in the making: keys in the order of the documentation's sections, each with a comment above it where one helps.
class TomlFile {
 public:
  void set(std::string_view key, std::string value, std::string comment = {});  // "listen.udp"; `value` is TOML already
  void comment(std::string_view section, std::string text);                     // lines of their own in a section
  bool has(std::string_view key) const;
  std::string text(std::string_view head) const;

 private:
  struct Entry {
    std::string key, value, comment;
  };
  std::map<std::string, std::vector<Entry>, std::less<>> sections_;
  std::vector<std::string> order_;
  std::vector<Entry>& section(std::string_view name);
};

std::string toml_list(const std::vector<std::string>& texts, bool one_line = false);
std::string toml_quoted(std::string_view text);
bool is_utf8(std::string_view text);
bool fits_realm(std::string_view text);

class Translator {
 public:
  explicit Translator(const TranslationInput& input);
  Translation run();

 private:
  // What the file says. A line that a later one overrides, or that coturn would not take, is not among them.
  bool given(std::string_view option) const { return !lines(option).empty(); }
  bool on(std::string_view option) const;                         // a switch that is given, and not off
  std::string value(std::string_view option) const;               // of the last one; empty: not given
  std::vector<std::size_t> lines(std::string_view option) const;  // indexes into out_.lines
  const std::string& value_of(std::size_t line) const { return input_.lines[line].value; }
  bool number(std::string_view option, long long least, long long most, long long& out);  // false: not given, or refused

  // What becomes of it.
  void judge(std::size_t line, Verdict verdict, std::string says, std::string keys = {});
  void judge_all(std::string_view option, Verdict verdict, const std::string& says, const std::string& keys = {});
  void alarm(std::string text);
  void differs(std::string text) { out_.differences.push_back(std::move(text)); }
  void note_database(std::string text) { out_.database.push_back(std::move(text)); }

  void first_look();  // a verdict for each line by the table alone
  void choose_realm();
  void listeners();  // translation_network.cpp, as the next ones
  std::vector<std::string> auxiliary();
  void discovery();
  void certificates();
  void relay_addresses();
  void external(const std::vector<std::string>& relays);
  void ports();
  void redirects();
  void metrics();
  void credentials();  // translation_access.cpp, as the next ones
  void secrets();
  void users();
  bool write_user(const std::string& name, const std::string& password, const std::string& realm, std::string& line, std::string& why) const;
  std::string database_users(const std::string& realm, const std::string& suffix);
  std::string limits_behind(long long allocations, long long bytes) const;
  void realms();
  void tokens();
  void peers();
  void rules_of_database(std::vector<net::AddressRange>& allowed, std::vector<net::AddressRange>& denied);
  void limits();
  void features();
  void log();
  void usual_differences();

  const TranslationInput& input_;
  Translation out_;
  TomlFile toml_;
  std::map<std::string, std::vector<std::size_t>, std::less<>> by_option_;
  std::string realm_;
  bool rest_ = false;                       // time-limited names alone, as coturn has it with a shared secret
  std::vector<std::string> secrets_;        // of the file
  std::vector<std::string> listen_;         // addresses, as toml has them: "0.0.0.0", "[::]"
  std::vector<std::string> all_listeners_;  // with ports, for stun_only
};

}  // namespace radiotower::cli
