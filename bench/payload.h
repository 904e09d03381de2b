// What stands in a packet of the load, so that its receiver can tell that it is whole and when and by whom it was sent.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "radiotower/base/bytes.h"

namespace radiotower::bench {

enum class Direction : std::uint32_t { to_peer = 0, to_client = 1 };

struct Stamp {
  std::uint32_t magic = 0x52544c44;
  std::uint32_t session = 0;
  std::int64_t sent_at = 0;  // steady_ns()
  std::uint32_t run = 0;     // a late packet of an earlier run is not counted
  Direction direction = Direction::to_peer;
};
static_assert(sizeof(Stamp) == 24);

/// The bytes behind the stamp are the same in all packets.
class Payload {
 public:
  explicit Payload(std::size_t size) : bytes_(size) {
    for (std::size_t i = 0; i < size; ++i) bytes_[i] = static_cast<std::uint8_t>(i * 31 + 7);
  }
  std::size_t size() const { return bytes_.size(); }
  void write(std::uint8_t* out) const { std::memcpy(out, bytes_.data(), bytes_.size()); }
  /// False when it is no packet of the load, or was cut or changed on the way.
  bool read(Bytes packet, Stamp& stamp) const {
    if (packet.size() != bytes_.size()) return false;
    std::memcpy(&stamp, packet.data(), sizeof stamp);
    return stamp.magic == Stamp{}.magic &&
           std::memcmp(packet.data() + sizeof stamp, bytes_.data() + sizeof stamp, bytes_.size() - sizeof stamp) == 0;
  }

 private:
  std::vector<std::uint8_t> bytes_;
};

}  // namespace radiotower::bench
