// Who may be reached. Ids in brackets are rows of the list of hostile inputs.
#include <doctest/doctest.h>

#include <algorithm>
#include <random>

#include "radiotower/net/peer_policy.h"

namespace radiotower::net {

namespace {

using V = PeerVerdict;
__extension__ typedef unsigned __int128 Wide;

PeerRule rule(std::string_view text) {
  std::string why;
  const auto parsed = PeerRule::parse(text, why);
  REQUIRE_MESSAGE(parsed, why);
  return *parsed;
}

AddressRange range(std::string_view text) {
  std::string why;
  return *AddressRange::parse(text, why);
}

TransportAddress at(std::string_view text) {
  const auto address = TransportAddress::parse(text);
  REQUIRE_MESSAGE(address, text);
  return *address;
}

/// A relay at 198.51.100.7 (outside) = 192.168.0.5 (inside), listening on 3478, with a second interface.
struct Site {
  PeerPolicySettings settings;

  Site() {
    settings.host_addresses = {ip("192.168.0.5"), ip("10.9.9.9"), ip("2a00:1::5")};
    settings.broadcast_addresses = {ip("192.168.0.255"), ip("80.0.0.255")};
    settings.relay_addresses = {ip("192.168.0.5"), ip("198.51.100.7")};
    settings.own_endpoints = {at("192.168.0.5:3478"), at("10.9.9.9:9100"), at("127.0.0.1:3478")};
  }
  static IpAddress ip(std::string_view text) { return *IpAddress::parse(text); }
  Site& allow(std::string_view text) { return settings.allow.push_back(rule(text)), *this; }
  Site& deny(std::string_view text) { return settings.deny.push_back(rule(text)), *this; }
  Site& only() { return settings.allow_only = true, *this; }

  PeerJudgement judge(std::string_view peer) const { return PeerPolicy(settings).judge(at(peer), at(peer).family()); }
  V verdict(std::string_view peer) const { return judge(peer).verdict; }
  /// As CreatePermission asks: an address, port 0.
  V permission(std::string_view address) const { return PeerPolicy(settings).judge({ip(address), 0}, ip(address).family(), false).verdict; }
};

V verdict(std::string_view address) { return Site().permission(address); }

IpAddress step(IpAddress a, int by) {
  for (std::size_t i = 16; i-- > 0;) {
    a.bytes[i] = static_cast<std::uint8_t>(a.bytes[i] + by);
    if (a.bytes[i] != (by > 0 ? 0x00 : 0xFF)) break;
  }
  return a;
}

}  // namespace

TEST_CASE("a public address is permitted, in both families") {
  for (const char* peer : {"8.8.8.8:443", "1.1.1.1:50000", "[2606:4700::1]:443", "[2a00:1450::1]:3479", "172.15.255.255:5000", "172.32.0.0:5000"})
    CHECK(Site().verdict(peer) == V::permitted);
}

TEST_CASE("each denied range is denied exactly inside: first-1, first, last, last+1 [P04-P13, P18-P23, P33]") {
  const char* always[] = {"0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4", "fe80::/10", "fec0::/10", "ff00::/8", "2002::/16",
                          "2001::/32"};
  const char* by_default[] = {"10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", "192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24",
                              "192.52.193.0/24", "192.88.99.0/24", "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
                              "64:ff9b:1::/48", "100::/64", "100:0:0:1::/64", "2001::/23", "2001:db8::/32", "2620:4f:8000::/48", "3fff::/20",
                              "5f00::/16", "fc00::/7"};
  std::vector<AddressRange> all;
  for (const char* text : always) all.push_back(range(text));
  for (const char* text : by_default) all.push_back(range(text));
  const PeerPolicy policy{{}};
  const auto denied_somewhere = [&](const IpAddress& ip) {
    return std::any_of(all.begin(), all.end(), [&](const AddressRange& r) { return r.contains(ip); });
  };
  std::size_t index = 0;
  for (const AddressRange& r : all) {
    const bool hard = index++ < std::size(always);
    CAPTURE(r.text());
    for (const IpAddress& inside : {r.first, r.last}) {
      const V v = policy.judge({inside, 5000}, inside.family()).verdict;
      if (hard) CHECK(v == V::always_denied);
      else CHECK((v == V::private_network || v == V::always_denied));  // 2001::/23 holds Teredo
    }
    const IpAddress beside[] = {step(r.first, -1), step(r.last, +1)};
    for (const IpAddress& outside : beside) {
      // Beyond an end of the whole space there is no address of this family; and neighbours may be denied themselves.
      const bool wrapped = &outside == &beside[0] ? r.first < outside : outside < r.last;
      if (outside.family() != r.first.family() || wrapped) continue;
      const V v = policy.judge({outside, 5000}, outside.family()).verdict;
      CAPTURE(outside.text());
      CHECK((v == V::permitted) == !denied_somewhere(outside));
    }
  }
  CHECK(verdict("::") == V::always_denied);
  CHECK(verdict("::1") == V::always_denied);
}

TEST_CASE("the reason is a short word for the log") {
  CHECK(Site().judge("10.1.2.3:8443").reason == "rfc1918");
  CHECK(Site().judge("127.0.0.1:80").reason == "loopback");
  CHECK(Site().judge("169.254.169.254:80").reason == "link-local");
  CHECK(Site().judge("[2002:a00:1::]:80").reason == "6to4");
  CHECK(Site().judge("[2001:0:1::]:80").reason == "teredo");
  CHECK(Site().judge("192.168.0.5:3478").reason == "own listener");
  CHECK(Site().deny("8.8.8.8").judge("8.8.8.8:80").reason == "peers.deny");
}

TEST_CASE("an interface's broadcast address is always denied [P12]") {
  CHECK(verdict("80.0.0.255") == V::always_denied);
  CHECK(Site().allow("80.0.0.0/24").permission("80.0.0.255") == V::always_denied);
}

TEST_CASE("IPv4 in IPv6 dress is refused as a spelling, whatever is inside [P14-P16]") {
  const PeerPolicy policy{{}};
  for (const char* v4 : {"127.0.0.1", "10.0.0.1", "169.254.169.254", "8.8.8.8"})  // mapped: the reader made it IPv4 and kept the family
    CHECK(policy.judge({*IpAddress::parse(v4), 443}, Family::ipv6).verdict == V::bad_spelling);
  for (const char* disguised : {"::127.0.0.1", "::10.0.0.1", "::8.8.8.8", "::2", "::ffff:0:127.0.0.1", "::ffff:0:8.8.8.8"}) CHECK(verdict(disguised) == V::bad_spelling);
  Site site;
  site.allow("::127.0.0.1 unsafe");
  CHECK(site.permission("::127.0.0.1") == V::bad_spelling);
}

TEST_CASE("behind NAT64 and ISATAP the address inside is judged [P17, P24]") {
  for (const char* bad : {"64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2a00:1:2:3:0:5efe:127.0.0.1", "2a00:1:2:3:200:5efe:127.0.0.1"}) CHECK(verdict(bad) == V::always_denied);
  for (const char* bad : {"64:ff9b::a00:1", "2a00:1:2:3:0:5efe:10.0.0.1"}) CHECK(verdict(bad) == V::private_network);
  CHECK(verdict("64:ff9b::808:808") == V::permitted);
  CHECK(verdict("2a00:1:2:3:0:5efe:8.8.8.8") == V::permitted);
  CHECK(verdict("64:ff9b::c0a8:5") == V::own_host);   // this host, 192.168.0.5
  CHECK(verdict("64:ff9b::c633:6407") == V::own_host);  // its external address
  CHECK(Site().deny("8.8.8.8").permission("64:ff9b::808:808") == V::denied_by_rule);
  CHECK(Site().allow("64:ff9b::/96").permission("64:ff9b::a00:1") == V::private_network);  // either form denied is denied
  CHECK(Site().allow("64:ff9b::/96").allow("10.0.0.0/8").permission("64:ff9b::a00:1") == V::permitted);
}

TEST_CASE("the operator's own NAT64 prefix is denied unless allowed, and then judged inside, where RFC 6052 puts it [P18]") {
  const std::pair<const char*, const char*> loopback_inside[] = {
      {"2a01::/32", "2a01:0:7f00:1::"},       {"2a01:0:100::/40", "2a01:0:17f:0:1::"},       {"2a01:0:1::/48", "2a01:0:1:7f00:0:100::"},
      {"2a01:0:1::/56", "2a01:0:1:7f:0:1::"}, {"2a01:0:1:2::/64", "2a01:0:1:2:7f:0:100::"}, {"2a01::/96", "2a01::7f00:1"}};
  for (const auto& [prefix, address] : loopback_inside) {
    CAPTURE(prefix);
    Site site;
    site.settings.nat64_prefixes = {range(prefix)};
    CHECK(site.permission(address) == V::private_network);
    site.allow(prefix);
    CHECK(site.permission(address) == V::always_denied);
  }
  Site site;
  site.settings.nat64_prefixes = {range("2a01::/96")};
  CHECK(site.allow("2a01::/96").permission("2a01::808:808") == V::permitted);
}

TEST_CASE("a broad allow opens private networks, and never what is always denied [P08]") {
  Site site;
  site.allow("0.0.0.0/0").allow("::/0");
  CHECK(site.verdict("10.1.2.3:8443") == V::permitted);
  CHECK(site.verdict("[fd00::1]:8443") == V::permitted);
  for (const char* peer : {"127.0.0.1:80", "169.254.169.254:80", "224.0.0.1:80", "255.255.255.255:80", "[fe80::1]:80", "[2002:a00:1::]:80", "[2001:0:1::]:80"})
    CHECK(site.verdict(peer) == V::always_denied);
  CHECK(Site().allow("127.0.0.1").verdict("127.0.0.1:80") == V::always_denied);  // not without the word
}

TEST_CASE("an unsafe entry opens one address that is always denied, with its port or with all") {
  CHECK(Site().allow("127.0.0.1 unsafe").verdict("127.0.0.1:8443") == V::permitted);
  CHECK(Site().allow("127.0.0.1/32 unsafe").verdict("127.0.0.2:8443") == V::always_denied);
  Site one;
  one.allow("127.0.0.1:8443 unsafe");
  CHECK(one.verdict("127.0.0.1:8443") == V::permitted);
  CHECK(one.verdict("127.0.0.1:8444") == V::always_denied);
  CHECK(one.permission("127.0.0.1") == V::permitted);  // each packet is judged with its port
  CHECK(Site().allow("2002:a00:1:: unsafe").verdict("[2002:a00:1::]:80") == V::permitted);
  // A narrower plain entry beside it takes nothing away.
  CHECK(Site().allow("127.0.0.1 unsafe").allow("127.0.0.1:8443").verdict("127.0.0.1:8443") == V::permitted);
  CHECK(Site().allow("127.0.0.1 unsafe").deny("127.0.0.1:22").verdict("127.0.0.1:22") != V::permitted);
}

TEST_CASE("our own endpoints are opened by an unsafe entry that names the port, and by nothing less [P25, P29]") {
  CHECK(Site().allow("127.0.0.1 unsafe").verdict("127.0.0.1:3478") == V::own_host);
  CHECK(Site().allow("127.0.0.1:3478 unsafe").verdict("127.0.0.1:3478") == V::permitted);
  CHECK(Site().verdict("192.168.0.5:3478") == V::own_host);
  CHECK(Site().allow("192.168.0.5:3478").verdict("192.168.0.5:3478") == V::own_host);
  CHECK(Site().allow("10.9.9.9:9100").verdict("10.9.9.9:9100") == V::own_host);
  CHECK(Site().allow("10.9.9.9:9100 unsafe").verdict("10.9.9.9:9100") == V::permitted);
  Site wildcard;
  wildcard.settings.own_endpoints = {at("0.0.0.0:9100"), at("[::]:9101")};
  CHECK(wildcard.allow("10.9.9.9").verdict("10.9.9.9:9100") == V::own_host);
  CHECK(wildcard.verdict("10.9.9.9:9101") == V::own_host);
  CHECK(wildcard.verdict("10.9.9.9:9102") == V::permitted);
  CHECK(wildcard.verdict("8.8.8.8:9100") == V::permitted);
}

TEST_CASE("another service of this host needs an entry of exactly its address [P29]") {
  CHECK(Site().verdict("10.9.9.9:8443") == V::own_host);
  CHECK(Site().permission("10.9.9.9") == V::own_host);
  CHECK(Site().verdict("[2a00:1::5]:8443") == V::own_host);
  CHECK(Site().allow("10.0.0.0/8").verdict("10.9.9.9:8443") == V::own_host);
  CHECK(Site().allow("10.9.9.8/31").verdict("10.9.9.9:8443") == V::own_host);
  CHECK(Site().allow("10.9.9.9").verdict("10.9.9.9:8443") == V::permitted);
  Site one;
  one.allow("10.9.9.9:8443");
  CHECK(one.verdict("10.9.9.9:8443") == V::permitted);
  CHECK(one.verdict("10.9.9.9:22") == V::own_host);
  CHECK(one.permission("10.9.9.9") == V::permitted);
  Site listener;  // an address that only a listener has is ours too
  listener.settings.own_endpoints = {at("80.1.1.1:3478")};
  CHECK(listener.verdict("80.1.1.1:22") == V::own_host);
  CHECK(listener.permission("80.1.1.1") == V::own_host);
}

TEST_CASE("a relayed address of ours, inside or outside form, is the caller's to check [P27, P28]") {
  for (const char* peer : {"192.168.0.5:50000", "198.51.100.7:50000", "198.51.100.7:22"}) CHECK(Site().verdict(peer) == V::own_relayed);
  CHECK(Site().permission("198.51.100.7") == V::own_relayed);
  const PeerPolicy policy{Site().settings};
  CHECK(policy.permit(at("198.51.100.7:50000"), Family::ipv4)->own_relayed());
  // An entry of this address and port opens that port besides; one without a port does not, nor does a range.
  CHECK(Site().allow("192.168.0.5:8443").verdict("192.168.0.5:8443") == V::permitted);
  CHECK(Site().allow("192.168.0.5:8443").verdict("192.168.0.5:8444") == V::own_relayed);
  CHECK(Site().allow("192.168.0.5").verdict("192.168.0.5:8443") == V::own_relayed);
  CHECK(Site().allow("192.168.0.0/16").verdict("192.168.0.5:8443") == V::own_relayed);
  CHECK(Site().allow("192.168.0.5 unsafe").verdict("192.168.0.5:8443") == V::permitted);
  CHECK(Site().deny("198.51.100.7").verdict("198.51.100.7:50000") == V::denied_by_rule);
}

TEST_CASE("in allow-list mode nothing else is reachable, our own relayed addresses neither [P27]") {
  Site site;
  site.only().allow("10.1.2.3:8443").allow("2001:db8:5::/48");
  CHECK(site.verdict("10.1.2.3:8443") == V::permitted);
  CHECK(site.verdict("10.1.2.3:8444") == V::not_in_allow_list);
  CHECK(site.permission("10.1.2.3") == V::permitted);
  CHECK(site.verdict("[2001:db8:5::9]:443") == V::permitted);
  CHECK(site.verdict("8.8.8.8:443") == V::not_in_allow_list);
  CHECK(site.verdict("198.51.100.7:50000") == V::not_in_allow_list);
  CHECK(site.verdict("[64:ff9b::808:808]:80") == V::not_in_allow_list);
  CHECK(site.allow("198.51.100.7").verdict("198.51.100.7:50000") == V::own_relayed);
  CHECK(Site().only().verdict("8.8.8.8:443") == V::not_in_allow_list);  // an empty list allows nobody
  CHECK(Site().only().allow("127.0.0.1 unsafe").verdict("127.0.0.1:5000") == V::permitted);
}

TEST_CASE("of all entries that cover a peer the narrowest decides, deny on a tie, whatever their order") {
  CHECK(Site().allow("10.0.0.0/8").deny("10.1.0.0/16").verdict("10.1.2.3:80") == V::denied_by_rule);
  CHECK(Site().allow("10.0.0.0/8").deny("10.1.0.0/16").verdict("10.2.2.3:80") == V::permitted);
  CHECK(Site().deny("10.0.0.0/8").allow("10.1.0.0/16").verdict("10.1.2.3:80") == V::permitted);
  CHECK(Site().allow("8.8.8.0/24").deny("8.8.8.0/24").verdict("8.8.8.8:80") == V::denied_by_rule);
  CHECK(Site().allow("8.8.8.8:80").deny("8.8.8.8").verdict("8.8.8.8:80") == V::permitted);
  CHECK(Site().allow("8.8.8.8").deny("8.8.8.8:80").verdict("8.8.8.8:80") == V::denied_by_rule);
  CHECK(Site().allow("8.8.8.8").deny("8.8.8.8:80").verdict("8.8.8.8:81") == V::permitted);
  CHECK(Site().allow("8.8.8.0-8.8.8.9").deny("8.8.8.0-8.8.8.10").verdict("8.8.8.8:80") == V::permitted);
  CHECK(Site().allow("8.8.8.8").deny("8.8.8.0/24").deny("8.8.8.8").allow("8.8.0.0/16").verdict("8.8.8.8:80") == V::denied_by_rule);
  CHECK(Site().deny("8.0.0.0/8").verdict("8.8.8.8:80") == V::denied_by_rule);
}

TEST_CASE("a deny of one port takes no permission away; one of the address does") {
  CHECK(Site().deny("8.8.8.8:25").permission("8.8.8.8") == V::permitted);
  CHECK(Site().deny("8.8.8.8:25").verdict("8.8.8.8:25") == V::denied_by_rule);
  CHECK(Site().deny("8.8.8.8").permission("8.8.8.8") == V::denied_by_rule);
}

TEST_CASE("reflection ports are denied unless an entry names them; other ports, 443 among them, are not [P31, P32]") {
  for (const int port : {19, 53, 111, 123, 137, 161, 389, 1900, 5353, 11211}) {
    const std::string peer = "8.8.8.8:" + std::to_string(port);
    CAPTURE(peer);
    CHECK(Site().verdict(peer) == V::reflection_port);
    CHECK(Site().allow("8.8.8.8").verdict(peer) == V::reflection_port);
    CHECK(Site().allow(peer).verdict(peer) == V::permitted);
    CHECK(Site().allow("8.8.8.0/24:" + std::to_string(port)).verdict(peer) == V::permitted);
    CHECK(Site().allow("127.0.0.1 unsafe").verdict("127.0.0.1:" + std::to_string(port)) == V::reflection_port);
  }
  unsigned denied = 0;
  for (unsigned port = 0; port <= 0xFFFF; ++port)
    denied += PeerPolicy({}).judge({Site::ip("8.8.8.8"), static_cast<std::uint16_t>(port)}, Family::ipv4).verdict != V::permitted;
  CHECK(denied == 13);  // the ten, port 0, and the two of other TURN servers (P30)
}

TEST_CASE("port 0 is refused where a port is needed, on every way to yes [P31]") {
  for (const char* peer : {"8.8.8.8:0", "198.51.100.7:0", "10.9.9.9:0", "127.0.0.1:0"}) {
    Site site;
    site.allow("10.9.9.9").allow("127.0.0.1 unsafe");
    CHECK(site.verdict(peer) == V::reflection_port);
  }
  CHECK(Site().permission("8.8.8.8") == V::permitted);
  // A port given in CreatePermission is judged like everywhere else.
  CHECK(PeerPolicy({}).judge(at("8.8.8.8:53"), Family::ipv4, false).verdict == V::reflection_port);
}

TEST_CASE("permit() makes a peer of exactly what judge() lets pass") {
  const PeerPolicy policy{Site().settings};
  for (const char* peer : {"8.8.8.8:443", "10.0.0.1:443", "127.0.0.1:443", "198.51.100.7:50000", "192.168.0.5:3478", "8.8.8.8:0", "[2002::1]:5"}) {
    const auto address = at(peer);
    PeerJudgement judgement;
    const auto permitted = policy.permit(address, address.family(), true, &judgement);
    CHECK(judgement.verdict == policy.judge(address, address.family()).verdict);
    CHECK(permitted.has_value() == (judgement.verdict == V::permitted || judgement.verdict == V::own_relayed));
    if (permitted) CHECK(permitted->address() == address);
  }
}

TEST_CASE("10,000 random addresses against 128-bit arithmetic, for ranges that are no prefix [P34]") {
  std::mt19937_64 random(8656);
  const auto number = [](const IpAddress& ip) {
    Wide n = 0;
    for (const std::uint8_t b : ip.bytes) n = n << 8 | b;
    return n;
  };
  const auto address = [](Wide n) {
    IpAddress ip;
    for (std::size_t i = 16; i-- > 0; n >>= 8) ip.bytes[i] = static_cast<std::uint8_t>(n);
    return ip;
  };
  const Wide base = number(Site::ip("2a00::"));
  const auto somewhere = [&] {  // under 2a00::/16, of every magnitude, and near each other often
    const Wide wide = (static_cast<Wide>(random()) << 64 | random()) >> (16 + random() % 112);
    return base | wide;
  };
  int inside = 0;
  for (int round = 0; round < 100; ++round) {
    Wide low = somewhere(), high = somewhere();
    if (high < low) std::swap(low, high);
    std::string why;
    const auto parsed = PeerRule::parse(address(low).text() + "-" + address(high).text(), why);
    REQUIRE_MESSAGE(parsed, why);
    PeerPolicySettings settings;
    settings.deny = {*parsed};
    const PeerPolicy policy(settings);
    for (int i = 0; i < 100; ++i) {
      const Wide n = i == 0 ? low : i == 1 ? high : i == 2 ? low - 1 : i == 3 ? high + 1 : somewhere();
      const bool expected = low <= n && n <= high;
      const IpAddress ip = address(n);
      const V v = policy.judge({ip, 443}, ip.family()).verdict;
      inside += expected;
      if ((v == V::denied_by_rule) != expected) FAIL(ip.text() << " in " << parsed->text());
    }
  }
  CHECK(inside > 1000);
}

TEST_CASE("rules are read in every form, and written in one") {
  const std::pair<const char*, const char*> forms[] = {
      {"10.1.2.3:8443", "10.1.2.3:8443"}, {"10.0.0.0/8", "10.0.0.0/8"}, {"[2001:db8::1]:8443", "[2001:db8::1]:8443"},
      {"2001:db8::/32", "2001:db8::/32"}, {"10.0.0.5-10.0.0.9", "10.0.0.5-10.0.0.9"}, {"10.0.0.0/8:8443", "10.0.0.0/8:8443"},
      {"[2001:db8::/32]:8443", "[2001:db8::/32]:8443"}, {"[2001:db8::1]", "2001:db8::1"}, {"127.0.0.1/32 unsafe", "127.0.0.1 unsafe"},
      {" 127.0.0.1:80 \t unsafe ", "127.0.0.1:80 unsafe"}, {"[::1]:80 unsafe", "[::1]:80 unsafe"}, {"::1 unsafe", "::1 unsafe"},
      {"10.0.0.5-10.0.0.9:80", "10.0.0.5-10.0.0.9:80"}};
  for (const auto& [text, written] : forms) {
    CAPTURE(text);
    CHECK(rule(text).text() == written);
    CHECK(rule(rule(text).text()).text() == written);
  }
}

TEST_CASE("what is no rule is refused with a sentence that helps [P35]") {
  const std::pair<const char*, const char*> cases[] = {
      {"", "empty entry"}, {"   ", "empty entry"}, {"127.0.0.0/8 unsafe", "unsafe opens one single address"},
      {"127.0.0.1 unsave", "only the word unsafe"}, {"127.0.0.1 unsafe unsafe", "only the word unsafe"}, {"10.0.0.1:0", "from 1 to 65535"},
      {"10.0.0.1:65536", "from 1 to 65535"}, {"10.0.0.1:http", "from 1 to 65535"}, {"10.0.0.1:", "from 1 to 65535"}, {"10.0.0.1:+80", "from 1 to 65535"},
      {"[2001:db8::1", "closing bracket"}, {"[2001:db8::1]80", "only a port"}, {"[10.0.0.1]:80", "brackets are for IPv6"},
      {"10.1.2.3/8", "did you mean 10.0.0.0/8"}, {"10.0.0.9-10.0.0.1", "reversed"}, {"10.0.0.0/33", "prefix length"}, {"10.0.0.1,10.0.0.2", "not an IP address"},
      {"chat.example.org", "not an IP address"}, {"chat.example.org:8443", "not an IP address"}, {"10.1", "not an IP address"}, {"*", "not an IP address"}};
  for (const auto& [text, hint] : cases) {
    CAPTURE(text);
    std::string why;
    CHECK_FALSE(PeerRule::parse(text, why));
    CHECK_MESSAGE(why.find(hint) != std::string::npos, why);
  }
}

}  // namespace radiotower::net
