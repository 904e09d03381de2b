// DTLS 1.2 of the clients of a server (RFC 6347; RFC 7350 for STUN and TURN), over memory: datagrams, addresses and a time go in; datagrams to send and
// plain messages come out. No socket. One a worker; not thread-safe.
//
// Nothing is kept for a source that has not returned its cookie (RFC 6347, 4.2.1): code of our own reads its ClientHello and answers, before OpenSSL sees a
// byte. Time is the caller's, but for one thing: when a flight of a handshake is sent again is OpenSSL's to say, which asks the system's wall clock. Should
// that jump, a flight is sent early or not again; the deadline stands.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "radiotower/base/bytes.h"
#include "radiotower/base/random.h"
#include "radiotower/base/time.h"
#include "radiotower/net/address.h"
#include "radiotower/tls/identity.h"

namespace radiotower::tls {

/// Where a session is: its client, and the socket that it came to, by whatever name the caller has for it.
struct DtlsPath {
  net::TransportAddress client;
  std::uint32_t socket = 0;
  friend bool operator==(const DtlsPath&, const DtlsPath&) = default;
};

/// What an endpoint asks for and hands over. Reused: the endpoint appends, the caller carries out (datagrams, then messages, then `ended`) and empties the
/// lists; the bytes stay until clear(). Once it has grown to what a turn needs, nothing is allocated.
class DtlsOutput {
 public:
  /// In front of a message, and behind it, that many bytes are writable.
  static constexpr std::size_t headroom = 48, tailroom = 4;
  /// Plain bytes of a record (RFC 5246, 6.2.1).
  static constexpr std::size_t largest_message = 16384;

  struct Datagram {
    DtlsPath path;
    MutableBytes bytes;
  };
  /// One message, or a train of equal ones (`segment` bytes each, the last may be shorter): each is a record of its own.
  struct Message {
    DtlsPath path;
    MutableBytes bytes;
    std::uint16_t segment = 0;
  };
  std::vector<Datagram> datagrams;
  std::vector<Message> messages;
  std::vector<DtlsPath> ended;  // sessions that had been open

  void clear();  // keeps its memory
  std::size_t bytes_kept() const { return chunks_.size() * chunk_size; }

 private:
  friend class DtlsEndpoint;
  friend struct DtlsWire;
  static constexpr std::size_t chunk_size = 256 << 10;
  MutableBytes room(std::size_t size);
  void begin_call() { may_grow_ = false; }
  MutableBytes message_room(const DtlsPath& path);     // largest_message bytes
  void add_message(const DtlsPath& path, MutableBytes bytes);  // at the front of what message_room() gave
  void no_message();
  void add_datagram(const DtlsPath& path, Bytes bytes);

  std::vector<std::unique_ptr<std::uint8_t[]>> chunks_;
  std::size_t chunk_ = 0, used_ = 0;
  struct {
    std::size_t chunk = 0, start = 0, end = 0;
  } room_;                   // what message_room() gave
  bool room_joins_ = false;  // it lies right behind the last message
  bool may_grow_ = false;  // the last message is the last thing there, and another one can join it
};

// name, what it counts. The order is the order in which they are printed.
#define RADIOTOWER_DTLS_COUNTERS(X)                                                                 \
  X(dtls_sessions)         /* open now */                                                           \
  X(dtls_handshakes)       /* done */                                                               \
  X(dtls_failed)           /* handshakes that failed, by whosever fault */                          \
  X(dtls_timed_out)        /* not done five seconds after the cookie */                             \
  X(dtls_refused)          /* for a bound on handshakes or sessions */                              \
  X(dtls_closed)           /* sessions that have ended: by close_notify, idle, broken or replaced */ \
  X(dtls_cookies_sent)     /* HelloVerifyRequests */                                                \
  X(dtls_cookies_wrong)    /* of these: for a cookie that is not ours, or not any more */           \
  X(dtls_dropped_stranger) /* no ClientHello, and of no session */                                  \
  X(dtls_dropped_version)  /* a client that knows DTLS 1.0 alone; told so by an alert */            \
  X(dtls_dropped_limit)    /* ClientHellos without an answer: too many from one address */          \
  X(dtls_dropped_too_large) /* plain messages longer than a record */

struct DtlsCounters {
#define RADIOTOWER_X(name) std::uint64_t name = 0;
  RADIOTOWER_DTLS_COUNTERS(RADIOTOWER_X)
#undef RADIOTOWER_X

  /// Datagrams of nobody with a session: what a flood is made of.
  std::uint64_t strangers() const { return dtls_cookies_sent + dtls_dropped_stranger + dtls_dropped_version + dtls_dropped_limit; }

  template <typename Visit>
  void for_each(Visit&& visit) const {
#define RADIOTOWER_X(name) visit(std::string_view(#name), name);
    RADIOTOWER_DTLS_COUNTERS(RADIOTOWER_X)
#undef RADIOTOWER_X
  }
};

class DtlsEndpoint {
 public:
  static constexpr std::size_t most_half_open = 1000;           // beyond it the oldest goes
  static constexpr std::size_t most_half_open_of_a_source = 16;  // an IP address, or an IPv6 /64; beyond it the new one is dropped
  static constexpr std::size_t most_sessions = 5'000;  // beyond it the one goes that has been quiet longest without being kept; if none, the new one
  static constexpr std::size_t most_sessions_of_a_source = 256;  // beyond it the new one is dropped
  static constexpr nanoseconds handshake_deadline = seconds(5);
  static constexpr nanoseconds idle_limit = seconds(60);        // of sessions that keep() does not hold
  static constexpr nanoseconds cookie_period = seconds(60);     // a cookie is good for one to two of these
  static constexpr std::uint32_t answers_per_second = 500;      // to an IP address, or an IPv6 /64, without a session
  static constexpr std::uint32_t handshakes_per_second = 60;    // of one, likewise: a handshake costs as much as hundreds of packets
  static constexpr std::size_t largest_flight_datagram = 1200;

  /// `identity` is not null. std::bad_alloc when there is no memory.
  DtlsEndpoint(std::shared_ptr<const Identity> identity, RandomSource random);
  ~DtlsEndpoint();
  DtlsEndpoint(const DtlsEndpoint&) = delete;
  DtlsEndpoint& operator=(const DtlsEndpoint&) = delete;

  /// For handshakes that begin from now on.
  void set_identity(std::shared_ptr<const Identity> identity);

  /// The first byte of a datagram that is DTLS where STUN and ChannelData come too (RFC 7983, 7).
  static constexpr bool is_dtls(std::uint8_t first) { return first >= 20 && first <= 63; }

  /// A datagram, or a train of them (`segment` bytes each, the last may be shorter; 0: one).
  void from_client(const DtlsPath& path, Bytes bytes, std::uint16_t segment, Time now, DtlsOutput& out);
  /// One message as one record in one datagram. False: there is no open session, or the message is too long (counted), so it is dropped.
  bool to_client(const DtlsPath& path, Bytes message, DtlsOutput& out);
  /// While `has_reason`, an idle session stays (it has an allocation); afterwards until it has been idle.
  void keep(const DtlsPath& path, bool has_reason, Time now);

  /// Sends flights again, ends what is overdue or idle. Call when next_expiry() has come.
  void expire(Time now, DtlsOutput& out);
  Time next_expiry() const;  // `never` when nothing waits
  /// A close_notify to every client, at shutdown.
  void close_all(DtlsOutput& out);

  void for_each_client(const std::function<void(const net::TransportAddress&)>& visit) const;  // of open sessions
  const DtlsCounters& counters() const;
  std::size_t half_open() const;
  /// About, of sessions alone: does not grow with sources that have not returned a cookie (K01).
  std::size_t bytes_kept() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace radiotower::tls
