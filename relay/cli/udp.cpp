#include "udp.h"

#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace radiotower::cli {

std::vector<net::TransportAddress> resolve(const HostPort& target, std::optional<net::Family> family, std::string& why) {
  addrinfo hints{};
  hints.ai_family = !family ? AF_UNSPEC : *family == net::Family::ipv4 ? AF_INET : AF_INET6;
  hints.ai_socktype = SOCK_DGRAM;
  hints.ai_flags = AI_NUMERICSERV;
  addrinfo* list = nullptr;
  const int error = getaddrinfo(target.host.c_str(), std::to_string(target.port).c_str(), &hints, &list);
  std::vector<net::TransportAddress> out;
  if (error == 0) {
    for (const addrinfo* entry = list; entry; entry = entry->ai_next) {
      const auto address = net::TransportAddress::from_sockaddr(entry->ai_addr, entry->ai_addrlen);
      if (address && std::find(out.begin(), out.end(), *address) == out.end()) out.push_back(*address);
    }
    freeaddrinfo(list);
  }
  if (out.empty())
    why = fmt::format("{}: {}", target.host, error == EAI_SYSTEM ? std::strerror(errno) : error != 0 ? gai_strerror(error) : "no address");
  return out;
}

UdpSocket::UdpSocket(UdpSocket&& other) noexcept : fd_(std::exchange(other.fd_, -1)), last_error_(other.last_error_) {}

UdpSocket& UdpSocket::operator=(UdpSocket&& other) noexcept {
  std::swap(fd_, other.fd_);
  last_error_ = other.last_error_;
  return *this;
}

UdpSocket::~UdpSocket() {
  if (fd_ >= 0) close(fd_);
}

std::optional<UdpSocket> UdpSocket::open(net::Family family, std::string& why) {
  const int fd = socket(family == net::Family::ipv4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) {
    why = fmt::format("no socket for {}: {}", family == net::Family::ipv4 ? "IPv4" : "IPv6", std::strerror(errno));
    return std::nullopt;
  }
  return UdpSocket(fd);
}

std::optional<UdpSocket> UdpSocket::connected_to(const net::TransportAddress& remote, std::string& why, const std::optional<net::IpAddress>& from) {
  auto socket = from ? bound_to({*from, 0, 0}, why) : open(remote.family(), why);
  if (!socket) return std::nullopt;
  sockaddr_storage storage{};
  const auto length = static_cast<socklen_t>(remote.to_sockaddr(&storage));
  if (::connect(socket->fd_, reinterpret_cast<const sockaddr*>(&storage), length) != 0) {
    why = fmt::format("no way to {}: {}", remote.text(), std::strerror(errno));
    return std::nullopt;
  }
  return socket;
}

std::optional<UdpSocket> UdpSocket::bound_to(const net::TransportAddress& local, std::string& why) {
  auto socket = open(local.family(), why);
  if (!socket) return std::nullopt;
  sockaddr_storage storage{};
  const auto length = static_cast<socklen_t>(local.to_sockaddr(&storage));
  if (::bind(socket->fd_, reinterpret_cast<const sockaddr*>(&storage), length) != 0) {
    why = fmt::format("{} cannot be used here: {}", local.text(), std::strerror(errno));
    return std::nullopt;
  }
  return socket;
}

net::TransportAddress UdpSocket::local() const {
  sockaddr_storage storage{};
  socklen_t length = sizeof storage;
  if (getsockname(fd_, reinterpret_cast<sockaddr*>(&storage), &length) != 0) return {};
  return net::TransportAddress::from_sockaddr(reinterpret_cast<const sockaddr*>(&storage), length).value_or(net::TransportAddress{});
}

int UdpSocket::send(Bytes bytes) { return ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL) < 0 ? errno : 0; }

bool UdpSocket::forbid_fragments() {
  const bool v4 = local().family() == net::Family::ipv4;
  const int probe = v4 ? IP_PMTUDISC_PROBE : IPV6_PMTUDISC_PROBE;
  return setsockopt(fd_, v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_MTU_DISCOVER : IPV6_MTU_DISCOVER, &probe, sizeof probe) == 0;
}

int UdpSocket::send_to(const net::TransportAddress& to, Bytes bytes) {
  sockaddr_storage storage{};
  const auto length = static_cast<socklen_t>(to.to_sockaddr(&storage));
  return ::sendto(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL, reinterpret_cast<const sockaddr*>(&storage), length) < 0 ? errno : 0;
}

UdpSocket::Arrival UdpSocket::receive(MutableBytes buffer, Clock::time_point deadline, std::size_t& size, net::TransportAddress& from) {
  for (;;) {
    sockaddr_storage storage{};
    socklen_t length = sizeof storage;
    const ssize_t n = recvfrom(fd_, buffer.data(), buffer.size(), 0, reinterpret_cast<sockaddr*>(&storage), &length);
    if (n >= 0) {
      size = static_cast<std::size_t>(n);
      from = net::TransportAddress::from_sockaddr(reinterpret_cast<const sockaddr*>(&storage), length).value_or(net::TransportAddress{});
      return Arrival::datagram;
    }
    if (errno == EINTR) continue;
    if (errno == ECONNREFUSED) return Arrival::refused;
    if (errno != EAGAIN && errno != EWOULDBLOCK) {
      last_error_ = errno;
      return Arrival::failed;
    }
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    if (left <= 0) return Arrival::deadline;
    pollfd wait{fd_, POLLIN, 0};
    if (poll(&wait, 1, static_cast<int>(std::min<std::int64_t>(left, 60'000))) < 0 && errno != EINTR) {
      last_error_ = errno;
      return Arrival::failed;
    }
  }
}

std::optional<net::IpAddress> source_address_towards(const net::TransportAddress& remote) {
  std::string why;
  const auto socket = UdpSocket::connected_to(remote, why);
  if (!socket) return std::nullopt;
  const net::IpAddress ip = socket->local().ip;
  if (ip.is_unspecified()) return std::nullopt;
  return ip;
}

}  // namespace radiotower::cli
