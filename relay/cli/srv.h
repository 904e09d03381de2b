// Where a server is (RFC 5928; RFC 8489, 8): SRV records for names without a port, then addresses.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "radiotower/base/bytes.h"
#include "radiotower/base/random.h"
#include "url.h"

namespace radiotower::cli {

struct SrvRecord {
  std::uint16_t priority = 0, weight = 0, port = 0;
  std::string target;  // without the dot at its end; "" where the record says that there is no such service ("." in RFC 2782)
};

/// The SRV records of a DNS answer. nullopt: it is none.
std::optional<std::vector<SrvRecord>> read_srv(Bytes answer);
/// In the order in which they are to be tried: by priority, and by chance as the weights say within one (RFC 2782).
std::vector<SrvRecord> in_order(std::vector<SrvRecord> records, const RandomSource& random);

/// "_turn._udp" and the like.
std::string service_of(Scheme scheme, net::Transport transport);

/// Somewhere to try.
struct Candidate {
  HostPort server;
  net::Transport transport = net::Transport::udp;
  std::string found_by;  // "SRV _turn._udp.example.org"; empty: as it was written
};

struct Lookup {
  std::vector<Candidate> candidates;  // never empty when there is no `why`
  std::string note;                   // for a reader
  std::string why;                    // a sentence when there is nowhere to go
};
/// RFC 5928, 3: an address is taken as it is, so is a name with a port; for a name alone SRV records are asked for, and where there are none
/// its default port is used. `dns`: ask this server instead of this host's; nullopt: those of the host.
Lookup find_servers(const Url& url, const std::optional<net::TransportAddress>& dns, const RandomSource& random);

}  // namespace radiotower::cli
