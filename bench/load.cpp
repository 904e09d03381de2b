// radiotower-load: TURN clients and their peers in one process, told by lines on standard input what to do, answering
// each with one line of JSON. bench/run.py drives it; bench/README.md says how and why.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <sstream>
#include <string>

#include "measures.h"
#include "sessions.h"
#include "traffic.h"

namespace {

using namespace radiotower;
using namespace radiotower::bench;

void print(const SetUpResult& r) {
  std::string errors;
  for (const auto& [code, count] : r.errors)
    errors += fmt::format("{}\"{}\": {}", errors.empty() ? "" : ", ", code, count);
  fmt::print(R"({{"ready": {}, "timeouts": {}, "retransmissions": {}, "errors": {{{}}}, )"
             R"("elapsed_ns": {}, "server_cpu_ns": {}}})"
             "\n",
             r.ready, r.timeouts, r.retransmissions, errors, r.elapsed_ns, r.server_cpu_ns);
}

void print(const VerifyResult& r) {
  fmt::print(R"({{"to_peer": {}, "to_client": {}, "resent": {}}})"
             "\n",
             r.to_peer, r.to_client, r.resent);
}

void print(const TrafficResult& r) {
  fmt::print(R"({{"sent": {}, "delivered": {}, "wrong": {}, "send_errors": {}, "elapsed_ns": {}, "server_cpu_ns": {}, )"
             R"("load_cpu_ns": {}, "machine_cpu_ns": {}, "latency_p50_us": {}, "latency_p99_us": {}, )"
             R"("latency_max_us": {}}})"
             "\n",
             r.sent, r.delivered, r.wrong, r.send_errors, r.elapsed_ns, r.server_cpu_ns, r.load_cpu_ns,
             r.machine_cpu_ns, r.latency_p50_us, r.latency_p99_us, r.latency_max_us);
}

void print_memory(pid_t server) {
  const ProcessMemory p = process_memory(server);
  const KernelMemory k = kernel_memory();
  fmt::print(R"({{"rss_kb": {}, "anon_kb": {}, "slab_kb": {}, "udp_pages": {}, "udp_sockets": {}}})"
             "\n",
             p.rss_kb, p.anon_kb, k.slab_kb, k.udp_pages, k.udp_sockets);
}

net::TransportAddress address(const std::string& text) {
  const auto address = net::TransportAddress::parse(text);
  if (!address || !address->ip.is_v4()) throw CLI::ValidationError(text, "no IPv4 address and port");
  return *address;
}

// False: there is no such command.
bool obey(const std::string& line, Sessions& sessions, Traffic& traffic, const Options& options) {
  std::istringstream words(line);
  std::string command;
  words >> command;
  if (command == "set-up") {
    print(sessions.set_up());
  } else if (command == "renew") {
    print(sessions.renew());
  } else if (command == "verify") {
    print(sessions.verify());
  } else if (command == "memory") {
    print_memory(options.server_pid);
  } else if (command == "traffic") {
    std::string direction;
    double rate = 0, seconds = 0;
    if (!(words >> direction >> rate >> seconds) || rate < 0 || seconds <= 0) return false;
    if (direction != "to-peer" && direction != "to-client") return false;
    print(traffic.run(direction == "to-peer" ? Direction::to_peer : Direction::to_client, rate, seconds));
  } else {
    return false;
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  std::string server, clients = "127.1.0.1:10000", peers = "127.0.0.1:20000";
  CLI::App app{"TURN clients and their peers, to measure a server with (see bench/README.md)"};
  app.add_option("--server", server, "the server's address and port (IPv4, UDP)")->required();
  app.add_option("--server-pid", options.server_pid, "whose CPU time and memory are read")->required();
  app.add_option("--sessions", options.sessions, "clients, each with an allocation and a channel")
      ->capture_default_str();
  app.add_option("--size", options.size, "bytes of payload")->check(CLI::Range(24, 1400))->capture_default_str();
  app.add_option("--train", options.train, "datagrams in one send (UDP GSO)")
      ->check(CLI::Range(1, 40))
      ->capture_default_str();
  app.add_option("--user", options.user, "long-term credential")->required();
  app.add_option("--password", options.password)->required();
  app.add_option("--clients", clients, "first client address and port")->capture_default_str();
  app.add_option("--clients-per-address", options.clients_per_address, "ports before the next address")
      ->check(CLI::Range(1, 20000))
      ->capture_default_str();
  app.add_option("--peers", peers, "first peer address and port")->capture_default_str();
  app.add_option("--peer-count", options.peer_count)->check(CLI::Range(1, 1000))->capture_default_str();
  app.add_option("--window", options.window, "sessions set up at the same time")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  try {
    app.parse(argc, argv);
    options.server = address(server);
    options.clients = address(clients);
    options.peers = address(peers);
  } catch (const CLI::ParseError& e) {
    return app.exit(e);
  }

  Sessions sessions(options);
  Traffic traffic(sessions, options);
  for (std::string line; std::getline(std::cin, line);) {
    if (line == "quit") break;
    if (!obey(line, sessions, traffic, options)) {
      fmt::print(stderr, "radiotower-load: no such command: \"{}\"\n", line);
      return 2;
    }
    std::fflush(stdout);
  }
  return 0;
}
