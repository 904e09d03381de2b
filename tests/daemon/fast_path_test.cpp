// The fast path between the core and the offload, with an offload in memory: what it is told, and what comes back into
// counters and log.
#include "daemon/fast_path.h"

#include <doctest/doctest.h>
#include <linux/capability.h>
#include <signal.h>
#include <sys/syscall.h>

#include <atomic>
#include <map>
#include <mutex>

#include "daemon/privileges.h"
#include "station.h"

using namespace radiotower;
using namespace radiotower::daemon;
using namespace radiotower::daemon::test;

namespace {

class FakeOffload final : public offload::Offload, private BucketSource {
 public:
  ~FakeOffload() override {
    CHECK(flows_.empty());
    CHECK(buckets_.empty());
  }

  const std::vector<offload::Attached>& attached() const override { return attached_; }
  const std::vector<std::string>& notes() const override { return notes_; }
  offload::FlowId add(const offload::Flow& flow, Time until) override {
    const std::lock_guard lock(mutex_);
    flows_[++last_] = {flow, until, {}};
    return last_;
  }
  void extend(offload::FlowId flow, Time until) override {
    const std::lock_guard lock(mutex_);
    flows_.at(flow).until = until;
  }
  offload::Counts remove(offload::FlowId flow) override {
    const std::lock_guard lock(mutex_);
    const offload::Counts counts = flows_.at(flow).counts;
    flows_.erase(flow);
    return counts;
  }
  offload::Counts counts(offload::FlowId flow) const override {
    const std::lock_guard lock(mutex_);
    return flows_.at(flow).counts;
  }
  BucketSource& buckets() override { return *this; }
  void keep_alive(Time until) override {
    const std::lock_guard lock(mutex_);
    alive_until_ = until;
    ++beats_;
  }
  std::vector<offload::Outcome> outcomes() const override { return {{"forwarded", 7}, {"passed_not_ours", 3}}; }
  std::size_t flows() const override {
    const std::lock_guard lock(mutex_);
    return flows_.size();
  }

  // The test's side.
  struct Held {
    offload::Flow flow;
    Time until;
    offload::Counts counts;
  };
  /// The only flow.
  Held held() const {
    const std::lock_guard lock(mutex_);
    REQUIRE(flows_.size() == 1);
    return flows_.begin()->second;
  }
  void passes(const offload::Counts& counts) {
    const std::lock_guard lock(mutex_);
    REQUIRE(flows_.size() == 1);
    flows_.begin()->second.counts = counts;
  }
  std::uint64_t beats() const {
    const std::lock_guard lock(mutex_);
    return beats_;
  }
  Time alive_until() const {
    const std::lock_guard lock(mutex_);
    return alive_until_;
  }
  std::size_t buckets_taken() const {
    const std::lock_guard lock(mutex_);
    return buckets_.size();
  }

 private:
  Bucket* take() override {
    const std::lock_guard lock(mutex_);
    buckets_.push_back(std::make_unique<Bucket>());
    return buckets_.back().get();
  }
  void give_back(Bucket* bucket) override {
    const std::lock_guard lock(mutex_);
    CHECK(std::erase_if(buckets_, [&](const auto& b) { return b.get() == bucket; }) == 1);
  }

  const std::vector<offload::Attached> attached_{{"eth0", 2, true}, {"eth1", 3, false}};
  const std::vector<std::string> notes_{"wlan0: the driver has no native XDP"};
  mutable std::mutex mutex_;
  std::map<offload::FlowId, Held> flows_;
  std::vector<std::unique_ptr<Bucket>> buckets_;
  offload::FlowId last_ = 0;
  Time alive_until_{};
  std::uint64_t beats_ = 0;
};

/// An offload that starts, and keeps what it was asked for in `asked`.
std::function<void(RelayPlan&)> with_offload(offload::OffloadSettings* asked = nullptr,
                                              std::atomic<FakeOffload*>* made = nullptr) {
  return [=](RelayPlan& plan) {
    plan.offload.emplace().automatic = true;
    plan.start_offload = [=](const offload::OffloadSettings& settings,
                             std::string&) -> std::unique_ptr<offload::Offload> {
      if (asked) *asked = settings;
      auto fake = std::make_unique<FakeOffload>();
      if (made) *made = fake.get();
      return fake;
    };
  };
}
std::function<void(RelayPlan&)> with_broken_offload(bool automatic) {
  return [=](RelayPlan& plan) {
    plan.offload.emplace().automatic = automatic;
    plan.start_offload = [](const offload::OffloadSettings&, std::string& why) -> std::unique_ptr<offload::Offload> {
      why = "eth0: the driver has no native XDP";
      return nullptr;
    };
  };
}

FakeOffload& offload_of(Station& station) {
  REQUIRE(station.relay->fast_path());
  return dynamic_cast<FakeOffload&>(station.relay->fast_path()->offload());
}

turn::Shortcut some_shortcut() {
  turn::Shortcut shortcut;
  shortcut.five_tuple = {at("192.0.2.1", 5000), at("192.0.2.2", 3478)};
  shortcut.relay = at("192.0.2.2", 40000);
  shortcut.peer = at("192.0.2.3", 9);
  shortcut.channel = 0x4000;
  return shortcut;
}

bool has_capability(unsigned capability) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct held[_LINUX_CAPABILITY_U32S_3] = {};
  REQUIRE(syscall(SYS_capget, &header, held) == 0);
  const auto& word = held[capability / 32];
  return ((word.effective | word.permitted | word.inheritable) >> (capability % 32) & 1) != 0;
}

}  // namespace

TEST_CASE("fast path: a bound channel is a flow with the addresses of the wire, and its counts are in counters and log") {
  for (const auto backend : backends) {
    offload::OffloadSettings asked;
    Station station(backend, {}, 1, with_offload(&asked));
    if (!station.works) continue;
    CHECK(asked.addresses == std::vector<net::IpAddress>{at("127.0.0.1").ip, at("127.0.0.2").ip});
    FakeOffload& offload = offload_of(station);
    Client alice(station.listener);
    Udp peer("127.0.0.3");
    REQUIRE(alice.allocates() == 0);
    CHECK(offload.flows() == 0);
    REQUIRE(alice.binds(0x4000, peer.address) == 0);
    const auto held = offload.held();
    CHECK(held.flow.client == alice.socket.address);
    CHECK(held.flow.listener == station.listener);
    CHECK(held.flow.relay == alice.relayed);
    CHECK(held.flow.peer == peer.address);
    CHECK(held.flow.channel == 0x4000);
    CHECK(held.flow.bucket == nullptr);

    alice.sends_channel(0x4000, "hello");  // what the program passes up goes the long way
    CHECK(text(peer.receive()) == "hello");
    offload.passes({10, 1000, 20, 4000, 2});
    const auto report = station.report();
    CHECK(report.counters.packets_to_peer == 11);
    CHECK(report.counters.packets_to_client == 20);
    CHECK(report.counters.shortcut_packets_to_peer == 10);
    CHECK(report.counters.dropped_user_limit == 2);
    offload.passes({15, 1500, 20, 4000, 2});
    CHECK(alice.ends() == 0);
    CHECK(offload.flows() == 0);
    const auto ended = station.reader.wait_for("allocation ended");
    CHECK(ended.find("bytes_to_peer=1505 "
                     "packets_to_peer=16 bytes_to_client=4000 packets_to_client=20") != std::string::npos);
  }
}

TEST_CASE("fast path: a reload that forbids the peer takes its flow back, and one that allows it brings it again") {
  Station station(Backend::automatic, {}, 1, with_offload());
  REQUIRE(station.works);
  FakeOffload& offload = offload_of(station);
  Client alice(station.listener);
  REQUIRE(alice.allocates() == 0);
  REQUIRE(alice.binds(0x4000, at("127.0.0.3", 9000)) == 0);
  CHECK(offload.flows() == 1);
  SettingsWishes closed;
  closed.allow.clear();
  station.relay->apply(make_settings(station.listener, closed));
  (void)station.report();
  CHECK(offload.flows() == 0);
  station.relay->apply(make_settings(station.listener));
  (void)station.report();
  CHECK(offload.flows() == 1);
}

TEST_CASE("fast path: stopping takes every flow back, and the log has their counts") {
  Station station(Backend::automatic, {}, 2, with_offload());
  REQUIRE(station.works);
  FakeOffload& offload = offload_of(station);
  Client alice(station.listener);
  REQUIRE(alice.allocates() == 0);
  REQUIRE(alice.binds(0x4000, at("127.0.0.3", 9000)) == 0);
  offload.passes({3, 300, 4, 400, 0});
  station.ends();
  CHECK(offload.flows() == 0);
  const auto ended = station.reader.wait_for("allocation ended");
  CHECK(ended.find("bytes_to_peer=300 packets_to_peer=3 bytes_to_client=400 packets_to_client=4") != std::string::npos);
}

TEST_CASE("fast path: the limit of a user is in a bucket of the offload's, which goes back with the last allocation") {
  SettingsWishes wishes;
  wishes.bytes_per_second = 1000;
  Station station(Backend::automatic, wishes, 1, with_offload());
  REQUIRE(station.works);
  FakeOffload& offload = offload_of(station);
  Client alice(station.listener);
  REQUIRE(alice.allocates() == 0);
  REQUIRE(alice.binds(0x4000, at("127.0.0.3", 9000)) == 0);
  REQUIRE(offload.held().flow.bucket != nullptr);
  CHECK(offload.held().flow.bucket->byte_rate == 1000);
  CHECK(offload.buckets_taken() == 1);
  CHECK(alice.ends() == 0);
  (void)station.report();
  CHECK(offload.buckets_taken() == 0);
}

TEST_CASE("fast path: without an offload, `auto` says why and relays, and an interface by name does not start") {
  Station automatic(Backend::automatic, {}, 1, with_broken_offload(true));
  REQUIRE(automatic.works);
  CHECK(automatic.relay->fast_path() == nullptr);
  const auto line = automatic.reader.wait_for("offload");
  CHECK(line.find("warning offload: off, so user space relays every packet: eth0: the driver has no native XDP") !=
        std::string::npos);
  Client alice(automatic.listener);
  CHECK(alice.allocates() == 0);

  Station named(Backend::automatic, {}, 1, with_broken_offload(false));
  CHECK_FALSE(named.works);
  CHECK(named.why == "no offload, which offload.xdp asks for: eth0: the driver has no native XDP");
  CHECK(named.relay->workers().empty());
}

TEST_CASE("fast path: the first flow wakes the control thread, which beats while there are flows and all workers live") {
  auto owned = std::make_unique<FakeOffload>();
  FakeOffload& offload = *owned;
  int woken = 0;
  FastPath path(std::move(owned), [&] { ++woken; });
  CHECK(path.interfaces() == "eth0 (native), eth1 (generic)");
  Time now(1000s);
  path.beat(now, true);
  CHECK(path.next_beat() == never);
  CHECK(offload.beats() == 0);

  const auto first = path.give(some_shortcut(), now + 300s);
  const auto second = path.give(some_shortcut(), now + 300s);
  CHECK(woken == 1);
  path.beat(now, true);
  CHECK(offload.beats() == 1);
  CHECK(offload.alive_until() == now + FastPath::beat_lasts);
  CHECK(path.next_beat() == now + FastPath::beat_interval);
  path.beat(now + FastPath::beat_interval - 1ms, true);  // woken for something else
  CHECK(offload.beats() == 1);
  now += FastPath::beat_interval;
  path.beat(now, true);
  CHECK(offload.alive_until() == now + FastPath::beat_lasts);
  now += FastPath::beat_interval;
  path.beat(now, false);  // a worker is stalled: what it has given ends soon
  CHECK(offload.beats() == 2);
  CHECK(path.next_beat() == now + FastPath::beat_interval);

  (void)path.take_back(first);
  now += FastPath::beat_interval;
  path.beat(now, true);
  CHECK(offload.beats() == 3);
  (void)path.take_back(second);
  now += FastPath::beat_interval;
  path.beat(now, true);
  CHECK(offload.beats() == 3);
  CHECK(path.next_beat() == never);
  CHECK(woken == 1);
  const auto third = path.give(some_shortcut(), now + 300s);
  CHECK(woken == 2);
  path.beat(now, true);
  CHECK(offload.beats() == 4);
  (void)path.take_back(third);
}

TEST_CASE("fast path: the control thread beats from the first flow on; `ready` and SIGUSR1 tell of the offload") {
  Control::block_signals();
  const auto listener = free_address();
  LogReader reader;
  Log log({LogFormat::text, Priority::info, reader.descriptor(), 1024});
  std::atomic<FakeOffload*> made{nullptr};
  RelayPlan plan;
  plan.workers = 1;
  plan.listeners = {listener};
  with_offload(nullptr, &made)(plan);
  const auto reload = [](ReloadResult&) { return std::optional<NextSettings>(); };
  int code = -1;
  std::thread thread([&] { code = Control(plan, make_settings(listener), reload, log).run(); });
  CHECK(reader.wait_for("offload").find("notice offload: wlan0: the driver has no native XDP") != std::string::npos);
  CHECK(reader.wait_for("ready: ").find("offload=\"eth0 (native), eth1 (generic)\"") != std::string::npos);
  const FakeOffload* offload = made.load();
  Client alice(listener);
  REQUIRE(alice.allocates() == 0);
  CHECK(offload->beats() == 0);
  REQUIRE(alice.binds(0x4000, at("127.0.0.3", 9000)) == 0);
  while (offload->beats() < 3) std::this_thread::sleep_for(5ms);
  kill(getpid(), SIGUSR1);
  CHECK(reader.wait_for("counters of offload").find("flows=1 forwarded=7 passed_not_ours=3") != std::string::npos);
  kill(getpid(), SIGTERM);
  thread.join();
  CHECK(code == 0);
}

TEST_CASE("fast path: what its start needed is given up by the thread and those it starts, and nothing else is") {
  const bool had_setuid = has_capability(CAP_SETUID);
  std::thread([&] {
    std::string why;
    CHECK(drop_offload_capabilities(why));
    CHECK(why == "");
    const auto check = [&] {
      for (const unsigned capability : {CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON, CAP_SYS_ADMIN})
        CHECK_FALSE(has_capability(capability));
      CHECK(has_capability(CAP_SETUID) == had_setuid);
    };
    check();
    std::thread(check).join();
    CHECK(drop_offload_capabilities(why));  // nothing left to do
  }).join();
}
