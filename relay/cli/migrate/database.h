// coturn's SQLite database (turnadmin's, /var/lib/turn/turndb as a rule), read once and never written to.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace radiotower::cli {

struct CoturnDatabase {
  struct User {
    std::string realm, name, key;  // the key as it stands there: MD5(name:realm:password) in hexadecimal digits
  };
  struct OauthKey {
    std::string kid, key, algorithm, realm;  // the key in base64
    std::int64_t timestamp = 0, lifetime = 0;
  };
  struct OfRealm {
    std::string realm, value;
  };
  std::vector<User> users;
  std::vector<OfRealm> secrets;
  std::vector<OfRealm> allowed, denied;  // ranges of peers; an empty realm: every one
  std::vector<OfRealm> origins;          // value: the origin
  std::map<std::string, std::map<std::string, std::int64_t>> realm_options;  // realm -> "max-bps", "total-quota", "user-quota"
  std::vector<OauthKey> oauth_keys;
  std::size_t admins = 0;  // of the web interface
};

/// False and a sentence in `why`: no file, not readable, no SQLite, damaged, or with none of coturn's tables. A table that an older coturn
/// did not have yet counts as empty.
bool read_coturn_database(const std::string& path, CoturnDatabase& out, std::string& why);

}  // namespace radiotower::cli
