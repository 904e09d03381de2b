// The error queue of a UDP socket with IP_RECVERR: what ICMP, or the kernel itself, said of datagrams it sent.
#pragma once

#include "radiotower/io/loop.h"

namespace radiotower::io {

/// Takes the oldest entry off the queue into `error` (but for its socket and cookie). False when the queue is empty.
///
/// Reading matters beyond the news: while entries lie there the socket polls as readable in error, and each entry taken puts the
/// next one's errno on the socket, to be thrown at whatever is sent or received next. So the queue is read until it is empty.
bool read_error_queue(int descriptor, SocketError& error);

/// True for an errno that may be about an earlier datagram and was only reported on this call: an ICMP error that waited on the
/// socket. The call did nothing then, and may be repeated once.
bool may_be_of_an_earlier_datagram(int error);

/// True for an errno that a receive will meet again however often it is repeated: our own mistake, or a kernel that cannot.
bool is_permanent(int error);

/// Adds a failed send of that many datagrams to the right counter.
void count_send_failure(int error, std::size_t datagrams, LoopCounters& counters);

}  // namespace radiotower::io
