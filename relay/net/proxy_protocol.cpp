#include "radiotower/net/proxy_protocol.h"

namespace radiotower::net {

ProxyRead read_proxy_header(Bytes, ProxyHeader&, std::size_t&) { return ProxyRead::wrong; }

}  // namespace radiotower::net
