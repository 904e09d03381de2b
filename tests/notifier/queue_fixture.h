// A small language for tests of the queue, and the databases they run on.
#pragma once

#include <doctest/doctest.h>
#include <stdlib.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "notifier/queue.h"
#include "postgres_server.h"

namespace queue_test {

using namespace radiotower::notifier;
using namespace std::chrono_literals;

/// In memory where there is such a place: what fsync is worth is no question of most cases, and a disk that is busy
/// makes them slow. RADIOTOWER_MEASURE_FOLDER: on the disk that is to be measured.
struct Folder {
  Folder() {
    const char* const measured = std::getenv("RADIOTOWER_MEASURE_FOLDER");
    const auto in_memory =
        access("/dev/shm", W_OK) == 0 ? std::filesystem::path("/dev/shm") : std::filesystem::temp_directory_path();
    path = ((measured != nullptr ? std::filesystem::path(measured) : in_memory) / "radiotower-queue.XXXXXX").string();
    if (mkdtemp(path.data()) == nullptr) throw std::runtime_error("no temporary folder");
  }
  ~Folder() {
    std::error_code error;
    std::filesystem::remove_all(path, error);
  }
  Folder(const Folder&) = delete;
  std::string path;
};

/// An empty database; open() gives one more connection to it.
struct Database {
  std::string name;
  std::function<std::unique_ptr<Sql>()> open;
  Queue queue(const std::string& owner = "first") const { return Queue(open(), owner); }
};

inline void with_sqlite(const std::function<void(Database&)>& body) {
  const Folder folder;
  Database database{"sqlite", [&] { return open_queue_database("sqlite", folder.path); }};
  body(database);
}

inline void with_postgresql(const std::function<void(Database&)>& body) {
  std::string why;
  auto* const server = PostgresServer::shared(why);
  if (server == nullptr) {
    MESSAGE("skipped for PostgreSQL: ", why);
    return;
  }
  const auto url = server->make_database();
  Database database{"postgresql", [&] { return open_queue_database(url, ""); }};
  body(database);
}

/// The same promise by both databases.
inline void with_each_database(const std::function<void(Database&)>& body) {
  for (const auto with : {with_sqlite, with_postgresql}) {
    with([&](Database& database) {
      CAPTURE(database.name);
      body(database);
    });
  }
}

inline Event event(const std::string& channel, const std::string& title, const std::string& dedup_key = "") {
  Event event;
  event.project = channel;  // where to_project() posts it
  event.title = title;
  event.dedup_key = dedup_key;
  return event;
}

/// A route to the channel that is named as the project; no project: no route.
inline std::vector<Post> to_project(const Event& event, const Change& change, std::string& why) {
  if (event.project.empty()) {
    why = "no route";
    return {};
  }
  Post post;
  post.channel = event.project;
  post.event = event;
  post.change = change;
  return {post};
}

inline Stored put(Queue& queue, const Event& event, UnixMilliseconds now = 1000) {
  return queue.store({&event, 1}, now, to_project).at(0).stored;
}

inline std::vector<Queue::Lane> claim(Queue& queue, UnixMilliseconds now = 1000, std::size_t lanes = 10,
                                      std::size_t most = 100, const std::vector<std::string>& busy = {}) {
  return queue.claim(now, 60s, lanes, most, busy);
}

inline std::string title(const QueuedPost& post) { return post_from_json(Json::parse(post.json)).event.title; }
inline std::vector<std::string> titles(const Queue::Lane& lane) {
  std::vector<std::string> result;
  for (const auto& post : lane.posts) result.push_back(title(post));
  return result;
}
inline std::vector<std::int64_t> ids(const Queue::Lane& lane) {
  std::vector<std::int64_t> result;
  for (const auto& post : lane.posts) result.push_back(post.id);
  return result;
}
using Titles = std::vector<std::string>;

/// Whether size() comes to that. Where counting took longer than 5 ms, as on a busy machine, size() is up to a second old (queue.h).
inline bool has_size(Queue& queue, std::int64_t posts) {
  for (const auto end = std::chrono::steady_clock::now() + 30s; queue.size() != posts;) {
    if (std::chrono::steady_clock::now() >= end) return false;
    std::this_thread::sleep_for(20ms);
  }
  return true;
}

inline std::int64_t counter(Queue& queue, const std::string& name) {
  for (const auto& [known, n] : queue.counters()) {
    if (known == name) return n;
  }
  return 0;
}

/// Four digits, so that texts sort as numbers do.
inline std::string number_text(std::int64_t i) {
  const auto digits = std::to_string(i);
  return std::string(4 - std::min<std::size_t>(digits.size(), 4), '0') + digits;
}

}  // namespace queue_test
