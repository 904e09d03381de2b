// The readers of what stands at the front of a stream: the PROXY protocol's header and the frames behind it, over any bytes. Built with clang's
// -fsanitize=fuzzer and -DRADIOTOWER_LIBFUZZER it is a libFuzzer target; without, main() replays the files it is given, or else mutates good
// streams from a fixed seed, a bounded number of times.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "radiotower/net/proxy_protocol.h"
#include "radiotower/stun/framing.h"

using namespace radiotower;

namespace {

void require(bool claim, const char* what) {
  if (claim) return;
  std::fprintf(stderr, "broken promise: %s\n", what);
  std::abort();
}

net::ProxyRead read(Bytes bytes, std::size_t& length) {
  const std::vector<std::uint8_t> exact(bytes.begin(), bytes.end());
  net::ProxyHeader header;
  return net::read_proxy_header(exact, header, length);
}

void proxy(Bytes input) {
  using net::ProxyRead;
  std::size_t length = 0;
  const ProxyRead whole = read(input, length);
  if (whole == ProxyRead::incomplete) require(input.size() < net::longest_proxy_header, "no header is waited for beyond its longest");
  if (whole == ProxyRead::complete) {
    require(length > 0 && length <= input.size() && length <= net::longest_proxy_header, "a header lies inside what was given");
    std::size_t same = 0;
    require(read(input.first(length), same) == ProxyRead::complete && same == length, "what comes behind a header does not matter");
  }
  // A verdict is final: incomplete up to some size, from there on what the whole is.
  const std::size_t end = whole == ProxyRead::complete ? length : input.size();
  bool decided = false;
  for (std::size_t size = 0; size < end; size += 1 + size / 64) {
    std::size_t ignored = 0;
    const ProxyRead part = read(input.first(size), ignored);
    require(part != ProxyRead::complete, "a cut header is not whole");
    require(!decided || part == ProxyRead::wrong, "what is wrong stays wrong");
    decided = part == ProxyRead::wrong;
  }
  require(!decided || whole == ProxyRead::wrong, "no further byte makes wrong bytes a header");
}

void frames(Bytes input, bool old_channels) {
  using stun::FrameKind;
  for (std::size_t at = 0; at < input.size();) {
    const std::vector<std::uint8_t> left(input.begin() + static_cast<std::ptrdiff_t>(at), input.end());
    const stun::Frame frame = stun::next_frame(left, old_channels);
    require(frame.size <= stun::longest_frame && frame.size % 4 == 0, "a frame has a bound, and ends at a multiple of four");
    if (at == 0 && stun::first_frame(left).kind == FrameKind::stun) require(frame.kind == FrameKind::stun, "a connection begins with a message that is one");
    if (frame.kind == FrameKind::wrong) return;
    if (frame.kind == FrameKind::incomplete) {
      require(frame.size == 0 ? left.size() < 4 : frame.size > left.size(), "what is incomplete needs more");
      return;
    }
    require(frame.size >= (frame.kind == FrameKind::stun ? 20U : 4U) && frame.size <= left.size(), "a whole frame is there, and there is progress");
    for (const std::size_t cut : {frame.size - 1, frame.size / 2, std::size_t{3}}) {
      const std::vector<std::uint8_t> part(left.begin(), left.begin() + static_cast<std::ptrdiff_t>(cut));
      require(stun::next_frame(part, old_channels).kind == FrameKind::incomplete, "a cut frame is incomplete");
    }
    const std::size_t train = stun::train_length(left, frame);
    require(train >= frame.size && train <= left.size() && train % frame.size == 0, "a train is whole frames of one size");
    for (std::size_t car = frame.size; car < train; car += frame.size)
      require(frame.kind == FrameKind::channel_data && load_be32(left.data() + car) == load_be32(left.data()), "of one channel and length");
    at += train;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const Bytes input(data, size);
  proxy(input);
  frames(input, false);
  frames(input, true);
  std::size_t length = 0;
  if (read(input, length) == net::ProxyRead::complete) frames(input.subspan(length), false);
  return 0;
}

#ifndef RADIOTOWER_LIBFUZZER
int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    std::ifstream file(argv[i], std::ios::binary);
    const std::vector<std::uint8_t> bytes((std::istreambuf_iterator<char>(file)), {});
    LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
  }
  if (argc > 1) return 0;

  std::mt19937 random(8656);
  const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random()) % n; };
  using namespace std::string_literals;
  const std::string headers[] = {""s,
                                 "PROXY TCP4 192.0.2.1 198.51.100.2 50000 3478\r\n"s,
                                 "PROXY TCP6 2001:db8::1 ::ffff:192.0.2.1 50000 3478\r\n"s,
                                 "PROXY UNKNOWN whatever\r\n"s,
                                 "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0C\xC0\0\x02\x01\xC6\x33\x64\x02\xC3\x50\x0D\x96"s,
                                 "\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x27"s + std::string(39, 'x'),
                                 "\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"s};
  for (int round = 0; round < 40'000; ++round) {
    const std::string& header = headers[below(std::size(headers))];
    std::vector<std::uint8_t> bytes(header.begin(), header.end());
    for (std::size_t n = below(8); n > 0; --n) {
      const std::size_t length = below(4) ? below(40) : 0, at = bytes.size();
      if (below(2)) {
        bytes.resize(at + 20 + length / 4 * 4, static_cast<std::uint8_t>(random()));
        store_be32(bytes.data() + at, static_cast<std::uint32_t>(below(0x4000) << 16 | length / 4 * 4));
        store_be32(bytes.data() + at + 4, 0x2112A442);
      } else {
        bytes.resize(at + 4 + (length + 3) / 4 * 4, static_cast<std::uint8_t>(random()));
        store_be32(bytes.data() + at, static_cast<std::uint32_t>((0x4000 + below(2)) << 16 | length));
        if (below(2)) {
          const std::vector<std::uint8_t> twin(bytes.begin() + static_cast<std::ptrdiff_t>(at), bytes.end());
          bytes.insert(bytes.end(), twin.begin(), twin.end());
        }
      }
    }
    for (std::size_t n = below(4); n > 0 && !bytes.empty(); --n) {
      const std::size_t at = below(std::min<std::size_t>(bytes.size(), below(2) ? 64 : bytes.size()));
      switch (below(5)) {
        case 0: bytes[at] ^= static_cast<std::uint8_t>(1 << below(8)); break;
        case 1: bytes[at] = static_cast<std::uint8_t>(random()); break;
        case 2: bytes.resize(at); break;
        case 3: bytes.erase(bytes.begin() + static_cast<std::ptrdiff_t>(at)); break;
        case 4: bytes.insert(bytes.begin() + static_cast<std::ptrdiff_t>(at), static_cast<std::uint8_t>(" 0:.\r\n9\xFF"[below(8)])); break;
      }
    }
    const std::vector<std::uint8_t> exact(bytes);
    LLVMFuzzerTestOneInput(exact.data(), exact.size());
  }
  return 0;
}
#endif
