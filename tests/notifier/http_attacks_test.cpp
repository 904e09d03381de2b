#include <fstream>
#include <sstream>

#include "http_harness.h"
#include "notifier/http_message.h"

namespace radiotower::notifier {

namespace {

/// Escapes and repetitions of http-attacks.tsv.
std::string unescaped(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 1 < text.size()) {
      switch (text[++i]) {
        case 'r': out += '\r'; break;
        case 'n': out += '\n'; break;
        case 't': out += '\t'; break;
        case 'x':
          out += static_cast<char>(std::stoi(std::string(text.substr(i + 1, 2)), nullptr, 16));
          i += 2;
          break;
        default: out += text[i];
      }
      continue;
    }
    const std::size_t star = text[i] == '{' ? text.find_first_not_of("0123456789", i + 1) : std::string_view::npos;
    if (star == std::string_view::npos || text[star] != '*') {
      out += text[i];
      continue;
    }
    std::size_t end = star;
    for (int depth = 1; depth > 0;) {
      ++end;
      depth += text[end] == '{' ? 1 : text[end] == '}' ? -1 : 0;
    }
    const std::string once = unescaped(text.substr(star + 1, end - star - 1));
    for (int n = std::stoi(std::string(text.substr(i + 1))); n > 0; --n) out += once;
    i = end;
  }
  return out;
}

struct Attack {
  std::string name, bytes, statuses;
  std::size_t calls = 0;
};

std::vector<Attack> attacks() {
  std::vector<Attack> all;
  std::ifstream file(NOTIFIER_TESTS "/http-attacks.tsv");
  for (std::string line; std::getline(file, line);) {
    if (line.empty() || line[0] == '#' || line.starts_with("name\t")) continue;
    std::vector<std::string> fields;
    std::istringstream columns(line);
    for (std::string field; std::getline(columns, field, '\t');) fields.push_back(field);
    REQUIRE(fields.size() == 4);
    all.push_back({fields[0], unescaped(fields[1]), unescaped(fields[2]), std::stoul(fields[3])});
  }
  REQUIRE(all.size() >= 140);
  return all;
}

/// What a connection would do with `bytes` that come in pieces: a 200 for each request, then a refusal, or nothing.
std::string replay(std::string_view bytes, std::size_t piece) {
  std::string statuses, buffer;
  HeadSearch search;
  std::unique_ptr<RequestReader> reader;
  const auto refuse = [&](const Refusal& refusal) { return statuses + std::to_string(refusal.status); };
  while (true) {
    Refusal refusal;
    bool stuck = buffer.empty();
    if (!stuck && !reader) {
      const std::size_t size = search.look(buffer, refusal);
      if (refusal) return refuse(refusal);
      stuck = size == 0;
      if (!stuck) {
        reader = std::make_unique<RequestReader>(1 << 20);
        refusal = reader->read_head(std::string_view(buffer).substr(0, size));
        buffer.erase(0, size);
        search = {};
      }
    } else if (!stuck) {
      std::size_t used = 0;
      refusal = reader->read_body(buffer, used);
      buffer.erase(0, used);
      stuck = !reader->complete();
    }
    if (refusal) return refuse(refusal);
    if (reader && reader->complete()) {
      statuses += "200 ";
      if (!reader->keep_alive()) return statuses;
      reader.reset();
      continue;
    }
    if (!stuck) continue;
    if (bytes.empty()) return statuses;
    buffer.append(bytes.substr(0, piece));
    bytes.remove_prefix(std::min(piece, bytes.size()));
  }
}

std::string words(const std::string& text) {  // one blank between, none outside
  std::string out;
  std::istringstream in(text);
  for (std::string word; in >> word;) out += (out.empty() ? "" : " ") + word;
  return out;
}

}  // namespace

TEST_CASE("http-attacks.tsv: each is answered as it says, and no request behind it is seen") {
  House house;
  for (const Attack& attack : attacks()) {
    CAPTURE(attack.name);
    const std::size_t before = house.calls();
    Client client(house.server);
    client.send(attack.bytes);
    client.end_sending();
    std::istringstream expected(attack.statuses);
    for (unsigned status = 0; expected >> status;) CHECK(client.status() == status);
    CHECK(client.closed());
    CHECK(house.calls() - before == attack.calls);
  }
}

TEST_CASE("http-attacks.tsv: in whatever pieces it comes, the reader says the same") {
  for (const Attack& attack : attacks()) {
    CAPTURE(attack.name);
    const std::string expected = attack.statuses == "close" ? "" : words(attack.statuses);
    for (const std::size_t piece : {1, 2, 3, 7, 100, 16'384}) {
      CAPTURE(piece);
      if (attack.bytes.size() / piece < 50'000) CHECK(words(replay(attack.bytes, piece)) == expected);
    }
  }
}

}  // namespace radiotower::notifier
