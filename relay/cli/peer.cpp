#include "peer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace radiotower::cli {

namespace {

constexpr unsigned hopeless_after = 3;

std::uint8_t pattern(std::size_t position, std::uint32_t number) { return static_cast<std::uint8_t>(position * 31 + number * 7); }

}  // namespace

std::optional<std::vector<std::uint8_t>> SocketPeer::receive(Clock::time_point deadline) {
  for (;;) {
    std::size_t size = 0;
    net::TransportAddress from;
    switch (socket_.receive(buffer_, deadline, size, from)) {
      case UdpSocket::Arrival::datagram: break;
      case UdpSocket::Arrival::refused: continue;
      case UdpSocket::Arrival::deadline:
      case UdpSocket::Arrival::failed: return std::nullopt;
    }
    if (from == relayed_) return std::vector<std::uint8_t>(buffer_.begin(), buffer_.begin() + static_cast<std::ptrdiff_t>(size));
  }
}

std::optional<std::vector<std::uint8_t>> RelayPeer::receive(Clock::time_point deadline) {
  while (auto data = client_.receive(deadline))
    if (data->peer == relayed_) return std::move(data->payload);
  return std::nullopt;
}

std::vector<std::uint8_t> Payload::make(const std::array<std::uint8_t, 8>& tag, Way way, std::uint32_t number, std::size_t size) {
  std::vector<std::uint8_t> out(std::max(size, min_size));
  std::copy(tag.begin(), tag.end(), out.begin());
  store_be32(out.data() + 8, static_cast<std::uint32_t>(way));
  store_be32(out.data() + 12, number);
  for (std::size_t i = min_size; i < out.size(); ++i) out[i] = pattern(i, number);
  return out;
}

Payload::Verdict Payload::judge(Bytes bytes, const std::array<std::uint8_t, 8>& tag, Way way, std::uint32_t number, std::size_t size) {
  if (bytes.size() < min_size || !std::equal(tag.begin(), tag.end(), bytes.begin())) return Verdict::foreign;
  if (load_be32(bytes.data() + 8) != static_cast<std::uint32_t>(way)) return Verdict::foreign;
  if (load_be32(bytes.data() + 12) != number) return Verdict::other_number;
  const auto expected = make(tag, way, number, size);
  return std::equal(bytes.begin(), bytes.end(), expected.begin(), expected.end()) ? Verdict::good : Verdict::damaged;
}

Traffic exchange(Client& client, Peer& peer, std::optional<std::uint16_t> channel, const TrafficOptions& options, const RandomSource& random) {
  Traffic traffic;
  std::array<std::uint8_t, 8> tag;
  random(tag);
  for (std::uint32_t number = 0; number < options.count; ++number) {
    if (traffic.sent >= hopeless_after && traffic.came_back == 0) break;
    const auto there = Payload::make(tag, Payload::Way::to_peer, number, options.size);
    const auto start = Clock::now();
    const auto deadline = start + options.patience;
    int error = channel ? client.send_channel_data(*channel, there) : client.send_indication(peer.address(), there);
    ++traffic.sent;

    bool reached = false;
    while (error == 0 && !reached) {
      const auto payload = peer.receive(deadline);
      if (!payload) break;
      const auto verdict = Payload::judge(*payload, tag, Payload::Way::to_peer, number, options.size);
      if (verdict == Payload::Verdict::damaged) {
        traffic.fault = fmt::format("packet {} reached the peer with other bytes than were sent ({} of {} bytes)", number + 1, payload->size(), there.size());
        return traffic;
      }
      reached = verdict == Payload::Verdict::good;
    }
    if (reached) {
      ++traffic.reached_peer;
      error = peer.send(Payload::make(tag, Payload::Way::to_client, number, options.size));
    }
    bool back = false;
    while (error == 0 && reached && !back) {
      const auto data = client.receive(deadline);
      if (!data) break;
      const auto verdict = Payload::judge(data->payload, tag, Payload::Way::to_client, number, options.size);
      if (verdict == Payload::Verdict::damaged) {
        traffic.fault = fmt::format("packet {} came back from the peer with other bytes than were sent", number + 1);
        return traffic;
      }
      if (verdict != Payload::Verdict::good) continue;  // late, or somebody else's
      if (channel && data->channel != channel) {
        traffic.fault = data->channel ? "the answer came through another channel"
                                      : "the answer came as a Data indication though a channel is bound (RFC 8656, 11.3)";
        return traffic;
      }
      if (!channel && data->peer != peer.address()) {
        traffic.fault = data->peer ? fmt::format("the Data indication names {} as its peer instead of {}", data->peer->text(), peer.address().text())
                                   : "the answer came as ChannelData though no channel is bound";
        return traffic;
      }
      back = true;
    }
    if (error != 0) {
      traffic.fault = fmt::format("sending failed: {}", std::strerror(error));
      return traffic;
    }
    if (!back) continue;
    const auto took = Clock::now() - start;
    traffic.shortest = traffic.came_back == 0 ? took : std::min(traffic.shortest, took);
    traffic.total += took;
    ++traffic.came_back;
  }
  return traffic;
}

}  // namespace radiotower::cli
