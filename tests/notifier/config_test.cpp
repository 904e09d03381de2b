#include "notifier/config.h"

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

using namespace radiotower;
using namespace radiotower::notifier;

namespace {

const std::string ca = R"(-----BEGIN CERTIFICATE-----
MIIBhjCCASugAwIBAgIUdTVbR1pOyB2Atn9dm40S/BYacCwwCgYIKoZIzj0EAwIw
FzEVMBMGA1UEAwwMQ2l0eSBSb290IENBMCAXDTI2MTEyNjAyNTEyM1oYDzIxMjYx
MTAyMDI1MTIzWjAXMRUwEwYDVQQDDAxDaXR5IFJvb3QgQ0EwWTATBgcqhkjOPQIB
BggqhkjOPQMBBwNCAAR5du7K6QfUPY4KGjx2VDHaqRir8IoaifV3iOTf22kzlqxZ
KGQUZ5w4TLOjIb6IHJ19zlPzr4LF4RrBNoSsRf48o1MwUTAdBgNVHQ4EFgQUj3mo
Am1eRPcu1N2ifVzBhxRYwbkwHwYDVR0jBBgwFoAUj3moAm1eRPcu1N2ifVzBhxRY
wbkwDwYDVR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNJADBGAiEA0DDuJOBvzPa2
tEX6bUe2PViPQUJRBuSPtLzc6Llre8oCIQCP/eQ6+DcawJFiGFnShqaah5hN5Zny
uQUtP4gdbs48Eg==
-----END CERTIFICATE-----
)";

/// A folder with a good secret, a bot token and a certificate file in it.
struct Folder {
  Folder() {
    char name[] = "/tmp/notifier-config-XXXXXX";
    REQUIRE(mkdtemp(name));
    path = name;
    write("secret", "a-good-secret-of-tests\n# the one before\nanother-good-secret\n");
    write("token", "abcdefghijklmnopqrstuvwxyz\n");
    write("short", "abc\n");
    write("none", "# nothing\n");
    write("open", "a-good-secret-of-tests\n");
    chmod((path + "/open").c_str(), 0644);
    write("ca.pem", ca);
    write("empty.pem", "# nothing\n");
    write("key.pem", "not looked into here");
    chmod((path + "/key.pem").c_str(), 0644);
  }
  ~Folder() { std::filesystem::remove_all(path); }
  void write(const std::string& name, const std::string& text) const {
    std::ofstream(path + "/" + name) << text;
    chmod((path + "/" + name).c_str(), 0600);
  }
  std::string path;
};

struct Reading {
  bool good = false;
  Settings settings;
  ConfigErrors errors;
  std::vector<std::string> notes;
  std::string all() const {
    std::string text;
    for (const auto& error : errors) text += error.text() + "\n";
    return text;
  }
};

Reading read(const Folder& folder, const std::string& text) {
  Reading reading;
  reading.good =
      read_settings_text(text, folder.path + "/notifier.toml", reading.settings, reading.errors, reading.notes);
  return reading;
}

const std::string hook = "[mattermost]\nhook = \"https://192.168.0.105:8065/hooks/abcdefghijklmnopqrstuvwxyz\"\n";

}  // namespace

TEST_CASE("the contract's example is good, and its file names are beside it") {
  const Folder folder;
  const auto r = read(folder, R"(
listen  = ["127.0.0.1:8066"]
state   = "/var/lib/radiotower-notifier"
queue   = "sqlite"
[mattermost]
hook    = "https://192.168.0.105:8065/hooks/xxxxxxxxxxxxxxxxxxxxxxxxxx"
ca_file = "ca.pem"
[sources.gitlab]
secrets_file = "secret"
[sources.sonarqube]
secrets_file = "secret"
[[route]]
source = "gitlab"
branch = "main"
status = ["failed", "fixed"]
channel = "alerts"
mention = "@build-cop"
)");
  CHECK_EQ(r.all(), "");
  REQUIRE(r.good);
  CHECK_EQ(r.settings.mattermost.ca_file, folder.path + "/ca.pem");
  REQUIRE_EQ(r.settings.sources.size(), 2);
  CHECK_EQ(r.settings.sources[0].secrets, std::vector<std::string>{"a-good-secret-of-tests", "another-good-secret"});
  REQUIRE_EQ(r.settings.routes.size(), 1);
  CHECK_EQ(r.settings.routes[0].source, std::vector<std::string>{"gitlab"});
  CHECK_EQ(r.settings.routes[0].mention, "@build-cop");
  CHECK_FALSE(r.settings.every_match);
}

TEST_CASE("with a hook alone everything else has a default, and the built-in routes apply") {
  const Folder folder;
  const auto r = read(folder, hook);
  REQUIRE(r.good);
  CHECK_EQ(r.settings.listen, std::vector<std::string>{"127.0.0.1:8066"});
  CHECK_FALSE(r.settings.routes.empty());
  CHECK(r.settings.every_match);
  CHECK_EQ(r.notes.size(), 1);  // nothing can come in
}

TEST_CASE("files are looked for among systemd's credentials first") {
  const Folder folder, credentials;
  std::filesystem::remove(folder.path + "/secret");
  setenv("CREDENTIALS_DIRECTORY", credentials.path.c_str(), 1);
  const auto r = read(folder, hook + "[sources.gitlab]\nsecrets_file = \"secret\"\n");
  unsetenv("CREDENTIALS_DIRECTORY");
  CHECK_EQ(r.all(), "");
}

TEST_CASE("a bot needs url, team and token") {
  const Folder folder;
  CHECK(read(folder, "[mattermost]\nurl = \"https://chat.city.example\"\nteam = \"city\"\ntoken_file = \"token\"\n")
            .good);
  CHECK_FALSE(read(folder, "[mattermost]\nurl = \"https://chat.city.example\"\ntoken_file = \"token\"\n").good);
  CHECK_FALSE(read(folder, "[mattermost]\nurl = \"https://chat.city.example\"\nteam = \"city\"\n").good);
}

TEST_CASE("every mistake is told with file, line, key and a hint") {
  const Folder folder;
  struct {
    std::string text;
    const char* line;
    const char* key;
    const char* what;
  } rows[] = {
      {"", "", "mattermost", "no way to Mattermost"},
      {"[mattermost]\n", ":1:", "mattermost.hook", "no way to Mattermost"},
      {"liste = [\"127.0.0.1:1\"]\n" + hook, ":1:", "liste", "did you mean listen?"},
      {"listen = \"localhost:80\"\n" + hook, ":1:", "listen", "not an IP address and a port"},
      {"listen = [\"127.0.0.1:0\"]\n" + hook, ":1:", "listen", "not an IP address and a port"},
      {"listen = []\n" + hook, ":1:", "listen", "empty"},
      {"listen = [5]\n" + hook, ":1:", "listen", "list of texts"},
      {"queue = \"mysql://x\"\n" + hook, ":1:", "queue", "neither"},
      {"queue_limit = 5\n" + hook, ":1:", "queue_limit", "out of range"},
      {"queue_limit = \"5\"\n" + hook, ":1:", "queue_limit", "whole number"},
      {"route_match = \"some\"\n" + hook, ":1:", "route_match", "not known"},
      {hook + "timeout_seconds = 5\n", ":3:", "mattermost.timeout_seconds", "out of range 15-300"},
      {hook + "hook_file = \"token\"\n", ":3:", "mattermost.hook_file", "twice"},
      {hook + "ca_file = \"missing.pem\"\n", ":3:", "mattermost.ca_file", "cannot be read"},
      {"[mattermost]\nhook = \"http://chat/hooks/\"\n", ":2:", "mattermost.hook", ""},
      {"[mattermost]\nhook = \"ftp://chat/hooks/abcdefghijklmnopqrstuvwxyz\"\n", ":2:", "mattermost.hook", ""},
      {hook + "[tls]\ncertificate = \"ca.pem\"\n", ":3:", "tls.private_key", "belong together"},
      {hook + "[sources.gitlab]\n", ":3:", "sources.gitlab.secrets_file", "no secret"},
      {hook + "[sources.gitlab]\nsecrets_file = \"nowhere\"\n", "nowhere", "sources.gitlab.secrets_file",
       "cannot be read"},
      {hook + "[sources.gitlab]\nsecrets_file = \"open\"\n", "open", "sources.gitlab.secrets_file", "chmod o-rwx"},
      {hook + "[sources.gitlab]\nsecrets_file = \"short\"\n", "short:1", "sources.gitlab.secrets_file", "too few"},
      {hook + "[sources.gitlab]\nsecrets_file = \"none\"\n", ":4:", "sources.gitlab.secrets_file", "0 secrets"},
      {hook + "[sources.gitlab]\nsecrets_file = \"secret\"\nallow_anyone = true\n",
       ":5:", "sources.gitlab.allow_anyone", "not be asked for"},
      {hook + "[sources.nexus]\nallow_anyone = true\n", ":3:", "sources.nexus.format", "not said"},
      {hook + "[sources.nexus]\nformat = \"maven\"\nallow_anyone = true\n", ":4:", "sources.nexus.format", "not known"},
      {hook + "[sources.\"a/b\"]\nformat = \"generic\"\nallow_anyone = true\n", ":3:", "sources.a/b", "part of a URL"},
      {hook + "[sources.gitlab]\nallow_anyone = true\ntitle = \"x\"\n", ":5:", "sources.gitlab.title",
       "format = \"generic\""},
      {hook + "[[route]]\nbranch = \"main\"\n", ":3:", "route.channel", "leads nowhere"},
      {hook + "[[route]]\nchannel = \"Town Square\"\n", ":4:", "route.channel", "in URLs"},
      {hook + "[[route]]\nchannel = \"x\"\nstatus = [\"broke\"]\n", ":5:", "route.status", "not known"},
      {hook + "[[route]]\nchannel = \"x\"\nevent = [\"pipelines\"]\n", ":5:", "route.event", "not known"},
      {hook + "[[route]]\nchannel = \"x\"\nsource = \"gitlab\"\n", ":5:", "route.source", "no [sources.gitlab]"},
      {hook + "[[route]]\nchannel = \"x\"\nmention = \"build-cop\"\n", ":5:", "route.mention", "not a mention"},
      {hook + "[[route]]\nchannel = \"x\"\nquiet_hours = \"22-7\"\n", ":5:", "route.quiet_hours", "span of the day"},
      {hook + "[[route]]\nchannel = \"x\"\nquiet_hours = \"22:00-22:00\"\n", ":5:", "route.quiet_hours",
       "span of the day"},
      {hook + "[[route]]\nchannel = \"x\"\nchanel = \"y\"\n", ":5:", "route.chanel", "did you mean channel?"},
      {hook + "[[route]]\nchannel = \"x\"\ntemplate = \"{{#open}}\"\n", ":5:", "route.template", "Mustache"},
      {hook + "[[route]]\nchannel = \"x\"\ntemplate = \"{{titel}}\"\n", ":5:", "route.template", "no variable"},
      {hook + "[route]\nchannel = \"x\"\n", ":3:", "route", "two brackets"},
      {hook + "[people]\nada = \"ada\"\n", ":4:", "people.ada", "Mattermost user"},
      {hook + "[flood]\ndigest_from = 1\n", ":4:", "flood.digest_from", "out of range"},
      {hook + "[log]\nlevel = \"loud\"\n", ":4:", "log.level", "not known"},
      {"[mattermost.hooks]\nbuilds = \"https://c/hooks/abcdefghijklmnopqrstuvwxyz\"\n[[route]]\nchannel = \"other\"\n",
       "", "mattermost", "no hook for #other"},
      {hook + "ca_file = \"empty.pem\"\n", ":3:", "mattermost.ca_file", "no certificate in it"},
      {hook + "timeout_seconds = 5\n", ":3:", "mattermost.timeout_seconds", "how long one request"},
      {hook + "[tls]\ncertificate = \"ca.pem\"\nprivate_key = \"key.pem\"\n", ":5:", "tls.private_key", "chmod o-rwx"},
      {hook + "[sources.gitlab]\nsecrets = \"secret\"\n", ":4:", "sources.gitlab.secrets",
       "did you mean secrets_file?"},
      {"foo = 1\n" + hook, ":1:", "foo", "docs/notifier.md lists the keys"},
      {"public_url = \"http://ci\"\n" + hook, ":1:", "public_url", "unknown key"},
      {hook + "[[route]]\nchannel = \"\"\n", ":4:", "route.channel", "in URLs"},
      {hook + "[[route]]\nchannel = \"@\"\n", ":4:", "route.channel", "in URLs"},
      {hook + "[[route]]\nchannel = \"x\"\nevent = \"user\"\n", ":5:", "route.event", "not known"},
      {"listen = [\n", "", "", "not TOML"},
  };
  for (const auto& row : rows) {
    CAPTURE(row.text);
    const auto r = read(folder, row.text);
    CHECK_FALSE(r.good);
    const std::string all = r.all();
    CAPTURE(all);
    REQUIRE_FALSE(r.errors.empty());
    CHECK_NE(all.find(row.line), std::string::npos);
    CHECK_NE(all.find(row.what), std::string::npos);
    bool key = false;
    for (const auto& error : r.errors) {
      key = key || error.key == row.key;
      CHECK_FALSE(error.hint.empty());
      CHECK_EQ(error.text().find("abcdefghijklmnopqrstuvwxyz"), std::string::npos);  // the secret part of a hook
    }
    CHECK(key);
  }
}

TEST_CASE("a bot beside a hook is noted") {
  const Folder folder;
  const auto r = read(folder, hook + "url = \"https://chat.city.example\"\nteam = \"city\"\ntoken_file = \"token\"\n");
  CHECK(r.good);
  REQUIRE_FALSE(r.notes.empty());
  CHECK_NE(r.notes[0].find("token_file makes a bot"), std::string::npos);
}

TEST_CASE("the packaged example is good as it is, and knows every key that it shows") {
  const Folder folder;
  std::ifstream file(NOTIFIER_TESTS "/../../packaging/notifier.toml");
  REQUIRE(file.good());
  std::string as_is, all;
  for (std::string line; std::getline(file, line); all += line + "\n") {
    as_is += line + "\n";
    const bool key = line.size() > 1 && line[0] == '#' && line[1] != ' ';
    const bool twice = line.starts_with("#queue_file") || line.starts_with("#hook_file");
    if (key && !twice) line.erase(0, 1);
  }
  CHECK_EQ(read(folder, as_is).all(), "");
  const auto r = read(folder, all);
  for (const auto& error : r.errors) {
    CAPTURE(error.text());
    CHECK_NE(error.what.find("cannot be read"), std::string::npos);  // the files are not here
  }
  CHECK_EQ(r.settings.routes.size(), 2);
  const Settings defaults;
  CHECK_EQ(r.settings.listen, defaults.listen);
  CHECK_EQ(r.settings.queue_limit, defaults.queue_limit);
  CHECK_EQ(r.settings.give_up_after_s, defaults.give_up_after_s);
  CHECK_EQ(r.settings.mattermost.timeout_s, defaults.mattermost.timeout_s);
  CHECK_EQ(r.settings.flood.digest_from, defaults.flood.digest_from);
}

TEST_CASE("who may read or write the file itself") {
  const Folder folder;
  const auto read_with = [&](const std::string& text, mode_t mode) {
    folder.write("notifier.toml", text);
    chmod((folder.path + "/notifier.toml").c_str(), mode);
    Reading reading;
    reading.good = read_settings(folder.path + "/notifier.toml", reading.settings, reading.errors, reading.notes);
    return reading;
  };
  const auto notes_of = [&](const std::string& text, mode_t mode) {
    std::string all;
    for (const auto& note : read_with(text, mode).notes) all += note + "\n";
    return all;
  };
  CHECK_FALSE(read_with(hook, 0646).good);
  CHECK_NE(read_with(hook, 0646).all().find("chmod o-w"), std::string::npos);
  CHECK(read_with(hook, 0660).good);
  CHECK_EQ(notes_of(hook, 0640).find("is a secret"), std::string::npos);
  CHECK_NE(notes_of(hook, 0644).find("holds the hook"), std::string::npos);
  CHECK_EQ(notes_of("# a comment: https://c/hooks/x\n[mattermost]\nhook = \"print\"\n", 0644).find("is a secret"),
           std::string::npos);
  CHECK_NE(notes_of("[mattermost]\nhook = \"print\"\nproxy = \"http://me:secret@proxy:3128\"\n", 0644)
               .find("holds a password"),
           std::string::npos);
}
