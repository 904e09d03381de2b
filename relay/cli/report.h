// What a test of a server tells its reader: steps with their times as they happen, then one plain line; or all of it as JSON.
#pragma once

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

#include "client.h"

namespace radiotower::cli {

class Report {
 public:
  /// `target` names what is tested. With `json` nothing is printed before end().
  Report(std::string target, bool json);

  void step(std::string_view name, Clock::duration took, std::string detail);
  void note(std::string text);
  /// A number or a text for --json; `value` is JSON already.
  void fact(std::string_view name, std::string value);
  void failed(std::string_view name, std::string what, std::vector<std::string> check, std::uint16_t code = 0);

  /// Prints the last line: `success` when nothing failed. Returns the exit code: 0, or 1.
  int end(std::string_view success);

 private:
  struct Step {
    std::string name;
    double milliseconds;
    std::string detail;
  };
  std::string target_;
  bool json_;
  std::vector<Step> steps_;
  std::vector<std::string> notes_;
  std::vector<std::pair<std::string, std::string>> facts_;
  std::string failed_step_, what_failed_;
  std::vector<std::string> check_;
  std::uint16_t code_ = 0;
};

double milliseconds_of(Clock::duration duration);

/// What is known when a request fails: it decides what there is to check.
struct Situation {
  std::string_view step;       // "Binding", "Allocate", "CreatePermission" ...
  std::string server;          // "192.0.2.1:3478"
  std::string username;
  UnixSeconds now = 0;
  bool used_secret = false;    // the credential was made from a secret here
  bool answered_before = false;  // the server has answered another request of this run
  std::chrono::milliseconds timeout{};
};

/// What happened, in one sentence without full stop: "the relay answered 401 Unauthenticated".
std::string describe(const Outcome& outcome, const Situation& situation);
/// What the operator may look at, the likeliest first.
std::vector<std::string> advice(const Outcome& outcome, const Situation& situation);
/// The registered name of an error code, or what the server called it.
std::string code_name(std::uint16_t code, std::string_view reason);

}  // namespace radiotower::cli
