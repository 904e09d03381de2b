// TLS for the way in: a certificate with its key as a context for connections, and a connection's bytes, plain or through TLS.
//
// OpenSSL works on the descriptor itself: asio::ssl::stream would keep two 17 KiB buffers and a pair of BIOs for each connection, idle
// ones too. May not know: HTTP.
#pragma once

#include <openssl/ssl.h>

#include <boost/asio/ip/tcp.hpp>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace radiotower::notifier {

/// TLS 1.2 and 1.3 with AEAD suites, no sessions, no tickets, no renegotiation. Null: `why` is a sentence for the operator. Not null:
/// `why` is empty, or a warning: the certificate has expired, or is not valid yet - a clock that is off must not stop the service.
std::shared_ptr<SSL_CTX> load_certificate(const std::string& certificate_file, const std::string& key_file, std::string& why);

/// What has to happen before a call can go on. closed: the other side is gone, or what it sends is no TLS.
enum class Need : std::uint8_t { nothing, readable, writable, closed };

/// A connected socket, with TLS where `context` is not null. Never blocks. The thread that uses it blocks SIGPIPE.
class Stream {
 public:
  Stream(boost::asio::ip::tcp::socket socket, SSL_CTX* context);

  /// To be called until `nothing`, before anything else. `why`: a sentence when it failed, empty when the other side merely left.
  Need shake_hands(std::string& why);
  /// The other side spoke plain HTTP to a port with TLS. It can be answered: from here on the stream is plain.
  bool became_plain() const { return became_plain_; }
  /// `readable` also after a record that was not data, so that a flood of such records takes turns with other connections.
  Need read(std::span<char> into, std::size_t& got);
  Need write(std::string_view bytes, std::size_t& sent);
  /// Nothing more is written: the other side sees the end after the last byte.
  void end_writing();
  /// Reads what still comes, past TLS, to throw it away.
  Need discard(std::span<char> into, std::size_t& got);

  boost::asio::ip::tcp::socket& socket() { return socket_; }

 private:
  Need judge(int result);
  Need receive(std::span<char> into, std::size_t& got);

  boost::asio::ip::tcp::socket socket_;
  std::unique_ptr<SSL, decltype(&SSL_free)> tls_;
  bool became_plain_ = false;
  std::unique_ptr<unsigned> later_handshakes_;  // messages since the handshake; OpenSSL's callback counts here
};

}  // namespace radiotower::notifier
