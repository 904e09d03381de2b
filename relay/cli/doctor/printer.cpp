#include "printer.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "../printable.h"
#include "../json.h"

namespace radiotower::cli {

namespace {

const char* colour_of(Severity severity) {
  switch (severity) {
    case Severity::good: return "32";
    case Severity::unknown: return "2";
    case Severity::note: return "36";
    case Severity::warning: return "33";
    case Severity::fault: return "1;31";
  }
  return "0";
}

std::string counted(std::size_t number, std::string_view word) { return fmt::format("{} {}{}", number, word, number == 1 ? "" : "s"); }

}  // namespace

std::string_view name(Severity severity) {
  switch (severity) {
    case Severity::good: return "good";
    case Severity::unknown: return "unknown";
    case Severity::note: return "note";
    case Severity::warning: return "warning";
    case Severity::fault: return "fault";
  }
  return "";
}

bool may_colour() {
  const char* no_colour = std::getenv("NO_COLOR");
  const char* terminal = std::getenv("TERM");
  return isatty(STDOUT_FILENO) == 1 && (!no_colour || !*no_colour) && terminal && std::string_view(terminal) != "dumb";
}

std::string Printer::painted(std::string_view text, const char* code) const {
  return options_.colour ? fmt::format("\033[{}m{}\033[0m", code, text) : std::string(text);
}

void Printer::group(std::string_view title) {
  end_group();
  group_ = title;
  group_is_printed_ = false;
}

void Printer::add(Finding finding) {
  all_.emplace_back(group_, finding);
  if (options_.json) return;
  if (!group_is_printed_) fmt::print("{}\n", painted(group_, "1"));
  group_is_printed_ = true;
  // What is looked at is always said: of two relays on a host, or of the file that somebody did not mean.
  if (finding.severity == Severity::good && !options_.verbose && finding.check != "configuration.file") {
    if (std::find(good_.begin(), good_.end(), finding.check) == good_.end()) good_.push_back(finding.check);
    return;
  }
  // A width in the arguments: GCC 12 sees an overflow in that which is not there.
  const std::string blanks(9 - name(finding.severity).size(), ' ');
  fmt::print("  {}{}{}", painted(name(finding.severity), colour_of(finding.severity)), blanks, printable(finding.sentence));
  fmt::print("{}\n", options_.verbose ? painted(fmt::format("  [{}]", finding.check), "2") : "");
  if (!finding.key.empty()) fmt::print("           where: {}\n", printable(finding.key));
  if (!finding.mend.empty()) fmt::print("           mend:  {}\n", printable(finding.mend));
  std::fflush(stdout);  // some checks wait for an answer
}

void Printer::end_group() {
  if (good_.empty()) return;
  fmt::print("  {}     {}\n", painted("good", colour_of(Severity::good)), fmt::join(good_, ", "));
  good_.clear();
}

int Printer::end() {
  end_group();
  std::size_t count[5] = {};
  std::string words;
  for (const Severity severity : {Severity::fault, Severity::warning}) {
    for (const auto& [group, finding] : all_) {
      if (finding.severity != severity || words.find(finding.check) != std::string::npos) continue;
      words += (words.empty() ? "" : ", ") + finding.check;
    }
  }
  for (const auto& [group, finding] : all_) ++count[static_cast<std::size_t>(finding.severity)];
  const auto of = [&](Severity severity) { return count[static_cast<std::size_t>(severity)]; };
  const std::size_t faults = of(Severity::fault), warnings = of(Severity::warning);
  const int status = faults ? has_faults : warnings ? has_warnings : all_good;
  if (options_.json) {
    std::string list;
    for (const auto& [group, f] : all_)
      list += fmt::format("{}\n    {{\"group\": {}, \"check\": {}, \"severity\": {}, \"sentence\": {}, \"mend\": {}, \"key\": {}}}",
                          list.empty() ? "" : ",",
                          json_string(group), json_string(f.check), json_string(name(f.severity)), json_string(f.sentence), json_string(f.mend), json_string(f.key));
    fmt::print("{{\n  \"ok\": {}, \"faults\": {}, \"warnings\": {}, \"notes\": {}, \"unknown\": {}, \"good\": {},\n  \"findings\": [{}\n  ]\n}}\n",
               status == all_good,
               faults, warnings, of(Severity::note), of(Severity::unknown), of(Severity::good), list);
    return status;
  }
  std::string last;
  if (faults) last = counted(faults, "fault");
  if (warnings) last += (last.empty() ? "" : ", ") + counted(warnings, "warning");
  if (last.empty()) last = "no fault, no warning: " + counted(of(Severity::good), "check") + " good";
  else last += ": " + words;
  if (of(Severity::unknown)) last += fmt::format(" ({} could not be looked at)", of(Severity::unknown));
  fmt::print("{}\n", painted(last, colour_of(faults ? Severity::fault : warnings ? Severity::warning : Severity::good)));
  return status;
}

}  // namespace radiotower::cli
