#include "control.h"

#include <fmt/format.h>

#include <cstdio>
#include <iostream>
#include <memory>
#include <sstream>

#include "summary.h"
#include "traffic.h"

namespace radiotower::load {

namespace {

class Servant {
 public:
  explicit Servant(Sessions& sessions) : sessions_(sessions), traffic_(sessions) {}

  /// Empty: there is no such command.
  std::string obey(const std::string& line) {
    words_ = std::istringstream(line);
    std::string command;
    words_ >> command;
    if (command == "set-up") return json_of(sessions_.set_up());
    if (command == "renew") return json_of(sessions_.renew());
    if (command == "tear-down") return json_of(sessions_.tear_down());
    if (command == "verify") return json_of(sessions_.verify());
    if (command == "memory") return json_of(process_memory(sessions_.options().server_pid), kernel_memory());
    if (command == "traffic") return traffic();
    if (command == "profile") return profile();
    if (command == "search") return search_rate();
    if (command == "storm") return storm();
    if (command == "flood") return flood();
    if (command == "calm") return calm();
    return {};
  }

 private:
  std::uint32_t count() const { return static_cast<std::uint32_t>(sessions_.sessions.size()); }

  // "up" and what else follows a command; false: it does not.
  bool read_ways(Ways& ways) {
    std::string word;
    if (!(words_ >> word)) return false;
    const auto read = parse_ways(word);
    if (read) ways = *read;
    return read.has_value();
  }
  bool is_sound(const Plan& plan) const {
    return plan.size >= min_size && plan.size <= max_size && plan.train >= 1 && plan.train <= 40 && plan.seconds > 0;
  }

  std::string traffic() {
    Plan plan;
    double rate = 0;
    if (!read_ways(plan.ways) || !(words_ >> rate >> plan.size >> plan.train >> plan.seconds) || rate < 0 ||
        !is_sound(plan))
      return {};
    if (rate > 0) plan.schedule = steady(plan.ways, count(), plan.size, plan.train, rate);
    return run(plan);
  }

  std::string profile() {
    Plan plan;
    std::string name;
    double rate = 0;
    if (!(words_ >> name) || !read_ways(plan.ways) || !(words_ >> rate >> plan.train >> plan.seconds) || rate < 0 ||
        !is_sound(plan))
      return {};
    plan.schedule = schedule_of(name, plan.ways, count());
    if (plan.schedule.empty()) return {};
    if (rate > 0) stretch(plan.schedule, rate);
    return run(plan);
  }

  std::string search_rate() {
    Plan plan;
    double first = 0;
    if (!read_ways(plan.ways) || !(words_ >> plan.size >> plan.train >> plan.seconds >> first) || first <= 0 ||
        !is_sound(plan))
      return {};
    plan.schedule = steady(plan.ways, count(), plan.size, plan.train, first);
    plan.warm_up = plan.seconds / 10;
    return json_of(search(traffic_, plan, first, {}));
  }

  std::string run(Plan& plan) {
    plan.warm_up = plan.seconds / 10;
    return json_of(traffic_.run(plan));
  }

  std::string storm() {
    double seconds = 0;
    if (!(words_ >> seconds) || seconds <= 0) return {};
    return json_of(sessions_.storm(seconds));
  }

  std::string flood() {
    const Options& o = sessions_.options();
    FloodOptions options{.server = o.server, .netns = o.client_netns};
    if (!(words_ >> options.rate >> options.train >> options.core) || options.rate < 0 || options.train < 1 ||
        options.train > 64)
      return {};
    if (std::uint32_t addresses = 0; words_ >> addresses && addresses >= 1 && addresses <= 10000) options.addresses = addresses;
    flood_ = std::make_unique<Flood>(options);
    probe_ = std::make_unique<Probe>(o.server, o.users.front(), o.client_netns);
    return "{}";
  }

  std::string calm() {
    if (!flood_) return {};
    const ProbeResult probe = probe_->stop();  // first: it measures what the flood does
    const FloodResult flood = flood_->stop();
    flood_.reset();
    probe_.reset();
    return json_of(flood, probe);
  }

  Sessions& sessions_;
  Traffic traffic_;
  std::istringstream words_;
  std::unique_ptr<Flood> flood_;
  std::unique_ptr<Probe> probe_;
};

}  // namespace

int obey(Sessions& sessions) {
  Servant servant(sessions);
  for (std::string line; std::getline(std::cin, line) && line != "quit";) {
    const std::string answer = servant.obey(line);
    if (answer.empty()) {
      fmt::print(stderr, "radiotower load --control: no such command: \"{}\"\n", line);
      return 2;
    }
    fmt::print("{}\n", answer);
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace radiotower::load
