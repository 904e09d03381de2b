// Where messages end on a stream: every cut, and what no further byte makes a message.
#include <doctest/doctest.h>

#include <algorithm>
#include <random>
#include <string>

#include "radiotower/stun/framing.h"
#include "sample.h"

namespace radiotower::stun {

namespace {

using namespace std::string_literals;

Datagram stun_message(std::size_t length, std::uint16_t type = 0x0003) {
  Datagram out(header_size + length, 0xAB);
  store_be16(out.data(), type);
  store_be16(out.data() + 2, static_cast<std::uint16_t>(length));
  store_be32(out.data() + 4, magic_cookie);
  return out;
}

Datagram channel_data(std::uint16_t channel, std::size_t length, std::size_t pad) {
  Datagram out(channel_header_size + length + pad, 0xCD);
  store_be16(out.data(), channel);
  store_be16(out.data() + 2, static_cast<std::uint16_t>(length));
  return out;
}
Datagram channel_data(std::uint16_t channel, std::size_t length) { return channel_data(channel, length, (4 - length % 4) % 4); }

/// Of bytes that end where they end, for the sanitizer.
Frame next(Bytes bytes, bool old_channels = false) {
  const Datagram exact(bytes.begin(), bytes.end());
  return next_frame(exact, old_channels);
}
Frame next(const std::string& bytes, bool old_channels = false) { return next(as_bytes(bytes), old_channels); }
Frame first(const std::string& bytes) { return first_frame(as_bytes(bytes)); }

void append(Datagram& to, const Datagram& more) { to.insert(to.end(), more.begin(), more.end()); }

}  // namespace

TEST_CASE("a frame is whole with its last byte, not before (RFC 8489, 6.2.2; RFC 8656, 12.5) [T01] [T03]") {
  const std::pair<Datagram, FrameKind> frames[] = {
      {stun_message(0), FrameKind::stun},
      {stun_message(8), FrameKind::stun},
      {stun_message(1000, 0x03FF), FrameKind::stun},
      {channel_data(0x4000, 0), FrameKind::channel_data},
      {channel_data(0x4000, 1), FrameKind::channel_data},
      {channel_data(0x4FFF, 2), FrameKind::channel_data},
      {channel_data(0x4001, 3), FrameKind::channel_data},
      {channel_data(0x4001, 4), FrameKind::channel_data},
      {channel_data(0x4001, 1201), FrameKind::channel_data}};
  for (const auto& [bytes, kind] : frames) {
    CAPTURE(bytes.size());
    for (std::size_t size = 0; size < bytes.size(); ++size) {
      CAPTURE(size);
      const Frame frame = next(Bytes(bytes).first(size));
      REQUIRE(frame.kind == FrameKind::incomplete);
      REQUIRE(frame.size == (size < 4 ? 0 : bytes.size()));
    }
    for (const Datagram& behind : {Datagram{}, Datagram{0xFF}, stun_message(4), Datagram(70'000, 0x16)}) {
      Datagram all = bytes;
      append(all, behind);
      const Frame frame = next(all);
      CHECK(frame.kind == kind);
      CHECK(frame.size == bytes.size());
    }
  }
}

TEST_CASE("the longest frames have a bound [T07] [T08]") {
  const Datagram stun = stun_message(65'532), data = channel_data(0x4000, 65'535);
  CHECK(next(Bytes(stun).first(20)).size == 65'552);
  CHECK(next(stun).kind == FrameKind::stun);
  CHECK(stun.size() == longest_frame);
  CHECK(next(Bytes(data).first(4)).size == 65'540);
  CHECK(next(data).kind == FrameKind::channel_data);
  CHECK(data.size() < longest_frame);
}

TEST_CASE("what no message begins with is wrong at once [T04] [T16]") {
  for (const std::string& bytes : {"SSH-2.0"s, "\x16\x03\x01\x02"s, "PROXY TCP4"s, "PRI * HTTP"s,
                                   "\x80\0\0\0"s, "\xFF"s, "\x04\0\0\0"s, "\x3F\0\0\0"s, "\x50\0\0\0"s, " "s}) {
    CAPTURE(bytes);
    for (std::size_t size = 1; size <= bytes.size(); ++size) {
      CHECK(next(bytes.substr(0, size)).kind == FrameKind::wrong);
      CHECK(first(bytes.substr(0, size)).kind == FrameKind::wrong);
    }
  }
  // "GET " could be a channel. A connection has none when it begins.
  for (const std::string& bytes : {"GET / HTTP/1.1"s, "HEAD /"s, "CONNECT x"s, "OPTIONS *"s, "DELETE /"s, "\x40\0\0\0"s, "\x4F\xFF\0\0"s}) {
    CAPTURE(bytes);
    for (std::size_t size = 1; size <= bytes.size(); ++size) CHECK(first(bytes.substr(0, size)).kind == FrameKind::wrong);
  }
  CHECK(first(""s).kind == FrameKind::incomplete);
  CHECK(first("\0"s).kind == FrameKind::incomplete);
  const Datagram good = stun_message(8);
  CHECK(first_frame(good).kind == FrameKind::stun);
  CHECK(first_frame(Bytes(good).first(27)).kind == FrameKind::incomplete);
}

TEST_CASE("channels above 0x4FFF are channels for old clients alone (RFC 5766, 11)") {
  for (const std::uint16_t channel : std::initializer_list<std::uint16_t>{0x5000, 0x7FFE, 0x7FFF}) {
    const Datagram data = channel_data(channel, 5);
    CHECK(next(data).kind == FrameKind::wrong);
    CHECK(next(data, true).kind == FrameKind::channel_data);
    CHECK(next(Bytes(data).first(1), true).kind == FrameKind::incomplete);
  }
  CHECK(next(channel_data(0x8000, 5), true).kind == FrameKind::wrong);
  CHECK(next(channel_data(0x3FFF, 5), true).kind == FrameKind::wrong);
}

TEST_CASE("a bad cookie is wrong with its first bad byte [T05]") {
  for (std::size_t bad = 4; bad < 8; ++bad) {
    for (unsigned bit = 0; bit < 8; ++bit) {
      Datagram message = stun_message(8);
      message[bad] ^= static_cast<std::uint8_t>(1 << bit);
      CHECK(next(Bytes(message).first(bad)).kind == FrameKind::incomplete);
      for (std::size_t size = bad + 1; size <= message.size(); ++size) REQUIRE(next(Bytes(message).first(size)).kind == FrameKind::wrong);
    }
  }
}

TEST_CASE("a length that is no multiple of four is wrong, with STUN alone (RFC 8489, 5) [T06]") {
  for (unsigned length = 0; length < 70; ++length) {
    Datagram front = stun_message(0);
    store_be16(front.data() + 2, static_cast<std::uint16_t>(length));
    CHECK((next(Bytes(front).first(4)).kind == FrameKind::wrong) == (length % 4 != 0));
    CHECK((next(front).kind == FrameKind::wrong) == (length % 4 != 0));
    CHECK(next(channel_data(0x4000, length)).kind == FrameKind::channel_data);
  }
  Datagram front = stun_message(0);
  for (const std::uint16_t length : std::initializer_list<std::uint16_t>{65'533, 65'534, 65'535}) {
    store_be16(front.data() + 2, length);
    CHECK(next(front).kind == FrameKind::wrong);
  }
}

TEST_CASE("ChannelData without its padding makes the next header wrong (RFC 8656, 12.5) [T09]") {
  for (const std::size_t length : {1, 2, 3}) {
    Datagram stream = channel_data(0x4000, length, 0);
    append(stream, stun_message(8));
    append(stream, stun_message(8));
    const Frame data = next(stream);
    REQUIRE(data.kind == FrameKind::channel_data);
    REQUIRE(data.size == 8);
    // Bytes of the message were taken for padding. What follows is garbage now: said to be, or a frame inside the bytes that came.
    Bytes left = Bytes(stream).subspan(data.size);
    Frame frame = next(left);
    for (int frames = 0; frames < 8 && frame.kind == FrameKind::stun; ++frames) frame = next(left = left.subspan(frame.size));
    CHECK(frame.kind == FrameKind::wrong);
  }
}

TEST_CASE("a train is whole ChannelData of one channel and one length") {
  Datagram stream;
  for (int i = 0; i < 5; ++i) append(stream, channel_data(0x4000, 101));
  const Frame head = next(stream);
  REQUIRE(head.size == 108);
  for (std::size_t size = head.size; size <= stream.size(); ++size) REQUIRE(train_length(Bytes(stream).first(size), head) == size / 108 * 108);
  for (const Datagram& other : {channel_data(0x4001, 101), channel_data(0x4000, 102), channel_data(0x4000, 100), stun_message(88), Datagram(108, 0xFF)}) {
    Datagram all = stream;
    append(all, other);
    append(all, channel_data(0x4000, 101));
    CHECK(train_length(all, head) == stream.size());
  }
  Datagram empty;
  for (int i = 0; i < 3; ++i) append(empty, channel_data(0x4000, 0));
  CHECK(train_length(empty, next(empty)) == 12);
  Datagram messages = stun_message(8);
  append(messages, stun_message(8));
  CHECK(train_length(messages, next(messages)) == 28);
}

TEST_CASE("a stream that is cut anywhere gives the frames that it was made of [T01] [T02]") {
  std::mt19937 random(8656);
  const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random()) % n; };
  for (int round = 0; round < 50; ++round) {
    std::vector<Datagram> frames;
    Datagram stream;
    for (int i = 0; i < 40; ++i) {
      frames.push_back(below(2) ? stun_message(4 * below(60)) : channel_data(static_cast<std::uint16_t>(0x4000 + below(0x1000)), below(300)));
      append(stream, frames.back());
    }
    Datagram buffer;
    std::size_t found = 0;
    for (std::size_t at = 0; at < stream.size();) {
      const std::size_t piece = std::min(stream.size() - at, round == 0 ? 1 : 1 + below(500));
      buffer.insert(buffer.end(), stream.begin() + static_cast<std::ptrdiff_t>(at), stream.begin() + static_cast<std::ptrdiff_t>(at + piece));
      at += piece;
      for (Frame frame = next(buffer); frame.kind != FrameKind::incomplete; frame = next(buffer)) {
        REQUIRE(frame.kind != FrameKind::wrong);
        REQUIRE(found < frames.size());
        REQUIRE(std::equal(frames[found].begin(), frames[found].end(), buffer.begin()));
        REQUIRE(frame.size == frames[found].size());
        buffer.erase(buffer.begin(), buffer.begin() + static_cast<std::ptrdiff_t>(frame.size));
        ++found;
      }
    }
    CHECK(found == frames.size());
    CHECK(buffer.empty());
  }
}

}  // namespace radiotower::stun
