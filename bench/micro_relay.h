// A server without sockets and its clients, for the microbenchmarks.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "radiotower/stun/message.h"
#include "radiotower/turn/server.h"

namespace radiotower::micro {

using Buffer = std::vector<std::uint8_t>;

inline constexpr std::uint16_t first_channel = 0x4000, second_channel = 0x4001;
inline constexpr turn::SocketHandle listener = 1;
inline constexpr stun::TransactionId id{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};

net::TransportAddress at(const char* text);
const stun::Key& key();
[[noreturn]] void give_up(const char* what);

/// A request with credentials when a nonce is given. `add` writes its attributes.
template <typename Add>
Buffer request(stun::Method method, std::string_view nonce, Add&& add, stun::Class message_class = stun::Class::request,
               const stun::Key& signed_with = key()) {
  Buffer bytes(4096);
  stun::Writer writer(bytes, message_class, method, id);
  add(writer);
  if (!nonce.empty()) {
    writer.add(stun::Attribute::username, "bench");
    writer.add(stun::Attribute::realm, "bench");
    writer.add(stun::Attribute::nonce, nonce);
    writer.add_integrity(signed_with.bytes());
  }
  bytes.resize(writer.bytes().size());
  return bytes;
}
Buffer binding_request();
Buffer allocate_request(std::string_view nonce, const stun::Key& signed_with = key());
Buffer refresh_request(std::string_view nonce, std::uint32_t lifetime);
Buffer channel_bind_request(std::string_view nonce, std::uint16_t channel, const net::TransportAddress& peer);
Buffer create_permission_request(std::string_view nonce, const net::TransportAddress& peer, std::size_t times = 1);
Buffer send_indication(const net::TransportAddress& peer, std::size_t payload);

/// ChannelData for each size. `padded`: to a multiple of four bytes; `mixed`: the two channels take turns.
Buffer channel_data(std::span<const std::size_t> payloads, bool padded = false, bool mixed = false);
/// `count` times `size`, the last one `last` when that is not 0.
std::vector<std::size_t> sizes(std::size_t count, std::size_t size, std::size_t last = 0);

/// Bytes where a receive would have put them: with room in front and behind.
class Received {
 public:
  explicit Received(const Buffer& bytes);
  turn::Train train(std::size_t segment = 0) {
    return {MutableBytes(buffer_).subspan(turn::Train::headroom, buffer_.size() - turn::Train::headroom - 4),
            static_cast<std::uint16_t>(segment)};
  }

 private:
  Buffer buffer_;
};

/// What the sends of `actions` are on the wire.
std::size_t datagrams(const turn::Actions& actions);

/// A server and clients with an allocation each, a channel to `peer`, another to `second_peer`, and a permission for
/// `silent_peer`.
class Relay {
 public:
  struct Client {
    net::FiveTuple five_tuple;
    turn::RelayId relay;
  };

  explicit Relay(std::size_t client_count = 1);

  /// One that was made before, when it has as many clients: thirty thousand take their time.
  static Relay& with(std::size_t client_count);

  /// Of the first client. The others have the addresses behind 198.51.100.9.
  const net::FiveTuple& five_tuple() const { return clients.front().five_tuple; }
  void from_client(const net::FiveTuple& from, const Buffer& bytes);
  /// A nonce for this client.
  std::string challenge(const net::FiveTuple& from);
  /// Hands the request in; ends the program when what comes back is no success. Empties `actions`.
  void must_succeed(const net::FiveTuple& from, const Buffer& bytes);
  turn::RelayId allocate(const net::FiveTuple& from, std::string_view nonce);
  static net::TransportAddress address_of(std::size_t index) {
    const auto ip = net::IpAddress::v4(0xC6336409 + static_cast<std::uint32_t>(index));
    return {ip, static_cast<std::uint16_t>(1024 + index * 7919 % 60000), 0};
  }
  static net::FiveTuple tuple_of(std::size_t index) {
    return {address_of(index), at("198.18.0.1:3478"), net::Transport::udp};
  }

  net::TransportAddress peer = at("198.51.100.7:5000"), second_peer = at("198.51.100.7:5001");
  net::TransportAddress silent_peer = at("203.0.113.9:5002");
  Now now;
  std::unique_ptr<turn::Server> server;
  turn::Actions actions;
  std::vector<Client> clients;
};

}  // namespace radiotower::micro
