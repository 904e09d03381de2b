// The way in of the notifier, over any bytes: HeadSearch, RequestReader with its chunks, and what they promise. A libFuzzer target with
//   clang++ -std=c++20 -g -O1 -fsanitize=fuzzer,address,undefined -DRADIOTOWER_LIBFUZZER -Iinclude -I. \
//     tests/fuzz/notifier_http_fuzz.cpp notifier/http_message.cpp -o http-fuzz
// Without, main() replays the files it is given, or else mutates good requests from a fixed seed, a bounded number of times.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

#include "notifier/http_message.h"

using namespace radiotower::notifier;

namespace {

constexpr std::size_t longest_body = 3000;

void require(bool claim, const char* what) {
  if (claim) return;
  std::fprintf(stderr, "broken promise: %s\n", what);
  std::abort();
}

struct Outcome {
  std::vector<HttpRequest> requests;
  unsigned refused = 0;
  bool operator==(const Outcome& other) const {
    return refused == other.refused &&
           std::equal(requests.begin(), requests.end(), other.requests.begin(), other.requests.end(), [](const HttpRequest& a, const HttpRequest& b) {
             return a.method == b.method && a.path == b.path && a.query == b.query && a.headers == b.headers && a.body == b.body;
           });
  }
};

/// A connection's reading, with `next()` giving the size of each piece.
template <typename Next>
Outcome read(std::string_view bytes, Next next) {
  Outcome outcome;
  std::string buffer;
  HeadSearch search;
  std::unique_ptr<RequestReader> reader;
  while (true) {
    Refusal refusal;
    bool more = buffer.empty();
    if (!more && !reader) {
      const std::size_t size = search.look(buffer, refusal);
      more = size == 0;
      require(size <= buffer.size() && size <= longest_head, "a head ends inside the buffer");
      require(!refusal || more, "what is refused has no size");
      require(refusal || !more || buffer.size() < longest_head, "a head is bounded");
      if (size > 0) {
        require(buffer.substr(size - 4, 4) == "\r\n\r\n", "a head ends with an empty line");
        reader = std::make_unique<RequestReader>(longest_body);
        refusal = reader->read_head(std::string_view(buffer).substr(0, size));
        buffer.erase(0, size);
        search = {};
      }
    } else if (!more) {
      std::size_t used = 0;
      refusal = reader->read_body(buffer, used);
      require(used <= buffer.size(), "no byte is used twice");
      require(refusal || reader->complete() || used == buffer.size(), "nothing of a body has to be kept");
      require(reader->request().body.size() <= longest_body, "a body is bounded");
      buffer.erase(0, used);
      more = !reader->complete();
    }
    if (refusal) {
      require(refusal.status >= 400 && refusal.status < 600 && *refusal.why, "a refusal has a status and a reason");
      outcome.refused = refusal.status;
      return outcome;
    }
    if (reader && reader->complete()) {
      const bool keep = reader->keep_alive();
      outcome.requests.push_back(std::move(reader->request()));
      reader.reset();
      if (!keep) return outcome;
    } else if (more) {
      if (bytes.empty()) return outcome;
      const std::string_view piece = bytes.substr(0, next());
      buffer += piece;
      bytes.remove_prefix(piece.size());
    }
  }
}

void check(const HttpRequest& request) {
  const auto plain = [](std::string_view text) {
    return std::none_of(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) < ' ' && c != '\t') || c == '\x7f'; });
  };
  require(request.path.starts_with('/') && plain(request.path) && request.path.find_first_of("%# ?\\") == std::string::npos, "a path is plain");
  require(plain(request.query) && request.query.find_first_of("# ") == std::string::npos, "a query is plain");
  require(request.path.size() + request.query.size() <= longest_target && request.headers.size() <= most_fields, "bounds hold");
  int hosts = 0, lengths = 0, encodings = 0;
  for (const auto& [name, value] : request.headers) {
    hosts += name == "host", lengths += name == "content-length", encodings += name == "transfer-encoding";
    require(!name.empty() && plain(name) && name.find_first_of(" \t:ABCXYZ") == std::string::npos, "a name is a token in lower case");
    require(plain(value), "a value holds no line break");
    require(value.empty() || (value.front() != ' ' && value.back() != ' ' && value.front() != '\t' && value.back() != '\t'), "a value has no outer blanks");
    if (name == "content-length") require(std::stoull(value) == request.body.size(), "the body has the length that was announced");
  }
  require(hosts <= 1 && lengths + encodings <= 1, "one Host, one framing");
  require(lengths + encodings > 0 || request.body.empty(), "no body without framing");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const Outcome whole = read(bytes, [] { return std::size_t{16 * 1024}; });
  require(read(bytes, [] { return std::size_t{1}; }) == whole, "in single bytes it is the same");
  std::minstd_rand random(static_cast<unsigned>(size));
  require(read(bytes, [&] { return static_cast<std::size_t>(1 + random() % 40); }) == whole, "in any pieces it is the same");
  for (const HttpRequest& request : whole.requests) check(request);
  return 0;
}

#ifndef RADIOTOWER_LIBFUZZER
int main(int argc, char** argv) {
  const auto run = [](const std::string& text) {
    const std::vector<std::uint8_t> exact(text.begin(), text.end());
    LLVMFuzzerTestOneInput(exact.data(), exact.size());
  };
  for (int i = 1; i < argc; ++i) {
    std::ifstream file(argv[i], std::ios::binary);
    run({std::istreambuf_iterator<char>(file), {}});
  }
  if (argc > 1) return 0;

  static constexpr const char* parts[] = {
      "GET / HTTP/1.1\r\n", "POST /v1/x?a HTTP/1.1\r\n", "HEAD /a HTTP/1.0\r\n", "Host: a\r\n", "Content-Length: 5\r\n", "Content-Length: 0\r\n",
      "Transfer-Encoding: chunked\r\n", "Connection: close\r\n", "Expect: 100-continue\r\n", "X: y\r\n", "\r\n", "hello", "5\r\nhello\r\n", "0\r\n",
      "\n", "\r", " ", ":", ";a=b", "\t", "0", "f", "ffffffff"};
  std::mt19937 random(9112);
  const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random()) % n; };
  for (int round = 0; round < 60'000; ++round) {
    std::string text;
    for (std::size_t n = 1 + below(3); n > 0; --n) {
      text += std::string(below(2) ? "POST /v1/x HTTP/1.1\r\nHost: a\r\n" : "GET / HTTP/1.1\r\nHost: a\r\n");
      switch (below(3)) {
        case 0: text += "Content-Length: 5\r\n\r\nhello"; break;
        case 1: text += "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3\r\nabc\r\n0\r\n\r\n"; break;
        case 2: text += "\r\n"; break;
      }
    }
    for (std::size_t n = below(4); n > 0; --n) {
      const std::size_t at = below(text.size());
      switch (below(4)) {
        case 0: text[at] = static_cast<char>(random()); break;
        case 1: text.erase(at, 1 + below(4)); break;
        default: text.insert(at, parts[below(std::size(parts))]);
      }
      if (text.empty()) text = "G";
    }
    run(text);
  }
  return 0;
}
#endif
