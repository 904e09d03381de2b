// Who has proved nothing: rows H, M, A, X and R of the hostile inputs. Silence, or an answer no larger than three times what came.
#include <doctest/doctest.h>

#include "harness.h"

using namespace radiotower;
using namespace radiotower::test;

namespace {

std::vector<std::uint8_t> message(std::uint16_t type, std::vector<std::uint8_t> body = {}) {
  std::vector<std::uint8_t> bytes(20 + body.size(), 0x11);
  store_be16(bytes.data(), type);
  store_be16(bytes.data() + 2, static_cast<std::uint16_t>(body.size()));
  store_be32(bytes.data() + 4, stun::magic_cookie);
  std::copy(body.begin(), body.end(), bytes.begin() + 20);
  return bytes;
}
std::vector<std::uint8_t> attribute(std::uint16_t type, std::uint16_t length, std::size_t bytes) {
  std::vector<std::uint8_t> a(4 + bytes, 0);
  store_be16(a.data(), type);
  store_be16(a.data() + 2, length);
  return a;
}
constexpr std::uint16_t binding = 0x0001;

}  // namespace

TEST_CASE("a Binding request is answered with the source it came from") {
  Tower tower;
  for (const char* from : {"203.0.113.9:5000", "[2001:db8::9]:5000"}) {
    auto& c = tower.client(from);
    const auto answer = c.exchange(message(binding));
    REQUIRE(answer);
    const auto m = answer->message();
    CHECK(m->is(Class::success, Method::binding));
    CHECK(stun::read_xor_address(*m->find(Attribute::xor_mapped_address), m->transaction_id())->address == at(from));
    CHECK_FALSE(m->has(Attribute::software));
  }
}

TEST_CASE("H01-H16, A01-A04: what is not a well-formed message is dropped") {
  auto with_length = [](std::uint16_t length) {
    auto m = message(binding, {0x80, 0x22, 0, 0});
    store_be16(m.data() + 2, length);
    return m;
  };
  std::vector<std::pair<std::string, std::vector<std::uint8_t>>> rows = {
      {"H01", {}}, {"H02", {0}}, {"H02", {0, 1}}, {"H02", {0, 1, 0}},
      {"H11", [] { auto m = message(binding); store_be32(m.data() + 4, 0x01020304); return m; }()},
      {"H12", with_length(1)}, {"H12", with_length(2)}, {"H12", with_length(3)},
      {"H13", with_length(8)}, {"H14", with_length(0)},
      {"H15", with_length(65520)}, {"H15", with_length(65524)}, {"H15", with_length(65528)}, {"H15", with_length(65532)},
      {"H16", [] { auto m = message(binding); const auto n = m; m.insert(m.end(), n.begin(), n.end()); return m; }()},
      {"A01", message(binding, {1})}, {"A01", message(binding, {1, 2, 3})},
      {"A02", message(binding, attribute(0x8022, 8, 4))},
      {"A03", message(binding, attribute(0x8022, 0xFFFF, 4))}, {"A03", message(binding, attribute(0x8022, 0xFFFD, 4))},
      {"A04", [] { auto a = attribute(0x8022, 5, 5); return message(binding, a); }()},
  };
  for (std::size_t size = 4; size < 20; ++size) {
    auto m = message(binding);
    m.resize(size);
    rows.push_back({"H03", m});
  }
  for (int first = 4; first < 256; ++first) {  // H04-H09
    if (first >= 0x40 && first <= 0x4F) continue;
    auto m = message(binding);
    m[0] = static_cast<std::uint8_t>(first);
    rows.push_back({"H04-H09", m});
  }
  for (int bit = 0; bit < 32; ++bit) {
    auto m = message(binding);
    m[4 + static_cast<std::size_t>(bit) / 8] ^= static_cast<std::uint8_t>(1 << (bit % 8));
    rows.push_back({"H10", m});
  }
  for (const char* from : {"203.0.113.9:5000", "[2001:db8::9]:5000"}) {
    Tower tower;
    auto& c = tower.client(from);
    const auto kept = tower.server->bytes_kept();
    for (const auto& [row, bytes] : rows) {
      CAPTURE(row);
      CHECK_FALSE(c.exchange(bytes));
    }
    CHECK(tower.server->bytes_kept() == kept);
    CHECK(c.exchange(message(binding)));  // still there
  }
}

TEST_CASE("H18: any transaction id is echoed") {
  Tower tower;
  auto& c = tower.client("203.0.113.9:5000");
  for (const int fill : {0x00, 0xFF, 0x21}) {
    auto m = message(binding);
    std::fill(m.begin() + 8, m.begin() + 20, static_cast<std::uint8_t>(fill));
    const auto answer = c.exchange(m);
    REQUIRE(answer);
    CHECK(std::equal(m.begin() + 8, m.begin() + 20, answer->bytes.begin() + 8));
  }
}

TEST_CASE("H19: a source that cannot be, or that is ourselves, gets nothing") {
  Tower tower;
  for (const char* from : {"203.0.113.9:0", "0.0.0.0:5000", "0.1.2.3:5000", "224.0.0.1:5000", "255.255.255.255:5000", "198.18.0.1:3478", "198.18.0.255:5000",
                           "[::]:5000", "[ff02::1]:5000", "[2001:db8:1::1]:3478"}) {
    CAPTURE(from);
    CHECK_FALSE(tower.client(from).exchange(message(binding)));
  }
  CHECK(tower.counters().dropped_bad_source == 10);
}

TEST_CASE("H20 X12: more attributes than 128 are not read") {
  Tower tower;
  std::vector<std::uint8_t> body;
  for (int i = 0; i < 16000; ++i) {
    const auto a = attribute(0x8022, 0, 0);
    body.insert(body.end(), a.begin(), a.end());
  }
  CHECK_FALSE(tower.client("203.0.113.9:5000").exchange(message(binding, body)));
}

TEST_CASE("M01-M15: classes and methods that a server does not take are dropped") {
  Tower tower;
  auto& c = tower.client("203.0.113.9:5000");
  REQUIRE(c.allocates() == 0);
  std::vector<std::uint16_t> types = {0x0011, 0x0101, 0x0111, 0x0013, 0x0014, 0x0018, 0x0019, 0x0006, 0x0017, 0x0007, 0x000A,
                                      0x000B, 0x001C, 0x0002, 0x0005, 0x0200, 0x3EEF, 0x0103, 0x0113};
  for (std::uint16_t method = 0x00D; method <= 0x07F; ++method)
    types.push_back(static_cast<std::uint16_t>((method & 0xF) | (method & 0x70) << 1));
  for (const std::uint16_t type : types) {
    CAPTURE(type);
    CHECK_FALSE(c.exchange(message(type)));
  }
  CHECK(tower.server->allocation_count() == 1);
}

TEST_CASE("A05: padding that is not zero is ignored") {
  Tower tower;
  auto a = attribute(0x8022, 1, 4);
  a[5] = a[6] = a[7] = 0xEE;
  CHECK(tower.client("203.0.113.9:5000").exchange(message(binding, a)));
}

TEST_CASE("A26 A27 A28 A30 A40: unknown required attributes are a 420 that names at most sixteen; authentication comes first") {
  Tower tower;
  auto& c = tower.client("203.0.113.9:5000");
  auto answer = c.exchange(message(binding, attribute(0x7777, 4, 4)));
  REQUIRE(answer);
  CHECK(answer->error() == 420);
  CHECK(load_be16(answer->message()->find(Attribute::unknown_attributes)->data()) == 0x7777);
  answer = c.exchange(message(0x0003, attribute(0x7777, 4, 4)));
  REQUIRE(answer);
  CHECK(answer->error() == 401);
  std::vector<std::uint8_t> body;
  for (std::uint16_t i = 0; i < 60; ++i) {
    const auto a = attribute(static_cast<std::uint16_t>(0x7000 + i), 0, 0);
    body.insert(body.end(), a.begin(), a.end());
  }
  const auto request = message(binding, body);
  answer = c.exchange(request);
  REQUIRE(answer);
  CHECK(answer->error() == 420);
  CHECK(answer->message()->find(Attribute::unknown_attributes)->size() == 32);
  CHECK(answer->bytes.size() <= request.size());
  CHECK(c.allocates([](stun::Writer& w) { w.add(static_cast<Attribute>(0x7777), std::string_view("?")); }) == 420);
  CHECK(c.last->message()->has_integrity());
  for (const std::uint16_t old : std::initializer_list<std::uint16_t>{0x0010, 0x0021})
    CHECK(c.allocates([old](stun::Writer& w) { w.add_u32(static_cast<Attribute>(old), 1); }) == 420);
  CHECK(c.allocates([](stun::Writer& w) { w.add_u32(Attribute::channel_number, 0x40000000); }) == 0);  // A32: known, not of this method
}

TEST_CASE("R04 K07: no answer to a stranger is larger than three times what he sent, headers of IP and UDP counted") {
  for (const std::string& realm : {std::string("example.org"), std::string(40, 'r')}) {
    TowerOptions options;
    options.realm = realm;
    Tower tower(options);
    const std::uint16_t types[] = {0x0001, 0x0003, 0x0004, 0x0008, 0x0009};
    int port = 5000;
    for (const char* host : {"203.0.113.9:", "[2001:db8::9]:"}) {
      for (const std::uint16_t type : types) {
        auto& c = tower.client(host + std::to_string(port++));
        c.exchange(message(type));
        c.exchange(message(type, attribute(0x7777, 0, 0)));
        c.exchange(message(type, attribute(0x0008, 20, 20)));
        auto& usual = tower.client(host + std::to_string(port++));
        auto body = attribute(0x0019, 4, 4);
        body[4] = 17;
        CHECK(usual.exchange(message(type, body)));  // the usual first Allocate does get its answer
      }
    }
    CHECK(tower.largest_answer_ratio_percent <= 300);
    MESSAGE("largest answer: ", tower.largest_answer_ratio_percent, " % of its request, realm of ", realm.size(), " bytes");
  }
}

TEST_CASE("X01 X02 X03 X04: 100,000 strangers leave nothing behind") {
  Tower tower;
  auto& real = tower.client("203.0.113.9:5000");
  REQUIRE(real.allocates() == 0);
  const auto kept = tower.server->bytes_kept();
  const auto bind = message(binding);
  const auto allocate = message(0x0003);
  const auto forged = [] {
    std::array<std::uint8_t, 512> space{};
    stun::Writer w(space, Class::request, Method::allocate, {});
    w.add(Attribute::username, std::string_view("alice")).add(Attribute::realm, std::string_view("example.org"));
    w.add(Attribute::nonce, std::string_view("obMatJos2AAABmade-up")).add(Attribute::message_integrity, Bytes(std::vector<std::uint8_t>(20, 7)));
    return std::vector<std::uint8_t>(w.bytes().begin(), w.bytes().end());
  }();
  const auto send = message(0x0016), unknown = message(0x0005);
  const std::vector<std::uint8_t> channel{0x40, 0, 0, 1, 'x', 0, 0, 0};
  net::FiveTuple t;
  t.server = at("198.18.0.1:3478");
  for (std::uint32_t i = 0; i < 100'000; ++i) {
    t.client = {net::IpAddress::v4(0x08000000 + i), static_cast<std::uint16_t>(1024 + i % 60000), 0};
    for (const auto* m : {&bind, &allocate, &forged, &send, &unknown, &channel}) {
      if (m != &bind && i % 8 != 0) continue;
      std::vector<std::uint8_t> buffer(48 + m->size() + 4);
      std::copy(m->begin(), m->end(), buffer.begin() + 48);
      tower.server->from_client(t, 7, {{buffer.data() + 48, m->size()}, 0}, tower.now, tower.actions);
      tower.actions.clear();
    }
  }
  CHECK(tower.server->bytes_kept() == kept);
  CHECK(tower.server->allocation_count() == 1);
  CHECK(real.refreshes() == 0);
}

TEST_CASE("error answers to one stranger are bounded, whatever he asks; those who prove themselves are not") {
  Tower tower;
  auto& c = tower.client("203.0.113.9:5000");
  int answers = 0;
  for (int i = 0; i < 1000; ++i) answers += c.exchange(message(0x0003)) ? 1 : 0;
  CHECK(answers == 10);
  tower.advance(1s);
  CHECK(c.exchange(message(0x0003)));
  auto& alice = tower.client("203.0.113.10:5000");
  for (int i = 0; i < 100; ++i) CHECK(alice.refreshes() == 437);
}

TEST_CASE("X05: one user at his quota leaves ports for the others") {
  TowerOptions options;
  options.users[0].allocations = 5;
  Tower tower(options);
  int granted = 0;
  for (int i = 0; i < 50; ++i) granted += tower.client("203.0.113.9:" + std::to_string(5000 + i)).allocates() == 0 ? 1 : 0;
  CHECK(granted == 5);
  CHECK(tower.client("203.0.113.9:6000", "bob", "hunter2").allocates() == 0);
}

TEST_CASE("X07: a flood of unpermitted peers is dropped before anything is kept") {
  Tower tower;
  auto& c = tower.client("203.0.113.9:5000");
  REQUIRE(c.allocates() == 0);
  const auto kept = tower.server->bytes_kept();
  for (int i = 0; i < 2000; ++i) tower.peer_sends("192.0.2." + std::to_string(i % 250) + ":" + std::to_string(1 + i), c, "flood");
  CHECK(c.quiet());
  CHECK(tower.server->bytes_kept() == kept);
  CHECK(tower.counters().dropped_peer_no_permission == 2000);
}

TEST_CASE("R02: a loop of two allocations is charged to its users") {
  TowerOptions options;
  options.secrets = {"north"};
  options.limits.packets_per_second_per_user = 100;
  Tower tower(options);
  const std::string name = std::to_string(tower.now.unix_time + 3600) + ":loop";
  auto& a = tower.client("203.0.113.9:5000", name, stun::rest_password("north", name));
  auto& b = tower.client("203.0.113.9:5001", name, stun::rest_password("north", name));
  REQUIRE(a.allocates() == 0);
  REQUIRE(b.allocates() == 0);
  REQUIRE(a.binds(0x4000, b.relayed().text()) == 0);
  REQUIRE(b.binds(0x4000, a.relayed().text()) == 0);
  int passed = 0;
  for (int i = 0; i < 1000; ++i) {
    a.sends_channel(0x4000, "round");
    passed += b.take() ? 1 : 0;
  }
  CHECK(passed <= 55);  // each round is two packets of the same user
}
