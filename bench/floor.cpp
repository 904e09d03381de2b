// floor: serves the load generator with as little as a program can do, in several ways of asking the kernel. What it
// costs is what the machine allows; the relay's own cost is what it takes above that. See bench/README.md.
#include "floor.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <cstring>
#include <string>

namespace radiotower::bare {

void give_up(const char* call, int error) {
  fmt::print(stderr, "floor: {}: {}\n", call, std::strerror(error));
  std::exit(1);
}

}  // namespace radiotower::bare

namespace {

using namespace radiotower;

void read_ports(const std::string& text, bare::Options& options) {
  unsigned first = 0, last = 0;
  char rest = 0;
  if (std::sscanf(text.c_str(), "%u-%u%c", &first, &last, &rest) != 2 || first == 0 || first > last || last > 65535)
    throw CLI::ValidationError("--ports", "no range of ports");
  options.first_port = static_cast<std::uint16_t>(first);
  options.last_port = static_cast<std::uint16_t>(last);
}

void raise_descriptors() {
  rlimit descriptors{};
  getrlimit(RLIMIT_NOFILE, &descriptors);
  descriptors.rlim_cur = descriptors.rlim_max;
  setrlimit(RLIMIT_NOFILE, &descriptors);
}

}  // namespace

int main(int argc, char** argv) {
  bare::Options options;
  std::string mode, listen, relay = "127.0.0.1", ports = "32768-65535";
  CLI::App app{"A bare forwarder, to measure a relay against (bench/README.md). Everyone may send anything anywhere."};
  app.add_option("--mode", mode, "how the kernel is asked")
      ->check(CLI::IsMember({"io_uring", "io_uring-gro", "recvmmsg", "recvmmsg-gro", "recvfrom"}))
      ->required();
  app.add_option("--listen", listen, "address and port (IPv4, UDP)")->required();
  app.add_option("--relay", relay, "address of the relay sockets")->capture_default_str();
  app.add_option("--ports", ports, "of the relay sockets")->capture_default_str();
  app.add_option("--user", options.user, "for the integrity of the answers")->required();
  app.add_option("--password", options.password)->required();
  app.add_option("--realm", options.realm)->required();
  app.add_option("--buffers", options.buffers, "receive buffers")->check(CLI::Range(64, 32768))->capture_default_str();
  try {
    app.parse(argc, argv);
    const auto address = net::TransportAddress::parse(listen);
    const auto relay_address = net::IpAddress::parse(relay);
    if (!address || !address->ip.is_v4()) throw CLI::ValidationError("--listen", "no IPv4 address and port");
    if (!relay_address || !relay_address->is_v4()) throw CLI::ValidationError("--relay", "no IPv4 address");
    options.listen = *address;
    options.relay = *relay_address;
    read_ports(ports, options);
  } catch (const CLI::ParseError& e) {
    return app.exit(e);
  }
  options.offload = mode.ends_with("-gro");

  raise_descriptors();
  bare::Flows flows(options);
  if (mode.starts_with("io_uring")) bare::run_uring(flows);
  if (mode == "recvfrom") bare::run_recvfrom(flows);
  bare::run_recvmmsg(flows);
}
