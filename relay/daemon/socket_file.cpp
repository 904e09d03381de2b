#include "socket_file.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include <fmt/format.h>

namespace radiotower::daemon {

namespace {

constexpr mode_t mode = 0660;
constexpr int backlog = 32;

sockaddr_un address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

bool bind_at(int descriptor, const std::string& path) {
  const sockaddr_un address = address_of(path);
  return ::bind(descriptor, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
}

/// May what stands at `path` go? Asked of the file itself: a symbolic link is followed nowhere.
bool is_left_over(const std::string& path, std::string& why) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) != 0) {
    why = fmt::format("{} is in use: {}", path, std::strerror(errno));
    return false;
  }
  if (!S_ISSOCK(status.st_mode)) {
    why = fmt::format("{} is there already and is no socket; remove it, or choose another path", path);
    return false;
  }
  const int probe = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  const sockaddr_un address = address_of(path);
  const int error = ::connect(probe, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 ? 0 : errno;
  ::close(probe);
  if (error == ECONNREFUSED) return true;
  why = error == 0 || error == EAGAIN ? fmt::format("another relay, or another program, listens on {}; end it, or choose another path", path)
                                      : fmt::format("{} is there already, and whether a relay listens on it cannot be found out: {}", path, std::strerror(error));
  return false;
}

}  // namespace

bool SocketFile::open(const std::string& path, std::string& why) {
  if (path.size() >= sizeof(sockaddr_un::sun_path)) {
    why = fmt::format("{} is longer than the {} bytes that the path of a socket may have", path, sizeof(sockaddr_un::sun_path) - 1);
    return false;
  }
  descriptor_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (descriptor_ < 0) {
    why = std::strerror(errno);
    return false;
  }
  ::fchmod(descriptor_, mode);  // of the file that bind() makes, so that it is never wider; the umask may take away more
  bool bound = bind_at(descriptor_, path);
  if (!bound && errno == EADDRINUSE) {
    if (!is_left_over(path, why)) return false;
    ::unlink(path.c_str());
    bound = bind_at(descriptor_, path);
  }
  if (!bound) {
    const int error = errno;
    why = error == ENOENT ? fmt::format("the directory of {} does not exist; RuntimeDirectory= of the unit makes it", path)
          : error == EACCES || error == EPERM || error == EROFS ? fmt::format("this user may not make files in the directory of {}", path)
                                                                : fmt::format("{}: {}", path, std::strerror(error));
    return false;
  }
  struct stat status {};
  // The file itself by a descriptor: what stands at the path now need not be it.
  const int file = ::open(path.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC);
  if (file < 0 || ::fstat(file, &status) != 0 || !S_ISSOCK(status.st_mode)) {
    if (file >= 0) ::close(file);
    why = fmt::format("{} was taken away as soon as it was made", path);
    return false;
  }
  ::chmod(fmt::format("/proc/self/fd/{}", file).c_str(), mode);
  ::close(file);
  path_ = path;
  device_ = status.st_dev;
  inode_ = status.st_ino;
  if (::listen(descriptor_, backlog) != 0) {
    why = fmt::format("{}: {}", path, std::strerror(errno));
    return false;
  }
  return true;
}

SocketFile::~SocketFile() {
  struct stat status {};
  if (!path_.empty() && ::lstat(path_.c_str(), &status) == 0 && status.st_dev == device_ && status.st_ino == inode_) ::unlink(path_.c_str());
  if (descriptor_ >= 0) ::close(descriptor_);
}

}  // namespace radiotower::daemon
