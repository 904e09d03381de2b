#include "translation.h"

#include <fmt/format.h>

#include <algorithm>

#include "json.h"
#include "translator.h"

namespace radiotower::cli {

namespace {

constexpr std::string_view sections[] = {"",         "listen",  "relay", "credentials", "peers",   "limits",  "features",
                                         "redirect", "workers", "log",   "metrics",     "control", "shutdown"};
constexpr std::size_t longest_shown = 48;

/// A key as it can be shown on a terminal, whatever it is made of.
std::string shown(std::string_view text) {
  std::string out;
  for (const char c : text.substr(0, longest_shown)) {
    if (c >= 0x20 && c < 0x7F) out += c;
    else out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
  }
  return text.size() > longest_shown ? out + "..." : out;
}

std::string join(std::string_view a, std::string_view b) {
  return a.empty() ? std::string(b) : b.empty() ? std::string(a) : fmt::format("{}; {}", a, b);
}

}  // namespace

// TOML is UTF-8; what json_string() had to replace is not.
bool is_utf8(std::string_view text) { return json_string(text).find("\\ufffd") == std::string::npos; }

bool fits_realm(std::string_view text) {
  constexpr std::size_t longest = 40;  // as relay.toml has it: daemon::max_realm
  return !text.empty() && text.size() <= longest && is_utf8(text) &&
         std::none_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == '"' || c == '\\' || c == 0x7F; });
}

std::string toml_quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) out += fmt::format("\\u{:04X}", static_cast<unsigned char>(c));
    else out += c;
  }
  return out + "\"";
}

std::string toml_list(const std::vector<std::string>& texts, bool one_line) {
  std::string out = "[";
  const bool long_one = texts.size() > 4 && !one_line;
  for (const auto& text : texts)
    out += fmt::format("{}{}", out.size() == 1 ? (long_one ? "\n  " : "") : (long_one ? ",\n  " : ", "), toml_quoted(text));
  return out + (long_one ? ",\n]" : "]");
}

std::vector<TomlFile::Entry>& TomlFile::section(std::string_view name) {
  auto found = sections_.find(name);
  if (found == sections_.end()) {
    found = sections_.emplace(name, std::vector<Entry>{}).first;
    order_.emplace_back(name);
  }
  return found->second;
}

void TomlFile::set(std::string_view key, std::string value, std::string comment) {
  const std::size_t dot = key.rfind('.');
  const std::string_view name = dot == key.npos ? key : key.substr(dot + 1);
  auto& entries = section(dot == key.npos ? "" : key.substr(0, dot));
  std::erase_if(entries, [&](const Entry& e) { return e.key == name; });
  entries.push_back({std::string(name), std::move(value), std::move(comment)});
}

void TomlFile::comment(std::string_view name, std::string text) { section(name).push_back({"", "", std::move(text)}); }

bool TomlFile::has(std::string_view key) const {
  const std::size_t dot = key.rfind('.');
  const auto found = sections_.find(dot == key.npos ? "" : key.substr(0, dot));
  if (found == sections_.end()) return false;
  return std::any_of(found->second.begin(), found->second.end(), [&](const Entry& e) { return e.key == key.substr(dot == key.npos ? 0 : dot + 1); });
}

std::string TomlFile::text(std::string_view head) const {
  std::string out(head);
  const auto write = [&](std::string_view name, const std::vector<Entry>& entries) {
    out += name.empty() ? "\n" : fmt::format("\n[{}]\n", name);
    for (const Entry& entry : entries) {
      for (std::string_view rest = entry.comment; !rest.empty();) {
        const std::size_t end = std::min(rest.find('\n'), rest.size());
        out += fmt::format("# {}\n", rest.substr(0, end));
        rest.remove_prefix(std::min(end + 1, rest.size()));
      }
      if (!entry.key.empty()) out += fmt::format("{} = {}\n", entry.key, entry.value);
    }
  };
  for (const std::string_view name : sections)
    if (const auto found = sections_.find(name); found != sections_.end()) write(name, found->second);
  for (const auto& name : order_)  // realms, in the order they came
    if (std::find(std::begin(sections), std::end(sections), name) == std::end(sections)) write(name, sections_.find(name)->second);
  return out;
}

Translator::Translator(const TranslationInput& input) : input_(input) {}

std::vector<std::size_t> Translator::lines(std::string_view option) const {
  const auto found = by_option_.find(option);
  return found == by_option_.end() ? std::vector<std::size_t>{} : found->second;
}

std::string Translator::value(std::string_view option) const {
  const auto all = lines(option);
  return all.empty() ? std::string() : value_of(all.back());
}

bool Translator::on(std::string_view option) const {
  if (!given(option)) return false;
  bool is_on = true;
  if (find_option(option)->takes == Option::Takes::presence) return true;
  read_switch(value(option), is_on);
  return is_on;
}

bool Translator::number(std::string_view option, long long least, long long most, long long& out) {
  const auto all = lines(option);
  if (all.empty()) return false;
  bool whole = false;
  const std::string& text = value_of(all.back());
  const long long read = leading_number(text, whole);
  const bool digits = text.find_first_of("0123456789") < 2;
  if (!digits || read < least || read > most) {
    judge(all.back(), Verdict::refused, fmt::format("{} is no number from {} to {}", toml_quoted(shown(text)), least, most));
    return false;
  }
  if (!whole)
    judge(all.back(), out_.lines[all.back()].verdict,
          fmt::format("taken as {}: what stands behind the number does not count, for coturn neither; {}", read, out_.lines[all.back()].says));
  out = read;
  return true;
}

void Translator::judge(std::size_t line, Verdict verdict, std::string says, std::string keys) {
  LineVerdict& v = out_.lines[line];
  v.verdict = verdict;
  v.says = std::move(says);
  if (!keys.empty() || verdict == Verdict::ignored || verdict == Verdict::unknown) v.keys = std::move(keys);
}

void Translator::judge_all(std::string_view option, Verdict verdict, const std::string& says, const std::string& keys) {
  for (const std::size_t line : lines(option)) judge(line, verdict, says, keys);
}

void Translator::alarm(std::string text) { out_.alarms.push_back(std::move(text)); }

void Translator::first_look() {
  for (std::size_t i = 0; i < input_.lines.size(); ++i) {
    const ConfLine& line = input_.lines[i];
    LineVerdict& verdict = out_.lines.emplace_back();
    verdict.line = line.number;
    verdict.option = line.rest ? "(its rest)" : line.key.empty() ? "(nothing)" : shown(line.key);  // a rest may be that of a secret
    const Option* option = line.byte_order_mark ? nullptr : find_option(line.key);
    if (!option) {
      const Option* near = nearest_option(line.key);
      verdict.alarm = near && near->protects;
      verdict.says = "coturn knows no such option and went on without it";
      if (line.byte_order_mark)
        verdict.says = "a byte order mark stands in front of it, so coturn did not know it: save the file as UTF-8 without one";
      else if (line.rest) verdict.says = "the rest of a line of more than 1023 characters, which coturn reads as a line of its own";
      else if (near) verdict.says += fmt::format("; did you mean {}?", near->name);
      if (verdict.alarm)
        alarm(fmt::format("line {}: {} is no option of coturn's: {}. If {} is meant, correct the line and translate again", line.number, verdict.option,
                          near->name == "denied-peer-ip" ? "what it was to deny has never held" : "the line has never had any effect", near->name));
      continue;
    }
    verdict.verdict = option->verdict;
    verdict.keys = option->keys;
    verdict.says = option->says;
    if (line.cut) {
      judge(i, Verdict::refused, "longer than 1023 characters: coturn cuts it there");
      alarm(fmt::format("line {}: {} is longer than the 1023 characters that coturn reads", line.number, verdict.option));
      continue;
    }
    bool is_on = true;
    if (option->takes == Option::Takes::on_off && !read_switch(line.value, is_on)) {
      judge(i, Verdict::refused, "no value for a switch, at which coturn does not start: yes or no");
      continue;
    }
    if (option->takes == Option::Takes::value && line.value.empty()) {
      judge(i, Verdict::refused, "has no value");
      continue;
    }
    by_option_[line.key].push_back(i);
  }
  for (auto& [key, all] : by_option_) {  // one thing said twice: the last one counts
    const Option& option = *find_option(key);
    if (option.takes == Option::Takes::repeated) continue;
    for (; all.size() > 1; all.erase(all.begin()))
      judge(all.front(), Verdict::ignored, fmt::format("line {} says it again, and the last one counts", out_.lines[all.back()].line));
    bool is_on = true;
    if (option.takes != Option::Takes::on_off || !read_switch(value_of(all.front()), is_on) || is_on) continue;
    // A switch that is off. What it would have done is of no interest, and whoever asks for it reads on().
    judge(all.front(), Verdict::used, "off, as it is here");
  }
}

void Translator::choose_realm() {
  realm_ = value("realm");
  if (fits_realm(realm_)) {
    toml_.set("realm", toml_quoted(realm_));
    return;
  }
  if (!realm_.empty()) {
    judge_all(
        "realm", Verdict::refused,
        "longer than 40 bytes, or with a quote, a backslash, a control character or what is no UTF-8 in it: the realm is \"radiotower\" instead",
        "realm");
    differs("The realm is \"radiotower\": keys of the old realm (0x...) cannot work with it, passwords and time-limited names do.");
    realm_ = "radiotower";
    return;
  }
  // coturn takes the host's domain name; where the database has users of one realm alone, it must have been that.
  std::vector<std::string> known;
  const auto know = [&](const std::string& realm) {
    if (std::find(known.begin(), known.end(), realm) == known.end()) known.push_back(realm);
  };
  if (input_.database) {
    for (const auto& user : input_.database->users) know(user.realm);
    for (const auto& secret : input_.database->secrets) know(secret.realm);
  }
  realm_ = known.size() == 1 && !known.front().empty() && fits_realm(known.front()) ? known.front() : "radiotower";
  toml_.set("realm", toml_quoted(realm_),
            realm_ != "radiotower" ? "The only one of the database; turnserver.conf names none." : "turnserver.conf names none.");
  differs(fmt::format(
      "The file names no realm, for which coturn takes the host's domain name; here it is \"{}\". Only keys of the form 0x... depend on it.",
      realm_));
}

void Translator::log() {
  if (on("Verbose")) toml_.set("log.level", "\"debug\"");
  if (!given("log-min-level")) return;
  const std::string level = value("log-min-level");
  std::string ours;
  if (level == "debug" || level == "verbose") ours = "debug";
  else if (level == "info") ours = "info";
  else if (level == "warning" || level == "warn") ours = "warning";
  else if (level == "error") ours = "error";
  if (ours.empty()) return judge_all("log-min-level", Verdict::refused, "no level of coturn's: debug, info, warning or error");
  toml_.set("log.level", toml_quoted(ours));
}

void Translator::features() {
  if (on("mobility")) toml_.set("features.mobility", "true");
  if (on("secure-stun")) toml_.set("features.authenticated_binding", "true");
  if (on("rfc5766-channel-numbers")) toml_.set("relay.rfc5766_channel_numbers", "true");
  if (on("keep-address-family")) toml_.set("relay.keep_address_family", "true");
  const std::string family = value("allocation-default-address-family");
  if (family == "keep") toml_.set("relay.keep_address_family", "true");
  else if (family == "ipv4")
    judge_all("allocation-default-address-family", Verdict::used, "IPv4 for clients that ask for none, as by default", "relay.keep_address_family");
  else if (!family.empty())
    judge_all("allocation-default-address-family", Verdict::refused,
              "clients that ask for no family get IPv4, or with keep_address_family = true their own", "relay.keep_address_family");
  long long threads = 0;
  for (const char* option : {"cpus", "relay-threads"}) {
    if (!number(option, 0, 1024, threads)) continue;
    if (threads > 0) toml_.set("workers.count", std::to_string(threads));
    else judge_all(option, Verdict::used, "one a core, as by default", "workers.count");
  }
  if (given("cpus") && given("relay-threads")) judge_all("cpus", Verdict::ignored, "relay-threads is there too");
}

void Translator::usual_differences() {
  if (!given("no-tcp-relay") || !on("no-tcp-relay"))
    differs("TCP allocations (RFC 6062) are off. Browsers never ask for them; where somebody does: [features] tcp_relay = true.");
  if (!given("user-quota"))
    differs("A user of time-limited names has at most 24 allocations ([limits] allocations_per_user) and 12.5 MB/s; coturn has no limit by default.");
  if (rest_)
    differs(
        "A time-limited name may be good for 7 days at most. Whoever makes longer ones, or wrote one into a client for years, needs a shorter "
        "lifetime or a user with a password.");
  differs(
      "The relay reads no database while it runs: users and secrets stand in files, and `radiotower reload` (or systemctl reload radiotower-relay) "
      "takes changes over.");
  differs(
      "Clients that come with a wrong password get ten answers a second, and a flood is kept out before it costs calls; there is no setting to copy "
      "for it.");
}

Translation Translator::run() {
  first_look();
  choose_realm();
  listeners();
  certificates();
  relay_addresses();
  ports();
  credentials();
  peers();
  limits();
  features();
  redirects();
  metrics();
  log();
  usual_differences();
  const std::string head = fmt::format("# Translated from {}{}{} by `radiotower migrate`. docs/configuration.md is the manual of the keys.\n",
                                       shown(input_.name), input_.database ? " and " : "", input_.database ? shown(input_.database_name) : "");
  out_.files.insert(out_.files.begin(), OutFile{"relay.toml", toml_.text(head)});
  for (std::size_t i = 0; i < out_.lines.size(); ++i) {
    LineVerdict& line = out_.lines[i];
    if (line.verdict == Verdict::unknown || line.verdict == Verdict::refused) out_.complete = false;
    if (input_.lines[i].semicolon) line.says = join(line.says, "the semicolon at its end is part of the value for coturn");
  }
  if (!out_.alarms.empty()) out_.complete = false;
  return std::move(out_);
}

Translation translate(const TranslationInput& input) { return Translator(input).run(); }

}  // namespace radiotower::cli
