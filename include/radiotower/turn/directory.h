// Who may allocate: users with a password or key, and REST secrets that vouch for time-limited names.
// Immutable after construction; shared between threads freely. Passwords are turned into keys and forgotten (RFC 8656, 5).
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "radiotower/base/time.h"
#include "radiotower/stun/crypto.h"

namespace radiotower::turn {

struct User {
  std::string name;
  std::string password;      // or, when `key` is set, empty
  stun::Key key;             // from "0x...": 16 bytes (MD5) or 32 bytes (SHA-256)
  std::optional<std::uint32_t> allocations;       // limits given on the line itself; none: unlimited
  std::optional<std::uint64_t> bytes_per_second;
};

/// What authentication needs to know of one user name. `account` is what quotas are kept by: the user part of a REST name
/// ("t1:bob" and "t2:bob" are one account), the whole name otherwise.
struct Credential {
  stun::Key key;
  std::string_view account;  // lives as long as the user name that was asked for
  bool rest = false;
  bool token = false;  // the key of an access token (RFC 7635), or of an allocation that one has made
  std::optional<std::uint32_t> allocations;
  std::optional<std::uint64_t> bytes_per_second;
};

class Directory {
 public:
  struct Input {
    std::string realm;
    std::vector<User> users;
    std::vector<std::string> rest_secrets;  // first is newest
    char rest_separator = ':';
    seconds rest_max_ttl{7 * 24 * 3600};    // a name that expires later than this from now is refused (I24)
  };
  explicit Directory(Input input);

  enum class Outcome : std::uint8_t { found, unknown_user, malformed_rest_name, expired, no_key_for_algorithm };

  /// Looks a name up; at most one credential per REST secret is possible, so the caller tries them in order.
  /// A users_file name wins over a REST name of the same text. `expired` names are not returned unless `ignore_expiry`.
  /// Appends to `out` (capacity kept by the caller); returns why nothing was found otherwise.
  Outcome find(std::string_view username, stun::PasswordAlgorithm algorithm, UnixSeconds now, bool ignore_expiry,
               std::vector<Credential>& out) const;

  /// The name behind a USERHASH (RFC 8489, 14.4); only users-file names have one. nullopt when unknown.
  std::optional<std::string_view> name_of(Bytes userhash) const;

  /// The algorithms that every credential here supports, best first: SHA-256 is left out when some user has only an MD5 key,
  /// so that nobody is offered what would fail for him (and MD5 when some user has only a SHA-256 key).
  const std::vector<stun::PasswordAlgorithm>& algorithms() const { return algorithms_; }

  /// USERHASH is offered only without REST secrets: a hash cannot be turned back into a time-limited name, and a
  /// client that sees the feature bit must use it (RFC 8489, 9.2.3).
  bool offers_userhash() const { return input_.rest_secrets.empty() && !users_.empty(); }
  bool empty() const { return users_.empty() && input_.rest_secrets.empty(); }
  char rest_separator() const { return input_.rest_separator; }
  const std::string& realm() const { return input_.realm; }

  /// A key that belongs to nobody: verified against when the user is unknown, so that both cases take the same time.
  const stun::Key& nobody() const { return nobody_; }

 private:
  struct Entry {
    stun::Key md5;
    stun::Key sha256;
    std::optional<std::uint32_t> allocations;
    std::optional<std::uint64_t> bytes_per_second;
  };
  Input input_;  // its users are emptied: keys are kept, passwords are not
  std::unordered_map<std::string, Entry> users_;
  std::map<std::array<std::uint8_t, 32>, std::string> by_hash_;
  std::vector<stun::PasswordAlgorithm> algorithms_;
  stun::Key nobody_;
};

/// "1767225600:alice" -> 1767225600 and "alice". Strict: decimal digits only, no sign, no blank, no overflow; user not empty.
struct RestName {
  UnixSeconds expiry = 0;
  std::string_view user;
};
std::optional<RestName> parse_rest_name(std::string_view username, char separator);

}  // namespace radiotower::turn
