// What the checks of `radiotower doctor` ask of this host. One interface, so that tests can stand in for a host with any fault.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "radiotower/io/socket.h"
#include "radiotower/net/address.h"

namespace radiotower::cli {

struct FileStatus {
  unsigned mode = 0;  // permission bits
  unsigned uid = 0, gid = 0;
  bool folder = false;
  std::int64_t changed = 0;  // seconds since 1970
};

/// Whom a service runs as, with every group it is in.
struct HostUser {
  std::string name;
  unsigned uid = 0;
  std::vector<unsigned> groups;
};

struct CommandResult {
  int status = 0;
  std::string output;  // standard output
};

struct ClockState {
  std::int64_t now = 0;  // seconds since 1970
  std::optional<bool> synchronised;
};

/// What a request to a server brought: empty when it answered, else a sentence without full stop.
using Answer = std::string;

class Host {
 public:
  virtual ~Host() = default;

  // Files. nullopt: an errno value in `error`.
  virtual std::optional<FileStatus> status(const std::string& path, int& error) const = 0;
  virtual std::optional<std::string> resolve(const std::string& path, int& error) const = 0;  // without links and dots, absolute
  virtual std::optional<std::string> read(const std::string& path, int& error) const = 0;     // up to 4 MiB
  virtual std::vector<std::string> list(const std::string& folder) const = 0;                 // names; empty where there is none
  virtual std::string link(const std::string& path) const = 0;                                // where it points; empty: nowhere

  /// By name or number; "1000:1001" gives the group too.
  virtual std::optional<HostUser> user(const std::string& name) const = 0;
  virtual unsigned own_uid() const = 0;
  virtual std::uint64_t own_descriptor_limit() const = 0;  // the hard one

  /// nullopt: there is no such program, or it ran for more than ten seconds.
  virtual std::optional<CommandResult> run(const std::vector<std::string>& command) const = 0;

  virtual std::vector<io::HostAddress> addresses() const = 0;
  virtual ClockState clock() const = 0;
  /// Sets up a ring. Empty: it works; else why not.
  virtual std::string io_uring_refused() const = 0;
  /// A STUN Binding request by this transport. Certificates are not looked at.
  virtual Answer ask(net::Transport transport, const net::TransportAddress& server) const = 0;

  /// When the relay that runs as this process has last taken its configuration over, seconds since 1970, as it says itself on its control socket.
  /// nullopt: it cannot be asked.
  virtual std::optional<std::int64_t> configured_at([[maybe_unused]] const std::string& control_socket, [[maybe_unused]] int process) const { return std::nullopt; }

  /// The certificate that a server shows, PEM; empty: no TLS there.
  virtual std::string certificate_shown(const net::TransportAddress& server) const = 0;

  // On top of these:
  std::optional<std::int64_t> number(const std::string& path) const;  // the first number in a file
  std::string text(const std::string& path) const;                    // without the blanks round it; empty where it cannot be read
};

std::unique_ptr<Host> this_host();

}  // namespace radiotower::cli
