// `radiotower turn`: walks through everything a client does with a relay, and says at which step it ends, and why.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <ctime>
#include <memory>

#include "client.h"
#include "commands.h"
#include "connect.h"
#include "json.h"
#include "peer.h"
#include "radiotower/net/peer_policy.h"
#include "report.h"

namespace radiotower::cli {

namespace {

struct Options {
  std::string url, user, password, password_file, secret_file;
  std::string peer = "auto";
  std::string relay_family;
  unsigned count = 10;
  unsigned size = 160;  // a voice frame of 20 ms, about
  ConnectOptions connect;
  bool json = false;
};

constexpr std::uint16_t channel = stun::first_channel;

/// Whether an address is of a network that is not routed on the Internet, by the relay's own rules.
net::PeerJudgement judge_address(const net::TransportAddress& address) {
  static const net::PeerPolicy policy{net::PeerPolicySettings{}};
  return policy.judge(address, address.family(), false);
}

class Walk {
 public:
  Walk(const Options& options, Url url, Credential credential)
      : options_(options),
        url_(std::move(url)),
        credential_(std::move(credential)),
        timeout_(options.connect.patience()),
        random_(system_random()),
        report_(url_.text(), options.json) {}

  int run() {
    const bool good = resolve_name() && bind_address() && allocate() && exchange_by_indications() && exchange_by_channel() && give_back();
    if (!good) {  // an allocation left behind would count against the user for ten minutes
      for (auto* c : {client_ ? &*client_ : nullptr, second_ ? &*second_ : nullptr}) {
        if (!c || !c->has_allocation()) continue;
        c->set_timeout(std::chrono::milliseconds(1000));
        c->refresh(0);
      }
    }
    return report_.end(fmt::format("the relay works: {} of {} packets through indications and {} of {} through a channel, {} bytes each, both ways",
                                   by_indication_.came_back, by_indication_.sent, by_channel_.came_back, by_channel_.sent, options_.size));
  }

 private:
  enum class Try : std::uint8_t { good, other_peer, failed };

  Situation situation(std::string_view step) const {
    Situation s;
    s.step = step;
    s.server = server_.text();
    s.username = credential_.username;
    s.now = std::time(nullptr);
    s.used_secret = !options_.secret_file.empty();
    s.answered_before = answered_;
    s.timeout = timeout_;
    return s;
  }

  bool fail(std::string_view step, const Outcome& outcome) {
    const Situation s = situation(step);
    report_.failed(step, describe(outcome, s), advice(outcome, s), outcome.code);
    return false;
  }

  bool fail(std::string_view step, std::string what, std::vector<std::string> check) {
    report_.failed(step, std::move(what), std::move(check));
    return false;
  }

  std::optional<net::Family> relay_family() const {
    if (options_.relay_family.empty()) return std::nullopt;
    return options_.relay_family == "ipv6" ? net::Family::ipv6 : net::Family::ipv4;
  }

  /// False: the report has the failure.
  bool open_client(std::optional<Client>& client, bool told) {
    client = connect(destination_, options_.connect, credential_, random_, told, report_);
    return client.has_value();
  }

  bool resolve_name() {
    const auto found = find_destination(url_, options_.connect, random_, report_);
    if (!found) return false;
    destination_ = *found;
    server_ = found->address;
    return open_client(client_, true);
  }

  bool bind_address() {
    const auto start = Clock::now();
    Outcome outcome;
    const auto reflexive = client_->binding(outcome);
    if (!reflexive && outcome.code == static_cast<std::uint16_t>(stun::ErrorCode::unauthenticated)) {  // "secure STUN": what an Allocate says is enough
      answered_ = true;
      report_.note("Binding is for those with credentials alone: browsers learn no address of their own from this server, only a relayed one");
      return true;
    }
    if (!reflexive) return fail("Binding", outcome);
    answered_ = true;
    const net::TransportAddress local = client_->local();
    translated_ = reflexive->ip != local.ip;
    report_.step("Binding", Clock::now() - start,
                 fmt::format("the server sees us at {}{}", reflexive->text(), *reflexive == local ? "" : fmt::format(", translated from {}", local.text())));
    report_.fact("reflexive_address", json_string(reflexive->text()));
    return true;
  }

  bool allocate() {
    const auto start = Clock::now();
    const Outcome outcome = client_->allocate(relay_family());
    if (!outcome.ok()) return fail("Allocate", outcome);
    const net::TransportAddress relayed = client_->relayed();
    std::string how = "no credentials asked for";
    if (!client_->realm().empty() || outcome.challenges > 0)
      how = fmt::format("realm {}, {}", client_->realm(), client_->uses_sha256() ? "SHA-256" : "MD5");
    report_.step("Allocate", Clock::now() - start, fmt::format("relayed address {}, for {} s ({})", relayed.text(), client_->lifetime(), how));
    report_.fact("relayed_address", json_string(relayed.text()));
    if (outcome.challenges == 0) report_.note("this relay serves everybody: it asked for no credentials");
    if (!client_->software().empty()) report_.note("the server calls itself " + client_->software());
    if (relayed.ip.is_unspecified() || relayed.port == 0)
      return fail("Allocate", fmt::format("the relayed address {} is none that a peer could send to", relayed.text()), {"the server's relay and external addresses"});
    // The classic of relays in containers and behind address translation.
    if (judge_address(relayed).verdict != net::PeerVerdict::permitted && judge_address(server_).verdict == net::PeerVerdict::permitted)
      report_.note(fmt::format("the relayed address is not public ({}) though the server is reached at {}: peers elsewhere cannot send there; "
                               "the server has to be told its external address",
                               judge_address(relayed).reason, server_.ip.text()));
    return true;
  }

  std::string why_peer_is_refused(const net::TransportAddress& peer) const {
    const net::PeerJudgement judgement = judge_address(peer);
    const bool own = peer.ip == server_.ip || peer.ip == client_->relayed().ip;
    std::string why = "its configuration refuses this address";
    if (judgement.verdict == net::PeerVerdict::always_denied)
      why = fmt::format("{} addresses are refused unless exactly this one is allowed as unsafe; this is its default", judgement.reason);
    else if (judgement.verdict != net::PeerVerdict::permitted)
      why = own ? "private addresses, and those of its own host, are refused unless allowed; this is its default"
                : "private addresses are refused unless allowed; this is its default";
    else if (own) why = "addresses of its own host are refused unless allowed; this is its default";
    return fmt::format("the relay refuses peer {}: {}", peer.text(), why);
  }

  /// A socket of this host as the peer, then, unless the user chose, a second allocation.
  bool exchange_by_indications() {
    if (options_.peer != "relay") {
      switch (try_socket_peer()) {
        case Try::good: return true;
        case Try::failed: return false;
        case Try::other_peer: break;
      }
    }
    return open_relay_peer() && permit_peer() && judge_traffic("Send and Data", send_by_indications());
  }

  /// Tells why a socket cannot be the peer: a note when there is another choice, the end when there is none.
  Try no_socket_peer(std::string what, std::vector<std::string> check, std::string_view step, std::uint16_t code = 0) {
    if (options_.peer == "socket") {
      report_.failed(step, std::move(what), std::move(check), code);
      return Try::failed;
    }
    report_.note(what + "; going on with a second allocation as the peer");
    peer_.reset();
    return Try::other_peer;
  }

  Try try_socket_peer() {
    const net::TransportAddress relayed = client_->relayed();
    if (translated_ && options_.peer == "auto")
      return no_socket_peer("this host is behind address translation, so the relay may not reach a socket here", {}, "peer");
    const auto source = source_address_towards(relayed);
    if (!source)
      return no_socket_peer(fmt::format("this host has no route to the relayed address {}", relayed.text()), {"the route: ip route get " + relayed.ip.text()}, "peer");
    std::string why;
    // A link-local source needs its interface, which is the one of the relayed address.
    auto socket = UdpSocket::bound_to({*source, 0, source->is_link_local() ? relayed.scope : 0}, why);
    if (!socket) return no_socket_peer(why, {"this host's addresses"}, "peer");
    peer_ = std::make_unique<SocketPeer>(std::move(*socket), relayed);

    const auto start = Clock::now();
    const Outcome outcome = client_->create_permission(peer_->address());
    if (outcome.failure == Failure::refused && outcome.code == 403)
      return no_socket_peer(why_peer_is_refused(peer_->address()), advice(outcome, situation("CreatePermission")), "CreatePermission", 403);
    if (!outcome.ok()) {
      fail("CreatePermission", outcome);
      return Try::failed;
    }
    report_.step("CreatePermission", Clock::now() - start, fmt::format("peer {}, a socket of this host", peer_->address().text()));
    const Traffic traffic = send_by_indications();
    if (traffic.reached_peer == 0 && traffic.fault.empty() && options_.peer == "auto")
      return no_socket_peer(fmt::format("nothing from the relay reaches {}: a firewall of this host may be in between", peer_->address().text()), {}, "peer");
    return judge_traffic("Send and Data", traffic) ? Try::good : Try::failed;
  }

  bool open_relay_peer() {
    if (!open_client(second_, false)) return false;
    auto start = Clock::now();
    // Both relayed addresses must be of one family to reach each other.
    Outcome outcome = second_->allocate(relay_family());
    if (!outcome.ok()) return fail("Allocate (peer)", outcome);
    report_.step("Allocate (peer)", Clock::now() - start, fmt::format("relayed address {}", second_->relayed().text()));
    start = Clock::now();
    outcome = second_->create_permission(client_->relayed());
    if (!outcome.ok()) return fail_relay_permission(outcome);
    peer_ = std::make_unique<RelayPeer>(*second_, client_->relayed());
    return true;
  }

  bool permit_peer() {
    const auto start = Clock::now();
    const Outcome outcome = client_->create_permission(peer_->address());
    if (!outcome.ok()) return fail_relay_permission(outcome);
    report_.step("CreatePermission", Clock::now() - start, fmt::format("peer {}, the second allocation; and back", peer_->address().text()));
    return true;
  }

  bool fail_relay_permission(const Outcome& outcome) {
    if (outcome.failure != Failure::refused || outcome.code != 403) return fail("CreatePermission", outcome);
    const net::PeerJudgement judgement = judge_address(client_->relayed());
    if (judgement.verdict == net::PeerVerdict::always_denied) {
      report_.failed("CreatePermission", fmt::format("403 Forbidden: the relayed address {} is itself one that no relay should reach ({})", client_->relayed().ip.text(), judgement.reason),
                     {"the server's relay addresses: it needs one that its clients' peers can reach"}, outcome.code);
      return false;
    }
    report_.failed("CreatePermission", "403 Forbidden: the relay refuses its own relayed addresses as peers",
                   {"an allow-list: then only the peers on it can be reached, which may be just what is wanted (--peer socket from such a peer's host)",
                    "two clients of this relay cannot call each other as it is"},
                   outcome.code);
    return false;
  }

  Traffic send_by_indications() {
    traffic_start_ = Clock::now();
    return by_indication_ = exchange(*client_, *peer_, std::nullopt, traffic_options(), random_);
  }

  bool exchange_by_channel() {
    const auto start = Clock::now();
    const Outcome outcome = client_->bind_channel(channel, peer_->address());
    if (!outcome.ok()) return fail("ChannelBind", outcome);
    report_.step("ChannelBind", Clock::now() - start, fmt::format("channel 0x{:04X} to {}", channel, peer_->address().text()));
    traffic_start_ = Clock::now();
    by_channel_ = exchange(*client_, *peer_, channel, traffic_options(), random_);
    return judge_traffic("ChannelData", by_channel_);
  }

  TrafficOptions traffic_options() const { return {options_.count, options_.size, std::min(timeout_, std::chrono::milliseconds(1000))}; }

  bool judge_traffic(std::string_view name, const Traffic& t) {
    const std::vector<std::string> path = {
        fmt::format("firewalls: the server's relay ports (its range, not only {}) must be open to peers", server_.port),
        options_.size > 1200 ? "the packet size: fragments are often dropped, try a smaller --size" : "the server's log and its counters of dropped packets"};
    if (!t.fault.empty()) return fail(name, t.fault, {"the server's version; is something on the way changing packets?"});
    if (t.reached_peer == 0)
      return fail(name, fmt::format("none of {} packets reached the peer {} from {}", t.sent, peer_->address().text(), client_->relayed().text()), path);
    if (t.came_back == 0)
      return fail(name, fmt::format("{} of {} packets reached the peer, but none of its answers came back through {}", t.reached_peer, t.sent, client_->relayed().text()), path);
    std::string detail = fmt::format("{} of {} packets of {} bytes there and back, min {:.2f} ms, avg {:.2f} ms", t.came_back, t.sent, options_.size,
                                     milliseconds_of(t.shortest), milliseconds_of(t.average()));
    report_.step(name, Clock::now() - traffic_start_, detail);
    report_.fact(name == "ChannelData" ? "channel" : "indications",
                 fmt::format(R"({{"sent": {}, "reached_peer": {}, "came_back": {}, "min_milliseconds": {:.3f}, "avg_milliseconds": {:.3f}}})", t.sent,
                             t.reached_peer, t.came_back, milliseconds_of(t.shortest), milliseconds_of(t.average())));
    if (t.came_back < t.sent) report_.note(fmt::format("{} of {} packets were lost on the way", t.sent - t.came_back, t.sent));
    return true;
  }

  bool give_back() {
    const auto start = Clock::now();
    Outcome outcome = client_->refresh(0);
    if (!outcome.ok()) return fail("Refresh(0)", outcome);
    if (second_ && second_->has_allocation()) {
      outcome = second_->refresh(0);
      if (!outcome.ok()) return fail("Refresh(0)", outcome);
    }
    report_.step("Refresh(0)", Clock::now() - start, second_ ? "both allocations given back" : "the allocation is given back");
    return true;
  }

  const Options& options_;
  Url url_;
  Destination destination_;
  Credential credential_;
  std::chrono::milliseconds timeout_;
  RandomSource random_;
  Report report_;
  net::TransportAddress server_;
  bool answered_ = false;
  bool translated_ = false;
  std::optional<Client> client_;
  std::optional<Client> second_;  // the peer's, when the relay is its own peer
  std::unique_ptr<Peer> peer_;
  Traffic by_indication_, by_channel_;
  Clock::time_point traffic_start_;
};

int run_turn(const Options& o) {
  const char* const command = "turn";
  std::string why, warning;
  auto url = parse_turn_url(o.url, why);
  if (!url || !connect_options_are_sound(o.connect, why)) return usage_error(command, why);
  const int given = !o.password.empty() + !o.password_file.empty() + !o.secret_file.empty();
  if (given != 1) return usage_error(command, "give one of --password, --password-file and --secret-file");
  if (!username_is_sound(o.user, why)) return usage_error(command, why);

  Credential credential{o.user, o.password};
  if (!o.password_file.empty()) {
    const auto password = read_password(o.password_file, why, warning);
    if (!password) return usage_error(command, "--password-file: " + why);
    credential.password = *password;
  }
  if (!o.secret_file.empty()) {
    const auto secret = read_secret(o.secret_file, why, warning);
    if (!secret) return usage_error(command, "--secret-file: " + why);
    // A name that carries an expiry already is taken as it is, so that an expired one can be tried on purpose.
    const auto expiry = rest_expiry(o.user);
    credential = expiry ? Credential{o.user, stun::rest_password(*secret, o.user)} : make_rest_credential(*secret, o.user, std::time(nullptr) + 3600);
    if (!username_is_sound(credential.username, why)) return usage_error(command, why);
  }
  if (!warning.empty()) warn(warning);
  return Walk(o, std::move(*url), std::move(credential)).run();
}

}  // namespace

void add_turn_command(CLI::App& app, Run& run) {
  auto* command = app.add_subcommand("turn", "test a TURN relay from end to end, step by step");
  auto o = std::make_shared<Options>();
  command->add_option("url", o->url, "turn:HOST[:PORT][?transport=udp|tcp], or turns: for TLS and, with transport=udp, DTLS (RFC 7065)")->required()->type_name("");
  command->add_option("--user", o->user, "user name; with --secret-file the part behind the expiry, or all of it")->required()->type_name("NAME");
  command->add_option("--password", o->password, "its password; others on this host may see it while this runs")->type_name("TEXT");
  command->add_option("--password-file", o->password_file, "a file whose first line is the password; - reads standard input")->type_name("FILE");
  command->add_option("--secret-file", o->secret_file, "the relay's secrets file: makes a credential that is good for an hour")->type_name("FILE");
  command->add_option("--peer", o->peer, "who is the peer: a socket of this host, a second allocation (relay), or what works (auto)")
      ->type_name("NAME")
      ->capture_default_str()
      ->check(CLI::IsMember({"socket", "relay", "auto"}));
  command->add_option("--relay-family", o->relay_family, "ask for a relayed address of this family")->check(CLI::IsMember({"ipv4", "ipv6"}));
  command->add_option("--count", o->count, "packets each way, for indications and for the channel")->type_name("N")->capture_default_str()->check(CLI::Range(1u, 100'000u));
  command->add_option("--size", o->size, "bytes of each")->type_name("BYTES")->capture_default_str()->check(CLI::Range(16u, 65'000u));
  add_connect_options(*command, o->connect);
  command->add_flag("--json", o->json, "one JSON object instead of text");
  command->footer("Examples:\n"
                  "  radiotower turn turn:tower.lan --user test --secret-file /etc/radiotower/secrets\n"
                  "  radiotower turn turns:192.168.0.105 --ca office-ca.pem --user test --secret-file /etc/radiotower/secrets\n"
                  "  radiotower turn 'turn:[2001:db8::1]:3478?transport=udp' --user alice --password-file alice.txt\n"
                  "  radiotower turn turn:192.0.2.1 --user 1767225600:alice --password RjhlVen+DhQzYDfv//fV2MBBUwM= --count 1000 --json");
  command->callback([o, &run] { run = [o] { return run_turn(*o); }; });
}

}  // namespace radiotower::cli
