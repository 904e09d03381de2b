// The way to a server: UDP, TCP, TLS or DTLS. A message goes in, a message comes out; on a stream it is framed and padded here (RFC 8489, 6.2.2;
// RFC 8656, 12.5).
//
// Blocking, with a deadline on everything. Not for use from two threads.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "radiotower/base/bytes.h"
#include "radiotower/net/address.h"
#include "udp.h"

namespace radiotower::cli {

/// How a connection is made that proves who the server is.
struct TlsOptions {
  std::string name;      // what the certificate has to be for: the host name or the IP address that clients are given
  std::string ca_file;   // PEM; empty: the CAs that this host trusts
  bool insecure = false;  // go on with a certificate that does not fit, and say so
  std::string alpn = "stun.turn";  // RFC 7443
};

class Link {
 public:
  enum class Arrival : std::uint8_t { message, deadline, refused, closed, failed };
  /// What was found out on the way to a connection, for a reader.
  struct Step {
    std::string name;  // "connect", "TLS", "DTLS"
    Clock::duration took{};
    std::string detail;
    std::string note;  // empty, or what deserves attention though it went well
  };

  virtual ~Link() = default;
  virtual net::TransportAddress local() const = 0;
  /// An errno value, 0 when the message has left.
  virtual int send(Bytes message) = 0;
  /// One whole message into `buffer`, which holds 65,540 bytes. refused: ICMP says that nobody listens there. closed: by the server.
  virtual Arrival receive(MutableBytes buffer, Clock::time_point deadline, std::size_t& size) = 0;
  virtual int last_error() const = 0;
  /// Nothing is lost on the way, so nothing is sent again (RFC 8489, 6.2.2).
  virtual bool is_reliable() const = 0;
  virtual const std::vector<Step>& steps() const = 0;
  /// From now on datagrams leave whole or not at all (the DF bit): send() says EMSGSIZE where this host's own interface is too small.
  /// False: this link has no datagrams of its own to say that of.
  virtual bool forbid_fragments() { return false; }
};

/// Why there is no connection: which step failed, a sentence without full stop, and what to look at.
struct LinkFailure {
  std::string step;
  std::string what;
  std::vector<std::string> check;
};

/// nullptr: see `failure`. `from`: UDP and DTLS leave from this address of the host.
std::unique_ptr<Link> open_link(net::Transport transport, const net::TransportAddress& server, const TlsOptions& tls,
                                std::chrono::milliseconds timeout, LinkFailure& failure, const std::optional<net::IpAddress>& from = std::nullopt);

}  // namespace radiotower::cli
