// TCP allocations (RFC 6062), rows C of the hostile inputs. Sockets are played: a peer that is connected is a call.
#include <doctest/doctest.h>

#include <set>

#include "harness.h"

using namespace radiotower;
using namespace radiotower::test;

namespace {

constexpr auto peer = "192.0.2.7:4000";

Client::More with(Attribute type, std::vector<std::uint8_t> value) {
  return [type, value](stun::Writer& w) { w.add(type, Bytes(value)); };
}
Client::More tcp(const Client::More& more = {}) {
  return [more](stun::Writer& w) {
    const std::array<std::uint8_t, 4> value{6, 0, 0, 0};
    w.add(Attribute::requested_transport, Bytes(value));
    if (more) more(w);
  };
}
Client::More id(turn::ConnectionId connection) {
  return [connection](stun::Writer& w) { w.add_u32(Attribute::connection_id, connection); };
}
turn::ConnectionId id_of(const Packet& p) {
  const auto m = p.message();
  REQUIRE(m);
  const auto value = m->find(Attribute::connection_id);
  REQUIRE(value);
  return *stun::read_u32(*value);
}

TowerOptions on(TowerOptions options = {}) {
  options.tcp_relay = true;
  return options;
}

struct TcpTower : Tower {
  explicit TcpTower(TowerOptions wanted = {}) : Tower(on(std::move(wanted))) {}

  Client& stream(std::string_view address, std::string user = "alice", std::string password = "secret",
                 net::Transport transport = net::Transport::tcp) {
    Client& c = client(address, std::move(user), std::move(password));
    c.five_tuple.transport = transport;
    return c;
  }
  /// A client with a TCP allocation.
  Client& allocated(std::string_view address = "203.0.113.9:5000") {
    Client& c = stream(address);
    REQUIRE(c.asks(Method::allocate, tcp()) == 0);
    return c;
  }
  turn::RelayId relay() const { return open.rbegin()->second.second; }
  turn::ConnectionId connect(Client& c, std::string_view to = peer) {
    CHECK(c.asks(Method::connect, [&](stun::Writer& w) { w.add_xor_address(Attribute::xor_peer_address, at(to)); }) == -1);
    REQUIRE_FALSE(connects.empty());
    return connects.back().connection;
  }
  int refused(Client& c, std::string_view to) {
    return c.asks(Method::connect, [&](stun::Writer& w) { w.add_xor_address(Attribute::xor_peer_address, at(to)); });
  }
  void connected(turn::ConnectionId connection) {
    server->peer_connected(connection, now, actions);
    carry_out();
  }
  turn::ConnectionId up(Client& c, std::string_view to = peer) {
    const auto connection = connect(c, to);
    connected(connection);
    const auto answer = c.take();
    REQUIRE(answer);
    REQUIRE(answer->error() == 0);
    CHECK(id_of(*answer) == connection);
    return connection;
  }
  std::optional<turn::ConnectionId> accepted(std::string_view from) {
    const auto connection = server->peer_accepted(relay(), at(from), now, actions);
    carry_out();
    return connection;
  }
  bool has_closed(turn::ConnectionId connection) const {
    return std::find(peer_closes.begin(), peer_closes.end(), connection) != peer_closes.end();
  }
};

}  // namespace

TEST_CASE("L02 M09: off, REQUESTED-TRANSPORT 6 is a 442, and Connect and ConnectionBind are dropped") {
  Tower tower;
  auto& alice = tower.client("203.0.113.9:5000");
  alice.five_tuple.transport = net::Transport::tcp;
  CHECK(alice.asks(Method::allocate, tcp()) == 442);
  REQUIRE(alice.allocates() == 0);
  CHECK(alice.asks(Method::connect) == -1);
  CHECK(alice.asks(Method::connection_bind, id(1)) == -1);
  CHECK(tower.counters().dropped_unknown_method == 2);
}

TEST_CASE("C01: RFC 6062, 5.1: Allocate(TCP) over UDP or DTLS is a 400, over TCP and TLS it listens on a TCP port") {
  TcpTower tower;
  CHECK(tower.stream("203.0.113.9:5000", "alice", "secret", net::Transport::udp).asks(Method::allocate, tcp()) == 400);
  CHECK(tower.stream("203.0.113.9:5001", "alice", "secret", net::Transport::dtls).asks(Method::allocate, tcp()) == 400);
  CHECK(tower.open.empty());
  int port = 5002;
  for (const auto transport : {net::Transport::tcp, net::Transport::tls}) {
    auto& alice = tower.stream("203.0.113.9:" + std::to_string(port++), "alice", "secret", transport);
    REQUIRE(alice.asks(Method::allocate, tcp()) == 0);
    CHECK(tower.transports.at(tower.open.rbegin()->first) == net::Transport::tcp);
    CHECK_FALSE(alice.last->message()->has(Attribute::reservation_token));  // 5.1: MUST NOT
  }
  auto& bob = tower.stream("203.0.113.10:5000", "bob", "hunter2");
  REQUIRE(bob.allocates() == 0);  // 5.1: UDP goes on as RFC 8656 has it
  CHECK(tower.transports.at(tower.open.rbegin()->first) == net::Transport::udp);
  CHECK(tower.stream("203.0.113.10:5001").asks(Method::allocate, with(Attribute::requested_transport, {132, 0, 0, 0})) == 442);
}

TEST_CASE("C02: RFC 6062, 5.1: Allocate(TCP) with EVEN-PORT, RESERVATION-TOKEN or DONT-FRAGMENT is a 400") {
  TcpTower tower;
  auto& alice = tower.stream("203.0.113.9:5000");
  CHECK(alice.asks(Method::allocate, tcp(with(Attribute::even_port, {0}))) == 400);
  CHECK(alice.asks(Method::allocate, tcp(with(Attribute::even_port, {0x80}))) == 400);
  CHECK(alice.asks(Method::allocate, tcp(with(Attribute::reservation_token, std::vector<std::uint8_t>(8)))) == 400);
  CHECK(alice.asks(Method::allocate, tcp(with(Attribute::dont_fragment, {}))) == 400);
  CHECK(tower.open.empty());
  CHECK(tower.shared->usage().allocations == 0);
}

TEST_CASE("RFC 6062, 5.1: families, lifetimes, the quota and retransmissions are those of any allocation") {
  TcpTower tower({.users = {{"alice", "secret", {}, 3, {}}}});
  auto& alice = tower.stream("203.0.113.9:5000");
  alice.learns_nonce();
  const auto bytes = alice.request(Method::allocate, tcp());
  const auto first = alice.exchange(bytes);
  REQUIRE(first->error() == 0);
  CHECK(alice.exchange(bytes)->bytes == first->bytes);
  CHECK(alice.asks(Method::allocate, tcp()) == 437);
  auto& dual = tower.stream("203.0.113.9:5001");  // two addresses, each of which takes and makes connections
  REQUIRE(dual.asks(Method::allocate, tcp(with(Attribute::additional_address_family, {2, 0, 0, 0}))) == 0);
  CHECK(tower.open.size() == 3);
  tower.up(dual, "192.0.2.7:80");
  const auto six = tower.up(dual, "[2001:db8::7]:80");
  CHECK(tower.stream("203.0.113.9:5002").asks(Method::allocate, tcp()) == 486);
  CHECK(dual.refreshes(0, with(Attribute::requested_address_family, {2, 0, 0, 0})) == 0);
  CHECK(tower.peer_closes == std::vector<turn::ConnectionId>{six});  // of the family that ended alone
  tower.advance(601s);
  CHECK(tower.open.empty());
  CHECK(tower.peer_closes.size() == 2);
}

TEST_CASE("RFC 6062: datagrams have no place in a TCP allocation: ChannelBind is a 437, Send is dropped") {
  TcpTower tower;
  auto& alice = tower.allocated();
  REQUIRE(alice.permits("192.0.2.7:9") == 0);
  CHECK(alice.binds(0x4000, peer) == 437);
  alice.sends(peer, "hello");
  CHECK(tower.peers_quiet());
  CHECK(alice.quiet());
}

TEST_CASE("C03: RFC 6062, 5.2: Connect without peer 400, without a TCP allocation 437, to a forbidden peer 403, twice to one peer 446") {
  TcpTower tower;
  auto& nobody = tower.stream("203.0.113.9:4000");
  CHECK(tower.refused(nobody, peer) == 437);
  auto& datagrams = tower.stream("203.0.113.9:4001");
  REQUIRE(datagrams.allocates() == 0);
  CHECK(tower.refused(datagrams, peer) == 437);

  auto& alice = tower.allocated();
  CHECK(alice.asks(Method::connect) == 400);
  CHECK(alice.asks(Method::connect, with(Attribute::xor_peer_address, {0, 1, 2})) == 400);
  CHECK(tower.refused(alice, "[2001:db8::7]:80") == 443);
  CHECK(tower.refused(alice, "10.0.0.1:80") == 403);
  CHECK(tower.refused(alice, "127.0.0.1:80") == 403);
  CHECK(tower.refused(alice, "192.0.2.7:0") == 403);
  CHECK(tower.refused(alice, "198.18.0.1:3478") == 403);
  CHECK(tower.events.back().kind == turn::Event::Kind::peer_refused);
  CHECK(tower.connects.empty());

  const auto connection = tower.connect(alice);  // no permission is needed (5.2)
  CHECK(tower.connects.back().from == tower.open.rbegin()->second.first);  // 5.2: from the relayed address
  CHECK(tower.connects.back().to == at(peer));
  CHECK(tower.refused(alice, peer) == 446);  // while it is processed
  tower.connected(connection);
  CHECK(alice.take()->error() == 0);
  CHECK(tower.refused(alice, peer) == 446);  // pending
  auto& data = tower.stream("203.0.113.9:5001");
  REQUIRE(data.asks(Method::connection_bind, id(connection)) == 0);
  CHECK(tower.refused(alice, peer) == 446);  // active
  tower.up(alice, "192.0.2.7:4001");         // another port is another peer
  tower.server->peer_gone(connection, tower.now, tower.actions);
  tower.up(alice);  // and free again
}

TEST_CASE("C03 P26: Connect to our own relayed addresses: a live TCP one only, never the allocation's own, and never a UDP port of that number") {
  TcpTower tower;
  auto& alice = tower.allocated();
  const auto own = tower.open.rbegin()->second.first;
  CHECK(tower.refused(alice, own.text()) == 403);
  auto& bob = tower.stream("203.0.113.10:5000", "bob", "hunter2");
  REQUIRE(bob.allocates() == 0);
  const auto udp = bob.relayed();
  CHECK(tower.refused(alice, udp.text()) == 403);
  CHECK(bob.permits(own.text()) == 403);
  auto& carol = tower.allocated("203.0.113.11:5000");
  tower.connect(carol, own.text());
  CHECK(carol.refreshes(0) == 0);
}

TEST_CASE("C04: RFC 6062, 5.2: a peer that refuses or is silent is a 447, after 30 seconds and not before; the success waits for the peer") {
  TcpTower tower;
  auto& alice = tower.allocated();
  auto connection = tower.connect(alice);
  tower.server->peer_connect_failed(connection, tower.now, tower.actions);
  tower.carry_out();
  auto answer = alice.take();
  REQUIRE(answer);
  CHECK(answer->error() == 447);
  CHECK(answer->message()->integrity_matches(alice.key().bytes()));

  connection = tower.connect(alice);
  tower.advance(29999ms);
  CHECK(alice.quiet());
  tower.advance(1ms);
  answer = alice.take();
  REQUIRE(answer);
  CHECK(answer->error() == 447);
  CHECK(tower.peer_closes == std::vector<turn::ConnectionId>{connection});
  tower.connected(connection);  // too late
  CHECK(alice.quiet());
  CHECK(tower.peer_closes.size() == 2);
  tower.up(alice);
  CHECK(tower.counters().peer_connects == 3);
  CHECK(tower.counters().peer_connects_failed == 2);
}

TEST_CASE("C05: Connect and ConnectionBind without authentication are a 401, with a wrong password too") {
  TcpTower tower;
  auto& alice = tower.allocated();
  CHECK(alice.exchange(alice.request(Method::connect, {}, false))->error() == 401);
  const auto connection = tower.up(alice);
  auto& data = tower.stream("203.0.113.9:5001");
  CHECK(data.exchange(data.request(Method::connection_bind, id(connection), false))->error() == 401);
  auto& wrong = tower.stream("203.0.113.9:5002", "alice", "guess");
  CHECK(wrong.asks(Method::connection_bind, id(connection)) == 401);
  CHECK(tower.joins.empty());
  CHECK(data.asks(Method::connection_bind, id(connection)) == 0);
}

TEST_CASE("C06: RFC 6062, 5.4: ConnectionBind over UDP, of an unknown id, twice, where an allocation is: 400; by another user 441") {
  TcpTower tower;
  auto& alice = tower.allocated();
  const auto connection = tower.up(alice);
  for (const auto transport : {net::Transport::udp, net::Transport::dtls})
    CHECK(tower.stream("203.0.113.9:5001", "alice", "secret", transport).asks(Method::connection_bind, id(connection)) == 400);
  auto& data = tower.stream("203.0.113.9:5002");
  CHECK(data.asks(Method::connection_bind) == 400);
  CHECK(data.asks(Method::connection_bind, id(connection ^ 1)) == 400);
  CHECK(data.asks(Method::connection_bind, with(Attribute::connection_id, {1, 2, 3})) == 400);
  CHECK(alice.asks(Method::connection_bind, id(connection)) == 400);
  CHECK(tower.stream("203.0.113.10:5000", "bob", "hunter2").asks(Method::connection_bind, id(connection)) == 441);
  const auto connecting = tower.connect(alice, "192.0.2.7:4001");
  CHECK(data.asks(Method::connection_bind, id(connecting)) == 400);  // not there yet
  CHECK(tower.joins.empty());
  REQUIRE(data.asks(Method::connection_bind, id(connection)) == 0);
  CHECK(data.last->message()->has_integrity());
  REQUIRE(tower.joins.size() == 1);
  CHECK(tower.joins[0].connection == connection);
  CHECK(tower.stream("203.0.113.9:5003").asks(Method::connection_bind, id(connection)) == 400);
  CHECK(tower.joins.size() == 1);
}

TEST_CASE("C07: RFC 6062, 5.2 and 5.3: no ConnectionBind within 30 seconds closes the peer's connection; a joined one stays") {
  TcpTower tower;
  auto& alice = tower.allocated();
  REQUIRE(alice.permits("192.0.2.9:1") == 0);
  const auto made = tower.up(alice);
  tower.advance(10s);
  const auto come = tower.accepted("192.0.2.9:1234");
  REQUIRE(come);
  const auto joined = tower.up(alice, "192.0.2.7:4001");
  REQUIRE(tower.stream("203.0.113.9:5001").asks(Method::connection_bind, id(joined)) == 0);
  tower.advance(19999ms);
  CHECK(tower.peer_closes.empty());
  tower.advance(1ms);
  CHECK(tower.peer_closes == std::vector<turn::ConnectionId>{made});
  tower.advance(10s);
  CHECK(tower.peer_closes == std::vector<turn::ConnectionId>{made, *come});
  tower.advance(300s);
  CHECK_FALSE(tower.has_closed(joined));
  CHECK(tower.stream("203.0.113.9:5002").asks(Method::connection_bind, id(made)) == 400);
}

TEST_CASE("C08: RFC 6062, 5.3: a peer without permission is closed at once; with one the client gets a ConnectionAttempt") {
  TcpTower tower;
  auto& alice = tower.allocated();
  CHECK_FALSE(tower.accepted(peer));
  CHECK(alice.quiet());
  REQUIRE(alice.permits("192.0.2.7:9") == 0);
  CHECK_FALSE(tower.accepted("192.0.2.8:4000"));
  const auto connection = tower.accepted(peer);
  REQUIRE(connection);
  const auto attempt = alice.take();
  REQUIRE(attempt);
  const auto m = attempt->message();
  REQUIRE(m);
  CHECK(m->is(Class::indication, Method::connection_attempt));
  CHECK(id_of(*attempt) == *connection);
  CHECK(stun::read_xor_address(*m->find(Attribute::xor_peer_address), m->transaction_id())->address == at(peer));
  CHECK(tower.refused(alice, peer) == 446);
  CHECK(tower.stream("203.0.113.9:5001").asks(Method::connection_bind, id(*connection)) == 0);
  tower.advance(300s);  // RFC 8656, 9: the permission has run out
  CHECK_FALSE(tower.accepted("192.0.2.7:4001"));
  CHECK(tower.counters().peers_turned_away == 3);
}

TEST_CASE("RFC 6062, 5.5: all connections close with their allocation, whatever ends it") {
  for (const int way : {0, 1, 2}) {
    TcpTower tower;
    auto& alice = tower.allocated();
    const auto connecting = tower.connect(alice, "192.0.2.7:1");
    const auto waiting = tower.up(alice, "192.0.2.7:2");
    const auto joined = tower.up(alice, "192.0.2.7:3");
    REQUIRE(tower.stream("203.0.113.9:5001").asks(Method::connection_bind, id(joined)) == 0);
    CHECK(tower.server->charge_joined(joined, 100, 20, tower.now));
    if (way == 0) CHECK(alice.refreshes(0) == 0);
    if (way == 1) {
      tower.server->client_gone(alice.five_tuple, tower.now, tower.actions);  // the control connection has gone
      tower.carry_out();
    }
    if (way == 2) tower.advance(601s);
    for (const auto connection : {connecting, waiting, joined}) {
      CHECK(tower.has_closed(connection));
      CHECK_FALSE(tower.shared->worker_of(connection));
    }
    CHECK(tower.open.empty());
    CHECK(tower.events.back().kind == turn::Event::Kind::allocation_ended);
    CHECK(tower.events.back().bytes_to_peer == 100);
    CHECK(tower.events.back().bytes_to_client == 20);
    CHECK(tower.shared->usage().allocations == 0);
    CHECK(tower.counters().peer_connections_ended == 3);
  }
}

TEST_CASE("P36: a reload that denies a peer closes its connections, and lets the others be") {
  TcpTower tower;
  auto& alice = tower.allocated();
  REQUIRE(alice.permits("192.0.2.9:1") == 0);
  const auto stays = tower.up(alice, "192.0.2.7:1");
  const auto made = tower.up(alice, "192.0.2.9:1");
  REQUIRE(tower.stream("203.0.113.9:5001").asks(Method::connection_bind, id(made)) == 0);
  const auto come = tower.accepted("192.0.2.9:53");
  REQUIRE(come);
  tower.reload([](TowerOptions& o) { o.deny = {"192.0.2.9"}; });
  CHECK(tower.has_closed(made));
  CHECK(tower.has_closed(*come));
  CHECK_FALSE(tower.has_closed(stays));
  CHECK_FALSE(tower.accepted("192.0.2.9:54"));
}

TEST_CASE("limits: Connects that wait, and connections of one allocation, are bounded (508); peers beyond are closed") {
  TcpTower tower({.limits = {.channels_per_allocation = 20, .new_peers_per_second = 0}});
  auto& alice = tower.allocated();
  REQUIRE(alice.permits("192.0.2.7:9") == 0);
  for (int i = 1; i <= 16; ++i) tower.connect(alice, "192.0.2.7:" + std::to_string(1000 + i));
  CHECK(tower.refused(alice, "192.0.2.7:999") == 508);
  for (const auto& c : std::vector(tower.connects)) tower.connected(c.connection);
  for (int i = 0; i < 4; ++i) CHECK(tower.accepted("192.0.2.7:" + std::to_string(2000 + i)));
  CHECK_FALSE(tower.accepted("192.0.2.7:3000"));
  alice.inbox.clear();
  CHECK(tower.refused(alice, "192.0.2.7:999") == 508);
  tower.server->peer_gone(tower.connects[0].connection, tower.now, tower.actions);
  tower.up(alice, "192.0.2.7:999");
  TcpTower slow({.limits = {.channels_per_allocation = 0, .new_peers_per_second = 5}});  // no port scanner (X09)
  auto& bob = slow.allocated();
  int made = 0;
  while (made < 200 && slow.refused(bob, "192.0.2.7:" + std::to_string(1000 + made)) == -1) {
    slow.connected(slow.connects.back().connection);
    ++made;
  }
  CHECK(made == 128);
}

TEST_CASE("the user's bandwidth: joined bytes are counted, and who is over the limit is told to wait") {
  TcpTower tower({.users = {{"alice", "secret", {}, {}, 10'000}}});
  auto& alice = tower.allocated();
  const auto connection = tower.up(alice);
  REQUIRE(tower.stream("203.0.113.9:5001").asks(Method::connection_bind, id(connection)) == 0);
  CHECK(tower.server->charge_joined(connection, 6'000, 0, tower.now));
  CHECK(tower.server->charge_joined(connection, 0, 4'000, tower.now));
  CHECK_FALSE(tower.server->charge_joined(connection, 5'000, 0, tower.now));  // it has moved, and is owed
  CHECK_FALSE(tower.server->charge_joined(connection, 0, 0, tower.now));
  tower.advance(600ms);
  CHECK(tower.server->charge_joined(connection, 0, 0, tower.now));
  CHECK(tower.counters().bytes_to_peer == 11'000);
  CHECK(tower.counters().bytes_to_client == 4'000);
  CHECK(tower.server->charge_joined(connection ^ 1, 1, 1, tower.now));  // gone meanwhile
}

TEST_CASE("CONNECTION-ID: of the whole process, never twice, not to be guessed; the worker that has it answers") {
  TcpTower tower;
  auto& alice = tower.allocated();
  const auto connection = tower.up(alice);
  turn::Server other(tower.shared, tower.make_settings(), turn::NonceMint(seeded_random(2)), {3, 4}, seeded_random(9));
  other.set_place({1, {}, {}});
  turn::Actions out;
  auto& data = tower.stream("203.0.113.9:5001");
  data.learns_nonce();
  const auto ask = [&](std::vector<std::uint8_t> bytes) {
    out.clear();
    other.from_client(data.five_tuple, 77, {{bytes.data(), bytes.size()}, 0}, tower.now, out);
    if (out.hand_overs.size() != 1) return std::vector<std::uint8_t>{};
    const auto& over = out.hand_overs[0];
    CHECK(over.worker == 0);
    CHECK(over.via == 77);
    CHECK(over.five_tuple == data.five_tuple);
    return std::vector<std::uint8_t>(over.message.begin(), over.message.end());
  };
  CHECK(ask(data.request(Method::connection_bind, id(connection ^ 1))).empty());  // nobody's: answered there
  CHECK(out.sends.size() == 1);
  CHECK(ask(data.request(Method::connection_bind, id(connection), false)).empty());  // does not even try
  CHECK(out.sends.size() == 1);
  const auto bytes = data.request(Method::connection_bind, id(connection));
  CHECK(ask(bytes) == bytes);
  CHECK(out.sends.empty());
  CHECK(other.counters().handed_over == 1);
  CHECK(data.exchange(bytes)->error() == 0);

  std::set<turn::ConnectionId> ids;
  for (int i = 0; i < 1000; ++i) CHECK(ids.insert(*tower.shared->register_connection(1)).second);
  CHECK(*ids.rbegin() - *ids.begin() > 0xF0000000);
}

TEST_CASE("RFC 6062, 5.4: a ConnectionBind may have the nonce of its control connection, and of no other") {
  TcpTower tower;
  auto& alice = tower.allocated();
  auto& other = tower.stream("203.0.113.9:5002");
  other.learns_nonce();
  const auto connection = tower.up(alice);
  auto& data = tower.stream("203.0.113.9:5001");
  data.realm = alice.realm;
  data.nonce = other.nonce;
  CHECK(data.exchange(data.request(Method::connection_bind, id(connection)))->error() == 438);
  data.nonce = alice.nonce;
  CHECK(data.exchange(data.request(Method::connection_bind, id(connection)))->error() == 0);
}

TEST_CASE("F10: an allocation vouches for its user at ConnectionBind too, also when the name has run out") {
  TcpTower tower({.secrets = {"north"}});
  const auto name = std::to_string(tower.now.unix_time + 60) + ":bob";
  auto& bob = tower.stream("203.0.113.10:5000", name, stun::rest_password("north", name));
  REQUIRE(bob.asks(Method::allocate, tcp()) == 0);
  tower.advance(100s);
  const auto connection = tower.up(bob);
  CHECK(tower.stream("203.0.113.10:5001", name, stun::rest_password("north", name)).asks(Method::connection_bind, id(connection)) == 0);
}

TEST_CASE("6062 5.2: more Connects than one list of actions can answer run out at one moment, and each gets its 447") {
  TcpTower tower({.limits = {.new_peers_per_second = 0}});
  constexpr int clients = 160, each = 16;  // 2,560 answers of 128 bytes or more; a list has room for 2,048
  std::vector<Client*> all;
  for (int i = 0; i < clients; ++i) {
    all.push_back(&tower.allocated("203.0.113.9:" + std::to_string(5000 + i)));
    for (int k = 0; k < each; ++k) tower.connect(*all.back(), "192.0.2.7:" + std::to_string(4000 + k));
  }
  tower.advance(31s);
  for (Client* c : all) {
    int failed = 0;
    while (const auto answer = c->take()) failed += answer->error() == 447;
    CHECK(failed == each);
  }
  CHECK(tower.peer_closes.size() == clients * each);
}
