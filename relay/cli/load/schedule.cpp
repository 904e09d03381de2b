#include "schedule.h"

#include <algorithm>
#include <cmath>

namespace radiotower::load {

namespace {

constexpr double ms = 1e6;
constexpr std::uint32_t voice = 160,
                        frame = 1150;  // bytes: 20 ms of G.711 or rich Opus; a full packet of a video frame

// A stream for each direction that is asked for; the second half a step later, so that they alternate.
void add(Schedule& out, Ways ways, Stream stream) {
  if (stream.sessions == 0) return;
  if (ways != Ways::down) {
    stream.direction = Direction::up;
    out.push_back(stream);
  }
  if (ways != Ways::up) {
    stream.direction = Direction::down;
    if (ways == Ways::both) stream.offset += 0.5;
    out.push_back(stream);
  }
}

Stream voices(std::uint32_t first, std::uint32_t sessions) {
  return {.first = first, .sessions = sessions, .period_ns = 20 * ms, .size = voice};
}

Stream frames(std::uint32_t first, std::uint32_t sessions) {
  return {.first = first, .sessions = sessions, .period_ns = 33 * ms, .least = 10, .most = 30, .size = frame};
}

}  // namespace

Event Stream::event(std::uint64_t n) const {
  const std::uint64_t cycle = n / sessions;
  const auto turn = static_cast<std::uint32_t>(n % sessions);
  const double at = (static_cast<double>(n) + offset) * period_ns / sessions;
  // By eight, which shares no factor with the 21 sizes of a video frame: neighbours in time differ by more than one
  // packet.
  const std::uint64_t more = (cycle + turn) * 8 % (most - least + 1);
  return {static_cast<std::int64_t>(std::ceil(at)), first + turn, least + static_cast<std::uint32_t>(more)};
}

std::uint64_t Stream::events_until(std::int64_t at) const {
  const double n = static_cast<double>(at) / (period_ns / sessions) - offset;
  if (n < 0) return 0;
  auto count = static_cast<std::uint64_t>(n) + 1;
  // What floating point rounds, event() decides.
  while (count > 0 && event(count - 1).at > at) --count;
  while (event(count).at <= at) ++count;
  return count;
}

double Stream::packets_a_second() const { return (least + most) / 2.0 * sessions * 1e9 / period_ns; }

double packets_a_second(const Schedule& schedule) {
  double sum = 0;
  for (const Stream& s : schedule) sum += s.packets_a_second();
  return sum;
}

void stretch(Schedule& schedule, double rate) {
  const double factor = packets_a_second(schedule) / rate;
  for (Stream& s : schedule) s.period_ns *= factor;
}

std::optional<Ways> parse_ways(std::string_view text) {
  if (text == "up") return Ways::up;
  if (text == "down") return Ways::down;
  if (text == "both") return Ways::both;
  return std::nullopt;
}

Schedule steady(Ways ways, std::uint32_t sessions, std::uint32_t size, std::uint32_t train, double rate) {
  Schedule out;
  add(out, ways, {.sessions = sessions, .period_ns = 1e9, .least = train, .most = train, .size = size});
  if (!out.empty() && rate > 0) stretch(out, rate);
  return out;
}

const std::vector<Profile>& profiles() {
  using Kind = Profile::Kind;
  static const std::vector<Profile> all = {
      {"audio", "each session 50 packets/s of 160 bytes", 5000, Ways::both, Kind::traffic},
      {"video", "each session a burst of 10 to 30 packets of 1150 bytes every 33 ms", 50, Ways::both, Kind::traffic},
      {"keyframes", "each session 30 packets of 1150 bytes every 33 ms", 50, Ways::up, Kind::traffic},
      {"screen", "each session 60 to 100 packets of 1150 bytes every 200 ms, and 20 small ones a second", 50, Ways::up,
       Kind::traffic},
      {"mixed", "70 % of the sessions audio, 30 % video", 100, Ways::both, Kind::traffic},
      {"saturation", "as many packets as can be sent", 200, Ways::up, Kind::saturation},
      {"storm", "allocations made and given back as fast as they are answered", 1000, Ways::up, Kind::storm},
      {"idle", "many allocations: what each takes, then packets over all of them", 16000, Ways::both, Kind::idle},
      {"flood", "mixed calls while strangers send junk, and a client that asks for new allocations", 100, Ways::both,
       Kind::flood},
  };
  return all;
}

const Profile* find_profile(std::string_view name) {
  for (const Profile& p : profiles())
    if (p.name == name) return &p;
  return nullptr;
}

Schedule schedule_of(std::string_view profile, Ways ways, std::uint32_t sessions) {
  Schedule out;
  if (profile == "audio") add(out, ways, voices(0, sessions));
  if (profile == "video") add(out, ways, frames(0, sessions));
  if (profile == "keyframes")
    add(out, ways, {.sessions = sessions, .period_ns = 33 * ms, .least = 30, .most = 30, .size = frame});
  if (profile == "screen") {
    add(out, ways, {.sessions = sessions, .period_ns = 200 * ms, .least = 60, .most = 100, .size = frame});
    add(out, ways, {.sessions = sessions, .period_ns = 50 * ms, .size = voice});
  }
  if (profile == "mixed" || profile == "flood") {
    const std::uint32_t talking = sessions * 7 / 10;
    add(out, ways, voices(0, talking));
    add(out, ways, frames(talking, sessions - talking));
  }
  return out;
}

}  // namespace radiotower::load
