#include "credential_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <unordered_set>
#include <utility>

#include "radiotower/base/encoding.h"

namespace radiotower::daemon {

namespace {

constexpr std::size_t most_secrets = 32;  // a stranger's request costs one HMAC for each

template <typename Number>
bool parse_number(std::string_view text, Number& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return !text.empty() && error == std::errc() && end == text.data() + text.size();
}

}  // namespace

std::vector<std::string> read_secrets(const std::string& path, std::string_view key, ConfigErrors& errors) {
  std::vector<std::string> secrets;
  const std::size_t before = errors.size();
  for_each_secret_line(path, key, errors, [&](std::string_view line, int number) {
    const auto wrong = [&](std::string what, std::string hint) { errors.push_back({fmt::format("{}:{}", path, number), std::string(key), std::move(what), std::move(hint)}); };
    if (line.size() < 8) wrong(fmt::format("a secret of {} character{} is guessed in no time", line.size(), line.size() == 1 ? "" : "s"), make_a_secret);
    else if (std::find(secrets.begin(), secrets.end(), line) != secrets.end()) wrong("this secret stands there twice", "remove one of both");
    else if (secrets.size() == most_secrets) wrong(fmt::format("more than {} secrets", most_secrets), "remove the old ones, at the end");
    else if (secrets.size() < most_secrets) secrets.emplace_back(line);
  });
  if (secrets.empty() && errors.size() == before)
    errors.push_back({path, std::string(key), "holds no secret", fmt::format("one a line, the newest first: {}", make_a_secret)});
  return secrets;
}

std::vector<turn::User> read_users(const std::string& path, std::string_view key, ConfigErrors& errors) {
  std::vector<turn::User> users;
  std::unordered_set<std::string> names;
  const std::size_t before = errors.size();
  for_each_secret_line(path, key, errors, [&](std::string_view line, int number) {
    const std::string where = fmt::format("{}:{}", path, number);
    const auto wrong = [&](std::string what, std::string hint) { errors.push_back({where, std::string(key), std::move(what), std::move(hint)}); };
    const std::string form = "name:password or name:0xkey, then perhaps allocations=N and bytes_per_second=N";
    const std::size_t blank = line.find_first_of(" \t");
    const std::string_view head = line.substr(0, blank);
    const std::size_t colon = head.find(':');
    if (colon == std::string_view::npos || colon == 0 || colon + 1 >= head.size()) return wrong("is not a user and a password", form);
    turn::User user;
    user.name = head.substr(0, colon);
    const std::string_view password = head.substr(colon + 1);
    if (user.name.size() > 508) return wrong("the user name is longer than 508 bytes", form);
    if (password.substr(0, 2) == "0x") {
      const auto bytes = from_hex(password.substr(2));
      if (bytes && bytes->size() == 16) {
        stun::Md5 k;
        std::copy(bytes->begin(), bytes->end(), k.begin());
        user.key = stun::Key(k);
      } else if (bytes && bytes->size() == 32) {
        stun::Sha256 k;
        std::copy(bytes->begin(), bytes->end(), k.begin());
        user.key = stun::Key(k);
      } else {
        return wrong("the key behind 0x is not 32 or 64 hexadecimal digits", "MD5(name:realm:password), or SHA-256 of the same");
      }
    } else {
      user.password = password;
    }
    for (std::string_view rest = blank == std::string_view::npos ? "" : line.substr(blank); !rest.empty();) {
      const std::size_t start = rest.find_first_not_of(" \t");
      if (start == std::string_view::npos) break;
      rest = rest.substr(start);
      const std::string_view word = rest.substr(0, rest.find_first_of(" \t"));
      rest = rest.substr(word.size());
      const std::size_t equals = word.find('=');
      const std::string_view option = word.substr(0, equals), value = equals == std::string_view::npos ? "" : word.substr(equals + 1);
      // Any other word is shown to nobody: it may be the rest of a password with a blank in it.
      bool good = false;
      if (option == "allocations") good = parse_number(value, user.allocations.emplace());
      else if (option == "bytes_per_second") good = parse_number(value, user.bytes_per_second.emplace());
      else return wrong("what stands behind the password is not understood", form + "; a password cannot hold blanks");
      if (!good) return wrong(fmt::format("\"{}\" is not understood", word), form);
    }
    if (!names.insert(user.name).second) return wrong(fmt::format("user \"{}\" stands there twice", user.name), "remove one of both");
    users.push_back(std::move(user));
  });
  if (users.empty() && errors.size() == before) errors.push_back({path, std::string(key), "holds no user", "name:password, one a line"});
  return users;
}

}  // namespace radiotower::daemon
