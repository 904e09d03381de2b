// Built without libbpf or clang.
#include "radiotower/offload/offload.h"

namespace radiotower::offload {

std::unique_ptr<Offload> start(const OffloadSettings&, std::string& why) {
  why =
      "this build has no XDP offload (it needs libbpf-dev and clang; meson configure -Doffload=enabled says what is "
      "missing)";
  return nullptr;
}

std::string_view compiled_in() { return "not compiled in"; }

}  // namespace radiotower::offload
