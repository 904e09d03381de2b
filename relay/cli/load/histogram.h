// How often each latency came, in buckets that are fine where latencies are short and never wider than 1/64 of what
// they hold.
#pragma once

#include <array>
#include <cstdint>

namespace radiotower::load {

/// Nanoseconds from 0 to 17 s; what is longer counts in the last bucket. Adding is a shift and an increment.
class Histogram {
 public:
  void add(std::int64_t ns) {
    ++counts_[bucket_of(ns)];
    ++total_;
    if (ns > max_) max_ = ns;
  }
  void clear() { *this = {}; }
  void merge(const Histogram& other);

  std::uint64_t total() const { return total_; }
  std::int64_t max() const { return max_; }
  /// The smallest value such that this share (0 to 1) of all is not larger, to the precision of the buckets (it is the
  /// upper end of one, and never more than max()); 0 when there is none.
  std::int64_t percentile(double share) const;

  static constexpr unsigned sub_bits = 6;
  static constexpr std::uint64_t largest = (std::uint64_t{1} << 34) - 1;
  static constexpr std::size_t buckets = (34 - sub_bits + 1) << sub_bits;
  static std::size_t bucket_of(std::int64_t ns);
  static std::int64_t upper_end(std::size_t bucket);

 private:
  std::array<std::uint64_t, buckets> counts_{};
  std::uint64_t total_ = 0;
  std::int64_t max_ = 0;
};

}  // namespace radiotower::load
