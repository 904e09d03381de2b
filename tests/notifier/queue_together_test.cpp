// Several connections on one queue: intake and delivery of one notifier, and two notifiers on one PostgreSQL.
#include <atomic>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "queue_fixture.h"

using namespace queue_test;

namespace {

constexpr int channels = 5;

/// What came out, lane by lane. A lane is one owner's at a time, so posts of it arrive here in the order they were
/// sent.
struct Arrived {
  std::mutex mutex;
  std::map<std::string, Titles> channel;
  std::size_t posts = 0;
  void post(const std::string& name, const std::string& title) {
    const std::lock_guard lock(mutex);
    channel[name].push_back(title);
    ++posts;
  }
  std::size_t count() {
    const std::lock_guard lock(mutex);
    return posts;
  }
};

/// Stores `count` events in batches of 7, numbered; `name` comes before the number.
void intake(Queue queue, const std::string& name, int count) {
  for (int first = 0; first < count;) {
    std::vector<Event> batch;
    for (int i = 0; i < 7 && first < count; ++i, ++first) {
      batch.push_back(
          event("channel" + std::to_string(first % channels), name + number_text(first), name + number_text(first)));
      batch.back().history_key = "shared" + std::to_string(first % 3);
      batch.back().status = first % 2 == 0 ? Status::failed : Status::success;
    }
    queue.store(batch, 1000 + first, to_project);
    queue.store(std::span(batch).first(1), 1000 + first, to_project);  // a sender that did not believe us
  }
}

/// Works lanes off until `all` posts are out or nothing comes for a minute. Every 16th claim its first post is refused
/// once.
void delivery(Queue queue, Arrived& arrived, std::size_t all) {
  auto patience_ends = std::chrono::steady_clock::now() + 60s;
  for (int turn = 0; arrived.count() < all && std::chrono::steady_clock::now() < patience_ends; ++turn) {
    const auto lanes = queue.claim(1'000'000 + turn, 3600s, 2, 5, {});
    if (lanes.empty()) std::this_thread::sleep_for(1ms);
    for (const auto& lane : lanes) {
      patience_ends = std::chrono::steady_clock::now() + 60s;
      queue.sending(ids(lane), 1'000'000 + turn);
      if (turn % 16 == 15) {
        queue.retry(ids(lane), lane.channel, 0, false, "refused", 1'000'000 + turn);
        continue;
      }
      for (const auto& post : lane.posts) arrived.post(lane.channel, title(post));
      queue.delivered(ids(lane), lane.channel);
      queue.release(lane.channel, 0);
    }
  }
}

/// Each of `names` has all its `count` numbers, once and in order within its channel.
void check(const Arrived& arrived, const Titles& names, int count) {
  for (const auto& name : names) {
    std::set<std::string> found;
    for (const auto& [channel, titles] : arrived.channel) {
      std::string last;
      for (const auto& title : titles) {
        if (!title.starts_with(name)) continue;
        CHECK_MESSAGE(last < title, channel, ": ", title, " after ", last);
        last = title;
        CHECK(found.insert(title).second);
      }
    }
    CHECK(found.size() == static_cast<std::size_t>(count));
  }
}

}  // namespace

TEST_CASE(
    "queue: with intake and delivery at once nothing is lost, nothing comes twice, and each channel keeps its order") {
  with_each_database([](Database& database) {
    constexpr int count = 700;
    Arrived arrived;
    std::thread in([&] { intake(database.queue("one"), "a", count); });
    delivery(database.queue("one"), arrived, count);
    in.join();
    check(arrived, {"a"}, count);
    auto queue = database.queue();
    CHECK(has_size(queue, 0));
    CHECK(counter(queue, "stored") == count);
    CHECK(counter(queue, "duplicates") == count / 7);
    CHECK(counter(queue, "delivered") == count);
    CHECK(counter(queue, "ambiguous") == 0);
  });
}

TEST_CASE("queue: two notifiers on one PostgreSQL share the lanes and lose no change of history") {
  with_postgresql([](Database& database) {
    constexpr int count = 350;
    Arrived arrived;
    std::vector<std::thread> threads;
    for (const auto* const name : {"a", "b"}) {
      threads.emplace_back([&, name] { intake(database.queue(name), name, count); });
      threads.emplace_back([&, name] { delivery(database.queue(name), arrived, 2 * count); });
    }
    for (auto& thread : threads) thread.join();
    check(arrived, {"a", "b"}, count);
    auto queue = database.queue();
    CHECK(has_size(queue, 0));
    CHECK(counter(queue, "stored") == 2 * count);
    CHECK(counter(queue, "duplicates") == 2 * count / 7);
    CHECK(counter(queue, "delivered") == 2 * count);
  });
}

TEST_CASE("queue: the same failure that reaches two notifiers at once is counted twice, not once") {
  with_postgresql([](Database& database) {
    std::vector<std::thread> threads;
    std::mutex mutex;
    std::multiset<std::uint32_t> streaks;
    for (const auto* const name : {"a", "b"}) {
      threads.emplace_back([&, name] {
        auto queue = database.queue(name);
        for (int i = 0; i < 50; ++i) {
          // In opposite orders: locks in the order of arrival would end in a deadlock.
          std::vector<Event> batch(2, event("builds", "failed"));
          batch[0].status = batch[1].status = Status::failed;
          batch[0].history_key = *name == 'a' ? "x" : "y";
          batch[1].history_key = *name == 'a' ? "y" : "x";
          std::vector<std::uint32_t> mine;
          queue.store(batch, 1000, [&](const Event& e, const Change& change, std::string& why) {
            if (e.history_key == "x") mine.push_back(change.streak);
            return to_project(e, change, why);
          });
          const std::lock_guard lock(mutex);
          streaks.insert(mine.back());
        }
      });
    }
    for (auto& thread : threads) thread.join();
    REQUIRE(streaks.size() == 100);
    std::uint32_t expected = 0;
    for (const auto streak : streaks) CHECK(streak == ++expected);
  });
}

TEST_CASE("queue: lanes that another notifier is just claiming are passed over, not waited for") {
  with_postgresql([](Database& database) {
    auto queue = database.queue();
    put(queue, event("a", "1"));
    put(queue, event("b", "1"));
    const auto other = database.open();
    other->begin();
    other->run("SELECT channel FROM lane WHERE channel = 'a' FOR UPDATE");
    const auto lanes = claim(queue);
    REQUIRE(lanes.size() == 1);
    CHECK(lanes[0].channel == "b");
    other->rollback();
  });
}

TEST_CASE("queue: many first starts at once make the tables once") {
  with_each_database([](Database& database) {
    std::vector<std::thread> threads;
    std::atomic<int> opened = 0;
    for (int i = 0; i < 6; ++i) {
      threads.emplace_back([&] {
        try {
          database.queue().count("opened");
          ++opened;
        } catch (const std::exception& error) {
          std::fprintf(stderr, "%s\n", error.what());
        }
      });
    }
    for (auto& thread : threads) thread.join();
    CHECK(opened == 6);
    auto queue = database.queue();
    CHECK(counter(queue, "opened") == 6);
  });
}

TEST_CASE("queue: a deadlock of PostgreSQL is tried again; a store may run its routing twice, its history moves once") {
  with_postgresql([](Database& database) {
    auto queue = database.queue();
    auto first = event("builds", "1");
    first.history_key = "h";
    first.status = Status::failed;
    put(queue, first);
    const auto other = database.open();
    std::thread crossing;
    int routed = 0;
    std::uint32_t streak = 0;
    queue.store({&first, 1}, 2000, [&](const Event& e, const Change& change, std::string& why) {
      streak = change.streak;
      if (++routed == 1) {
        // The other one holds the counters, which we shall want, and wants the history, which we hold.
        other->begin();
        other->run("UPDATE counter SET n = n");
        crossing = std::thread([&] {
          try {
            other->run("UPDATE history SET at = at");
          } catch (const SqlError& error) {
            CHECK(error.kind == SqlError::Kind::busy);
          }
          other->rollback();
        });
      }
      return to_project(e, change, why);
    });
    crossing.join();
    CHECK(streak == 2);
    CHECK(has_size(queue, 2));
    const auto history = database.open()->run("SELECT streak FROM history WHERE key = 'h'");
    CHECK(history.at(0).number(0) == 2);
  });
}

TEST_CASE("queue: a password stands in no error") {
  if (!postgresql_compiled_in()) return;
  for (const auto* const url : {"postgresql://u:hunter22@127.0.0.1:1/db", "postgresql://u:hunter22%zz@host/db",
                                "postgresql://u:hunter22@h:port/db", "postgresql://u@127.0.0.1:1/db?password=hunter22",
                                "postgresql://u@host/db?hunter22"}) {
    try {
      open_postgresql(url);
      FAIL("opened");
    } catch (const SqlError& error) {
      CAPTURE(std::string(error.what()));
      CHECK(std::string(error.what()).find("hunter22") == std::string::npos);
    }
  }
}

TEST_CASE("queue: a PostgreSQL that goes away is broken, and good again after reconnect()") {
  std::string why;
  const auto server = PostgresServer::start(why);
  if (server == nullptr) {
    MESSAGE("skipped: ", why);
    return;
  }
  const auto url = server->make_database();
  Queue queue(open_queue_database(url, ""), "first");
  put(queue, event("builds", "1", "k"));
  server->kill();
  try {
    put(queue, event("builds", "2"));
    FAIL("stored");
  } catch (const SqlError& error) {
    CAPTURE(std::string(error.what()));
    CHECK(error.kind == SqlError::Kind::broken);
  }
  CHECK_THROWS_AS(queue.reconnect(), SqlError);
  CHECK_THROWS_AS(queue.size(), SqlError);
  REQUIRE(server->resume(why));
  queue.reconnect();
  CHECK(put(queue, event("builds", "1", "k")) == Stored::duplicate);
  CHECK(has_size(queue, 1));
}

TEST_CASE("queue: a role that may not make a schema keeps its tables where it may") {
  std::string why;
  auto* const server = PostgresServer::shared(why);
  if (server == nullptr) {
    MESSAGE("skipped: ", why);
    return;
  }
  const auto url = server->make_database();
  const auto name =
      url.substr(url.rfind('/', url.find("?host=")) + 1, url.find("?host=") - url.rfind('/', url.find("?host=")) - 1);
  server->run(name, "CREATE ROLE plain LOGIN");
  server->run(name, "CREATE SCHEMA plain AUTHORIZATION plain");
  auto as_plain = url;
  as_plain.replace(as_plain.find("postgres@"), 9, "plain@");
  Queue queue(open_queue_database(as_plain, ""), "first");
  put(queue, event("builds", "1"));
  CHECK(server->run(name, "SELECT COUNT(*) FROM plain.post") == "1");
}
