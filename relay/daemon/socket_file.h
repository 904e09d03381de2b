// The file of the control socket, and of metrics at a path: how it comes to be there, and goes.
#pragma once

#include <sys/types.h>

#include <string>

namespace radiotower::daemon {

/// A listening Unix socket at a path, mode 0660. What stands there already: a socket that nobody listens on is replaced; anything else is left
/// alone, and is a reason not to start. The end removes the file, if it is still ours.
class ControlFile {
 public:
  ControlFile() = default;
  ~ControlFile();
  ControlFile(const ControlFile&) = delete;
  ControlFile& operator=(const ControlFile&) = delete;

  /// False with a sentence in `why`.
  bool open(const std::string& path, std::string& why);
  int descriptor() const { return descriptor_; }

 private:
  int descriptor_ = -1;
  std::string path_;
  dev_t device_ = 0;
  ino_t inode_ = 0;
};

}  // namespace radiotower::daemon
