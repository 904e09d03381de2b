// A post on a terminal: what preview prints. It reads back the Markdown that render() writes, no more than that.
#include <algorithm>
#include <array>
#include <cstdlib>

#include <fmt/format.h>

#include "notifier/clusters.h"
#include "notifier/render.h"
#include "notifier/text.h"

namespace radiotower::notifier {

namespace {

constexpr std::string_view bold = "\x1b[1m";
constexpr std::string_view plain = "\x1b[0m";

struct Entity {
  std::string_view written, meant;
};
constexpr std::array<Entity, 9> entities{{{"&amp;", "&"},
                                          {"&lt;", "<"},
                                          {"&gt;", ">"},
                                          {"&#36;", "$"},
                                          {"&#61;", "="},
                                          {"&#91;", "["},
                                          {"&#92;", "\\"},
                                          {"&#93;", "]"},
                                          {"&#124;", "|"}}};

/// Escapes and entities as they are shown; "[label](url)" as "label (url)"; "**" goes. Control characters are gone
/// before.
std::string as_shown(std::string_view markdown) {
  std::string out;
  for (std::size_t i = 0; i < markdown.size();) {
    const std::string_view rest = markdown.substr(i);
    if (rest[0] == '`') {  // code is shown as it stands
      const std::size_t fence = std::min(rest.find_first_not_of('`'), rest.size());
      const std::size_t end = rest.find(rest.substr(0, fence), fence);
      const std::size_t taken = end == std::string_view::npos ? fence : end + fence;
      out += rest.substr(0, taken);
      i += taken;
    } else if (rest[0] == '\\' && rest.size() > 1 &&
               std::string_view("\\`*_{}[]()#+-.!~>|").find(rest[1]) != std::string_view::npos) {
      out += rest[1];
      i += 2;
    } else if (rest.starts_with("**")) {
      i += 2;
    } else if (rest.starts_with("](http")) {
      out += " (";
      i += 2;
    } else if (rest[0] == '[') {
      ++i;
    } else {
      const auto* entity =
          std::find_if(entities.begin(), entities.end(), [&](const Entity& e) { return rest.starts_with(e.written); });
      out += entity != entities.end() ? entity->meant : rest.substr(0, 1);
      i += entity != entities.end() ? entity->written.size() : 1;
    }
  }
  return out;
}

/// Wide characters of East Asia and emoji take two columns; near enough for wrapping.
std::size_t columns(std::string_view utf8) {
  std::size_t sum = 0;
  while (!utf8.empty()) {
    const char32_t c = take_code_point(utf8);
    sum += (c >= 0x1100 && c <= 0x115F) || (c >= 0x2E80 && c <= 0xA4CF) || (c >= 0xAC00 && c <= 0xD7A3) ||
                   (c >= 0xFF01 && c <= 0xFF60) || c >= 0x1F300
               ? 2
               : 1;
  }
  return sum;
}

class Page {
 public:
  Page(std::size_t width, bool colours) : width_(std::max<std::size_t>(width, 20)), colours_(colours) {}

  /// Wrapped at blanks; a word that is longer than a line stays whole, as a URL has to.
  void paragraph(std::string_view text, std::size_t indent, std::string_view style) {
    while (!text.empty()) {
      const std::size_t end = std::min(text.find('\n'), text.size());
      line(text.substr(0, end), indent, style);
      text.remove_prefix(std::min(end + 1, text.size()));
    }
  }
  std::string finish() && { return std::move(out_); }

 private:
  void line(std::string_view text, std::size_t indent, std::string_view style) {
    const std::size_t hanging = text.starts_with("- ") || text.starts_with("> ") ? indent + 2 : indent;
    std::string row(indent, ' ');
    std::size_t used = indent;
    bool empty = true;
    while (!text.empty()) {
      const std::size_t end = std::min(text.find(' '), text.size());
      const std::string_view piece = text.substr(0, end);
      text.remove_prefix(std::min(end + 1, text.size()));
      const std::size_t size = columns(piece);
      if (!empty && used + 1 + size > width_) {
        put(row, style);
        row.assign(hanging, ' ');
        used = hanging;
        empty = true;
      }
      if (!empty) row += ' ', ++used;
      row += piece;
      used += size;
      empty = false;
    }
    put(row, style);
  }

  void put(std::string& row, std::string_view style) {
    while (!row.empty() && row.back() == ' ') row.pop_back();
    if (colours_ && !style.empty() && !row.empty())
      out_.append(style).append(row).append(plain);
    else
      out_ += row;
    out_ += '\n';
  }

  std::string out_;
  std::size_t width_;
  bool colours_;
};

std::string text_of(const Json& object, const char* key) {
  const auto it = object.is_object() ? object.find(key) : object.end();
  return object.is_object() && it != object.end() && it->is_string() ? for_terminal(it->get<std::string>())
                                                                     : std::string();
}

/// ANSI for "#RRGGBB", bold; "good" and the like are bold alone.
std::string title_style(const std::string& colour) {
  std::string style(bold);
  if (colour.size() != 7 || colour[0] != '#') return style;
  const unsigned long rgb = std::strtoul(colour.c_str() + 1, nullptr, 16);
  return style + fmt::format("\x1b[38;2;{};{};{}m", (rgb >> 16) & 255, (rgb >> 8) & 255, rgb & 255);
}

}  // namespace

std::string for_terminal(const Json& payload, bool colours, std::size_t width) {
  Page page(width, colours);
  if (const std::string name = text_of(payload, "username"); !name.empty()) page.paragraph(name + ":", 0, bold);
  if (const std::string text = text_of(payload, "text"); !text.empty()) page.paragraph(as_shown(text), 0, "");
  const auto attachments = payload.is_object() ? payload.find("attachments") : payload.end();
  if (!payload.is_object() || attachments == payload.end() || !attachments->is_array()) return std::move(page).finish();
  for (const Json& attachment : *attachments) {
    const std::string url = text_of(attachment, "title_link"), title = text_of(attachment, "title");
    page.paragraph(as_shown(text_of(attachment, "pretext")), 0, "");
    page.paragraph(text_of(attachment, "author_name"), 2, "");
    page.paragraph(url.empty() ? as_shown(title) : title, 2, title_style(text_of(attachment, "color")));
    page.paragraph(url, 2, "");
    page.paragraph(as_shown(text_of(attachment, "text")), 4, "");
    if (const auto fields = attachment.is_object() ? attachment.find("fields") : attachment.end();
        fields != attachment.end() && fields->is_array())
      for (const Json& field : *fields)
        page.paragraph(text_of(field, "title") + ": " + as_shown(text_of(field, "value")), 4, "");
    page.paragraph(text_of(attachment, "footer"), 2, "");
  }
  return std::move(page).finish();
}

}  // namespace radiotower::notifier
