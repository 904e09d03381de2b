// A relay's host in a network namespace of the test's own: three veths, static neighbours, and the program on two of
// them. Frames go in by BPF_PROG_TEST_RUN, so that nothing is really sent.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "live_offload.h"
#include "packet.h"

namespace radiotower::test {

/// Enters a network namespace with the interfaces below, once a process. false, and why, when that cannot be (not root,
/// no BPF).
bool enter_namespace(std::string& why);
bool run(const std::string& command);
void set_forwarding(bool v4, bool on);  // net.ipv4.conf.lo.forwarding, net.ipv6...
Time steady_now();

// inside0: 10.0.0.1/24, fd00:1::1/64; the client is 10.0.0.2, fd00:1::2. The program is on it.
// outside0: 10.0.1.1/24, fd00:2::1/64; the peer is 10.0.1.2, fd00:2::2. The program is on it. 10.0.1.9 and fd00:2::9
// have no neighbour entry. aside0: 10.0.2.1/24; a peer 10.0.2.2. The program is not on it.
inline constexpr Mac client_mac{2, 0, 0, 0, 1, 2}, peer_mac{2, 0, 0, 0, 2, 2}, inside_mac{2, 0, 0, 0, 1, 1},
    outside_mac{2, 0, 0, 0, 2, 1};
inline constexpr std::uint16_t channel = 0x4001;

struct Result {
  int action = -1;
  Octets frame;
  std::string outcome;
};

struct Call {  // a flow with the addresses above
  offload::Flow flow;
  offload::FlowId id = offload::no_flow;
  Datagram from_client(const Octets& payload) const;  // as ChannelData
  Datagram from_peer(const Octets& payload) const;
};

class Tower {
 public:
  explicit Tower(const std::vector<net::IpAddress>& more_addresses = {});

  static offload::OffloadSettings settings();
  offload::LiveOffload& offload() { return *offload_; }
  Call call(bool client_v4 = true, bool peer_v4 = true);
  Call call(const char* client, const char* peer, std::uint16_t number = channel, const Bucket* bucket = nullptr);

  /// `metadata`: bytes of headroom that the driver has used up.
  Result inside(const Octets& frame) { return run_on(inside_, frame); }
  Result outside(const Octets& frame) { return run_on(outside_, frame); }
  Result inside(const Datagram& d) { return inside(test::frame(d)); }
  Result outside(const Datagram& d) { return outside(test::frame(d)); }
  Result run_on(unsigned interface_index, const Octets& frame, std::uint32_t metadata = 0);
  Result run_uncounted(unsigned interface_index, const Octets& frame,
                       std::uint32_t metadata = 0);  // `outcome` stays empty
  /// Nanoseconds a run. The frame of one run is that of the next, as the program has left it.
  unsigned time(const Octets& frame, unsigned repeat);

  unsigned inside_index() const { return inside_; }
  unsigned outside_index() const { return outside_; }

 private:
  std::unique_ptr<offload::LiveOffload> offload_;
  unsigned inside_ = 0, outside_ = 0;
};

}  // namespace radiotower::test

// Passes over a test with a message.
#define NEEDS_NAMESPACE()                             \
  if (std::string why; !test::enter_namespace(why)) { \
    MESSAGE("skipped: " << why);                      \
    return;                                           \
  }
