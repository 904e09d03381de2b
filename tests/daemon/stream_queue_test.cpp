// What waits for a client that takes nothing: order, and what is dropped when there is too much of it.
#include <doctest/doctest.h>
#include <sys/uio.h>

#include <string>

#include "daemon/connection_settings.h"
#include "daemon/stream_queue.h"

using namespace radiotower;
using namespace radiotower::daemon;

namespace {

constexpr Time long_ago{};
Time at(int milliseconds_) { return Time(milliseconds(milliseconds_)); }

std::string all(const StreamQueue& queue) {
  iovec pieces[64];
  std::size_t size = 0;
  std::string text;
  const std::size_t count = queue.front(pieces, 64, size);
  for (std::size_t i = 0; i < count; ++i) text.append(static_cast<const char*>(pieces[i].iov_base), pieces[i].iov_len);
  CHECK(text.size() == size);
  return text;
}
void media(StreamQueue& queue, const char* text, Time since = at(0)) { queue.append({}, as_bytes(text), 0, true, since); }
void answer(StreamQueue& queue, const char* text, Time since = at(0)) { queue.append({}, as_bytes(text), 0, false, since); }

}  // namespace

TEST_CASE("stream queue: messages leave in their order, whole, with their padding") {
  StreamQueue queue;
  queue.append(as_bytes("head"), as_bytes("body"), 3, true, at(0));
  answer(queue, "answer");
  CHECK(all(queue) == std::string("headbody\0\0\0answer", 17));
  CHECK(queue.bytes() == 17);
  CHECK(as_text(queue.next()) == std::string_view("headbody\0\0\0", 11));
  queue.took(11);
  CHECK(as_text(queue.next()) == "answer");
  queue.took(6);
  CHECK(queue.empty());
  CHECK(queue.capacity() == 0);  // nothing is kept for one who has taken everything
}

TEST_CASE("stream queue: the oldest media is dropped first, an answer never, nor what has begun to leave [T13]") {
  StreamQueue queue;
  for (const char* text : {"m1..", "m2.."}) media(queue, text);
  answer(queue, "a1..");
  for (const char* text : {"m3..", "m4.."}) media(queue, text);
  queue.took(2);  // of m1
  CHECK(queue.trim(12, long_ago) == 2);
  CHECK(all(queue) == "..a1..m4..");
  CHECK(queue.trim(0, long_ago) == 1);
  CHECK(all(queue) == "..a1..");  // more than is wished for: who asks without taking answers is the caller's to close
  CHECK(queue.trim(0, long_ago) == 0);
}

TEST_CASE("stream queue: media that is too old is dropped, whatever there is room for") {
  StreamQueue queue;
  media(queue, "old.", at(0));
  answer(queue, "ans.", at(0));
  media(queue, "new.", at(900));
  CHECK(queue.trim(1 << 20, at(500)) == 1);
  CHECK(all(queue) == "ans.new.");
  CHECK(queue.trim(1 << 20, at(900)) == 0);
  CHECK(queue.trim(1 << 20, at(901)) == 1);
  CHECK(all(queue) == "ans.");
}

TEST_CASE("stream queue: a reader who is always behind costs bounded memory") {
  StreamQueue queue;
  const std::string packet(1200, 'x');
  std::size_t dropped = 0, most = 0;
  for (int i = 0; i < 20'000; ++i) {
    queue.append({}, as_bytes(packet), 0, true, at(i));
    if (i % 3 == 0) queue.took(std::min<std::size_t>(queue.bytes(), 700));
    dropped += queue.trim(64 << 10, long_ago);
    most = std::max(most, queue.capacity());
    REQUIRE(queue.bytes() <= 64 << 10);
  }
  CHECK(dropped > 10'000);
  CHECK(most < 512 << 10);
}

TEST_CASE("connections: counted by source, of IPv6 by /64, and all together [T17]") {
  ConnectionCounts counts({1, 2});
  const auto a = *net::IpAddress::parse("192.0.2.1"), b = *net::IpAddress::parse("192.0.2.2");
  const auto c = *net::IpAddress::parse("2001:db8:0:1::1"), d = *net::IpAddress::parse("2001:db8:0:1:ffff::9"), e = *net::IpAddress::parse("2001:db8:0:2::1");
  CHECK(counts.enter(a, 2));
  CHECK(counts.enter(a, 2));
  CHECK_FALSE(counts.enter(a, 2));
  CHECK(counts.enter(b, 2));
  CHECK(counts.enter(c, 2));
  CHECK(counts.enter(d, 2));
  CHECK_FALSE(counts.enter(c, 2));
  CHECK(counts.enter(e, 2));
  counts.leave(a);
  CHECK(counts.enter(a, 2));
  CHECK(counts.enter(a, 0));  // no limit
  for (int i = 0; i < 3; ++i) counts.leave(a);
  for (const auto& ip : {b, c, d, e}) counts.leave(ip);
  CHECK(counts.sources() == 0);  // who has gone leaves nothing
  CHECK(counts.enter(2u));
  CHECK(counts.enter(2u));
  CHECK_FALSE(counts.enter(2u));
  CHECK(counts.total() == 2);
  ConnectionCounts few({1, 2}, 3);  // the descriptors end before the limit does
  for (int i = 0; i < 3; ++i) CHECK(few.enter(i % 2 == 0 ? 0u : 100u));
  CHECK_FALSE(few.enter(0u));
  CHECK_FALSE(few.enter(100u));
}
