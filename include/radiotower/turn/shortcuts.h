// A shortcut lets the packets of one bound channel pass without the core seeing them, both ways, until a time. The core
// decides which channels may have one, and says so through this interface; what carries the packets it does not know.
//
// The calls are made in the midst of Server's own, and not as Actions: what a request ends must not be forwarded until
// the caller finds time, and the counts of a channel belong into the event that tells of its allocation's end.
//
// Nothing else of the core waits for packets: permissions, channels and allocations live by requests alone (RFC 8656, 9
// and 12: sending refreshes nothing), so one that has become a shortcut neither ends early nor lives on for want of
// packets seen.
#pragma once

#include <cstdint>

#include "radiotower/base/bucket.h"
#include "radiotower/base/time.h"
#include "radiotower/net/address.h"

namespace radiotower::turn {

/// Addresses as they stand on the wire: `relay` is the local form of the relayed address, `peer` is where the peer is
/// really sent to.
struct Shortcut {
  net::FiveTuple five_tuple;
  net::TransportAddress relay;
  net::TransportAddress peer;
  std::uint16_t channel = 0;
  const Bucket* bucket = nullptr;  // the user's limit, to be taken from for each packet; nullptr: none. Outlives this
};

/// Since the shortcut was given. Payload, without the ChannelData header, as Counters have it.
struct ShortcutCounts {
  std::uint64_t packets_to_peer = 0, bytes_to_peer = 0;
  std::uint64_t packets_to_client = 0, bytes_to_client = 0;
  std::uint64_t dropped_user_limit = 0;  // packets, both ways
};

using ShortcutId = std::uint64_t;
inline constexpr ShortcutId no_shortcut = 0;

/// Every id that give() returned is taken back once. Called on the thread of the Server that it belongs to.
class Shortcuts {
 public:
  /// no_shortcut: there is no room, or no way; every packet then goes on coming to the core.
  virtual ShortcutId give(const Shortcut& shortcut, Time until) = 0;
  virtual void move(ShortcutId shortcut, Time until) = 0;
  virtual ShortcutCounts counts(ShortcutId shortcut) = 0;
  /// Nothing passes any more once this has returned. The last counts.
  virtual ShortcutCounts take_back(ShortcutId shortcut) = 0;

 protected:
  ~Shortcuts() = default;
};

}  // namespace radiotower::turn
