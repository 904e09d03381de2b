// What a list of ICE servers tells without sending anything: the traps that cost operators a day.
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "ice_checks.h"
#include "radiotower/base/calendar.h"

namespace radiotower::cli {

namespace {

constexpr std::size_t many_urls = 5;          // Firefox warns from here on
constexpr std::int64_t minutes_of_a_call = 60;
constexpr std::uint16_t calls_port = 8443;    // of Calls and rtcd, when nothing else is set

/// Services on the Internet that lists are shipped with.
constexpr std::string_view public_services[] = {"mattermost.com", "google.com", "cloudflare.com", "twilio.com", "nextcloud.com",
    "metered.ca", "metered.live",
                                                "stunprotocol.org", "mozilla.com", "matrix.org", "jit.si", "sipgate.net", "xirsys.com",
                                                    "expressturn.com",
                                                "blackberry.com"};

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return out;
}

bool is_public_service(std::string_view host) {
  return std::any_of(std::begin(public_services), std::end(public_services),
                     [&](std::string_view name) { return host == name || (host.size() > name.size() && host.ends_with(name)
                         && host[host.size() - name.size() - 1] == '.'); });
}

bool within(const net::IpAddress& ip, std::uint32_t network, int bits) { return ip.is_v4()
    && (ip.v4_host_order() >> (32 - bits)) == (network >> (32 - bits)); }
bool is_docker(const net::IpAddress& ip) { return within(ip, 0xAC110000, 16); }  // 172.17.0.0/16, as it comes
bool is_private(const net::IpAddress& ip) {
  if (!ip.is_v4()) return true;  // not judged
  return within(ip, 0x0A000000, 8) || within(ip, 0xAC100000, 12) || within(ip, 0xC0A80000, 16) || within(ip, 0x64400000, 10)
      || ip.is_loopback() || ip.is_link_local();
}

bool is_masked(std::string_view secret) { return !secret.empty() && secret.find_first_not_of('*') == secret.npos; }  // as Mattermost shows secrets

class ListCheck {
 public:
  ListCheck(const IceDocument& document, IceQuestion& question, Findings& findings) : document_(document), question_(question), findings_(findings) {}

  std::vector<IceTarget> run() {
    settings();
    for (std::size_t i = 0; i < document_.entries.size(); ++i) entry(document_.entries[i], i + 1);
    whole();
    return std::move(targets_);
  }

 private:
  bool is_calls() const { return document_.form == IceDocument::Form::calls; }
  bool is_rtcd() const { return document_.form == IceDocument::Form::rtcd; }

  void say(std::string check, Severity severity, std::string sentence, std::string mend, std::string key = {}) {
    findings_.add({std::move(check), severity, std::move(sentence), std::move(mend), std::move(key)});
  }

  std::string where(std::size_t number) const {
    return fmt::format("{}entry {}", is_calls() ? "iceserversconfigs, " : is_rtcd() ? "ice_servers, " : "", number);
  }

  void settings() {
    if (!document_.settings) return;
    const CallsSettings& s = *document_.settings;
    if (s.secret && !s.secret->empty() && !is_masked(*s.secret)) secret_ = s.secret;
    if (s.minutes && *s.minutes <= 0)
      say("ice.lifetime", Severity::fault, fmt::format("credentials that Calls makes are good for {} minutes, so never", *s.minutes),
          "240, the default", "turncredentialsexpirationminutes");
    else if (s.minutes && *s.minutes < minutes_of_a_call)
      say("ice.lifetime", Severity::note, fmt::format("credentials that Calls makes are good for {} minutes: who loses the network in a "
          "longer call does not come back through the relay", *s.minutes),
          "240, the default", "turncredentialsexpirationminutes");
    if (s.host_override.empty()) return;
    const auto ip = net::IpAddress::parse(s.host_override);
    if (ip && (ip->is_loopback() || ip->is_unspecified()))
      say("ice.host-override", Severity::fault, fmt::format("clients are told to send media to {}, which is their own host", shown(s.host_override)),
          "the LAN address of the host that Calls or rtcd runs on", "icehostoverride");
    else if (ip && is_docker(*ip))
      say("ice.host-override", Severity::warning, fmt::format("clients are told to send media to {}, an address of Docker's own network, "
          "which no phone reaches", shown(s.host_override)),
          "the LAN address of the host that the container runs on", "icehostoverride");
    else if (!ip)
      say("ice.host-override", Severity::note, fmt::format("clients are told to send media to {}: phones on a network without DNS do not "
          "know a name", shown(s.host_override)),
          "the LAN address instead of the name", "icehostoverride");
    if (ip && !question_.media_server && !ip->is_loopback() && s.rtcd_url.empty())
      question_.media_server = net::TransportAddress{*ip, static_cast<std::uint16_t>(s.udp_port && *s.udp_port > 0 && *s.udp_port < 65536
          ? *s.udp_port : calls_port), 0};
  }

  void entry(const IceEntry& entry, std::size_t number) {
    const std::string key = where(number);
    if (entry.misspelt)
      say("ice.credentials-misspelt", Severity::fault, "the entry has \"credentials\", which nobody looks at: browsers and Calls want "
          "\"credential\", and then find no password",
          "write \"credential\"", key);
    if (!entry.wrong.empty()) {
      say("ice.entry", Severity::fault, entry.wrong, "{\"urls\": [\"turn:ADDRESS:3478\"], \"username\": \"...\", \"credential\": \"...\"}", key);
      return;
    }
    if (entry.urls.empty()) say("ice.entry", Severity::fault, "an entry without any URL", "a URL in \"urls\", or no such entry", key);
    bool has_stun = false, has_turn = false;
    std::vector<IceTarget> found;
    for (const auto& written : entry.urls) {
      const std::string scheme = lower(written.substr(0, written.find(':')));
      has_stun = has_stun || scheme == "stun" || scheme == "stuns";
      has_turn = has_turn || scheme == "turn" || scheme == "turns";
      url(written, scheme, key, found);
    }
    if (has_stun && has_turn)
      say("ice.mixed-entry", is_calls() || is_rtcd() ? Severity::fault : Severity::warning,
          is_calls() || is_rtcd() ? "stun: and turn: URLs stand in one entry: then the whole setting counts as invalid"
                                  : "stun: and turn: URLs stand in one entry: browsers take that, but for Calls and rtcd the whole setting "
                                      "is invalid then",
          "two entries: one with the stun: URLs, one with the turn: URLs", key);
    if (has_turn) credentials(entry, key, found);
    for (auto& target : found)
      if (!target.is_turn() || !target.credential.username.empty()) targets_.push_back(std::move(target));
  }

  void url(const std::string& written, const std::string& scheme, const std::string& key, std::vector<IceTarget>& found) {
    const std::string text = shown(written);
    ++urls_;
    if (!seen_.insert(lower(written)).second) {
      say("ice.duplicate", Severity::note, fmt::format("{} stands in the list twice: clients do the work twice", text), "take one of them out", key);
      return;
    }
    if (scheme != "stun" && scheme != "stuns" && scheme != "turn" && scheme != "turns") {
      say("ice.url", Severity::fault, fmt::format("{} begins with none of stun:, turn: and turns:; a browser refuses the whole list",
          text), "turn:ADDRESS:3478", key);
      return;
    }
    std::string why;
    const std::string normal = scheme + written.substr(scheme.size());
    auto url = scheme.starts_with("stun") ? parse_stun_url(normal, why) : parse_turn_url(normal, why);
    if (!url) {
      say("ice.url", Severity::fault, fmt::format("{} is no URL that a browser takes, and it then refuses the whole list: {}", text,
          shown(why)), fmt::format("{}:ADDRESS:PORT", scheme), key);
      return;
    }
    if (const auto mark = normal.find('?'); normal != written || (mark != normal.npos && lower(normal.substr(mark)) != normal.substr(mark)))
      say("ice.url-case", Severity::warning, fmt::format("{} has capital letters where small ones belong, and Calls and rtcd do not take "
          "it", text), lower(text), key);
    IceTarget target{*url, text, {}};
    if (url->scheme == Scheme::stuns || (url->scheme == Scheme::turns && url->transport() == net::Transport::dtls)) {
      say("ice.unused", Severity::note, fmt::format("{}: no browser uses such a URL", text), url->scheme == Scheme::stuns
          ? "stun: instead" : "turns: with ?transport=tcp", key);
      return;
    }
    look_at(target, key);
    found.push_back(std::move(target));
  }

  void look_at(const IceTarget& target, const std::string& key) {
    const Url& url = target.url;
    const std::string host = lower(url.server.host);
    const auto ip = net::IpAddress::parse(host.substr(0, host.find('%')));
    if (target.is_turn()) {
      ++turn_;
      if (url.transport() == net::Transport::udp) udp_ = true;
      else stream_ = true;
    } else {
      ++stun_;
    }
    if (!url.port_given)
      say("ice.port", Severity::note, fmt::format("{} names no port: clients use {}", target.text, url.server.port), fmt::format("{}:{}",
          url.secure() ? "turns" : target.is_turn() ? "turn" : "stun", url.server.text()), key);
    else if (url.server.port == default_tls_port && !url.secure())
      say("ice.port", Severity::note, fmt::format("{} goes to port 5349, which most relays have for TLS alone, without TLS", target.text),
          "turns: for TLS, or port 3478", key);
    else if (url.server.port == default_port && url.secure())
      say("ice.port", Severity::note, fmt::format("{} asks for TLS at port 3478, which most relays have for UDP and TCP without TLS",
          target.text), "port 5349, or turn: without TLS", key);
    if (host == "localhost" || (ip && (ip->is_loopback() || ip->is_unspecified()))) {
      say("ice.loopback", Severity::fault, fmt::format("{} is the client's own host, on every phone", target.text),
          "the LAN address of the relay", key);
    } else if (ip && ip->is_link_local()) {
      say("ice.link-local", Severity::warning, fmt::format("{} has a link-local address, which is good on one cable alone", target.text),
          "the LAN address of the relay", key);
    } else if (ip && is_docker(*ip)) {
      say("ice.container", Severity::warning, fmt::format("{} has an address of Docker's own network, which no phone reaches",
          target.text), "the LAN address of the host that the container runs on", key);
    } else if (ip && !is_private(*ip)) {
      say("ice.outside", Severity::note, fmt::format("{} has a public address: a network without Internet does not reach it", target.text),
          "nothing, if this network has a way there", key);
    } else if (!ip && is_public_service(host)) {
      say("ice.outside", Severity::warning, fmt::format("{} is a service on the Internet: clients of a network without Internet wait for it "
          "in vain", target.text),
          target.is_turn() ? "your own relay instead" : "your own relay answers STUN too: stun:ADDRESS:3478", key);
    }
    if (ip && url.scheme == Scheme::turns)
      say("ice.turns-address", Severity::note, fmt::format("{} has an IP address: Firefox never uses such a URL, Chrome and Safari do if "
          "the certificate has it as an IP entry", target.text),
          "a turn: URL with ?transport=tcp beside it", key);
    if (!ip && host != "localhost") names(target, host, key);
  }

  void names(const IceTarget& target, const std::string& host, const std::string& key) {
    if (is_public_service(host) || !names_.insert(host).second) return;
    const std::string host_shown = shown(host);
    if (is_in_hosts(question_.hosts, host))
      say("ice.hosts-file", Severity::warning, fmt::format("{} is known here by /etc/hosts, and phones have no such file", host_shown),
          "the LAN address of the relay in the URL, or an entry in the DNS that phones ask", key);
    else if (host.ends_with(".local"))
      say("ice.mdns", Severity::warning, fmt::format("{} is a name of mDNS, which many phones and most office networks do not resolve",
          host_shown), "the LAN address of the relay in the URL", key);
    else
      say("ice.name", Severity::note, fmt::format("{} is a name: phones need a DNS server that knows it", host_shown),
          fmt::format("the LAN address in the URL, if {} is in no DNS that phones ask", target.url.secure() ? "it" : "the name"), key);
  }

  void credentials(const IceEntry& entry, const std::string& key, std::vector<IceTarget>& found) {
    const bool user = !entry.username.empty(), password = !entry.credential.empty();
    if (user && password) {
      static_user(entry, key);
      for (auto& target : found) target.credential = {entry.username, entry.credential};
      return;
    }
    if (user || password) {
      if (!entry.misspelt)
        say("ice.half-credential", Severity::fault, fmt::format("the entry has a {} without a {}: it goes to clients as it is, and a "
            "browser refuses the whole list then", user ? "user name" : "password", user ? "password" : "user name"),
            is_calls() || is_rtcd() ? "both of them, or neither: then each client gets its own" : "both of them", key);
      return;
    }
    const bool setting_is_empty = document_.settings && document_.settings->secret && document_.settings->secret->empty();
    const bool setting_is_missing = document_.settings && !document_.settings->secret;
    if (is_calls() && (setting_is_empty || setting_is_missing))
      say("ice.secret-empty", Severity::fault, "the TURN entry has no user name, and turnstaticauthsecret is empty: clients get no "
          "credentials, so they cannot use the relay",
          "one of the relay's secrets (credentials.secrets_file of its relay.toml) as turnstaticauthsecret", "turnstaticauthsecret");
    const auto& secret = secret_ ? secret_ : question_.secret;
    if (secret) {
      const Credential made = make_rest_credential(*secret, "doctor", question_.now + 3600);
      for (auto& target : found) {
        target.credential = made;
        target.made = true;
        target.by_setting = secret_.has_value();
      }
      return;
    }
    if (setting_is_empty || setting_is_missing) return;
    if (document_.form == IceDocument::Form::list && question_.secret == std::nullopt)
      say("ice.no-user", Severity::warning, "the TURN entry has no user name: Calls and rtcd make one from their shared secret, but a "
          "browser refuses the list",
          "for Calls: turnstaticauthsecret (rtcd: turn.static_auth_secret, without which it skips the entry), and --secret-file FILE here "
              "to test it; else \"username\" and \"credential\"", key);
    else
      say("ice.secret-unknown", Severity::unknown, "the TURN entry gets its user name from a shared secret that is not known here, so it is "
          "not tested",
          is_rtcd() ? "--secret-file FILE: the relay's secrets. turn.static_auth_secret of rtcd must be one of them; if it is empty, rtcd "
              "skips the entry"
                    : "--secret-file FILE: the relay's secrets. turnstaticauthsecret of Calls must be one of them", key);
  }

  void static_user(const IceEntry& entry, const std::string& key) {
    const auto expiry = rest_expiry(entry.username);
    if (is_rtcd() && !question_.secret)
      say("ice.rtcd-static", Severity::note, "rtcd skips every TURN entry, those with a user name too, while turn.static_auth_secret is "
          "empty", "turn.static_auth_secret of rtcd must be set", key);
    if (expiry && *expiry <= question_.now)
      say("ice.expired", Severity::fault, fmt::format("the user name ran out at {}: the relay takes it no more", utc_minute(*expiry)),
          is_calls() || is_rtcd() ? "no user name and no credential in the entry: each client then gets its own, made from the shared "
              "secret" : "a new one: `radiotower credentials`, or a fresh list from the browser", key);
    else if (expiry && (is_calls() || is_rtcd()))
      say("ice.expires", Severity::fault, fmt::format("the user name stands in the setting and runs out at {}: from then on no client gets "
          "through the relay", utc_minute(*expiry)),
          "no user name and no credential in the entry: each client then gets its own, made from the shared secret", key);
    else if (is_calls() || is_rtcd())
      say("ice.static-user", Severity::note, "every client gets this user name and password as they are, and can pass them on",
          "no user name in the entry, and the shared secret: each client then gets its own, for some hours", key);
  }

  void whole() {
    if (document_.entries.empty()) {
      say("ice.entry", Severity::fault, "the list is empty: clients know neither a STUN nor a TURN server",
          "[{\"urls\": [\"stun:ADDRESS:3478\"]}, {\"urls\": [\"turn:ADDRESS:3478?transport=udp\"]}]");
      return;
    }
    if (turn_ == 0) say("ice.no-turn", Severity::warning, "the list has no TURN server that can be used: who cannot reach the media server "
        "directly has no call", "turn:ADDRESS:3478?transport=udp");
    if (stun_ == 0)
      say("ice.no-stun", Severity::warning, "the list has no STUN server: a setting of one's own replaces the default one, and clients "
          "behind a NAT do not learn their address",
          "an entry of its own: {\"urls\": [\"stun:ADDRESS:3478\"]}; the relay answers STUN too");
    if (udp_ && !stream_)
      say("ice.udp-only", Severity::note, "every TURN URL is UDP: who sits behind a firewall that lets out TCP alone has no call",
          "turn:ADDRESS:3478?transport=tcp, and turns: with a certificate");
    if (stream_ && !udp_)
      say("ice.stream-only", Severity::warning, "no TURN URL is UDP: over TCP and TLS a lost packet holds up all that follow, so sound "
          "stutters on WLAN", "turn:ADDRESS:3478?transport=udp before the others");
    if (urls_ > many_urls)
      say("ice.many", Severity::note, fmt::format("{} URLs: each client tries all of them before a call, and Firefox warns of five and "
          "more", urls_), "one stun: URL, and one turn: URL for each transport");
    if (turn_ > 0 && !question_.media_server)
      say("ice.media-server", Severity::unknown, "where Calls or rtcd takes media is not known, so whether clients may reach it through the "
          "relay is not tested", "--media-server IP:PORT, as in 10.1.2.3:8443");
    say("ice.list", Severity::good, fmt::format("{} URLs in {} entries can be read", urls_, document_.entries.size()), "");
  }

  const IceDocument& document_;
  IceQuestion& question_;
  Findings& findings_;
  std::optional<std::string> secret_;  // of the settings
  std::vector<IceTarget> targets_;
  std::set<std::string> seen_, names_;
  std::size_t urls_ = 0, stun_ = 0, turn_ = 0;
  bool udp_ = false, stream_ = false;
};

}  // namespace

bool is_in_hosts(std::string_view hosts, std::string_view name) {
  while (!hosts.empty()) {
    const auto end = hosts.find('\n');
    std::string_view line = hosts.substr(0, end);
    hosts.remove_prefix(end == hosts.npos ? hosts.size() : end + 1);
    line = line.substr(0, line.find('#'));
    bool first = true;  // the address
    while (!line.empty()) {
      const auto from = line.find_first_not_of(" \t\r");
      if (from == line.npos) break;
      line.remove_prefix(from);
      const auto to = line.find_first_of(" \t\r");
      if (!first && lower(line.substr(0, to)) == lower(name)) return true;
      first = false;
      line.remove_prefix(to == line.npos ? line.size() : to);
    }
  }
  return false;
}

std::vector<IceTarget> check_ice_list(const IceDocument& document, IceQuestion& question, Findings& findings) {
  return ListCheck(document, question, findings).run();
}

void check_ice(const IceQuestion& question, Findings& findings) {
  IceQuestion q = question;
  findings.group("list of ICE servers");
  std::string why;
  const auto document = read_ice_document(q.text, why);
  if (!document) {
    findings.add({"ice.file", Severity::fault, why, "the value of iceserversconfigs, a browser's iceServers, or Mattermost's config.json", ""});
    return;
  }
  for (const auto& target : check_ice_list(*document, q, findings)) {
    findings.group(target.text);
    check_ice_server(target, q, findings);
  }
}

}  // namespace radiotower::cli
