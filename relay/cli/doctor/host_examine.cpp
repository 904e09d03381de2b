// What is so on this host: the configuration, the unit, the sockets and whose they are.
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <sstream>

#include "daemon/flags.h"
#include "host_checks.h"

namespace radiotower::cli {

namespace {

/// The address part of /proc/net/udp: words of the host's byte order, in hexadecimal.
std::optional<net::TransportAddress> proc_address(std::string_view text) {
  const std::size_t colon = text.find(':');
  if (colon != 8 && colon != 32) return std::nullopt;
  std::uint8_t bytes[16] = {};
  for (std::size_t word = 0; word < colon / 8; ++word) {
    std::uint32_t value = 0;
    std::from_chars(text.data() + word * 8, text.data() + word * 8 + 8, value, 16);
    std::memcpy(bytes + word * 4, &value, 4);
  }
  unsigned port = 0;
  std::from_chars(text.data() + colon + 1, text.data() + text.size(), port, 16);
  return net::TransportAddress{colon == 8 ? net::IpAddress::v4(bytes) : net::IpAddress::v6(bytes), static_cast<std::uint16_t>(port)};
}

void read_table(const Host& host, const char* file, net::Transport transport, std::vector<BoundSocket>& sockets) {
  int error = 0;
  std::istringstream lines(host.read(file, error).value_or(""));
  std::string line;
  std::getline(lines, line);
  while (std::getline(lines, line)) {
    std::istringstream fields(line);
    std::string number, local, remote, state, skipped;
    BoundSocket socket;
    socket.transport = transport;
    fields >> number >> local >> remote >> state >> skipped >> skipped >> skipped >> socket.uid >> skipped >> socket.inode;
    const auto address = proc_address(local);
    if (!fields || !address || address->port == 0) continue;
    if (transport == net::Transport::tcp && state != "0A") continue;  // LISTEN
    socket.local = *address;
    sockets.push_back(socket);
  }
}

std::optional<std::uint64_t> limit_of(std::string_view text) {
  const std::size_t colon = text.rfind(':');  // soft:hard
  if (colon != text.npos) text.remove_prefix(colon + 1);
  if (text == "infinity") return ~std::uint64_t{0};
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() ? std::optional(value) : std::nullopt;
}

void read_unit_file(const Host& host, const std::string& path, Unit& unit) {
  int error = 0;
  const auto text = host.read(path, error);
  if (!text) return;
  unit.found = true;
  std::istringstream lines(*text);
  for (std::string line; std::getline(lines, line);) {
    const std::size_t equals = line.find('=');
    if (equals == line.npos || line.front() == '#' || line.front() == ';') continue;
    const std::string key = line.substr(0, equals), value = line.substr(equals + 1);
    if (key == "User") unit.user = value;
    else if (key == "LimitNOFILE") unit.descriptor_limit = limit_of(value);
    else if (key == "AmbientCapabilities") unit.capabilities = value.empty() ? "" : unit.capabilities + " " + value;
    else if (key == "LoadCredential" && value.empty()) unit.credentials.clear();
    else if (key == "LoadCredential" && value.find(':') != value.npos)
      unit.credentials[value.substr(0, value.find(':'))] = value.substr(value.find(':') + 1);
  }
}

bool has(const std::vector<std::string>& texts, std::string_view text) { return std::find(texts.begin(), texts.end(), text) != texts.end(); }

/// The same configuration without what has mistakes, so that the rest of the host can be looked at.
daemon::Config without_mistakes(daemon::Config config, const ConfigErrors& mistakes, const std::vector<io::HostAddress>& addresses) {
  const auto is_wrong = [&](std::string_view prefix) {
    return std::any_of(mistakes.begin(), mistakes.end(), [&](const auto& mistake) { return mistake.key.starts_with(prefix); });
  };
  const auto keep_ours = [&](std::vector<daemon::Text>& texts) {
    std::erase_if(texts, [&](const auto& text) {
      const auto address = net::TransportAddress::parse(text.value);
      const auto ip = address ? address->ip : net::IpAddress::parse(text.value).value_or(net::IpAddress{});
      return !ip.is_unspecified() && std::none_of(addresses.begin(), addresses.end(), [&](const auto& a) { return a.ip == ip; });
    });
  };
  for (auto* texts : {&config.listen_udp, &config.listen_tcp, &config.listen_tls, &config.listen_dtls, &config.relay_addresses}) keep_ours(*texts);
  if (is_wrong("listen.certificate") || is_wrong("listen.private_key") || is_wrong("listen.more") || is_wrong("listen.tls")
      || is_wrong("listen.dtls")) {
    config.certificate.clear();
    config.private_key.clear();
    config.more_certificates.clear();
    config.listen_dtls.clear();
    config.listen_tls.clear();
  }
  if (is_wrong("credentials") || is_wrong("features.oauth")) {
    config.secrets_file.clear();
    config.users_file.clear();
    config.oauth_keys_file.clear();
    config.open_relay_for_everyone = true;
  }
  if (is_wrong("realms")) config.realms.clear();
  if (is_wrong("redirect")) config.redirect_servers = config.redirect_secure_servers = {};
  if (is_wrong("relay.external")) config.external.clear();
  if (is_wrong("listen.stun_only")) config.stun_only.clear();
  if (is_wrong("features.nat_discovery")) config.nat_discovery = false;
  if (is_wrong("peers.deny")) config.deny.clear();
  if (is_wrong("peers.allow_only")) config.allow_only = false;
  return config;
}

/// The relay is the one that has most of our ports.
int relay_of(const Examined& e) {
  for (const auto& socket : e.sockets) {
    if (socket.pid == 0 || !is_relay(socket.program) || !e.built) continue;
    for (const auto* list : {&e.built->listeners, &e.built->tcp, &e.built->tls})
      for (const auto& listener : *list)
        if (listener.port == socket.local.port && (listener.ip == socket.local.ip || socket.local.ip.is_unspecified())) return socket.pid;
  }
  return 0;
}

/// How the relay of this network namespace was started, when it was with this configuration or none was asked for. Files of its command line
/// are relative to the folder that it runs in.
struct Started {
  daemon::Flags flags;
  std::string folder;
  int process = 0;
};
std::optional<Started> started(const Host& host, const std::string& config_file) {
  const std::string here = host.link("/proc/self/ns/net");
  int error = 0;
  for (const std::string& process : host.list("/proc")) {
    if (process.find_first_not_of("0123456789") != process.npos || !is_relay(host.text("/proc/" + process + "/comm")) || here.empty() ||
        host.link("/proc/" + process + "/ns/net") != here)
      continue;
    const std::string line = host.read("/proc/" + process + "/cmdline", error).value_or("");
    std::vector<const char*> words;
    for (std::size_t at = 0; at < line.size(); at += std::strlen(line.c_str() + at) + 1) words.push_back(line.c_str() + at);
    if (words.empty()) continue;
    Started found{{}, host.link("/proc/" + process + "/cwd"), std::atoi(process.c_str())};
    const auto flags = daemon::parse_flags(static_cast<int>(words.size()), words.data(), error, false);
    if (!flags || flags->mode != daemon::Mode::run || found.folder.empty()) continue;
    found.flags = *flags;
    std::string& file = found.flags.config_file;
    if (!file.empty() && file.front() != '/') file = found.folder + '/' + file;
    const auto ours = host.resolve(config_file, error), theirs = host.resolve(file, error);
    if (config_file.empty() || (ours && theirs && *ours == *theirs)) return found;
  }
  return std::nullopt;
}

/// Those that a flag has set.
void make_absolute(daemon::Config& config, const std::string& folder) {
  for (auto* file : {&config.secrets_file, &config.users_file, &config.certificate, &config.private_key, &config.oauth_keys_file})
    if (!file->empty() && file->front() != '/') *file = folder + '/' + *file;
}

void find_user(Examined& e, Findings& findings) {
  const auto unknown = [&](std::string sentence) {
    findings.add({"service.user", Severity::unknown, std::move(sentence), "--user NAME says whom the relay runs as", ""});
  };
  if (!e.question.user.empty()) {
    e.user = e.host.user(e.question.user);
    e.user_from = "--user";
    if (!e.user)
      findings.add({"service.user", Severity::fault, fmt::format("there is no user {} on this host", e.question.user),
                    "`systemd-sysusers` makes the user radiotower; or --user names another", ""});
    return;
  }
  if (!e.unit.user.empty()) {
    e.user = e.host.user(e.unit.user);
    e.user_from = "the unit";
    if (!e.user)
      findings.add({"service.user", Severity::fault,
                    fmt::format("the unit radiotower-relay.service runs as {}, and there is no such user",
                                e.unit.user), "`systemd-sysusers` makes it", ""});
    return;
  }
  if (e.relay != 0) {
    std::istringstream lines(e.host.text(fmt::format("/proc/{}/status", e.relay)));
    std::optional<HostUser> user;
    for (std::string line; std::getline(lines, line);) {
      std::istringstream fields(line);
      std::string key;
      unsigned number = 0;
      fields >> key;
      if (key == "Uid:" && fields >> number >> number) user = HostUser{fmt::format("uid {}", number), number, {}};
      if (key == "Gid:" && user && fields >> number >> number) user->groups.push_back(number);
      if (key == "Groups:" && user)
        while (fields >> number) user->groups.push_back(number);
    }
    if (user)
      if (const auto known = e.host.user(std::to_string(user->uid))) user->name = known->name;
    e.user = user;
    e.user_from = "the relay that runs";
    if (user) return;
  }
  if ((e.user = e.host.user("radiotower"))) e.user_from = "the usual one";
  else unknown("whom the relay runs as is not known: no unit, no user radiotower, and none runs; whether its files can be read is not looked at");
}

void guess_phone(Examined& e) {
  e.phone_is_given = e.question.phone.has_value();
  if (e.question.phone) {
    e.phone = *e.question.phone;
    return;
  }
  // As phones are given it in most offices: the first IPv4 address that is listened at.
  const auto take = [&](const net::IpAddress& ip) {
    const auto* own = e.of_host(ip);
    if (!e.phone.is_unspecified() || !ip.is_v4() || ip.is_loopback() || ip.is_link_local() || (own && own->loopback)) return;
    e.phone = ip;
  };
  for (const auto& address : e.addresses) {
    const bool listened = !e.built
        || std::any_of(e.built->listeners.begin(), e.built->listeners.end(), [&](const auto& l) { return l.ip == address.ip; });
    if (!is_inside_of_host(address.interface) && listened) take(address.ip);
  }
  for (const auto& address : e.addresses) take(address.ip);
}

}  // namespace

std::string joined(const std::vector<std::string>& texts) { return fmt::format("{}", fmt::join(texts, ", ")); }

std::string Examined::where(std::string_view key) const {
  const std::string_view source = config.source(key);
  return source.empty() || source == "default" ? std::string(key) : fmt::format("{} ({})", key, source);
}

const io::HostAddress* Examined::of_host(const net::IpAddress& ip) const {
  const auto found = std::find_if(addresses.begin(), addresses.end(), [&](const auto& a) { return a.ip == ip; });
  return found == addresses.end() ? nullptr : &*found;
}

bool is_relay(std::string_view program) { return program.starts_with("radiotower-rela"); }  // the kernel keeps 15 letters of a name

std::string_view turn_server_of(std::string_view program) {
  constexpr std::pair<std::string_view, std::string_view> known[] = {
      {"turnserver", "coturn"}, {"coturn", "coturn"}, {"eturnal", "eturnal"}, {"violet", "violet"}, {"stuntman", "stuntman"}, {"stunserver", "stuntman"},
      {"restund", "restund"},   {"reTurnServer", "reTurn"}, {"stunner", "STUNner"}, {"rtcd", "rtcd"}, {"livekit-server", "LiveKit"}};
  for (const auto& [word, server] : known)
    if (program.starts_with(word)) return server;
  return {};
}

std::vector<BoundSocket> bound_sockets(const Host& host, bool& owners_are_known) {
  std::vector<BoundSocket> sockets;
  read_table(host, "/proc/net/udp", net::Transport::udp, sockets);
  read_table(host, "/proc/net/udp6", net::Transport::udp, sockets);
  read_table(host, "/proc/net/tcp", net::Transport::tcp, sockets);
  read_table(host, "/proc/net/tcp6", net::Transport::tcp, sockets);
  std::map<std::uint64_t, std::vector<BoundSocket*>> by_inode;
  for (auto& socket : sockets) by_inode[socket.inode].push_back(&socket);
  for (const std::string& process : host.list("/proc")) {
    if (process.find_first_not_of("0123456789") != process.npos) continue;
    const std::string folder = "/proc/" + process;
    std::string program;
    for (const std::string& descriptor : host.list(folder + "/fd")) {
      const std::string target = host.link(folder + "/fd/" + descriptor);
      std::uint64_t inode = 0;
      if (!target.starts_with("socket:[")) continue;
      std::from_chars(target.data() + 8, target.data() + target.size(), inode);
      const auto found = by_inode.find(inode);
      if (found == by_inode.end()) continue;
      if (program.empty()) program = host.text(folder + "/comm");
      for (BoundSocket* socket : found->second) {
        std::from_chars(process.data(), process.data() + process.size(), socket->pid);
        socket->program = program;
      }
    }
  }
  owners_are_known = host.own_uid() == 0;
  if (owners_are_known) return sockets;
  // Only root is told whose socket it is, and everybody whose user's, and the names of that user's programs.
  std::map<unsigned, std::pair<int, std::string>> servers;
  for (const std::string& process : host.list("/proc")) {
    if (process.find_first_not_of("0123456789") != process.npos) continue;
    const std::string program = host.text("/proc/" + process + "/comm");
    int error = 0;
    const auto status = is_relay(program) || !turn_server_of(program).empty() ? host.status("/proc/" + process, error) : std::nullopt;
    if (status && (is_relay(program) || !servers.contains(status->uid))) servers[status->uid] = {std::atoi(process.c_str()), program};
  }
  for (BoundSocket& socket : sockets) {
    const auto found = servers.find(socket.uid);
    if (socket.pid != 0 || found == servers.end()) continue;
    socket.pid = found->second.first;
    socket.program = found->second.second;
    socket.is_guess = true;
  }
  return sockets;
}

Unit read_unit(const Host& host) {
  Unit unit;
  const std::string name = "radiotower-relay.service";
  const char* folders[] = {"/etc/systemd/system/", "/run/systemd/system/", "/usr/local/lib/systemd/system/", "/usr/lib/systemd/system/",
                           "/lib/systemd/system/"};
  for (const char* folder : folders)
    if (!unit.found) read_unit_file(host, folder + name, unit);
  if (!unit.found) return unit;
  // A drop-in of a name counts once, the first folder's; all are read in the order of their names.
  std::map<std::string, std::string> drop_ins;
  for (const char* folder : folders)
    for (const std::string& file : host.list(folder + name + ".d"))
      if (file.ends_with(".conf")) drop_ins.emplace(file, folder + name + ".d/" + file);
  for (const auto& [file, path] : drop_ins) read_unit_file(host, path, unit);
  return unit;
}

namespace {

/// What is wrong begins with what is wrong with it, as the relay's own message does: each sentence stands for itself.
std::string sentence_of(const ConfigError& mistake) {
  return fmt::format("{}: {}", mistake.key.empty() ? mistake.where : mistake.key, mistake.what);
}

}  // namespace

Examined examine(const Host& host, const HostQuestion& question, Findings& findings) {
  Examined e{.host = host, .question = question, .config = {}, .built = {}, .mistakes = {}, .addresses = host.addresses(), .phone = {},
             .unit = read_unit(host), .user = {}, .user_from = {}, .sockets = {}};
  daemon::Flags flags;
  const auto running = started(host, question.config_file);
  if (running) flags = running->flags;
  else flags.config_file = question.config_file;
  ConfigErrors errors;
  int error = 0;
  if (!question.config_file.empty() && !host.read(question.config_file, error) && error == EACCES && host.own_uid() != 0) {
    e.nothing_is_read = true;
    findings.add({"configuration.file", Severity::warning, fmt::format("{} may not be read by you", question.config_file),
                  "run this as root: sudo radiotower doctor", ""});
  } else {
    e.config_is_read = daemon::read_config(flags, e.config, errors);
    if (running) make_absolute(e.config, running->folder);
    e.nothing_is_read = std::any_of(errors.begin(), errors.end(), [](const auto& mistake) { return mistake.key.empty(); });
    for (const auto& mistake : errors)
      findings.add({"configuration.file", Severity::fault, sentence_of(mistake), mistake.hint,
                    mistake.key.empty() ? mistake.where : fmt::format("{} ({})", mistake.key, mistake.where)});
    if (e.config_is_read)
      findings.add({"configuration.file", Severity::good,
                    running && question.config_file.empty()
                        ? fmt::format("no --config is given: this is about the relay that runs, process {}, as it was started", running->process)
                                                              : question.config_file.empty()
                                                                  ? "no configuration file: the defaults of the relay are looked at"
                                                                      : question.config_file + " can be read, and each key is known", "", ""});
  }
  // What systemd hands over at the start of the relay.
  const auto loaded = [&](const char* name, std::string& file) {
    if (const auto found = e.unit.credentials.find(name); file.empty() && found != e.unit.credentials.end()) file = found->second;
  };
  loaded("secrets", e.config.secrets_file);
  loaded("users", e.config.users_file);
  loaded("certificate", e.config.certificate);
  loaded("private_key", e.config.private_key);
  e.built = daemon::build_settings(e.config, e.addresses, e.mistakes);
  if (!e.built) {
    ConfigErrors ignored;
    e.built = daemon::build_settings(without_mistakes(e.config, e.mistakes, e.addresses), e.addresses, ignored);
  }
  e.sockets = bound_sockets(host, e.owners_are_known);
  e.relay = relay_of(e);
  guess_phone(e);
  find_user(e, findings);
  if (e.user) findings.add({"service.user", Severity::good, fmt::format("the relay runs as {} ({})", e.user->name, e.user_from), "", ""});
  return e;
}

namespace {

/// Remembers which keys somebody has complained about.
class Remembering final : public Findings {
 public:
  explicit Remembering(Findings& to) : to_(to) {}
  void add(Finding finding) override {
    if (finding.severity == Severity::fault || finding.severity == Severity::unknown) keys_.push_back(finding.key.substr(0, finding.key.find(' ')));
    to_.add(std::move(finding));
  }
  void group(std::string_view title) override { to_.group(title); }
  const std::vector<std::string>& keys() const { return keys_; }

 private:
  Findings& to_;
  std::vector<std::string> keys_;
};

}  // namespace

void check_settings(const Examined& e, const std::vector<std::string>& said, Findings& findings) {
  if (!e.config_is_read) return;
  for (const auto& mistake : e.mistakes) {
    const std::string_view key = mistake.key;
    // A certificate, its key and those beside them are looked at together.
    const auto of_certificate = [](std::string_view k) { return k.starts_with("listen.certificate") || k.starts_with("listen.private_key")
                                                        || k.starts_with("listen.more_cert"); };
    if (has(said, key) || (of_certificate(key) && std::any_of(said.begin(), said.end(), of_certificate))) continue;
    const char* check = key.starts_with("listen.cert") || key.starts_with("listen.priv") || key.starts_with("listen.more") ? "certificate.load"
                        : key.starts_with("listen") ? "listeners.address"
                        : key.starts_with("relay.") ? "relay.address"
                        : key.starts_with("credentials") ? "credentials.load" : "configuration.settings";
    findings.add({check, Severity::fault, sentence_of(mistake), mistake.hint, fmt::format("{} ({})", mistake.key, mistake.where)});
  }
  if (e.mistakes.empty()) findings.add({"configuration.settings", Severity::good, "the relay takes these settings", "", ""});
  if (e.built)
    for (const auto& note : e.built->notes)
      if (!note.starts_with("the certificate") && !note.starts_with("the CA's") && !note.starts_with("every user of this machine")
          && !note.starts_with("OPEN RELAY"))
        findings.add({"configuration.note", Severity::note, note, "", ""});
}

void check_host(const Host& host, const HostQuestion& question, Findings& to) {
  Remembering findings(to);
  findings.group("configuration");
  const Examined e = examine(host, question, findings);
  if (e.nothing_is_read) {
    findings.add({"configuration.rest", Severity::unknown, "the rest is looked at once this file can be read", "", ""});
    return;
  }
  findings.group("credentials");
  check_credentials(e, findings);
  findings.group("certificate");
  check_certificate(e, findings);
  findings.group("settings");
  const std::vector<std::string> said = findings.keys();
  check_settings(e, said, findings);
  findings.group("addresses and ports");
  check_addresses(e, findings);
  check_listeners(e, findings);
  check_relay_ports(e, findings);
  findings.group("peers");
  check_peers(e, findings);
  findings.group("firewall");
  check_firewall(e, findings);
  findings.group("kernel and service");
  check_kernel(e, findings);
  check_clock(e, findings);
  check_offload(e, findings);
  check_service(e, findings);
}

}  // namespace radiotower::cli
