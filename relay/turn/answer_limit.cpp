#include "answer_limit.h"

#include "radiotower/base/rate_slots.h"

namespace radiotower::turn {

bool AnswerLimit::take(std::size_t table, Bytes what, std::uint32_t rate, Time now) {
  return take_from_slots(std::span<std::int64_t, size>(slots_.data() + table * size, size), siphash13(key_, what), rate, now);
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
