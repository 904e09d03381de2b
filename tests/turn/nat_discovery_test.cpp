// RFC 5780 at the server: where an answer comes from, where it goes, what is in it, and how little an unproved source can do with that.
#include <doctest/doctest.h>

#include "harness.h"
#include "radiotower/turn/nat_discovery.h"

using namespace radiotower;
using namespace radiotower::test;

namespace {

using turn::Place;
using More = std::function<void(stun::Writer&)>;

constexpr const char* from4 = "203.0.113.9:5000";
constexpr const char* from6 = "[2001:db8:9::9]:5000";

/// A server with two addresses of each family and two ports on each, as the sockets 1 to 8.
struct Site {
  struct Answer {
    net::TransportAddress source, to;
    Packet packet;
    std::optional<net::TransportAddress> address(Attribute type) const {
      const auto value = packet.message()->find(type);
      const auto read = value ? stun::read_address(*value) : std::nullopt;
      return read ? std::optional(read->address) : std::nullopt;
    }
  };

  explicit Site(const std::function<void(turn::Settings&, Place&)>& change = {}) {
    settings = std::make_shared<turn::Settings>(*tower.make_settings());
    settings->nat_discovery = true;
    settings->listeners.clear();
    for (const char* text : {"198.18.0.1:3478", "198.18.0.1:3479", "198.18.0.2:3478", "198.18.0.2:3479", "[2001:db8:1::1]:3478", "[2001:db8:1::1]:3479",
                             "[2001:db8:1::2]:3478", "[2001:db8:1::2]:3479"}) {
      settings->listeners.push_back(at(text));
      place.listeners.push_back({at(text), net::Transport::udp, static_cast<turn::SocketHandle>(place.listeners.size() + 1)});
    }
    if (change) change(*settings, place);
    const HashKey key{1, 2};
    const auto shared = std::make_shared<turn::Shared>(*settings, seeded_random(1), key);
    server = std::make_unique<turn::Server>(shared, settings, turn::NonceMint(seeded_random(2)), key, seeded_random(3));
    server->set_place(place);
  }

  std::vector<Answer> ask(std::string_view client, std::string_view listener, const More& more = {}, net::Transport transport = net::Transport::udp) {
    std::vector<std::uint8_t> space(turn::Train::headroom + 4096 + 4);
    stun::TransactionId id;
    random(id);
    stun::Writer writer(MutableBytes(space).subspan(turn::Train::headroom, 4096), Class::request, Method::binding, id);
    if (more) more(writer);
    REQUIRE(writer.ok());
    request_size = writer.bytes().size();
    turn::SocketHandle via = 99;
    for (const auto& l : place.listeners)
      if (l.address == at(listener) && l.transport == transport) via = l.socket;
    server->from_client({at(client), at(listener), transport}, via, {writer.bytes()}, now, actions);
    std::vector<Answer> answers;
    for (const auto& send : actions.sends) {
      Answer& answer = answers.emplace_back();
      for (const auto& l : place.listeners)
        if (l.socket == send.socket) answer.source = l.address;
      answer.to = send.to;
      answer.packet.bytes.assign(send.bytes.begin(), send.bytes.end());
      REQUIRE(answer.packet.message());
      const std::size_t headers = at(client).ip.is_v4() ? 28 : 48;  // R04, K07
      CHECK(send.bytes.size() + headers <= 3 * (request_size + headers));
    }
    actions.clear();
    return answers;
  }
  Answer only(std::string_view client, std::string_view listener, const More& more = {}, net::Transport transport = net::Transport::udp) {
    auto answers = ask(client, listener, more, transport);
    REQUIRE(answers.size() == 1);
    return answers[0];
  }

  Tower tower;
  Place place;
  std::shared_ptr<turn::Settings> settings;
  std::unique_ptr<turn::Server> server;
  turn::Actions actions;
  RandomSource random = seeded_random(7);
  Now now{Time(1000s), 1'767'000'000};
  std::size_t request_size = 0;
};

More change(std::uint32_t flags) {
  return [flags](stun::Writer& w) { w.add_u32(Attribute::change_request, flags); };
}
More response_port(std::uint16_t port) {
  return [port](stun::Writer& w) { w.add_u32(Attribute::response_port, std::uint32_t{port} << 16); };
}
More wrong_size(Attribute type, std::size_t size) {
  return [=](stun::Writer& w) { w.add(type, Bytes(std::vector<std::uint8_t>(size, 9))); };
}
More padding(std::size_t size) {
  return [size](stun::Writer& w) { w.add(Attribute::padding, Bytes(std::vector<std::uint8_t>(size, 'p'))); };
}
std::vector<std::uint16_t> unknown(const Packet& packet) {
  std::vector<std::uint16_t> types;
  const auto value = packet.message()->find(Attribute::unknown_attributes);
  for (std::size_t i = 0; value && i + 1 < value->size(); i += 2) types.push_back(load_be16(value->data() + i));
  return types;
}

}  // namespace

TEST_CASE("RFC 5780, 6.1 [N2]: MAPPED-ADDRESS, XOR-MAPPED-ADDRESS, RESPONSE-ORIGIN and OTHER-ADDRESS, asked for or not") {
  Site site;
  const auto answer = site.only(from4, "198.18.0.1:3479");
  const auto m = answer.packet.message();
  CHECK(m->is(Class::success, Method::binding));
  CHECK(stun::read_xor_address(*m->find(Attribute::xor_mapped_address), m->transaction_id())->address == at(from4));
  CHECK(answer.address(Attribute::mapped_address) == at(from4));
  CHECK(answer.address(Attribute::response_origin) == at("198.18.0.1:3479"));
  CHECK(answer.address(Attribute::other_address) == at("198.18.0.2:3478"));
  CHECK(answer.source == at("198.18.0.1:3479"));
  CHECK(answer.to == at(from4));
}

TEST_CASE("RFC 5780, 6.1, Table 1 [N2]: the source follows CHANGE-REQUEST, RESPONSE-ORIGIN names it, OTHER-ADDRESS stays Ca:Cp") {
  Site site;
  struct Family {
    const char *client, *first, *second;
  };
  for (const Family& f : {Family{from4, "198.18.0.1", "198.18.0.2"}, Family{from6, "[2001:db8:1::1]", "[2001:db8:1::2]"}})
    for (const bool second : {false, true})
      for (const bool high : {false, true})
        for (const std::uint32_t flags : {0u, 2u, 4u, 6u, 0xFFFFFFF9u, 0xFFFFFFFFu}) {  // the other 30 bits mean nothing
          const auto place = [&](bool other_ip, bool other_port) {
            return std::string(second != other_ip ? f.second : f.first) + (high != other_port ? ":3479" : ":3478");
          };
          const std::string asked = place(false, false);
          CAPTURE(asked);
          CAPTURE(flags);
          const auto answer = site.only(f.client, asked, change(flags));
          CHECK(answer.source == at(place(flags & 4, flags & 2)));
          CHECK(answer.address(Attribute::response_origin) == answer.source);
          CHECK(answer.address(Attribute::other_address) == at(place(true, true)));
          CHECK(answer.to == at(f.client));
        }
}

TEST_CASE("RFC 5780, 6.1 [N1]: without two addresses and two ports no OTHER-ADDRESS, and CHANGE-REQUEST is a 420") {
  for (const std::vector<std::size_t>& there : {std::vector<std::size_t>{0}, {0, 1}, {0, 2}, {0, 3}, {0, 1, 2}, {0, 1, 6, 7}}) {
    Site site([&](turn::Settings&, Place& place) {
      std::vector<Place::Listener> kept;
      for (const auto i : there) kept.push_back(place.listeners[i]);
      place.listeners = kept;
    });
    const auto plain = site.only(from4, "198.18.0.1:3478");
    CHECK_FALSE(plain.packet.message()->has(Attribute::other_address));
    CHECK(plain.address(Attribute::response_origin) == at("198.18.0.1:3478"));
    for (const std::uint32_t flags : {0u, 2u, 4u, 6u}) {
      const auto refused = site.only(from4, "198.18.0.1:3478", change(flags));
      CHECK(refused.packet.error() == 420);
      CHECK(unknown(refused.packet) == std::vector<std::uint16_t>{0x0003});
    }
    CHECK(site.only(from4, "198.18.0.1:3478", response_port(6000)).to == at("203.0.113.9:6000"));  // these need no second address
    CHECK(site.only(from4, "198.18.0.1:3478", padding(100)).packet.message()->has(Attribute::padding));
  }
}

TEST_CASE("RFC 5780, 6: switched off, CHANGE-REQUEST, RESPONSE-PORT and PADDING are unknown, and a Binding answer is as small as ever") {
  Site site([](turn::Settings& settings, Place&) { settings.nat_discovery = false; });
  const auto refused = site.only(from4, "198.18.0.1:3478", [](stun::Writer& w) {
    w.add_u32(Attribute::change_request, 6).add_u32(Attribute::response_port, 6000u << 16).add_u32(Attribute::padding, 0);
  });
  CHECK(refused.packet.error() == 420);
  CHECK(unknown(refused.packet) == std::vector<std::uint16_t>{0x0003, 0x0027, 0x0026});
  CHECK(refused.source == at("198.18.0.1:3478"));
  CHECK(refused.to == at(from4));
  CHECK(site.only(from4, "198.18.0.1:3478").packet.bytes.size() == 32);
}

TEST_CASE("RFC 5780, 7.2: CHANGE-REQUEST has four bytes, else 400") {
  Site site;
  for (const std::size_t size : {0, 1, 3, 5, 8})
    CHECK(site.only(from4, "198.18.0.1:3478", wrong_size(Attribute::change_request, size)).packet.error() == 400);
}

TEST_CASE("RFC 5780, 6.1 and 7.5 [N4]: RESPONSE-PORT sends the answer to the source's address and that port; the mapped address is the source's") {
  Site site;
  const auto answer = site.only(from4, "198.18.0.1:3478", response_port(6000));
  CHECK(answer.to == at("203.0.113.9:6000"));
  CHECK(answer.source == at("198.18.0.1:3478"));
  CHECK(answer.address(Attribute::mapped_address) == at(from4));
  // Together with CHANGE-REQUEST, and as two bytes with padding behind, as some clients write it.
  const auto both = site.only(from6, "[2001:db8:1::2]:3479", [](stun::Writer& w) {
    const std::array<std::uint8_t, 2> port{0x17, 0x70};
    w.add(Attribute::response_port, Bytes(port)).add_u32(Attribute::change_request, 6);
  });
  CHECK(both.to == at("[2001:db8:9::9]:6000"));
  CHECK(both.source == at("[2001:db8:1::1]:3478"));
}

TEST_CASE("RFC 5780, 7.5: a RESPONSE-PORT of another length, or port 0, is a 400, which goes to the source") {
  Site site;
  for (const std::size_t size : {0, 1, 3, 5, 8}) {
    const auto refused = site.only(from4, "198.18.0.1:3478", wrong_size(Attribute::response_port, size));
    CHECK(refused.packet.error() == 400);
    CHECK(refused.to == at(from4));
  }
  CHECK(site.only(from4, "198.18.0.1:3478", response_port(0)).packet.error() == 400);
}

TEST_CASE("H19: RESPONSE-PORT does not lead an answer back to a listener of ours") {
  Site site;
  CHECK(site.ask("198.18.0.2:5000", "198.18.0.1:3478", response_port(3479)).empty());
  CHECK(site.server->counters().dropped_bad_source == 1);
}

TEST_CASE("RFC 5780, 6.1 and 7.6 [N3]: PADDING is answered with PADDING; together with RESPONSE-PORT it is a 400") {
  Site site;
  for (const char* client : {from4, from6}) {
    const char* listener = client == from4 ? "198.18.0.1:3478" : "[2001:db8:1::1]:3478";
    const auto answer = site.only(client, listener, padding(1500));
    CHECK(answer.packet.message()->find(Attribute::padding)->size() == 1500);  // the MTU, and so the datagram is larger than it
    CHECK(answer.address(Attribute::other_address));
    CHECK(answer.packet.bytes.size() + (client == from4 ? 28 : 48) > 1500);
    const auto moved = site.only(client, listener, [](stun::Writer& w) { padding(1500)(w), change(6)(w); });
    CHECK(moved.packet.message()->has(Attribute::padding));
    CHECK_FALSE(moved.source == at(listener));
  }
  const auto refused = site.only(from4, "198.18.0.1:3478", [](stun::Writer& w) { padding(1500)(w), response_port(6000)(w); });
  CHECK(refused.packet.error() == 400);
  CHECK(refused.to == at(from4));
}

TEST_CASE("R04 K07: PADDING is never answered with more than came, nor with more than the MTU; a multiple of four") {
  Site site;
  for (const std::size_t size : {0, 1, 3, 4, 100, 101, 1499, 1500, 1501, 3000}) {
    site.now.steady += 1s;
    const auto answer = site.only(from4, "198.18.0.1:3478", padding(size));
    const auto given = answer.packet.message()->find(Attribute::padding);
    REQUIRE(given);
    CHECK(given->size() == std::min<std::size_t>(1500, (size + 3) / 4 * 4));
  }
}

TEST_CASE("R04 K07: answers to another port count for that port, padded ones have the limit of errors") {
  Site site([](turn::Settings& settings, Place&) { settings.limits.binding_answers_per_second = 100, settings.limits.error_answers_per_second = 10; });
  const auto count = [&](const char* client, const More& more) {
    std::size_t answers = 0;
    for (int i = 0; i < 400; ++i) answers += site.ask(client, "198.18.0.1:3478", more).size();
    return answers;
  };
  CHECK(count(from4, padding(1500)) <= 10);
  std::size_t reflected = 0;  // one victim's port, named by many source ports: the bound is the victim's
  for (int i = 0; i < 400; ++i) reflected += site.ask("203.0.113.8:" + std::to_string(2000 + i), "198.18.0.1:3478", response_port(53)).size();
  CHECK(reflected <= 100);
  CHECK(reflected >= 50);
  CHECK(site.server->counters().dropped_answer_limit >= 690);
}

TEST_CASE("RFC 5780, 6 [N4], RFC 8489, 6.2.2: over a stream, and DTLS, there is no other address: 420 and a plain answer") {
  Site site([](turn::Settings&, Place& place) {
    for (std::size_t i = 0; i < 4; ++i) place.listeners.push_back({place.listeners[i].address, net::Transport::tcp, turn::no_socket});
  });
  for (const auto transport : {net::Transport::tcp, net::Transport::tls, net::Transport::dtls}) {
    for (const auto& [more, type] : {std::pair{change(6), 0x0003}, std::pair{response_port(6000), 0x0027}, std::pair{padding(100), 0x0026}}) {
      const auto refused = site.only(from4, "198.18.0.1:3478", more, transport);
      CHECK(refused.packet.error() == 420);
      CHECK(unknown(refused.packet) == std::vector<std::uint16_t>{static_cast<std::uint16_t>(type)});
      CHECK(refused.to == at(from4));
    }
    CHECK_FALSE(site.only(from4, "198.18.0.1:3478", {}, transport).packet.message()->has(Attribute::other_address));
  }
}

TEST_CASE("RFC 5780, 6.1 [N5]: ALTERNATE-SERVER never stands beside these attributes") {
  Site site([](turn::Settings& settings, Place&) { settings.draining = true, settings.redirect.servers = {at("198.18.0.9:3478")}; });
  for (const More& more : {More{}, change(6), response_port(6000), padding(100)}) {
    const auto answer = site.only(from4, "198.18.0.1:3478", more);
    CHECK(answer.packet.error() == 0);
    CHECK_FALSE(answer.packet.message()->has(Attribute::alternate_server));
  }
}

TEST_CASE("RFC 5780, 6: FINGERPRINT is answered where it was sent") {
  Site site;
  const More with = [](stun::Writer& w) { w.add_u32(Attribute::change_request, 6).add_fingerprint(); };
  CHECK(site.only(from4, "198.18.0.1:3478", with).packet.message()->has_fingerprint());
  CHECK_FALSE(site.only(from4, "198.18.0.1:3478", change(6)).packet.message()->has_fingerprint());
}

TEST_CASE("RFC 5780, 7.3 and 7.4: behind a 1:1 NAT both addresses are those that clients know") {
  Site site([](turn::Settings& settings, Place&) {
    settings.relay_addresses = {{at("198.18.0.1:1").ip, at("192.0.2.1:1").ip}, {at("198.18.0.2:1").ip, at("192.0.2.2:1").ip}};
  });
  const auto answer = site.only(from4, "198.18.0.1:3478", change(4));
  CHECK(answer.source == at("198.18.0.2:3478"));
  CHECK(answer.address(Attribute::response_origin) == at("192.0.2.2:3478"));
  CHECK(answer.address(Attribute::other_address) == at("192.0.2.2:3479"));
}

TEST_CASE("RFC 5780, 6: pairs of listeners: one family, two ports in common, loopback apart, none twice") {
  const auto pairs = [](std::initializer_list<const char*> texts) {
    std::vector<net::TransportAddress> listeners;
    for (const char* text : texts) listeners.push_back(at(text));
    return turn::discovery_pairs(listeners);
  };
  CHECK(pairs({}).empty());
  CHECK(pairs({"192.0.2.1:1", "192.0.2.1:2", "192.0.2.2:1", "192.0.2.2:3"}).empty());
  CHECK(pairs({"192.0.2.1:1", "192.0.2.1:2", "[2001:db8::1]:1", "[2001:db8::1]:2"}).empty());
  CHECK(pairs({"127.0.0.1:1", "127.0.0.1:2", "192.0.2.2:1", "192.0.2.2:2"}).empty());
  CHECK(pairs({"[fe80::1]:1", "[fe80::1]:2", "[fe80::2]:1", "[fe80::2]:2"}).empty());
  const auto found = pairs({"127.0.0.1:1", "127.0.0.1:2", "192.0.2.1:1", "192.0.2.1:2", "192.0.2.1:3", "192.0.2.2:3",
                            "192.0.2.3:2", "192.0.2.3:3", "127.0.0.2:2", "127.0.0.2:1"});
  REQUIRE(found.size() == 2);
  CHECK(found[0].second == at("127.0.0.2:1").ip);
  CHECK(found[1].first == at("192.0.2.1:1").ip);
  CHECK(found[1].second == at("192.0.2.3:1").ip);
  CHECK(found[1].other(at("192.0.2.1:2"), true, true) == at("192.0.2.3:3"));
  CHECK_FALSE(found[1].other(at("192.0.2.1:1"), true, true));
  CHECK_FALSE(found[1].other(at("192.0.2.2:3"), false, false));
}
