// DTLS: those who have proved nothing. Rows in brackets are of tests/data/hostile-inputs.tsv.
#include <malloc.h>

#include <algorithm>

#include "dtls_station.h"

namespace radiotower::tls::test {

TEST_CASE("[K01] [K07] a ClientHello from 100,000 sources is answered with less than it brought, and leaves nothing") {
  Station station;
  Client client(path());
  const Packet hello = first_hello(client);
  const std::size_t kept = station.endpoint.bytes_kept();
  DtlsOutput out;
  std::size_t answers = 0, bytes = 0;
  const struct mallinfo2 before = mallinfo2();
  for (std::uint32_t i = 0; i < 100'000; ++i) {
    const DtlsPath from{{net::IpAddress::v4(0x0A000000 + i), static_cast<std::uint16_t>(1024 + i % 60000), 0}, 7};
    station.endpoint.from_client(from, hello, 0, clock_now, out);
    if (i % 100 == 0) clock_now += 1ms;
    for (const auto& d : out.datagrams) {
      ++answers;
      bytes = std::max(bytes, d.bytes.size());
      CHECK(d.path == from);
    }
    out.clear();
  }
  const struct mallinfo2 after = mallinfo2();
  CHECK(answers == 100'000);
  CHECK(bytes < hello.size());
  CHECK(station.endpoint.bytes_kept() == kept);
  CHECK(station.endpoint.bytes_kept() == 0);
  CHECK(after.uordblks <= before.uordblks + DtlsOutput().bytes_kept() + (512 << 10));  // `out`'s own chunk
  CHECK(station.endpoint.next_expiry() == never);
  CHECK(station.endpoint.counters().dtls_sessions == 0);
}

TEST_CASE("[K07] one address gets a bounded number of answers a second, others do not suffer") {
  Station station;
  Client client(path());
  const Packet hello = first_hello(client);
  std::size_t answers = 0;
  for (unsigned i = 0; i < 20'000; ++i) answers += station.gets(path(static_cast<std::uint16_t>(i % 50000 + 1)), Bytes(hello)).size();
  CHECK(answers >= 500);
  CHECK(answers <= 1002);  // two slots
  CHECK(station.endpoint.counters().dtls_dropped_limit == 20'000 - answers);
  CHECK(station.gets(path(5000, "192.0.2.2"), Bytes(hello)).size() == 1);
  clock_now += 1s;
  CHECK(station.gets(path(), Bytes(hello)).size() == 1);
}

TEST_CASE("[K02] a 35-byte fragment that announces a huge ClientHello is dropped, and nothing kept") {
  Station station;
  Packet fragment(35, 0);
  fragment[0] = 22;
  fragment[1] = 0xFE;
  fragment[2] = 0xFD;
  store_be16(fragment.data() + 11, 22);
  fragment[13] = 1;
  fragment[14] = 9;  // 650,000 bytes
  store_be16(fragment.data() + 15, 60176);
  fragment[24] = 10;  // ten of them here
  for (std::uint16_t port = 1; port < 2000; ++port) CHECK(station.gets(path(port), Bytes(fragment)).empty());
  CHECK(station.endpoint.bytes_kept() == 0);
  CHECK(station.endpoint.counters().dtls_dropped_stranger == 1999);

  // Nor does it disturb a session of that address.
  Client client(path());
  REQUIRE(station.opens(client));
  CHECK(station.gets(client.path, Bytes(fragment)).empty());
  station.gets(client.path, client.says("still here"));
  CHECK(station.messages.size() == 1);
}

TEST_CASE("[K03] ApplicationData, Alert, ChangeCipherSpec and other handshake messages of unknown sources are dropped") {
  Station station;
  Client client(path());
  REQUIRE(station.opens(client));
  const Packet data = client.says("hello")[0];
  const Packet notice = client.closes()[0];
  const DtlsPath other = path(6000);
  CHECK(station.gets(other, Bytes(data)).empty());
  CHECK(station.gets(other, Bytes(notice)).empty());
  for (const int type : {20, 21, 22, 23, 24, 25, 63}) {
    for (const std::size_t size : {1u, 2u, 13u, 14u, 15u, 40u, 1200u}) {
      Packet packet(size, 1);
      packet[0] = static_cast<std::uint8_t>(type);
      if (size >= 13) {
        packet[1] = 0xFE;
        packet[2] = 0xFD;
        store_be16(packet.data() + 3, 0);
        store_be16(packet.data() + 11, static_cast<std::uint16_t>(size - 13));
        if (size > 13) packet[13] = 2;
      }
      CHECK(station.gets(other, Bytes(packet)).empty());
    }
  }
  CHECK(station.endpoint.counters().dtls_sessions == 1);
  CHECK(station.endpoint.half_open() == 0);
  CHECK(station.messages.empty());
}

TEST_CASE("[K04] a cookie of another address, another client or another time gets a new HelloVerifyRequest, never a session") {
  Station station;
  Client client(path());
  const Packet hello = first_hello(client);
  const auto answer = station.gets(client.path, Bytes(hello));
  REQUIRE(answer.size() == 1);
  const Packet good = second_hello(client, answer[0]);

  const auto is_verify_request = [](const std::vector<Packet>& packets) { return packets.size() == 1 && packets[0].size() == hello_verify_request_size && packets[0][13] == 3; };
  CHECK(is_verify_request(station.gets(path(5001), Bytes(good))));
  CHECK(is_verify_request(station.gets(path(5000, "192.0.2.2"), Bytes(good))));
  CHECK(is_verify_request(station.gets({client.path.client, 8}, Bytes(good))));
  const auto read = read_client_hello(good);
  REQUIRE(read);
  REQUIRE(read->cookie.size() == cookie_size);
  Packet wrong = good;
  wrong[static_cast<std::size_t>(read->cookie.data() - good.data())] ^= 1;
  CHECK(is_verify_request(station.gets(client.path, Bytes(wrong))));
  Packet other_random = good;
  other_random[static_cast<std::size_t>(read->random.data() - good.data())] ^= 1;
  CHECK(is_verify_request(station.gets(client.path, Bytes(other_random))));
  CHECK(station.endpoint.half_open() == 0);
  CHECK(station.endpoint.bytes_kept() == 0);
  CHECK(station.endpoint.counters().dtls_cookies_wrong == 5);

  SUBCASE("the secret before is good") {
    clock_now += DtlsEndpoint::cookie_period + 1s;
    CHECK_FALSE(station.gets(client.path, Bytes(good)).empty());
    CHECK(station.endpoint.half_open() == 1);
  }
  SUBCASE("and no older one") {
    clock_now += DtlsEndpoint::cookie_period + 1s;
    station.gets(path(9, "192.0.2.9"), Bytes(hello));
    clock_now += DtlsEndpoint::cookie_period + 1s;
    CHECK(is_verify_request(station.gets(client.path, Bytes(good))));
    CHECK(station.endpoint.half_open() == 0);
  }
}

TEST_CASE("[K06] a client that knows DTLS 1.0 alone is told so, and nothing kept") {
  Station station;
  Client client(path(), DTLS1_VERSION);
  const Packet hello = first_hello(client);
  const auto answer = station.gets(client.path, Bytes(hello));
  REQUIRE(answer.size() == 1);
  CHECK(answer[0].size() == 15);
  client.takes(Bytes(answer[0]));
  CHECK(client.failed);
  CHECK(station.endpoint.bytes_kept() == 0);
  CHECK(station.endpoint.counters().dtls_dropped_version == 1);
}

TEST_CASE("whatever bytes come, of strangers, in handshakes and in sessions, nothing breaks and no stranger leaves anything") {
  std::mt19937 dice(1);
  Station station;
  Client shape(path(1, "198.51.100.1"));
  const Packet hello = first_hello(shape);
  const Packet proved = second_hello(shape, station.gets(shape.path, Bytes(hello))[0]);
  for (int i = 0; i < 30'000; ++i) {
    Packet packet = i % 2 ? hello : proved;
    const unsigned changes = 1 + dice() % 4;
    for (unsigned c = 0; c < changes; ++c) packet[dice() % packet.size()] = static_cast<std::uint8_t>(dice());
    if (dice() % 3 == 0) packet.resize(1 + dice() % packet.size());
    const auto answers = station.gets(path(static_cast<std::uint16_t>(1 + dice() % 60000)), Bytes(packet));
    for (const auto& answer : answers) CHECK(answer.size() < 3 * packet.size());
    clock_now += 5ms;
  }
  CHECK(station.endpoint.bytes_kept() == 0);

  for (int i = 0; i < 400; ++i) {  // what a client sends, broken on its way
    Client client(path(static_cast<std::uint16_t>(2000 + i)));
    station.opens(client, [&](std::vector<Packet> packets) {
      for (auto& packet : packets)
        if (dice() % 4 == 0) packet[dice() % packet.size()] ^= static_cast<std::uint8_t>(1 + dice() % 255);
      return packets;
    });
    clock_now += 20ms;
    if (!client.is_open() || client.failed) continue;
    for (int k = 0; k < 10; ++k) {
      Packet packet = client.says("a message of no importance")[0];
      packet[dice() % packet.size()] = static_cast<std::uint8_t>(dice());
      station.gets(client.path, Bytes(packet));
    }
  }
  for (int i = 0; i < 70; ++i) station.passes(1s);
  CHECK(station.endpoint.bytes_kept() == 0);
  CHECK(station.endpoint.next_expiry() == never);
}

}  // namespace radiotower::tls::test
