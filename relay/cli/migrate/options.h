// Every option that a turnserver.conf may hold, today's and those of old guides, and what becomes of each: the one source of the verdicts,
// of `radiotower migrate --options` and of the table in docs/coming-from-coturn.md.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace radiotower::cli {

enum class Verdict : std::uint8_t {
  used,     // what it asks for holds, with no key needed
  mapped,   // became one or more keys of relay.toml, or a line of one of its files
  ignored,  // has no effect here, and none is missed
  refused,  // what it asks for does not hold here, and the operator has to know
  unknown,  // no option of coturn's, which only logs a warning about it
};
std::string_view name(Verdict verdict);

struct Option {
  enum class Takes : std::uint8_t { value, maybe, repeated, on_off, presence };  // maybe: a value or none; presence: on, whatever value stands there
  std::string_view name;
  Takes takes;
  Verdict verdict;  // as a rule; a line's own verdict may be another one, with its reason
  std::string_view keys;  // of relay.toml, with ", " between them; empty: none
  std::string_view says;  // one sentence without full stop
  bool protects = false;  // whether somebody relies on it for security: a misspelt one is shouted about
  bool secret = false;    // its value is not shown
};

/// In the order of the documentation.
std::span<const Option> coturn_options();
const Option* find_option(std::string_view name);

/// The option that a misspelt key may have meant; nullptr: none is near. Letters' case, '_' for '-' and "--" in front do not matter.
const Option* nearest_option(std::string_view key);

/// The options as rows of a Markdown table.
std::string options_as_markdown();

}  // namespace radiotower::cli
