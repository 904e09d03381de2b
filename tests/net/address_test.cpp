// Addresses have one form. Text that is not exactly an address is refused, since a shorthand is a second spelling.
#include <doctest/doctest.h>

#include <arpa/inet.h>
#include <netinet/in.h>

#include <cstring>

#include "radiotower/net/address.h"

namespace radiotower::net {

namespace {

std::string why_not(std::string_view text) {
  std::string why;
  return AddressRange::parse(text, why) ? "" : why;
}

AddressRange range(std::string_view text) {
  std::string why;
  const auto parsed = AddressRange::parse(text, why);
  REQUIRE_MESSAGE(parsed, why);
  return *parsed;
}

}  // namespace

TEST_CASE("IPv4 has one spelling, mapped or not") {
  const auto plain = IpAddress::parse("192.0.2.1");
  REQUIRE(plain);
  CHECK(plain == IpAddress::parse("::ffff:192.0.2.1"));
  CHECK(plain == IpAddress::parse("0:0:0:0:0:FFFF:c000:201"));
  CHECK(*plain == IpAddress::v4(0xC0000201));
  CHECK(plain->is_v4());
  CHECK(plain->family() == Family::ipv4);
  CHECK(plain->v4_host_order() == 0xC0000201);
  CHECK(plain->text() == "192.0.2.1");
  CHECK(IpAddress::parse("2001:DB8:0:0::1")->text() == "2001:db8::1");
}

TEST_CASE("text that is no address is refused, shorthands among it") {
  for (const char* bad : {"", "10.1", "10", "010.0.0.1", "10.0.0.01", "0x7f.0.0.1", "1.2.3.4.5", "1.2.3.256", " 10.0.0.1", "10.0.0.1 ",
                          "10.0.0.1\n", "[::1]", "fe80::1%eth0", "::1::", ":::", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "12345::", "localhost",
                          "10.0.0.1:80", "10.0.0.0/8", "::ffff:1.2.3"}) {
    CAPTURE(bad);
    CHECK_FALSE(IpAddress::parse(bad));
  }
  CHECK_FALSE(IpAddress::parse(std::string_view("10.0.0.1\0.evil", 14)));
  CHECK_FALSE(IpAddress::parse(std::string(4096, '1')));
}

TEST_CASE("transport addresses are read and written in one form") {
  for (const char* good : {"192.0.2.1:3478", "[2001:db8::1]:3478", "0.0.0.0:0", "[::]:65535"}) CHECK(TransportAddress::parse(good)->text() == good);
  for (const char* bad : {"192.0.2.1", "192.0.2.1:", "192.0.2.1:65536", "192.0.2.1:-1", "192.0.2.1:+1", "192.0.2.1: 1", "192.0.2.1:1x", "192.0.2.1:0x1",
                          "2001:db8::1:3478", "[2001:db8::1]", "[2001:db8::1]3478", "[2001:db8::1]:", "[192.0.2.1]:80", "[:1", ":80", "[]:80", ""}) {
    CAPTURE(bad);
    CHECK_FALSE(TransportAddress::parse(bad));
  }
}

TEST_CASE("a sockaddr goes there and back; a mapped one becomes IPv4; a scope stays with link-local alone") {
  for (const char* text : {"192.0.2.1:3478", "[2001:db8::1]:3478"}) {
    std::uint8_t buffer[28];
    const auto address = *TransportAddress::parse(text);
    const std::size_t length = address.to_sockaddr(buffer);
    CHECK(length == (address.ip.is_v4() ? 16u : 28u));
    CHECK(TransportAddress::from_sockaddr(reinterpret_cast<const sockaddr*>(buffer), length) == address);
    for (std::size_t cut = 0; cut < length; ++cut) CHECK_FALSE(TransportAddress::from_sockaddr(reinterpret_cast<const sockaddr*>(buffer), cut));
  }
  sockaddr_in6 in{};
  in.sin6_family = AF_INET6;
  in.sin6_port = htons(7);
  in.sin6_scope_id = 3;
  inet_pton(AF_INET6, "::ffff:10.0.0.1", &in.sin6_addr);
  const auto mapped = TransportAddress::from_sockaddr(reinterpret_cast<const sockaddr*>(&in), sizeof in);
  CHECK(mapped == TransportAddress::parse("10.0.0.1:7"));
  inet_pton(AF_INET6, "fe80::1", &in.sin6_addr);
  CHECK(TransportAddress::from_sockaddr(reinterpret_cast<const sockaddr*>(&in), sizeof in)->scope == 3);
  in.sin6_family = AF_UNIX;
  CHECK_FALSE(TransportAddress::from_sockaddr(reinterpret_cast<const sockaddr*>(&in), sizeof in));
}

TEST_CASE("kinds of addresses") {
  for (const char* a : {"0.0.0.0", "::"}) CHECK(IpAddress::parse(a)->is_unspecified());
  for (const char* a : {"127.0.0.1", "127.255.255.255", "::1"}) CHECK(IpAddress::parse(a)->is_loopback());
  for (const char* a : {"224.0.0.1", "239.255.255.255", "ff02::1"}) CHECK(IpAddress::parse(a)->is_multicast());
  for (const char* a : {"169.254.1.1", "fe80::1", "febf::1"}) CHECK(IpAddress::parse(a)->is_link_local());
  for (const char* a : {"8.8.8.8", "2001:db8::1", "::2", "128.0.0.1", "223.255.255.255", "240.0.0.1", "fec0::1"}) {
    const auto ip = *IpAddress::parse(a);
    CHECK_FALSE((ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || ip.is_link_local()));
  }
}

TEST_CASE("a range holds its ends and nothing beside them, of its own family") {
  const auto ten = range("10.0.0.0/8");
  CHECK(ten.contains(*IpAddress::parse("10.0.0.0")));
  CHECK(ten.contains(*IpAddress::parse("10.255.255.255")));
  CHECK_FALSE(ten.contains(*IpAddress::parse("9.255.255.255")));
  CHECK_FALSE(ten.contains(*IpAddress::parse("11.0.0.0")));
  CHECK_FALSE(range("::/0").contains(*IpAddress::parse("10.0.0.1")));
  CHECK(range("::/0").contains(*IpAddress::parse("ffff::")));
  CHECK_FALSE(range("0.0.0.0/0").contains(*IpAddress::parse("::1")));
  CHECK(range("0.0.0.0/0").contains(*IpAddress::parse("255.255.255.255")));
}

TEST_CASE("a range is written in the form it is read in") {
  for (const char* text : {"10.0.0.0/8", "10.1.2.3", "10.1.2.3-10.1.2.9", "0.0.0.0/0", "192.0.2.4/31", "2001:db8::/32", "2001:db8::1",
                           "2001:db8::1-2001:db8::ff", "::/0", "::/80"}) {
    CHECK(range(text).text() == text);
    CHECK(range(range(text).text()) == range(text));
  }
  CHECK(range("10.1.2.3/32").text() == "10.1.2.3");
  CHECK(range("10.0.0.0-10.0.0.255").text() == "10.0.0.0/24");
  CHECK(range("10.0.0.0/8").prefix_length() == 8u);
  CHECK(range("::1").prefix_length() == 128u);
  CHECK(range("10.1.2.3").prefix_length() == 32u);
  CHECK_FALSE(range("10.0.0.1-10.0.0.2").prefix_length());
}

TEST_CASE("every prefix length gives its own range [P33]") {
  for (unsigned length = 0; length <= 128; ++length) {
    const auto r = range("::/" + std::to_string(length));
    if (length != 128) CHECK(r.prefix_length() == length);
  }
  for (unsigned length = 0; length <= 32; ++length) {
    const auto r = range("0.0.0.0/" + std::to_string(length));
    CHECK(std::uint64_t{r.last.v4_host_order()} + 1 == (std::uint64_t{1} << (32 - length)));
  }
}

TEST_CASE("a range that says two things is refused with a sentence that helps [P35]") {
  CHECK(why_not("10.1.2.3/8") == "\"10.1.2.3/8\" has bits set behind its prefix; did you mean 10.0.0.0/8?");
  CHECK(why_not("10.0.0.9-10.0.0.5") == "\"10.0.0.9-10.0.0.5\" is a reversed range; did you mean 10.0.0.5-10.0.0.9?");
  CHECK(why_not("10.0.0.1-2001:db8::1").find("mixes IPv4 and IPv6") != std::string::npos);
  CHECK(why_not("10.0.0.0/33") == "\"/33\" is not a prefix length from 0 to 32");
  CHECK(why_not("2001:db8::/129") == "\"/129\" is not a prefix length from 0 to 128");
  for (const char* bad : {"", "10.0.0.0/", "10.0.0.0/+8", "10.0.0.0/8x", "10.0.0.0/ 8", "/8", "10/8", "a.b.c.d/8", "10.0.0.1-", "-10.0.0.1", "10.0.0.0/8/8",
                          "10.0.0.0/255.0.0.0", "10.0.0.0-10.0.0.5-10.0.0.9", "chat.example.org", "10.0.0.0/99999999999"}) {
    CAPTURE(bad);
    CHECK_FALSE(why_not(bad).empty());
    CHECK(why_not(bad).back() != '.');
  }
}

}  // namespace radiotower::net
