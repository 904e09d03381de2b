// A disk that fails, for a test's child: put before the program with LD_PRELOAD. While the file that
// RADIOTOWER_FAILING_DISK names exists, fsync and fdatasync say EIO and nothing is written through.
#include <dlfcn.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

namespace {

using Sync = int (*)(int);

bool fails() {
  const char* const file = std::getenv("RADIOTOWER_FAILING_DISK");
  return file != nullptr && access(file, F_OK) == 0;
}

int sync_or_fail(const char* call, int descriptor) {
  if (fails()) {
    errno = EIO;
    return -1;
  }
  const auto real = reinterpret_cast<Sync>(dlsym(RTLD_NEXT, call));
  return real(descriptor);
}

}  // namespace

extern "C" int fsync(int descriptor) { return sync_or_fail("fsync", descriptor); }
extern "C" int fdatasync(int descriptor) { return sync_or_fail("fdatasync", descriptor); }
