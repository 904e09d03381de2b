#include "ice_list.h"

#include <doctest/doctest.h>

using namespace radiotower::cli;
using namespace radiotower::cli::page;

namespace {

std::vector<std::string> notes;
std::string why;

std::optional<std::vector<Target>> read(std::string_view json) {
  notes.clear();
  why.clear();
  return read_ice_list(json, notes, why);
}

std::string refusal(std::string_view json) {
  CHECK_FALSE(read(json));
  return why;
}

}  // namespace

TEST_CASE("a browser's iceServers becomes one target for each URL, as it was written") {
  const auto targets = read(R"([{"urls": "stun:192.168.0.105"},
                                {"urls": ["turn:192.168.0.105:3478?transport=udp", "turns:tower.lan"], "username": "u", "credential": "p"}])");
  REQUIRE(targets);
  REQUIRE(targets->size() == 3);
  CHECK(targets->at(0).text == "stun:192.168.0.105");
  CHECK_FALSE(targets->at(0).is_turn());
  CHECK(targets->at(1).username == "u");
  CHECK(targets->at(2).credential == "p");
  CHECK(targets->at(2).url.server.port == 5349);
  CHECK_FALSE(lacks_credential(*targets));
}

TEST_CASE("the list is found where Mattermost keeps it: a string, the setting, all of config.json") {
  for (const char* json : {R"("[{\"urls\": [\"turn:tower.lan\"]}]")", R"({"iceserversconfigs": "[{\"urls\": [\"turn:tower.lan\"]}]"})",
                           R"({"PluginSettings": {"Plugins": {"com.mattermost.calls": {"iceserversconfigs": "[{\"urls\": [\"turn:tower.lan\"]}]"}}}})",
                           R"({"iceServers": [{"urls": "turn:tower.lan"}]})", R"({"urls": "turn:tower.lan"})", R"([{"url": "turn:tower.lan"}])"}) {
    CAPTURE(json);
    const auto targets = read(json);
    REQUIRE(targets);
    CHECK(targets->at(0).text == "turn:tower.lan");
    CHECK(lacks_credential(*targets));
  }
}

TEST_CASE("what no browser uses is left out, and said") {
  const auto targets = read(R"([{"urls": ["turns:tower.lan?transport=udp", "stuns:tower.lan", "turn:tower.lan"]}])");
  REQUIRE(targets);
  CHECK(targets->size() == 1);
  CHECK(notes.size() == 2);
  CHECK(notes.at(0) == "turns:tower.lan?transport=udp: no browser uses it, left out");
}

TEST_CASE("a list with a mistake is refused with a sentence that names it") {
  CHECK(refusal("nonsense") == "this is no JSON");
  CHECK(refusal("").find("no JSON") != std::string::npos);
  CHECK(refusal("7").find("no list of ICE servers") != std::string::npos);
  CHECK(refusal("[]").find("no URL") != std::string::npos);
  CHECK(refusal(R"([{"urls": ["turn:t"], "credentials": "p"}])").find("should be \"credential\"") != std::string::npos);
  CHECK(refusal(R"([{"urls": ["turn:t"], "username": 7}])") == "\"username\" is no text");
  CHECK(refusal(R"([{"username": "u"}])") == "an entry has no \"urls\"");
  CHECK(refusal(R"([{"urls": ["http://tower.lan"]}])").find("begins with none of") != std::string::npos);
  CHECK(refusal(R"([{"urls": ["turn:tower.lan:99999"]}])").find("turn:tower.lan:99999") != std::string::npos);
  CHECK(refusal(R"([{"urls": [7]}])").find("array of texts") != std::string::npos);
  CHECK(refusal(R"([["turn:t"]])").find("is an object") != std::string::npos);
  CHECK(refusal("\"\\\"\\\\\\\"7\\\\\\\"\\\"\"").find("no list") != std::string::npos);  // strings in strings come to an end
  std::string many = "[";
  for (int i = 0; i < 20; ++i) many += (i ? "," : "") + std::string(R"({"urls": "turn:tower.lan"})");
  CHECK(refusal(many + "]").find("more than 16") != std::string::npos);
  CHECK(refusal(std::string(100'000, '[')) == "this is no JSON");
  CHECK(refusal("[{\"urls\": [\"x\\u001b[31m\"]}]").find('\x1b') == std::string::npos);
}
