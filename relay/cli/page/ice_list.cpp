#include "ice_list.h"

#include <fmt/format.h>

#include "../ice_document.h"
#include "text.h"

namespace radiotower::cli::page {

namespace {

bool read_url(const std::string& written, Target target, std::vector<Target>& out, std::vector<std::string>& notes, std::string& why) {
  const std::string shown = printable(written, 200);
  target.text = written;
  const bool stun = written.starts_with("stun:") || written.starts_with("stuns:");
  if (!stun && !written.starts_with("turn:") && !written.starts_with("turns:")) {
    why = fmt::format("\"{}\" begins with none of stun:, turn: and turns:", shown);
    return false;
  }
  auto url = stun ? parse_stun_url(written, why) : parse_turn_url(written, why);
  if (!url) return why = fmt::format("\"{}\": {}", shown, why), false;
  target.url = *url;
  if (url->scheme == Scheme::stuns || (url->scheme == Scheme::turns && url->transport() == net::Transport::dtls)) {
    notes.push_back(fmt::format("{}: no browser uses it, left out", shown));
    return true;
  }
  out.push_back(std::move(target));
  return true;
}

bool read_entry(const IceEntry& entry, std::vector<Target>& out, std::vector<std::string>& notes, std::string& why) {
  if (entry.misspelt) return why = "\"credentials\" should be \"credential\": browsers and Calls do not look at the other spelling", false;
  if (!entry.wrong.empty()) return why = entry.wrong, false;
  Target target;
  target.username = entry.username;
  target.credential = entry.credential;
  for (const auto& url : entry.urls) {
    if (!read_url(url, target, out, notes, why)) return false;
    if (out.size() > max_targets) return why = fmt::format("more than {} URLs: test some of them", max_targets), false;
  }
  return true;
}

}  // namespace

std::optional<std::vector<Target>> read_ice_list(std::string_view json, std::vector<std::string>& notes, std::string& why) {
  const auto document = read_ice_document(json, why);
  if (!document) return std::nullopt;
  std::vector<Target> targets;
  for (const auto& entry : document->entries)
    if (!read_entry(entry, targets, notes, why)) return std::nullopt;
  if (targets.empty()) return refuse(why, "the list holds no URL that a browser could be tested with");
  return targets;
}

bool lacks_credential(const std::vector<Target>& targets) {
  for (const auto& target : targets)
    if (target.is_turn() && (target.username.empty() || target.credential.empty())) return true;
  return false;
}

}  // namespace radiotower::cli::page
