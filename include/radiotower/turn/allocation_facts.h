// What an operator may know of one allocation: a copy, made between two turns of the loop.
#pragma once

#include <cstdint>
#include <string>

#include "radiotower/base/time.h"
#include "radiotower/net/address.h"
#include "radiotower/turn/actions.h"

namespace radiotower::turn {

struct AllocationFacts {
  RelayId id;
  unsigned worker = 0;  // whose table `id` is of: both together name an allocation of the process
  std::string user;   // raw, as it came
  std::string realm;  // empty: the default one
  net::FiveTuple five_tuple;
  bool has_client = true;          // false: its connection has gone and it waits for its client's ticket (RFC 8016)
  net::TransportAddress relayed;   // as the client knows it
  net::TransportAddress relayed2;  // of a dual allocation; port 0: none
  net::Transport relay_transport = net::Transport::udp;  // tcp: RFC 6062
  seconds age{0};
  seconds expires_in{0};
  std::uint32_t permissions = 0, channels = 0;
  std::uint32_t shortcuts = 0;  // channels that pass by the core (offload)
  std::uint64_t bytes_to_peer = 0, bytes_to_client = 0, packets_to_peer = 0, packets_to_client = 0;  // payload, as of count_shortcuts()
};

}  // namespace radiotower::turn
