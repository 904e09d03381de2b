// The small language of the protocol tests: a relay without sockets, clients and peers that are values, and time that is moved by hand.
//
//   Tower tower;
//   auto& alice = tower.client("10.0.0.1:5000");
//   CHECK(alice.allocates() == 0);                       // 0: success, else the error code
//   CHECK(alice.permits("192.0.2.7:9") == 0);
//   alice.sends("192.0.2.7:4000", "hello");
//   CHECK(tower.peer_got("192.0.2.7:4000") == "hello");
//   tower.advance(300s);
//   tower.peer_sends("192.0.2.7:4000", alice, "late");
//   CHECK(alice.quiet());
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "radiotower/stun/message.h"
#include "radiotower/turn/server.h"

namespace radiotower::test {

using namespace std::chrono_literals;
using stun::Attribute;
using stun::Class;
using stun::ErrorCode;
using stun::Method;

/// A repeatable random source (splitmix64).
RandomSource seeded_random(std::uint64_t seed);

net::TransportAddress at(std::string_view text);  // "192.0.2.7:4000"; fails the test when it is no address

/// A received or built message with its bytes: Message is only a view.
struct Packet {
  std::vector<std::uint8_t> bytes;
  std::optional<stun::Message> message() const { return stun::Message::read(bytes); }
  bool is_channel_data() const { return bytes.size() >= 4 && bytes[0] >= 0x40 && bytes[0] <= 0x4F; }
  std::string payload() const;  // of ChannelData or of a Data indication
  int error() const;            // code of an error response; 0 for a success; -1 for anything else
};

class Tower;

/// One client behind one 5-tuple.
class Client {
 public:
  Client(Tower& tower, net::TransportAddress address, std::string user, std::string password);

  // Requests. They authenticate (asking for a nonce first when there is none), go in, and return 0 for success, the
  // error code of an error response, or -1 for silence. `more` adds attributes before the integrity.
  using More = std::function<void(stun::Writer&)>;
  int allocates(const More& more = {});
  int refreshes(std::optional<std::uint32_t> lifetime = {}, const More& more = {});
  int permits(std::string_view peer) { return permits(std::vector<std::string>{std::string(peer)}); }
  int permits(const std::vector<std::string>& peers);
  int binds(std::uint16_t channel, std::string_view peer);
  int asks(Method method, const More& more = {});  // any request, authenticated

  // Indications and ChannelData: no answer.
  void sends(std::string_view peer, std::string_view data, const More& more = {});
  void sends_channel(std::uint16_t channel, std::string_view data);
  void sends_raw(std::vector<std::uint8_t> bytes);

  // Building without sending, for tests that break things.
  std::vector<std::uint8_t> request(Method method, const More& more = {}, bool with_integrity = true);
  /// Sends bytes as they are and takes the answer, if there was exactly one.
  std::optional<Packet> exchange(std::vector<std::uint8_t> bytes);
  void learns_nonce();  // a bare Allocate, to be challenged

  // What has arrived, oldest first; taking removes.
  std::optional<Packet> take();
  bool quiet() const { return inbox.empty(); }

  const net::TransportAddress& relayed() const { return relayed_; }
  const net::TransportAddress& relayed6() const { return relayed6_; }
  stun::Key key() const;

  net::FiveTuple five_tuple;
  std::string user, password, realm, nonce;
  bool sha256 = false;       // authenticate with PASSWORD-ALGORITHM SHA-256 and MESSAGE-INTEGRITY-SHA256
  bool fingerprint = true;
  bool userhash = false;
  std::string origin;                      // in every request, unless empty
  std::vector<std::uint8_t> access_token;  // likewise, in Allocate and Refresh (RFC 7635, 9), and in ConnectionBind, which has a 5-tuple of its own
  std::optional<stun::Key> mac_key;        // what such a token brings; else the key is made of the password
  std::vector<std::uint8_t> algorithms;  // PASSWORD-ALGORITHMS as the challenge had them
  std::optional<stun::TransactionId> fixed_transaction_id;  // else a fresh one each time
  std::optional<Packet> last;  // the last answer to a request
  std::deque<Packet> inbox;

 private:
  friend class Tower;
  int answered();
  Tower& tower_;
  net::TransportAddress relayed_, relayed6_;
};

struct TowerOptions {
  std::vector<std::pair<std::string, std::string>> relay_addresses = {{"198.18.0.1", "198.18.0.1"}, {"2001:db8:1::1", "2001:db8:1::1"}};
  std::vector<std::string> allow = {"192.0.2.0/24", "2001:db8::/32"};  // documentation addresses serve as the outside world
  std::vector<std::string> deny = {};
  bool allow_only = false;
  std::vector<turn::User> users = {{"alice", "secret", {}, {}, {}}, {"bob", "hunter2", {}, {}, {}}};
  std::vector<std::string> secrets = {};
  std::uint16_t first_port = 32768, last_port = 65535;
  turn::Limits limits = {};
  bool rfc5766_channel_numbers = false;
  bool dont_fragment = true, strict_expiry = false, draining = false, authentication = true;
  std::vector<std::string> denied_clients = {};
  std::optional<std::string> alternate_server = {};
  bool mobility = false;
  std::string realm = "example.org";
  bool tcp_relay = false;
  turn::Shortcuts* shortcuts = nullptr;
  BucketSource* buckets = nullptr;
  std::function<void(turn::Settings&)> also = {};  // what has no option of its own
};

/// A relay: turn::Server and everything outside it. The listener is 198.18.0.1:3478 and [2001:db8:1::1]:3478.
class Tower {
 public:
  explicit Tower(TowerOptions options = {});

  Client& client(std::string_view address, std::string user = "alice", std::string password = "secret");
  Client& client6(std::string_view address) { return client(address); }

  void advance(nanoseconds by);  // moves both clocks; carries out what ends meanwhile
  void jump_wall_clock(seconds by) { now.unix_time += by.count(); }
  void reload(const std::function<void(TowerOptions&)>& change);

  void peer_sends(std::string_view peer, const Client& to, std::string_view data, std::uint16_t segment = 0) {
    peer_sends(peer, to.relayed(), data, segment);
  }
  void peer_sends(std::string_view peer, const net::TransportAddress& relayed, std::string_view data, std::uint16_t segment = 0);
  void icmp(std::string_view destination, const net::TransportAddress& relayed, turn::Icmp icmp);

  struct ToPeer {
    net::TransportAddress from, to;  // from: the relay port (local form)
    std::string data;
    bool dont_fragment = false;
  };
  /// What the peer at that address has got, oldest first; taking removes. nullopt: nothing.
  std::optional<std::string> peer_got(std::string_view peer);
  std::optional<ToPeer> take_sent();
  bool peers_quiet() const { return to_peers.empty(); }

  /// Hands bytes in as they are and carries everything out.
  void input(const net::FiveTuple& five_tuple, std::vector<std::uint8_t> bytes, std::uint16_t segment = 0);
  void carry_out();

  std::shared_ptr<const turn::Settings> make_settings();
  const turn::Counters& counters() const { return server->counters(); }

  TowerOptions options;
  Now now;
  RandomSource random;
  std::shared_ptr<turn::Shared> shared;
  std::unique_ptr<turn::Server> server;
  turn::Actions actions;
  std::set<std::uint16_t> taken_ports;        // other programs hold them
  bool out_of_descriptors = false;
  std::map<turn::SocketHandle, std::pair<net::TransportAddress, turn::RelayId>> open;  // relay sockets
  std::deque<ToPeer> to_peers;
  std::map<turn::SocketHandle, net::Transport> transports;  // of relay sockets
  std::vector<turn::ConnectPeer> connects;
  std::vector<turn::JoinPeer> joins;
  std::vector<turn::ConnectionId> peer_closes;
  std::vector<turn::HandOver> hand_overs;
  std::vector<turn::Event> events;
  std::vector<turn::Carry> carries;
  std::size_t largest_answer_ratio_percent = 0;  // of answers to inputs, IP and UDP headers counted

 private:
  std::deque<std::unique_ptr<Client>> clients_;
  turn::SocketHandle next_socket_ = 100;
};

}  // namespace radiotower::test
