#include "micro_relay.h"

#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <utility>

namespace radiotower::micro {

using stun::Attribute;
using stun::Class;
using stun::Method;

net::TransportAddress at(const char* text) { return *net::TransportAddress::parse(text); }

void give_up(const char* what) {
  std::fprintf(stderr, "radiotower-micro: %s\n", what);
  std::exit(1);
}

const stun::Key& key() {
  static const stun::Key k = stun::long_term_key(stun::PasswordAlgorithm::md5, "bench", "bench", "secret");
  return k;
}

Buffer binding_request() {
  return request(Method::binding, "", [](stun::Writer&) {});
}

Buffer allocate_request(std::string_view nonce, const stun::Key& signed_with) {
  const auto add = [](stun::Writer& w) { w.add_u32(Attribute::requested_transport, 17u << 24); };
  return request(Method::allocate, nonce, add, Class::request, signed_with);
}

Buffer refresh_request(std::string_view nonce, std::uint32_t lifetime) {
  return request(Method::refresh, nonce, [&](stun::Writer& w) { w.add_u32(Attribute::lifetime, lifetime); });
}

Buffer channel_bind_request(std::string_view nonce, std::uint16_t channel, const net::TransportAddress& peer) {
  return request(Method::channel_bind, nonce, [&](stun::Writer& w) {
    w.add_u32(Attribute::channel_number, std::uint32_t{channel} << 16);
    w.add_xor_address(Attribute::xor_peer_address, peer);
  });
}

Buffer create_permission_request(std::string_view nonce, const net::TransportAddress& peer, std::size_t times) {
  return request(Method::create_permission, nonce, [&](stun::Writer& w) {
    for (std::size_t i = 0; i < times; ++i) w.add_xor_address(Attribute::xor_peer_address, peer);
  });
}

Buffer send_indication(const net::TransportAddress& peer, std::size_t payload) {
  const Buffer data(payload);
  return request(
      Method::send, "",
      [&](stun::Writer& w) {
        w.add_xor_address(Attribute::xor_peer_address, peer);
        w.add(Attribute::data, Bytes(data));
      },
      Class::indication);
}

Buffer channel_data(std::span<const std::size_t> payloads, bool padded, bool mixed) {
  Buffer bytes;
  for (std::size_t i = 0; i < payloads.size(); ++i) {
    const std::size_t start = bytes.size(), size = padded ? (payloads[i] + 3) / 4 * 4 : payloads[i];
    bytes.resize(start + stun::channel_header_size + size);
    store_be16(bytes.data() + start, mixed && i % 2 == 1 ? second_channel : first_channel);
    store_be16(bytes.data() + start + 2, static_cast<std::uint16_t>(payloads[i]));
  }
  return bytes;
}

std::vector<std::size_t> sizes(std::size_t count, std::size_t size, std::size_t last) {
  std::vector<std::size_t> all(count, size);
  if (last != 0) all.back() = last;
  return all;
}

Received::Received(const Buffer& bytes) : buffer_(turn::Train::headroom + bytes.size() + 4) {
  for (std::size_t i = 0; i < bytes.size(); ++i) buffer_[turn::Train::headroom + i] = bytes[i];
}

std::size_t datagrams(const turn::Actions& actions) {
  std::size_t count = 0;
  for (const turn::Send& s : actions.sends) count += s.stride == 0 ? 1 : (s.bytes.size() + s.stride - 1) / s.stride;
  return count;
}

Relay::Relay(std::size_t client_count) {
  auto settings = std::make_shared<turn::Settings>();
  settings->realm = "bench";
  settings->limits.error_answers_per_second = 0;
  settings->limits.binding_answers_per_second = 0;
  const net::TransportAddress server_address = tuple_of(0).server;
  settings->relay_addresses = {{server_address.ip, server_address.ip}};
  settings->listeners = {server_address};
  std::string why;
  net::PeerPolicySettings peers;
  for (const char* rule : {"198.51.100.7", "203.0.113.9"}) peers.allow.push_back(*net::PeerRule::parse(rule, why));
  settings->peers = std::make_shared<net::PeerPolicy>(std::move(peers));
  turn::Directory::Input users;
  users.realm = "bench";
  turn::User user;
  user.name = "bench";
  user.password = "secret";
  users.users.push_back(std::move(user));
  settings->directory = std::make_shared<turn::Directory>(std::move(users));
  now.steady = Time(seconds(1000));
  now.unix_time = 1'767'000'000;
  const HashKey hash_key{1, 2};
  const auto shared = std::make_shared<turn::Shared>(*settings, system_random(), hash_key);
  const turn::NonceMint nonces(system_random());
  server = std::make_unique<turn::Server>(shared, settings, nonces, hash_key, system_random());

  clients.reserve(client_count);
  for (std::size_t i = 0; i < client_count; ++i) {
    const net::FiveTuple from = tuple_of(i);
    const std::string nonce = challenge(from);
    clients.push_back({from, allocate(from, nonce)});
    must_succeed(from, channel_bind_request(nonce, first_channel, peer));
    must_succeed(from, channel_bind_request(nonce, second_channel, second_peer));
    must_succeed(from, create_permission_request(nonce, silent_peer));
  }
}

Relay& Relay::with(std::size_t client_count) {
  static std::unique_ptr<Relay> last;
  if (!last || last->clients.size() != client_count) {
    last.reset();
    last = std::make_unique<Relay>(client_count);
  }
  return *last;
}

void Relay::from_client(const net::FiveTuple& from, const Buffer& bytes) {
  Received received(bytes);
  server->from_client(from, listener, received.train(), now, actions);
}

std::string Relay::challenge(const net::FiveTuple& from) {
  from_client(from, allocate_request(""));
  if (actions.sends.size() != 1) give_up("no answer to an Allocate request");
  const auto answer = stun::Message::read(actions.sends.front().bytes);
  const auto nonce = answer ? answer->find(Attribute::nonce) : std::nullopt;
  if (!nonce) give_up("no nonce in the answer to an Allocate request");
  const std::string text(as_text(*nonce));
  actions.clear();
  return text;
}

turn::RelayId Relay::allocate(const net::FiveTuple& from, std::string_view nonce) {
  from_client(from, allocate_request(nonce));
  if (actions.opens.size() != 1) give_up("the allocation opens no relay port");
  const turn::RelayId relay = actions.opens.front().relay;
  actions.clear();
  server->relay_opened(relay, 2 + relay.index, now, actions);
  if (actions.sends.size() != 1) give_up("no answer to the allocation");
  actions.clear();
  return relay;
}

void Relay::must_succeed(const net::FiveTuple& from, const Buffer& bytes) {
  from_client(from, bytes);
  const auto answer = actions.sends.size() == 1 ? stun::Message::read(actions.sends.front().bytes) : std::nullopt;
  if (!answer || answer->message_class() != Class::success) give_up("a request was refused");
  actions.clear();
}

}  // namespace radiotower::micro
