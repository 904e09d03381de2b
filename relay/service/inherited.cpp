#include "radiotower/service/inherited.h"

#include <fcntl.h>
#include <unistd.h>

#include <charconv>
#include <cstdlib>
#include <string_view>

namespace radiotower {

namespace {

constexpr int first_descriptor = 3;  // SD_LISTEN_FDS_START
constexpr int most_descriptors = 4096;

long number_in(const char* name) {
  const char* const text = std::getenv(name);
  long number = -1;
  if (!text) return -1;
  const std::string_view view(text);
  const auto [end, error] = std::from_chars(view.data(), view.data() + view.size(), number);
  return error == std::errc() && end == view.data() + view.size() ? number : -1;
}

}  // namespace

std::vector<InheritedDescriptor> take_inherited_descriptors() {
  std::vector<InheritedDescriptor> found;
  const long count = number_in("LISTEN_FDS");
  const char* const given = std::getenv("LISTEN_FDNAMES");
  std::string names = given ? given : "";
  const bool ours = number_in("LISTEN_PID") == getpid();
  for (const char* name : {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"}) unsetenv(name);
  if (!ours || count <= 0 || count > most_descriptors) return found;
  for (int d = first_descriptor; d < first_descriptor + static_cast<int>(count); ++d) {
    const std::size_t colon = names.find(':');
    const std::string name = names.substr(0, colon);
    names.erase(0, colon == std::string::npos ? names.size() : colon + 1);
    if (fcntl(d, F_SETFD, FD_CLOEXEC) == 0) found.push_back({d, name});  // else it is not open
  }
  return found;
}

}  // namespace radiotower
