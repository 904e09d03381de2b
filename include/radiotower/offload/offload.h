// The XDP fast path: once a channel is bound, its packets are rewritten and sent on by a program in the network driver and never
// reach a socket. User space stays the always-correct path: whatever the program does not know for certain, it passes up.
//
// Knows addresses and channel numbers, and no STUN. One object a process; everything but start() may be called from any thread, on
// the control path (it takes a lock), save counts(), extend() and stop_flow(), which touch memory shared with the program and no lock.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "radiotower/base/bucket.h"
#include "radiotower/base/time.h"
#include "radiotower/net/address.h"

namespace radiotower::offload {

/// One channel, both ways. All four addresses are as they stand on the wire: `relay` is the local form of the relayed address.
struct Flow {
  net::TransportAddress client, listener;  // ChannelData between these
  net::TransportAddress relay, peer;       // bare UDP between these; either family, also another one than the client's
  std::uint16_t channel = 0;
  const Bucket* bucket = nullptr;  // of buckets(); nullptr: no limit
};

/// A handle that is never used again for another flow while somebody may hold it: index and generation.
using FlowId = std::uint64_t;
inline constexpr FlowId no_flow = 0;

struct Counts {  // payload, as turn::Counters have it: without the ChannelData header
  std::uint64_t packets_to_peer = 0, bytes_to_peer = 0;
  std::uint64_t packets_to_client = 0, bytes_to_client = 0;
  std::uint64_t dropped_over_limit = 0;  // packets, both ways
};

/// Of the program, over all flows and interfaces; why packets went up to user space, by name (see outcomes in maps.h).
struct Outcome {
  std::string_view name;  // "forwarded", "passed_not_ours", "passed_expired", "passed_no_neighbour", "dropped_over_limit" ...
  std::uint64_t packets = 0;
};

struct Interface {
  std::string name;
  bool generic_allowed = false;  // generic mode only when asked for
};

struct OffloadSettings {
  bool automatic = false;             // every interface that carries a listener or a relay address and whose driver has native XDP
  std::vector<Interface> interfaces;  // when not automatic: these, and a failure of one is an error
  std::vector<net::IpAddress> addresses;  // of the listeners and relays: for `automatic`, and what the program looks at at all
  std::size_t max_flows = 65536;
  std::size_t max_users = 16384;
};

struct Attached {
  std::string name;
  unsigned index = 0;
  bool native = false;
};

class Offload {
 public:
  virtual ~Offload() = default;  // detaches; the kernel does the same when the process dies, since nothing is pinned

  /// What it runs on, and one sentence for each interface that was left out ("eth0: the driver has no native XDP").
  virtual const std::vector<Attached>& attached() const = 0;
  virtual const std::vector<std::string>& notes() const = 0;

  /// Forwards until `until`. no_flow: the tables are full, a flow with these addresses is there already, or they are none
  /// that can be forwarded (listener or relay not among the settings' addresses, a peer or client that is, loopback,
  /// link-local); user space then does it. A slot rests a second after remove(), so that a table may be full for so long.
  virtual FlowId add(const Flow& flow, Time until) = 0;
  /// Moves the end, forwards or back; one store. Unknown ids are ignored.
  virtual void extend(FlowId flow, Time until) = 0;
  /// Nothing is forwarded once this has returned, but for packets that the program holds at this moment on another CPU. Takes the map
  /// entries back, and returns the last counts.
  virtual Counts remove(FlowId flow) = 0;
  virtual Counts counts(FlowId flow) const = 0;

  /// Buckets that the program sees too.
  virtual BucketSource& buckets() = 0;

  /// The program forwards only until this moment, and passes everything up afterwards: so neither a link that somebody has pinned nor a
  /// process that hangs leaves a forward behind. To be called every few dozen milliseconds.
  virtual void keep_alive(Time until) = 0;

  virtual std::vector<Outcome> outcomes() const = 0;
  virtual std::size_t flows() const = 0;
};

/// Loads, fills and attaches. nullptr and a sentence for the operator in `why` ("the kernel refuses BPF: Operation not
/// permitted; the unit needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, see systemd/radiotower-relay-offload.conf"). Built
/// without libbpf it says so.
/// Needs these three; nothing else here does, so that the process may drop them afterwards. From Linux 6.8 it starts
/// without CAP_PERFMON too, and a packet costs three times as much (the kernel's barriers against speculation).
/// Needs net.ipv4.conf.lo.forwarding = 1 and net.ipv6.conf.lo.forwarding = 1, which make the host no router: the kernel
/// tells a program the way of a packet only for an interface that forwards, and the program asks as if from lo.
/// A veth is taken only if its other end polls (`ethtool -K NAME gro on` there).
/// The first beat of keep_alive is the caller's: until then everything goes up.
std::unique_ptr<Offload> start(const OffloadSettings& settings, std::string& why);

/// "libbpf 1.1, program compiled in", "not compiled in".
std::string_view compiled_in();

}  // namespace radiotower::offload
