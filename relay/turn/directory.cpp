#include "radiotower/turn/directory.h"

#include <openssl/crypto.h>

#include <charconv>

namespace radiotower::turn {

std::optional<RestName> parse_rest_name(std::string_view username, char separator) {
  const std::size_t at = username.find(separator);
  if (at == std::string_view::npos || at == 0 || at + 1 >= username.size()) return std::nullopt;
  RestName name;
  const std::string_view digits = username.substr(0, at);
  for (const char c : digits)
    if (c < '0' || c > '9') return std::nullopt;  // from_chars alone would take a minus
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), name.expiry);
  if (error != std::errc() || end != digits.data() + digits.size()) return std::nullopt;
  name.user = username.substr(at + 1);
  return name;
}

Directory::Directory(Input input) : input_(std::move(input)) {
  bool all_md5 = true, all_sha256 = true;
  for (User& user : input_.users) {
    Entry entry;
    entry.allocations = user.allocations;
    entry.bytes_per_second = user.bytes_per_second;
    if (user.key.empty()) {
      entry.md5 = stun::long_term_key(stun::PasswordAlgorithm::md5, user.name, input_.realm, user.password);
      entry.sha256 = stun::long_term_key(stun::PasswordAlgorithm::sha256, user.name, input_.realm, user.password);
      OPENSSL_cleanse(user.password.data(), user.password.size());
    } else {
      (user.key.bytes().size() == 16 ? entry.md5 : entry.sha256) = user.key;
    }
    all_md5 = all_md5 && !entry.md5.empty();
    all_sha256 = all_sha256 && !entry.sha256.empty();
    const stun::Sha256 hash = stun::userhash(user.name, input_.realm);
    by_hash_[hash] = user.name;
    users_[user.name] = entry;
  }
  input_.users.clear();
  if (all_sha256) algorithms_.push_back(stun::PasswordAlgorithm::sha256);
  if (all_md5) algorithms_.push_back(stun::PasswordAlgorithm::md5);
  if (algorithms_.empty()) algorithms_.push_back(stun::PasswordAlgorithm::md5);
  nobody_ = stun::long_term_key(stun::PasswordAlgorithm::md5, "", input_.realm, "");
}

Directory::Outcome Directory::find(std::string_view username, stun::PasswordAlgorithm algorithm, UnixSeconds now, bool ignore_expiry,
                                   std::vector<Credential>& out) const {
  if (const auto found = users_.find(std::string(username)); found != users_.end()) {
    const Entry& entry = found->second;
    const stun::Key& key = algorithm == stun::PasswordAlgorithm::sha256 ? entry.sha256 : entry.md5;
    if (key.empty()) return Outcome::no_key_for_algorithm;
    out.push_back({key, username, false, false, entry.allocations, entry.bytes_per_second});
    return Outcome::found;
  }
  if (input_.rest_secrets.empty()) return Outcome::unknown_user;
  const auto name = parse_rest_name(username, input_.rest_separator);
  if (!name) return Outcome::malformed_rest_name;
  // A name good for longer than anybody hands out is a mistake or worse (I24).
  if (!ignore_expiry && (name->expiry <= now || name->expiry - now > input_.rest_max_ttl.count())) return Outcome::expired;
  for (const auto& secret : input_.rest_secrets) {
    std::string password = stun::rest_password(secret, username);
    out.push_back({stun::long_term_key(algorithm, username, input_.realm, password), name->user, true, false, {}, {}});
    OPENSSL_cleanse(password.data(), password.size());
  }
  return Outcome::found;
}

std::optional<std::string_view> Directory::name_of(Bytes userhash) const {
  stun::Sha256 hash{};
  if (userhash.size() != hash.size()) return std::nullopt;
  std::copy(userhash.begin(), userhash.end(), hash.begin());
  const auto found = by_hash_.find(hash);
  return found == by_hash_.end() ? std::nullopt : std::optional<std::string_view>(found->second);
}

}  // namespace radiotower::turn
