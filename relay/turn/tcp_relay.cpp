// TCP allocations (RFC 6062).
#include "server_impl.h"

namespace radiotower::turn {

void Server::Impl::connect(Request& request, Actions& out) { refuse(request, stun::ErrorCode::allocation_mismatch, out); }
void Server::Impl::connection_bind(Request& request, Actions& out) { refuse(request, stun::ErrorCode::bad_request, out); }
std::optional<ConnectionId> Server::Impl::peer_accepted(RelayId, const net::TransportAddress&, Now, Actions&) { return std::nullopt; }
void Server::Impl::peer_connected(ConnectionId, Now, Actions&) {}
void Server::Impl::peer_connect_failed(ConnectionId, Now, Actions&) {}
void Server::Impl::peer_gone(ConnectionId, Now, Actions&) {}

}  // namespace radiotower::turn
