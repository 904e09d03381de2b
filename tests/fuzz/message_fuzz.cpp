// Message::read and all that is asked of a message, over any bytes. Built with clang's -fsanitize=fuzzer and
// -DRADIOTOWER_LIBFUZZER it is a libFuzzer target; without, main() replays the files it is given, or else mutates good
// messages from a fixed seed, a bounded number of times.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

#include "radiotower/stun/crypto.h"
#include "radiotower/stun/message.h"

using namespace radiotower;
using namespace radiotower::stun;

namespace {

void require(bool claim, const char* what) {
  if (claim) return;
  std::fprintf(stderr, "broken promise: %s\n", what);
  std::abort();
}

unsigned sum(Bytes bytes) {  // touches each byte, for the sanitizer
  unsigned total = 0;
  for (const std::uint8_t b : bytes) total += b;
  return total;
}

const Key key = long_term_key(PasswordAlgorithm::md5, "alice", "example.org", "secret");

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const Bytes input(data, size);
  const auto m = Message::read(input);
  if (!m) return 0;
  require(size >= header_size && size <= 0xFFFF && load_be16(data + 2) + header_size == size, "a message is the whole datagram");
  require(m->unknown_required().size() <= Message::max_unknown, "unknown types are bounded");
  unsigned total = 0;
  for (unsigned type = 0; type <= 0xFFFF; ++type) {
    if (type == 0x0030) type = 0x8000;  // the types with a name are all in two short ranges
    if (type == 0x8030) break;
    bool seen = false;
    m->for_each(static_cast<Attribute>(type), [&](Bytes value) {
      require(value.data() >= data + header_size && value.data() + value.size() <= data + size, "a value lies inside");
      if (!seen) require(m->find(static_cast<Attribute>(type))->data() == value.data(), "the first decides");
      seen = true;
      total += sum(value);
      if (const auto a = read_xor_address(value, m->transaction_id())) {
        // XOR twice is the identity; an IPv4 address in IPv6 dress is written shorter than it was read.
        std::uint8_t buffer[64];
        Writer w(buffer, Class::success, Method::binding, m->transaction_id());
        w.add_xor_address(Attribute::xor_mapped_address, a->address);
        const auto again = Message::read(w.bytes());
        require(again && read_xor_address(*again->find(Attribute::xor_mapped_address), m->transaction_id())->address == a->address,
                "an address survives a round trip");
      }
      if (const auto e = read_error_code(value)) require(e->code >= 300 && e->code < 700, "an error code has its class");
    });
    require(seen == m->has(static_cast<Attribute>(type)), "find and for_each agree");
  }
  require(!m->integrity_matches(key.bytes()) || m->has_integrity(), "no integrity without the attribute");
  require(!m->integrity_sha256_matches(key.bytes()) || m->has_integrity_sha256(), "no SHA-256 integrity without the attribute");
  return static_cast<int>(total & 0);
}

#ifndef RADIOTOWER_LIBFUZZER
int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    std::ifstream file(argv[i], std::ios::binary);
    const std::vector<std::uint8_t> bytes((std::istreambuf_iterator<char>(file)), {});
    LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
  }
  if (argc > 1) return 0;

  std::mt19937 random(8489);
  const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random()) % n; };
  for (int round = 0; round < 40'000; ++round) {
    std::vector<std::uint8_t> bytes(2048);
    TransactionId id;
    for (auto& b : id) b = static_cast<std::uint8_t>(random());
    Writer w(bytes, static_cast<Class>(below(4)), static_cast<Method>(below(0x0D)), id);
    for (std::size_t n = below(12); n > 0; --n) {
      const auto type = static_cast<Attribute>(below(2) ? below(0x30) : 0x8000 + below(0x30));
      std::vector<std::uint8_t> value(below(3) ? below(24) : below(2) ? 8 : 20);
      for (auto& b : value) b = static_cast<std::uint8_t>(random());
      if (value.size() > 1 && below(2)) value[1] = static_cast<std::uint8_t>(1 + below(2));
      w.add(type, value);
    }
    if (below(2)) w.add_integrity(key.bytes());
    if (below(4) == 0) w.add_integrity_sha256(key.bytes());
    if (below(2)) w.add_fingerprint();
    bytes.resize(w.bytes().size());
    for (std::size_t n = below(4); n > 0; --n) {
      switch (below(4)) {
        case 0: bytes[below(bytes.size())] ^= static_cast<std::uint8_t>(1 << below(8)); break;
        case 1: bytes[below(bytes.size())] = static_cast<std::uint8_t>(random()); break;
        case 2: store_be16(bytes.data() + below(bytes.size() - 1), static_cast<std::uint16_t>(random())); break;
        case 3:
          bytes.resize(header_size + below(bytes.size() - header_size + 5));
          if (below(2)) store_be16(bytes.data() + 2, static_cast<std::uint16_t>(bytes.size() - header_size));
          break;
      }
    }
    const std::vector<std::uint8_t> exact(bytes);
    LLVMFuzzerTestOneInput(exact.data(), exact.size());
  }
  return 0;
}
#endif
