#include "notifier/sources/source.h"

#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cmath>

#include "notifier/sources/fields.h"
#include "radiotower/base/encoding.h"

namespace radiotower::notifier {

namespace {

constexpr std::size_t most_items = 50;
constexpr std::size_t longest_key = 200;
constexpr std::size_t deepest = 64;

struct FormatRow {
  Format format;
  std::string_view name;
  Parsed (*parse)(const Arrival&);
};
constexpr FormatRow formats[] = {
    {Format::gitlab, "gitlab", parse_gitlab},
    {Format::jenkins, "jenkins", parse_jenkins},
    {Format::sonarqube, "sonarqube", parse_sonarqube},
    {Format::artifactory, "artifactory", parse_artifactory},
    {Format::gitea, "gitea", parse_forge},
    {Format::github, "github", parse_forge},
    {Format::alertmanager, "alertmanager", parse_alertmanager},
    {Format::slack, "slack", parse_slack},
    {Format::generic, "generic", parse_generic},
};

/// Keys go into an index of a database: bounded, and without the characters it would not take (PostgreSQL has no NUL in a text).
void make_key(std::string& key, const std::string& source) {
  if (key.empty()) return;
  const bool plain = key.size() <= longest_key && std::none_of(key.begin(), key.end(), [](unsigned char c) { return c < 0x20; });
  key = source + '/' + (plain ? key : sha256_hex(key));
}

/// What could never be shown is not kept: a hundred thousand events of 1 MiB would fill disk and memory.
void cut_to_what_is_shown(Event& event) {
  constexpr std::size_t a_name = 500, a_line = 1'000, a_url = 2'048, a_text = 16'384, most_facts = 30;
  for (std::string* name : {&event.project, &event.branch, &event.target_branch, &event.author, &event.author_email, &event.actor, &event.actor_login, &event.action, &event.commit})
    cut(*name, a_name);
  for (std::string* line : {&event.title, &event.commit_title}) cut(*line, a_line);
  for (std::string* url : {&event.url, &event.project_url, &event.commit_url})
    if (url->size() > a_url) url->clear();  // the half of one leads somewhere else
  for (std::string* text : {&event.text, &event.template_text}) cut(*text, a_text);
  for (Item& item : event.items) {
    cut(item.name, a_name);
    cut(item.detail, a_name);
    if (item.url.size() > a_url) item.url.clear();
  }
  if (event.facts.size() > most_facts) event.facts.resize(most_facts);
  for (auto& [name, value] : event.facts) {
    cut(name, a_name);
    cut(value, a_name);
  }
}

void finish(Event& event, std::string_view source) {
  event.source = source;
  event.items_total = std::max(event.items_total, event.items.size());
  const auto rank = [](const Item& item) { return item.status == Status::failed ? 0 : item.status == Status::unstable ? 1 : 2; };
  std::stable_sort(event.items.begin(), event.items.end(), [&](const Item& a, const Item& b) { return rank(a) < rank(b); });
  if (event.items.size() > most_items) event.items.resize(most_items);
  cut_to_what_is_shown(event);
  if (event.author_email == "[REDACTED]") event.author_email.clear();  // GitLab's word for an address that is not public
  make_key(event.subject, event.source);
  make_key(event.history_key, event.source);
  make_key(event.dedup_key, event.source);
}

}  // namespace

std::optional<Format> format_of(std::string_view name) {
  for (const FormatRow& row : formats) {
    if (row.name == name) return row.format;
  }
  return std::nullopt;
}

std::string_view name(Format format) {
  for (const FormatRow& row : formats) {
    if (row.format == format) return row.name;
  }
  return "";
}

std::optional<Json> parse_json(std::string_view body, std::string& why) {
  if (body.empty()) return why = "the body is empty", std::nullopt;
  // Before the parser: it takes a NUL for the end of its input, and builds what is deep before it says how deep it is.
  std::size_t depth = 0;
  bool quoted = false;
  for (std::size_t i = 0; i < body.size(); ++i) {
    const char c = body[i];
    if (c == '\0') return why = "the body is not JSON: it holds a NUL byte", std::nullopt;
    if (quoted) {
      if (c == '\\') ++i;
      else if (c == '"') quoted = false;
    } else if (c == '"') {
      quoted = true;
    } else if (c == '{' || c == '[') {
      if (++depth > deepest) return why = "the body is nested more than 64 deep", std::nullopt;
    } else if ((c == '}' || c == ']') && depth > 0) {
      --depth;
    }
  }
  Json json = Json::parse(body.begin(), body.end(), nullptr, false);  // skips one BOM; strict on UTF-8, numbers and what comes after
  if (json.is_discarded()) return why = "the body is not JSON (RFC 8259, UTF-8)", std::nullopt;
  return json;
}

Parsed parse(const Arrival& arrival) {
  try {
    if (!arrival.body.is_object()) return Malformed{"the body is JSON, but not an object"};
    for (const FormatRow& row : formats) {
      if (row.format != arrival.format) continue;
      Parsed parsed = row.parse(arrival);
      if (auto* event = std::get_if<Event>(&parsed)) finish(*event, arrival.source);
      return parsed;
    }
  } catch (...) {  // nothing is expected here: no body may take the notifier down
  }
  return Malformed{"the body could not be read as this format"};
}

// --- fields

const Json& find(const Json& json, Path path) {
  static const Json none;
  const Json* at = &json;
  for (const char* key : path) {
    if (!at->is_object()) return none;
    const auto found = at->find(key);
    if (found == at->end()) return none;
    at = &*found;
  }
  return *at;
}

std::string find_text(const Json& json, Path path) {
  const auto* found = find(json, path).get_ptr<const std::string*>();
  return found ? *found : std::string();
}

std::string find_id(const Json& json, Path path) {
  const Json& found = find(json, path);
  return found.is_number_integer() ? found.dump() : find_text(found, {});
}

std::optional<double> find_number(const Json& json, Path path) {
  const Json& found = find(json, path);
  if (found.is_number()) return found.get<double>();
  const std::string written = find_text(found, {});
  double value = 0;
  const auto [end, error] = std::from_chars(written.data(), written.data() + written.size(), value);
  if (written.empty() || error != std::errc() || end != written.data() + written.size() || !std::isfinite(value)) return std::nullopt;
  return value;
}

const Json& find_list(const Json& json, Path path) {
  static const Json none = Json::array();
  const Json& found = find(json, path);
  return found.is_array() ? found : none;
}

// --- texts

std::string first_of(std::initializer_list<std::string> texts) {
  for (const std::string& text : texts) {
    if (!text.empty()) return text;
  }
  return {};
}

std::string first_line(std::string_view text) {
  constexpr std::string_view blanks = " \t\r\n";
  const auto from = text.find_first_not_of(blanks);
  if (from == text.npos) return {};
  text = text.substr(from);
  text = text.substr(0, text.find_first_of("\r\n"));
  return std::string(text.substr(0, text.find_last_not_of(blanks) + 1));
}

std::string last_lines(std::string_view text, std::size_t lines) {
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.remove_suffix(1);
  auto from = text.size();
  for (; lines > 0 && from != 0 && from != text.npos; --lines) from = text.rfind('\n', from - 1);
  return std::string(from == text.npos || from == 0 ? text : text.substr(from + 1));
}

std::string blanks_for_underscores(std::string text) {
  std::replace(text.begin(), text.end(), '_', ' ');
  return text;
}

std::string lower_words(std::string_view text) {
  std::string words(text);
  for (char& c : words) c = c == '_' || c == '-' ? ' ' : c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return words;
}

std::string percent_decoded(const std::string& text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    unsigned char value = 0;
    const char* const digits = text.data() + i + 1;
    if (text[i] == '%' && i + 2 < text.size() && std::from_chars(digits, digits + 2, value, 16).ptr == digits + 2) {
      out += static_cast<char>(value);
      i += 2;
    } else {
      out += text[i];
    }
  }
  return is_utf8(out) ? out : text;
}

std::string percent_encoded(std::string_view path) {
  constexpr char digits[] = "0123456789ABCDEF";
  std::string out;
  for (const unsigned char c : path) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
    if (plain || std::string_view("-._~/").find(static_cast<char>(c)) != std::string_view::npos) out += static_cast<char>(c);
    else out += {'%', digits[c >> 4], digits[c & 15]};
  }
  return out;
}

std::string short_sha(const std::string& sha) { return is_utf8(sha.substr(0, 8)) ? sha.substr(0, 8) : sha; }

std::string counted(std::size_t n, std::string_view noun) {
  return std::to_string(n) + ' ' + std::string(noun) + (n == 1 ? "" : "s");
}

std::string joined(const Json& list, const char* key) {
  std::string out;
  for (const Json& entry : find_list(list, {})) {
    const std::string value = key ? find_text(entry, {key}) : find_id(entry, {});
    if (!value.empty()) out += (out.empty() ? "" : ", ") + value;
  }
  return out;
}

void cut(std::string& text, std::size_t bytes) {
  if (text.size() <= bytes) return;
  while (bytes > 0 && (static_cast<unsigned char>(text[bytes]) & 0xC0) == 0x80) --bytes;
  text.resize(bytes);
  text.shrink_to_fit();
}

bool is_utf8(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    const auto byte = [&](std::size_t n) { return i + n < text.size() ? static_cast<unsigned char>(text[i + n]) : 0u; };
    const unsigned lead = byte(0);
    const std::size_t length = lead < 0x80 ? 1 : lead < 0xC2 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 0;
    if (length == 0 || i + length > text.size()) return false;
    for (std::size_t n = 1; n < length; ++n) {
      if ((byte(n) & 0xC0) != 0x80) return false;
    }
    // Overlong ones, surrogates, and what lies beyond U+10FFFF show in the second byte.
    if ((lead == 0xE0 && byte(1) < 0xA0) || (lead == 0xED && byte(1) > 0x9F)) return false;
    if ((lead == 0xF0 && byte(1) < 0x90) || (lead == 0xF4 && byte(1) > 0x8F)) return false;
    i += length;
  }
  return true;
}

std::string sha256_hex(std::string_view bytes) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned size = 0;
  if (EVP_Digest(bytes.data(), bytes.size(), digest.data(), &size, EVP_sha256(), nullptr) != 1) return {};
  return to_hex({digest.data(), size});
}

namespace {

/// Of "2031-05-06T07:08:09" the seconds since 1970; what follows (fraction, zone) is the same in both times that are compared.
std::optional<double> iso_seconds(const std::string& time) {
  int fields[6] = {};
  constexpr std::size_t from[] = {0, 5, 8, 11, 14, 17}, length[] = {4, 2, 2, 2, 2, 2};
  if (time.size() < 19 || time[4] != '-' || time[7] != '-' || time[13] != ':' || time[16] != ':') return std::nullopt;
  for (std::size_t i = 0; i < 6; ++i) {
    const char* const end = time.data() + from[i] + length[i];
    if (std::from_chars(time.data() + from[i], end, fields[i]).ptr != end || fields[i] < 0) return std::nullopt;
  }
  const auto day = std::chrono::year(fields[0]) / fields[1] / fields[2];
  if (!day.ok()) return std::nullopt;
  const auto days = static_cast<double>(std::chrono::sys_days(day).time_since_epoch().count());
  return days * 86'400 + fields[3] * 3600 + fields[4] * 60 + fields[5];
}

}  // namespace

std::optional<double> seconds_between(const std::string& from, const std::string& to) {
  const auto begin = iso_seconds(from), end = iso_seconds(to);
  if (!begin || !end || *end < *begin || *begin <= 0) return std::nullopt;
  return *end - *begin;
}

std::size_t whole(std::optional<double> number) {
  return number && *number >= 0 && *number <= 1e9 ? static_cast<std::size_t>(*number) : 0;
}

// --- what events share

// No "created": to most senders that is what happened, not how far it has come.
Status lenient_status(std::string_view word) {
  static constexpr std::pair<std::string_view, Status> words[] = {
      {"queued", Status::pending}, {"waiting for resource", Status::pending}, {"preparing", Status::pending},
      {"scheduled", Status::pending}, {"requested", Status::pending}, {"waiting for callback", Status::pending},
      {"in progress", Status::running}, {"inprogress", Status::running}, {"started", Status::running}, {"start", Status::running},
      {"canceling", Status::running}, {"building", Status::running},
      {"manual", Status::waiting}, {"blocked", Status::waiting}, {"approval", Status::waiting}, {"action required", Status::waiting},
      {"ok", Status::success}, {"passed", Status::success}, {"successful", Status::success}, {"succeeded", Status::success},
      {"resolved", Status::success}, {"good", Status::success}, {"fixed", Status::success}, {"stable", Status::success},
      {"completed", Status::success},
      {"warn", Status::unstable}, {"warning", Status::unstable},
      {"failure", Status::failed}, {"error", Status::failed}, {"firing", Status::failed}, {"danger", Status::failed}, {"timed out", Status::failed},
      {"startup failure", Status::failed}, {"broken", Status::failed}, {"fail", Status::failed}, {"regression", Status::failed},
      {"cancelled", Status::canceled}, {"aborted", Status::canceled}, {"stale", Status::canceled},
      {"not built", Status::skipped}, {"neutral", Status::skipped},
  };
  const std::string wanted = lower_words(word);
  if (const auto exact = status_of(wanted)) return *exact;
  for (const auto& [name, status] : words) {
    if (name == wanted) return status;
  }
  return Status::none;
}

std::string header(const Arrival& arrival, std::string_view name) {
  const std::string_view value = arrival.header ? arrival.header(name) : std::string_view();
  const bool plain = value.size() <= longest_key && std::all_of(value.begin(), value.end(), [](char c) { return c >= 0x20 && c < 0x7F; });
  return plain ? std::string(value) : std::string();
}

void add_fact(Event& event, const char* name, std::string value) {
  // A newline is add_link()'s: nobody may hide an address behind other words.
  std::replace(value.begin(), value.end(), '\n', ' ');
  if (!value.empty()) event.facts.emplace_back(name, std::move(value));
}

void add_link(Event& event, const char* name, const std::string& label, const std::string& url) {
  add_fact(event, name, label);
  if (!label.empty() && !url.empty()) event.facts.back().second += '\n' + url;
}

void set_ref(Event& event, const std::string& ref, const std::string& default_branch) {
  constexpr std::string_view heads = "refs/heads/", tags = "refs/tags/";
  if (ref.starts_with(tags)) event.is_tag = true;
  event.branch = ref.starts_with(heads) ? ref.substr(heads.size()) : ref.starts_with(tags) ? ref.substr(tags.size()) : ref;
  if (event.is_tag) event.on_default_branch = false;
  else if (!default_branch.empty() && !event.branch.empty()) event.on_default_branch = event.branch == default_branch;
}

bool is_zero_sha(std::string_view sha) { return sha.find_first_not_of('0') == sha.npos; }

void set_commits(Event& event, const Json& commits, const std::string& head, std::size_t total) {
  const Json* newest = nullptr;
  for (const Json& commit : commits) {
    if (!commit.is_object()) continue;
    event.items.push_back({first_of({first_line(text(commit, "title")), first_line(text(commit, "message")), short_sha(text(commit, "id"))}),
                           text(commit, "url"), first_of({text(commit, "author", "name"), text(commit, "author", "username")}), Status::none});
    if (!newest || text(*newest, "id") != head) newest = &commit;
  }
  event.items_total = std::max(total, event.items.size());
  if (!is_zero_sha(head)) event.commit = head;
  if (!newest) return;
  event.commit_title = first_of({first_line(text(*newest, "title")), first_line(text(*newest, "message"))});
  event.commit_url = text(*newest, "url");
  event.author = text(*newest, "author", "name");
  event.author_email = text(*newest, "author", "email");
}

std::string push_title(const Event& event, std::size_t commits) {
  const std::string noun = event.is_tag ? "tag" : "branch";
  if (event.action == "deleted") return event.is_tag ? "Tag deleted" : "Branch deleted";
  if (event.is_tag || (event.action == "created" && commits == 0)) return "New " + noun;
  return commits == 0 ? "No new commits" : counted(commits, "commit");
}

}  // namespace radiotower::notifier
