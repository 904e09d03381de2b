// What each rule is against stands at the rule; what Mattermost's parsers do was read in their sources: the server's
// (mentions, previews), the web client's marked, the mobile client's commonmark. Where they differ, what is written
// holds for all: a backslash only before what all of them escape, a numeric entity where one of them looks at the raw
// character first, U+200B where a plain search runs over the result.
#include "notifier/text.h"

#include <algorithm>

#include "notifier/clusters.h"

namespace radiotower::notifier {

namespace {

constexpr std::string_view gap = "\u200B";
constexpr std::string_view broken_bar = "¦";

bool is_digit(char32_t c) { return c >= U'0' && c <= U'9'; }
bool is_ascii_letter(char32_t c) { return (c >= U'a' && c <= U'z') || (c >= U'A' && c <= U'Z'); }
/// Whatever is not ASCII counts as one: \p{L} of the parsers, with much to spare.
bool is_letter(char32_t c) { return is_ascii_letter(c) || c >= 0x80; }
bool is_alphanumeric(char32_t c) { return is_letter(c) || is_digit(c); }

/// One line of `text`, trimmed, runs of blanks as one, each cluster as `write(before, it, after)` puts it.
template <typename Write>
std::string one_line(std::string_view text, std::size_t limit, Write&& write, bool* cut = nullptr) {
  Clusters clusters(text, false);
  Bounded out(limit);
  Cluster before;
  Cluster it = clusters.next();
  while (it.base() == U' ') it = clusters.next();
  while (it.size != 0) {
    Cluster after = clusters.next();
    if (it.base() == U' ') {
      while (after.base() == U' ') after = clusters.next();
      if (after.size == 0) break;
    }
    if (!out.add(write(before, it, after))) break;
    before = it;
    it = after;
  }
  if (cut != nullptr) *cut = out.was_cut();
  return std::move(out).finish();
}

std::string compose(std::string_view in_front, const Cluster& cluster, std::string_view behind) {
  std::string unit(in_front);
  for (std::size_t i = 0; i < cluster.size; ++i) append(unit, cluster.points[i]);
  unit += behind;
  return unit;
}

std::string replaced(std::string_view base, const Cluster& cluster) {
  std::string unit(base);
  for (std::size_t i = 1; i < cluster.size; ++i) append(unit, cluster.points[i]);
  return unit;
}

class MarkdownEscape {
 public:
  explicit MarkdownEscape(bool in_label) : in_label_(in_label), first_(!in_label) {}

  std::string operator()(const Cluster& before, const Cluster& it, const Cluster& after) {
    std::string unit = escape(before.base(), it, after.base());
    const char32_t c = it.base();
    starts_with_number_ = (first_ || starts_with_number_) && is_digit(c);
    first_ = false;
    if (c < 0x80 && is_alphanumeric(c)) {
      if (word_.size() < 8) word_ += static_cast<char>(c | 0x20u);
    } else {
      word_.clear();
    }
    letters_after_dot_ = c == U'.' ? 0 : letters_after_dot_ >= 0 && is_letter(c) ? letters_after_dot_ + 1 : -1;
    return unit;
  }

 private:
  std::string escape(char32_t before, const Cluster& it, char32_t after) const {
    const char32_t c = it.base();
    const bool ends = after == 0 || after == U' ';  // a word, that is
    switch (c) {
      case U'&':
        return replaced("&amp;", it);  // entities are decoded before mentions are looked for
      // <!channel>, <@id> and <url|label> are replaced in the raw text; also autolinks and HTML.
      case U'<': return replaced("&lt;", it);
      // The other half of <url|label>; cells of tables, which are split before anything is unescaped.
      case U'|': return replaced("&#124;", it);
      case U'\\': return replaced("&#92;", it);  // before a letter marked shows both of "\\", commonmark one
      case U'$': return replaced("&#36;", it);   // formulas: "\$" is an escape to commonmark alone
      case U'`':
      case U'*':
      case U'_': return compose("\\", it, "");
      // Inside a label marked counts brackets, escaped or not.
      case U'[': return in_label_ ? replaced("&#91;", it) : compose("\\", it, "");
      case U']': return in_label_ ? replaced("&#93;", it) : compose("\\", it, "");
      case U'@': return compose("", it, gap);
      // The web client looks for channels, hashtags and emoji after unescaping.
      case U'~': return compose("\\", it, is_alphanumeric(after) ? gap : "");
      case U'#': return compose(first_ ? "\\" : "", it, is_letter(after) ? gap : "");
      // Schemes and emoji. Times, ports and "C:\", which people copy, stay as they are.
      case U':': return compose("", it, ends || after == U'\\' || (is_digit(before) && is_digit(after)) ? "" : gap);
      // What follows at the end may be a link of ours: no image.
      case U'!': return compose(after == 0 || after == U'[' ? "\\" : "", it, "");
      case U'>': return compose(first_ ? "\\" : "", it, "");
      // Items of lists, rules, and "--" or "==", which make a heading of the line before.
      case U'-':
      case U'+': return compose(first_ && (ends || after == c) ? "\\" : "", it, "");
      case U'=': return first_ && (ends || after == c) ? replaced("&#61;", it) : compose("", it, "");
      case U')': return compose(starts_with_number_ && ends ? "\\" : "", it, "");
      case U'.':
        if (is_www()) return compose(gap, it, "");
        return compose(starts_with_number_ && ends ? "\\" : "", it, "");
      // The web client links "evil.example/" without any scheme.
      case U'/': return compose(letters_after_dot_ >= 2 ? gap : "", it, "");
      default: return compose("", it, "");
    }
  }

  bool is_www() const {
    return word_.starts_with("www") &&
           std::all_of(word_.begin() + 3, word_.end(), [](char c) { return c >= '0' && c <= '9'; });
  }

  bool in_label_;
  bool first_;  // of a line, as far as we know
  bool starts_with_number_ = false;
  int letters_after_dot_ = -1;  // -1: no dot before
  std::string word_;            // ASCII letters and digits up to here, in lower case
};

std::string label_of_link(std::string_view text, std::size_t limit) {
  return one_line(text, limit, MarkdownEscape(true));
}

char hexadecimal(unsigned value) { return "0123456789ABCDEF"[value & 15u]; }

void percent_encode(std::string& out, char byte) {
  const unsigned value = static_cast<unsigned char>(byte);
  out += '%';
  out += hexadecimal(value >> 4);
  out += hexadecimal(value);
}

bool is_host_byte(char c) {
  return is_ascii_letter(static_cast<unsigned char>(c)) || is_digit(static_cast<unsigned char>(c)) || c == '.' ||
         c == '-' || c == '_';
}

/// host, host:port, [v6], [v6]:port. No user info, no percent-encoding, no letters that only look like ASCII.
bool is_authority(std::string_view authority) {
  std::size_t end = 0;
  if (authority.starts_with('[')) {
    end = authority.find(']');
    if (end == std::string_view::npos || end < 3) return false;
    if (authority.substr(1, end - 1).find_first_not_of("0123456789abcdefABCDEF:.") != std::string_view::npos)
      return false;
    ++end;
  } else {
    while (end < authority.size() && is_host_byte(authority[end])) ++end;
    if (end == 0 || authority.front() == '.' || authority.front() == '-') return false;
  }
  if (end == authority.size()) return true;
  const std::string_view port = authority.substr(end);
  return port.size() >= 2 && port.size() <= 6 && port[0] == ':' &&
         port.find_first_not_of("0123456789", 1) == std::string_view::npos;
}

bool equals_ignoring_case(std::string_view text, std::string_view lower) {
  return text.size() == lower.size() && std::equal(text.begin(), text.end(), lower.begin(), [](char a, char b) {
           return (a >= 'A' && a <= 'Z' ? static_cast<char>(a + 32) : a) == b;
         });
}

std::size_t authority_begins(std::string_view url) {
  const std::size_t colon = url.find("://");
  return colon == std::string_view::npos ? 0 : colon + 3;
}

}  // namespace

std::size_t characters(std::string_view utf8) {
  return static_cast<std::size_t>(
      std::count_if(utf8.begin(), utf8.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

std::string markdown_line(std::string_view text, std::size_t limit) {
  return one_line(text, limit, MarkdownEscape(false));
}

std::string markdown_quote(std::string_view text, std::size_t limit, std::size_t lines) {
  std::string quote;
  std::size_t left = limit;
  bool more = false;
  for (std::size_t written = 0; !text.empty() && !more;) {
    std::string_view rest = text;
    std::size_t length = text.size();
    while (!rest.empty()) {
      const std::size_t at = text.size() - rest.size();
      if (ends_line(take_code_point(rest))) {
        length = at;
        break;
      }
    }
    const std::string_view line = text.substr(0, length);
    text = length == text.size() ? std::string_view{} : rest;

    // "\n> …" must still fit below a line that is not the last. An empty line has nothing to show.
    if (one_line(line, 1, MarkdownEscape(false)).empty()) continue;
    const std::size_t around = (quote.empty() ? 2 : 3) + 4;
    if (written == lines || left <= around) {
      more = true;
      break;
    }
    const std::string shown = one_line(line, left - around, MarkdownEscape(false), &more);
    quote += quote.empty() ? "> " : "\n> ";
    quote += shown;
    left -= around - 4 + characters(shown);
    ++written;
    if (more) return quote;  // ends in "…" already
  }
  if (more && !quote.empty()) quote += "\n> …";
  return quote;
}

std::string plain_line(std::string_view text, std::size_t limit) {
  bool opened = false;
  return one_line(text, limit, [&](const Cluster&, const Cluster& it, const Cluster& after) {
    const char32_t next = after.base();
    switch (it.base()) {
      case U'@': return compose("", it, gap);
      case U'&': return compose("", it, next == U'#' || is_alphanumeric(next) ? gap : "");
      case U'<': opened = true; return compose("", it, next == U' ' ? "" : gap);
      case U'|':
        // No U+200B keeps <url|label> from being a link.
        return opened ? replaced(broken_bar, it) : compose("", it, "");
      default: return compose("", it, "");
    }
  });
}

std::string code_span(std::string_view text, std::size_t limit) {
  std::size_t room = limit < 3 ? 0 : limit - 2;
  while (room > 0) {
    const std::string content = one_line(text, room, [&](const Cluster&, const Cluster& it, const Cluster& after) {
      const char32_t next = after.base();
      if (it.base() == U'<') return compose("", it, next == U'!' || next == U'@' || next == 0 ? gap : "");
      if (it.base() == U'|') return replaced(broken_bar, it);  // <url|label> is replaced in code, too
      return compose("", it, "");
    });
    if (content.empty()) return {};
    std::size_t longest = 0;
    for (std::size_t i = 0, run = 0; i < content.size(); ++i) {
      run = content[i] == '`' ? run + 1 : 0;
      longest = std::max(longest, run);
    }
    const std::string fence(longest + 1, '`');
    const std::string_view pad = content.front() == '`' || content.back() == '`' ? " " : "";
    std::string span = fence;
    span.append(pad).append(content).append(pad).append(fence);
    const std::size_t size = characters(span);
    if (size <= limit) return span;
    room = std::min(room - 1, room * limit / size);
  }
  return {};
}

std::string safe_url(std::string_view url) {
  constexpr std::size_t longest = 2000;
  while (!url.empty() && url.front() == ' ') url.remove_prefix(1);
  while (!url.empty() && url.back() == ' ') url.remove_suffix(1);
  if (url.size() > longest) return {};
  const std::size_t begin = authority_begins(url);
  if (begin == 0) return {};
  const std::string_view scheme = url.substr(0, begin - 3);
  if (!equals_ignoring_case(scheme, "http") && !equals_ignoring_case(scheme, "https")) return {};
  const std::size_t end = std::min(url.find_first_of("/?#", begin), url.size());
  if (!is_authority(url.substr(begin, end - begin))) return {};
  std::string out(scheme.size() == 4 ? "http://" : "https://");
  out += url.substr(begin, end - begin);
  for (const char c : url.substr(end)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7F) return {};
    if (byte >= 0x80 || std::string_view(" \"<>\\^`{|}").find(c) != std::string_view::npos)
      percent_encode(out, c);
    else
      out += c;
  }
  return out.size() <= longest ? out : std::string();
}

std::string markdown_url(std::string_view url) {
  const std::string safe = safe_url(url);
  const std::size_t path = std::min(safe.find_first_of("/?#", authority_begins(safe)), safe.size());
  std::string out = safe.substr(0, path);
  bool after_ampersand = false;
  for (const char c : std::string_view(safe).substr(path)) {
    after_ampersand = after_ampersand || c == '&';
    if (std::string_view("()[]@*'$~").find(c) != std::string_view::npos || (c == ';' && after_ampersand))
      percent_encode(out, c);
    else
      out += c;
  }
  return out;
}

std::string link(std::string_view label, std::string_view url, std::size_t limit) {
  const std::string target = markdown_url(url);
  if (target.empty()) return markdown_line(label, limit);
  std::string shown = label_of_link(label, limit);
  if (shown.empty()) shown = label_of_link(target, limit);
  if (shown.empty()) return {};
  std::string out;
  return out.append("[").append(shown).append("](").append(target).append(")");
}

std::string for_terminal(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const char32_t c = take_code_point(text);
    if (c == U'\n')
      out += '\n';
    else if (is_blank(c))
      out += ' ';
    else if (!is_hidden(c))
      append(out, c);
  }
  return out;
}

}  // namespace radiotower::notifier
