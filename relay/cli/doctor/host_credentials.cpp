// Secrets and users: whether the relay can read them, who else can, and whether they are any good.
#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstring>

#include "credentials.h"
#include "host_checks.h"

namespace radiotower::cli {

namespace {

constexpr std::size_t shortest_secret = 16, refused_below = 8;
constexpr const char* make_a_secret = "umask 077; head -c 32 /dev/urandom | base64 > secrets";

bool may(const FileStatus& status, const HostUser& user, unsigned bit) {
  if (user.uid == 0) return true;
  if (status.uid == user.uid) return status.mode & (bit << 6);
  if (std::find(user.groups.begin(), user.groups.end(), status.gid) != user.groups.end()) return status.mode & (bit << 3);
  return status.mode & bit;
}

struct SecretFile {
  std::string path, key, where, check;
  bool handed_over = false;  // by systemd, which reads it as root
  bool is_secrets = false;
};

std::vector<SecretFile> files_of(const Examined& e) {
  std::vector<SecretFile> files;
  const auto add = [&](const std::string& path, std::string key, std::string where, std::string check, bool is_secrets, const char* credential) {
    if (path.empty()) return;
    const auto found = credential ? e.unit.credentials.find(credential) : e.unit.credentials.end();
    files.push_back({path, std::move(key), std::move(where), std::move(check), found != e.unit.credentials.end() && found->second == path,
                     is_secrets});
  };
  add(e.config.secrets_file, "credentials.secrets_file", e.where("credentials.secrets_file"), "credentials.secrets", true, "secrets");
  add(e.config.users_file, "credentials.users_file", e.where("credentials.users_file"), "credentials.users", false, "users");
  add(e.config.oauth_keys_file, "features.oauth_keys_file", e.where("features.oauth_keys_file"), "credentials.oauth-keys", false, nullptr);
  for (const auto& realm : e.config.realms) {
    const std::string key = fmt::format("realms.\"{}\".", realm.name);
    add(realm.secrets_file, key + "secrets_file", fmt::format("{}secrets_file ({})", key, realm.source), "credentials.secrets", true, nullptr);
    add(realm.users_file, key + "users_file", fmt::format("{}users_file ({})", key, realm.source), "credentials.users", false, nullptr);
  }
  return files;
}

void look_into(const Examined& e, const SecretFile& file, Findings& findings) {
  int error = 0;
  const auto text = e.host.read(file.path, error);
  if (!text) {
    findings.add({file.check, Severity::unknown, fmt::format("what is in {} may not be read by you", file.path), "run this as root", file.where});
    return;
  }
  if (!file.is_secrets) return;
  std::size_t entries = 0, number = 0;
  std::string_view left = *text;
  while (!left.empty()) {
    std::string_view line = left.substr(0, left.find('\n'));
    left.remove_prefix(std::min(line.size() + 1, left.size()));
    ++number;
    while (!line.empty() && std::isspace(static_cast<unsigned char>(line.back()))) line.remove_suffix(1);
    while (!line.empty() && std::isspace(static_cast<unsigned char>(line.front()))) line.remove_prefix(1);
    if (line.empty() || line.front() == '#') continue;
    ++entries;
    const auto add = [&](const char* check, Severity severity, std::string sentence) {
      findings.add({check, severity, std::move(sentence),
                    fmt::format("make a new one ({}), and give the same to the application server, as turnstaticauthsecret of Calls",
                                make_a_secret), file.where});
    };
    if (const auto word = placeholder_of(line); !word.empty())
      add("credentials.placeholder", Severity::fault,
          fmt::format("the secret in {}:{} is one of an example (\"{}\"): anybody can guess it", file.path, number, word));
    else if (line.size() < refused_below)
      add("credentials.short", Severity::fault,
          fmt::format("the secret in {}:{} has {} bytes, and the relay refuses to use it", file.path, number, line.size()));
    else if (line.size() < shortest_secret)
      add("credentials.short", Severity::warning,
          fmt::format("the secret in {}:{} has {} bytes, and can be guessed from one user name and password that somebody overhears", file.path,
                      number, line.size()));
  }
  if (entries == 0) findings.add({file.check, Severity::fault, fmt::format("there is no secret in {}", file.path), make_a_secret, file.where});
}

}  // namespace

std::string in_the_way(const Host& host, const std::string& path, const HostUser& user) {
  int error = 0;
  const auto real = host.resolve(path, error);
  if (!real) {
    if (error == ENOENT) return fmt::format("there is no file {}", path);
    return error == EACCES ? std::string() : fmt::format("{} cannot be found: {}", path, std::strerror(error));
  }
  for (std::size_t slash = 0; slash != real->npos; slash = real->find('/', slash + 1)) {
    const std::string folder = slash == 0 ? "/" : real->substr(0, slash);
    const auto status = host.status(folder, error);
    if (status && !may(*status, user, 1)) return fmt::format("{} may not go into the folder {} (mode {:04o})", user.name, folder, status->mode);
  }
  const auto status = host.status(*real, error);
  if (!status) return {};
  if (status->folder) return fmt::format("{} is a folder", path);
  return may(*status, user, 4) ? std::string()
      : fmt::format("{} may not read {} (mode {:04o}, owner {}, group {})", user.name, path, status->mode, status->uid, status->gid);
}

void check_credentials(const Examined& e, Findings& findings) {
  if (e.user && !e.question.config_file.empty()) {
    if (const std::string what = in_the_way(e.host, e.question.config_file, *e.user); !what.empty())
      findings.add({"configuration.readable", Severity::fault, what,
                    fmt::format("chgrp {0} {1} && chmod 0640 {1}; folders: chmod o+x", e.user->name, e.question.config_file), ""});
    else findings.add({"configuration.readable", Severity::good, fmt::format("{} may read {}", e.user->name, e.question.config_file), "", ""});
  }
  const auto files = files_of(e);
  if (e.config.open_relay_for_everyone)
    findings.add({"credentials.open-relay", Severity::warning, "this is an open relay: whoever reaches it sends his traffic in your name",
                  "take open_relay_for_everyone away and name a secrets_file",
                  e.where("credentials.open_relay_for_everyone")});
  else if (files.empty() && e.config_is_read)
    findings.add({"credentials.none", Severity::fault, "no credentials are given, and the relay does not start without",
                  fmt::format("secrets_file = \"secrets\" in [credentials]; made with: {}", make_a_secret),
                  "credentials.secrets_file"});
  for (const auto& file : files) {
    int error = 0;
    const auto status = e.host.status(file.path, error);
    if (!status && error != EACCES) {
      findings.add({file.check, Severity::fault, fmt::format("there is no file {}", file.path),
                    "the name is relative to the folder of the configuration file", file.where});
      continue;
    }
    if (e.user && !file.handed_over) {
      if (const std::string what = in_the_way(e.host, file.path, *e.user); !what.empty()) {
        findings.add({file.check, Severity::fault, what,
                      fmt::format("chgrp {0} {1} && chmod 0640 {1}; for a folder: chmod o+x", e.user->name, file.path), file.where});
        continue;
      }
    }
    if (!status) {
      findings.add({file.check, Severity::unknown, fmt::format("{} is in a folder that you may not look into", file.path), "run this as root",
                    file.where});
      continue;
    }
    if (status->mode & 0007)
      findings.add({"credentials.permissions", Severity::fault,
                    fmt::format("every user of this host gets at {} (mode {:04o}), and the relay refuses to use it", file.path,
                                status->mode), fmt::format("chmod o-rwx {}", file.path), file.where});
    else if (status->mode & 0020)
      findings.add({"credentials.permissions", Severity::fault,
                    fmt::format("the group may change {} (mode {:04o}), and the relay refuses to use it", file.path,
                                status->mode), fmt::format("chmod g-w {}", file.path), file.where});
    else
      findings.add({file.check, Severity::good,
                    fmt::format("{} may be read by {}, and not by everybody", file.path,
                                e.user && !file.handed_over ? e.user->name : "the relay"), "", ""});
    look_into(e, file, findings);
  }
}

}  // namespace radiotower::cli
