// `radiotower load`: many clients at once, with packets of theirs, and what a relay makes of them.
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <ctime>
#include <memory>
#include <stdexcept>

#include "commands.h"
#include "json.h"
#include "load/control.h"
#include "load/summary.h"
#include "radiotower/stun/crypto.h"

namespace radiotower::cli {

namespace {

using load::Profile;
using load::Ways;

struct Flags {
  std::string url, user, password, password_file, secret_file;
  std::string profile, direction, method = "channel", clients, peers, json;
  std::string client_netns, peer_netns;
  std::uint32_t sessions = 0, size = 1000, train = 1, peer_count = 4, clients_per_address = 4000, window = 64;
  std::uint32_t flood_train = 1, flood_addresses = 8;
  int flood_core = -1;
  double rate = 0, seconds = 5, warm_up = 0.5, flood_rate = 0;
  int pid = 0;
  bool direct = false, search = false, control = false, quiet = false, ipv4 = false, ipv6 = false,
       receive_trains = false;
};

constexpr std::uint32_t sessions_per_user = 20;  // a relay's limit on the allocations of one user is not what is tested
constexpr double longest_without_renewal = 120;  // permissions last 300 s (RFC 8656, 9)

int failure(const load::Explanation& why) {
  fmt::print(stderr, "radiotower load: {}\n", why.what);
  for (const auto& text : why.check) fmt::print(stderr, "  check: {}\n", text);
  return 1;
}

class Job {
 public:
  Job(const Flags& flags, const Profile* profile, Ways ways, load::Options options)
      : flags_(flags), profile_(profile), ways_(ways), options_(std::move(options)), sessions_(options_) {}

  int run() {
    if (flags_.control) return load::obey(sessions_);
    const bool is_memory_wanted = kind() == Profile::Kind::idle && options_.server_pid > 0;
    say(fmt::format("{} {}", flags_.direct ? "direct, without a relay," : "turn:" + options_.server.text(),
                    description()));
    fact("load", json_string(description()));
    const auto before = load::process_memory(options_.server_pid);
    const auto kernel_before = load::kernel_memory();
    if (kind() == Profile::Kind::storm) return storm();
    const load::SetUpResult set_up = sessions_.set_up();
    fact("set_up", json_of(set_up));
    if (set_up.ready < set_up.wanted) {
      const int code = failure(load::explain(set_up, sessions_, situation()));
      sessions_.tear_down();
      return code;
    }
    if (!flags_.direct) say(load::text_of(set_up, options_.server_pid > 0));
    if (is_memory_wanted) tell_memory(before, kernel_before);
    const int code = verify() ? traffic() : 1;
    sessions_.tear_down();
    return code == 0 ? end() : code;
  }

 private:
  Profile::Kind kind() const { return profile_ ? profile_->kind : Profile::Kind::saturation; }
  std::uint32_t count() const { return options_.sessions; }

  std::string description() const {
    const char* const ways = ways_ == Ways::up ? "up" : ways_ == Ways::down ? "down" : "both ways";
    const char* const method = flags_.direct                           ? ""
                               : options_.method == load::Method::send ? ", Send and Data indications"
                                                                       : ", ChannelData";
    if (kind() == Profile::Kind::storm) return fmt::format("{} clients: {}", load::grouped(count()), profile_->summary);
    std::string what =
        profile_ ? fmt::format("{}: {}", profile_->name, profile_->summary) : fmt::format("{} bytes", flags_.size);
    if (flags_.rate > 0)
      what += fmt::format(", {} packets/s", load::grouped(flags_.rate));
    else if (flags_.search)
      what += ", searching the rate at which no more than 0.1 % are lost";
    else if (!profile_)
      what += ", as many as can be sent";
    if (flags_.train > 1) what += fmt::format(", in trains of {}", flags_.train);
    return fmt::format("{} session{}, {}{}, {}", load::grouped(count()), count() == 1 ? "" : "s", ways, method, what);
  }

  void say(const std::string& text) const {
    if (flags_.json != "-") fmt::print("{}\n", text);
    std::fflush(stdout);
  }
  void say(const std::vector<std::string>& lines) const {
    for (const auto& text : lines) say(text);
  }
  void fact(std::string_view name, const std::string& value) {
    json_ += fmt::format("{}{}: {}", json_.empty() ? "" : ", ", json_string(name), value);
  }

  Situation situation() const {
    Situation s;
    s.server = options_.server.text();
    s.username = options_.users.empty() ? std::string() : options_.users.front().username;
    s.now = std::time(nullptr);
    s.used_secret = !flags_.secret_file.empty();
    return s;
  }

  void tell_memory(const load::ProcessMemory& before, const load::KernelMemory& kernel_before) {
    const auto after = load::process_memory(options_.server_pid);
    const auto kernel_after = load::kernel_memory();
    const double rss = static_cast<double>(after.rss_kb - before.rss_kb) / count(),
                 slab = static_cast<double>(kernel_after.slab_kb - kernel_before.slab_kb) / count();
    say(fmt::format("  {:<14}{:.2f} KB of the server's memory, {:.2f} KB of kernel memory an allocation", "memory", rss,
                    slab));
    fact("memory", fmt::format(R"({{"rss_kb_each": {:.3f}, "slab_kb_each": {:.3f}}})", rss, slab));
  }

  bool verify() {
    const load::VerifyResult checked = sessions_.verify();
    fact("verified", json_of(checked));
    if (checked.to_client == count()) return true;
    const auto& peer = sessions_.peer_addresses.front();
    load::Explanation why{
        fmt::format("only {} of {} sessions carry a packet to their peer, and {} one back", checked.to_peer, count(),
                    checked.to_client),
        {fmt::format("can the relay's host reach {}, where this load's peers are? --peers names another address",
                     peer.ip.text()),
         "firewalls: the relay's port range must be open to the peers, and this host to the relay"}};
    failure(why);
    return false;
  }

  load::Progress progress(double of) {
    if (flags_.quiet || isatty(STDERR_FILENO) == 0) return {};
    return [this, of](double seconds, const load::TrafficResult& so_far) {
      if (so_far.sent < seen_.sent) {  // a new run, after permissions have been renewed
        seen_ = {};
        seen_at_ = 0;
      }
      const std::string text =
          load::progress_text(seconds, of, so_far, seen_, seconds > seen_at_ ? seconds - seen_at_ : 1);
      fmt::print(stderr, "\r  {}\x1b[K", text);
      seen_ = so_far;
      seen_at_ = seconds;
    };
  }
  void clear_progress() const {
    if (!flags_.quiet && isatty(STDERR_FILENO) != 0) fmt::print(stderr, "\r\x1b[K");
  }

  load::Plan plan() const {
    load::Plan plan{.schedule = {},
                    .ways = ways_,
                    .size = flags_.size,
                    .train = flags_.train,
                    .seconds = flags_.seconds,
                    .warm_up = flags_.warm_up};
    if (profile_) plan.schedule = load::schedule_of(profile_->name, ways_, count());
    if (plan.schedule.empty() && (flags_.rate > 0 || flags_.search))
      plan.schedule = load::steady(ways_, count(), flags_.size, flags_.train, flags_.rate > 0 ? flags_.rate : 10'000);
    else if (flags_.rate > 0)
      load::stretch(plan.schedule, flags_.rate);
    return plan;
  }

  // Bytes of payload a packet, on average.
  double mean_size(const load::Plan& plan) const {
    double bytes = 0;
    for (const auto& s : plan.schedule) bytes += s.packets_a_second() * s.size;
    return plan.schedule.empty() ? plan.size : bytes / load::packets_a_second(plan.schedule);
  }

  int traffic() {
    load::Traffic traffic(sessions_);
    load::Plan plan = this->plan();
    if (flags_.search) return search(traffic, plan);
    if (profile_ && kind() == Profile::Kind::idle && plan.schedule.empty())
      plan.schedule = load::steady(ways_, count(), flags_.size, flags_.train, 20'000);
    std::unique_ptr<load::Flood> flood;
    std::unique_ptr<load::Probe> probe;
    if (kind() == Profile::Kind::flood) {
      flood = std::make_unique<load::Flood>(load::FloodOptions{.server = options_.server,
                                                               .rate = flags_.flood_rate,
                                                               .train = flags_.flood_train,
                                                               .core = flags_.flood_core,
                                                               .addresses = flags_.flood_addresses,
                                                               .netns = options_.client_netns});
      probe = std::make_unique<load::Probe>(options_.server, options_.users.front(), options_.client_netns);
    }
    load::TrafficResult result;
    for (double left = flags_.seconds; left > 0; left -= longest_without_renewal) {
      if (left < flags_.seconds) sessions_.renew();
      plan.seconds = std::min(left, longest_without_renewal);
      result.merge(traffic.run(plan, progress(plan.seconds)));
      plan.warm_up = 0;
    }
    clear_progress();
    say(load::text_of(result, mean_size(plan), options_.server_pid > 0));
    fact("traffic", json_of(result));
    if (flood) {
      const load::ProbeResult p = probe->stop();
      const load::FloodResult f = flood->stop();
      say(load::text_of(f, p));
      fact("strangers", json_of(f, p));
    }
    return result.wrong == 0 && result.delivered > 0 ? 0 : 1;
  }

  int search(load::Traffic& traffic, load::Plan plan) {
    plan.warm_up = std::min(plan.warm_up, plan.seconds / 5);
    const auto told = [&](double rate, const load::TrafficResult& r) {
      if (!flags_.quiet)
        fmt::print(stderr, "  {:>10}/s offered, {:>10}/s delivered, {:.3f} % lost\n", load::grouped(rate),
                   load::grouped(r.delivered_a_second()), 100 * r.loss());
    };
    const load::SearchResult found = load::search(traffic, plan, flags_.rate > 0 ? flags_.rate : 10'000, told);
    fact("search", json_of(found));
    if (found.rate <= 0)
      return failure({"more than 0.1 % were lost at every rate that was tried",
                      {"a short --seconds makes single losses weigh much", "other programs on the two machines"}});
    say(fmt::format("  {:<14}{} packets/s delivered at no more than 0.1 % loss{}", "found",
                    load::grouped(found.best.delivered_a_second()),
                    found.load_bound ? "; this load can send no more, the server may take more" : ""));
    say(load::text_of(found.best, mean_size(plan), options_.server_pid > 0));
    return 0;
  }

  int storm() {
    const load::StormResult result = sessions_.storm(flags_.seconds);
    if (result.allocations == 0) return failure(load::explain(sessions_.set_up(), sessions_, situation()));
    say(load::text_of(result, options_.server_pid > 0));
    fact("storm", json_of(result));
    return end();
  }

  int end() const {
    if (flags_.json.empty()) return 0;
    const std::string out =
        fmt::format("{{\"server\": {}, \"sessions\": {}, {}}}\n", json_string(options_.server.text()), count(), json_);
    std::FILE* file = flags_.json == "-" ? stdout : std::fopen(flags_.json.c_str(), "w");
    if (!file) throw std::runtime_error(flags_.json + " cannot be written");
    fmt::print(file, "{}", out);
    if (file != stdout) std::fclose(file);
    return 0;
  }

  const Flags& flags_;
  const Profile* profile_;
  Ways ways_;
  load::Options options_;
  load::Sessions sessions_;
  std::string json_;
  load::TrafficResult seen_;
  double seen_at_ = 0;
};

// A user with an expiry in its name, as many as it takes for none to have more than sessions_per_user allocations.
std::vector<Credential> users_of_secret(const Flags& f, const std::string& secret, std::uint32_t sessions) {
  if (rest_expiry(f.user)) return {Credential{f.user, stun::rest_password(secret, f.user)}};
  const UnixSeconds expiry = std::time(nullptr) + 3600 + static_cast<UnixSeconds>(f.seconds);
  std::vector<Credential> users;
  for (std::uint32_t n = 0; n * sessions_per_user < sessions; ++n)
    users.push_back(make_rest_credential(secret, n == 0 ? f.user : fmt::format("{}-{}", f.user, n + 1), expiry));
  return users;
}

// Empty, with a sentence in `why`, when there are none.
std::vector<Credential> users_of(const Flags& f, std::uint32_t sessions, std::string& why) {
  const int given = !f.password.empty() + !f.password_file.empty() + !f.secret_file.empty();
  if (given != 1) why = "give one of --password, --password-file and --secret-file";
  if (given != 1 || !username_is_sound(f.user, why)) return {};
  std::string warning;
  std::vector<Credential> users{{f.user, f.password}};
  if (!f.password_file.empty()) {
    const auto password = read_password(f.password_file, why, warning);
    if (!password) return {};
    users.front().password = *password;
  }
  if (!f.secret_file.empty()) {
    const auto secret = read_secret(f.secret_file, why, warning);
    if (!secret) return {};
    users = users_of_secret(f, *secret, sessions);
  }
  if (!warning.empty()) warn(warning);
  return users;
}

// nullopt and a sentence in `why` when the flags cannot be obeyed.
std::optional<load::Options> options_of(const Flags& f, const Profile* profile, std::string& why) {
  load::Options o;
  const auto address = [&](const std::string& text, const char* flag) {
    auto read = net::TransportAddress::parse(text);
    if (!read) why = fmt::format("{} wants ADDRESS:PORT, not \"{}\"", flag, text);
    return read;
  };
  if (!f.peers.empty() && !(o.peers = address(f.peers, "--peers"))) return std::nullopt;
  if (!f.clients.empty() && !(o.clients = address(f.clients, "--clients"))) return std::nullopt;
  if (f.url.empty() && !f.direct) why = "the server is missing: turn:HOST[:PORT]";
  if (f.url.empty() && f.direct && !o.peers) why = "--direct wants --peers ADDRESS:PORT, or a server whose way to take";
  if (!why.empty()) return std::nullopt;
  if (f.url.empty()) {
    o.server = *o.peers;
  } else {
    const auto target = parse_turn_url(f.url, why);
    if (!target) return std::nullopt;
    if (target->transport() != net::Transport::udp) {
      why = "the load goes over UDP: turn:HOST[:PORT]; bench/streams measures TCP, TLS and DTLS";
      return std::nullopt;
    }
    const auto family = f.ipv4   ? std::optional(net::Family::ipv4)
                        : f.ipv6 ? std::optional(net::Family::ipv6)
                                 : std::nullopt;
    const auto found = resolve(target->server, family, why);
    if (found.empty()) return std::nullopt;
    o.server = found.front();
  }
  o.sessions = f.sessions != 0 ? f.sessions : profile ? profile->sessions : 200;
  if (!f.direct && (o.users = users_of(f, o.sessions, why)).empty()) return std::nullopt;
  o.server_pid = f.pid;
  o.method = f.direct ? load::Method::direct : f.method == "send" ? load::Method::send : load::Method::channel;
  o.receive_trains = f.receive_trains || f.train > 1;
  o.peer_count = std::min(f.peer_count, o.sessions);
  o.clients_per_address = f.clients_per_address;
  o.window = f.window;
  o.client_netns = f.client_netns;
  o.peer_netns = f.peer_netns;
  return o;
}

int run_load(const Flags& f) {
  std::string why;
  const Profile* const profile = f.profile.empty() ? nullptr : load::find_profile(f.profile);
  const auto options = options_of(f, profile, why);
  if (!options) return usage_error("load", why);
  const Ways ways = load::parse_ways(f.direction).value_or(profile ? profile->ways : Ways::up);
  try {
    return Job(f, profile, ways, *options).run();
  } catch (const std::runtime_error& error) {
    fmt::print(stderr, "radiotower load: {}\n", error.what());
    return 1;
  }
}

std::string profile_list() {
  std::string out = "Profiles:\n";
  for (const Profile& p : load::profiles())
    out += fmt::format("  {:<11} {} sessions: {}\n", p.name, load::grouped(p.sessions), p.summary);
  return out;
}

}  // namespace

void add_load_command(CLI::App& app, Run& run) {
  auto* c = app.add_subcommand("load", "many clients at once: packets a second, loss, latency and CPU of a relay");
  auto f = std::make_shared<Flags>();
  std::vector<std::string> names;
  for (const Profile& p : load::profiles()) names.emplace_back(p.name);

  c->add_option("url", f->url, "turn:HOST[:PORT][?transport=udp] (RFC 7065)")->type_name("");
  c->add_option("--user", f->user,
                "user name; with --secret-file every 20 sessions get one of their own: NAME, NAME-2 ...")
      ->type_name("NAME");
  c->add_option("--password", f->password, "its password; others on this host may see it while this runs")
      ->type_name("TEXT");
  c->add_option("--password-file", f->password_file, "a file whose first line is the password; - reads standard input")
      ->type_name("FILE");
  c->add_option("--secret-file", f->secret_file,
                "the relay's secrets file: makes a credential that is good for an hour")
      ->type_name("FILE");
  c->add_option("--profile", f->profile, "what the sessions do, see below; else plain packets of --size")
      ->check(CLI::IsMember(names))
      ->type_name("NAME");
  c->add_option("--sessions", f->sessions,
                "clients, each with an allocation and a channel (default: the profile's, or 200)")
      ->check(CLI::Range(1, 60'000))
      ->type_name("N");
  c->add_option("--size", f->size, "bytes of payload")
      ->check(CLI::Range(24, 1400))
      ->capture_default_str()
      ->type_name("BYTES");
  c->add_option("--direction", f->direction, "to the peers, to the clients, or in turn (default: the profile's, or up)")
      ->check(CLI::IsMember({"up", "down", "both"}))
      ->type_name("WAY");
  c->add_option("--method", f->method, "channel (ChannelData) or send (Send and Data indications)")
      ->check(CLI::IsMember({"channel", "send"}))
      ->capture_default_str()
      ->type_name("NAME");
  c->add_option("--train", f->train, "packets in one send, by UDP GSO; 1: one at a time")
      ->check(CLI::Range(1, 40))
      ->capture_default_str()
      ->type_name("N");
  c->add_option("--rate", f->rate,
                "packets a second over all sessions, whether they arrive or not; a profile is stretched to it "
                "(default: its own; without a profile as many as can be sent)")
      ->check(CLI::Range(1.0, 1e8))
      ->type_name("N");
  c->add_flag("--search", f->search,
              "look for the rate at which no more than 0.1 % are lost, from --rate or 10,000 on; --seconds is then the "
              "time of one step");
  c->add_option("--seconds", f->seconds, "how long")
      ->check(CLI::Range(0.05, 86'400.0))
      ->capture_default_str()
      ->type_name("N");
  c->add_option("--warm-up", f->warm_up, "seconds of traffic before that, not counted")
      ->check(CLI::Range(0.0, 60.0))
      ->capture_default_str()
      ->type_name("N");
  c->add_option("--peers", f->peers,
                "address and port of the first peer, the others have the ports behind it (default: this host's address "
                "towards the server)")
      ->type_name("ADDRESS:PORT");
  c->add_option("--peer-count", f->peer_count, "peers")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str()
      ->type_name("N");
  c->add_option("--clients", f->clients, "address and port of the first client, the others follow (default: any)")
      ->type_name("ADDRESS:PORT");
  c->add_option("--clients-per-address", f->clients_per_address, "ports before the next address")
      ->check(CLI::Range(1, 20'000))
      ->capture_default_str()
      ->type_name("N");
  c->add_option("--window", f->window, "sessions that are set up at the same time")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str()
      ->type_name("N");
  c->add_option("--pid", f->pid, "the server's process, when it is on this host: its CPU time and memory are shown")
      ->type_name("PID");
  c->add_option("--client-netns", f->client_netns, "open the clients' sockets in this network namespace (ip netns)")
      ->type_name("NAME");
  c->add_option("--peer-netns", f->peer_netns, "and the peers' in this one")->type_name("NAME");
  c->add_flag("--direct", f->direct,
              "the same packets straight between clients and peers, without a relay: what the way itself costs");
  c->add_flag("--receive-trains", f->receive_trains, "UDP GRO on the load's sockets even when it sends no trains");
  c->add_option("--flood-rate", f->flood_rate,
                "profile flood: datagrams of junk a second (default: as many as can be sent)")
      ->check(CLI::Range(1.0, 1e8))
      ->type_name("N");
  c->add_option("--flood-train", f->flood_train, "profile flood: datagrams in one send (UDP GSO)")
      ->check(CLI::Range(1, 64))
      ->capture_default_str()
      ->type_name("N");
  c->add_option("--flood-addresses", f->flood_addresses, "profile flood, over loopback: how many addresses it comes from")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str()
      ->type_name("N");
  c->add_option("--flood-core", f->flood_core, "profile flood: the core that makes it (default: any of this process)")
      ->type_name("N");
  auto* four = c->add_flag("-4,--ipv4", f->ipv4, "reach the server over IPv4 only");
  c->add_flag("-6,--ipv6", f->ipv6, "reach the server over IPv6 only")->excludes(four);
  c->add_option("--json", f->json,
                "all figures as one JSON object into a file, or - for standard output instead of text")
      ->type_name("FILE");
  c->add_flag("--quiet", f->quiet, "no progress on the terminal");
  c->add_flag("--control", f->control, "obey lines on standard input, for bench/compare");
  c->footer(profile_list() +
            "Examples:\n"
            "  radiotower load turn:tower.lan --user test --secret-file secrets --profile audio --rate 20000\n"
            "  radiotower load turn:127.0.0.1 --user alice --password-file alice.txt --direction both --rate 50000 "
            "--pid $(pidof radiotower-relay)\n"
            "  radiotower load turn:127.0.0.1 --user alice --password-file alice.txt --search --seconds 1\n"
            "One core of this host spins while it measures. Give it a core of its own (taskset -c 1).");
  c->callback([f, &run] { run = [f] { return run_load(*f); }; });
}

}  // namespace radiotower::cli
