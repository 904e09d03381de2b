#include "flood.h"

#include <netinet/udp.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>

#include "client.h"
#include "measures.h"
#include "outbox.h"
#include "radiotower/stun/message.h"
#include "report.h"

namespace radiotower::load {

namespace {

constexpr std::uint32_t batch = 32;  // messages a call
constexpr auto between_probes = std::chrono::milliseconds(10);
constexpr auto patience = std::chrono::milliseconds(8000);

struct Junk {
  std::size_t size;                 // of a datagram
  std::vector<std::uint8_t> bytes;  // a train of them
};

// The same seed every time: two servers get the same flood.
class Noise {
 public:
  std::uint8_t next() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 17;
    state_ ^= state_ << 5;
    return static_cast<std::uint8_t>(state_);
  }

 private:
  std::uint32_t state_ = 0x9E3779B9;
};

std::vector<Junk> make_junk(std::uint32_t train) {
  Noise random;
  const auto id = [&] {
    stun::TransactionId out;
    for (auto& b : out) b = random.next();
    return out;
  };
  const auto row = [&](std::size_t size, auto&& fill) {
    Junk junk{size, std::vector<std::uint8_t>(size * train)};
    for (std::uint32_t i = 0; i < train; ++i) fill(MutableBytes(junk.bytes).subspan(i * size, size));
    return junk;
  };
  std::vector<Junk> all;
  all.push_back(row(100, [&](MutableBytes out) {
    for (auto& b : out) b = random.next();
  }));
  all.push_back(
      row(20, [&](MutableBytes out) { stun::Writer(out, stun::Class::request, stun::Method::binding, id()); }));
  all.push_back(row(28, [&](MutableBytes out) {
    stun::Writer(out, stun::Class::request, stun::Method::allocate, id())
        .add_u32(stun::Attribute::requested_transport, std::uint32_t{IPPROTO_UDP} << 24);
  }));
  all.push_back(row(164, [&](MutableBytes out) {
    store_be16(out.data(), stun::first_channel);
    store_be16(out.data() + 2, 160);
  }));
  all.push_back(row(28, [&](MutableBytes out) {
    stun::Writer(out, stun::Class::request, stun::Method::allocate, id()).add_u32(stun::Attribute::lifetime, 600);
    store_be16(out.data() + 22, 600);  // an attribute that runs past the end
  }));
  return all;
}

}  // namespace

Flood::Flood(const FloodOptions& options) : options_(options) {
  const InNamespace in(options.netns);
  const Name server(options.server);
  const bool on_loopback = options.server.ip.is_v4() && options.server.ip.is_loopback();
  for (std::uint32_t i = 0; i < std::max(options.sources, options.addresses); ++i) {
    std::optional<net::TransportAddress> local;
    if (on_loopback) local = net::TransportAddress{net::IpAddress::v4(0x7F420001u + i % options.addresses), 0, 0};  // 127.66.0.1 and on
    sockets_.push_back(open_socket(options.server.family(), local, 1));
    if (connect(sockets_.back(), &server.value.any, server.length) != 0) break;
  }
  thread_ = std::thread([this] { run(); });
}

Flood::~Flood() {
  stop();
  for (int s : sockets_) close(s);
}

FloodResult Flood::stop() {
  is_stopping_ = true;
  if (thread_.joinable()) thread_.join();
  return result_;
}

void Flood::run() {
  if (options_.core >= 0) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(options_.core, &set);
    sched_setaffinity(0, sizeof set, &set);
  }
  std::vector<Junk> junk = make_junk(options_.train);
  std::array<mmsghdr, batch> messages{};
  std::array<iovec, batch> parts{};
  std::array<Control, batch> controls{};
  for (std::uint32_t i = 0; i < batch; ++i) {
    Junk& one = junk[i % junk.size()];
    parts[i] = {one.bytes.data(), one.bytes.size()};
    messages[i].msg_hdr.msg_iov = &parts[i];
    messages[i].msg_hdr.msg_iovlen = 1;
    if (options_.train > 1) set_segment_size(messages[i].msg_hdr, controls[i], static_cast<std::uint16_t>(one.size));
  }
  const std::int64_t start = steady_ns(), cpu = own_thread_cpu_ns();
  const double each = options_.rate > 0 ? 1e9 * batch * options_.train / options_.rate : 0;
  std::size_t next = 0;
  for (double due = static_cast<double>(start); !is_stopping_; due += each) {
    for (double ahead; options_.rate > 0 && (ahead = due - static_cast<double>(steady_ns())) > 0 && !is_stopping_;)
      std::this_thread::sleep_for(std::chrono::nanoseconds(static_cast<std::int64_t>(std::min(ahead, 1e7))));
    const int n = sendmmsg(sockets_[next++ % sockets_.size()], messages.data(), batch, MSG_DONTWAIT);
    const std::uint32_t sent = n > 0 ? static_cast<std::uint32_t>(n) : 0;
    result_.sent += std::uint64_t{sent} * options_.train;
    result_.send_errors += std::uint64_t{batch - sent} * options_.train;
  }
  result_.elapsed_ns = steady_ns() - start;
  result_.cpu_ns = own_thread_cpu_ns() - cpu;
}

Probe::Probe(const net::TransportAddress& server, const cli::Credential& credential, const std::string& netns)
    : server_(server), credential_(credential), netns_(netns), thread_([this] { run(); }) {}

Probe::~Probe() { stop(); }

ProbeResult Probe::stop() {
  is_stopping_ = true;
  if (thread_.joinable()) thread_.join();
  return result_;
}

void Probe::run() {
  // It sleeps, and shares a core with threads that do not: what it waits for the core is not the server's time.
  const sched_param first{.sched_priority = 1};
  if (sched_setscheduler(0, SCHED_RR | SCHED_RESET_ON_FORK, &first) != 0)
    setpriority(PRIO_PROCESS, static_cast<id_t>(gettid()), -20);
  const InNamespace in(netns_);
  while (!is_stopping_) {
    std::string why;
    auto client = cli::Client::open(server_, credential_, system_random(),
                                    {.timeout = patience, .rto = std::chrono::milliseconds(500)}, why);
    const std::int64_t before = steady_ns();
    cli::Outcome outcome;
    if (client) outcome = client->allocate();
    const std::int64_t after = steady_ns();
    ++result_.tries;
    if (client && outcome.ok()) {
      result_.latency.add(after - before);
      result_.retransmissions += outcome.sends - 1;
      client->set_timeout(std::chrono::milliseconds(2000));
      client->refresh(0);
    } else {
      ++result_.failures;
      result_.last_failure = client ? cli::describe(outcome, {.step = "Allocate",
                                                              .server = server_.text(),
                                                              .username = credential_.username,
                                                              .timeout = patience})
                                    : why;
    }
    std::this_thread::sleep_for(between_probes);
  }
}

}  // namespace radiotower::load
