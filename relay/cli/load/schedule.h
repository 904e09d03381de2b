// Which packets are due when. Pure: no clock, no sockets; a time goes in, packets come out.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "payload.h"

namespace radiotower::load {

/// What is sent at one moment: `packets` of one session, back to back.
struct Event {
  std::int64_t at = 0;  // ns since the start
  std::uint32_t session = 0;
  std::uint32_t packets = 0;
};

/// Sessions that each send a burst every `period_ns`, one after the other, evenly spread over the period.
struct Stream {
  Direction direction = Direction::up;
  std::uint32_t first = 0, sessions = 1;  // the sessions [first, first + sessions)
  double period_ns = 0;
  double offset = 0;  // of the first event, as a share of the distance between two events (0 to 1)
  std::uint32_t least = 1,
                most = 1;     // packets a burst: all numbers from `least` to `most` in turn, other sessions other ones
  std::uint32_t size = 1000;  // bytes of payload

  /// The n-th event from 0. Times do not go down.
  Event event(std::uint64_t n) const;
  /// How many events lie at or before this moment.
  std::uint64_t events_until(std::int64_t at) const;
  double packets_a_second() const;
};

using Schedule = std::vector<Stream>;
double packets_a_second(const Schedule& schedule);
/// The same bursts, closer together or further apart, so that they come to `rate` packets a second over all.
void stretch(Schedule& schedule, double rate);

enum class Ways : std::uint8_t { up, down, both };
std::optional<Ways> parse_ways(std::string_view text);

/// A plain stream: `rate` datagrams a second over all sessions in turn, `train` of them back to back.
Schedule steady(Ways ways, std::uint32_t sessions, std::uint32_t size, std::uint32_t train, double rate);

struct Profile {
  std::string_view name;
  std::string_view summary;
  std::uint32_t sessions;  // when nobody says otherwise
  Ways ways;
  enum class Kind : std::uint8_t { traffic, saturation, storm, idle, flood } kind;
};
/// All of them, in the order of their telling.
const std::vector<Profile>& profiles();
const Profile* find_profile(std::string_view name);
/// Empty for profiles that have none of their own (saturation, storm, idle).
Schedule schedule_of(std::string_view profile, Ways ways, std::uint32_t sessions);

}  // namespace radiotower::load
