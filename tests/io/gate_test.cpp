// The gate: run by the kernel on real sockets, since the program's meaning is the kernel's to say.
#include "../../relay/io/gate.h"

#include <random>

#include "harness.h"

using namespace radiotower;
using namespace radiotower::io;
using namespace radiotower::io::testing;

namespace {

/// A socket behind the gate.
struct Door {
  explicit Door(const char* address) : loop(make("epoll")), ear(std::make_unique<Ear>(*loop)) {
    Socket mine = udp(address);
    at = local_address(mine);
    id = loop->add(std::move(mine), 1);
  }
  /// How many of `count` datagrams of a source reach it. `least` of them are waited for.
  int passed(const Socket& source, int count = 1, int least = 0) {
    ear->heard.clear();
    for (int i = 0; i < count; ++i) {
      say(source, at, "knock");
      if (i % 200 == 199) (void)loop->turn(nanoseconds(0), *ear);
    }
    (void)turns(*loop, *ear, [&] { return static_cast<int>(ear->heard.size()) >= least; });
    for (int i = 0; i < 20; ++i) (void)loop->turn(nanoseconds(0), *ear);
    return static_cast<int>(ear->heard.size());
  }
  std::unique_ptr<Loop> loop;
  std::unique_ptr<Ear> ear;
  net::TransportAddress at;
  SocketId id = no_socket;
};

}  // namespace

TEST_CASE("the gate lets the known in, keeps suspects out, and everybody else passes by his share") {
  for (const char* address : {"127.0.0.1", "::1"}) {
    for (const unsigned bits : {Gate::most_bits, 11u, Gate::fewest_bits}) {
      CAPTURE(address);
      CAPTURE(bits);
      Door door(address);
      std::vector<Socket> known;
      for (int i = 0; i < 20; ++i) known.push_back(udp(address));
      Gate gate(local_address(known[0]).family(), 0x1234567890abcdef, bits);
      for (const auto& socket : known) gate.know(local_address(socket));
      const Socket stranger = [&] {  // one that shares no hash with a known one
        for (;;) {
          Socket s = udp(address);
          if (door.loop->set_filter(door.id, gate.program(0)) == 0 && door.passed(s) == 0) return s;
        }
      }();
      for (const auto& socket : known) CHECK(door.passed(socket, 1, 1) == 1);
      CHECK(door.passed(stranger, 5) == 0);

      REQUIRE(door.loop->set_filter(door.id, gate.program(1)) == 0);
      CHECK(door.passed(stranger, 5, 5) == 5);

      REQUIRE(door.loop->set_filter(door.id, gate.program(0.25)) == 0);
      const int some = door.passed(stranger, 2000, 351);
      CHECK(some > 350);
      CHECK(some < 650);

      CHECK(gate.suspect(local_address(stranger).ip));
      REQUIRE(door.loop->set_filter(door.id, gate.program(1)) == 0);
      CHECK(door.passed(stranger, 5) == 0);
      for (const auto& socket : known) CHECK(door.passed(socket, 1, 1) == 1);  // known ones of a suspected address still pass

      gate.forget();
      REQUIRE(door.loop->set_filter(door.id, gate.program(0)) == 0);
      CHECK(door.passed(known[0], 5) == 0);

      REQUIRE(door.loop->set_filter(door.id, {}) == 0);
      CHECK(door.passed(stranger, 5, 5) == 5);
      CHECK(door.loop->set_filter(door.id, {}) == 0);  // twice does no harm
      CHECK(door.loop->set_filter(no_socket, {}) == EBADF);
    }
  }
}

TEST_CASE("the gate's hash is the kernel's: of thousands of known sources none is kept out") {
  Door door("127.0.0.1");
  std::vector<Socket> known;
  for (int i = 0; i < 300; ++i) known.push_back(udp(("127.0.3." + std::to_string(1 + i % 250)).c_str()));
  // Kernels before 6.7 allow a socket's options 20 KiB, which is too little for all bits with so many known: fewer then do.
  int error = ENOMEM;
  for (unsigned bits = Gate::most_bits; error == ENOMEM && bits >= Gate::fewest_bits; --bits) {
    Gate gate(net::Family::ipv4, 0xfedcba9876543211, bits);
    std::mt19937 random(7);
    for (int i = 0; i < 16000; ++i)
      gate.know({net::IpAddress::v4(static_cast<std::uint32_t>(random())), static_cast<std::uint16_t>(random()), 0});
    for (const auto& socket : known) gate.know(local_address(socket));
    for (int i = 0; i < static_cast<int>(Gate::most_suspects); ++i) CHECK(gate.suspect(net::IpAddress::v4(0x0A000001u + static_cast<std::uint32_t>(i))));
    CHECK(gate.suspect(net::IpAddress::v4(0x0A000001u)));  // known already
    CHECK_FALSE(gate.suspect(net::IpAddress::v4(0x0B000001u)));
    const auto program = gate.program(0);
    CHECK(program.size() <= 4096);
    error = door.loop->set_filter(door.id, program);
  }
  REQUIRE(error == 0);
  for (const auto& socket : known) CHECK(door.passed(socket, 1, 1) == 1);
}

TEST_CASE("an IPv6 suspect is its /64, and no address of the other family is anybody here") {
  Gate gate(net::Family::ipv6, 99);
  CHECK(gate.suspect(*net::IpAddress::parse("2001:db8:1:2:3::4")));
  CHECK(gate.is_suspect(*net::IpAddress::parse("2001:db8:1:2:ffff::1")));
  CHECK_FALSE(gate.is_suspect(*net::IpAddress::parse("2001:db8:1:3:3::4")));
  CHECK(gate.suspect(*net::IpAddress::parse("192.0.2.1")));
  CHECK(gate.suspects() == 1);
}
