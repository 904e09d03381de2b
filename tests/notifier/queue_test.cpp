// What the queue promises to one notifier, on each database.
#include <sys/stat.h>

#include "queue_fixture.h"

using namespace queue_test;

TEST_CASE("queue: what is stored comes out in order, once, lane by lane") {
  with_each_database([](Database& database) {
    auto queue = database.queue();
    const std::vector<Event> events = {event("builds", "1"), event("alerts", "2"), event("builds", "3"),
                                       event("", "nowhere")};
    const auto results = queue.store(events, 1000, to_project);
    REQUIRE(results.size() == 4);
    CHECK(results[0].stored == Stored::stored);
    CHECK(results[3].stored == Stored::unrouted);
    CHECK(results[3].why == "no route");
    CHECK(has_size(queue, 3));
    CHECK(queue.depth().waiting == 3);
    CHECK(queue.depth().oldest == 1000);

    const auto lanes = claim(queue);
    REQUIRE(lanes.size() == 2);
    CHECK(lanes[0].channel == "alerts");
    CHECK(titles(lanes[1]) == Titles{"1", "3"});
    CHECK(lanes[1].waiting == 2);
    CHECK(lanes[1].posts[0].attempts == 0);
    CHECK(lanes[1].posts[0].made == 1000);

    queue.sending(ids(lanes[1]), 1000);
    CHECK(queue.depth().sending == 2);
    queue.delivered(ids(lanes[1]), "builds");
    queue.release("builds", 0);
    CHECK(has_size(queue, 1));
    CHECK(counter(queue, "delivered") == 2);
    CHECK(counter(queue, "stored") == 3);
    CHECK(counter(queue, "unrouted") == 1);
    CHECK(claim(queue, 1000, 10, 100, {"alerts"}).empty());
    CHECK(queue.store({}, 1000, to_project).empty());
  });
}

TEST_CASE("queue: a duplicate is dropped for 24 hours, also within its batch; without a key nothing is one") {
  with_each_database([](Database& database) {
    auto queue = database.queue();
    const std::vector<Event> events = {event("builds", "1", "k"), event("builds", "1", "k"), event("builds", "2"),
                                       event("builds", "2")};
    const auto results = queue.store(events, 1000, to_project);
    CHECK(results[0].stored == Stored::stored);
    CHECK(results[1].stored == Stored::duplicate);
    CHECK(results[3].stored == Stored::stored);
    constexpr UnixMilliseconds day = 24 * 3600 * 1000;
    CHECK(put(queue, event("builds", "1", "k"), 999 + day) == Stored::duplicate);
    CHECK(put(queue, event("builds", "1", "k"), 1000 + day) == Stored::stored);  // also when nobody swept
    CHECK(counter(queue, "duplicates") == 2);
    CHECK(put(queue, event("", "nowhere", "n")) == Stored::unrouted);
    CHECK(put(queue, event("", "nowhere", "n")) == Stored::duplicate);  // seen is seen
    queue.sweep(1000 + 2 * day);
    CHECK(put(queue, event("builds", "1", "k"), 1000 + day) == Stored::stored);
  });
}

TEST_CASE("queue: keys of any length and with any byte are told apart") {
  with_each_database([](Database& database) {
    auto queue = database.queue();
    const std::string long_key(100'000, 'x');
    auto long_event = event("builds", "long", long_key);
    long_event.history_key = long_event.subject = long_key;
    long_event.status = Status::failed;
    CHECK(put(queue, long_event) == Stored::stored);
    CHECK(put(queue, long_event) == Stored::duplicate);
    CHECK(put(queue, event("builds", "other", long_key + "y")) == Stored::stored);
    CHECK(put(queue, event("builds", "nul", std::string("a\0b", 3))) == Stored::stored);
    CHECK(put(queue, event("builds", "nul", std::string("a\0c", 3))) == Stored::stored);
    CHECK(put(queue, event("builds", std::string("t\0t", 3))) == Stored::stored);
    CHECK(titles(claim(queue)[0]).back() == std::string("t\0t", 3));
    queue.set_thread("builds", long_key, {"p", "c"}, 1000);
    CHECK(queue.thread("builds", long_key).has_value());
    CHECK_FALSE(queue.thread("builds", long_key + "y").has_value());
  });
}

TEST_CASE("queue: history is compared along its key, also within a batch, and a duplicate does not move it") {
  with_each_database([](Database& database) {
    auto queue = database.queue();
    std::vector<Change> seen;
    const auto watch = [&](const Event& e, const Change& change, std::string& why) {
      seen.push_back(change);
      return to_project(e, change, why);
    };
    const auto run = [](Status status, const std::string& key) {
      auto e = event("builds", "run", key);
      e.history_key = "app/main";
      e.status = status;
      return e;
    };
    const std::vector<Event> batch = {run(Status::success, "1"), run(Status::failed, "2"), run(Status::canceled, "3"),
                                      run(Status::failed, "2")};
    queue.store(batch, 10'000, watch);
    REQUIRE(seen.size() == 3);
    CHECK(seen[0].turn == Turn::first);
    CHECK(seen[1].turn == Turn::broken);
    CHECK(seen[2].turn == Turn::none);
    seen.clear();
    const std::vector<Event> later = {run(Status::unstable, "4"), run(Status::success, "5")};
    database.queue("second").store(later, 70'000, watch);
    REQUIRE(seen.size() == 2);
    CHECK(seen[0].turn == Turn::still_failing);
    CHECK(seen[0].streak == 2);
    CHECK(seen[0].lasted_s == 60);
    CHECK(seen[1].turn == Turn::fixed);
  });
}

TEST_CASE("queue: a batch whose routing throws is not stored, none of it, and is new when it comes again") {
  with_each_database([](Database& database) {
    auto queue = database.queue();
    const std::vector<Event> events = {event("builds", "1", "a"), event("builds", "bad", "b")};
    CHECK_THROWS_AS(queue.store(events, 1000,
                                [](const Event& e, const Change& change, std::string& why) {
                                  if (e.title == "bad") throw std::runtime_error("no");
                                  return to_project(e, change, why);
                                }),
                    std::runtime_error);
    CHECK(has_size(queue, 0));
    CHECK(put(queue, events[0]) == Stored::stored);
  });
}

TEST_CASE("queue: quiet hours hold a post back; what is due overtakes it") {
  with_each_database([](Database& database) {
    auto queue = database.queue();
    const UnixMilliseconds now = 1'700'000'000'000;
    const auto quiet_now = [&](const Event& e, const Change& change, std::string& why) {
      auto posts = to_project(e, change, why);
      const auto minute = static_cast<std::time_t>(now / 1000);
      std::tm local{};
      localtime_r(&minute, &local);
      const int from = local.tm_hour * 60 + local.tm_min;
      posts[0].quiet = {from, (from + 60) % 1440};
      return posts;
    };
    const auto held = event("builds", "held");
    queue.store({&held, 1}, now, quiet_now);
    CHECK(claim(queue, now).empty());
    const auto due = queue.next_due();
    REQUIRE(due.has_value());
    CHECK(*due > now);
    CHECK(*due <= now + 3'600'000);
    put(queue, event("builds", "urgent"), now);
    auto lanes = claim(queue, now);
    REQUIRE(lanes.size() == 1);
    CHECK(titles(lanes[0]) == Titles{"urgent"});
    CHECK(lanes[0].waiting == 1);
    queue.release("builds", 0);
    CHECK(titles(claim(queue, *due)[0]) == Titles{"held", "urgent"});
  });
}

TEST_CASE(
    "queue: a claim takes at most so many lanes and posts, the lane served longest ago first, none that is busy") {
  with_each_database([](Database& database) {
    auto queue = database.queue();
    for (const auto* const channel : {"a", "b", "c"}) {
      for (int i = 0; i < 3; ++i) put(queue, event(channel, std::to_string(i)));
    }
    auto lanes = claim(queue, 1000, 2, 2);
    REQUIRE(lanes.size() == 2);
    CHECK(lanes[0].posts.size() == 2);
    CHECK(lanes[0].waiting == 3);
    const std::vector<std::string> busy = {"a", "b"};
    lanes = claim(queue, 1001, 2, 2, busy);
    REQUIRE(lanes.size() == 1);
    CHECK(lanes[0].channel == "c");
    queue.release_all();
    CHECK(claim(queue, 1002, 1)[0].channel == "a");
    queue.release_all();
    CHECK(claim(queue, 1003, 1)[0].channel == "b");
  });
}

TEST_CASE("queue: a lane rests until its time, and next_due says when that is") {
  with_each_database([](Database& database) {
    auto queue = database.queue();
    CHECK_FALSE(queue.next_due().has_value());
    put(queue, event("builds", "1"));
    CHECK(queue.next_due() == 0);
    auto lane = claim(queue).at(0);
    CHECK(queue.next_due() == 61'000);  // the end of our lease
    queue.sending(ids(lane), 1000);
    CHECK(queue.retry(ids(lane), "builds", 5000, false, std::string("\xff\0refused", 9), 1000) == 0);
    CHECK(queue.next_due() == 5000);
    CHECK(claim(queue, 4999).empty());
    lane = claim(queue, 5000).at(0);
    CHECK(lane.posts[0].attempts == 1);
    CHECK(lane.posts[0].ambiguous == 0);
    queue.release("builds", 9000);
    queue.release("builds", 0);  // not ours any more
    CHECK(claim(queue, 8999).empty());
    CHECK(claim(queue, 9000).size() == 1);
  });
}

TEST_CASE("queue: the second lost answer of a post buries it, with a reason that says why") {
  with_each_database([](Database& database) {
    auto queue = database.queue();
    put(queue, event("builds", "1"));
    auto lane = claim(queue).at(0);
    queue.sending(ids(lane), 1000);
    CHECK(queue.retry(ids(lane), "builds", 0, true, "timeout", 1000) == 0);
    lane = claim(queue).at(0);
    CHECK(lane.posts[0].ambiguous == 1);
    queue.sending(ids(lane), 1000);
    CHECK(queue.retry(ids(lane), "builds", 0, true, "timeout", 7000) == 1);
    CHECK(claim(queue).empty());
    CHECK(counter(queue, "ambiguous") == 2);
    CHECK(counter(queue, "buried") == 1);
    const auto letter = queue.dead(10).at(0);
    CHECK(letter.reason.find("may be posted already: timeout") != std::string::npos);
    CHECK(letter.died == 7000);
    CHECK(letter.attempts == 2);
    CHECK(letter.channel == "builds");
  });
}

TEST_CASE("queue: after a crash take_over counts what was being sent; the second time it is dead") {
  with_each_database([](Database& database) {
    {
      auto queue = database.queue("killed");
      for (int i = 0; i < 20; ++i) put(queue, event("builds", std::to_string(i)));
      auto lane = claim(queue, 1000, 10, 18).at(0);
      queue.sending(ids(lane), 1000);
    }
    {
      auto queue = database.queue("next");
      CHECK(claim(queue).empty());  // the lease is the other's
      queue.take_over(2000);
      CHECK(counter(queue, "ambiguous") == 18);
      CHECK(queue.depth().waiting == 20);
      const auto lane = claim(queue, 2000).at(0);
      CHECK(lane.posts.size() == 20);
      CHECK(lane.posts[0].attempts == 1);
      CHECK(lane.posts[0].ambiguous == 1);
      CHECK(lane.posts[19].ambiguous == 0);
      queue.sending(ids(lane), 2000);
    }
    auto queue = database.queue("third");
    queue.take_over(3000);
    CHECK(counter(queue, "ambiguous") == 38);
    CHECK(counter(queue, "buried") == 18);
    CHECK(queue.depth().dead == 18);
    CHECK(titles(claim(queue, 3000).at(0)) == Titles{"18", "19"});
    CHECK(queue.dead(1).at(0).reason.find("may be posted already") != std::string::npos);
  });
}

TEST_CASE(
    "queue: a lease that is over is anyone's; who lost it may not send, and its late news change nothing but a "
    "delivery") {
  with_each_database([](Database& database) {
    auto slow = database.queue("slow"), quick = database.queue("quick");
    put(slow, event("builds", "1"));
    put(slow, event("builds", "2"));
    const auto mine = claim(slow, 1000).at(0);
    const std::vector first = {mine.posts[0].id}, second = {mine.posts[1].id};
    slow.sending(first, 31'000);  // the lease begins anew
    CHECK(claim(quick, 90'999).empty());
    const auto theirs = claim(quick, 91'000).at(0);
    REQUIRE(theirs.posts.size() == 2);
    CHECK(theirs.posts[0].ambiguous == 1);
    CHECK_THROWS_AS(slow.sending(second, 91'000), SqlError);
    CHECK(quick.depth().sending == 0);
    quick.sending(second, 91'000);
    slow.retry(second, "builds", 999'999, true, "late", 91'000);
    slow.bury(second, "builds", "late", 91'000);
    slow.release("builds", 999'999);
    CHECK(quick.depth().sending == 1);
    slow.delivered(first, "builds");
    quick.delivered(second, "builds");
    CHECK(quick.size() == 0);
  });
}

TEST_CASE("queue: a lane of ours that we forgot is ours again, and what was left sending there is ambiguous") {
  with_each_database([](Database& database) {
    auto queue = database.queue();
    put(queue, event("builds", "1"));
    const auto lane = claim(queue).at(0);
    queue.sending(ids(lane), 1000);
    const std::vector<std::string> busy = {"builds"};
    CHECK(claim(queue, 1000, 10, 10, busy).empty());
    CHECK(claim(queue).at(0).posts.at(0).ambiguous == 1);
  });
}

TEST_CASE("queue: dead letters are listed, put back at the end of their lane as if new, and dropped") {
  with_each_database([](Database& database) {
    auto queue = database.queue();
    for (int i = 0; i < 600; ++i) put(queue, event("builds", std::to_string(i)));
    const auto lane = claim(queue, 1000, 1, 598).at(0);
    queue.bury(ids(lane), "builds", "404", 2000);
    CHECK(counter(queue, "buried") == 598);
    CHECK(has_size(queue, 600));
    CHECK(queue.dead(5).size() == 5);
    CHECK(queue.dead(5, lane.posts[4].id).at(0).id == lane.posts[5].id);
    const auto letter = queue.dead_letter(lane.posts[3].id);
    REQUIRE(letter.has_value());
    CHECK(letter->reason == "404");
    CHECK_FALSE(queue.dead_letter(lane.posts.back().id + 1).has_value());

    const std::vector<std::int64_t> one = {lane.posts[1].id, 999'999};
    CHECK(queue.drop_dead(one) == 1);
    CHECK(queue.drop_dead({}) == 0);
    const std::vector<std::int64_t> two = {lane.posts[2].id};
    CHECK(queue.retry_dead(two, 3000) == 1);
    CHECK(queue.retry_dead({}, 4000) == 596);
    queue.release_all();
    const auto again = claim(queue, 5000, 1, 1000).at(0);
    REQUIRE(again.posts.size() == 599);
    CHECK(title(again.posts[0]) == "598");
    CHECK(title(again.posts[2]) == "2");
    CHECK(title(again.posts[3]) == "0");
    CHECK(title(again.posts[598]) == "597");
    CHECK(again.posts[2].made == 3000);
    CHECK(again.posts[2].attempts == 0);
    CHECK(queue.dead(10).empty());
    CHECK(counter(queue, "dropped_dead") == 1);
    CHECK(counter(queue, "retried_dead") == 597);
  });
}

TEST_CASE("queue: threads and counters are kept across a restart; sweeping forgets what is old, never a post") {
  with_each_database([](Database& database) {
    constexpr UnixMilliseconds day = 24LL * 3600 * 1000;
    {
      auto queue = database.queue();
      queue.set_thread("builds", "pipeline/1", {"post1", "channel1"}, 1000);
      queue.set_thread("builds", "pipeline/1", {"post2", "channel1"}, 1000);
      queue.set_thread("builds", "pipeline/2", {"post3", "channel1"}, 5 * day);
      queue.count("refused", 3);
      queue.count("refused");
      auto failed = event("builds", "1");
      failed.history_key = "app";
      failed.status = Status::failed;
      put(queue, failed);
    }
    auto queue = database.queue();
    CHECK(queue.thread("builds", "pipeline/1")->post_id == "post2");
    CHECK(queue.thread("builds", "pipeline/1")->channel_id == "channel1");
    CHECK_FALSE(queue.thread("alerts", "pipeline/1").has_value());
    CHECK(counter(queue, "refused") == 4);
    queue.sweep(8 * day);
    CHECK_FALSE(queue.thread("builds", "pipeline/1").has_value());
    CHECK(queue.thread("builds", "pipeline/2").has_value());
    queue.forget_thread("builds", "pipeline/2");
    CHECK_FALSE(queue.thread("builds", "pipeline/2").has_value());
    const auto turn_of_next = [&](UnixMilliseconds now) {
      auto failed = event("builds", "2");
      failed.history_key = "app";
      failed.status = Status::failed;
      Turn turn{};
      queue.store({&failed, 1}, now, [&](const Event& e, const Change& change, std::string& why) {
        turn = change.turn;
        return to_project(e, change, why);
      });
      return turn;
    };
    CHECK(turn_of_next(100 * day) == Turn::still_failing);
    queue.sweep(281 * day);
    CHECK(turn_of_next(281 * day) == Turn::first);
    CHECK(has_size(queue, 3));
  });
}

TEST_CASE("queue: SQLite's file is nobody else's, in a folder that is made, and gives its space back") {
  const Folder folder;
  const auto state = folder.path + "/state";
  Queue queue(open_queue_database("sqlite", state), "first");
  for (const auto* const name : {"/queue.sqlite", "/queue.sqlite-wal"}) {
    struct stat status{};
    REQUIRE(stat((state + name).c_str(), &status) == 0);
    CHECK((status.st_mode & 0777) == 0600);
  }
  struct stat status{};
  REQUIRE(stat(state.c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0700);

  const auto size_of_file = [&] {
    put(queue, event("builds", std::string(5'000'000, 'x')));  // a commit that writes the log back
    return std::filesystem::file_size(state + "/queue.sqlite");
  };
  const std::vector<Event> events(250, event("builds", std::string(100'000, 'x')));
  queue.store(events, 1000, to_project);
  const auto full = size_of_file();
  CHECK(full > 25'000'000);
  // A few at a time: a lane's posts are bounded in bytes as well.
  for (int round = 0; round < 20; ++round) {
    const auto lanes = claim(queue, 1000, 1, 500);
    if (lanes.empty()) break;
    CHECK(lanes[0].posts.size() < 50);
    queue.delivered(ids(lanes[0]), "builds");
    queue.release("builds", 0);
  }
  for (int i = 0; i < 10; ++i) queue.sweep(2000);
  CHECK(size_of_file() < 18'000'000);
}

TEST_CASE("queue: a folder that cannot be made, a file that is none of ours and a newer version are said") {
  CHECK_THROWS_AS(open_sqlite("/nonexistent/deeper/queue.sqlite"), SqlError);
  const Folder folder;
  {
    std::filesystem::create_directory(folder.path + "/not");
  }
  const auto file = folder.path + "/not/queue.sqlite";
  FILE* const other = fopen(file.c_str(), "w");
  for (int i = 0; i < 1000; ++i) fputs("This is a letter. ", other);
  fclose(other);
  try {
    open_queue_database("sqlite", folder.path + "/not");
    FAIL("opened");
  } catch (const SqlError& error) {
    CHECK(error.kind == SqlError::Kind::other);
  }
  with_each_database([](Database& database) {
    database.open()->run("UPDATE meta SET value = 99 WHERE name = 'version'");
    try {
      database.open();
      FAIL("opened");
    } catch (const SqlError& error) {
      CHECK(error.kind == SqlError::Kind::other);
      CHECK(std::string(error.what()).find("newer radiotower-notifier") != std::string::npos);
    }
  });
}

TEST_CASE("queue: it goes on after reconnect()") {
  with_each_database([](Database& database) {
    auto queue = database.queue();
    put(queue, event("builds", "1"));
    queue.reconnect();
    put(queue, event("builds", "2"));
    CHECK(titles(claim(queue).at(0)) == Titles{"1", "2"});
  });
}
