// When the gate goes up, whom it suspects, and when it comes down; time moved by value.
#include "../../relay/daemon/flood.h"

#include <doctest/doctest.h>

#include <string>

using namespace radiotower;
using namespace radiotower::daemon;
using namespace std::chrono_literals;
using Change = FloodWatch::Change;

namespace {

net::IpAddress ip(const char* text) { return *net::IpAddress::parse(text); }

/// Plays turns of half a millisecond with so many strangers a second from each of some sources.
struct Play {
  Change turn(std::uint64_t each, const std::vector<net::IpAddress>& sources, double let_in = 1) {
    now += 500us;
    const auto n = static_cast<std::uint64_t>(static_cast<double>(each) / 2000 * let_in);
    for (const auto& source : sources) {
      strangers += n;
      kept_out += each / 2000 - n;
      if (watch.listening()) watch.saw(source, n);
    }
    return watch.after_turn(now, strangers, kept_out);
  }
  /// The changes of a time, without `none` and `renew`.
  std::vector<Change> plays(nanoseconds time, std::uint64_t each, const std::vector<net::IpAddress>& sources) {
    std::vector<Change> changes;
    for (const Time end = now + time; now < end;) {
      std::vector<net::IpAddress> others;  // the gate keeps suspects out, and the rest by its share
      for (const auto& source : sources) {
        bool suspected = false;
        for (const auto& s : watch.suspects()) suspected = suspected || s == source;
        if (watch.is_up() && suspected) kept_out += each / 2000;
        else others.push_back(source);
      }
      const Change change = turn(each, others, watch.is_up() ? watch.share() : 1);
      if (change != Change::none && change != Change::renew) changes.push_back(change);
    }
    return changes;
  }
  FloodWatch watch;
  Time now{100s};
  std::uint64_t strangers = 1000, kept_out = 5;
};

}  // namespace

TEST_CASE("an office at nine o'clock is no flood") {
  Play play;
  std::vector<net::IpAddress> office;
  for (int i = 1; i < 20; ++i) office.push_back(ip(("192.168.1." + std::to_string(i)).c_str()));
  CHECK(play.plays(3s, 2000, office).empty());  // 38,000 a second
  CHECK_FALSE(play.watch.is_up());
}

TEST_CASE("a flood from one address is seen within three milliseconds, and its sender alone is kept out") {
  Play play;
  play.plays(1s, 0, {});
  CHECK(play.plays(5ms, 500'000, {ip("203.0.113.66"), ip("2001:db8:5:6:7::8")}) == std::vector<Change>{Change::raise});
  CHECK(play.watch.raised_at() - Time(101s) <= 3ms);
  CHECK(play.watch.is_up());
  REQUIRE(play.watch.suspects().size() == 2);
  CHECK(play.watch.suspects()[0] != play.watch.suspects()[1]);
  CHECK(play.watch.share() == 1);
}

TEST_CASE("a flood of trains is seen in the midst of the first turn that brings it") {
  Play play;
  play.plays(1s, 0, {});
  const Time turn = play.now + 300ms;  // the loop has slept
  for (int i = 0; i < 25; ++i) {
    play.strangers += 40;
    play.watch.saw(ip("203.0.113.66"), 40);
  }
  CHECK(play.watch.is_sudden(play.strangers));
  CHECK(play.watch.amid_turn(turn + 1ms, turn, play.strangers, play.kept_out) == Change::raise);
  CHECK(play.watch.suspects() == std::vector<net::IpAddress>{ip("203.0.113.66")});
  CHECK(play.watch.amid_turn(turn + 2ms, turn, play.strangers + 5000, play.kept_out) == Change::none);  // it is up already
  CHECK(play.watch.after_turn(turn + 1ms, play.strangers, play.kept_out) == Change::none);
  CHECK(play.watch.listening());
}

TEST_CASE("suspects that are found one after the other do not shut out the rest") {
  Play play;
  play.plays(1s, 0, {});
  for (int i = 0; i < 25; ++i) {  // at first one of them is seen
    play.strangers += 40;
    play.watch.saw(ip("203.0.113.1"), 40);
  }
  CHECK(play.watch.amid_turn(play.now + 1ms, play.now, play.strangers, play.kept_out) == Change::raise);
  std::vector<net::IpAddress> all;
  for (int i = 1; i <= 8; ++i) all.push_back(ip(("203.0.113." + std::to_string(i)).c_str()));
  play.plays(60ms, 300'000, all);
  CHECK(play.watch.suspects().size() == 8);
  CHECK(play.watch.share() == 1);
}

TEST_CASE("as many in a turn that took long are no flood") {
  Play play;
  play.plays(1s, 0, {});
  play.strangers += 1200;
  CHECK(play.watch.amid_turn(play.now + 40ms, play.now, play.strangers, play.kept_out) == Change::none);
}

TEST_CASE("a flood from everywhere is let in by a share, which follows the flood") {
  Play play;
  std::vector<net::IpAddress> everywhere;
  for (std::uint32_t i = 0; i < 1000; ++i) everywhere.push_back(net::IpAddress::v4(0xC6120000u + i * 7919));
  // Each of a thousand sends 1,900 a second: nobody stands out.
  for (int i = 0; i < 200; ++i) {
    play.now += 500us;
    const double share = play.watch.is_up() ? play.watch.share() : 1;
    for (std::size_t k = 0; k < 950; ++k) {
      const bool in = static_cast<double>(k * 7 % 950) < share * 950;
      play.strangers += in;
      play.kept_out += !in;
      if (in && play.watch.listening()) play.watch.saw(everywhere[(k + static_cast<std::size_t>(i)) % 1000], 1);
    }
    play.watch.after_turn(play.now, play.strangers, play.kept_out);
  }
  CHECK(play.watch.is_up());
  CHECK(play.watch.suspects().size() < 8);
  CHECK(play.watch.share() < 0.05);
  CHECK(play.watch.share() > 0.001);
  CHECK(play.watch.rate() <= 2 * FloodWatch::wanted_rate);
}

TEST_CASE("the gate comes down when the flood has been over for five seconds, and goes up again with the next one") {
  Play play;
  const std::vector<net::IpAddress> one{ip("203.0.113.66")};
  CHECK(play.plays(8s, 500'000, one) == std::vector<Change>{Change::raise});  // up as long as it lasts
  CHECK(play.plays(4900ms, 0, {}).empty());
  CHECK(play.plays(300ms, 0, {}) == std::vector<Change>{Change::lower});
  CHECK_FALSE(play.watch.is_up());
  CHECK(play.watch.share() == 1);
  CHECK(play.plays(5ms, 500'000, one) == std::vector<Change>{Change::raise});
}

TEST_CASE("while it is up the gate is renewed twenty times a second, so that new clients are known") {
  Play play;
  const std::vector<net::IpAddress> one{ip("203.0.113.66")};
  play.plays(5ms, 500'000, one);
  int renewals = 0;
  for (int i = 0; i < 2000; ++i) renewals += play.turn(0, {}) == Change::renew;
  CHECK(renewals >= 50);  // more often at first
  CHECK(renewals <= 60);
  renewals = 0;
  for (int i = 0; i < 2000; ++i) renewals += play.turn(0, {}) == Change::renew;
  CHECK(renewals >= 18);
  CHECK(renewals <= 21);
}
