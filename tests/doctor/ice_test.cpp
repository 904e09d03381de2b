// Lists of ICE servers, read without sending anything. What takes a relay is tests/doctor/ice.
#include <doctest/doctest.h>

#include <algorithm>

#include "ice_checks.h"

using namespace radiotower;
using namespace radiotower::cli;

namespace {

constexpr UnixSeconds now = 1'767'225'600;

class Kept final : public Findings {
 public:
  std::vector<Finding> all;
  void add(Finding finding) override { all.push_back(std::move(finding)); }
  void group(std::string_view) override {}
  const Finding* of(std::string_view check) const {
    const auto found = std::find_if(all.begin(), all.end(), [&](const auto& f) { return f.check == check; });
    return found == all.end() ? nullptr : &*found;
  }
  std::size_t bad() const {
    return static_cast<std::size_t>(std::count_if(all.begin(), all.end(), [](const auto& f) { return f.severity >= Severity::warning; }));
  }
};

struct Looked {
  Kept findings;
  std::vector<IceTarget> targets;
  IceQuestion question;
};

Looked look(std::string_view json, std::optional<std::string> secret = std::nullopt, std::string hosts = {}) {
  Looked out;
  out.question.secret = std::move(secret);
  out.question.now = now;
  out.question.hosts = std::move(hosts);
  std::string why;
  const auto document = read_ice_document(json, why);
  REQUIRE_MESSAGE(document, why);
  out.targets = check_ice_list(*document, out.question, out.findings);
  return out;
}

Severity severity(const Looked& looked, std::string_view check) {
  const auto* found = looked.findings.of(check);
  REQUIRE_MESSAGE(found, std::string(check));
  return found->severity;
}

}  // namespace

TEST_CASE("a good list gives no fault and no warning, and each URL is tried") {
  const auto calls = look(R"({"iceserversconfigs": "[{\"urls\": [\"stun:10.1.1.1:3478\"]}, {\"urls\": [\"turn:10.1.1.1:3478?transport=udp\", \"turn:10.1.1.1:3478?transport=tcp\"]}]",
                              "turnstaticauthsecret": "0123456789abcdef", "turncredentialsexpirationminutes": "240", "icehostoverride": "10.1.1.2", "udpserverport": 8444})");
  CHECK(calls.findings.bad() == 0);
  REQUIRE(calls.targets.size() == 3);
  CHECK(calls.targets[1].by_setting);
  CHECK(calls.targets[1].credential.username == std::to_string(now + 3600) + ":doctor");
  REQUIRE(calls.question.media_server);
  CHECK(calls.question.media_server->text() == "10.1.1.2:8444");

  const auto browser = look(R"([{"urls": "stun:10.1.1.1:3478"}, {"urls": ["turn:10.1.1.1:3478", "turn:10.1.1.1:3478?transport=tcp"], "username": "u", "credential": "p"}])");
  CHECK(browser.findings.bad() == 0);
  CHECK(browser.targets.size() == 3);
  CHECK_FALSE(browser.targets[1].made);
}

TEST_CASE("a mixed entry is a fault in the setting of Calls and that of rtcd, and a warning in a list of nobody's") {
  const std::string entry = R"([{"urls": ["stun:10.1.1.1", "turn:10.1.1.1"], "username": "u", "credential": "p"}])";
  CHECK(severity(look(R"({"iceserversconfigs": )" + entry + "}"), "ice.mixed-entry") == Severity::fault);
  CHECK(severity(look(R"({"ice_servers": )" + entry + "}"), "ice.mixed-entry") == Severity::fault);
  CHECK(severity(look(entry), "ice.mixed-entry") == Severity::warning);
}

TEST_CASE("the secret: empty, missing, masked, unknown, of a file") {
  const std::string list = R"("iceserversconfigs": [{"urls": ["turn:10.1.1.1:3478"]}])";
  CHECK(severity(look("{" + list + R"(, "turnstaticauthsecret": ""})"), "ice.secret-empty") == Severity::fault);
  CHECK(severity(look("{" + list + R"(, "serversideturn": false})"), "ice.secret-empty") == Severity::fault);
  const auto masked = look("{" + list + R"(, "turnstaticauthsecret": "********************************"})");
  CHECK(severity(masked, "ice.secret-unknown") == Severity::unknown);
  CHECK(masked.targets.empty());
  CHECK(severity(look("{" + list + "}"), "ice.secret-unknown") == Severity::unknown);
  const auto given = look("{" + list + "}", "0123456789abcdef");
  REQUIRE(given.targets.size() == 1);
  CHECK(given.targets[0].made);
  CHECK_FALSE(given.targets[0].by_setting);
}

TEST_CASE("a user name with an expiry in the setting of Calls is a fault before it runs out and after") {
  const auto entry = [](UnixSeconds expiry) {
    return R"([{"urls": "turn:10.1.1.1:3478", "username": ")" + std::to_string(expiry) + R"(:alice", "credential": "p"}])";
  };
  CHECK(severity(look(R"({"iceserversconfigs": )" + entry(now + 600) + "}"), "ice.expires") == Severity::fault);
  CHECK(severity(look(R"({"iceserversconfigs": )" + entry(now) + "}"), "ice.expired") == Severity::fault);
  CHECK(severity(look(entry(now - 1)), "ice.expired") == Severity::fault);
  CHECK_FALSE(look(entry(now + 1)).findings.of("ice.expires"));
  const auto user = look(R"({"iceserversconfigs": [{"urls": "turn:10.1.1.1:3478", "username": "alice", "credential": "p"}]})");
  CHECK(severity(user, "ice.static-user") == Severity::note);
}

TEST_CASE("each mistake of a URL is named, and the others are tried all the same") {
  for (const char* url : {"turn://10.1.1.1", "turn:2001:db8::1", "turn:10.1.1.1:0", "turn:10.1.1.256", "http://10.1.1.1", "10.1.1.1:3478", "turn:10.1.1.1?transport=sctp",
                          "stun:10.1.1.1?transport=udp", "turn:", "turn:u@10.1.1.1"}) {
    CAPTURE(url);
    const auto looked = look(std::string(R"([{"urls": ["turn:10.1.1.2:3478", ")") + url + R"("], "username": "u", "credential": "p"}])");
    CHECK(severity(looked, "ice.url") == Severity::fault);
    CHECK(looked.targets.size() == 1);
  }
  const auto list = [](const char* url) { return std::string(R"([{"urls": [")") + url + R"("], "username": "u", "credential": "p"}])"; };
  CHECK(severity(look(list("turn:10.1.1.1?transport=TCP")), "ice.url-case") == Severity::warning);
  CHECK(severity(look(list("TURN:10.1.1.1")), "ice.url-case") == Severity::warning);
  CHECK(severity(look(list("turns:10.1.1.1:5349?transport=udp")), "ice.unused") == Severity::note);
  CHECK(severity(look(list("turn:10.1.1.1")), "ice.port") == Severity::note);
  CHECK(severity(look(list("turn:10.1.1.1:5349")), "ice.port") == Severity::note);
  CHECK(severity(look(list("turns:10.1.1.1:3478")), "ice.port") == Severity::note);
  CHECK(severity(look(list("turns:10.1.1.1:5349")), "ice.turns-address") == Severity::note);
  CHECK(severity(look(list("turns:10.1.1.1:5349")), "ice.stream-only") == Severity::warning);
  CHECK(severity(look(list("turn:localhost:3478")), "ice.loopback") == Severity::fault);
  CHECK(severity(look(list("turn:[::1]:3478")), "ice.loopback") == Severity::fault);
  CHECK(severity(look(list("turn:172.17.0.2:3478")), "ice.container") == Severity::warning);
  CHECK(severity(look(list("turn:169.254.1.1:3478")), "ice.link-local") == Severity::warning);
  CHECK(severity(look(list("turn:8.8.8.8:3478")), "ice.outside") == Severity::note);
  CHECK(severity(look(list("turn:tower.lan:3478")), "ice.name") == Severity::note);
  CHECK(severity(look(list("turn:global.relay.metered.ca:3478")), "ice.outside") == Severity::warning);
  CHECK_FALSE(look(list("turn:notgoogle.com:3478")).findings.of("ice.outside"));
}

TEST_CASE("names of /etc/hosts") {
  const std::string hosts = "# tower.lan\n127.0.0.1 localhost\n10.1.1.1\ttower Tower.LAN # relay.lan\n";
  CHECK(is_in_hosts(hosts, "tower.lan"));
  CHECK(is_in_hosts(hosts, "TOWER"));
  CHECK_FALSE(is_in_hosts(hosts, "relay.lan"));
  CHECK_FALSE(is_in_hosts(hosts, "10.1.1.1"));
  CHECK_FALSE(is_in_hosts("", ""));
}

TEST_CASE("the settings beside the list") {
  const auto with = [](const char* more) { return std::string(R"({"iceserversconfigs": [{"urls": "stun:10.1.1.1:3478"}], )") + more + "}"; };
  CHECK(severity(look(with(R"("turncredentialsexpirationminutes": 0)")), "ice.lifetime") == Severity::fault);
  CHECK(severity(look(with(R"("turncredentialsexpirationminutes": 59)")), "ice.lifetime") == Severity::note);
  CHECK_FALSE(look(with(R"("turncredentialsexpirationminutes": 60)")).findings.of("ice.lifetime"));
  CHECK(severity(look(with(R"("icehostoverride": "127.0.0.1")")), "ice.host-override") == Severity::fault);
  CHECK(severity(look(with(R"("icehostoverride": "172.17.0.5")")), "ice.host-override") == Severity::warning);
  CHECK(severity(look(with(R"("icehostoverride": "calls.lan")")), "ice.host-override") == Severity::note);
  CHECK_FALSE(look(with(R"("icehostoverride": "10.1.1.2", "rtcdserviceurl": "http://rtcd:8045")")).question.media_server);
}

TEST_CASE("every error code of STUN and TURN has a sentence and says what to do") {
  for (const int number : {300, 400, 401, 403, 420, 437, 438, 440, 441, 442, 443, 446, 447, 486, 487, 500, 508}) {
    const auto code = static_cast<std::uint16_t>(number);
    CAPTURE(code);
    const auto meaning = meaning_of(code);
    CHECK(std::string_view(meaning.check) != "ice.error");
    CHECK(std::string_view(meaning.sentence).size() > 10);
    if (code != 401) CHECK(std::string_view(meaning.mend).size() > 10);
  }
  CHECK(std::string_view(meaning_of(499).check) == "ice.error");
}

TEST_CASE("what stands in a list never moves the cursor of a terminal") {
  const auto looked = look("[{\"urls\": [\"turn:\\u001b[31m\", \"\\u0007\"], \"username\": \"u\", \"credential\": \"p\"}]");
  for (const auto& finding : looked.findings.all)
    for (const auto& text : {finding.sentence, finding.mend, finding.key})
      CHECK(std::none_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20; }));
}
