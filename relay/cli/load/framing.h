// What stands around a payload on its way between client and relay: a ChannelData header, a Send or Data indication, or
// nothing.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "radiotower/base/bytes.h"
#include "radiotower/net/address.h"

namespace radiotower::load {

enum class Method : std::uint8_t {
  channel,  // ChannelData (RFC 8656, 12.4)
  send,     // Send and Data indications (RFC 8656, 11)
  direct,   // no relay: the bare payload
};

/// All sessions bind the same number: they are different 5-tuples.
inline constexpr std::uint16_t channel_number = 0x4000;

class Framing {
 public:
  static constexpr std::size_t room = 48;  // in front of a payload: a Send indication to an IPv6 peer
  explicit Framing(Method method) : method_(method) {}
  Method method() const { return method_; }

  std::size_t header_size(const net::TransportAddress& peer) const;
  /// Bytes behind the payload, which are zero.
  std::size_t padding(std::size_t size) const { return method_ == Method::send ? (4 - size % 4) % 4 : 0; }
  /// Writes the header so that it ends at `payload`; `number` makes the transaction id.
  void write_header(std::uint8_t* payload, std::size_t size, const net::TransportAddress& peer,
                    std::uint64_t number) const;
  /// The payload of what a client got, if it is from `peer` by the method of this load.
  std::optional<Bytes> unwrap(Bytes datagram, const net::TransportAddress& peer) const;

 private:
  Method method_;
};

}  // namespace radiotower::load
