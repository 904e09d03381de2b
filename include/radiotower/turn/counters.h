// Plain integers of one worker. Written by its thread alone; read relaxed by others through std::atomic_ref.
#pragma once

#include <cstdint>
#include <string_view>

namespace radiotower::turn {

// name, what it counts. The order is the order in which they are printed.
#define RADIOTOWER_TURN_COUNTERS(X)                                            \
  X(packets_to_peer) X(bytes_to_peer) X(packets_to_client) X(bytes_to_client)  \
  X(stun_requests) X(binding_answers) X(error_answers)                         \
  X(allocations_made) X(allocations_ended) X(allocations_moved)                \
  X(shortcut_packets_to_peer)   /* of packets_to_peer: past the core */        \
  X(shortcut_packets_to_client) /* of packets_to_client, likewise */           \
  X(shortcuts_refused)          /* the tables were full: relayed here */       \
  X(dropped_not_ours)           /* neither STUN nor ChannelData */             \
  X(dropped_bad_source)         /* port 0, multicast, our own listener */      \
  X(dropped_malformed)          /* not a well-formed STUN message */           \
  X(dropped_bad_fingerprint)                                                   \
  X(dropped_unknown_method)     /* or class that the method does not have */   \
  X(dropped_bad_indication)                                                    \
  X(dropped_bad_channel_data)                                                  \
  X(dropped_no_allocation)                                                     \
  X(dropped_no_channel)                                                        \
  X(dropped_no_permission)      /* from the client, to a peer without one */   \
  X(dropped_peer_no_permission) /* from a peer without one */                  \
  X(dropped_peer_denied)        /* permitted once, refused since a reload */   \
  X(dropped_no_client)          /* from a peer, while the client is away */    \
  X(dropped_dead_relay_port)    /* our own address, no live relayed port */    \
  X(dropped_user_limit)         /* bytes or packets a second */                \
  X(dropped_answer_limit)       /* error or Binding answers to one source */   \
  X(dropped_answer_too_large)   /* would be over three times its request */    \
  X(icmp_to_client) X(icmp_ignored)                                            \
  X(peer_connects) X(peer_connects_failed)      /* RFC 6062: Connects that went out */       \
  X(peer_accepts) X(peers_turned_away)          /* from peers; without permission or room */ \
  X(peer_connections_joined) X(peer_connections_ended)                         \
  X(redirects)                  /* 300 */                                      \
  X(handed_over)                /* to another worker */

struct Counters {
#define RADIOTOWER_X(name) std::uint64_t name = 0;
  RADIOTOWER_TURN_COUNTERS(RADIOTOWER_X)
#undef RADIOTOWER_X

  /// Datagrams that nobody with an allocation has sent, as a rule: what a flood is made of.
  std::uint64_t strangers() const {
    return dropped_not_ours + dropped_bad_source + dropped_malformed + dropped_bad_fingerprint + dropped_unknown_method + dropped_bad_channel_data +
           dropped_no_allocation + dropped_answer_limit + dropped_answer_too_large + error_answers + binding_answers;
  }

  template <typename Visit>
  void for_each(Visit&& visit) const {
#define RADIOTOWER_X(name) visit(std::string_view(#name), name);
    RADIOTOWER_TURN_COUNTERS(RADIOTOWER_X)
#undef RADIOTOWER_X
  }
};

}  // namespace radiotower::turn
