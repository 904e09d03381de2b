// The file of a listening Unix socket (control, metrics): how it comes to be there, and goes.
#pragma once

#include <sys/types.h>

#include <string>
#include <utility>

namespace radiotower::daemon {

/// A listening Unix socket at a path, mode 0660. What stands there already: a socket that nobody listens on is replaced; anything else is left
/// alone, and is a reason not to start. The end removes the file, if it is still ours.
class SocketFile {
 public:
  SocketFile() = default;
  ~SocketFile();
  SocketFile(const SocketFile&) = delete;
  SocketFile& operator=(const SocketFile&) = delete;

  /// False with a sentence in `why`.
  bool open(const std::string& path, std::string& why);
  int descriptor() const { return descriptor_; }
  /// The caller closes it; the file is still removed by the end of this object.
  int release() { return std::exchange(descriptor_, -1); }

 private:
  int descriptor_ = -1;
  std::string path_;
  dev_t device_ = 0;
  ino_t inode_ = 0;
};

}  // namespace radiotower::daemon
