#include "url.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace radiotower::cli {

namespace {

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return out;
}

bool is_host_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '_';
}

std::optional<std::uint16_t> parse_port(std::string_view text, std::string& why) {
  unsigned value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc{} || end != text.data() + text.size() || value == 0 || value > 65535) {
    why = fmt::format("\"{}\" is no port: a number from 1 to 65535 stands behind the colon", text);
    return std::nullopt;
  }
  return static_cast<std::uint16_t>(value);
}

/// An IPv6 address, with a zone for link-local ones ("fe80::1%eth0").
bool is_ipv6(std::string_view text) {
  const auto zone = text.find('%');
  if (zone != std::string_view::npos && zone + 1 == text.size()) return false;
  return text.find(':') != std::string_view::npos && net::IpAddress::parse(text.substr(0, zone)).has_value();
}

bool host_is_sound(std::string_view host, std::string& why) {
  if (host.empty()) {
    why = "the host is missing";
    return false;
  }
  const auto odd = std::find_if_not(host.begin(), host.end(), is_host_character);
  if (odd != host.end()) {
    why = fmt::format("\"{}\" is no host name: it holds \"{}\"", host, *odd);
    return false;
  }
  const bool only_digits = host.find_first_not_of("0123456789.") == std::string_view::npos;
  if (only_digits && !net::IpAddress::parse(host)) {
    why = fmt::format("\"{}\" is no IPv4 address: it needs four numbers from 0 to 255", host);
    return false;
  }
  return true;
}

/// What stands in front of the first colon, when that is one of the four schemes.
std::string scheme_of(std::string_view text) {
  const auto colon = text.find(':');
  if (colon == std::string_view::npos) return {};
  const std::string scheme = lower(text.substr(0, colon));
  return scheme == "stun" || scheme == "stuns" || scheme == "turn" || scheme == "turns" ? scheme : std::string();
}

}  // namespace

std::string HostPort::text() const { return ipv6_literal ? fmt::format("[{}]:{}", host, port) : fmt::format("{}:{}", host, port); }

HostPort HostPort::of(const net::TransportAddress& address) {
  return {address.ip.text(), address.port, address.family() == net::Family::ipv6};
}

std::optional<HostPort> parse_host_port(std::string_view text, std::uint16_t port_when_absent, std::string& why) {
  HostPort out;
  out.port = port_when_absent;
  std::string_view port;
  if (text.find('@') != std::string_view::npos) {
    why = "a user name has no place in an address (RFC 7065, 3.1): give it with --user";
    return std::nullopt;
  }
  if (!text.empty() && text.front() == '[') {
    const auto close = text.find(']');
    if (close == std::string_view::npos || !is_ipv6(text.substr(1, close - 1))) {
      why = "an IPv6 address stands between [ and ]";
      return std::nullopt;
    }
    out.host = text.substr(1, close - 1);
    out.ipv6_literal = true;
    const std::string_view rest = text.substr(close + 1);
    if (rest.empty()) return out;
    if (rest.front() != ':') {
      why = fmt::format("after ] comes a colon and a port, not \"{}\"", rest);
      return std::nullopt;
    }
    port = rest.substr(1);
  } else if (is_ipv6(text)) {  // unmistakable on a command line, though not in a URL
    out.host = text;
    out.ipv6_literal = true;
    return out;
  } else {
    const auto colon = text.rfind(':');
    out.host = text.substr(0, colon);
    if (!host_is_sound(out.host, why)) return std::nullopt;
    if (colon == std::string_view::npos) return out;
    port = text.substr(colon + 1);
  }
  const auto number = parse_port(port, why);
  if (!number) return std::nullopt;
  out.port = *number;
  return out;
}

/// What stands behind the scheme of a URL.
std::optional<HostPort> parse_authority(std::string_view rest, std::string_view scheme, std::uint16_t port_when_absent, bool& port_given, std::string& why) {
  if (rest.substr(0, 2) == "//") {
    why = fmt::format("a {0}: URL has no // (RFC {1}, 3.1): write {0}:HOST[:PORT]", scheme, scheme.substr(0, 4) == "stun" ? 7064 : 7065);
    return std::nullopt;
  }
  // The RFCs leave no room for a bare IPv6 address: its last group could be a port.
  if (rest.find('[') == std::string_view::npos && is_ipv6(rest)) {
    why = fmt::format("an IPv6 address stands in brackets in a URL (RFC {}, 3.1): {}:[{}]", scheme.substr(0, 4) == "stun" ? 7064 : 7065, scheme, rest);
    return std::nullopt;
  }
  auto server = parse_host_port(rest, 0, why);
  if (!server) return std::nullopt;
  port_given = server->port != 0;
  if (!port_given) server->port = port_when_absent;
  return server;
}

std::optional<HostPort> parse_stun_target(std::string_view text, std::string& why) {
  const auto url = parse_stun_url(text, why);
  if (!url) return std::nullopt;
  if (url->secure()) {
    why = "this is asked over UDP: use stun:HOST[:PORT]";
    return std::nullopt;
  }
  return url->server;
}

std::optional<Url> parse_stun_url(std::string_view text, std::string& why) {
  Url url;
  url.scheme = Scheme::stun;
  const std::string scheme = scheme_of(text);
  // A host may be called "turn" ("turn:3478"): what follows the colon decides.
  const bool port_follows = !scheme.empty() && text.size() > scheme.size() + 1 &&
                            text.find_first_not_of("0123456789", scheme.size() + 1) == std::string_view::npos;
  if (scheme.empty() || port_follows) {
    auto server = parse_host_port(text, 0, why);
    if (!server) return std::nullopt;
    url.port_given = server->port != 0;
    if (!url.port_given) server->port = default_port;
    url.server = std::move(*server);
    return url;
  }
  if (scheme != "stun" && scheme != "stuns") {
    why = fmt::format("{}: is a relay's URL: test it with `radiotower turn`, or give HOST[:PORT] alone", scheme);
    return std::nullopt;
  }
  if (scheme == "stuns") url.scheme = Scheme::stuns;
  const std::string_view rest = text.substr(scheme.size() + 1);
  if (rest.find('?') != std::string_view::npos) {
    why = fmt::format("a {}: URL has no ?transport=... (RFC 7064, 3.1; browsers refuse it); --transport says it to this tool", scheme);
    return std::nullopt;
  }
  auto server = parse_authority(rest, scheme, scheme == "stuns" ? default_tls_port : default_port, url.port_given, why);
  if (!server) return std::nullopt;
  url.server = std::move(*server);
  return url;
}

std::optional<Url> parse_turn_url(std::string_view text, std::string& why) {
  Url url;
  const std::string scheme = scheme_of(text);
  if (scheme.empty()) {
    why = fmt::format("a relay's URL begins with turn: or turns: (RFC 7065), for example turn:{}",
                      text.empty() || text.find("//") != std::string_view::npos ? "tower.lan:3478" : text);
    return std::nullopt;
  }
  if (scheme == "stun" || scheme == "stuns") {
    why = fmt::format("{}: is not a relay's URL: test it with `radiotower stun`, or write turn:", scheme);
    return std::nullopt;
  }
  if (scheme == "turns") url.scheme = Scheme::turns;
  std::string_view rest = text.substr(scheme.size() + 1);
  const auto mark = rest.find('?');
  if (mark != std::string_view::npos) {
    const std::string_view query = rest.substr(mark + 1);
    rest = rest.substr(0, mark);
    constexpr std::string_view key = "transport=";
    if (lower(query.substr(0, key.size())) != key) {
      why = fmt::format("\"?{}\": the one thing that may stand behind ? is transport=udp or transport=tcp (RFC 7065, 3.1)", query);
      return std::nullopt;
    }
    const std::string transport = lower(query.substr(key.size()));
    if (transport != "udp" && transport != "tcp") {
      why = fmt::format("transport \"{}\" is not known: udp or tcp", query.substr(key.size()));
      return std::nullopt;
    }
    url.asked = transport == "udp" ? net::Transport::udp : net::Transport::tcp;
  }
  auto server = parse_authority(rest, scheme, url.secure() ? default_tls_port : default_port, url.port_given, why);
  if (!server) return std::nullopt;
  url.server = std::move(*server);
  return url;
}

std::string stun_url(const HostPort& server) { return "stun:" + server.text(); }

std::vector<std::string> turn_urls(const HostPort& server, std::uint16_t tls_port, const std::vector<net::Transport>& transports) {
  std::vector<std::string> out;
  for (const net::Transport transport : transports) {
    Url url;
    url.server = server;
    if (transport == net::Transport::tls || transport == net::Transport::dtls) {
      url.scheme = Scheme::turns;
      url.server.port = tls_port;
    }
    if (transport != net::Transport::tls) url.asked = transport == net::Transport::tcp ? net::Transport::tcp : net::Transport::udp;
    out.push_back(url.text());
  }
  return out;
}

net::Transport Url::transport() const {
  if (!secure()) return asked.value_or(net::Transport::udp);
  return asked == net::Transport::udp ? net::Transport::dtls : net::Transport::tls;
}

std::string Url::text() const {
  const std::string where = server.text();
  switch (scheme) {
    case Scheme::stun: return "stun:" + where;
    case Scheme::stuns: return "stuns:" + where;
    case Scheme::turn:
    case Scheme::turns: break;
  }
  const bool udp = transport() == net::Transport::udp || transport() == net::Transport::dtls;
  return fmt::format("turn{}:{}?transport={}", secure() ? "s" : "", where, udp ? "udp" : "tcp");
}

}  // namespace radiotower::cli
