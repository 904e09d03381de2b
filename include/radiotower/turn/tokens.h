// Access tokens of third-party authorisation (RFC 7635). Immutable, shared between threads.
#pragma once

namespace radiotower::turn {

class Tokens {};

}  // namespace radiotower::turn
