// Configuration: good files mean what they say; bad ones never start, and say where, what and how to mend it.
//
// bad-config/*.toml each begin with what is expected of them, one line a mistake:
//   # expect: port-70000.toml:3: listen.udp: port 70000 is out of range 1-65535
// The file names in it stand for files of the folder that Folder makes.
#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <sstream>

#include "daemon/config.h"
#include "daemon/config_changes.h"
#include "daemon/credential_files.h"
#include "daemon/flags.h"
#include "daemon/settings_builder.h"

using namespace radiotower;
using namespace radiotower::daemon;

namespace {

std::string slurp(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

/// A folder of its own with the files that a configuration may name; gone with the test.
struct Folder {
  std::filesystem::path path;
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "radiotower-config-XXXXXX").string();
    REQUIRE(mkdtemp(name.data()) != nullptr);
    path = name;
    write("secrets", "# newest first\nnorth-of-the-wall\n\n  south-of-the-river \r\n");
    write("users", "alice:in-wonderland\nbob:0x7da2270ccfa49786e0115366d3a3d14d allocations=3 bytes_per_second=1000\n# the end\n");
    write("empty", "# nothing yet\n\n");
    write("world-readable", "north-of-the-wall\n", 0644);
    write("short", "north-of-the-wall\nsecret\n");
    write("twice", "north-of-the-wall\nanother-one\nnorth-of-the-wall\n");
    write("byte-order-mark", "\xEF\xBB\xBFnorth-of-the-wall\n");
    write("binary", std::string("north\x01of-the-wall\n"));
    write("bad-users", "alice:in-wonderland\n# three mistakes a user makes\nbob\nbob:0x1234\ncarol:cheese allocations=many\nalice:again\n:nameless\ndave:correct horse\n");
    write("oauth-keys", "north MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDEK\nsouth MTIzNDU2Nzg5MDEyMzQ1Ngo= A128GCM timestamp=1767225600 lifetime=3600\n");
    write("bad-oauth-keys", "north\nnorth not-base64\nnorth MTIzNDU2Nzg5MDEyMzQ1Ngo=\nsouth MTIzNDU2Nzg5MDEyMzQ1Ngo= A128GCM\nsouth MTIzNDU2Nzg5MDEyMzQ1Ngo= A128GCM\n"
                            "east MTIzNDU2Nzg5MDEyMzQ1Ngo= A128CBC\neast MTIzNDU2Nzg5MDEyMzQ1Ngo= A128GCM lifetime=60\neast MTIzNDU2Nzg5MDEyMzQ1Ngo= A128GCM lifetime=-1\n");
    std::filesystem::create_directory(path / "folder");
    REQUIRE(mkfifo((path / "pipe").c_str(), 0600) == 0);
  }
  ~Folder() { std::filesystem::remove_all(path); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  std::string write(const std::string& name, const std::string& text, mode_t mode = 0600) const {
    const std::string file = (path / name).string();
    std::ofstream(file, std::ios::binary) << text;
    REQUIRE(::chmod(file.c_str(), mode) == 0);
    return file;
  }
};

net::IpAddress ip(const char* text) { return *net::IpAddress::parse(text); }
net::TransportAddress at(const char* text) { return *net::TransportAddress::parse(text); }

io::HostAddress host_address(const char* text, const char* interface) {
  io::HostAddress a;
  a.ip = ip(text);
  a.interface = interface;
  a.loopback = a.ip.is_loopback();
  return a;
}

/// Two IPv4 addresses, and IPv6 with one stable, one temporary and one link-local address.
std::vector<io::HostAddress> a_host() {
  std::vector<io::HostAddress> host = {host_address("127.0.0.1", "lo"),      host_address("::1", "lo"),
                                       host_address("192.168.0.105", "eth0"), host_address("10.0.0.4", "eth1"),
                                       host_address("2001:db8::5", "eth0"),   host_address("2001:db8::abcd", "eth0"),
                                       host_address("fe80::1", "eth0")};
  host[2].broadcast = ip("192.168.0.255");
  host[5].deprecated_or_temporary = true;
  host[6].scope = 2;
  return host;
}
std::vector<io::HostAddress> loopback_only() { return {host_address("127.0.0.1", "lo")}; }

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

Built build(const Config& config, const std::vector<io::HostAddress>& host = a_host()) {
  ConfigErrors errors;
  auto built = build_settings(config, host, errors);
  INFO(all(errors));
  REQUIRE(built);
  return std::move(*built);
}

/// The command line, read and built; the folder's secrets unless `bare`.
ConfigErrors errors_of_flags(const Folder& folder, std::vector<std::string> line, bool bare = false) {
  if (!bare) {
    line.push_back("--secrets-file");
    line.push_back((folder.path / "secrets").string());
  }
  std::vector<const char*> argv = {"radiotower-relay"};
  for (const auto& word : line) argv.push_back(word.c_str());
  int status = 0;
  const auto flags = parse_flags(static_cast<int>(argv.size()), argv.data(), status);
  REQUIRE(flags);
  Config config;
  ConfigErrors errors;
  if (read_config(*flags, config, errors)) (void)build_settings(config, a_host(), errors);
  return errors;
}

std::optional<Flags> flags_of(std::initializer_list<const char*> words, int& status) {
  std::vector<const char*> argv = {"radiotower-relay"};
  argv.insert(argv.end(), words);
  return parse_flags(static_cast<int>(argv.size()), argv.data(), status);
}

const std::string with_secrets = "[credentials]\nsecrets_file = \"secrets\"\n";

}  // namespace

TEST_CASE("config: every bad file is refused with file, line, key and a hint, and with all its mistakes at once") {
  const Folder folder;
  std::size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(BAD_CONFIG)) {
    if (entry.path().extension() != ".toml") continue;
    ++files;
    CAPTURE(entry.path().filename().string());
    const std::string text = slurp(entry.path());
    std::vector<std::string> expected;
    std::istringstream lines(text);
    const std::string mark = "# expect: ";
    for (std::string line; std::getline(lines, line) && line.rfind(mark, 0) == 0;) expected.push_back(line.substr(mark.size()));
    REQUIRE(!expected.empty());

    const std::string path = folder.write(entry.path().filename().string(), text, 0644);
    Config config;
    ConfigErrors errors;
    if (read_config_file(path, config, errors)) CHECK_FALSE(build_settings(config, a_host(), errors));
    INFO(all(errors));
    REQUIRE(errors.size() == expected.size());
    for (std::size_t i = 0; i < errors.size(); ++i) {
      std::string said = errors[i].text();
      const std::string prefix = folder.path.string() + "/";
      if (said.rfind(prefix, 0) == 0) said = said.substr(prefix.size());
      CAPTURE(expected[i]);
      CHECK(said.rfind(expected[i], 0) == 0);
      CHECK(!errors[i].hint.empty());
      CHECK(!errors[i].what.empty());
    }
  }
  CHECK(files >= 20);
}

TEST_CASE("config: every bad flag is refused by its name, the key and a hint") {
  const Folder folder;
  const struct {
    std::vector<std::string> line;
    const char* said;
  } cases[] = {
      {{"--listen", "0.0.0.0:70000"}, "--listen: listen.udp: port 70000 is out of range 1-65535 (hint: "},
      {{"--listen", "127.0.0.1:3478", "--listen", "127.0.0.1:3478"}, "--listen: listen.udp: \"127.0.0.1:3478\" stands there twice (hint: "},
      {{"--ports", "65535-49152"}, "--ports: relay.ports: 65535-49152 is reversed (hint: "},
      {{"--ports", "80-90"}, "--ports: relay.ports: port 80 is out of range 1024-65535 (hint: "},
      {{"--realm", ""}, "--realm: realm: the realm is empty (hint: "},
      {{"--relay-address", "198.51.100.7"}, "--relay-address: relay.addresses: 198.51.100.7 is no address of this host (hint: "},
      {{"--external", "198.51.100.7"}, "--external: relay.external: \"198.51.100.7\" could be of 2 relay addresses (hint: "},
      {{"--allow-peer", "10.1.2.3/8"}, "--allow-peer: peers.allow: "},
      {{"--deny-peer", "10.0.0.9-10.0.0.5"}, "--deny-peer: peers.deny: "},
      {{"--allow-only"}, "--allow-only: peers.allow_only: nothing is allowed"},
      {{"--workers", "-1"}, "--workers: workers.count: -1 is negative (hint: "},
      {{"--workers", "two"}, "--workers: workers.count: \"two\" is not a whole number (hint: "},
      {{"--backend", "kqueue"}, "--backend: workers.backend: \"kqueue\" is not known (hint: "},
      {{"--offload-xdp", "eth0/1"}, "--offload-xdp: offload.xdp: \"eth0/1\" is not an interface (hint: "},
      {{"--offload-xdp", "auto", "--offload-xdp", "eth0"}, 
       "--offload-xdp: offload.xdp: \"auto\" stands alone, and not in a list (hint: "},
      {{"--log-format", "xml"}, "--log-format: log.format: \"xml\" is not known (hint: "},
      {{"--users-file", "/nowhere/users"}, "/nowhere/users: credentials.users_file: cannot be read: "},
      {{"--config", "/nowhere/relay.toml"}, "/nowhere/relay.toml: cannot be read: "},
  };
  for (const auto& c : cases) {
    const auto errors = errors_of_flags(folder, c.line);
    INFO(all(errors));
    REQUIRE(errors.size() == 1);
    CAPTURE(c.said);
    CHECK(errors[0].text().rfind(c.said, 0) == 0);
    CHECK(!errors[0].hint.empty());
  }
  CHECK(errors_of_flags(folder, {}).empty());
  CHECK(errors_of_flags(folder, {}, true).size() == 1);  // no credentials at all
}

TEST_CASE("flags: what is no flag, and a flag of one value given twice, end the program with 1; --help with 0") {
  int status = -1;
  CHECK_FALSE(flags_of({"--relm", "x"}, status));
  CHECK(status == 1);
  CHECK_FALSE(flags_of({"--realm", "a", "--realm", "b"}, status));
  CHECK(status == 1);
  CHECK_FALSE(flags_of({"--listen", "127.0.0.1:3478", "127.0.0.1:3479"}, status));
  CHECK(status == 1);
  CHECK_FALSE(flags_of({"--help"}, status));
  CHECK(status == 0);
  CHECK(flags_of({"--check"}, status)->mode == Mode::check);
  CHECK(flags_of({"--print-config"}, status)->mode == Mode::print_config);
  CHECK(flags_of({"--version"}, status)->mode == Mode::version);
}

TEST_CASE("flags: they win over the file, and every value knows where it came from") {
  const Folder folder;
  const std::string file = folder.write("relay.toml", "realm = \"from.the.file\"\n" + with_secrets + "[relay]\nports = \"40000-41000\"\n");
  int status = 0;
  const auto flags = flags_of({"--config", file.c_str(), "--realm", "from.the.flag", "--listen", "127.0.0.1:3478", "--listen", "[::1]:3478", "--workers", "3"}, status);
  REQUIRE(flags);
  Config config;
  ConfigErrors errors;
  REQUIRE(read_config(*flags, config, errors));
  CHECK(config.realm == "from.the.flag");
  CHECK(config.source("realm") == "--realm");
  CHECK(config.listen_udp.size() == 2);
  CHECK(config.workers == 3);
  CHECK(config.first_port == 40000);
  CHECK(config.source("relay.ports") == file + ":5");
  CHECK(config.source("limits.allocations") == "default");
  CHECK(config.secrets_file == (folder.path / "secrets").string());  // relative to the folder of the file
  const std::string printed = print_config(config);
  CHECK(printed.find("realm = \"from.the.flag\"  # --realm\n") != std::string::npos);
  CHECK(printed.find("ports = \"40000-41000\"  # " + file + ":5\n") != std::string::npos);
  CHECK(printed.find("# users_file is not set\n") != std::string::npos);

  SUBCASE("what --print-config prints can be read again and means the same") {
    Config again;
    REQUIRE(read_config_text(printed, "printed.toml", again, errors));
    CHECK(again.realm == config.realm);
    CHECK(again.first_port == config.first_port);
    CHECK(changes_that_wait(config, again).empty());
  }
}

TEST_CASE("config: offload.xdp is a word or a list of interfaces, in the file and as a flag, and needs a restart") {
  const Folder folder;
  Config config = config_of(folder, with_secrets);
  CHECK_FALSE(offload_settings(config));
  const Config automatic = config_of(folder, with_secrets + "[offload]\nxdp = \"auto\"\n");
  REQUIRE(offload_settings(automatic));
  CHECK(offload_settings(automatic)->automatic);
  CHECK(offload_settings(automatic)->interfaces.empty());
  CHECK(changes_that_wait(config, automatic) == std::vector<std::string>{"offload.xdp: \"off\" -> \"auto\""});

  const Config named = config_of(folder, with_secrets + "[offload]\nxdp = [\"eth0\", \"eth1 generic\"]\n");
  const auto settings = offload_settings(named);
  REQUIRE(settings);
  CHECK_FALSE(settings->automatic);
  REQUIRE(settings->interfaces.size() == 2);
  CHECK(settings->interfaces[0].name == "eth0");
  CHECK_FALSE(settings->interfaces[0].generic_allowed);
  CHECK(settings->interfaces[1].name == "eth1");
  CHECK(settings->interfaces[1].generic_allowed);
  CHECK(print_config(named).find("xdp = [\"eth0\", \"eth1 generic\"]  # ") != std::string::npos);
  CHECK(print_config(automatic).find("xdp = \"auto\"  # ") != std::string::npos);

  ConfigErrors errors;
  REQUIRE(set_from_flag("--offload-xdp", "offload.xdp", {"eth1 generic", "eth0"}, config, errors));
  CHECK(offload_settings(config)->interfaces.size() == 2);
  REQUIRE(set_from_flag("--offload-xdp", "offload.xdp", {"auto"}, config, errors));
  CHECK(offload_settings(config)->automatic);
  REQUIRE(set_from_flag("--offload-xdp", "offload.xdp", {"off"}, config, errors));
  CHECK_FALSE(offload_settings(config));
}

TEST_CASE("config: the packaged example names every key, and its values are the defaults") {
  const std::string text = slurp(PACKAGED_CONFIG);
  REQUIRE(!text.empty());
  Config defaults, as_it_is, uncommented;
  ConfigErrors errors;
  CHECK(read_config_text(text, "relay.toml", as_it_is, errors));
  CHECK(print_config(as_it_is) == print_config(defaults));
  // "#key = value" is a default; "# words" are words.
  std::string bare;
  std::istringstream lines(text);
  std::size_t keys = 0;
  for (std::string line; std::getline(lines, line);) {
    const bool is_default = line.size() > 1 && line[0] == '#' && line[1] != ' ';
    keys += is_default ? 1 : 0;
    bare += (is_default ? line.substr(1) : line) + "\n";
  }
  CHECK(read_config_text(bare, "relay.toml", uncommented, errors));
  INFO(all(errors));
  CHECK(errors.empty());
  CHECK(uncommented.sources.size() == keys);
  uncommented.sources.clear();
  CHECK(print_config(uncommented) == print_config(defaults));
  std::istringstream printed(print_config(defaults));
  for (std::string line; std::getline(printed, line);) {
    if (line.empty() || line[0] == '[') continue;
    const std::string key = line[0] == '#' ? line.substr(2, line.find(' ', 2) - 2) : line.substr(0, line.find(' '));
    CAPTURE(key);
    const bool named = text.find("\n#" + key + " = ") != std::string::npos || text.find("\n# " + key + " = ") != std::string::npos;
    CHECK(named);
  }
}

TEST_CASE("config: an empty file is a good one, and Windows line ends are") {
  const Folder folder;
  Config config;
  ConfigErrors errors;
  CHECK(read_config_file(folder.write("relay.toml", "", 0644), config, errors));
  CHECK(read_config_file(folder.write("relay.toml", "realm = \"example.org\"\r\n", 0644), config, errors));
  CHECK(config.realm == "example.org");
  CHECK(Config().realm == "radiotower");
}

TEST_CASE("config: no mistake in a users or keys file shows a word that may be part of a password or a key") {
  const Folder folder;
  ConfigErrors errors;
  folder.write("users", "dave:correct horse\nerin:my staple=battery\nfrank:secret-one allocations=many\n");
  CHECK(read_users((folder.path / "users").string(), "credentials.users_file", errors).empty());
  const std::string said = all(errors);
  for (const char* const word : {"correct", "horse", "my", "staple", "battery", "secret-one"}) CHECK_MESSAGE(said.find(word) == std::string::npos, said);
  CHECK(said.find("\"allocations=many\" is not understood") != std::string::npos);
  CHECK(errors.size() == 3);
}

TEST_CASE("config: a file that ends anywhere, or holds a wrong byte anywhere, is read or refused, never more") {
  const std::string good = "realm = \"example.org\"\n[listen]\nudp = [\"0.0.0.0:3478\"] # here\n[relay]\nports = \"40000-41000\"\n"
                           "external = [\"198.51.100.7/10.0.0.4\"]\n" + with_secrets + "[peers]\nallow = [\"10.0.0.0/8\", \"[2001:db8::7]:8443\"]\n"
                           "allow_only = true\n[limits]\nallocations = 100\n[log]\nlevel = \"debug\"\n";
  const Folder folder;
  const auto read = [&](const std::string& text) {
    Config config;
    ConfigErrors errors;
    const bool fine = read_config_text(text, (folder.path / "relay.toml").string(), config, errors);
    CHECK(fine == errors.empty());
    const bool starts = fine && build_settings(config, a_host(), errors);
    CHECK(starts == errors.empty());
    for (const auto& e : errors) CHECK(!e.hint.empty());
    return fine;
  };
  CHECK(read(good));
  for (std::size_t i = 0; i < good.size(); ++i) {
    (void)read(good.substr(0, i));
    for (const char wrong : {'\0', '\n', '"', '[', '-', '9', '\xFF'}) {
      std::string text = good;
      text[i] = wrong;
      (void)read(text);
    }
  }
  CHECK_FALSE(read("realm = " + std::string(100000, '[')));
}

TEST_CASE("config: a realm of 40 bytes is taken") {
  Config config;
  ConfigErrors errors;
  CHECK(read_config_text("realm = \"" + std::string(40, 'a') + "\"", "relay.toml", config, errors));
}

TEST_CASE("settings: a wildcard becomes one listener an address, loopback too, link-local and temporary IPv6 not") {
  const Folder folder;
  const Built built = build(config_of(folder, with_secrets));
  std::vector<net::TransportAddress> expected = {at("127.0.0.1:3478"), at("192.168.0.105:3478"), at("10.0.0.4:3478"), at("[::1]:3478"), at("[2001:db8::5]:3478")};
  std::sort(expected.begin(), expected.end());
  CHECK(built.listeners == expected);
  CHECK(built.settings->listeners == expected);
  CHECK(built.notes.empty());
  CHECK(build(config_of(folder, with_secrets + "[listen]\nudp = [\"0.0.0.0:3478\", \"127.0.0.1:3478\", \"127.0.0.9:3478\"]\n")).listeners.size() == 4);
}

TEST_CASE("settings: a host without IPv6 starts with the defaults, and says so") {
  const Folder folder;
  const Built built = build(config_of(folder, with_secrets), {host_address("127.0.0.1", "lo"), host_address("192.168.0.105", "eth0")});
  CHECK(built.listeners.size() == 2);
  REQUIRE(built.notes.size() == 1);
  CHECK(built.notes[0] == "this host has no IPv6 address, so [::]:3478 listens nowhere");
}

TEST_CASE("settings: relayed addresses are every usable one of the host; loopback only when there is nothing else, with a note") {
  const Folder folder;
  const Config config = config_of(folder, with_secrets);
  const auto addresses = build(config).settings->relay_addresses;
  REQUIRE(addresses.size() == 3);
  CHECK(addresses[0].local == ip("192.168.0.105"));
  CHECK(addresses[1].local == ip("10.0.0.4"));
  CHECK(addresses[2].local == ip("2001:db8::5"));
  const Built alone = build(config, loopback_only());
  REQUIRE(alone.settings->relay_addresses.size() == 1);
  CHECK(alone.settings->relay_addresses[0].local == ip("127.0.0.1"));
  CHECK(std::any_of(alone.notes.begin(), alone.notes.end(), [](const auto& note) { return note.find("no address but loopback") != std::string::npos; }));
  ConfigErrors errors;
  CHECK_FALSE(build_settings(config, {}, errors));  // no address at all
  CHECK(errors.size() == 2);
}

TEST_CASE("settings: an external address belongs to the relay address it names, or to the only one of its family") {
  const Folder folder;
  const auto named = build(config_of(folder, with_secrets + "[relay]\nexternal = [\"198.51.100.7/10.0.0.4\", \"2001:db8:1::7\"]\n"));
  CHECK(named.settings->relay_addresses[0].external == ip("192.168.0.105"));
  CHECK(named.settings->relay_addresses[1].external == ip("198.51.100.7"));
  CHECK(named.settings->relay_addresses[2].external == ip("2001:db8:1::7"));
  const auto& relays = named.settings->peers->settings().relay_addresses;  // both forms are known to the policy
  CHECK(std::find(relays.begin(), relays.end(), ip("198.51.100.7")) != relays.end());
  CHECK(std::find(relays.begin(), relays.end(), ip("10.0.0.4")) != relays.end());
}

TEST_CASE("settings: --print-config spells wildcards, relayed and external addresses out") {
  const Folder folder;
  const Config config = config_of(folder, with_secrets + "[relay]\nexternal = [\"198.51.100.7/10.0.0.4\"]\n");
  const std::string text = print_on_host(config, a_host());
  CHECK(text.find("#   listens on [2001:db8::5]:3478\n") != std::string::npos);
  CHECK(text.find("#   relays from 10.0.0.4, which clients are told as 198.51.100.7\n") != std::string::npos);
  CHECK(print_on_host(config, loopback_only()).find("#   note: this host has no IPv6 address") != std::string::npos);
}

TEST_CASE("settings: NAT behaviour discovery takes two addresses with two ports, wildcards expanded") {
  const Folder folder;
  const std::string on = "[features]\nnat_discovery = true\n";
  for (const char* udp : {R"(["0.0.0.0:3478", "0.0.0.0:3479"])", R"(["127.0.0.1:3478", "127.0.0.1:3479", "127.0.0.2:3478", "127.0.0.2:3479"])"}) {
    const Config config = config_of(folder, with_secrets + "[listen]\nudp = " + udp + "\n" + on);
    CHECK(build(config).settings->nat_discovery);
    CHECK(print_on_host(config, a_host()).find("#   NAT behaviour discovery between 1") != std::string::npos);
  }
  ConfigErrors errors;
  CHECK_FALSE(build_settings(config_of(folder, with_secrets + on), a_host(), errors));  // two addresses, but one port
  REQUIRE(errors.size() == 1);
  CHECK(errors[0].key == "features.nat_discovery");
}

TEST_CASE("settings: the policy knows this host, its broadcasts and its listeners") {
  const Folder folder;
  const Built built = build(config_of(folder, with_secrets + "[peers]\nallow = [\"10.1.2.0/24\", \"127.0.0.1:8443 unsafe\"]\ndeny = [\"10.1.2.9\"]\n"));
  const auto& policy = *built.settings->peers;
  const auto may = [&](const char* peer) { return policy.permit(at(peer), at(peer).family()).has_value(); };
  CHECK(may("10.1.2.3:5000"));
  CHECK(!may("10.1.2.9:5000"));
  CHECK(!may("10.9.9.9:5000"));
  CHECK(may("127.0.0.1:8443"));
  CHECK(!may("127.0.0.1:8444"));
  CHECK(!may("192.168.0.105:3478"));
  CHECK(policy.settings().host_addresses.size() == a_host().size());
  CHECK(policy.settings().broadcast_addresses == std::vector<net::IpAddress>{ip("192.168.0.255")});
  CHECK(policy.settings().own_endpoints == built.listeners);
  REQUIRE(built.notes.size() == 1);  // `unsafe` is never silent
  CHECK(built.notes[0].find("127.0.0.1:8443 unsafe") != std::string::npos);
}

TEST_CASE("settings: secrets keep their order, without comments, blanks and carriage returns") {
  const Folder folder;
  ConfigErrors errors;
  const auto secrets = read_secrets((folder.path / "secrets").string(), "credentials.secrets_file", errors);
  CHECK(errors.empty());
  CHECK(secrets == std::vector<std::string>{"north-of-the-wall", "south-of-the-river"});
}

TEST_CASE("settings: users have a password or a key, and limits only where their line gives some") {
  const Folder folder;
  ConfigErrors errors;
  const auto users = read_users((folder.path / "users").string(), "credentials.users_file", errors);
  CHECK(errors.empty());
  REQUIRE(users.size() == 2);
  CHECK(users[0].name == "alice");
  CHECK(users[0].password == "in-wonderland");
  CHECK_FALSE(users[0].allocations);
  CHECK(users[1].password.empty());
  CHECK(users[1].allocations == 3U);
  CHECK(users[1].bytes_per_second == 1000U);
}

TEST_CASE("settings: the group may read a secrets file, nobody else, and only its owner may write it") {
  const Folder folder;
  const auto good = [&](mode_t mode) {
    ConfigErrors errors;
    (void)read_secrets(folder.write("mode", "north-of-the-wall\n", mode), "credentials.secrets_file", errors);
    return errors.empty();
  };
  for (const mode_t mode : {0400, 0600, 0440, 0640}) CHECK(good(mode));
  for (const mode_t mode : {0604, 0644, 0660, 0666, 0602}) CHECK_FALSE(good(mode));
}

TEST_CASE("settings: systemd's credentials are looked at when the configuration names no file") {
  const Folder folder;
  Config config;
  ConfigErrors errors;
  REQUIRE(setenv("CREDENTIALS_DIRECTORY", folder.path.c_str(), 1) == 0);
  const auto built = build_settings(config, a_host(), errors);
  unsetenv("CREDENTIALS_DIRECTORY");
  INFO(all(errors));
  REQUIRE(built);
  CHECK_FALSE(built->settings->directory->empty());
  CHECK(built->settings->authentication);
}

TEST_CASE("settings: an open relay is made by one key alone, and shouted about") {
  const Folder folder;
  const Built built = build(config_of(folder, "[credentials]\nopen_relay_for_everyone = true\n"));
  CHECK_FALSE(built.settings->authentication);
  REQUIRE(built.notes.size() == 1);
  CHECK(built.notes[0].rfind("OPEN RELAY", 0) == 0);
  CHECK(build(config_of(folder, with_secrets)).settings->authentication);
}

TEST_CASE("reload: a bad file leaves no settings behind; the keys that need a restart are named, the others are not") {
  const Folder folder;
  const Config running = config_of(folder, with_secrets);
  ConfigErrors errors;
  Config next = running;
  next.secrets_file = (folder.path / "empty").string();
  CHECK_FALSE(build_settings(next, a_host(), errors));
  CHECK(errors.size() == 1);
  next = config_of(folder, "realm = \"example.org\"\n" + with_secrets + "[relay]\nports = \"40000-50000\"\n[workers]\ncount = 4\n[limits]\nallocations = 7\n"
                           "[peers]\nallow = [\"10.1.2.3\"]\n[log]\nformat = \"json\"\nlevel = \"debug\"\n");
  CHECK(changes_that_wait(running, next) == std::vector<std::string>{"workers.count: 0 -> 4"});
  CHECK(changes_that_wait(running, running).empty());
}

TEST_CASE("config: listeners for streams, and the certificate they take") {
  Folder folder;
  const std::string certificate = (folder.path / "certificate.pem").string(), key = (folder.path / "key.pem").string();
  REQUIRE(std::system(("umask 077; openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=turn.example.org "
                       "-addext subjectAltName=DNS:turn.example.org -keyout " + key + " -out " + certificate + " 2>/dev/null").c_str()) == 0);
  const std::string secrets = "[credentials]\nsecrets_file = \"secrets\"\n", pair = "[listen]\ncertificate = \"certificate.pem\"\nprivate_key = \"key.pem\"\n";

  // Without a certificate: TCP, and no TLS. Every wildcard is an address of the host; listen.tls by default is no mistake.
  const Built plain = build(config_of(folder, secrets));
  CHECK(plain.tcp.size() == 5);
  CHECK(plain.tls.empty());
  CHECK_FALSE(plain.identity);
  CHECK(plain.connections->per_source == 256);

  const Built both = build(config_of(folder, secrets + pair));
  CHECK(both.tls.size() == 5);
  CHECK(both.tls[0].port == 5349);
  REQUIRE(both.identity);
  CHECK(both.connections->identity == both.identity);
  CHECK(both.identity->facts().at(0).names.at(0) == "turn.example.org");
  // P25: nobody is relayed to a listener of ours, whatever its transport.
  const net::PeerPolicy& peers = *both.settings->peers;
  for (const auto& address : both.tls) CHECK(peers.judge(address, address.family()).verdict != net::PeerVerdict::permitted);
  CHECK(std::find(peers.settings().own_endpoints.begin(), peers.settings().own_endpoints.end(), both.tls[0]) != peers.settings().own_endpoints.end());

  // An address of both: what only the default asks for gives way, what was written down does not.
  CHECK(build(config_of(folder, secrets + pair + "tcp = [\"0.0.0.0:5349\"]\n")).tls.size() == 2);
  ConfigErrors errors;
  CHECK_FALSE(build_settings(config_of(folder, secrets + pair + "tcp = [\"10.0.0.4:443\"]\ntls = [\"0.0.0.0:443\"]\n"), a_host(), errors));
  CHECK(all(errors).find("listen.tls: 10.0.0.4:443 stands in listen.tcp too") != std::string::npos);

  // TCP alone, UDP alone.
  CHECK(build(config_of(folder, secrets + "[listen]\nudp = []\n")).listeners.empty());
  CHECK(build(config_of(folder, secrets + "[listen]\ntcp = []\n")).tcp.empty());

  const Built front = build(config_of(folder, secrets + "[listen]\nproxy_protocol_from = [\"10.0.0.0/24\"]\n[limits]\nconnections = 7\nconnections_per_source = 3\n"));
  CHECK(front.connections->is_front_end(ip("10.0.0.9")));
  CHECK_FALSE(front.connections->is_front_end(ip("10.0.1.9")));
  CHECK(front.connections->total == 7);
  CHECK(front.connections->per_source == 3);

  // A reload reads the files anew: a key of another certificate is refused, with the key's name.
  folder.write("key.pem", "-----BEGIN NOTHING-----\n");
  errors.clear();
  CHECK_FALSE(build_settings(config_of(folder, secrets + pair), a_host(), errors));
  CHECK(all(errors).find("listen.private_key: ") != std::string::npos);
  CHECK(all(errors).find("key.pem") != std::string::npos);
}

TEST_CASE("nobody is relayed to where the figures are, even where an entry of peers.allow has all ports of that address [P25]") {
  const auto verdict = [](const std::string& listen, const char* peer) {
    const Folder folder;
    folder.write("secrets", "0123456789abcdef\n");
    const Built built = build(config_of(folder, with_secrets + "[peers]\nallow = [\"127.0.0.1 unsafe\"]\n[metrics]\nlisten = \"" + listen + "\"\n"));
    return built.settings->peers->judge(*net::TransportAddress::parse(peer), net::Family::ipv4).verdict;
  };
  CHECK(verdict("127.0.0.1:9641", "127.0.0.1:9641") == net::PeerVerdict::own_host);
  CHECK(verdict("0.0.0.0:9641", "127.0.0.1:9641") == net::PeerVerdict::own_host);
  CHECK(verdict("127.0.0.1:9641", "127.0.0.1:8443") == net::PeerVerdict::permitted);
}
