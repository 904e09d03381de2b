// HTTP(S) in: accepts, reads strictly, bounds everything, and hands whole requests to a function. Boost.Asio and Beast on one
// thread of its own.
//
// A request is unproven until it is handed over, and its connection may be closed for others; one that was handed over is kept until
// it is answered. Bounds, and who goes when one is reached:
//   connections at once     12,000: the one that has waited longest for a request, then the one that has been unproven for longest
//   without a request handed over, of one client  256: the same among that client's
//   heads, and what is not yet understood, of all connections together  64 MiB: the one that has been unproven for longest
//   bodies of all connections together 32 MiB, unproven ones of one client 4 MiB: those that came slowest of late (503)
//   handshakes begun  400 and then 200 a second, of one client 100 and then 20 a second: the new connection
//   heads 16 KiB and 100 fields, a body 1 MiB
// A client is an IPv4 address or an IPv6 network of 64 bits. This machine is exempt, since a proxy on it stands for many clients: it
// has all connections and handshakes, and half of the bodies.
// Deadlines, each for the whole and not a single read: the TLS handshake and the head 10 s (a head from its first byte on), the body
// 30 s after the head, and 64 KiB/s on average once 5 s have passed (408), an answer 60 s (503 then) and 10 s to be taken; a connection
// without a request is closed after 60 s.
// What is strict: one Host, one Content-Length or "chunked" alone, never both; origin-form targets without fragments, control
// characters or percent-encoding in the path; CRLF alone, no empty line in front; no obs-fold, no blank before a colon; no chunk
// extensions, no trailers; HTTP/1.0 and 1.1. What is not so gets 400 (or 413, 414, 417, 431, 501, 505) and the connection is closed;
// nothing behind it on that connection is read. One request at a time: pipelined ones wait, and are answered in order.
// May not know: sources, queue, JSON. Owns its sockets and thread.
#pragma once

#include <atomic>
#include <chrono>
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
  std::string client;  // its address, without the port
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
  std::atomic<std::uint64_t> accepted{0};      // connections
  std::atomic<std::uint64_t> refused{0};       // connections and bodies beyond a bound; also those closed for others
  std::atomic<std::uint64_t> requests{0};      // heads that are HTTP as we read it
  std::atomic<std::uint64_t> bad_requests{0};  // those that are not, and bodies
  std::atomic<std::uint64_t> timeouts{0};      // of deadlines, but not of idle connections
  std::atomic<std::uint64_t> tls_failures{0};
  std::atomic<std::uint64_t> open{0};          // connections now
};

class HttpServer {
 public:
  struct Rate {
    double a_second, burst;
  };
  struct Options {
    std::vector<std::string> listen;       // "127.0.0.1:8066", "[::1]:8066"
    std::string certificate, private_key;  // PEM files; empty: plain HTTP
    std::size_t connections = 12'000;
    std::size_t connections_a_client = 256;  // whose requests, if any, are unproven
    std::size_t longest_body = 1 << 20;
    std::size_t all_bodies = 32 << 20, bodies_a_client = 4 << 20;  // the latter: at least longest_body
    std::size_t all_heads = 64 << 20;
    std::size_t body_rate = 64 << 10;  // bytes a second
    Rate handshakes{200, 400}, client_handshakes{20, 100};
    bool loopback_is_proxy = true;  // false: this machine is a client like others
    // Deadlines: looked at every 250 ms, so they may be late by that.
    std::chrono::milliseconds head_within{10'000}, body_within{30'000}, answer_within{60'000}, taken_within{10'000}, idle_for{60'000};
    std::chrono::milliseconds body_rate_after{5'000};
    /// For the log: a sentence on what only an operator can mend (descriptors have run out, a client does not trust our certificate),
    /// and whose connection it was, where there is one. Of each kind of sentence (up to its first ':' or '(') at most one a second and
    /// 30 a minute; the next one says how many were left out. Called on the server's thread; may be empty.
    std::function<void(std::string_view sentence, std::string_view client)> on_trouble;
  };
  /// Of a request line and its headers, before the body: an answer refuses the request at once (the connection is closed when a body would
  /// follow). Both are called on the server's thread, which does nothing else meanwhile; what they throw costs the connection.
  using OnHead = std::function<std::optional<HttpAnswer>(const HttpRequest& head)>;
  using OnRequest = std::function<void(HttpRequest&& request, Responder respond)>;

  /// Binds and listens; throws std::runtime_error with a sentence for the operator (which address, why, what else uses it).
  HttpServer(Options options, OnHead on_head, OnRequest on_request);
  ~HttpServer();  // stop()
  void start();   // the thread
  /// No new connections and requests; those whose head is read have until `grace_ms`; then the thread ends. Not from the server's thread.
  void stop(unsigned grace_ms = 2000);
  /// Reads certificate and key anew, for connections from now on. False with a sentence: the old ones stay. True: `why` is empty, or a warning
  /// (the certificate has expired, is not valid yet). From any thread.
  bool reload_certificate(std::string& why);
  /// The same with files of other names.
  bool reload_certificate(const std::string& certificate, const std::string& private_key, std::string& why);
  const HttpCounters& counters() const;
  /// Grows by one at least every 250 ms while the thread moves: for a watchdog.
  std::uint64_t beats() const;
  /// What it is bound to, with the port that the kernel chose for 0.
  std::vector<std::string> bound() const;

 private:
  struct State;
  std::shared_ptr<State> state_;  // Responders that outlive the server know it weakly
};

}  // namespace radiotower::notifier
