#include <doctest/doctest.h>

#include "url.h"

using namespace radiotower::cli;

namespace {

std::string read(std::string_view url) {
  std::string why;
  const auto server = parse_turn_url(url, why);
  CHECK(why.empty() == server.has_value());
  return server ? server->server.text() : std::string();
}

std::string complaint(std::string_view url) {
  std::string why;
  CHECK_FALSE(parse_turn_url(url, why));
  return why;
}

bool says(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("a turn: URL has a host, a port and a transport, the last two with defaults (RFC 7065, 3.1 and 3.2)") {
  CHECK(read("turn:tower.lan") == "tower.lan:3478");
  CHECK(read("turn:tower.lan:5000") == "tower.lan:5000");
  CHECK(read("turn:192.0.2.1?transport=udp") == "192.0.2.1:3478");
  CHECK(read("turn:192.0.2.1:443?transport=udp") == "192.0.2.1:443");
  CHECK(read("TURN:Tower?TRANSPORT=UDP") == "Tower:3478");
  CHECK(read("turn:10") .empty());
}

TEST_CASE("an IPv6 address stands in brackets, its port behind them") {
  CHECK(read("turn:[2001:db8::1]") == "[2001:db8::1]:3478");
  CHECK(read("turn:[::1]:65535?transport=udp") == "[::1]:65535");
  CHECK(says(complaint("turn:2001:db8::1"), "brackets"));
  CHECK(says(complaint("turn:[2001:db8::1"), "between [ and ]"));
  CHECK(says(complaint("turn:[192.0.2.1]"), "IPv6"));
  CHECK(says(complaint("turn:[::1]3478"), "colon"));
}

TEST_CASE("scheme and transport say how a relay is reached (RFC 7065, 3.2; RFC 7350, 4.6.1)") {
  const auto shown = [](std::string_view text) {
    std::string why;
    const auto url = parse_turn_url(text, why);
    REQUIRE(url);
    return std::string(radiotower::net::name(url->transport())) + " " + url->text();
  };
  CHECK(shown("turn:tower.lan") == "udp turn:tower.lan:3478?transport=udp");
  CHECK(shown("turn:tower.lan?transport=TCP") == "tcp turn:tower.lan:3478?transport=tcp");
  CHECK(shown("turns:tower.lan") == "tls turns:tower.lan:5349?transport=tcp");
  CHECK(shown("turns:[::1]:443?transport=tcp") == "tls turns:[::1]:443?transport=tcp");
  CHECK(shown("TURNS:tower.lan?transport=udp") == "dtls turns:tower.lan:5349?transport=udp");
  CHECK(says(complaint("turn:tower.lan?transport=sctp"), "udp or tcp"));
  CHECK(says(complaint("turn:tower.lan?ttl=1"), "transport"));
  CHECK(says(complaint("turns://tower.lan"), "turns:HOST"));
}

TEST_CASE("the URL mistakes that people make get an answer that helps") {
  CHECK(says(complaint("turn://tower.lan"), "no //"));
  CHECK(says(complaint("turn:alice@tower.lan"), "--user"));
  CHECK(says(complaint("turn:alice:secret@tower.lan"), "--user"));
  CHECK(says(complaint("tower.lan:3478"), "turn:tower.lan:3478"));
  CHECK(says(complaint("stun:tower.lan"), "radiotower stun"));
  CHECK(says(complaint("https://tower.lan"), "begins with turn:"));
  CHECK(says(complaint("turn:"), "host is missing"));
  CHECK(says(complaint("turn::3478"), "host is missing"));
  CHECK(says(complaint(""), "begins with turn:"));
  CHECK(says(complaint("turn:tower.lan/path"), "no host name"));
  CHECK(says(complaint("turn:tower lan"), "no host name"));
  CHECK(says(complaint("turn:192.0.2.256"), "IPv4"));
  for (const char* port : {"turn:a:", "turn:a:0", "turn:a:65536", "turn:a:-1", "turn:a:1x", "turn:a: 1", "turn:a:99999999999"})
    CHECK(says(complaint(port), "1 to 65535"));
}

TEST_CASE("no URL that a byte was put into or taken out of breaks the reader") {
  const std::string good = "turn:[2001:db8::1]:3478?transport=udp";
  for (std::size_t i = 0; i < good.size(); ++i) {
    std::string shorter = good;
    shorter.erase(i, 1);
    read(shorter);
    for (int byte = 0; byte < 256; ++byte) {
      std::string changed = good;
      changed[i] = static_cast<char>(byte);
      read(changed);
    }
    read(good.substr(0, i));
  }
}

TEST_CASE("a STUN server is HOST[:PORT] or a stun: URL") {
  const auto target = [](std::string_view text) {
    std::string why;
    const auto server = parse_stun_target(text, why);
    CHECK(why.empty() == server.has_value());
    return server ? server->text() : "! " + why;
  };
  CHECK(target("tower") == "tower:3478");
  CHECK(target("tower:1") == "tower:1");
  CHECK(target("stun:tower") == "tower:3478");
  CHECK(target("STUN:tower:5") == "tower:5");
  CHECK(target("::1") == "[::1]:3478");
  CHECK(target("[::1]:7") == "[::1]:7");
  CHECK(target("fe80::1%eth0") == "[fe80::1%eth0]:3478");
  CHECK(target("stun:3478") == "stun:3478");  // a host of that name
  CHECK(says(target("stun://tower"), "no //"));
  CHECK(says(target("stuns:tower"), "over UDP"));
  CHECK(says(target("stun:2001:db8::1"), "brackets"));
  CHECK(says(target("turn:tower"), "radiotower turn"));
  CHECK(says(target("stun:tower?transport=udp"), "?transport"));
}

TEST_CASE("stuns: is STUN over TLS, and names no transport (RFC 7064, 3.1 and 3.2)") {
  std::string why;
  const auto url = parse_stun_url("stuns:tower.lan", why);
  REQUIRE(url);
  CHECK(url->text() == "stuns:tower.lan:5349");
  CHECK(url->transport() == radiotower::net::Transport::tls);
  CHECK_FALSE(parse_stun_url("stuns:tower.lan?transport=tcp", why));
  CHECK(says(why, "RFC 7064"));
  CHECK(parse_stun_url("tower:5", why)->port_given);
  CHECK_FALSE(parse_stun_url("tower", why)->port_given);
}
