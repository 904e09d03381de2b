// The bare forwarder that the relay is measured against: what is left of a relay when nothing is asked of it but to
// move datagrams. No authentication, no permissions, no lifetimes, no quotas, no counters, IPv4 alone. For loopback;
// never for a network.
#pragma once

#include <netinet/in.h>

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "radiotower/base/bytes.h"
#include "radiotower/net/address.h"
#include "radiotower/stun/crypto.h"
#include "radiotower/stun/message.h"

namespace radiotower::bare {

struct Options {
  net::TransportAddress listen;
  net::IpAddress relay;
  std::uint16_t first_port = 0, last_port = 0;
  // The load checks the integrity of answers, so they need a key; requests are believed.
  std::string user, password, realm;
  std::uint32_t buffers = 512;
  bool offload = false;  // UDP_GRO on every socket, UDP_SEGMENT on every train
};

/// A client, its relay socket and the one peer it talks to.
struct Flow {
  sockaddr_in client{};
  sockaddr_in peer{};         // port 0: no channel yet
  int descriptor = -1;
  std::uint16_t channel = 0;  // network order
};

inline constexpr std::uint32_t most_flows = 32768;
inline constexpr std::uint32_t listener_mark = ~std::uint32_t{0};  // stands where the index of a flow would

/// Every flow there is, found by the client's address. Flows live as long as the program.
class Flows {
 public:
  /// Opens the listener. Ends the program with a sentence when it cannot.
  explicit Flows(Options options);

  Flow& at(std::uint32_t index) { return flows_[index]; }  // stays where it is
  Flow* find(const sockaddr_in& client) {
    const Place& place = place_of(key_of(client));
    return place.key == 0 ? nullptr : &flows_[place.index];
  }

  /// What came to the listener and is no ChannelData: answered at once, if it is a request. Returns the flow that was
  /// made, to whose socket the caller then listens.
  std::optional<std::uint32_t> answer(Bytes request, const sockaddr_in& client);

  int listener() const { return listener_; }
  int socket_of(std::uint32_t index) { return index == listener_mark ? listener_ : flows_[index].descriptor; }
  const Options& options() const { return options_; }

 private:
  struct Place {
    std::uint64_t key = 0;  // 0: empty
    std::uint32_t index = 0;
  };
  static std::uint64_t key_of(const sockaddr_in& a) { return std::uint64_t{a.sin_addr.s_addr} << 16 | a.sin_port; }
  Place& place_of(std::uint64_t key) {
    // Twice as many places as flows: a search ends.
    std::size_t at = key * 0x9E3779B97F4A7C15ull >> 48;
    while (places_[at].key != 0 && places_[at].key != key) at = (at + 1) & (places_.size() - 1);
    return places_[at];
  }
  Flow* make(const sockaddr_in& client);
  void answer_allocate(const stun::Message& request, const sockaddr_in& client, Flow* flow);
  void refuse(const stun::Message& request, const sockaddr_in& client, stun::ErrorCode code);
  void finish(stun::Writer& writer, const sockaddr_in& client);
  void send(Bytes answer, const sockaddr_in& client);

  const Options options_;
  const stun::Key key_;
  int listener_ = -1;
  std::uint32_t next_port_;
  std::vector<Flow> flows_;
  std::vector<Place> places_;
};

/// Receive buffers side by side. Each has `head` bytes in front of what is received.
class Buffers {
 public:
  Buffers(std::size_t count, std::size_t head, bool offload);
  Buffers(const Buffers&) = delete;
  Buffers& operator=(const Buffers&) = delete;
  ~Buffers();
  std::uint8_t* at(std::size_t i) const { return memory_ + i * stride_; }
  std::size_t size() const { return size_; }  // of one, its head included
  std::size_t count() const { return count_; }

 private:
  std::size_t count_, size_, stride_, all_;
  std::uint8_t* memory_;
};

[[noreturn]] void give_up(const char* call, int error);

// They run until a signal ends the program.
[[noreturn]] void run_uring(Flows& flows);
[[noreturn]] void run_recvmmsg(Flows& flows);
[[noreturn]] void run_recvfrom(Flows& flows);

}  // namespace radiotower::bare
