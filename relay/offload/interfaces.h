// On which interfaces the program can run, and putting it there.
#pragma once

#include <string>
#include <vector>

#include "radiotower/net/address.h"
#include "radiotower/offload/offload.h"

namespace radiotower::offload {

/// Names of the interfaces that are up and carry one of `addresses`, each once, without the loopback.
std::vector<std::string> interfaces_with(const std::vector<net::IpAddress>& addresses);

/// The program on one interface. Goes with the process: a link that nobody has pinned dies with its last descriptor.
class Link {
 public:
  Link() = default;
  Link(Link&& other) noexcept;
  Link& operator=(Link&&) = delete;
  ~Link();

  /// In the driver, or in generic mode if that is allowed and the driver cannot. Never in place of another program.
  /// false, and in `why` what stands in the way ("eth0: the driver has no native XDP").
  /// `automatic`: nobody has named it, so that a veth is refused where the kernel (before 6.3) does not tell of its
  /// other end.
  bool attach(int program, const Interface& interface, bool automatic, std::string& why);

  const Attached& attached() const { return attached_; }
  /// Frames that came in by another interface may leave by this one.
  bool transmits() const { return transmits_; }
  bool is_veth() const { return is_veth_; }

 private:
  int descriptor_ = -1;
  Attached attached_;
  bool transmits_ = false, is_veth_ = false;
};

}  // namespace radiotower::offload
