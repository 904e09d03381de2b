// The parts that workers share: ports, quotas, nonces, users, and the bound on answers.
#include <doctest/doctest.h>

#include <algorithm>
#include <set>
#include <thread>

#include "../relay/turn/allocation.h"
#include "../relay/turn/answer_limit.h"
#include "harness.h"
#include "radiotower/turn/nonce.h"
#include "radiotower/turn/port_pool.h"
#include "radiotower/turn/shared.h"

using namespace radiotower;
using namespace radiotower::test;
using turn::PortPool;

TEST_CASE("free + used + reserved + quarantined is always the range") {
  const RandomSource random = seeded_random(7);
  PortPool pool(40001, 40200, seeded_random(8));
  Time now(1000s);
  std::vector<std::uint16_t> used, reserved;
  for (int i = 0; i < 100'000; ++i) {
    switch (random_below(random, 7)) {
      case 0:
        if (const auto p = pool.take_any(now)) used.push_back(*p);
        break;
      case 1:
        if (const auto p = pool.take_even(now)) {
          CHECK(*p % 2 == 0);
          used.push_back(*p);
        }
        break;
      case 2:
        if (const auto p = pool.take_pair(now)) {
          CHECK(*p % 2 == 0);
          used.push_back(*p);
          reserved.push_back(static_cast<std::uint16_t>(*p + 1));
        }
        break;
      case 3:
        if (!reserved.empty()) {
          CHECK(pool.claim(reserved.back()));
          CHECK_FALSE(pool.claim(reserved.back()));
          used.push_back(reserved.back());
          reserved.pop_back();
        }
        break;
      case 4:
      case 5:
        for (auto* list : {&used, &reserved}) {
          if (list->empty()) continue;
          std::swap((*list)[random_below(random, static_cast<std::uint32_t>(list->size()))], list->back());
          pool.release(list->back(), now);
          list->pop_back();
        }
        break;
      default: now += milliseconds(random_below(random, 3000));
    }
    REQUIRE(pool.free() + pool.used() + pool.reserved() + pool.quarantined() == pool.range());
    REQUIRE(pool.used() == used.size());
    REQUIRE(pool.reserved() == reserved.size());
  }
  std::sort(used.begin(), used.end());
  CHECK(std::adjacent_find(used.begin(), used.end()) == used.end());
}

TEST_CASE("L30: a quarter of a million cycles leak no port") {
  PortPool pool(65000, 65535, seeded_random(9));
  Time now(1000s);
  for (int i = 0; i < 250'000; ++i) {
    const auto port = pool.take_any(now);
    REQUIRE(port);
    pool.release(*port, now);
    now += milliseconds(100);
  }
  pool.take_any(now + 60s);
  CHECK(pool.free() == pool.range() - 1);
}

TEST_CASE("ports are spread evenly and not to be foreseen (RFC 6056)") {
  PortPool pool(32768, 65535, seeded_random(10));
  std::array<int, 16> buckets{};
  std::vector<std::uint16_t> order;
  for (int i = 0; i < 16384; ++i) {
    const auto port = *pool.take_any(Time(1s));
    ++buckets[(port - 32768u) / 2048];
    order.push_back(port);
  }
  for (const int n : buckets) {
    CHECK(n > 900);
    CHECK(n < 1150);
  }
  int neighbours = 0;
  for (std::size_t i = 1; i < order.size(); ++i) neighbours += std::abs(order[i] - order[i - 1]) == 1 ? 1 : 0;
  CHECK(neighbours < 20);
}

TEST_CASE("N10: nonces of many sources never repeat, and spread over all characters") {
  const turn::NonceMint mint(seeded_random(11));
  std::set<std::string> seen;
  std::array<std::set<char>, turn::Nonce::size> characters;
  for (std::uint32_t i = 0; i < 200'000; ++i) {
    const net::TransportAddress client{net::IpAddress::v4(0x08000000 + i / 4), static_cast<std::uint16_t>(1000 + i % 4), 0};
    const std::string nonce(mint.make(client, Time(5s), {}).text());
    CHECK(seen.insert(nonce).second);
    for (std::size_t k = 0; k < nonce.size(); ++k) characters[k].insert(nonce[k]);
  }
  for (std::size_t k = 13 + 6; k < turn::Nonce::size; ++k) CHECK(characters[k].size() == 64);
  const turn::NonceMint other(seeded_random(12));
  const auto client = at("8.0.0.1:1000");
  CHECK(mint.make(client, Time(5s), {}).text() != other.make(client, Time(5s), {}).text());
  CHECK(mint.is_fresh(mint.make(client, Time(5s), {}).text(), client, Time(6s), {}, 600s));
  CHECK_FALSE(other.is_fresh(mint.make(client, Time(5s), {}).text(), client, Time(6s), {}, 600s));
  CHECK_FALSE(mint.is_fresh(mint.make(client, Time(9s), {}).text(), client, Time(5s), {}, 600s));  // N05: of the future
}

TEST_CASE("X11: 5-tuples fall elsewhere under another key, so nobody outside can choose collisions") {
  const HashKey one{1, 2}, two{3, 4};
  int same = 0;
  for (std::uint16_t port = 0; port < 10'000; ++port) {
    std::array<std::uint8_t, 2> bytes;
    store_be16(bytes.data(), port);
    same += (siphash13(one, bytes) & 1023) == (siphash13(two, bytes) & 1023) ? 1 : 0;
  }
  CHECK(same < 40);
  // The table finds what it holds after any order of coming and going.
  turn::AllocationTable table(one);
  std::vector<std::uint32_t> indices;
  const auto tuple = [](int i) {
    net::FiveTuple t;
    t.client = {net::IpAddress::v4(0x0A000000u + static_cast<std::uint32_t>(i / 100)), static_cast<std::uint16_t>(1 + i % 100), 0};
    t.server = at("198.18.0.1:3478");
    return t;
  };
  for (int i = 0; i < 20'000; ++i) table.insert(tuple(i), indices.emplace_back());
  for (int i = 0; i < 20'000; i += 2) table.erase(indices[static_cast<std::size_t>(i)]);
  for (int i = 0; i < 20'000; ++i) CHECK((table.find(tuple(i)) != nullptr) == (i % 2 == 1));
  CHECK(table.size() == 10'000);
}

TEST_CASE("the bound on answers: per source, per address, and fixed in size") {
  turn::AnswerLimit limit({1, 2}, 10);
  const auto kept = limit.bytes();
  Time now(1000s);
  int granted = 0;
  for (int i = 0; i < 1000; ++i) granted += limit.allow(at("203.0.113.9:5000"), now) ? 1 : 0;
  CHECK(granted == 10);
  now += 500ms;
  granted = 0;
  for (int i = 0; i < 1000; ++i) granted += limit.allow(at("203.0.113.9:5000"), now) ? 1 : 0;
  CHECK(granted >= 4);
  CHECK(granted <= 6);
  now += 10s;
  granted = 0;
  for (int i = 0; i < 5000; ++i) granted += limit.allow({net::IpAddress::v4(0xCB007109), static_cast<std::uint16_t>(1000 + i), 0}, now) ? 1 : 0;
  CHECK(granted >= 400);
  CHECK(granted <= 500);  // fifty clients behind one address
  now += 10s;
  int first_of_each = 0;
  for (std::uint32_t i = 0; i < 20'000; ++i) first_of_each += limit.allow({net::IpAddress::v4(0x08000000 + i), 5000, 0}, now) ? 1 : 0;
  CHECK(first_of_each > 19'900);
  CHECK(limit.bytes() == kept);
  limit.set_rate(0);
  for (int i = 0; i < 1000; ++i) CHECK(limit.allow(at("203.0.113.9:5000"), now));
}

TEST_CASE("a user's bucket grants no more than rate times time and one second's burst, to many threads at once") {
  turn::Account account("alice");
  account.set_rates(1'000'000, 0);
  std::atomic<std::int64_t> granted{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      turn::Account::Lease lease;
      for (int step = 0; step < 2000; ++step) {
        const Time now = Time(1000s) + milliseconds(step);
        for (int i = 0; i < 5; ++i) {
          lease = {};
          if (account.lease(1000, now, lease)) granted += lease.bytes;
        }
      }
    });
  for (auto& t : threads) t.join();
  CHECK(granted <= 3'000'000 + 4 * 10'000);
  CHECK(granted >= 2'900'000);
}

TEST_CASE("reservations belong to their account and end after 30 seconds") {
  Tower tower;
  turn::Limits limits;
  bool over = false;
  auto alice = tower.shared->admit("alice", {}, {}, true, limits, 2, over);
  auto bob = tower.shared->admit("bob", {}, {}, true, limits, 1, over);
  REQUIRE(alice);
  REQUIRE(bob);
  const auto port = tower.shared->take_port(net::Family::ipv4, {}, turn::Shared::Want::even_pair, alice, tower.now.steady);
  REQUIRE(port);
  CHECK_FALSE(tower.shared->claim(port->token, *bob, tower.now.steady));
  CHECK_FALSE(tower.shared->claim(port->token, *alice, tower.now.steady + 31s));
  CHECK(tower.shared->usage().reserved == 0);
  CHECK(tower.shared->usage().allocations == 2);
}
