#include "explain.h"

#include <fmt/format.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <algorithm>
#include <charconv>
#include <functional>

#include "radiotower/base/encoding.h"
#include "radiotower/stun/crypto.h"
#include "radiotower/turn/directory.h"

namespace radiotower::cli {

namespace {

constexpr std::int64_t longest_life = 7 * 24 * 3600;         // turn::Directory: what expires later than this from now is refused
constexpr std::int64_t milliseconds_from = 100'000'000'000;  // the year 5138 in seconds, 1973 in milliseconds

bool all_digits(std::string_view text) { return !text.empty() && text.find_first_not_of("0123456789") == text.npos; }

std::optional<std::int64_t> number(std::string_view text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return all_digits(text) && error == std::errc() && end == text.data() + text.size() ? std::optional(value) : std::nullopt;
}

std::string trimmed(std::string_view text) {
  constexpr std::string_view blanks = " \t\r\n";
  const std::size_t first = text.find_first_not_of(blanks);
  if (first == text.npos) return {};
  return std::string(text.substr(first, text.find_last_not_of(blanks) - first + 1));
}

std::string percent_decoded(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size() && hex_digit(text[i + 1]) >= 0 && hex_digit(text[i + 2]) >= 0) {
      out += static_cast<char>(hex_digit(text[i + 1]) * 16 + hex_digit(text[i + 2]));
      i += 2;
    } else {
      out += text[i];
    }
  }
  return out;
}

std::string replaced(std::string text, char from, char to) {
  std::replace(text.begin(), text.end(), from, to);
  return text;
}

std::string padded(std::string text) {
  while (text.size() % 4 != 0) text += '=';
  return text;
}

/// Something tried, and the sentence that it deserves when it is what fits; empty: this is how it should be.
struct Variant {
  std::string value;
  std::string says;
  std::string mend;
};

void add(std::vector<Variant>& list, std::string value, std::string says, std::string mend) {
  if (value.empty() || std::any_of(list.begin(), list.end(), [&](const Variant& v) { return v.value == value; })) return;
  list.push_back({std::move(value), std::move(says), std::move(mend)});
}

/// The bytes that the password may stand for.
std::vector<Variant> password_bytes(const std::string& password) {
  std::vector<Variant> texts;
  add(texts, password, "", "");
  add(texts, trimmed(password), "the password has blanks or a line end round it, which are part of it for the relay",
      "hand the password on without the line end");
  add(texts, percent_decoded(password), "the password is URL-encoded (%2B for +, %2F for /, %3D for =)",
      "decode it before it goes into the client's configuration");
  add(texts, replaced(trimmed(password), ' ', '+'), "a + of the password has become a blank, as in a URL that was decoded twice",
      "hand the password on without URL decoding");
  add(texts, padded(password), "the = at the end of the password is missing", "keep the padding of base64: 28 characters in all");
  add(texts, padded(replaced(replaced(password, '-', '+'), '_', '/')), "the password is in base64url (- and _ for + and /)",
      "use plain base64, with padding (RFC 4648, 4)");
  std::vector<Variant> out;
  for (const auto& text : texts)
    if (const auto bytes = from_base64(text.value)) add(out, *bytes, text.says, text.mend);
  for (const auto& text : texts) {
    if (const auto bytes = from_hex(text.value))
      add(out, *bytes, "the password is the HMAC in hexadecimal digits, and not in base64", "encode the 20 bytes themselves in base64");
    if (const auto once = from_base64(text.value))
      if (const auto bytes = from_hex(*once))
        add(out, *bytes, "the password is base64 of the HMAC's hexadecimal digits", "encode the 20 bytes themselves in base64, not their digits");
  }
  return out;
}

std::vector<Variant> forms_of_secret(const std::string& secret) {
  std::vector<Variant> out;
  add(out, secret, "", "");
  add(out, secret + "\n", "the password was made with the secret and the line end behind it (\"secret\\n\")",
      "strip the secret where it is read: echo -n, or $(cat FILE)");
  add(out, secret + "\r\n", "the password was made with the secret and the line end behind it (\"secret\\r\\n\")",
      "strip the secret where it is read");
  add(out, secret + " ", "the password was made with the secret and a blank behind it", "strip the secret where it is read");
  add(out, "\"" + secret + "\"", "the password was made with the secret and the quotes round it", "take the quotes away where the secret is read");
  if (const auto bytes = from_base64(secret))
    add(out, *bytes, "the secret was decoded from base64 before it was used as a key", "use the text of the secret as the key, as it stands there");
  if (const auto bytes = from_hex(secret))
    add(out, *bytes, "the secret was decoded from hexadecimal digits before it was used as a key",
        "use the text of the secret as the key, as it stands there");
  return out;
}

std::vector<Variant> forms_of_name(const std::string& username, char separator) {
  std::vector<Variant> out;
  add(out, username, "", "");
  const std::string clean = trimmed(username), mend = "make the password for exactly the user name that the client sends";
  add(out, clean, "the password was made for the name without the blanks round it", mend);
  add(out, username + "\n", "the password was made for the name with a line end behind it", mend);
  add(out, percent_decoded(username), "the password was made for the name before it was URL-encoded", "hand the user name on without URL encoding");
  const std::size_t at = clean.find(separator);
  if (at != clean.npos) {
    const std::string head = clean.substr(0, at), tail = clean.substr(at + 1);
    add(out, tail, fmt::format("the password was made for \"{}\" alone, without the expiry in front", tail), mend);
    add(out, head, fmt::format("the password was made for \"{}\" alone, the expiry without the user", head), mend);
    add(out, fmt::format("{}{}{}", tail, separator, head), "the password was made for expiry and user the other way round", mend);
    for (const char other : {':', '_', '-', '.', '|'})
      if (other != separator)
        add(out, fmt::format("{}{}{}", head, other, tail), fmt::format("the password was made for a name with \"{}\" between expiry and user", other),
            mend);
    if (const auto n = number(head)) {
      if (*n >= milliseconds_from)
        add(out, fmt::format("{}{}{}", *n / 1000, separator, tail),
            "the password was made for the expiry in seconds, while the name has milliseconds", mend);
      else add(out, fmt::format("{}000{}{}", *n, separator, tail), "the password was made for the expiry in milliseconds", mend);
    }
  }
  return out;
}

std::string hmac(const EVP_MD* digest, std::string_view key, std::string_view text) {
  unsigned char out[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  HMAC(digest, key.data(), static_cast<int>(key.size()), reinterpret_cast<const unsigned char*>(text.data()), text.size(), out, &size);
  return {reinterpret_cast<const char*>(out), size};
}

std::string hash(const EVP_MD* digest, std::string_view text) {
  unsigned char out[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  EVP_Digest(text.data(), text.size(), out, &size, digest, nullptr);
  return {reinterpret_cast<const char*>(out), size};
}

struct Match {
  std::string place;
  std::vector<Variant> deviations;  // none: as it should be
};

/// The explanation with the fewest mistakes in it.
std::optional<Match> who_made_it(const ExplainInput& input) {
  std::optional<Match> best;
  const auto passwords = password_bytes(input.password);
  const auto names = forms_of_name(input.username, input.separator);
  const auto consider = [&](const KnownSecret& secret, std::initializer_list<const Variant*> parts) {
    Match match{secret.place, {}};
    for (const Variant* part : parts)
      if (!part->says.empty()) match.deviations.push_back(*part);
    if (!best || match.deviations.size() < best->deviations.size()) best = std::move(match);
  };
  static const Variant sha1{"", "", ""},
      sha256{"", "the password was made with SHA-256, and not with SHA-1", "HMAC-SHA1 is what every TURN server takes for time-limited names"},
      sha512{"", "the password was made with SHA-512, and not with SHA-1", sha256.mend},
      md5{"", "the password was made with MD5, and not with SHA-1", sha256.mend},
      swapped{"", "the user name was taken as the key, and the secret as the text", "the secret is the key of the HMAC, the user name is the text"},
      plain_hash{"", "the password is a plain SHA-1 of secret and user name, and no HMAC", "use HMAC-SHA1, with the secret as the key"};
  for (const auto& secret : input.secrets) {
    for (const auto& key : forms_of_secret(secret.text)) {
      for (const auto& name : names) {
        const std::pair<const Variant*, std::string> made[] = {
            {&sha1, hmac(EVP_sha1(), key.value, name.value)},        {&sha256, hmac(EVP_sha256(), key.value, name.value)},
            {&sha512, hmac(EVP_sha512(), key.value, name.value)},    {&md5, hmac(EVP_md5(), key.value, name.value)},
            {&swapped, hmac(EVP_sha1(), name.value, key.value)},     {&plain_hash, hash(EVP_sha1(), key.value + name.value)},
            {&plain_hash, hash(EVP_sha1(), name.value + key.value)},
        };
        for (const auto& [how, bytes] : made)
          for (const auto& password : passwords)
            if (password.value == bytes) consider(secret, {&key, &name, how, &password});
      }
    }
    if (best && best->deviations.empty()) return best;
  }
  return best;
}

bool key_fits(const KnownUser& user, const std::string& password, const std::string& realm) {
  const auto key = from_hex(std::string_view(user.password).substr(2));
  if (!key) return false;
  const auto algorithm = key->size() == 32 ? stun::PasswordAlgorithm::sha256 : stun::PasswordAlgorithm::md5;
  const stun::Key held = stun::long_term_key(algorithm, user.name, realm, password);
  const auto made = held.bytes();
  return std::equal(made.begin(), made.end(), key->begin(), key->end(), [](std::uint8_t a, char b) { return a == static_cast<std::uint8_t>(b); });
}

void explain_user(const ExplainInput& input, const KnownUser& user, Explanation& out) {
  out.kind = "user with a password";
  out.user = user.name;
  out.facts.push_back(fmt::format("the user stands in {}", user.place));
  const bool is_key = user.password.starts_with("0x");
  const auto fits = [&](const std::string& password, const std::string& realm) {
    return is_key ? key_fits(user, password, realm) : user.password == password;
  };
  if (fits(input.password, input.realm)) {
    out.valid = true;
    out.verdict = is_key ? fmt::format("valid: the password and the realm \"{}\" make the key in {}", input.realm, user.place)
                         : fmt::format("valid: the password is the one in {}", user.place);
    return;
  }
  if (is_key) {
    for (const auto& realm : input.other_realms) {
      if (realm == input.realm || !fits(input.password, realm)) continue;
      out.verdict =
          fmt::format("not valid: the key in {} was made for the realm \"{}\", and the relay's realm is \"{}\"", user.place, realm, input.realm);
      out.advice.push_back(fmt::format("set realm = \"{}\" in relay.toml, or write the password itself, or a new key, into the users file", realm));
      return;
    }
  }
  if (const std::string clean = trimmed(input.password); clean != input.password && fits(clean, input.realm)) {
    out.verdict = "not valid: the password has blanks or a line end round it, which are part of it for the relay";
    out.advice.push_back("hand the password on without them");
    return;
  }
  if (const std::string decoded = percent_decoded(input.password); decoded != input.password && fits(decoded, input.realm)) {
    out.verdict = "not valid: the password is URL-encoded";
    out.advice.push_back("decode it before it goes into the client's configuration");
    return;
  }
  if (is_key) {
    out.verdict = fmt::format("not valid: the key in {} is of another password, or of another realm than \"{}\"", user.place, input.realm);
    out.advice.push_back("a key is MD5(name:realm:password): --realm NAME tries another realm");
    out.advice.push_back(fmt::format("or write the password itself into the file: {}:PASSWORD", user.name));
  } else {
    out.verdict = fmt::format("not valid: {} has another password", user.place);
    out.advice.push_back("passwords are compared letter by letter, small and capital ones too");
  }
}

/// What is wrong with a name that is neither a user nor time-limited, as far as it can be told.
void explain_name(const ExplainInput& input, Explanation& out) {
  out.kind = "unknown";
  const std::string& name = input.username;
  const std::string clean = trimmed(name);
  const std::size_t last = clean.rfind(input.separator), digits = std::min(clean.find_first_not_of("0123456789"), clean.size());
  const auto form = fmt::format("<expiry>{}<user>, as in 1767225600{}alice", input.separator, input.separator);
  if (clean != name && std::any_of(input.users.begin(), input.users.end(), [&](const auto& u) { return u.name == clean; })) {
    out.verdict = fmt::format("not valid: the user name has blanks round it; without them it is the user \"{}\"", clean);
  } else if (clean != name && turn::parse_rest_name(clean, input.separator)) {
    out.verdict = "not valid: the user name has a blank in front of the expiry, so it is no time-limited name";
  } else if (last != clean.npos && all_digits(clean.substr(last + 1)) && clean.size() - last > 9 &&
             !all_digits(clean.substr(0, clean.find(input.separator)))) {
    out.verdict = fmt::format("not valid: user and expiry are the wrong way round: a time-limited name is {}", form);
    out.advice.push_back(fmt::format("the name should be {}{}{}", clean.substr(last + 1), input.separator, clean.substr(0, last)));
  } else if (digits >= 9 && (digits == clean.size() || clean[digits] == input.separator)) {
    out.verdict = fmt::format("not valid: the name is an expiry without a user: the relay takes {}", form);
  } else if (digits >= 9) {
    out.verdict =
        fmt::format("not valid: \"{}\" stands between expiry and user, where the relay looks for \"{}\"", clean.substr(digits, 1), input.separator);
    out.advice.push_back(fmt::format("make names of the form {}, or set rest_separator = \"{}\" in [credentials]", form, clean.substr(digits, 1)));
  } else {
    out.verdict = input.users.empty() ? fmt::format("not valid: the name is no time-limited one ({}), and no users file was given", form)
                                      : fmt::format("not valid: the name is neither in the users file nor a time-limited one ({})", form);
    out.advice.push_back("a client with a shared secret sends the expiry in front of its name; a user with a password stands in the users file (credentials.users_file)");
  }
  if (input.secrets.empty()) return;
  if (const auto match = who_made_it(input)) {
    out.secret = match->place;
    out.facts.push_back(fmt::format("the password was made with the secret in {}", match->place));
    for (const auto& deviation : match->deviations) out.facts.push_back(deviation.says);
  }
}

void explain_password(const ExplainInput& input, Explanation& out, std::vector<std::string>& wrong) {
  if (input.secrets.empty()) {
    wrong.push_back("no secrets were given, so nobody can tell who made the password");
    out.advice.push_back("give them with --secret-file FILE or --config relay.toml");
    return;
  }
  if (const auto match = who_made_it(input)) {
    out.secret = match->place;
    out.facts.push_back(fmt::format("the password was made with the secret in {}", match->place));
    for (const auto& deviation : match->deviations) {
      wrong.push_back(deviation.says);
      if (!deviation.mend.empty()) out.advice.push_back(deviation.mend);
    }
    return;
  }
  const auto as_secret = std::find_if(input.secrets.begin(), input.secrets.end(), [&](const auto& s) { return s.text == trimmed(input.password); });
  if (as_secret != input.secrets.end()) {
    wrong.push_back(fmt::format("the password is the secret itself ({}), and not what is made of it", as_secret->place));
    out.advice.push_back("never hand the secret to a client: the password is base64(HMAC-SHA1(secret, user name))");
    return;
  }
  const auto bytes = from_base64(input.password);
  if (!bytes) wrong.push_back("the password is not base64, so no secret made it");
  else if (bytes->size() == 32)
    wrong.push_back("the password is base64 of 32 bytes, as SHA-256 makes them; HMAC-SHA1 has 20. None of the secrets made it that way either");
  else if (bytes->size() != 20) wrong.push_back(fmt::format("the password is base64 of {} bytes, where HMAC-SHA1 has 20", bytes->size()));
  else
    wrong.push_back(
        input.secrets.size() == 1
            ? fmt::format("the password was made with another secret than the one in {}, or for another user name", input.secrets.front().place)
            : fmt::format("the password was made with none of the {} secrets, or for another user name", input.secrets.size()));
  out.advice.push_back(
      "compare the secret of whoever made it (Mattermost Calls: turnstaticauthsecret) with the relay's secrets file, letter by letter");
}

void explain_rest(const ExplainInput& input, const turn::RestName& name, Explanation& out) {
  out.kind = "time-limited";
  out.user = name.user;
  std::vector<std::string> wrong;
  std::int64_t expiry = name.expiry;
  if (expiry >= milliseconds_from) {
    wrong.push_back(fmt::format("the expiry {} has {} digits: it is in milliseconds, and must be in seconds", expiry, std::to_string(expiry).size()));
    out.advice.push_back("divide the time by 1000 where the name is made (JavaScript's Date.now() counts milliseconds)");
    expiry /= 1000;
    out.expiry = expiry;
  } else {
    out.expiry = expiry;
    if (expiry <= input.now) {
      wrong.push_back(fmt::format("it expired {} ago", duration_text(input.now - expiry)));
      out.advice.push_back(
          "clients need a fresh one: whoever makes it may have a wrong clock, or too short a lifetime (Mattermost Calls: "
          "turncredentialsexpirationminutes)");
      out.advice.push_back("compare the clocks of this host, the relay and the server that makes the names");
    } else if (expiry - input.now > longest_life) {
      wrong.push_back(
          fmt::format("it expires in {}, and the relay takes no name that is good for longer than 7 days", duration_text(expiry - input.now)));
      out.advice.push_back("make names with a shorter lifetime, a day or so, or write a user with a password into the users file");
    }
  }
  if (trimmed(input.username) != input.username) out.facts.push_back("the user name has blanks at its end, which are part of it");
  explain_password(input, out, wrong);
  out.valid = wrong.empty();
  if (out.valid) {
    out.verdict = fmt::format("valid for another {}, made with the secret in {}", duration_text(expiry - input.now), out.secret);
    return;
  }
  out.verdict = "not valid: " + wrong.front();
  for (std::size_t i = 1; i < wrong.size(); ++i) out.verdict += "; and " + wrong[i];
}

/// Calls `line(text, number)` for each line that says something, as the relay reads it.
void each_line(std::string_view text, const std::function<void(std::string_view, int)>& line) {
  for (int n = 1; !text.empty(); ++n) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string clean = trimmed(text.substr(0, end));
    if (!clean.empty() && clean.front() != '#') line(clean, n);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
}

}  // namespace

Explanation explain_credential(const ExplainInput& input) {
  Explanation out;
  // In the relay's order: users first.
  const auto user = std::find_if(input.users.begin(), input.users.end(), [&](const KnownUser& u) { return u.name == input.username; });
  if (user != input.users.end()) explain_user(input, *user, out);
  else if (const auto name = turn::parse_rest_name(input.username, input.separator)) explain_rest(input, *name, out);
  else explain_name(input, out);
  return out;
}

std::vector<KnownSecret> secrets_of(std::string_view text, std::string_view name) {
  std::vector<KnownSecret> out;
  each_line(text, [&](std::string_view line, int n) { out.push_back({std::string(line), fmt::format("line {} of {}", n, name)}); });
  return out;
}

std::vector<KnownUser> users_of(std::string_view text, std::string_view name) {
  std::vector<KnownUser> out;
  each_line(text, [&](std::string_view line, int n) {
    const std::string_view head = line.substr(0, line.find_first_of(" \t"));
    const std::size_t colon = head.find(':');
    if (colon != head.npos)
      out.push_back({std::string(head.substr(0, colon)), std::string(head.substr(colon + 1)), fmt::format("line {} of {}", n, name)});
  });
  return out;
}

std::string duration_text(std::int64_t seconds) {
  constexpr std::pair<std::int64_t, const char*> units[] = {{365 * 86'400, "year"}, {86'400, "day"}, {3600, "hour"}, {60, "minute"}, {1, "second"}};
  std::string out;
  int parts = 0;
  for (const auto& [size, word] : units) {
    const std::int64_t n = seconds / size;
    if (n == 0 && (parts == 0 ? size != 1 : true)) {
      if (parts != 0) break;
      continue;
    }
    out += fmt::format("{}{} {}{}", parts == 0 ? "" : " ", n, word, n == 1 ? "" : "s");
    seconds %= size;
    if (++parts == 2) break;
  }
  return out;
}

}  // namespace radiotower::cli
