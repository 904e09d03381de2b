// Who may come in, and whom they may reach: secrets, users, realms, access tokens, peers, limits.
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "../credentials.h"
#include "peer_rules.h"
#include "radiotower/base/encoding.h"
#include "radiotower/stun/crypto.h"
#include "translator.h"

namespace radiotower::cli {

namespace {

// What relay.toml's files take (daemon/credential_files.cpp).
constexpr std::size_t shortest_secret = 8, most_secrets = 32, longest_name = 508;
constexpr std::string_view blanks = " \t";

bool has_control(std::string_view text) {
  return std::any_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; });
}

/// Why a secret must not stay, though the relay may take it. Empty: it may.
std::string placeholder(std::string_view secret) {
  const auto word = placeholder_of(secret);
  if (word.empty()) return {};
  return fmt::format("is a placeholder, of an example (\"{}\"): anybody can guess it. It must be replaced, in the file and with whoever makes names with it: "
                     "openssl rand -hex 20", word);
}

/// Why a secret cannot stand in a line of a secrets file; empty: it can.
std::string unfit_secret(std::string_view secret) {
  if (const std::string trouble = placeholder(secret); secret.size() < shortest_secret && !trouble.empty()) return trouble;
  if (secret.size() < shortest_secret)
    return fmt::format("has {} characters, which are guessed in no time: the relay takes at least {}. Make a new one: openssl rand -hex 20",
                       secret.size(), shortest_secret);
  if (has_control(secret)) return "holds control characters: make a new one: openssl rand -hex 20";
  if (secret.front() == '#' || blanks.find(secret.front()) != blanks.npos || blanks.find(secret.back()) != blanks.npos)
    return "begins with # or a blank, or ends with one, which a line of a file cannot hold: make a new one: openssl rand -hex 20";
  return {};
}

/// As browsers write it, and as relay.toml wants it: small letters, no path, no default port.
std::string plain_origin(std::string_view origin) {
  std::string out = lower_case(origin);
  const std::size_t host = out.find("://");
  if (host == out.npos) return out;
  out.resize(std::min(out.find_first_of("/?#", host + 3), out.size()));
  for (const auto& [scheme, port] : {std::pair{"http://", ":80"}, {"https://", ":443"}})
    if (out.starts_with(scheme) && out.ends_with(port)) out.resize(out.size() - std::string_view(port).size());
  return out;
}

bool fits_origin(std::string_view origin) {
  const std::size_t host = origin.find("://");
  return origin.size() <= 267 && host != 0 && host != origin.npos && host + 3 < origin.size() && origin.find_first_of("@") == origin.npos &&
         std::none_of(origin.begin(), origin.end(),
                      [](char c) { return static_cast<unsigned char>(c) <= 0x20 || static_cast<unsigned char>(c) >= 0x7F; });
}

std::string lines_of(const std::vector<std::string>& lines) {
  std::string out;
  for (const auto& line : lines) out += line + "\n";
  return out;
}

std::string count(std::size_t n, std::string_view one) { return fmt::format("{} {}{}", n, one, n == 1 ? "" : "s"); }

}  // namespace

/// Everything that lets somebody in.
void Translator::credentials() {
  rest_ = given("use-auth-secret") || given("static-auth-secret");
  const std::string separator = value("rest-api-separator");
  if (!separator.empty()) {
    const char c = separator.front();
    if (c > 0x20 && c < 0x7F && (c < '0' || c > '9')) toml_.set("credentials.rest_separator", toml_quoted(separator.substr(0, 1)));
    else judge_all("rest-api-separator", Verdict::refused, "takes a printable character that is no digit", "credentials.rest_separator");
  }
  secrets();
  users();
  const bool files = toml_.has("credentials.secrets_file") || toml_.has("credentials.users_file");
  const bool asks = rest_ || on("lt-cred-mech") || given("user");
  if (on("no-auth") || (!asks && !on("oauth"))) {
    if (on("stun-only") && !files) {
      // A relay does not start without credentials; a listener of stun_only never asks for them.
      out_.files.push_back({"secrets", input_.fresh_secret + "\n"});
      toml_.set("credentials.secrets_file", "\"secrets\"", "Nobody is asked for it while every listener is in listen.stun_only; the relay does not start without.");
      differs("With stun-only nobody needs credentials, but the relay does not start without any: the file secrets holds a new one, which nobody has.");
    } else {
      alarm(on("no-auth") ? "no-auth: coturn was an open relay with this file, for everybody who reached its port. The result is none"
                          : "coturn asks nobody for a password with this file: it names neither lt-cred-mech nor use-auth-secret nor a user. The "
                            "result is no open relay");
      toml_.comment(
          "credentials",
          "coturn was an OPEN RELAY with its file. Make a secret (openssl rand -hex 20 > secrets) and name it here:\nsecrets_file = \"secrets\"\n"
          "Only if anybody at all shall relay through this host: open_relay_for_everyone = true");
    }
  } else if (!files && !on("oauth")) {
    alarm(
        "neither a secret nor a user was found, so nobody could use the relay, and it does not start: give coturn's database with --db, or add "
        "secrets_file or users_file");
  }
  tokens();
  realms();
}

void Translator::secrets() {
  const auto add = [&](const std::string& secret) {
    if (std::find(secrets_.begin(), secrets_.end(), secret) != secrets_.end()) return true;
    if (secrets_.size() == most_secrets) return false;
    secrets_.push_back(secret);
    return true;
  };
  for (const std::size_t line : lines("static-auth-secret")) {
    const std::string why = unfit_secret(value_of(line));
    if (!why.empty()) judge(line, Verdict::refused, why, "credentials.secrets_file");
    else if (!add(value_of(line))) judge(line, Verdict::refused, fmt::format("more than {} secrets", most_secrets), "credentials.secrets_file");
    else if (const std::string trouble = placeholder(value_of(line)); !trouble.empty()) {
      judge(line, Verdict::mapped, fmt::format("stands in the file secrets, but {}", trouble));
      alarm(fmt::format("line {}: the secret {}", out_.lines[line].line, trouble));
    }
  }
  std::vector<std::string> all = secrets_;
  std::size_t read = 0;
  if (rest_ && input_.database) {
    for (const auto& secret : input_.database->secrets) {
      if (secret.realm != realm_) continue;
      const std::string why = unfit_secret(secret.value);
      if (!why.empty()) alarm(fmt::format("a secret of the database {}", why));
      else if (const std::string trouble = placeholder(secret.value); !trouble.empty()) alarm(fmt::format("a secret of the database {}", trouble));
      if (!why.empty()) continue;
      if (std::find(all.begin(), all.end(), secret.value) == all.end() && all.size() < most_secrets) all.push_back(secret.value), ++read;
    }
    note_database(read == 0 ? fmt::format("no secret of realm \"{}\" that the file has not", realm_)
                            : fmt::format("{} of realm \"{}\", in the file secrets", count(read, "secret"), realm_));
  } else if (input_.database && !input_.database->secrets.empty()) {
    note_database(
        fmt::format("{}, ignored: coturn takes time-limited names only with use-auth-secret", count(input_.database->secrets.size(), "secret")));
  }
  if (all.empty()) return;
  out_.files.push_back({"secrets", lines_of(all)});
  toml_.set("credentials.secrets_file", "\"secrets\"");
}

std::string Translator::limits_behind(long long allocations, long long bytes) const {
  std::string out;
  if (allocations > 0) out += fmt::format(" allocations={}", allocations);
  if (bytes > 0) out += fmt::format(" bytes_per_second={}", bytes);
  return out;
}

bool Translator::write_user(const std::string& user, const std::string& password, const std::string& realm, std::string& line,
                            std::string& why) const {
  if (user.empty() || password.empty()) why = "is not NAME:PASSWORD";
  else if (user.size() > longest_name) why = fmt::format("has a name of more than {} bytes", longest_name);
  else if (has_control(user) || has_control(password)) why = "holds control characters";
  else if (user.find_first_of(" \t:") != user.npos) why = "has a name with a blank or a colon in it, which the file cannot hold";
  else if (user.front() == '#') why = "has a name that begins with #, which is a comment in the file";
  if (!why.empty()) return false;
  if (password.starts_with("0x")) {
    const auto key = from_hex(std::string_view(password).substr(2));
    // coturn takes the first 16 bytes and nothing else.
    if (!key || key->size() != 16) why = "has a key that is not 0x and 32 hexadecimal digits";
    line = user + ":" + lower_case(std::string_view(password));
    return why.empty();
  }
  if (password.find_first_of(blanks) == password.npos) {
    line = user + ":" + password;
    return true;
  }
  // A password with a blank does not fit into a line, the key that is made of it does.
  line = fmt::format("{}:0x{}", user, to_hex(stun::long_term_key(stun::PasswordAlgorithm::md5, user, realm, password).bytes()));
  return true;
}

/// The users of a realm as lines; says what cannot be taken along.
std::string Translator::database_users(const std::string& realm, const std::string& suffix) {
  std::string out;
  std::size_t taken = 0;
  for (const auto& user : input_.database->users) {
    if (user.realm != realm) continue;
    std::string line, why;
    if (write_user(user.name, user.key.starts_with("0x") ? user.key : "0x" + user.key, realm, line, why)) out += line + suffix + "\n", ++taken;
    else alarm(fmt::format("a user of the database {}", why));
  }
  if (taken != 0) note_database(fmt::format("{} of realm \"{}\", with the keys as they are: passwords stay the same", count(taken, "user"), realm));
  return out;
}

void Translator::users() {
  if (rest_) {
    judge_all("user", Verdict::ignored,
              "with a shared secret coturn takes time-limited names alone: add it to a users file if it shall work from now on");
    judge_all("lt-cred-mech", Verdict::used, "with a shared secret coturn takes time-limited names alone, and so does the result",
              "credentials.secrets_file");
    if (input_.database && !input_.database->users.empty())
      note_database(
          fmt::format("{}, ignored: with a shared secret coturn takes time-limited names alone", count(input_.database->users.size(), "user")));
    return;
  }
  long long quota = 0, bps = 0;
  bool whole = false;
  quota = leading_number(value("user-quota"), whole);
  bps = leading_number(value("max-bps"), whole);
  const std::string suffix = limits_behind(quota, 2 * bps);
  std::vector<std::pair<std::string, std::string>> lines_of_file;
  std::set<std::string> names;
  for (const std::size_t line : lines("user")) {
    const std::string& text = value_of(line);
    const std::size_t colon = text.find(':');
    std::string user = text.substr(0, colon), password = colon == text.npos ? "" : text.substr(colon + 1), out, why;
    password.erase(0, std::min(password.find_first_not_of(blanks), password.size()));
    if (!write_user(user, password, realm_, out, why)) {
      judge(line, Verdict::refused, why, "credentials.users_file");
      continue;
    }
    if (password.find_first_of(blanks) != password.npos)
      judge(line, Verdict::mapped,
            "stands in the file users as its key, since a line holds no blanks: made of this realm, the password stays the same");
    std::erase_if(lines_of_file, [&](const auto& l) { return l.first == user; });  // the last one counts, as in coturn
    lines_of_file.emplace_back(user, out + suffix);
    names.insert(user);
  }
  std::string file;
  for (const auto& [user, line] : lines_of_file) file += line + "\n";
  if (input_.database) {
    // A user of turnserver.conf comes before one of the database.
    const std::string more = database_users(realm_, suffix);
    for (std::string_view rest = more; !rest.empty();) {
      const std::string_view line = rest.substr(0, rest.find('\n') + 1);
      if (!names.contains(std::string(line.substr(0, line.find(':'))))) file += line;
      rest.remove_prefix(line.size());
    }
  }
  if (file.empty()) return;
  out_.files.push_back({"users", file});
  toml_.set("credentials.users_file", "\"users\"");
}

void Translator::realms() {
  if (!input_.database) return;
  const CoturnDatabase& db = *input_.database;
  std::set<std::string> known;
  for (const auto& user : db.users) known.insert(user.realm);
  for (const auto& secret : db.secrets) known.insert(secret.realm);
  for (const auto& origin : db.origins) known.insert(origin.realm);
  for (const auto& [realm, options] : db.realm_options) known.insert(realm);
  std::size_t number = 0;
  for (const auto& realm : known) {
    if (realm == realm_) continue;
    std::vector<std::string> origins;
    for (const auto& origin : db.origins)
      if (origin.realm == realm) {
        const std::string plain = plain_origin(origin.value);
        if (!fits_origin(plain)) {
          alarm(fmt::format("an origin of realm {} is none, as https://call.example.org is one: it is left out", toml_quoted(realm.substr(0, 60))));
          continue;
        }
        if (std::find(origins.begin(), origins.end(), plain) == origins.end()) origins.push_back(plain);
      }
    const auto ignore = [&](std::string_view why) { note_database(fmt::format("realm \"{}\", ignored: {}", realm, why)); };
    if (origins.empty()) {
      ignore("no origin leads to it, so coturn asks nobody for its users either");
      continue;
    }
    if (!fits_realm(realm)) {
      alarm(
          fmt::format("realm {} of the database cannot be taken along: a realm has 1 to 40 bytes, without quotes", toml_quoted(realm.substr(0, 60))));
      continue;
    }
    const std::string table = "realms." + toml_quoted(realm);
    const auto option = [&](const char* key) {
      const auto options = db.realm_options.find(realm);
      if (options == db.realm_options.end()) return std::int64_t{0};
      const auto found = options->second.find(key);
      return found == options->second.end() ? std::int64_t{0} : std::max<std::int64_t>(found->second, 0);
    };
    const std::int64_t quota = option("user-quota"), total = option("total-quota"), bps = option("max-bps");
    std::string users;
    std::vector<std::string> secrets = rest_ ? secrets_ : std::vector<std::string>{};
    if (rest_) {
      for (const auto& secret : db.secrets)
        if (secret.realm == realm && unfit_secret(secret.value).empty() && std::find(secrets.begin(), secrets.end(), secret.value) == secrets.end() &&
            secrets.size() < most_secrets) {
          secrets.push_back(secret.value);
          if (const std::string trouble = placeholder(secret.value); !trouble.empty()) alarm(fmt::format("a secret of realm \"{}\" in the database {}", realm, trouble));
        }
    } else {
      users = database_users(realm, limits_behind(quota, 2 * bps));
    }
    if (users.empty() && secrets.empty() && !toml_.has("features.oauth_keys_file")) {
      ignore("nobody is in it");
      continue;
    }
    ++number;
    const std::string suffix = fmt::format("-realm-{}", number);
    toml_.set(table + ".origins", toml_list(origins));
    if (!users.empty()) {
      out_.files.push_back({"users" + suffix, users});
      toml_.set(table + ".users_file", toml_quoted("users" + suffix));
    }
    if (!secrets.empty()) {
      out_.files.push_back({"secrets" + suffix, lines_of(secrets)});
      toml_.set(table + ".secrets_file", toml_quoted("secrets" + suffix));
    }
    if (quota > 0) toml_.set(table + ".allocations_per_user", std::to_string(quota));
    if (total > 0) toml_.set(table + ".allocations", std::to_string(total));
    if (bps > 0) toml_.set(table + ".bytes_per_second_per_user", std::to_string(2 * bps));
    note_database(fmt::format("realm \"{}\", with {}, as [{}]", realm, count(origins.size(), "origin"), table));
  }
  if (db.admins != 0) note_database(fmt::format("{} of the web interface, ignored: there is none", count(db.admins, "administrator")));
}

void Translator::tokens() {
  if (!on("oauth")) {
    judge_all("server-name", Verdict::ignored, "of use for oauth alone");
    return;
  }
  const std::string server = value("server-name");
  if (fits_realm(server)) toml_.set("features.oauth_server_name", toml_quoted(server));
  else
    judge_all("server-name", Verdict::refused, "longer than 40 bytes, or with a quote, a backslash or a control character in it",
              "features.oauth_server_name");
  std::string file;
  if (input_.database) {
    for (const auto& key : input_.database->oauth_keys) {
      if (key.kid.empty() || key.kid.size() > longest_name || key.kid.find_first_of(" \t#") != key.kid.npos || has_control(key.kid) ||
          !from_base64(key.key)) {
        alarm("a row of oauth_key has a kid with a blank in it, or a key that is not base64: it is left out");
        continue;
      }
      file += fmt::format("{}  {}", key.kid, key.key);
      if (key.algorithm == "A128GCM") file += "  A128GCM";
      else if (!key.algorithm.empty() && key.algorithm != "A256GCM")
        alarm(fmt::format("a key of oauth_key has an algorithm that is not known: {}", toml_quoted(key.algorithm.substr(0, 40))));
      if (key.lifetime > 0) file += fmt::format("  timestamp={} lifetime={}", key.timestamp, key.lifetime);
      file += "\n";
    }
  }
  if (file.empty()) {
    judge_all("oauth", Verdict::refused, "its keys stand in the database's table oauth_key, and none was read: give it with --db",
              "features.oauth_keys_file");
    return;
  }
  out_.files.push_back({"oauth-keys", file});
  toml_.set("features.oauth_keys_file", "\"oauth-keys\"");
}

void Translator::rules_of_database(std::vector<net::AddressRange>& allowed, std::vector<net::AddressRange>& denied) {
  if (!input_.database) return;
  const auto read = [&](const std::vector<CoturnDatabase::OfRealm>& rows, bool allow, std::vector<net::AddressRange>& out) {
    std::size_t taken = 0;
    for (const auto& row : rows) {
      // A rule of one realm: denied for all is safe, allowed for all is not.
      if (allow && !row.realm.empty() && row.realm != realm_) {
        alarm(fmt::format("allowed_peer_ip of the database has an entry of realm \"{}\" alone, which is left out: peers.allow holds for every realm",
                          row.realm));
        continue;
      }
      const auto peer = read_peer_text(row.value);
      if (peer.range) out.push_back(*peer.range), ++taken;
      else if (!peer.mapped)
        alarm(fmt::format("{} of the database has an entry that is no range of addresses", allow ? "allowed_peer_ip" : "denied_peer_ip"));
    }
    if (taken != 0)
      note_database(
          fmt::format("{} of {}, in peers.{}", count(taken, "range"), allow ? "allowed_peer_ip" : "denied_peer_ip", allow ? "allow" : "deny"));
  };
  read(input_.database->allowed, true, allowed);
  read(input_.database->denied, false, denied);
}

void Translator::peers() {
  std::vector<net::AddressRange> allowed, denied;
  const bool loopback = on("allow-loopback-peers");
  std::vector<std::string> unsafe;
  for (const bool allow : {true, false}) {
    const char* option = allow ? "allowed-peer-ip" : "denied-peer-ip";
    for (const std::size_t line : lines(option)) {
      const auto peer = read_peer_text(value_of(line));
      const std::string key = allow ? "peers.allow" : "peers.deny";
      if (peer.mapped) {
        judge(line, allow ? Verdict::refused : Verdict::used, "a peer in this spelling, IPv4 dressed up as IPv6, is refused whatever the rules say");
      } else if (!peer.range) {
        judge(line, Verdict::refused, fmt::format("is no range of addresses: {}", peer.why.empty() ? "FIRST-LAST" : peer.why), key);
        if (!allow)
          alarm(fmt::format("line {}: denied-peer-ip is not understood, so nothing is denied by it. Write it as FIRST-LAST", out_.lines[line].line));
      } else if (allow && !peer.understood_by_coturn) {
        judge(line, Verdict::refused, "coturn does not take it (it knows FIRST-LAST alone, and no text behind), so it never allowed anything", key);
      } else if (allow && peer.range->first.is_loopback()) {
        if (loopback && peer.range->is_single()) {
          unsafe.push_back(peer.range->text() + " unsafe");
          judge(line, Verdict::mapped, "this one address of loopback, every port of it: name the port, as \"127.0.0.1:8443 unsafe\"");
        } else {
          judge(line, loopback ? Verdict::refused : Verdict::ignored,
                loopback ? "only single addresses of loopback can be opened" : "without allow-loopback-peers coturn does not reach it either", key);
        }
      } else {
        (allow ? allowed : denied).push_back(*peer.range);
        const bool whole = allow || subtract({*peer.range}, allowed) == std::vector{*peer.range};
        judge(line, Verdict::mapped, fmt::format("\"{}\"{}", peer.range->text(), whole ? "" : ", less what allowed-peer-ip opens, which wins as in coturn"));
        if (!peer.understood_by_coturn) {
          judge(line, Verdict::mapped, "denied from now on: coturn does not take it (it knows FIRST-LAST alone, and no text behind), so it was open");
          alarm(fmt::format("line {}: coturn did not take this denied-peer-ip, so those peers were open; the result denies them",
                            out_.lines[line].line));
        }
      }
    }
  }
  if (loopback && !unsafe.empty())
    judge_all("allow-loopback-peers", Verdict::refused, "only what allowed-peer-ip names of it, as single addresses with the word unsafe",
              "peers.allow");
  rules_of_database(allowed, denied);

  std::vector<std::string> allow, deny;
  const auto add = [](std::vector<std::string>& list, const std::string& text) {
    if (std::find(list.begin(), list.end(), text) == list.end()) list.push_back(text);
  };
  for (const auto& range : allowed) add(allow, range.text());
  for (const auto& text : unsafe) add(allow, text);
  const auto rest = subtract(denied, allowed);
  for (const auto& range : rest) add(deny, range.text());
  std::string why;
  const bool everything = covered(*net::AddressRange::parse("0.0.0.0/0", why), denied) && covered(*net::AddressRange::parse("::/0", why), denied);
  if (everything && !allow.empty()) {
    deny.clear();
    toml_.set("peers.allow_only", "true", "turnserver.conf denies every address: nothing but what is allowed is reached.");
  }
  const auto open = open_private_networks(denied, allowed);
  if (input_.keep_private_peers)
    for (const auto& network : open) add(allow, network);
  if (!allow.empty())
    toml_.set("peers.allow", toml_list(allow),
              input_.keep_private_peers && !open.empty() ? "Private networks, as coturn reaches them (--keep-private-peers)." : "");
  if (!deny.empty())
    toml_.set("peers.deny", toml_list(deny),
              rest.size() != denied.size() && !allowed.empty() ? "Less what allowed-peer-ip opens, which wins in coturn." : "");
  if (open.empty() || everything) return;
  if (input_.keep_private_peers) {
    differs(
        "Private networks can be reached through the relay, as with coturn (--keep-private-peers). Better is to allow the media server alone, with "
        "its port.");
    return;
  }
  std::vector<std::string> entries = allow;
  for (const auto& network : open) add(entries, network);
  const std::string list = toml_list(entries, true);
  toml_.comment(
      "peers",
      fmt::format(
          "Private networks are not reached unless they are allowed; coturn reaches these. If the media server has a private address, add it:\n"
          "  allow = [\"10.1.2.3:8443\"]\nor all of them, as coturn: allow = {}",
          list));
  std::string names;
  for (const auto& network : open) names += (names.empty() ? "" : ", ") + network;
  const bool usual = std::any_of(open.begin(), open.end(), [](const auto& n) { return n.starts_with("10.") || n.starts_with("172.") || n.starts_with("192."); });
  if (!usual) return differs(fmt::format("Peers in {}, which coturn reaches with this file, are refused unless [peers] allow names them.", names));
  differs(fmt::format("PRIVATE PEERS ARE REFUSED. coturn reaches {} with this file; here a private address is reached only if [peers] allow names it. Is the media "
                      "server (Calls, an SFU, another office) at such an address, add it: allow = [\"10.1.2.3:8443\"]. --keep-private-peers allows them all, as coturn did.",
                      names));
}

void Translator::limits() {
  constexpr long long most = 4'294'967'295, most_bytes = 1'000'000'000'000;
  const auto of_database = [&](const char* key) -> std::optional<long long> {
    if (!input_.database) return std::nullopt;
    const auto options = input_.database->realm_options.find(realm_);
    if (options == input_.database->realm_options.end()) return std::nullopt;
    const auto found = options->second.find(key);
    if (found == options->second.end() || found->second < 0) return std::nullopt;
    return found->second;
  };
  const auto limit = [&](const char* option, const char* key, long long factor, long long largest) {
    long long n = 0;
    bool given = number(option, 0, largest, n);
    if (const auto stored = of_database(option)) {
      given = true;
      n = std::min(*stored, largest);
      note_database(fmt::format("{} of realm \"{}\" is {}, in {}", option, realm_, n, key));
    }
    if (given) toml_.set(key, std::to_string(n * factor));
  };
  limit("user-quota", "limits.allocations_per_user", 1, most);
  limit("total-quota", "limits.allocations", 1, most);
  limit("max-bps", "limits.bytes_per_second_per_user", 2, most_bytes);
  bool whole = false;
  if (given("bps-capacity") && leading_number(value("bps-capacity"), whole) == 0)
    judge_all("bps-capacity", Verdict::used, "0: no limit for the whole relay, as here");
  long long rate = 0;
  if (given("unauthorized-ratelimit-rps") && value("unauthorized-ratelimit-rps").empty())
    judge_all("unauthorized-ratelimit-rps", Verdict::used, "10 a second, as by default", "limits.error_answers_per_second");
  else if (number("unauthorized-ratelimit-rps", 1, most, rate)) toml_.set("limits.error_answers_per_second", std::to_string(rate));
  if (given("unauthorized-ratelimit") && !on("unauthorized-ratelimit"))
    judge_all("unauthorized-ratelimit", Verdict::ignored, "the limit stays on: a relay without it can be used to flood others",
              "limits.error_answers_per_second");
}

}  // namespace radiotower::cli
