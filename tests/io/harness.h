// The small language of the loop's tests: sockets that say and hear, and an ear that keeps what a loop hands over.
#pragma once

#include <doctest/doctest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "radiotower/io/loop.h"

namespace radiotower::io::testing {

struct Heard {
  SocketId socket;
  std::uint64_t cookie;
  net::TransportAddress from;
  std::string data;
};

struct Ear final : Receiver {
  explicit Ear(Loop& l) : loop(l) {}
  void on_datagram(const Datagram& d) override {
    if (on_each) on_each(d);
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
  void on_socket_error(const SocketError& e) override {
    errors.push_back(e);
    if (on_error) on_error(e);
  }
  void on_wake() override { ++wakes; }
  Loop& loop;
  bool echo = false;
  bool prefix = false;
  std::function<void(const Datagram&)> on_each;
  std::function<void(const SocketError&)> on_error;
  std::vector<Heard> heard;
  std::vector<SocketError> errors;
  int wakes = 0;
};

inline std::unique_ptr<Loop> make(const char* which, LoopSettings settings = {}) {
  std::string why;
  auto loop = std::string_view(which) == "epoll" ? make_epoll_loop(settings, why) : make_uring_loop(settings, why);
  if (!loop) MESSAGE("no ", which, " here: ", why);
  return loop;
}

/// Without trains, so that each datagram is heard on its own.
inline Socket udp(const char* address, bool errors = false, bool trains = false) {
  int error = 0;
  UdpOptions options;
  options.report_errors = errors;
  options.receive_buffer = 4 << 20;
  options.trains = trains;
  Socket s = open_udp({*net::IpAddress::parse(address), 0, 0}, options, error);
  REQUIRE_MESSAGE(s, std::strerror(error));
  return s;
}

inline void say(const Socket& from, const net::TransportAddress& to, std::string_view text) {
  sockaddr_in6 a;
  const auto length = static_cast<socklen_t>(to.to_sockaddr(&a));
  REQUIRE(sendto(from.descriptor(), text.data(), text.size(), 0, reinterpret_cast<sockaddr*>(&a), length) == static_cast<ssize_t>(text.size()));
}

inline std::optional<std::string> hear(const Socket& s) {
  std::string text(70000, '\0');
  const ssize_t n = recv(s.descriptor(), text.data(), text.size(), MSG_DONTWAIT);
  if (n < 0) return std::nullopt;
  text.resize(static_cast<std::size_t>(n));
  return text;
}

/// What must come is waited for so long: a machine that has other work may let us stand for seconds. What is there costs no wait.
inline constexpr std::chrono::seconds patience{30};

/// Turns the loop until it is so; false: it never was.
template <typename AnyEar, typename Done>
bool turns(Loop& loop, AnyEar& ear, Done done) {
  for (const auto end = std::chrono::steady_clock::now() + patience; !done();) {
    if (std::chrono::steady_clock::now() >= end) return done();
    REQUIRE(loop.turn(milliseconds(10), ear));
  }
  return true;
}

inline constexpr const char* backends[] = {"io_uring", "epoll"};

inline Outgoing outgoing(SocketId socket, const net::TransportAddress& to, std::string& text) {
  Outgoing out;
  out.socket = socket;
  out.to = to;
  out.bytes = {reinterpret_cast<std::uint8_t*>(text.data()), text.size()};
  return out;
}

/// A place of this host where nobody hears: the port is held, so that no other program gets it, by a socket that hears itself alone.
struct Nobody {
  explicit Nobody(const char* ip) : held(udp(ip)), address(local_address(held)) {
    sockaddr_in6 a;
    const auto length = static_cast<socklen_t>(address.to_sockaddr(&a));
    REQUIRE(connect(held.descriptor(), reinterpret_cast<sockaddr*>(&a), length) == 0);
  }
  Socket held;
  net::TransportAddress address;
};

/// All that is there, once there are `least`: loopback delivers at once, unless the kernel puts it off.
inline std::vector<std::string> hear_all(const Socket& s, std::size_t least = 0) {
  std::vector<std::string> all;
  for (const auto end = std::chrono::steady_clock::now() + patience;;) {
    while (auto one = hear(s)) all.push_back(std::move(*one));
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - std::chrono::steady_clock::now()).count();
    pollfd waits{s.descriptor(), POLLIN, 0};
    if (all.size() >= least || left <= 0 || poll(&waits, 1, static_cast<int>(left)) <= 0) return all;
  }
}

}  // namespace radiotower::io::testing
