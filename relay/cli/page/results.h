// What phones report: read strictly, kept per device, and told to the operator.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ice_list.h"

namespace radiotower::cli::page {

/// `unknown`: the browser does not tell; `skipped`: this browser never uses such a URL. Neither counts as a failure.
enum class State : std::uint8_t { ok, failed, unknown, skipped };

/// One URL, as one device found it. All texts are printable() already.
struct Result {
  std::string device;          // random, of one run of the page
  std::size_t index = 0;       // of the target
  State state = State::failed;
  std::string verdict;         // a word for programs: "works", "credentials", "certificate", ...
  std::string sentence;        // for people: what it means and what to do
  std::string address;         // the candidate's, empty when none came
  std::optional<double> gathered_ms;
  std::uint32_t echoed = 0;
  std::optional<double> round_trip_min_ms, round_trip_median_ms;
  std::optional<std::uint32_t> frames;
  std::uint32_t error_code = 0;  // of icecandidateerror; 0: none came
  std::string error_text;
};

/// nullopt, and why, for anything that the page does not send.
std::optional<Result> parse_result(std::string_view json, std::size_t targets, std::string& why);

/// Who reported: the address it came from and its short user agent.
struct Sender {
  std::string address, browser;
};

class Devices {
 public:
  static constexpr std::size_t most = 256;  // runs of the page; then 429
  explicit Devices(std::size_t targets) : targets_(targets) {}

  enum class Taken : std::uint8_t { fresh, completes, again, too_many };
  Taken take(const Result& result);

  struct Summary {
    unsigned ok = 0, failed = 0, unknown = 0, skipped = 0;
    bool good() const { return failed == 0 && ok > 0; }
  };
  Summary summary(const std::string& device) const;

 private:
  std::size_t targets_;
  std::map<std::string, std::map<std::size_t, State>> devices_;
};

/// Lines for a terminal, in colour or not, with an end of line each. What is not as it should be has its sentence in a line below.
std::string text_line(const Sender& sender, const Target& target, const Result& result, bool colour);
std::string text_summary(const Sender& sender, const Devices::Summary& summary, bool colour);
/// The same as one JSON object each.
std::string json_line(const Sender& sender, const Target& target, const Result& result);
std::string json_summary(const Sender& sender, const std::string& device, const Devices::Summary& summary);

}  // namespace radiotower::cli::page
