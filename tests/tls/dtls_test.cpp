// DTLS of clients over memory: RFC 6347, RFC 7350. Rows in brackets are of tests/data/hostile-inputs.tsv.
#include <malloc.h>

#include <algorithm>

#include "dtls_station.h"

namespace radiotower::tls::test {
Time clock_now{std::chrono::hours(24 * 365 * 50)};
}  // namespace radiotower::tls::test

/// OpenSSL's retransmission timers ask this one instead of the C library's, so that a test may say how late it is.
extern "C" int gettimeofday(timeval* tv, void*) noexcept {
  const auto t = radiotower::tls::test::clock_now.time_since_epoch().count();
  tv->tv_sec = static_cast<time_t>(t / 1'000'000'000);
  tv->tv_usec = static_cast<suseconds_t>(t / 1000 % 1'000'000);
  return 0;
}

namespace radiotower::tls::test {

TEST_CASE("RFC 6347, 4.2: a client gets its cookie, then a session, and both sides understand each other") {
  Station station;
  Client client(path());
  REQUIRE(station.opens(client));
  CHECK(station.endpoint.counters().dtls_handshakes == 1);
  CHECK(station.endpoint.counters().dtls_cookies_sent == 1);
  CHECK(station.endpoint.half_open() == 0);
  CHECK(std::string_view(SSL_get_version(client.ssl())) == "DTLSv1.2");

  CHECK(station.gets(client.path, client.says("to the relay")).empty());
  REQUIRE(station.messages.size() == 1);
  CHECK(as_text(station.messages[0].second) == "to the relay");
  CHECK(station.messages[0].first == client.path);

  std::vector<Packet> datagrams;
  REQUIRE(station.says(client.path, as_bytes("to the client"), datagrams));
  REQUIRE(datagrams.size() == 1);
  client.takes(Bytes(datagrams[0]));
  REQUIRE(client.messages.size() == 1);
  CHECK(as_text(client.messages[0]) == "to the client");
}

TEST_CASE("one message is one record in one datagram, up to 16 KiB; a longer one is counted and dropped") {
  Station station;
  Client client(path());
  REQUIRE(station.opens(client));
  for (const std::size_t size : {1u, 2u, 100u, 1200u, 1400u, 9000u, 16384u}) {
    const Packet message(size, 0x5A);
    const auto up = client.says(Bytes(message));
    CHECK(up.size() == 1);
    station.messages.clear();
    station.gets(client.path, up);
    REQUIRE(station.messages.size() == 1);
    CHECK(station.messages[0].second == message);
    std::vector<Packet> down;
    CHECK(station.says(client.path, message, down));
    REQUIRE(down.size() == 1);
    client.messages.clear();
    client.takes(Bytes(down[0]));
    REQUIRE(client.messages.size() == 1);
    CHECK(client.messages[0] == message);
  }
  std::vector<Packet> down;
  CHECK_FALSE(station.says(client.path, Packet(16385), down));
  CHECK(down.empty());
  CHECK(station.endpoint.counters().dtls_dropped_too_large == 1);
}

TEST_CASE("a train of records becomes a train of messages, with room in front and behind") {
  Station station;
  Client client(path());
  REQUIRE(station.opens(client));
  for (const std::vector<std::size_t>& sizes : {std::vector<std::size_t>{160, 160, 160, 160}, {160, 160, 40}, {160}, {1000, 1000, 1000, 7}}) {
    Packet train;
    std::vector<Packet> sent;
    std::uint16_t segment = 0;
    for (const std::size_t size : sizes) {
      sent.emplace_back(size, static_cast<std::uint8_t>(sent.size()));
      const auto datagram = client.says(Bytes(sent.back()))[0];
      if (segment == 0) segment = static_cast<std::uint16_t>(datagram.size());
      train.insert(train.end(), datagram.begin(), datagram.end());
    }
    station.messages.clear();
    station.trains = 0;
    station.gets(client.path, Bytes(train), sizes.size() > 1 ? segment : 0);
    REQUIRE(station.messages.size() == sent.size());
    for (std::size_t i = 0; i < sent.size(); ++i) CHECK(station.messages[i].second == sent[i]);
    CHECK(station.trains == (sizes.size() > 1 ? 1 : 0));
  }
  // Records of different lengths in one datagram: a client may do that.
  Packet both;
  for (const char* text : {"short", "and a longer one", "x"}) {
    const auto one = client.says(text)[0];
    both.insert(both.end(), one.begin(), one.end());
  }
  station.messages.clear();
  station.gets(client.path, Bytes(both));
  REQUIRE(station.messages.size() == 3);
  CHECK(as_text(station.messages[0].second) == "short");
  CHECK(as_text(station.messages[1].second) == "and a longer one");
  CHECK(as_text(station.messages[2].second) == "x");
}

TEST_CASE("a train of datagrams with a thousand messages becomes trains that there is room to answer") {
  Station station;
  Client client(path());
  REQUIRE(station.opens(client));
  Packet train;
  std::size_t record_size = 0;
  for (int i = 0; i < 1000; ++i) {
    const auto record = client.says(std::string(20, 'x'))[0];
    record_size = record.size();
    train.insert(train.end(), record.begin(), record.end());
  }
  REQUIRE(train.size() < 65'507);
  station.endpoint.from_client(client.path, Bytes(train), static_cast<std::uint16_t>(20 * record_size), clock_now, station.out);
  std::size_t messages = 0, most = 0;
  for (const auto& m : station.out.messages) {
    const std::size_t count = m.segment == 0 ? 1 : (m.bytes.size() + m.segment - 1) / m.segment;
    messages += count;
    most = std::max(most, count);
  }
  CHECK(most == 64);  // as many datagrams as the kernel makes a train of
  CHECK(messages == 1000);
  station.taken();
}

TEST_CASE("[K05] what a client sends too early in its handshake is kept in small number") {
  const auto in_use = [] {
    const struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
  };
  Station station;
  Client client(path());
  station.gets(client.path, Bytes(second_hello(client, station.gets(client.path, Bytes(first_hello(client)))[0])));
  REQUIRE(station.endpoint.half_open() == 1);
  const std::size_t before = in_use();
  for (std::uint8_t i = 0; i < 100; ++i)  // records of the next epoch
    station.gets(client.path, Bytes(Packet{22, 0xFE, 0xFD, 0, 1, 0, 0, 0, 0, 0, i, 0, 1, 0}));
  const std::size_t records = in_use() - before;
  for (std::uint8_t message = 3; message < 13; ++message) {  // fronts of messages that are far ahead
    const Packet front{22, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 0, static_cast<std::uint8_t>(message + 100), 0, 13, 11, 1, 0x80, 0, 0, message, 0, 0, 0, 0, 0, 1, 0};
    station.gets(client.path, Bytes(front));
  }
  const std::size_t messages = in_use() - before - records;
  MESSAGE("bytes of early records: ", records, ", of early messages: ", messages);
  CHECK(records < 100'000);
  CHECK(messages < 100'000);
}

TEST_CASE("[K05] a handshake that stalls after a good cookie ends at the deadline") {
  Station station;
  Client client(path());
  station.gets(client.path, Bytes(second_hello(client, station.gets(client.path, Bytes(first_hello(client)))[0])));
  REQUIRE(station.endpoint.half_open() == 1);
  CHECK(station.endpoint.bytes_kept() > 0);
  const Time began = clock_now;
  std::size_t flights = 0;
  while (station.endpoint.half_open() == 1 && clock_now < began + 20s) {
    clock_now = std::max(clock_now, station.endpoint.next_expiry());
    flights += !station.expires().empty();
  }
  CHECK(clock_now - began == DtlsEndpoint::handshake_deadline);
  CHECK(flights == 2);  // after one second, and two more
  CHECK(station.endpoint.counters().dtls_timed_out == 1);
  CHECK(station.endpoint.bytes_kept() == 0);
  CHECK(station.endpoint.next_expiry() == never);
  CHECK(station.ended.empty());  // it had never been open
}

TEST_CASE("[K05] half-open handshakes are capped for an address and for the worker, and calls that are up stay") {
  Station station;
  Client live(path(1, "203.0.113.1"));
  REQUIRE(station.opens(live));
  Client client(path());
  const auto begins = [&](const DtlsPath& from) {
    client.path = from;
    client.starts();
    const auto answer = station.gets(from, Bytes(first_hello(client)));
    REQUIRE(answer.size() == 1);
    station.gets(from, Bytes(second_hello(client, answer[0])));
  };
  for (std::uint16_t port = 1; port <= 20; ++port) begins(path(port));
  CHECK(station.endpoint.half_open() == DtlsEndpoint::most_half_open_of_a_source);
  CHECK(station.endpoint.counters().dtls_refused == 4);
  for (std::uint32_t i = 0; i < DtlsEndpoint::most_half_open + 20; ++i) begins({{net::IpAddress::v4(0x0A000000 + i), 99, 0}, 7});
  CHECK(station.endpoint.half_open() == DtlsEndpoint::most_half_open);
  CHECK(station.endpoint.counters().dtls_refused == 4 + 36);
  Client late(path(7, "203.0.113.7"));
  CHECK(station.opens(late));  // the oldest has made room
  station.gets(live.path, live.says("still here"));
  CHECK(station.messages.size() == 1);
}

TEST_CASE("[K06] a replayed record, a wrong epoch, a wrong length and a broken record are dropped, and the session stays") {
  Station station;
  Client client(path());
  REQUIRE(station.opens(client));
  const Packet good = client.says("once")[0];
  CHECK(station.gets(client.path, Bytes(good)).empty());
  CHECK(station.messages.size() == 1);
  CHECK(station.gets(client.path, Bytes(good)).empty());  // replayed
  const Packet next = client.says("twice")[0];
  for (const std::size_t where : {1u, 3u, 4u, 10u, 11u, 12u, 20u, 40u}) {
    Packet broken = next;
    broken[std::min(where, broken.size() - 1)] ^= 0x55;
    CHECK(station.gets(client.path, Bytes(broken)).empty());
  }
  for (std::size_t size = 1; size < next.size(); ++size) CHECK(station.gets(client.path, Bytes(next).first(size)).empty());
  CHECK(station.messages.size() == 1);
  CHECK(station.ended.empty());
  station.gets(client.path, Bytes(next));
  REQUIRE(station.messages.size() == 2);
  CHECK(as_text(station.messages[1].second) == "twice");
}

TEST_CASE("RFC 6347, 4.2.4: handshakes survive loss, doubling and reordering") {
  for (unsigned seed = 0; seed < 60; ++seed) {
    CAPTURE(seed);
    std::mt19937 dice(seed);
    Station station;
    Client client(path(static_cast<std::uint16_t>(5000 + seed)));
    const unsigned lost = seed % 3 * 15;  // per cent
    unsigned handshakes = 0;
    const auto network = [&](std::vector<Packet> packets) {
      std::vector<Packet> through;
      for (auto& packet : packets) {
        if (dice() % 100 < lost) continue;
        if (dice() % 4 == 0) through.push_back(packet);
        through.push_back(std::move(packet));
      }
      if (dice() % 2) std::shuffle(through.begin(), through.end(), dice);
      return through;
    };
    // One that meets our deadline begins anew, as a client does.
    while (++handshakes < 20 && !station.opens(client, network)) client.starts();
    REQUIRE(client.is_open());
    // Ours may still wait for the client's last flight.
    for (int i = 0; i < 10 && station.endpoint.counters().dtls_sessions == 0; ++i) {
      clock_now += 1s;
      for (const auto& packet : station.expires()) station.gets(client.path, client.takes(Bytes(packet)));
    }
    if (station.endpoint.counters().dtls_sessions == 0) {
      CHECK(lost > 0);
      continue;
    }
    station.messages.clear();
    station.gets(client.path, client.says("through"));
    CHECK(station.messages.size() == 1);
  }
}

TEST_CASE("RFC 6347, 4.2.4: our last flight is sent again when the client repeats its own") {
  Station station;
  Client client(path());
  bool lost = false;
  REQUIRE(station.opens(client, [&](std::vector<Packet> packets) {
    if (lost || packets.empty() || station.endpoint.counters().dtls_handshakes == 0) return packets;
    lost = true;
    return std::vector<Packet>();
  }));
  CHECK(lost);
  CHECK(station.endpoint.counters().dtls_cookies_sent == 1);
  station.gets(client.path, client.says("through"));
  CHECK(station.messages.size() == 1);
}

TEST_CASE("what a handshake answers and what a message brings do not meet in memory, though one datagram makes both") {
  Station station;
  // The client's Finished once more, as it would come from a timer, and a message behind it.
  Client again(path());
  Packet finished;
  auto up = again.takes();
  for (int i = 0; i < 10 && !again.is_open(); ++i) {
    const bool done = station.endpoint.counters().dtls_handshakes == 1;
    auto down = station.gets(again.path, up);
    if (!done && station.endpoint.counters().dtls_handshakes == 1) {
      clock_now += 2s;
      for (auto& packet : again.times_out()) finished = packet;  // the last of its flight
    }
    up.clear();
    for (const auto& packet : down)
      for (auto& next : again.takes(Bytes(packet))) up.push_back(std::move(next));
  }
  REQUIRE(again.is_open());
  REQUIRE_FALSE(finished.empty());
  const Packet message = again.says(std::string(300, 'x'))[0];
  finished.insert(finished.end(), message.begin(), message.end());
  station.messages.clear();
  const auto answers = station.gets(again.path, Bytes(finished));
  REQUIRE(station.messages.size() == 1);
  CHECK(as_text(station.messages[0].second) == std::string(300, 'x'));
  CHECK_FALSE(answers.empty());
  for (const auto& answer : answers) {  // whole records
    std::size_t at = 0;
    while (at + 13 <= answer.size()) {
      CHECK((answer[at] == 20 || answer[at] == 22));
      at += 13u + load_be16(answer.data() + at + 11);
    }
    CHECK(at == answer.size());
    CHECK(as_text(Bytes(answer)).find("xxxxxxxx") == std::string_view::npos);
  }
}

TEST_CASE("RFC 9325, 3.5: a second handshake in a session is refused, and the session goes on") {
  Station station;
  Client client(path());
  REQUIRE(station.opens(client));
  SSL_renegotiate(client.ssl());
  SSL_do_handshake(client.ssl());
  for (const auto& packet : client.takes())
    for (const auto& answer : station.gets(client.path, Bytes(packet))) CHECK(answer.size() < 60);  // an alert
  CHECK(station.endpoint.counters().dtls_handshakes == 1);
  CHECK(station.endpoint.half_open() == 0);
  CHECK(station.ended.size() <= 1);
}

TEST_CASE("[K05] handshakes of one address are bounded by time too") {
  Station station;
  for (std::uint16_t port = 1; port <= 200; ++port) {
    Client client(path(port));
    const auto answer = station.gets(client.path, Bytes(first_hello(client)));
    station.gets(client.path, Bytes(second_hello(client, answer.at(0))));
    if (station.endpoint.half_open() == 1)  // ends by an alert, as a client in a hurry would do
      for (const auto& flight : client.closes()) station.gets(client.path, Bytes(flight));
    station.endpoint.close_all(station.out);
    station.taken();
  }
  CHECK(station.endpoint.counters().dtls_refused >= 200 - 2 * (DtlsEndpoint::handshakes_per_second + 1));
  Client other(path(1, "192.0.2.2"));
  CHECK(station.opens(other));
}

TEST_CASE("flights of the handshake leave in datagrams of 1,200 bytes at most") {
  Station station;
  Client client(path());
  std::size_t largest = 0;
  REQUIRE(station.opens(client, [&](std::vector<Packet> packets) {
    for (const auto& packet : packets) largest = std::max(largest, packet.size());
    return packets;
  }));
  CHECK(largest <= 1200);
}

TEST_CASE("RFC 6347, 4.2.8: a client that has started anew replaces its session once its cookie has come back, not before") {
  Station station;
  Client client(path());
  REQUIRE(station.opens(client));
  Client again(path());
  const auto answer = station.gets(again.path, Bytes(first_hello(again)));
  REQUIRE(answer.size() == 1);
  CHECK(station.ended.empty());
  station.gets(client.path, client.says("still here"));
  CHECK(station.messages.size() == 1);

  station.gets(again.path, Bytes(second_hello(again, answer[0])));
  REQUIRE(station.ended.size() == 1);
  CHECK(station.ended[0] == client.path);
  CHECK(station.endpoint.half_open() == 1);
  again.starts();
  REQUIRE(station.opens(again));
  station.gets(again.path, again.says("anew"));
  CHECK(station.messages.size() == 2);
}

TEST_CASE("a ClientHello that comes again late does not disturb the session that it made") {
  Station station;
  Client client(path());
  std::vector<Packet> seen;
  REQUIRE(station.opens(client, [&](std::vector<Packet> packets) {
    for (const auto& packet : packets)
      if (begins_client_hello(packet)) seen.push_back(packet);
    return packets;
  }));
  REQUIRE(seen.size() == 2);
  CHECK(station.gets(client.path, Bytes(seen[1])).empty());
  CHECK(station.ended.empty());
  station.gets(client.path, client.says("still here"));
  CHECK(station.messages.size() == 1);
}

TEST_CASE("a session ends with the client's close_notify, and is answered with ours") {
  Station station;
  Client client(path());
  REQUIRE(station.opens(client));
  const auto answer = station.gets(client.path, client.closes());
  CHECK(answer.size() == 1);
  REQUIRE(station.ended.size() == 1);
  CHECK(station.ended[0] == client.path);
  CHECK(station.endpoint.counters().dtls_sessions == 0);
  CHECK(station.endpoint.bytes_kept() == 0);
}

TEST_CASE("an idle session ends after a minute, one with an allocation does not, and gives its buffers back meanwhile") {
  Station station;
  Client idle(path(1)), kept(path(2));
  REQUIRE(station.opens(idle));
  REQUIRE(station.opens(kept));
  station.endpoint.keep(kept.path, true, clock_now);
  const std::size_t busy = station.endpoint.bytes_kept();
  for (int i = 0; i < 59; ++i) station.passes(1s);
  CHECK(station.ended.empty());
  CHECK(station.endpoint.bytes_kept() < busy * 6 / 10);
  station.passes(2s);
  REQUIRE(station.ended.size() == 1);
  CHECK(station.ended[0] == idle.path);
  for (int i = 0; i < 600; ++i) station.passes(1s);
  // Its buffers come back with the first packet, in either direction.
  std::vector<Packet> down;
  REQUIRE(station.says(kept.path, as_bytes("are you there"), down));
  kept.takes(Bytes(down[0]));
  CHECK(kept.messages.size() == 1);
  for (int i = 0; i < 5; ++i) station.passes(1s);
  station.gets(kept.path, kept.says("yes"));
  CHECK(station.messages.size() == 1);
  station.endpoint.keep(kept.path, false, clock_now);
  for (int i = 0; i < 61; ++i) station.passes(1s);
  CHECK(station.ended.size() == 2);
  CHECK(station.endpoint.bytes_kept() == 0);
  CHECK(station.endpoint.next_expiry() == never);
}

TEST_CASE("a reload's certificate is that of new handshakes, and sessions that are up go on") {
  Station station;
  Client before(path(1)), after(path(2));
  REQUIRE(station.opens(before));
  const auto next = make_identity();
  station.endpoint.set_identity(next);
  REQUIRE(station.opens(after));
  const auto fingerprint = [](Client& client) {
    X509* x = SSL_get1_peer_certificate(client.ssl());
    std::array<std::uint8_t, EVP_MAX_MD_SIZE> digest;
    unsigned size = 0;
    X509_digest(x, EVP_sha256(), digest.data(), &size);
    X509_free(x);
    return std::string(as_text(Bytes(digest).first(size)));
  };
  CHECK(fingerprint(before) != fingerprint(after));
  station.gets(before.path, before.says("still here"));
  CHECK(station.messages.size() == 1);
}

TEST_CASE("at shutdown every client is told") {
  Station station;
  Client client(path());
  REQUIRE(station.opens(client));
  station.endpoint.close_all(station.out);
  const auto notice = station.taken();
  REQUIRE(notice.size() == 1);
  client.takes(Bytes(notice[0]));
  CHECK(client.closed);
  CHECK(station.endpoint.counters().dtls_sessions == 0);
}

TEST_CASE("what a session costs") {
  const auto fmt_address = [](std::size_t n) { return "192.0.2." + std::to_string(1 + n); };
  Station station;
  std::vector<std::unique_ptr<Client>> clients;
  constexpr std::size_t count = 200;
  for (std::size_t i = 0; i < count; ++i) clients.push_back(std::make_unique<Client>(path(static_cast<std::uint16_t>(1000 + i), fmt_address(i / 50).c_str())));
  const auto in_use = [] {
    const struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
  };
  // The clients' own share is what they take when their sessions are there a second time.
  for (auto& client : clients) REQUIRE(station.opens(*client));
  const std::size_t full = in_use();
  for (int i = 0; i < 4; ++i) station.passes(1s);
  const std::size_t idle = in_use();
  for (auto& client : clients) station.gets(client->path, client->closes());
  const std::size_t none = in_use();
  MESSAGE("bytes of a session: ", (full - none) / count, ", idle: ", (idle - none) / count);
  CHECK((idle - none) / count < 45'000);
  CHECK(station.endpoint.bytes_kept() == 0);
}

}  // namespace radiotower::tls::test
