// External addresses that are asked for, and what becomes of the settings when addresses come and go.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <set>
#include <thread>

#include "daemon/address_watch.h"
#include "radiotower/io/socket.h"
#include "radiotower/stun/message.h"
#include "station.h"

using namespace radiotower;
using namespace radiotower::daemon;
using namespace std::chrono_literals;

namespace {

net::IpAddress ip(std::string_view text) { return *net::IpAddress::parse(text); }

io::HostAddress on(const char* text, const char* interface) {
  io::HostAddress a;
  a.ip = ip(text);
  a.interface = interface;
  a.loopback = a.ip.is_loopback();
  return a;
}
const std::vector<io::HostAddress> one_address = {on("127.0.0.1", "lo"), on("192.168.0.105", "eth0")};
const std::vector<io::HostAddress> two_addresses = {on("127.0.0.1", "lo"), on("192.168.0.105", "eth0"), on("10.0.0.4", "eth1")};
const std::vector<io::HostAddress> no_address = {on("127.0.0.1", "lo")};

/// A log that nobody reads. Its thread, like those that ask, must not take signals that other tests send.
Log& silence() {
  Control::block_signals();
  static Log log({LogFormat::text, Priority::error, ::open("/dev/null", O_WRONLY | O_CLOEXEC), 64});
  return log;
}

/// Secrets, and a configuration that names them.
struct Folder {
  std::filesystem::path path;
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "radiotower-addresses-XXXXXX").string();
    REQUIRE(mkdtemp(name.data()) != nullptr);
    path = name;
    std::ofstream(path / "secrets") << "north-of-the-wall\n";
    std::filesystem::permissions(path / "secrets", std::filesystem::perms::owner_read);
  }
  ~Folder() { std::filesystem::remove_all(path); }
  Config config(const std::string& text) const {
    Config config;
    ConfigErrors errors;
    read_config_text("[credentials]\nsecrets_file = \"secrets\"\n" + text, (path / "relay.toml").string(), config, errors);
    for (const auto& error : errors) FAIL(error.text());
    return config;
  }
};

Built build(const Config& config, const std::vector<io::HostAddress>& host, const ExternalAnswers& known = {}) {
  ConfigErrors errors;
  auto built = build_settings(config, host, errors, known);
  for (const auto& error : errors) FAIL(error.text());
  REQUIRE(built);
  return *built;
}
Built rebuild(const Config& config, const Built& before, const std::vector<io::HostAddress>& host, const ExternalAnswers& known = {}) {
  ConfigErrors errors;
  auto built = rebuild_addresses(config, before, host, known, errors);
  for (const auto& error : errors) FAIL(error.text());
  REQUIRE(built);
  return *built;
}

std::string refusal(const char* text) {
  std::string what, hint;
  CHECK_FALSE(parse_external(text, what, hint));
  CHECK_FALSE(hint.empty());
  return what;
}

/// A STUN server on loopback that answers each request once, as it is told.
class StunServer {
 public:
  enum class Says { address, wrong_transaction, error };
  StunServer(Says says, net::IpAddress tells) : says_(says), tells_(tells) {
    int error = 0;
    socket_ = io::open_udp({ip("127.0.0.1"), 0, 0}, {}, error);
    REQUIRE(socket_);
    address_ = io::local_address(socket_);
    const timeval patience{0, 100'000};
    setsockopt(socket_.descriptor(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    REQUIRE(::fcntl(socket_.descriptor(), F_SETFL, 0) == 0);  // blocking
    thread_ = std::thread([this] { serve(); });
  }
  ~StunServer() {
    stop_ = true;
    thread_.join();
  }
  std::string source() const { return "stun:" + address_.text(); }
  int requests() const { return requests_; }
  /// Transactions: while we are slow to answer, a request is sent again (RFC 8489, 6.2.1), and is the same one.
  std::size_t questions() const {
    const std::lock_guard lock(mutex_);
    return ids_.size();
  }

 private:
  void serve() {
    while (!stop_) {
      std::uint8_t buffer[1500];
      sockaddr_storage from{};
      socklen_t length = sizeof from;
      const ssize_t size = recvfrom(socket_.descriptor(), buffer, sizeof buffer, 0, reinterpret_cast<sockaddr*>(&from), &length);
      if (size <= 0) continue;
      const auto request = stun::Message::read(Bytes(buffer, static_cast<std::size_t>(size)));
      if (!request || !request->is(stun::Class::request, stun::Method::binding)) continue;
      stun::TransactionId id = request->transaction_id();
      {
        const std::lock_guard lock(mutex_);
        ids_.insert(id);
      }
      ++requests_;
      std::uint8_t space[128];
      if (says_ == Says::wrong_transaction && requests_ == 1) id[0] ^= 1;  // a stray one first: the right one comes with the retransmission
      stun::Writer writer(space, says_ == Says::error ? stun::Class::error : stun::Class::success, stun::Method::binding, id);
      if (says_ == Says::error) writer.add_error(stun::ErrorCode::unauthenticated, "");
      else writer.add_xor_address(stun::Attribute::xor_mapped_address, {tells_, 4711, 0});
      sendto(socket_.descriptor(), writer.bytes().data(), writer.bytes().size(), 0, reinterpret_cast<sockaddr*>(&from), length);
    }
  }
  Says says_;
  net::IpAddress tells_;
  io::Socket socket_;
  net::TransportAddress address_;
  std::atomic<bool> stop_{false};
  std::atomic<int> requests_{0};
  mutable std::mutex mutex_;
  std::set<stun::TransactionId> ids_;
  std::thread thread_;
};

/// Answers of the world, as a test sets them.
struct World {
  std::mutex mutex;
  ExternalAnswers says;
  std::atomic<int> asked{0}, woken{0};
  void set(const std::string& source, const char* local, const char* answer) {
    const std::lock_guard lock(mutex);
    says[{source, ip(local)}] = ip(answer);
  }
  ExternalAddresses::Ask ask() {
    return [this](const ExternalQuestion& question, const std::optional<net::IpAddress>&, const std::atomic<bool>&, std::string& why) -> std::optional<net::IpAddress> {
      const std::lock_guard lock(mutex);
      ++asked;
      const auto found = says.find(question);
      if (found != says.end()) return found->second;
      why = "nobody knows";
      return std::nullopt;
    };
  }
};

}  // namespace

TEST_CASE("relay.external: an address, a name or a STUN server, for one relay address or for the only one") {
  std::string what, hint;
  auto e = parse_external("198.51.100.7/192.168.0.105", what, hint);
  REQUIRE(e);
  CHECK((e->kind == ExternalEntry::Kind::address && e->address == ip("198.51.100.7") && *e->local == ip("192.168.0.105") && e->source.empty()));
  e = parse_external("dns:tower.example.org", what, hint);
  REQUIRE(e);
  CHECK((e->kind == ExternalEntry::Kind::dns && e->host == "tower.example.org" && !e->local && e->source == "dns:tower.example.org"));
  e = parse_external("stun:stun.example.org:3479/192.168.0.105", what, hint);
  REQUIRE(e);
  CHECK((e->kind == ExternalEntry::Kind::stun && e->host == "stun.example.org" && e->port == 3479 && *e->local == ip("192.168.0.105")));
  CHECK(e->source == "stun:stun.example.org:3479");
  e = parse_external("stun:stun.example.org", what, hint);
  REQUIRE(e);
  CHECK(e->port == 3478);
  e = parse_external("stun:[2001:db8::7]:3478", what, hint);
  REQUIRE(e);
  CHECK((e->host == "2001:db8::7" && e->port == 3478));
  CHECK(parse_external("stun:192.0.2.1:3478", what, hint).has_value());

  CHECK(refusal("tower.example.org") == "\"tower.example.org\" is not \"public/private\" or \"public\"");
  CHECK(refusal("dns:198.51.100.7") == "198.51.100.7 is an address, not a name");
  CHECK(refusal("dns:") == "\"\" is not a name");
  CHECK(refusal("dns:tower.example.org/eth0") == "\"eth0\" behind the slash is not an IP address");
  CHECK(refusal("stun:stun.example.org:0") == "port \"0\" is not a number from 1 to 65535");
  CHECK(refusal("stun:stun.example.org:") == "\"stun:stun.example.org:\" lacks the port behind the colon");
  CHECK(refusal("stun:[2001:db8::7:3478") == "\"stun:[2001:db8::7:3478\" is not a STUN server");
  CHECK(refusal("127.0.0.1/::1") == "\"127.0.0.1/::1\" mixes IPv4 and IPv6");
}

TEST_CASE("an answer that no peer could reach is not told to clients") {
  const auto local = ip("192.168.0.105"), outside = ip("192.0.2.1"), inside = ip("10.0.0.53");
  CHECK(unfit_external(ip("198.51.100.7"), local, &outside).empty());
  CHECK(unfit_external(local, local, &outside).empty());  // no NAT between
  CHECK(unfit_external(ip("10.0.0.9"), local, nullptr).empty());  // a name may stand for a NAT inside
  CHECK(unfit_external(ip("10.0.0.9"), local, &inside).empty());
  CHECK(unfit_external(ip("10.0.0.9"), local, &outside) == "192.0.2.1 says 10.0.0.9, a private address");
  CHECK(unfit_external(ip("127.0.1.1"), local, nullptr) == "127.0.1.1 is this machine itself; does /etc/hosts say so?");
  CHECK(unfit_external(ip("2001:db8::1"), local, &outside) == "2001:db8::1 is of the other address family");
  CHECK(unfit_external(ip("0.0.0.0"), local, &outside) == "nobody can reach 0.0.0.0");
  CHECK(unfit_external(ip("224.0.0.1"), local, &outside) == "nobody can reach 224.0.0.1");
  CHECK(unfit_external(ip("255.255.255.255"), local, &outside) == "nobody can reach 255.255.255.255");
  CHECK(unfit_external(ip("240.0.0.1"), local, nullptr) == "nobody can reach 240.0.0.1");
  CHECK(unfit_external(ip("0.1.2.3"), local, nullptr) == "nobody can reach 0.1.2.3");
}

TEST_CASE("a name with several addresses does not change by the minute") {
  const auto local = ip("192.168.0.105");
  const auto a = ip("198.51.100.7"), b = ip("198.51.100.8"), c = ip("198.51.100.9");
  std::string why;
  CHECK(choose_external({b, a, c}, std::nullopt, local, why) == a);
  CHECK(choose_external({c, b, a}, b, local, why) == b);
  CHECK(choose_external({c, a}, b, local, why) == a);  // it has gone
  CHECK(choose_external({ip("127.0.1.1"), c}, std::nullopt, local, why) == c);
  CHECK_FALSE(choose_external({ip("127.0.1.1")}, b, local, why));
  CHECK(why.find("/etc/hosts") != std::string::npos);
}

TEST_CASE("a STUN server is asked from the relay address (RFC 8489, 2), and only the answer to the question counts (6.3)") {
  const std::atomic<bool> stop{false};
  std::string why;
  SUBCASE("it says what it sees") {
    StunServer server(StunServer::Says::address, ip("10.9.8.7"));
    CHECK(ask_external({server.source(), ip("127.0.0.1")}, std::nullopt, stop, why) == std::nullopt);
    CHECK(why == "127.0.0.1 says 10.9.8.7, a private address");  // loopback is no private network
  }
  SUBCASE("a public address") {
    StunServer server(StunServer::Says::address, ip("198.51.100.7"));
    CHECK(ask_external({server.source(), ip("127.0.0.1")}, std::nullopt, stop, why) == ip("198.51.100.7"));
    CHECK(server.questions() == 1);
  }
  SUBCASE("an answer to another question is none: the request is sent again (6.2.1)") {
    StunServer server(StunServer::Says::wrong_transaction, ip("198.51.100.7"));
    CHECK(ask_external({server.source(), ip("127.0.0.1")}, std::nullopt, stop, why) == ip("198.51.100.7"));
    CHECK(server.requests() >= 2);
    CHECK(server.questions() == 1);
  }
  SUBCASE("an error is said as what it is") {
    StunServer server(StunServer::Says::error, ip("198.51.100.7"));
    CHECK_FALSE(ask_external({server.source(), ip("127.0.0.1")}, std::nullopt, stop, why));
    CHECK(why == server.source().substr(5) + " refuses to say: error 401");
  }
  SUBCASE("nothing waits for one that is silent, once the relay ends") {
    const std::atomic<bool> stopped{true};
    int error = 0;
    const io::Socket silent = io::open_udp({ip("127.0.0.1"), 0, 0}, {}, error);
    CHECK_FALSE(ask_external({"stun:" + io::local_address(silent).text(), ip("127.0.0.1")}, std::nullopt, stopped, why));
  }
}

TEST_CASE("settings: what is asked for is told once it is known, and the local address until then") {
  const Folder folder;
  const Config config = folder.config("[relay]\nexternal = [\"dns:tower.example.org\"]\n");
  const Built built = build(config, one_address);
  REQUIRE(built.questions.size() == 1);
  CHECK(built.questions[0] == ExternalQuestion{"dns:tower.example.org", ip("192.168.0.105")});
  CHECK(built.settings->relay_addresses[0].external == ip("192.168.0.105"));
  const Built known = build(config, one_address, {{built.questions[0], ip("198.51.100.7")}});
  CHECK(known.settings->relay_addresses[0].external == ip("198.51.100.7"));
  const auto& guarded = known.settings->peers->settings().relay_addresses;
  CHECK(std::find(guarded.begin(), guarded.end(), ip("198.51.100.7")) != guarded.end());
  ConfigErrors errors;
  CHECK_FALSE(build_settings(config, two_addresses, errors));  // whose is it?
  REQUIRE(errors.size() == 1);
  CHECK(errors[0].what == "\"dns:tower.example.org\" could be of 2 relay addresses");
  CHECK(errors[0].hint == "write \"dns:tower.example.org/PRIVATE\" with one of 192.168.0.105, 10.0.0.4");
}

TEST_CASE("a rebuild reads no file: addresses come and go, credentials and certificates stay") {
  const Folder folder;
  const Config config = folder.config("");
  const Built first = build(config, one_address);
  std::filesystem::remove(folder.path / "secrets");
  const Built more = rebuild(config, first, two_addresses);
  REQUIRE(more.settings->relay_addresses.size() == 2);
  CHECK(more.settings->relay_addresses[1].local == ip("10.0.0.4"));
  CHECK(more.settings->directory == first.settings->directory);
  const auto& listeners = more.listeners;
  CHECK(std::find(listeners.begin(), listeners.end(), net::TransportAddress{ip("10.0.0.4"), 3478, 0}) != listeners.end());
  const auto& own = more.settings->peers->settings().host_addresses;
  CHECK(std::find(own.begin(), own.end(), ip("10.0.0.4")) != own.end());
  const Built less = rebuild(config, more, one_address);
  CHECK(less.settings->relay_addresses.size() == 1);
  CHECK(less.listeners == first.listeners);
  const Built none = rebuild(config, less, no_address);  // the cable is out
  CHECK(none.settings->relay_addresses[0].local == ip("127.0.0.1"));
}

TEST_CASE("a rebuild waits for addresses that keys name, and takes no mapping away because of an address that came") {
  const Folder folder;
  SUBCASE("named ones that have gone are left out, and come back") {
    const Config config = folder.config("[relay]\naddresses = [\"192.168.0.105\", \"10.0.0.4\"]\n[listen]\nudp = [\"10.0.0.4:3478\", \"192.168.0.105:3478\"]\ntcp = []\n");
    const Built first = build(config, two_addresses);
    const Built less = rebuild(config, first, one_address);
    REQUIRE(less.settings->relay_addresses.size() == 1);
    CHECK(less.settings->relay_addresses[0].local == ip("192.168.0.105"));
    CHECK(less.listeners == first.listeners);
    CHECK(rebuild(config, less, two_addresses).settings->relay_addresses.size() == 2);
  }
  SUBCASE("the only one stays: there is nothing else to tell") {
    const Config config = folder.config("[relay]\naddresses = [\"192.168.0.105\"]\n");
    CHECK(rebuild(config, build(config, one_address), no_address).settings->relay_addresses[0].local == ip("192.168.0.105"));
  }
  SUBCASE("docker0 comes") {
    const Config config = folder.config("[relay]\nexternal = [\"198.51.100.7\"]\n");
    const Built more = rebuild(config, build(config, one_address), two_addresses);
    REQUIRE(more.settings->relay_addresses.size() == 2);
    CHECK(more.settings->relay_addresses[0].external == ip("198.51.100.7"));
    CHECK(more.settings->relay_addresses[1].external == ip("10.0.0.4"));
  }
  SUBCASE("the private part of a pair goes and comes") {
    const Config config = folder.config("[relay]\nexternal = [\"198.51.100.7/10.0.0.4\"]\n");
    const Built less = rebuild(config, build(config, two_addresses), one_address);
    CHECK(less.settings->relay_addresses.size() == 1);
    CHECK(rebuild(config, less, two_addresses).settings->relay_addresses[1].external == ip("198.51.100.7"));
  }
}

TEST_CASE("questions are asked at once, and again when a reload says so; what was known stays known when nobody answers") {
  World world;
  const ExternalQuestion question{"dns:tower.example.org", ip("192.168.0.105")};
  ExternalAddresses external(silence(), [&] { ++world.woken; }, world.ask());
  CHECK(external.wait(0ms));  // nothing is asked
  world.set(question.source, "192.168.0.105", "198.51.100.7");
  external.follow({question}, 3600s);
  REQUIRE(external.wait(30s));
  CHECK(external.answers().at(question) == ip("198.51.100.7"));
  CHECK(external.take_change());
  CHECK_FALSE(external.take_change());
  CHECK(world.woken == 1);

  world.set(question.source, "192.168.0.105", "198.51.100.8");
  external.follow({question}, 3600s);
  CHECK(test::comes([&] { return external.take_change(); }));
  CHECK(external.answers().at(question) == ip("198.51.100.8"));
  {
    const std::lock_guard lock(world.mutex);
    world.says.clear();
  }
  const int before = world.asked;
  external.follow({question}, 3600s);
  CHECK(test::comes([&] { return world.asked > before; }));
  CHECK(external.answers().at(question) == ip("198.51.100.8"));
  CHECK_FALSE(external.take_change());
  external.follow({}, 3600s);  // its address has gone; when it is back, this is the best guess
  CHECK(external.answers().at(question) == ip("198.51.100.8"));
}

TEST_CASE("a resolver that hangs holds up neither the start nor the end") {
  std::mutex gate;
  gate.lock();
  std::atomic<bool> back{false};
  {
    ExternalAddresses external(silence(), [] {}, [&](const auto&, const auto&, const auto&, std::string&) -> std::optional<net::IpAddress> {
      gate.lock();
      gate.unlock();
      back = true;
      return std::nullopt;
    });
    external.follow({{"dns:tower.example.org", ip("192.168.0.105")}}, 60s);
    CHECK_FALSE(external.wait(20ms));
  }
  gate.unlock();
  CHECK(test::comes([&] { return back.load(); }));
}

TEST_CASE("an answer that changes makes new settings, and so does an address; nothing else does") {
  const Folder folder;
  World world;
  auto host = std::make_shared<std::vector<io::HostAddress>>(one_address);
  const Config config = folder.config("[relay]\nexternal = [\"stun:192.0.2.1:3478/192.168.0.105\"]\n");
  world.set("stun:192.0.2.1:3478", "192.168.0.105", "198.51.100.7");
  FollowedAddresses addresses(silence(), [&] { ++world.woken; }, [host] { return *host; }, world.ask());
  Built built = build(config, *host);
  addresses.adopt(config, built, *host);
  addresses.wait_for_answers(30s, built);
  CHECK(built.settings->relay_addresses[0].external == ip("198.51.100.7"));
  std::vector<std::string> errors;
  CHECK_FALSE(addresses.due(Time(1s)));

  world.set("stun:192.0.2.1:3478", "192.168.0.105", "198.51.100.8");
  addresses.adopt(config, built, *host);
  REQUIRE(test::comes([&] { return addresses.due(Time(1s)); }));
  auto next = addresses.rebuild(errors);
  REQUIRE(next);
  CHECK(next->settings->relay_addresses[0].external == ip("198.51.100.8"));
  CHECK_FALSE(next->connections);
  CHECK_FALSE(addresses.due(Time(1s)));
  CHECK_FALSE(addresses.rebuild(errors));  // nothing has changed

  *host = two_addresses;
  next = addresses.rebuild(errors);
  REQUIRE(next);
  CHECK(next->settings->relay_addresses.size() == 2);
  CHECK(next->settings->relay_addresses[0].external == ip("198.51.100.8"));
  CHECK(next->listeners.size() == 3);
  CHECK(errors.empty());

  // One that has gone while a reload was under way is not taken for known.
  built = build(config, two_addresses);
  *host = one_address;
  addresses.adopt(config, built, two_addresses);
  next = addresses.rebuild(errors);
  REQUIRE(next);
  CHECK(next->settings->relay_addresses.size() == 1);
}

TEST_CASE("a running relay takes another address, another external one and other ports; its calls go on as they were") {
  test::Station station(Backend::automatic);
  REQUIRE(station.works);
  test::Client alice(station.listener);
  test::Udp peer("127.0.0.3");
  REQUIRE(alice.allocates() == 0);
  REQUIRE(alice.binds(0x4000, peer.address) == 0);
  auto next = std::make_shared<turn::Settings>(*test::make_settings(station.listener));
  next->relay_addresses = {{ip("127.0.0.4"), ip("198.51.100.7")}};
  next->first_port = 50000;
  next->last_port = 50009;
  net::PeerPolicySettings peers = next->peers->settings();
  peers.relay_addresses = {ip("127.0.0.4"), ip("198.51.100.7")};
  next->peers = std::make_shared<net::PeerPolicy>(peers);
  station.relay->apply(next);
  // What alice has is guarded for as long as she has it, and offered to nobody.
  const auto guarded = [&](const char* text) {
    const auto& all = station.relay->settings().peers->settings().relay_addresses;
    return std::find(all.begin(), all.end(), ip(text)) != all.end();
  };
  CHECK(guarded("127.0.0.2"));
  CHECK(guarded("127.0.0.4"));
  CHECK(station.relay->shared().ports_held(ip("127.0.0.2")) == 1);
  alice.sends_channel(0x4000, "still here");
  CHECK(test::text(peer.receive()) == "still here");

  test::Client bob(station.listener);
  REQUIRE(bob.allocates() == 0);
  CHECK(bob.relayed.ip == ip("198.51.100.7"));
  CHECK(bob.relayed.port >= 50000);
  CHECK(bob.relayed.port <= 50009);
  REQUIRE(bob.binds(0x4001, peer.address) == 0);
  bob.sends_channel(0x4001, "from the new one");
  CHECK(test::text(peer.receive()) == "from the new one");

  CHECK_FALSE(station.relay->holds_less());
  REQUIRE(alice.ends() == 0);
  CHECK(station.relay->holds_less());
  station.relay->apply(next);
  CHECK_FALSE(guarded("127.0.0.2"));
  CHECK_FALSE(station.relay->holds_less());
}
