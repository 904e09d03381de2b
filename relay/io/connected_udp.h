// A UDP socket for one peer beside those that others share by SO_REUSEPORT on the same address.
#pragma once

#include "radiotower/io/socket.h"
#include "radiotower/net/address.h"

namespace radiotower::io {

/// Bound to `local` and connected to `peer`: the kernel gives it what comes from there, whatever else is bound to `local` (with SO_REUSEPORT, by this
/// user). It never takes part in that group, not even for a moment: one more member would move the clients of all the others, and an
/// unconnected one draws them. So it is bound to the port alone, in a slot of the kernel's that is looked at last, and gets its
/// address with the peer. EADDRNOTAVAIL when the way to the peer begins at another address of this host.
/// On failure: an empty Socket, errno in `error`.
Socket open_connected_udp(const net::TransportAddress& local, const net::TransportAddress& peer, UdpOptions options, int& error);

}  // namespace radiotower::io
