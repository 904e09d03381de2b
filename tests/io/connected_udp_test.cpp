// A socket for one peer, beside a SO_REUSEPORT group that must not notice.
#include "../../relay/io/connected_udp.h"

#include <doctest/doctest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <vector>

using namespace radiotower;
using namespace radiotower::io;

namespace {

net::TransportAddress at(const char* ip, std::uint16_t port = 0) { return {*net::IpAddress::parse(ip), port}; }

void send(const Socket& from, const net::TransportAddress& to) {
  std::array<std::uint8_t, 28> name;
  const auto length = static_cast<socklen_t>(to.to_sockaddr(name.data()));
  REQUIRE(sendto(from.descriptor(), "x", 1, 0, reinterpret_cast<sockaddr*>(name.data()), length) == 1);
}

/// Which of them has got the one datagram that was sent.
std::size_t receiver(const std::vector<Socket>& sockets) {
  std::vector<pollfd> waits;
  for (const auto& socket : sockets) waits.push_back({socket.descriptor(), POLLIN, 0});
  REQUIRE(poll(waits.data(), waits.size(), 30'000) == 1);
  for (std::size_t i = 0; i < waits.size(); ++i) {
    if (!waits[i].revents) continue;
    char byte;
    REQUIRE(recv(waits[i].fd, &byte, 1, 0) == 1);
    return i;
  }
  return sockets.size();
}

}  // namespace

TEST_CASE("connected sockets come and go, each gets its peer's datagrams, and nobody else's leave their member of the group") {
  for (const char* ip : {"127.0.0.1", "::1"}) {
    CAPTURE(ip);
    int error = 0;
    net::TransportAddress listener = at(ip);
    std::vector<Socket> sockets;
    constexpr std::size_t members = 4;
    for (std::size_t i = 0; i < members; ++i) {
      sockets.push_back(open_udp(listener, {true, false, 0, 0, false}, error));
      if (error == EADDRNOTAVAIL) break;  // no IPv6 here
      REQUIRE(sockets.back());
      listener = local_address(sockets[0]);
    }
    if (error != 0) continue;
    std::vector<Socket> clients;
    std::vector<std::size_t> home;
    for (int i = 0; i < 100; ++i) {
      clients.push_back(open_udp(at(ip), {}, error));
      REQUIRE(clients.back());
      send(clients.back(), listener);
      home.push_back(receiver(sockets));
    }
    for (std::size_t i = 0; i < clients.size(); i += 10) {
      sockets.push_back(open_connected_udp(listener, local_address(clients[i]), {}, error));
      REQUIRE(sockets.back());
      CHECK(local_address(sockets.back()) == listener);
      for (std::size_t k = 1; k < clients.size(); k += 10) {
        send(clients[k], listener);
        CHECK(receiver(sockets) == home[k]);
      }
    }
    const auto check_all = [&](std::size_t each) {
      for (std::size_t i = 0; i < clients.size(); ++i) {
        send(clients[i], listener);
        CHECK(receiver(sockets) == (i % each == 0 ? members + i / 10 : home[i]));
      }
    };
    check_all(10);
    for (std::size_t i = members + 1; i < sockets.size(); i += 2) sockets[i] = Socket();
    check_all(20);
    // What it sends comes from the shared address.
    const auto peer = local_address(clients[0]);
    send(sockets[members], peer);
    pollfd wait{clients[0].descriptor(), POLLIN, 0};
    REQUIRE(poll(&wait, 1, 30'000) == 1);
    std::array<char, 1> byte;
    sockaddr_in6 from;
    socklen_t length = sizeof from;
    REQUIRE(recvfrom(clients[0].descriptor(), byte.data(), 1, 0, reinterpret_cast<sockaddr*>(&from), &length) == 1);
    CHECK(net::TransportAddress::from_sockaddr(reinterpret_cast<sockaddr*>(&from), length) == listener);
  }
}

TEST_CASE("where the way to the peer begins at another address there is none") {
  int error = 0;
  const Socket listener = open_udp(at("127.0.0.1"), {true, false, 0, 0, false}, error);
  REQUIRE(listener);
  // From 127.0.0.5 to 127.0.0.1 the kernel would choose 127.0.0.1, not 127.0.0.5.
  CHECK_FALSE(open_connected_udp({at("127.0.0.5").ip, local_address(listener).port}, local_address(listener), {}, error));
  CHECK(error == EADDRNOTAVAIL);
}
