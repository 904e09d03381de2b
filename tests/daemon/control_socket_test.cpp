// The control socket before a relay that is none: its bounds, which a test of the whole would have to wait for, and its threads.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "daemon/control_commands.h"
#include "daemon/control_socket.h"

using namespace radiotower;
using namespace radiotower::daemon;
using namespace std::chrono_literals;

namespace {

turn::AllocationFacts session(std::uint32_t index, std::string user) {
  turn::AllocationFacts facts;
  facts.worker = 1;
  facts.id = {index, 1, net::Family::ipv4};
  facts.user = std::move(user);
  facts.five_tuple.client = *net::TransportAddress::parse("192.0.2.7:5000");
  facts.relayed = {net::IpAddress::v4(0xC6120001u), static_cast<std::uint16_t>(40000 + index), 0};
  return facts;
}

class FakeRelay final : public Operations {
 public:
  Standing standing() override { return {}; }
  std::vector<WorkerReport> reports(milliseconds) override { return {}; }
  turn::Shared::Usage usage() override { return {}; }
  std::vector<offload::Outcome> offload_outcomes() override { return {}; }
  std::uint64_t log_lines_dropped() override { return 0; }
  unsigned allocations(std::vector<turn::AllocationFacts>& all, milliseconds) override {
    all = sessions;
    return silent;
  }
  Killed kill(const std::function<bool(const turn::AllocationFacts&)>& which, milliseconds) override {
    return {static_cast<std::size_t>(std::count_if(sessions.begin(), sessions.end(), which)), silent};
  }
  ReloadResult reload() override { return {false, {"relay.toml:3: listen.udp: no address"}, {}, {}, {}}; }
  void drain(std::optional<seconds>) override {}
  void end_drain() override {}
  void add_sink(EventSink& sink) override { sinks.add(sink); }
  void remove_sink(EventSink& sink) override { sinks.remove(sink); }

  EventSinks sinks;
  std::vector<turn::AllocationFacts> sessions;
  unsigned silent = 0;  // workers
};

class Client {
 public:
  explicit Client(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    REQUIRE(::connect(descriptor_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
    const timeval patience{30, 0};
    ::setsockopt(descriptor_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  }
  ~Client() { ::close(descriptor_); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  void say(std::string line) {
    line += '\n';
    REQUIRE(::send(descriptor_, line.data(), line.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(line.size()));
  }
  bool sends(const std::string& bytes) const { return ::send(descriptor_, bytes.data(), bytes.size(), MSG_NOSIGNAL) >= 0; }
  void ends() const { ::shutdown(descriptor_, SHUT_WR); }
  /// Empty: hung up.
  std::string hear() {
    while (got_.find('\n') == std::string::npos) {
      char bytes[4096];
      const ssize_t n = ::recv(descriptor_, bytes, sizeof bytes, 0);
      if (n < 0 && errno == EINTR) continue;  // stopped and gone on
      REQUIRE_MESSAGE((n >= 0 || errno == ECONNRESET), "no answer in thirty seconds");
      if (n <= 0) return {};
      got_.append(bytes, static_cast<std::size_t>(n));
    }
    const std::string line = got_.substr(0, got_.find('\n'));
    got_.erase(0, line.size() + 1);
    return line;
  }
  /// Waits for it, without reading.
  bool is_hung_up_on() const {
    pollfd wait{descriptor_, 0, 0};
    return ::poll(&wait, 1, 30'000) == 1 && (wait.revents & POLLHUP);
  }

 private:
  int descriptor_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  std::string got_;
};

struct Site {
  explicit Site(ControlBounds bounds = {}) : log({LogFormat::text, Priority::notice, null}) {
    settings.control_socket = std::string(folder) + "/control.sock";
    socket = ControlSocket::start(settings, relay, log, why, bounds);
    REQUIRE_MESSAGE(socket, why);
  }
  ~Site() {
    socket.reset();
    CHECK_FALSE(std::filesystem::exists(settings.control_socket));
    ::close(null);
    std::filesystem::remove_all(folder);
  }
  std::string name = (std::filesystem::temp_directory_path() / "control-test-XXXXXX").string();
  const char* folder = ::mkdtemp(name.data());
  int null = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
  Log log;
  FakeRelay relay;
  OperatorSettings settings;
  std::string why;
  std::unique_ptr<ControlSocket> socket;
};

bool holds(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("a user is named by the whole name, or by the user part of a time-limited one") {
  CHECK(names_user("alice", "alice"));
  CHECK(names_user("alice", "1767225600:alice"));
  CHECK(names_user("alice", "1767225600-alice"));  // rest_separator
  CHECK(names_user("1767225600:alice", "1767225600:alice"));
  CHECK_FALSE(names_user("lice", "1767225600:alice"));
  CHECK_FALSE(names_user("alice", "1-alice"));  // a name of a users file
  CHECK_FALSE(names_user("alice", "north-sea1:alice"));
  CHECK_FALSE(names_user("alice", "malice"));
  CHECK_FALSE(names_user("1767225600:alice", "alice"));
  CHECK_FALSE(names_user("", "1767225600:"));
}

TEST_CASE("control socket: a list longer than any buffer comes whole, in order, with its summary") {
  Site site;
  for (std::uint32_t i = 0; i < 5000; ++i) site.relay.sessions.push_back(session(i, i % 2 ? "alice" : "bob"));
  Client client(site.settings.control_socket);
  client.say(R"({"command":"sessions","user":"alice","sort":"user","limit":2000,"id":7})");
  client.say(R"({"command":"kill","session":"1-3-1"})");  // waits for its turn
  for (std::uint32_t i = 0; i < 2000; ++i) {
    const std::string line = client.hear();
    REQUIRE(holds(line, "\"session\":\"1-" + std::to_string(2 * i + 1) + "-1\""));
  }
  CHECK(client.hear() == R"({"id":7,"ok":true,"sessions":2500,"shown":2000})");
  CHECK(client.hear() == R"({"ok":true,"ended":1})");
}

TEST_CASE("control socket: workers that do not answer are told of, since their allocations may be alive") {
  Site site;
  site.relay.sessions = {session(1, "alice"), session(2, "alice")};
  site.relay.silent = 3;
  Client client(site.settings.control_socket);
  client.say(R"({"command":"sessions","limit":0})");
  CHECK(client.hear() == R"({"ok":true,"sessions":2,"shown":0,"whole":false,"workers_silent":3})");
  client.say(R"({"command":"kill","user":"alice","dry_run":true})");
  CHECK(client.hear() == R"({"ok":true,"would_end":2,"whole":false,"workers_silent":3})");
  client.say(R"({"command":"kill","user":"alice"})");
  CHECK(client.hear() == R"({"ok":true,"ended":2,"whole":false,"workers_silent":3})");
}

TEST_CASE("control socket: a refused reload comes with its sentences") {
  Site site;
  Client client(site.settings.control_socket);
  client.say(R"({"command":"reload"})");
  const std::string line = client.hear();
  CHECK(holds(line, "\"ok\":false"));
  CHECK(holds(line, "relay.toml:3: listen.udp: no address"));
}

TEST_CASE("control socket: who asks nothing is hung up on") {
  ControlBounds bounds;
  bounds.idle = 1000ms;
  Site site(bounds);
  Client idle(site.settings.control_socket);
  CHECK(holds(idle.hear(), "nothing was asked for 1 seconds"));
  CHECK(idle.hear().empty());
}

TEST_CASE("control socket: who reads nothing is hung up on") {
  ControlBounds bounds;
  bounds.stalled = 1000ms;
  Site site(bounds);
  for (std::uint32_t i = 0; i < 5000; ++i) site.relay.sessions.push_back(session(i, "alice"));
  Client stalled(site.settings.control_socket);
  stalled.say(R"({"command":"sessions"})");
  Client other(site.settings.control_socket);
  other.say(R"({"command":"stats"})");
  CHECK(holds(other.hear(), "\"ok\":true"));  // nobody waits for the one that stalls
  CHECK(stalled.is_hung_up_on());
  std::size_t lines = 0;
  while (!stalled.hear().empty()) ++lines;
  CHECK(lines < 5000);
}

TEST_CASE("control socket: events of many threads, told or counted as lost, while clients come and go") {
  ControlBounds bounds;
  bounds.events = 64;
  bounds.output = 4096;
  Site site(bounds);
  Client client(site.settings.control_socket);
  client.say(R"({"command":"events","kinds":["end","allocate"]})");
  CHECK(client.hear() == R"({"ok":true})");
  constexpr unsigned threads = 3, each = 2000;
  std::vector<std::thread> workers;
  for (unsigned w = 0; w < threads; ++w)
    workers.emplace_back([&, w] {
      turn::Event event;
      event.kind = turn::Event::Kind::allocation_made;
      event.user = "alice";
      for (unsigned i = 0; i < each; ++i) site.relay.sinks.tell(w, event);
    });
  std::uint64_t told = 0, lost = 0;
  std::thread visitor([&] {
    for (int i = 0; i < 20; ++i) {
      Client other(site.settings.control_socket);
      other.say(i % 2 ? R"({"command":"events"})" : R"({"command":"stats"})");
      other.hear();
    }
  });
  while (told + lost < threads * each) {
    const std::string line = client.hear();
    REQUIRE_FALSE(line.empty());
    const std::string_view count = "\"event\":\"lost\",\"count\":";
    if (const auto at = line.find(count); at != std::string::npos) lost += std::strtoull(line.c_str() + at + count.size(), nullptr, 10);
    else ++told;
  }
  CHECK(told + lost == threads * each);
  CHECK(told > 0);
  for (auto& worker : workers) worker.join();
  visitor.join();
}

TEST_CASE("control socket: who never stops talking keeps neither the others waiting nor the end of the relay") {
  for (const bool listens : {false, true}) {
    CAPTURE(listens);
    auto site = std::make_unique<Site>();
    Client talker(site->settings.control_socket);
    if (listens) {
      talker.say(R"({"command":"events"})");
      CHECK(talker.hear() == R"({"ok":true})");
    }
    std::atomic<bool> talks{false};
    std::thread mouth([&] {
      const std::string blanks(200'000, '\n');
      while (talker.sends(blanks)) talks = true;
    });
    while (!talks) std::this_thread::yield();
    Client other(site->settings.control_socket);
    for (int i = 0; i < 20; ++i) {
      other.say(R"({"command":"stats"})");
      CHECK(holds(other.hear(), "\"ok\":true"));
    }
    site.reset();  // hangs up on both
    mouth.join();
    CHECK(other.hear().empty());
  }
}

TEST_CASE("control socket: many requests in one go are answered in order, those of a client that has closed its side too") {
  Site site;
  Client client(site.settings.control_socket);
  std::string all;
  for (int i = 0; i < 1000; ++i) all += "\n {\"command\":\"kill\",\"session\":\"0-0-0\",\"id\":" + std::to_string(i) + "}\n\r\n";
  client.say(all + "\n \n");
  client.ends();
  for (int i = 0; i < 1000; ++i) REQUIRE(client.hear() == "{\"id\":" + std::to_string(i) + ",\"ok\":true,\"ended\":0}");
  CHECK(client.hear().empty());
}

TEST_CASE("control socket: JSON as deep as a line allows is refused, and the relay lives") {
  Site site;
  for (const std::string& open : {std::string("["), std::string("{\"all\":"), std::string("{\"command\":\"kill\",\"all\":[{\"id\":")}) {
    Client client(site.settings.control_socket);
    std::string line;
    while (line.size() + 2 * open.size() < 60'000) line += open;
    client.say(line);
    CHECK(holds(client.hear(), "\"ok\":false"));
    std::string whole;  // well-formed, and as deep
    const std::size_t depth = 60'000 / 9;
    for (std::size_t i = 0; i < depth; ++i) whole += "{\"all\":";
    whole += "1" + std::string(depth, '}');
    client.say(whole);
    CHECK(holds(client.hear(), "\"ok\":false"));
    client.say(R"({"command":"kill","all":)" + std::string(20'000, '[') + std::string(20'000, ']') + "}");
    CHECK(holds(client.hear(), "\"ok\":false"));
  }
}
