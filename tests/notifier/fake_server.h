// An HTTP server for tests that does what it is told: answers, waits, closes in the middle; with TLS and any certificate.
//
// Listens on 127.0.0.1, a thread for each connection. Owns its sockets and threads; all end with it.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <list>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <openssl/ssl.h>

namespace radiotower::notifier {

struct FakeRequest {
  std::string method, path, head, body;
  bool fresh = false;  // the first of its connection
};

struct FakeReply {
  std::string bytes;                    // head and body
  std::chrono::milliseconds delay{0};   // before them; ends early with the server
  bool close = false;                   // the connection, after them
};
FakeReply answer(unsigned status, const std::string& body, const std::string& content_type = "application/json", const std::string& headers = "");
inline FakeReply ok() { return answer(200, "ok", "text/plain"); }
inline FakeReply cut() { return {.bytes = "", .delay = {}, .close = true}; }
inline FakeReply cut_after_headers() { return {.bytes = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", .delay = {}, .close = true}; }
inline FakeReply hang() { return {.bytes = "", .delay = std::chrono::seconds(20), .close = true}; }

/// A key with its certificate, and the same as PEM files.
class Identity {
 public:
  struct Wish {
    std::string common_name;
    std::vector<std::string> names{};  // "DNS:chat.lan", "IP:127.0.0.1"
    int valid_from_days = -1, valid_until_days = 30;
    bool authority = false;
  };
  Identity(const Wish& wish, const Identity* issuer);  // nullptr: self-signed
  ~Identity();
  Identity(const Identity&) = delete;
  Identity& operator=(const Identity&) = delete;
  std::string pem() const;
  EVP_PKEY* key = nullptr;
  X509* certificate = nullptr;
};

class FakeServer {
 public:
  explicit FakeServer(const Identity* identity = nullptr);  // nullptr: plain HTTP
  ~FakeServer();
  FakeServer(const FakeServer&) = delete;
  FakeServer& operator=(const FakeServer&) = delete;

  std::uint16_t port() const { return port_; }
  std::string url(const std::string& host = "127.0.0.1") const;
  void next(FakeReply reply);              // in order, one for each POST; then ok() again
  void handle(std::function<FakeReply(const FakeRequest&)> handler);  // instead of all that
  std::vector<FakeRequest> requests() const;
  std::vector<FakeRequest> posts() const;  // those with a body

 private:
  struct Connection {
    int descriptor = -1;
    std::thread thread;
  };
  void accept_all();
  void serve(Connection& connection);
  FakeReply reply_to(const FakeRequest& request);

  int listener_ = -1;
  std::uint16_t port_ = 0;
  SSL_CTX* tls_ = nullptr;
  std::thread thread_;
  mutable std::mutex mutex_;
  std::condition_variable ending_;
  bool end_ = false;
  std::list<Connection> connections_;
  std::vector<FakeReply> script_;
  std::function<FakeReply(const FakeRequest&)> handler_;
  std::vector<FakeRequest> requests_;
};

/// A file in a folder of the test's own, gone with it.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  std::string write(const std::string& name, const std::string& text) const;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace radiotower::notifier
