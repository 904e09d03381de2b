#include "sessions.h"

#include <fmt/format.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <stdexcept>

#include "measures.h"
#include "radiotower/stun/message.h"
#include "udp.h"

namespace radiotower::load {
namespace {

constexpr std::int64_t first_timeout = 500'000'000;   // RFC 8489, 6.2.1: RTO, doubled with each retransmission
constexpr int max_sends = 6, max_sends_of_first = 4;  // somebody waits for the first one
constexpr int max_challenges = 3;                     // the first 401 and stale nonces of one session
constexpr int client_buffer = 4 << 20, peer_buffer = 64 << 20;

}  // namespace

struct Sessions::Exchange {
  std::uint32_t session = 0;
  Step step = Step::challenge;
  stun::TransactionId id{};
  int sends = 0;  // of this request
  int challenges = 0;
  std::int64_t deadline = 0;
};

Sessions::Sessions(const Options& options) : options_(options), framing_(options.method) {
  want_descriptors(options.sessions + options.peer_count);
  const int on = 1;
  {
    const InNamespace in(options.peer_netns);
    auto first = options.peers;
    if (!first) {
      const auto ip = cli::source_address_towards(options.server);
      if (!ip) throw std::runtime_error(fmt::format("this host has no route to {}", options.server.ip.text()));
      first = net::TransportAddress{*ip, 0, ip->is_link_local() ? options.server.scope : 0};
    }
    for (std::uint32_t i = 0; i < options.peer_count; ++i) {
      peers.push_back(open_socket(first->family(), offset(*first, 0, i), peer_buffer));
      peer_addresses.push_back(local_address(peers.back()));
      if (options.receive_trains) setsockopt(peers.back(), SOL_UDP, UDP_GRO, &on, sizeof on);
    }
  }
  sessions.resize(options.sessions);
  for (std::uint32_t i = 0; i < options.sessions; ++i) sessions[i].peer = i % options.peer_count;
  open_clients();
}

// Again: from other addresses and ports, as clients that were never seen before.
void Sessions::open_clients() {
  const InNamespace in(options_.client_netns);
  const int on = 1;
  const std::uint32_t each = options_.clients_per_address;
  for (Session& s : sessions) {
    if (s.socket >= 0) close(s.socket);
    s.is_ready = false;
    std::optional<net::TransportAddress> local;
    if (options_.clients)
      local = offset(*options_.clients, next_client_ / each % client_addresses, next_client_ % each);
    ++next_client_;
    s.socket = open_socket(options_.server.family(), local, client_buffer);
    const Name to(options_.method == Method::direct ? peer_addresses[s.peer] : options_.server);
    if (connect(s.socket, &to.value.any, to.length) != 0)
      throw std::runtime_error(fmt::format("no way to {}: {}", options_.server.text(), std::strerror(errno)));
    if (options_.receive_trains) setsockopt(s.socket, SOL_UDP, UDP_GRO, &on, sizeof on);
  }
}

Sessions::~Sessions() {
  for (const Session& s : sessions)
    if (s.socket >= 0) close(s.socket);
  for (int p : peers) close(p);
}

std::uint64_t Sessions::own_drops() const {
  std::uint64_t sum = 0;
  for (const Session& s : sessions) sum += drops_of(s.socket);
  for (int p : peers) sum += drops_of(p);
  return sum;
}

const char* Sessions::name_of(Step step) const {
  switch (step) {
    case Step::challenge:
    case Step::allocate: return "Allocate";
    case Step::refresh:
    case Step::release: return "Refresh";
    case Step::bind: return options_.method == Method::send ? "CreatePermission" : "ChannelBind";
  }
  return "";
}

const stun::Key& Sessions::key_of(std::uint32_t session) {
  const cli::Credential& user = user_of(session);
  auto [it, is_new] = keys_.try_emplace({realm_, user.username});
  if (is_new) it->second = stun::long_term_key(stun::PasswordAlgorithm::md5, user.username, realm_, user.password);
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
  const bool is_refresh = e.step == Step::refresh || e.step == Step::release;
  // With a channel the server would use it for all it sends (RFC 8656, 11.3): indications get a permission alone.
  const stun::Method bind =
      options_.method == Method::send ? stun::Method::create_permission : stun::Method::channel_bind;
  const stun::Method method = e.step == Step::bind ? bind : is_refresh ? stun::Method::refresh : stun::Method::allocate;
  std::array<std::uint8_t, 2560> buffer;
  stun::Writer request(buffer, stun::Class::request, method, e.id);
  if (method == stun::Method::allocate) {
    request.add_u32(Attribute::requested_transport, std::uint32_t{IPPROTO_UDP} << 24);
    if (peer_addresses[s.peer].family() != net::Family::ipv4)
      request.add_u32(Attribute::requested_address_family, std::uint32_t{2} << 24);
  }
  if (is_refresh) request.add_u32(Attribute::lifetime, e.step == Step::refresh ? 600 : 0);
  if (method == stun::Method::channel_bind)
    request.add_u32(Attribute::channel_number, std::uint32_t{channel_number} << 16);
  if (method == bind) request.add_xor_address(Attribute::xor_peer_address, peer_addresses[s.peer]);
  if (e.step != Step::challenge && is_signed_) {
    request.add(Attribute::username, user_of(e.session).username);
    request.add(Attribute::realm, realm_);
    request.add(Attribute::nonce, s.nonce);
    request.add_integrity(key_of(e.session).bytes());
  }
  e.deadline = steady_ns() + (first_timeout << e.sends);
  ++e.sends;
  const MutableBytes bytes = request.bytes();
  if (send(s.socket, bytes.data(), bytes.size(), 0) < 0 && errno != EAGAIN && errno != ECONNREFUSED)
    throw std::runtime_error(fmt::format("sending to {} failed: {}", options_.server.text(), std::strerror(errno)));
}

void Sessions::fail(const Exchange& e, int code, SetUpResult& result) { ++result.errors[{name_of(e.step), code}]; }

bool Sessions::take_relayed(Exchange& e, Bytes datagram) {
  const auto answer = stun::Message::read(datagram);
  const auto value = answer->find(stun::Attribute::xor_relayed_address);
  const auto relayed = value ? stun::read_xor_address(*value, e.id) : std::nullopt;
  Session& s = sessions[e.session];
  if (!relayed || relayed->family != peer_addresses[s.peer].family()) return false;
  s.relayed = Name(relayed->address);
  return true;
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
    fail(e, code, result);
    return true;
  }
  if (e.step == Step::challenge) is_signed_ = false;  // it serves everybody: the success holds the allocation
  const bool counts = answer->message_class() == stun::Class::success &&
                      (!is_signed_ || answer->integrity_matches(key_of(e.session).bytes()));
  const bool is_allocate = e.step == Step::challenge || e.step == Step::allocate;
  if (!counts || (is_allocate && !take_relayed(e, datagram))) {
    fail(e, -1, result);
    return true;
  }
  if (e.step == Step::bind || e.step == Step::release) {
    s.is_ready = e.step == Step::bind;
    ++result.ready;
    return true;
  }
  e.step = Step::bind;
  send_request(e);
  return false;
}

SetUpResult Sessions::run(Step first) {
  SetUpResult result;
  std::vector<std::uint32_t> waiting;  // the first session last, so that it is taken first
  for (auto i = static_cast<std::uint32_t>(sessions.size()); i-- > 0;)
    if (sessions[i].is_ready == (first != Step::challenge)) waiting.push_back(i);
  result.wanted = static_cast<std::uint32_t>(waiting.size());
  std::vector<Exchange> active;
  std::vector<pollfd> ready;
  std::array<std::uint8_t, 2048> buffer;
  const std::int64_t cpu = process_cpu_ns(options_.server_pid), start = steady_ns();
  bool is_first = true;
  std::size_t ended_ones = 0;
  while (!waiting.empty() || !active.empty()) {
    while (!waiting.empty() && active.size() < (is_first ? 1 : options_.window)) {
      active.push_back({.session = waiting.back(), .step = first});
      waiting.pop_back();
      send_request(active.back());
    }
    ready.clear();
    for (const Exchange& e : active) ready.push_back({sessions[e.session].socket, POLLIN, 0});
    if (poll(ready.data(), ready.size(), 50) < 0 && errno != EINTR) throw std::runtime_error("poll failed");
    const std::int64_t now = steady_ns();
    // Backwards: an exchange that has ended is overwritten by the last, which has been seen.
    for (std::size_t i = active.size(); i-- > 0;) {
      Exchange& e = active[i];
      bool ended = false;
      if (ready[i].revents != 0) {
        const ssize_t n = recv(sessions[e.session].socket, buffer.data(), buffer.size(), 0);
        if (n > 0) ended = take_answer(e, Bytes(buffer).first(static_cast<std::size_t>(n)), result);
        if (n < 0 && errno == ECONNREFUSED && is_first) ended = result.unreachable = true;
      } else if (now >= e.deadline) {
        if (e.sends < (is_first ? max_sends_of_first : max_sends)) {
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
        ++ended_ones;
      }
    }
    if (is_first && ended_ones > 0) {
      is_first = false;
      if (result.ready == 0) {
        result.gave_up = true;
        waiting.clear();
      }
    }
  }
  result.elapsed_ns = steady_ns() - start;
  result.server_cpu_ns = process_cpu_ns(options_.server_pid) - cpu;
  return result;
}

void Sessions::prepare_direct() {
  for (Session& s : sessions) {
    s.relayed = Name(local_address(s.socket));
    s.is_ready = true;
  }
}

SetUpResult Sessions::set_up() {
  if (options_.method != Method::direct) return run(Step::challenge);
  prepare_direct();
  SetUpResult all;
  all.wanted = all.ready = static_cast<std::uint32_t>(sessions.size());
  return all;
}

SetUpResult Sessions::renew() { return options_.method == Method::direct ? SetUpResult{} : run(Step::refresh); }
SetUpResult Sessions::tear_down() { return options_.method == Method::direct ? SetUpResult{} : run(Step::release); }

StormResult Sessions::storm(double seconds) {
  StormResult result;
  const std::int64_t end = steady_ns() + static_cast<std::int64_t>(seconds * 1e9);
  for (bool is_first = true; is_first || steady_ns() < end; is_first = false) {
    // Some servers hold an address back for a while after its allocation has ended, and new clients have new ones
    // anyway.
    if (!is_first) open_clients();
    const SetUpResult made = set_up(), ended = tear_down();
    result.allocations += made.ready;
    result.failures += made.wanted - made.ready + ended.wanted - ended.ready;
    result.retransmissions += made.retransmissions + ended.retransmissions;
    result.set_up_ns += made.elapsed_ns;
    result.tear_down_ns += ended.elapsed_ns;
    result.set_up_cpu_ns += made.server_cpu_ns;
    result.tear_down_cpu_ns += ended.server_cpu_ns;
    for (const auto& [error, count] : made.errors) result.errors[error] += count;
    for (const auto& [error, count] : ended.errors) result.errors[error] += count;
    if (made.gave_up) break;
  }
  return result;
}

}  // namespace radiotower::load
