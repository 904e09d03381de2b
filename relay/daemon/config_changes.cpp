#include "config_changes.h"

#include <algorithm>
#include <unordered_map>

#include <fmt/format.h>

#include "config_checks.h"
#include "radiotower/base/calendar.h"
#include "radiotower/base/random.h"
#include "radiotower/base/siphash.h"

namespace radiotower::daemon {

namespace {

std::uint64_t hash_of(Bytes bytes) {
  static const HashKey key = [] {
    HashKey made;
    system_random()({reinterpret_cast<std::uint8_t*>(&made), sizeof made});
    return made;
  }();
  return siphash13(key, bytes);
}

std::uint64_t hash_of(std::string_view text) { return hash_of(as_bytes(text)); }

void add_part(std::string& to, std::size_t count, std::string_view what) {
  if (count != 0) to.append(to.empty() ? "" : ", ").append(fmt::format("{} {}", count, what));
}

/// Two long values are shown where they differ.
std::string arrow(std::string before, std::string after) {
  constexpr std::size_t long_text = 200, context = 24;
  if (before.empty()) before = "not set";
  if (after.empty()) after = "not set";
  if (std::max(before.size(), after.size()) > long_text) {
    const auto cut = [](std::string& a, std::string& b) {
      const auto same = static_cast<std::size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
      if (same <= context) return;
      for (std::string* text : {&a, &b}) text->replace(0, same - context, "...");
    };
    cut(before, after);
    for (std::string* text : {&before, &after}) std::reverse(text->begin(), text->end());
    cut(before, after);
    for (std::string* text : {&before, &after}) {
      std::reverse(text->begin(), text->end());
      if (text->size() > long_text) text->replace(long_text, text->size(), "...");
    }
  }
  return fmt::format("{} -> {}", before, after);
}

std::string list_text(const std::vector<Text>& list) {
  std::string out = "[";
  for (const Text& entry : list) out.append(out.size() > 1 ? ", " : "").append(toml_text(entry.value));
  return out + "]";
}

std::string text_or_nothing(const std::string& text) { return text.empty() ? "" : toml_text(text); }

void compare_realms(const RealmConfig& before, const RealmConfig& after, std::vector<std::string>& changes) {
  const std::string name = fmt::format("realms.{}", toml_text(after.name));
  const auto compare = [&](std::string_view key, const std::string& a, const std::string& b) {
    if (a != b) changes.push_back(fmt::format("{}.{}: {}", name, key, arrow(a, b)));
  };
  compare("origins", list_text(before.origins), list_text(after.origins));
  compare("listeners", list_text(before.listeners), list_text(after.listeners));
  compare("secrets_file", text_or_nothing(before.secrets_file), text_or_nothing(after.secrets_file));
  compare("users_file", text_or_nothing(before.users_file), text_or_nothing(after.users_file));
  const auto separator = [](const RealmConfig& realm) { return realm.rest_separator ? toml_text({&*realm.rest_separator, 1}) : std::string(); };
  compare("rest_separator", separator(before), separator(after));
  const auto limit = [](const RealmConfig& realm, const std::string& key) {
    const auto found = realm.limits.find(key);
    return found == realm.limits.end() ? std::string() : std::to_string(found->second);
  };
  for (const auto& [key, value] : before.limits) compare(key, std::to_string(value), limit(after, key));
  for (const auto& [key, value] : after.limits)
    if (!before.limits.contains(key)) compare(key, "", std::to_string(value));
}

}  // namespace

void FileFacts::add_secrets(std::string_view key, const std::vector<std::string>& secrets) {
  File& file = files_[std::string(key)];
  file = {"secret", "secrets", "", {}};
  for (const auto& secret : secrets) file.entries.push_back({hash_of(secret), 0, 0});
}

void FileFacts::add_users(std::string_view key, const std::vector<turn::User>& users) {
  File& file = files_[std::string(key)];
  file = {"user", "users", "with another password", {}};
  for (const auto& user : users) {
    const std::array<std::uint64_t, 4> limits{user.allocations.has_value(), user.allocations.value_or(0), user.bytes_per_second.has_value(), user.bytes_per_second.value_or(0)};
    file.entries.push_back({hash_of(user.name), user.key.empty() ? hash_of(user.password) : hash_of(user.key.bytes()),
                            hash_of(Bytes(reinterpret_cast<const std::uint8_t*>(limits.data()), sizeof limits))});
  }
}

void FileFacts::add_token_keys(std::string_view key, const std::vector<turn::TokenKey>& keys) {
  File& file = files_[std::string(key)];
  file = {"key", "keys", "with other bytes", {}};
  for (const auto& one : keys)
    file.entries.push_back({hash_of(one.kid), hash_of(Bytes(one.key)) + static_cast<std::uint64_t>(one.algorithm), static_cast<std::uint64_t>(one.valid_until)});
}

std::string FileFacts::difference(const File& before, const File& after) {
  std::unordered_map<std::uint64_t, const Entry*> there;
  for (const Entry& entry : before.entries) there.emplace(entry.name, &entry);
  std::size_t more = 0, others = 0, limits = 0;
  for (const Entry& entry : after.entries) {
    const auto found = there.find(entry.name);
    if (found == there.end()) {
      ++more;
      continue;
    }
    others += found->second->secret != entry.secret;
    limits += found->second->limits != entry.limits;
  }
  const std::size_t fewer = before.entries.size() + more - after.entries.size();
  std::string text;
  add_part(text, more, fmt::format("{} more", more == 1 ? after.one : after.many));
  add_part(text, fewer, more != 0 ? std::string("fewer") : fmt::format("{} fewer", fewer == 1 ? after.one : after.many));
  add_part(text, others, after.other_secret);
  add_part(text, limits, after.one == "user" ? "with other limits" : "with another lifetime");
  if (text.empty() && before.entries != after.entries) text = fmt::format("the same {} in another order", after.many);
  return text;
}

std::vector<std::string> FileFacts::changes_to(const FileFacts& next) const {
  std::vector<std::string> changes;
  for (const auto& [key, after] : next.files_) {
    const auto before = files_.find(key);
    if (before == files_.end()) continue;
    if (const std::string text = difference(before->second, after); !text.empty()) changes.push_back(fmt::format("{}: {}", key, text));
  }
  const std::size_t both = std::max(certificates_.size(), next.certificates_.size());
  for (std::size_t i = 0; i < both; ++i) {
    const auto* before = i < certificates_.size() ? &certificates_[i] : nullptr;
    const auto* after = i < next.certificates_.size() ? &next.certificates_[i] : nullptr;
    if (before && after && before->fingerprint == after->fingerprint) continue;
    const bool renewed = before && after && before->names == after->names;
    changes.push_back(fmt::format("{}: {} -> {}", i == 0 ? "listen.certificate" : "listen.more_certificates", before ? certificate_text(*before) : "none",
                                  !after ? "none" : renewed ? fmt::format("until {}", utc_day(after->not_after)) : certificate_text(*after)));
  }
  return changes;
}

std::vector<std::string> changes_of(const Config& before, const Config& after) {
  std::vector<std::string> changes;
  for (const KeyChange& change : changed_keys(before, after))
    if (change.reloads) changes.push_back(fmt::format("{}: {}", change.key, arrow(change.before, change.after)));
  const auto named = [](const std::vector<RealmConfig>& realms, const std::string& name) {
    const auto found = std::find_if(realms.begin(), realms.end(), [&](const RealmConfig& realm) { return realm.name == name; });
    return found == realms.end() ? nullptr : &*found;
  };
  for (const RealmConfig& realm : before.realms)
    if (!named(after.realms, realm.name)) changes.push_back(fmt::format("realms.{}: removed; its calls go on", toml_text(realm.name)));
  for (const RealmConfig& realm : after.realms) {
    if (const RealmConfig* const old = named(before.realms, realm.name)) compare_realms(*old, realm, changes);
    else changes.push_back(fmt::format("realms.{}: added", toml_text(realm.name)));
  }
  return changes;
}

std::vector<std::string> changes_that_wait(const Config& running, const Config& next) {
  std::vector<std::string> changes;
  for (const KeyChange& change : changed_keys(running, next))
    if (!change.reloads) changes.push_back(fmt::format("{}: {}", change.key, arrow(change.before, change.after)));
  return changes;
}

std::string certificate_text(const tls::CertificateFacts& facts) {
  std::string text;
  for (const auto& name : facts.names) text.append(name).append(1, ' ');
  return text.append("until ").append(utc_day(facts.not_after));
}

}  // namespace radiotower::daemon
