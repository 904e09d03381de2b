// Frames as a network card would hand them over, and reading what the program made of them.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "radiotower/net/address.h"

namespace radiotower::test {

using Octets = std::vector<std::uint8_t>;
using Mac = std::array<std::uint8_t, 6>;

enum class Checksum { whole, none, partial };  // partial: the sum of the pseudo header, for hardware to finish

struct Datagram {
  net::TransportAddress source, destination;
  Octets payload;
  std::uint8_t hop_limit = 64, traffic_class = 0;
  bool dont_fragment = true;
  std::uint16_t identification = 0x1234;
  std::uint32_t flow_label = 0x54321;  // IPv6
  Checksum checksum = Checksum::whole;
  Mac to{2, 0, 0, 0, 0, 1}, from{2, 0, 0, 0, 0, 2};
};

net::TransportAddress at(const char* address);
Octets bytes(std::size_t count);
Octets channel_data(std::uint16_t channel, const Octets& payload);

Octets frame(const Datagram& datagram);
void refresh_ipv4_checksum(Octets& frame);  // after a change of the header
inline std::size_t network_size(const Datagram& d) { return d.source.ip.is_v4() ? 20 : 40; }

/// Reads a frame and checks every length and checksum of it. nullopt, and a sentence in `why`.
std::optional<Datagram> read(const Octets& frame, std::string& why);

}  // namespace radiotower::test
