#include "notifier/delivery.h"

#include <doctest/doctest.h>

#include <mutex>
#include <vector>

#include "delivery_harness.h"
#include "notifier/clock.h"
#include "notifier/flow.h"

using namespace radiotower;
using namespace radiotower::notifier;
using namespace std::chrono_literals;

TEST_CASE("the back-off doubles from a second to five minutes, jittered to between half and all of it") {
  CHECK(back_off(0, 0.5) == 0ms);
  CHECK(back_off(1, 0) == 500ms);
  CHECK(back_off(1, 0.999999) < 1s);
  CHECK(back_off(2, 0) == 1s);
  CHECK(back_off(9, 0) == 128s);
  CHECK(back_off(10, 0) == 150s);
  CHECK(back_off(4'000'000'000, 0.999999) < 5min);
}

TEST_CASE("a token bucket gives its burst at once and then what its rate allows") {
  TokenBucket bucket(2, 3);
  const SteadyTime start{1h};
  CHECK(bucket.available(start) == 3);
  for (int i = 0; i < 3; ++i) bucket.take(start);
  CHECK(bucket.available(start) == 0);
  CHECK(bucket.until_next(start) == 500ms);
  CHECK(bucket.available(start + 500ms) == 1);
  CHECK(bucket.available(start + 1h) == 3);
}

TEST_CASE("posts of a channel arrive once each and in order; channels side by side") {
  Station station;
  for (int i = 1; i <= 5; ++i) station.store("post" + std::to_string(i));
  station.start();
  for (int i = 6; i <= 9; ++i) station.store("post" + std::to_string(i));
  station.store("postA", "alerts");
  CHECK(station.empties());
  std::string arrived = station.arrived();
  std::erase(arrived, 'A');
  CHECK(arrived == "123456789");
  CHECK(station.delivery->counters().posts == 10);
  CHECK(station.count("delivered") == 10);
  CHECK(station.count("ambiguous") == 0);
}

TEST_CASE("what comes back with 429, 500, 503, a redirect or a web page is sent again, with order kept") {
  Station station;
  SUBCASE("429") { station.server.next(answer(429, "limit exceeded\n", "text/plain", "Retry-After: 1\r\n")); }
  SUBCASE("500") { station.server.next(answer(500, "{}")); }
  SUBCASE("503") { station.server.next(answer(503, "<html>", "text/html")); }
  SUBCASE("redirect") { station.server.next(answer(302, "", "text/html", "Location: http://127.0.0.1:1/\r\n")); }
  SUBCASE("web page") { station.server.next(answer(200, "<!doctype html><html></html>", "text/html")); }
  const auto begin = std::chrono::steady_clock::now();
  station.store("post1");
  station.store("post2");
  station.start();
  CHECK(station.empties());
  CHECK(station.arrived() == "112");
  CHECK(station.count("delivered") == 2);
  CHECK(station.count("ambiguous") == 0);
  CHECK(station.delivery->counters().retries == 1);
  CHECK(station.logs("not delivered: "));
  CHECK(station.logs("delivered again: "));
  if (station.delivery->counters().rate_limited > 0) CHECK(std::chrono::steady_clock::now() - begin >= 1s);
}

TEST_CASE("429 stops all channels of the server until Retry-After is over") {
  std::mutex mutex;
  std::vector<SteadyTime> asked;  // as the server saw it
  Station station;
  station.server.handle([&](const FakeRequest&) {
    const std::lock_guard lock(mutex);
    asked.push_back(steady_now());
    return asked.size() == 1 ? answer(429, "", "text/plain", "Retry-After: 1\r\n") : ok();
  });
  station.store("post1");
  station.start();
  CHECK(station.soon([&] { return station.delivery->counters().rate_limited == 1; }));
  station.store("post2", "alerts");
  CHECK(station.empties());
  CHECK(station.arrived().size() == 3);
  const std::lock_guard lock(mutex);
  REQUIRE(asked.size() == 3);
  CHECK(asked[1] - asked[0] >= 1s);
}

TEST_CASE("an answer that is lost: the server must answer a ping, then the post is sent once more, and that is counted") {
  std::atomic<int> posts{0};
  std::atomic<bool> there{false};
  Station station;
  station.server.handle([&](const FakeRequest& request) {
    if (request.method == "GET") return there ? answer(200, "{}") : answer(503, "");
    return ++posts == 1 ? cut() : ok();
  });
  station.store("post1");
  station.store("post2");
  station.start();
  CHECK(station.soon([&] { return station.server.requests().size() > 3; }));  // pings
  CHECK(station.arrived() == "1");
  there = true;
  CHECK(station.empties());
  CHECK(station.arrived() == "112");
  CHECK(station.count("ambiguous") == 1);
  CHECK(station.count("delivered") == 2);
  CHECK(station.logs("closed the connection before its answer"));
}

TEST_CASE("an answer that is lost twice makes a dead letter, and the next post goes on") {
  Station station;
  SUBCASE("closed") {
    station.server.next(cut());
    station.server.next(cut_after_headers());
    station.store("post1");
    station.store("post2");
    station.start();
  }
  SUBCASE("no answer in time") {
    station.server.next(hang());
    station.server.next(hang());
    station.settings.mattermost.timeout_s = 1;
    station.store("post1");
    station.start();
    CHECK(station.soon([&] { return station.arrived() == "11"; }));
    Settings patient = station.settings;  // for the one that is answered; the request on its way goes by the old ones
    patient.mattermost.timeout_s = 30;
    station.delivery->apply(std::make_shared<const Settings>(patient));
    station.store("post2");
  }
  CHECK(station.empties());
  CHECK(station.arrived() == "112");
  CHECK(station.count("ambiguous") == 2);
  const auto dead = station.input.dead(10);
  REQUIRE(dead.size() == 1);
  CHECK(dead[0].reason.find("lost twice") != std::string::npos);
  CHECK(station.logs("radiotower-notifier dead show " + std::to_string(dead[0].id)));
  CHECK(station.delivery->counters().buried == 1);
}

TEST_CASE("what Mattermost refuses is a dead letter at once, told with what to do, and can be sent again") {
  Station station;
  station.server.next(answer(404, R"({"id":"x","message":"for incoming webhook abcdefghijklmnopqrstuvwxyz.","status_code":404})"));
  station.store("post1");
  station.store("post2");
  station.start();
  CHECK(station.empties());
  CHECK(station.arrived() == "12");
  const auto dead = station.input.dead(10);
  REQUIRE(dead.size() == 1);
  CHECK(dead[0].reason.find("the name in the channel's URL") != std::string::npos);
  CHECK(dead[0].reason.find(secret_id) == std::string::npos);
  CHECK(station.logs("dead letter: post " + std::to_string(dead[0].id)));
  station.input.retry_dead({}, 0);
  station.delivery->wake();
  CHECK(station.empties());
  CHECK(station.arrived() == "121");
}

TEST_CASE("a post that Mattermost fails at eight times is to blame itself") {
  Station station;
  for (int i = 0; i < 8; ++i) station.server.next(answer(500, "{}"));
  station.store("post1");
  station.store("post2");
  station.start();
  CHECK(station.soon([&] { return station.arrived() == "111111112"; }));
  CHECK(station.empties());
  CHECK(station.input.dead(10).size() == 1);
}

TEST_CASE("what could not be delivered for give_up_after is buried, also what waited behind it") {
  Station station;
  station.settings.give_up_after_s = 0;
  station.server.handle([](const FakeRequest&) { return answer(503, ""); });
  station.store("post1");
  station.store("post2");
  station.start();
  CHECK(station.empties());
  CHECK(station.input.dead(10).size() == 2);
  CHECK(station.input.dead(10)[1].reason.find("given up") != std::string::npos);
}

TEST_CASE("a wrong certificate: nothing is sent or lost, the log names it, and a mended ca_file is enough") {
  const Identity root({.common_name = "City Root CA", .authority = true}, nullptr), old({.common_name = "Old Root", .authority = true}, nullptr);
  const Identity chat({.common_name = "chat", .names = {"IP:127.0.0.1"}}, &root);
  Station station(&chat);
  station.settings.mattermost.ca_file = station.folder.write("ca.pem", old.pem());
  station.store("post1");
  station.store("post2");
  station.start();
  CHECK(station.logs("showed the certificate of CN=chat"));
  CHECK(station.logs("1 certificate: CN=Old Root"));
  CHECK(station.unsent() == 2);
  station.folder.write("ca.pem", root.pem());
  CHECK(station.empties());
  CHECK(station.arrived() == "12");
  CHECK(station.delivery->counters().tls_failures > 0);
}

TEST_CASE("more than a person reads becomes a digest") {
  Station station;
  station.settings.flood = {.posts_per_second = 1000, .burst = 1000, .channel_posts_per_minute = 60, .channel_burst = 2, .digest_from = 3};
  for (int i = 0; i < 30; ++i) station.store("post" + std::to_string(i));
  station.start();
  CHECK(station.empties());
  CHECK(station.server.posts().size() == 1);
  CHECK(station.delivery->counters().digests == 1);
  CHECK(station.delivery->counters().digested == 30);
  // One and another fit the bucket by now or in a second: they come alone.
  station.store("postX");
  station.store("postY");
  CHECK(station.empties());
  CHECK(station.server.posts().size() == 3);
  CHECK(station.count("delivered") == 32);
}

TEST_CASE("a digest that is refused is sent as its posts, so that one bad one takes none with it") {
  Station station;
  station.settings.flood.channel_burst = 2;
  station.settings.flood.digest_from = 3;
  station.server.next(answer(400, "{}"));
  for (int i = 1; i <= 4; ++i) station.store("post" + std::to_string(i));
  station.start();
  CHECK(station.empties());
  CHECK(station.server.posts().size() == 5);
  CHECK(station.arrived().substr(1) == "1234");
  CHECK(station.input.dead(10).empty());
}

TEST_CASE("nothing is sent that could not be marked on disk, and an answer that was heard outlives a full disk") {
  Station station;
  station.disk_is_full = true;
  station.store("post1");
  station.start();
  CHECK(station.logs("queue failing: the disk is full"));
  std::this_thread::sleep_for(200ms);
  CHECK(station.server.requests().empty());
  station.server.handle([&](const FakeRequest&) {
    station.disk_is_full = true;  // between the mark and the answer
    return ok();
  });
  station.disk_is_full = false;
  CHECK(station.soon([&] { return station.arrived() == "1" && station.disk_is_full; }));
  std::this_thread::sleep_for(1500ms);
  CHECK(station.input.depth().sending == 1);
  CHECK(station.arrived() == "1");
  station.server.handle([](const FakeRequest&) { return ok(); });
  station.disk_is_full = false;
  CHECK(station.empties());
  CHECK(station.logs("queue works again"));
  station.store("post2");
  CHECK(station.empties());
  CHECK(station.arrived() == "12");
  CHECK(station.count("ambiguous") == 0);
}

TEST_CASE("stopped before the answer: counted, and sent once more by the next one") {
  Station station;
  station.server.next(hang());
  station.store("post1");
  station.start();
  CHECK(station.soon([&] { return station.arrived() == "1"; }));
  station.stop(50ms);
  CHECK(station.count("ambiguous") == 1);
  station.start();
  CHECK(station.empties());
  CHECK(station.arrived() == "11");
}

TEST_CASE("what is in flight may end within the patience of a stop") {
  Station station;
  FakeReply late = ok();
  late.delay = 200ms;
  station.server.next(late);
  station.store("post1");
  station.start();
  CHECK(station.soon([&] { return station.arrived() == "1"; }));
  station.stop(30s);
  CHECK(station.unsent() == 0);
  CHECK(station.count("ambiguous") == 0);
}

TEST_CASE("new settings count from the next post on; such that cannot be leave the old ones") {
  Station station;
  station.start();
  station.store("post1");
  CHECK(station.empties());
  Settings bad = station.settings;
  bad.mattermost.ca_file = station.folder.path() + "/missing.pem";
  station.delivery->apply(std::make_shared<const Settings>(bad));
  CHECK(station.logs("missing.pem: No such file"));
  FakeServer other;
  Settings next = station.settings;
  next.mattermost.hook = other.url() + "/hooks/" + secret_id;
  station.delivery->apply(std::make_shared<const Settings>(next));
  station.store("post2");
  CHECK(station.empties());
  CHECK(station.arrived() == "1");
  CHECK(other.posts().size() == 1);
  CHECK(station.delivery->beats() > 0);
}
