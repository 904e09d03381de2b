// SPDX-License-Identifier: BSD-3-Clause OR GPL-2.0-only
// The XDP program: a packet of a bound channel is rewritten and sent on; anything it does not know for certain is
// passed up unchanged. A packet is first judged as a whole, and not one byte of it is changed before it is certain to
// leave.
//
// Written for the verifier of Linux 6.1 with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON. Without the last, kernels
// before 6.8 refuse what a compiler does with the stack ("attempt to corrupt spilled pointer"), and newer ones put a
// barrier against speculation behind each first store to it: 0.6 us a packet instead of 0.18.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>
#include <stdbool.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "maps.h"

// Entries come and go on the control path alone, so nothing is ever allocated here, and a relay with ten channels pays
// for ten.
struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __uint(max_entries, 1);  // this and the others: set by the daemon before it loads
  __type(key, struct ClientKey);
  __type(value, FlowWord);
} from_client SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __uint(max_entries, 1);
  __type(key, struct Path);
  __type(value, FlowWord);
} from_peer SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(map_flags, BPF_F_MMAPABLE);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct Slot);
} slots SEC(".maps");

// Two a slot. A map of its own: an offset that depends on the packet, on a pointer into a map, is for programs with
// CAP_PERFMON.
struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(map_flags, BPF_F_MMAPABLE);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct Direction);
} directions SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(map_flags, BPF_F_MMAPABLE);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct BucketWords);
} buckets SEC(".maps");

// The listeners' and relays' addresses: what is for others is passed after one look-up.
struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, 1);
  __type(key, struct Address);
  __type(value, __u8);
} addresses SEC(".maps");

// Where a redirect may leave.
struct {
  __uint(type, BPF_MAP_TYPE_DEVMAP_HASH);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, __u32);
} egress SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
  __uint(max_entries, outcome_count);
  __type(key, __u32);
  __type(value, __u64);
} outcomes SEC(".maps");

volatile struct Control control;

enum {
  channel_header_size = 4,      // RFC 8656, 12.4
  ipv4_fragment_bits = 0x3fff,  // more fragments, offset
  loopback_index = 1,           // of `lo` in every network namespace
  lost_races = 8,
  sum_chunk = 64,
  sum_chunks = 24,  // 1,536 bytes
};

#define SECOND 1000000000ll
#define FAMILY_IPV4 2
#define FAMILY_IPV6 10

// What the headers say, once they are all good.
struct Packet {
  struct ClientKey key;
  __u16 udp_length;  // host order
  __u16 checksum;    // UDP, as it stands
  __u8 traffic_class;
  __u8 hop_limit;
};

static __always_inline __u16 fold(__u64 sum) {
  sum = (sum & 0xffffffff) + (sum >> 32);
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  return (__u16)sum;
}

// Whether the UDP checksum holds. `sum` is that of the pseudo header; `length` bytes stand at `offset`. Reads the whole
// packet, so only for one whose checksum looks unfinished. A packet too long for it is not said to hold.
static __noinline bool checksum_holds(struct xdp_md* ctx, __u32 offset, __u32 length, __u32 sum) {
  __u32 chunk[sum_chunk / sizeof(__u32)];
#pragma unroll
  for (int i = 0; i < sum_chunks; i++) {
    if (length < sum_chunk) break;
    if (bpf_xdp_load_bytes(ctx, offset, chunk, sum_chunk)) return false;
    sum = (__u32)bpf_csum_diff(0, 0, chunk, sum_chunk, sum);
    offset += sum_chunk;
    length -= sum_chunk;
  }
  if (length >= sum_chunk) return false;
  if (length) {
    __u32 last = length - 1;  // 0 to sum_chunk - 2: before 6.8 the verifier learns nothing from `!= 0`, and a size of 0 is refused
    barrier_var(last);        // or the compiler takes out the mask, from which the verifier learns the bound
    last &= sum_chunk - 1;
    __builtin_memset(chunk, 0, sizeof(chunk));
    if (bpf_xdp_load_bytes(ctx, offset, chunk, last + 1)) return false;
    sum = (__u32)bpf_csum_diff(0, 0, chunk, sum_chunk, sum);
  }
  return fold(sum) == 0xffff;
}

static __always_inline __u64 sum_of_addresses(const struct Path* path) {
  __u64 sum = 0;
  for (int i = 0; i < 4; i++) sum += (__u64)path->source.words[i] + path->destination.words[i];
  return sum;
}

static __always_inline bool is_ipv4(const struct Address* address) {
  return address->words[0] == 0 && address->words[1] == 0 && address->words[2] == bpf_htonl(0xffff);
}

static __always_inline void map_ipv4(struct Address* address, __be32 ipv4) {
  address->words[0] = 0;
  address->words[1] = 0;
  address->words[2] = bpf_htonl(0xffff);
  address->words[3] = ipv4;
}

// RFC 1071 over the 20 bytes of a header without options.
static __always_inline __u16 sum_of_ipv4_header(const struct iphdr* ip) {
  const __u32* words = (const __u32*)ip;
  __u64 sum = 0;
  for (int i = 0; i < 5; i++) sum += words[i];
  return fold(sum);
}

static __always_inline enum Verdict read_ipv4(void* data, void* end, struct Packet* packet) {
  const struct iphdr* ip = data + ETH_HLEN;
  if ((void*)(ip + 1) > end) return outcome_passed_truncated;
  if (ip->version != 4) return outcome_passed_not_ip;
  if (ip->protocol != IPPROTO_UDP) return outcome_passed_not_udp;
  if (ip->ihl != 5) return outcome_passed_ip_options;
  if (ip->frag_off & bpf_htons(ipv4_fragment_bits)) return outcome_passed_fragment;
  map_ipv4(&packet->key.path.source, ip->saddr);
  map_ipv4(&packet->key.path.destination, ip->daddr);
  packet->traffic_class = ip->tos;
  packet->hop_limit = ip->ttl;
  return outcome_forwarded;
}

static __always_inline enum Verdict read_ipv6(void* data, void* end, struct Packet* packet) {
  const struct ipv6hdr* ip = data + ETH_HLEN;
  if ((void*)(ip + 1) > end) return outcome_passed_truncated;
  if (ip->version != 6) return outcome_passed_not_ip;
  switch (ip->nexthdr) {
    case IPPROTO_UDP: break;
    case 44: return outcome_passed_fragment;
    case 0:    // hop-by-hop options
    case 43:   // routing
    case 51:   // authentication
    case 60:   // destination options
    case 135:  // mobility
      return outcome_passed_extension_header;
    default: return outcome_passed_not_udp;
  }
  __builtin_memcpy(&packet->key.path.source, &ip->saddr, sizeof(struct Address));
  __builtin_memcpy(&packet->key.path.destination, &ip->daddr, sizeof(struct Address));
  packet->traffic_class = (__u8)(ip->priority << 4 | ip->flow_lbl[0] >> 4);
  packet->hop_limit = ip->hop_limit;
  return outcome_forwarded;
}

static __always_inline __u32 network_size(bool ipv4) { return ipv4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr); }

// The lengths of all layers must agree to the byte, but that Ethernet may have padded the frame.
static __always_inline enum Verdict check_lengths(void* data, void* end, __u64 frame, bool ipv4,
                                                  struct Packet* packet) {
  const struct udphdr* udp = data + ETH_HLEN + network_size(ipv4);
  __u32 total;
  if ((void*)udp > end) return outcome_passed_truncated;
  if (ipv4) {
    const struct iphdr* ip = data + ETH_HLEN;
    // A new header with a good checksum must not launder a broken one.
    if (sum_of_ipv4_header(ip) != 0xffff) return outcome_passed_ip_checksum;
    total = bpf_ntohs(ip->tot_len);
  } else {
    const struct ipv6hdr* ip = data + ETH_HLEN;
    total = sizeof(*ip) + bpf_ntohs(ip->payload_len);
  }
  if (total + ETH_HLEN > frame || total < network_size(ipv4) + sizeof(*udp)) return outcome_passed_ip_length;
  if ((void*)(udp + 1) > end) return outcome_passed_truncated;
  packet->udp_length = bpf_ntohs(udp->len);
  if (packet->udp_length != total - network_size(ipv4)) return outcome_passed_udp_length;
  packet->key.path.source_port = udp->source;
  packet->key.path.destination_port = udp->dest;
  packet->checksum = udp->check;
  return outcome_forwarded;
}

// The flow of a packet. A peer may send what looks like ChannelData, and the client's channel may be on the same
// address: exact keys tell the two apart, since listener and relay are two sockets of one host.
static __always_inline enum Verdict find_flow(void* data, void* end, bool ipv4, struct Packet* packet, FlowWord* id,
                                              bool* to_peer) {
  enum Verdict nothing = outcome_passed_not_channel_data;
  const __u32 payload = packet->udp_length - sizeof(struct udphdr);
  *to_peer = false;
  if (payload >= channel_header_size) {
    const __be16* header = data + ETH_HLEN + network_size(ipv4) + sizeof(struct udphdr);
    if ((void*)(header + 2) > end) return outcome_passed_truncated;
    if ((header[0] & bpf_htons(0xc000)) == bpf_htons(0x4000)) {
      nothing = outcome_passed_channel_length;
      if (bpf_ntohs(header[1]) + channel_header_size == payload) {
        nothing = outcome_passed_no_flow;
        packet->key.channel = header[0];
        const FlowWord* of_client = bpf_map_lookup_elem(&from_client, &packet->key);
        if (of_client) {
          *id = *(volatile const FlowWord*)of_client;
          *to_peer = true;
          return outcome_forwarded;
        }
      }
    }
  }
  const FlowWord* of_peer = bpf_map_lookup_elem(&from_peer, &packet->key.path);
  if (!of_peer) return nothing;
  *id = *(volatile const FlowWord*)of_peer;
  return outcome_forwarded;
}

// GCRA, the same as user space does on the same words (relay/turn/shared.cpp).
static __always_inline bool take(__s64* full_at, __u64 cost, __s64 now) {
  __s64 was = *(volatile __s64*)full_at;
  // Each lost race is another packet of the same user that went through: whoever loses so many in a row is treated as
  // over the limit.
#pragma unroll  // a counter on the stack is no bound that every verifier sees
  for (int i = 0; i < lost_races; i++) {
    const __s64 next = (was > now ? was : now) + (__s64)cost;
    if (next > now + SECOND && was > now)  // a whole bucket grants even what is larger than it
      return false;
    const __s64 seen = __sync_val_compare_and_swap(full_at, was, next);
    if (seen == was) return true;
    was = seen;
  }
  return false;
}

static __always_inline bool within_limit(struct BucketWords* bucket, __u64 bytes, __s64 now) {
  const __u64 byte_rate = *(volatile __u64*)&bucket->byte_rate;
  const __u64 packet_rate = *(volatile __u64*)&bucket->packet_rate;
  const __u64 packet_cost = packet_rate ? SECOND / packet_rate : 0;
  if (packet_rate && !take(&bucket->packets_full_at, packet_cost, now)) return false;
  if (byte_rate && !take(&bucket->bytes_full_at, bytes * SECOND / byte_rate, now)) {
    if (packet_rate) __sync_fetch_and_add(&bucket->packets_full_at, -(__s64)packet_cost);  // it was not sent
    return false;
  }
  return true;
}

// Asked as if from `lo`, as the kernel does for what the host itself sends: source and destination decide, not where
// the client's packet came in, and forwarding has to be on for `lo` alone, which does not make the host a router.
static __always_inline enum Verdict find_way(struct xdp_md* ctx, const struct Path* path, bool ipv4, __u16 total,
                                             __u8 traffic_class, struct bpf_fib_lookup* way) {
  __builtin_memset(way, 0, sizeof(*way));
  way->l4_protocol = IPPROTO_UDP;
  way->sport = path->source_port;
  way->dport = path->destination_port;
  way->tot_len = total;
  way->ifindex = loopback_index;
  if (ipv4) {
    way->family = FAMILY_IPV4;
    way->tos = traffic_class;
    way->ipv4_src = path->source.words[3];
    way->ipv4_dst = path->destination.words[3];
  } else {
    way->family = FAMILY_IPV6;
    way->flowinfo = bpf_htonl((__u32)traffic_class << 20);
    __builtin_memcpy(way->ipv6_src, &path->source, sizeof(struct Address));
    __builtin_memcpy(way->ipv6_dst, &path->destination, sizeof(struct Address));
  }
  switch (bpf_fib_lookup(ctx, way, sizeof(*way), 0)) {
    case BPF_FIB_LKUP_RET_SUCCESS: return outcome_forwarded;
    case BPF_FIB_LKUP_RET_NO_NEIGH: return outcome_passed_no_neighbour;
    case BPF_FIB_LKUP_RET_FRAG_NEEDED: return outcome_passed_too_big;
    case BPF_FIB_LKUP_RET_FWD_DISABLED: return outcome_passed_forwarding_off;
    default: return outcome_passed_no_route;
  }
}

// `check` with the words of `old` out and those of `new` in (RFC 1624). 0 would mean "no checksum".
static __always_inline __u16 update_checksum(__u16 check, __u64 old, __u64 new) {
  const __u16 updated = (__u16)~fold((__u16)~check + (__u64)(__u16)~fold(old) + new);
  return updated ? updated : 0xffff;
}

// Compiled twice, once for each family that a packet may come in as.
static __always_inline enum Verdict forward(struct xdp_md* ctx, bool was_ipv4, int* action) {
  void *data = (void*)(long)ctx->data, *end = (void*)(long)ctx->data_end;
  const struct ethhdr* ethernet = data;
  struct Packet packet;

  __builtin_memset(&packet, 0, sizeof(packet));
  enum Verdict outcome = was_ipv4 ? read_ipv4(data, end, &packet) : read_ipv6(data, end, &packet);
  if (outcome != outcome_forwarded) return outcome;
  if (ethernet->h_dest[0] & 1) return outcome_passed_not_unicast;
  if (!bpf_map_lookup_elem(&addresses, &packet.key.path.destination)) return outcome_passed_not_ours;

  // Not earlier: where the clock is no register of the CPU, the host's other traffic need not pay for it.
  const __s64 now = (__s64)bpf_ktime_get_ns();
  if (now >= control.alive_until) return outcome_passed_not_alive;

  // A pointer and a length of the packet's own, or the difference of two pointers, are for programs with CAP_PERFMON.
  const __u64 frame = bpf_xdp_get_buff_len(ctx);
  outcome = check_lengths(data, end, frame, was_ipv4, &packet);
  if (outcome != outcome_forwarded) return outcome;

  FlowWord id = 0;
  bool to_peer = false;
  outcome = find_flow(data, end, was_ipv4, &packet, &id, &to_peer);
  if (outcome != outcome_forwarded) return outcome;
  const __u32 index = (__u32)id;
  struct Slot* slot = bpf_map_lookup_elem(&slots, &index);
  if (!slot || *(volatile FlowWord*)&slot->id != id) return outcome_passed_stale;
  if (now >= *(volatile __s64*)&slot->until) return outcome_passed_expired;
  if (packet.hop_limit <= 1) return outcome_passed_hop_limit;

  const __u32 direction = 2 * index + (to_peer ? RADIOTOWER_TO_PEER : RADIOTOWER_TO_CLIENT);
  struct Direction* out = bpf_map_lookup_elem(&directions, &direction);
  if (!out) return outcome_passed_stale;
  const bool ipv4 = is_ipv4(&out->path.source);
  const __u32 udp_length = to_peer ? packet.udp_length - channel_header_size : packet.udp_length + channel_header_size;
  const __u16 payload = (to_peer ? udp_length : packet.udp_length) - sizeof(struct udphdr);

  if (network_size(ipv4) + udp_length > 0xffff) return outcome_passed_too_big;

  const __u64 was_sum = sum_of_addresses(&packet.key.path);
  if (packet.checksum == 0 && !(was_ipv4 && ipv4)) return outcome_passed_no_checksum;
  // A sender on this machine, across a veth, leaves the sum of the pseudo header there for a network card to finish.
  // One in 65,536 others looks the same.
  const __u16 pseudo_sum = fold(was_sum + bpf_htons(IPPROTO_UDP) + bpf_htons(packet.udp_length));
  if (packet.checksum == pseudo_sum &&
      !checksum_holds(ctx, ETH_HLEN + network_size(was_ipv4), packet.udp_length, pseudo_sum))
    return outcome_passed_partial_checksum;

  struct bpf_fib_lookup way;
  outcome = find_way(ctx, &out->path, ipv4, network_size(ipv4) + udp_length, packet.traffic_class, &way);
  if (outcome != outcome_forwarded) return outcome;
  const __u32 leaves_by = way.ifindex;
  const bool turns_round = leaves_by == ctx->ingress_ifindex && !control.redirects_back;
  if (!turns_round && !bpf_map_lookup_elem(&egress, &leaves_by)) return outcome_passed_not_attached;

  // Last of all, so that what goes up is charged there and not twice.
  const __u32 bucket_index = slot->bucket;
  if (bucket_index != RADIOTOWER_NO_BUCKET) {
    struct BucketWords* bucket = bpf_map_lookup_elem(&buckets, &bucket_index);
    if (!bucket) return outcome_passed_stale;
    if (!within_limit(bucket, payload, now)) {
      __sync_fetch_and_add(&out->dropped, 1);
      *action = XDP_DROP;
      return outcome_dropped_over_limit;
    }
  }

  // From here on the packet is ours. Ethernet's padding goes first: behind a longer header it would be taken for more.
  const __u32 used = ETH_HLEN + network_size(was_ipv4) + packet.udp_length;
  if (used < frame && bpf_xdp_adjust_tail(ctx, (int)(used - frame))) return outcome_passed_no_room;
  const int longer = (int)(network_size(ipv4) + udp_length) - (int)(network_size(was_ipv4) + packet.udp_length);
  if (bpf_xdp_adjust_head(ctx, -longer)) return outcome_passed_no_room;

  data = (void*)(long)ctx->data;
  end = (void*)(long)ctx->data_end;
  struct ethhdr* new_ethernet = data;
  struct udphdr* udp;
  *action = XDP_ABORTED;  // the three ways out below exist for the verifier alone: the frame is as long as it was made
  if (ipv4) {
    struct iphdr* ip = data + ETH_HLEN;
    if ((void*)(ip + 1) > end) return outcome_passed_truncated;
    ip->version = 4;
    ip->ihl = 5;
    ip->tos = packet.traffic_class;
    ip->tot_len = bpf_htons(network_size(ipv4) + udp_length);
    // RFC 8656, 14: DF is set for DONT-FRAGMENT alone, which is a matter of Send indications. Without DF the
    // identification counts.
    ip->id = (__u16)bpf_get_prandom_u32();
    ip->frag_off = 0;
    ip->ttl = packet.hop_limit - 1;
    ip->protocol = IPPROTO_UDP;
    ip->check = 0;
    ip->saddr = out->path.source.words[3];
    ip->daddr = out->path.destination.words[3];
    ip->check = (__u16)~sum_of_ipv4_header(ip);
    udp = (void*)(ip + 1);
    new_ethernet->h_proto = bpf_htons(ETH_P_IP);
  } else {
    struct ipv6hdr* ip = data + ETH_HLEN;
    if ((void*)(ip + 1) > end) return outcome_passed_truncated;
    ip->version = 6;
    ip->priority = packet.traffic_class >> 4;
    ip->flow_lbl[0] = (__u8)(packet.traffic_class << 4);
    ip->flow_lbl[1] = 0;
    ip->flow_lbl[2] = 0;
    ip->payload_len = bpf_htons(udp_length);
    ip->nexthdr = IPPROTO_UDP;
    ip->hop_limit = packet.hop_limit - 1;
    __builtin_memcpy(&ip->saddr, &out->path.source, sizeof(struct Address));
    __builtin_memcpy(&ip->daddr, &out->path.destination, sizeof(struct Address));
    udp = (void*)(ip + 1);
    new_ethernet->h_proto = bpf_htons(ETH_P_IPV6);
  }
  __builtin_memcpy(new_ethernet->h_dest, way.dmac, ETH_ALEN);
  __builtin_memcpy(new_ethernet->h_source, way.smac, ETH_ALEN);

  // Twice: in the pseudo header and in the header. The ChannelData header is two words of the payload, on an even
  // offset.
  __u64 old = was_sum + packet.key.path.source_port + packet.key.path.destination_port +
              2 * (__u64)bpf_htons(packet.udp_length);
  __u64 new = sum_of_addresses(&out->path) + out->path.source_port + out->path.destination_port +
              2 * (__u64)bpf_htons(udp_length);
  const __u64 header_sum = (__u64)out->channel + bpf_htons(payload);
  if (to_peer)
    old += header_sum;
  else
    new += header_sum;
  if ((void*)(udp + 1) > end) return outcome_passed_truncated;
  udp->source = out->path.source_port;
  udp->dest = out->path.destination_port;
  udp->len = bpf_htons(udp_length);
  udp->check = packet.checksum ? update_checksum(packet.checksum, old, new) : 0;
  if (!to_peer) {
    __be16* header = (void*)(udp + 1);
    if ((void*)(header + 2) > end) return outcome_passed_truncated;
    header[0] = out->channel;
    header[1] = bpf_htons(payload);
  }

  __sync_fetch_and_add(&out->packets, 1);
  __sync_fetch_and_add(&out->bytes, payload);
  *action = turns_round ? XDP_TX : (int)bpf_redirect_map(&egress, leaves_by, 0);
  return outcome_forwarded;
}

static __always_inline enum Verdict judge(struct xdp_md* ctx, int* action) {
  const struct ethhdr* ethernet = (void*)(long)ctx->data;
  if ((void*)(ethernet + 1) > (void*)(long)ctx->data_end) return outcome_passed_truncated;
  switch (ethernet->h_proto) {
    case bpf_htons(ETH_P_IP): return forward(ctx, true, action);
    case bpf_htons(ETH_P_IPV6): return forward(ctx, false, action);
    case bpf_htons(ETH_P_8021Q):
    case bpf_htons(ETH_P_8021AD): return outcome_passed_vlan;
    default: return outcome_passed_not_ip;
  }
}

SEC("xdp")
int channels(struct xdp_md* ctx) {
  int action = XDP_PASS;
  const __u32 outcome = judge(ctx, &action);
  __u64* packets = bpf_map_lookup_elem(&outcomes, &outcome);
  if (packets) ++*packets;  // of this CPU, and XDP does not interrupt itself
  return action;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
