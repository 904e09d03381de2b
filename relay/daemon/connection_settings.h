// What an operator can set of the connections of clients, beside turn::Settings; and how many there are. Both are of the whole relay.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "radiotower/base/siphash.h"
#include "radiotower/net/address.h"
#include "radiotower/tls/identity.h"

namespace radiotower::daemon {

/// Immutable once made; a reload makes a new one and every worker swaps it between two turns of its loop.
struct ConnectionSettings {
  std::shared_ptr<const tls::Identity> identity;  // null: no TLS, no DTLS
  std::uint32_t per_source = 256;                 // connections of one address, of IPv6 of one /64; 0: no limit
  std::uint32_t total = 0;                        // of the whole relay; 0: see ConnectionCounts
  std::vector<net::AddressRange> proxy_protocol_from;  // front ends: each connection of theirs begins with a PROXY header
  bool is_front_end(const net::IpAddress& ip) const {
    for (const auto& range : proxy_protocol_from)
      if (range.contains(ip)) return true;
    return false;
  }
};

/// The connections that clients hold, over all workers. Asked when one comes and when one goes, never for a message. Thread-safe.
class ConnectionCounts {
 public:
  /// `most`: of the relay, whatever the settings say, so that some descriptors are left for relay ports.
  explicit ConnectionCounts(const HashKey& key, std::size_t most = SIZE_MAX) : most_(most), sources_(0, Hash{key}) {}

  /// One more of the relay. False: there are `limit` already (0: as many as may ever be).
  bool enter(std::uint32_t limit);
  void leave();
  /// One more of this source, likewise.
  bool enter(const net::IpAddress& source, std::uint32_t limit);
  void leave(const net::IpAddress& source);

  std::size_t total() const { return total_.load(std::memory_order_relaxed); }
  std::size_t sources() const;

 private:
  struct Hash {
    HashKey key;
    std::size_t operator()(const net::IpAddress& ip) const { return siphash13(key, ip.bytes); }
  };
  const std::size_t most_;
  std::atomic<std::size_t> total_{0};
  mutable std::mutex mutex_;
  std::unordered_map<net::IpAddress, std::uint32_t, Hash> sources_;
};

}  // namespace radiotower::daemon
