// One packet each way on every session, before anything is measured: does each of them relay, whole and between the
// right ends?
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>

#include "measures.h"
#include "payload.h"
#include "sessions.h"

namespace radiotower::load {
namespace {

constexpr std::int64_t patience = 300'000'000;
constexpr std::uint32_t max_rounds = 8;
constexpr std::uint32_t size = 160;

class Check {
 public:
  explicit Check(Sessions& all)
      : all_(all), received_(65536), at_peer_(all.sessions.size()), at_client_(all.sessions.size()) {}

  void send_to_peer(std::uint32_t index) {
    const Session& s = all_.sessions[index];
    const net::TransportAddress& peer = all_.peer_addresses[s.peer];
    std::uint8_t* const payload = packet_ + Framing::room;
    payload_.write(payload);
    const Stamp stamp{.session = index, .size = size, .direction = Direction::up};
    std::memcpy(payload, &stamp, sizeof stamp);
    all_.framing().write_header(payload, size, peer, index);
    const std::size_t header = all_.framing().header_size(peer);
    (void)!send(s.socket, payload - header, header + size, 0);
  }

  void drain_peer(std::uint32_t peer) {
    for (;;) {
      Name source;
      source.length = sizeof source.value;
      const ssize_t n =
          recvfrom(all_.peers[peer], received_.data(), received_.size(), 0, &source.value.any, &source.length);
      if (n < 0) return;
      Stamp stamp;
      if (!payload_.read(Bytes(received_).first(static_cast<std::size_t>(n)), stamp) || stamp.run != 0) continue;
      if (stamp.session >= all_.sessions.size()) continue;
      const Session& s = all_.sessions[stamp.session];
      if (s.peer != peer || !s.relayed.is_same(source)) continue;
      if (!at_peer_[stamp.session]) ++result_.to_peer;
      at_peer_[stamp.session] = true;
      stamp.direction = Direction::down;
      std::memcpy(received_.data(), &stamp, sizeof stamp);
      (void)!sendto(all_.peers[peer], received_.data(), static_cast<std::size_t>(n), 0, &source.value.any,
                    source.length);
    }
  }

  void drain_client(std::uint32_t index) {
    const Session& s = all_.sessions[index];
    for (;;) {
      const ssize_t n = recv(s.socket, received_.data(), received_.size(), 0);
      if (n < 0) return;
      Stamp stamp;
      const auto payload =
          all_.framing().unwrap(Bytes(received_).first(static_cast<std::size_t>(n)), all_.peer_addresses[s.peer]);
      if (!payload || !payload_.read(*payload, stamp)) continue;
      if (stamp.run != 0 || stamp.session != index || stamp.direction != Direction::down) continue;
      if (!at_client_[index]) ++result_.to_client;
      at_client_[index] = true;
    }
  }

  void run(std::uint32_t first, std::uint32_t last) {
    std::vector<pollfd> ready;
    for (std::uint32_t round = 0; round < max_rounds; ++round) {
      bool is_missing = false;
      for (std::uint32_t i = first; i < last; ++i) {
        if (at_client_[i] || !all_.sessions[i].is_ready) continue;
        is_missing = true;
        if (round > 0) ++result_.resent;
        send_to_peer(i);
      }
      if (!is_missing) return;
      for (const std::int64_t deadline = steady_ns() + patience; steady_ns() < deadline;) {
        ready.clear();
        for (int p : all_.peers) ready.push_back({p, POLLIN, 0});
        for (std::uint32_t i = first; i < last; ++i)
          if (!at_client_[i] && all_.sessions[i].is_ready) ready.push_back({all_.sessions[i].socket, POLLIN, 0});
        if (ready.size() == all_.peers.size()) break;
        poll(ready.data(), ready.size(), 50);
        for (std::uint32_t p = 0; p < all_.peers.size(); ++p) drain_peer(p);
        for (std::uint32_t i = first; i < last; ++i)
          if (!at_client_[i]) drain_client(i);
      }
    }
  }

  VerifyResult result_;

 private:
  Sessions& all_;
  Payload payload_;
  std::uint8_t packet_[Framing::room + max_size]{};
  std::vector<std::uint8_t> received_;
  std::vector<bool> at_peer_, at_client_;
};

}  // namespace

VerifyResult Sessions::verify() {
  Check check(*this);
  const auto count = static_cast<std::uint32_t>(sessions.size());
  for (std::uint32_t first = 0; first < count; first += options_.window)
    check.run(first, std::min(first + options_.window, count));
  return check.result_;
}

}  // namespace radiotower::load
