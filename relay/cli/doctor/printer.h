// How findings reach the reader: as lines while they are made, or as one JSON object at the end.
#pragma once

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "finding.h"

namespace radiotower::cli {

/// Exit codes of `radiotower doctor`. 2 is, as with every command, a wrong command line.
inline constexpr int all_good = 0, has_faults = 1, has_warnings = 3;

class Printer final : public Findings {
 public:
  struct Options {
    bool json = false;
    bool verbose = false;  // a line for each good check too, and the word that --json has for each
    bool colour = false;
  };
  explicit Printer(Options options) : options_(options) {}

  void add(Finding finding) override;
  void group(std::string_view title) override;
  /// Prints the last line, or the JSON. Returns the exit code: faults before warnings; notes and what is unknown are no matter.
  int end();

 private:
  void end_group();
  std::string painted(std::string_view text, const char* code) const;

  Options options_;
  std::string group_;
  bool group_is_printed_ = false;
  std::vector<std::string> good_;  // of this group, not printed yet
  std::vector<std::pair<std::string, Finding>> all_;  // with its group
};

/// Whether lines on standard output may be coloured: a terminal, and neither NO_COLOR nor TERM=dumb (no-color.org).
bool may_colour();

}  // namespace radiotower::cli
