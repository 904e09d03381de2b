// Bytes that must live until the end of the next turn of the loop: decrypted records and messages that came in pieces. Two alternate, as
// Worker's arenas do; nothing is allocated once warm. One thread.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "radiotower/base/bytes.h"

namespace radiotower::daemon {

class ByteArena {
 public:
  /// `size` bytes, writable, until the second begin_turn() from now.
  MutableBytes take(std::size_t size) {
    Half& half = halves_[half_];
    while (half.block < half.blocks.size() && half.blocks[half.block].size - half.used < size) {
      ++half.block;
      half.used = 0;
    }
    if (half.block == half.blocks.size()) {
      const std::size_t room = std::max(size, block_size);
      half.blocks.push_back({std::make_unique_for_overwrite<std::uint8_t[]>(room), room});
      half.used = 0;
    }
    const MutableBytes bytes{half.blocks[half.block].bytes.get() + half.used, size};
    half.used += size;
    return bytes;
  }
  /// Gives back the end of the last take(): `size` bytes of it stay.
  void keep(MutableBytes taken, std::size_t size) { halves_[half_].used -= taken.size() - size; }

  /// Just before a turn of the loop.
  void begin_turn() {
    half_ ^= 1;
    halves_[half_].block = halves_[half_].used = 0;
    // What one busy turn needed is not kept for ever.
    if (halves_[half_].blocks.size() > most_blocks_kept) halves_[half_].blocks.resize(most_blocks_kept);
  }

 private:
  static constexpr std::size_t block_size = 256 << 10, most_blocks_kept = 64;
  struct Block {
    std::unique_ptr<std::uint8_t[]> bytes;
    std::size_t size = 0;
  };
  struct Half {
    std::vector<Block> blocks;
    std::size_t block = 0, used = 0;
  };
  Half halves_[2];
  unsigned half_ = 0;
};

}  // namespace radiotower::daemon
