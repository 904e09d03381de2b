// Clients over TLS, behind a front end, on their way to another worker, and joined to a peer.
#include <doctest/doctest.h>

#include "stream_station.h"

using namespace radiotower;
using namespace radiotower::daemon;
using namespace radiotower::daemon::streams_test;

TEST_CASE("streams: the oldest of too many handshakes goes; whoever is through stays [T15]") {
  on_both([](bool uring) {
    Station station(uring, true);
    if (!station.loop) return;
    StreamClients::Limits limits;
    limits.in_handshake = 3;
    station.clients->set_limits(limits);
    Client served(station);
    shake_hands(station, served);
    std::vector<std::unique_ptr<Client>> half;
    for (std::size_t i = 0; i < 5; ++i) {
      half.push_back(std::make_unique<Client>(station));
      half.back()->send(bytes_of("\x16\x03\x01\x02"));
      station.until([&] {
        return station.counters().in_handshake == std::min<std::size_t>(i + 1, 3) && station.counters().closed_crowded_out == (i < 3 ? 0 : i - 2);
      });
    }
    station.until([&] { return half[0]->reads(), half[1]->reads(), half[0]->ended && half[1]->ended; });
    served.send(binding());
    station.until([&] { return station.messages.size() == 1; });
    station.pass(6s);
    station.until([&] { return station.counters().in_handshake == 0; });
    CHECK(station.counters().closed_slow_handshake == 3);
    CHECK(station.clients->size() == 1);
  });
}

TEST_CASE("streams: over TLS, as over TCP; a reload changes the certificate of those who come later") {
  on_both([](bool uring) {
    Station station(uring, true);
    if (!station.loop) return;
    station.on_message = [&](turn::SocketHandle via, turn::Train train) { station.send(via, bytes_of(as_text(train.bytes)), false, net::Transport::tls); };
    Client client(station);
    shake_hands(station, client);
    std::vector<std::uint8_t> many;
    for (std::uint8_t i = 0; i < 100; ++i) {
      const auto one = binding(i);
      many.insert(many.end(), one.begin(), one.end());
    }
    client.send(many);
    station.until([&] { return client.reads().size() == many.size(); });
    CHECK(client.got == as_text(many));
    CHECK(station.five_tuples[0].transport == net::Transport::tls);
    auto without = std::make_shared<ConnectionSettings>();
    station.clients->apply(without, station.settings);
    client.send(binding());
    station.until([&] { return client.reads().size() == many.size() + 20; });
    Client later(station);
    later.send(bytes_of("\x16\x03\x01\x02"));
    station.until([&] { return later.reads(), later.ended; });
  });
}

TEST_CASE("streams: a connection goes to another worker with what it has sent and what waits for it") {
  on_both([](bool uring) {
    for (const bool tls : {false, true}) {
      CAPTURE(tls);
      auto counts = std::make_shared<ConnectionCounts>(HashKey{3, 4});
      Station here(uring, tls, counts), there(uring, tls, counts);
      if (!here.loop || !there.loop) return;
      const net::Transport transport = tls ? net::Transport::tls : net::Transport::tcp;
      Client client(here);
      if (tls) shake_hands(here, client);
      here.on_message = [&](turn::SocketHandle via, turn::Train train) {
        if (train.bytes[8] == 2) here.clients->hand_over(via, 7, train.bytes);
        else here.send(via, bytes_of("here...."), false, transport);
      };
      there.on_message = [&](turn::SocketHandle via, turn::Train) { there.send(via, bytes_of("there..."), false, transport); };
      // One for here, one that is about there, and behind it a whole one and the front of another.
      std::vector<std::uint8_t> all;
      for (std::uint8_t id = 1; id <= 4; ++id) {
        const auto one = binding(id);
        all.insert(all.end(), one.begin(), one.end());
      }
      client.send(Bytes(all).first(70));
      here.until([&] { return !here.parcels.empty(); });
      CHECK(here.went_to == 7);
      CHECK(here.messages.size() == 2);
      CHECK(here.clients->size() == 0);
      CHECK(counts->total() == 1);  // it is still of the relay
      CHECK(here.parcels[0].five_tuple == net::FiveTuple{client.address, listener, transport});
      client.send(Bytes(all).subspan(70));
      there.clients->begin_turn();
      there.clients->receive(std::move(here.parcels[0]));
      there.clients->end_of_turn();
      there.until([&] { return client.reads().size() >= 32; });
      CHECK(client.got == "here....there...there...there...");
      REQUIRE(there.messages.size() == 3);
      for (std::uint8_t id = 2; id <= 4; ++id) CHECK(there.messages[id - 2u] == as_text(binding(id)));
      CHECK(there.five_tuples[0] == net::FiveTuple{client.address, listener, transport});
      client.half_closes();
      there.until([&] { return there.clients->size() == 0; });
      CHECK(counts->total() == 0);
      CHECK(counts->sources() == 0);
    }
  });
}

TEST_CASE("streams: a connection that is joined to a peer carries bytes, those behind the request first (RFC 6062, 5.4)") {
  on_both([](bool uring) {
    for (const bool tls : {false, true}) {
      CAPTURE(tls);
      Station station(uring, tls);
      if (!station.loop) return;
      Client client(station);
      if (tls) shake_hands(station, client);
      station.on_message = [&](turn::SocketHandle via, turn::Train) {
        station.send(via, bytes_of("bound..."), false, tls ? net::Transport::tls : net::Transport::tcp);
        station.clients->join(via);
      };
      auto all = binding();
      for (const char c : std::string_view("GET / anything")) all.push_back(static_cast<std::uint8_t>(c));
      client.send(all);
      station.until([&] { return station.joined == "GET / anything"; });
      const std::string big(600'000, 'p');
      bool room = true;
      std::size_t sent = 0;
      for (int i = 0; i < 1000 && room; ++i) {
        room = station.clients->write_joined(station.last, as_bytes(big).subspan(sent, 1000));
        sent += 1000;
      }
      CHECK_FALSE(room);
      station.turn();
      station.until([&] { return client.reads().size() == 8 + sent; });
      station.until([&] { return station.rooms >= 1; });
      CHECK(client.got == "bound..." + big.substr(0, sent));
      station.pass(300s);  // no deadline of a request
      station.turn();
      CHECK(station.clients->size() == 1);
      client.half_closes();
      station.until([&] { return station.clients->size() == 0; });
      CHECK(station.joined_ends == 1);
    }
  });
}

TEST_CASE("streams: two connections cannot be one client, whatever a front end says [T16]") {
  on_both([](bool uring) {
    Station station(uring, false);
    if (!station.loop) return;
    std::string why;
    station.connections.proxy_protocol_from = {*net::AddressRange::parse("127.0.0.0/8", why)};
    station.start();
    const auto header = bytes_of("PROXY TCP4 203.0.113.7 192.0.2.1 40001 443\r\n");
    const auto with_header = [&](Client& client) {
      auto all = header;
      const auto request = binding();
      all.insert(all.end(), request.begin(), request.end());
      client.send(all);
    };
    Client first(station), second(station), without(station);
    with_header(first);
    station.until([&] { return station.messages.size() == 1; });
    CHECK(station.five_tuples[0] == net::FiveTuple{{*net::IpAddress::parse("203.0.113.7"), 40001}, listener, net::Transport::tcp});
    with_header(second);
    without.send(binding());
    station.until([&] { return second.reads(), without.reads(), second.ended && without.ended; });
    CHECK(station.messages.size() == 1);
    CHECK(station.counters().refused_duplicate == 1);
    CHECK(station.counters().closed_bad_proxy_header == 1);
    CHECK(station.clients->size() == 1);
    CHECK(station.gone == 0);
  });
}
