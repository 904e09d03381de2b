#include "sessions.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include "measures.h"
#include "payload.h"
#include "radiotower/stun/message.h"

namespace radiotower::bench {
namespace {

constexpr std::int64_t first_timeout = 500'000'000;  // RFC 8489, 6.2.1: RTO, doubled with each retransmission
constexpr int max_sends = 6;
constexpr int max_challenges = 3;  // the first 401 and stale nonces of one session
constexpr std::int64_t verify_timeout = 300'000'000;
constexpr std::uint32_t max_verify_rounds = 8;

[[noreturn]] void give_up(const std::string& what) {
  fmt::print(stderr, "radiotower-load: {}: {}\n", what, std::strerror(errno));
  std::exit(1);
}

int open_socket(const net::TransportAddress& address, int receive_buffer) {
  const int socket = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (socket < 0) give_up("socket");
  // FORCE goes past rmem_max and needs CAP_NET_ADMIN: towards the clients the load's own sockets overflow first.
  if (setsockopt(socket, SOL_SOCKET, SO_RCVBUFFORCE, &receive_buffer, sizeof receive_buffer) != 0)
    setsockopt(socket, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
  sockaddr_storage name{};
  const auto length = static_cast<socklen_t>(address.to_sockaddr(&name));
  if (bind(socket, reinterpret_cast<sockaddr*>(&name), length) != 0) give_up("bind to " + address.text());
  return socket;
}

net::TransportAddress offset(const net::TransportAddress& first, std::uint32_t addresses, std::uint32_t ports) {
  net::TransportAddress result = first;
  result.ip = net::IpAddress::v4(first.ip.v4_host_order() + addresses);
  result.port = static_cast<std::uint16_t>(first.port + ports);
  return result;
}

}  // namespace

struct Sessions::Exchange {
  std::uint32_t session = 0;
  Step step = Step::challenge;
  stun::TransactionId id{};
  int sends = 0;  // of this request
  int challenges = 0;
  std::int64_t deadline = 0;
};

Sessions::Sessions(const Options& options) : options_(options) {
  rlimit descriptors{};
  getrlimit(RLIMIT_NOFILE, &descriptors);
  descriptors.rlim_cur = descriptors.rlim_max;
  setrlimit(RLIMIT_NOFILE, &descriptors);
  if (options.sessions + options.peer_count + 16 > descriptors.rlim_max) {
    errno = EMFILE;
    give_up(fmt::format("{} sessions", options.sessions));
  }
  for (std::uint32_t i = 0; i < options.peer_count; ++i) {
    peer_addresses.push_back(offset(options.peers, 0, i));
    peers.push_back(open_socket(peer_addresses.back(), 64 << 20));
  }
  sockaddr_storage server{};
  const auto server_length = static_cast<socklen_t>(options.server.to_sockaddr(&server));
  sessions.resize(options.sessions);
  for (std::uint32_t i = 0; i < options.sessions; ++i) {
    Session& s = sessions[i];
    const std::uint32_t each = options.clients_per_address;
    s.socket = open_socket(offset(options.clients, i / each, i % each), 4 << 20);
    if (connect(s.socket, reinterpret_cast<sockaddr*>(&server), server_length) != 0) give_up("connect");
    s.peer = i % options.peer_count;
  }
}

Sessions::~Sessions() {
  for (const Session& s : sessions) close(s.socket);
  for (int p : peers) close(p);
}

const stun::Key& Sessions::key_of(const std::string& realm) {
  auto [it, is_new] = keys_.try_emplace(realm);
  if (is_new) it->second = stun::long_term_key(stun::PasswordAlgorithm::md5, options_.user, realm, options_.password);
  return it->second;
}

void Sessions::send_request(Exchange& e) {
  using stun::Attribute;
  const Session& s = sessions[e.session];
  if (e.sends == 0) {
    ++next_transaction_;
    std::memcpy(e.id.data(), &next_transaction_, sizeof next_transaction_);
    std::memcpy(e.id.data() + 8, &e.session, sizeof e.session);
  }
  const stun::Method method = e.step == Step::bind      ? stun::Method::channel_bind
                              : e.step == Step::refresh ? stun::Method::refresh
                                                        : stun::Method::allocate;
  std::array<std::uint8_t, 1024> buffer;
  stun::Writer request(buffer, stun::Class::request, method, e.id);
  if (method == stun::Method::allocate)
    request.add_u32(Attribute::requested_transport, std::uint32_t{IPPROTO_UDP} << 24);
  if (method == stun::Method::refresh) request.add_u32(Attribute::lifetime, 600);
  if (method == stun::Method::channel_bind) {
    request.add_u32(Attribute::channel_number, std::uint32_t{channel_number} << 16);
    request.add_xor_address(Attribute::xor_peer_address, peer_addresses[s.peer]);
  }
  if (e.step != Step::challenge) {
    request.add(Attribute::username, options_.user);
    request.add(Attribute::realm, realm_);
    request.add(Attribute::nonce, s.nonce);
    request.add_integrity(key_of(realm_).bytes());
  }
  e.deadline = steady_ns() + (first_timeout << e.sends);
  ++e.sends;
  const MutableBytes bytes = request.bytes();
  if (send(s.socket, bytes.data(), bytes.size(), 0) < 0 && errno != EAGAIN && errno != ECONNREFUSED) give_up("send");
}

bool Sessions::take_answer(Exchange& e, Bytes datagram, SetUpResult& result) {
  const auto answer = stun::Message::read(datagram);
  if (!answer || answer->transaction_id() != e.id) return false;  // late, or a duplicate
  Session& s = sessions[e.session];
  e.sends = 0;
  if (answer->message_class() == stun::Class::error) {
    const auto error = answer->find(stun::Attribute::error_code);
    const auto value = error ? stun::read_error_code(*error) : std::nullopt;
    const auto nonce = answer->find(stun::Attribute::nonce);
    const auto realm = answer->find(stun::Attribute::realm);
    const int code = value ? value->code : -1;
    const bool challenged = e.step == Step::challenge && code == 401;
    if ((challenged || code == 438) && nonce && realm && ++e.challenges <= max_challenges) {
      s.nonce = as_text(*nonce);
      realm_ = as_text(*realm);
      if (challenged) e.step = Step::allocate;
      send_request(e);
      return false;
    }
    ++result.errors[code];
    return true;
  }
  if (e.step == Step::challenge || answer->message_class() != stun::Class::success ||
      !answer->integrity_matches(key_of(realm_).bytes())) {
    ++result.errors[-1];
    return true;
  }
  if (e.step == Step::bind) {
    ++result.ready;
    return true;
  }
  if (e.step == Step::allocate) {
    const auto value = answer->find(stun::Attribute::xor_relayed_address);
    const auto relayed = value ? stun::read_xor_address(*value, e.id) : std::nullopt;
    if (!relayed || relayed->family != net::Family::ipv4) {
      ++result.errors[-1];
      return true;
    }
    sockaddr_storage name{};
    relayed->address.to_sockaddr(&name);
    std::memcpy(&s.relayed, &name, sizeof s.relayed);
  }
  e.step = Step::bind;
  send_request(e);
  return false;
}

SetUpResult Sessions::run(Step first) {
  SetUpResult result;
  std::vector<Exchange> active;
  std::vector<pollfd> ready;
  std::array<std::uint8_t, 2048> buffer;
  std::uint32_t next = 0;
  const std::int64_t cpu = process_cpu_ns(options_.server_pid), start = steady_ns();
  while (next < sessions.size() || !active.empty()) {
    while (next < sessions.size() && active.size() < options_.window) {
      active.push_back({.session = next++, .step = first});
      send_request(active.back());
    }
    ready.clear();
    for (const Exchange& e : active) ready.push_back({sessions[e.session].socket, POLLIN, 0});
    if (poll(ready.data(), ready.size(), 50) < 0) give_up("poll");
    const std::int64_t now = steady_ns();
    // Backwards: an exchange that has ended is overwritten by the last, which has been seen.
    for (std::size_t i = active.size(); i-- > 0;) {
      Exchange& e = active[i];
      bool ended = false;
      if (ready[i].revents != 0) {
        const ssize_t n = recv(sessions[e.session].socket, buffer.data(), buffer.size(), 0);
        if (n > 0) ended = take_answer(e, Bytes(buffer).first(static_cast<std::size_t>(n)), result);
      } else if (now >= e.deadline) {
        if (e.sends < max_sends) {
          ++result.retransmissions;
          send_request(e);
        } else {
          ++result.timeouts;
          ended = true;
        }
      }
      if (ended) {
        e = active.back();
        active.pop_back();
      }
    }
  }
  result.elapsed_ns = steady_ns() - start;
  result.server_cpu_ns = process_cpu_ns(options_.server_pid) - cpu;
  return result;
}

SetUpResult Sessions::set_up() { return run(Step::challenge); }
SetUpResult Sessions::renew() { return run(Step::refresh); }

VerifyResult Sessions::verify() {
  VerifyResult result;
  const Payload payload(options_.size);
  std::vector<std::uint8_t> packet(stun::channel_header_size + options_.size), received(65536);
  store_be16(packet.data(), channel_number);
  store_be16(packet.data() + 2, static_cast<std::uint16_t>(options_.size));
  payload.write(packet.data() + stun::channel_header_size);
  std::vector<bool> at_peer(sessions.size()), at_client(sessions.size());

  const auto drain_peer = [&](int peer) {
    sockaddr_in source{};
    for (;;) {
      socklen_t length = sizeof source;
      const ssize_t n = recvfrom(peer, received.data(), received.size(), 0,
                                 reinterpret_cast<sockaddr*>(&source), &length);
      if (n < 0) return;
      Stamp stamp;
      if (!payload.read(Bytes(received).first(static_cast<std::size_t>(n)), stamp) || stamp.run != 0 ||
          stamp.session >= sessions.size())
        continue;
      const Session& s = sessions[stamp.session];
      if (peers[s.peer] != peer || !is_same(s.relayed, source)) continue;
      if (!at_peer[stamp.session]) ++result.to_peer;
      at_peer[stamp.session] = true;
      stamp.direction = Direction::to_client;
      std::memcpy(received.data(), &stamp, sizeof stamp);
      sendto(peer, received.data(), static_cast<std::size_t>(n), 0, reinterpret_cast<sockaddr*>(&source), length);
    }
  };
  const auto drain_client = [&](std::uint32_t index) {
    for (;;) {
      const ssize_t n = recv(sessions[index].socket, received.data(), received.size(), 0);
      if (n < 0) return;
      Stamp stamp;
      const Bytes all = Bytes(received).first(static_cast<std::size_t>(n));
      if (all.size() != packet.size()) continue;
      if (std::memcmp(all.data(), packet.data(), stun::channel_header_size) != 0) continue;
      if (!payload.read(all.subspan(stun::channel_header_size), stamp)) continue;
      if (stamp.run != 0 || stamp.session != index || stamp.direction != Direction::to_client) continue;
      if (!at_client[index]) ++result.to_client;
      at_client[index] = true;
    }
  };

  std::vector<pollfd> ready;
  const auto count = static_cast<std::uint32_t>(sessions.size());
  for (std::uint32_t first = 0; first < count; first += options_.window) {
    const std::uint32_t last = std::min(first + options_.window, count);
    for (std::uint32_t round = 0; round < max_verify_rounds; ++round) {
      bool is_missing = false;
      for (std::uint32_t i = first; i < last; ++i) {
        if (at_client[i] || sessions[i].relayed.sin_port == 0) continue;
        is_missing = true;
        if (round > 0) ++result.resent;
        const Stamp stamp{.session = i};
        std::memcpy(packet.data() + stun::channel_header_size, &stamp, sizeof stamp);
        (void)!send(sessions[i].socket, packet.data(), packet.size(), 0);
      }
      if (!is_missing) break;
      for (const std::int64_t deadline = steady_ns() + verify_timeout; steady_ns() < deadline;) {
        ready.clear();
        for (int p : peers) ready.push_back({p, POLLIN, 0});
        for (std::uint32_t i = first; i < last; ++i)
          if (!at_client[i]) ready.push_back({sessions[i].socket, POLLIN, 0});
        if (ready.size() == peers.size()) break;
        poll(ready.data(), ready.size(), 50);
        for (int p : peers) drain_peer(p);
        for (std::uint32_t i = first; i < last; ++i)
          if (!at_client[i]) drain_client(i);
      }
    }
  }
  return result;
}

}  // namespace radiotower::bench
