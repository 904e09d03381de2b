// An endpoint and clients of it over memory, with a network between them that loses, doubles and reorders, and one clock for all: also OpenSSL's, which the
// test executable's own gettimeofday() keeps (dtls_test.cpp).
#pragma once

#include <doctest/doctest.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/time.h>

#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "../../relay/tls/dtls_hello.h"
#include "../../relay/tls/dtls_wire.h"
#include "harness.h"
#include "radiotower/tls/dtls.h"

namespace radiotower::tls::test {

using namespace std::chrono_literals;
using Packet = std::vector<std::uint8_t>;

/// What every clock of the test says.
extern Time clock_now;

inline net::TransportAddress at(const char* ip, std::uint16_t port) { return {*net::IpAddress::parse(ip), port}; }

inline std::shared_ptr<const Identity> make_identity() {
  Authority authority;
  return load({authority.issue("relay")});
}

inline const std::shared_ptr<const Identity>& identity() {
  static const std::shared_ptr<const Identity> one = make_identity();
  return one;
}

/// The same numbers in every run.
inline RandomSource seeded(std::uint64_t seed) {
  return [engine = std::mt19937_64(seed)](MutableBytes bytes) mutable {
    for (auto& byte : bytes) byte = static_cast<std::uint8_t>(engine());
  };
}

class Client {
 public:
  explicit Client(DtlsPath its_path, int highest = 0) : path(its_path), context_(SSL_CTX_new(DTLS_client_method())) {
    if (highest) {
      SSL_CTX_set_security_level(context_, 0);  // it would not even ask for what we refuse
      SSL_CTX_set_min_proto_version(context_, highest);
      SSL_CTX_set_max_proto_version(context_, highest);
    }
    starts();
  }
  ~Client() {
    SSL_free(ssl_);
    SSL_CTX_free(context_);
  }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  /// Anew, as after a crash.
  void starts() {
    SSL_free(ssl_);
    ssl_ = SSL_new(context_);
    BIO_up_ref(wire_.bio);
    SSL_set_bio(ssl_, wire_.bio, wire_.bio);
    SSL_set_options(ssl_, SSL_OP_NO_QUERY_MTU);
    SSL_set_mtu(ssl_, 1200);
    SSL_set_connect_state(ssl_);
    failed = closed = false;
    messages.clear();
  }

  /// Takes a datagram (or none), and returns what it sends.
  std::vector<Packet> takes(Bytes datagram = {}) {
    wire_.in = datagram;
    wire_.path = &path;
    wire_.out = &out_;
    for (;;) {
      Packet plain(20000);
      std::size_t size = 0;
      ERR_clear_error();
      const int result = SSL_read_ex(ssl_, plain.data(), plain.size(), &size);
      if (result == 1) {
        plain.resize(size);
        messages.push_back(plain);
        continue;
      }
      const int why = SSL_get_error(ssl_, result);
      if (why == SSL_ERROR_ZERO_RETURN) closed = true;
      else if (why != SSL_ERROR_WANT_READ) failed = true;
      break;
    }
    wire_.in = {};
    return sent();
  }
  std::vector<Packet> says(Bytes message) {
    wire_.path = &path;
    wire_.out = &out_;
    std::size_t written = 0;
    CHECK(SSL_write_ex(ssl_, message.data(), message.size(), &written) == 1);
    return sent();
  }
  std::vector<Packet> says(std::string_view message) { return says(as_bytes(message)); }
  std::vector<Packet> closes() {
    wire_.path = &path;
    wire_.out = &out_;
    SSL_shutdown(ssl_);
    return sent();
  }
  std::vector<Packet> times_out() {
    wire_.path = &path;
    wire_.out = &out_;
    if (DTLSv1_handle_timeout(ssl_) < 0) failed = true;
    return sent();
  }
  bool waits(nanoseconds& left) {
    timeval tv{};
    if (DTLSv1_get_timeout(ssl_, &tv) != 1) return false;
    left = seconds(tv.tv_sec) + microseconds(tv.tv_usec);
    return true;
  }
  bool is_open() const { return SSL_is_init_finished(ssl_) == 1; }
  SSL* ssl() { return ssl_; }

  DtlsPath path;
  std::vector<Packet> messages;
  bool failed = false, closed = false;

 private:
  std::vector<Packet> sent() {
    std::vector<Packet> all;
    for (const auto& d : out_.datagrams) all.emplace_back(d.bytes.begin(), d.bytes.end());
    out_.clear();
    return all;
  }
  SSL_CTX* context_;
  SSL* ssl_ = nullptr;
  DtlsWire wire_;
  DtlsOutput out_;
};

struct Station {
  DtlsEndpoint endpoint{identity(), seeded(7)};
  DtlsOutput out;
  std::vector<std::pair<DtlsPath, Packet>> messages;  // plain ones, trains taken apart
  std::size_t trains = 0;
  std::vector<DtlsPath> ended;

  /// What the endpoint answers.
  std::vector<Packet> gets(const DtlsPath& path, Bytes bytes, std::uint16_t segment = 0) {
    endpoint.from_client(path, bytes, segment, clock_now, out);
    return taken();
  }
  std::vector<Packet> gets(const DtlsPath& path, const std::vector<Packet>& packets) {
    std::vector<Packet> answers;
    for (const auto& packet : packets)
      for (auto& answer : gets(path, Bytes(packet))) answers.push_back(std::move(answer));
    return answers;
  }
  bool says(const DtlsPath& path, Bytes message, std::vector<Packet>& datagrams) {
    const bool good = endpoint.to_client(path, message, out);
    datagrams = taken();
    return good;
  }
  std::vector<Packet> taken() {
    std::vector<Packet> all;
    for (const auto& d : out.datagrams) all.emplace_back(d.bytes.begin(), d.bytes.end());
    for (const auto& m : out.messages) {
      // The core may write there (turn::Train).
      std::fill(m.bytes.data() - DtlsOutput::headroom, m.bytes.data(), std::uint8_t{0xEE});
      std::fill(m.bytes.data() + m.bytes.size(), m.bytes.data() + m.bytes.size() + DtlsOutput::tailroom, std::uint8_t{0xEE});
    }
    for (const auto& m : out.messages) {
      const std::size_t step = m.segment ? m.segment : m.bytes.size();
      trains += m.segment != 0;
      for (std::size_t at = 0; at < m.bytes.size(); at += step) {
        const auto one = m.bytes.subspan(at, std::min(step, m.bytes.size() - at));
        messages.emplace_back(m.path, Packet(one.begin(), one.end()));
      }
    }
    for (const auto& path : out.ended) ended.push_back(path);
    out.clear();
    return all;
  }
  std::vector<Packet> expires() {
    endpoint.expire(clock_now, out);
    return taken();
  }
  void passes(nanoseconds time) {
    clock_now += time;
    expires();
  }

  using Network = std::function<std::vector<Packet>(std::vector<Packet>)>;  // loses, doubles, reorders
  /// Until the client is open or has failed, at most a minute.
  bool opens(Client& client, const Network& network = nullptr) {
    const auto through = [&](std::vector<Packet> packets) { return network ? network(std::move(packets)) : packets; };
    const Time end = clock_now + 60s;
    std::vector<Packet> up = through(client.takes());
    while (clock_now < end && !client.failed) {
      std::vector<Packet> down = through(gets(client.path, up));
      up.clear();
      for (const auto& packet : down)
        for (auto& next : through(client.takes(Bytes(packet)))) up.push_back(std::move(next));
      if (!up.empty()) continue;
      if (client.is_open()) return true;
      // Quiet: on to whoever waits shortest.
      Time next = endpoint.next_expiry();
      nanoseconds left{};
      if (client.waits(left)) next = std::min(next, clock_now + left);
      if (next == never) return false;
      clock_now = std::max(clock_now + 1ms, next);
      for (const auto& packet : through(expires()))
        for (auto& more : through(client.takes(Bytes(packet)))) up.push_back(std::move(more));
      for (auto& packet : through(client.times_out())) up.push_back(std::move(packet));
    }
    return client.is_open();
  }
};

inline DtlsPath path(std::uint16_t port = 5000, const char* ip = "192.0.2.1") { return {at(ip, port), 7}; }

/// A first ClientHello, and the same with the cookie of `answer`.
inline Packet first_hello(Client& client) {
  auto packets = client.takes();
  REQUIRE(packets.size() == 1);
  return packets[0];
}
inline Packet second_hello(Client& client, const Packet& answer) {
  auto packets = client.takes(Bytes(answer));
  REQUIRE(packets.size() == 1);
  return packets[0];
}

}  // namespace radiotower::tls::test
