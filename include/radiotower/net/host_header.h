// The Host of an HTTP request (RFC 9110, 7.2) to a server that is for its own host alone.
#pragma once

#include <string_view>

namespace radiotower::net {

/// Whether no web page can have been loaded from it: an IP address, "localhost", "*.localhost" (RFC 6761, 6.3), or none, with a port or without. A
/// page whose name is made to lead to 127.0.0.1 (DNS rebinding) would otherwise read in the operator's browser what is for the host alone.
bool names_this_host(std::string_view host);

}  // namespace radiotower::net
