// What a NAT does, found out from behind it (RFC 5780, 4): the tests and what follows from them, without a socket.
//
// Each finding is about the moment and the server it was made with (RFC 5780, 1): a NAT may treat the next flow otherwise.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "radiotower/net/address.h"

namespace radiotower::cli {

/// What the tests ask of the network. Local sockets are numbers; each is a fresh one, so that the NAT knows nothing of it.
class NatProbes {
 public:
  struct Ask {
    unsigned from = 0;
    net::TransportAddress to;
    bool change_ip = false, change_port = false;
    std::uint16_t response_port = 0;  // 0: without RESPONSE-PORT
    unsigned answer_at = 0;           // with it: where the answer is awaited too, beside `from`
    std::size_t padding = 0;          // 0: without PADDING
  };
  struct Answer {
    enum class Kind : std::uint8_t { success, error, silence } kind = Kind::silence;
    std::uint16_t code = 0;         // of an error
    unsigned arrived_at = 0;
    net::TransportAddress source;   // where it came from
    net::TransportAddress mapped;   // XOR-MAPPED-ADDRESS
    std::optional<net::TransportAddress> plain_mapped, origin, other;
    bool padded = false;
    bool ok() const { return kind == Kind::success; }
  };

  virtual ~NatProbes() = default;
  /// nullopt, with a sentence in `failure()`, when there is no socket to be had.
  virtual std::optional<unsigned> open() = 0;
  virtual net::TransportAddress local(unsigned socket) const = 0;
  /// One Binding transaction, sent again as RFC 8489, 6.2.1 says.
  virtual Answer ask(const Ask& ask) = 0;
  /// Both send Binding requests to the other's mapped address; true when one of them hears one.
  virtual bool meet(unsigned a, const net::TransportAddress& mapped_a, unsigned b, const net::TransportAddress& mapped_b) = 0;
  virtual void wait(std::chrono::milliseconds time) = 0;
  virtual std::string failure() const = 0;
};

enum class Dependence : std::uint8_t { endpoint_independent, address_dependent, address_and_port_dependent };
std::string_view name(Dependence dependence);  // "endpoint-independent" ...

/// A finding, or why there is none.
template <typename Value>
struct Finding {
  std::optional<Value> value;
  std::string why_not;  // one sentence without full stop, when there is no value
};

/// A server that can tell: found by a first Binding request.
struct NatServer {
  net::TransportAddress first;   // A1:P1
  net::TransportAddress other;   // A2:P2
  net::TransportAddress mapped;  // of the first request
  bool translated = false;
  bool rewritten = false;  // MAPPED-ADDRESS and XOR-MAPPED-ADDRESS differ: something on the way changes addresses inside of packets (3.6)
};
Finding<NatServer> find_server(NatProbes& probes, const net::TransportAddress& first);  // RFC 5780, 4.2

struct Mapping {
  Dependence dependence = Dependence::endpoint_independent;
  bool keeps_port = false;  // the mapped port was the local one
};
Finding<Mapping> find_mapping(NatProbes& probes, const NatServer& server);        // RFC 5780, 4.3
Finding<Dependence> find_filtering(NatProbes& probes, const NatServer& server);   // 4.4
Finding<bool> find_hairpinning(NatProbes& probes, const NatServer& server);       // 3.4: do two hosts behind the NAT meet outside of it
Finding<bool> find_fragments(NatProbes& probes, const NatServer& server);         // 3.5: both ways
inline constexpr std::size_t fragment_padding = 1500;

/// Bisects how long a mapping lasts that nobody uses (RFC 5780, 4.6). Pure.
class LifetimeSearch {
 public:
  explicit LifetimeSearch(std::chrono::seconds longest) : high_(longest), longest_(longest) {}

  /// How long to leave the next mapping alone; nullopt: it is known closely enough, to a sixteenth of the longest or one second.
  std::optional<std::chrono::seconds> next() const;
  void heard(std::chrono::seconds after, bool alive);

  std::chrono::seconds alive_after() const { return low_; }
  std::chrono::seconds dead_after() const { return high_; }  // meaningless while outlives()
  bool outlives() const { return low_ >= longest_; }
  static unsigned most_tries() { return 5; }  // each takes up to `longest`

 private:
  std::chrono::seconds low_{0}, high_, longest_;
  bool asked_longest_ = false;
};
Finding<LifetimeSearch> find_lifetime(NatProbes& probes, const NatServer& server, std::chrono::seconds longest);

// What it means to a call: a clause to stand behind the finding.
std::string_view meaning_of_mapping(Dependence dependence);
std::string_view meaning_of_filtering(Dependence dependence);
/// The sum, one sentence without full stop.
std::string verdict(bool translated, const Finding<Mapping>& mapping, const Finding<Dependence>& filtering);

}  // namespace radiotower::cli
