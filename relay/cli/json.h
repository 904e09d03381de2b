// Just enough to write JSON: a text in quotes. Reading JSON is nobody's business here.
#pragma once

#include <string>
#include <string_view>

namespace radiotower::cli {

/// The text as a JSON string, quotes included (RFC 8259, 7). Bytes that are not UTF-8 become U+FFFD, so that the output always is.
std::string json_string(std::string_view text);

}  // namespace radiotower::cli
