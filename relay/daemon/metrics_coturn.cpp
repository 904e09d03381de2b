// Of metrics_text(): the names of coturn's exporter, for dashboards that were made for it. docs/metrics.md says where the meaning differs.
#include "metrics_text.h"

namespace radiotower::daemon {

namespace {

using turn::Tallies;

}  // namespace

void add_coturn_metrics(const Snapshot& snapshot, Exposition& out) {
  std::uint64_t requests = 0, errors = 0;
  for (const auto outcome : Tallies::outcomes) {
    const std::uint64_t sum = sum_of_requests(snapshot, stun::Method::binding, outcome);
    requests += sum;
    if (outcome != Tallies::success && outcome != Tallies::unanswered) errors += sum;
  }
  out.one("stun_binding_request", MetricType::Counter, "Incoming STUN Binding requests", requests);
  out.one("stun_binding_response", MetricType::Counter, "Outgoing STUN Binding responses", sum_of_requests(snapshot, stun::Method::binding, Tallies::success));
  out.one("stun_binding_error", MetricType::Counter, "STUN Binding errors", errors);

  // What comes in from the client leaves to the peer, and the other way round.
  using Value = std::uint64_t FinishedTraffic::*;
  struct Row {
    std::string_view name, help;
    Value value;
  };
  const Row rows[] = {{"traffic_rcvp", "finished sessions received packets", &FinishedTraffic::packets_to_peer},
                      {"traffic_rcvb", "finished sessions received bytes", &FinishedTraffic::bytes_to_peer},
                      {"traffic_sentp", "finished sessions sent packets", &FinishedTraffic::packets_to_client},
                      {"traffic_sentb", "finished sessions sent bytes", &FinishedTraffic::bytes_to_client},
                      {"traffic_peer_rcvp", "finished sessions peer received packets", &FinishedTraffic::packets_to_client},
                      {"traffic_peer_rcvb", "finished sessions peer received bytes", &FinishedTraffic::bytes_to_client},
                      {"traffic_peer_sentp", "finished sessions peer sent packets", &FinishedTraffic::packets_to_peer},
                      {"traffic_peer_sentb", "finished sessions peer sent bytes", &FinishedTraffic::bytes_to_peer}};
  for (const Row& row : rows) {
    out.family(std::string("turn_").append(row.name), MetricType::Counter, std::string("Represents ").append(row.help));
    for (const auto& [realm, traffic] : snapshot.finished) out.sample({{"realm", realm}}, traffic.*row.value);
  }
  for (const Row& row : rows) {
    std::uint64_t sum = 0;
    for (const auto& [realm, traffic] : snapshot.finished) sum += traffic.*row.value;
    out.one(std::string("turn_total_").append(row.name), MetricType::Counter, std::string("Represents total ").append(row.help), sum);
  }
  out.family("turn_total_allocations", MetricType::Gauge, "Represents current allocations number");
  out.sample({{"type", "UDP"}}, sum_of_allocations(snapshot, net::Transport::udp));
  out.sample({{"type", "TCP"}}, sum_of_allocations(snapshot, net::Transport::tcp));
  out.sample({{"type", "TLS/TCP"}}, sum_of_allocations(snapshot, net::Transport::tls));
  out.sample({{"type", "DTLS"}}, sum_of_allocations(snapshot, net::Transport::dtls));
}

}  // namespace radiotower::daemon
