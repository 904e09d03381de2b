// What `radiotower nat` concludes, against NATs that are a table in memory: every mapping with every filter, and servers that cannot tell.
#include <doctest/doctest.h>

#include <map>
#include <set>
#include <tuple>
#include <vector>

#include "nat.h"

using namespace radiotower;
using namespace radiotower::cli;
using namespace std::chrono_literals;

namespace {

net::TransportAddress at(std::string_view text) { return *net::TransportAddress::parse(text); }

constexpr Dependence all[] = {Dependence::endpoint_independent, Dependence::address_dependent, Dependence::address_and_port_dependent};

/// A NAT and the server outside of it, with a clock that only wait() moves.
struct Simulation final : NatProbes {
  // The NAT.
  bool nat = true;
  Dependence mapping{}, filtering{};
  bool hairpins = false, keeps_ports = false, passes_fragments = true, rewrites = false, reuses_ports = false;
  std::chrono::milliseconds lifetime = 30s;
  // The server.
  bool discovery = true, response_port = true, padding = true, answers_padding = true, second_address_works = true, honest = true, alive = true;
  net::TransportAddress other = at("192.0.2.2:3479");
  bool out_of_sockets = false;

  std::vector<net::TransportAddress> sockets;
  struct Hole {
    unsigned socket;
    std::uint16_t port;
    std::set<std::pair<net::IpAddress, std::uint16_t>> sent_to;
    std::chrono::milliseconds used;
  };
  std::map<std::tuple<unsigned, net::IpAddress, std::uint16_t>, Hole> holes;
  std::chrono::milliseconds now{0};
  std::uint16_t next_port = 40000;
  unsigned asked = 0;
  std::vector<std::chrono::milliseconds> waits;

  static std::pair<net::IpAddress, std::uint16_t> key(const net::TransportAddress& a, Dependence d) {
    return {d == Dependence::endpoint_independent ? net::IpAddress{} : a.ip, d == Dependence::address_and_port_dependent ? a.port : std::uint16_t{0}};
  }

  std::optional<unsigned> open() override {
    if (out_of_sockets) return std::nullopt;
    sockets.push_back({at("10.0.0.2:1").ip, static_cast<std::uint16_t>(5000 + sockets.size())});
    return static_cast<unsigned>(sockets.size() - 1);
  }
  net::TransportAddress local(unsigned socket) const override { return sockets[socket]; }
  std::string failure() const override { return "no sockets left"; }
  void wait(std::chrono::milliseconds time) override {
    now += time;
    waits.push_back(time);
  }

  std::uint16_t lowest_free() const {
    std::set<std::uint16_t> taken;
    for (const auto& [unused, hole] : holes)
      if (now - hole.used < lifetime) taken.insert(hole.port);
    std::uint16_t port = next_port;
    while (taken.count(port)) ++port;
    return port;
  }
  net::TransportAddress out(unsigned socket, const net::TransportAddress& to) {
    if (!nat) return sockets[socket];
    const auto [ip, port] = key(to, mapping);
    auto& hole = holes[{socket, ip, port}];
    if (hole.port == 0 || now - hole.used >= lifetime) {
      const std::uint16_t fresh = keeps_ports ? sockets[socket].port : reuses_ports ? lowest_free() : next_port++;
      hole = {socket, fresh, {}, now};
    }
    hole.used = now;
    hole.sent_to.insert(key(to, filtering));
    return {at("198.51.100.7:1").ip, hole.port};
  }
  std::optional<unsigned> in(const net::TransportAddress& from, std::uint16_t port) {
    if (!nat) {
      for (unsigned i = 0; i < sockets.size(); ++i)
        if (sockets[i].port == port) return i;
      return std::nullopt;
    }
    std::optional<unsigned> best;
    std::chrono::milliseconds youngest{-1};
    for (const auto& [unused, hole] : holes)
      if (hole.port == port && now - hole.used < lifetime && hole.used > youngest && hole.sent_to.count(key(from, filtering)))
        best = hole.socket, youngest = hole.used;
    return best;
  }

  Answer ask(const Ask& ask) override {
    ++asked;
    Answer answer;
    const auto mapped = out(ask.from, ask.to);
    if (!alive || (!second_address_works && ask.to.ip == other.ip)) return answer;
    if (ask.padding != 0 && !passes_fragments) return answer;
    if (((ask.change_ip || ask.change_port) && !discovery) || (ask.response_port != 0 && !response_port) || (ask.padding != 0 && !padding)) {
      answer.kind = Answer::Kind::error;
      answer.code = 420;
      return answer;
    }
    const auto first = at("192.0.2.1:3478");
    answer.source = ask.to;
    if (ask.change_ip && honest) answer.source.ip = ask.to.ip == first.ip ? other.ip : first.ip;
    if (ask.change_port) answer.source.port = ask.to.port == first.port ? other.port : first.port;
    if (!second_address_works && answer.source.ip == other.ip) return answer;
    const auto arrived = in(answer.source, ask.response_port != 0 ? ask.response_port : mapped.port);
    if (!arrived || (*arrived != ask.from && *arrived != ask.answer_at)) return answer;
    answer.kind = Answer::Kind::success;
    answer.arrived_at = *arrived;
    answer.mapped = mapped;
    answer.plain_mapped = rewrites ? sockets[ask.from] : mapped;
    answer.padded = ask.padding != 0 && answers_padding;
    if (discovery) answer.other = other;
    return answer;
  }
  bool meet(unsigned a, const net::TransportAddress& mapped_a, unsigned b, const net::TransportAddress& mapped_b) override {
    if (!hairpins) return false;
    out(a, mapped_b);
    out(b, mapped_a);
    return true;
  }
};

NatServer server_of(Simulation& s) {
  const auto found = find_server(s, at("192.0.2.1:3478"));
  REQUIRE(found.value);
  return *found.value;
}

}  // namespace

TEST_CASE("nat: every mapping with every filter is told for what it is (RFC 5780, 4.3 and 4.4)") {
  for (const auto mapping : all)
    for (const auto filtering : all)
      for (const bool keeps_ports : {false, true}) {
        Simulation s;
        s.mapping = mapping;
        s.filtering = filtering;
        const auto server = server_of(s);
        CHECK(server.translated);
        CHECK_FALSE(server.rewritten);
        s.keeps_ports = keeps_ports && mapping == Dependence::endpoint_independent;
        const auto m = find_mapping(s, server);
        REQUIRE(m.value);
        CHECK(m.value->dependence == mapping);
        CHECK(m.value->keeps_port == s.keeps_ports);
        const auto f = find_filtering(s, server);
        REQUIRE(f.value);
        CHECK(*f.value == filtering);
        const std::string said = verdict(server.translated, m, f);
        CHECK(said.find(std::string(name(mapping)) + " mapping and " + std::string(name(filtering)) + " filtering") != std::string::npos);
        CHECK((said.find("calls work directly with most peers") != std::string::npos) == (mapping == Dependence::endpoint_independent));
        CHECK((said.find("need a relay") != std::string::npos) == (mapping != Dependence::endpoint_independent));
      }
}

TEST_CASE("nat: no NAT, with and without a firewall") {
  Simulation s;
  s.nat = false;
  const auto server = server_of(s);
  CHECK_FALSE(server.translated);
  auto f = find_filtering(s, server);
  CHECK(verdict(false, {}, f) == "no address translation and no filter on the way: calls work directly");
  f.value = Dependence::address_dependent;
  CHECK(verdict(false, {}, f).find("a firewall with address-dependent filtering") != std::string::npos);
}

TEST_CASE("nat: a server that offers none of it, or says nonsense, is no server for this (RFC 5780, 4.2, 7.4)") {
  {
    Simulation s;
    s.alive = false;
    CHECK(find_server(s, at("192.0.2.1:3478")).why_not == "no answer to a Binding request");
  }
  {
    Simulation s;
    s.discovery = false;
    const auto found = find_server(s, at("192.0.2.1:3478"));
    CHECK_FALSE(found.value);
    CHECK(found.why_not.find("OTHER-ADDRESS") != std::string::npos);
  }
  for (const char* other : {"192.0.2.1:3479", "192.0.2.2:3478", "192.0.2.1:3478", "192.0.2.2:0", "[2001:db8::1]:3479"}) {
    Simulation s;
    s.other = at(other);
    CHECK(find_server(s, at("192.0.2.1:3478")).why_not.find(at(other).text()) != std::string::npos);
  }
  Simulation s;
  s.out_of_sockets = true;
  CHECK(find_server(s, at("192.0.2.1:3478")).why_not == "no sockets left");
}

TEST_CASE("nat: silence of a second address that is dead is not taken for a filter (erratum 7971)") {
  Simulation s;
  const auto server = server_of(s);
  s.second_address_works = false;
  const auto f = find_filtering(s, server);
  CHECK_FALSE(f.value);
  CHECK(f.why_not.find("192.0.2.2:3479") != std::string::npos);
  const auto m = find_mapping(s, server);
  CHECK_FALSE(m.value);
  CHECK(m.why_not.find("192.0.2.2:3478") != std::string::npos);
  CHECK(verdict(true, m, f) == "behind a NAT whose mapping could not be told");
}

TEST_CASE("nat: a server that answers from the address it was asked at has told nothing about the filter") {
  Simulation s;
  const auto server = server_of(s);
  s.honest = false;
  s.filtering = Dependence::address_dependent;
  const auto f = find_filtering(s, server);
  CHECK_FALSE(f.value);
  CHECK(f.why_not.find("asked to answer from its other address") != std::string::npos);
}

TEST_CASE("nat: an ALG that rewrites MAPPED-ADDRESS is seen (RFC 5780, 3.6)") {
  Simulation s;
  s.rewrites = true;
  CHECK(server_of(s).rewritten);
}

TEST_CASE("nat: hairpinning, for each filter (RFC 5780, 3.4)") {
  for (const bool hairpins : {false, true}) {
    Simulation s;
    s.hairpins = hairpins;
    CHECK(find_hairpinning(s, server_of(s)).value == hairpins);
  }
}

TEST_CASE("nat: fragments (RFC 5780, 3.5)") {
  Simulation s;
  const auto server = server_of(s);
  CHECK(find_fragments(s, server).value == true);
  s.passes_fragments = false;
  CHECK(find_fragments(s, server).value == false);
  s.passes_fragments = true;
  s.answers_padding = false;
  CHECK(find_fragments(s, server).why_not == "the server answered PADDING without PADDING");
  s.padding = false;
  CHECK(find_fragments(s, server).why_not == "the server answered 420 to PADDING");
}

TEST_CASE("nat: the lifetime of a mapping is bisected, in a bounded number of tries (RFC 5780, 4.6)") {
  for (const int longest : {1, 2, 7, 30, 100, 600})
    for (const int lasts : {1, 2, 5, 30, 31, 90, 120, 1000}) {
      CAPTURE(longest);
      CAPTURE(lasts);
      Simulation s;
      s.lifetime = std::chrono::seconds(lasts);
      const auto server = server_of(s);
      const auto found = find_lifetime(s, server, std::chrono::seconds(longest));
      REQUIRE(found.value);
      CHECK(s.waits.size() <= LifetimeSearch::most_tries());
      CHECK(found.value->outlives() == (lasts > longest));
      CHECK(found.value->alive_after().count() < lasts);
      if (found.value->outlives()) continue;
      CHECK(found.value->dead_after().count() >= lasts);
      CHECK((found.value->dead_after() - found.value->alive_after()).count() <= std::max(1, (longest + 15) / 16));
    }
}

TEST_CASE("nat: an answer at the new port, since the NAT gave it the old number, means that the old mapping is gone (RFC 5780, 4.6)") {
  Simulation s;
  s.lifetime = 10s;
  s.reuses_ports = true;
  const auto found = find_lifetime(s, server_of(s), 60s);
  REQUIRE(found.value);
  CHECK_FALSE(found.value->outlives());
  CHECK(found.value->dead_after() <= 13s);
}

TEST_CASE("nat: a server without RESPONSE-PORT cannot tell the lifetime") {
  Simulation s;
  s.response_port = false;
  const auto found = find_lifetime(s, server_of(s), 1s);
  CHECK_FALSE(found.value);
  CHECK(found.why_not == "the server answered 420 to RESPONSE-PORT");
}
