// A keyed hash of a 5-tuple, for tables whose keys come from outside: nobody there can choose collisions.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>

#include "radiotower/base/siphash.h"
#include "radiotower/net/address.h"

namespace radiotower::net {

inline std::uint64_t hash(const HashKey& key, const FiveTuple& five_tuple) {
  std::array<std::uint8_t, 48> bytes;
  auto* p = bytes.data();
  for (const auto* a : {&five_tuple.client, &five_tuple.server}) {
    std::memcpy(p, a->ip.bytes.data(), 16);
    store_be16(p + 16, a->port);
    store_be32(p + 18, a->scope);
    p += 22;
  }
  store_be32(p, static_cast<std::uint32_t>(five_tuple.transport));
  return siphash13(key, bytes);
}

}  // namespace radiotower::net
