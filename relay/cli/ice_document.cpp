#include "ice_document.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace radiotower::cli {

namespace {

using Json = nlohmann::json;

constexpr std::size_t most_shown = 200;

Json parse(std::string_view text) { return Json::parse(text, nullptr, false); }

std::string text_of(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

/// A number, also where it stands in quotes.
std::optional<std::int64_t> number_of(const Json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end()) return std::nullopt;
  if (found->is_number()) return static_cast<std::int64_t>(found->get<double>());
  const std::string text = text_of(object, key);
  if (text.empty() || text.size() > 9 || text.find_first_not_of("0123456789") != text.npos) return std::nullopt;
  return std::stoll(text);
}

CallsSettings read_settings(const Json& object) {
  CallsSettings out;
  if (object.contains("turnstaticauthsecret")) out.secret = text_of(object, "turnstaticauthsecret");
  out.minutes = number_of(object, "turncredentialsexpirationminutes");
  out.udp_port = number_of(object, "udpserverport");
  out.host_override = text_of(object, "icehostoverride");
  out.rtcd_url = text_of(object, "rtcdserviceurl");
  return out;
}

/// The array itself, wherever it stands.
std::optional<Json> find_list(Json value, IceDocument& out, std::string& why) {
  for (int depth = 0; depth < 5; ++depth) {
    if (value.is_discarded()) {
      why = "this is no JSON";
      return std::nullopt;
    }
    if (value.is_array()) return value;
    if (value.is_string()) {
      value = parse(value.get<std::string>());
      continue;
    }
    if (!value.is_object()) break;
    // Copies on purpose: to assign a part of `value` to itself would free it meanwhile.
    Json inner;
    const Json::json_pointer calls("/PluginSettings/Plugins/com.mattermost.calls");
    if (value.contains(calls)) inner = value.at(calls);
    else if (value.contains("urls") || value.contains("url")) inner = Json::array({value});
    else
      for (const char* key : {"iceServers", "ice_servers", "iceserversconfigs"}) {
        if (!value.contains(key)) continue;
        inner = value.at(key);
        const std::string_view name = key;
        out.form = name == "ice_servers" ? IceDocument::Form::rtcd : name == "iceServers" ? IceDocument::Form::list : IceDocument::Form::calls;
        if (out.form == IceDocument::Form::calls && value.size() > 1) out.settings = read_settings(value);
      }
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

IceEntry read_entry(const Json& entry) {
  IceEntry out;
  if (!entry.is_object()) {
    out.wrong = "an ICE server is an object: {\"urls\": [...]}";
    return out;
  }
  out.misspelt = entry.contains("credentials") && !entry.contains("credential");
  if (!read_text(entry, "username", out.username, out.wrong) || !read_text(entry, "credential", out.credential, out.wrong)) return out;
  const auto urls = entry.contains("urls") ? entry.at("urls") : entry.contains("url") ? entry.at("url") : Json();
  if (urls.is_null()) {
    out.wrong = "an entry has no \"urls\"";
    return out;
  }
  for (const auto& url : urls.is_array() ? urls : Json::array({urls})) {
    if (url.is_string()) out.urls.push_back(url.get<std::string>());
    else out.wrong = "\"urls\" is a text or an array of texts";
  }
  return out;
}

}  // namespace

std::optional<IceDocument> read_ice_document(std::string_view json, std::string& why) {
  IceDocument out;
  const auto list = find_list(parse(json), out, why);
  if (!list) return std::nullopt;
  for (const auto& entry : *list) out.entries.push_back(read_entry(entry));
  return out;
}

std::string shown(std::string_view text) {
  std::string out;
  for (const char c : text.substr(0, most_shown)) out += c >= 0x20 && c < 0x7f ? c : '?';
  return out;
}

}  // namespace radiotower::cli
