#include "settings_builder.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <set>

namespace radiotower::daemon {

namespace {

bool is_usable(const io::HostAddress& a) { return !a.loopback && !a.ip.is_loopback() && !a.ip.is_link_local() && !a.deprecated_or_temporary; }

/// Calls `line(text, number)` for each line that says something. False: the file cannot be used, and why has been said.
bool for_each_line(const std::string& path, std::string_view key, ConfigErrors& errors, const std::function<void(std::string_view, int)>& line) {
  struct stat status {};
  if (stat(path.c_str(), &status) != 0) {
    errors.push_back({path, std::string(key), fmt::format("cannot be read: {}", std::strerror(errno)), "relative names are relative to the folder of the configuration file"});
    return false;
  }
  if (!S_ISREG(status.st_mode) && !S_ISFIFO(status.st_mode)) {
    errors.push_back({path, std::string(key), "is not a file", ""});
    return false;
  }
  if (status.st_mode & (S_IROTH | S_IWOTH | S_IWGRP)) {
    errors.push_back({path, std::string(key), fmt::format("mode {:04o} lets others at the secrets in it", status.st_mode & 07777), fmt::format("chmod 0600 {}", path)});
    return false;
  }
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    errors.push_back({path, std::string(key), fmt::format("cannot be read: {}", std::strerror(errno)), "it must belong to the user the relay runs as"});
    return false;
  }
  std::string text;
  for (int number = 1; std::getline(file, text); ++number) {
    std::string_view rest = text;
    while (!rest.empty() && (rest.back() == '\r' || rest.back() == ' ' || rest.back() == '\t')) rest.remove_suffix(1);
    while (!rest.empty() && (rest.front() == ' ' || rest.front() == '\t')) rest.remove_prefix(1);
    if (rest.empty() || rest.front() == '#') continue;
    line(rest, number);
  }
  return true;
}

template <typename Number>
bool parse_number(std::string_view text, Number& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return !text.empty() && error == std::errc() && end == text.data() + text.size();
}

}  // namespace

std::vector<std::string> read_secrets(const std::string& path, std::string_view key, ConfigErrors& errors) {
  std::vector<std::string> secrets;
  const std::size_t before = errors.size();
  for_each_line(path, key, errors, [&](std::string_view line, int number) {
    const std::string where = fmt::format("{}:{}", path, number);
    if (line.size() < 8) errors.push_back({where, std::string(key), fmt::format("a secret of {} characters is guessed in no time", line.size()), "head -c 32 /dev/urandom | base64"});
    else if (std::find(secrets.begin(), secrets.end(), line) != secrets.end()) errors.push_back({where, std::string(key), "this secret stands there twice", "remove one of both"});
    else secrets.emplace_back(line);
  });
  if (secrets.empty() && errors.size() == before)
    errors.push_back({path, std::string(key), "holds no secret", "one a line, the newest first: head -c 32 /dev/urandom | base64"});
  return secrets;
}

std::vector<turn::User> read_users(const std::string& path, std::string_view key, ConfigErrors& errors) {
  std::vector<turn::User> users;
  std::set<std::string> names;
  const std::size_t before = errors.size();
  for_each_line(path, key, errors, [&](std::string_view line, int number) {
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
      const auto bytes = stun::from_hex(password.substr(2));
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
      bool good = false;
      if (option == "allocations") good = parse_number(value, user.allocations.emplace());
      else if (option == "bytes_per_second") good = parse_number(value, user.bytes_per_second.emplace());
      if (!good) return wrong(fmt::format("\"{}\" is not understood", word), form + "; a password cannot hold blanks");
    }
    if (!names.insert(user.name).second) return wrong(fmt::format("user \"{}\" stands there twice", user.name), "remove one of both");
    users.push_back(std::move(user));
  });
  if (users.empty() && errors.size() == before) errors.push_back({path, std::string(key), "holds no user", "name:password, one a line"});
  return users;
}

std::optional<Built> build_settings(const Config& config, const std::vector<io::HostAddress>& host, ConfigErrors& errors) {
  const std::size_t before = errors.size();
  Built built;
  auto settings = std::make_shared<turn::Settings>();
  settings->realm = config.realm;
  settings->limits = config.limits;
  settings->first_port = config.first_port;
  settings->last_port = config.last_port;
  settings->strict_expiry = config.strict_expiry;
  settings->rfc5766_channel_numbers = config.rfc5766_channel_numbers;

  // Listeners. A wildcard becomes one socket an address: answers then leave from the address that was asked.
  for (const Text& text : config.listen_udp) {
    const net::TransportAddress address = *net::TransportAddress::parse(text.value);
    if (!address.ip.is_unspecified()) {
      const bool ours = std::any_of(host.begin(), host.end(), [&](const auto& a) { return a.ip == address.ip; }) ||
                        (address.ip.is_v4() && address.ip.bytes[12] == 127);
      if (!ours) errors.push_back({text.source, "listen.udp", fmt::format("{} is no address of this host", address.ip.text()), "`ip address` shows what it has"});
      built.listeners.push_back(address);
      continue;
    }
    bool any = false;
    for (const auto& a : host) {
      if (a.ip.family() != address.family() || (a.ip.is_link_local() && !a.ip.is_v4()) || (a.deprecated_or_temporary)) continue;
      built.listeners.push_back({a.ip, address.port, 0});
      any = true;
    }
    if (!any) built.notes.push_back(fmt::format("this host has no {} address, so {} listens nowhere", address.ip.is_v4() ? "IPv4" : "IPv6", text.value));
  }
  std::sort(built.listeners.begin(), built.listeners.end());
  built.listeners.erase(std::unique(built.listeners.begin(), built.listeners.end()), built.listeners.end());
  if (built.listeners.empty()) errors.push_back({std::string(config.source("listen.udp")), "listen.udp", "no address is left to listen on", "`ip address` shows what this host has"});
  settings->listeners = built.listeners;

  // Relay addresses: those of the configuration, or every usable one; loopback only when there is nothing else.
  if (config.relay_addresses.empty()) {
    for (const auto& a : host)
      if (is_usable(a)) settings->relay_addresses.push_back({a.ip, a.ip});
    if (settings->relay_addresses.empty()) {
      for (const auto& a : host)
        if (a.ip.is_loopback()) settings->relay_addresses.push_back({a.ip, a.ip});
      built.notes.push_back("this host has no address but loopback, so relayed addresses are loopback ones: good for a try on this machine alone");
    }
  } else {
    for (const Text& text : config.relay_addresses) {
      const net::IpAddress ip = *net::IpAddress::parse(text.value);
      const bool ours = std::any_of(host.begin(), host.end(), [&](const auto& a) { return a.ip == ip; }) || (ip.is_v4() && ip.bytes[12] == 127);
      if (!ours || ip.is_unspecified())
        errors.push_back({text.source, "relay.addresses", fmt::format("{} is no address of this host", text.value), "`ip address` shows what it has; the public address behind a NAT belongs into relay.external"});
      settings->relay_addresses.push_back({ip, ip});
    }
  }
  // "public/private", or "public" where there is one relay address of that family.
  for (const Text& text : config.external) {
    const std::size_t slash = text.value.find('/');
    const net::IpAddress external = *net::IpAddress::parse(text.value.substr(0, slash));
    std::vector<turn::RelayAddress*> matching;
    for (auto& address : settings->relay_addresses) {
      const bool named = slash != std::string::npos && address.local == *net::IpAddress::parse(text.value.substr(slash + 1));
      if (named || (slash == std::string::npos && address.local.family() == external.family())) matching.push_back(&address);
    }
    if (matching.size() == 1) matching.front()->external = external;
    else if (matching.empty()) errors.push_back({text.source, "relay.external", fmt::format("\"{}\" belongs to no relay address", text.value), "\"public/private\" with a private address of relay.addresses"});
    else errors.push_back({text.source, "relay.external", fmt::format("\"{}\" could be of {} relay addresses", text.value, matching.size()), "write \"public/private\""});
  }

  for (const Text& text : config.deny_clients) {
    std::string why;
    settings->denied_clients.push_back(*net::AddressRange::parse(text.value, why));
  }

  // Credentials.
  turn::Directory::Input input;
  input.realm = config.realm;
  input.rest_separator = config.rest_separator;
  std::string secrets_file = config.secrets_file, users_file = config.users_file;
  if (const char* folder = std::getenv("CREDENTIALS_DIRECTORY")) {  // LoadCredential= of the unit (systemd.exec(5))
    const auto loaded = [&](const char* name) {
      const std::string path = fmt::format("{}/{}", folder, name);
      struct stat status {};
      return stat(path.c_str(), &status) == 0 ? path : std::string();
    };
    if (secrets_file.empty()) secrets_file = loaded("secrets");
    if (users_file.empty()) users_file = loaded("users");
  }
  if (!secrets_file.empty()) input.rest_secrets = read_secrets(secrets_file, "credentials.secrets_file", errors);
  if (!users_file.empty()) input.users = read_users(users_file, "credentials.users_file", errors);
  if (config.open_relay_for_everyone) {
    if (!secrets_file.empty() || !users_file.empty())
      errors.push_back({std::string(config.source("credentials.open_relay_for_everyone")), "credentials.open_relay_for_everyone",
                        "an open relay asks nobody for credentials, yet there are some", "remove this key, or both files"});
    settings->authentication = false;
    built.notes.push_back("OPEN RELAY: anybody who reaches this port relays through this host, with its address (credentials.open_relay_for_everyone = true)");
  } else if (secrets_file.empty() && users_file.empty()) {
    errors.push_back({"", "credentials", "neither a secrets file nor a users file is given, and this relay is never open by accident",
                      "credentials.secrets_file = \"secrets\" with one secret in it: head -c 32 /dev/urandom | base64"});
  }
  settings->directory = std::make_shared<turn::Directory>(std::move(input));

  // Peers.
  net::PeerPolicySettings peers;
  std::string why;
  for (const Text& text : config.allow) peers.allow.push_back(*net::PeerRule::parse(text.value, why));
  for (const Text& text : config.deny) peers.deny.push_back(*net::PeerRule::parse(text.value, why));
  peers.allow_only = config.allow_only;
  if (config.allow_only && config.allow.empty())
    errors.push_back({std::string(config.source("peers.allow_only")), "peers.allow_only", "nothing is allowed, so no call could go through", "list the peers in peers.allow: [\"10.1.2.3:8443\"]"});
  for (const auto& a : host) {
    peers.host_addresses.push_back(a.ip);
    if (!a.broadcast.is_unspecified() && a.broadcast != net::IpAddress{}) peers.broadcast_addresses.push_back(a.broadcast);
  }
  for (const auto& a : settings->relay_addresses) {
    peers.relay_addresses.push_back(a.local);
    if (a.external != a.local) peers.relay_addresses.push_back(a.external);
  }
  peers.own_endpoints = built.listeners;
  settings->peers = std::make_shared<net::PeerPolicy>(std::move(peers));

  if (errors.size() != before) return std::nullopt;
  built.settings = std::move(settings);
  return built;
}

}  // namespace radiotower::daemon
