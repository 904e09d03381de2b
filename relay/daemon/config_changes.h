// What a reload has changed, in sentences for the log and for whoever asked for it. Of secrets, users and keys it says how many, never which.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "config.h"
#include "radiotower/base/bytes.h"
#include "radiotower/tls/identity.h"
#include "radiotower/turn/directory.h"
#include "radiotower/turn/tokens.h"

namespace radiotower::daemon {

/// What has been read from the files that a configuration names, to be compared with a later reading. Holds no secret and no name: keyed hashes, with
/// a key of this process.
class FileFacts {
 public:
  // `key`: "credentials.secrets_file", "realms.\"a\".users_file".
  void add_secrets(std::string_view key, const std::vector<std::string>& secrets);
  void add_users(std::string_view key, const std::vector<turn::User>& users);
  void add_token_keys(std::string_view key, const std::vector<turn::TokenKey>& keys);
  void add_certificates(const std::vector<tls::CertificateFacts>& certificates) { certificates_ = certificates; }

  /// "credentials.users_file: 2 users more, 1 fewer, 1 with another password". A file that only one of both has is the business of changes_of().
  std::vector<std::string> changes_to(const FileFacts& next) const;

 private:
  struct Entry {
    std::uint64_t name = 0, secret = 0, limits = 0;
    bool operator==(const Entry&) const = default;
  };
  struct File {
    std::string_view one, many;     // "user", "users"
    std::string_view other_secret;  // "with another password"
    std::vector<Entry> entries;     // in the order of the file
  };
  static std::string difference(const File& before, const File& after);
  std::map<std::string, File, std::less<>> files_;
  std::vector<tls::CertificateFacts> certificates_;
};

/// "listen.tls: [] -> [\"0.0.0.0:443\"]", and realms that come, go or change. Without the keys that a reload does not take over.
std::vector<std::string> changes_of(const Config& before, const Config& after);

/// "workers.count: 2 -> 4": the keys that a reload does not take over.
std::vector<std::string> changes_that_wait(const Config& running, const Config& next);

/// "tower.lan until 2027-01-01"
std::string certificate_text(const tls::CertificateFacts& facts);

}  // namespace radiotower::daemon
