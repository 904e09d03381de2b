#include "link.h"

#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "radiotower/stun/framing.h"
#include "tls_link.h"
#include "wait.h"

namespace radiotower::cli {

bool wait_for(int descriptor, short events, Clock::time_point deadline) {
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    if (left <= 0) return false;
    pollfd wait{descriptor, events, 0};
    const int ready = poll(&wait, 1, static_cast<int>(std::min<std::int64_t>(left, 60'000)));
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) return true;  // the call that follows tells
  }
}

net::TransportAddress local_of(int descriptor) {
  sockaddr_storage storage{};
  socklen_t length = sizeof storage;
  if (getsockname(descriptor, reinterpret_cast<sockaddr*>(&storage), &length) != 0) return {};
  return net::TransportAddress::from_sockaddr(reinterpret_cast<const sockaddr*>(&storage), length).value_or(net::TransportAddress{});
}

Frames::Taken Frames::take(MutableBytes buffer, std::size_t& size) {
  const stun::Frame frame = stun::next_frame(Bytes(bytes_).subspan(start_), true);
  if (frame.kind == stun::FrameKind::wrong) return Taken::wrong;
  if (frame.kind == stun::FrameKind::incomplete || frame.size > buffer.size()) return Taken::nothing;
  std::copy_n(bytes_.begin() + static_cast<std::ptrdiff_t>(start_), frame.size, buffer.begin());
  start_ += frame.size;
  if (start_ == bytes_.size()) {
    bytes_.clear();
    start_ = 0;
  } else if (start_ > 65'536) {
    bytes_.erase(bytes_.begin(), bytes_.begin() + static_cast<std::ptrdiff_t>(start_));
    start_ = 0;
  }
  size = frame.size;
  return Taken::message;
}

std::vector<std::uint8_t> padded(Bytes message) {
  std::vector<std::uint8_t> out(message.begin(), message.end());
  out.resize((out.size() + 3) & ~std::size_t{3});
  return out;
}

namespace {

class UdpLink final : public Link {
 public:
  explicit UdpLink(UdpSocket socket) : socket_(std::move(socket)) {}
  net::TransportAddress local() const override { return socket_.local(); }
  int send(Bytes message) override { return socket_.send(message); }
  Arrival receive(MutableBytes buffer, Clock::time_point deadline, std::size_t& size) override {
    net::TransportAddress from;
    switch (socket_.receive(buffer, deadline, size, from)) {
      case UdpSocket::Arrival::datagram: return Arrival::message;
      case UdpSocket::Arrival::deadline: return Arrival::deadline;
      case UdpSocket::Arrival::refused: return Arrival::refused;
      case UdpSocket::Arrival::failed: break;
    }
    return Arrival::failed;
  }
  int last_error() const override { return socket_.last_error(); }
  bool is_reliable() const override { return false; }
  const std::vector<Step>& steps() const override { return steps_; }
  bool forbid_fragments() override { return socket_.forbid_fragments(); }

 private:
  UdpSocket socket_;
  std::vector<Step> steps_;
};

class TcpLink final : public Link {
 public:
  TcpLink(Fd fd, std::vector<Step> steps, std::chrono::milliseconds timeout) : fd_(std::move(fd)), steps_(std::move(steps)), timeout_(timeout) {}
  net::TransportAddress local() const override { return local_of(fd_.number()); }

  int send(Bytes message) override {
    const auto bytes = padded(message);
    const auto deadline = Clock::now() + timeout_;
    for (std::size_t sent = 0; sent < bytes.size();) {
      const ssize_t n = ::send(fd_.number(), bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
      if (n >= 0) sent += static_cast<std::size_t>(n);
      else if (errno == EAGAIN) {
        if (!wait_for(fd_.number(), POLLOUT, deadline)) return EAGAIN;
      } else if (errno != EINTR) {
        return errno;
      }
    }
    return 0;
  }

  Arrival receive(MutableBytes buffer, Clock::time_point deadline, std::size_t& size) override {
    for (;;) {
      switch (frames_.take(buffer, size)) {
        case Frames::Taken::message: return Arrival::message;
        case Frames::Taken::wrong: last_error_ = EBADMSG; return Arrival::failed;
        case Frames::Taken::nothing: break;
      }
      std::array<std::uint8_t, 16384> chunk;
      const ssize_t n = recv(fd_.number(), chunk.data(), chunk.size(), 0);
      if (n > 0) {
        frames_.add(Bytes(chunk).first(static_cast<std::size_t>(n)));
      } else if (n == 0 || errno == ECONNRESET || errno == EPIPE) {
        return Arrival::closed;
      } else if (errno == EAGAIN) {
        if (!wait_for(fd_.number(), POLLIN, deadline)) return Arrival::deadline;
      } else if (errno != EINTR) {
        last_error_ = errno;
        return Arrival::failed;
      }
    }
  }
  int last_error() const override { return last_error_; }
  bool is_reliable() const override { return true; }
  const std::vector<Step>& steps() const override { return steps_; }

 private:
  Fd fd_;
  std::vector<Step> steps_;
  std::chrono::milliseconds timeout_;
  Frames frames_;
  int last_error_ = 0;
};

/// A connected TCP socket, non-blocking; empty, with a failure, when there is none in time.
Fd connect_tcp(const net::TransportAddress& server, std::chrono::milliseconds timeout, LinkFailure& failure) {
  failure.step = "connect";
  Fd fd(socket(server.family() == net::Family::ipv4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_storage storage{};
  const auto length = static_cast<socklen_t>(server.to_sockaddr(&storage));
  int error = fd.number() < 0 ? errno : 0;
  if (error == 0 && connect(fd.number(), reinterpret_cast<const sockaddr*>(&storage), length) != 0) error = errno;
  if (error == EINPROGRESS) {
    error = ETIMEDOUT;
    if (wait_for(fd.number(), POLLOUT, Clock::now() + timeout)) {
      socklen_t size = sizeof error;
      if (getsockopt(fd.number(), SOL_SOCKET, SO_ERROR, &error, &size) != 0) error = errno;
    }
  }
  if (error == 0) {
    const int on = 1;
    setsockopt(fd.number(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
  }
  if (error == ECONNREFUSED) {
    failure.what = fmt::format("nobody listens at {} over TCP", server.text());
    failure.check = {"is the server running, and does it listen on this address and port over TCP? On its host: ss -tln", "is the port right? 3478 is the default, 5349 for TLS",
                     "for TLS: has the server a certificate? Without one a radiotower-relay does not listen on 5349"};
  } else if (error == ETIMEDOUT) {
    failure.what = fmt::format("no answer from {} over TCP within {:g} s", server.text(), static_cast<double>(timeout.count()) / 1000);
    failure.check = {"does a firewall between here and there drop TCP to that port?", "is the address right?"};
  } else {
    failure.what = fmt::format("no way to {} over TCP: {}", server.text(), std::strerror(error));
    failure.check = {"the route to the server: ip route get " + server.ip.text()};
  }
  return Fd();
}

}  // namespace

std::unique_ptr<Link> open_link(net::Transport transport, const net::TransportAddress& server, const TlsOptions& tls,
                                std::chrono::milliseconds timeout, LinkFailure& failure, const std::optional<net::IpAddress>& from) {
  if (!net::is_stream(transport)) {
    auto socket = UdpSocket::connected_to(server, failure.what, from);
    if (!socket) {
      failure.step = "socket";
      failure.check = {"the route to the server: ip route get " + server.ip.text(), "-4 or -6 chooses the family"};
      return nullptr;
    }
    if (transport == net::Transport::udp) return std::make_unique<UdpLink>(std::move(*socket));
    return open_tls_link(Fd(socket->release()), true, server, tls, {}, timeout, failure);
  }
  const auto start = Clock::now();
  Fd fd = connect_tcp(server, timeout, failure);
  if (fd.number() < 0) return nullptr;
  std::vector<Link::Step> steps{{"connect", Clock::now() - start, fmt::format("TCP to {}", server.text()), ""}};
  if (transport == net::Transport::tcp) return std::make_unique<TcpLink>(std::move(fd), std::move(steps), timeout);
  return open_tls_link(std::move(fd), false, server, tls, std::move(steps), timeout, failure);
}

}  // namespace radiotower::cli
