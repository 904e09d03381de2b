// HTTP(S) in: accepts, reads strictly, bounds everything, and hands whole requests to a function. Boost.Beast and Asio on one thread of its own.
//
// Bounds: `connections` at once (the oldest idle one is closed for a new one beyond it), headers 16 KiB and 100 fields, body 1 MiB, bodies of all
// connections together 32 MiB (503 beyond). Deadlines: the header must be there 10 s after its first byte (and the TLS handshake in 10 s),
// the body 30 s after the header, an idle connection is closed after 60 s, an answer nobody reads after 10 s.
// What is strict: one Host, one Content-Length or "chunked" alone, never both; origin-form targets without fragments, control characters or
// percent-encoding in the path; CRLF alone; no obs-fold, no blank before a colon; HTTP/1.0 and 1.1. What is not so gets 400 and the
// connection is closed; nothing behind it on that connection is read.
// May not know: sources, queue, JSON. Owns its sockets and thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace radiotower::notifier {

struct HttpRequest {
  std::string method;  // GET, POST ...
  std::string path;    // "/v1/gitlab", without the query
  std::string query;
  std::vector<std::pair<std::string, std::string>> headers;  // names in lower case, values without outer blanks
  std::string body;
  bool from_loopback = false;
  std::string_view header(std::string_view lower_case_name) const;  // the first; empty: none
};

struct HttpAnswer {
  unsigned status = 200;
  std::string body;                                // text/plain unless said otherwise
  std::string content_type = "text/plain; charset=utf-8";
  std::vector<std::pair<std::string, std::string>> headers{};  // Retry-After, Allow, WWW-Authenticate ...
};

/// Answers a request, once, from any thread; a second call, or one after the connection is gone, does nothing.
using Responder = std::function<void(HttpAnswer)>;

struct HttpCounters {  // relaxed; read by anyone
  std::atomic<std::uint64_t> accepted{0}, refused{0}, requests{0}, bad_requests{0}, timeouts{0}, tls_failures{0}, open{0};
};

class HttpServer {
 public:
  struct Options {
    std::vector<std::string> listen;                // "127.0.0.1:8066", "[::1]:8066"
    std::string certificate, private_key;           // PEM files; empty: plain HTTP
    std::size_t connections = 16'000;
    std::size_t longest_body = 1 << 20;
    std::size_t all_bodies = 32 << 20;
  };
  /// Of a request line and its headers, before the body: an answer refuses the request at once (the connection is closed when a body would follow).
  using OnHead = std::function<std::optional<HttpAnswer>(const HttpRequest& head)>;
  using OnRequest = std::function<void(HttpRequest&& request, Responder respond)>;

  /// Binds and listens; throws std::runtime_error with a sentence for the operator (which address, why, what else uses it).
  HttpServer(Options options, OnHead on_head, OnRequest on_request);
  ~HttpServer();  // stop()
  void start();   // the thread
  /// No new connections and requests; those being answered have until `grace_ms`; then the thread ends.
  void stop(unsigned grace_ms = 2000);
  /// Reads certificate and key anew, for connections from now on. False with a sentence: the old ones stay.
  bool reload_certificate(std::string& why);
  const HttpCounters& counters() const;
  /// What it is bound to, with the port that the kernel chose for 0.
  std::vector<std::string> bound() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace radiotower::notifier
