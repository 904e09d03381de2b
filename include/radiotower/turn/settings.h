// What an operator can set of the protocol core. Immutable once made and shared as shared_ptr<const Settings>;
// a reload builds a new one and every worker swaps it between two turns of its loop.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "radiotower/base/time.h"
#include "radiotower/net/address.h"
#include "radiotower/net/peer_policy.h"
#include "radiotower/turn/directory.h"
#include "radiotower/turn/tokens.h"

namespace radiotower::turn {

struct Limits {  // 0: no limit
  std::uint32_t allocations_per_user = 24;  // REST users; a users_file name has one only where its line gives one
  std::uint64_t bytes_per_second_per_user = 12'500'000;  // relayed payload, both directions together; REST users likewise
  std::uint64_t packets_per_second_per_user = 25'000;
  std::uint32_t allocations = 0;  // of the whole relay
  std::uint32_t permissions_per_allocation = 256;
  std::uint32_t channels_per_allocation = 64;
  std::uint32_t new_peers_per_second = 5;  // new permissions on one allocation, sustained; bursts of 128 are let through (X09)
  std::uint32_t error_answers_per_second = 10;     // to one unproved transport address; fifty times that to one IP address
  std::uint32_t binding_answers_per_second = 100;  // likewise, for Binding successes
};

/// A local address relayed addresses are bound on, and the one clients are told (the same unless a NAT stands before us).
struct RelayAddress {
  net::IpAddress local;
  net::IpAddress external;
};

/// A realm beside the default one: its own users and secrets, and its own limits (RFC 8656, 5; draft-ietf-tram-stun-origin, 3).
/// A request is of the realm of the listener it came to, else of that of its first ORIGIN that is known, else of the default one.
struct Realm {
  std::string name;
  std::shared_ptr<const Directory> directory;  // never null; of the same name
  Limits limits;  // of its users and their allocations; `allocations`: of this realm; the rates of answers are those of the relay
  std::vector<std::string> origins;  // "https://call.example.org", in small letters; each in one realm alone
  std::vector<net::TransportAddress> listeners;  // concrete; likewise
};

/// Sending clients to other relays: 300 with ALTERNATE-SERVER (RFC 8489, 10; RFC 8656, 7.2), to authenticated Allocate requests alone.
/// A client gets one of the servers of its own address family, always the same one; without any it is served, or refused with 508.
struct Redirect {
  enum class When : std::uint8_t {
    draining,  // while `Settings::draining`
    full,      // then too, and when limits.allocations is reached or no relay port is left
    always,    // a relay that only spreads load
  };
  When when = When::draining;
  std::vector<net::TransportAddress> servers;         // without our own listeners
  std::vector<net::TransportAddress> secure_servers;  // for clients over TLS and DTLS, whose port is another; empty: `servers`
  std::string domain;  // ALTERNATE-DOMAIN beside it, for the same clients (RFC 8489, 14.16); empty: none
};

struct Settings {
  std::string realm = "radiotower";  // the default realm, with its `limits` and `directory`
  Limits limits;
  std::vector<Realm> realms;  // the others
  std::vector<RelayAddress> relay_addresses;  // in order of preference; a change is for new allocations alone: see Shared::offer
  std::uint16_t first_port = 32768;           // likewise
  std::uint16_t last_port = 65535;
  seconds default_lifetime{600};  // RFC 8656, 7.2
  seconds max_lifetime{3600};
  seconds nonce_lifetime{600};
  bool authentication = true;   // false: an open relay, which only `credentials.open_relay_for_everyone = true` makes
  bool strict_expiry = false;   // true: a Refresh after the REST credential's expiry is refused (401)
  bool dont_fragment = true;    // DF can be set on a relayed datagram; false: DONT-FRAGMENT is answered 420 (RFC 8656, 7.2)
  bool rfc5766_channel_numbers = false;  // 0x5000-0x7FFF too, as RFC 5766 had them; off, since RFC 7983 gave them to others
  bool draining = false;        // no new allocations: 300 where `redirect` has a server, else 508
  Redirect redirect;
  std::vector<net::AddressRange> denied_clients;  // Allocate from there: 403
  bool denies(const net::IpAddress& client) const {
    return std::any_of(denied_clients.begin(), denied_clients.end(), [&](const auto& range) { return range.contains(client); });
  }
  bool tcp_relay = false;        // RFC 6062
  bool mobility = false;         // RFC 8016
  bool nat_discovery = false;    // RFC 5780
  bool authenticated_binding = false;  // Binding requests need credentials too
  bool keep_address_family = false;    // no REQUESTED-ADDRESS-FAMILY: that of the client, and not IPv4 (RFC 8656, 7.2 says IPv4)
  std::shared_ptr<const Tokens> tokens;            // RFC 7635; null: off
  std::vector<net::TransportAddress> stun_only;    // listeners that take nothing but Binding
  bool answer_software = false;  // SOFTWARE in answers to authenticated requests
  std::vector<net::TransportAddress> listeners;  // concrete; a datagram that claims to come from one is dropped
  std::shared_ptr<const Directory> directory;    // never null
  std::shared_ptr<const net::PeerPolicy> peers;  // never null
};

}  // namespace radiotower::turn
