// Where a message ends on a stream (RFC 8489, 6.2.2; RFC 8656, 12.5). Pure.
//
// STUN says its length in its header; ChannelData is padded to a multiple of four on a stream, and its length field counts no padding.
#pragma once

#include <cstddef>
#include <cstdint>

#include "radiotower/base/bytes.h"

namespace radiotower::stun {

enum class FrameKind : std::uint8_t {
  stun,          // a whole message, header, cookie and length in order; what is in it is Message::read's to judge
  channel_data,  // header, payload and padding
  incomplete,    // the front of one: `size` bytes at least are needed, where the header is known (else 0: not even four bytes are there)
  wrong,         // no further byte makes this a message: the connection is to be closed (T04-T06, T09)
};
struct Frame {
  FrameKind kind = FrameKind::incomplete;
  std::size_t size = 0;  // on the stream, padding and all
};
inline constexpr std::size_t longest_frame = 20 + 65532;  // of STUN; ChannelData's longest is 4 + 65,535 + 1

/// What stands at the front of `bytes`. `old_channels`: 0x5000-0x7FFF are channels too (RFC 5766).
Frame next_frame(Bytes bytes, bool old_channels);

/// What stands at the front of a connection that has no allocation: a STUN message, since there is no channel without one. So "GET " is wrong at once,
/// whose letters would be a channel number and a length (T04).
inline Frame first_frame(Bytes bytes) { return !bytes.empty() && bytes[0] > 3 ? Frame{FrameKind::wrong, 0} : next_frame(bytes, false); }

/// How many bytes at the front of `bytes`, whole frames of at least `first`, are ChannelData of the channel and length of the first frame, which is whole:
/// what may be handed on as a train. At least first.size.
std::size_t train_length(Bytes bytes, const Frame& first);

}  // namespace radiotower::stun
