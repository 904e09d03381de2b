// The TCP sockets of a ring.
//
// Receives: one multishot recv a stream, with the buffers that the datagrams use; the bytes stand at a buffer's beginning. A stream that
// fills a whole buffer has more to give than others should wait for: its receive is cancelled, and it gets one buffer a turn until one
// comes with next to nothing in it. Its receive window does the rest.
// Accepts: a poll and accept4(2), which tells the address as well; POLLIN of one shot is armed again as long as connections wait.
// A stream has one receive at a time, even while that is being cancelled, so that its bytes keep their order.
#pragma once

#include <liburing.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "stream_calls.h"
#include "uring_setup.h"

namespace radiotower::io {

class Submissions {
 public:
  /// nullptr when the kernel takes nothing for now.
  virtual io_uring_sqe* entry() = 0;

 protected:
  ~Submissions() = default;
};

class UringStreams {
 public:
  /// All of the loop's: `cancels` are the user_data of what it is to cancel, `armed` the sockets that are as they should be.
  UringStreams(Submissions& submissions, SocketTable& sockets, LoopCounters& counters, std::vector<std::uint64_t>& cancels, std::size_t& armed)
      : submissions_(submissions), sockets_(sockets), counters_(counters), cancels_(cancels), armed_(armed) {}

  SocketId add(Socket socket, std::uint64_t cookie, SocketKind kind);
  void forget(SocketId id, SocketTable::Slot& slot);  // it is about to be removed
  void want_writable(SocketId id);
  void pause(SocketId id);
  void resume(SocketId id);
  void release(SocketId id);

  // Of a turn, in this order.
  void arm();
  bool unfinished() const { return !to_arm_.empty() || !to_watch_.empty() || !released_.empty(); }
  nanoseconds limit(nanoseconds timeout) const { return starved_.limit(timeout); }
  void received(const io_uring_cqe& cqe, std::uint8_t* buffer, Receiver& receiver);
  void writable(const io_uring_cqe& cqe, Receiver& receiver);
  void acceptable(const io_uring_cqe& cqe, Receiver& receiver);
  void give_up_released(Receiver& receiver);

 private:
  SocketTable::Slot* find(SocketId id);  // a stream that is not on its way out
  void cancel_receive(SocketId id, const SocketTable::Slot& slot);
  void cancel_watch(SocketId id, const SocketTable::Slot& slot);
  bool arm(SocketId id, SocketTable::Slot& slot);
  bool watch(SocketId id, SocketTable::Slot& slot);
  void receive_ended(SocketId id, int result, Receiver& receiver);
  void count(SocketTable::Slot& slot);

  Submissions& submissions_;
  SocketTable& sockets_;
  LoopCounters& counters_;
  std::vector<std::uint64_t>& cancels_;
  std::size_t& armed_;
  std::vector<SocketId> to_arm_, to_watch_, now_;
  std::vector<SocketId> released_, released_now_;
  Starved starved_;
};

}  // namespace radiotower::io
