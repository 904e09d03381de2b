// Realms, redirects, access tokens: from the file to the settings of the core. Their mistakes are in bad-config/ (config_test).
#include <doctest/doctest.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "daemon/config.h"
#include "daemon/config_changes.h"
#include "daemon/config_realms.h"
#include "daemon/settings_builder.h"

using namespace radiotower;
using namespace radiotower::daemon;

namespace {

struct Folder {
  std::filesystem::path path;
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "radiotower-realms-XXXXXX").string();
    REQUIRE(mkdtemp(name.data()) != nullptr);
    path = name;
    write("secrets", "north-of-the-wall\n");
    write("users", "alice:in-wonderland\n");
    write("oauth", "# coturn's test keys\nnorth MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDEK\n"
                   "union MTIzNDU2Nzg5MDEyMzQ1Ngo= A128GCM timestamp=1767225600 lifetime=3600\n");
  }
  ~Folder() { std::filesystem::remove_all(path); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  void write(const std::string& name, const std::string& text) const {
    std::ofstream((path / name).string(), std::ios::binary) << text;
    REQUIRE(::chmod((path / name).c_str(), 0600) == 0);
  }
};

net::TransportAddress at(const char* text) { return *net::TransportAddress::parse(text); }

std::vector<io::HostAddress> a_host() {
  std::vector<io::HostAddress> host;
  for (const char* text : {"127.0.0.1", "192.168.0.105", "2001:db8::5"}) {
    io::HostAddress& a = host.emplace_back();
    a.ip = *net::IpAddress::parse(text);
    a.loopback = a.ip.is_loopback();
    a.interface = a.loopback ? "lo" : "eth0";
  }
  return host;
}

std::string all(const ConfigErrors& errors) {
  std::string text;
  for (const auto& e : errors) text += e.text() + "\n";
  return text;
}

Config config_of(const Folder& folder, const std::string& text) {
  Config config;
  ConfigErrors errors;
  read_config_text(text, (folder.path / "relay.toml").string(), config, errors);
  INFO(all(errors));
  REQUIRE(errors.empty());
  return config;
}

Built build(const Config& config) {
  ConfigErrors errors;
  auto built = build_settings(config, a_host(), errors);
  INFO(all(errors));
  REQUIRE(built);
  return std::move(*built);
}

const std::string with_secrets = "[credentials]\nsecrets_file = \"secrets\"\n";
const std::string two_realms = "realm = \"example.org\"\n[listen]\nudp = [\"0.0.0.0:3478\", \"192.168.0.105:3479\"]\n" + with_secrets +
                               "rest_separator = \"-\"\n[limits]\nallocations = 1000\nallocations_per_user = 5\nchannels_per_allocation = 9\n"
                               "[realms.\"call.example.org\"]\norigins = [\"https://Call.Example.org\", \"https://call.example.net:8443\"]\nusers_file = \"users\"\n"
                               "[realms.\"games.example.org\"]\nlisteners = [\"192.168.0.105:3479\"]\nsecrets_file = \"secrets\"\nrest_separator = \":\"\n"
                               "allocations = 7\nallocations_per_user = 2\nbytes_per_second_per_user = 0\n";

}  // namespace

TEST_CASE("realms: each has its own users, secrets and limits; what it does not name is that of [limits] and [credentials]") {
  const Folder folder;
  const auto settings = build(config_of(folder, two_realms)).settings;
  REQUIRE(settings->realms.size() == 2);
  const turn::Realm& call = settings->realms[0];
  const turn::Realm& games = settings->realms[1];
  CHECK(call.name == "call.example.org");
  CHECK(call.origins == std::vector<std::string>{"https://call.example.org", "https://call.example.net:8443"});
  CHECK(call.directory->realm() == "call.example.org");
  CHECK(call.directory->offers_userhash());
  CHECK(call.directory->rest_separator() == '-');
  CHECK(call.limits.allocations_per_user == 5);
  CHECK(call.limits.channels_per_allocation == 9);
  CHECK(call.limits.allocations == 0);  // [limits] allocations is of the whole relay
  CHECK(games.listeners == std::vector{at("192.168.0.105:3479")});
  CHECK_FALSE(games.directory->offers_userhash());
  CHECK(games.directory->rest_separator() == ':');
  CHECK(games.limits.allocations == 7);
  CHECK(games.limits.allocations_per_user == 2);
  CHECK(games.limits.bytes_per_second_per_user == 0);
  CHECK(settings->limits.allocations == 1000);
  CHECK(build(config_of(folder, with_secrets)).settings->realms.empty());
}

TEST_CASE("realms: a listener may be named as it listens, or as one address of a wildcard") {
  const Folder folder;
  const auto listeners = [&](const std::string& list) {
    return build(config_of(folder, with_secrets + "[realms.games]\nusers_file = \"users\"\nlisteners = [" + list + "]\n")).settings->realms[0].listeners;
  };
  CHECK(listeners("\"0.0.0.0:3478\"") == std::vector{at("127.0.0.1:3478"), at("192.168.0.105:3478")});
  CHECK(listeners("\"[2001:db8::5]:3478\"") == std::vector{at("[2001:db8::5]:3478")});
}

TEST_CASE("realms: what --print-config prints can be read again and means the same; a reload needs no restart") {
  const Folder folder;
  const Config config = config_of(folder, two_realms);
  const std::string printed = print_config(config);
  CHECK(printed.find("\n[realms.\"call.example.org\"]  # ") != std::string::npos);
  CHECK(printed.find("origins = [\"https://call.example.org\", \"https://call.example.net:8443\"]  # ") != std::string::npos);
  CHECK(printed.find("allocations_per_user = 2  # " + (folder.path / "relay.toml").string() + ":19\n") != std::string::npos);
  Config again;
  ConfigErrors errors;
  REQUIRE(read_config_text(printed, "printed.toml", again, errors));
  REQUIRE(again.realms.size() == 2);
  CHECK(again.realms[1].limits == config.realms[1].limits);
  CHECK(again.realms[1].rest_separator == ':');
  CHECK_FALSE(again.realms[0].rest_separator);
  CHECK(again.realms[0].users_file == config.realms[0].users_file);
  CHECK(changes_that_wait(config, again).empty());
  const Config without = config_of(folder, two_realms.substr(0, two_realms.find("[realms.")));
  CHECK(changes_that_wait(config, without).empty());
}

TEST_CASE("realms: a file that ends anywhere, or holds a wrong byte anywhere, is read or refused, never more") {
  const Folder folder;
  const auto read = [&](const std::string& text) {
    Config config;
    ConfigErrors errors;
    const bool fine = read_config_text(text, (folder.path / "relay.toml").string(), config, errors);
    CHECK(fine == errors.empty());
    const bool starts = fine && build_settings(config, a_host(), errors);
    CHECK(starts == errors.empty());
    for (const auto& e : errors) CHECK(!e.hint.empty());
  };
  const std::string text = two_realms + "[redirect]\nservers = [\"192.0.2.7:3478\"]\ndomain = \"a.b\"\nwhen = \"full\"\n[features]\noauth_keys_file = \"oauth\"\n";
  for (std::size_t i = 0; i < text.size(); ++i) {
    read(text.substr(0, i));
    std::string other = text;
    for (const char wrong : {'\0', '\n', '"', '[', '9'}) {
      other[i] = wrong;
      read(other);
    }
  }
}

TEST_CASE("redirect: one list suits every relay: each leaves itself out, also as a NAT shows it, and says so") {
  const Folder folder;
  const std::string redirect = "[redirect]\nservers = [\"192.168.0.105:3478\", \"198.51.100.7:3478\", \"192.0.2.7:3478\", \"[2001:db8::7]:3478\"]\n"
                               "secure_servers = [\"192.0.2.7:5349\"]\ndomain = \"turn.example.org\"\nwhen = \"always\"\n";
  const Built plain = build(config_of(folder, with_secrets + redirect));
  CHECK(plain.settings->redirect.servers == std::vector{at("198.51.100.7:3478"), at("192.0.2.7:3478"), at("[2001:db8::7]:3478")});
  CHECK(plain.settings->redirect.secure_servers == std::vector{at("192.0.2.7:5349")});
  CHECK(plain.settings->redirect.domain == "turn.example.org");
  CHECK(plain.settings->redirect.when == turn::Redirect::When::always);
  CHECK_FALSE(plain.settings->draining);
  REQUIRE(plain.notes.size() == 1);
  CHECK(plain.notes[0] == "redirect.servers: 192.168.0.105:3478 is this relay itself, which sends nobody to itself");
  const Built behind_nat = build(config_of(folder, with_secrets + "[relay]\nexternal = [\"198.51.100.7\"]\n" + redirect + "draining = true\n"));
  CHECK(behind_nat.settings->redirect.servers == std::vector{at("192.0.2.7:3478"), at("[2001:db8::7]:3478")});
  CHECK(behind_nat.settings->draining);
  CHECK(build(config_of(folder, with_secrets)).settings->redirect.when == turn::Redirect::When::draining);
}

TEST_CASE("listen.stun_only: a wildcard stands for its addresses; it is said when nothing is left to relay") {
  const Folder folder;
  const Built some = build(config_of(folder, "[listen]\nudp = [\"0.0.0.0:3478\", \"0.0.0.0:3479\"]\nstun_only = [\"0.0.0.0:3479\"]\n" + with_secrets));
  CHECK(some.settings->stun_only == std::vector{at("127.0.0.1:3479"), at("192.168.0.105:3479")});
  CHECK(some.notes.empty());
  CHECK(build(config_of(folder, "[listen]\nudp = [\"0.0.0.0:3478\"]\nstun_only = [\"0.0.0.0:3478\"]\n" + with_secrets)).notes.size() == 1);
}

TEST_CASE("oauth_keys_file: kid, key and algorithm; keys that are longer than needed, as coturn's are; the server's name is the realm unless it is given") {
  const Folder folder;
  ConfigErrors errors;
  const auto keys = read_token_keys((folder.path / "oauth").string(), "features.oauth_keys_file", errors);
  CHECK(errors.empty());
  REQUIRE(keys.size() == 2);
  CHECK(keys[0].kid == "north");
  CHECK(keys[0].algorithm == turn::TokenKey::Algorithm::a256gcm);
  CHECK(as_text(keys[0].key) == "01234567890123456789012345678901");
  CHECK(keys[0].valid_until == 0);
  CHECK(keys[1].algorithm == turn::TokenKey::Algorithm::a128gcm);
  CHECK(as_text(Bytes(keys[1].key).first(16)) == "1234567890123456");
  CHECK(keys[1].valid_until == 1767229200);

  const std::string features = "[features]\noauth_keys_file = \"oauth\"\n";
  const Built alone = build(config_of(folder, "realm = \"example.org\"\n" + features));  // tokens are credentials enough
  REQUIRE(alone.settings->tokens);
  CHECK(alone.settings->tokens->server_name() == "example.org");
  CHECK(alone.settings->authentication);
  CHECK(alone.settings->directory->empty());
  CHECK(build(config_of(folder, features + "oauth_server_name = \"turn.example.org\"\n")).settings->tokens->server_name() == "turn.example.org");
  CHECK_FALSE(build(config_of(folder, with_secrets)).settings->tokens);
}
