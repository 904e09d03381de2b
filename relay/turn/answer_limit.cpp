#include "answer_limit.h"

#include <algorithm>

namespace radiotower::turn {

bool AnswerLimit::take(std::size_t table, Bytes what, std::uint32_t rate, Time now) {
  const std::uint64_t hash = siphash13(key_, what);
  const std::int64_t t = now.time_since_epoch().count();
  const std::int64_t each = 1'000'000'000 / rate;
  for (const std::uint64_t part : {hash, hash >> 32}) {
    std::int64_t& whole_at = slots_[table * size + part % size];
    const std::int64_t next = std::max(whole_at, t) + each;
    if (next > t + each * rate) continue;
    whole_at = next;
    return true;
  }
  return false;
}

bool AnswerLimit::allow(const net::TransportAddress& source, Time now) {
  if (rate_ == 0) return true;
  std::array<std::uint8_t, 18> bytes;
  std::copy(source.ip.bytes.begin(), source.ip.bytes.end(), bytes.begin());
  store_be16(bytes.data() + 16, source.port);
  // Halved because there are two slots to draw from.
  if (!take(0, bytes, std::max(1u, rate_ / 2), now)) return false;
  const Bytes network = Bytes(bytes).first(source.ip.is_v4() ? 16 : 8);
  return take(1, network, std::max(1u, rate_ / 2) * per_ip, now);
}

}  // namespace radiotower::turn
