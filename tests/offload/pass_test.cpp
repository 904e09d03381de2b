// What goes up, by the name of the reason. Each case also checks that not one byte of the frame was changed.
#include <doctest/doctest.h>
#include <linux/bpf.h>

#include <cstring>
#include <set>

#include "radiotower/base/bytes.h"
#include "tower.h"

using namespace radiotower;
using namespace radiotower::test;

namespace {

constexpr std::size_t ip_at = 14;

struct Bench {
  Tower tower;
  Call v4 = tower.call(true, true);
  Call v6 = tower.call("[fd00:1::2]:5001", "[fd00:2::2]:6001");
  Call up = tower.call("10.0.0.2:5002", "[fd00:2::2]:6002");
  std::set<std::string> seen;

  Octets client() const { return frame(v4.from_client(bytes(100))); }
  Octets client6() const { return frame(v6.from_client(bytes(100))); }

  void passes(const char* outcome, const Octets& in, unsigned on = 0, std::uint32_t metadata = 0) {
    CAPTURE(outcome);
    const Result result = tower.run_on(on == 0 ? tower.inside_index() : on, in, metadata);
    CHECK(result.outcome == outcome);
    CHECK(result.action == XDP_PASS);
    if (metadata == 0) CHECK(result.frame == in);
    seen.insert(result.outcome);
  }
  void passes(const char* outcome, const Datagram& in) { passes(outcome, frame(in)); }
};

Octets with(Octets frame, std::size_t at, int value) {
  frame[at] = static_cast<std::uint8_t>(value);
  return frame;
}

/// A byte of the IPv4 header changed, and its checksum right again.
Octets with4(Octets frame, std::size_t at, int value) {
  frame[ip_at + at] = static_cast<std::uint8_t>(value);
  refresh_ipv4_checksum(frame);
  return frame;
}

Octets cut(Octets frame, std::size_t size) {
  frame.resize(size);
  return frame;
}

}  // namespace

TEST_CASE(
    "everything that is not certain goes up unchanged, counted by its reason, and there is a case for each reason") {
  NEEDS_NAMESPACE();
  Bench b;
  REQUIRE(b.v4.id != offload::no_flow);
  REQUIRE(b.v6.id != offload::no_flow);
  REQUIRE(b.up.id != offload::no_flow);

  SUBCASE("") {
    b.passes("passed_not_ip", with(b.client(), 13, 0x06));  // ARP
    b.passes("passed_not_ip", with4(b.client(), 0, 0x65));  // version 6 in an IPv4 frame
    b.passes("passed_not_ip", with(b.client6(), ip_at, 0x45));
    Octets vlan = b.client();
    vlan.insert(vlan.begin() + 12, {0x81, 0x00, 0x00, 0x07});
    b.passes("passed_vlan", vlan);
    b.passes("passed_vlan", with(with(vlan, 12, 0x88), 13, 0xa8));
    b.passes("passed_not_unicast", with(b.client(), 0, 0x01));
    b.passes("passed_not_unicast", with(b.client6(), 0, 0x33));

    for (const std::size_t size : {14, 15, 33}) b.passes("passed_truncated", cut(b.client(), size));
    for (const std::size_t size : {14, 15, 53}) b.passes("passed_truncated", cut(b.client6(), size));

    b.passes("passed_not_udp", with4(b.client(), 9, 6));
    b.passes("passed_not_udp", with(b.client6(), ip_at + 6, 6));
    b.passes("passed_not_udp", with(b.client6(), ip_at + 6, 50));  // ESP
    b.passes("passed_ip_options", with4(b.client(), 0, 0x46));
    b.passes("passed_ip_options", with4(b.client(), 0, 0x44));
    for (const int next : {0, 43, 51, 60, 135}) b.passes("passed_extension_header", with(b.client6(), ip_at + 6, next));
    b.passes("passed_fragment", with4(b.client(), 6, 0x20));  // more fragments
    b.passes("passed_fragment", with4(b.client(), 7, 0x01));  // an offset
    b.passes("passed_fragment", with(b.client6(), ip_at + 6, 44));

    b.passes("passed_not_ours", with4(b.client(), 19, 77));
    b.passes("passed_not_ours", with(b.client6(), ip_at + 39, 77));

    b.tower.offload().keep_alive(steady_now());
    b.passes("passed_not_alive", b.client());
    b.passes("passed_not_alive", b.v4.from_peer(bytes(3)));
    b.tower.offload().keep_alive(Time{});
    b.passes("passed_not_alive", b.client());
    b.tower.offload().keep_alive(never);

    b.passes("passed_ip_checksum", with(b.client(), ip_at + 8, 65));
    b.passes("passed_ip_checksum", with(b.client(), ip_at + 10, b.client()[ip_at + 10] + 1));
    b.passes("passed_ip_length", cut(b.client(), b.client().size() - 1));
    b.passes("passed_ip_length", cut(b.client6(), b.client6().size() - 1));
    b.passes("passed_ip_length", with4(with4(b.client(), 2, 0), 3, 27));
    b.passes("passed_ip_length", with(with(b.client6(), ip_at + 4, 0), ip_at + 5, 7));
    b.passes("passed_ip_length", with(with(b.client6(), ip_at + 4, 0), ip_at + 5, 0));  // a jumbogram says so
    b.passes("passed_ip_length", with4(with4(b.client(), 2, 0xff), 3, 0xff));
    for (const int length : {0, 7, 8, 111, 113, 255}) {  // 112 is right
      b.passes("passed_udp_length", with(b.client(), ip_at + 20 + 5, length));
      b.passes("passed_udp_length", with(b.client6(), ip_at + 40 + 5, length));
    }

    Datagram stun = b.v4.from_client({});
    for (const std::size_t size : {0, 1, 3, 4, 20}) {
      stun.payload.assign(size, 0);
      b.passes("passed_not_channel_data", stun);
    }
    Datagram stranger = b.v4.from_peer(bytes(30));
    stranger.source.port = 6999;
    CHECK(b.tower.outside(stranger).outcome == "passed_not_channel_data");
    stranger = b.v4.from_peer(bytes(30));
    stranger.destination.port = 50001;
    CHECK(b.tower.outside(stranger).outcome == "passed_not_channel_data");

    Datagram padded = b.v4.from_client(bytes(5));
    padded.payload.resize(padded.payload.size() + 3);
    b.passes("passed_channel_length", padded);
    padded.payload.resize(padded.payload.size() - 4);
    b.passes("passed_channel_length", padded);
    for (const std::size_t size : {4, 5, 8}) {  // 0xffff stands for the length
      padded.payload.assign(size, 0xff);
      padded.payload[0] = 0x40;
      b.passes("passed_channel_length", padded);
    }

    Datagram other = b.v4.from_client(bytes(5));
    other.payload = channel_data(0x4002, bytes(5));
    b.passes("passed_no_flow", other);
    other.payload = channel_data(0x7fff, bytes(5));
    b.passes("passed_no_flow", other);
    other.payload = channel_data(0x8001, bytes(5));
    b.passes("passed_not_channel_data", other);
    other = b.v4.from_client(bytes(5));
    other.source.port = 5999;
    b.passes("passed_no_flow", other);
    other = b.v4.from_client(bytes(5));
    other.source.ip = net::IpAddress::parse("10.0.0.3").value();
    b.passes("passed_no_flow", other);
    other = b.v4.from_client(bytes(5));
    other.destination.port = 3479;
    b.passes("passed_no_flow", other);
    other = b.v4.from_client(bytes(5));
    other.destination = b.v4.flow.relay;
    b.passes("passed_no_flow", other);

    // An entry that points to a slot of another generation, and one beyond the table.
    Call stale = b.v4;
    for (const std::uint64_t id :
         {b.v4.id + (std::uint64_t{1} << 32), b.v4.id & 0xffffffff, std::uint64_t{1} << 32 | 4000}) {
      ++stale.flow.channel;
      offload::ClientKey key{};
      std::memcpy(&key.path.source, stale.flow.client.ip.bytes.data(), 16);
      std::memcpy(&key.path.destination, stale.flow.listener.ip.bytes.data(), 16);
      store_be16(reinterpret_cast<std::uint8_t*>(&key.path.source_port), stale.flow.client.port);
      store_be16(reinterpret_cast<std::uint8_t*>(&key.path.destination_port), stale.flow.listener.port);
      store_be16(reinterpret_cast<std::uint8_t*>(&key.channel), stale.flow.channel);
      REQUIRE(b.tower.offload().program().insert(key, id));
      b.passes("passed_stale", stale.from_client(bytes(5)));
    }

    b.tower.offload().extend(b.v4.id, steady_now());
    b.passes("passed_expired", b.client());
    b.passes("passed_expired", b.v4.from_peer(bytes(3)));
    b.tower.offload().extend(b.v4.id, Time{});
    b.passes("passed_expired", b.client());
    b.tower.offload().extend(b.v4.id, steady_now() + seconds(100));

    for (const int ttl : {0, 1}) {
      Datagram last = b.v4.from_client(bytes(5));
      last.hop_limit = static_cast<std::uint8_t>(ttl);
      b.passes("passed_hop_limit", last);
      last = b.v6.from_client(bytes(5));
      last.hop_limit = static_cast<std::uint8_t>(ttl);
      b.passes("passed_hop_limit", last);
    }

    Datagram bare = b.up.from_client(bytes(5));
    bare.checksum = Checksum::none;
    b.passes("passed_no_checksum", bare);  // IPv6 does not allow it
    bare = b.v6.from_client(bytes(5));
    bare.checksum = Checksum::none;
    b.passes("passed_no_checksum", bare);
    bare = b.up.from_peer(bytes(5));
    bare.checksum = Checksum::none;
    b.passes("passed_no_checksum", bare);

    for (const Call* call : {&b.v4, &b.v6, &b.up}) {
      Datagram partial = call->from_client(bytes(55));
      partial.checksum = Checksum::partial;
      b.passes("passed_partial_checksum", partial);
      partial = call->from_peer(bytes(55));
      partial.checksum = Checksum::partial;
      b.passes("passed_partial_checksum", partial);
    }

    set_forwarding(true, false);
    b.passes("passed_forwarding_off", b.client());
    set_forwarding(true, true);
    set_forwarding(false, false);
    b.passes("passed_forwarding_off", b.client6());
    set_forwarding(false, true);

    const Call nowhere = b.tower.call("10.0.0.2:5003", "192.0.2.1:6000", 0x4010);
    b.passes("passed_no_route", nowhere.from_client(bytes(5)));
    const Call nowhere6 = b.tower.call("10.0.0.2:5003", "[2001:db8::1]:6000", 0x4011);
    b.passes("passed_no_route", nowhere6.from_client(bytes(5)));
    for (const char* kind : {"blackhole", "unreachable", "prohibit"}) {
      REQUIRE(run(std::string("ip route replace ") + kind + " 192.0.2.0/24"));
      b.passes("passed_no_route", nowhere.from_client(bytes(5)));
    }
    REQUIRE(run("ip route del 192.0.2.0/24"));

    const Call silent = b.tower.call("10.0.0.2:5004", "10.0.1.9:6000", 0x4012);
    b.passes("passed_no_neighbour", silent.from_client(bytes(5)));
    const Call silent6 = b.tower.call("10.0.0.2:5004", "[fd00:2::9]:6000", 0x4013);
    b.passes("passed_no_neighbour", silent6.from_client(bytes(5)));

    b.passes("passed_too_big", b.v4.from_client(bytes(1473)));
    const Call aside = b.tower.call("10.0.0.2:5005", "10.0.2.2:6000", 0x4014);
    b.passes("passed_not_attached", aside.from_client(bytes(5)));

    // 256 bytes of headroom less the frame's own record and the metadata; kernels before 6.4 take no more than 32 of
    // these.
    constexpr std::uint32_t most_metadata = 212;
    const Result narrow = b.tower.run_on(b.tower.inside_index(), frame(b.up.from_client(bytes(5))), most_metadata);
    if (narrow.action == XDP_PASS)
      CHECK(narrow.outcome == "passed_no_room");
    else
      MESSAGE("passed_no_room: this kernel takes no long metadata: " << narrow.outcome);

    // And after all that each still goes.
    for (const Call* call : {&b.v4, &b.v6, &b.up})
      CHECK(b.tower.inside(call->from_client(bytes(50))).outcome == "forwarded");
    b.seen.insert("forwarded");
    Bucket* empty = b.tower.offload().buckets().take();
    empty->packet_rate = 1;
    empty->packets_full_at = (steady_now() + seconds(100)).time_since_epoch().count();
    const Call limited = b.tower.call("10.0.0.2:5006", "10.0.1.2:6006", 0x4015, empty);
    CHECK(b.tower.inside(limited.from_client(bytes(50))).action == XDP_DROP);

    for (const offload::Outcome& outcome : b.tower.offload().outcomes()) {
      CAPTURE(outcome.name);
      if (outcome.name == "passed_no_room" && narrow.action != XDP_PASS) continue;
      CHECK(outcome.packets != 0);
    }
  }
}

TEST_CASE("a flow that was removed forwards nothing, in both directions") {
  NEEDS_NAMESPACE();
  Tower tower;
  const Call call = tower.call();
  CHECK(tower.inside(call.from_client(bytes(9))).outcome == "forwarded");
  CHECK(tower.outside(call.from_peer(bytes(9))).outcome == "forwarded");
  const offload::Counts last = tower.offload().remove(call.id);
  CHECK(last.bytes_to_peer == 9);
  CHECK(last.bytes_to_client == 9);
  CHECK(tower.inside(call.from_client(bytes(9))).outcome == "passed_no_flow");
  CHECK(tower.outside(call.from_peer(bytes(9))).outcome == "passed_not_channel_data");
}

TEST_CASE("a frame broken at any byte of its headers is forwarded right or not at all") {
  NEEDS_NAMESPACE();
  for (const bool v4 : {true, false}) {
    Tower tower;
    const Call call = tower.call(v4, v4);
    const Octets good = frame(call.from_client(bytes(40)));
    const std::size_t headers = ip_at + (v4 ? 20 : 40) + 8 + 4;
    for (std::size_t i = 0; i < headers; ++i) {
      for (const int flip : {0x01, 0x80, 0xff}) {
        const Result result = tower.inside(with(good, i, good[i] ^ flip));
        if (result.outcome != "forwarded") continue;
        CAPTURE(i);
        // The Ethernet source and destination, and what IPv6 does not protect; a broken UDP checksum stays one.
        std::string why;
        const auto out = read(result.frame, why);
        CHECK((out ? out->payload == bytes(40) : why == "UDP checksum"));
      }
    }
  }
}
