// Both loops, the same promises: io_uring and epoll.
#include <doctest/doctest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "radiotower/io/loop.h"

using namespace radiotower;
using namespace radiotower::io;

namespace {

struct Heard {
  SocketId socket;
  std::uint64_t cookie;
  net::TransportAddress from;
  std::string data;
};

struct Ear final : Receiver {
  explicit Ear(Loop& l) : loop(l) {}
  void on_datagram(const Datagram& d) override {
    heard.push_back({d.socket, d.cookie, d.from, std::string(as_text(d.bytes))});
    if (echo) {
      Outgoing out;
      out.socket = d.socket;
      out.to = d.from;
      out.bytes = d.bytes;
      out.prefix_size = prefix ? 4 : 0;
      out.prefix = {'H', 'E', 'A', 'D'};
      loop.send(out);
    }
  }
  void on_socket_error(const SocketError& e) override { errors.push_back(e); }
  void on_wake() override { ++wakes; }
  Loop& loop;
  bool echo = false;
  bool prefix = false;
  std::vector<Heard> heard;
  std::vector<SocketError> errors;
  int wakes = 0;
};

std::unique_ptr<Loop> make(const char* which, LoopSettings settings = {}) {
  std::string why;
  auto loop = std::string_view(which) == "epoll" ? make_epoll_loop(settings, why) : make_uring_loop(settings, why);
  if (!loop) MESSAGE("no ", which, " here: ", why);
  return loop;
}

Socket udp(const char* address, bool errors = false) {
  int error = 0;
  UdpOptions options;
  options.report_errors = errors;
  options.receive_buffer = 4 << 20;
  Socket s = open_udp({*net::IpAddress::parse(address), 0, 0}, options, error);
  REQUIRE_MESSAGE(s, std::strerror(error));
  return s;
}

void say(const Socket& from, const net::TransportAddress& to, std::string_view text) {
  sockaddr_in6 a;
  const auto length = static_cast<socklen_t>(to.to_sockaddr(&a));
  REQUIRE(sendto(from.descriptor(), text.data(), text.size(), 0, reinterpret_cast<sockaddr*>(&a), length) == static_cast<ssize_t>(text.size()));
}

std::optional<std::string> hear(const Socket& s) {
  std::string text(70000, '\0');
  const ssize_t n = recv(s.descriptor(), text.data(), text.size(), MSG_DONTWAIT);
  if (n < 0) return std::nullopt;
  text.resize(static_cast<std::size_t>(n));
  return text;
}

template <typename Done>
bool turns(Loop& loop, Ear& ear, Done done) {
  for (int i = 0; i < 200; ++i) {
    if (done()) return true;
    REQUIRE(loop.turn(milliseconds(10), ear));
  }
  return done();
}

const char* backends[] = {"io_uring", "epoll"};

}  // namespace

TEST_CASE("what arrives is handed over with its source, and can be sent back from where it lies") {
  for (const char* backend : backends) {
    for (const char* address : {"127.0.0.1", "::1"}) {
      CAPTURE(backend);
      CAPTURE(address);
      auto loop = make(backend);
      if (!loop) continue;
      Ear ear(*loop);
      ear.echo = true;
      Socket mine = udp(address);
      const auto at = local_address(mine);
      const SocketId id = loop->add(std::move(mine), 42);
      REQUIRE(id != no_socket);
      const Socket peer = udp(address);
      for (const std::string& text : {std::string("hello"), std::string(), std::string(65507, 'x'), std::string(1400, 'y')}) {
        ear.heard.clear();
        say(peer, at, text);
        std::optional<std::string> back;
        CHECK(turns(*loop, ear, [&] { return (back = hear(peer)).has_value(); }));
        CHECK(back == text);
        REQUIRE(ear.heard.size() == 1);
        CHECK(ear.heard[0].cookie == 42);
        CHECK(ear.heard[0].socket == id);
        CHECK(ear.heard[0].from == local_address(peer));
      }
      CHECK(loop->armed() == loop->sockets());
    }
  }
}

TEST_CASE("a prefix is put in front without a copy") {
  for (const char* backend : backends) {
    CAPTURE(backend);
    auto loop = make(backend);
    if (!loop) continue;
    Ear ear(*loop);
    ear.echo = ear.prefix = true;
    Socket mine = udp("127.0.0.1");
    const auto at = local_address(mine);
    loop->add(std::move(mine), 1);
    const Socket peer = udp("127.0.0.1");
    say(peer, at, "er");
    std::optional<std::string> back;
    CHECK(turns(*loop, ear, [&] { return (back = hear(peer)).has_value(); }));
    CHECK(back == "HEADer");
  }
}

TEST_CASE("a train is taken apart: every stride, skip and prefix") {
  for (const char* backend : backends) {
    CAPTURE(backend);
    auto loop = make(backend);
    if (!loop) continue;
    Ear ear(*loop);
    Socket mine = udp("127.0.0.1");
    const SocketId id = loop->add(std::move(mine), 1);
    const Socket peer = udp("127.0.0.1");
    for (const std::uint16_t stride : std::initializer_list<std::uint16_t>{5, 6, 8}) {
      for (const std::uint16_t skip : std::initializer_list<std::uint16_t>{0, 4}) {
        for (const std::uint8_t prefix : std::initializer_list<std::uint8_t>{0, 4}) {
          CAPTURE(stride);
          CAPTURE(skip);
          std::string text = "....aaaabbbbccccddd";
          std::vector<std::uint8_t> bytes(text.begin(), text.end());
          std::vector<std::string> expected;
          for (std::size_t k = 4; k < text.size(); k += stride) {
            const std::string whole = text.substr(k, stride);
            expected.push_back(std::string(prefix ? "HEAD" : "") + whole.substr(std::min<std::size_t>(skip, whole.size())));
          }
          Outgoing out;
          out.socket = id;
          out.to = local_address(peer);
          out.bytes = {bytes.data() + 4, bytes.size() - 4};
          out.stride = stride;
          out.skip = skip;
          out.prefix_size = prefix;
          out.prefix = {'H', 'E', 'A', 'D'};
          loop->send(out);
          std::vector<std::string> got;
          turns(*loop, ear, [&] {
            while (const auto one = hear(peer)) got.push_back(*one);
            return got.size() >= expected.size();
          });
          std::sort(got.begin(), got.end());
          std::sort(expected.begin(), expected.end());
          CHECK(got == expected);
        }
      }
    }
  }
}

TEST_CASE("sockets come and go by the hundred; one that is gone says nothing more") {
  for (const char* backend : backends) {
    CAPTURE(backend);
    auto loop = make(backend);
    if (!loop) continue;
    Ear ear(*loop);
    const Socket peer = udp("127.0.0.1");
    for (int round = 0; round < 3; ++round) {
      std::vector<SocketId> ids;
      std::vector<net::TransportAddress> at;
      for (std::uint64_t i = 0; i < 500; ++i) {
        Socket s = udp("127.0.0.1");
        at.push_back(local_address(s));
        ids.push_back(loop->add(std::move(s), i));
        REQUIRE(ids.back() != no_socket);
      }
      CHECK(loop->sockets() == 500);
      ear.heard.clear();
      REQUIRE(loop->turn(nanoseconds(0), ear));
      for (std::size_t i = 0; i < 500; ++i) say(peer, at[i], std::to_string(i));
      CHECK(turns(*loop, ear, [&] { return ear.heard.size() == 500; }));
      for (const auto& h : ear.heard) CHECK(h.data == std::to_string(h.cookie));
      ear.heard.clear();
      for (std::size_t i = 0; i < 500; ++i) say(peer, at[i], "late");
      for (const SocketId id : ids) loop->remove(id);
      for (int i = 0; i < 5; ++i) REQUIRE(loop->turn(milliseconds(1), ear));
      CHECK(ear.heard.empty());
      CHECK(loop->sockets() == 0);
      CHECK(loop->armed() == 0);
      for (const SocketId id : ids) loop->remove(id);  // twice does no harm
    }
  }
}

TEST_CASE("G01: an ICMP error is reported with its destination, and what is sent next to somebody else still leaves") {
  for (const char* backend : backends) {
    CAPTURE(backend);
    auto loop = make(backend);
    if (!loop) continue;
    Ear ear(*loop);
    net::TransportAddress nobody;
    {
      const Socket gone = udp("127.0.0.1");
      nobody = local_address(gone);
    }
    const SocketId id = loop->add(udp("127.0.0.1", true), 9);
    const Socket peer = udp("127.0.0.1");
    std::string text = "text";
    Outgoing out;
    out.socket = id;
    out.bytes = {reinterpret_cast<std::uint8_t*>(text.data()), text.size()};
    for (int i = 0; i < 5; ++i) {
      out.to = nobody;
      loop->send(out);
      out.to = local_address(peer);
      loop->send(out);
      REQUIRE(loop->turn(milliseconds(1), ear));
      REQUIRE(loop->turn(milliseconds(1), ear));
    }
    CHECK(turns(*loop, ear, [&] { return ear.errors.size() >= 5; }));
    for (const auto& e : ear.errors) {
      CHECK(e.from_icmp);
      CHECK(e.icmp_type == 3);
      CHECK(e.icmp_code == 3);
      CHECK(e.destination == nobody);
      CHECK(e.cookie == 9);
    }
    int got = 0;
    while (hear(peer)) ++got;
    CHECK(got == 5);
    CHECK(turns(*loop, ear, [&] { return loop->armed() == loop->sockets(); }));
  }
}

TEST_CASE("a burst of more datagrams than there are buffers is survived") {
  for (const char* backend : backends) {
    CAPTURE(backend);
    LoopSettings settings;
    settings.buffers = 64;
    auto loop = make(backend, settings);
    if (!loop) continue;
    Ear ear(*loop);
    Socket mine = udp("127.0.0.1");
    const auto at = local_address(mine);
    loop->add(std::move(mine), 1);
    REQUIRE(loop->turn(nanoseconds(0), ear));
    const Socket peer = udp("127.0.0.1");
    for (int i = 0; i < 1000; ++i) say(peer, at, std::to_string(i));
    CHECK(turns(*loop, ear, [&] { return ear.heard.size() == 1000; }));
    for (int i = 0; i < 1000; ++i) CHECK(ear.heard[static_cast<std::size_t>(i)].data == std::to_string(i));
    CHECK(turns(*loop, ear, [&] { return loop->armed() == loop->sockets(); }));
  }
}

TEST_CASE("DF on one datagram") {
  for (const char* backend : backends) {
    CAPTURE(backend);
    auto loop = make(backend);
    if (!loop) continue;
    Ear ear(*loop);
    const SocketId id = loop->add(udp("127.0.0.1"), 1);
    const Socket peer = udp("127.0.0.1");
    std::string text = "whole";
    Outgoing out;
    out.socket = id;
    out.to = local_address(peer);
    out.bytes = {reinterpret_cast<std::uint8_t*>(text.data()), text.size()};
    out.dont_fragment = true;
    loop->send(out);
    std::optional<std::string> got;
    CHECK(turns(*loop, ear, [&] { return (got = hear(peer)).has_value(); }));
    CHECK(got == "whole");
  }
}

TEST_CASE("wake() ends a wait from another thread") {
  for (const char* backend : backends) {
    CAPTURE(backend);
    auto loop = make(backend);
    if (!loop) continue;
    Ear ear(*loop);
    for (int i = 1; i <= 3; ++i) {
      std::thread other([&] { loop->wake(); });
      CHECK(turns(*loop, ear, [&] { return ear.wakes >= i; }));
      other.join();
    }
  }
}

TEST_CASE("sends to nowhere are counted and harm nobody") {
  for (const char* backend : backends) {
    CAPTURE(backend);
    auto loop = make(backend);
    if (!loop) continue;
    Ear ear(*loop);
    const SocketId id = loop->add(udp("127.0.0.1", true), 1);
    const Socket peer = udp("127.0.0.1");
    std::vector<std::uint8_t> bytes(65535, 'x');
    Outgoing out;
    out.socket = id;
    out.to = local_address(peer);
    out.bytes = bytes;  // S05: no datagram is that long
    loop->send(out);
    REQUIRE(loop->turn(milliseconds(1), ear));
    REQUIRE(loop->turn(milliseconds(1), ear));
    CHECK(loop->counters().send_too_large == 1);
    loop->remove(id);
    loop->send(out);
    REQUIRE(loop->turn(milliseconds(1), ear));
  }
}

TEST_CASE("the addresses of this host include its loopback") {
  bool loopback = false;
  for (const auto& a : host_addresses()) loopback = loopback || a.ip.is_loopback();
  CHECK(loopback);
}
