// The user's bandwidth: one bucket, for the program and for user space.
#include <doctest/doctest.h>
#include <linux/bpf.h>

#include <algorithm>
#include <thread>

#include "tower.h"

using namespace radiotower;
using namespace radiotower::test;

namespace {

constexpr std::int64_t second = 1'000'000'000;

std::int64_t now() { return steady_now().time_since_epoch().count(); }

struct Limited {
  explicit Limited(std::uint64_t byte_rate, std::uint64_t packet_rate) : bucket(*tower.offload().buckets().take()) {
    bucket.byte_rate = byte_rate;
    bucket.packet_rate = packet_rate;
    call = tower.call("10.0.0.2:5000", "10.0.1.2:6000", channel, &bucket);
  }
  Tower tower;
  Bucket& bucket;
  Call call;

  std::string up(std::size_t size) { return tower.inside(call.from_client(bytes(size))).outcome; }
  std::string down(std::size_t size) { return tower.outside(call.from_peer(bytes(size))).outcome; }
};

}  // namespace

TEST_CASE("a second's worth of packets at once, then drops, and both directions share it") {
  NEEDS_NAMESPACE();
  Limited user(0, 1);
  CHECK(user.up(10) == "forwarded");
  user.bucket.packets_full_at = now() + 100 * second;
  CHECK(user.up(10) == "dropped_over_limit");
  CHECK(user.down(10) == "dropped_over_limit");
  CHECK(user.tower.inside(user.call.from_client(bytes(10))).action == XDP_DROP);
  const offload::Counts counts = user.tower.offload().counts(user.call.id);
  CHECK(counts.packets_to_peer == 1);
  CHECK(counts.dropped_over_limit == 3);
}

TEST_CASE("bytes of payload are charged, to the nanosecond as user space would") {
  NEEDS_NAMESPACE();
  Limited user(1'000'000, 0);
  user.bucket.bytes_full_at = now() + second / 2;
  const std::int64_t before = user.bucket.bytes_full_at;
  CHECK(user.up(700) == "forwarded");
  CHECK(user.bucket.bytes_full_at - before == 700'000);
  CHECK(user.down(300) == "forwarded");
  CHECK(user.bucket.bytes_full_at - before == 1'000'000);
  CHECK(user.bucket.packets_full_at == 0);
}

TEST_CASE("a bucket that is whole grants even what is larger than it") {
  NEEDS_NAMESPACE();
  Limited user(10, 0);
  CHECK(user.up(1000) == "forwarded");
  CHECK(user.up(1) == "dropped_over_limit");
}

TEST_CASE("a packet that the bucket of bytes refuses takes nothing from the bucket of packets") {
  NEEDS_NAMESPACE();
  Limited user(1000, 1000);
  user.bucket.packets_full_at = now() + second / 2;
  user.bucket.bytes_full_at = now() + 100 * second;
  const std::int64_t packets = user.bucket.packets_full_at, of_bytes = user.bucket.bytes_full_at;
  CHECK(user.up(10) == "dropped_over_limit");
  CHECK(user.bucket.packets_full_at == packets);
  CHECK(user.bucket.bytes_full_at == of_bytes);
}

TEST_CASE("rates of 0 are no limit, and may come and go while packets flow") {
  NEEDS_NAMESPACE();
  Limited user(0, 0);
  user.bucket.bytes_full_at = user.bucket.packets_full_at = now() + 100 * second;
  CHECK(user.up(10) == "forwarded");
  user.bucket.byte_rate = 1;
  CHECK(user.up(10) == "dropped_over_limit");
  user.bucket.byte_rate = 0;
  CHECK(user.up(10) == "forwarded");
}

TEST_CASE("what goes up is not charged here") {
  NEEDS_NAMESPACE();
  Limited user(1000, 1000);
  CHECK(user.up(1473) == "passed_too_big");
  CHECK(user.bucket.packets_full_at == 0);
  CHECK(user.bucket.bytes_full_at == 0);
}

TEST_CASE("program and user space together never take more than the bucket holds") {
  NEEDS_NAMESPACE();
  constexpr std::int64_t rate = 2000;
  Limited user(0, rate);
  const std::int64_t from = now();
  std::atomic<bool> done = false;
  std::int64_t taken = 0;
  std::thread user_space([&] {
    while (!done) {
      const std::int64_t t = now();
      std::int64_t was = user.bucket.packets_full_at;
      const std::int64_t next = std::max(was, t) + second / rate;
      if (next > t + second && was > t)
        std::this_thread::yield();
      else if (user.bucket.packets_full_at.compare_exchange_weak(was, next))
        ++taken;
    }
  });
  for (int i = 0; i < 20000; ++i) user.up(10);
  done = true;
  user_space.join();
  const std::int64_t most = rate + (now() - from) * rate / second + 1;
  const auto forwarded = static_cast<std::int64_t>(user.tower.offload().counts(user.call.id).packets_to_peer);
  CHECK(forwarded > 0);
  CHECK(forwarded + taken <= most);
}
