#include "text.h"

namespace radiotower::cli::page {

namespace {

/// The digits behind "Name/".
std::string version(std::string_view header, std::string_view name) {
  const auto at = header.find(name);
  if (at == std::string_view::npos) return {};
  std::string digits;
  for (auto i = at + name.size(); i < header.size() && digits.size() < 4 && header[i] >= '0' && header[i] <= '9'; ++i) digits += header[i];
  return digits;
}

struct Token {
  std::string_view token, name;
};

// In this order: Edge says Chrome as well, and Chrome says Safari.
constexpr Token browsers[] = {{"EdgiOS/", "Edge"},    {"EdgA/", "Edge"},       {"Edg/", "Edge"},       {"FxiOS/", "Firefox"},
                              {"CriOS/", "Chrome"},   {"Firefox/", "Firefox"}, {"SamsungBrowser/", "Samsung Internet"},
                              {"HeadlessChrome/", "Chrome"}, {"Chrome/", "Chrome"}, {"Version/", "Safari"}};
constexpr Token systems[] = {{"iPhone", "iPhone"},   {"iPad", "iPad"},        {"Android", "Android"}, {"CrOS", "ChromeOS"},
                             {"Windows", "Windows"}, {"Macintosh", "macOS"}, {"Linux", "Linux"}};

}  // namespace

std::string printable(std::string_view text, std::size_t longest) {
  std::string out;
  for (const char c : text.substr(0, longest)) out += c >= 0x20 && c < 0x7f ? c : '?';
  return out;
}

std::string short_user_agent(std::string_view header) {
  std::string browser, system;
  for (const auto& [token, name] : browsers) {
    if (header.find(token) == std::string_view::npos || (name == "Safari" && header.find("Safari/") == std::string_view::npos)) continue;
    browser = name;
    if (const auto digits = version(header, token); !digits.empty()) browser += " " + digits;
    break;
  }
  for (const auto& [token, name] : systems) {
    if (header.find(token) == std::string_view::npos) continue;
    system = name;
    break;
  }
  if (browser.empty()) return header.empty() ? "unknown browser" : printable(header, 40);
  return system.empty() ? browser : browser + " on " + system;
}

}  // namespace radiotower::cli::page
