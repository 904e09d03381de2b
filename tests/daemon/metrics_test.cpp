// GET /metrics: the text, that no counter is missing in it, and the server. What a known load makes of the figures is in tests/metrics/run.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <set>
#include <sstream>

#include "daemon/counter_sums.h"
#include "daemon/metrics_counters.h"
#include "daemon/metrics_server.h"
#include "daemon/metrics_text.h"

using namespace radiotower;
using namespace radiotower::daemon;
using namespace std::chrono_literals;

namespace {

Snapshot two_workers() {
  Snapshot snapshot;
  snapshot.standing.version = "1.2";
  snapshot.standing.backend = "epoll";
  snapshot.standing.offload = "off";
  snapshot.standing.realm = "example.org";
  snapshot.workers.resize(2);
  for (auto& worker : snapshot.workers) {
    worker.answered = true;
    worker.report.counters.dropped_no_channel = 3;
    worker.report.tallies.of(turn::Tallies::Way::tls).bytes_to_peer = 100;
    worker.report.control_times.histogram.add(30us, ControlTimes::bounds);
  }
  return snapshot;
}

bool has_line(const std::string& text, const std::string& line) { return ("\n" + text).find("\n" + line + "\n") != std::string::npos; }

class FakeOperations final : public Operations {
 public:
  Standing standing() override {
    Standing standing = two_workers().standing;
    standing.workers = 2;
    return standing;
  }
  std::vector<WorkerReport> reports(milliseconds) override {
    std::vector<WorkerReport> all;
    for (unsigned i = 0; i < 2; ++i) {
      if (i == silent) continue;
      WorkerReport report;
      report.number = i;
      report.counters.dropped_no_channel = 5;
      all.push_back(report);
    }
    return all;
  }
  turn::Shared::Usage usage() override { return {}; }
  std::vector<offload::Outcome> offload_outcomes() override { return {}; }
  std::uint64_t log_lines_dropped() override { return 0; }
  unsigned allocations(std::vector<turn::AllocationFacts>&, milliseconds) override { return 0; }
  Killed kill(const std::function<bool(const turn::AllocationFacts&)>&, milliseconds) override { return {}; }
  ReloadResult reload() override { return {}; }
  void drain(std::optional<seconds>) override {}
  void end_drain() override {}
  void add_sink(EventSink& added) override { sink = &added; }
  void remove_sink(EventSink&) override { sink = nullptr; }

  std::atomic<unsigned> silent{99};
  EventSink* sink = nullptr;
};

struct Folder {
  Folder() { REQUIRE(mkdtemp(name) != nullptr); }
  ~Folder() {
    ::unlink(socket().c_str());
    ::rmdir(name);
  }
  std::string socket() const { return std::string(name) + "/m.sock"; }
  OperatorSettings settings(bool coturn = false) const {
    OperatorSettings settings;
    settings.metrics_listen = "unix:" + socket();
    settings.coturn_names = coturn;
    return settings;
  }
  char name[32] = "/tmp/metrics-test-XXXXXX";
};

/// What comes back until the server closes.
std::string ask(const std::string& path, const std::string& request) {
  const int s = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  const timeval patience{30, 0};
  setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  std::string answer;
  if (connect(s, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 && ::send(s, request.data(), request.size(), MSG_NOSIGNAL) > 0) {
    char buffer[4096];
    for (ssize_t n = 0; (n = ::recv(s, buffer, sizeof buffer, 0)) > 0 || (n < 0 && errno == EINTR);)
      if (n > 0) answer.append(buffer, static_cast<std::size_t>(n));
  }
  ::close(s);
  return answer;
}
const std::string get = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

}  // namespace

TEST_CASE("counters: every one is added up under the name of what counts it, and drops are among them") {
  WorkerReport one, other;
  one.counters.dropped_no_channel = 1, other.counters.dropped_no_channel = 2;
  one.loop.kernel_drops = 3, other.loop.kernel_drops = 4;
  one.streams.media_dropped = 5, other.streams.media_dropped = 6;
  one.dtls.dtls_dropped_limit = 7, other.dtls.dtls_dropped_limit = 8;
  one.moved.passed_on = 9, other.moved.passed_on = 10;
  one.allocations = 11, other.allocations = 12;
  one.dropped_retired = 13, other.dropped_retired = 14;
  other.gate_is_up = true;
  CounterSums sums;
  CHECK(sums.rows().empty());
  CHECK(sums.of("turn", "dropped_no_channel") == 0);
  sums.add(one);
  sums.add(other);
  CHECK(sums.of("turn", "dropped_no_channel") == 3);
  CHECK(sums.of("loop", "kernel_drops") == 7);
  CHECK(sums.of("streams", "media_dropped") == 11);
  CHECK(sums.of("dtls", "dtls_dropped_limit") == 15);
  CHECK(sums.of("moved", "passed_on") == 19);
  CHECK(sums.of("worker", "allocations") == 23);
  CHECK(sums.of("worker", "gates_up") == 1);
  std::set<std::pair<std::string_view, std::string_view>> names;
  for (const auto& row : sums.rows()) CHECK(names.insert({row.group, row.counter}).second);
  std::set<std::string_view> told;  // a line of the log has each name once
  std::uint64_t dropped = 0;
  for (const auto& row : sums.drops()) {
    CAPTURE(row.counter);
    CHECK(names.contains({row.group, row.counter}));
    CHECK(told.insert(row.counter).second);
    dropped += row.sum;
  }
  CHECK(dropped == 3 + 7 + 11 + 15 + 27);
}

TEST_CASE("metrics: no counter is forgotten, and none is there that is not counted") {
  std::set<std::pair<std::string_view, std::string_view>> counted;
  for_each_counter({}, [&](std::string_view group, std::string_view counter, std::uint64_t) {
    if (group == "worker") return;  // gauges of metrics_text.cpp
    CAPTURE(group);
    CAPTURE(counter);
    counted.insert({group, counter});
    CHECK_MESSAGE(is_in_metrics(group, counter), "add a row to relay/daemon/metrics_counters.cpp");
  });
  std::set<std::string> series;
  for (const CounterRow& row : counter_rows()) {
    CAPTURE(row.counter);
    CHECK(counted.contains({row.group, row.counter}));
    if (row.family.empty()) continue;
    CHECK(std::any_of(counter_families().begin(), counter_families().end(), [&](const CounterFamily& f) { return f.name == row.family; }));
    CHECK(series.insert(fmt::format("{}{{{}={},{}={}}}", row.family, row.label.name, row.label.value, row.second_label.name, row.second_label.value)).second);
  }
  // What is lost is among the drops.
  for (const CounterRow& row : counter_rows()) {
    CAPTURE(row.counter);
    if (row.counter.find("dropped") != row.counter.npos || row.counter.ends_with("_lost") || row.counter == "kernel_drops" || row.counter == "truncated")
      CHECK(row.family == "radiotower_dropped_packets_total");
  }
}

TEST_CASE("metrics: each family once with HELP and TYPE, each series once, below its family") {
  std::istringstream lines(metrics_text(two_workers(), true));
  std::set<std::string> families, series;
  std::string family, line;
  while (std::getline(lines, line)) {
    CAPTURE(line);
    if (line.rfind("# HELP ", 0) == 0) {
      family = line.substr(7, line.find(' ', 7) - 7);
      CHECK(families.insert(family).second);
      CHECK(line.size() > 7 + family.size() + 5);
    } else if (line.rfind("# TYPE ", 0) == 0) {
      CHECK(line.rfind("# TYPE " + family + ' ', 0) == 0);
    } else {
      CHECK(line.rfind(family, 0) == 0);
      CHECK(series.insert(line.substr(0, line.rfind(' '))).second);
      for (const char* word : {"user", "client=", "peer=\""}) CHECK(line.find(std::string("{") + word) == line.npos);
    }
  }
  CHECK(series.size() > 200);
}

TEST_CASE("metrics: sums over the workers, cumulative buckets, large counters to the last digit") {
  Snapshot snapshot = two_workers();
  snapshot.workers[0].report.tallies.of(turn::Tallies::Way::tls).bytes_to_client = (1ULL << 53) - 1;
  const std::string text = metrics_text(snapshot, false);
  CHECK(has_line(text, R"(radiotower_dropped_packets_total{reason="no_channel"} 6)"));
  CHECK(has_line(text, R"(radiotower_relayed_bytes_total{direction="to_peer",transport="tls",path="stream"} 200)"));
  CHECK(has_line(text, R"(radiotower_relayed_bytes_total{direction="to_peer",transport="udp",path="mmsg"} 0)"));
  CHECK(has_line(text, R"(radiotower_request_handling_seconds_bucket{le="2.5e-05"} 0)"));
  CHECK(has_line(text, R"(radiotower_request_handling_seconds_bucket{le="5e-05"} 2)"));
  CHECK(has_line(text, R"(radiotower_request_handling_seconds_bucket{le="+Inf"} 2)"));
  CHECK(has_line(text, "radiotower_request_handling_seconds_sum 6e-05"));
  CHECK(has_line(text, "radiotower_request_handling_seconds_count 2"));
  CHECK(text.find("turn_total_allocations") == text.npos);
  CHECK(has_line(text, R"(radiotower_relayed_bytes_total{direction="to_client",transport="tls",path="stream"} 9007199254740991)"));
}

TEST_CASE("metrics: two certificates of one name are two series") {
  Snapshot snapshot = two_workers();
  snapshot.standing.certificates = {{"rsa.pem", {"turn.example.org"}, 0, 1000, ""}, {"ec.pem", {"turn.example.org"}, 0, 2000, ""}, {"ec.pem", {}, 0, 2000, ""}, {"a\"b\\c\nd.pem", {}, 0, 3000, ""}};
  const std::string text = metrics_text(snapshot, false);
  CHECK(has_line(text, R"(radiotower_certificate_not_after_timestamp_seconds{name="turn.example.org",file="rsa.pem"} 1000)"));
  CHECK(has_line(text, R"(radiotower_certificate_not_after_timestamp_seconds{name="turn.example.org",file="ec.pem"} 2000)"));
  CHECK(has_line(text, R"(radiotower_certificate_not_after_timestamp_seconds{name="",file="a\"b\\c\nd.pem"} 3000)"));
}

TEST_CASE("metrics server: a Unix socket of mode 0660; a stale one is replaced, and what is no socket or answers is not") {
  Log log({LogFormat::text, Priority::error});
  FakeOperations operations;
  Folder folder;
  std::string why;
  const int file = ::open(folder.socket().c_str(), O_CREAT | O_WRONLY, 0600);
  ::close(file);
  CHECK(MetricsServer::start(folder.settings(), operations, log, why) == nullptr);
  CHECK(why.find("is no socket") != why.npos);
  ::unlink(folder.socket().c_str());
  {
    const int stale = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, folder.socket().c_str(), folder.socket().size() + 1);
    REQUIRE(::bind(stale, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
    ::close(stale);
  }
  {
    const auto server = MetricsServer::start(folder.settings(), operations, log, why);
    REQUIRE_MESSAGE(server, why);
    struct stat found{};
    REQUIRE(::stat(folder.socket().c_str(), &found) == 0);
    CHECK((found.st_mode & 07777) == 0660);
    CHECK(MetricsServer::start(folder.settings(), operations, log, why) == nullptr);
    CHECK(why.find("another program, listens on") != why.npos);
    CHECK(::access(folder.socket().c_str(), F_OK) == 0);
    CHECK(ask(folder.socket(), get).find("200 OK") != std::string::npos);
  }
  CHECK(::access(folder.socket().c_str(), F_OK) != 0);
  OperatorSettings nowhere;
  nowhere.metrics_listen = "unix:/nowhere/at/all.sock";
  CHECK(MetricsServer::start(nowhere, operations, log, why) == nullptr);
  CHECK(why.find("RuntimeDirectory=") != why.npos);
  CHECK(operations.sink == nullptr);
}

TEST_CASE("metrics server: a worker that does not answer keeps its figures, so that no counter goes backwards") {
  Log log({LogFormat::text, Priority::error});
  FakeOperations operations;
  Folder folder;
  std::string why;
  const auto server = MetricsServer::start(folder.settings(), operations, log, why);
  REQUIRE_MESSAGE(server, why);
  std::string text = ask(folder.socket(), get);
  CHECK(has_line(text, R"(radiotower_dropped_packets_total{reason="no_channel"} 10)"));
  operations.silent = 1;
  text = ask(folder.socket(), get);
  CHECK(has_line(text, R"(radiotower_dropped_packets_total{reason="no_channel"} 10)"));
  CHECK(has_line(text, R"(radiotower_worker_answers{worker="0"} 1)"));
  CHECK(has_line(text, R"(radiotower_worker_answers{worker="1"} 0)"));
}

TEST_CASE("metrics server: coturn's names count finished sessions by realm, and a reload switches them") {
  Log log({LogFormat::text, Priority::error});
  FakeOperations operations;
  Folder folder;
  std::string why;
  const auto server = MetricsServer::start(folder.settings(), operations, log, why);
  REQUIRE_MESSAGE(server, why);
  turn::Event event;
  event.kind = turn::Event::Kind::allocation_ended;
  event.packets_to_peer = 3, event.bytes_to_peer = 30, event.packets_to_client = 4, event.bytes_to_client = 40;
  operations.sink->on_event(0, event);
  event.realm = "other.example";
  operations.sink->on_event(1, event);
  CHECK(ask(folder.socket(), get).find("turn_traffic") == std::string::npos);
  server->apply(folder.settings(true));
  const std::string text = ask(folder.socket(), get);
  CHECK(has_line(text, R"(turn_traffic_rcvp{realm="example.org"} 3)"));
  CHECK(has_line(text, R"(turn_traffic_sentb{realm="other.example"} 40)"));
  CHECK(has_line(text, R"(turn_traffic_peer_rcvp{realm="other.example"} 4)"));
  CHECK(has_line(text, "turn_total_traffic_rcvb 60"));
  CHECK(text.find("realm=\"\"") == text.npos);
}

TEST_CASE("metrics server: what it does not serve") {
  Log log({LogFormat::text, Priority::error});
  FakeOperations operations;
  Folder folder;
  std::string why;
  const auto server = MetricsServer::start(folder.settings(), operations, log, why);
  REQUIRE_MESSAGE(server, why);
  const auto status = [&](const std::string& request) { return ask(folder.socket(), request).substr(9, 3); };
  const std::string rest = " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
  CHECK(status("GET /" + rest + "\r\n") == "200");
  CHECK(status("GET /metrics?x=y" + rest + "\r\n") == "200");
  CHECK(status("GET /etc/passwd" + rest + "\r\n") == "404");
  CHECK(status("POST /metrics" + rest + "\r\n") == "405");
  CHECK(status("POST /metrics" + rest + "Content-Length: 1000000\r\n\r\n") == "400");
  CHECK(status("GET /metrics" + rest + "Transfer-Encoding: chunked\r\n\r\n") == "400");
  CHECK(status("nonsense\r\n\r\n") == "400");
  CHECK(status("GET /metrics" + rest + "X: " + std::string(9000, 'x') + "\r\n\r\n") == "431");
  const std::string head = ask(folder.socket(), "HEAD /metrics" + rest + "\r\n");
  CHECK(head.ends_with("\r\n\r\n"));
  CHECK(head.find("Content-Length: ") != head.npos);
  // Prometheus asks for OpenMetrics first and takes what it gets.
  CHECK(ask(folder.socket(), "GET /metrics" + rest + "Accept: application/openmetrics-text;version=1.0.0,*/*;q=0.1\r\n\r\n").find("text/plain; version=0.0.4") !=
        std::string::npos);
}
