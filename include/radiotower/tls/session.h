// TLS of one connection of a server (RFC 8446, RFC 5246), over memory: bytes of the network go in, plain bytes come out, and the other way round. No
// socket. Used by one thread at a time, which may be another each time. The end of the connection without `closed` is a truncation, for the caller to see.
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

  /// Bytes of the network, whatever way they are cut. They are read from where they lie: until read() has returned something else than `data` they must
  /// stay. What was given before and not yet taken is forgotten, so read on until `want_more` before the next.
  void give(Bytes wire);

  enum class Read : std::uint8_t {
    data,       // `size` bytes, more than 0, are in `into`, of up to 64 records; ask again
    want_more,  // all that was given has been taken
    closed,     // the other side said that it ends (close_notify)
    failed,     // no TLS, or TLS that we refuse: outgoing() may hold an alert that tells it, why() says it
  };
  /// The handshake too: it goes on as far as the bytes take it. `into` holds at least 16,384 bytes, else a record comes in pieces. Any call may put
  /// something into outgoing(): an answer of the handshake, an alert, new keys. `closed` and `failed` are final: nothing is taken any more.
  Read read(MutableBytes into, std::size_t& size);

  /// Encrypts into outgoing(), all of it, also once the other side has said that it ends. False, and nothing is written: the session is not open (yet, or any more), or the other side is in the midst of a
  /// handshake message that it cut into records. A call is one record or more: many small messages cost less in one call.
  bool write(Bytes plain);
  /// A close_notify into outgoing(), once and only when the handshake is done. No write() after it; read() may still bring what was under way.
  void close();

  /// What is to leave for the network, in order. The caller takes from its front what it has sent, or swaps it for an empty one.
  std::vector<std::uint8_t>& outgoing();

  bool is_open() const;                // the handshake is done, and neither side has ended or failed
  std::string_view protocol() const;   // "TLSv1.3"
  std::string_view alpn() const;       // empty: none
  std::string_view server_name() const;  // SNI; empty: none. As it came: the log escapes
  const std::string& why() const;      // a sentence once failed
  std::size_t bytes_kept() const;      // about, between calls, for reports: 14,000 and what is in outgoing(); record buffers are kept by none

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace radiotower::tls
