#include "results.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "qr.h"
#include "text.h"

using namespace radiotower::cli::page;
using Json = nlohmann::json;

namespace {

Json posted() {
  return {{"device", "0a1b2c3d"}, {"index", 1}, {"state", "ok"}, {"verdict", "works"}, {"sentence", "A call works."},
          {"address", "192.168.0.105:50000"},
          {"gathered_ms", 12.5}, {"echoed", 20}, {"round_trip_min_ms", 1.25}, {"round_trip_median_ms", 2}, {"frames", 60},
          {"error_code", nullptr}, {"error_text", nullptr}};
}

std::optional<Result> parse(const Json& json) {
  std::string why;
  const auto result = parse_result(json.dump(), 3, why);
  CHECK(result.has_value() == why.empty());
  return result;
}

Target target(const char* text) {
  Target t;
  t.text = text;
  return t;
}

}  // namespace

TEST_CASE("a result is taken as the page sends it") {
  const auto r = parse(posted());
  REQUIRE(r);
  CHECK(r->device == "0a1b2c3d");
  CHECK(r->index == 1);
  CHECK(r->state == State::ok);
  CHECK(r->round_trip_min_ms == 1.25);
  CHECK(r->frames == 60);
  CHECK(r->error_code == 0);
  CHECK(text_line({"192.168.0.31", "Safari 18 on iPhone"}, target("turn:t"), *r, false) ==
        "192.168.0.31, Safari 18 on iPhone  works  turn:t  candidate 192.168.0.105:50000, round trip 1.2 ms (median 2.0), 60 frames of video\n");
}

TEST_CASE("a result that the page does not send is refused") {
  std::string why;
  for (const char* text : {"", "[]", "7", "nonsense", "{}", "{\"device\": \"a\"}", "\xff\xfe"}) CHECK_FALSE(parse_result(text, 3, why));
  for (const char* key : {"device", "index", "state", "verdict", "sentence"}) {
    CAPTURE(key);
    auto without = posted();
    without.erase(key);
    CHECK_FALSE(parse(without));
  }
  for (const auto& [key, value] : std::vector<std::pair<const char*, Json>>{
           {"index", 3}, {"index", -1}, {"index", "1"}, {"index", 1e300}, {"state", "fine"}, {"state", 1}, {"device", "A B"},
           {"device", ""}, {"device", "\u001b[2J"},
           {"verdict", "WORKS!"}, {"echoed", -1}, {"echoed", 1e9}, {"gathered_ms", 1e9}, {"gathered_ms", "12"},
           {"frames", true}, {"address", 7}, {"error_code", 70000}}) {
    CAPTURE(key);
    auto wrong = posted();
    wrong[key] = value;
    CHECK_FALSE(parse(wrong));
  }
}

TEST_CASE("no phone sends escape sequences to a terminal") {
  auto hostile = posted();
  hostile["state"] = "failed";
  hostile["sentence"] = "\u001b]0;title\u0007 \u009b31m \u202e\nroot# \x7f";
  hostile["address"] = "\r\u001b[A";
  hostile["error_code"] = 401;
  hostile["error_text"] = std::string(5000, '\b');
  const auto r = parse(hostile);
  REQUIRE(r);
  const Sender sender{printable("::1\x1b", 64), short_user_agent("\x1b[31m\xff evil")};
  const auto only_printable = [](std::string line) {
    REQUIRE(line.back() == '\n');
    CHECK(std::count(line.begin(), line.end(), '\n') <= 2);  // the second is the sentence's
    std::erase(line, '\n');
    for (const char c : line) CHECK((c >= 0x20 && c < 0x7f));
    return line.size();
  };
  CHECK(only_printable(text_line(sender, target("turn:\x1b[31m"), *r, false)) < 1000);
  CHECK(only_printable(json_line(sender, target("turn:\x1b[31m"), *r)) < 1500);
}

TEST_CASE("a device is through when it has told of each URL once") {
  Devices devices(3);
  auto r = *parse(posted());
  r.index = 0;
  CHECK(devices.take(r) == Devices::Taken::fresh);
  CHECK(devices.take(r) == Devices::Taken::again);
  r.index = 1;
  r.state = State::skipped;
  CHECK(devices.take(r) == Devices::Taken::fresh);
  r.index = 2;
  CHECK(devices.take(r) == Devices::Taken::completes);
  CHECK(devices.take(r) == Devices::Taken::again);
  const auto sum = devices.summary(r.device);
  CHECK(sum.good());
  CHECK(text_summary({"192.168.0.31", "Firefox"}, sum, false) == "192.168.0.31, Firefox: its one URL works, 2 could not be tested in this browser\n");
  CHECK(Json::parse(json_summary({"192.168.0.31", "Firefox"}, r.device, sum))["ok"] == true);
}

TEST_CASE("one failure makes it not good, and so does nothing tested at all") {
  Devices devices(2);
  auto r = *parse(posted());
  r.index = 0;
  devices.take(r);
  r.index = 1, r.state = State::failed;
  devices.take(r);
  CHECK_FALSE(devices.summary(r.device).good());
  CHECK(text_summary({"a", "b"}, devices.summary(r.device), false) == "a, b: 1 of 2 URLs fail\n");
  CHECK_FALSE(devices.summary("nobody").good());
}

TEST_CASE("devices are bounded, and those that are known still get through") {
  Devices devices(2);
  auto r = *parse(posted());
  r.index = 0;
  for (std::size_t i = 0; i < Devices::most; ++i) {
    r.device = std::to_string(i);
    CHECK(devices.take(r) == Devices::Taken::fresh);
  }
  r.device = "more";
  CHECK(devices.take(r) == Devices::Taken::too_many);
  r.device = "0", r.index = 1;
  CHECK(devices.take(r) == Devices::Taken::completes);
}

TEST_CASE("a user agent becomes a browser and a system") {
  const std::string webkit = " AppleWebKit/537.36 (KHTML, like Gecko) ", iphone = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X)" + webkit;
  CHECK(short_user_agent("Mozilla/5.0 (Linux; Android 10; K)" + webkit + "Chrome/150.0.0.0 Mobile Safari/537.36") == "Chrome 150 on Android");
  CHECK(short_user_agent(iphone + "Version/18.5 Mobile/15E148 Safari/604.1") == "Safari 18 on iPhone");
  CHECK(short_user_agent(iphone + "CriOS/150.0 Mobile/15E148 Safari/604.1") == "Chrome 150 on iPhone");
  CHECK(short_user_agent("Mozilla/5.0 (X11; Linux x86_64; rv:153.0) Gecko/20100101 Firefox/153.0") == "Firefox 153 on Linux");
  CHECK(short_user_agent("Mozilla/5.0 (Windows NT 10.0; Win64; x64)" + webkit + "Chrome/150.0.0.0 Safari/537.36 Edg/150.0") == "Edge 150 on Windows");
  CHECK(short_user_agent("") == "unknown browser");
}

TEST_CASE("a QR code has a light margin, and lines of one width") {
  const std::string code = qr_code("http://192.168.0.105:8090/abcdefghjkmnpqrs/", false);
  const auto first = code.substr(0, code.find('\n'));
  CHECK(first.size() == 33 * 3);  // version 3 is 29 modules wide
  for (std::size_t i = 0; i < first.size(); i += 3) CHECK(first.substr(i, 3) == "█");
  CHECK(code.find('\x1b') == std::string::npos);
  CHECK(qr_code(std::string(5000, 'x'), false).empty());
}
