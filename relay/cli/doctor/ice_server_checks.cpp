// One URL of a list of ICE servers, used as a browser would use it: each step a finding.
#include <fmt/format.h>

#include <algorithm>

#include "../report.h"
#include "ice_checks.h"
#include "ice_path.h"
#include "radiotower/net/peer_policy.h"

namespace radiotower::cli {

namespace {

constexpr std::uint16_t channel = stun::first_channel;
constexpr unsigned echo_count = 50;
constexpr std::size_t echo_size = 160;       // a voice frame of 20 ms, about
constexpr std::size_t needed_payload = 1204;  // what browsers put into a packet of video at most, 1,200 bytes, and the header of a channel
constexpr std::size_t most_payload = 1472;    // an Ethernet frame's 1,500 without the headers of IPv4 and UDP
constexpr double slow_milliseconds = 150;     // one way and back, from which on people begin to talk at the same time (ITU-T G.114 counts 150 one way)

std::string joined_with_semicolons(const std::vector<std::string>& texts) {
  std::string out;
  for (const auto& text : texts) out += (out.empty() ? "" : "; ") + text;
  return out;
}

/// By a relay's own rules, without any entry.
net::PeerJudgement judge(const net::TransportAddress& address) {
  static const net::PeerPolicy policy{net::PeerPolicySettings{}};
  return policy.judge(address, address.family(), false);
}

class Probe {
 public:
  Probe(const IceTarget& target, const IceQuestion& question, Findings& findings)
      : target_(target), question_(question), findings_(findings), random_(system_random()) {}

  void run() {
    if (resolve_name() && open(client_, true)) {
      if (target_.is_turn()) relay();
      else stun();
    }
    for (auto* client : {&client_, &second_}) {  // one left behind would count against the user for ten minutes
      if (!*client || !(*client)->has_allocation()) continue;
      (*client)->set_timeout(std::min(question_.timeout, std::chrono::milliseconds(2000)));
      (*client)->refresh(0);
    }
  }

 private:
  void say(std::string check, Severity severity, std::string sentence, std::string mend = {}) {
    findings_.add({std::move(check), severity, shown_whole(sentence), shown_whole(mend), {}});
  }

  /// A server's text must not move the cursor.
  static std::string shown_whole(std::string_view text) {
    std::string out;
    for (const char c : text) out += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
    return out;
  }

  bool resolve_name() {
    std::string why;
    const auto addresses = resolve(target_.url.server, std::nullopt, why);
    if (addresses.empty()) {
      say("ice.resolve", Severity::fault, fmt::format("the name leads nowhere: {}", why),
          "the LAN address in the URL: phones on a network without DNS need that anyway; else an entry in the DNS");
      return false;
    }
    server_ = addresses.front();
    const bool literal = net::IpAddress::parse(target_.url.server.host).has_value();
    if (!literal) say("ice.resolve", Severity::good, fmt::format("{} is {}", target_.url.server.host, server_.ip.text()));
    return true;
  }

  /// False: it has been said why.
  bool open(std::optional<Client>& client, bool told) {
    const net::Transport transport = target_.url.transport();
    TlsOptions tls;
    tls.name = target_.url.server.host;
    tls.ca_file = question_.ca_file;
    tls.insecure = certificate_is_wrong_;
    LinkFailure failure;
    auto link = open_link(transport, server_, tls, question_.timeout, failure);
    if (!link && told && (failure.step == "TLS" || failure.step == "DTLS")) {
      // Is it the certificate? Then what is behind it can be looked at all the same.
      LinkFailure again;
      tls.insecure = true;
      link = open_link(transport, server_, tls, question_.timeout, again);
      if (link) {
        certificate_is_wrong_ = true;
        say("ice.certificate", Severity::fault, failure.what + ", so clients refuse it", joined_with_semicolons(failure.check));
        client.emplace(std::move(link), server_, target_.credential, random_, Client::Options{question_.timeout});
        return true;
      }
    }
    if (!link) {
      const char* check = failure.step == "TLS" || failure.step == "DTLS" ? "ice.tls" : "ice.connect";
      if (told) say(check, Severity::fault, failure.what, joined_with_semicolons(failure.check));
      else say("ice.echo", Severity::warning, "a second connection to the server fails: " + failure.what,
          "a browser makes several for one call: the server's limit on connections of one source (limits.connections_per_source)");
      return false;
    }
    if (told) steps(*link);
    client.emplace(std::move(link), server_, target_.credential, random_, Client::Options{question_.timeout});
    return true;
  }

  void steps(const Link& link) {
    for (const auto& step : link.steps()) {
      const bool tls = step.name == "TLS" || step.name == "DTLS";
      if (!step.note.empty()) say("ice.certificate-days", Severity::warning, step.note,
          "a new one in time; `radiotower reload` is enough for the relay to take it");
      say(tls ? "ice.tls" : "ice.connect", Severity::good, fmt::format("{} ({:.1f} ms)", step.detail, milliseconds_of(step.took)));
    }
  }

  Situation situation(std::string_view step) const {
    Situation s;
    s.step = step;
    s.server = server_.text();
    s.username = target_.credential.username;
    s.now = question_.now;
    s.used_secret = target_.made;
    s.answered_before = answered_;
    s.timeout = question_.timeout;
    return s;
  }

  /// What a request has met, as one finding.
  void fail(std::string_view step, const Outcome& outcome, Severity severity = Severity::fault) {
    const Situation s = situation(step);
    if (outcome.failure != Failure::refused) {
      std::string check = "ice.answer";
      if (outcome.failure == Failure::bad_answer) check = "ice.bad-answer";
      say(check, severity, describe(outcome, s), joined_with_semicolons(advice(outcome, s)));
      return;
    }
    const ErrorMeaning meaning = meaning_of(outcome.code);
    std::string mend = meaning.mend;
    if (outcome.code == 401) mend = credentials_mend();
    if (outcome.code == 300) severity = Severity::warning;
    say(meaning.check, severity, fmt::format("the server answered {} to {}: {}{}", code_name(outcome.code, outcome.reason), step, meaning.sentence,
                                             outcome.code == 300 && !outcome.detail.empty() ? " (to " + outcome.detail + ")" : ""),
        mend);
  }

  std::string credentials_mend() const {
    const auto expiry = rest_expiry(target_.credential.username);
    if (expiry && *expiry <= question_.now) return fmt::format("the user name ran out {} s ago: a new one, as `radiotower credentials` "
        "makes them", question_.now - *expiry);
    const std::string clocks = "; and the clocks: the expiry in the user name is compared with the server's";
    if (target_.by_setting) return "turnstaticauthsecret must be one of the relay's secrets (credentials.secrets_file in its relay.toml), "
        "to the last byte" + clocks;
    if (target_.made) return "the first line of --secret-file must be one of the relay's secrets (credentials.secrets_file in its "
        "relay.toml), to the last byte" + clocks;
    if (expiry) return "the password belongs to exactly this user name and to one of the relay's secrets: `radiotower credentials explain` "
        "on its host says which" + clocks;
    return "the user name and password as they stand in the relay's credentials.users_file; the realm must be the one that they were made for";
  }

  void stun() {
    Outcome outcome;
    const auto seen = client_->binding(outcome);
    if (!seen && outcome.failure == Failure::refused && outcome.code == 401) {
      say("ice.stun", Severity::warning, "the server answers STUN to those with credentials alone, and browsers send none with stun: URLs",
          "features.authenticated_binding = false in relay.toml (coturn: no secure-stun), or no stun: URL in the list");
      return;
    }
    if (!seen) return fail("Binding", outcome);
    say("ice.stun", Severity::good, fmt::format("the server sees us at {}, after {:.1f} ms", seen->text(), milliseconds_of(outcome.round_trip)));
  }

  void relay() {
    Outcome outcome = client_->allocate();
    if (!outcome.ok()) return allocation_failed(outcome);
    answered_ = true;
    const net::TransportAddress relayed = client_->relayed();
    say("ice.allocate", Severity::good, fmt::format("relayed address {}, for {} s, after {:.1f} ms", relayed.text(), client_->lifetime(),
        milliseconds_of(outcome.round_trip)));
    if (outcome.challenges == 0) say("ice.open-relay", Severity::warning, "the relay serves everybody: it asked for no user name",
        "credentials.secrets_file in relay.toml");
    judge_relayed(relayed);
    media_server();
    path();
  }

  void allocation_failed(const Outcome& outcome) {
    if (outcome.failure == Failure::no_answer && outcome.detail.empty()) {
      Outcome binding;
      client_->set_timeout(std::min(question_.timeout, std::chrono::milliseconds(2000)));
      if (client_->binding(binding)) {
        say("ice.stun-only", Severity::fault, fmt::format("{} answers STUN, but no Allocate", server_.text()),
            "this listener is for STUN alone (listen.stun_only; coturn's stun-only), or its limits on one source are reached: its log tells");
        return;
      }
    }
    if (outcome.failure == Failure::refused && outcome.code == 401 && target_.by_setting && question_.secret && with_file_secret()) {
      say("ice.secret-differs", Severity::fault, "the relay takes the secret of --secret-file and not turnstaticauthsecret: no client of "
          "Calls gets through", "the relay's secret as turnstaticauthsecret");
      return;
    }
    fail("Allocate", outcome);
  }

  bool with_file_secret() {
    IceTarget other = target_;
    LinkFailure failure;
    TlsOptions tls;
    tls.name = target_.url.server.host;
    tls.ca_file = question_.ca_file;
    tls.insecure = true;
    auto link = open_link(target_.url.transport(), server_, tls, question_.timeout, failure);
    if (!link) return false;
    second_.emplace(std::move(link), server_, make_rest_credential(*question_.secret, "doctor", question_.now + 3600), random_,
        Client::Options{question_.timeout});
    return second_->allocate().ok();
  }

  void judge_relayed(const net::TransportAddress& relayed) {
    const std::string mend = "relay.addresses in relay.toml (relay.external behind a NAT; coturn: relay-ip, external-ip)";
    if (relayed.ip.is_unspecified() || relayed.port == 0 || (relayed.ip.is_loopback() && !server_.ip.is_loopback()))
      say("ice.relayed-address", Severity::fault, fmt::format("the relayed address {} is none that the media server could send to",
          relayed.text()), mend);
    else if (judge(relayed).verdict != net::PeerVerdict::permitted && judge(server_).verdict == net::PeerVerdict::permitted)
      say("ice.relayed-address", Severity::warning, fmt::format("the relayed address {} is not public, though the server is reached at {}: "
          "peers elsewhere cannot send there", relayed.text(), server_.ip.text()), mend);
    else if (relayed.ip.is_v4() && (relayed.ip.v4_host_order() >> 16) == 0xAC11 && (server_.ip.v4_host_order() >> 16) != 0xAC11)
      say("ice.relayed-address", Severity::warning, fmt::format("the relayed address {} is of Docker's own network: the media server "
          "reaches it on the same host alone", relayed.text()),
          mend + ", or the container on the host's network");
  }

  void media_server() {
    if (!question_.media_server) return;
    const net::TransportAddress& peer = *question_.media_server;
    const Outcome outcome = client_->create_permission(peer);
    if (outcome.ok()) return say("ice.media-server", Severity::good, fmt::format("clients may reach {} through the relay", peer.text()));
    if (outcome.failure != Failure::refused || outcome.code != 403) return fail("CreatePermission", outcome);
    const auto verdict = judge(peer).verdict;
    const bool own = peer.ip == server_.ip || peer.ip == client_->relayed().ip;
    const bool unsafe = verdict == net::PeerVerdict::always_denied;
    const std::string entry = fmt::format("\"{}{}\"", peer.text(), unsafe ? " unsafe" : "");
    std::string why = "an entry of peers.deny, or peers.allow_only without an entry for it";
    if (unsafe) why = fmt::format("addresses of this kind ({}) are refused unless exactly this one is allowed as unsafe", judge(peer).reason);
    else if (own) why = "addresses of the relay's own host are refused unless exactly this one is allowed";
    else if (verdict != net::PeerVerdict::permitted) why = "private addresses are refused unless allowed";
    say("ice.media-server", Severity::fault, fmt::format("clients may not reach the media server {} through the relay (403 Forbidden): {}",
        peer.text(), why),
        fmt::format("peers.allow = [{}] in relay.toml (coturn: allowed-peer-ip={}), then `radiotower reload`; `radiotower doctor` on the "
            "relay's host names the entry that denies it", entry, peer.ip.text()));
  }

  /// A second allocation as the peer; else a socket of this host. Null: it has been said why.
  std::unique_ptr<Peer> find_peer() {
    if (!open(second_, false)) return nullptr;
    const std::optional<net::Family> family = client_->relayed().family() == net::Family::ipv6 ? std::optional(net::Family::ipv6) : std::nullopt;
    Outcome outcome = second_->allocate(family);
    if (outcome.ok()) {
      outcome = client_->bind_channel(channel, second_->relayed());
      if (outcome.ok()) outcome = second_->bind_channel(channel, client_->relayed());
      if (outcome.ok()) return std::make_unique<ChannelPeer>(*second_, channel, client_->relayed());
      if (outcome.failure != Failure::refused || outcome.code != 403) return fail("ChannelBind", outcome), nullptr;
    } else if (outcome.code == 486 || outcome.code == 508) {
      fail("a second Allocate", outcome, Severity::warning);
    } else {
      return fail("a second Allocate", outcome), nullptr;
    }
    const auto relayed = client_->relayed();
    std::string why;
    if (const auto source = source_address_towards(relayed)) {
      auto socket = UdpSocket::bound_to({*source, 0, source->is_link_local() ? relayed.scope : 0}, why);
      if (socket && client_->bind_channel(channel + 1, socket->local()).ok()) {
        channel_ = channel + 1;
        auto peer = std::make_unique<SocketPeer>(std::move(*socket), relayed);
        if (echo(*client_, *peer, channel_, 3, echo_size, random_).reached_peer > 0) return peer;
      }
    }
    return nullptr;
  }

  void path() {
    auto peer = find_peer();
    if (!peer) {
      say("ice.echo", Severity::unknown, "no packet could be sent through the relay and back: it lets clients reach neither its own relayed "
          "addresses nor this host, as one that serves a media server alone", "");
      client_->set_timeout(question_.timeout);
      return judge_echo(echo_by_binding(*client_, client_->link().is_reliable() ? 10 : echo_count), "to the relay and back");
    }
    const unsigned count = client_->link().is_reliable() ? echo_count / 5 : echo_count;
    const Echo found = echo(*client_, *peer, channel_, count, echo_size, random_);
    if (!found.fault.empty()) return say("ice.echo", Severity::fault, found.fault, "the server's version; is something on the way changing packets?");
    if (found.trips.empty()) {
      return say("ice.echo", Severity::fault,
                 found.reached_peer == 0 ? fmt::format("none of {} packets came through the relay to {}", found.sent, peer->address().text())
                                         : fmt::format("{} of {} packets came through the relay, but none of the answers",
                                             found.reached_peer, found.sent),
                 "firewalls: the relay's port range (relay.ports) must be open to the media server, its port for clients alone is not enough");
    }
    say("ice.echo", Severity::good, fmt::format("{} of {} packets of {} bytes came through the relay and back", found.came_back(),
        found.sent, echo_size));
    judge_echo(found, "through the relay and back");
    if (client_->link().forbid_fragments()) size(*peer, std::max<Clock::duration>(std::chrono::milliseconds(250), found.trips.back() * 2));
  }

  void judge_echo(const Echo& found, std::string_view way) {
    if (found.trips.empty()) return;
    const double shortest = milliseconds_of(found.trips.front()), median = milliseconds_of(found.median());
    if (client_->link().is_reliable()) {
      if (found.lost() > 0) say("ice.loss", Severity::warning, fmt::format("{} of {} packets {} took too long", found.lost(), found.sent,
          way), "the network between: is it losing packets, so that TCP has to send them again?");
    } else if (found.lost() >= 2) {
      const double share = 100.0 * found.lost() / found.sent;
      say("ice.loss", share >= 20 ? Severity::fault : Severity::warning, fmt::format("{} of {} packets were lost {} ({:.0f} %)",
          found.lost(), found.sent, way, share),
          "the network between: WLAN, cables, switches; on the relay's host `radiotower doctor` and its counters of dropped packets");
    } else {
      say("ice.loss", Severity::good, fmt::format("{} of {} packets were lost {}", found.lost(), found.sent, way));
    }
    say("ice.round-trip", median > slow_milliseconds ? Severity::warning : Severity::good,
        fmt::format("{} takes {:.2f} ms at least, {:.2f} ms in the middle{}", way, shortest, median, median > slow_milliseconds
            ? ": people begin to talk at the same time" : ""),
        median > slow_milliseconds ? "the network between: a relay nearer to the clients, or a link with less of a queue" : "");
  }

  void size(Peer& peer, Clock::duration patience) {
    if (second_) second_->link().forbid_fragments();
    const bool v6 = server_.family() == net::Family::ipv6;
    const std::size_t most = most_payload - (v6 ? 20 : 0) - stun::channel_header_size;
    bool local = false;
    const std::size_t largest = largest_datagram(*client_, peer, channel_, echo_size, most, patience, random_, local);
    const std::size_t datagram = largest + stun::channel_header_size;
    const std::string mend = local ? "the MTU of this host's interface (a VPN?): 1,500" : "the MTU of the network between, 1,500 on each "
        "interface and switch; a VPN or tunnel that is set lower must say so by ICMP, and no firewall may drop that";
    if (largest == 0) return say("ice.datagram", Severity::unknown, "how large a datagram may be could not be found out: too many are lost", "");
    if (datagram < needed_payload)
      say("ice.datagram", Severity::fault, fmt::format("datagrams of more than {} bytes get lost on the way, and video needs {}", datagram,
          needed_payload), mend);
    else
      say("ice.datagram", largest == most ? Severity::good : Severity::note,
          fmt::format("datagrams of up to {} bytes come through whole{}", datagram, largest == most ? "" : ", enough for calls"),
              largest == most ? "" : mend);
  }

  const IceTarget& target_;
  const IceQuestion& question_;
  Findings& findings_;
  RandomSource random_;
  net::TransportAddress server_;
  bool certificate_is_wrong_ = false, answered_ = false;
  std::uint16_t channel_ = channel;
  std::optional<Client> client_, second_;
};

}  // namespace

void check_ice_server(const IceTarget& target, const IceQuestion& question, Findings& findings) { Probe(target, question, findings).run(); }

}  // namespace radiotower::cli
