#include <doctest/doctest.h>

#include "radiotower/net/host_header.h"

using namespace radiotower;

TEST_CASE("host header: on loopback a name that DNS could lead here is none of this host") {
  for (const char* good : {"", "127.0.0.1", "127.0.0.1:9641", "192.0.2.7", "[::1]", "[::1]:9641", "::1", "localhost", "LocalHost:9641", "relay.localhost", "a.b.localhost:80", "localhost:"})
    CHECK_MESSAGE(net::names_this_host(good), good);
  for (const char* bad : {"x", "evil.example", "evil.example:9641", "127.0.0.1.evil.example", "localhost.evil.example", "evillocalhost", "127.0.0.1:x", "[127.0.0.1]",
                          "[::1", "[::1]x", "[]", ":9641x", "127.1", "0x7f000001", "localhost:80:80", "127.0.0.1@evil.example", "localhost localhost evil"})
    CHECK_MESSAGE(!net::names_this_host(bad), bad);
}
