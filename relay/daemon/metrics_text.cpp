#include "metrics_text.h"

#include <algorithm>
#include <set>
#include <utility>

#include <fmt/format.h>

#include "counter_sums.h"
#include "metrics_counters.h"

namespace radiotower::daemon {

namespace {

using turn::AllocationCounts;
using turn::Tallies;

std::string_view name(stun::Method method) {
  switch (method) {
    case stun::Method::binding: return "binding";
    case stun::Method::allocate: return "allocate";
    case stun::Method::refresh: return "refresh";
    case stun::Method::create_permission: return "create_permission";
    case stun::Method::channel_bind: return "channel_bind";
    case stun::Method::connect: return "connect";
    case stun::Method::connection_bind: return "connection_bind";
    default: return "";
  }
}

std::string outcome_text(std::uint16_t outcome) {
  if (outcome == Tallies::success) return "success";
  return outcome == Tallies::unanswered ? "unanswered" : std::to_string(outcome);
}

/// Shown from the start, so that the first one is an increase: increase() of a series that was not there is nothing.
bool is_usual(stun::Method method, std::uint16_t outcome) {
  const auto among = [&](std::initializer_list<std::uint16_t> list) { return std::find(list.begin(), list.end(), outcome) != list.end(); };
  if (among({Tallies::success, Tallies::unanswered, 400, 420})) return true;
  if (method == stun::Method::binding) return false;
  if (among({401, 437, 438, 441})) return true;
  switch (method) {
    case stun::Method::allocate: return among({300, 403, 440, 442, 486, 508});
    case stun::Method::refresh: return outcome == 443;
    case stun::Method::create_permission:
    case stun::Method::channel_bind: return among({403, 443, 508});
    case stun::Method::connect: return among({403, 443, 446, 447, 508});
    default: return false;
  }
}

CounterSums sums_of(const Snapshot& snapshot) {
  CounterSums sums;
  for (const auto& worker : snapshot.workers) sums.add(worker.report);
  return sums;
}

void add_counters(const CounterSums& sums, Exposition& out) {
  for (const CounterFamily& family : counter_families()) {
    out.family(family.name, family.type, family.help);
    for (const CounterRow& row : counter_rows())
      if (row.family == family.name) out.sample({row.label, row.second_label}, sums.of(row.group, row.counter));
  }
}

void add_requests(const Snapshot& snapshot, Exposition& out) {
  out.family("radiotower_requests_total", MetricType::Counter, "Requests by method, and by the code of their answer.");
  for (const auto method : Tallies::methods)
    for (const auto outcome : Tallies::outcomes) {
      const std::uint64_t sum = sum_of_requests(snapshot, method, outcome);
      if (sum == 0 && !is_usual(method, outcome)) continue;
      out.sample({{"method", name(method)}, {"code", outcome_text(outcome)}}, sum);
    }
}

void add_allocations(const Snapshot& snapshot, Exposition& out) {
  out.family("radiotower_allocations", MetricType::Gauge, "Allocations now, by the client's transport, the family of the relayed address and its transport.");
  constexpr std::string_view families[] = {"ipv4", "ipv6", "dual"}, relays[] = {"udp", "tcp"};
  for (std::size_t client = 0; client < AllocationCounts::clients.size(); ++client)
    for (std::size_t relay = 0; relay < 2; ++relay)
      for (std::size_t family = 0; family < 3; ++family) {
        const net::Transport transport = AllocationCounts::clients[client];
        if (relay == 1 && !net::is_stream(transport)) continue;  // RFC 6062, 4.1
        std::uint64_t sum = 0;
        for (const auto& worker : snapshot.workers) sum += worker.report.allocation_counts.now[client][family][relay];
        out.sample({{"transport", net::name(transport)}, {"family", families[family]}, {"relay_transport", relays[relay]}}, sum);
      }

  out.family("radiotower_allocations_ended_total", MetricType::Counter, "Allocations that have ended, by reason.");
  Tallies all;
  ControlTimes control;
  for (const auto& worker : snapshot.workers) {
    const auto add = [](auto& to, const auto& from) {
      for (std::size_t i = 0; i < to.counts.size(); ++i) to.counts[i] += from.counts[i];
      to.sum += from.sum;
    };
    add(all.lives, worker.report.tallies.lives);
    add(control.histogram, worker.report.control_times.histogram);
    for (std::size_t i = 0; i < all.ended.size(); ++i) all.ended[i] += worker.report.tallies.ended[i];
  }
  for (std::size_t i = 0; i < all.ended.size(); ++i) {
    std::string reason(turn::name(static_cast<turn::EndReason>(i)));
    std::replace(reason.begin(), reason.end(), ' ', '_');
    out.sample({{"reason", reason}}, all.ended[i]);
  }
  out.family("radiotower_allocation_life_seconds", MetricType::Histogram, "How long the allocations lived that have ended.");
  out.histogram(all.lives.counts, Tallies::life_bounds, all.lives.sum);
  out.family("radiotower_request_handling_seconds", MetricType::Histogram,
             "From taking an authenticated request off the loop to its answer being queued, opening of the relay port included.");
  out.histogram(control.histogram.counts, ControlTimes::bounds, control.histogram.sum);
}

void add_traffic(const Snapshot& snapshot, Exposition& out) {
  using Way = Tallies::Way;
  const std::string_view plain = snapshot.standing.backend == "io_uring" ? "ring" : "mmsg";
  struct Row {
    Way way;
    std::string_view transport, path;
  };
  const Row rows[] = {{Way::udp, "udp", plain},    {Way::offload, "udp", "offload"},   {Way::tcp, "tcp", "stream"},          {Way::tls, "tls", "stream"},
                      {Way::dtls, "dtls", "dtls"}, {Way::joined_tcp, "tcp", "joined"}, {Way::joined_tls, "tls", "joined"}};
  const auto add = [&](bool bytes) {
    for (const Row& row : rows) {
      if (!bytes && row.path == "joined") continue;
      Tallies::Traffic sum;
      for (const auto& worker : snapshot.workers) {
        const Tallies::Traffic& t = worker.report.tallies.of(row.way);
        sum.packets_to_peer += t.packets_to_peer;
        sum.bytes_to_peer += t.bytes_to_peer;
        sum.packets_to_client += t.packets_to_client;
        sum.bytes_to_client += t.bytes_to_client;
      }
      const MetricLabel transport{"transport", row.transport}, path{"path", row.path};
      out.sample({{"direction", "to_peer"}, transport, path}, bytes ? sum.bytes_to_peer : sum.packets_to_peer);
      out.sample({{"direction", "to_client"}, transport, path}, bytes ? sum.bytes_to_client : sum.packets_to_client);
    }
  };
  out.family("radiotower_relayed_packets_total", MetricType::Counter, "Packets relayed, by direction, the client's transport and the path they took.");
  add(false);
  out.family("radiotower_relayed_bytes_total", MetricType::Counter, "Payload relayed, without headers, by direction, the client's transport and path.");
  add(true);
  out.family("radiotower_offload_packets_total", MetricType::Counter, "Packets that the XDP program has looked at, by outcome: why it passed them up.");
  for (const auto& outcome : snapshot.offload) out.sample({{"outcome", outcome.name}}, outcome.packets);
}

void add_workers(const Snapshot& snapshot, const CounterSums& sums, Exposition& out) {
  const auto each = [&](const auto& value) {
    for (std::size_t i = 0; i < snapshot.workers.size(); ++i) out.sample({{"worker", std::to_string(i)}}, value(snapshot.workers[i]));
  };
  out.family("radiotower_worker_answers", MetricType::Gauge, "1: the worker answered this scrape; 0: not within 250 ms, so its figures are those of its last answer.");
  each([](const Snapshot::OfWorker& worker) { return std::uint64_t{worker.answered}; });
  out.family("radiotower_worker_turns_total", MetricType::Counter, "Turns of the worker's loop: at least one a second, or it has stalled.");
  each([](const Snapshot::OfWorker& worker) { return worker.report.loop.turns; });
  out.one("radiotower_flood_gates", MetricType::Gauge, "Workers that keep strangers out for a flood right now.", sums.of("worker", "gates_up"));
  out.one("radiotower_kept_bytes", MetricType::Gauge, "Memory that is kept for clients, about.", sums.of("worker", "bytes_kept"));
  out.one("radiotower_sockets", MetricType::Gauge, "Sockets that the workers hold: listeners, relay ports, connections.", sums.of("worker", "sockets"));
}

void add_standing(const Snapshot& snapshot, Exposition& out) {
  const Standing& standing = snapshot.standing;
  out.family("radiotower_build_info", MetricType::Gauge, "1; what runs here stands in the labels.");
  out.sample({{"version", standing.version}, {"backend", standing.backend}, {"offload", standing.offload}}, 1);
  out.family("radiotower_relay_ports", MetricType::Gauge, "Relay ports by state; all four together are the range, of all relay addresses.");
  out.sample({{"state", "free"}}, snapshot.usage.free);
  out.sample({{"state", "used"}}, snapshot.usage.used);
  out.sample({{"state", "reserved"}}, snapshot.usage.reserved);
  out.sample({{"state", "quarantined"}}, snapshot.usage.quarantined);
  out.one("radiotower_accounts", MetricType::Gauge, "Users with an allocation or a reservation now.", snapshot.usage.accounts);
  out.one("radiotower_draining", MetricType::Gauge, "1: no new allocations are taken.", standing.draining);
  if (standing.drain_deadline)
    out.one("radiotower_drain_deadline_timestamp_seconds", MetricType::Gauge, "When the drain ends what is left.", *standing.drain_deadline);
  out.family("radiotower_reloads_total", MetricType::Counter, "Reloads of the configuration, by outcome.");
  out.sample({{"outcome", "good"}}, standing.reloads_good);
  out.sample({{"outcome", "refused"}}, standing.reloads_refused);
  out.one("radiotower_last_reload_timestamp_seconds", MetricType::Gauge, "When a reload was last good; 0: there was none.", standing.reloaded_at);
  out.family("radiotower_certificate_not_after_timestamp_seconds", MetricType::Gauge, "When the certificate runs out.");
  std::set<std::string_view> files;
  for (const auto& facts : standing.certificates) {
    if (!files.insert(facts.file).second) continue;
    const std::string_view first = facts.names.empty() ? std::string_view() : std::string_view(facts.names.front());
    out.sample({{"name", first}, {"file", facts.file}}, std::max<std::int64_t>(0, facts.not_after));
  }
  out.one("radiotower_log_lines_dropped_total", MetricType::Counter, "Lines that the log lost since nobody read it fast enough.", snapshot.log_lines_dropped);
}

}  // namespace

std::uint64_t sum_of_requests(const Snapshot& snapshot, stun::Method method, std::uint16_t outcome) {
  const auto m = static_cast<std::size_t>(std::find(Tallies::methods.begin(), Tallies::methods.end(), method) - Tallies::methods.begin());
  const auto o = static_cast<std::size_t>(std::find(Tallies::outcomes.begin(), Tallies::outcomes.end(), outcome) - Tallies::outcomes.begin());
  std::uint64_t sum = 0;
  for (const auto& worker : snapshot.workers) sum += worker.report.tallies.requests[m][o];
  return sum;
}

std::uint64_t sum_of_allocations(const Snapshot& snapshot, net::Transport client) {
  const auto& clients = AllocationCounts::clients;
  const auto place = static_cast<std::size_t>(std::find(clients.begin(), clients.end(), client) - clients.begin());
  std::uint64_t sum = 0;
  for (const auto& worker : snapshot.workers)
    for (const auto& family : worker.report.allocation_counts.now[place])
      for (const std::uint64_t count : family) sum += count;
  return sum;
}

bool is_in_metrics(std::string_view group, std::string_view counter) {
  const auto rows = counter_rows();
  return std::any_of(rows.begin(), rows.end(), [&](const CounterRow& row) { return row.group == group && row.counter == counter; });
}

std::string metrics_text(const Snapshot& snapshot, bool coturn_names) {
  Exposition out;
  const CounterSums sums = sums_of(snapshot);
  add_standing(snapshot, out);
  add_allocations(snapshot, out);
  add_requests(snapshot, out);
  add_traffic(snapshot, out);
  add_counters(sums, out);
  add_workers(snapshot, sums, out);
  add_process_metrics(out);
  if (coturn_names) add_coturn_metrics(snapshot, out);
  return out.text();
}

}  // namespace radiotower::daemon
