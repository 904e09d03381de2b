// A disk that is full and one that fails. Each runs in a process of its own: this program again, with the one case
// named.
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>

#include "queue_fixture.h"

using namespace queue_test;

namespace {

void set_variable(const char* name, const std::string& value) { setenv(name, value.c_str(), 1); }

/// Runs the skipped case `name` of this program; `prepare` is called in the child. True when it passed.
bool passes_alone(const std::string& name, const std::function<void()>& prepare) {
  const auto filter = "--test-case=" + name;
  const pid_t child = fork();
  if (child == 0) {
    prepare();
    execl("/proc/self/exe", "notifier-tests", filter.c_str(), "--no-skip", "--minimal", static_cast<char*>(nullptr));
    _exit(127);
  }
  int status = 0;
  return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

void touch(const std::string& file) { close(open(file.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600)); }

/// A tmpfs of `kibibytes` at `folder`, seen by this process alone.
bool mount_small_disk(const std::string& folder, int kibibytes) {
  const auto user = getuid();
  const auto group = getgid();
  if (unshare(CLONE_NEWNS) != 0) {
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return false;
    const auto write_to = [](const char* file, const std::string& text) {
      const int descriptor = open(file, O_WRONLY | O_CLOEXEC);
      const bool written =
          descriptor >= 0 && write(descriptor, text.data(), text.size()) == static_cast<ssize_t>(text.size());
      close(descriptor);
      return written;
    };
    if (!write_to("/proc/self/setgroups", "deny") ||
        !write_to("/proc/self/uid_map", "0 " + std::to_string(user) + " 1") ||
        !write_to("/proc/self/gid_map", "0 " + std::to_string(group) + " 1")) {
      return false;
    }
  }
  if (mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return false;
  return mount("tmpfs", folder.c_str(), "tmpfs", 0, ("size=" + std::to_string(kibibytes) + "k").c_str()) == 0;
}

}  // namespace

TEST_CASE("alone: queue on a disk whose fsync fails" * doctest::skip()) {
  const Folder folder;
  const auto mark = folder.path + "/fails";
  set_variable("RADIOTOWER_FAILING_DISK", mark);
  Queue queue(open_queue_database("sqlite", folder.path), "first");
  REQUIRE(put(queue, event("builds", "before", "1")) == Stored::stored);

  touch(mark);
  const std::vector<Event> batch = {event("builds", "lost a", "2"), event("builds", "lost b", "3")};
  for (int i = 0; i < 3; ++i) {
    try {
      queue.store(batch, 1000, to_project);
      FAIL("acknowledged what is on no disk");
    } catch (const SqlError& error) {
      CHECK(error.kind == SqlError::Kind::broken);
    }
  }
  const std::vector<std::int64_t> some = {1};
  CHECK_THROWS_AS(queue.delivered(some, "builds"), SqlError);
  std::filesystem::remove(mark);

  // The sender comes again: what was refused is new, and there once.
  queue.reconnect();
  CHECK(has_size(queue, 1));
  CHECK(put(queue, event("builds", "after", "4")) == Stored::stored);
  const auto results = queue.store(batch, 1000, to_project);
  CHECK(results[0].stored == Stored::stored);
  CHECK(results[1].stored == Stored::stored);
  CHECK(put(queue, event("builds", "before", "1")) == Stored::duplicate);
  Queue other(open_queue_database("sqlite", folder.path), "other");
  CHECK(titles(claim(other).at(0)) == Titles{"before", "after", "lost a", "lost b"});
}

TEST_CASE("queue: a batch whose fsync fails is not acknowledged, and all is well when the disk is") {
  CHECK(passes_alone("alone: queue on a disk whose fsync fails", [] {
    set_variable("LD_PRELOAD", FAILING_DISK);
    set_variable("ASAN_OPTIONS", "verify_asan_link_order=0");
  }));
}

TEST_CASE("alone: queue on a full disk" * doctest::skip()) {
  const Folder folder;
  if (!mount_small_disk(folder.path, 24 * 1024)) {
    std::puts("skipped: mounting a small disk is not permitted");
    return;
  }
  {
    Queue queue(open_queue_database("sqlite", folder.path), "first");
    std::int64_t stored = 0;
    try {
      for (;; ++stored)
        put(queue, event("builds", number_text(stored) + std::string(20'000, 'x'), number_text(stored)), 1000);
    } catch (const SqlError& error) {
      CHECK(error.kind == SqlError::Kind::full);
    }
    CHECK(stored > 510);
    CHECK(has_size(queue, stored));
    CHECK_THROWS_AS(put(queue, event("builds", "refused", "refused")), SqlError);
    // Delivery goes on, and makes room for new ones.
    std::int64_t delivered = 0;
    for (auto lanes = claim(queue, 1000, 1, 10); !lanes.empty() && delivered < 500; lanes = claim(queue, 1000, 1, 10)) {
      queue.sending(ids(lanes[0]), 1000);
      for (const auto& post : lanes[0].posts) CHECK(title(post).starts_with(number_text(delivered++)));
      queue.delivered(ids(lanes[0]), "builds");
      queue.release("builds", 0);
    }
    CHECK(delivered == 500);
    CHECK(put(queue, event("builds", "new", "new")) == Stored::stored);
    CHECK(has_size(queue, stored - 499));
  }
  {
    Queue queue(open_queue_database("sqlite", folder.path), "second");
    CHECK(put(queue, event("builds", "new", "new")) == Stored::duplicate);
  }
  // Another one fills the disk while we are not there: the start succeeds, and delivery goes on.
  const int ballast = open((folder.path + "/ballast").c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
  for (const std::string block(4096, 'x'); write(ballast, block.data(), block.size()) > 0;) continue;
  close(ballast);
  {
    Queue queue(open_queue_database("sqlite", folder.path), "third");
    queue.take_over(2000);
    const auto lane = claim(queue, 2000, 1, 5).at(0);
    queue.sending(ids(lane), 2000);
    queue.delivered(ids(lane), "builds");
  }
  umount2(folder.path.c_str(), MNT_DETACH);
}

TEST_CASE("queue: a full disk is said, loses nothing, and delivery makes room") {
  CHECK(passes_alone("alone: queue on a full disk", [] {}));
}

TEST_CASE("measure: queue, 10,000 events in batches" * doctest::skip()) {
  if (const char* const where = std::getenv("RADIOTOWER_MEASURE_FOLDER"))
    set_variable("TMPDIR", where);  // of PostgreSQL, too
  const auto measure = [](Database& database) {
    for (const std::size_t size : {1U, 10U, 100U}) {
      auto queue = database.queue();
      const std::int64_t all = size == 1 ? 2000 : 10'000;
      std::vector<double> commits;
      const auto begun = std::chrono::steady_clock::now();
      for (std::int64_t first = 0; first < all;) {
        std::vector<Event> batch;
        for (std::size_t i = 0; i < size; ++i, ++first) {
          const auto key = std::to_string(size) + "/" + std::to_string(first);
          batch.push_back(event("channel" + std::to_string(first % 10), std::string(1500, 'x'), key));
          batch.back().history_key = "project" + std::to_string(first % 100);
          batch.back().status = first % 7 == 0 ? Status::failed : Status::success;
        }
        const auto before = std::chrono::steady_clock::now();
        queue.store(batch, 1000, to_project);
        commits.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - before).count());
      }
      const auto seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
      std::sort(commits.begin(), commits.end());
      std::printf("%s, batches of %zu: %.0f events/s; a commit takes %.2f ms (median), %.2f ms (p99), %.2f ms (most)\n",
                  database.name.c_str(), size, static_cast<double>(all) / seconds, commits[commits.size() / 2],
                  commits[commits.size() * 99 / 100], commits.back());
    }
    auto queue = database.queue();
    std::vector<std::string> busy;
    for (int i = 0; i < 10; ++i) busy.push_back("channel" + std::to_string(i));
    const std::vector<Event> fill(1000, event("full", std::string(1500, 'x')));
    while (queue.size() < 100'000) queue.store(fill, 1000, to_project);
    const auto took = [&](const char* what, const std::function<void()>& call) {
      const auto before = std::chrono::steady_clock::now();
      for (int i = 0; i < 20; ++i) call();
      std::printf("%s, 100,000 posts: %s %.2f ms\n", database.name.c_str(), what,
                  std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - before).count() / 20);
    };
    took("size()", [&] { queue.size(); });
    took("depth()", [&] { queue.depth(); });
    took("next_due()", [&] { queue.next_due(); });
    took("claim() of 10 lanes, 20 posts each, and release_all()", [&] {
      claim(queue, 1000, 10, 20);
      queue.release_all();
    });
    took("claim() of a lane of 100,000, 20 posts", [&] {
      claim(queue, 1000, 1, 20, busy);
      queue.release_all();
    });
    took("one post sent alone: claim, sending, delivered, release", [&] {
      const auto lane = claim(queue, 1000, 1, 1).at(0);
      queue.sending(ids(lane), 1000);
      queue.delivered(ids(lane), lane.channel);
      queue.release(lane.channel, 0);
    });
  };
  with_sqlite(measure);
  std::string why;
  const auto server = PostgresServer::start(why, {"-c", "fsync=on"});
  if (server == nullptr) return;
  const auto url = server->make_database();
  Database database{"postgresql", [&] { return open_queue_database(url, ""); }};
  measure(database);
}
