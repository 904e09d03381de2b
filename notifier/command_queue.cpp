#include "notifier/command_queue.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>

namespace radiotower::notifier {

namespace {

std::string file_of(const Settings& settings) { return settings.state + "/queue.sqlite"; }

void become_owner_of(const std::string& folder) {
  struct stat status {};
  if (geteuid() != 0 || stat(folder.c_str(), &status) != 0 || status.st_uid == 0) return;
  if (setegid(status.st_gid) != 0 || seteuid(status.st_uid) != 0)
    throw SqlError(SqlError::Kind::broken,
                   fmt::format("root cannot become the owner of {}: {}", folder, std::strerror(errno)));
}

bool denied(const std::string& path, int how) {
  return faccessat(AT_FDCWD, path.c_str(), how, AT_EACCESS) != 0 && errno == EACCES;
}

/// Whose queue it is, where that can be seen.
std::string owner_of(const std::string& folder) {
  struct stat status {};
  const passwd* user = stat(folder.c_str(), &status) == 0 ? getpwuid(status.st_uid) : nullptr;
  return user ? fmt::format("the user {}", user->pw_name) : "the user that the service runs as";
}

}  // namespace

int complain(const std::string& what) {
  fmt::print(stderr, "radiotower-notifier: {}\n", what);
  return 1;
}

std::unique_ptr<Queue> open_queue(const Settings& settings) {
  if (settings.queue == "sqlite") become_owner_of(settings.state);
  return std::make_unique<Queue>(open_queue_database(settings.queue, settings.state),
                                 fmt::format("command:{}", getpid()));
}

bool no_queue_yet(const Settings& settings) {
  struct stat status {};
  return settings.queue == "sqlite" && stat(file_of(settings).c_str(), &status) != 0 && errno == ENOENT;
}

int complain_of_queue(const Settings& settings, const std::exception& error) {
  if (settings.queue != "sqlite") return complain(fmt::format("the queue (PostgreSQL): {}", error.what()));
  std::string what = fmt::format("the queue ({}): {}", settings.state, error.what());
  const std::string parent = std::filesystem::path(settings.state).parent_path().string();
  struct stat status {};
  const bool there = stat(settings.state.c_str(), &status) == 0;
  if (there ? denied(settings.state, R_OK | W_OK | X_OK) || denied(file_of(settings), R_OK | W_OK)
            : denied(settings.state, F_OK) || denied(parent, W_OK | X_OK))
    what += fmt::format(": run it as {}, or as root", owner_of(settings.state));
  return complain(what);
}

}  // namespace radiotower::notifier
