// What the error codes of STUN and TURN mean to somebody who runs a relay.
#include "ice_checks.h"

namespace radiotower::cli {

namespace {

struct Row {
  std::uint16_t code;
  ErrorMeaning meaning;
};

constexpr Row rows[] = {
    {300, {"ice.redirect", "it sends its clients to another server, as one does that drains or is full",
           "test the other one: `redirect` in its relay.toml says when. Not every client follows, so it should stand in the list too"}},
    {400, {"ice.bad-request", "it did not understand the request", "is it a TURN server, and a current one? Its log says what it did not like"}},
    {401, {"ice.credentials", "it does not take this user name and password", ""}},  // what to do depends on where they are from
    {403, {"ice.client-refused", "it does not serve clients from here",
        "the server's list of denied clients: this host's address is on it, or not on its list of allowed ones"}},
    {420, {"ice.unknown-attribute", "it does not know something that this request needs", "an old TURN server: a newer version of it"}},
    {437, {"ice.mismatch", "it holds another allocation of this address and port, or has none where one should be",
           "an address translator in between uses ports again too soon, or the server was restarted: try once more in some minutes"}},
    {438, {"ice.nonce", "it calls each of its own nonces stale",
        "a load balancer that spreads one client over several servers: it has to keep each client on one"}},
    {440, {"ice.family", "it has no relayed address of this family", "relay.addresses in relay.toml: an address of this family (IPv4, IPv6)"}},
    {441, {"ice.other-user", "the allocation belongs to another user name",
        "one allocation belongs to one user name for all its life: two clients behind one address and port?"}},
    {442, {"ice.protocol", "it does not relay UDP", "the server's configuration: media of calls is UDP"}},
    {443, {"ice.peer-family", "the peer's address is of another family (IPv4, IPv6) than the relayed one",
           "relay.addresses in relay.toml: an address of the media server's family too"}},
    {446, {"ice.tcp-peer", "there is a TCP connection to this peer already (RFC 6062)", "the client's version: it must not connect twice"}},
    {447, {"ice.tcp-peer", "it cannot reach the peer over TCP (RFC 6062)", "the peer's port, and a firewall between the server and the peer"}},
    {486, {"ice.quota", "this user has as many allocations as one may have; a browser makes up to a dozen for one call",
           "limits.allocations_per_user in relay.toml: 24 or more (coturn: user-quota); those of ended calls go by themselves within ten minutes"}},
    {487, {"ice.role-conflict", "it takes itself for the other end of a call (RFC 8445)",
        "this is an ICE client's port, such as 8443 of Calls or rtcd, and no TURN server's"}},
    {500, {"ice.server-error", "something inside it went wrong", "the server's log"}},
    {508, {"ice.capacity", "it takes no new allocation: it drains, has no relay port left, or has reached its limit",
           "`radiotower drain --cancel` if it drains; else relay.ports and limits.allocations in relay.toml, and on its host: is another "
               "program using the relay ports?"}},
};

}  // namespace

ErrorMeaning meaning_of(std::uint16_t code) {
  for (const auto& row : rows)
    if (row.code == code) return row.meaning;
  return {"ice.error", "it refuses, with a code that no standard has", "the server's log"};
}

}  // namespace radiotower::cli
