// Many TURN clients in one process: a socket each, an allocation each, one channel (or permission) each, to one of a
// few peers.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "credentials.h"
#include "framing.h"
#include "radiotower/net/address.h"
#include "radiotower/stun/crypto.h"
#include "sockets.h"

namespace radiotower::load {

inline constexpr std::uint32_t client_addresses = 16;

struct Options {
  net::TransportAddress server;
  pid_t server_pid = 0;  // 0: not known, and its CPU time neither
  std::uint32_t sessions = 200;
  std::vector<cli::Credential> users;  // of the sessions in turn; at least one, but with Method::direct
  Method method = Method::channel;
  bool receive_trains =
      false;  // UDP GRO on all sockets: a receiver without it would have the server pay for cutting trains up
  std::optional<net::TransportAddress>
      clients;                               // the first one; below ip_local_port_range, so that no relay port is taken
  std::uint32_t clients_per_address = 4000;  // then the next address, up to client_addresses of them
  std::optional<net::TransportAddress> peers;  // first peer; the others have the ports behind it
  std::uint32_t peer_count = 4;
  std::uint32_t window = 64;  // sessions that are set up at the same time
  std::string client_netns, peer_netns;
};

struct Session {
  int socket = -1;         // connected to the server; with Method::direct to its peer
  std::uint32_t peer = 0;  // index into Sessions::peers
  Name relayed;            // set by set_up; with Method::direct its own
  std::string nonce;
  bool is_ready = false;
};

struct SetUpResult {
  std::uint32_t wanted = 0, ready = 0;
  std::uint32_t timeouts = 0;
  std::uint32_t retransmissions = 0;
  bool unreachable = false;  // ICMP: nobody listens there
  bool gave_up = false;      // the first session failed, and the others were not tried
  // By request and error code; code -1: an answer that is none, or whose integrity is wrong.
  std::map<std::pair<std::string, int>, std::uint32_t> errors;
  std::int64_t elapsed_ns = 0;
  std::int64_t server_cpu_ns = 0;
};

struct VerifyResult {
  std::uint32_t to_peer = 0;    // sessions whose packet arrived whole at their peer, from their relayed address
  std::uint32_t to_client = 0;  // sessions that got their peer's packet whole, on their channel
  std::uint32_t resent = 0;
};

struct StormResult {
  std::map<std::pair<std::string, int>, std::uint32_t> errors;
  std::uint64_t allocations = 0, failures = 0, retransmissions = 0;
  std::int64_t set_up_ns = 0, tear_down_ns = 0;          // elapsed
  std::int64_t set_up_cpu_ns = 0, tear_down_cpu_ns = 0;  // of the server
};

class Sessions {
 public:
  /// Opens and binds every socket, so that what the kernel takes for them is not counted as the server's. Throws
  /// std::runtime_error with a sentence.
  explicit Sessions(const Options& options);
  ~Sessions();
  Sessions(const Sessions&) = delete;
  Sessions& operator=(const Sessions&) = delete;

  /// Allocate, its 401, Allocate with credentials, ChannelBind or CreatePermission; `window` sessions at a time. The
  /// first goes alone, and when it fails the others are not tried.
  SetUpResult set_up();
  /// Refresh and ChannelBind or CreatePermission on every session that is ready.
  SetUpResult renew();
  /// Refresh with lifetime 0 on every session that is ready.
  SetUpResult tear_down();
  /// One packet to the peer and one back on every session, whole and from the right place.
  VerifyResult verify();
  /// set_up and tear_down in turn, for this long, each time by clients with other addresses.
  StormResult storm(double seconds);

  const Framing& framing() const { return framing_; }
  const Options& options() const { return options_; }
  std::uint64_t own_drops() const;  // of all sockets, since they were opened

  std::vector<Session> sessions;
  std::vector<int> peers;
  std::vector<net::TransportAddress> peer_addresses;

 private:
  enum class Step { challenge, allocate, refresh, bind, release };
  struct Exchange;
  const char* name_of(Step step) const;
  SetUpResult run(Step first);
  void send_request(Exchange& e);
  void fail(const Exchange& e, int code, SetUpResult& result);
  bool take_answer(Exchange& e, Bytes datagram, SetUpResult& result);  // true: the exchange has ended
  bool take_relayed(Exchange& e, Bytes datagram);
  const cli::Credential& user_of(std::uint32_t session) const {
    return options_.users[session % options_.users.size()];
  }
  const stun::Key& key_of(std::uint32_t session);
  void prepare_direct();
  void open_clients();

  Options options_;
  Framing framing_;
  bool is_signed_ = true;  // until the server serves everybody
  std::string realm_;
  std::map<std::pair<std::string, std::string>, stun::Key> keys_;  // by realm and user name
  std::uint64_t next_transaction_ = 0;
  std::uint32_t next_client_ = 0;
};

}  // namespace radiotower::load
