#include "error_queue.h"

#include <linux/errqueue.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

namespace radiotower::io {

void drain_error_queue(int descriptor, SocketId socket, std::uint64_t cookie, Receiver& receiver) {
  for (int i = 0; i < 64; ++i) {
    sockaddr_in6 name{};
    alignas(cmsghdr) char control[512];
    msghdr message{};
    message.msg_name = &name;
    message.msg_namelen = sizeof name;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    if (recvmsg(descriptor, &message, MSG_ERRQUEUE | MSG_DONTWAIT) < 0) return;
    for (cmsghdr* c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
      const bool v4 = c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_RECVERR;
      const bool v6 = c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_RECVERR;
      if (!v4 && !v6) continue;
      sock_extended_err e;
      std::memcpy(&e, CMSG_DATA(c), sizeof e);
      const auto destination = net::TransportAddress::from_sockaddr(reinterpret_cast<const sockaddr*>(&name), message.msg_namelen);
      SocketError error;
      error.socket = socket;
      error.cookie = cookie;
      error.from_icmp = e.ee_origin == SO_EE_ORIGIN_ICMP || e.ee_origin == SO_EE_ORIGIN_ICMP6;
      error.icmp_type = e.ee_type;
      error.icmp_code = e.ee_code;
      error.mtu = e.ee_info;
      if (destination) error.destination = *destination;  // msg_name of the error queue is whom the datagram was for
      receiver.on_socket_error(error);
    }
  }
}

bool may_be_of_an_earlier_datagram(int error) {
  switch (error) {
    case ECONNREFUSED:   // port unreachable
    case EHOSTUNREACH:   // host unreachable, time exceeded
    case ENETUNREACH:    // net unreachable
    case EPROTO:         // parameter problem
    case ENOPROTOOPT:    // protocol unreachable
    case EOPNOTSUPP:     // source route failed
    case EHOSTDOWN:
    case ENONET:
    case EACCES:         // administratively prohibited (IPv6)
    case EMSGSIZE: return true;  // fragmentation needed
    default: return false;
  }
}

void count_send_failure(int error, LoopCounters& counters) {
  switch (error) {
    case EAGAIN:
    case ENOBUFS: ++counters.send_full; return;       // the queue of the socket or of the device: as if the network had dropped it
    case EMSGSIZE: ++counters.send_too_large; return;  // over the path MTU with DF, or over 65,507 bytes
    case ENETUNREACH:
    case EHOSTUNREACH:
    case ECONNREFUSED:
    case EACCES:
    case EPERM:  // a firewall on this host
    case EADDRNOTAVAIL: ++counters.send_unreachable; return;
    default: ++counters.send_failed; return;
  }
}

}  // namespace radiotower::io
