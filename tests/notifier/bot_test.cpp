#include "notifier/bot.h"

#include <doctest/doctest.h>

#include <map>

#include "delivery_harness.h"

using namespace radiotower::notifier;
using namespace std::chrono_literals;

namespace {

constexpr const char* token = "tokentokentokentokentokent";

/// As much of Mattermost's REST API as a bot uses.
struct Rest {
  explicit Rest(FakeServer& server) {
    server.handle([this](const FakeRequest& request) {
      const std::lock_guard lock(mutex);
      return take(request);
    });
  }

  FakeReply take(const FakeRequest& request) {
    const std::string path = request.path.substr(std::string("/api/v4").size());
    calls.push_back(request.method + " " + path.substr(0, path.find('?')));
    if (path == "/system/ping") return answer(200, "{}");
    if (request.head.find(std::string("Authorization: Bearer ") + token) == std::string::npos) return answer(401, error("session"));
    if (path == "/users/me") return answer(200, R"({"id":"botid"})");
    if (path == "/users/username/alice") return answer(200, R"({"id":"aliceid"})");
    if (path == "/channels/direct") return answer(201, R"({"id":"directid"})");
    if (path == "/teams/name/ci/channels/name/builds") return answer(200, R"({"id":"buildsid"})");
    if (path.starts_with("/teams/")) return answer(404, error("no channel"));
    if (path.find("/posts?since=") != std::string::npos) {
      Json found = Json::object();
      for (const auto& [id, post] : posts) found[id] = post;
      return answer(200, Json{{"order", Json::array()}, {"posts", found}}.dump());
    }
    const Json body = Json::parse(request.body);
    if (request.method == "PUT") {
      const std::string id = path.substr(7, path.rfind('/') - 7);
      if (!posts.contains(id)) return answer(404, error("no post"));
      posts[id].update(body);
      return answer(200, posts[id].dump());
    }
    if (lose_before > 0 && lose_before-- > 0) return cut();
    const std::string id = "p" + std::to_string(posts.size() + 1);
    posts[id] = body;
    posts[id]["id"] = id;
    if (lose_after > 0 && lose_after-- > 0) return cut();
    return answer(201, posts[id].dump());
  }
  static std::string error(const std::string& message) { return Json{{"id", "x"}, {"message", message}, {"status_code", 400}}.dump(); }
  std::size_t times(const std::string& call) {
    const std::lock_guard lock(mutex);
    return static_cast<std::size_t>(std::count(calls.begin(), calls.end(), call));
  }
  std::string post(const std::string& id) {
    const std::lock_guard lock(mutex);
    return posts.contains(id) ? posts[id].dump() : "";
  }
  bool says(const std::string& id, const std::string& what) { return post(id).find(what) != std::string::npos; }
  std::size_t size() {
    const std::lock_guard lock(mutex);
    return posts.size();
  }

  std::mutex mutex;
  std::map<std::string, Json> posts;
  std::vector<std::string> calls;
  int lose_before = 0, lose_after = 0;  // answers to a created post
};

struct BotStation : Station {
  BotStation() : rest(server) {
    settings.mattermost.url = server.url();
    settings.mattermost.token = token;
    settings.mattermost.team = "ci";
    settings.mattermost.hook.clear();
  }
  ~BotStation() {
    stop();
    CHECK(log_text().find(token) == std::string::npos);
  }
  void say(const std::string& title, Status status, const std::string& subject = "pipeline/1", const std::string& channel = "builds") {
    store(title, channel, [&](Post& post) {
      post.event.subject = subject;
      post.event.status = status;
      if (status == Status::failed) {
        post.event.items.push_back({"job unit-tests", "", "", Status::failed});
        post.mention = "@build-cop";
      }
    });
  }
  Rest rest;
};

}  // namespace

TEST_CASE("one post a subject is edited along, and the failed jobs are a reply that calls whom an edit does not") {
  BotStation station;
  station.start();
  station.say("post pending", Status::pending);
  CHECK(station.empties());
  CHECK(station.rest.says("p1", "post pending"));
  CHECK(station.rest.says("p1", "radiotower_id"));
  station.say("post running", Status::running);
  CHECK(station.empties());
  station.say("post failed", Status::failed);
  CHECK(station.empties());
  CHECK(station.rest.size() == 2);
  CHECK(station.rest.says("p1", "post failed"));
  CHECK(station.rest.says("p2", "unit-tests"));
  CHECK(station.rest.says("p2", "@build-cop"));
  CHECK(station.rest.says("p2", R"("root_id":"p1")"));
  CHECK(station.rest.times("GET /teams/name/ci/channels/name/builds") == 1);
  const auto& counters = station.delivery->counters();
  CHECK(counters.posts == 1);
  CHECK(counters.edits == 2);
  CHECK(counters.replies == 1);
}

TEST_CASE("of the states that wait, the newest is told alone") {
  BotStation station;
  station.say("post pending", Status::pending);
  station.say("post other", Status::running, "pipeline/2");
  station.say("post running", Status::running);
  station.say("post passed", Status::success);
  station.start();
  CHECK(station.empties());
  CHECK(station.rest.times("POST /posts") == 2);
  CHECK(station.rest.says("p1", "post passed"));
  CHECK(station.rest.says("p2", "post other"));
  CHECK(station.count("delivered") == 4);
}

TEST_CASE("a post whose answer was lost is found again and edited, not posted twice") {
  BotStation station;
  station.rest.lose_after = 1;
  SUBCASE("with a subject") { station.say("post failed", Status::failed); }
  SUBCASE("without") { station.say("post failed", Status::failed, ""); }
  station.start();
  CHECK(station.empties());
  CHECK(station.rest.times("GET /channels/buildsid/posts") >= 1);
  CHECK(station.rest.says("p1", "post failed"));
  CHECK_FALSE(station.rest.says("p2", "post failed"));
  CHECK(station.count("ambiguous") == 1);
}

TEST_CASE("a lost answer to a reply makes no second reply, and lost requests make no dead letter") {
  BotStation station;
  station.start();
  station.say("post running", Status::running);
  CHECK(station.empties());
  {
    const std::lock_guard lock(station.rest.mutex);
    station.rest.lose_after = 1;
  }
  station.say("post failed", Status::failed);
  CHECK(station.empties());
  CHECK(station.rest.size() == 2);
  {
    const std::lock_guard lock(station.rest.mutex);
    station.rest.lose_before = 3;
  }
  station.say("post next", Status::success, "pipeline/9");
  CHECK(station.empties());
  CHECK(station.rest.says("p3", "post next"));
  CHECK(station.input.dead(10).empty());
}

TEST_CASE("a post that somebody deleted is told anew") {
  BotStation station;
  station.start();
  station.say("post running", Status::running);
  CHECK(station.empties());
  {
    const std::lock_guard lock(station.rest.mutex);
    station.rest.posts.clear();
    station.rest.posts["p0"] = Json::object();
  }
  station.say("post passed", Status::success);
  CHECK(station.empties());
  CHECK(station.rest.says("p2", "post passed"));
  station.say("post failed", Status::failed);
  CHECK(station.empties());
  CHECK(station.rest.says("p2", "post failed"));
}

TEST_CASE("a direct message, and a channel that is not there") {
  BotStation station;
  station.say("post hello", Status::success, "", "@alice");
  station.say("post lost", Status::success, "", "nowhere");
  station.start();
  CHECK(station.empties());
  CHECK(station.rest.says("p1", R"("channel_id":"directid")"));
  const auto dead = station.input.dead(10);
  REQUIRE(dead.size() == 1);
  CHECK(dead[0].reason.find("not the one that is shown") != std::string::npos);
}

TEST_CASE("many subjects at once become a digest; edits are no flood") {
  BotStation station;
  station.settings.flood.channel_posts_per_minute = 6;
  station.settings.flood.channel_burst = 2;
  station.settings.flood.digest_from = 3;
  for (int i = 0; i < 10; ++i) station.say("post" + std::to_string(i), Status::success, "pipeline/" + std::to_string(i));
  station.start();
  CHECK(station.empties());
  CHECK(station.rest.size() == 1);
  CHECK(station.delivery->counters().digested == 10);
  station.say("post running", Status::running, "pipeline/20");
  CHECK(station.empties());
  for (const char* title : {"a", "b", "c"}) {  // the bucket is empty by now
    station.say(std::string("post ") + title, Status::running, "pipeline/20");
    CHECK(station.empties());
  }
  CHECK(station.rest.says("p2", "post c"));
  CHECK(station.delivery->counters().edits == 3);
}
