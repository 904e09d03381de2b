// What is looked at on the host, and the checks. Each check is one function: it takes what has been found out about the host, asks the host
// for the rest, and makes findings. None changes anything.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/config.h"
#include "daemon/settings_builder.h"
#include "finding.h"
#include "host.h"

namespace radiotower::cli {

/// What the command line of `radiotower doctor` says about the host.
struct HostQuestion {
  std::string config_file;              // empty: the defaults of the relay
  std::optional<net::IpAddress> phone;  // the address of this host that phones are given
  std::string user;                     // whom the relay runs as; empty: found out
  std::string ca_file;                  // the CA that phones have been told to trust
  std::string name;                     // the name that clients are given, beside the address
  std::optional<net::TransportAddress> media_server;
};

/// What the unit of systemd says, drop-ins over it.
struct Unit {
  bool found = false;
  std::string user;
  std::string capabilities;                        // AmbientCapabilities=
  std::optional<std::uint64_t> descriptor_limit;   // LimitNOFILE=
  std::map<std::string, std::string> credentials;  // LoadCredential=: name -> file
};

/// A socket of this network namespace that is bound: UDP, or TCP that listens.
struct BoundSocket {
  net::Transport transport = net::Transport::udp;
  net::TransportAddress local;
  std::uint64_t inode = 0;
  unsigned uid = 0;
  int pid = 0;            // 0: not known, which only root is told
  std::string program;    // "turnserver", of `pid`
  bool is_guess = false;  // of a server that the same user runs
};

struct Examined {
  const Host& host;
  const HostQuestion& question;
  daemon::Config config;
  bool config_is_read = false;   // without a mistake
  bool nothing_is_read = false;  // it is no TOML, or there is no such file
  std::optional<daemon::Built> built;  // perhaps without what has mistakes: a check then sees the rest
  ConfigErrors mistakes;               // of the settings
  std::vector<io::HostAddress> addresses;
  net::IpAddress phone;        // as given, or a guess; "::" where there is none
  bool phone_is_given = false;
  Unit unit;
  std::optional<HostUser> user;  // whom the relay runs as
  std::string user_from;         // how that is known: "--user", "the unit", "the relay that runs"
  std::vector<BoundSocket> sockets;
  int relay = 0;               // the process of the relay that has our ports; 0: none is seen
  bool owners_are_known = false;  // whose sockets these are: root is told

  /// "listen.udp (relay.toml:12)", or the key alone where it is not set.
  std::string where(std::string_view key) const;
  const io::HostAddress* of_host(const net::IpAddress& ip) const;
};

/// All of them, in groups.
void check_host(const Host& host, const HostQuestion& question, Findings& findings);

// In this order. Each in the file of its name: host_TOPIC.cpp.
Examined examine(const Host& host, const HostQuestion& question, Findings& findings);   // host_examine.cpp; reports mistakes of the file
void check_credentials(const Examined& e, Findings& findings);
void check_certificate(const Examined& e, Findings& findings);
void check_settings(const Examined& e, const std::vector<std::string>& said, Findings& findings);  // mistakes that no other check has said
void check_addresses(const Examined& e, Findings& findings);
void check_listeners(const Examined& e, Findings& findings);
void check_relay_ports(const Examined& e, Findings& findings);
void check_peers(const Examined& e, Findings& findings);
void check_firewall(const Examined& e, Findings& findings);
void check_kernel(const Examined& e, Findings& findings);
void check_clock(const Examined& e, Findings& findings);
void check_offload(const Examined& e, Findings& findings);
void check_service(const Examined& e, Findings& findings);

// Parts of them, for tests and for each other.

/// What keeps a user from reading a file: a sentence without full stop that names the folder or file in the way; empty: nothing.
/// Permission bits alone: access lists are not looked at.
std::string in_the_way(const Host& host, const std::string& path, const HostUser& user);
/// The bound sockets of /proc/net, with owners where they can be told.
std::vector<BoundSocket> bound_sockets(const Host& host, bool& owners_are_known);
Unit read_unit(const Host& host);
/// By its name: a network between containers or virtual machines of this host, which nobody outside reaches.
bool is_inside_of_host(std::string_view interface);
bool is_relay(std::string_view program);
/// "coturn" for the program of another TURN server, else empty.
std::string_view turn_server_of(std::string_view program);
std::string joined(const std::vector<std::string>& texts);

}  // namespace radiotower::cli
