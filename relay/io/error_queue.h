// The error queue of a UDP socket with IP_RECVERR: what ICMP, or the kernel itself, said of datagrams it sent.
#pragma once

#include "radiotower/io/loop.h"

namespace radiotower::io {

/// Empties the queue, at most 64 entries a call, and hands each over.
void drain_error_queue(int descriptor, SocketId socket, std::uint64_t cookie, Receiver& receiver);

/// True for an errno that may be about an earlier datagram and was only reported on this call: an ICMP error that waited on the
/// socket. The call may then be repeated once.
bool may_be_of_an_earlier_datagram(int error);

/// Adds a failed send to the right counter.
void count_send_failure(int error, LoopCounters& counters);

}  // namespace radiotower::io
