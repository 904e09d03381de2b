#include "connected_udp.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>

namespace radiotower::io {

Socket open_connected_udp(const net::TransportAddress& local, const net::TransportAddress& peer, UdpOptions options, int& error) {
  options.reuse_port = true;
  net::TransportAddress port_alone = local;
  port_alone.ip = *net::IpAddress::parse(local.ip.is_v4() ? "0.0.0.0" : "::");
  Socket socket = open_udp(port_alone, options, error);
  if (!socket) return socket;
  sockaddr_in6 address;
  const auto length = static_cast<socklen_t>(peer.to_sockaddr(&address));
  if (connect(socket.descriptor(), reinterpret_cast<const sockaddr*>(&address), length) != 0) {
    error = errno;
    return {};
  }
  if (!(local_address(socket).ip == local.ip)) {
    error = EADDRNOTAVAIL;
    return {};
  }
  return socket;
}

}  // namespace radiotower::io
