// Streams for the loop's tests: a listener in a loop, plain blocking-free sockets as the other side, and an ear that keeps what each stream says.
#pragma once

#include <poll.h>
#include <sys/uio.h>

#include <cerrno>
#include <map>
#include <utility>

#include "harness.h"

namespace radiotower::io::testing {

struct StreamEar final : Receiver {
  explicit StreamEar(Loop& l) : loop(l) {}
  struct End {
    SocketId socket;
    std::uint64_t cookie;
    int error;
  };
  void on_datagram(const Datagram& d) override { datagrams.push_back(std::string(as_text(d.bytes))); }
  void on_socket_error(const SocketError&) override {}
  void on_wake() override {}
  void on_accept(SocketId acceptor, std::uint64_t cookie, Socket socket, const net::TransportAddress& from) override {
    ++accepted;
    last_from = from;
    last_acceptor = acceptor;
    last_cookie = cookie;
    if (on_connection) return on_connection(std::move(socket));
    streams.push_back(loop.add_stream(std::move(socket), 1000 + streams.size()));
  }
  void on_chunk(const Chunk& c) override {
    REQUIRE(!c.bytes.empty());
    said[c.socket] += as_text(c.bytes);
    if (each) each(c);
  }
  void on_end(SocketId socket, std::uint64_t cookie, int error) override {
    ends.push_back({socket, cookie, error});
    if (at_end) at_end(socket);
  }
  void on_writable(SocketId socket, std::uint64_t) override {
    ++writable[socket];
    if (at_writable) at_writable(socket);
  }
  void on_released(std::uint64_t cookie, Socket socket) override { released.emplace_back(cookie, std::move(socket)); }

  Loop& loop;
  std::function<void(Socket)> on_connection;
  std::function<void(const Chunk&)> each;
  std::function<void(SocketId)> at_end, at_writable;
  std::size_t accepted = 0;
  net::TransportAddress last_from;
  SocketId last_acceptor = no_socket;
  std::uint64_t last_cookie = 0;
  std::vector<SocketId> streams;
  std::map<SocketId, std::string> said;
  std::map<SocketId, int> writable;
  std::vector<End> ends;
  std::vector<std::pair<std::uint64_t, Socket>> released;
  std::vector<std::string> datagrams;
};

inline Socket listener(const char* address = "127.0.0.1", TcpOptions options = {}) {
  int error = 0;
  Socket s = open_tcp_listener({*net::IpAddress::parse(address), 0, 0}, options, error);
  REQUIRE_MESSAGE(s, std::strerror(error));
  return s;
}

inline Socket connect_to(const net::TransportAddress& to) {
  int error = 0;
  Socket s = connect_tcp({to.ip.is_v4() ? *net::IpAddress::parse("0.0.0.0") : *net::IpAddress::parse("::"), 0, 0}, to, error);
  REQUIRE_MESSAGE(s, std::strerror(error));
  return s;
}

/// One connection: an end in the loop, and one outside of it.
struct Pair {
  SocketId id = no_socket;
  Socket outside;
};
inline Pair pair_in(Loop& loop, std::uint64_t cookie) {
  Socket ear = listener();
  Pair p;
  p.outside = connect_to(local_address(ear));
  pollfd waits{ear.descriptor(), POLLIN, 0};
  REQUIRE(poll(&waits, 1, 30'000) == 1);
  p.id = loop.add_stream(Socket(accept4(ear.descriptor(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC)), cookie);
  REQUIRE(p.id != no_socket);
  return p;
}

/// As much as the kernel takes.
inline std::size_t push(const Socket& s, std::string_view text) {
  std::size_t done = 0;
  while (done < text.size()) {
    const ssize_t n = ::send(s.descriptor(), text.data() + done, text.size() - done, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n <= 0) break;
    done += static_cast<std::size_t>(n);
  }
  return done;
}

/// As much as there is, up to `most` bytes.
inline std::string pull(const Socket& s, std::size_t most = ~std::size_t{0}) {
  std::string all;
  char part[16384];
  while (all.size() < most) {
    const ssize_t n = recv(s.descriptor(), part, std::min(sizeof part, most - all.size()), MSG_DONTWAIT);
    if (n <= 0) break;
    all.append(part, static_cast<std::size_t>(n));
  }
  return all;
}

/// The other side has closed, or the connection is gone.
inline bool at_end(const Socket& s) {
  char one;
  const ssize_t n = recv(s.descriptor(), &one, 1, MSG_DONTWAIT | MSG_PEEK);
  return n == 0 || (n < 0 && errno != EAGAIN);
}

/// Closes with a RST.
inline void reset(Socket& s) {
  const linger hard{1, 0};
  REQUIRE(setsockopt(s.descriptor(), SOL_SOCKET, SO_LINGER, &hard, sizeof hard) == 0);
  s = Socket();
}

inline std::ptrdiff_t write_text(Loop& loop, SocketId id, std::string_view text) {
  const iovec piece{const_cast<char*>(text.data()), text.size()};
  return loop.write(id, &piece, 1);
}

/// Bytes of which each tells its place.
inline std::string pattern(std::size_t size) {
  std::string text(size, '\0');
  for (std::size_t i = 0; i < size; ++i) text[i] = static_cast<char>((i * 2654435761u) >> 13);
  return text;
}

}  // namespace radiotower::io::testing
