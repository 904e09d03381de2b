// The TCP sockets of the epoll loop. Level-triggered: a stream gets one buffer a turn, and is in the set only while there is something to
// hear of it, since EPOLLHUP and EPOLLERR would else be told for ever of one that is paused or has ended.
#pragma once

#include <cstdint>
#include <vector>

#include "stream_calls.h"

namespace radiotower::io {

class EpollStreams {
 public:
  /// All of the loop's.
  EpollStreams(const int& epoll, SocketTable& sockets, LoopCounters& counters) : epoll_(epoll), sockets_(sockets), counters_(counters) {}

  SocketId add(Socket socket, std::uint64_t cookie, SocketKind kind);
  void want_writable(SocketId id);
  void pause(SocketId id);
  void resume(SocketId id);
  void release(SocketId id);

  /// `timeout`, as far as there is nothing to do before.
  nanoseconds begin_turn(nanoseconds timeout);
  /// `buffer`: for what is received, which is then counted in `used`; null when the turn has none left.
  void handle(SocketId id, std::uint32_t events, std::uint8_t* buffer, std::size_t& used, Receiver& receiver);
  void give_up_released(Receiver& receiver);

 private:
  SocketTable::Slot* find(SocketId id);  // a stream that is not on its way out
  bool listen_to(SocketId id, SocketTable::Slot& slot);
  void accept(SocketId id, Receiver& receiver);

  const int& epoll_;
  SocketTable& sockets_;
  LoopCounters& counters_;
  std::vector<SocketId> released_, now_;
  Starved starved_;  // and streams that the kernel had no memory to listen to
};

}  // namespace radiotower::io
