// `radiotower sessions`: the table, once or live.
#pragma once

#include <chrono>
#include <map>
#include <string>
#include <vector>

#include "control_link.h"

namespace radiotower::cli {

struct SessionsOptions {
  std::string socket;
  Json filter = Json::object();  // fields of the request
  std::string sort = "age";
  std::size_t limit = 0;  // 0: all
  double watch = 0;       // seconds; 0: once
  bool json = false;
};

/// Bytes a second of each session, from one look to the next.
class Rates {
 public:
  void look(const std::vector<Json>& sessions, std::chrono::steady_clock::time_point now);
  /// Negative: seen once so far.
  double of(const Json& session) const;

 private:
  struct Seen {
    std::uint64_t bytes = 0;
    double rate = -1;
  };
  std::map<std::string, Seen> seen_;
  std::chrono::steady_clock::time_point looked_at_{};
};

/// Lines, a heading first, none wider than `width` columns (0: as wide as it takes). With `rates` there is a column of them.
std::vector<std::string> sessions_table(const std::vector<Json>& sessions, const Rates* rates, std::size_t width);

/// Exit code.
int show_sessions(const SessionsOptions& options);

}  // namespace radiotower::cli
