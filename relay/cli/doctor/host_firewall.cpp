#include "host_checks.h"

namespace radiotower::cli {

void check_firewall(const Examined&, Findings&) {}

}  // namespace radiotower::cli
