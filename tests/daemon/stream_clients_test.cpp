// Clients over TCP: messages in and out, deadlines, and what waits.
#include <doctest/doctest.h>

#include <map>

#include "stream_station.h"

using namespace radiotower;
using namespace radiotower::daemon;
using namespace radiotower::daemon::streams_test;

TEST_CASE("streams: neighbouring ChannelData of one channel and length is one train, everything else alone") {
  on_both([](bool uring) {
    Station station(uring, false);
    if (!station.loop) return;
    Client client(station);
    client.send(binding());
    station.until([&] { return station.messages.size() == 1; });
    CHECK(station.five_tuples[0] == net::FiveTuple{client.address, listener, net::Transport::tcp});
    station.prove(station.last);
    std::vector<std::uint8_t> all;
    const auto add = [&](const std::vector<std::uint8_t>& more) { all.insert(all.end(), more.begin(), more.end()); };
    for (int i = 0; i < 5; ++i) add(channel_data("12345"));
    add(channel_data("12345", 0x4001));
    add(binding());
    add(channel_data(""));
    client.send(all);
    station.until([&] { return station.messages.size() == 5; });
    CHECK(station.segments[1] == 12);
    CHECK(station.messages[1].size() == 60);
    CHECK(station.segments[2] == 0);
    CHECK(station.messages[2] == as_text(channel_data("12345", 0x4001)));
    CHECK(station.messages[3] == as_text(binding()));
    CHECK(station.messages[4] == as_text(channel_data("")));
    CHECK(station.counters().trains == 1);
  });
}

TEST_CASE("streams: the core gets the same however a session is cut (RFC 8489, 6.2.2) [T01, T03]") {
  on_both([](bool uring) {
    Station station(uring, false);
    if (!station.loop) return;
    Client client(station);
    client.send(binding());
    station.until([&] { return station.messages.size() == 1; });
    station.prove(station.last);
    const auto data = channel_data("seven..");
    auto all = binding(9);
    all.insert(all.end(), data.begin(), data.end());
    std::size_t expected = 1;
    for (std::size_t offset = 1; offset < all.size(); ++offset) {
      client.send(Bytes(all).first(offset));
      const auto chunks = station.loop->counters().chunks_received;
      station.until([&] { return station.loop->counters().chunks_received != chunks; });
      client.send(Bytes(all).subspan(offset));
      expected += 2;
      station.until([&] { return station.messages.size() == expected; });
      REQUIRE(station.messages[expected - 2] == as_text(binding(9)));
      REQUIRE(station.messages[expected - 1] == as_text(data));
    }
    CHECK(station.counters().connections == 1);
  });
}

TEST_CASE("streams: ChannelData leaves with its padding, in one write a turn (RFC 8656, 12.5)") {
  on_both([](bool uring) {
    Station station(uring, false);
    if (!station.loop) return;
    Client client(station);
    client.send(binding());
    station.until([&] { return station.messages.size() == 1; });
    const auto writes = station.counters().writes;
    std::string expected;
    for (const char* payload : {"1", "12", "123", "1234", "12345", ""}) {
      station.send(station.last, bytes_of(payload), true);
      expected += as_text(channel_data(payload));
    }
    // A train: two datagrams in one action.
    std::vector<std::uint8_t> train = bytes_of("abcdeABCDE");
    turn::Send send;
    send.socket = station.last;
    send.transport = net::Transport::tcp;
    send.bytes = train;
    send.stride = 5;
    send.prefix_size = 4;
    send.prefix = {0x40, 0, 0, 5};
    station.clients->send(send);
    expected.append(as_text(channel_data("abcde"))).append(as_text(channel_data("ABCDE")));
    station.until([&] { return client.reads().size() >= expected.size(); });
    CHECK(client.got == expected);
    CHECK(station.counters().writes == writes + 1);
  });
}

TEST_CASE("streams: what is no message closes the connection without a reply [T04, T05, T06, T09]") {
  on_both([](bool uring) {
    Station station(uring, false);
    if (!station.loop) return;
    auto bad_cookie = binding();
    bad_cookie[5] ^= 1;
    auto odd_length = binding();
    odd_length[3] = 2;
    for (const auto& wrong : {bytes_of("GET / HTTP/1.1\r\n"), bytes_of("SSH-2.0-x"), bytes_of("PROXY TCP4 "), bytes_of("PRI * HTTP/2.0"),
                              bytes_of("\x16\x03\x01"), bad_cookie, odd_length}) {
      Client client(station);
      client.send(wrong);
      station.until([&] { return client.reads(), client.ended; });
      CHECK(client.got.empty());
    }
    CHECK(station.messages.empty());
    CHECK(station.counters().closed_bad_message == 7);
    CHECK(station.counters().connections == 0);
    CHECK(station.counts->total() == 0);
  });
}

TEST_CASE("streams: deadlines: silence, a message that is not whole, no allocation [T07, T08, T10, T11]") {
  on_both([](bool uring) {
    Station station(uring, false);
    if (!station.loop) return;
    const auto lives = [&](Client& client, nanoseconds time) {  // `time` passes in steps of a second
      for (; time > 0s; time -= 1s) {
        station.pass(1s);
        station.turn();
      }
      for (int i = 0; i < 5; ++i) station.turn();
      client.reads();
      return !client.ended;
    };
    const auto dies = [&](Client& client, nanoseconds time) {  // no later, and the client hears of it
      for (; time > 0s; time -= 1s) {
        station.pass(1s);
        station.turn();
      }
      station.until([&] { return client.reads(), client.ended; });
    };
    {
      Client silent(station);
      station.until([&] { return station.clients->size() == 1; });
      CHECK(lives(silent, 14s));
      dies(silent, 2s);
      CHECK(station.counters().closed_silent == 1);
    }
    {
      Client slow(station);
      const auto whole = binding();
      for (std::size_t i = 0; i < 9; ++i) {
        slow.send(Bytes(whole).subspan(i, 1));
        REQUIRE(lives(slow, 1s));
      }
      dies(slow, 3s);
      CHECK(station.counters().closed_slow_message == 1);
    }
    {
      Client idle(station);
      idle.send(binding());
      station.until([&] { return station.messages.size() == 1; });
      station.prove(station.last);
      CHECK(lives(idle, 59s));
      station.allocated = true;  // it may be silent for as long as that lives
      CHECK(lives(idle, 200s));
      station.allocated = false;
      dies(idle, 62s);
      CHECK(station.counters().closed_idle == 1);
    }
    CHECK(station.counts->total() == 0);
  });
}

TEST_CASE("streams: a client that takes nothing loses the oldest media, no answer, and after thirty seconds its connection [T13]") {
  on_both([](bool uring) {
    Station station(uring, false);
    if (!station.loop) return;
    Client client(station);
    client.send(binding());
    station.until([&] { return station.messages.size() == 1; });
    station.allocated = true;
    const std::string payload(1196, 'x');
    for (int i = 0; i < 40; ++i) {
      for (int k = 0; k < 100; ++k) station.send(station.last, bytes_of(payload), true);
      station.turn();
      station.space.clear();
    }
    CHECK(station.counters().media_dropped > 1000);
    CHECK(station.counters().bytes_queued <= 512 << 10);
    CHECK(station.counters().bytes_queued_at_most <= (512 << 10) + 120'000);
    for (int i = 0; i < 28; ++i) {
      station.pass(1s);
      station.turn();
    }
    station.send(station.last, bytes_of(payload), true);
    station.turn();
    CHECK(station.counters().bytes_queued <= 2 * 1200);  // the rest is too old, but for what has begun to leave
    CHECK(station.clients->size() == 1);
    station.pass(3s);
    station.until([&] { return station.clients->size() == 0; });
    CHECK(station.counters().closed_stalled == 1);
    CHECK(station.gone == 1);
    CHECK(station.counters().bytes_queued == 0);
  });
}

TEST_CASE("streams: who asks without end and takes no answer is closed") {
  Station station(false, false);
  Client client(station);
  client.send(binding());
  station.until([&] { return station.messages.size() == 1; });
  const std::vector<std::uint8_t> answer(1000, 1);
  for (int i = 0; i < 100 && station.clients->size() == 1; ++i) {
    for (int k = 0; k < 100; ++k) station.send(station.last, answer);
    station.turn();
    station.space.clear();
  }
  CHECK(station.counters().closed_overflow == 1);
  CHECK(station.gone == 1);
}

TEST_CASE("streams: FIN and RST end what the client had at once; what was asked before a FIN is answered [T12, L32]") {
  on_both([](bool uring) {
    Station station(uring, false);
    if (!station.loop) return;
    station.on_message = [&](turn::SocketHandle via, turn::Train) { station.send(via, bytes_of("answer..")); };
    Client client(station);
    client.send(binding());
    client.half_closes();
    station.until([&] { return client.reads(), client.ended; });
    CHECK(client.got == "answer..");
    CHECK(station.gone == 1);
    Client other(station);
    other.send(Bytes(binding()).first(7));
    station.until([&] { return station.clients->size() == 1; });
    other.resets();
    station.until([&] { return station.clients->size() == 0; });
    CHECK(station.counts->total() == 0);
    CHECK(station.counts->sources() == 0);
  });
}

namespace {

/// Binding requests that count, 20 bytes each.
std::vector<std::uint8_t> many(std::size_t count) {
  std::vector<std::uint8_t> all;
  for (std::size_t i = 0; i < count; ++i) {
    auto one = binding(static_cast<std::uint8_t>(i));
    one[9] = static_cast<std::uint8_t>(i >> 8);
    all.insert(all.end(), one.begin(), one.end());
  }
  return all;
}

}  // namespace

TEST_CASE("streams: clients that send all they can do not make a turn long, and nothing of it is lost or out of order [X09]") {
  on_both([](bool uring) {
    Station station(uring, false);
    if (!station.loop) return;
    StreamClients::Limits limits;
    limits.at_once = 32 << 10;
    limits.of_later = 16 << 10;
    station.clients->set_limits(limits);
    constexpr std::size_t each = 3000;
    const auto requests = many(each);
    std::vector<std::unique_ptr<Client>> clients;
    for (int i = 0; i < 30; ++i) {
      clients.push_back(std::make_unique<Client>(station));
      clients.back()->send(requests);
      clients.back()->half_closes();
    }
    std::map<turn::SocketHandle, std::string> got;
    station.on_message = [&](turn::SocketHandle via, turn::Train train) {
      got[via] += as_text(train.bytes);
      station.messages.clear();
    };
    std::size_t taken = 0, most = 0;
    for (const auto end = std::chrono::steady_clock::now() + 30s; station.gone < 30 && std::chrono::steady_clock::now() < end;) {
      station.turn();
      const std::size_t now = station.counters().messages;
      most = std::max(most, now - taken);
      taken = now;
    }
    CHECK(station.gone == 30);  // and the FIN behind all of it
    REQUIRE(got.size() == 30);
    for (const auto& [via, text] : got) CHECK(text == as_text(requests));
    CHECK(most <= (limits.at_once + limits.of_later + 2 * 66000) / 20);
    CHECK(station.counters().chunks_put_off > 0);
    CHECK(station.clients->next_deadline() == never);
    CHECK(station.counters().closed_by_client == 30);
  });
}

TEST_CASE("streams: what was put off goes on in TLS, and along to another worker") {
  on_both([](bool uring) {
    Station station(uring, true);
    if (!station.loop) return;
    StreamClients::Limits limits;
    limits.at_once = 0;
    limits.of_later = limits.small = 1;
    station.clients->set_limits(limits);
    Client client(station);
    shake_hands(station, client);
    const auto requests = many(2000);
    client.send(requests);
    std::string got;
    station.on_message = [&](turn::SocketHandle, turn::Train train) { got += as_text(train.bytes); };
    station.until([&] { return got.size() == requests.size(); });
    CHECK(got == as_text(requests));

    Client other(station);
    other.send(requests);
    station.on_message = [&](turn::SocketHandle via, turn::Train train) { station.clients->hand_over(via, 1, train.bytes); };
    station.until([&] { return !station.parcels.empty(); });
    Parcel& parcel = station.parcels.front();
    std::vector<std::uint8_t> all = parcel.message;
    all.insert(all.end(), parcel.connection->behind.begin(), parcel.connection->behind.end());
    CHECK(all.size() > 16 << 10);
    CHECK(as_text(requests).starts_with(as_text(all)));
    station.counts->leave(parcel.connection->source);
    station.counts->leave();
  });
}

TEST_CASE("streams: who is to go to another worker and has filled its queue ends where it is") {
  on_both([](bool uring) {
    Station station(uring, false);
    if (!station.loop) return;
    Client client(station);
    client.send(binding());
    station.on_message = [&](turn::SocketHandle via, turn::Train train) {
      station.clients->hand_over(via, 1, train.bytes);
      for (int i = 0; i < 600; ++i) station.send(via, std::vector<std::uint8_t>(1000, 1));
    };
    station.until([&] { return client.reads(), client.ended; });
    CHECK(station.parcels.empty());
    CHECK(station.counters().closed_overflow == 1);
    CHECK(station.clients->size() == 0);
    CHECK(station.counts->total() == 0);
    CHECK(station.counts->sources() == 0);
    CHECK(station.counters().bytes_queued == 0);
  });
}
