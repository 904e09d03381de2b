// Receive buffers of one loop: each holds the largest datagram there is, with room in front and behind.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <new>

#include "radiotower/base/bytes.h"

namespace radiotower::io {

class Buffers {
 public:
  static constexpr std::size_t headroom = 72;  // what stands in front of a payload: 16 bytes of io_uring_recvmsg_out, 32 of name, 24 of control
  static constexpr std::size_t payload = 65536;
  static constexpr std::size_t tailroom = 16;
  // The stride keeps neighbours off each other's cache sets: at 64 KiB apart every buffer's first kilobyte, which is all that most
  // packets touch, would fall on the same few sets of L1 and L2. 2,048 + 192 more spreads 512 of them evenly.
  static constexpr std::size_t stride = payload + 2048 + 192;
  static_assert(headroom + payload + tailroom <= stride);

  /// Address space is taken at once, memory only where packets touch it.
  explicit Buffers(std::size_t count) : count_(count) {
    void* memory = mmap(nullptr, count * stride, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    madvise(memory, count * stride, MADV_NOHUGEPAGE);  // a huge page would make every untouched tail real memory
    memory_ = static_cast<std::uint8_t*>(memory);
  }
  ~Buffers() { munmap(memory_, count_ * stride); }
  Buffers(const Buffers&) = delete;
  Buffers& operator=(const Buffers&) = delete;

  std::uint8_t* at(std::size_t index) const { return memory_ + index * stride; }
  std::size_t count() const { return count_; }

 private:
  std::uint8_t* memory_ = nullptr;
  std::size_t count_;
};

}  // namespace radiotower::io
