#include "ice_path.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace radiotower::cli {

namespace {

using std::chrono::milliseconds;

constexpr unsigned hopeless_after = 8;       // packets that have gone with none back: on a way that loses every second one this is one in 250
constexpr unsigned hasty = 4;                // so many of them are not waited for long, since most networks are fast
constexpr milliseconds first_patience{500};  // for a packet, there and back
constexpr milliseconds most_patience{2000};
constexpr milliseconds least_patience{150};  // once it is known how long they take: WLAN makes a sleeping client wait for a beacon
constexpr std::chrono::seconds enough_time{5};  // a slow way is judged by fewer packets
constexpr unsigned enough_packets = 10;
constexpr unsigned tries_of_a_size = 3;

/// As long as the slowest so far allows for.
Clock::duration patience_after(const Echo& echo) {
  if (echo.trips.empty()) return echo.sent < hasty ? first_patience : first_patience * 2;
  return std::clamp<Clock::duration>(*std::max_element(echo.trips.begin(), echo.trips.end()) * 4, least_patience, most_patience);
}

bool is_enough(const Echo& echo, Clock::time_point began) {
  return (echo.sent >= hopeless_after && echo.trips.empty()) || (echo.sent >= enough_packets && Clock::now() - began > enough_time);
}

/// Waits for one packet of an exchange, and throws away others. True: it came. `fault`: it came with other bytes.
template <typename Receive>
bool await(const Receive& receive, const std::array<std::uint8_t, 8>& tag, Payload::Way way, std::uint32_t number, std::size_t size,
    std::string& fault) {
  while (const auto payload = receive()) {
    switch (Payload::judge(*payload, tag, way, number, size)) {
      case Payload::Verdict::good: return true;
      case Payload::Verdict::damaged: fault = fmt::format("a packet of {} bytes came through with other bytes than were sent", size); return false;
      case Payload::Verdict::foreign:
      case Payload::Verdict::other_number: break;
    }
  }
  return false;
}

}  // namespace

std::optional<std::vector<std::uint8_t>> ChannelPeer::receive(Clock::time_point deadline) {
  while (auto data = client_.receive(deadline))
    if (data->channel == channel_) return std::move(data->payload);
  return std::nullopt;
}

Echo echo(Client& client, Peer& peer, std::uint16_t channel, unsigned count, std::size_t size, const RandomSource& random) {
  Echo out;
  std::array<std::uint8_t, 8> tag;
  random(tag);
  const auto began = Clock::now();
  for (std::uint32_t number = 0; number < count && out.fault.empty(); ++number) {
    if (is_enough(out, began)) break;
    const auto start = Clock::now();
    const auto deadline = start + patience_after(out);
    int error = client.send_channel_data(channel, Payload::make(tag, Payload::Way::to_peer, number, size));
    ++out.sent;
    if (error == ECONNREFUSED) continue;  // what ICMP said about an earlier one
    bool there = false;
    if (error == 0) there = await([&] { return peer.receive(deadline); }, tag, Payload::Way::to_peer, number, size, out.fault);
    if (there) {
      ++out.reached_peer;
      error = peer.send(Payload::make(tag, Payload::Way::to_client, number, size));
    }
    if (error != 0) {
      out.fault = fmt::format("sending failed: {}", std::strerror(error));
      break;
    }
    if (!there) continue;
    const auto receive = [&]() -> std::optional<std::vector<std::uint8_t>> {
      while (auto data = client.receive(deadline))
        if (data->channel == channel) return std::move(data->payload);
      return std::nullopt;
    };
    if (await(receive, tag, Payload::Way::to_client, number, size, out.fault)) out.trips.push_back(Clock::now() - start);
  }
  std::sort(out.trips.begin(), out.trips.end());
  return out;
}

Echo echo_by_binding(Client& client, unsigned count) {
  Echo out;
  const auto began = Clock::now();
  for (unsigned number = 0; number < count; ++number) {
    if (is_enough(out, began)) break;
    // Shorter than the time after which a request goes out again, so that each is one packet.
    client.set_timeout(std::min(std::chrono::duration_cast<milliseconds>(patience_after(out)), milliseconds(450)));
    Outcome outcome;
    const auto next = Clock::now() + milliseconds(20);  // servers answer so many a second (limits.binding_answers_per_second)
    const auto address = client.binding(outcome);
    ++out.sent;
    client.receive(next);
    if (address || outcome.failure == Failure::refused) out.trips.push_back(outcome.round_trip);  // 401 is an answer, too
  }
  out.reached_peer = out.came_back();
  std::sort(out.trips.begin(), out.trips.end());
  return out;
}

std::size_t largest_datagram(Client& client, Peer& peer, std::uint16_t channel, std::size_t least, std::size_t most, Clock::duration patience,
                             const RandomSource& random, bool& local) {
  std::array<std::uint8_t, 8> tag;
  random(tag);
  std::uint32_t number = 0;
  std::string ignored;
  const auto passes = [&](std::size_t size) {
    local = false;
    for (unsigned n = 0; n < tries_of_a_size; ++n) {
      const int error = client.send_channel_data(channel, Payload::make(tag, Payload::Way::to_peer, ++number, size));
      local = error == EMSGSIZE;  // also what ICMP said about the one before: then the next try tells
      if (error != 0) continue;
      const auto deadline = Clock::now() + patience;
      if (await([&] { return peer.receive(deadline); }, tag, Payload::Way::to_peer, number, size, ignored)) return true;
    }
    return false;
  };
  if (passes(most)) return most;
  const bool own_interface = local;
  if (!passes(least)) return 0;
  while (most - least > 1) {
    const std::size_t middle = least + (most - least) / 2;
    (passes(middle) ? least : most) = middle;
  }
  local = own_interface;
  return least;
}

}  // namespace radiotower::cli
