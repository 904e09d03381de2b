// What others have sent, made fit for a terminal.
#pragma once

#include <string>
#include <string_view>

namespace radiotower::cli {

/// Control characters, and all that is not well-formed UTF-8, become '?'; so do characters that turn the direction of writing.
std::string printable(std::string_view text);

}  // namespace radiotower::cli
