#include "turnserver_conf.h"

#include <algorithm>
#include <limits>

namespace radiotower::cli {

namespace {

constexpr std::size_t longest_read = 1023;  // what coturn's fgets() takes at a time
constexpr std::string_view mark = "\xEF\xBB\xBF";

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
bool is_separator(char c) { return c == ' ' || c == '=' || c == '\t'; }

/// False: nothing, or a comment.
bool split(std::string_view text, ConfLine& line) {
  text = text.substr(0, text.find('\0'));
  if (text.starts_with(mark)) {
    line.byte_order_mark = true;
    text.remove_prefix(mark.size());
  }
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  if (text.empty() || text.front() == '#') return false;
  line.semicolon = text.back() == ';';
  const auto end = std::find_if(text.begin(), text.end(), is_separator);
  line.key.assign(text.begin(), end);
  std::string_view value = text.substr(line.key.size());
  while (!value.empty() && is_separator(value.front())) value.remove_prefix(1);
  if (value.starts_with('"')) {
    value.remove_prefix(1);
    while (!value.empty() && is_space(value.back())) value.remove_suffix(1);
    if (value.ends_with('"')) value.remove_suffix(1);
  }
  line.value = value;
  return true;
}

}  // namespace

std::vector<ConfLine> read_turnserver_conf(std::string_view text) {
  std::vector<ConfLine> lines;
  int number = 1;
  bool rest = false;
  while (!text.empty()) {
    const std::size_t newline = text.substr(0, longest_read).find('\n');
    const std::size_t size = newline == text.npos ? std::min(text.size(), longest_read) : newline + 1;
    ConfLine line;
    line.number = number;
    line.rest = rest;
    line.cut = newline == text.npos && size < text.size();
    if (split(text.substr(0, size), line)) lines.push_back(std::move(line));
    rest = newline == text.npos;
    if (newline != text.npos) ++number;
    text.remove_prefix(size);
  }
  return lines;
}

bool read_switch(std::string_view value, bool& out) {
  out = true;
  if (value.empty()) return true;
  const char c = value.front();
  if (std::string_view("0nNfF").find(c) != std::string_view::npos) {
    out = false;
    return true;
  }
  if (std::string_view("yYtT123456789").find(c) != std::string_view::npos) return true;
  if (value == "on" || value == "ON" || value == "On") return true;
  out = false;
  return value == "off" || value == "OFF" || value == "Off";
}

long long leading_number(std::string_view value, bool& whole) {
  constexpr long long most = std::numeric_limits<long long>::max() / 16;
  std::size_t at = 0;
  const bool negative = value.starts_with('-');
  if (negative || value.starts_with('+')) ++at;
  const std::size_t first = at;
  long long number = 0;
  for (; at < value.size() && value[at] >= '0' && value[at] <= '9'; ++at) number = number > most ? number : number * 10 + (value[at] - '0');
  whole = at == value.size() && at > first;
  return negative ? -number : number;
}

}  // namespace radiotower::cli
