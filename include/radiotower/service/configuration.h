// What every service of this project does with its configuration: mistakes with a place and a hint, files read whole, files of secrets.
// Owns nothing; no call waits. May not know: which keys there are.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace radiotower {

/// One mistake. `where` is "relay.toml:12", or "--ports", or the name of a secrets or users file with its line.
struct ConfigError {
  std::string where;
  std::string key;  // empty only where no key can be blamed: a file that is not TOML or cannot be read
  std::string what;
  std::string hint;
  std::string text() const;  // "relay.toml:12: listen.udp: port 70000 is out of range 1-65535 (hint: ...)"
};
using ConfigErrors = std::vector<ConfigError>;

/// A regular file in one piece. nullopt and a sentence in `why`; never waits, so a pipe under that name cannot hold up a reload.
struct FileText {
  std::string text;
  unsigned mode = 0;  // permission bits
};
std::optional<FileText> read_file(const std::string& path, std::size_t limit, std::string& why);

/// Calls `line(text, number)` for each line of a file of secrets that says something: not empty, no # in front, without the blanks round it.
/// A file that others may read or change is a mistake in `errors`, as is one that cannot be read.
void for_each_secret_line(const std::string& path, std::string_view key, ConfigErrors& errors,
                          const std::function<void(std::string_view, int)>& line);

/// How many letters must be changed, put in or taken out to make one word of the other (Levenshtein): for "did you mean".
std::size_t edit_distance(std::string_view a, std::string_view b);

}  // namespace radiotower
