// The XOR of XOR-MAPPED-ADDRESS and its kin (RFC 8489, 14.2), the same for reading and for writing.
#pragma once

#include <algorithm>
#include <array>

#include "radiotower/stun/message.h"

namespace radiotower::stun {

/// XORs port and address of a plain address value (8 or 20 bytes) with cookie and transaction id, in place; twice is the
/// identity.
inline void xor_address(MutableBytes value, const TransactionId& id) {
  std::array<std::uint8_t, 16> mask;
  store_be32(mask.data(), magic_cookie);
  std::copy(id.begin(), id.end(), mask.begin() + 4);
  value[2] ^= mask[0];
  value[3] ^= mask[1];
  for (std::size_t i = 4; i < value.size(); ++i) value[i] ^= mask[i - 4];
}

}  // namespace radiotower::stun
