// UTF-8 read as a person sees it: a base character with what belongs to it, cleaned of what cannot be seen. Used by
// text.cpp alone.
#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <string_view>

namespace radiotower::notifier {

/// The first code point, which leaves `text`. A byte that begins no valid sequence is U+FFFD, alone. `text` is not
/// empty.
char32_t take_code_point(std::string_view& text);
void append(std::string& out, char32_t c);

/// Blanks of every width, tabs, and all that ends a line (U+2424 too: Mattermost's web client reads it as a newline).
bool is_blank(char32_t c);
bool ends_line(char32_t c);
/// Characters that show nothing, or change the order of others: C0, C1, bidi controls, zero-width ones, tags, variation
/// selectors, fillers.
bool is_hidden(char32_t c);

struct Cluster {
  static constexpr std::size_t longest = 16;  // code points; a family of four with skin colours has 11
  std::array<char32_t, longest> points{};
  std::size_t size = 0;  // 0: the end of the text
  char32_t base() const { return size == 0 ? U'\0' : points[0]; }
};

/// Clusters of a text, in order. Hidden characters are left out, but a joiner or VS16 inside an emoji stays; of the
/// combining marks on one base the first 4 stay; marks without a base go. Blanks are all U+0020; ends of lines too,
/// unless `keep_lines`: then U+000A.
class Clusters {
 public:
  Clusters(std::string_view text, bool keep_lines) : rest_(text), keep_lines_(keep_lines) {}
  Cluster next();

 private:
  bool peek(char32_t& c, std::string_view& after) const;

  std::string_view rest_;
  bool keep_lines_;
};

/// A text that grows by units that stay whole, up to `limit` code points; what did not fit leaves "…".
class Bounded {
 public:
  explicit Bounded(std::size_t limit) : limit_(limit) {}
  /// False: no room. Nothing may be added after that.
  bool add(std::string_view unit);
  bool was_cut() const { return cut_; }
  std::string finish() &&;

 private:
  std::string text_;
  std::size_t count_ = 0;
  std::size_t limit_;
  std::size_t with_room_ = 0;  // bytes of the longest text that leaves room for "…"
  bool cut_ = false;
};

}  // namespace radiotower::notifier
