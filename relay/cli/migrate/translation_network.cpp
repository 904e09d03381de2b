// Where clients come in and where packets leave: listeners, certificates, relay addresses, ports, redirects, metrics.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "translator.h"

namespace radiotower::cli {

namespace {

constexpr long long no_port = 0, largest_port = 65535;

std::string in_toml(const net::IpAddress& ip) { return ip.is_v4() ? ip.text() : fmt::format("[{}]", ip.text()); }

/// "192.0.2.1", and as some write it "[2001:db8::1]".
std::optional<net::IpAddress> bare_address(std::string_view text) {
  if (text.size() > 2 && text.front() == '[' && text.back() == ']') text = text.substr(1, text.size() - 2);
  return net::IpAddress::parse(text);
}

/// "192.0.2.1:3478", "[2001:db8::1]:3478", and with `port` not 0 an address alone.
std::optional<net::TransportAddress> with_port(std::string_view text, std::uint16_t port) {
  if (const auto both = net::TransportAddress::parse(text); both && both->port != 0) return both;
  const auto ip = bare_address(text);
  if (!ip || port == 0) return std::nullopt;
  return net::TransportAddress{*ip, port, 0};
}

bool can_be_reached(const net::IpAddress& ip) { return !ip.is_unspecified() && !ip.is_multicast() && (ip.is_v4() || !ip.is_link_local()); }

std::vector<std::string> times(const std::vector<std::string>& addresses, long long port) {
  std::vector<std::string> out;
  for (const auto& address : addresses) out.push_back(fmt::format("{}:{}", address, port));
  return out;
}

void add_once(std::vector<std::string>& list, const std::vector<std::string>& more) {
  for (const auto& text : more)
    if (std::find(list.begin(), list.end(), text) == list.end()) list.push_back(text);
}

bool is_name(std::string_view text) {
  return !text.empty() && text.size() <= 253 &&
         text.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") == text.npos &&
         text.find_first_not_of("0123456789.") != text.npos;
}

}  // namespace

std::vector<std::string> Translator::auxiliary() {
  std::vector<std::string> out;
  for (const std::size_t line : lines("aux-server")) {
    const auto address = with_port(value_of(line), 0);
    if (address) add_once(out, {address->text()});
    else judge(line, Verdict::refused, "is no address and port, as 192.0.2.1:33478 or [2001:db8::1]:33478");
  }
  return out;
}

void Translator::listeners() {
  for (const std::size_t line : lines("listening-ip")) {
    const auto ip = bare_address(value_of(line));
    if (ip && !ip->is_multicast()) add_once(listen_, {in_toml(*ip)});
    else judge(line, Verdict::refused, "is no IP address of a host: listeners are given by address here", "listen.udp");
  }
  const bool everywhere = !given("listening-ip");
  if (everywhere) listen_ = {"0.0.0.0", "[::]"};
  else if (listen_.empty())
    alarm(
        "no listening-ip is one that can be listened on, so the result listens nowhere and does not start, rather than on every address: write "
        "addresses into listen.udp and listen.tcp");
  long long plain = 3478, secure = 5349;
  const bool plain_given = number("listening-port", no_port, largest_port, plain),
             secure_given = number("tls-listening-port", no_port, largest_port, secure);
  if (plain == 0) plain = 3478;
  if (secure == 0) secure = 5349;
  const auto more = auxiliary();
  std::vector<std::string> udp = times(listen_, plain), tcp = udp, tls = times(listen_, secure);
  add_once(udp, more);
  add_once(tcp, more);
  const bool certificate = given("cert") && given("pkey") && is_utf8(value("cert") + value("pkey")) && (!on("no-tls") || on("dtls"));
  const bool changed = plain_given || !everywhere || !more.empty();
  if (on("no-udp")) udp.clear();
  if (on("no-tcp")) tcp.clear();
  if (on("no-tls") || !certificate) tls.clear();
  // What takes plain TCP takes TLS too, so one port for both needs no second listener.
  const bool same_port = plain == secure && !tcp.empty();
  if (same_port) std::erase_if(tls, [&](const auto& address) { return std::find(tcp.begin(), tcp.end(), address) != tcp.end(); });
  if (changed || on("no-udp")) toml_.set("listen.udp", toml_list(udp));
  if (changed || on("no-tcp")) toml_.set("listen.tcp", toml_list(tcp));
  if (on("no-tls") || same_port || (certificate && (secure_given || !everywhere))) toml_.set("listen.tls", toml_list(tls));
  if (secure_given && !certificate)
    judge_all("tls-listening-port", Verdict::ignored, on("no-tls") ? "no-tls is there too" : "there is no certificate, so there is no TLS");
  std::vector<std::string> dtls;
  if (on("dtls") && certificate) {
    dtls = times(listen_, secure);
    toml_.set("listen.dtls", toml_list(dtls));
  } else if (on("dtls")) {
    judge_all("dtls", Verdict::ignored, "DTLS needs a certificate, and there is none");
  }
  if (given("no-dtls") && !on("no-dtls") && !on("dtls"))
    judge_all("no-dtls", Verdict::ignored, "DTLS is off until dtls asks for it, as in today's coturn");
  for (const auto* list : {&udp, &tcp, &tls, &dtls}) add_once(all_listeners_, *list);
  const auto port_of = [](const std::string& address) { return std::stoi(address.substr(address.rfind(':') + 1)); };
  const auto privileged = std::find_if(all_listeners_.begin(), all_listeners_.end(), [&](const auto& address) { return port_of(address) < 1024; });
  if (privileged != all_listeners_.end())
    differs(fmt::format("Port {} is below 1024, where the unit may not listen unless the drop-in radiotower-relay-443.conf grants it: docs/tls.md, \"Port 443\". "
                        "coturn had it as root, or by a capability.",
                        port_of(*privileged)));
  if (on("stun-only")) toml_.set("listen.stun_only", toml_list(all_listeners_));
  discovery();
}

void Translator::discovery() {
  long long alternative = 0;
  std::string port = value("listening-port");
  long long plain = 3478;
  bool whole = false;
  if (!port.empty()) plain = std::max<long long>(1, leading_number(port, whole));
  number("alt-listening-port", no_port, largest_port, alternative);
  if (alternative == 0) alternative = std::min<long long>(plain + 1, largest_port);
  std::vector<std::string> four, six;
  for (const auto& address : listen_)
    if (address != "0.0.0.0" && address != "[::]") (address.starts_with('[') ? six : four).push_back(address);
  const bool two = four.size() > 1 || six.size() > 1;
  if (!on("rfc5780") || !two || on("no-udp")) {
    if (on("rfc5780")) judge_all("rfc5780", Verdict::ignored, "takes two addresses of a family in listening-ip, in coturn too");
    judge_all("alt-listening-port", Verdict::ignored, "of use for NAT discovery alone, which is off");
    if (!given("rfc5780") && !on("no-rfc5780") && two)
      differs(
          "NAT discovery (RFC 5780), which older versions of coturn offer by themselves on two addresses, is off: [features] nat_discovery = true, "
          "with both ports in listen.udp.");
    return;
  }
  std::vector<std::string> udp = times(listen_, plain);
  add_once(udp, times(listen_, alternative));
  add_once(udp, auxiliary());
  toml_.set("listen.udp", toml_list(udp));
  toml_.set("features.nat_discovery", "true");
  if (on("stun-only")) {
    add_once(all_listeners_, udp);
    toml_.set("listen.stun_only", toml_list(all_listeners_));
  }
}

void Translator::certificates() {
  const auto absolute = [&](const std::string& name) {
    const std::filesystem::path path = name;
    return path.is_absolute() || input_.folder.empty() ? path.lexically_normal().string()
                                                       : (std::filesystem::path(input_.folder) / path).lexically_normal().string();
  };
  const std::string certificate = value("cert"), key = value("pkey");
  for (const char* option : {"cert", "pkey"})
    if (!is_utf8(value(option)))
      return judge_all(option, Verdict::refused, "the name of the file is no UTF-8, which relay.toml has to be",
                       "listen.certificate, listen.private_key");
  if (!certificate.empty() && !key.empty()) {
    if (on("no-tls") && !on("dtls")) {
      judge_all("cert", Verdict::ignored, "no-tls is there too, so nothing needs it");
      judge_all("pkey", Verdict::ignored, "no-tls is there too, so nothing needs it");
      return;
    }
    toml_.set("listen.certificate", toml_quoted(absolute(certificate)), "The user of the relay must be able to read both: root:radiotower, 0640.");
    toml_.set("listen.private_key", toml_quoted(absolute(key)));
    for (const char* option : {"cert", "pkey"})
      if (!std::filesystem::path(value(option)).is_absolute())
        judge_all(option, Verdict::mapped,
                  fmt::format("taken as {}, beside turnserver.conf; coturn looks in other folders too", absolute(value(option))));
    differs(fmt::format("The relay runs as the user radiotower and must be able to read {} and {} (chgrp radiotower, chmod 0640), and to pass through each folder "
                        "above them (chmod o+x). Where a program renews them, have it copy both to /etc/radiotower and reload: docs/tls.md.",
                        absolute(certificate), absolute(key)));
    differs("TLS is 1.2 and 1.3 with forward secrecy and AEAD alone; a renewed certificate is taken over by a reload, without a restart.");
    return;
  }
  if (!certificate.empty())
    judge_all("cert", Verdict::refused, "without pkey there is no TLS: add the key's file, or private_key in [listen]", "listen.certificate");
  if (!key.empty())
    judge_all("pkey", Verdict::refused, "without cert there is no TLS: add the certificate's file, or certificate in [listen]", "listen.private_key");
  if (!on("no-tls"))
    differs(
        "There is no certificate, so there is neither TLS nor DTLS; coturn would look for turn_server_cert.pem in several folders. `radiotower "
        "certificate` makes one.");
}

void Translator::relay_addresses() {
  std::vector<std::string> relays;
  for (const std::size_t line : lines("relay-ip")) {
    const auto ip = bare_address(value_of(line));
    if (ip && ip->is_unspecified()) judge(line, Verdict::used, "every usable address of the host, as by default");
    else if (ip && can_be_reached(*ip)) add_once(relays, {ip->text()});
    else judge(line, Verdict::refused, "is no IP address that a relayed address can be made of", "relay.addresses");
  }
  const bool from_listeners = relays.empty();
  if (from_listeners) {
    std::vector<std::string> loopback;
    for (const auto& address : listen_) {
      const auto ip = bare_address(address);
      if (!can_be_reached(*ip)) continue;
      add_once(ip->is_loopback() ? loopback : relays, {ip->text()});
    }
    if (relays.empty() && !listen_.empty() &&
        std::none_of(listen_.begin(), listen_.end(), [](const auto& a) { return a == "0.0.0.0" || a == "[::]"; }))
      relays = loopback;
  }
  external(relays);
  if (!relays.empty() && !toml_.has("relay.addresses"))
    toml_.set("relay.addresses", toml_list(relays), from_listeners ? "There is no relay-ip: as in coturn those of listening-ip." : "");
}

void Translator::external(const std::vector<std::string>& relays) {
  std::vector<std::string> entries, chosen;
  bool alone_said = false;
  const auto of_family = [](const std::vector<std::string>& list, net::Family family) {
    std::vector<std::string> out;
    for (const auto& text : list)
      if (net::IpAddress::parse(text)->family() == family) out.push_back(text);
    return out;
  };
  std::vector<std::string> host;
  for (const auto& ip : input_.host.usable) add_once(host, {ip.text()});
  for (const std::size_t line : lines("external-ip")) {
    const std::string& text = value_of(line);
    const std::size_t slash = text.find('/');
    const std::string before = text.substr(0, slash);
    const auto outer = net::IpAddress::parse(before);
    const bool named = !outer && is_name(before);
    const auto inner = slash == text.npos ? std::nullopt : net::IpAddress::parse(text.substr(slash + 1));
    const std::string ours = named ? "dns:" + before : outer ? outer->text() : std::string();
    if (ours.empty() || (slash != text.npos && !inner) || (outer && inner && outer->family() != inner->family()) ||
        (outer && (outer->is_link_local() || !can_be_reached(*outer)))) {
      judge(line, Verdict::refused, "is neither PUBLIC nor PUBLIC/PRIVATE, two addresses of a family that somebody can reach", "relay.external");
      continue;
    }
    if (slash != text.npos) {
      add_once(entries, {fmt::format("{}/{}", ours, inner->text())});
      if (named) judge(line, Verdict::mapped, "looked up at the start, and followed when it changes");
      continue;
    }
    if (alone_said) {
      judge(line, Verdict::refused, "a second one without /PRIVATE, which coturn ignores", "relay.external");
      continue;
    }
    alone_said = true;
    // One for all relay addresses of the family, in coturn; an entry for each here.
    const net::Family family = outer ? outer->family() : net::Family::ipv4;
    auto inside = of_family(relays, family);
    if (inside.empty()) {
      const auto usable = of_family(host, family);
      const auto& route = family == net::Family::ipv4 ? input_.host.route_v4 : input_.host.route_v6;
      if (std::find(usable.begin(), usable.end(), ours) != usable.end()) inside = {ours};
      else if (usable.size() > 1 && route) inside = {route->text()};
      if (!inside.empty()) {
        chosen = inside;
        judge(line, Verdict::mapped,
              fmt::format("with relay.addresses = [\"{}\"], the one of this host that packets to the Internet leave from", inside.front()),
              "relay.external, relay.addresses");
      }
    }
    if (inside.size() == 1 && inside.front() == ours) {
      judge(line, Verdict::mapped, "an address of this host, so nothing is between it and its clients", "relay.addresses");
      continue;
    }
    if (inside.empty()) add_once(entries, {ours});
    for (const auto& address : inside) add_once(entries, {fmt::format("{}/{}", ours, address)});
  }
  if (!chosen.empty())
    toml_.set("relay.addresses", toml_list(chosen),
              "coturn relays from any address; behind a NAT it is this one that clients are told another one for.");
  if (!entries.empty()) toml_.set("relay.external", toml_list(entries));
}

void Translator::ports() {
  constexpr long long lowest = 1024;
  long long first = 49152, last = 65535;
  const bool first_given = number("min-port", no_port, largest_port, first), last_given = number("max-port", no_port, largest_port, last);
  if (first < lowest) {
    judge_all("min-port", Verdict::refused, "a relayed address never has a port below 1024 (RFC 8656, 7.2): 1024 instead", "relay.ports");
    first = lowest;
  }
  if (last < first) {
    judge_all("max-port", Verdict::refused, fmt::format("less than the lower end, {}: 65535 instead", first), "relay.ports");
    last = largest_port;
  }
  toml_.set("relay.ports", fmt::format("\"{}-{}\"", first, last), first_given || last_given ? "" : "coturn's default, which the firewall knows.");
}

void Translator::redirects() {
  std::vector<std::string> plain, secure;
  for (const char* option : {"alternate-server", "udp-alternate-server", "tcp-alternate-server", "tls-alternate-server"}) {
    const bool tls = std::string_view(option).starts_with("tls");
    for (const std::size_t line : lines(option)) {
      const auto server = with_port(value_of(line), tls ? 5349 : 3478);
      if (server && can_be_reached(server->ip)) add_once(tls ? secure : plain, {server->text()});
      else judge(line, Verdict::refused, "is no address of another relay, as 192.0.2.7:3478", tls ? "redirect.secure_servers" : "redirect.servers");
    }
  }
  if (plain.empty() && secure.empty()) return;
  if (!plain.empty()) toml_.set("redirect.servers", toml_list(plain));
  if (!secure.empty()) toml_.set("redirect.secure_servers", toml_list(secure));
  toml_.set("redirect.when", "\"always\"", "As coturn does; \"full\" and \"draining\" are there too.");
  differs("Clients are sent to other relays only after they have proved who they are, and one client always to the same one.");
}

void Translator::metrics() {
  const bool asked = on("prometheus") || on("prometheus-tls");
  long long port = 9641;
  number("prometheus-port", 1, largest_port, port);
  if (!asked) {
    for (const char* option : {"prometheus-port", "prometheus-address"}) judge_all(option, Verdict::ignored, "there is no prometheus beside it");
    return;
  }
  std::string address = "127.0.0.1";
  for (const std::size_t line : lines("prometheus-address")) {
    const auto ip = bare_address(value_of(line));
    if (!ip) {
      judge(line, Verdict::refused, "is no IP address", "metrics.listen");
      continue;
    }
    address = in_toml(*ip);
    if (!ip->is_loopback())
      judge(line, Verdict::mapped, "everybody who reaches this address can read the metrics: loopback or a Unix socket is safer");
  }
  toml_.set("metrics.listen", toml_quoted(fmt::format("{}:{}", address, port)));
  toml_.set("metrics.coturn_names", "true", "Dashboards made for coturn go on; false has more and better ones.");
  if (!given("prometheus-address"))
    differs(
        fmt::format("Metrics are on 127.0.0.1:{} alone; coturn offers them on every address. A Prometheus on another host needs [metrics] listen = "
                    "\"ADDRESS:{}\".",
                    port, port));
}

}  // namespace radiotower::cli
