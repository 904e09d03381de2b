// A text as a QR code of half blocks, for a phone to photograph off a terminal.
#pragma once

#include <string>

namespace radiotower::cli::page {

/// Lines of UTF-8. With `colour` black on white whatever the terminal's colours; without, for a dark terminal. Empty when it does not fit a code.
std::string qr_code(const std::string& text, bool colour);

}  // namespace radiotower::cli::page
