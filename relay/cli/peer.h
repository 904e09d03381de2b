// The other end of a relay test, run by the tool itself, and packets that go there and come back.
#pragma once

#include <memory>

#include "client.h"

namespace radiotower::cli {

/// Somebody the relay exchanges packets with on our behalf.
class Peer {
 public:
  virtual ~Peer() = default;
  virtual net::TransportAddress address() const = 0;
  /// Sends to the relayed address of the client under test. An errno value, 0 when the datagram went out.
  virtual int send(Bytes payload) = 0;
  /// The next datagram that came from that relayed address.
  virtual std::optional<std::vector<std::uint8_t>> receive(Clock::time_point deadline) = 0;
};

/// A plain socket of this host.
class SocketPeer : public Peer {
 public:
  SocketPeer(UdpSocket socket, const net::TransportAddress& relayed) : socket_(std::move(socket)), relayed_(relayed), buffer_(65'536) {}
  net::TransportAddress address() const override { return socket_.local(); }
  int send(Bytes payload) override { return socket_.send_to(relayed_, payload); }
  std::optional<std::vector<std::uint8_t>> receive(Clock::time_point deadline) override;

 private:
  UdpSocket socket_;
  net::TransportAddress relayed_;
  std::vector<std::uint8_t> buffer_;
};

/// A second allocation: every packet then crosses the relay twice. The client holds its allocation and the permission already.
class RelayPeer : public Peer {
 public:
  RelayPeer(Client& client, const net::TransportAddress& relayed) : client_(client), relayed_(relayed) {}
  net::TransportAddress address() const override { return client_.relayed(); }
  int send(Bytes payload) override { return client_.send_indication(relayed_, payload); }
  std::optional<std::vector<std::uint8_t>> receive(Clock::time_point deadline) override;

 private:
  Client& client_;
  net::TransportAddress relayed_;
};

/// A payload that tells which exchange it belongs to, which way it goes, and whether a byte of it has changed.
struct Payload {
  static constexpr std::size_t min_size = 16;
  enum class Way : std::uint8_t { to_peer = 1, to_client = 2 };
  enum class Verdict : std::uint8_t { foreign, other_number, damaged, good };

  static std::vector<std::uint8_t> make(const std::array<std::uint8_t, 8>& tag, Way way, std::uint32_t number, std::size_t size);
  static Verdict judge(Bytes bytes, const std::array<std::uint8_t, 8>& tag, Way way, std::uint32_t number, std::size_t size);
};

/// What became of an exchange. `fault` is a sentence when something came that must never come.
struct Traffic {
  unsigned sent = 0;
  unsigned reached_peer = 0;
  unsigned came_back = 0;
  Clock::duration shortest{}, total{};  // there and back; total of those that came back
  std::string fault;

  Clock::duration average() const { return came_back ? total / came_back : Clock::duration{}; }
};

struct TrafficOptions {
  unsigned count = 10;
  std::size_t size = 160;
  std::chrono::milliseconds patience{1000};  // for one packet, there and back
};

/// Sends `count` packets to the peer, one after the other, each answered by the peer: by Send and Data indications, or by
/// ChannelData when `channel` is given. Ends early when nothing has come back after three.
Traffic exchange(Client& client, Peer& peer, std::optional<std::uint16_t> channel, const TrafficOptions& options, const RandomSource& random);

}  // namespace radiotower::cli
