// What an outcome means against the one before.
#include "notifier/history.h"

#include <doctest/doctest.h>

using namespace radiotower::notifier;

namespace {

/// A key whose outcomes come one after the other.
struct Key {
  std::optional<History> known;
  Change gets(Status status, UnixSeconds now) {
    std::optional<History> after;
    const auto change = compare(known, status, now, after);
    if (after) known = after;
    return change;
  }
};

}  // namespace

TEST_CASE("history: the first outcome is neither broken nor fixed") {
  CHECK(Key{}.gets(Status::success, 100).turn == Turn::first);
  CHECK(Key{}.gets(Status::failed, 100).turn == Turn::first);
}

TEST_CASE("history: broken, still failing with its number, fixed with how long it was broken, still good") {
  Key main;
  main.gets(Status::success, 100);
  CHECK(main.gets(Status::failed, 200).turn == Turn::broken);
  auto change = main.gets(Status::failed, 260);
  CHECK(change.turn == Turn::still_failing);
  CHECK(change.streak == 2);
  CHECK(change.lasted_s == 60);
  change = main.gets(Status::failed, 320);
  CHECK(change.streak == 3);
  CHECK(change.lasted_s == 120);
  change = main.gets(Status::success, 500);
  CHECK(change.turn == Turn::fixed);
  CHECK(change.lasted_s == 300);
  CHECK(change.streak == 3);  // after so many failures
  CHECK(main.gets(Status::success, 600).turn == Turn::still_good);
  CHECK(main.known->since == 500);
  CHECK(main.known->streak == 2);
}

TEST_CASE("history: unstable counts as failed") {
  Key main;
  main.gets(Status::success, 100);
  CHECK(main.gets(Status::unstable, 200).turn == Turn::broken);
  CHECK(main.gets(Status::failed, 300).turn == Turn::still_failing);
  CHECK(main.gets(Status::success, 400).turn == Turn::fixed);
}

TEST_CASE("history: what is not an outcome changes nothing") {
  Key main;
  main.gets(Status::failed, 100);
  for (const auto status :
       {Status::none, Status::pending, Status::running, Status::waiting, Status::canceled, Status::skipped}) {
    std::optional<History> after = History{};
    const auto change = compare(main.known, status, 200, after);
    CHECK(change.turn == Turn::none);
    CHECK_FALSE(after.has_value());
  }
  CHECK(main.gets(Status::failed, 300).streak == 2);
}

TEST_CASE("history: a clock that is set back makes no negative time, and a streak does not wrap") {
  Key main;
  main.gets(Status::failed, 1000);
  CHECK(main.gets(Status::failed, 400).lasted_s == 0);
  CHECK(main.gets(Status::success, 500).lasted_s == 0);
  main.known = History{Status::failed, ~0U, 0};
  CHECK(main.gets(Status::failed, 2000).streak == ~0U);
}

TEST_CASE("history: the words of routes") {
  CHECK(word(Turn::broken) == "broken");
  CHECK(word(Turn::still_failing) == "still failing");
  CHECK(word(Turn::fixed) == "fixed");
  for (const auto turn : {Turn::none, Turn::first, Turn::still_good}) CHECK(word(turn).empty());
}
