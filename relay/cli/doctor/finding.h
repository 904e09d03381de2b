// What `radiotower doctor` finds: one check, one finding, one sentence that says what is wrong and one that says how to mend it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace radiotower::cli {

enum class Severity : std::uint8_t {
  good,     // as it should be
  unknown,  // could not be looked at from here, and why: no verdict, and no fault
  note,     // good to know
  warning,  // works, but will hurt somebody
  fault,    // does not work
};
std::string_view name(Severity severity);

struct Finding {
  std::string check;     // a stable word for --json and for tests: "certificate.address", "ice.credentials-misspelt"
  Severity severity = Severity::good;
  std::string sentence;  // what is so, without full stop: "the certificate is not for 192.168.0.105, which phones will use"
  std::string mend;      // what to do, empty when nothing: "a certificate with the entry IP:192.168.0.105; `radiotower certificate` makes one"
  std::string key;       // where to do it: "listen.certificate (relay.toml:12)"; empty: nowhere in the configuration
};

/// Takes findings as they are made, so that they can be printed at once.
class Findings {
 public:
  virtual void add(Finding finding) = 0;
  /// Begins a group: "this host", "turn:192.168.0.105:3478?transport=udp".
  virtual void group(std::string_view title) = 0;

 protected:
  ~Findings() = default;
};

}  // namespace radiotower::cli
