#include <doctest/doctest.h>

#include "credentials.h"
#include "json.h"

using namespace radiotower::cli;

TEST_CASE("a REST credential is what Mattermost Calls makes of the same secret, name and expiry") {
  const auto alice = make_rest_credential("secret", "alice", 1767225600);
  CHECK(alice.username == "1767225600:alice");
  CHECK(alice.password == "RjhlVen+DhQzYDfv//fV2MBBUwM=");
  const auto jane = make_rest_credential("secret", "jane.doe-2_x", 1767225600);
  CHECK(jane.username == "1767225600:jane.doe-2_x");
  CHECK(jane.password == "T3cOoCAgBFtPRoOGXZe4pNlNUrA=");
}

TEST_CASE("only a number in front of the colon is an expiry") {
  CHECK(rest_expiry("1767225600:alice") == 1767225600);
  CHECK(rest_expiry("0:") == 0);
  for (const char* name : {"alice", "12x:alice", ":alice", "", "-1:alice", " 1:alice", "99999999999999999999:alice"}) CHECK_FALSE(rest_expiry(name));
}

TEST_CASE("a user name has less than 509 bytes and no control characters (RFC 8489, 14.3)") {
  std::string why;
  CHECK(username_is_sound(std::string(508, 'a'), why));
  CHECK_FALSE(username_is_sound(std::string(509, 'a'), why));
  why.clear();
  CHECK_FALSE(username_is_sound("", why));
  why.clear();
  CHECK_FALSE(username_is_sound("a\nb", why));
}

TEST_CASE("a browser gets one entry for stun: and one for turn: with its credential") {
  CHECK(ice_servers_json({"tower.lan", 3478, false}, {"turn:tower.lan:3478?transport=udp"}, {"1:alice", "pass"}) ==
        R"([{"urls": ["stun:tower.lan:3478"]}, {"urls": ["turn:tower.lan:3478?transport=udp"], "username": "1:alice", "credential": "pass"}])");
}

TEST_CASE("Calls gets entries of one scheme each, and no user name, so that it makes its own") {
  CHECK(calls_ice_servers_json({"2001:db8::1", 3479, true}, turn_urls({"2001:db8::1", 3479, true}, 443, {radiotower::net::Transport::udp})) ==
        R"([{"urls": ["stun:[2001:db8::1]:3479"]}, {"urls": ["turn:[2001:db8::1]:3479?transport=udp"]}])");
}

TEST_CASE("the first secret of a file is its first line that says something, as the relay reads it") {
  CHECK(first_secret("one\ntwo\n") == "one");
  CHECK(first_secret("# new in May\r\n\r\n  three four\t\r\n") == "three four");
  CHECK(first_secret("last line without an end") == "last line without an end");
  CHECK_FALSE(first_secret(""));
  CHECK_FALSE(first_secret("\n \n# nothing\n"));
}

TEST_CASE("a secret of an example is found by its word, however it is written; others have none") {
  CHECK(placeholder_of("north") == "north");
  CHECK(placeholder_of("North") == "north");
  CHECK(placeholder_of("CHANGE_ME") == "change_me");
  CHECK(placeholder_of("please-ChangeMe-later") == "changeme");
  CHECK(placeholder_of("replace-this-secret") == "replace-this");
  CHECK(placeholder_of("static-auth-secret") == "static-auth-secret");
  for (const char* good : {"", "kq3vS0u8hJ6Yx2b1Wm9RtZ4cE7pLfDnA", "northern-lights-over-oslo", "a-long-enough-secret"}) CHECK_MESSAGE(placeholder_of(good).empty(), good);
}

TEST_CASE("a missing file is an error with its name") {
  std::string why, warning;
  CHECK_FALSE(read_secret("/nowhere/secrets", why, warning));
  CHECK(why.find("/nowhere/secrets") != std::string::npos);
}

TEST_CASE("a JSON string is valid whatever bytes it is made of (RFC 8259, 7)") {
  CHECK(json_string("a\"b\\c\n\x7f") == R"("a\"b\\c\u000a\u007f")");
  CHECK(json_string("J\xC3\xBCrgen \xE2\x82\xAC \xF0\x9F\x93\xA1") == "\"J\xC3\xBCrgen \xE2\x82\xAC \xF0\x9F\x93\xA1\"");
  CHECK(json_string("\xC3") == R"("\ufffd")");              // cut off
  CHECK(json_string("\xC0\x80") == R"("\ufffd\ufffd")");    // overlong
  CHECK(json_string("\xED\xA0\x80") == R"("\ufffd\ufffd\ufffd")");  // a surrogate
}

TEST_CASE("the URLs of the transports are those that browsers take") {
  using radiotower::net::Transport;
  const auto urls = turn_urls({"tower.lan", 3478, false}, 443, {Transport::udp, Transport::tcp, Transport::tls, Transport::dtls});
  CHECK(urls == std::vector<std::string>{"turn:tower.lan:3478?transport=udp", "turn:tower.lan:3478?transport=tcp", "turns:tower.lan:443?transport=tcp",
                                         "turns:tower.lan:443?transport=udp"});
}
