// turnserver.conf, read as coturn reads it, oddities included: what coturn did not understand must not come to life in the translation.
// Pure: text in, lines out.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace radiotower::cli {

/// One line that says something. `key` may be anything; whether it is an option is another question.
struct ConfLine {
  int number = 0;     // in the file, from 1
  std::string key;    // up to the first blank, tab or '='
  std::string value;  // behind any run of those, without quotes round it; empty: none
  bool byte_order_mark = false;  // in front of the key (and not part of it here): coturn knows no such option then
  bool cut = false;              // longer than coturn's buffer: the rest stands as a line of its own behind it
  bool rest = false;             // such a rest
  bool semicolon = false;        // ends with one, which is part of the value
};

/// Lines of 1023 bytes at most, of which the blanks at both ends and whatever is behind a NUL do not count; '#' begins a comment at the start of a line
/// alone. CR LF and a missing end of the last line are fine.
std::vector<ConfLine> read_turnserver_conf(std::string_view text);

/// The value of a switch: nothing means yes; 0, n.., f.., off; 1-9, y.., t.., on. False: coturn ends at such a value.
bool read_switch(std::string_view value, bool& out);

/// atoi(3): the digits that the value begins with, a sign before them; 0 without. `whole` says whether that was all of it.
long long leading_number(std::string_view value, bool& whole);

}  // namespace radiotower::cli
