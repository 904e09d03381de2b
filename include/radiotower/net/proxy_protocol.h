// The header that a front end puts before a connection, so that the server learns whom it came from: PROXY protocol, versions 1 and 2
// (haproxy's proxy-protocol.txt). Pure.
#pragma once

#include <cstddef>

#include "radiotower/base/bytes.h"
#include "radiotower/net/address.h"

namespace radiotower::net {

struct ProxyHeader {
  bool local = false;       // LOCAL or UNKNOWN: the front end speaks for itself (a health check); the addresses are then the connection's own
  TransportAddress client;  // the source it tells
  TransportAddress server;  // the destination it tells
};

enum class ProxyRead : std::uint8_t { complete, incomplete, wrong };

/// Reads a header at the front of `bytes`. `complete`: `length` bytes of them are it. `incomplete`: more is needed, never more than
/// longest_proxy_header. `wrong`: this is none, and no further byte makes it one.
ProxyRead read_proxy_header(Bytes bytes, ProxyHeader& header, std::size_t& length);
inline constexpr std::size_t longest_proxy_header = 4096;  // version 2 with its additional fields; version 1 has 107 at most

}  // namespace radiotower::net
