// The PROXY protocol, versions 1 and 2: every family, every truncation, and garbage told from a header by the first byte that makes it one.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "radiotower/net/proxy_protocol.h"

namespace radiotower::net {

namespace {

using namespace std::string_literals;

ProxyRead read(std::string_view bytes, ProxyHeader& header, std::size_t& length) {
  const std::vector<std::uint8_t> exact(bytes.begin(), bytes.end());  // of its own size, for the sanitizer
  return read_proxy_header(exact, header, length);
}
ProxyRead read(std::string_view bytes) {
  ProxyHeader header;
  std::size_t length = 0;
  return read(bytes, header, length);
}

std::string version_2(unsigned command, unsigned family, std::string_view body, int length = -1) {
  const std::size_t size = length < 0 ? body.size() : static_cast<std::size_t>(length);
  std::string out("\r\n\r\n\0\r\nQUIT\n", 12);
  for (const std::size_t byte : {std::size_t{command}, std::size_t{family}, size >> 8, size & 0xFF}) out += static_cast<char>(byte);
  return out += body;
}

const std::string four = "\xC0\x00\x02\x01\xC6\x33\x64\x02\xC3\x50\x0D\x96"s;  // 192.0.2.1:50000 to 198.51.100.2:3478
const std::string six = "\x20\x01\x0D\xB8\0\0\0\0\0\0\0\0\0\0\0\x01\x20\x01\x0D\xB8\0\0\0\0\0\0\0\0\0\0\0\x02\xC3\x50\x0D\x96"s;
const std::string mapped = "\0\0\0\0\0\0\0\0\0\0\xFF\xFF\xC0\x00\x02\x01\0\0\0\0\0\0\0\0\0\0\xFF\xFF\xC6\x33\x64\x02\xC3\x50\x0D\x96"s;

struct Good {
  std::string bytes;
  const char *client, *server;  // null: local
};
const std::vector<Good>& good() {
  static const std::vector<Good> all{
      {"PROXY TCP4 192.0.2.1 198.51.100.2 50000 3478\r\n", "192.0.2.1:50000", "198.51.100.2:3478"},
      {"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255:65535", "255.255.255.255:65535"},
      {"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", "0.0.0.0:0", "0.0.0.0:0"},
      {"PROXY TCP6 2001:db8::1 2001:DB8::2 50000 3478\r\n", "[2001:db8::1]:50000", "[2001:db8::2]:3478"},
      {"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
       "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535", "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"},
      {"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 1 2\r\n", "192.0.2.1:1", "[2001:db8::2]:2"},
      {"PROXY UNKNOWN\r\n", nullptr, nullptr},
      {"PROXY UNKNOWN \r\n", nullptr, nullptr},
      {"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n", nullptr, nullptr},
      {version_2(0x20, 0x00, ""), nullptr, nullptr},
      {version_2(0x20, 0x11, four), nullptr, nullptr},                // LOCAL: whatever addresses it has are to be ignored
      {version_2(0x20, 0x11, "abc"), nullptr, nullptr},               // and it may have fewer
      {version_2(0x21, 0x00, ""), nullptr, nullptr},                  // AF_UNSPEC
      {version_2(0x21, 0x00, "fields"), nullptr, nullptr},
      {version_2(0x21, 0x10, four), nullptr, nullptr},                // a transport that is not said
      {version_2(0x21, 0x31, std::string(216, 'u')), nullptr, nullptr},  // AF_UNIX
      {version_2(0x21, 0x32, std::string(216, 'u')), nullptr, nullptr},
      {version_2(0x21, 0x11, four), "192.0.2.1:50000", "198.51.100.2:3478"},
      {version_2(0x21, 0x12, four), "192.0.2.1:50000", "198.51.100.2:3478"},
      {version_2(0x21, 0x21, six), "[2001:db8::1]:50000", "[2001:db8::2]:3478"},
      {version_2(0x21, 0x22, six), "[2001:db8::1]:50000", "[2001:db8::2]:3478"},
      {version_2(0x21, 0x21, mapped), "192.0.2.1:50000", "198.51.100.2:3478"},
      {version_2(0x21, 0x11, four + "\x04\x00\x03pad\x20\x00\x05\x01\0\0\0\0"s), "192.0.2.1:50000", "198.51.100.2:3478"},
      {version_2(0x21, 0x11, four + "\xFF\xFF\xFF"s), "192.0.2.1:50000", "198.51.100.2:3478"},  // a field that lies about its length is skipped too
      {version_2(0x21, 0x21, six + std::string(4096 - 16 - 36, 'x')), "[2001:db8::1]:50000", "[2001:db8::2]:3478"},
  };
  return all;
}

}  // namespace

TEST_CASE("a PROXY header tells the addresses, whatever comes behind it") {
  for (const Good& g : good()) {
    CAPTURE(g.bytes);
    for (const std::string behind : {"", "\r\n", "PROXY ", "\x16\x03\x01", "\x00\x01"}) {
      ProxyHeader header;
      header.client.port = 7;
      std::size_t length = 0;
      REQUIRE(read(g.bytes + behind, header, length) == ProxyRead::complete);
      CHECK(length == g.bytes.size());
      CHECK(header.local == !g.client);
      CHECK(header.client == (g.client ? *TransportAddress::parse(g.client) : TransportAddress{}));
      CHECK(header.server == (g.server ? *TransportAddress::parse(g.server) : TransportAddress{}));
    }
  }
}

TEST_CASE("a PROXY header that is cut anywhere is incomplete, and touches nothing") {
  for (const Good& g : good()) {
    CAPTURE(g.bytes);
    for (std::size_t size = 0; size < g.bytes.size(); ++size) {
      ProxyHeader header;
      header.client.port = 7;
      std::size_t length = 99;
      CAPTURE(size);
      REQUIRE(read(std::string_view(g.bytes).substr(0, size), header, length) == ProxyRead::incomplete);
      REQUIRE(length == 99);
      REQUIRE(header.client.port == 7);
    }
  }
}

TEST_CASE("what is no PROXY header is wrong with the first byte that says so") {
  // In each the last byte is the one; without it more would be waited for.
  const std::vector<std::string> first_wrong{
      "G", "\x16", "\x01", "\0"s, "p", "PROXy", "PROXY\t", "PROXY  ", "PROXY X", "PROXY TCP5", "PROXY TCP ", "PROXY TCP44", "PROXY UNKNOWNX",
      "PROXY UNKNOWM", "PROXY U\r", "PROXY \r", "PROXY TCP4\r", "PROXY TCP4 \r", "PROXY TCP4  ", "PROXY TCP4 a", "PROXY TCP4 1.2.3 ",
      "PROXY TCP4 1.2.3.256 ", "PROXY TCP4 1.2.3.04 ", "PROXY TCP4 1.2.3.4.5 ", "PROXY TCP4 :", "PROXY TCP4 1.2.3.4 1.2.3.4\r", "PROXY TCP4 1.2.3.4\t",
      "PROXY TCP4 1.2.3.4 1.2.3.4  ", "PROXY TCP4 1.2.3.4 1.2.3.4 00", "PROXY TCP4 1.2.3.4 1.2.3.4 65536", "PROXY TCP4 1.2.3.4 1.2.3.4 100000",
      "PROXY TCP4 1.2.3.4 1.2.3.4 -", "PROXY TCP4 1.2.3.4 1.2.3.4 +", "PROXY TCP4 1.2.3.4 1.2.3.4 0x", "PROXY TCP4 1.2.3.4 1.2.3.4 1 \r",
      "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 ", "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n", "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\rx", "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\r",
      "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\0"s, "PROXY TCP6 1.2.3.4 ", "PROXY TCP6 g", "PROXY TCP6 fe80::1%", "PROXY TCP6 :: :::: ", "PROXY TCP6 [",
      "PROXY UNKNOWN\n",
      "PROXY UNKNOWN \rx", "PROXY TCP4 " + std::string(16, '1'), "PROXY TCP6 " + std::string(46, '1'),
      "\r\r", "\r\n\r\n\r"s, std::string("\r\n\r\n\0\r\nQUIT\r", 12), version_2(0x11, 0x11, four).substr(0, 13), version_2(0x22, 0x11, four).substr(0, 13),
      version_2(0x21, 0x41, four).substr(0, 14), version_2(0x21, 0x13, four).substr(0, 14), version_2(0x21, 0x11, "", 11), version_2(0x21, 0x21, "", 35),
      version_2(0x21, 0x31, "", 215), version_2(0x21, 0x11, "", 0xFFFF).substr(0, 15), version_2(0x21, 0x11, "", 4081)};
  for (const std::string& bytes : first_wrong) {
    CAPTURE(bytes);
    CHECK(read(bytes) == ProxyRead::wrong);
    CHECK(read(bytes + std::string(5000, ' ')) == ProxyRead::wrong);
    CHECK(read(std::string_view(bytes).substr(0, bytes.size() - 1)) == ProxyRead::incomplete);
  }
}

TEST_CASE("no header is waited for beyond its longest") {
  const std::string endless = "PROXY UNKNOWN " + std::string(5000, 'x');
  CHECK(read(std::string_view(endless).substr(0, 106)) == ProxyRead::incomplete);
  CHECK(read(std::string_view(endless).substr(0, 107)) == ProxyRead::wrong);
  CHECK(read(std::string_view(endless).substr(0, 105)) == ProxyRead::incomplete);
  const std::string just = "PROXY UNKNOWN " + std::string(107 - 16, 'x') + "\r\n", beyond = "PROXY UNKNOWN " + std::string(107 - 15, 'x') + "\r\n";
  CHECK(read(just) == ProxyRead::complete);
  CHECK(read(beyond) == ProxyRead::wrong);
}

}  // namespace radiotower::net
