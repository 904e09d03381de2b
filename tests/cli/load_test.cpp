#include <doctest/doctest.h>

#include <map>
#include <set>

#include "load/framing.h"
#include "load/histogram.h"
#include "load/payload.h"
#include "load/schedule.h"
#include "load/summary.h"
#include "radiotower/stun/message.h"

using namespace radiotower;
using namespace radiotower::load;

namespace {

// Everything a stream sends up to a moment, as a loop that looks at the clock now and then would send it.
std::vector<Event> events_until(const Stream& stream, std::int64_t at) {
  std::vector<Event> out;
  for (std::uint64_t n = 0; stream.event(n).at <= at; ++n) out.push_back(stream.event(n));
  return out;
}

constexpr std::int64_t second = 1'000'000'000;

net::TransportAddress at(std::string_view text) { return *net::TransportAddress::parse(text); }

}  // namespace

TEST_CASE("a bucket of the histogram is never wider than a 64th of what it holds, and they leave no gap") {
  CHECK(Histogram::bucket_of(-5) == 0);
  CHECK(Histogram::bucket_of(0) == 0);
  for (std::int64_t ns = 0; ns < 4'000'000; ns += 1 + ns / 300) {
    const std::size_t bucket = Histogram::bucket_of(ns);
    CHECK(Histogram::upper_end(bucket) >= ns);
    if (bucket > 0) CHECK(Histogram::upper_end(bucket - 1) < ns);
    CHECK(Histogram::upper_end(bucket) - ns <= ns / 64 + 1);
  }
  CHECK(Histogram::bucket_of(std::int64_t{1} << 60) == Histogram::buckets - 1);
  CHECK(Histogram::upper_end(Histogram::buckets - 1) == static_cast<std::int64_t>(Histogram::largest));
}

TEST_CASE("a microsecond is told from the next, and ten seconds still fit") {
  CHECK(Histogram::bucket_of(1'000) != Histogram::bucket_of(1'020));
  CHECK(Histogram::bucket_of(10 * second) < Histogram::buckets - 1);
}

TEST_CASE("percentiles of a histogram are those of what was put in") {
  Histogram h;
  CHECK(h.percentile(0.99) == 0);
  for (int i = 1; i <= 1000; ++i) h.add(i * 1000);
  CHECK(h.total() == 1000);
  CHECK(h.max() == 1'000'000);
  CHECK(h.percentile(0.5) == doctest::Approx(500'000).epsilon(0.02));
  CHECK(h.percentile(0.999) == doctest::Approx(999'000).epsilon(0.02));
  CHECK(h.percentile(1) == 1'000'000);
  Histogram other;
  for (int i = 0; i < 1000; ++i) other.add(5 * second);
  h.merge(other);
  CHECK(h.total() == 2000);
  CHECK(h.percentile(0.75) == doctest::Approx(5e9).epsilon(0.02));
  h.clear();
  CHECK(h.total() == 0);
  CHECK(h.max() == 0);
}

TEST_CASE("audio: each session has its 50 packets a second, and no two sessions the same moment") {
  const Schedule audio = schedule_of("audio", Ways::up, 100);
  REQUIRE(audio.size() == 1);
  CHECK(packets_a_second(audio) == doctest::Approx(5000));
  std::map<std::uint32_t, int> of_session;
  std::set<std::int64_t> moments;
  for (const Event& e : events_until(audio[0], second - 1)) {
    CHECK(e.packets == 1);
    ++of_session[e.session];
    moments.insert(e.at);
  }
  CHECK(of_session.size() == 100);
  for (const auto& [session, count] : of_session) CHECK(count == 50);
  CHECK(moments.size() == 5000);
}

TEST_CASE("video: bursts have every size from 10 to 30 equally often, each session one every 33 ms") {
  const Schedule video = schedule_of("video", Ways::up, 50);
  std::map<std::uint32_t, int> sizes;
  std::map<std::uint32_t, std::int64_t> last;
  std::uint64_t packets = 0;
  for (const Event& e : events_until(video[0], 21 * 33'000'000LL - 1)) {
    ++sizes[e.packets];
    packets += e.packets;
    if (last.contains(e.session)) CHECK(e.at - last[e.session] == doctest::Approx(33e6).epsilon(1e-6));
    last[e.session] = e.at;
  }
  CHECK(sizes.size() == 21);
  CHECK(sizes.begin()->first == 10);
  for (const auto& [size, count] : sizes) CHECK(count == 50);
  CHECK(packets == 21 * 50 * 20);
}

TEST_CASE("what is due depends on the time alone, not on how often one looks") {
  for (const Profile& p : profiles()) {
    for (const Stream& s : schedule_of(p.name, p.ways, 37)) {
      for (const std::int64_t moment : {std::int64_t{0}, std::int64_t{1}, second / 3, second, 7 * second / 3})
        CHECK(s.events_until(moment) == events_until(s, moment).size());
      std::int64_t before = 0;
      for (const Event& e : events_until(s, second)) {
        CHECK(e.at >= before);
        CHECK(e.session >= s.first);
        CHECK(e.session < s.first + s.sessions);
        before = e.at;
      }
    }
  }
}

TEST_CASE("mixed: seven of ten sessions talk, the others show themselves, and both ways alternate") {
  const Schedule mixed = schedule_of("mixed", Ways::both, 100);
  REQUIRE(mixed.size() == 4);
  CHECK(mixed[0].sessions == 70);
  CHECK(mixed[2].first == 70);
  CHECK(mixed[2].sessions == 30);
  CHECK(mixed[0].direction == Direction::up);
  CHECK(mixed[1].direction == Direction::down);
  CHECK(mixed[0].event(0).at < mixed[1].event(0).at);
  CHECK(mixed[1].event(0).at < mixed[0].event(1).at);
}

TEST_CASE("a schedule is stretched to a rate, its bursts stay as they are") {
  Schedule video = schedule_of("video", Ways::both, 50);
  stretch(video, 10'000);
  CHECK(packets_a_second(video) == doctest::Approx(10'000));
  CHECK(video[0].least == 10);
  CHECK(video[0].most == 30);
  const Schedule plain = steady(Ways::both, 200, 1000, 8, 80'000);
  CHECK(packets_a_second(plain) == doctest::Approx(80'000));
  std::uint64_t packets = 0;
  for (const Stream& s : plain)
    for (const Event& e : events_until(s, second - 1)) packets += e.packets;
  CHECK(packets == 80'000);
}

TEST_CASE("every profile of the list is known, and those that are traffic have a schedule") {
  for (const Profile& p : profiles()) {
    CHECK(find_profile(p.name) == &p);
    const bool has_schedule = p.kind == Profile::Kind::traffic || p.kind == Profile::Kind::flood;
    CHECK(schedule_of(p.name, p.ways, p.sessions).empty() != has_schedule);
  }
  CHECK(find_profile("telepathy") == nullptr);
}

TEST_CASE("a payload of any size is known again, and no changed byte or cut escapes") {
  const Payload payload;
  std::vector<std::uint8_t> packet(max_size);
  payload.write(packet.data());
  const Stamp stamp{.session = 7, .sent_at = 99, .run = 3, .size = 160, .direction = Direction::down};
  std::memcpy(packet.data(), &stamp, sizeof stamp);
  packet.resize(160);
  Stamp read;
  REQUIRE(payload.read(packet, read));
  CHECK(read.session == 7);
  CHECK(read.sent_at == 99);
  CHECK(read.direction == Direction::down);
  CHECK_FALSE(payload.read(Bytes(packet).first(159), read));
  CHECK_FALSE(payload.read(Bytes(packet).first(3), read));
  for (std::size_t i = sizeof stamp; i < packet.size(); ++i) {
    packet[i] ^= 1;
    CHECK_FALSE(payload.read(packet, read));
    packet[i] ^= 1;
  }
}

TEST_CASE("what the load frames is ChannelData and Send indications that the reader takes") {
  std::vector<std::uint8_t> room(Framing::room + 64);
  std::uint8_t* const payload = room.data() + Framing::room;
  for (std::size_t i = 0; i < 61; ++i) payload[i] = static_cast<std::uint8_t>(i);
  for (const char* text : {"192.0.2.7:5000", "[2001:db8::7]:5000"}) {
    const net::TransportAddress peer = at(text);
    const Framing channel(Method::channel), send(Method::send), direct(Method::direct);
    channel.write_header(payload, 61, peer, 1);
    const auto unwrapped = channel.unwrap(Bytes(payload - 4, 65), peer);
    REQUIRE(unwrapped);
    CHECK(unwrapped->data() == payload);
    CHECK(unwrapped->size() == 61);
    CHECK_FALSE(channel.unwrap(Bytes(payload - 4, 64), peer));

    send.write_header(payload, 61, peer, 2);
    CHECK(send.padding(61) == 3);
    const std::size_t header = send.header_size(peer);
    const auto message = stun::Message::read(Bytes(payload - header, header + 61 + 3));
    REQUIRE(message);
    CHECK(message->is(stun::Class::indication, stun::Method::send));
    const auto to =
        stun::read_xor_address(*message->find(stun::Attribute::xor_peer_address), message->transaction_id());
    CHECK(to->address == peer);
    CHECK(message->find(stun::Attribute::data)->data() == payload);
    CHECK(message->find(stun::Attribute::data)->size() == 61);
    CHECK(direct.header_size(peer) == 0);
  }
}

TEST_CASE("a Data indication counts only from the peer it is expected from") {
  std::array<std::uint8_t, 256> room;
  const net::TransportAddress peer = at("192.0.2.7:5000");
  const std::array<std::uint8_t, 5> data{1, 2, 3, 4, 5};
  stun::Writer writer(room, stun::Class::indication, stun::Method::data, {});
  writer.add_xor_address(stun::Attribute::xor_peer_address, peer).add(stun::Attribute::data, Bytes(data));
  const Framing send(Method::send);
  REQUIRE(send.unwrap(writer.bytes(), peer));
  CHECK(send.unwrap(writer.bytes(), peer)->size() == 5);
  CHECK_FALSE(send.unwrap(writer.bytes(), at("192.0.2.7:5001")));
}

TEST_CASE("numbers are written as people read them") {
  CHECK(grouped(0) == "0");
  CHECK(grouped(999) == "999");
  CHECK(grouped(1234567) == "1,234,567");
  CHECK(duration_text(850) == "0.8 us");
  CHECK(duration_text(85'000) == "85 us");
  CHECK(duration_text(1'250'000) == "1.25 ms");
  CHECK(duration_text(3'100'000'000) == "3.10 s");
}

TEST_CASE("loss is of what was sent, and late packets are not lost") {
  TrafficResult r;
  r.sent = 1000;
  r.delivered = 900;
  r.arrived = 999;
  CHECK(r.loss() == doctest::Approx(0.001));
  r.arrived = 1001;  // a packet that came twice
  CHECK(r.loss() == 0);
}

TEST_CASE("what stops a load is told in words that say where to turn") {
  Options options;
  options.server = at("127.0.0.1:3478");
  options.users = {{"alice", "secret"}};
  options.sessions = 2;
  options.peer_count = 1;
  const Sessions sessions(options);
  cli::Situation situation;
  situation.server = "127.0.0.1:3478";
  const auto told = [&](const SetUpResult& result) {
    const Explanation why = explain(result, sessions, situation);
    CHECK_FALSE(why.check.empty());
    std::string text = why.what;
    for (const auto& line : why.check) text += "; " + line;
    return text;
  };
  SetUpResult result;
  result.wanted = 2;
  result.gave_up = true;
  CHECK(told(result).find("no answer") != std::string::npos);
  result.errors = {{{"Allocate", 401}, 1}};
  CHECK(told(result).find("user name and password") != std::string::npos);
  result.errors = {{{"ChannelBind", 403}, 1}};
  CHECK(told(result).find("allow = [\"127.0.0.1/32 unsafe\"]") != std::string::npos);
  result.errors = {{{"Allocate", 486}, 1}};
  CHECK(told(result).find("--secret-file") != std::string::npos);
  result.unreachable = true;
  CHECK(told(result).find("nobody listens") != std::string::npos);
}
