// A delivery between a queue in a folder of its own and a server that does what it is told.
#pragma once

#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <functional>
#include <sstream>

#include "fake_server.h"
#include "notifier/delivery.h"

namespace radiotower::notifier {

inline constexpr const char* secret_id = "abcdefghijklmnopqrstuvwxyz";

/// A database whose commits fail while `fails` is set, as they do on a full disk.
class FaultySql : public Sql {
 public:
  FaultySql(std::unique_ptr<Sql> sql, std::atomic<bool>& fails) : sql_(std::move(sql)), fails_(fails) {}
  std::vector<Row> run(const char* statement, std::initializer_list<Value> values) override { return sql_->run(statement, values); }
  void begin() override { sql_->begin(); }
  void commit() override {
    if (fails_) throw SqlError(SqlError::Kind::full, "the disk is full");
    sql_->commit();
  }
  void rollback() override { sql_->rollback(); }
  void reconnect() override { sql_->reconnect(); }
  bool skips_locked_rows() const override { return sql_->skips_locked_rows(); }

 private:
  std::unique_ptr<Sql> sql_;
  std::atomic<bool>& fails_;
};

struct Station {
  explicit Station(const Identity* identity = nullptr) : server(identity), input(open_queue_database("sqlite", folder.path()), "input") {
    settings.mattermost.hook = server.url() + "/hooks/" + secret_id;
    settings.mattermost.timeout_s = 30;  // of what is answered; where nothing is, a test sets less
    settings.flood = {.posts_per_second = 1000, .burst = 1000, .channel_posts_per_minute = 60'000, .channel_burst = 1000, .digest_from = 2000};
    settings.state = folder.path();
  }
  ~Station() {
    stop();
    INFO(log_text());
    CHECK(log_text().find(secret_id) == std::string::npos);
  }

  void start() {
    log_file = open((folder.path() + "/log").c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    log = std::make_unique<Log>(Log::Options{.descriptor = log_file});
    auto queue = std::make_unique<Queue>(std::make_unique<FaultySql>(open_queue_database("sqlite", folder.path()), disk_is_full), "delivery");
    delivery = std::make_unique<Delivery>(std::move(queue), std::make_shared<const Settings>(settings), *log, system_random(), std::chrono::milliseconds(20));
    delivery->start();
  }
  void stop(std::chrono::milliseconds patience = std::chrono::milliseconds(0)) {
    if (!delivery) return;
    delivery->stop(patience);
    delivery.reset();
    log.reset();
    close(log_file);
  }

  void store(const std::string& title, const std::string& channel = "builds", const std::function<void(Post&)>& change = {}) {
    Event event;
    event.source = "jenkins";
    event.kind = "build";
    event.status = Status::failed;
    event.project = "app";
    event.title = title;
    Post post;
    post.channel = channel;
    post.event = event;
    if (change) change(post);
    const Event events[] = {post.event};
    const auto now = std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch()).count();
    input.store(events, now, [&](const Event&, const Change&, std::string&) { return std::vector<Post>{post}; });
    if (delivery) delivery->wake();
  }

  bool soon(const std::function<bool()>& is_so, std::chrono::milliseconds patience = std::chrono::seconds(30)) const {
    const auto end = std::chrono::steady_clock::now() + patience;
    while (!is_so()) {
      if (std::chrono::steady_clock::now() >= end) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return true;
  }
  /// Of one moment: asked twice, a post on its way from waiting to sending and back would be counted twice or not at all.
  std::int64_t unsent() {
    const Depth depth = input.depth();
    return depth.waiting + depth.sending;
  }
  bool empties() { return soon([&] { return unsent() == 0; }); }

  /// Which of "post1", "post2" ... arrived, in order.
  std::string arrived() const {
    std::string out;
    for (const auto& request : server.posts()) {
      const auto at = request.body.find("post");
      if (at != std::string::npos) out += request.body.substr(at + 4, 1);
    }
    return out;
  }
  std::int64_t count(std::string_view name) {
    for (const auto& [key, n] : input.counters())
      if (key == name) return n;
    return 0;
  }
  std::string log_text() const {
    std::ostringstream out;
    out << std::ifstream(folder.path() + "/log").rdbuf();
    return out.str();
  }
  bool logs(const std::string& text) const {
    return soon([&] { return log_text().find(text) != std::string::npos; });
  }

  TemporaryFolder folder;
  FakeServer server;
  Queue input;
  Settings settings;
  std::atomic<bool> disk_is_full{false};
  int log_file = -1;
  std::unique_ptr<Log> log;
  std::unique_ptr<Delivery> delivery;
};

}  // namespace radiotower::notifier
