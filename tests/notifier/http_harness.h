// A server in this process, and clients of it over loopback sockets: what the tests of the way in share.
#pragma once

#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <functional>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <utility>

#include "notifier/http_server.h"

namespace radiotower::notifier {
inline namespace http_harness {  // its Client is not the one of mattermost.h, and both are linked into one program

using namespace std::chrono_literals;

/// What must come is waited for so long: a machine that has other work may let us stand for seconds.
inline constexpr std::chrono::milliseconds patience = 30s;

/// A server without haste: no deadline comes before a client that this machine keeps waiting. A test of one sets that alone.
inline HttpServer::Options patient() {
  HttpServer::Options options;
  options.head_within = options.body_within = options.answer_within = options.taken_within = options.idle_for = options.body_rate_after = 10min;
  return options;
}

/// A client's socket. Every wait is bounded by `patience`; deadlines of the server that a test waits for are far below.
class Client {
 public:
  /// `from`: the address of this machine that it comes from, such as 127.0.0.2.
  explicit Client(const HttpServer& server, const char* from = "127.0.0.1") {
    const std::string bound = server.bound().at(0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(std::stoi(bound.substr(bound.rfind(':') + 1))));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socket_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in own{};
    own.sin_family = AF_INET;
    inet_pton(AF_INET, from, &own.sin_addr);
    const int late = 1;  // the port is chosen by connect(2), so that one address can have many to many servers
    setsockopt(socket_, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &late, sizeof late);
    REQUIRE(bind(socket_, reinterpret_cast<const sockaddr*>(&own), sizeof own) == 0);
    REQUIRE(connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  }
  Client(Client&& other) noexcept : socket_(std::exchange(other.socket_, -1)), rest_(std::move(other.rest_)) {}
  ~Client() {
    if (socket_ >= 0) close(socket_);
  }

  void send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent < 0) return;  // the server has had enough
      bytes.remove_prefix(static_cast<std::size_t>(sent));
    }
  }
  void end_sending() { shutdown(socket_, SHUT_WR); }
  int descriptor() const { return socket_; }

  /// The next answer as it came, its body with it; empty at the end of the connection.
  std::string answer(bool to_head = false) {
    while (true) {
      const std::size_t end = rest_.find("\r\n\r\n");
      if (end != std::string::npos) {
        const std::size_t at = rest_.find("\r\nContent-Length: ");
        const std::size_t length = to_head || at > end ? 0 : static_cast<std::size_t>(std::stoul(rest_.substr(at + 18)));
        if (rest_.size() >= end + 4 + length) {
          const std::string whole = rest_.substr(0, end + 4 + length);
          rest_.erase(0, whole.size());
          return whole;
        }
      }
      if (!receive()) return {};
    }
  }
  unsigned status(bool to_head = false) {
    const std::string whole = answer(to_head);
    return whole.size() < 12 ? 0 : static_cast<unsigned>(std::stoul(whole.substr(9, 3)));
  }
  /// Nothing more came before the server closed the connection.
  bool closed() { return !receive() && rest_.empty() && !timed_out_; }
  bool silent_for(std::chrono::milliseconds time) {
    pollfd p{socket_, POLLIN, 0};
    return poll(&p, 1, static_cast<int>(time.count())) == 0;
  }

 private:
  bool receive() {
    pollfd p{socket_, POLLIN, 0};
    timed_out_ = poll(&p, 1, static_cast<int>(patience.count())) != 1;
    char bytes[16 * 1024];
    const ssize_t got = timed_out_ ? 0 : recv(socket_, bytes, sizeof bytes, 0);
    if (got > 0) rest_.append(bytes, static_cast<std::size_t>(got));
    return got > 0;
  }

  int socket_;
  bool timed_out_ = false;
  std::string rest_;
};

/// A server on a port of the kernel's choice, whose handler echoes, and remembers what it saw.
struct House {
  explicit House(HttpServer::Options options = patient(), HttpServer::OnHead on_head = {}, HttpServer::OnRequest on_request = {})
      : server(listening(std::move(options)), std::move(on_head), on_request ? std::move(on_request) : echo()) {
    server.start();
  }
  ~House() { server.stop(20); }
  static HttpServer::Options listening(HttpServer::Options options) {
    if (options.listen.empty()) options.listen = {"127.0.0.1:0"};
    return options;
  }
  HttpServer::OnRequest echo() {
    return [this](HttpRequest&& request, Responder respond) {
      {
        const std::lock_guard lock(mutex);
        seen.push_back(request);
      }
      respond({200, request.method + ' ' + request.path + ' ' + std::to_string(request.body.size())});
    };
  }
  std::size_t calls() {
    const std::lock_guard lock(mutex);
    return seen.size();
  }
  std::uint64_t wait_for(const std::atomic<std::uint64_t>& counter, std::uint64_t value) {
    (void)becomes([&] { return counter == value; });
    return counter;
  }
  /// Whether it becomes so.
  bool becomes(const std::function<bool()>& what) {
    for (const auto end = std::chrono::steady_clock::now() + patience; !what();) {
      if (std::chrono::steady_clock::now() >= end) return what();
      std::this_thread::sleep_for(1ms);
    }
    return true;
  }

  std::mutex mutex;
  std::vector<HttpRequest> seen;
  HttpServer server;
};

inline const std::string get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
inline std::string post(std::size_t length, std::string_view fields = "") {
  return "POST /v1/x HTTP/1.1\r\nHost: a\r\n" + std::string(fields) + "Content-Length: " + std::to_string(length) + "\r\n\r\n";
}

}  // namespace http_harness
}  // namespace radiotower::notifier
