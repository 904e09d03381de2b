#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <random>
#include <string>

#include "daemon/config.h"
#include "options.h"
#include "peer_rules.h"
#include "translation.h"
#include "turnserver_conf.h"

using namespace radiotower;
using namespace radiotower::cli;

namespace {

net::AddressRange range(std::string_view text) {
  std::string why;
  return *net::AddressRange::parse(text, why);
}

std::vector<std::string> texts(const std::vector<net::AddressRange>& ranges) {
  std::vector<std::string> out;
  for (const auto& r : ranges) out.push_back(r.text());
  return out;
}

Translation translated(std::string_view conf, const CoturnDatabase* database = nullptr) {
  TranslationInput input;
  input.lines = read_turnserver_conf(conf);
  input.folder = "/etc";
  input.database = database;
  input.database_name = "turndb";
  return translate(input);
}

const std::string& toml(const Translation& t) { return t.files.front().text; }

std::string file(const Translation& t, std::string_view name) {
  for (const auto& f : t.files)
    if (f.name == name) return f.text;
  return "";
}

bool has(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }
bool any_has(const std::vector<std::string>& list, std::string_view part) {
  return std::any_of(list.begin(), list.end(), [&](const auto& text) { return has(text, part); });
}

constexpr std::string_view secret = "use-auth-secret\nstatic-auth-secret=a-long-enough-secret\nrealm=turn.example.org\n";

}  // namespace

TEST_CASE("a line is read as coturn reads it: any run of blanks, tabs and = between, quotes, # at the start alone") {
  const auto lines =
      read_turnserver_conf("realm=a\nrealm a\nrealm\t= =a\n  realm=\"a b\" \n#realm=c\n  # realm\nrealm=a # b\nno-cli\r\n\n \nuser=x:y;\nlast");
  REQUIRE(lines.size() == 8);
  CHECK(lines[0].value == "a");
  CHECK(lines[1].value == "a");
  CHECK(lines[2].value == "a");
  CHECK(lines[3].value == "a b");
  CHECK(lines[4].value == "a # b");
  CHECK(lines[4].number == 7);
  CHECK(lines[5].key == "no-cli");
  CHECK(lines[5].value == "");
  CHECK(lines[6].semicolon);
  CHECK(lines[6].value == "x:y;");
  CHECK(lines[7].key == "last");
  CHECK(lines[7].number == 12);
}

TEST_CASE("a line of more than 1023 bytes is cut, and its rest is a line of its own") {
  const auto lines = read_turnserver_conf("realm=" + std::string(1100, 'x') + "\nno-cli\n");
  REQUIRE(lines.size() == 3);
  CHECK(lines[0].cut);
  CHECK(lines[0].value.size() == 1023 - 6);
  CHECK(lines[1].rest);
  CHECK(lines[1].number == 1);
  CHECK(lines[2].key == "no-cli");
  CHECK(lines[2].number == 2);
  CHECK_FALSE(read_turnserver_conf("realm=" + std::string(1017, 'x'))[0].cut);
}

TEST_CASE("a byte order mark makes the first option unknown, as to coturn; a NUL ends a line") {
  const auto t = translated(
      "\xEF\xBB\xBF"
      "denied-peer-ip=10.0.0.0-10.255.255.255\n");
  CHECK(t.lines[0].verdict == Verdict::unknown);
  CHECK(has(t.lines[0].says, "byte order mark"));
  CHECK(t.lines[0].alarm);
  CHECK(read_turnserver_conf(std::string("realm=a\0b\n", 10))[0].value == "a");
}

TEST_CASE("switches are read as coturn reads them") {
  bool on = false;
  for (const char* text : {"", "1", "yes", "true", "on", "ON", "y", "9", "Tonic"}) CHECK((read_switch(text, on) && on));
  for (const char* text : {"0", "no", "false", "off", "OFF", "never", "F"}) CHECK((read_switch(text, on) && !on));
  for (const char* text : {"# comment", "enabled", "oN"}) CHECK_FALSE(read_switch(text, on));
}

TEST_CASE("a misspelt option that protects is shouted about, any other is named") {
  for (const char* key : {"denied-peer-pi", "denied_peer_ip", "Denied-Peer-IP", "--denied-peer-ip", "denied-peer-ips", "static-auth-secert",
                          "no-multicast-peer", "use-auth-secrets"}) {
    CAPTURE(key);
    const auto t = translated(std::string(secret) + key + "=x\n");
    CHECK(t.lines.back().verdict == Verdict::unknown);
    CHECK(t.lines.back().alarm);
    CHECK(any_has(t.alarms, "line 4"));
    CHECK_FALSE(t.complete);
  }
  const auto t = translated(std::string(secret) + "verbos\n");
  CHECK(t.lines.back().verdict == Verdict::unknown);
  CHECK_FALSE(t.lines.back().alarm);
  CHECK(has(t.lines.back().says, "did you mean verbose?"));
  CHECK_FALSE(t.complete);
  CHECK(nearest_option("entirely-different-thing") == nullptr);
}

TEST_CASE("what is allowed is taken out of what is denied, since it wins in coturn") {
  const auto all = range("10.0.0.0/8");
  CHECK(texts(subtract({all}, {})) == std::vector<std::string>{"10.0.0.0/8"});
  CHECK(texts(subtract({all}, {range("10.0.0.0")})) == std::vector<std::string>{"10.0.0.1-10.255.255.255"});
  CHECK(texts(subtract({all}, {range("10.255.255.255")})) == std::vector<std::string>{"10.0.0.0-10.255.255.254"});
  CHECK(texts(subtract({all}, {range("10.1.2.3")})) == std::vector<std::string>{"10.0.0.0-10.1.2.2", "10.1.2.4-10.255.255.255"});
  CHECK(subtract({range("10.1.2.3")}, {all}).empty());  // coturn reaches it, though the narrower entry denies it
  CHECK(texts(subtract({range("10.0.0.0-10.0.0.9")}, {range("10.0.0.5-10.0.0.20")})) == std::vector<std::string>{"10.0.0.0-10.0.0.4"});
  CHECK(texts(subtract({all, all, range("10.3.0.0/16")}, {})) == std::vector<std::string>{"10.0.0.0/8"});  // nothing stands there twice
  CHECK(texts(subtract({range("fc00::/7")}, {all, range("fd00::1")})) ==
        std::vector<std::string>{"fc00::-fd00::", "fd00::2-fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"});
  CHECK(subtract({range("0.0.0.0/0")}, {range("0.0.0.0/0")}).empty());
  CHECK(covered(range("10.0.0.0/8"), {range("10.0.0.0-10.200.0.0"), range("10.100.0.0-11.0.0.0")}));
  CHECK_FALSE(covered(range("10.0.0.0/8"), {range("10.0.0.0-10.200.0.0")}));
}

TEST_CASE("IPv4 in a mapped spelling never becomes a rule about all of IPv4") {
  const auto t = translated(std::string(secret) +
                            "denied-peer-ip=::ffff:0.0.0.0-::ffff:255.255.255.255\ndenied-peer-ip=::ffff:0:0/96\nallowed-peer-ip=::ffff:10.0.0.1\n");
  CHECK(t.lines[3].verdict == Verdict::used);
  CHECK(t.lines[4].verdict == Verdict::used);
  CHECK(t.lines[5].verdict == Verdict::refused);
  CHECK_FALSE(has(toml(t), "deny ="));
  CHECK_FALSE(has(toml(t), "\nallow ="));
}

TEST_CASE("a denied-peer-ip that coturn did not take is denied from now on, and said; an allowed one stays shut") {
  const auto t = translated(
      std::string(secret) +
      "denied-peer-ip=10.0.0.0/8\ndenied-peer-ip=192.168.0.0-192.168.255.255 # office\ndenied-peer-ip=gateway\nallowed-peer-ip=172.16.0.0/12\n");
  CHECK(has(toml(t), R"(deny = ["10.0.0.0/8", "192.168.0.0/16"])"));
  CHECK(t.lines[5].verdict == Verdict::refused);
  CHECK(t.lines[6].verdict == Verdict::refused);
  CHECK(t.alarms.size() == 3);
  CHECK_FALSE(has(toml(t), "\nallow ="));
}

TEST_CASE("everything denied and something allowed is allow_only") {
  const auto t =
      translated(std::string(secret) +
                 "denied-peer-ip=0.0.0.0-255.255.255.255\ndenied-peer-ip=::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff\nallowed-peer-ip=10.1.2.3\n");
  CHECK(has(toml(t), "allow_only = true"));
  CHECK(has(toml(t), "allow = [\"10.1.2.3\"]"));
  CHECK_FALSE(has(toml(t), "\ndeny ="));
}

TEST_CASE("private networks stay shut unless asked for, and it is said which ones coturn reached") {
  const auto t = translated(std::string(secret) + "denied-peer-ip=10.0.0.0-10.255.255.255\n");
  CHECK(any_has(t.differences, "coturn reaches 172.16.0.0/12, 192.168.0.0/16, 100.64.0.0/10, fc00::/7 with this file"));
  CHECK_FALSE(has(toml(t), "\nallow ="));
  TranslationInput input;
  input.lines = read_turnserver_conf(std::string(secret) + "denied-peer-ip=10.0.0.0-10.255.255.255\n");
  input.keep_private_peers = true;
  CHECK(has(toml(translate(input)), R"(allow = ["172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"])"));
}

TEST_CASE("a file that makes coturn an open relay never makes one here") {
  for (const char* conf : {"no-auth\n", "listening-port=3478\n", "no-auth\nlt-cred-mech=0\n", "lt-cred-mech=no\n", ""}) {
    CAPTURE(conf);
    const auto t = translated(conf);
    CHECK_FALSE(t.complete);
    CHECK_FALSE(t.alarms.empty());
    CHECK_FALSE(has(toml(t), "\nopen_relay_for_everyone"));
    CHECK_FALSE(has(toml(t), "\nsecrets_file"));
  }
}

TEST_CASE("users with a shared secret beside them stay outside, as in coturn") {
  const auto t = translated(std::string(secret) + "lt-cred-mech\nuser=alice:pass\n");
  CHECK(t.lines.back().verdict == Verdict::ignored);
  CHECK(file(t, "users") == "");
  CHECK(file(t, "secrets") == "a-long-enough-secret\n");
  CHECK(t.complete);
}

TEST_CASE("users: passwords, keys, blanks, the last of a name counts, quotas stand on their lines") {
  const auto t = translated(
      "lt-cred-mech\nrealm=turn.example.org\nuser=alice:one\nuser=alice:in-wonderland\nuser=bob:0x57D74ED5D2E66E3CE4DAA3D5DD3EE2B3\n"
      "user=carol:two words\nuser=dave\nuser=e ve:x\nuser=frank:0x12\nuser-quota=7\nmax-bps=1000\n");
  // MD5("carol:turn.example.org:two words")
  CHECK(file(t, "users") ==
        "alice:in-wonderland allocations=7 bytes_per_second=2000\nbob:0x57d74ed5d2e66e3ce4daa3d5dd3ee2b3 allocations=7 bytes_per_second=2000\n"
        "carol:0xdd5cd766b7e2fae29f3355b62428bd85 allocations=7 bytes_per_second=2000\n");
  CHECK(t.lines[6].verdict == Verdict::refused);
  CHECK(t.lines[7].verdict == Verdict::refused);
  CHECK(t.lines[8].verdict == Verdict::refused);
  CHECK(has(toml(t), "allocations_per_user = 7"));
  CHECK(has(toml(t), "bytes_per_second_per_user = 2000"));
}

TEST_CASE("what takes a step outside of the configuration is said: a port below 1024, files that the service's user has to reach") {
  const std::string pair = "cert=/etc/letsencrypt/live/turn/fullchain.pem\npkey=/etc/letsencrypt/live/turn/privkey.pem\n";
  const auto t = translated(std::string(secret) + pair + "tls-listening-port=443\n");
  CHECK(any_has(t.differences, "Port 443 is below 1024"));
  CHECK(any_has(t.differences, "and to pass through each folder above them (chmod o+x)"));
  CHECK_FALSE(any_has(translated(std::string(secret) + pair).differences, "is below 1024"));
  CHECK_FALSE(any_has(translated(std::string(secret) + "tls-listening-port=443\n").differences, "is below 1024"));  // no certificate, no TLS
}

TEST_CASE("a remark behind a number does not hide what the line means here") {
  const auto t = translated(std::string(secret) + "max-bps=64000 # a session\n");
  CHECK(has(t.lines.back().says, "taken as 64000"));
  CHECK(has(t.lines.back().says, "twice the number"));
}

TEST_CASE("no value that may be secret is ever shown") {
  const auto t = translated(
      "static-auth-secret=hidden-1234\nuser=alice:hidden\ncli-password=hidden\npkey-pwd=hidden\npsql-userdb=\"host=x "
      "password=hidden\"\nstatic-auth-secert=hidden\nuser=hidden\nstatic-auth-secret=hidden\n");
  for (const auto& line : t.lines) CHECK_FALSE((has(line.says, "hidden") || has(line.option, "hidden")));
  for (const auto* list : {&t.alarms, &t.differences, &t.database}) CHECK_FALSE(any_has(*list, "hidden"));
  CHECK_FALSE(has(toml(t), "hidden"));
}

TEST_CASE("a secret of an example is taken along if the relay takes it, and never without a word") {
  for (const char* word : {"replace-this-secret", "CHANGE_ME", "Static-Auth-Secret"}) {
    CAPTURE(word);
    const auto t = translated(fmt::format("use-auth-secret\nrealm=a.example\nstatic-auth-secret={}\n", word));
    CHECK(t.lines[2].verdict == Verdict::mapped);
    CHECK(has(t.lines[2].says, "stands in the file secrets, but is a placeholder"));
    CHECK(has(t.lines[2].says, "must be replaced"));
    CHECK(any_has(t.alarms, "line 3: the secret is a placeholder"));
    CHECK_FALSE(t.complete);
    CHECK(file(t, "secrets") == std::string(word) + "\n");
  }
  const auto north = translated("use-auth-secret\nrealm=a.example\nstatic-auth-secret=north\n");
  CHECK(north.lines[2].verdict == Verdict::refused);
  CHECK(has(north.lines[2].says, "is a placeholder, of an example (\"north\")"));
  CHECK(has(north.lines[2].says, "must be replaced"));
  CHECK(file(north, "secrets") == "");

  CoturnDatabase db;
  db.origins = {{"second.example", "https://call.example.org"}};
  db.secrets = {{"turn.example.org", "changeme-please"}, {"turn.example.org", "north"}, {"second.example", "your-secret-here"}};
  const auto t = translated(secret, &db);
  CHECK(file(t, "secrets") == "a-long-enough-secret\nchangeme-please\n");
  CHECK(any_has(t.alarms, "a secret of the database is a placeholder, of an example (\"changeme\")"));
  CHECK(any_has(t.alarms, "a secret of the database is a placeholder, of an example (\"north\")"));
  CHECK(any_has(t.alarms, "a secret of realm \"second.example\" in the database is a placeholder"));
  CHECK(translated(secret).alarms.empty());
}

TEST_CASE("one thing said twice: the last one counts") {
  const auto t = translated(std::string(secret) + "min-port=50000\nmin-port=51000\n");
  CHECK(t.lines[3].verdict == Verdict::ignored);
  CHECK(has(t.lines[3].says, "line 5 says it again"));
  CHECK(has(toml(t), "ports = \"51000-65535\""));
}

TEST_CASE("the database: users, secrets, realms by origin, peers, options, keys") {
  CoturnDatabase db;
  const std::string key = "57d74ed5d2e66e3ce4daa3d5dd3ee2b3";
  db.users = {{"turn.example.org", "bob", key}, {"second.example", "eve", key}, {"lonely.example", "max", key}, {"turn.example.org", "b ad", key}};
  db.origins = {{"second.example", "HTTPS://Call.example.org:443/path"}, {"second.example", "https://call.example.org"}};
  db.realm_options = {{"second.example", {{"user-quota", 4}, {"total-quota", 50}, {"max-bps", 100}}}, {"turn.example.org", {{"total-quota", 9}}}};
  db.allowed = {{"", "10.0.0.1"}, {"second.example", "10.0.0.2"}};
  db.denied = {{"second.example", "10.0.0.0-10.0.0.255"}};
  db.oauth_keys = {{"north", "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=", "", "", 0, 0},
                   {"south", "MTIzNDU2Nzg5MDEyMzQ1Ng==", "A128GCM", "", 5, 6}};
  const auto t = translated("lt-cred-mech\nrealm=turn.example.org\noauth\n", &db);
  CHECK(file(t, "users") == "bob:0x" + key + "\n");
  CHECK(file(t, "users-realm-1") == "eve:0x" + key + " allocations=4 bytes_per_second=200\n");
  CHECK(has(toml(t),
            "[realms.\"second.example\"]\norigins = [\"https://call.example.org\"]\nusers_file = \"users-realm-1\"\nallocations_per_user = "
            "4\nallocations = 50\n"));
  CHECK(has(toml(t), "[limits]\nallocations = 9\n"));
  CHECK(has(toml(t), "\nallow = [\"10.0.0.1\"]\n"));
  CHECK(has(toml(t), "deny = [\"10.0.0.0\", \"10.0.0.2-10.0.0.255\"]"));
  CHECK(file(t, "oauth-keys") ==
        "north  MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\nsouth  MTIzNDU2Nzg5MDEyMzQ1Ng==  A128GCM  timestamp=5 lifetime=6\n");
  CHECK(any_has(t.database, "realm \"lonely.example\", ignored"));
  CHECK(any_has(t.alarms, "name with a blank"));
  CHECK(any_has(t.alarms, "realm \"second.example\" alone"));

  db.secrets = {{"turn.example.org", "secret-of-the-database"}, {"second.example", "secret-of-the-second"}, {"turn.example.org", "short"}};
  const auto rest = translated(secret, &db);
  CHECK(file(rest, "secrets") == "a-long-enough-secret\nsecret-of-the-database\n");
  CHECK(file(rest, "secrets-realm-1") == "a-long-enough-secret\nsecret-of-the-second\n");
  CHECK(file(rest, "users") == "");
  CHECK(any_has(rest.alarms, "guessed in no time"));
}

TEST_CASE("external-ip: one public address is for every relay address of its family") {
  CHECK(has(toml(translated(std::string(secret) + "relay-ip=10.0.0.1\nrelay-ip=10.0.0.2\nexternal-ip=198.51.100.7\n")),
            R"(external = ["198.51.100.7/10.0.0.1", "198.51.100.7/10.0.0.2"])"));
  CHECK(has(toml(translated(std::string(secret) + "external-ip=198.51.100.7/10.0.0.1\nexternal-ip=198.51.100.8/10.0.0.2\n")),
            R"(external = ["198.51.100.7/10.0.0.1", "198.51.100.8/10.0.0.2"])"));
  CHECK(has(toml(translated(std::string(secret) + "external-ip=turn.example.org\n")), R"(external = ["dns:turn.example.org"])"));
  TranslationInput input;
  input.lines = read_turnserver_conf(std::string(secret) + "external-ip=198.51.100.7\n");
  input.host.usable = {*net::IpAddress::parse("10.0.0.5"), *net::IpAddress::parse("172.17.0.1")};
  input.host.route_v4 = input.host.usable[0];
  const auto t = translate(input);
  CHECK(has(toml(t), R"(addresses = ["10.0.0.5"])"));
  CHECK(has(toml(t), R"(external = ["198.51.100.7/10.0.0.5"])"));
  input.host.usable.push_back(*net::IpAddress::parse("198.51.100.7"));
  CHECK(has(toml(translate(input)), R"(addresses = ["198.51.100.7"])"));
  CHECK_FALSE(has(toml(translate(input)), "external ="));
}

TEST_CASE("every option has a sentence, and stands there once") {
  for (const auto& option : coturn_options()) {
    CAPTURE(option.name);
    CHECK_FALSE(option.says.empty());
    CHECK_FALSE(option.says.ends_with('.'));
    CHECK(find_option(option.name) == &option);
    CHECK((option.verdict == Verdict::mapped) <= !option.keys.empty());
  }
}

TEST_CASE("whatever a file says, the relay.toml of it is read without a mistake, and opens nothing") {
  const std::string values[] = {"",
                                "0",
                                "1",
                                "-1",
                                "no",
                                "yes",
                                "65535",
                                "65536",
                                "99999999999999999999",
                                "3478",
                                "0.0.0.0",
                                "::",
                                "127.0.0.1",
                                "10.0.0.1",
                                "[::1]",
                                "224.0.0.1",
                                "fe80::1",
                                "198.51.100.7",
                                "198.51.100.7/10.0.0.1",
                                "198.51.100.7/::1",
                                "10.0.0.1:3478",
                                "[2001:db8::7]:5349",
                                "0.0.0.0:3478",
                                "10.0.0.0-10.255.255.255",
                                "::-::ffff:1.2.3.4",
                                "10.0.0.0/8",
                                "0.0.0.0-255.255.255.255",
                                "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                                "10.9.9.9-10.0.0.0",
                                "alice:pass",
                                "alice:",
                                ":",
                                "#",
                                "\"",
                                "\\",
                                "a\"b\\c\x01",
                                "\xff\xfe",
                                "turn.example.org",
                                "a-secret-that-is-long",
                                "/etc/turn/file",
                                std::string(500, 'x'),
                                "ipv6",
                                "keep",
                                "debug"};
  std::mt19937 random(20261126);
  const auto any = [&](std::size_t n) { return static_cast<std::size_t>(random()) % n; };
  CoturnDatabase db;
  db.users = {{"", "x", "y"}, {"a", std::string(600, 'n'), ""}, {"turn.example.org", "u", "00112233445566778899aabbccddeeff"}};
  db.secrets = {{"turn.example.org", "x"}, {"turn.example.org", std::string(9, '\n')}, {"a\"b", "a-secret-of-a-realm"}};
  db.origins = {{"a\"b", "https://a"}, {"good", "no origin"}, {"good", "https://good.example"}, {"", "https://b"}};
  db.allowed = {{"", ""}, {"", "255.255.255.255-0.0.0.0"}, {"", "10.1.1.1"}};
  db.oauth_keys = {{"k d", "x", "", "", 0, 0}, {"k", "not base64!", "", "", 0, 0}};
  const auto options = coturn_options();
  for (int round = 0; round < 4000; ++round) {
    std::string conf;
    for (std::size_t n = any(20); n-- > 0;) conf += std::string(options[any(options.size())].name) + "=" + values[any(std::size(values))] + "\n";
    TranslationInput input;
    input.lines = read_turnserver_conf(conf);
    input.folder = "/etc";
    input.database = any(2) == 0 ? &db : nullptr;
    input.keep_private_peers = any(2) == 0;
    if (any(2) == 0) input.host.usable = {*net::IpAddress::parse("10.0.0.5"), *net::IpAddress::parse("172.17.0.1")};
    const Translation t = translate(input);
    CHECK(t.lines.size() == input.lines.size());
    daemon::Config config;
    ConfigErrors errors;
    const bool good = daemon::read_config_text(toml(t), "relay.toml", config, errors);
    if (!good && has(errors.front().text(), "dns:")) continue;  // asked for by another part
    CAPTURE(conf);
    CAPTURE(toml(t));
    CAPTURE((errors.empty() ? std::string() : errors.front().text()));
    REQUIRE(good);
    REQUIRE_FALSE(config.open_relay_for_everyone);
  }
}
