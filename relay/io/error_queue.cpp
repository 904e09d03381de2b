#include "error_queue.h"

#include <linux/errqueue.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

namespace radiotower::io {

bool read_error_queue(int descriptor, SocketError& error) {
  for (int i = 0; i < 64; ++i) {  // entries of another kind (timestamps) are passed over
    sockaddr_in6 name{};
    alignas(cmsghdr) char control[512];
    msghdr message{};
    message.msg_name = &name;
    message.msg_namelen = sizeof name;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    ssize_t got;
    do got = recvmsg(descriptor, &message, MSG_ERRQUEUE | MSG_DONTWAIT);
    while (got < 0 && errno == EINTR);
    if (got < 0) return false;
    for (cmsghdr* c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
      const bool v4 = c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_RECVERR;
      const bool v6 = c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_RECVERR;
      if ((!v4 && !v6) || c->cmsg_len < CMSG_LEN(sizeof(sock_extended_err))) continue;
      sock_extended_err e;
      std::memcpy(&e, CMSG_DATA(c), sizeof e);
      error = {};
      error.from_icmp = e.ee_origin == SO_EE_ORIGIN_ICMP || e.ee_origin == SO_EE_ORIGIN_ICMP6;
      if (error.from_icmp) {
        error.icmp_type = e.ee_type;
        error.icmp_code = e.ee_code;
      }
      if (e.ee_errno == EMSGSIZE) error.mtu = e.ee_info;
      // msg_name is whom the datagram was for; who sent the ICMP message (SO_EE_OFFENDER) is nobody's business.
      if (const auto to = net::TransportAddress::from_sockaddr(reinterpret_cast<const sockaddr*>(&name), message.msg_namelen))
        error.destination = *to;
      return true;
    }
  }
  return false;
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

bool is_permanent(int error) {
  switch (error) {
    case EBADF:
    case ENOTSOCK:
    case EFAULT:
    case EINVAL: return true;  // EINVAL: a kernel without multishot recvmsg
    default: return false;
  }
}

void count_send_failure(int error, std::size_t datagrams, LoopCounters& counters) {
  switch (error) {
    case EAGAIN:
    case ENOBUFS: counters.send_full += datagrams; return;       // the queue of the socket or of the device: as if the network had dropped it
    case EMSGSIZE: counters.send_too_large += datagrams; return;  // over the path MTU with DF, or over 65,507 bytes
    case ENETUNREACH:
    case EHOSTUNREACH:
    case ECONNREFUSED:
    case EACCES:
    case EPERM:  // a firewall on this host
    case EADDRNOTAVAIL: counters.send_unreachable += datagrams; return;
    default: counters.send_failed += datagrams; return;
  }
}

}  // namespace radiotower::io
