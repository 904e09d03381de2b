// What the program in the driver and the daemon share: the layout of the maps, and the outcomes by name. Plain C, since
// the program is. Everything that stands on the wire is kept here as it stands there, in network order.
#pragma once

#include <linux/types.h>

#ifdef __cplusplus
namespace radiotower::offload {
#endif

// Each packet the program sees has one of these. "forwarded" and the dropped ones end here; all others go up to user
// space unchanged.
#define RADIOTOWER_OFFLOAD_OUTCOMES(X)                                                                            \
  X(forwarded)                                                                                                    \
  X(dropped_over_limit) /* the user's bucket of bytes or of packets is empty */                                   \
  X(passed_not_ip)      /* ARP and so on, or a first half-byte that denies the Ethernet type */                   \
  X(passed_vlan)        /* a tag is inside the frame */                                                           \
  X(passed_not_unicast) /* to a multicast or broadcast Ethernet address */                                        \
  X(passed_truncated)   /* the frame ends inside a header */                                                      \
  X(passed_not_udp)                                                                                               \
  X(passed_ip_options)                                                                                            \
  X(passed_extension_header)                                                                                      \
  X(passed_fragment)                                                                                              \
  X(passed_not_ours)  /* to an address that is neither a listener's nor a relay's */                              \
  X(passed_not_alive) /* keep_alive has run out: the daemon hangs or is gone */                                   \
  X(passed_ip_checksum)                                                                                           \
  X(passed_ip_length)        /* more than the frame holds, or no room for a UDP header */                         \
  X(passed_udp_length)       /* not what IP says */                                                               \
  X(passed_not_channel_data) /* STUN, or a peer without a channel */                                              \
  X(passed_channel_length)   /* ChannelData with padding, or cut off */                                           \
  X(passed_no_flow)          /* ChannelData of a channel that is not here */                                      \
  X(passed_stale)            /* an entry whose flow has ended this moment */                                      \
  X(passed_expired)                                                                                               \
  X(passed_hop_limit)        /* TTL or hop limit of 1 or 0 */                                                     \
  X(passed_no_checksum)      /* UDP without a checksum, from or to IPv6 */                                        \
  X(passed_partial_checksum) /* a local sender left the checksum to hardware that this frame will not meet */     \
  X(passed_forwarding_off)   /* net.ipv4.conf.lo.forwarding or net.ipv6.conf.lo.forwarding is 0 */                \
  X(passed_no_route)                                                                                              \
  X(passed_no_neighbour) /* user space sends, the kernel asks for the neighbour, and the next one is forwarded */ \
  X(passed_too_big)      /* for the path: the kernel fragments what user space sends */                           \
  X(passed_not_attached) /* leaves by an interface that the offload is not on */                                  \
  X(passed_no_room)      /* the driver gives no headroom for a longer header */

enum Verdict {
#define RADIOTOWER_OUTCOME(name) outcome_##name,
  RADIOTOWER_OFFLOAD_OUTCOMES(RADIOTOWER_OUTCOME)
#undef RADIOTOWER_OUTCOME
      outcome_count
};

// Canonical as in net::IpAddress: IPv4 is ::ffff:a.b.c.d. The prefix adds 0xffff to an internet checksum, which is a
// zero there, so that one sum serves both families.
struct Address {
  __u32 words[4];
};

// Of a datagram; also the key of `from_peer` {peer, relay}.
struct Path {
  struct Address source, destination;
  __u16 source_port, destination_port;
};

// Of `from_client`: {client, listener} and the channel.
struct ClientKey {
  struct Path path;
  __u16 channel;
  __u16 zero;
};

// The value of both maps is the flow's id alone, one word, so that a reader sees one flow or another and never half of
// each: the kernel uses a deleted entry's memory again at once.
typedef __u64 FlowWord;  // generation << 32 | slot

// One direction of a flow: how its packets leave, and how many have. A cache line of its own: RSS keeps a direction on
// one CPU, where an atomic add to a line that nobody else writes costs a few nanoseconds. In a PERCPU map the daemon
// would need a system call a flow and second to read what it reads here from memory.
struct Direction {
  struct Path path;
  __u16 channel;
  __u16 unused;
  __u64 packets, bytes;  // payload
  __u64 dropped;
} __attribute__((aligned(64)));

struct Slot {
  __s64 until;   // CLOCK_MONOTONIC, nanoseconds; 0 ends a flow with one store, before its entries are gone
  FlowWord id;   // 0: free, or waiting to be
  __u32 bucket;  // index, or no_bucket
  __u32 generation;
} __attribute__((aligned(32)));

// Slot i has the directions 2i and 2i + 1.
#define RADIOTOWER_TO_PEER 0
#define RADIOTOWER_TO_CLIENT 1

#define RADIOTOWER_NO_BUCKET 0xffffffffu

// The program's view of radiotower::Bucket (base/bucket.h).
struct BucketWords {
  __s64 bytes_full_at, packets_full_at;
  __u64 byte_rate, packet_rate;
} __attribute__((aligned(64)));

struct Control {
  __s64 alive_until;
  // A frame that leaves by the interface it came in by is redirected too. Set for veth, which wakes the other end for
  // an XDP_TX only if that has a program of its own; network cards do XDP_TX at less cost.
  __u32 redirects_back;
};

#ifdef __cplusplus
}  // namespace radiotower::offload
#endif
