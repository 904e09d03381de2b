#include "summary.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "json.h"

namespace radiotower::load {

namespace {

double each(std::int64_t ns, std::uint64_t count) {
  return count == 0 ? 0 : static_cast<double>(ns) / static_cast<double>(count);
}
double us(std::int64_t ns) { return static_cast<double>(ns) / 1000; }

std::string line(std::string_view title, const std::string& text) { return fmt::format("  {:<14}{}", title, text); }

std::string latency_text(const Histogram& h) {
  return fmt::format("p50 {}   p99 {}   p99.9 {}   max {}", duration_text(h.percentile(0.5)),
                     duration_text(h.percentile(0.99)), duration_text(h.percentile(0.999)), duration_text(h.max()));
}

std::string errors_of(const std::map<std::pair<std::string, int>, std::uint32_t>& errors) {
  std::string out;
  for (const auto& [error, count] : errors)
    out += fmt::format("{}{}: {}", out.empty() ? "" : ", ",
                       cli::json_string(fmt::format("{} {}", error.first, error.second)), count);
  return out;
}

}  // namespace

std::string json_of(const SetUpResult& r) {
  return fmt::format(
      R"({{"wanted": {}, "ready": {}, "timeouts": {}, "retransmissions": {}, "unreachable": {}, "errors": {{{}}}, )"
      R"("elapsed_ns": {}, "server_cpu_ns": {}}})",
      r.wanted, r.ready, r.timeouts, r.retransmissions, r.unreachable, errors_of(r.errors), r.elapsed_ns,
      r.server_cpu_ns);
}

std::string json_of(const VerifyResult& r) {
  return fmt::format(R"({{"to_peer": {}, "to_client": {}, "resent": {}}})", r.to_peer, r.to_client, r.resent);
}

std::string json_of(const TrafficResult& r) {
  const Histogram &l = r.latency, &late = r.lateness;
  return fmt::format(
      R"({{"sent": {}, "delivered": {}, "arrived": {}, "loss": {:.6f}, "wrong": {}, "send_errors": {}, "own_drops": {}, )"
      R"("elapsed_ns": {}, "server_cpu_ns": {}, "load_cpu_ns": {}, "machine_cpu_ns": {}, "softirq_cpu_ns": {}, )"
      R"("latency_p50_us": {:.2f}, "latency_p99_us": {:.2f}, "latency_p999_us": {:.2f}, "latency_max_us": {:.2f}, )"
      R"("late_p99_us": {:.2f}, "late_max_us": {:.2f}}})",
      r.sent, r.delivered, r.arrived, r.loss(), r.wrong, r.send_errors, r.own_drops, r.elapsed_ns, r.server_cpu_ns,
      r.load_cpu_ns, r.machine_cpu_ns, r.softirq_cpu_ns, us(l.percentile(0.5)), us(l.percentile(0.99)),
      us(l.percentile(0.999)), us(l.max()), us(late.percentile(0.99)), us(late.max()));
}

std::string json_of(const StormResult& r) {
  return fmt::format(
      R"({{"allocations": {}, "failures": {}, "retransmissions": {}, "set_up_ns": {}, "tear_down_ns": {}, )"
      R"("set_up_cpu_ns": {}, "tear_down_cpu_ns": {}, "errors": {{{}}}}})",
      r.allocations, r.failures, r.retransmissions, r.set_up_ns, r.tear_down_ns, r.set_up_cpu_ns, r.tear_down_cpu_ns,
      errors_of(r.errors));
}

std::string json_of(const SearchResult& r) {
  return fmt::format(R"({{"rate": {:.0f}, "delivered_a_second": {:.0f}, "load_bound": {}, "steps": {}, "best": {}}})",
                     r.rate, r.best.delivered_a_second(), r.load_bound, r.steps, json_of(r.best));
}

std::string json_of(const FloodResult& f, const ProbeResult& p) {
  const Histogram& l = p.latency;
  return fmt::format(R"({{"flood": {{"sent": {}, "send_errors": {}, "elapsed_ns": {}, "cpu_ns": {}}}, )"
                     R"("probe": {{"tries": {}, "failures": {}, "retransmissions": {}, "latency_p50_us": {:.2f}, )"
                     R"("latency_p99_us": {:.2f}, "latency_max_us": {:.2f}, "last_failure": {}}}}})",
                     f.sent, f.send_errors, f.elapsed_ns, f.cpu_ns, p.tries, p.failures, p.retransmissions,
                     us(l.percentile(0.5)), us(l.percentile(0.99)), us(l.max()), cli::json_string(p.last_failure));
}

std::string json_of(const ProcessMemory& p, const KernelMemory& k) {
  return fmt::format(R"({{"rss_kb": {}, "anon_kb": {}, "slab_kb": {}, "udp_pages": {}, "udp_sockets": {}}})", p.rss_kb,
                     p.anon_kb, k.slab_kb, k.udp_pages, k.udp_sockets);
}

std::string grouped(double number) {
  std::string digits = fmt::format("{:.0f}", std::abs(number)), out;
  for (std::size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) out += ',';
    out += digits[i];
  }
  return (number < -0.5 ? "-" : "") + out;
}

std::string duration_text(std::int64_t ns) {
  const auto n = static_cast<double>(ns);
  if (ns < 10'000) return fmt::format("{:.1f} us", n / 1e3);
  if (ns < 1'000'000) return fmt::format("{:.0f} us", n / 1e3);
  if (ns < 1'000'000'000) return fmt::format("{:.2f} ms", n / 1e6);
  return fmt::format("{:.2f} s", n / 1e9);
}

std::vector<std::string> text_of(const SetUpResult& r, bool knows_server) {
  std::string text =
      fmt::format("{} of {} sessions in {}", grouped(r.ready), grouped(r.wanted), duration_text(r.elapsed_ns));
  if (knows_server && r.ready > 0)
    text += fmt::format(", {:.1f} us of the server's CPU each", each(r.server_cpu_ns, r.ready) / 1000);
  if (r.retransmissions > 0) text += fmt::format(", {} requests sent again", grouped(r.retransmissions));
  return {line("set up", text)};
}

std::vector<std::string> text_of(const TrafficResult& r, double bytes, bool knows_server) {
  const double seconds = static_cast<double>(r.elapsed_ns) * 1e-9,
               sent_a_second = static_cast<double>(r.sent) / seconds;
  std::vector<std::string> out;
  out.push_back(line("sent", fmt::format("{} packets in {:.1f} s: {}/s, {:.1f} Mbit/s of payload",
                                         grouped(static_cast<double>(r.sent)), seconds, grouped(sent_a_second),
                                         sent_a_second * bytes * 8 / 1e6)));
  out.push_back(line("delivered", fmt::format("{} packets: {}/s", grouped(static_cast<double>(r.delivered)),
                                              grouped(r.delivered_a_second()))));
  std::string lost = fmt::format(
      "{} ({:.3f} %)", grouped(static_cast<double>(r.sent > r.arrived ? r.sent - r.arrived : 0)), 100 * r.loss());
  if (r.own_drops > 0)
    lost += fmt::format(", {} of them because this load did not read them in time",
                        grouped(static_cast<double>(r.own_drops)));
  if (r.send_errors > 0)
    lost += fmt::format("; {} more could not be sent", grouped(static_cast<double>(r.send_errors)));
  out.push_back(line("lost", lost));
  if (r.wrong > 0)
    out.push_back(line("WRONG", fmt::format("{} packets were changed on the way or came from the wrong place",
                                            grouped(static_cast<double>(r.wrong)))));
  out.push_back(line("latency", latency_text(r.latency)));
  std::string cpu = knows_server ? fmt::format("server {} ns, ", grouped(each(r.server_cpu_ns, r.delivered))) : "";
  cpu += fmt::format("this load {} ns, whole machine {} ns", grouped(each(r.load_cpu_ns, r.delivered)),
                     grouped(each(r.machine_cpu_ns, r.delivered)));
  if (knows_server)
    cpu += fmt::format("; the server used {:.0f} % of a core",
                       100 * each(r.server_cpu_ns, static_cast<std::uint64_t>(r.elapsed_ns)));
  out.push_back(line("CPU a packet", cpu));
  if (r.lateness.total() > 0)
    out.push_back(
        line("this load", fmt::format("sent late by p99 {}, max {}", duration_text(r.lateness.percentile(0.99)),
                                      duration_text(r.lateness.max()))));
  return out;
}

std::vector<std::string> text_of(const StormResult& r, bool knows_server) {
  const double seconds = static_cast<double>(r.set_up_ns) * 1e-9, ends = static_cast<double>(r.tear_down_ns) * 1e-9;
  const auto count = static_cast<double>(r.allocations);
  std::vector<std::string> out;
  out.push_back(line("allocations",
                     fmt::format("{} made: {}/s, each with a channel; given back: {}/s", grouped(count),
                                 grouped(seconds > 0 ? count / seconds : 0), grouped(ends > 0 ? count / ends : 0))));
  if (knows_server)
    out.push_back(line("CPU each", fmt::format("server {:.1f} us to make, {:.1f} us to give back",
                                               each(r.set_up_cpu_ns, r.allocations) / 1000,
                                               each(r.tear_down_cpu_ns, r.allocations) / 1000)));
  out.push_back(line("failures", fmt::format("{}; {} requests sent again", grouped(static_cast<double>(r.failures)),
                                             grouped(static_cast<double>(r.retransmissions)))));
  return out;
}

std::vector<std::string> text_of(const FloodResult& f, const ProbeResult& p) {
  std::vector<std::string> out;
  out.push_back(line("flood", fmt::format("{} datagrams of junk: {}/s", grouped(static_cast<double>(f.sent)),
                                          grouped(each(static_cast<std::int64_t>(f.sent) * 1'000'000'000,
                                                       static_cast<std::uint64_t>(f.elapsed_ns))))));
  out.push_back(line("new clients", fmt::format("{} of {} got an allocation; {}", p.tries - p.failures, p.tries,
                                                latency_text(p.latency))));
  if (!p.last_failure.empty()) out.push_back(line("", "last failure: " + p.last_failure));
  return out;
}

std::string progress_text(double seconds, double of, const TrafficResult& now, const TrafficResult& before,
                          double interval) {
  const auto rate = [&](std::uint64_t n, std::uint64_t b) {
    return grouped(n < b ? 0 : static_cast<double>(n - b) / interval);
  };
  const std::uint64_t in_flight = now.sent > now.arrived ? now.sent - now.arrived : 0;
  return fmt::format("{:5.1f} of {:.0f} s   sent {}/s   delivered {}/s   not there yet {}   p99 {}", seconds, of,
                     rate(now.sent, before.sent), rate(now.delivered, before.delivered),
                     grouped(static_cast<double>(in_flight)), duration_text(now.latency.percentile(0.99)));
}

Explanation explain(const SetUpResult& r, const Sessions& sessions, const cli::Situation& situation) {
  cli::Situation s = situation;
  s.step = "Allocate";
  cli::Outcome outcome;
  const auto worst = std::max_element(r.errors.begin(), r.errors.end(),
                                      [](const auto& a, const auto& b) { return a.second < b.second; });
  std::uint32_t count = r.wanted - r.ready;
  if (r.unreachable) {
    outcome.failure = cli::Failure::unreachable;
  } else if (worst == r.errors.end()) {
    outcome.failure = cli::Failure::no_answer;
    outcome.sends = 4;
    s.timeout = std::chrono::milliseconds(7500);
  } else {
    s.step = worst->first.first;
    count = worst->second;
    const int code = worst->first.second;
    outcome.failure = code > 0 ? cli::Failure::refused : cli::Failure::bad_answer;
    outcome.code = static_cast<std::uint16_t>(std::max(code, 0));
    outcome.detail = "an answer came that is none, or that is signed with another key";
  }
  s.answered_before = r.ready > 0;
  Explanation out{fmt::format("{}: {}", s.step, cli::describe(outcome, s)), cli::advice(outcome, s)};
  if (!r.gave_up) out.what += fmt::format(" ({} of {} sessions)", grouped(count), grouped(r.wanted));
  if (outcome.code == 403 && s.step != "Allocate") {
    const net::IpAddress& peer = sessions.peer_addresses.front().ip;
    out.what = fmt::format("the relay refuses the peer {} that packets are to go to (403 Forbidden)", peer.text());
    const char* const unsafe =
        peer.is_loopback() || peer.is_link_local() || peer == sessions.options().server.ip ? "/32 unsafe" : "";
    out.check = {
        fmt::format("allow the peer: for radiotower-relay [peers] allow = [\"{}{}\"], for coturn allowed-peer-ip={}{}",
                    peer.text(), unsafe, peer.text(), peer.is_loopback() ? " and allow-loopback-peers" : ""),
        "or name another address of this host with --peers ADDRESS:PORT"};
  }
  if (outcome.code == 486)
    out.check.insert(out.check.begin(),
                     "--secret-file instead of --password: the sessions then share many users; or fewer --sessions, or "
                     "a higher limit");
  return out;
}

}  // namespace radiotower::load
