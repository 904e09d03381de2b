#include "radiotower/stun/framing.h"

#include "radiotower/stun/protocol.h"

namespace radiotower::stun {

Frame next_frame(Bytes bytes, bool old_channels) {
  if (bytes.size() < 4) {
    // The first byte alone may already say that this is nothing of ours.
    if (bytes.empty() || bytes[0] <= 3 || (bytes[0] >= 0x40 && bytes[0] <= (old_channels ? 0x7F : 0x4F))) return {FrameKind::incomplete, 0};
    return {FrameKind::wrong, 0};
  }
  const std::size_t length = load_be16(bytes.data() + 2);
  if (bytes[0] >= 0x40 && bytes[0] <= (old_channels ? 0x7F : 0x4F)) {
    const std::size_t size = channel_header_size + (length + 3) / 4 * 4;
    return {bytes.size() < size ? FrameKind::incomplete : FrameKind::channel_data, size};
  }
  if (bytes[0] > 3 || length % 4 != 0) return {FrameKind::wrong, 0};
  // The cookie is looked at as far as it is there: garbage is not waited for.
  for (std::size_t i = 4; i < 8 && i < bytes.size(); ++i)
    if (bytes[i] != static_cast<std::uint8_t>(magic_cookie >> (8 * (7 - i)))) return {FrameKind::wrong, 0};
  const std::size_t size = header_size + length;
  return {bytes.size() < size ? FrameKind::incomplete : FrameKind::stun, size};
}

std::size_t train_length(Bytes bytes, const Frame& first) {
  std::size_t end = first.size;
  if (first.kind != FrameKind::channel_data) return end;
  const std::uint32_t head = load_be32(bytes.data());
  while (end + first.size <= bytes.size() && load_be32(bytes.data() + end) == head) end += first.size;
  return end;
}

}  // namespace radiotower::stun
