// Markdown of others: formatting stays, what acts goes. Where code begins and ends is a matter on which the parsers
// differ, so each rule holds inside code as well; there it shows at most as a character that looks a little different.
#include <algorithm>
#include <vector>

#include "notifier/clusters.h"
#include "notifier/text.h"

namespace radiotower::notifier {

namespace {

constexpr std::string_view gap = "\u200B";
constexpr std::size_t longest_url = 2000;

class Defuser {
 public:
  Defuser(std::string_view text, std::size_t limit) : out_(limit) {
    Clusters clusters(text, true);
    Cluster it = clusters.next();
    while (it.base() == U'\n' || it.base() == U' ')
      it = clusters.next();  // before the text; four blanks would make it code
    // No more than could be shown: of five ("&amp;") there may remain one.
    for (; it.size != 0 && source_.size() / 5 <= limit; it = clusters.next()) source_.push_back(it);
    while (!source_.empty() && (base(source_.size() - 1) == U'\n' || base(source_.size() - 1) == U' '))
      source_.pop_back();
    unescape();
    std::size_t closing = source_.size();
    while (closing > 0 && base(closing - 1) != U'>') --closing;
    std::size_t bar = 0;
    for (std::size_t i = 0, end = 0; i < closing; i = end != 0 ? end : i + 1) {
      end = base(i) == U'<' ? end_of_link(i, bar) : 0;
      if (base(i) == U'|') last_bar_ = i;
    }
  }

  std::string run() && {
    for (std::size_t i = 0; i < source_.size();) {
      std::size_t taken = 1;
      if (!out_.add(unit(i, taken))) break;
      i += taken;
    }
    return std::move(out_).finish();
  }

 private:
  char32_t base(std::size_t i) const { return i < source_.size() ? source_[i].base() : U'\0'; }

  bool stands_at(std::size_t i, std::string_view lower) const {
    for (const char c : lower) {
      const char32_t there = base(i++);
      if ((there >= U'A' && there <= U'Z' ? there + 32 : there) != static_cast<unsigned char>(c)) return false;
    }
    return true;
  }
  bool url_at(std::size_t i) const { return stands_at(i, "http://") || stands_at(i, "https://"); }

  std::string text_of(std::size_t from, std::size_t to) const {
    std::string out;
    for (; from < to; ++from)
      for (std::size_t i = 0; i < source_[from].size; ++i) append(out, source_[from].points[i]);
    return out;
  }

  /// Slack's own three escapes are text here. Once: "&amp;#64;" is not to become "@".
  void unescape() {
    std::size_t to = 0;
    for (std::size_t i = 0; i < source_.size(); ++to) {
      Cluster cluster = source_[i];
      if (stands_at(i, "&amp;"))
        i += 5;
      else if (stands_at(i, "&lt;"))
        cluster.points[0] = U'<', i += 4;
      else if (stands_at(i, "&gt;"))
        cluster.points[0] = U'>', i += 4;
      else
        ++i;
      source_[to] = cluster;
    }
    source_.resize(to);
  }

  /// Those that markdown_line() writes: each is shown as a character that does nothing any more.
  std::size_t harmless_entity(std::size_t i) const {
    for (const std::string_view entity : {"&#36;", "&#61;", "&#91;", "&#92;", "&#93;", "&#124;"})
      if (stands_at(i, entity)) return entity.size();
    return 0;
  }

  std::string unit(std::size_t i, std::size_t& taken) const {
    const char32_t next = base(i + 1);
    const std::string shown = text_of(i, i + 1);
    switch (base(i)) {
      case U'@': return shown + std::string(gap);
      case U'&':
        if (const std::size_t length = harmless_entity(i); length != 0) return taken = length, text_of(i, i + length);
        return next == U'#' || next >= 0x80 || (next >= U'0' && next <= U'9') ||
                       ((next | 32) >= U'a' && (next | 32) <= U'z')
                   ? shown + std::string(gap)
                   : shown;
      case U'!': return next == U'[' || next == U'<' ? shown + std::string(gap) : shown;  // "<" may become a link
      case U'<': return opening(i, taken);
      // [label](somewhere): links only to http and https.
      case U']': return (next == U'(' && !url_at(i + 2)) || next == U':' ? shown + std::string(gap) : shown;  // "]:" defines one
      case U'h':
      case U'H': return url_at(i) ? bare_url(i, taken) : shown;
      default: return shown;
    }
  }

  /// <url|label> and <url> of http(s), and those that keep their label alone, <@user|label> and the like: where it
  /// ends. 0: none, as in "a < b | c > d". `bar` becomes the place of "|", or 0.
  std::size_t end_of_link(std::size_t i, std::size_t& bar) const {
    bar = 0;
    const char32_t kind = base(i + 1);
    if (kind != U'@' && kind != U'#' && kind != U'!' && !url_at(i + 1) && !stands_at(i + 1, "mailto:")) return 0;
    const std::size_t last = std::min(source_.size(), i + longest_url);
    for (std::size_t k = i + 1; k < last; ++k) {
      const char32_t c = base(k);
      if (c == U'>' && k > i + 1 && (bar != 0 ? k > bar + 1 : url_at(i + 1))) return k + 1;
      if (c == U'<' || c == U'>' || c == U'\n' || (c == U'|' && (bar != 0 || k == i + 1))) return 0;
      if (c == U'|') bar = k;
    }
    return 0;
  }

  std::string opening(std::size_t i, std::size_t& taken) const {
    std::size_t bar = 0;
    if (const std::size_t end = end_of_link(i, bar); end != 0) {
      const std::string url = text_of(i + 1, bar != 0 ? bar : end - 1);
      taken = end - i;
      return link(bar != 0 ? text_of(bar + 1, end - 1) : url, url, longest_url);
    }
    // What Mattermost would still read as <url|label>, over lines and through code: a plain search, so another
    // character has to stand there.
    if (i < last_bar_) return "‹";
    // Behind another "<" there may be a link of which the label alone remains, "@" for example.
    return base(i + 1) == U'!' || base(i + 1) == U'@' || base(i + 1) == U'<' ? "<" + std::string(gap) : "<";
  }

  /// A URL stays one that works, without a user, a mention or an entity in it.
  std::string bare_url(std::size_t i, std::size_t& taken) const {
    std::string url;
    std::size_t k = i;
    bool after_ampersand = false;
    for (; k < source_.size(); ++k) {  // to its end: the rest of one that is cut here might complete an entity
      const char32_t c = base(k);
      if (c <= U' ' || std::u32string_view(U"()<>[]\"'`|\\").find(c) != std::u32string_view::npos) break;
      after_ampersand = after_ampersand || c == U'&';
      if (c == U'@')
        url += "%40";
      else if (c == U';' && after_ampersand)
        url += "%3B";
      else
        url += text_of(k, k + 1);
    }
    taken = k - i;
    if (url.back() == '!') url += gap;  // before a link
    return url;
  }

  std::vector<Cluster> source_;
  std::size_t last_bar_ = 0;  // the last "|" outside of links that has a ">" somewhere behind it
  Bounded out_;
};

}  // namespace

std::string defused_markdown(std::string_view text, std::size_t limit) { return Defuser(text, limit).run(); }

}  // namespace radiotower::notifier
