#include "ice_list.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "text.h"

namespace radiotower::cli::page {

namespace {

using Json = nlohmann::json;

Json parse(std::string_view text) { return Json::parse(text, nullptr, false); }

/// The array itself, wherever it stands.
std::optional<Json> find_list(Json value, std::string& why) {
  for (int depth = 0; depth < 4; ++depth) {
    if (value.is_discarded()) return refuse(why, "this is no JSON");
    if (value.is_array()) return value;
    if (value.is_string()) {
      value = parse(value.get<std::string>());
      continue;
    }
    if (!value.is_object()) break;
    // Copies on purpose: to assign a part of `value` to itself would free it meanwhile.
    Json inner;
    const Json::json_pointer mattermost("/PluginSettings/Plugins/com.mattermost.calls/iceserversconfigs");
    if (value.contains(mattermost)) inner = value.at(mattermost);
    else if (value.contains("urls") || value.contains("url")) inner = Json::array({value});
    else
      for (const char* key : {"iceServers", "ice_servers", "iceserversconfigs"})
        if (value.contains(key)) inner = value.at(key);
    if (inner.is_null()) break;
    value = std::move(inner);
  }
  why = "there is no list of ICE servers in it: an array like [{\"urls\": [\"turn:192.168.0.105:3478\"], \"username\": ..., \"credential\": ...}]";
  return std::nullopt;
}

bool read_text(const Json& entry, const char* key, std::string& out, std::string& why) {
  const auto found = entry.find(key);
  if (found == entry.end() || found->is_null()) return true;
  if (!found->is_string()) return why = fmt::format("\"{}\" is no text", key), false;
  out = found->get<std::string>();
  return true;
}

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

bool read_entry(const Json& entry, std::vector<Target>& out, std::vector<std::string>& notes, std::string& why) {
  if (!entry.is_object()) return why = "an ICE server is an object: {\"urls\": [...]}", false;
  if (entry.contains("credentials") && !entry.contains("credential"))
    return why = "\"credentials\" should be \"credential\": browsers and Calls do not look at the other spelling", false;
  Target target;
  if (!read_text(entry, "username", target.username, why) || !read_text(entry, "credential", target.credential, why)) return false;
  const auto urls = entry.contains("urls") ? entry.at("urls") : entry.contains("url") ? entry.at("url") : Json();
  if (urls.is_null()) return why = "an entry has no \"urls\"", false;
  for (const auto& url : urls.is_array() ? urls : Json::array({urls})) {
    if (!url.is_string()) return why = "\"urls\" is a text or an array of texts", false;
    if (!read_url(url.get<std::string>(), target, out, notes, why)) return false;
    if (out.size() > max_targets) return why = fmt::format("more than {} URLs: test some of them", max_targets), false;
  }
  return true;
}

}  // namespace

std::optional<std::vector<Target>> read_ice_list(std::string_view json, std::vector<std::string>& notes, std::string& why) {
  const auto list = find_list(parse(json), why);
  if (!list) return std::nullopt;
  std::vector<Target> targets;
  for (const auto& entry : *list)
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
