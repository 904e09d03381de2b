// Bytes written as letters: hexadecimal and base64, read strictly, so that a value has one spelling (hexadecimal: two). And ASCII's small letters,
// whatever the locale. Pure.
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>

#include "radiotower/base/bytes.h"

namespace radiotower {

/// RFC 4648, 4, with its padding; unused bits are 0 (3.5).
std::optional<std::string> from_base64(std::string_view text);
/// An even number of digits, large or small letters.
std::optional<std::string> from_hex(std::string_view text);
std::string to_hex(Bytes bytes);
/// 0 to 15; -1: no digit.
int hex_digit(char c);

inline char lower_case(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }
inline std::string lower_case(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(), [](char c) { return lower_case(c); });
  return out;
}

}  // namespace radiotower
