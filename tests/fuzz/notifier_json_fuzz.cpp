// What a webhook may hold: any bytes through parse_json, and what is JSON through parse() as the format that the first byte names. The
// header of the event's kind comes from the second byte. clang's libFuzzer, from the top of the repository:
//   clang++ -std=c++20 -g -O1 -fsanitize=fuzzer,address,undefined -DRADIOTOWER_LIBFUZZER -I. -Iinclude tests/fuzz/notifier_json_fuzz.cpp
//     notifier/event.cpp notifier/sources/*.cpp relay/base/encoding.cpp -lcrypto -o notifier-json-fuzz
//   ./notifier-json-fuzz -max_len=65536 CORPUS tests/notifier/samples/gitlab
// Without RADIOTOWER_LIBFUZZER (and -fsanitize=fuzzer) main() replays the files it is given, each as every format and with a number of
// changes from a fixed seed.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>

#include "notifier/sources/fields.h"

using namespace radiotower::notifier;

namespace {

void require(bool claim, const char* what) {
  if (claim) return;
  std::fprintf(stderr, "broken promise: %s\n", what);
  std::abort();
}

constexpr std::string_view kinds[] = {"push", "delete", "pull_request", "pull_request_review", "issues", "issue_comment", "release",
                                      "workflow_run", "action_run_failure", "check_run", "check_suite", "status", "deployment_status",
                                      "code_scanning_alert", "dependabot_alert", "package", "gollum", "ping"};
const GenericTemplate templates{"{{a}}{{b.c}}", "{{#a}}{{.}}{{#a}}{{b}}{{/a}}{{/a}}{{^a}}{{{b}}}{{/a}}", "{{project}}", "{{&branch}}",
                                "{{status}}", "{{url}}", "", "{{commit.id}}", "{{id}}"};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  // A sample begins with "{\n": then the format is GitLab.
  const auto format = static_cast<Format>(data[0] % 9 == '{' % 9 ? 0 : data[0] % 9);
  const std::string_view kind = kinds[data[1] % std::size(kinds)];
  std::string_view body(reinterpret_cast<const char*>(data), size);
  if (data[0] != '{') body.remove_prefix(2);
  std::string why;
  const auto json = parse_json(body, why);
  require(json.has_value() != !why.empty(), "a sentence for what is no JSON, none for what is");
  require(is_utf8(why), "the sentence holds none of the bytes");
  if (!json) return 0;
  const FindHeader header = [&](std::string_view name) {
    return name.ends_with("-event") || name.ends_with("-delivery") ? kind : std::string_view();
  };
  for (const GenericTemplate* generic : {static_cast<const GenericTemplate*>(nullptr), &templates}) {
    const Parsed parsed = parse(Arrival{"fuzz", format, header, *json, body, generic});
    if (const auto* malformed = std::get_if<Malformed>(&parsed)) {
      require(malformed->why != "the body could not be read as this format", "nothing is thrown inside");
    } else if (const auto* event = std::get_if<Event>(&parsed)) {
      require(!event->kind.empty() && event->items.size() <= 50 && event->items.size() <= event->items_total, "an event is whole and bounded");
      for (const std::string* key : {&event->subject, &event->history_key, &event->dedup_key}) require(key->size() <= 300, "keys are bounded");
      const Json written = to_json(*event);
      require(is_utf8(written.dump()), "an event is UTF-8");  // dump() throws at what is none
      require(to_json(event_from_json(written)) == written, "an event survives the queue");
    }
    if (format != Format::generic) break;
  }
  return 0;
}

#ifndef RADIOTOWER_LIBFUZZER
int main(int argc, char** argv) {
  std::mt19937 random(8259);
  const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random()) % n; };
  constexpr std::string_view pieces[] = {"null", "{}", "[]", "-1e308", "\"\\u0000\"", "[[[[", "true",
                                         "\"%zz%ff/job/job/\"", "\"0000\"", "\"refs/tags/\"", ","};
  for (int i = 1; i < argc; ++i) {
    std::ifstream file(argv[i], std::ios::binary);
    const std::string sample((std::istreambuf_iterator<char>(file)), {});
    if (sample.empty()) continue;
    for (std::size_t round = 0; round < 300; ++round) {
      std::string bytes{static_cast<char>(round % 9), static_cast<char>(below(256))};
      bytes += sample;
      for (std::size_t n = round < 9 ? 0 : 1 + below(3); n > 0; --n) {
        // Most changes are of a whole value, or the body would hardly ever be JSON again.
        const auto colon = bytes.find(':', below(bytes.size()));
        const auto end = colon == bytes.npos ? bytes.npos : bytes.find_first_of(",}]", colon);
        if (below(4) != 0 && end != bytes.npos) bytes.replace(colon + 1, end - colon - 1, pieces[below(std::size(pieces))]);
        else bytes[2 + below(bytes.size() - 2)] = static_cast<char>(random());
      }
      LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
    }
  }
  return 0;
}
#endif
