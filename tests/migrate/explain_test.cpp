#include <doctest/doctest.h>

#include <map>

#include "explain.h"

using namespace radiotower::cli;

namespace {

constexpr std::int64_t now = 1'767'200'000, later = 1'767'225'600;  // 7 hours and a bit
const std::string alice = "1767225600:alice";
constexpr const char* good = "RjhlVen+DhQzYDfv//fV2MBBUwM=";  // of "secret": what Mattermost Calls makes

ExplainInput input(std::string username, std::string password, std::string_view secrets = "secret\n") {
  ExplainInput in;
  in.username = std::move(username);
  in.password = std::move(password);
  in.secrets = secrets_of(secrets, "secrets");
  in.now = now;
  return in;
}

bool says(const Explanation& e, std::string_view words) {
  if (e.verdict.find(words) != std::string::npos) return true;
  INFO(e.verdict);
  CHECK(e.verdict == words);
  return false;
}

}  // namespace

TEST_CASE("a good time-limited name is valid, and it is said which secret made it and for how long") {
  const auto e = explain_credential(input(alice, good, "# new\nsome-other-one\n\n  secret\t\r\n"));
  CHECK(e.valid);
  CHECK(e.kind == "time-limited");
  CHECK(e.user == "alice");
  CHECK(e.expiry == later);
  CHECK(e.secret == "line 4 of secrets");
  CHECK(says(e, "valid for another 7 hours 6 minutes, made with the secret in line 4 of secrets"));
}

TEST_CASE("an expired name is not valid, and since when") {
  auto in = input(alice, good);
  in.now = later + 3 * 86'400 + 7200;
  const auto e = explain_credential(in);
  CHECK_FALSE(e.valid);
  CHECK(says(e, "it expired 3 days 2 hours ago"));
  CHECK(e.secret == "line 1 of secrets");
  in.now = later;  // the second itself: turn::Directory refuses it
  CHECK_FALSE(explain_credential(in).valid);
}

TEST_CASE("a name that is good for longer than the relay takes") {
  auto in = input(alice, good);
  in.now = later - 8 * 86'400;
  CHECK(says(explain_credential(in), "it expires in 8 days, and the relay takes no name that is good for longer than 7 days"));
}

TEST_CASE("an expiry in milliseconds") {
  CHECK(says(explain_credential(input("1767225600000:alice", "zquOJiwW8VLhC736GrrW+w55dfg=")),
             "the expiry 1767225600000 has 13 digits: it is in milliseconds"));
  CHECK(says(explain_credential(input("1767225600000:alice", good)),
             "the password was made for the expiry in seconds, while the name has milliseconds"));
}

TEST_CASE("user and expiry the wrong way round") {
  const auto e = explain_credential(input("alice:1767225600", "txlloX+d8f5njMpVq42PtuS+hl0="));
  CHECK_FALSE(e.valid);
  CHECK(says(e, "user and expiry are the wrong way round"));
  CHECK(e.advice.front() == "the name should be 1767225600:alice");
}

TEST_CASE("another separator than the relay's") {
  CHECK(says(explain_credential(input("1767225600_alice", good)), "\"_\" stands between expiry and user, where the relay looks for \":\""));
  auto in = input("1767225600_alice", good);
  in.separator = '_';
  CHECK(says(explain_credential(in), "the password was made for a name with \":\" between expiry and user"));
}

TEST_CASE("an expiry without a user") {
  CHECK(says(explain_credential(input("1767225600", good)), "an expiry without a user"));
  CHECK(says(explain_credential(input("1767225600:", good)), "an expiry without a user"));
}

TEST_CASE("another secret, or none") {
  CHECK(says(explain_credential(input(alice, good, "not-the-secret\n")),
             "made with another secret than the one in line 1 of secrets, or for another user name"));
  CHECK(says(explain_credential(input(alice, good, "one-of-them\nother-one\n")), "made with none of the 2 secrets"));
  CHECK(says(explain_credential(input(alice, good, "")), "no secrets were given"));
}

TEST_CASE("what is no password of this kind") {
  CHECK(says(explain_credential(input(alice, "in wonderland!")), "is not base64"));
  CHECK(says(explain_credential(input(alice, "c2hvcnQ=")), "is base64 of 5 bytes, where HMAC-SHA1 has 20"));
  CHECK(says(explain_credential(input(alice, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")), "base64 of 32 bytes, as SHA-256 makes them"));
  CHECK(says(explain_credential(input(alice, "secret")), "the password is the secret itself (line 1 of secrets)"));
}

// Made with: printf NAME | openssl dgst -HASH -mac HMAC -macopt key:SECRET -binary | base64
TEST_CASE("the mistakes of whoever made the password, each with its sentence") {
  struct {
    const char* password;
    const char* secrets;
    const char* sentence;
  } const cases[] = {
      {"FqS8hlzco/ZS+MXXklJmGwTM4SRJq9fM0O+63b4jGi4=", "secret\n", "made with SHA-256, and not with SHA-1"},
      {"46386555e9fe0e14336037effff7d5d8c0415303", "secret\n", "the HMAC in hexadecimal digits, and not in base64"},
      {"NDYzODY1NTVlOWZlMGUxNDMzNjAzN2VmZmZmN2Q1ZDhjMDQxNTMwMw==", "secret\n", "base64 of the HMAC's hexadecimal digits"},
      {"RjhlVen%2BDhQzYDfv%2F%2FfV2MBBUwM%3D", "secret\n", "the password is URL-encoded"},
      {"RjhlVen DhQzYDfv//fV2MBBUwM=", "secret\n", "a + of the password has become a blank"},
      {"RjhlVen-DhQzYDfv__fV2MBBUwM=", "secret\n", "in base64url"},
      {"RjhlVen+DhQzYDfv//fV2MBBUwM", "secret\n", "the = at the end of the password is missing"},
      {"RjhlVen+DhQzYDfv//fV2MBBUwM=\r", "secret\n", "blanks or a line end round it"},
      {"@newline", "secret\n", "with the secret and the line end behind it (\"secret\\n\")"},
      {"@decoded", "c2VjcmV0LW9mLWNhbGxz\n", "the secret was decoded from base64 before it was used as a key"},
      {"@alone", "secret\n", "made for \"alice\" alone, without the expiry"},
      {"@swapped", "secret\n", "the user name was taken as the key"},
  };
  const std::map<std::string, std::string> made = {{"@newline", "hi3fApNHdj2LKuEIZHoYdNi5CdM="},
                                                   {"@decoded", "W9RxZyzAmzh68ghujiscxHjQYmc="},
                                                   {"@alone", "rFnS5W1weQF74RInF5UVhrfEBmA="},
                                                   {"@swapped", "43HrIO9jEy0ax56XNQUkHscC2Rg="}};
  for (const auto& c : cases) {
    CAPTURE(c.sentence);
    const auto found = made.find(c.password);
    const auto e = explain_credential(input(alice, found == made.end() ? c.password : found->second, c.secrets));
    CHECK_FALSE(e.valid);
    CHECK(says(e, c.sentence));
    CHECK(e.secret == "line 1 of secrets");
    CHECK_FALSE(e.advice.empty());
  }
}

TEST_CASE("two mistakes at once are both named") {
  auto in = input(alice, "46386555e9fe0e14336037effff7d5d8c0415303");
  in.now = later + 60;
  const auto e = explain_credential(in);
  CHECK(says(e, "it expired 1 minute ago"));
  CHECK(says(e, "hexadecimal"));
}

TEST_CASE("a user with a password: right, wrong, of another realm") {
  ExplainInput in;
  in.realm = "turn.example.org";
  in.users = users_of("# staff\nalice:in-wonderland\nbob:0x1cf4a502722a8589aa98e7b7713d2e1f allocations=2\n", "users");
  in.username = "alice";
  in.password = "in-wonderland";
  CHECK(explain_credential(in).valid);
  CHECK(says(explain_credential(in), "valid: the password is the one in line 2 of users"));
  in.password = "In-Wonderland";
  CHECK(says(explain_credential(in), "not valid: line 2 of users has another password"));
  in.password = " in-wonderland\n";
  CHECK(says(explain_credential(in), "blanks or a line end round it"));
  in.password = "in%2Dwonderland";
  CHECK(says(explain_credential(in), "is URL-encoded"));

  in.username = "bob";
  in.password = "builder";
  CHECK(explain_credential(in).valid);
  CHECK(says(explain_credential(in), "the password and the realm \"turn.example.org\" make the key in line 3 of users"));
  in.password = "wrong";
  CHECK(says(explain_credential(in), "is of another password, or of another realm than \"turn.example.org\""));
  in.password = "builder";
  in.realm = "radiotower";
  CHECK(says(explain_credential(in), "is of another password, or of another realm than \"radiotower\""));
  in.other_realms = {"office", "turn.example.org"};
  CHECK(says(explain_credential(in), "was made for the realm \"turn.example.org\", and the relay's realm is \"radiotower\""));
}

TEST_CASE("names that are neither: unknown, and with blanks") {
  ExplainInput in = input("carol", "pass");
  CHECK(says(explain_credential(in), "and no users file was given"));
  in.users = users_of("alice:in-wonderland\n", "users");
  CHECK(says(explain_credential(in), "neither in the users file nor a time-limited one"));
  in.username = " alice ";
  CHECK(says(explain_credential(in), "without them it is the user \"alice\""));
  CHECK(says(explain_credential(input(" 1767225600:alice", good)), "a blank in front of the expiry"));
  CHECK(says(explain_credential(input("1767225600:alice ", good)), "the password was made for the name without the blanks round it"));
}

TEST_CASE("a name in the users file is that user, though it looks like a time-limited one, as for the relay") {
  auto in = input(alice, "word");
  in.users = users_of("1767225600:alice:word\n", "users");  // a colon ends a name there
  CHECK(explain_credential(in).kind == "time-limited");
}

TEST_CASE("durations have their two largest units") {
  CHECK(duration_text(0) == "0 seconds");
  CHECK(duration_text(59) == "59 seconds");
  CHECK(duration_text(60) == "1 minute");
  CHECK(duration_text(3661) == "1 hour 1 minute");
  CHECK(duration_text(86'400 + 59) == "1 day");
  CHECK(duration_text(400 * 86'400) == "1 year 35 days");
}
