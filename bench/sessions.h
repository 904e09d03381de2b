// Many TURN clients in one process: a socket each, an allocation each, one channel each, to one of a few peers.
#pragma once

#include <netinet/in.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "radiotower/net/address.h"
#include "radiotower/stun/crypto.h"

namespace radiotower::bench {

/// All sessions bind the same number: they are different 5-tuples.
inline constexpr std::uint16_t channel_number = 0x4000;

struct Options {
  net::TransportAddress server;
  pid_t server_pid = 0;
  std::uint32_t sessions = 200;
  std::uint32_t size = 1000;  // of the payload
  std::uint32_t train = 1;    // datagrams in one send call (UDP GSO); 1: one packet at a time
  std::string user, password;
  net::TransportAddress clients;  // the first one; below ip_local_port_range, so that no relay port is taken
  std::uint32_t clients_per_address = 4000;  // then the next address
  net::TransportAddress peers;    // first peer; the others have the ports behind it
  std::uint32_t peer_count = 4;
  std::uint32_t window = 64;      // sessions that are set up at the same time
};

struct Session {
  int socket = -1;               // connected to the server
  std::uint32_t peer = 0;        // index into Sessions::peers
  sockaddr_in relayed{};         // set by set_up
  std::string nonce;
};

inline bool is_same(const sockaddr_in& a, const sockaddr_in& b) {
  return a.sin_port == b.sin_port && a.sin_addr.s_addr == b.sin_addr.s_addr;
}

struct SetUpResult {
  std::uint32_t ready = 0;
  std::uint32_t timeouts = 0;
  std::uint32_t retransmissions = 0;
  std::map<int, std::uint32_t> errors;  // by error code; -1: an answer that is none, or whose integrity is wrong
  std::int64_t elapsed_ns = 0;
  std::int64_t server_cpu_ns = 0;
};

struct VerifyResult {
  std::uint32_t to_peer = 0;    // sessions whose packet arrived whole at their peer, from their relayed address
  std::uint32_t to_client = 0;  // sessions that got their peer's packet whole, on their channel
  std::uint32_t resent = 0;
};

class Sessions {
 public:
  /// Opens and binds every socket, so that what the kernel takes for them is not counted as the server's. Ends the
  /// program with a sentence when it cannot.
  explicit Sessions(const Options& options);
  ~Sessions();
  Sessions(const Sessions&) = delete;
  Sessions& operator=(const Sessions&) = delete;

  /// Allocate, its 401, Allocate with credentials, ChannelBind; `window` sessions at a time.
  SetUpResult set_up();
  /// Refresh and ChannelBind on every session.
  SetUpResult renew();
  /// One packet to the peer and one back on every session, whole and from the right place.
  VerifyResult verify();

  std::vector<Session> sessions;
  std::vector<int> peers;
  std::vector<net::TransportAddress> peer_addresses;

 private:
  enum class Step { challenge, allocate, refresh, bind };
  struct Exchange;
  SetUpResult run(Step first);
  void send_request(Exchange& e);
  bool take_answer(Exchange& e, Bytes datagram, SetUpResult& result);  // true: the exchange has ended
  const stun::Key& key_of(const std::string& realm);

  Options options_;
  std::string realm_;
  std::map<std::string, stun::Key> keys_;
  std::uint64_t next_transaction_ = 0;
};

}  // namespace radiotower::bench
