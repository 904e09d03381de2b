#include "results.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "text.h"

namespace radiotower::cli::page {

namespace {

using Json = nlohmann::json;

constexpr const char* state_names[] = {"ok", "failed", "unknown", "skipped"};
constexpr double longest_ms = 600'000;

const char* name(State state) { return state_names[static_cast<std::size_t>(state)]; }

/// Reads fields one by one; after the first that is wrong, `why` says which.
class Fields {
 public:
  Fields(const Json& object, std::string& why) : object_(object), why_(why) {}

  std::string text(const char* key, std::size_t longest, bool needed) {
    const Json* found = find(key, needed);
    if (!found) return {};
    if (!found->is_string()) return wrong(key), std::string();
    return printable(found->get_ref<const std::string&>(), longest);
  }
  std::optional<double> number(const char* key, double highest) {
    const Json* found = find(key, false);
    if (!found) return std::nullopt;
    const double value = found->is_number() ? found->get<double>() : -1;
    if (!std::isfinite(value) || value < 0 || value > highest) return wrong(key), std::nullopt;
    return value;
  }
  std::optional<std::uint32_t> count(const char* key, double highest) {
    const auto value = number(key, highest);
    return value ? std::optional(static_cast<std::uint32_t>(*value)) : std::nullopt;
  }

 private:
  const Json* find(const char* key, bool needed) {
    const auto found = object_.find(key);
    if (found != object_.end() && !found->is_null()) return &*found;
    if (needed) wrong(key);
    return nullptr;
  }
  void wrong(const char* key) {
    if (why_.empty()) why_ = fmt::format("\"{}\" is missing or wrong", key);
  }
  const Json& object_;
  std::string& why_;
};

bool is_word(std::string_view text) {
  for (const char c : text)
    if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-')) return false;
  return !text.empty();
}

std::string numbers(const Result& r) {
  std::string out;
  const auto add = [&](const std::string& text) { out += (out.empty() ? "" : ", ") + text; };
  if (!r.address.empty()) add("candidate " + r.address);
  if (r.round_trip_min_ms && r.round_trip_median_ms) add(fmt::format("round trip {:.1f} ms (median {:.1f})", *r.round_trip_min_ms, *r.round_trip_median_ms));
  if (r.frames) add(fmt::format("{} frames of video", *r.frames));
  if (r.error_code != 0) add(fmt::format("the browser says {}{}{}", r.error_code, r.error_text.empty() ? "" : " ", r.error_text));
  return out;
}

std::string coloured(const char* code, std::string text, bool colour) { return colour ? fmt::format("\x1b[{}m{}\x1b[0m", code, text) : text; }

}  // namespace

std::optional<Result> parse_result(std::string_view json, std::size_t targets, std::string& why) {
  why.clear();
  const Json object = Json::parse(json, nullptr, false);
  if (!object.is_object()) return refuse(why, "no JSON object");
  Fields fields(object, why);
  Result r;
  r.device = fields.text("device", 32, true);
  const auto index = fields.count("index", static_cast<double>(max_targets));
  const std::string state = fields.text("state", 16, true);
  r.verdict = fields.text("verdict", 32, true);
  r.sentence = fields.text("sentence", 500, true);
  r.address = fields.text("address", 80, false);
  r.gathered_ms = fields.number("gathered_ms", longest_ms);
  r.echoed = fields.count("echoed", 100'000).value_or(0);
  r.round_trip_min_ms = fields.number("round_trip_min_ms", longest_ms);
  r.round_trip_median_ms = fields.number("round_trip_median_ms", longest_ms);
  r.frames = fields.count("frames", 100'000);
  r.error_code = fields.count("error_code", 1000).value_or(0);
  r.error_text = fields.text("error_text", 120, false);
  if (!why.empty()) return std::nullopt;
  if (!is_word(r.device) || !is_word(r.verdict)) return refuse(why, "\"device\" and \"verdict\" are words");
  if (!index || *index >= targets) return refuse(why, "\"index\" is none of the URLs'");
  r.index = *index;
  for (std::size_t i = 0; i < std::size(state_names); ++i) {
    if (state != state_names[i]) continue;
    r.state = static_cast<State>(i);
    return r;
  }
  why = "\"state\" is none of ok, failed, unknown, skipped";
  return std::nullopt;
}

Devices::Taken Devices::take(const Result& result) {
  const auto known = devices_.find(result.device);
  if (known == devices_.end() && devices_.size() >= most) return Taken::too_many;
  auto& states = known == devices_.end() ? devices_[result.device] : known->second;
  if (!states.emplace(result.index, result.state).second) return Taken::again;
  return states.size() == targets_ ? Taken::completes : Taken::fresh;
}

Devices::Summary Devices::summary(const std::string& device) const {
  Summary sum;
  const auto known = devices_.find(device);
  if (known == devices_.end()) return sum;
  for (const auto& [index, state] : known->second)
    ++(state == State::ok ? sum.ok : state == State::failed ? sum.failed : state == State::unknown ? sum.unknown : sum.skipped);
  return sum;
}

std::string text_line(const Sender& sender, const Target& target, const Result& result, bool colour) {
  const char* word = result.state == State::ok ? "works" : result.state == State::failed ? "FAILS" : result.state == State::unknown ? "unsure" : "skipped";
  const char* code = result.state == State::ok ? "32" : result.state == State::failed ? "31" : "33";
  std::string line = fmt::format("{}, {}  {}  {}", sender.address, sender.browser, coloured(code, word, colour), printable(target.text, 200));
  if (const auto known = numbers(result); !known.empty()) line += "  " + known;
  if (result.state != State::ok) line += "\n    " + result.sentence;
  return line + "\n";
}

std::string text_summary(const Sender& sender, const Devices::Summary& sum, bool colour) {
  const std::string who = fmt::format("{}, {}: ", sender.address, sender.browser);
  const unsigned tested = sum.ok + sum.failed;
  std::string said = sum.good() ? (tested == 1 ? "its one URL works" : fmt::format("all {} URLs work", tested))
                     : tested == 0 ? "nothing could be tested in this browser"
                                   : fmt::format("{} of {} URLs fail", sum.failed, tested);
  if (sum.unknown + sum.skipped > 0 && tested > 0) said += fmt::format(", {} could not be tested in this browser", sum.unknown + sum.skipped);
  return who + coloured(sum.good() ? "32" : "31", said, colour) + "\n";
}

std::string json_line(const Sender& sender, const Target& target, const Result& r) {
  Json line = {{"device", r.device},       {"from", sender.address}, {"browser", sender.browser},
               {"url", printable(target.text, 200)}, {"state", name(r.state)}, {"verdict", r.verdict}, {"sentence", r.sentence}, {"echoed", r.echoed}};
  const auto number = [&](const char* key, std::optional<double> value) { line[key] = value ? Json(std::round(*value * 10) / 10) : Json(); };
  line["candidate"] = r.address.empty() ? Json() : Json(r.address);
  number("gathered_ms", r.gathered_ms);
  number("round_trip_min_ms", r.round_trip_min_ms);
  number("round_trip_median_ms", r.round_trip_median_ms);
  line["frames"] = r.frames ? Json(*r.frames) : Json();
  line["error_code"] = r.error_code ? Json(r.error_code) : Json();
  line["error_text"] = r.error_text.empty() ? Json() : Json(r.error_text);
  return line.dump() + "\n";
}

std::string json_summary(const Sender& sender, const std::string& device, const Devices::Summary& sum) {
  const Json line = {{"device", device}, {"from", sender.address}, {"browser", sender.browser}, {"complete", true}, {"ok", sum.good()},
                     {"works", sum.ok},  {"fails", sum.failed},    {"unknown", sum.unknown},    {"skipped", sum.skipped}};
  return line.dump() + "\n";
}

}  // namespace radiotower::cli::page
