// What the way through a relay is like: packets there and back, how many are lost, how long they take, how large they may be.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "../client.h"
#include "../peer.h"

namespace radiotower::cli {

/// A second allocation as the peer, by a channel, so that a packet has the same size on both of its ways. The client holds its allocation, and
/// has bound `channel` to `relayed`.
class ChannelPeer final : public Peer {
 public:
  ChannelPeer(Client& client, std::uint16_t channel, const net::TransportAddress& relayed) : client_(client), channel_(channel), relayed_(relayed) {}
  net::TransportAddress address() const override { return client_.relayed(); }
  int send(Bytes payload) override { return client_.send_channel_data(channel_, payload); }
  std::optional<std::vector<std::uint8_t>> receive(Clock::time_point deadline) override;

 private:
  Client& client_;
  std::uint16_t channel_;
  net::TransportAddress relayed_;
};

struct Echo {
  unsigned sent = 0;
  unsigned reached_peer = 0;
  std::vector<Clock::duration> trips;  // there and back, of those that came back, the shortest first
  std::string fault;                   // a sentence when something came that must never come, or sending failed

  unsigned came_back() const { return static_cast<unsigned>(trips.size()); }
  unsigned lost() const { return sent - came_back(); }
  Clock::duration median() const { return trips.empty() ? Clock::duration{} : trips[trips.size() / 2]; }
};

/// One packet after the other through a channel, each sent back by the peer. Ends early when nothing has come back after a few,
/// or when it takes long.
Echo echo(Client& client, Peer& peer, std::uint16_t channel, unsigned count, std::size_t size, const RandomSource& random);

/// The same by Binding requests, which go to the server alone: for a relay that lets clients reach nobody who could answer.
Echo echo_by_binding(Client& client, unsigned count);

/// The largest payload between `least` and `most` that reaches the peer in one datagram without fragments; 0 when not even `least` does. The
/// links forbid fragments already. `patience`: for each to get there; each size is tried three times. `local` becomes true when this host's own interface is what is in the way.
std::size_t largest_datagram(Client& client, Peer& peer, std::uint16_t channel, std::size_t least, std::size_t most, Clock::duration patience,
                             const RandomSource& random, bool& local);

}  // namespace radiotower::cli
