// The load of bench/streams: clients over UDP, TCP, TLS or DTLS, each with an allocation and a channel, and peers over UDP, in one thread.
// Prints one line of JSON.
//
//   traffic      packets at a rate, evenly or in bursts, up, down or both ways; a client may stop reading for a while
//   handshakes   connections that shake hands, are answered one Binding, and end
#include <fmt/format.h>
#include <sys/socket.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <deque>
#include <stdexcept>
#include <string>
#include <vector>

#include "../relay/cli/client.h"
#include "../relay/cli/load/histogram.h"
#include "../relay/cli/load/measures.h"
#include "../relay/cli/load/payload.h"
#include "../relay/cli/load/sockets.h"

namespace {

using namespace radiotower;
using namespace radiotower::load;
using cli::Link;

constexpr std::uint16_t channel = 0x4000;
constexpr std::uint32_t peers = 4;

struct Options {
  std::string mode = "traffic", transport = "tls", server = "127.0.0.1:5349", ca, name, user, password, way = "both", relay = "127.0.0.1";
  std::uint32_t sessions = 50, size = 1000, burst = 1;
  double rate = 20'000, seconds = 1, warm_up = 0.2;
  double stall = 0;  // seconds for which session 0 does not read
  int pid = 0;
};

net::Transport transport_of(const std::string& name) {
  for (const auto t : {net::Transport::udp, net::Transport::tcp, net::Transport::tls, net::Transport::dtls})
    if (net::name(t) == name) return t;
  throw std::runtime_error("no transport " + name);
}

/// `number`: of the client, which has an address of its own below 127.1.0.0 where the server is on loopback: servers bound handshakes by address.
std::unique_ptr<Link> open(const Options& o, std::uint32_t number) {
  cli::LinkFailure failure;
  const auto server = net::TransportAddress::parse(o.server);
  if (!server) throw std::runtime_error(o.server + " is no address");
  std::optional<net::IpAddress> from;
  if (server->ip.is_v4() && server->ip.is_loopback()) from = net::IpAddress::v4(0x7F010001 + number % 0xFFFD);
  auto link = cli::open_link(transport_of(o.transport), *server, {o.name, o.ca}, std::chrono::seconds(10), failure, from);
  if (!link) throw std::runtime_error(failure.what);
  return link;
}

struct Session {
  cli::Client client;
  Name relayed;
  std::uint32_t peer = 0;
};

class Run {
 public:
  explicit Run(const Options& options) : o_(options), up_(o_.way != "down"), down_(o_.way != "up") {
    const auto server = *net::TransportAddress::parse(o_.server);
    for (std::uint32_t i = 0; i < peers; ++i) {
      peers_.push_back(open_socket(net::Family::ipv4, net::TransportAddress{*net::IpAddress::parse(o_.relay), 0, 0}, 64 << 20));
      addresses_.push_back(local_address(peers_.back()));
    }
    for (std::uint32_t i = 0; i < o_.sessions; ++i) {
      sessions_.push_back({cli::Client(open(o_, i), server, {o_.user, o_.password}, system_random(), {std::chrono::seconds(10)}), {}, i % peers});
      Session& s = sessions_.back();
      cli::Outcome outcome = s.client.allocate();
      if (outcome.ok()) outcome = s.client.bind_channel(channel, addresses_[s.peer]);
      if (!outcome.ok()) throw std::runtime_error(fmt::format("session {}: {} {} {}", i, outcome.code, outcome.reason, outcome.detail));
      s.relayed = Name(s.client.relayed());
    }
    packet_.resize(4 + max_size);
    buffer_.resize(65'540);
    payload_.write(packet_.data() + 4);
  }
  ~Run() {
    for (const int peer : peers_) close(peer);
  }

  void go() {
    const std::int64_t start = steady_ns();
    const auto warm = start + static_cast<std::int64_t>(o_.warm_up * 1e9);
    const auto end = warm + static_cast<std::int64_t>(o_.seconds * 1e9);
    const double interval = 1e9 / o_.rate * o_.burst;  // between bursts, of all sessions
    const std::int64_t stalled_until = o_.stall > 0 ? warm + static_cast<std::int64_t>(o_.stall * 1e9) : 0;
    std::int64_t cpu = 0, began = 0;
    double next = static_cast<double>(start);
    std::uint32_t turn = 0;
    std::int64_t looked = 0;
    for (std::int64_t now = start; now < end; now = steady_ns()) {
      if (!counting_ && now >= warm) {
        counting_ = true;
        rss_before_ = process_memory(o_.pid).rss_kb;
        cpu = process_cpu_ns(o_.pid);
        began = now;
      }
      while (next <= static_cast<double>(now)) {
        send(turn++);
        next += interval;
      }
      is_stalled_ = now < stalled_until;
      receive();
      if (o_.stall > 0 && now - looked > 50'000'000) {
        looked = now;
        rss_most_ = std::max(rss_most_, process_memory(o_.pid).rss_kb);
      }
    }
    counting_ = false;
    const std::int64_t elapsed = steady_ns() - began;
    cpu = process_cpu_ns(o_.pid) - cpu;
    is_stalled_ = false;
    for (std::int64_t last = steady_ns(), t = last; t - last < 100'000'000 && t - end < 3'000'000'000; t = steady_ns())
      if (receive() > 0) last = t;
    const auto lost = [](std::uint64_t sent, std::uint64_t arrived) { return sent - std::min(sent, arrived); };
    fmt::print("{{\"sent_up\": {}, \"sent_down\": {}, \"lost_up\": {}, \"lost_down\": {}, \"delivered\": {}, \"wrong\": {}, \"send_errors\": {}, \"ended\": {}, "
               "\"server_cpu_ns\": {}, \"elapsed_ns\": {}, \"p50_us\": {:.1f}, \"p99_us\": {:.1f}, \"max_us\": {:.1f}, \"lost_of_stalled\": {}, "
               "\"rss_kb\": [{}, {}, {}]}}\n",
               sent_[0], sent_[1], lost(sent_[0], arrived_[0]), lost(sent_[1], arrived_[1]), delivered_, wrong_, send_errors_, ended_, cpu, elapsed,
               static_cast<double>(latency_.percentile(0.5)) / 1e3, static_cast<double>(latency_.percentile(0.99)) / 1e3,
               static_cast<double>(latency_.max()) / 1e3, lost(sent_stalled_, arrived_stalled_), rss_before_, rss_most_, process_memory(o_.pid).rss_kb);
  }

 private:
  bool sets_apart(std::uint32_t session) const { return o_.stall > 0 && session == 0; }

  void send(std::uint32_t turn) {
    const std::uint32_t both = up_ && down_ ? 2 : 1;
    const std::uint32_t session = turn / both % o_.sessions;
    const bool up = both == 2 ? turn % 2 == 0 : up_;
    if (up && sets_apart(session)) return;  // the stalled one is sent to, and sends nothing itself
    Session& s = sessions_[session];
    Stamp stamp{.session = session, .run = counting_ ? 1u : 0u, .size = static_cast<std::uint16_t>(o_.size), .direction = up ? Direction::up : Direction::down};
    for (std::uint32_t i = 0; i < o_.burst; ++i) {
      stamp.sent_at = steady_ns();
      std::memcpy(packet_.data() + 4, &stamp, sizeof stamp);
      bool good = false;
      if (up) {
        store_be16(packet_.data(), channel);
        store_be16(packet_.data() + 2, static_cast<std::uint16_t>(o_.size));
        good = s.client.link().send(Bytes(packet_).first(4 + o_.size)) == 0;
      } else {
        good = sendto(peers_[s.peer], packet_.data() + 4, o_.size, 0, &s.relayed.value.any, s.relayed.length) == static_cast<ssize_t>(o_.size);
      }
      if (!good) ++send_errors_;
      if (good && counting_) ++(sets_apart(session) ? sent_stalled_ : sent_[up ? 0 : 1]);
    }
  }

  std::uint32_t receive() {
    std::uint32_t got = 0;
    if (up_) {
      for (std::uint32_t p = 0; p < peers; ++p) {
        for (int i = 0; i < 64; ++i) {
          const ssize_t n = recv(peers_[p], buffer_.data(), buffer_.size(), MSG_DONTWAIT);
          if (n < 0) break;
          ++got;
          take(Bytes(buffer_).first(static_cast<std::size_t>(n)), Direction::up, p);
        }
      }
    }
    if (!down_) return got;
    for (std::uint32_t i = 0; i < o_.sessions; ++i) {
      if (is_stalled_ && i == 0) continue;
      for (int k = 0; k < 64; ++k) {
        std::size_t size = 0;
        const auto arrival = sessions_[i].client.link().receive(buffer_, cli::Clock::time_point{}, size);
        if (arrival == Link::Arrival::closed || arrival == Link::Arrival::failed) {
          ++ended_;
          break;
        }
        if (arrival != Link::Arrival::message) break;
        ++got;
        if (size < 4 || load_be16(buffer_.data()) != channel || load_be16(buffer_.data() + 2) + 4u > size) ++wrong_;
        else take(Bytes(buffer_).subspan(4, load_be16(buffer_.data() + 2)), Direction::down, i);
      }
    }
    return got;
  }

  void take(Bytes payload, Direction direction, std::uint32_t at) {
    Stamp stamp;
    const bool right = payload_.read(payload, stamp) && stamp.direction == direction && stamp.session < o_.sessions &&
                       (direction == Direction::up ? sessions_[stamp.session].peer : stamp.session) == at;
    if (!right) {
      ++wrong_;
      return;
    }
    if (counting_) ++delivered_;
    if (stamp.run != 1) return;
    if (sets_apart(stamp.session)) {
      ++arrived_stalled_;
      return;
    }
    ++arrived_[direction == Direction::up ? 0 : 1];
    latency_.add(steady_ns() - stamp.sent_at);
  }

  const Options& o_;
  const bool up_, down_;
  std::vector<int> peers_;
  std::vector<net::TransportAddress> addresses_;
  std::deque<Session> sessions_;
  Payload payload_;
  std::vector<std::uint8_t> packet_, buffer_;
  bool counting_ = false, is_stalled_ = false;
  std::uint64_t sent_[2] = {0, 0}, arrived_[2] = {0, 0}, sent_stalled_ = 0, arrived_stalled_ = 0;
  std::uint64_t delivered_ = 0, wrong_ = 0, send_errors_ = 0, ended_ = 0;
  std::int64_t rss_before_ = 0, rss_most_ = 0;
  Histogram latency_;
};

void handshakes(const Options& o) {
  const auto server = *net::TransportAddress::parse(o.server);
  const std::int64_t start = steady_ns(), end = start + static_cast<std::int64_t>(o.seconds * 1e9);
  const std::int64_t cpu = process_cpu_ns(o.pid);
  std::uint64_t done = 0;
  std::string how;
  while (steady_ns() < end) {
    cli::Client client(open(o, static_cast<std::uint32_t>(done)), server, {}, system_random(), {std::chrono::seconds(10)});
    if (how.empty() && !client.link().steps().empty()) how = client.link().steps().back().detail;
    cli::Outcome outcome;
    if (!client.binding(outcome)) throw std::runtime_error("no answer to Binding");
    ++done;
  }
  const std::int64_t elapsed = steady_ns() - start;
  fmt::print("{{\"handshakes\": {}, \"server_cpu_ns\": {}, \"elapsed_ns\": {}, \"how\": \"{}\"}}\n", done, process_cpu_ns(o.pid) - cpu, elapsed,
             how.substr(0, how.find(", certificate")));
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  Options o;
  CLI::App app("The load of bench/streams");
  app.add_option("mode", o.mode)->check(CLI::IsMember({"traffic", "handshakes"}));
  app.add_option("--transport", o.transport)->check(CLI::IsMember({"udp", "tcp", "tls", "dtls"}));
  app.add_option("--server", o.server);
  app.add_option("--ca", o.ca);
  app.add_option("--name", o.name, "what the certificate is for");
  app.add_option("--user", o.user);
  app.add_option("--password", o.password);
  app.add_option("--way", o.way)->check(CLI::IsMember({"up", "down", "both"}));
  app.add_option("--relay", o.relay, "the address of the peers");
  app.add_option("--sessions", o.sessions);
  app.add_option("--size", o.size)->check(CLI::Range(static_cast<unsigned>(min_size), static_cast<unsigned>(max_size)));
  app.add_option("--burst", o.burst, "packets of one session back to back");
  app.add_option("--rate", o.rate, "packets a second, of all sessions");
  app.add_option("--seconds", o.seconds);
  app.add_option("--warm-up", o.warm_up, "seconds before, uncounted");
  app.add_option("--stall", o.stall, "seconds for which the first session does not read");
  app.add_option("--pid", o.pid, "of the server");
  CLI11_PARSE(app, argc, argv);
  try {
    if (o.mode == "handshakes") handshakes(o);
    else Run(o).go();
  } catch (const std::exception& error) {
    fmt::print(stderr, "stream-load: {}\n", error.what());
    return 1;
  }
  return 0;
}
