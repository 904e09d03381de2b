// Every function of notifier/text.h over any bytes: valid UTF-8 comes out, limits hold, and nothing is left that would
// notify anybody. Built with clang's -fsanitize=fuzzer and -DRADIOTOWER_LIBFUZZER it is a libFuzzer target; without,
// main() replays the files it is given, or else makes texts from a fixed seed, a bounded number of times:
//   clang++ -std=c++20 -g -O1 -fsanitize=fuzzer,address,undefined -DRADIOTOWER_LIBFUZZER -I.
//   tests/fuzz/notifier_text_fuzz.cpp
//     notifier/text.cpp notifier/defused.cpp notifier/clusters.cpp -o notifier-text-fuzz
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "notifier/clusters.h"
#include "notifier/text.h"

using namespace radiotower::notifier;

namespace {

std::string_view doing;

void require(bool claim, const char* what, std::string_view output) {
  if (claim) return;
  std::fprintf(stderr, "broken promise of %.*s: %s\n%.*s\n", static_cast<int>(doing.size()), doing.data(), what,
               static_cast<int>(output.size()), output.data());
  std::abort();
}

bool word_follows(std::string_view text) {
  if (text.empty()) return false;
  const char c = text[0];
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/// An "@" with a word behind it, also one that an entity or a backslash hides.
bool mentions(std::string_view text) {
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '@' && word_follows(text.substr(i + 1))) return true;
    if (text[i] != '&') continue;
    const std::size_t end = text.find(';', i);
    if (end == std::string_view::npos) continue;
    const std::string_view name = text.substr(i + 1, end - i - 1);
    std::string_view digits = name;
    const bool hexadecimal = digits.starts_with("#x") || digits.starts_with("#X");
    digits.remove_prefix(hexadecimal ? 2 : digits.starts_with('#') ? 1 : digits.size());
    if (digits.size() > 8) continue;
    while (digits.starts_with('0')) digits.remove_prefix(1);
    if (name == "commat" || (hexadecimal && digits == "40") || (!hexadecimal && digits == "64")) return true;
  }
  return false;
}

bool has_slack_link(std::string_view text) {
  for (std::size_t open = text.find('<'); open != std::string_view::npos; open = text.find('<', open + 1)) {
    const std::size_t bar = text.find_first_of("<|", open + 1);
    if (bar == std::string_view::npos || text[bar] == '<' || bar == open + 1) continue;
    const std::size_t close = text.find('>', bar + 1);
    if (close != std::string_view::npos && close > bar + 1) return true;
  }
  return false;
}

void check(std::string_view function, const std::string& output, std::size_t limit) {
  doing = function;
  require(characters(output) <= limit, "the limit holds", output);
  require(output.find("<!") == std::string::npos && output.find("<@") == std::string::npos, "no Slack mention", output);
  require(!has_slack_link(output), "no Slack link", output);
  for (std::string_view rest = output; !rest.empty();) {
    const std::string_view before = rest;
    const char32_t c = take_code_point(rest);
    require(c != 0xFFFD || before.starts_with("\uFFFD"), "valid UTF-8", output);
    require(!is_hidden(c) || c == U'\n' || c == 0x200B || c == 0x200D || c == 0xFE0F, "nothing hidden", output);
  }
}

void check_text(std::string_view function, const std::string& output, std::size_t limit) {
  check(function, output, limit);
  require(!mentions(output), "nobody is notified", output);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  const std::size_t limit = data[0] < 128 ? data[0] : 4u * data[0];
  const std::size_t middle = 2 + data[1] % (size - 1);
  const std::string_view text(reinterpret_cast<const char*>(data) + 2, size - 2);
  const std::string_view other = text.substr(middle - 2);

  const std::string line = markdown_line(text, limit);
  check_text("markdown_line", line, limit);
  require(line.find_first_of("<|\n") == std::string::npos, "no bracket, bar or newline", line);
  const std::string quote = markdown_quote(text, limit, 5);
  check_text("markdown_quote", quote, limit);
  require(quote.empty() || quote.starts_with("> "), "a quote", quote);
  check_text("plain_line", plain_line(text, limit), limit);
  check_text("defused_markdown", defused_markdown(text, limit), limit);
  check("code_span", code_span(text, limit), limit);

  const std::string url = safe_url(text), target = markdown_url(text);
  doing = "safe_url";
  require(url.empty() || ((url.starts_with("http://") || url.starts_with("https://")) && url.size() <= 2000),
          "http or https", url);
  require(
      url.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~:/?#[]@!$&'()*+,;=%") ==
          std::string::npos,
      "ASCII of a URL", url);
  require(target.find_first_of("()@") == std::string::npos, "ends where it ends", target);
  const std::string joined = link(text, std::string("https://x.example/") + std::string(other), limit);
  check_text("link", joined, limit + 3 * 2000 + 4);
  check_text("link with a URL of others", link(other, text, limit), limit + 3 * 2000 + 4);

  const std::string shown = for_terminal(text);
  doing = "for_terminal";
  for (const char c : shown)
    require(c == '\n' || (static_cast<unsigned char>(c) >= 0x20 && c != 0x7F), "no control character", shown);
  return 0;
}

#ifndef RADIOTOWER_LIBFUZZER
int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    std::ifstream file(argv[i], std::ios::binary);
    const std::vector<std::uint8_t> bytes((std::istreambuf_iterator<char>(file)), {});
    LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
  }
  if (argc > 1) return 0;

  std::mt19937 random(7266);
  const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random()) % n; };
  const std::string_view pieces[] = {"@",
                                     "all",
                                     "<",
                                     "!",
                                     "channel>",
                                     "|",
                                     ">",
                                     "&",
                                     "#64;",
                                     "commat;",
                                     "amp;",
                                     "lt;",
                                     "\\",
                                     "`",
                                     "*",
                                     "_",
                                     "~",
                                     "[",
                                     "]",
                                     "(",
                                     ")",
                                     "http://",
                                     "https://x.example/",
                                     ":",
                                     "\n",
                                     " ",
                                     "#",
                                     "-",
                                     "1.",
                                     "=",
                                     "www.",
                                     "\u200B",
                                     "\u200D",
                                     "\uFE0F",
                                     "\u0301",
                                     "\U0001F468",
                                     "\U0001F1E9",
                                     "\U0001F3FD",
                                     "\xED\xA0\x80",
                                     "\xC3"};
  for (int round = 0; round < 200'000; ++round) {
    std::vector<std::uint8_t> bytes{static_cast<std::uint8_t>(random()), static_cast<std::uint8_t>(random())};
    for (std::size_t n = below(24); n > 0; --n) {
      if (below(6) == 0) {
        bytes.push_back(static_cast<std::uint8_t>(random()));
        continue;
      }
      const std::string_view piece = pieces[below(std::size(pieces))];
      bytes.insert(bytes.end(), piece.begin(), piece.end());
    }
    LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
  }
  return 0;
}
#endif
