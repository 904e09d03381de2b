#include "settings_builder.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <unordered_set>

#include "config_realms.h"
#include "radiotower/turn/nat_discovery.h"

namespace radiotower::daemon {

namespace {

constexpr const char* make_a_secret = "head -c 32 /dev/urandom | base64";
constexpr std::size_t longest_file = 64 << 20;
constexpr std::size_t most_secrets = 32;  // a stranger's request costs one HMAC for each

bool is_usable(const io::HostAddress& a) { return !a.loopback && !a.ip.is_loopback() && !a.ip.is_link_local() && !a.deprecated_or_temporary; }

bool is_of_host(const net::IpAddress& ip, const std::vector<io::HostAddress>& host) {
  return std::any_of(host.begin(), host.end(), [&](const auto& a) { return a.ip == ip; }) || (ip.is_v4() && ip.is_loopback());
}

/// What LoadCredential= of a unit brought (systemd.exec(5)); empty: nothing of that name.
std::string loaded_credential(const char* name) {
  const char* folder = std::getenv("CREDENTIALS_DIRECTORY");
  if (!folder) return {};
  const std::string path = fmt::format("{}/{}", folder, name);
  struct stat status {};
  return stat(path.c_str(), &status) == 0 ? path : std::string();
}

/// Those of the configuration, or the credentials "certificate" and "private_key" of a unit; empty where one of a pair is missing.
std::vector<tls::CertificateFiles> certificate_files(const Config& config) {
  tls::CertificateFiles first{config.certificate, config.private_key};
  if (first.certificate.empty() && first.private_key.empty()) first = {loaded_credential("certificate"), loaded_credential("private_key")};
  if (first.certificate.empty() || first.private_key.empty()) return {};
  std::vector<tls::CertificateFiles> files{first};
  const std::filesystem::path folder = std::filesystem::path(config.file).parent_path();
  for (const Text& text : config.more_certificates) {
    const std::size_t blank = text.value.find(' ');
    const auto place = [&](const std::string& name) { return text.source.starts_with("--") ? name : (folder / name).string(); };  // an absolute one stays
    files.push_back({place(text.value.substr(0, blank)), place(text.value.substr(blank + 1))});
  }
  return files;
}

template <typename Number>
bool parse_number(std::string_view text, Number& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return !text.empty() && error == std::errc() && end == text.data() + text.size();
}

/// A wildcard becomes one socket an address: answers then leave from the address that was asked.
std::vector<net::TransportAddress> expand(const std::vector<Text>& texts, std::string_view key, const std::vector<io::HostAddress>& host, Built& built,
                                          ConfigErrors& errors) {
  std::vector<net::TransportAddress> listeners;
  for (const Text& text : texts) {
    const net::TransportAddress address = *net::TransportAddress::parse(text.value);
    if (!address.ip.is_unspecified()) {
      if (is_of_host(address.ip, host)) listeners.push_back(address);
      else errors.push_back({text.source, std::string(key), fmt::format("{} is no address of this host", address.ip.text()), "`ip address` shows what it has"});
      continue;
    }
    bool any = false;
    for (const auto& a : host) {
      if (a.ip.family() != address.family() || (a.ip.is_link_local() && !a.ip.is_v4()) || a.deprecated_or_temporary) continue;
      listeners.push_back({a.ip, address.port, 0});
      any = true;
    }
    if (any) continue;
    const std::string note = fmt::format("this host has no {} address, so {} listens nowhere", address.ip.is_v4() ? "IPv4" : "IPv6", text.value);
    if (std::find(built.notes.begin(), built.notes.end(), note) == built.notes.end()) built.notes.push_back(note);
  }
  std::sort(listeners.begin(), listeners.end());
  listeners.erase(std::unique(listeners.begin(), listeners.end()), listeners.end());
  return listeners;
}

bool has_certificate(const Config& config) { return !certificate_files(config).empty(); }

void choose_listeners(const Config& config, const std::vector<io::HostAddress>& host, Built& built, ConfigErrors& errors) {
  const std::size_t before = errors.size();
  const bool certificate = has_certificate(config), tls_is_default = config.source("listen.tls") == "default";
  built.listeners = expand(config.listen_udp, "listen.udp", host, built, errors);
  built.tcp = expand(config.listen_tcp, "listen.tcp", host, built, errors);
  if (certificate) built.tls = expand(config.listen_tls, "listen.tls", host, built, errors);
  if (certificate) built.dtls = expand(config.listen_dtls, "listen.dtls", host, built, errors);
  const auto needs_certificate = [&](const std::vector<Text>& texts, const char* key, const char* what) {
    if (!certificate && !texts.empty())
      errors.push_back({texts.front().source, key, fmt::format("{} needs a certificate, and none is given", what),
                        "certificate = \"chain.pem\" and private_key = \"key.pem\" in [listen]"});
  };
  if (!tls_is_default) needs_certificate(config.listen_tls, "listen.tls", "TLS");
  needs_certificate(config.listen_dtls, "listen.dtls", "DTLS");
  // One address cannot be of both. What only the default asks for gives way.
  for (const auto& address : built.tcp) {
    if (std::find(built.tls.begin(), built.tls.end(), address) == built.tls.end()) continue;
    std::erase(built.tls, address);
    if (tls_is_default) continue;
    errors.push_back({std::string(config.source("listen.tls")), "listen.tls", fmt::format("{} stands in listen.tcp too", address.text()),
                      "listen.tcp takes TLS as well, where there is a certificate; leave it there or here"});
  }
  if (!built.listeners.empty() || !built.tcp.empty() || !built.tls.empty() || !built.dtls.empty() || errors.size() != before) return;
  if (config.listen_udp.empty() && config.listen_tcp.empty())
    errors.push_back({std::string(config.source("listen.udp")), "listen.udp", "the relay would listen nowhere",
                      "leave the key out for [\"0.0.0.0:3478\", \"[::]:3478\"]"});
  else
    errors.push_back({std::string(config.source("listen.udp")), "listen.udp", "no address is left to listen on", "`ip address` shows what this host has"});
}

/// Read anew at every reload: what has been renewed on the disk is used from then on.
void read_certificates(const Config& config, Built& built, ConfigErrors& errors) {
  const std::size_t before = errors.size();
  const auto wrong = [&](std::string_view key, std::string what, std::string hint) {
    errors.push_back({std::string(config.source(key)), std::string(key), std::move(what), std::move(hint)});
  };
  if (!config.certificate.empty() && config.private_key.empty()) wrong("listen.certificate", "a certificate needs its key", "private_key = \"key.pem\"");
  if (config.certificate.empty() && !config.private_key.empty()) wrong("listen.private_key", "a key needs its certificate", "certificate = \"chain.pem\", with those of the CAs below it");
  const auto files = certificate_files(config);
  if (files.empty() && !config.more_certificates.empty())
    errors.push_back({config.more_certificates.front().source, "listen.more_certificates", "there is no first one that these could be beside",
                      "certificate = \"chain.pem\" and private_key = \"key.pem\"; they are for clients that name no server"});
  if (files.empty() || errors.size() != before) return;
  std::string why;
  built.identity = tls::Identity::load(files, why, built.notes);
  if (built.identity) return built.facts.add_certificates(built.identity->facts());
  const bool of_key = why.find("private key " + files.front().private_key) != std::string::npos && why.find("does not belong") == std::string::npos;
  wrong(of_key ? "listen.private_key" : "listen.certificate", why,
        "certificate: PEM, the server's own first, then those of the CAs above it; private_key: PEM, its key; root:radiotower, 0640");
}

/// RFC 5780, 6: without a second address and a second port a server cannot say what a NAT does.
void check_nat_discovery(const Config& config, const Built& built, ConfigErrors& errors) {
  if (!config.nat_discovery || built.listeners.empty() || !turn::discovery_pairs(built.listeners).empty()) return;
  errors.push_back({std::string(config.source("features.nat_discovery")), "features.nat_discovery",
                    "listen.udp holds no two addresses of a family with the same two ports each",
                    R"(listen.udp = ["192.0.2.1:3478", "192.0.2.1:3479", "192.0.2.2:3478", "192.0.2.2:3479"], or leave this key out)"});
}

/// Those of the configuration, or every usable one; loopback only when there is nothing else.
std::vector<turn::RelayAddress> choose_relay_addresses(const Config& config, const std::vector<io::HostAddress>& host, Built& built, ConfigErrors& errors) {
  std::vector<turn::RelayAddress> chosen;
  for (const Text& text : config.relay_addresses) {
    const net::IpAddress ip = *net::IpAddress::parse(text.value);
    if (is_of_host(ip, host)) chosen.push_back({ip, ip});
    else
      errors.push_back({text.source, "relay.addresses", fmt::format("{} is no address of this host", text.value),
                        "`ip address` shows what it has; the public address of a NAT belongs into relay.external"});
  }
  if (!config.relay_addresses.empty()) return chosen;
  const auto add = [&](const net::IpAddress& ip) {  // one address on two interfaces is one relay address
    if (std::none_of(chosen.begin(), chosen.end(), [&](const auto& a) { return a.local == ip; })) chosen.push_back({ip, ip});
  };
  for (const auto& a : host)
    if (is_usable(a)) add(a.ip);
  if (!chosen.empty()) return chosen;
  for (const auto& a : host)
    if (a.ip.is_loopback()) add(a.ip);
  if (chosen.empty())
    errors.push_back({"default", "relay.addresses", "this host has no address to relay from", "`ip address` shows what it has; is an interface down?"});
  else
    built.notes.push_back("this host has no address but loopback, so relayed addresses are loopback ones: good for a try on this machine alone");
  return chosen;
}

/// "public/private", or "public" where there is one relay address of that family; and likewise with what is to be asked for. `before`: of a
/// rebuild, where what no longer fits is left out instead of refused; null at the start and at a reload.
void map_external(const Config& config, std::vector<turn::RelayAddress>& addresses, const ExternalAnswers& known, const Built* before, Built& built,
                  ConfigErrors& errors) {
  std::vector<net::IpAddress> taken;
  const auto was_mapped = [&](const net::IpAddress& local) {  // or is asked for
    const auto& relays = before->settings->relay_addresses;
    return std::any_of(relays.begin(), relays.end(), [&](const auto& a) { return a.local == local && a.external != a.local; }) ||
           std::any_of(before->questions.begin(), before->questions.end(), [&](const auto& question) { return question.local == local; });
  };
  for (const Text& text : config.external) {
    const auto wrong = [&](std::string what, std::string hint) { errors.push_back({text.source, "relay.external", std::move(what), std::move(hint)}); };
    std::string what, hint;
    const ExternalEntry entry = *parse_external(text.value, what, hint);
    std::string there;
    for (const auto& a : addresses) there.append(there.empty() ? "" : ", ").append(a.local.text());
    std::vector<turn::RelayAddress*> chosen;
    std::size_t most = 0;  // that it could be of
    for (const auto family : {net::Family::ipv4, net::Family::ipv6}) {
      if (entry.kind == ExternalEntry::Kind::address && family != entry.address.family()) continue;
      std::vector<turn::RelayAddress*> matching;
      for (auto& address : addresses)
        if (entry.local ? address.local == *entry.local && address.local.family() == family : address.local.family() == family) matching.push_back(&address);
      most = std::max(most, matching.size());
      // An address that came beside the one that has this entry, docker0 perhaps, does not take it away.
      if (before && matching.size() > 1) std::erase_if(matching, [&](const auto* a) { return !was_mapped(a->local); });
      if (matching.size() == 1) chosen.push_back(matching.front());
    }
    if (chosen.empty() && before) {
      if (most > 1)
        built.notes.push_back(fmt::format("relay.external: \"{}\" could be of {} relay addresses now, so clients are told none of it; write \"{}/PRIVATE\" with one of {}",
                                          text.value, most, text.value, there));
      continue;
    }
    const std::string front = entry.source.empty() ? entry.address.text() : entry.source;
    if (most == 0)
      wrong(fmt::format("\"{}\" belongs to no relay address", text.value),
            there.empty() ? "\"public/private\"; there is no relay address: see relay.addresses" : fmt::format("\"public/private\"; the relay addresses are {}", there));
    else if (chosen.empty()) wrong(fmt::format("\"{}\" could be of {} relay addresses", text.value, most), fmt::format("write \"{}/PRIVATE\" with one of {}", front, there));
    for (turn::RelayAddress* address : chosen) {
      if (std::find(taken.begin(), taken.end(), address->local) != taken.end()) {
        wrong(fmt::format("{} has an external address already", address->local.text()), "one entry a relay address");
        continue;
      }
      taken.push_back(address->local);
      if (entry.kind == ExternalEntry::Kind::address) {
        address->external = entry.address;
        continue;
      }
      const ExternalQuestion& question = built.questions.emplace_back(ExternalQuestion{entry.source, address->local});
      if (const auto answer = known.find(question); answer != known.end()) address->external = answer->second;
    }
  }
  // Each is a thread that asks.
  constexpr std::size_t most_questions = 32;
  if (built.questions.size() > most_questions)
    errors.push_back({config.external.front().source, "relay.external", fmt::format("asks for {} addresses", built.questions.size()), fmt::format("at most {}", most_questions)});
}

/// The files of the configuration, or what LoadCredential= of a unit brought (systemd.exec(5)).
std::shared_ptr<const turn::Directory> read_credentials(const Config& config, Built& built, ConfigErrors& errors) {
  std::string secrets_file = config.secrets_file, users_file = config.users_file;
  if (secrets_file.empty()) secrets_file = loaded_credential("secrets");
  if (users_file.empty()) users_file = loaded_credential("users");
  turn::Directory::Input input;
  input.realm = config.realm;
  input.rest_separator = config.rest_separator;
  if (!secrets_file.empty()) input.rest_secrets = read_secrets(secrets_file, "credentials.secrets_file", errors);
  if (!users_file.empty()) input.users = read_users(users_file, "credentials.users_file", errors);
  if (!secrets_file.empty()) built.facts.add_secrets("credentials.secrets_file", input.rest_secrets);
  if (!users_file.empty()) built.facts.add_users("credentials.users_file", input.users);
  const bool none = secrets_file.empty() && users_file.empty();
  if (config.open_relay_for_everyone) {
    if (!none)
      errors.push_back({std::string(config.source("credentials.open_relay_for_everyone")), "credentials.open_relay_for_everyone",
                        "an open relay asks nobody for credentials, yet there are some", "remove this key, or both files"});
    built.notes.push_back("OPEN RELAY: anybody who reaches this port relays through this host, with its address (credentials.open_relay_for_everyone = true)");
  } else if (none && config.oauth_keys_file.empty()) {
    errors.push_back({config.file.empty() ? "--secrets-file" : config.file, "credentials.secrets_file",
                      "neither a secrets file nor a users file is given, and this relay is never open by accident",
                      fmt::format("secrets_file = \"secrets\" or --secrets-file secrets; made with: umask 077; {} > secrets", make_a_secret)});
  }
  return std::make_shared<turn::Directory>(std::move(input));
}

std::shared_ptr<const net::PeerPolicy> make_policy(const Config& config, const std::vector<io::HostAddress>& host,
                                                   const std::vector<turn::RelayAddress>& relay_addresses, Built& built, ConfigErrors& errors) {
  net::PeerPolicySettings peers;
  std::string why;
  std::unordered_set<std::string> allowed;
  for (const Text& text : config.allow) {
    const auto& rule = peers.allow.emplace_back(*net::PeerRule::parse(text.value, why));
    if (rule.unsafe) built.notes.push_back(fmt::format("peers.allow = \"{}\" opens what is otherwise never reached through the relay", text.value));
    net::PeerRule plain = rule;
    plain.unsafe = false;
    allowed.insert(plain.text());
  }
  for (const Text& text : config.deny) {
    const auto& rule = peers.deny.emplace_back(*net::PeerRule::parse(text.value, why));
    if (allowed.contains(rule.text()))
      errors.push_back({text.source, "peers.deny", fmt::format("\"{}\" is allowed and denied", text.value), "remove it from peers.allow or from peers.deny"});
  }
  peers.allow_only = config.allow_only;
  if (config.allow_only && config.allow.empty())
    errors.push_back({std::string(config.source("peers.allow_only")), "peers.allow_only", "nothing is allowed, so no call could go through", "list the peers in peers.allow: [\"10.1.2.3:8443\"]"});
  for (const auto& a : host) {
    peers.host_addresses.push_back(a.ip);
    if (!a.broadcast.is_unspecified()) peers.broadcast_addresses.push_back(a.broadcast);
  }
  for (const auto& a : relay_addresses) {
    peers.relay_addresses.push_back(a.local);
    if (a.external != a.local) peers.relay_addresses.push_back(a.external);
  }
  peers.own_endpoints = built.listeners;
  for (const auto* more : {&built.tcp, &built.tls, &built.dtls})
    for (const auto& address : *more)
      if (std::find(peers.own_endpoints.begin(), peers.own_endpoints.end(), address) == peers.own_endpoints.end()) peers.own_endpoints.push_back(address);
  // Where only this host may read figures, or none but a scraper, no client of ours is to get by TCP through us.
  if (const auto metrics = net::TransportAddress::parse(config.metrics_listen)) peers.own_endpoints.push_back(*metrics);
  return std::make_shared<net::PeerPolicy>(std::move(peers));
}

}  // namespace

std::vector<std::string> read_secrets(const std::string& path, std::string_view key, ConfigErrors& errors) {
  std::vector<std::string> secrets;
  const std::size_t before = errors.size();
  for_each_secret_line(path, key, errors, [&](std::string_view line, int number) {
    const auto wrong = [&](std::string what, std::string hint) { errors.push_back({fmt::format("{}:{}", path, number), std::string(key), std::move(what), std::move(hint)}); };
    if (line.size() < 8) wrong(fmt::format("a secret of {} character{} is guessed in no time", line.size(), line.size() == 1 ? "" : "s"), make_a_secret);
    else if (std::find(secrets.begin(), secrets.end(), line) != secrets.end()) wrong("this secret stands there twice", "remove one of both");
    else if (secrets.size() == most_secrets) wrong(fmt::format("more than {} secrets", most_secrets), "remove the old ones, at the end");
    else if (secrets.size() < most_secrets) secrets.emplace_back(line);
  });
  if (secrets.empty() && errors.size() == before)
    errors.push_back({path, std::string(key), "holds no secret", fmt::format("one a line, the newest first: {}", make_a_secret)});
  return secrets;
}

std::vector<turn::User> read_users(const std::string& path, std::string_view key, ConfigErrors& errors) {
  std::vector<turn::User> users;
  std::unordered_set<std::string> names;
  const std::size_t before = errors.size();
  for_each_secret_line(path, key, errors, [&](std::string_view line, int number) {
    const std::string where = fmt::format("{}:{}", path, number);
    const auto wrong = [&](std::string what, std::string hint) { errors.push_back({where, std::string(key), std::move(what), std::move(hint)}); };
    const std::string form = "name:password or name:0xkey, then perhaps allocations=N and bytes_per_second=N";
    const std::size_t blank = line.find_first_of(" \t");
    const std::string_view head = line.substr(0, blank);
    const std::size_t colon = head.find(':');
    if (colon == std::string_view::npos || colon == 0 || colon + 1 >= head.size()) return wrong("is not a user and a password", form);
    turn::User user;
    user.name = head.substr(0, colon);
    const std::string_view password = head.substr(colon + 1);
    if (user.name.size() > 508) return wrong("the user name is longer than 508 bytes", form);
    if (password.substr(0, 2) == "0x") {
      const auto bytes = from_hex(password.substr(2));
      if (bytes && bytes->size() == 16) {
        stun::Md5 k;
        std::copy(bytes->begin(), bytes->end(), k.begin());
        user.key = stun::Key(k);
      } else if (bytes && bytes->size() == 32) {
        stun::Sha256 k;
        std::copy(bytes->begin(), bytes->end(), k.begin());
        user.key = stun::Key(k);
      } else {
        return wrong("the key behind 0x is not 32 or 64 hexadecimal digits", "MD5(name:realm:password), or SHA-256 of the same");
      }
    } else {
      user.password = password;
    }
    for (std::string_view rest = blank == std::string_view::npos ? "" : line.substr(blank); !rest.empty();) {
      const std::size_t start = rest.find_first_not_of(" \t");
      if (start == std::string_view::npos) break;
      rest = rest.substr(start);
      const std::string_view word = rest.substr(0, rest.find_first_of(" \t"));
      rest = rest.substr(word.size());
      const std::size_t equals = word.find('=');
      const std::string_view option = word.substr(0, equals), value = equals == std::string_view::npos ? "" : word.substr(equals + 1);
      // Any other word is shown to nobody: it may be the rest of a password with a blank in it.
      bool good = false;
      if (option == "allocations") good = parse_number(value, user.allocations.emplace());
      else if (option == "bytes_per_second") good = parse_number(value, user.bytes_per_second.emplace());
      else return wrong("what stands behind the password is not understood", form + "; a password cannot hold blanks");
      if (!good) return wrong(fmt::format("\"{}\" is not understood", word), form);
    }
    if (!names.insert(user.name).second) return wrong(fmt::format("user \"{}\" stands there twice", user.name), "remove one of both");
    users.push_back(std::move(user));
  });
  if (users.empty() && errors.size() == before) errors.push_back({path, std::string(key), "holds no user", "name:password, one a line"});
  return users;
}

namespace {

/// Once the listeners are known.
void check_metrics(const Config& config, Built& built, ConfigErrors& errors) {
  const auto metrics = net::TransportAddress::parse(config.metrics_listen);
  if (!metrics) return;  // off, or a Unix socket
  if (!metrics->ip.is_loopback())
    built.notes.push_back(
        fmt::format("metrics.listen = \"{}\": anybody who reaches it can read the figures; on 127.0.0.1 or a Unix socket only this host can", config.metrics_listen));
  for (const auto* listeners : {&built.tcp, &built.tls})
    for (const auto& listener : *listeners) {
      if (listener.port != metrics->port || listener.family() != metrics->family() || (listener.ip != metrics->ip && !metrics->ip.is_unspecified())) continue;
      errors.push_back({std::string(config.source("metrics.listen")), "metrics.listen",
                        fmt::format("clients are to come to {} over {}, so nobody can be told figures there", listener.text(), listeners == &built.tcp ? "TCP" : "TLS"),
                        "another port; \"127.0.0.1:9641\" is where coturn has it too"});
      return;
    }
}

}  // namespace

std::optional<Built> build_settings(const Config& config, const std::vector<io::HostAddress>& host, ConfigErrors& errors, const ExternalAnswers& known) {
  const std::size_t before = errors.size();
  Built built;
  auto settings = std::make_shared<turn::Settings>();
  settings->realm = config.realm;
  settings->limits = config.limits;
  settings->first_port = config.first_port;
  settings->last_port = config.last_port;
  settings->strict_expiry = config.strict_expiry;
  settings->rfc5766_channel_numbers = config.rfc5766_channel_numbers;
  settings->authentication = !config.open_relay_for_everyone;
  settings->keep_address_family = config.keep_address_family;
  settings->tcp_relay = config.tcp_relay;
  settings->mobility = config.mobility;
  settings->nat_discovery = config.nat_discovery;
  settings->authenticated_binding = config.authenticated_binding;
  for (const Text& text : config.deny_clients) {
    std::string why;
    settings->denied_clients.push_back(*net::AddressRange::parse(text.value, why));
  }
  choose_listeners(config, host, built, errors);
  check_nat_discovery(config, built, errors);
  settings->listeners = built.listeners;
  for (const auto& address : built.dtls)
    if (std::find(built.listeners.begin(), built.listeners.end(), address) == built.listeners.end()) settings->listeners.push_back(address);
  check_metrics(config, built, errors);
  read_certificates(config, built, errors);
  settings->relay_addresses = choose_relay_addresses(config, host, built, errors);
  map_external(config, settings->relay_addresses, known, nullptr, built, errors);
  settings->directory = read_credentials(config, built, errors);
  settings->peers = make_policy(config, host, settings->relay_addresses, built, errors);
  auto connections = std::make_shared<ConnectionSettings>();
  connections->identity = built.identity;
  connections->per_source = config.connections_per_source;
  connections->total = config.connections;
  for (const Text& text : config.proxy_protocol_from) {
    std::string why;
    connections->proxy_protocol_from.push_back(*net::AddressRange::parse(text.value, why));
  }
  build_realms_and_redirects(config, host, *settings, built, errors);
  if (errors.size() != before) return std::nullopt;
  built.connections = std::move(connections);
  built.settings = std::move(settings);
  return built;
}

std::optional<Built> rebuild_addresses(const Config& config, const Built& before, std::vector<io::HostAddress> host, const ExternalAnswers& known,
                                       ConfigErrors& errors) {
  const std::size_t mistakes = errors.size();
  // What a key names counts as there, and is in no wildcard.
  std::vector<net::IpAddress> missing;
  const auto expect = [&](const net::IpAddress& ip) {
    if (ip.is_unspecified() || is_of_host(ip, host)) return;
    io::HostAddress address;
    address.ip = ip;
    address.deprecated_or_temporary = true;
    host.push_back(std::move(address));
    missing.push_back(ip);
  };
  for (const Text& text : config.relay_addresses) expect(*net::IpAddress::parse(text.value));
  for (const auto* list : {&config.listen_udp, &config.listen_tcp, &config.listen_tls, &config.listen_dtls, &config.stun_only})
    for (const Text& text : *list) expect(net::TransportAddress::parse(text.value)->ip);
  for (const RealmConfig& realm : config.realms)
    for (const Text& text : realm.listeners) expect(net::TransportAddress::parse(text.value)->ip);

  Built built = before;
  built.questions.clear();
  built.notes.clear();
  auto settings = std::make_shared<turn::Settings>(*before.settings);
  choose_listeners(config, host, built, errors);
  settings->listeners = built.listeners;
  for (const auto& address : built.dtls)
    if (std::find(built.listeners.begin(), built.listeners.end(), address) == built.listeners.end()) settings->listeners.push_back(address);
  auto& relays = settings->relay_addresses;
  relays = choose_relay_addresses(config, host, built, errors);
  const auto is_missing = [&](const turn::RelayAddress& a) { return std::find(missing.begin(), missing.end(), a.local) != missing.end(); };
  if (!std::all_of(relays.begin(), relays.end(), is_missing)) std::erase_if(relays, is_missing);
  map_external(config, relays, known, &before, built, errors);
  settings->peers = make_policy(config, host, relays, built, errors);
  rebuild_realms_and_redirects(config, host, *settings, built, errors);
  std::erase_if(built.notes, [](const std::string& note) { return note.starts_with("peers.allow"); });  // said at the start
  if (errors.size() != mistakes) return std::nullopt;
  built.settings = std::move(settings);
  return built;
}

std::optional<offload::OffloadSettings> offload_settings(const Config& config) {
  if (config.xdp.word == "off") return std::nullopt;
  offload::OffloadSettings settings;
  settings.automatic = config.xdp.word == "auto";
  for (const Text& text : config.xdp.interfaces) {
    const std::size_t blank = text.value.find(' ');
    settings.interfaces.push_back({text.value.substr(0, blank), blank != std::string::npos});
  }
  return settings;
}

std::string print_on_host(const Config& config, const std::vector<io::HostAddress>& host) {
  Built built;
  ConfigErrors errors;
  choose_listeners(config, host, built, errors);
  check_nat_discovery(config, built, errors);
  auto addresses = choose_relay_addresses(config, host, built, errors);
  map_external(config, addresses, {}, nullptr, built, errors);
  std::string out = "\n# On this host that means:\n";
  for (const auto& listener : built.listeners) out += fmt::format("#   listens on {}{}\n", listener.text(), built.dtls.empty() ? "" : " (UDP and DTLS)");
  for (const auto& listener : built.tcp) out += fmt::format("#   listens on {} (TCP{})\n", listener.text(), has_certificate(config) ? " and TLS" : "");
  for (const auto& listener : built.tls) out += fmt::format("#   listens on {} (TLS)\n", listener.text());
  for (const auto& listener : built.dtls)
    if (std::find(built.listeners.begin(), built.listeners.end(), listener) == built.listeners.end()) out += fmt::format("#   listens on {} (DTLS)\n", listener.text());
  if (config.nat_discovery)
    for (const auto& pair : turn::discovery_pairs(built.listeners))
      out += fmt::format("#   NAT behaviour discovery between {} and {}, ports {} and {}\n", pair.first.text(), pair.second.text(), pair.first_port, pair.second_port);
  for (const auto& question : built.questions)
    out += fmt::format("#   asks {} for the external address of {} when it runs\n", question.source, question.local.text());
  for (const auto& a : addresses)
    out += a.external == a.local ? fmt::format("#   relays from {}\n", a.local.text())
                                 : fmt::format("#   relays from {}, which clients are told as {}\n", a.local.text(), a.external.text());
  for (const auto& note : built.notes) out += fmt::format("#   note: {}\n", note);
  for (const auto& error : errors) out += fmt::format("#   mistake: {}\n", error.text());
  return out;
}

}  // namespace radiotower::daemon
