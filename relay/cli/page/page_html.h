// The page as it goes out, but for {{nonce}} (everywhere) and {{wanted}} (once), see page.html.
#pragma once

#include <string_view>

namespace radiotower::cli::page {

extern const std::string_view page_html;

}  // namespace radiotower::cli::page
