// TLS of one connection of a server, over memory: bytes of the network go in, plain bytes come out, and the other way round. No socket.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "radiotower/base/bytes.h"
#include "radiotower/tls/identity.h"

namespace radiotower::tls {

class Session {
 public:
  explicit Session(std::shared_ptr<const Identity> identity);  // std::bad_alloc when there is no memory
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  /// Bytes of the network, whatever way they are cut. They are read from where they lie: until read() has returned `want_more` they must stay.
  void give(Bytes wire);

  enum class Read : std::uint8_t {
    data,       // `size` bytes, more than 0, are in `into`; ask again
    want_more,  // all that was given has been taken
    closed,     // the other side said that it ends (close_notify)
    failed,     // no TLS, or TLS that we refuse: outgoing() may hold an alert that tells it, why() says it
  };
  /// The handshake too: it goes on as far as the bytes take it. `into` holds at least 16,384 bytes, else a record comes in pieces.
  Read read(MutableBytes into, std::size_t& size);

  /// Encrypts into outgoing(), also once the other side has said that it ends. False when the session is not open (yet, or any more). A call is one record or more: many small messages cost less in one call.
  bool write(Bytes plain);
  /// A close_notify into outgoing().
  void close();

  /// What is to leave for the network, in order. The caller takes from its front what it has sent, or swaps it for an empty one.
  std::vector<std::uint8_t>& outgoing();

  bool is_open() const;                // the handshake is done
  std::string_view protocol() const;   // "TLSv1.3"
  std::string_view alpn() const;       // empty: none
  std::string_view server_name() const;  // SNI; empty: none. As it came: the log escapes
  const std::string& why() const;      // a sentence once failed
  std::size_t bytes_kept() const;      // about, for reports

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace radiotower::tls
