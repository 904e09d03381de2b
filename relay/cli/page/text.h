// Texts: what others sent, made fit for a terminal, and why something was refused.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace radiotower::cli::page {

/// Printable ASCII, at most `longest` characters of it; anything else becomes '?', so that no phone sends escape sequences to a terminal.
std::string printable(std::string_view text, std::size_t longest);

/// "Chrome 156 on Android", "Safari 18 on iPhone"; else the beginning of the header, fit to print.
std::string short_user_agent(std::string_view header);

/// Says no in one line: `return refuse(why, "...")` of a function that returns an optional.
inline std::nullopt_t refuse(std::string& why, std::string text) {
  why = std::move(text);
  return std::nullopt;
}

}  // namespace radiotower::cli::page
