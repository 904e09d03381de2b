// Mobility (RFC 8016), rows F12, F13, L24 and L33 of the hostile inputs.
#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <set>

#include "../relay/turn/allocation.h"
#include "harness.h"

using namespace radiotower;
using namespace radiotower::test;

namespace {

constexpr const char* peer = "192.0.2.7:4000";

TowerOptions mobile() {
  TowerOptions options;
  options.mobility = true;
  return options;
}
Client::More with_ticket(std::string ticket) {
  return [ticket = std::move(ticket)](stun::Writer& w) { w.add(Attribute::mobility_ticket, std::string_view(ticket)); };
}
std::string ticket_of(const Packet& packet) {
  const auto value = packet.message()->find(Attribute::mobility_ticket);
  return value ? std::string(as_text(*value)) : "";
}
/// Allocates with an empty MOBILITY-TICKET, binds 0x4000 to `peer`, and gives the ticket.
std::string allocates(Client& client) {
  REQUIRE(client.allocates(with_ticket("")) == 0);
  const std::string ticket = ticket_of(*client.last);
  REQUIRE(ticket.size() == 32);
  REQUIRE(client.binds(0x4000, peer) == 0);
  return ticket;
}
int moves(Client& client, const std::string& ticket) { return client.refreshes({}, with_ticket(ticket)); }
Client& over(net::Transport transport, Client& client) {
  client.five_tuple.transport = transport;
  return client;
}

}  // namespace

TEST_CASE("L33 RFC 8016 3.1.2: an empty MOBILITY-TICKET is answered with a ticket, one with content is a 400, and 405 while mobility is off") {
  Tower tower(mobile());
  auto& alice = tower.client("203.0.113.9:5000");
  CHECK(alice.allocates(with_ticket("x")) == 400);
  CHECK(tower.server->allocation_count() == 0);
  CHECK(alice.allocates(with_ticket("")) == 0);
  CHECK(ticket_of(*alice.last).size() == 32);
  auto& plain = tower.client("203.0.113.9:5001");
  CHECK(plain.allocates() == 0);
  CHECK_FALSE(plain.last->message()->has(Attribute::mobility_ticket));

  Tower off;
  CHECK(off.client("203.0.113.9:5000").allocates(with_ticket("")) == 405);
  CHECK(off.client("203.0.113.9:5001").allocates(with_ticket("x")) == 405);
}

TEST_CASE("an Allocate that comes again is answered with the same ticket (RFC 8489, 6.3.1)") {
  Tower tower(mobile());
  auto& alice = tower.client("203.0.113.9:5000");
  alice.learns_nonce();
  const std::array<std::uint8_t, 4> udp{17, 0, 0, 0};
  const auto bytes = alice.request(Method::allocate, [&](stun::Writer& w) {
    w.add(Attribute::requested_transport, Bytes(udp));
    w.add(Attribute::mobility_ticket, Bytes());
  });
  const auto first = alice.exchange(bytes), again = alice.exchange(bytes);
  REQUIRE(first);
  REQUIRE(again);
  CHECK(first->error() == 0);
  CHECK(first->bytes == again->bytes);
  CHECK(ticket_of(*first).size() == 32);
}

TEST_CASE("RFC 8016 3.2.2: a Refresh with the ticket moves the allocation, found by ticket and not by 5-tuple, and the new ticket differs") {
  Tower tower(mobile());
  auto& wifi = tower.client("203.0.113.9:5000");
  const std::string ticket = allocates(wifi);
  auto& lte = tower.client("198.51.100.4:7000");
  CHECK(moves(lte, ticket) == 0);
  CHECK(lte.last->message()->has(Attribute::lifetime));
  const std::string next = ticket_of(*lte.last);
  CHECK(next.size() == 32);
  CHECK(next != ticket);
  lte.sends_channel(0x4000, "here I am");  // with the channel that was bound before
  CHECK(tower.peer_got(peer) == "here I am");
  tower.peer_sends(peer, wifi, "welcome");
  CHECK(lte.take()->payload() == "welcome");
  CHECK(tower.server->allocation_count() == 1);
  CHECK(tower.open.size() == 1);
  CHECK(tower.counters().allocations_moved == 1);
  const auto& moved = tower.events.back();
  CHECK(moved.kind == turn::Event::Kind::allocation_moved);
  CHECK(moved.moved_from.client == at("203.0.113.9:5000"));
  CHECK(moved.moved_from.server == at("198.18.0.1:3478"));  // with it the daemon lets go of a session
  CHECK(moved.five_tuple.client == at("198.51.100.4:7000"));
  CHECK(moved.relayed == wifi.relayed());
}

TEST_CASE("M3 RFC 8016 3.2.2: until the client sends data from its new 5-tuple, the old one is received on and sent to") {
  for (const bool indication : {false, true}) {
    CAPTURE(indication);
    Tower tower(mobile());
    auto& wifi = tower.client("203.0.113.9:5000");
    const std::string ticket = allocates(wifi);
    auto& lte = tower.client("198.51.100.4:7000");
    CHECK(moves(lte, ticket) == 0);
    lte.inbox.clear();
    tower.peer_sends(peer, wifi, "to wifi");
    CHECK(wifi.take()->payload() == "to wifi");
    wifi.sends_channel(0x4000, "from wifi");
    CHECK(tower.peer_got(peer) == "from wifi");
    CHECK(wifi.permits("192.0.2.8:1") == 0);
    // Requests are served on both, and move nothing; neither does a keep-alive.
    CHECK(lte.permits("192.0.2.9:1") == 0);
    CHECK(lte.refreshes() == 0);
    CHECK(lte.binds(0x4001, "192.0.2.9:1") == 0);
    std::array<std::uint8_t, 64> space{};
    stun::Writer keep_alive(space, Class::indication, Method::binding, {});
    lte.sends_raw({keep_alive.bytes().begin(), keep_alive.bytes().end()});
    tower.peer_sends(peer, wifi, "still to wifi");
    CHECK(wifi.take()->payload() == "still to wifi");
    CHECK(lte.quiet());

    if (indication) lte.sends(peer, "from lte");
    else lte.sends_channel(0x4000, "from lte");
    CHECK(tower.peer_got(peer) == "from lte");
    tower.peer_sends(peer, wifi, "to lte");
    CHECK(lte.take()->payload() == "to lte");
    CHECK(wifi.quiet());
    // The old 5-tuple is gone.
    wifi.sends_channel(0x4000, "ghost");
    CHECK(tower.peers_quiet());
    CHECK(wifi.refreshes() == 437);
    CHECK(wifi.permits("192.0.2.8:1") == 437);
    CHECK(wifi.allocates() == 0);  // and free for a new allocation
    CHECK(tower.server->allocation_count() == 2);
  }
}

TEST_CASE("a train of ChannelData from the new 5-tuple moves the client as one datagram does") {
  Tower tower(mobile());
  auto& wifi = tower.client("203.0.113.9:5000");
  const std::string ticket = allocates(wifi);
  auto& lte = tower.client("198.51.100.4:7000");
  CHECK(moves(lte, ticket) == 0);
  std::vector<std::uint8_t> train;
  for (const char c : {'a', 'b', 'c'})
    for (const int byte : {0x40, 0, 0, 4, int{c}, int{'x'}, int{'x'}, int{'x'}}) train.push_back(static_cast<std::uint8_t>(byte));
  tower.input(lte.five_tuple, train, 8);
  for (const char* text : {"axxx", "bxxx", "cxxx"}) CHECK(tower.peer_got(peer) == text);
  CHECK(tower.counters().allocations_moved == 1);
}

TEST_CASE("RFC 8016 3.2.2: the Refresh that comes again gets its answer again, though its ticket has been replaced") {
  Tower tower(mobile());
  auto& wifi = tower.client("203.0.113.9:5000");
  const std::string ticket = allocates(wifi);
  auto& lte = tower.client("198.51.100.4:7000");
  lte.learns_nonce();
  const auto bytes = lte.request(Method::refresh, [&](stun::Writer& w) {
    w.add_u32(Attribute::lifetime, 1200);
    w.add(Attribute::mobility_ticket, std::string_view(ticket));
  });
  const auto first = lte.exchange(bytes);
  REQUIRE(first);
  CHECK(first->error() == 0);
  CHECK(lte.exchange(bytes)->bytes == first->bytes);
  lte.sends_channel(0x4000, "moved");
  tower.advance(40s);  // 30 seconds at least
  CHECK(lte.exchange(bytes)->bytes == first->bytes);
  CHECK(tower.counters().allocations_moved == 1);
  // From elsewhere, or as another transaction, the old ticket is worth nothing (F12).
  CHECK(moves(lte, ticket) == 437);
  auto& other = tower.client("198.51.100.4:7001");
  CHECK(moves(other, ticket) == 437);
  std::copy_n(bytes.begin() + 8, 12, other.fixed_transaction_id.emplace().begin());
  CHECK(moves(other, ticket) == 437);
}

TEST_CASE("F12: a ticket that is unknown, forged, of an ended allocation or replaced is a 437") {
  Tower tower(mobile());
  auto& wifi = tower.client("203.0.113.9:5000");
  const std::string ticket = allocates(wifi);
  auto& lte = tower.client("198.51.100.4:7000");
  for (std::size_t i = 0; i < ticket.size(); ++i) {
    std::string forged = ticket;
    forged[i] = forged[i] == 'A' ? 'B' : 'A';
    CHECK(moves(lte, forged) == 437);
  }
  CHECK(moves(lte, std::string(32, '\0')) == 437);
  CHECK(moves(wifi, std::string(32, 'A')) == 437);  // also where there is an allocation: the 5-tuple does not count
  Tower other(mobile());
  CHECK(moves(other.client("198.51.100.4:7000"), std::string(turn::TicketMint(seeded_random(99)).make({0, 0, 1}).text())) == 437);

  CHECK(moves(lte, ticket) == 0);
  const std::string second = ticket_of(*lte.last);
  auto& third = tower.client("198.51.100.5:7000");
  CHECK(moves(third, ticket) == 437);  // rotated already
  CHECK(moves(third, second) == 0);
  const std::string last = ticket_of(*third.last);
  CHECK(third.refreshes(0) == 0);
  CHECK(moves(lte, last) == 437);
  CHECK(wifi.allocates() == 0);  // takes the same place in the table, and has no ticket
  CHECK(moves(lte, second) == 437);
  CHECK(tower.server->allocation_count() == 1);
}

TEST_CASE("RFC 8016 3.2.2: an invalid ticket MUST be a 400: what has not even a ticket's length; after authentication, and 405 where mobility is off") {
  Tower tower(mobile());
  auto& wifi = tower.client("203.0.113.9:5000");
  const std::string ticket = allocates(wifi);
  auto& lte = tower.client("198.51.100.4:7000");
  for (const std::string& bad : {std::string(), std::string("x"), ticket.substr(0, 31), ticket + "A", std::string(500, 'A')}) {
    CHECK(moves(lte, bad) == 400);
    CHECK(lte.last->message()->has_integrity());
    CHECK(moves(wifi, bad) == 400);  // also where there is an allocation: the 5-tuple does not count
  }
  CHECK(moves(tower.client("198.51.100.4:7001", "alice", "wrong"), "x") == 401);
  CHECK(moves(lte, ticket) == 0);  // and nothing has changed
  Tower off;
  auto& c = off.client("203.0.113.9:5000");
  REQUIRE(c.allocates() == 0);
  CHECK(moves(c, "x") == 405);
  CHECK(moves(c, "") == 405);
}

TEST_CASE("F12 M2 RFC 8016 3.2.2: the ticket of another user is a 441, and without proof a 401") {
  Tower tower(mobile());
  auto& wifi = tower.client("203.0.113.9:5000");
  const std::string ticket = allocates(wifi);
  auto& bob = tower.client("198.51.100.4:7000", "bob", "hunter2");
  CHECK(moves(bob, ticket) == 441);
  auto& liar = tower.client("198.51.100.4:7001", "alice", "wrong");
  CHECK(moves(liar, ticket) == 401);
  CHECK(liar.exchange(liar.request(Method::refresh, with_ticket(ticket), false))->error() == 401);
  CHECK(moves(wifi, ticket) == 400);  // and has cost her nothing
  CHECK(moves(tower.client("198.51.100.4:7002"), ticket) == 0);
}

TEST_CASE("RFC 8016 3.2.1: a client that has not moved MUST NOT show its ticket: 400; its plain Refresh works on") {
  Tower tower(mobile());
  auto& wifi = tower.client("203.0.113.9:5000");
  const std::string ticket = allocates(wifi);
  CHECK(moves(wifi, ticket) == 400);
  CHECK(wifi.refreshes() == 0);
  CHECK_FALSE(wifi.last->message()->has(Attribute::mobility_ticket));
  auto& lte = tower.client("198.51.100.4:7000");
  CHECK(moves(lte, ticket) == 0);
  CHECK(moves(lte, ticket_of(*lte.last)) == 400);
  CHECK(lte.refreshes() == 0);
}

TEST_CASE("a nonce is of an address: with the one of the old 5-tuple the new one is told 438 first") {
  Tower tower(mobile());
  auto& wifi = tower.client("203.0.113.9:5000");
  const std::string ticket = allocates(wifi);
  auto& lte = tower.client("198.51.100.4:7000");
  lte.realm = wifi.realm;
  lte.nonce = wifi.nonce;
  CHECK(moves(lte, ticket) == 438);
  CHECK(moves(lte, ticket) == 0);
}

TEST_CASE("a 5-tuple that has an allocation of its own takes no other: 437") {
  Tower tower(mobile());
  auto& wifi = tower.client("203.0.113.9:5000");
  const std::string ticket = allocates(wifi);
  auto& busy = tower.client("198.51.100.4:7000");
  REQUIRE(busy.allocates() == 0);
  CHECK(moves(busy, ticket) == 437);
  // Nor does one that another allocation is moving to.
  auto& second = tower.client("203.0.113.9:5001");
  const std::string of_second = allocates(second);
  auto& target = tower.client("198.51.100.4:7001");
  CHECK(moves(target, of_second) == 0);
  CHECK(moves(target, ticket) == 437);
  CHECK(target.allocates() == 437);
  CHECK(wifi.refreshes() == 0);
}

TEST_CASE("F13: a thousand announced 5-tuples and none completed: one is remembered, and memory stays flat") {
  Tower tower(mobile());
  auto& wifi = tower.client("203.0.113.9:5000");
  std::string ticket = allocates(wifi);
  std::size_t kept = 0;
  std::set<std::string> seen{ticket};
  for (int i = 0; i < 1000; ++i) {
    auto& next = tower.client("198.51.100.4:" + std::to_string(7000 + i));
    tower.advance(10ms);
    REQUIRE(moves(next, ticket) == 0);
    ticket = ticket_of(*next.last);
    CHECK(seen.insert(ticket).second);
    if (i == 50) kept = tower.server->bytes_kept();
  }
  CHECK(tower.server->bytes_kept() <= kept);
  CHECK(tower.server->allocation_count() == 1);
  CHECK(tower.counters().allocations_moved == 0);
  CHECK(tower.client("198.51.100.4:7500").refreshes() == 437);  // forgotten
  tower.peer_sends(peer, wifi, "still here");
  CHECK(wifi.inbox.back().payload() == "still here");
  std::map<std::uint16_t, int> taken;
  for (const auto& carry : tower.carries) taken[carry.five_tuple.client.port] += carry.is_taken ? 1 : -1;
  CHECK(std::count_if(taken.begin(), taken.end(), [](const auto& t) { return t.second != 0; }) == 1);
}

TEST_CASE("back to the 5-tuple that it had not left yet") {
  Tower tower(mobile());
  auto& wifi = tower.client("203.0.113.9:5000");
  const std::string ticket = allocates(wifi);
  auto& lte = tower.client("198.51.100.4:7000");
  CHECK(moves(lte, ticket) == 0);
  CHECK(moves(wifi, ticket_of(*lte.last)) == 0);
  CHECK(lte.refreshes() == 437);
  wifi.sends_channel(0x4000, "stayed");
  CHECK(tower.peer_got(peer) == "stayed");
  CHECK(tower.counters().allocations_moved == 0);
}

TEST_CASE("a Refresh with LIFETIME 0 and a ticket ends the allocation, wherever it comes from") {
  Tower tower(mobile());
  auto& wifi = tower.client("203.0.113.9:5000");
  const std::string ticket = allocates(wifi);
  auto& lte = tower.client("198.51.100.4:7000");
  CHECK(lte.refreshes(0, with_ticket(ticket)) == 0);
  CHECK_FALSE(lte.last->message()->has(Attribute::mobility_ticket));
  CHECK(tower.server->allocation_count() == 0);
  CHECK(tower.shared->usage().allocations == 0);
  CHECK(lte.refreshes(0, with_ticket(ticket)) == 437);
  CHECK(wifi.refreshes() == 437);
}

TEST_CASE("the end of an allocation in the midst of a move leaves nothing behind") {
  Tower tower(mobile());
  auto& wifi = tower.client("203.0.113.9:5000");
  const std::string ticket = allocates(wifi);
  auto& lte = tower.client("198.51.100.4:7000");
  CHECK(moves(lte, ticket) == 0);
  tower.advance(700s);
  CHECK(tower.server->allocation_count() == 0);
  lte.nonce.clear();
  CHECK(lte.refreshes() == 437);
  CHECK(lte.allocates() == 0);
  REQUIRE(tower.carries.size() == 2);
  CHECK(tower.carries[0].is_taken);
  CHECK_FALSE(tower.carries[1].is_taken);
  CHECK(tower.carries[1].five_tuple == lte.five_tuple);
}

TEST_CASE("what 5-tuples an allocation carries besides its first is told, in order") {
  Tower tower(mobile());
  auto& a = tower.client("203.0.113.9:5000");
  std::string ticket = allocates(a);
  CHECK(tower.carries.empty());
  auto& b = tower.client("203.0.113.9:5001");
  CHECK(moves(b, ticket) == 0);
  ticket = ticket_of(*b.last);
  b.sends_channel(0x4000, "b");
  auto& c = tower.client("203.0.113.9:5002");
  CHECK(moves(c, ticket) == 0);
  c.sends_channel(0x4000, "c");
  CHECK(c.refreshes(0) == 0);
  std::string told;
  for (const auto& carry : tower.carries) told.append(carry.is_taken ? "+" : "-").append(std::to_string(carry.five_tuple.client.port)).append(" ");
  CHECK(told == "+5001 +5002 -5001 -5002 ");
}

TEST_CASE("L24: moving and losing connections change nothing about a user's quota") {
  TowerOptions options = mobile();
  options.secrets = {"north"};
  options.limits.allocations_per_user = 1;
  Tower tower(options);
  const std::string name = std::to_string(tower.now.unix_time + 3000) + ":alice", password = stun::rest_password("north", name);
  auto& tcp = over(net::Transport::tcp, tower.client("203.0.113.9:5000", name, password));
  std::string ticket = allocates(tcp);
  for (int i = 0; i < 20; ++i) {
    auto& next = over(net::Transport::tcp, tower.client("198.51.100.4:" + std::to_string(7000 + i), name, password));
    REQUIRE(moves(next, ticket) == 0);
    ticket = ticket_of(*next.last);
    if (i % 2 == 0) next.sends_channel(0x4000, "x");
    if (i % 3 == 0) tower.server->client_gone(next.five_tuple, tower.now, tower.actions);
    tower.carry_out();
    CHECK(tower.shared->usage().allocations == 1);
    CHECK(tower.client("198.51.100.9:" + std::to_string(7000 + i), name, password).allocates() == 486);
  }
  tower.advance(700s);
  CHECK(tower.shared->usage().allocations == 0);
  CHECK(tower.shared->usage().used == 0);
}

TEST_CASE("over TCP: a connection that ends leaves the allocation to its ticket, and what peers send meanwhile is dropped and counted") {
  Tower tower(mobile());
  auto& wifi = over(net::Transport::tcp, tower.client("203.0.113.9:5000"));
  const std::string ticket = allocates(wifi);
  tower.server->client_gone(wifi.five_tuple, tower.now, tower.actions);
  tower.carry_out();
  CHECK(tower.server->allocation_count() == 1);
  tower.peer_sends(peer, wifi, "anybody?");
  tower.icmp(peer, wifi.relayed(), {3, 3, 0});
  CHECK(tower.counters().dropped_no_client == 1);
  CHECK(tower.counters().icmp_ignored == 1);
  CHECK(wifi.quiet());
  std::size_t clients = 0;
  tower.server->for_each_client([&](const net::FiveTuple&) { ++clients; });
  CHECK(clients == 0);
  CHECK(wifi.refreshes() == 437);  // a new connection from the same port is nobody's

  auto& lte = over(net::Transport::tls, tower.client("198.51.100.4:7000"));
  CHECK(moves(lte, ticket) == 0);
  tower.peer_sends(peer, wifi, "there you are");  // at once: there is no old 5-tuple to wait for
  CHECK(lte.take()->payload() == "there you are");
  CHECK(tower.counters().allocations_moved == 1);
}

TEST_CASE("over TCP: the same port again may show the ticket, once its connection was gone") {
  Tower tower(mobile());
  auto& wifi = over(net::Transport::tcp, tower.client("203.0.113.9:5000"));
  const std::string ticket = allocates(wifi);
  tower.server->client_gone(wifi.five_tuple, tower.now, tower.actions);
  CHECK(moves(wifi, ticket) == 0);
  wifi.sends_channel(0x4000, "again");
  CHECK(tower.peer_got(peer) == "again");
}

TEST_CASE("an allocation without a client ends with its lifetime") {
  Tower tower(mobile());
  auto& wifi = over(net::Transport::tcp, tower.client("203.0.113.9:5000"));
  allocates(wifi);
  tower.server->client_gone(wifi.five_tuple, tower.now, tower.actions);
  tower.advance(601s);
  CHECK(tower.server->allocation_count() == 0);
  CHECK(tower.events.back().end == turn::EndReason::expired);
  CHECK(tower.open.empty());
}

TEST_CASE("L32: without a ticket, or with mobility off, a connection takes its allocation along") {
  Tower tower(mobile());
  auto& plain = over(net::Transport::tcp, tower.client("203.0.113.9:5000"));
  REQUIRE(plain.allocates() == 0);
  tower.server->client_gone(plain.five_tuple, tower.now, tower.actions);
  tower.carry_out();
  CHECK(tower.server->allocation_count() == 0);
  auto& mobile_one = over(net::Transport::tcp, tower.client("203.0.113.9:5001"));
  const std::string ticket = allocates(mobile_one);
  tower.reload([](TowerOptions& o) { o.mobility = false; });
  CHECK(moves(tower.client("198.51.100.4:7000"), ticket) == 405);
  tower.server->client_gone(mobile_one.five_tuple, tower.now, tower.actions);
  tower.carry_out();
  CHECK(tower.server->allocation_count() == 0);
}

TEST_CASE("M3 RFC 8016 3.2.2: when the old connection closes, the announced 5-tuple is the client's; when that one closes, the old one stays") {
  Tower tower(mobile());
  auto& wifi = over(net::Transport::tcp, tower.client("203.0.113.9:5000"));
  const std::string ticket = allocates(wifi);
  auto& gone = over(net::Transport::tcp, tower.client("198.51.100.4:6999"));
  CHECK(moves(gone, ticket) == 0);
  tower.server->client_gone(gone.five_tuple, tower.now, tower.actions);
  tower.peer_sends(peer, wifi, "old");
  CHECK(wifi.take()->payload() == "old");
  auto& lte = tower.client("198.51.100.4:7000");
  CHECK(moves(lte, ticket_of(*gone.last)) == 0);
  tower.server->client_gone(wifi.five_tuple, tower.now, tower.actions);
  tower.peer_sends(peer, wifi, "new");
  CHECK(lte.inbox.back().payload() == "new");
}

TEST_CASE("from one address family to the other, and from a denied or tunnelled address not at all") {
  TowerOptions options = mobile();
  options.denied_clients = {"198.51.100.0/24"};
  Tower tower(options);
  auto& wifi = tower.client("203.0.113.9:5000");
  const std::string ticket = allocates(wifi);
  CHECK(moves(tower.client("198.51.100.4:7000"), ticket) == 403);
  CHECK(moves(tower.client("[2002:c633:6404::1]:7000"), ticket) == 403);
  auto& six = tower.client("[2001:db8:9::1]:7000");
  CHECK(moves(six, ticket) == 0);
  six.sends_channel(0x4000, "over IPv6");
  CHECK(tower.peer_got(peer) == "over IPv6");
  // A reload that denies the announced address alone leaves the client where it is.
  auto& back = tower.client("192.88.99.1:7000");
  CHECK(moves(back, ticket_of(*six.last)) == 0);
  tower.reload([](TowerOptions& o) { o.denied_clients = {"192.88.99.0/24"}; });
  CHECK(back.refreshes() == 437);
  CHECK(six.refreshes() == 0);
}

TEST_CASE("a REST credential that has run out moves on with its allocation (F10)") {
  TowerOptions options = mobile();
  options.secrets = {"north"};
  Tower tower(options);
  const std::string name = std::to_string(tower.now.unix_time + 300) + ":alice", password = stun::rest_password("north", name);
  auto& wifi = tower.client("203.0.113.9:5000", name, password);
  const std::string ticket = allocates(wifi);
  tower.advance(301s);
  CHECK(moves(tower.client("198.51.100.4:7000", name, password), ticket) == 0);
}

TEST_CASE("a ticket of another worker hands the message over, once the client has shown its address by a nonce, and answers nothing") {
  Tower tower(mobile());
  auto tickets = std::make_shared<turn::TicketMint>(seeded_random(5));
  turn::Place place;
  place.worker = 1;
  place.tickets = tickets;
  tower.server->set_place(place);
  auto& wifi = tower.client("203.0.113.9:5000");
  const std::string ticket = allocates(wifi);
  const std::string elsewhere(tickets->make({3, 0, 1}).text());
  auto& lte = tower.client("198.51.100.4:7000");
  CHECK(lte.exchange(lte.request(Method::refresh, with_ticket(elsewhere), false))->error() == 401);
  CHECK(tower.hand_overs.empty());
  CHECK(moves(lte, elsewhere) == -1);
  REQUIRE(tower.hand_overs.size() == 1);
  CHECK(tower.hand_overs[0].worker == 3);
  CHECK(tower.hand_overs[0].five_tuple == lte.five_tuple);
  CHECK(tower.counters().handed_over == 1);
  CHECK(moves(wifi, elsewhere) == 437);  // it has an allocation of its own here
  CHECK(moves(over(net::Transport::dtls, tower.client("198.51.100.4:7001")), elsewhere) == 437);  // which no other worker could read
  CHECK(moves(lte, ticket) == 0);        // and ours is ours
  CHECK(tower.hand_overs.size() == 1);
}

TEST_CASE("RFC 8016 3.1.2: tickets are sealed: whoever changes a bit has none, and they tell nothing") {
  const turn::TicketMint mint(seeded_random(1)), other(seeded_random(2));
  const turn::TicketPlace place{1023, (1 << 22) - 1, 0xFFFFFFFF};
  const auto ticket = mint.make(place);
  REQUIRE(mint.open(as_bytes(ticket.text())));
  CHECK(*mint.open(as_bytes(ticket.text())) == place);
  CHECK(mint.make(place).text() == ticket.text());
  CHECK_FALSE(other.open(as_bytes(ticket.text())));
  for (std::size_t i = 0; i < ticket.text().size(); ++i)
    for (int bit = 0; bit < 8; ++bit) {
      std::string changed(ticket.text());
      changed[i] = static_cast<char>(changed[i] ^ (1 << bit));
      CHECK_FALSE(mint.open(as_bytes(changed)));
    }
  // Neighbours share nothing: of 192 bits about half differ.
  const auto a = *from_base64(mint.make({0, 1, 1}).text()), b = *from_base64(mint.make({0, 1, 2}).text());
  int differ = 0;
  for (std::size_t i = 0; i < a.size(); ++i) differ += __builtin_popcount(static_cast<std::uint8_t>(a[i] ^ b[i]));
  CHECK(differ > 60);
}

TEST_CASE("the table under random moves finds each allocation under its 5-tuples and under no other") {
  const RandomSource random = seeded_random(11);
  turn::AllocationTable table({3, 4});
  struct Model {
    std::optional<std::uint16_t> at, next;
  };
  std::map<std::uint32_t, Model> model;         // by index
  std::map<std::uint16_t, std::uint32_t> where;  // port -> index
  const auto tuple = [](std::uint16_t port) {
    net::FiveTuple t;
    t.client = {*net::IpAddress::parse("203.0.113.9"), port};
    t.server = at("198.18.0.1:3478");
    return t;
  };
  constexpr std::uint16_t ports = 300;
  for (int step = 0; step < 60'000; ++step) {
    const auto port = static_cast<std::uint16_t>(1 + random_below(random, ports));
    const auto found = where.find(port);
    switch (random_below(random, 6)) {
      case 0:
      case 1:
        if (found != where.end()) break;
        if (model.size() < 150 && random_below(random, 2) == 0) {
          std::uint32_t index = 0;
          table.insert(tuple(port), index).mobility = std::make_unique<turn::Mobility>();
          model[index] = {port, {}};
          where[port] = index;
        } else if (!model.empty()) {
          auto it = std::next(model.begin(), random_below(random, static_cast<std::uint32_t>(model.size())));
          if (it->second.next) break;
          table.begin_move(*table.at(it->first), tuple(port), 1);
          it->second.next = port;
          where[port] = it->first;
        }
        break;
      case 2:
        if (found == where.end() || !model[found->second].next) break;
        {
          const std::uint32_t index = found->second;
          Model& m = model[index];
          table.complete_move(*table.at(index));
          if (m.at) where.erase(*m.at);
          m = {m.next, {}};
        }
        break;
      case 3:
        if (found == where.end() || !model[found->second].next) break;
        {
          Model& m = model[found->second];
          table.abandon_move(*table.at(found->second));
          where.erase(*m.next);
          m.next.reset();
        }
        break;
      case 4:
        if (found == where.end() || model[found->second].next) break;
        table.lose_client(*table.at(found->second));
        model[found->second].at.reset();
        where.erase(found);
        break;
      default: {
        if (model.empty() || random_below(random, 3) != 0) break;
        const auto it = std::next(model.begin(), random_below(random, static_cast<std::uint32_t>(model.size())));
        table.erase(it->first);
        if (it->second.at) where.erase(*it->second.at);
        if (it->second.next) where.erase(*it->second.next);
        model.erase(it);
      }
    }
    if (step % 50 != 0) continue;
    REQUIRE(table.size() == model.size());
    for (std::uint16_t p = 1; p <= ports; ++p) {
      const auto* allocation = table.find(tuple(p));
      const auto expected = where.find(p);
      REQUIRE((allocation != nullptr) == (expected != where.end()));
      if (allocation) REQUIRE(allocation->index == expected->second);
    }
  }
}
