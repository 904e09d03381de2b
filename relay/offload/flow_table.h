// Flows and buckets, kept in the program's memory. Control path under one lock; counts() and extend() without.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <vector>

#include "program.h"
#include "radiotower/base/bucket.h"
#include "radiotower/offload/offload.h"

namespace radiotower::offload {

class BucketPool final : public BucketSource {
 public:
  explicit BucketPool(std::span<Bucket> buckets);
  Bucket* take() override;
  void give_back(Bucket* bucket) override;
  /// RADIOTOWER_NO_BUCKET when it is none of these.
  std::uint32_t index_of(const Bucket* bucket) const;

 private:
  std::span<Bucket> buckets_;
  std::mutex mutex_;
  std::vector<std::uint32_t> free_;
};

class FlowTable {
 public:
  /// A slot rests before it is used again. A packet that another CPU holds meanwhile has compared the flow's id and
  /// goes where the old flow went, or to nobody: no packet is in a driver for so long.
  static constexpr seconds quarantine{1};

  FlowTable(const Program& program, const BucketPool& buckets);
  FlowId add(const Flow& flow, Time until, Time now);
  void extend(FlowId flow, Time until);
  Counts remove(FlowId flow, Time now);
  Counts counts(FlowId flow) const;
  std::size_t size() const;

 private:
  struct Resting {
    std::uint32_t index;
    Time since;
  };

  Slot* find(FlowId flow) const;
  Direction& to_peer(std::uint32_t index) const { return directions_[2 * index + RADIOTOWER_TO_PEER]; }
  Direction& to_client(std::uint32_t index) const { return directions_[2 * index + RADIOTOWER_TO_CLIENT]; }

  const Program& program_;
  const BucketPool& buckets_;
  std::span<Slot> slots_;
  std::span<Direction> directions_;
  mutable std::mutex mutex_;
  std::uint32_t fresh_ = 0;      // slots from here on have never been used
  std::deque<Resting> resting_;  // first in, first out
  std::size_t size_ = 0;
};

}  // namespace radiotower::offload
