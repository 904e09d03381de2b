#include "output.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

namespace radiotower::cli {

namespace {

std::string failed(const std::string& path) { return fmt::format("{}: {}", path, std::strerror(errno)); }

bool write_new(const std::string& path, const std::string& text, std::string& why) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (fd < 0) {
    why = failed(path);
    return false;
  }
  std::size_t at = 0;
  while (at < text.size()) {
    const ssize_t n = write(fd, text.data() + at, text.size() - at);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) break;
    at += static_cast<std::size_t>(n);
  }
  const bool good = at == text.size() && fsync(fd) == 0;
  if (!good) why = failed(path);
  close(fd);
  if (!good) unlink(path.c_str());
  return good;
}

}  // namespace

bool write_files(const std::string& folder, const std::vector<OutFile>& files, bool force, std::string& why) {
  if (mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) {
    why = failed(folder);
    return false;
  }
  struct stat status {};
  for (const OutFile& file : files) {
    const std::string path = folder + "/" + file.name;
    if (force || lstat(path.c_str(), &status) != 0) continue;
    why = fmt::format("{} is there already: --force overwrites it, --output names another folder", path);
    return false;
  }
  for (const OutFile& file : files) {
    const std::string path = folder + "/" + file.name, fresh = path + fmt::format(".new-{}", getpid());
    if (!write_new(fresh, file.text, why)) return false;
    if (std::rename(fresh.c_str(), path.c_str()) == 0) continue;
    why = failed(path);
    unlink(fresh.c_str());
    return false;
  }
  return true;
}

}  // namespace radiotower::cli
