// When packets may gather, and when they may not; time moved by value.
#include "../../relay/io/gather.h"

#include <doctest/doctest.h>

using namespace radiotower;
using namespace radiotower::io;

namespace {

/// Turns of `receives` packets each, `a_second` packets a second, for a time.
void play(Gather& gather, std::int64_t& now, std::size_t receives, std::int64_t a_second, std::int64_t time_ms) {
  const std::int64_t step = static_cast<std::int64_t>(receives) * 1'000'000'000 / a_second;
  for (const std::int64_t end = now + time_ms * 1'000'000; now < end;) gather.after_turn(now += step, receives);
}

}  // namespace

TEST_CASE("packets that come seldom are never kept waiting") {
  Gather gather(microseconds(250));
  std::int64_t now = 1'000'000'000;
  play(gather, now, 1, 50, 2000);
  CHECK(gather.wait() == nanoseconds(0));
  play(gather, now, 1, 7'000, 200);
  CHECK(gather.wait() == nanoseconds(0));
}

TEST_CASE("packets that come by the thousand gather, until fewer come") {
  Gather gather(microseconds(250));
  std::int64_t now = 1'000'000'000;
  play(gather, now, 1, 10'000, 20);
  CHECK(gather.wait() == microseconds(250));
  play(gather, now, 3, 7'000, 100);
  CHECK(gather.on());  // it does not flutter
  play(gather, now, 1, 5'000, 20);
  CHECK_FALSE(gather.on());
  play(gather, now, 1, 10'000, 20);
  CHECK(gather.on());
  gather.after_turn(now += 1'000'000'000, 1);  // a pause
  CHECK_FALSE(gather.on());
}

TEST_CASE("a loop that is behind waits for nothing") {
  Gather gather(microseconds(250));
  std::int64_t now = 1'000'000'000;
  play(gather, now, 2, 100'000, 20);
  CHECK(gather.wait() == microseconds(250));
  play(gather, now, Gather::enough, 300'000, 20);
  CHECK(gather.on());
  CHECK(gather.wait() == nanoseconds(0));
  gather.after_turn(now += 10'000, 3);
  CHECK(gather.wait() == microseconds(250));
}

TEST_CASE("bursts come together by themselves, and are not looked for in between") {
  Gather gather(microseconds(250));
  std::int64_t now = 1'000'000'000;
  play(gather, now, 8, 30'000, 500);  // eight at a time without any help
  CHECK_FALSE(gather.on());
  play(gather, now, 1, 30'000, 10);
  CHECK(gather.on());
  for (int i = 0; i < 40; ++i) {  // a burst of twenty, then nothing twice
    gather.after_turn(now += 250'000, 20);
    gather.after_turn(now += 250'000, 0);
    gather.after_turn(now += 250'000, 0);
  }
  CHECK_FALSE(gather.on());
  play(gather, now, 1, 30'000, 100);
  CHECK_FALSE(gather.on());  // it is not tried again at once
  play(gather, now, 1, 30'000, 500);
  CHECK(gather.on());
}

TEST_CASE("zero turns it off") {
  Gather gather(nanoseconds(0));
  std::int64_t now = 1'000'000'000;
  play(gather, now, 2, 100'000, 50);
  CHECK(gather.wait() == nanoseconds(0));
}
