// `radiotower sessions` and its like: what is printed of what a relay says.
#include <doctest/doctest.h>

#include <algorithm>

#include "control/control_text.h"
#include "control/sessions_view.h"

using namespace radiotower::cli;

TEST_CASE("names from the network do not steer a terminal") {
  CHECK(printable("alice") == "alice");
  CHECK(printable("älice €uro 😀") == "älice €uro 😀");
  CHECK(printable("a\x1b[2Jb\x07\r\n\t\x7f") == "a?[2Jb?????");
  CHECK(printable("a\xC2\x9B" "31mb") == "a?31mb");                // CSI as one character of C1
  CHECK(printable("a\xE2\x80\xAE" "b") == "a?b");                   // U+202E turns the direction of writing
  CHECK(printable("\xC0\x9B\xED\xA0\x80\xF8\xE2\x82") == "????????");  // overlong, a surrogate, no UTF-8, cut off: a '?' a byte
  CHECK(printable(std::string("a\0b", 3)) == "a?b");
}

TEST_CASE("text is cut to its columns, not in the midst of a character") {
  CHECK(clipped("alice", 5) == "alice");
  CHECK(clipped("alice", 4) == "ali~");
  CHECK(clipped("äöü", 2) == "ä~");
  CHECK(clipped("alice", 1) == "~");
  CHECK(clipped("alice", 0).empty());
  CHECK(columns_of("äöü") == 3);
}

TEST_CASE("durations are written and read") {
  CHECK(duration_text(0) == "0s");
  CHECK(duration_text(59) == "59s");
  CHECK(duration_text(723) == "12m03s");
  CHECK(duration_text(11'220) == "3h07m");
  CHECK(duration_text(187'200) == "2d04h");
  CHECK(parse_duration("90s") == 90);
  CHECK(parse_duration("90") == 90);
  CHECK(parse_duration("30m") == 1800);
  CHECK(parse_duration("1h") == 3600);
  CHECK(parse_duration("1h30m") == 5400);
  CHECK(parse_duration("2d") == 172'800);
  CHECK(parse_duration("30d") == 2'592'000);
  for (const char* wrong : {"", "s", "1h30", "1m1h", "1h1h", "-1", "1.5h", "31d", "99999999999999999999s", "1 h", "1w"}) CHECK_MESSAGE(!parse_duration(wrong), wrong);
}

TEST_CASE("bytes are written in four or five characters") {
  CHECK(bytes_text(0) == "0");
  CHECK(bytes_text(999) == "999");
  CHECK(bytes_text(1000) == "1.0k");
  CHECK(bytes_text(1'234'567) == "1.2M");
  CHECK(bytes_text(999'960) == "1.0M");
  CHECK(bytes_text(1e12) == "1.0T");
}

TEST_CASE("the table of sessions fits any width, and keeps what matters most") {
  std::vector<Json> sessions;
  for (int i = 0; i < 3; ++i)
    sessions.push_back({{"session", "0-" + std::to_string(i) + "-1"}, {"user", "1795684439:somebody-with-a-long-name"}, {"client", "[2001:db8:1234:5678::9abc:def0]:50124"}, {"transport", "udp"},
                        {"relayed", "192.168.0.105:49152"}, {"relayed2", "[2001:db8::105]:49153"}, {"relay_transport", "udp"}, {"age_seconds", 200u + i}, {"channels", 1u},
                        {"bytes_to_peer", 1'234'567u * i}, {"bytes_to_client", 0u}});
  Rates rates;
  const auto start = std::chrono::steady_clock::now();
  rates.look(sessions, start);
  CHECK(rates.of(sessions[1]) < 0);
  sessions[1]["bytes_to_client"] = 5000u;
  rates.look(sessions, start + std::chrono::seconds(2));
  CHECK(rates.of(sessions[1]) == doctest::Approx(2500));
  CHECK(rates.of(sessions[0]) == doctest::Approx(0));
  for (const std::size_t width : {1u, 8u, 20u, 40u, 60u, 80u, 100u, 200u}) {
    const auto lines = sessions_table(sessions, &rates, width);
    REQUIRE(lines.size() == 4);
    for (const auto& line : lines) CHECK(columns_of(line) <= width);
  }
  const auto narrow = sessions_table(sessions, &rates, 40);
  CHECK(narrow[0].find("USER") != std::string::npos);
  CHECK(narrow[2].find("2.5k/s") != std::string::npos);
  const auto wide = sessions_table(sessions, nullptr, 0);
  CHECK(wide[1].find("192.168.0.105:49152,[2001:db8::105]:49153") != std::string::npos);
  CHECK(wide[0].find("RATE") == std::string::npos);
  CHECK(sessions_table({}, nullptr, 80).size() == 1);
}

TEST_CASE("on a terminal of 80 columns the table shows IPv4 addresses whole, and who it is rather than until when") {
  const Json session = {{"session", "0-17-1"}, {"user", "1795684439:alice"}, {"client", "192.168.0.123:50124"}, {"transport", "udp"}, {"relayed", "192.168.0.105:49152"},
                        {"relay_transport", "udp"}, {"age_seconds", 200u}, {"channels", 1u}, {"bytes_to_peer", 1'234'567u}, {"bytes_to_client", 99'234'567u}};
  Rates rates;
  rates.look({session}, std::chrono::steady_clock::now());
  for (const Rates* live : {static_cast<const Rates*>(nullptr), static_cast<const Rates*>(&rates)}) {
    CAPTURE(live != nullptr);
    const auto lines = sessions_table({session}, live, 80);
    CHECK(lines[1].find("192.168.0.123:50124") != std::string::npos);
    CHECK(lines[1].find("alice") != std::string::npos);
    CHECK(columns_of(lines[1]) <= 80);
  }
  // What is taken away makes room for what was cut before it.
  const auto lines = sessions_table({session}, nullptr, 85);
  CHECK(lines[0].find("CHANNELS") == std::string::npos);
  CHECK(lines[1].find("1795684439:alice") != std::string::npos);
}

TEST_CASE("a relay that says something else than it should is no reason to fall over") {
  const std::vector<Json> sessions = {Json::object(), {{"user", 7}, {"age_seconds", "x"}, {"bytes_to_peer", -1}, {"relayed2", nullptr}}};
  CHECK(sessions_table(sessions, nullptr, 80).size() == 3);
}
