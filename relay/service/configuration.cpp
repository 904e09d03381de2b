#include "radiotower/service/configuration.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace radiotower {

namespace {

constexpr std::size_t longest_file = 64 << 20;

bool has_control_character(std::string_view text) {
  return std::any_of(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) < 0x20 && c != '\t') || c == 0x7F; });
}

}  // namespace

std::string ConfigError::text() const {
  std::string text = where;
  if (!key.empty()) text.append(text.empty() ? "" : ": ").append(key);
  text.append(text.empty() ? "" : ": ").append(what);
  if (!hint.empty()) text.append(" (hint: ").append(hint).append(")");
  return text;
}

std::optional<FileText> read_file(const std::string& path, std::size_t limit, std::string& why) {
  const auto failed = [&] {
    why = fmt::format("cannot be read: {}", std::strerror(errno));
    return std::nullopt;
  };
  struct Descriptor {
    int number;
    ~Descriptor() {
      if (number >= 0) ::close(number);
    }
  };
  // O_NONBLOCK: opening a pipe that nobody writes to would wait for ever. What is checked is what has been opened.
  const Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)};
  struct stat status {};
  if (file.number < 0 || ::fstat(file.number, &status) != 0) return failed();
  if (!S_ISREG(status.st_mode)) {
    why = S_ISDIR(status.st_mode) ? "is a folder, not a file" : "is not a regular file";
    return std::nullopt;
  }
  FileText read{"", static_cast<unsigned>(status.st_mode & 07777)};
  char buffer[16384];
  for (;;) {
    const ssize_t got = ::read(file.number, buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return failed();
    if (got == 0) return read;
    read.text.append(buffer, static_cast<std::size_t>(got));
    if (read.text.size() > limit) {
      why = fmt::format("is longer than {} bytes", limit);
      return std::nullopt;
    }
  }
}

void for_each_secret_line(const std::string& path, std::string_view key, ConfigErrors& errors, const std::function<void(std::string_view, int)>& line) {
  const auto wrong = [&](std::string what, std::string hint) { errors.push_back({path, std::string(key), std::move(what), std::move(hint)}); };
  std::string why;
  const auto file = read_file(path, longest_file, why);
  if (!file) return wrong(why, "a file of the user the service runs as; relative names are relative to the folder of the configuration file");
  // The group may read: root:radiotower 0640 is how a service gets a file it cannot change.
  if (file->mode & (S_IROTH | S_IWOTH | S_IWGRP))
    return wrong(fmt::format("mode {:04o} lets other users of this host read or change the secrets in it", file->mode), fmt::format("chmod {}o-rwx {}", file->mode & S_IWGRP ? "g-w," : "", path));
  std::string_view left = file->text;
  if (left.starts_with("\xEF\xBB\xBF")) return wrong("begins with a byte order mark", "save it as UTF-8 without one");
  for (int number = 1; !left.empty(); ++number) {
    const std::size_t end = std::min(left.find('\n'), left.size());
    std::string_view text = left.substr(0, end);
    left.remove_prefix(std::min(end + 1, left.size()));
    while (!text.empty() && (text.back() == '\r' || text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
    while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
    if (text.empty() || text.front() == '#') continue;
    if (has_control_character(text))
      errors.push_back({fmt::format("{}:{}", path, number), std::string(key), "holds a control character", "is it a binary file? secrets and users are text, one a line"});
    else line(text, number);
  }
}

std::size_t edit_distance(std::string_view a, std::string_view b) {  // Levenshtein
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0]++;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t above = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

}  // namespace radiotower
