// The address under which a NAT shows us, where nobody can write it down: relay.external = "dns:tower.example.org" asks the DNS for it,
// "stun:stun.example.org:3478" a STUN server, by a Binding request from the relay address itself (RFC 8489, 2).
//
// Each question has a thread of its own, since the resolver of the C library waits for as long as it likes: no worker and no
// control thread ever waits for an answer. What was known last stays known until another answer comes.
#pragma once

#include <atomic>
#include <compare>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "radiotower/base/time.h"
#include "radiotower/net/address.h"
#include "radiotower/service/log.h"

namespace radiotower::daemon {

/// One entry of relay.external.
struct ExternalEntry {
  enum class Kind : std::uint8_t { address, dns, stun };
  Kind kind = Kind::address;
  net::IpAddress address;             // Kind::address
  std::string host;                   // else: a name, for stun an address too
  std::uint16_t port = 3478;          // stun
  std::optional<net::IpAddress> local;  // behind "/": the relay address it is for
  std::string source;                 // what is asked: "dns:tower.example.org", "stun:stun.example.org:3478"; empty for an address
};

/// nullopt: `what` and `hint` say why.
std::optional<ExternalEntry> parse_external(std::string_view text, std::string& what, std::string& hint);

/// Under which address is `local` seen?
struct ExternalQuestion {
  std::string source;  // see ExternalEntry
  net::IpAddress local;
  friend auto operator<=>(const ExternalQuestion&, const ExternalQuestion&) = default;
};
using ExternalAnswers = std::map<ExternalQuestion, net::IpAddress>;

/// Why nobody could reach us under `answer`, as a sentence without full stop; empty: it may be told to clients. `server`: who said so, for STUN.
std::string unfit_external(const net::IpAddress& answer, const net::IpAddress& local, const net::IpAddress* server);

/// Of what a name resolves to: `last` if it is still there, so that a name with several addresses does not change by the minute; else the
/// smallest that is fit.
std::optional<net::IpAddress> choose_external(std::vector<net::IpAddress> answers, const std::optional<net::IpAddress>& last, const net::IpAddress& local,
                                              std::string& why);

/// Asks the DNS or the STUN server, which takes up to 40 seconds (RFC 8489, 6.2.1) or as long as the resolver waits. `stop` cuts a wait for STUN short.
std::optional<net::IpAddress> ask_external(const ExternalQuestion& question, const std::optional<net::IpAddress>& last, const std::atomic<bool>& stop,
                                           std::string& why);

class ExternalAddresses {
 public:
  using Ask = std::function<std::optional<net::IpAddress>(const ExternalQuestion&, const std::optional<net::IpAddress>& last, const std::atomic<bool>& stop,
                                                          std::string& why)>;
  /// `wake` is called from other threads when an answer has changed: see take_change().
  ExternalAddresses(Log& log, std::function<void()> wake, Ask ask = ask_external);
  ~ExternalAddresses();  // close()
  void close();          // nothing is asked, logged or woken any more; does not wait for a resolver that hangs

  /// What is asked from here on: at once, and every `refresh` (0: not again, unless it failed). To be called again after a reload.
  void follow(const std::vector<ExternalQuestion>& questions, seconds refresh);
  /// Waits until all have been asked once. False: some still wait for their answer, which the log says.
  bool wait(milliseconds patience);
  ExternalAnswers answers() const;
  bool take_change();  // true once after an answer has changed

 private:
  struct State;
  std::shared_ptr<State> state_;  // shared with the threads, one of which may be stuck in the resolver when we leave
};

}  // namespace radiotower::daemon
