// What a reload says that it has changed.
#include <doctest/doctest.h>

#include <algorithm>

#include "daemon/config_changes.h"

using namespace radiotower;
using namespace radiotower::daemon;

namespace {

Config config_of(std::string_view text) {
  Config config;
  ConfigErrors errors;
  REQUIRE(read_config_text(text, "relay.toml", config, errors));
  return config;
}

using Lines = std::vector<std::string>;

turn::User user(std::string name, std::string password, std::optional<std::uint32_t> allocations = {}) {
  turn::User made;
  made.name = std::move(name);
  made.password = std::move(password);
  made.allocations = allocations;
  return made;
}

Lines users(const std::vector<turn::User>& before, const std::vector<turn::User>& after) {
  FileFacts a, b;
  a.add_users("credentials.users_file", before);
  b.add_users("credentials.users_file", after);
  return a.changes_to(b);
}

Lines secrets(const std::vector<std::string>& before, const std::vector<std::string>& after) {
  FileFacts a, b;
  a.add_secrets("credentials.secrets_file", before);
  b.add_secrets("credentials.secrets_file", after);
  return a.changes_to(b);
}

tls::CertificateFacts certificate(std::vector<std::string> names, std::int64_t until, std::string fingerprint) {
  tls::CertificateFacts facts;
  facts.names = std::move(names);
  facts.not_after = until;
  facts.fingerprint = std::move(fingerprint);
  return facts;
}

constexpr std::int64_t in_2027 = 1798761600, in_2028 = 1830297600;  // each the first of January

}  // namespace

TEST_CASE("changes: each key with its old and its new value, in the order of the manual; what needs a restart is not among them") {
  const Config before = config_of("[limits]\nallocations = 7\n[log]\nlevel = \"info\"\n");
  const Config after = config_of("[listen]\ntls = [\"0.0.0.0:443\"]\ncertificate = \"chain.pem\"\n[limits]\nallocations = 9\n[log]\nlevel = \"debug\"\n[workers]\ncount = 3\n");
  CHECK(changes_of(before, after) == Lines{"listen.tls: [\"0.0.0.0:5349\", \"[::]:5349\"] -> [\"0.0.0.0:443\"]", "listen.certificate: not set -> \"chain.pem\"",
                                           "limits.allocations: 7 -> 9", "log.level: \"info\" -> \"debug\""});
  CHECK(changes_of(before, before).empty());
}

TEST_CASE("changes: realms that come, go and change") {
  const Config before = config_of("[realms.a]\norigins = [\"https://a.example\"]\nusers_file = \"a\"\nallocations = 5\n[realms.b]\norigins = [\"https://b.example\"]\nusers_file = \"b\"\n");
  const Config after = config_of("[realms.a]\norigins = [\"https://a.example\", \"https://aa.example\"]\nusers_file = \"other\"\nallocations_per_user = 2\n"
                                 "[realms.c]\norigins = [\"https://c.example\"]\nusers_file = \"c\"\n");
  CHECK(changes_of(before, after) ==
        Lines{"realms.\"b\": removed; its calls go on", "realms.\"a\".origins: [\"https://a.example\"] -> [\"https://a.example\", \"https://aa.example\"]",
              "realms.\"a\".users_file: \"a\" -> \"other\"", "realms.\"a\".allocations: 5 -> not set", "realms.\"a\".allocations_per_user: not set -> 2", "realms.\"c\": added"});
}

TEST_CASE("changes: long lists are shown where they differ") {
  std::string many = "[peers]\nallow = [";
  for (int i = 0; i < 200; ++i) many += "\"10.1.1." + std::to_string(i) + "\", ";
  const Lines lines = changes_of(config_of(many + "\"10.2.0.1\", \"10.3.0.1\"]\n"), config_of(many + "\"10.2.0.2\", \"10.3.0.1\"]\n"));
  REQUIRE(lines.size() == 1);
  CHECK(lines[0].size() < 250);
  CHECK(lines[0].find("10.2.0.1") < lines[0].find(" -> "));
  CHECK(lines[0].find("10.2.0.2") > lines[0].find(" -> "));
}

TEST_CASE("changes: users and secrets are counted, and never named") {
  CHECK(users({user("alice", "one"), user("bob", "two"), user("carol", "three"), user("dave", "x")},
              {user("alice", "one", 3), user("carol", "other"), user("eve", "four"), user("dave", "x"), user("frank", "five")}) ==
        Lines{"credentials.users_file: 2 users more, 1 fewer, 1 with another password, 1 with other limits"});
  CHECK(users({user("alice", "one")}, {user("alice", "one"), user("bob", "two")}) == Lines{"credentials.users_file: 1 user more"});
  CHECK(users({user("alice", "one"), user("bob", "two")}, {}) == Lines{"credentials.users_file: 2 users fewer"});
  CHECK(users({user("alice", "one")}, {user("alice", "one")}).empty());
  CHECK(secrets({"north-of-the-wall"}, {"south-of-the-river", "north-of-the-wall"}) == Lines{"credentials.secrets_file: 1 secret more"});
  CHECK(secrets({"south-of-the-river", "north-of-the-wall"}, {"south-of-the-river"}) == Lines{"credentials.secrets_file: 1 secret fewer"});
  CHECK(secrets({"south-of-the-river", "north-of-the-wall"}, {"north-of-the-wall", "south-of-the-river"}) ==
        Lines{"credentials.secrets_file: the same secrets in another order"});
}

TEST_CASE("changes: a certificate that is renewed, replaced, given and taken away") {
  FileFacts none, first, renewed, other;
  first.add_certificates({certificate({"tower.lan"}, in_2027, "aa")});
  renewed.add_certificates({certificate({"tower.lan"}, in_2028, "bb")});
  other.add_certificates({certificate({"tower.lan"}, in_2027, "aa"), certificate({"turn.lan", "10.0.0.4"}, in_2028, "cc")});
  CHECK(first.changes_to(renewed) == Lines{"listen.certificate: tower.lan until 2027-01-01 -> until 2028-01-01"});
  CHECK(first.changes_to(other) == Lines{"listen.more_certificates: none -> turn.lan 10.0.0.4 until 2028-01-01"});
  CHECK(none.changes_to(first) == Lines{"listen.certificate: none -> tower.lan until 2027-01-01"});
  CHECK(first.changes_to(none) == Lines{"listen.certificate: tower.lan until 2027-01-01 -> none"});
  CHECK(first.changes_to(first).empty());
}
