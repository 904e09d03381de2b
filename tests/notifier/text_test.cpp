// The table of hostile texts, and properties over many made ones: what Mattermost would do to the result is done here
// in small.
#include <doctest/doctest.h>

#include <fstream>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "notifier/clusters.h"
#include "notifier/text.h"

using namespace radiotower::notifier;

namespace {

constexpr std::string_view gap = "\u200B";

/// \n, \t, \r, \xNN (a byte), \uXXXX, \UXXXXXXXX, \\ .
std::string unescape(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\' || i + 1 == text.size()) {
      out += text[i];
      continue;
    }
    const char kind = text[++i];
    const std::size_t digits = kind == 'x' ? 2 : kind == 'u' ? 4 : kind == 'U' ? 8 : 0;
    if (digits == 0) {
      out += kind == 'n' ? '\n' : kind == 't' ? '\t' : kind == 'r' ? '\r' : kind;
      continue;
    }
    const auto value = static_cast<char32_t>(std::stoul(std::string(text.substr(i + 1, digits)), nullptr, 16));
    if (kind == 'x')
      out += static_cast<char>(static_cast<unsigned char>(value));
    else
      append(out, value);
    i += digits;
  }
  return out;
}

std::string call(std::string_view function, std::string_view input, std::size_t limit) {
  if (function == "markdown_line") return markdown_line(input, limit);
  if (function == "plain_line") return plain_line(input, limit);
  if (function == "code_span") return code_span(input, limit);
  if (function == "defused_markdown") return defused_markdown(input, limit);
  if (function == "markdown_quote") return markdown_quote(input, limit, 4);
  if (function == "link") {
    const std::size_t bar = input.find(" || ");
    REQUIRE(bar != std::string_view::npos);
    return link(input.substr(0, bar), input.substr(bar + 4), limit);
  }
  FAIL("no function of this name: ", std::string(function));
  return {};
}

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const std::string_view before = text;
    if (take_code_point(text) == 0xFFFD && !before.starts_with("\uFFFD")) return false;
  }
  return true;
}

/// What the server does first: <!channel>, and <url|label> wherever it stands.
std::string after_slack(std::string text) {
  for (const char* word : {"channel", "here", "all"}) {
    const std::string slack = std::string("<!") + word + ">";
    for (std::size_t at; (at = text.find(slack)) != std::string::npos;)
      text.replace(at, slack.size(), std::string("@") + word);
  }
  return text;
}

/// Whether <([^<|]+)\|([^>]+)> matches anywhere.
bool has_slack_link(std::string_view text) {
  for (std::size_t open = text.find('<'); open != std::string_view::npos; open = text.find('<', open + 1)) {
    const std::size_t bar = text.find_first_of("<|", open + 1);
    if (bar == std::string_view::npos || text[bar] == '<' || bar == open + 1) continue;
    const std::size_t close = text.find('>', bar + 1);
    if (close != std::string_view::npos && close > bar + 1) return true;
  }
  return false;
}

/// Backslash escapes and entities, as the server reads them before it looks for mentions.
std::string decoded(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 1 < text.size() &&
        std::string_view("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~").find(text[i + 1]) != std::string_view::npos) {
      out += text[++i];
      continue;
    }
    const std::size_t end = text[i] == '&' ? text.find(';', i) : std::string_view::npos;
    if (end != std::string_view::npos && end - i < 12) {
      const std::string name(text.substr(i + 1, end - i - 1));
      char32_t value = 0;
      if (name == "commat")
        value = U'@';
      else if (name == "amp")
        value = U'&';
      else if (name == "lt")
        value = U'<';
      else if (name.size() > 2 && name[0] == '#' && (name[1] | 32) == 'x' &&
               name.find_first_not_of("0123456789abcdefABCDEF", 2) == std::string::npos)
        value = static_cast<char32_t>(std::stoul(name.substr(2), nullptr, 16));
      else if (name.size() > 1 && name[0] == '#' && name.find_first_not_of("0123456789", 1) == std::string::npos)
        value = static_cast<char32_t>(std::stoul(name.substr(1)));
      if (value != 0 && value < 0xD800) {
        append(out, value);
        i = end;
        continue;
      }
    }
    out += text[i];
  }
  return out;
}

/// The server's mention scan, made stricter: any @ with a letter, digit or "_" behind it, whatever stands before.
bool mentions_somebody(const std::string& text) {
  const std::string seen = decoded(after_slack(text));
  for (std::size_t i = 0; i + 1 < seen.size(); ++i) {
    const auto next = static_cast<unsigned char>(seen[i + 1]);
    if (seen[i] == '@' && (std::isalnum(next) || next == '_')) return true;
  }
  return false;
}

bool ends_in_a_lone_backslash(std::string_view text) {
  std::size_t count = 0;
  while (count < text.size() && text[text.size() - 1 - count] == '\\') ++count;
  return count % 2 == 1;
}

/// An unescaped "![".
bool has_image(std::string_view text) {
  for (std::size_t at = text.find("!["); at != std::string_view::npos; at = text.find("![", at + 1))
    if (at == 0 || text[at - 1] != '\\') return true;
  return false;
}

bool shows_hidden(std::string_view text) {
  while (!text.empty()) {
    const char32_t c = take_code_point(text);
    if (is_hidden(c) && c != U'\n' && c != 0x200B && c != 0x200D && c != 0xFE0F) return true;
  }
  return false;
}

class Maker {
 public:
  std::string text() {
    static const std::vector<std::string> parts = {"@",
                                                   "all",
                                                   "@all",
                                                   "@here",
                                                   "channel",
                                                   "<",
                                                   "!",
                                                   "<!",
                                                   "<!channel>",
                                                   "<@U1>",
                                                   ">",
                                                   "|",
                                                   "&",
                                                   "#64;",
                                                   "&#64;",
                                                   "&#x40;",
                                                   "&commat;",
                                                   "amp;",
                                                   "&amp;",
                                                   "&lt;",
                                                   ";",
                                                   "\\",
                                                   "`",
                                                   "``",
                                                   "*",
                                                   "**",
                                                   "_",
                                                   "~",
                                                   "~~",
                                                   "#",
                                                   "# ",
                                                   "[",
                                                   "]",
                                                   "(",
                                                   ")",
                                                   "](",
                                                   "![",
                                                   "http://",
                                                   "https://x.example/",
                                                   "javascript:",
                                                   ":",
                                                   "/",
                                                   ".",
                                                   "www.",
                                                   "com",
                                                   "\n",
                                                   "\r\n",
                                                   " ",
                                                   "    ",
                                                   "\t",
                                                   "- ",
                                                   "1. ",
                                                   "=",
                                                   "---",
                                                   "$",
                                                   "\u200B",
                                                   "\u00AD",
                                                   "\u202E",
                                                   "\u2066",
                                                   "\u2424",
                                                   "\u2028",
                                                   "\uFEFF",
                                                   "\U000E0061",
                                                   "\u0301",
                                                   "\u0301\u0302\u0303\u0304\u0305",
                                                   "\U0001F468\u200D\U0001F469",
                                                   "\U0001F1E9",
                                                   "\U0001F44D\U0001F3FD",
                                                   "\u2764\uFE0F",
                                                   "\xFF",
                                                   "\xC0\xAF",
                                                   "\xED\xA0\x80",
                                                   std::string(1, '\0'),
                                                   "\x1b[31m",
                                                   "a",
                                                   "Z",
                                                   "7",
                                                   "word",
                                                   "\u00E9",
                                                   "\u0431",
                                                   "\u4E2D"};
    std::string out;
    for (std::size_t n = below(14); n > 0; --n) {
      if (below(12) == 0)
        append(out, static_cast<char32_t>(below(0xD7FF)));
      else
        out += parts[below(parts.size())];
    }
    return out;
  }
  std::size_t below(std::size_t n) { return static_cast<std::size_t>(random_()) % n; }

 private:
  std::mt19937 random_{20240229};
};

}  // namespace

TEST_CASE("hostile texts become what the table says") {
  std::ifstream file(NOTIFIER_TESTS "/hostile-texts.tsv");
  REQUIRE(file.good());
  std::string line;
  std::getline(file, line);
  std::size_t rows = 0;
  while (std::getline(file, line)) {
    std::vector<std::string> cells;
    for (std::size_t from = 0; from <= line.size();) {
      const std::size_t to = std::min(line.find('\t', from), line.size());
      cells.push_back(line.substr(from, to - from));
      from = to + 1;
    }
    REQUIRE_MESSAGE(cells.size() == 5, line);
    CAPTURE(cells[0]);
    CHECK(call(cells[1], unescape(cells[2]), std::stoul(cells[4])) == unescape(cells[3]));
    ++rows;
  }
  CHECK(rows > 100);
}

TEST_CASE("nothing that notifies, links or hides is left of any text, and limits hold") {
  Maker make;
  std::set<std::string> failures;
  for (int round = 0; round < 30'000; ++round) {
    const std::string input = make.text();
    const std::size_t limit = make.below(3) == 0 ? make.below(12) : 200;
    const auto check = [&](const char* function, const std::string& output, std::size_t most) {
      const auto promise = [&](bool kept, const char* what) {
        if (!kept && failures.size() < 20)
          failures.insert(std::string(function) + ": " + what + ": " + input + " -> " + output);
      };
      promise(is_utf8(output), "valid UTF-8");
      promise(characters(output) <= most, "the limit");
      promise(!shows_hidden(output), "nothing hidden");
      promise(output.find("<!") == std::string::npos && output.find("<@") == std::string::npos, "no Slack mention");
      promise(!has_slack_link(output), "no Slack link");
    };
    const auto check_text = [&](const char* function, const std::string& output, std::size_t most) {
      check(function, output, most);
      if (mentions_somebody(output) && failures.size() < 20)
        failures.insert(std::string(function) + ": mentions: " + input + " -> " + output);
    };
    const auto check_markdown = [&](const char* function, const std::string& output, std::size_t most) {
      check_text(function, output, most);
      const bool broken = ends_in_a_lone_backslash(output) || has_image(output) ||
                          output.find("://") != std::string::npos || output.find('<') != std::string::npos ||
                          output.find('|') != std::string::npos;
      if (broken && failures.size() < 20)
        failures.insert(std::string(function) + ": Markdown: " + input + " -> " + output);
    };
    const std::string line = markdown_line(input, limit);
    check_markdown("markdown_line", line, limit);
    check_text("plain_line", plain_line(input, limit), limit);
    check_text("defused_markdown", defused_markdown(input, limit), limit);
    if (has_image(defused_markdown(input, 200)) && failures.size() < 20) failures.insert("image: " + input);
    check_markdown("markdown_quote", markdown_quote(input, limit, 3), limit);
    check("code_span", code_span(input, limit), limit);
    if (line.find('\n') != std::string::npos || plain_line(input, limit).find('\n') != std::string::npos)
      failures.insert("newline: " + input);
    // Values side by side, as a template may put them.
    const std::string beside = markdown_line(input, limit) + markdown_line(make.text(), limit);
    if (mentions_somebody(beside) || beside.find("<!") != std::string::npos) failures.insert("side by side: " + beside);
  }
  for (const std::string& failure : failures) MESSAGE(failure);
  CHECK(failures.empty());
}

TEST_CASE("a code span is one, whatever is in it") {
  Maker make;
  for (int round = 0; round < 5'000; ++round) {
    const std::string span = code_span(make.text(), 60);
    if (span.empty()) continue;
    const std::size_t fence = span.find_first_not_of('`');
    REQUIRE(fence != std::string::npos);
    CHECK(span.find_last_not_of('`') + 1 + fence == span.size());
    std::size_t run = 0;
    for (std::size_t i = fence; i < span.size() - fence; ++i) {
      run = span[i] == '`' ? run + 1 : 0;
      CHECK(run < fence);
    }
  }
}

TEST_CASE("a link is one link, whatever its label and URL are") {
  Maker make;
  for (int round = 0; round < 10'000; ++round) {
    const std::string out = link(make.text(), "https://x.example/" + make.text(), 60);
    CHECK(is_utf8(out));
    CHECK_FALSE(mentions_somebody(out));
    if (!out.starts_with('[')) continue;  // a label of its own, or nothing
    const std::size_t middle = out.find("](https://x.example");
    REQUIRE(middle != std::string::npos);
    CHECK(out.find_first_of("[]", 1) == middle);
    CHECK(out.find_first_of("() <>\n", middle + 2) == out.size() - 1);
  }
}

TEST_CASE("a megabyte costs no more than its reading") {
  for (const std::string& piece :
       {std::string("@all <!channel> "), std::string("<"), std::string("\u0301"), std::string("\u200B"),
        std::string("`"), std::string("\n"), std::string("&amp;"), std::string("https://"), std::string("\xFF"),
        std::string("\U0001F468\u200D"), std::string("<a|")}) {
    std::string text;
    while (text.size() < (1u << 20)) text += piece;
    CHECK(characters(markdown_line(text, 300)) <= 300);
    CHECK(characters(plain_line(text, 300)) <= 300);
    CHECK(characters(code_span(text, 300)) <= 300);
    CHECK(characters(markdown_quote(text, 300, 8)) <= 300);
    CHECK(characters(defused_markdown(text, longest_post)) <= longest_post);
    CHECK(characters(link(text, text, 300)) <= 300);
    CHECK(is_utf8(for_terminal(text)));
  }
}

TEST_CASE("safe_url takes what a title may link to") {
  CHECK(safe_url("https://gitlab.example/a?b=c&d=e#f") == "https://gitlab.example/a?b=c&d=e#f");
  CHECK(safe_url("HTTPS://Host.example") == "https://Host.example");
  CHECK(safe_url(" https://host.example/a b ") == "https://host.example/a%20b");
  CHECK(safe_url("https://host.example/@user/[x](y)") == "https://host.example/@user/[x](y)");
  for (const char* bad : {"", "https://", "https://@", "https://:80/", "https:/x", "https:x", "ftp://x/",
                          "https://a b/", "https://a@b/", "https://a%2eb/", "https://[::1/", "https://[g::1]/",
                          "https://-a/", "https://.a/", "https://a:123456/", "https://a/\n", "https://a/\x7f"})
    CHECK_MESSAGE(safe_url(bad).empty(), bad);
  CHECK(safe_url("https://x.example/" + std::string(1982, 'a')).size() == 2000);
  CHECK(safe_url("https://x.example/" + std::string(1983, 'a')).empty());
  CHECK(safe_url("https://x.example/" + std::string(1000, '|')).empty());  // too long once encoded
}

TEST_CASE("a terminal gets no control characters") {
  CHECK(for_terminal("a\x1b[31mb\r\n\tc\u202Ed\u009B\x07") == "a[31mb \n cd");
  CHECK(characters("a\u00E9\U0001F600") == 3);
  CHECK(markdown_line(std::string_view("a\0b", 3), 10) == "ab");
  CHECK(plain_line(plain_line("a@b <x|y>", 50), 50) == plain_line("a@b <x|y>", 50));
  CHECK(markdown_line("a@b", 50) == "a@" + std::string(gap) + "b");
}
