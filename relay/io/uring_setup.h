// A ring as the loop wants it: which features, which operations it may do, the ring of receive buffers, the table of files.
#pragma once

#include <liburing.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "buffers.h"

namespace radiotower::io {

// What a completion is about stands in its user_data: the kind, then for a send its epoch (32 bits), which datagram of its entry (8 bits;
// `whole`: all of them as a train), and the entry (16 bits); for what is of a socket the SocketId.
enum class Kind : std::uint64_t { receive = 1, send = 2, cancel = 3, wake = 4, timer = 5, stream = 6, writable = 7, accept = 8 };
constexpr std::uint64_t user_data(Kind kind, std::uint64_t rest) { return static_cast<std::uint64_t>(kind) << 56 | rest; }

struct UringSetup {
  static constexpr unsigned submission_entries = 1024;
  static constexpr std::uint16_t buffer_group = 1;

  UringSetup() = default;
  UringSetup(const UringSetup&) = delete;
  UringSetup& operator=(const UringSetup&) = delete;
  ~UringSetup() { close(); }

  /// False, with a sentence in `why`, where the kernel or a container refuses. `files`: how many sockets there may be.
  bool open(unsigned completions, const Buffers& buffers, std::size_t files, std::string& why);
  void close();
  /// The buffer stands `place` entries behind the last that was made known (io_uring_buf_ring_advance).
  void add_buffer(const Buffers& buffers, std::uint16_t index, int place) const {
    io_uring_buf_ring_add(buffer_ring, buffers.at(index), static_cast<unsigned>(Buffers::headroom + Buffers::payload), index,
                          static_cast<int>(buffers.count() - 1), place);
  }

  io_uring ring{};
  io_uring_buf_ring* buffer_ring = nullptr;
  bool has_files = false;  // a table of files is registered

 private:
  bool register_buffers(const Buffers& buffers, std::string& why);
  void restrict_operations();
  bool register_with_kernel(unsigned operation, const void* argument, unsigned count);

  bool has_ring_ = false;
  std::size_t buffer_ring_size_ = 0;
};

}  // namespace radiotower::io
