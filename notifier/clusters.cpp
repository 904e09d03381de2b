#include "notifier/clusters.h"

#include <algorithm>
#include <iterator>

#include "notifier/text.h"

namespace radiotower::notifier {

namespace {

struct Range {
  char32_t first, last;
};

template <std::size_t n>
bool within(const Range (&ranges)[n], char32_t c) {
  const auto* after = std::upper_bound(std::begin(ranges), std::end(ranges), c,
                                       [](char32_t value, const Range& r) { return value < r.first; });
  return after != std::begin(ranges) && c <= std::prev(after)->last;
}

// Unicode's Default_Ignorable_Code_Point with the controls, the bidi marks and the interlinear ones. U+200C (ZWNJ)
// shapes Persian words, but it splits any word as well, unseen: it goes.
constexpr Range hidden[] = {{0x0000, 0x001F},   {0x007F, 0x009F},   {0x00AD, 0x00AD},  {0x034F, 0x034F},
                            {0x061C, 0x061C},   {0x115F, 0x1160},   {0x17B4, 0x17B5},  {0x180B, 0x180F},
                            {0x200B, 0x200F},   {0x2028, 0x202E},   {0x2060, 0x206F},  {0x3164, 0x3164},
                            {0xFE00, 0xFE0F},   {0xFEFF, 0xFEFF},   {0xFFA0, 0xFFA0},  {0xFFF0, 0xFFFB},
                            {0x1BCA0, 0x1BCA3}, {0x1D173, 0x1D17A}, {0xE0000, 0xE0FFF}};

constexpr Range blanks[] = {{0x0009, 0x000D}, {0x0020, 0x0020}, {0x0085, 0x0085}, {0x00A0, 0x00A0},
                            {0x1680, 0x1680}, {0x2000, 0x200A}, {0x2028, 0x2029}, {0x202F, 0x202F},
                            {0x205F, 0x205F}, {0x2424, 0x2424}, {0x2800, 0x2800}, {0x3000, 0x3000}};

// What stands on, below or behind the letter before it: the general blocks, and the marks of the scripts by their
// blocks, where needed with a few that are none (a cut then comes one letter sooner).
constexpr Range marks[] = {
    {0x0300, 0x036F},   {0x0483, 0x0489},   {0x0591, 0x05BD},   {0x05BF, 0x05BF},   {0x05C1, 0x05C2},
    {0x05C4, 0x05C5},   {0x05C7, 0x05C7},   {0x0610, 0x061A},   {0x064B, 0x065F},   {0x0670, 0x0670},
    {0x06D6, 0x06DC},   {0x06DF, 0x06E4},   {0x06E7, 0x06E8},   {0x06EA, 0x06ED},   {0x0711, 0x0711},
    {0x0730, 0x074A},   {0x07A6, 0x07B0},   {0x07EB, 0x07F3},   {0x0816, 0x082D},   {0x0859, 0x085B},
    {0x0898, 0x089F},   {0x08CA, 0x0903},   {0x093A, 0x093C},   {0x093E, 0x094F},   {0x0951, 0x0957},
    {0x0962, 0x0963},   {0x0981, 0x0983},   {0x09BC, 0x09BC},   {0x09BE, 0x09CD},   {0x09D7, 0x09D7},
    {0x09E2, 0x09E3},   {0x0A01, 0x0A03},   {0x0A3C, 0x0A51},   {0x0A70, 0x0A71},   {0x0A75, 0x0A75},
    {0x0A81, 0x0A83},   {0x0ABC, 0x0ABC},   {0x0ABE, 0x0ACD},   {0x0AE2, 0x0AE3},   {0x0B01, 0x0B03},
    {0x0B3C, 0x0B3C},   {0x0B3E, 0x0B57},   {0x0B62, 0x0B63},   {0x0B82, 0x0B82},   {0x0BBE, 0x0BCD},
    {0x0BD7, 0x0BD7},   {0x0C00, 0x0C04},   {0x0C3C, 0x0C3C},   {0x0C3E, 0x0C56},   {0x0C62, 0x0C63},
    {0x0C81, 0x0C83},   {0x0CBC, 0x0CBC},   {0x0CBE, 0x0CD6},   {0x0CE2, 0x0CE3},   {0x0D00, 0x0D03},
    {0x0D3B, 0x0D3C},   {0x0D3E, 0x0D4D},   {0x0D57, 0x0D57},   {0x0D62, 0x0D63},   {0x0D81, 0x0D83},
    {0x0DCA, 0x0DDF},   {0x0DF2, 0x0DF3},   {0x0E31, 0x0E31},   {0x0E34, 0x0E3A},   {0x0E47, 0x0E4E},
    {0x0EB1, 0x0EB1},   {0x0EB4, 0x0EBC},   {0x0EC8, 0x0ECE},   {0x0F18, 0x0F19},   {0x0F35, 0x0F35},
    {0x0F37, 0x0F37},   {0x0F39, 0x0F39},   {0x0F3E, 0x0F3F},   {0x0F71, 0x0F84},   {0x0F86, 0x0F87},
    {0x0F8D, 0x0FBC},   {0x102B, 0x103E},   {0x1056, 0x1059},   {0x1161, 0x11FF},   {0x135D, 0x135F},
    {0x1712, 0x1715},   {0x17B6, 0x17D3},   {0x17DD, 0x17DD},   {0x18A9, 0x18A9},   {0x1920, 0x193B},
    {0x1A17, 0x1A1B},   {0x1A55, 0x1A7F},   {0x1AB0, 0x1AFF},   {0x1B00, 0x1B04},   {0x1B34, 0x1B44},
    {0x1B6B, 0x1B73},   {0x1CD0, 0x1CF9},   {0x1DC0, 0x1DFF},   {0x20D0, 0x20FF},   {0x2CEF, 0x2CF1},
    {0x2DE0, 0x2DFF},   {0x302A, 0x302F},   {0x3099, 0x309A},   {0xA66F, 0xA67D},   {0xA6F0, 0xA6F1},
    {0xA8E0, 0xA8F1},   {0xAAEB, 0xAAEF},   {0xABE3, 0xABED},   {0xD7B0, 0xD7FB},   {0xFB1E, 0xFB1E},
    {0xFE20, 0xFE2F},   {0x101FD, 0x101FD}, {0x10A01, 0x10A0F}, {0x11000, 0x11002}, {0x11038, 0x11046},
    {0x1D165, 0x1D169}, {0x1D16D, 0x1D172}, {0x1E000, 0x1E02A}, {0x1E130, 0x1E136}, {0x1E8D0, 0x1E8D6},
    {0x1E944, 0x1E94A}};

constexpr Range emoji[] = {{0x00A9, 0x00A9}, {0x00AE, 0x00AE},   {0x203C, 0x203C},  {0x2049, 0x2049}, {0x2122, 0x2122},
                           {0x2139, 0x2139}, {0x2190, 0x21FF},   {0x2300, 0x23FF},  {0x24C2, 0x24C2}, {0x25A0, 0x27BF},
                           {0x2900, 0x297F}, {0x2B00, 0x2BFF},   {0x3030, 0x3030},  {0x303D, 0x303D}, {0x3297, 0x3297},
                           {0x3299, 0x3299}, {0x1F000, 0x1F1E5}, {0x1F200, 0x1FAFF}};

constexpr char32_t joiner = 0x200D;
constexpr char32_t emoji_style = 0xFE0F;
constexpr std::size_t most_marks = 4;

bool is_flag_letter(char32_t c) { return c >= 0x1F1E6 && c <= 0x1F1FF; }
bool is_skin_colour(char32_t c) { return c >= 0x1F3FB && c <= 0x1F3FF; }
bool is_mark(char32_t c) { return within(marks, c); }
bool is_noncharacter(char32_t c) { return (c >= 0xFDD0 && c <= 0xFDEF) || (c & 0xFFFE) == 0xFFFE; }

}  // namespace

char32_t take_code_point(std::string_view& text) {
  constexpr char32_t invalid = 0xFFFD;
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  const std::size_t length = lead < 0x80                    ? 1
                             : lead >= 0xC2 && lead <= 0xDF ? 2
                             : lead >= 0xE0 && lead <= 0xEF ? 3
                             : lead >= 0xF0 && lead <= 0xF4 ? 4
                                                            : 0;
  char32_t c = length == 1 ? lead : length == 2 ? lead & 0x1Fu : length == 3 ? lead & 0x0Fu : lead & 0x07u;
  bool valid = length != 0 && length <= text.size();
  for (std::size_t i = 1; valid && i < length; ++i) {
    valid = (byte(i) & 0xC0) == 0x80;
    c = (c << 6) | (byte(i) & 0x3Fu);
  }
  // Longer than needed, a surrogate, beyond Unicode.
  if (valid &&
      ((length == 3 && (c < 0x800 || (c >= 0xD800 && c <= 0xDFFF))) || (length == 4 && (c < 0x10000 || c > 0x10FFFF))))
    valid = false;
  text.remove_prefix(valid ? length : 1);
  return valid ? c : invalid;
}

void append(std::string& out, char32_t c) {
  const auto put = [&](char32_t byte) { out += static_cast<char>(static_cast<unsigned char>(byte)); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xC0 | (c >> 6));
    put(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    put(0xE0 | (c >> 12));
    put(0x80 | ((c >> 6) & 0x3F));
    put(0x80 | (c & 0x3F));
  } else {
    put(0xF0 | (c >> 18));
    put(0x80 | ((c >> 12) & 0x3F));
    put(0x80 | ((c >> 6) & 0x3F));
    put(0x80 | (c & 0x3F));
  }
}

bool is_blank(char32_t c) { return within(blanks, c); }
bool ends_line(char32_t c) {
  return (c >= 0x0A && c <= 0x0D) || c == 0x85 || c == 0x2028 || c == 0x2029 || c == 0x2424;
}
bool is_hidden(char32_t c) { return within(hidden, c); }

/// The next code point that is to be seen, without taking it.
bool Clusters::peek(char32_t& c, std::string_view& after) const {
  after = rest_;
  while (!after.empty()) {
    c = take_code_point(after);
    if (!is_hidden(c) || is_blank(c)) return true;
  }
  return false;
}

Cluster Clusters::next() {
  Cluster cluster;
  char32_t c = 0;
  std::string_view after;
  do {
    if (!peek(c, after)) return cluster;
    rest_ = after;
  } while (is_mark(c));  // a mark without a base would stand on whatever is written before this text
  if (is_blank(c)) {
    if (c == U'\r' && !rest_.empty() && rest_.front() == '\n') rest_.remove_prefix(1);
    cluster.points[cluster.size++] = keep_lines_ && ends_line(c) ? U'\n' : U' ';
    while (peek(c, after) && is_mark(c)) rest_ = after;
    return cluster;
  }
  cluster.points[cluster.size++] = is_noncharacter(c) ? 0xFFFD : c;

  const bool begins_flag = is_flag_letter(c);
  bool pictured = within(emoji, c);
  std::size_t standing = 0;
  for (;;) {
    if (pictured && !rest_.empty()) {  // what would be hidden elsewhere
      std::string_view behind = rest_;
      const char32_t control = take_code_point(behind);
      if (control == emoji_style) {
        if (cluster.points[cluster.size - 1] != emoji_style && cluster.size < Cluster::longest)
          cluster.points[cluster.size++] = emoji_style;
        rest_ = behind;
        continue;
      }
      if (control == joiner && !behind.empty() && cluster.size + 2 <= Cluster::longest) {
        const char32_t joined = take_code_point(behind);
        if (within(emoji, joined)) {
          cluster.points[cluster.size++] = joiner;
          cluster.points[cluster.size++] = joined;
          rest_ = behind;
          continue;
        }
      }
    }
    if (!peek(c, after)) return cluster;
    const bool second_flag_letter = begins_flag && cluster.size == 1 && is_flag_letter(c);
    if (!is_mark(c) && !second_flag_letter && !(pictured && is_skin_colour(c))) return cluster;
    rest_ = after;
    pictured = pictured && is_skin_colour(c);
    if (is_mark(c) && ++standing > most_marks) continue;
    if (cluster.size < Cluster::longest) cluster.points[cluster.size++] = c;
  }
}

bool Bounded::add(std::string_view unit) {
  const std::size_t more = characters(unit);
  if (more > limit_ - count_) {
    cut_ = true;
    return false;
  }
  text_ += unit;
  count_ += more;
  if (count_ < limit_) with_room_ = text_.size();
  return true;
}

std::string Bounded::finish() && {
  if (!cut_) return std::move(text_);
  text_.resize(with_room_);
  while (!text_.empty() && text_.back() == ' ') text_.pop_back();
  // "\\" is a pair; a single backslash would escape what the caller writes next.
  const std::size_t text_end = text_.find_last_not_of('\\');
  if ((text_.size() - (text_end == std::string::npos ? 0 : text_end + 1)) % 2 == 1) text_.pop_back();
  if (limit_ != 0) text_ += "…";
  return std::move(text_);
}

}  // namespace radiotower::notifier
