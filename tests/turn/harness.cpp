#include "harness.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>
#include <array>

namespace radiotower::test {

namespace {

constexpr turn::SocketHandle listener = 7;
constexpr std::size_t room = turn::Train::headroom;

std::vector<std::uint8_t> copy(Bytes bytes) { return {bytes.begin(), bytes.end()}; }

}  // namespace

RandomSource seeded_random(std::uint64_t seed) {
  return [state = seed](MutableBytes out) mutable {
    for (auto& byte : out) {
      std::uint64_t z = (state += 0x9E3779B97F4A7C15ULL);
      z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
      z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
      byte = static_cast<std::uint8_t>(z >> 56);
    }
  };
}

net::TransportAddress at(std::string_view text) {
  const auto address = net::TransportAddress::parse(text);
  REQUIRE_MESSAGE(address.has_value(), "not an address: ", std::string(text));
  return *address;
}

std::string Packet::payload() const {
  if (is_channel_data()) {
    const std::size_t length = load_be16(bytes.data() + 2);
    return std::string(as_text(Bytes(bytes).subspan(4, length)));
  }
  const auto m = message();
  const auto data = m ? m->find(Attribute::data) : std::nullopt;
  return data ? std::string(as_text(*data)) : std::string();
}

int Packet::error() const {
  const auto m = message();
  if (!m) return -1;
  if (m->message_class() == Class::success) return 0;
  if (m->message_class() != Class::error) return -1;
  const auto value = m->find(Attribute::error_code);
  const auto code = value ? stun::read_error_code(*value) : std::nullopt;
  return code ? code->code : -1;
}

Client::Client(Tower& tower, net::TransportAddress address, std::string u, std::string p)
    : user(std::move(u)), password(std::move(p)), tower_(tower) {
  five_tuple.client = address;
  // What a test asks of the core holds over every transport, unless it says which: meson runs them all over each.
  if (const char* transport = std::getenv("RADIOTOWER_TEST_TRANSPORT"))
    for (const auto one : {net::Transport::udp, net::Transport::tcp, net::Transport::tls, net::Transport::dtls})
      if (net::name(one) == transport) five_tuple.transport = one;
  five_tuple.server = address.ip.is_v4() ? at("198.18.0.1:3478") : at("[2001:db8:1::1]:3478");
}

stun::Key Client::key() const {
  if (mac_key) return *mac_key;
  return stun::long_term_key(sha256 ? stun::PasswordAlgorithm::sha256 : stun::PasswordAlgorithm::md5, user, realm, password);
}

std::vector<std::uint8_t> Client::request(Method method, const More& more, bool with_integrity) {
  std::array<std::uint8_t, 4096> space{};
  stun::TransactionId id;
  tower_.random(id);
  if (fixed_transaction_id) id = *fixed_transaction_id;
  stun::Writer writer(space, Class::request, method, id);
  if (more) more(writer);
  if (!origin.empty()) writer.add(Attribute::origin, origin);
  if (with_integrity) {
    const bool carries = method == Method::allocate || method == Method::refresh || method == Method::connection_bind;
    if (!access_token.empty() && carries) writer.add(Attribute::access_token, Bytes(access_token));
    if (userhash) writer.add(Attribute::userhash, Bytes(stun::userhash(user, realm)));
    else writer.add(Attribute::username, user);
    writer.add(Attribute::realm, realm);
    writer.add(Attribute::nonce, nonce);
    if (sha256) {
      const std::array<std::uint8_t, 4> chosen{0, 2, 0, 0};
      writer.add(Attribute::password_algorithms, Bytes(algorithms));
      writer.add(Attribute::password_algorithm, Bytes(chosen));
      writer.add_integrity_sha256(key().bytes());
    } else {
      writer.add_integrity(key().bytes());
    }
  }
  if (fingerprint) writer.add_fingerprint();
  REQUIRE(writer.ok());
  return copy(writer.bytes());
}

std::optional<Packet> Client::exchange(std::vector<std::uint8_t> bytes) {
  inbox.clear();
  tower_.input(five_tuple, std::move(bytes));
  last = take();
  return last;
}

void Client::learns_nonce() {
  const std::array<std::uint8_t, 4> udp{17, 0, 0, 0};
  const auto answer = exchange(request(Method::allocate, [&](stun::Writer& w) { w.add(Attribute::requested_transport, Bytes(udp)); }, false));
  REQUIRE(answer);
  const auto m = answer->message();
  REQUIRE(m);
  REQUIRE(answer->error() == 401);
  realm = as_text(*m->find(Attribute::realm));
  nonce = as_text(*m->find(Attribute::nonce));
  if (const auto list = m->find(Attribute::password_algorithms)) algorithms = copy(*list);
}

int Client::answered() {
  if (!last) return -1;
  const auto m = last->message();
  REQUIRE(m);
  const int code = last->error();
  // Whatever is answered after authentication is protected with the user's key, the way it was asked (I28).
  if (code != 401 && code != 438 && tower_.options.authentication && !nonce.empty() && (m->has_integrity() || m->has_integrity_sha256()))
    CHECK((sha256 ? m->integrity_sha256_matches(key().bytes()) : m->integrity_matches(key().bytes())));
  if (code == 0) CHECK(m->has_fingerprint() == fingerprint);
  if (code == 438) nonce = as_text(*m->find(Attribute::nonce));
  return code;
}

int Client::asks(Method method, const More& more) {
  if (nonce.empty()) {
    learns_nonce();
  }
  exchange(request(method, more));
  return answered();
}

int Client::allocates(const More& more) {
  const std::array<std::uint8_t, 4> udp{17, 0, 0, 0};
  const int code = asks(Method::allocate, [&](stun::Writer& w) {
    w.add(Attribute::requested_transport, Bytes(udp));
    if (more) more(w);
  });
  if (code == 0) {
    const auto m = last->message();
    relayed_ = relayed6_ = {};
    m->for_each(Attribute::xor_relayed_address, [&](Bytes value) {
      const auto address = stun::read_xor_address(value, m->transaction_id());
      REQUIRE(address);
      (address->family == net::Family::ipv4 ? relayed_ : relayed6_) = address->address;
    });
    if (relayed_.port == 0) relayed_ = relayed6_;
    const auto mapped = stun::read_xor_address(*m->find(Attribute::xor_mapped_address), m->transaction_id());
    REQUIRE(mapped);
    CHECK(mapped->address == five_tuple.client);
  }
  return code;
}

int Client::refreshes(std::optional<std::uint32_t> lifetime, const More& more) {
  return asks(Method::refresh, [&](stun::Writer& w) {
    if (lifetime) w.add_u32(Attribute::lifetime, *lifetime);
    if (more) more(w);
  });
}

int Client::permits(const std::vector<std::string>& peers) {
  return asks(Method::create_permission, [&](stun::Writer& w) {
    for (const auto& peer : peers) w.add_xor_address(Attribute::xor_peer_address, at(peer));
  });
}

int Client::binds(std::uint16_t channel, std::string_view peer) {
  return asks(Method::channel_bind, [&](stun::Writer& w) {
    w.add_u32(Attribute::channel_number, std::uint32_t{channel} << 16);
    w.add_xor_address(Attribute::xor_peer_address, at(peer));
  });
}

void Client::sends(std::string_view peer, std::string_view data, const More& more) {
  std::vector<std::uint8_t> space(data.size() + 256);
  stun::TransactionId id;
  tower_.random(id);
  stun::Writer writer(space, Class::indication, Method::send, id);
  writer.add_xor_address(Attribute::xor_peer_address, at(peer));
  if (more) more(writer);
  writer.add(Attribute::data, data);
  REQUIRE(writer.ok());
  tower_.input(five_tuple, copy(writer.bytes()));
}

void Client::sends_channel(std::uint16_t channel, std::string_view data) {
  std::vector<std::uint8_t> bytes(4 + data.size());
  store_be16(bytes.data(), channel);
  store_be16(bytes.data() + 2, static_cast<std::uint16_t>(data.size()));
  std::copy(data.begin(), data.end(), bytes.begin() + 4);
  tower_.input(five_tuple, std::move(bytes));
}

void Client::sends_raw(std::vector<std::uint8_t> bytes) { tower_.input(five_tuple, std::move(bytes)); }

std::optional<Packet> Client::take() {
  if (inbox.empty()) return std::nullopt;
  Packet packet = std::move(inbox.front());
  inbox.pop_front();
  return packet;
}

Tower::Tower(TowerOptions o) : options(std::move(o)), random(seeded_random(42)) {
  now.steady = Time(1000s);
  now.unix_time = 1'767'000'000;
  const auto settings = make_settings();
  const HashKey hash_key{1, 2};
  shared = std::make_shared<turn::Shared>(*settings, seeded_random(1), hash_key, options.buckets);
  server = std::make_unique<turn::Server>(shared, settings, turn::NonceMint(seeded_random(2)), hash_key,
                                          seeded_random(3), options.shortcuts);
}

std::shared_ptr<const turn::Settings> Tower::make_settings() {
  auto settings = std::make_shared<turn::Settings>();
  settings->realm = options.realm;
  settings->limits = options.limits;
  settings->first_port = options.first_port;
  settings->last_port = options.last_port;
  settings->dont_fragment = options.dont_fragment;
  settings->strict_expiry = options.strict_expiry;
  settings->rfc5766_channel_numbers = options.rfc5766_channel_numbers;
  settings->draining = options.draining;
  settings->tcp_relay = options.tcp_relay;
  settings->authentication = options.authentication;
  settings->mobility = options.mobility;
  if (options.alternate_server) settings->redirect.servers = {at(*options.alternate_server)};
  settings->listeners = {at("198.18.0.1:3478"), at("[2001:db8:1::1]:3478")};
  std::string why;
  for (const auto& text : options.denied_clients) settings->denied_clients.push_back(*net::AddressRange::parse(text, why));

  net::PeerPolicySettings peers;
  for (const auto& text : options.allow) {
    const auto rule = net::PeerRule::parse(text, why);
    REQUIRE_MESSAGE(rule.has_value(), why);
    peers.allow.push_back(*rule);
  }
  for (const auto& text : options.deny) {
    const auto rule = net::PeerRule::parse(text, why);
    REQUIRE_MESSAGE(rule.has_value(), why);
    peers.deny.push_back(*rule);
  }
  peers.allow_only = options.allow_only;
  for (const auto& [local, external] : options.relay_addresses) {
    const auto l = *net::IpAddress::parse(local), e = *net::IpAddress::parse(external);
    settings->relay_addresses.push_back({l, e});
    peers.host_addresses.push_back(l);
    peers.relay_addresses.push_back(l);
    if (e != l) peers.relay_addresses.push_back(e);
  }
  if (shared)
    for (const auto& ip : shared->known_addresses())
      if (std::find(peers.relay_addresses.begin(), peers.relay_addresses.end(), ip) == peers.relay_addresses.end()) peers.relay_addresses.push_back(ip);
  peers.broadcast_addresses = {*net::IpAddress::parse("198.18.0.255")};
  peers.own_endpoints = settings->listeners;
  settings->peers = std::make_shared<net::PeerPolicy>(std::move(peers));

  turn::Directory::Input input;
  input.realm = options.realm;
  input.users = options.users;
  input.rest_secrets = options.secrets;
  settings->directory = std::make_shared<turn::Directory>(std::move(input));
  if (options.also) options.also(*settings);
  return settings;
}

Client& Tower::client(std::string_view address, std::string user, std::string password) {
  clients_.push_back(std::make_unique<Client>(*this, at(address), std::move(user), std::move(password)));
  return *clients_.back();
}

void Tower::advance(nanoseconds by) {
  const Time until = now.steady + by;
  const auto wall = now.unix_time + std::chrono::duration_cast<seconds>(by).count();
  while (server->next_expiry() <= until) {
    now.steady = std::max(now.steady, server->next_expiry());
    server->expire(now, actions);
    carry_out();
  }
  now.steady = until;
  now.unix_time = wall;
  server->expire(now, actions);
  carry_out();
}

void Tower::reload(const std::function<void(TowerOptions&)>& change) {
  change(options);
  CHECK(shared->offer(*make_settings()).empty());
  server->apply(make_settings(), now, actions);  // made again: what live allocations still hold is known by now
  carry_out();
}

void Tower::input(const net::FiveTuple& five_tuple, std::vector<std::uint8_t> bytes, std::uint16_t segment) {
  std::vector<std::uint8_t> buffer(room + bytes.size() + 4, 0xAA);
  std::copy(bytes.begin(), bytes.end(), buffer.begin() + room);
  server->from_client(five_tuple, listener, {{buffer.data() + room, bytes.size()}, segment}, now, actions);
  for (const auto& send : actions.sends) {
    if (send.socket != listener || !(send.to == five_tuple.client)) continue;
    const std::size_t headers = five_tuple.client.ip.is_v4() ? 28 : 48;
    largest_answer_ratio_percent = std::max(largest_answer_ratio_percent, 100 * (send.bytes.size() + headers) / (bytes.size() + headers));
  }
  carry_out();
}

void Tower::peer_sends(std::string_view peer, const net::TransportAddress& relayed, std::string_view data, std::uint16_t segment) {
  const net::TransportAddress local = shared->inside(relayed);
  for (const auto& [socket, port] : open) {
    if (!(port.first == local)) continue;
    std::vector<std::uint8_t> buffer(room + data.size() + 4, 0xAA);
    std::copy(data.begin(), data.end(), buffer.begin() + room);
    server->from_peer(port.second, at(peer), {{buffer.data() + room, data.size()}, segment}, now, actions);
    carry_out();
    return;
  }
}

void Tower::icmp(std::string_view destination, const net::TransportAddress& relayed, turn::Icmp icmp) {
  const net::TransportAddress local = shared->inside(relayed);
  for (const auto& [socket, port] : open) {
    if (!(port.first == local)) continue;
    server->icmp_from_peer(port.second, at(destination), icmp, now, actions);
    carry_out();
    return;
  }
}

void Tower::carry_out() {
  // Deliveries between two relay ports of ours come back in, as the kernel would do it: collected, then handed over.
  struct Inside {
    turn::RelayId relay;
    net::TransportAddress from;
    std::string data;
  };
  std::vector<Inside> inside;
  while (!actions.empty()) {
    auto sends = std::move(actions.sends);
    auto opens = std::move(actions.opens);
    auto closes = std::move(actions.closes);
    for (auto& e : actions.events) events.push_back(e);
    connects.insert(connects.end(), actions.connects.begin(), actions.connects.end());
    joins.insert(joins.end(), actions.joins.begin(), actions.joins.end());
    for (const auto& close : actions.peer_closes) peer_closes.push_back(close.connection);
    hand_overs.insert(hand_overs.end(), actions.hand_overs.begin(), actions.hand_overs.end());
    carries.insert(carries.end(), actions.carries.begin(), actions.carries.end());
    actions.carries.clear();
    actions.connects.clear();
    actions.joins.clear();
    actions.peer_closes.clear();
    actions.hand_overs.clear();
    actions.hang_ups.clear();
    actions.sends.clear();
    actions.opens.clear();
    actions.closes.clear();
    actions.events.clear();
    for (const auto& send : sends) {
      const std::size_t stride = send.stride == 0 ? std::max<std::size_t>(send.bytes.size(), 1) : send.stride;
      std::size_t offset = 0;
      do {
        const std::size_t length = std::min(stride, send.bytes.size() - offset);
        Packet packet;
        packet.bytes.assign(send.prefix.begin(), send.prefix.begin() + send.prefix_size);
        const auto piece = send.bytes.subspan(offset, std::min<std::size_t>(length, stride - send.trim)).subspan(send.skip);
        packet.bytes.insert(packet.bytes.end(), piece.begin(), piece.end());
        offset += stride;
        if (send.socket == listener) {
          for (auto& c : clients_)
            if (c->five_tuple.client == send.to) c->inbox.push_back(packet);
          continue;
        }
        const auto from = open.at(send.socket).first;
        const std::string data(as_text(packet.bytes));
        bool delivered = false;
        for (const auto& [socket, port] : open) {
          if (!(port.first == send.to)) continue;
          inside.push_back({port.second, from, data});
          delivered = true;
        }
        if (!delivered) to_peers.push_back({from, send.to, data, send.dont_fragment});
      } while (offset < send.bytes.size());
    }
    for (const auto& request : opens) {
      if (out_of_descriptors) {
        server->relay_failed(request.relay, turn::RelayFailure::no_resources, now, actions);
      } else if (taken_ports.count(request.address.port)) {
        server->relay_failed(request.relay, turn::RelayFailure::port_in_use, now, actions);
      } else {
        for (const auto& [socket, port] : open) CHECK_FALSE(port.first == request.address);  // T18: unique
        open[next_socket_] = {request.address, request.relay};
        transports[next_socket_] = request.transport;
        server->relay_opened(request.relay, next_socket_++, now, actions);
      }
    }
    for (const auto socket : closes) CHECK(open.erase(socket) == 1);
    for (const auto& d : inside) {
      std::vector<std::uint8_t> buffer(room + d.data.size() + 4, 0xAA);
      std::copy(d.data.begin(), d.data.end(), buffer.begin() + room);
      server->from_peer(d.relay, d.from, {{buffer.data() + room, d.data.size()}, 0}, now, actions);
      for (const auto& send : actions.sends) {  // copied out before the buffer goes
        Packet packet;
        packet.bytes.assign(send.prefix.begin(), send.prefix.begin() + send.prefix_size);
        packet.bytes.insert(packet.bytes.end(), send.bytes.begin(), send.bytes.end());
        for (auto& c : clients_)
          if (c->five_tuple.client == send.to) c->inbox.push_back(packet);
      }
      actions.sends.clear();
    }
    inside.clear();
  }
  actions.clear();
  const auto usage = shared->usage();
  CHECK(usage.free + usage.used + usage.reserved + usage.quarantined == usage.range);
}

std::optional<std::string> Tower::peer_got(std::string_view peer) {
  const auto address = at(peer);
  for (auto it = to_peers.begin(); it != to_peers.end(); ++it) {
    if (!(it->to == address)) continue;
    std::string data = std::move(it->data);
    to_peers.erase(it);
    return data;
  }
  return std::nullopt;
}

std::optional<Tower::ToPeer> Tower::take_sent() {
  if (to_peers.empty()) return std::nullopt;
  ToPeer sent = std::move(to_peers.front());
  to_peers.pop_front();
  return sent;
}

}  // namespace radiotower::test
