// What others sent, made fit for a terminal.
#pragma once

#include <string>
#include <string_view>

namespace radiotower::cli::page {

/// Printable ASCII, at most `longest` characters of it; anything else becomes '?', so that no phone sends escape sequences to a terminal.
std::string printable(std::string_view text, std::size_t longest);

/// "Chrome 156 on Android", "Safari 18 on iPhone"; else the beginning of the header, fit to print.
std::string short_user_agent(std::string_view header);

}  // namespace radiotower::cli::page
