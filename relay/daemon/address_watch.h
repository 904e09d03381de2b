// What the relay's addresses follow while it runs: the interfaces of this host, and what the DNS or a STUN server says of the address under
// which a NAT shows us. The control thread asks for new settings when either has changed; no file is read for them.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "config.h"
#include "control.h"
#include "external_address.h"
#include "radiotower/io/socket.h"
#include "radiotower/service/log.h"
#include "settings_builder.h"

namespace radiotower::daemon {

/// Hears of addresses and links that come and go (rtnetlink(7)); takes no privilege. One thread.
class AddressWatch {
 public:
  AddressWatch();
  int descriptor() const { return netlink_.descriptor(); }  // -1: there is no netlink here, and nothing is heard
  /// Takes what has come. True: it may be about addresses, so they are worth a look.
  bool hear();

 private:
  io::Socket netlink_;
};

/// A cable that is pulled and an interface that gets its addresses make many messages: they are looked at together, a second after the first.
inline constexpr nanoseconds addresses_settle = std::chrono::seconds(1);

class FollowedAddresses final : public AddressFollower {
 public:
  using HostAddresses = std::function<std::vector<io::HostAddress>()>;
  /// `wake`: see ExternalAddresses.
  FollowedAddresses(Log& log, std::function<void()> wake, HostAddresses host = io::host_addresses, ExternalAddresses::Ask ask = ask_external);

  /// What is in force from here on: after the start and after each good reload. Asks what relay.external leaves open. `host`: what `built` was made
  /// for; an address that has come or gone since then is seen by the next look.
  void adopt(const Config& config, const Built& built, std::vector<io::HostAddress> host);
  /// At the start: waits for the answers, but no longer than that, and puts them in. `built` as adopted.
  void wait_for_answers(milliseconds patience, Built& built);
  ExternalAnswers answers() const { return external_.answers(); }
  void close() { external_.close(); }  // `wake` is not called any more once this has returned

  int descriptor() const override { return watch_.descriptor(); }
  void hear(Time now) override;
  bool due(Time now) override;
  std::optional<NextSettings> rebuild(std::vector<std::string>& errors) override;

 private:
  Log& log_;
  const HostAddresses host_addresses_;
  AddressWatch watch_;
  ExternalAddresses external_;
  Config config_;
  Built built_;
  std::vector<io::HostAddress> host_;  // as built_ was made for
  std::vector<std::string> said_;      // notes that stand in the log
  Time looks_at_ = never;
  bool answered_ = false;
};

}  // namespace radiotower::daemon
