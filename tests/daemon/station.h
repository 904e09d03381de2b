// A relay on loopback for the tests of the daemon: the listener is 127.0.0.1, relayed addresses are of 127.0.0.2, peers
// live on 127.0.0.3.
#pragma once

#include <doctest/doctest.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "daemon/control.h"
#include "daemon/worker.h"
#include "radiotower/stun/message.h"

namespace radiotower::daemon::test {

using namespace std::chrono_literals;
using stun::Attribute;
using stun::Class;
using stun::Method;

inline net::TransportAddress at(const char* ip, std::uint16_t port = 0) { return {*net::IpAddress::parse(ip), port}; }

/// What must come is waited for so long, in milliseconds: a machine that has other work may let us stand for seconds.
inline constexpr int patience = 30'000;

/// Whether it becomes so; a condition that holds costs no wait.
inline bool comes(const std::function<bool()>& what) {
  for (const auto end = std::chrono::steady_clock::now() + milliseconds(patience); std::chrono::steady_clock::now() < end;) {
    if (what()) return true;
    std::this_thread::sleep_for(5ms);
  }
  return what();
}

/// A plain UDP socket that waits for what must come, and never for what must not.
class Udp {
 public:
  explicit Udp(const char* ip, std::uint16_t port = 0) {
    int error = 0;
    io::Socket socket = io::open_udp(at(ip, port), {false, false, 4 << 20, 0, false}, error);
    REQUIRE(socket);
    address = io::local_address(socket);
    descriptor_ = socket.release();
  }
  ~Udp() { close(descriptor_); }
  Udp(const Udp&) = delete;
  Udp& operator=(const Udp&) = delete;

  void send(const net::TransportAddress& to, Bytes bytes) {
    std::array<std::uint8_t, 28> name;
    const auto length = static_cast<socklen_t>(to.to_sockaddr(name.data()));
    REQUIRE(sendto(descriptor_, bytes.data(), bytes.size(), 0, reinterpret_cast<sockaddr*>(name.data()), length) ==
            static_cast<ssize_t>(bytes.size()));
  }
  std::vector<std::uint8_t> receive() {
    pollfd wait{descriptor_, POLLIN, 0};
    REQUIRE(poll(&wait, 1, patience) == 1);
    std::vector<std::uint8_t> bytes(65536);
    sockaddr_storage name{};
    socklen_t length = sizeof name;
    const ssize_t n = recvfrom(descriptor_, bytes.data(), bytes.size(), 0, reinterpret_cast<sockaddr*>(&name), &length);
    REQUIRE(n >= 0);
    bytes.resize(static_cast<std::size_t>(n));
    from = *net::TransportAddress::from_sockaddr(reinterpret_cast<sockaddr*>(&name), length);
    return bytes;
  }
  bool quiet() const {
    pollfd wait{descriptor_, POLLIN, 0};
    return poll(&wait, 1, 0) == 0;
  }

  net::TransportAddress address;
  net::TransportAddress from;  // of the last datagram

 private:
  int descriptor_;
};

/// A client that authenticates as alice.
class Client {
 public:
  explicit Client(const net::TransportAddress& relay) : relay_(relay) {}

  int asks(Method method, const std::function<void(stun::Writer&)>& more) {
    if (nonce_.empty()) CHECK(exchange(method, more) == 401);
    return exchange(method, more);
  }
  int allocates() {
    const std::array<std::uint8_t, 4> protocol{17, 0, 0, 0};
    const int code = asks(Method::allocate, [&](stun::Writer& w) { w.add(Attribute::requested_transport, Bytes(protocol)); });
    if (code == 0) relayed = stun::read_xor_address(*answer()->find(Attribute::xor_relayed_address), answer()->transaction_id())->address;
    return code;
  }
  int binds(std::uint16_t channel, const net::TransportAddress& peer) {
    return asks(Method::channel_bind, [&](stun::Writer& w) {
      w.add_u32(Attribute::channel_number, std::uint32_t{channel} << 16);
      w.add_xor_address(Attribute::xor_peer_address, peer);
    });
  }
  int permits(const net::TransportAddress& peer) {
    return asks(Method::create_permission, [&](stun::Writer& w) { w.add_xor_address(Attribute::xor_peer_address, peer); });
  }
  /// With an empty ticket asks for one; see ticket().
  int allocates_mobile() {
    const std::array<std::uint8_t, 4> protocol{17, 0, 0, 0};
    const int code = asks(Method::allocate, [&](stun::Writer& w) { w.add(Attribute::requested_transport, Bytes(protocol)).add(Attribute::mobility_ticket, Bytes()); });
    if (code == 0) relayed = stun::read_xor_address(*answer()->find(Attribute::xor_relayed_address), answer()->transaction_id())->address;
    return code;
  }
  int moves(const std::string& ticket) {
    return asks(Method::refresh, [&](stun::Writer& w) { w.add(Attribute::mobility_ticket, std::string_view(ticket)); });
  }
  std::string ticket() const {
    const auto value = answer()->find(Attribute::mobility_ticket);
    return value ? std::string(as_text(*value)) : "";
  }
  int ends() {
    return asks(Method::refresh, [&](stun::Writer& w) { w.add_u32(Attribute::lifetime, 0); });
  }
  /// Everything sent before it has been worked on when this returns.
  void syncs() {
    stun::Writer writer(space_, Class::request, Method::binding, next_id());
    socket.send(relay_, writer.bytes());
    received_ = socket.receive();
    REQUIRE(answer());
    CHECK(answer()->is(Class::success, Method::binding));
  }
  void sends_channel(std::uint16_t channel, std::string_view data) {
    std::vector<std::uint8_t> bytes(4 + data.size());
    store_be16(bytes.data(), channel);
    store_be16(bytes.data() + 2, static_cast<std::uint16_t>(data.size()));
    std::memcpy(bytes.data() + 4, data.data(), data.size());
    socket.send(relay_, bytes);
  }
  stun::TransactionId next_id() {
    store_be32(id_.data(), ++count_);
    return id_;
  }

  Udp socket{"127.0.0.1"};
  net::TransportAddress relayed;

 private:
  std::optional<stun::Message> answer() const { return stun::Message::read(received_); }
  int exchange(Method method, const std::function<void(stun::Writer&)>& more) {
    stun::Writer writer(space_, Class::request, method, next_id());
    more(writer);
    if (!nonce_.empty()) {
      writer.add(Attribute::username, "alice").add(Attribute::realm, realm_).add(Attribute::nonce, nonce_);
      writer.add_integrity(stun::long_term_key(stun::PasswordAlgorithm::md5, "alice", realm_, "secret").bytes());
    }
    REQUIRE(writer.ok());
    socket.send(relay_, writer.bytes());
    received_ = socket.receive();
    const auto message = answer();
    REQUIRE(message);
    REQUIRE(message->transaction_id() == id_);
    if (message->message_class() == Class::success) return 0;
    if (const auto nonce = message->find(Attribute::nonce)) nonce_ = as_text(*nonce);
    if (const auto realm = message->find(Attribute::realm)) realm_ = as_text(*realm);
    return stun::read_error_code(*message->find(Attribute::error_code))->code;
  }

  net::TransportAddress relay_;
  std::string nonce_, realm_;
  std::array<std::uint8_t, 2048> space_{};
  std::vector<std::uint8_t> received_;
  stun::TransactionId id_{};
  std::uint32_t count_ = 0;
};

struct SettingsWishes {
  std::vector<std::string> allow = {"127.0.0.3 unsafe"};
  std::uint16_t first_port = 40000, last_port = 44999;
  std::optional<std::uint64_t> bytes_per_second = {};  // of alice
  bool mobility = false;
};

inline std::shared_ptr<const turn::Settings> make_settings(const net::TransportAddress& listener, const SettingsWishes& wishes = {}) {
  auto settings = std::make_shared<turn::Settings>();
  settings->realm = "example.org";
  settings->relay_addresses = {{at("127.0.0.2").ip, at("127.0.0.2").ip}};
  settings->first_port = wishes.first_port;
  settings->last_port = wishes.last_port;
  settings->limits.binding_answers_per_second = 0;
  settings->listeners = {listener};
  settings->mobility = wishes.mobility;
  net::PeerPolicySettings peers;
  std::string why;
  for (const auto& text : wishes.allow) {
    const auto rule = net::PeerRule::parse(text, why);
    REQUIRE_MESSAGE(rule.has_value(), why);
    peers.allow.push_back(*rule);
  }
  peers.relay_addresses = {at("127.0.0.2").ip};
  peers.own_endpoints = {listener};
  settings->peers = std::make_shared<net::PeerPolicy>(peers);
  turn::Directory::Input input;
  input.realm = settings->realm;
  input.users = {{"alice", "secret", {}, {}, wishes.bytes_per_second}};
  settings->directory = std::make_shared<turn::Directory>(input);
  return settings;
}

/// A port of 127.0.0.1 that nobody has, neither of UDP nor of TCP. Not one of those that the kernel gives to whoever asks for any
/// (32768 and above): other tests ask for many, and would be given it before the relay binds to it.
inline net::TransportAddress free_address() {
  std::random_device random;
  for (int i = 0; i < 1000; ++i) {
    const auto address = at("127.0.0.1", static_cast<std::uint16_t>(10'000 + random() % 20'000));
    int error = 0;
    if (io::open_udp(address, {}, error) && io::open_tcp_listener(address, {}, error)) return address;
  }
  FAIL("no free port");
  return {};
}

/// The log's reader: collects lines until one holds what is waited for.
class LogReader {
 public:
  LogReader() {
    REQUIRE(pipe2(ends_, O_CLOEXEC) == 0);
    fcntl(ends_[1], F_SETPIPE_SZ, 1 << 20);
  }
  ~LogReader() {
    close(ends_[0]);
    close(ends_[1]);
  }
  int descriptor() const { return ends_[1]; }
  /// The line, counted from the last one waited for.
  std::string wait_for(std::string_view text) {
    for (;;) {
      for (std::size_t end; (end = pending_.find('\n')) != std::string::npos;) {
        const std::string line = pending_.substr(0, end);
        pending_.erase(0, end + 1);
        if (line.find(text) != std::string::npos) return line;
      }
      pollfd wait{ends_[0], POLLIN, 0};
      REQUIRE_MESSAGE(poll(&wait, 1, patience) == 1, "never logged: ", std::string(text));
      char buffer[4096];
      const ssize_t n = read(ends_[0], buffer, sizeof buffer);
      REQUIRE(n > 0);
      pending_.append(buffer, static_cast<std::size_t>(n));
    }
  }

 private:
  int ends_[2];
  std::string pending_;
};

/// One relay with one worker, unless said otherwise.
struct Station {
  explicit Station(Backend backend, SettingsWishes wishes = {}, unsigned workers = 1,
                   const std::function<void(RelayPlan&)>& change = {})
      : listener(free_address()), log({LogFormat::text, Priority::info, reader.descriptor(), 1024}) {
    RelayPlan plan;
    plan.backend = backend;
    plan.workers = workers;
    plan.listeners = {listener};
    if (change) change(plan);
    relay = std::make_unique<Relay>(plan, make_settings(listener, wishes), log, [] {});
    works = relay->start(why);
    if (!works) MESSAGE("left out: ", why);
  }
  WorkerReport report() {
    WorkerReport sum;
    for (const auto& worker : relay->workers()) {
      const auto one = worker->report(milliseconds(patience));
      REQUIRE(one);
      sum.sockets += one->sockets;
      sum.armed += one->armed;
      sum.allocations += one->allocations;
      sum.counters.dropped_peer_denied += one->counters.dropped_peer_denied;
      sum.counters.packets_to_peer += one->counters.packets_to_peer;
      sum.counters.packets_to_client += one->counters.packets_to_client;
      sum.counters.shortcut_packets_to_peer += one->counters.shortcut_packets_to_peer;
      sum.counters.dropped_user_limit += one->counters.dropped_user_limit;
      sum.counters.binding_answers += one->counters.binding_answers;
      sum.dropped_retired += one->dropped_retired;
      sum.dtls.dtls_dropped_stranger += one->dtls.dtls_dropped_stranger;
      sum.listeners.insert(sum.listeners.end(), one->listeners.begin(), one->listeners.end());
    }
    return sum;
  }
  void ends() {
    relay->stop();
    for (const auto& worker : relay->workers())
      while (worker->state() == Worker::State::running) std::this_thread::yield();
  }

  net::TransportAddress listener;
  LogReader reader;
  Log log;
  std::unique_ptr<Relay> relay;
  std::string why;
  bool works = false;
};

inline constexpr Backend backends[] = {Backend::io_uring, Backend::epoll};

inline std::string text(const std::vector<std::uint8_t>& bytes, std::size_t skip = 0) { return std::string(as_text(Bytes(bytes).subspan(skip))); }

}  // namespace radiotower::daemon::test
