// Sockets that the service manager has opened for us (sd_listen_fds(3)): a port below 1024 then takes no capability.
#pragma once

#include <string>
#include <vector>

namespace radiotower {

struct InheritedDescriptor {
  int descriptor = -1;
  std::string name;  // FileDescriptorName= of the .socket unit; by default the unit's name
};

/// Those that LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES give to this process; close-on-exec from here on. Owned by the caller. Takes the variables out of
/// the environment, so a second call finds none. To be called before there is a second thread.
std::vector<InheritedDescriptor> take_inherited_descriptors();

}  // namespace radiotower
