// From a Config and what this host is to the settings of the protocol core. Reads the secrets and users files; used at start
// and at every reload alike, so that both refuse the same mistakes.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "config.h"
#include "config_changes.h"
#include "connection_settings.h"
#include "external_address.h"
#include "radiotower/io/socket.h"
#include "radiotower/offload/offload.h"
#include "radiotower/turn/settings.h"

namespace radiotower::daemon {

struct Built {
  std::shared_ptr<const turn::Settings> settings;
  std::shared_ptr<const ConnectionSettings> connections;
  std::shared_ptr<const tls::Identity> identity;  // of `connections`; null: no certificate is given
  std::vector<net::TransportAddress> listeners;  // of UDP. Wildcards expanded: one a usable address of the host
  std::vector<net::TransportAddress> tcp, tls, dtls;  // likewise; an address is in one of tcp and tls alone
  FileFacts facts;                               // of what was read, for the next reload
  std::vector<ExternalQuestion> questions;       // what relay.external leaves to the DNS or to a STUN server, for these relay addresses
  std::vector<std::string> notes;                // what an operator should know: sentences for the log
};

/// `config` as read_config() left it, its texts checked. `host`: the addresses of this host (io::host_addresses()).
/// nullopt: `errors` has grown, and the settings before stay. `known`: answers to questions; where there is none, clients are told the local address.
std::optional<Built> build_settings(const Config& config, const std::vector<io::HostAddress>& host, ConfigErrors& errors, const ExternalAnswers& known = {});

/// The same configuration on a host whose addresses have changed, or with other answers: reads no file, and is more patient, since nobody has made
/// a mistake. An address that a key names and that has gone is waited for: its listeners stay, and it is relayed from again when it is back.
std::optional<Built> rebuild_addresses(const Config& config, const Built& before, std::vector<io::HostAddress> host, const ExternalAnswers& known,
                                       ConfigErrors& errors);

/// What offload.xdp asks for, without addresses; nullopt: nothing.
std::optional<offload::OffloadSettings> offload_settings(const Config& config);

/// What --print-config adds below the keys, as comments: wildcards and defaults spelt out for this host.
std::string print_on_host(const Config& config, const std::vector<io::HostAddress>& host);

}  // namespace radiotower::daemon
