#include "radiotower/service/log.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

using namespace radiotower;
using namespace std::chrono_literals;

namespace {

constexpr std::int64_t new_year = 1'767'225'600'000;

std::string escaped(std::string_view text, std::size_t limit = 512) {
  std::string out;
  append_escaped(out, text, limit);
  return out;
}

std::string line(LineStyle style, Priority priority, std::string_view event, std::string_view sentence, std::initializer_list<Field> fields) {
  return format_line(style, new_year, priority, event, sentence, Fields(fields.begin(), fields.size()));
}

struct Pipe {
  Pipe() { REQUIRE(pipe2(ends, O_CLOEXEC) == 0); }
  ~Pipe() {
    close(ends[0]);
    if (ends[1] >= 0) close(ends[1]);
  }
  /// Everything written so far and until nothing comes any more; the writer must have finished.
  std::string drain() {
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    std::string all;
    char buffer[65536];
    for (ssize_t n; (n = read(ends[0], buffer, sizeof buffer)) > 0;) all.append(buffer, static_cast<std::size_t>(n));
    return all;
  }
  int ends[2];
};

std::size_t lines_in(const std::string& text) { return static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n')); }

}  // namespace

TEST_CASE("every byte from outside is escaped, and two different inputs never look the same") {
  CHECK(escaped("alice@example.org") == "alice@example.org");
  CHECK(escaped("a\nb") == "a\\x0ab");
  CHECK(escaped("\x1b[2J") == "\\x1b[2J");
  CHECK(escaped(std::string_view("\0\x7f\xff", 3)) == "\\x00\\x7f\\xff");
  CHECK(escaped("a\\x0ab") == "a\\x5cx0ab");  // not to be taken for the line feed above
  CHECK(escaped("\xe2\x80\xae") == "\\xe2\\x80\\xae");  // a right-to-left override turns no line round
  for (int byte = 0; byte < 256; ++byte)
    for (const char c : escaped(std::string(1, static_cast<char>(byte)))) CHECK((c >= 0x20 && c < 0x7F));
}

TEST_CASE("a long value is cut and marked, never in the middle of an escape") {
  CHECK(escaped("abcdef", 4) == "abcd...");
  CHECK(escaped("abc\n", 4) == "abc...");
  CHECK(escaped("abcd", 4) == "abcd");
}

TEST_CASE("a line as text") {
  CHECK(line({}, Priority::info, "allocation made", "", {{"user", "alice"}, {"count", std::uint64_t{3}}}) ==
        "2026-01-01T00:00:00.000Z info allocation made: user=alice count=3\n");
  CHECK(line({}, Priority::warning, "peer refused", "10.1.2.3:8443 (rfc1918); add it to peers.allow", {{"user", "alice"}}) ==
        "2026-01-01T00:00:00.000Z warning peer refused: 10.1.2.3:8443 (rfc1918); add it to peers.allow [user=alice]\n");
  CHECK(line({}, Priority::notice, "ended", "", {}) == "2026-01-01T00:00:00.000Z notice ended\n");
  CHECK(line({}, Priority::notice, "ended", "", {Field::if_any("suppressed", 0)}) == "2026-01-01T00:00:00.000Z notice ended\n");
}

TEST_CASE("a user name cannot forge a line or a field") {
  CHECK(line({}, Priority::info, "made", "", {{"user", "eve client=1.2.3.4"}}) ==
        "2026-01-01T00:00:00.000Z info made: user=\"eve client=1.2.3.4\"\n");
  CHECK(line({}, Priority::info, "made", "", {{"user", "e\" x=\"y"}}) == "2026-01-01T00:00:00.000Z info made: user=\"e\\\" x=\\\"y\"\n");
  const std::string forged = line({}, Priority::info, "made", "", {{"user", "eve\n2026-01-01T00:00:00.000Z info made: user=admin"}});
  CHECK(lines_in(forged) == 1);
  CHECK(line({LogFormat::json, false}, Priority::info, "made", "", {{"user", "e\",\"user\":\"admin\n"}}) ==
        "{\"time\":\"2026-01-01T00:00:00.000Z\",\"level\":\"info\",\"event\":\"made\",\"user\":\"e\\\",\\\"user\\\":\\\"admin\\\\x0a\"}\n");
}

TEST_CASE("for the journal a line begins with its priority, and text needs no time") {
  CHECK(line({LogFormat::text, true}, Priority::warning, "peer refused", "", {{"peer", "192.0.2.1:9"}}) == "<4>peer refused: peer=192.0.2.1:9\n");
  CHECK(line({LogFormat::json, true}, Priority::error, "x", "y", {}) ==
        "<3>{\"time\":\"2026-01-01T00:00:00.000Z\",\"level\":\"error\",\"event\":\"x\",\"message\":\"y\"}\n");
}

TEST_CASE("whatever the fields hold, a line is one line of bounded length that ends well") {
  const std::string bad(763, '\xff'), quotes(763, '"'), backslashes(4000, '\\');
  for (const auto format : {LogFormat::text, LogFormat::json}) {
    for (const auto& value : {bad, quotes, backslashes}) {
      const std::string l = line({format, true}, Priority::info, "allocation ended", value,
                                 {{"user", value}, {"client", value}, {"relayed", value}, {"a", value}, {"b", value}, {"n", std::uint64_t{1}}});
      CHECK(l.size() <= longest_line);
      CHECK(lines_in(l) == 1);
      CHECK(l.back() == '\n');
      if (format == LogFormat::json) CHECK(l.substr(l.size() - 2) == "}\n");
    }
  }
}

TEST_CASE("what is written comes out, in order, and close waits for it") {
  Pipe pipe;
  Log log({LogFormat::text, Priority::info, pipe.ends[1], 64});
  for (int i = 0; i < 50; ++i) CHECK(log.write(Priority::info, "event", "", {{"n", std::uint64_t(i)}}));
  CHECK(log.write(Priority::debug, "not wanted", ""));
  CHECK(log.close(30s));
  const std::string all = pipe.drain();
  CHECK(lines_in(all) == 50);
  std::size_t at = 0;
  for (int i = 0; i < 50; ++i) {
    at = all.find("n=" + std::to_string(i) + "\n", at);
    CHECK(at != std::string::npos);
  }
  CHECK(all.find("not wanted") == std::string::npos);
}

TEST_CASE("a log nobody reads stops no writer: lines are dropped and counted, and told later") {
  Pipe pipe;
  fcntl(pipe.ends[1], F_SETPIPE_SZ, 4096);
  Log log({LogFormat::text, Priority::info, pipe.ends[1], 16});
  std::size_t refused = 0;
  for (int i = 0; i < 10'000; ++i) refused += !log.write(Priority::info, "flood", std::string(100, 'x'));
  CHECK(refused > 9'000);
  CHECK(log.dropped() == refused);
  // Someone reads again: what was queued comes, and lines say how many are missing.
  std::string all;
  char buffer[4096];
  std::size_t told = 0, written = 0;
  while (told < refused || written < 10'000 - refused) {
    pollfd wait{pipe.ends[0], POLLIN, 0};
    REQUIRE(poll(&wait, 1, 30'000) == 1);
    const ssize_t n = read(pipe.ends[0], buffer, sizeof buffer);
    REQUIRE(n > 0);
    all.append(buffer, static_cast<std::size_t>(n));
    for (std::size_t end; (end = all.find('\n')) != std::string::npos; all.erase(0, end + 1)) {
      const auto count = all.substr(0, end).find("log lines dropped: count=");
      if (count == std::string::npos) ++written;
      else told += std::stoul(all.substr(count + 25, end - count - 25));
    }
  }
  CHECK(told == refused);
  CHECK(written == 10'000 - refused);
}

TEST_CASE("close gives up on a reader who never comes") {
  Pipe pipe;
  fcntl(pipe.ends[1], F_SETPIPE_SZ, 4096);
  Log log({LogFormat::text, Priority::info, pipe.ends[1], 256});
  for (int i = 0; i < 256; ++i) log.write(Priority::info, "flood", std::string(100, 'x'));
  CHECK_FALSE(log.close(20ms));
}

TEST_CASE("a socket nobody reads stops no writer either, and is not made non-blocking for others") {
  int ends[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
  {
    Log log({LogFormat::text, Priority::info, ends[1], 16});
    std::size_t refused = 0;
    for (int i = 0; i < 20'000; ++i) refused += !log.write(Priority::info, "flood", std::string(900, 'x'));
    CHECK(refused > 0);
    CHECK((fcntl(ends[1], F_GETFL) & O_NONBLOCK) == 0);
    CHECK_FALSE(log.close(20ms));
  }
  close(ends[0]);
  close(ends[1]);
}

TEST_CASE("a reader who went away ends nothing") {
  Pipe pipe;
  signal(SIGPIPE, SIG_IGN);
  Log log({LogFormat::text, Priority::info, pipe.ends[1], 16});
  close(pipe.ends[0]);
  pipe.ends[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
  CHECK(log.write(Priority::info, "nobody hears", ""));
  CHECK(log.close(30s));
  CHECK(log.dropped() >= 1);
}

TEST_CASE("many threads write at once and every line is whole") {
  Pipe pipe;
  fcntl(pipe.ends[1], F_SETPIPE_SZ, 1 << 20);
  Log log({LogFormat::json, Priority::info, pipe.ends[1], 1024});
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&log, t] {
      for (int i = 0; i < 200; ++i) log.write(Priority::info, "event", "", {{"thread", std::uint64_t(t)}, {"n", std::uint64_t(i)}});
    });
  for (auto& thread : threads) thread.join();
  CHECK(log.close(30s));
  CHECK(log.dropped() == 0);
  const std::string all = pipe.drain();
  CHECK(lines_in(all) == 800);
  for (std::size_t at = 0; at < all.size();) {
    const std::size_t end = all.find('\n', at);
    CHECK(all.substr(at, 9) == "{\"time\":\"");
    CHECK(all[end - 1] == '}');
    at = end + 1;
  }
}

TEST_CASE("the journal is known by device and inode") {
  Pipe pipe;
  struct stat status {};
  REQUIRE(fstat(pipe.ends[1], &status) == 0);
  setenv("JOURNAL_STREAM", (std::to_string(status.st_dev) + ":" + std::to_string(status.st_ino)).c_str(), 1);
  CHECK(is_journal(pipe.ends[1]));
  setenv("JOURNAL_STREAM", "1:1", 1);  // inherited from a shell inside some unit, while stderr goes elsewhere
  CHECK_FALSE(is_journal(pipe.ends[1]));
  unsetenv("JOURNAL_STREAM");
  CHECK_FALSE(is_journal(pipe.ends[1]));
}

TEST_CASE("one line a source and window, and a bound on the class (X10)") {
  LineLimit limit({1, 2}, 10s, 3);
  const Time start(1000s);
  std::uint64_t suppressed = 99;
  CHECK(limit.admit(as_bytes("10.1.2.3:8443"), start, suppressed));
  CHECK(suppressed == 0);
  for (int i = 0; i < 1'000'000; ++i)
    if (limit.admit(as_bytes("10.1.2.3:8443"), start + 5s, suppressed)) FAIL("a second line in one window");
  CHECK(limit.admit(as_bytes("10.1.2.3:8443"), start + 10s, suppressed));
  CHECK(suppressed == 1'000'000);

  // A scan of many peers makes no more lines than the class has.
  unsigned lines = 0;
  for (int i = 0; i < 1000; ++i) lines += limit.admit(as_bytes("peer " + std::to_string(i)), start + 20s, suppressed);
  CHECK(lines == 3);
  // An empty source is bounded with its class alone.
  lines = 0;
  for (int i = 0; i < 1000; ++i) lines += limit.admit({}, start + 40s, suppressed);
  CHECK(lines == 3);
}
