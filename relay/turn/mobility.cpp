// Mobility (RFC 8016).
#include "server_impl.h"

namespace radiotower::turn {

bool Server::Impl::find_by_ticket(Request&, Actions&) { return true; }

}  // namespace radiotower::turn
