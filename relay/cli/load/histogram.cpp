#include "histogram.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace radiotower::load {

// Values below 64 have a bucket each. From there on an octave has 64 buckets: the leading seven bits and how many
// follow.
std::size_t Histogram::bucket_of(std::int64_t ns) {
  const std::uint64_t value = ns < 0 ? 0 : std::min<std::uint64_t>(static_cast<std::uint64_t>(ns), largest);
  const auto width = static_cast<unsigned>(std::bit_width(value));
  if (width <= sub_bits) return value;
  const unsigned shift = width - sub_bits - 1;
  return (std::size_t{shift} << sub_bits) + static_cast<std::size_t>(value >> shift);
}

std::int64_t Histogram::upper_end(std::size_t bucket) {
  if (bucket < (std::size_t{1} << sub_bits)) return static_cast<std::int64_t>(bucket);
  const std::size_t shift = (bucket >> sub_bits) - 1, leading = bucket - (shift << sub_bits);
  return static_cast<std::int64_t>(((leading + 1) << shift) - 1);
}

void Histogram::merge(const Histogram& other) {
  for (std::size_t i = 0; i < buckets; ++i) counts_[i] += other.counts_[i];
  total_ += other.total_;
  max_ = std::max(max_, other.max_);
}

std::int64_t Histogram::percentile(double share) const {
  if (total_ == 0) return 0;
  const auto wanted = static_cast<std::uint64_t>(std::ceil(share * static_cast<double>(total_)));
  std::uint64_t seen = 0;
  for (std::size_t i = 0; i < buckets; ++i) {
    seen += counts_[i];
    if (seen >= std::max<std::uint64_t>(wanted, 1)) return std::min(upper_end(i), max_);
  }
  return max_;
}

}  // namespace radiotower::load
