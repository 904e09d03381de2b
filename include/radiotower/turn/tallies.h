// What a Server counts besides Counters, where one integer says too little: requests by method and outcome, ends by reason, lives,
// bytes by the way they take. Fixed arrays of plain integers; written by the worker's thread alone, copied by it when asked.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "radiotower/base/time.h"
#include "radiotower/net/address.h"
#include "radiotower/stun/protocol.h"
#include "radiotower/turn/actions.h"

namespace radiotower::turn {

/// How many values were at most each bound, and what they come to together. Bounds are static: see below.
template <std::size_t N>
struct Histogram {
  std::array<std::uint64_t, N + 1> counts{};  // each value once: at most bound k and more than bound k - 1; the last has the rest
  nanoseconds sum{0};

  void add(nanoseconds value, const std::array<nanoseconds, N>& bounds) {
    ++counts[static_cast<std::size_t>(std::lower_bound(bounds.begin(), bounds.end(), value) - bounds.begin())];
    sum += value;
  }
};

struct Tallies {
  // Requests, by what became of each: an answer of its own method (RFC 8489, 6.3), or none.
  static constexpr std::array<stun::Method, 7> methods{stun::Method::binding,      stun::Method::allocate, stun::Method::refresh,        stun::Method::create_permission,
                                                       stun::Method::channel_bind, stun::Method::connect,  stun::Method::connection_bind};
  static constexpr std::array<std::uint16_t, 19> outcomes{0,   300, 400, 401, 403, 405, 420, 437, 438, 440,  // 0: success
                                                          441, 442, 443, 446, 447, 486, 500, 508, 1};        // 1: no answer, for the bounds on answers
  static constexpr std::uint16_t success = 0, unanswered = 1;
  std::array<std::array<std::uint64_t, outcomes.size()>, methods.size()> requests{};
  std::uint64_t authenticated = 0;  // requests whose sender has proved who he is

  void count(stun::Method method, std::uint16_t outcome) {
    const auto m = std::find(methods.begin(), methods.end(), method);
    const auto o = std::find(outcomes.begin(), outcomes.end(), outcome);
    if (m == methods.end() || o == outcomes.end()) return;  // none is made that is not there; a test compares
    ++requests[static_cast<std::size_t>(m - methods.begin())][static_cast<std::size_t>(o - outcomes.begin())];
  }

  static constexpr std::size_t end_reasons = static_cast<std::size_t>(EndReason::drained) + 1;
  std::array<std::uint64_t, end_reasons> ended{};
  static constexpr std::array<nanoseconds, 8> life_bounds{seconds(1), seconds(10), seconds(60), seconds(300), seconds(900), seconds(3600), seconds(14400), seconds(86400)};
  Histogram<life_bounds.size()> lives;  // of allocations that have ended

  // Payload, as in Counters, and in sum the same, by the way it takes: the client's transport, past the core (offload), or as the bytes
  // of a joined connection (RFC 6062), which are no packets. What comes over UDP is what the others leave: Server::tallies() works it out, and
  // no packet is counted for it.
  enum class Way : std::uint8_t { udp, tcp, tls, dtls, offload, joined_tcp, joined_tls };
  static constexpr std::size_t ways = 7;
  struct Traffic {
    std::uint64_t packets_to_peer = 0, bytes_to_peer = 0, packets_to_client = 0, bytes_to_client = 0;
  };
  std::array<Traffic, ways> traffic{};

  Traffic& of(Way way) { return traffic[static_cast<std::size_t>(way)]; }
  const Traffic& of(Way way) const { return traffic[static_cast<std::size_t>(way)]; }
  static constexpr Way way_of(net::Transport client) {
    switch (client) {
      case net::Transport::tcp: return Way::tcp;
      case net::Transport::tls: return Way::tls;
      case net::Transport::dtls: return Way::dtls;
      case net::Transport::udp: break;
    }
    return Way::udp;
  }
};

/// Allocations as they stand, by the transport of the client, the family of the relayed addresses and their transport.
struct AllocationCounts {
  static constexpr std::array<net::Transport, 4> clients{net::Transport::udp, net::Transport::tcp, net::Transport::tls, net::Transport::dtls};
  enum class Relayed : std::uint8_t { ipv4, ipv6, dual };
  // [client][Relayed][0: udp, 1: tcp (RFC 6062)]
  std::array<std::array<std::array<std::uint64_t, 2>, 3>, clients.size()> now{};
};

}  // namespace radiotower::turn
