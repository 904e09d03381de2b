// A user's bandwidth as two points in time (GCRA): the moments at which the bucket of bytes and the bucket of packets would be full
// again. Each holds one second's worth. One word a point, so that taking is one compare-exchange, also from the XDP program of the
// offload, which works on the same memory with the same clock (CLOCK_MONOTONIC, nanoseconds).
#pragma once

#include <atomic>
#include <cstdint>

namespace radiotower {

struct alignas(64) Bucket {
  std::atomic<std::int64_t> bytes_full_at{0};
  std::atomic<std::int64_t> packets_full_at{0};
  std::atomic<std::uint64_t> byte_rate{0};    // a second; 0: no limit
  std::atomic<std::uint64_t> packet_rate{0};  // a second; 0: no limit
};
static_assert(sizeof(Bucket) == 64 && std::atomic<std::int64_t>::is_always_lock_free, "mapped into the XDP program as it is");

/// Where buckets come from: the heap, or memory that the XDP program sees. Called on the control path alone; thread-safe.
class BucketSource {
 public:
  virtual ~BucketSource() = default;
  virtual Bucket* take() = 0;  // zeroed; nullptr when there is none left
  virtual void give_back(Bucket* bucket) = 0;
};

}  // namespace radiotower
