#include "credentials.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <cstring>

#include "json.h"
#include "radiotower/stun/crypto.h"

namespace radiotower::cli {

namespace {

constexpr std::size_t max_file = 1 << 20;  // a secrets file is some lines; whatever is larger is a mistake

std::string_view next_line(std::string_view& text) {
  const auto end = text.find('\n');
  std::string_view line = text.substr(0, end);
  text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
  return line;
}

}  // namespace

std::optional<std::string> read_small_file(const std::string& path, std::string& why, std::string& warning) {
  const bool from_stdin = path == "-";
  const int fd = from_stdin ? STDIN_FILENO : open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    why = fmt::format("{}: {}", path, std::strerror(errno));
    return std::nullopt;
  }
  struct stat status {};
  if (!from_stdin && fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && (status.st_mode & (S_IROTH | S_IWOTH | S_IWGRP)) != 0)
    warning = fmt::format("{}: others than its owner may open this file: chmod 600 {}", path, path);
  std::string text;
  char buffer[4096];
  for (;;) {
    const ssize_t n = read(fd, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) why = fmt::format("{}: {}", path, std::strerror(errno));
    if (n > 0) text.append(buffer, static_cast<std::size_t>(n));
    if (text.size() > max_file) why = fmt::format("{}: longer than 1 MiB, so not what is looked for", path);
    if (n <= 0 || !why.empty()) break;
  }
  if (!from_stdin) close(fd);
  if (!why.empty()) return std::nullopt;
  return text;
}

Credential make_rest_credential(std::string_view secret, std::string_view user, UnixSeconds expiry) {
  std::string username = fmt::format("{}:{}", expiry, user);
  std::string password = stun::rest_password(secret, username);
  return {std::move(username), std::move(password)};
}

std::optional<UnixSeconds> rest_expiry(std::string_view username) {
  const auto colon = username.find(':');
  if (colon == std::string_view::npos || colon == 0) return std::nullopt;
  UnixSeconds value = 0;
  const auto [end, error] = std::from_chars(username.data(), username.data() + colon, value);
  if (error != std::errc{} || end != username.data() + colon || value < 0) return std::nullopt;
  return value;
}

bool username_is_sound(std::string_view username, std::string& why) {
  if (username.empty()) why = "the user name is empty";
  else if (username.size() > 508) why = "the user name is longer than 508 bytes (RFC 8489, 14.3)";
  else
    for (const char c : username)
      if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) why = "the user name holds a control character";
  return why.empty();
}

namespace {

std::string json_list(const std::vector<std::string>& texts) {
  std::string out;
  for (const auto& text : texts) out += (out.empty() ? "" : ", ") + json_string(text);
  return "[" + out + "]";
}

}  // namespace

std::string ice_servers_json(const HostPort& server, const std::vector<std::string>& turn, const Credential& credential) {
  return fmt::format(R"([{{"urls": [{}]}}, {{"urls": {}, "username": {}, "credential": {}}}])", json_string(stun_url(server)), json_list(turn),
                     json_string(credential.username), json_string(credential.password));
}

std::string calls_ice_servers_json(const HostPort& server, const std::vector<std::string>& turn) {
  return fmt::format(R"([{{"urls": [{}]}}, {{"urls": {}}}])", json_string(stun_url(server)), json_list(turn));
}

std::optional<std::string> first_secret(std::string_view text) {
  while (!text.empty()) {
    std::string_view line = next_line(text);
    while (!line.empty() && (line.back() == ' ' || line.back() == '\t')) line.remove_suffix(1);
    while (!line.empty() && (line.front() == ' ' || line.front() == '\t')) line.remove_prefix(1);
    if (!line.empty() && line.front() != '#') return std::string(line);
  }
  return std::nullopt;
}

std::optional<std::string> read_secret(const std::string& path, std::string& why, std::string& warning) {
  const auto text = read_small_file(path, why, warning);
  if (!text) return std::nullopt;
  auto secret = first_secret(*text);
  if (!secret) why = fmt::format("{}: holds no secret: one a line is expected", path == "-" ? "standard input" : path);
  return secret;
}

std::string_view placeholder_of(std::string_view secret) {
  std::string text(secret);
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  constexpr std::string_view whole[] = {"secret", "password", "north", "test", "admin", "turn", "radiotower", "123456", "12345678",
                                        "static-auth-secret", "mysecret", "logen"};
  for (const auto word : whole)
    if (text == word) return word;
  constexpr std::string_view parts[] = {"changeme", "change-me", "change_me", "change me", "placeholder", "your-secret", "your_secret", "yoursecret",
                                        "replace-me", "replace_me", "replaceme", "replace-this", "replace_this", "<secret>", "example", "xxxx"};
  for (const auto word : parts)
    if (text.find(word) != text.npos) return word;
  return {};
}

std::optional<std::string> read_password(const std::string& path, std::string& why, std::string& warning) {
  const auto text = read_small_file(path, why, warning);
  if (!text) return std::nullopt;
  std::string_view rest = *text;
  const std::string_view line = next_line(rest);
  if (line.empty()) {
    why = fmt::format("{}: its first line is empty, so there is no password", path == "-" ? "standard input" : path);
    return std::nullopt;
  }
  return std::string(line);
}

}  // namespace radiotower::cli
