// A STUN and TURN client (RFC 8489, RFC 8656) over UDP, TCP, TLS or DTLS: one link, one server, at most one allocation.
//
// Blocking, with a deadline on everything; for tools and tests. What it reads it distrusts: an answer counts only when its
// transaction id is ours and, once credentials are in play, when its integrity matches (RFC 8489, 9.2.5).
// Not for use from two threads.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "credentials.h"
#include "radiotower/base/random.h"
#include "radiotower/stun/crypto.h"
#include "radiotower/stun/message.h"
#include "link.h"

namespace radiotower::cli {

/// When a request is sent again over UDP (RFC 8489, 6.2.1): after RTO, then twice as long each time, Rc sends in all, and Rm times
/// RTO of patience after the last.
class Retransmission {
 public:
  static constexpr unsigned sends = 7;      // Rc
  static constexpr unsigned patience = 16;  // Rm
  explicit Retransmission(std::chrono::milliseconds rto = std::chrono::milliseconds(500)) : rto_(rto) {}

  /// How long after the first send the n-th one goes out (0: at once).
  std::chrono::milliseconds send_at(unsigned n) const { return rto_ * ((1u << n) - 1); }
  std::chrono::milliseconds give_up_at() const { return send_at(sends - 1) + rto_ * patience; }

 private:
  std::chrono::milliseconds rto_;
};

enum class Failure : std::uint8_t {
  none,
  no_answer,    // nothing that counts came in time
  unreachable,  // ICMP: nobody listens there
  closed,       // the server ended the connection
  socket,       // the kernel refused to send or to receive
  refused,      // an error answer: see `code`
  bad_answer,   // an answer that breaks the protocol
};

/// What became of a request.
struct Outcome {
  Failure failure = Failure::none;
  std::uint16_t code = 0;  // of an error answer
  std::string reason;      // its reason phrase, as it was sent
  std::string detail;      // a sentence without full stop, for everything but `refused`
  unsigned sends = 0;      // datagrams of the last transaction
  unsigned challenges = 0;  // 401 and 438 answers that were followed by another try
  Clock::duration round_trip{};  // of the last transaction, from its last send

  bool ok() const { return failure == Failure::none; }
};

/// Data that came through the relay.
struct Relayed {
  std::vector<std::uint8_t> payload;
  std::optional<std::uint16_t> channel;          // by ChannelData
  std::optional<net::TransportAddress> peer;     // by Data indication
};

/// What a server says about credentials in a 401 or 438 (RFC 8489, 9.2.4).
struct Challenge {
  std::string realm;
  std::string nonce;
  std::optional<stun::PasswordAlgorithm> algorithm;  // the first on its list that we know; none: it sent no list
  std::vector<std::uint8_t> algorithms;              // PASSWORD-ALGORITHMS as it came, to be sent back

  /// nullopt and a sentence when the challenge cannot be met (RFC 8489, 9.2.5).
  static std::optional<Challenge> read(const stun::Message& answer, std::string& why);
};

class Client {
 public:
  struct Options {
    std::chrono::milliseconds timeout{10'000};  // of a transaction; the end of Retransmission's schedule comes earlier, if it does
    std::chrono::milliseconds rto{500};
  };

  /// Over a link that is there already.
  Client(std::unique_ptr<Link> link, const net::TransportAddress& server, Credential credential, RandomSource random, Options options);
  /// Over UDP.
  static std::optional<Client> open(const net::TransportAddress& server, Credential credential, RandomSource random,
                                    Options options, std::string& why);

  /// Where the server sees this socket; nullopt when the outcome is not ok.
  std::optional<net::TransportAddress> binding(Outcome& outcome);

  // Each needs what RFC 8656 says it needs: an allocation, except for allocate().
  Outcome allocate(std::optional<net::Family> family = std::nullopt);
  Outcome create_permission(const net::TransportAddress& peer);
  Outcome bind_channel(std::uint16_t number, const net::TransportAddress& peer);
  Outcome refresh(std::uint32_t lifetime_seconds);  // 0 ends the allocation
  /// An errno value, 0 when the datagram went out, EMSGSIZE when the payload is too large for one.
  int send_indication(const net::TransportAddress& peer, Bytes payload);
  int send_channel_data(std::uint16_t channel, Bytes payload);
  /// The next relayed data, until the deadline.
  std::optional<Relayed> receive(Clock::time_point deadline);

  const net::TransportAddress& server() const { return server_; }
  net::TransportAddress local() const { return link_->local(); }
  const Link& link() const { return *link_; }
  Link& link() { return *link_; }
  bool has_allocation() const { return allocated_; }
  const net::TransportAddress& relayed() const { return relayed_; }  // of the allocation
  const net::TransportAddress& mapped() const { return mapped_; }
  std::uint32_t lifetime() const { return lifetime_; }               // seconds, as last answered
  const std::string& realm() const { return challenge_.realm; }
  bool uses_sha256() const { return challenge_.algorithm == stun::PasswordAlgorithm::sha256; }
  const std::string& software() const { return software_; }          // what the server calls itself; empty when it does not say
  void set_timeout(std::chrono::milliseconds timeout) { options_.timeout = timeout; }

 private:
  using Fill = std::function<void(stun::Writer&)>;
  using Take = std::function<std::string(const stun::Message&)>;  // returns what is wrong with the success; empty: nothing

  Outcome request(stun::Method method, const Fill& fill, const Take& take);
  std::optional<stun::Message> transact(stun::Method method, const Fill& fill, bool sign, Outcome& outcome);
  std::optional<stun::Message> await_answer(stun::Method method, const stun::TransactionId& id, bool is_signed,
                                            Clock::time_point deadline, std::string& ignored, Outcome& outcome);
  void set_aside(Bytes datagram);
  bool learn(const stun::Message& answer, Outcome& outcome);

  std::unique_ptr<Link> link_;
  net::TransportAddress server_;
  Credential credential_;
  RandomSource random_;
  Options options_;
  Challenge challenge_;
  stun::Key key_;
  std::vector<std::uint8_t> buffer_;    // what came in; an answer's Message points into it
  std::deque<Relayed> aside_;           // relayed data that came while an answer was awaited
  std::string software_;
  bool allocated_ = false;
  net::TransportAddress relayed_, mapped_;
  std::uint32_t lifetime_ = 0;
};

}  // namespace radiotower::cli
