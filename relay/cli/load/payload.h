// What stands in a packet of the load, so that its receiver can tell that it is whole, and when and by whom it was
// sent.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "radiotower/base/bytes.h"

namespace radiotower::load {

enum class Direction : std::uint16_t { up = 0, down = 1 };  // client to peer, peer to client

struct Stamp {
  std::uint32_t magic = 0x52544c44;
  std::uint32_t session = 0;
  std::int64_t sent_at = 0;  // steady_ns()
  std::uint32_t run = 0;     // a late packet of an earlier run is not counted
  std::uint16_t size = 0;    // of the payload, this stamp included
  Direction direction = Direction::up;
};
static_assert(sizeof(Stamp) == 24);

inline constexpr std::size_t min_size = sizeof(Stamp), max_size = 1400;

/// The bytes behind the stamp are the same in all packets, up to where each ends.
class Payload {
 public:
  Payload() : bytes_(max_size) {
    for (std::size_t i = 0; i < max_size; ++i) bytes_[i] = static_cast<std::uint8_t>(i * 31 + 7);
  }
  /// All max_size bytes, so that a packet of any size can be cut from them.
  void write(std::uint8_t* out) const { std::memcpy(out, bytes_.data(), bytes_.size()); }
  /// False when it is no packet of the load, or was cut or changed on the way.
  bool read(Bytes packet, Stamp& stamp) const {
    if (packet.size() < sizeof stamp || packet.size() > max_size) return false;
    std::memcpy(&stamp, packet.data(), sizeof stamp);
    return stamp.magic == Stamp{}.magic && stamp.size == packet.size() &&
           std::memcmp(packet.data() + sizeof stamp, bytes_.data() + sizeof stamp, packet.size() - sizeof stamp) == 0;
  }

 private:
  std::vector<std::uint8_t> bytes_;
};

}  // namespace radiotower::load
