// Trains as pure functions: what a run consists of, what may join, where it is cut.
#include "../../relay/io/segments.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

using namespace radiotower::io;

namespace {

Run run_of(const std::string& text, std::uint16_t stride = 0, std::uint16_t skip = 0, std::uint16_t trim = 0, bool prefix = false) {
  Run run;
  run.bytes = reinterpret_cast<const std::uint8_t*>(text.data());
  run.size = static_cast<std::uint32_t>(text.size());
  run.stride = stride;
  run.skip = skip;
  run.trim = trim;
  run.prefix_size = prefix ? 4 : 0;
  run.prefix = {'H', 'E', 'A', 'D'};
  return run;
}

std::vector<std::string> datagrams_of(const Run& run) {
  std::vector<std::string> all;
  for (std::size_t k = 0; k < run.datagrams(); ++k) {
    iovec pieces[Run::most_pieces];
    std::string one;
    for (std::size_t i = 0, n = run.pieces(k, pieces); i < n; ++i)
      one.append(static_cast<const char*>(pieces[i].iov_base), pieces[i].iov_len);
    CHECK(one.size() == run.datagram_size(k));
    all.push_back(one);
  }
  return all;
}

struct Train {
  std::size_t size, count, last;
};
/// A train of `count` datagrams of `size` bytes, the last `last` bytes.
TrainShape shape(const Train& t) {
  static std::string text(70000, 'x');
  Run run = run_of(text, static_cast<std::uint16_t>(t.count == 1 ? 0 : t.size));
  run.size = static_cast<std::uint32_t>((t.count - 1) * t.size + t.last);
  return shape_of(run);
}

}  // namespace

TEST_CASE("a run is its datagrams: stride, skip, trim, prefix, and a last one that is shorter") {
  struct Case {
    std::string text;
    std::uint16_t stride, skip, trim;
    bool prefix;
    std::vector<std::string> expected;
  };
  const Case cases[] = {
      {"", 0, 0, 0, false, {""}},
      {"abc", 0, 0, 0, false, {"abc"}},
      {"abc", 0, 0, 0, true, {"HEADabc"}},
      {"", 0, 0, 0, true, {"HEAD"}},
      {"aaaabbbbcccc", 4, 0, 0, false, {"aaaa", "bbbb", "cccc"}},
      {"aaaabbbbcc", 4, 0, 0, false, {"aaaa", "bbbb", "cc"}},
      {"aaaabbbbcc", 4, 0, 0, true, {"HEADaaaa", "HEADbbbb", "HEADcc"}},
      {"hhaahhbbhhc", 4, 2, 0, false, {"aa", "bb", "c"}},
      {"hhaahhbbhh", 4, 2, 0, false, {"aa", "bb", ""}},
      {"hhaahhbbh", 4, 2, 0, false, {"aa", "bb", ""}},
      // Padding: two bytes a stride; the last datagram's has been left out by whoever made the run, or has not.
      {"hhaappphhbbppphhcc", 7, 2, 3, false, {"aa", "bb", "cc"}},
      {"hhaappphhbbppphhccppp", 7, 2, 3, false, {"aa", "bb", "cc"}},
      {"hhaappphhbbppphhccp", 7, 2, 3, false, {"aa", "bb", "cc"}},
      {"hhaappphhbbppphhc", 7, 2, 3, false, {"aa", "bb", "c"}},
  };
  for (const Case& c : cases) {
    CAPTURE(c.text);
    CAPTURE(c.stride);
    const Run run = run_of(c.text, c.stride, c.skip, c.trim, c.prefix);
    CHECK(datagrams_of(run) == c.expected);
    std::size_t sum = 0;
    for (const auto& one : c.expected) sum += one.size();
    CHECK(run.wire_size() == sum);
    const TrainShape s = shape_of(run);
    CHECK(s.datagrams == c.expected.size());
    CHECK(s.segment == c.expected.front().size());
    CHECK(s.bytes == sum);
    CHECK(s.ended == (c.expected.back().size() < c.expected.front().size()));
    CHECK(s.has_empty == c.expected.back().empty());
  }
}

TEST_CASE("what may join a train, and what may not") {
  struct Case {
    const char* why;
    Train train, more;
    bool joins, ends;
  };
  const Case cases[] = {
      {"equal ones", {100, 1, 100}, {100, 1, 100}, true, false},
      {"a shorter one ends it", {100, 1, 100}, {99, 1, 99}, true, true},
      {"a longer one", {100, 1, 100}, {101, 1, 101}, false, false},
      {"an empty one", {100, 1, 100}, {0, 1, 0}, false, false},
      {"to an empty one", {0, 1, 0}, {100, 1, 100}, false, false},
      {"two empty ones", {0, 1, 0}, {0, 1, 0}, false, false},
      {"after a shorter one", {100, 3, 50}, {100, 1, 100}, false, true},
      {"after a shorter one, as short", {100, 3, 50}, {50, 1, 50}, false, true},
      {"two trains", {100, 8, 100}, {100, 8, 100}, true, false},
      {"a train that ends shorter", {100, 8, 100}, {100, 8, 7}, true, true},
      {"a train of shorter ones", {100, 8, 100}, {99, 2, 99}, false, false},
      {"a train of longer ones", {100, 1, 100}, {101, 2, 101}, false, false},
      {"sixty-four", {100, 60, 100}, {100, 4, 100}, true, false},
      {"sixty-five", {100, 60, 100}, {100, 5, 100}, false, false},
      {"as many bytes as one packet holds", {1300, 49, 1300}, {1300, 1, 1300}, true, false},
      {"a byte more", {32744, 1, 32744}, {32744, 1, 32744}, false, false},
  };
  for (const Case& c : cases) {
    CAPTURE(c.why);
    TrainShape train = shape(c.train);
    const TrainShape before = train;
    static std::string text(70000, 'y');
    Run run = run_of(text, static_cast<std::uint16_t>(c.more.count == 1 ? 0 : c.more.size));
    run.size = static_cast<std::uint32_t>((c.more.count - 1) * c.more.size + c.more.last);
    CHECK(join(train, run) == c.joins);
    CHECK(train.ended == (c.joins ? c.ends : before.ended));
    CHECK(train.datagrams == before.datagrams + (c.joins ? c.more.count : 0));
    CHECK(train.bytes == before.bytes + (c.joins ? run.wire_size() : 0));
    CHECK(train.segment == before.segment);
  }
}

TEST_CASE("a train longer than the kernel takes is cut, and nothing is lost or moved") {
  struct Case {
    std::size_t stride, size;
    bool prefix;
    std::size_t parts;
  };
  const Case cases[] = {{1000, 8000, false, 1}, {10, 640, false, 1}, {10, 650, false, 2}, {10, 655, true, 2},
                        {1, 1300, false, 21},   {1000, 65000, false, 2}, {1000, 65487, true, 2}, {60000, 65000, false, 2},
                        {65500, 65535, false, 2}};
  for (const Case& c : cases) {
    CAPTURE(c.stride);
    CAPTURE(c.size);
    std::string text;
    for (std::size_t i = 0; i < c.size; ++i) text += static_cast<char>('a' + (i * 7 + i / c.stride) % 26);
    const Run run = run_of(text, static_cast<std::uint16_t>(c.stride), 0, 0, c.prefix);
    std::vector<std::string> got;
    std::size_t parts = 0;
    for_each_part(run, [&](const Run& part) {
      ++parts;
      const TrainShape s = shape_of(part);
      CHECK(s.datagrams <= most_datagrams);
      CHECK((s.bytes <= most_bytes || s.datagrams == 1));
      for (auto& one : datagrams_of(part)) got.push_back(one);
    });
    CHECK(parts == c.parts);
    CHECK(got == datagrams_of(run));
  }
}
