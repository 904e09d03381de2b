#include "control_socket.h"

namespace radiotower::daemon {

std::unique_ptr<ControlSocket> ControlSocket::start(const OperatorSettings&, Operations&, Log&, std::string& why) {
  why = "not built yet";
  return nullptr;
}

}  // namespace radiotower::daemon
