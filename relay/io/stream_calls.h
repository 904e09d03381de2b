// What both loops do alike with TCP sockets: accept, write, ask for the error of one.
#pragma once

#include <cstddef>
#include <vector>

#include "loop_common.h"

namespace radiotower::io {

/// On its way to be connected, or closed: the latter may be a connect that has failed already.
bool is_connecting(int descriptor);

/// By a call of its own in both loops: one call a turn takes many messages, and a short count must be known at once.
std::ptrdiff_t write_stream(SocketTable& sockets, SocketId id, const iovec* pieces, std::size_t count, LoopCounters& counters);
/// SO_ERROR is told by the kernel once; the slot keeps it.
int error_of_stream(SocketTable& sockets, SocketId id);

enum class Accepted {
  done,     // nobody waits, or others shall have their turn first
  starved,  // no descriptors or no memory
  gone      // the receiver has removed the acceptor
};
Accepted accept_some(SocketTable& sockets, SocketId id, Receiver& receiver, LoopCounters& counters);

/// Acceptors that wait for descriptors to become free. They look again a tenth of a second after the first of them found none: the
/// kernel says when connections wait, not when descriptors are free.
class Starved {
 public:
  void add(SocketId id);
  /// `timeout`, cut to the moment when they look again.
  nanoseconds limit(nanoseconds timeout) const;
  /// Moves them behind `ids` once the time has come.
  void take_due(std::vector<SocketId>& ids);

 private:
  std::vector<SocketId> ids_;
  std::int64_t until_ = 0;  // CLOCK_MONOTONIC
};

}  // namespace radiotower::io
