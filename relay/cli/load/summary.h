// What a load has found out, as JSON and as lines for people.
#pragma once

#include <string>
#include <vector>

#include "flood.h"
#include "measures.h"
#include "report.h"
#include "sessions.h"
#include "traffic.h"

namespace radiotower::load {

std::string json_of(const SetUpResult& r);
std::string json_of(const VerifyResult& r);
std::string json_of(const TrafficResult& r);
std::string json_of(const StormResult& r);
std::string json_of(const SearchResult& r);
std::string json_of(const FloodResult& flood, const ProbeResult& probe);
std::string json_of(const ProcessMemory& p, const KernelMemory& k);

std::string grouped(double number);          // "1,234,567"
std::string duration_text(std::int64_t ns);  // "85 us", "1.25 ms", "3.10 s"

/// Lines of the summary, each with its title.
std::vector<std::string> text_of(const SetUpResult& r, bool knows_server);
/// `bytes` of payload a packet on average.
std::vector<std::string> text_of(const TrafficResult& r, double bytes, bool knows_server);
std::vector<std::string> text_of(const StormResult& r, bool knows_server);
std::vector<std::string> text_of(const FloodResult& flood, const ProbeResult& probe);
/// One line for a terminal, while it runs.
std::string progress_text(double seconds, double of, const TrafficResult& now, const TrafficResult& before,
                          double interval);

/// Why sessions could not be set up: a sentence, and what to look at.
struct Explanation {
  std::string what;
  std::vector<std::string> check;
};
Explanation explain(const SetUpResult& r, const Sessions& sessions, const cli::Situation& situation);

}  // namespace radiotower::load
