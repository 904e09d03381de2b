// What an operator can set of the protocol core. Immutable once made and shared as shared_ptr<const Settings>;
// a reload builds a new one and every worker swaps it between two turns of its loop.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
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

struct Settings {
  std::string realm = "radiotower";
  Limits limits;
  std::vector<RelayAddress> relay_addresses;  // in order of preference; fixed for the life of the process
  std::uint16_t first_port = 32768;           // fixed for the life of the process
  std::uint16_t last_port = 65535;
  seconds default_lifetime{600};  // RFC 8656, 7.2
  seconds max_lifetime{3600};
  seconds nonce_lifetime{600};
  bool authentication = true;   // false: an open relay, which only `credentials.open_relay_for_everyone = true` makes
  bool strict_expiry = false;   // true: a Refresh after the REST credential's expiry is refused (401)
  bool dont_fragment = true;    // DF can be set on a relayed datagram; false: DONT-FRAGMENT is answered 420 (RFC 8656, 7.2)
  bool rfc5766_channel_numbers = false;  // 0x5000-0x7FFF too, as RFC 5766 had them; off, since RFC 7983 gave them to others
  bool draining = false;        // no new allocations: 300 with `alternate_server` when one is set, else 508
  std::optional<net::TransportAddress> alternate_server;
  std::vector<net::AddressRange> denied_clients;  // Allocate from there: 403
  std::string alternate_domain;  // ALTERNATE-DOMAIN beside it, for clients over TLS and DTLS (RFC 8489, 14.16)
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
