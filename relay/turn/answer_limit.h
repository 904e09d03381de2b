// Bounds the answers to sources that have proved nothing, without keeping a byte for any of them: a table of fixed size whose
// slots are shared by whoever hashes there. The hash is keyed, so nobody can aim at another's slot.
//
// A transport address gets `rate` answers a second (a burst of as many), an IP address (an IPv6 /64) fifty times that in all:
// a whole office behind one NAT address is fifty clients, while a forged source, which a flood would name with one address
// and all its ports, is still bounded. Each source has two slots and uses whichever grants, so that a flood that fills a share
// of the table does not silence those who meet it in one slot.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "radiotower/base/siphash.h"
#include "radiotower/base/time.h"
#include "radiotower/net/address.h"

namespace radiotower::turn {

class AnswerLimit {
 public:
  static constexpr std::uint32_t per_ip = 50;

  AnswerLimit(const HashKey& key, std::uint32_t answers_per_second) : key_(key), slots_(2 * size) { set_rate(answers_per_second); }

  bool allow(const net::TransportAddress& source, Time now);
  void set_rate(std::uint32_t answers_per_second) { rate_ = answers_per_second; }  // 0: no limit
  std::size_t bytes() const { return slots_.capacity() * sizeof(slots_[0]); }      // never changes

 private:
  static constexpr std::size_t size = 16384;  // slots for transport addresses, and as many for IP addresses
  bool take(std::size_t table, Bytes what, std::uint32_t rate, Time now);

  HashKey key_;
  // A bucket as one point in time: when it will be whole again, in ns. Zero is "long ago".
  std::vector<std::int64_t> slots_;
  std::uint32_t rate_ = 0;
};

}  // namespace radiotower::turn
