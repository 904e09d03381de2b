// The worker with real sockets on loopback (station.h).
#include "daemon/worker.h"

#include <doctest/doctest.h>
#include <signal.h>

#include "station.h"

using namespace radiotower;
using namespace radiotower::daemon;
using namespace radiotower::daemon::test;

TEST_CASE("a client allocates, binds a channel, and talks with a peer both ways") {
  for (const auto backend : backends) {
    Station station(backend);
    if (!station.works) continue;
    CHECK(station.relay->started().backend == (backend == Backend::epoll ? "epoll" : "io_uring"));
    Client alice(station.listener);
    Udp peer("127.0.0.3");
    REQUIRE(alice.allocates() == 0);
    CHECK(alice.relayed.ip == at("127.0.0.2").ip);
    REQUIRE(alice.binds(0x4000, peer.address) == 0);
    alice.sends_channel(0x4000, "hello");
    CHECK(text(peer.receive()) == "hello");
    CHECK(peer.from == alice.relayed);
    peer.send(alice.relayed, as_bytes("and back"));
    const auto packet = alice.socket.receive();
    REQUIRE(packet.size() == 12);
    CHECK(load_be16(packet.data()) == 0x4000);
    CHECK(text(packet, 4) == "and back");

    const auto made = station.reader.wait_for("allocation made");
    CHECK(made.find("user=alice client=" + alice.socket.address.text() + " transport=udp relayed=" + alice.relayed.text() + " listener=" +
                    station.listener.text()) != std::string::npos);
    CHECK(alice.ends() == 0);
    const auto ended = station.reader.wait_for("allocation ended");
    CHECK(ended.find("bytes_to_peer=5 packets_to_peer=1 bytes_to_client=8 packets_to_client=1") != std::string::npos);
    CHECK(ended.find("reason=\"refreshed to zero\"") != std::string::npos);
  }
}

TEST_CASE("every socket that was opened is armed, and closed when its allocation ends") {
  for (const auto backend : backends) {
    Station station(backend, {}, 2);
    if (!station.works) continue;
    std::vector<std::unique_ptr<Client>> clients;
    for (int i = 0; i < 100; ++i) {
      clients.push_back(std::make_unique<Client>(station.listener));
      REQUIRE(clients.back()->allocates() == 0);
    }
    auto report = station.report();
    CHECK(report.allocations == 100);
    CHECK(report.sockets == 102);  // and one listener a worker
    CHECK(report.armed == report.sockets);
    CHECK(station.relay->shared().usage().used == 100);
    for (auto& client : clients) CHECK(client->ends() == 0);
    report = station.report();
    CHECK(report.allocations == 0);
    CHECK(report.sockets == 2);
    CHECK(report.armed == 2);
    CHECK(station.relay->shared().usage().used == 0);
  }
}

TEST_CASE("a relay port that another program holds is passed over") {
  for (const auto backend : backends) {
    Udp other("127.0.0.2", free_address().port);  // whose neighbour is nobody's by chance
    SettingsWishes wishes;
    wishes.first_port = wishes.last_port = other.address.port;
    if (wishes.first_port % 2 == 0) ++wishes.last_port;
    else --wishes.first_port;
    Station station(backend, wishes);
    if (!station.works) continue;
    Client alice(station.listener), bob(station.listener);
    REQUIRE(alice.allocates() == 0);
    CHECK(alice.relayed.port != other.address.port);
    CHECK(bob.allocates() == 508);
  }
}

TEST_CASE("a reload swaps the settings between turns, and calls that it forbids stop at once (P36)") {
  for (const auto backend : backends) {
    Station station(backend);
    if (!station.works) continue;
    Client alice(station.listener);
    Udp peer("127.0.0.3");
    REQUIRE(alice.allocates() == 0);
    REQUIRE(alice.binds(0x4000, peer.address) == 0);
    alice.sends_channel(0x4000, "before");
    CHECK(text(peer.receive()) == "before");

    SettingsWishes closed;
    closed.allow.clear();
    station.relay->apply(make_settings(station.listener, closed));
    CHECK(station.report().allocations == 1);  // the call is still there ...
    alice.sends_channel(0x4000, "after");
    alice.syncs();
    CHECK(station.report().counters.dropped_peer_denied == 1);  // ... and goes nowhere
    CHECK(alice.permits(peer.address) == 403);
    const auto line = station.reader.wait_for("peer refused");
    CHECK(line.find("127.0.0.3") != std::string::npos);
    CHECK(line.find("(loopback); only \"unsafe\" behind exactly this address in peers.allow opens it [user=alice") != std::string::npos);
    CHECK(peer.quiet());

    station.relay->apply(make_settings(station.listener));
    CHECK(station.report().allocations == 1);
    alice.sends_channel(0x4000, "again");
    CHECK(text(peer.receive()) == "again");
  }
}

TEST_CASE("a storm of reloads loses nothing") {
  Station station(Backend::automatic);
  REQUIRE(station.works);
  Client alice(station.listener);
  Udp peer("127.0.0.3");
  REQUIRE(alice.allocates() == 0);
  REQUIRE(alice.binds(0x4000, peer.address) == 0);
  for (int i = 0; i < 200; ++i) {
    station.relay->apply(make_settings(station.listener));
    alice.sends_channel(0x4000, "still here");
    CHECK(text(peer.receive()) == "still here");
  }
}

TEST_CASE("a reload takes over the range of ports and the peers; a listener that is open stays guarded") {
  Station station(Backend::automatic);
  REQUIRE(station.works);
  SettingsWishes wishes;
  wishes.last_port = 45999;
  wishes.allow.clear();
  station.relay->apply(make_settings(at("127.0.0.1", 9), wishes));
  CHECK(station.report().sockets == 1);
  CHECK(station.relay->shared().usage().range == 6000);
  Client alice(station.listener);
  REQUIRE(alice.allocates() == 0);
  CHECK(alice.relayed.port <= 45999);
  CHECK(alice.permits(at("127.0.0.3", 9)) == 403);
  // The listener that the new settings do not know is still ours, and guarded as such.
  CHECK(station.relay->settings().peers->judge(station.listener, net::Family::ipv4).verdict != net::PeerVerdict::permitted);
  CHECK(station.relay->settings().listeners.size() == 2);
  station.relay->apply(make_settings(station.listener));
}

TEST_CASE("more requests in one turn than one arena has room for are all answered") {
  for (const auto backend : backends) {
    Station station(backend);
    if (!station.works) continue;
    Client client(station.listener);
    std::uint32_t last = 0;
    const auto wave = [&](int requests) {
      for (int i = 0; i < requests; ++i) {
        std::array<std::uint8_t, 64> space{};
        stun::Writer writer(space, Class::request, Method::binding, client.next_id());
        client.socket.send(station.listener, writer.bytes());
      }
      for (int i = 0; i < requests; ++i) {
        const auto bytes = client.socket.receive();
        const auto message = stun::Message::read(bytes);
        REQUIRE(message);
        CHECK(message->is(Class::success, Method::binding));
        CHECK(load_be32(message->transaction_id().data()) == ++last);
      }
    };
    // So many that an arena has no room for all, and fewer than a flood begins with (flood.h). The one behind them is a quiet turn, from
    // which what might be a flood is counted anew.
    for (int i = 0; i < 8; ++i) {
      wave(180);
      wave(1);
    }
    CHECK(station.report().counters.binding_answers == 8 * 181);
  }
}

TEST_CASE("stopping tells the log of every allocation and the clients nothing") {
  for (const auto backend : backends) {
    Station station(backend);
    if (!station.works) continue;
    Client alice(station.listener), bob(station.listener);
    REQUIRE(alice.allocates() == 0);
    REQUIRE(bob.allocates() == 0);
    station.ends();
    for (int i = 0; i < 2; ++i) CHECK(station.reader.wait_for("allocation ended").find("reason=shutdown") != std::string::npos);
    CHECK(alice.socket.quiet());
    CHECK(bob.socket.quiet());
    CHECK_FALSE(station.relay->broken());
    CHECK_FALSE(station.relay->workers()[0]->report(1ms));
    station.relay.reset();
    // Its port is free: soon, for the kernel takes an io_uring apart behind our back.
    int error = 0;
    CHECK(comes([&] { return static_cast<bool>(io::open_udp(alice.relayed, {}, error)); }));
  }
}

TEST_CASE("an address that another program has is named, with the way to find out which") {
  Udp other("127.0.0.1");
  LogReader reader;
  Log log({LogFormat::text, Priority::info, reader.descriptor(), 64});
  RelayPlan plan;
  plan.workers = 1;
  plan.listeners = {other.address};
  Relay relay(plan, make_settings(other.address), log, [] {});
  std::string why;
  CHECK_FALSE(relay.start(why));
  CHECK(why.find("cannot listen on " + other.address.text() + ": another program has it; `ss -ulpn") == 0);
  CHECK(relay.workers().empty());
}

TEST_CASE("a second relay on the same address is refused though both would share the port (SO_REUSEPORT)") {
  Station first(Backend::automatic);
  REQUIRE(first.works);
  RelayPlan plan;
  plan.workers = 1;
  plan.listeners = {first.listener};
  Relay second(plan, make_settings(first.listener), first.log, [] {});
  std::string why;
  CHECK_FALSE(second.start(why));
  CHECK(why.find("another program has it") != std::string::npos);
}

TEST_CASE("a worker's heart beats without traffic") {
  Station station(Backend::automatic);
  REQUIRE(station.works);
  const Worker& worker = *station.relay->workers()[0];
  const auto before = worker.heartbeat();
  while (worker.heartbeat() < before + 2) std::this_thread::sleep_for(10ms);
}

TEST_CASE("a worker stalls after so many looks without a beat, and recovers with the next") {
  StallWatch watch(3);
  using Change = StallWatch::Change;
  CHECK(watch.look(1) == Change::none);
  CHECK(watch.look(1) == Change::none);
  CHECK(watch.look(1) == Change::none);
  CHECK_FALSE(watch.stalled());
  CHECK(watch.look(1) == Change::stalled);
  CHECK(watch.look(1) == Change::none);  // told once
  CHECK(watch.stalled());
  CHECK(watch.look(2) == Change::recovered);
  CHECK_FALSE(watch.stalled());
}

TEST_CASE("the watchdog is fed while every worker makes progress, and by none of the others once one has stalled") {
  StallWatches watches(3, 2);
  std::array<std::uint64_t, 3> hearts{1, 1, 1};
  std::vector<std::pair<std::size_t, StallWatch::Change>> told;
  const auto look = [&] {
    return watches.look([&](std::size_t i) { return hearts[i]; }, [&](std::size_t i, StallWatch::Change change) { told.emplace_back(i, change); });
  };
  for (int i = 0; i < 10; ++i) {
    for (auto& heart : hearts) ++heart;
    CHECK(look());
  }
  for (int i = 0; i < 5; ++i) {  // worker 1 hangs
    ++hearts[0];
    ++hearts[2];
    CHECK(look() == (i < 1));
  }
  CHECK_FALSE(watches.all_alive());
  REQUIRE(told.size() == 1);
  CHECK(told[0] == std::pair{std::size_t{1}, StallWatch::Change::stalled});
  for (auto& heart : hearts) ++heart;
  CHECK(look());
  REQUIRE(told.size() == 2);
  CHECK(told[1] == std::pair{std::size_t{1}, StallWatch::Change::recovered});
}

TEST_CASE("descriptors: ours come off first") {
  CHECK(relay_ports_that_fit(20'000, 2, 2) == 20'000 - 32 - 12);
  CHECK(relay_ports_that_fit(10, 2, 2) == 0);
}

TEST_CASE("signals: SIGHUP reloads or changes nothing, SIGUSR1 counts, SIGTERM ends") {
  Control::block_signals();
  const auto listener = free_address();
  LogReader reader;
  Log log({LogFormat::text, Priority::info, reader.descriptor(), 1024});
  RelayPlan plan;
  plan.version = "9.9";
  plan.workers = 2;
  plan.listeners = {listener};
  std::atomic<bool> good{false};
  const auto reload = [&](ReloadResult& result) -> std::optional<NextSettings> {
    if (good) return NextSettings{make_settings(listener), nullptr, {listener}, {}, {}, {}, {}};
    result.errors = {"relay.toml:3: no such key"};
    return std::nullopt;
  };
  int code = -1;
  std::thread thread([&] { code = Control(plan, make_settings(listener), reload, log).run(); });
  const auto ready = reader.wait_for("ready: ");
  CHECK(ready.find("version=9.9 backend=") != std::string::npos);
  CHECK(ready.find("workers=2 listeners=" + listener.text() + " relay=127.0.0.2 ports=40000-44999") != std::string::npos);
  Client alice(listener);
  CHECK(alice.allocates() == 0);

  kill(getpid(), SIGHUP);
  CHECK(reader.wait_for("reload").find("reload refused: relay.toml:3: no such key; nothing was changed") != std::string::npos);
  good = true;
  kill(getpid(), SIGHUP);
  CHECK(reader.wait_for("reload").find("notice reloaded") != std::string::npos);
  for (int i = 0; i < 1000; ++i) kill(getpid(), SIGHUP);
  kill(getpid(), SIGUSR1);
  const auto counters = reader.wait_for("counters of turn");
  CHECK(counters.find("worker=0 packets_to_peer=0") != std::string::npos);
  CHECK(counters.find("icmp_ignored=0") != std::string::npos);  // to the last one
  CHECK(reader.wait_for("counters of ports").find("range=5000 free=4999 used=1 reserved=0 quarantined=0") != std::string::npos);
  kill(getpid(), SIGTERM);
  CHECK(reader.wait_for("allocation ended").find("reason=shutdown") != std::string::npos);
  thread.join();
  CHECK(code == 0);
}
