// What leaves: both directions, both families, to the byte.
#include <doctest/doctest.h>
#include <linux/bpf.h>

#include "radiotower/base/bytes.h"
#include "tower.h"

using namespace radiotower;
using namespace radiotower::test;

namespace {

Datagram read_or_fail(const Result& result) {
  std::string why;
  const auto datagram = read(result.frame, why);
  INFO(result.outcome << ": " << why);
  REQUIRE(datagram.has_value());
  return *datagram;
}

const std::size_t sizes[] = {0, 1, 2, 3, 4, 5, 7, 8, 63, 172, 999, 1000, 1001, 1400};

}  // namespace

TEST_CASE("ChannelData of a client leaves as a bare datagram from the relayed address, over every pair of families") {
  NEEDS_NAMESPACE();
  for (const bool client_v4 : {true, false}) {
    for (const bool peer_v4 : {true, false}) {
      CAPTURE(client_v4);
      CAPTURE(peer_v4);
      Tower tower;
      const Call call = tower.call(client_v4, peer_v4);
      REQUIRE(call.id != offload::no_flow);
      std::uint64_t sent = 0;
      for (const std::size_t size : sizes) {
        CAPTURE(size);
        Datagram in = call.from_client(bytes(size));
        in.traffic_class = 0xb9;  // expedited forwarding, and ECN
        const Result result = tower.inside(in);
        CHECK(result.outcome == "forwarded");
        CHECK(result.action == XDP_REDIRECT);
        const Datagram out = read_or_fail(result);
        CHECK(out.source == call.flow.relay);
        CHECK(out.destination == call.flow.peer);
        CHECK(out.payload == bytes(size));
        CHECK(out.hop_limit == 63);
        CHECK(out.traffic_class == 0xb9);
        CHECK(out.checksum == Checksum::whole);
        CHECK(out.to == peer_mac);
        CHECK(out.from == outside_mac);
        if (peer_v4)
          CHECK_FALSE(out.dont_fragment);
        else
          CHECK(out.flow_label == 0);
        sent += size;
      }
      const offload::Counts counts = tower.offload().counts(call.id);
      CHECK(counts.packets_to_peer == std::size(sizes));
      CHECK(counts.bytes_to_peer == sent);
      CHECK(counts.packets_to_client == 0);
    }
  }
}

TEST_CASE("a peer's datagram leaves as ChannelData from the listener, over every pair of families") {
  NEEDS_NAMESPACE();
  for (const bool client_v4 : {true, false}) {
    for (const bool peer_v4 : {true, false}) {
      CAPTURE(client_v4);
      CAPTURE(peer_v4);
      Tower tower;
      const Call call = tower.call(client_v4, peer_v4);
      std::uint64_t sent = 0;
      for (const std::size_t size : sizes) {
        CAPTURE(size);
        Datagram in = call.from_peer(bytes(size));
        in.traffic_class = 0x2e;
        in.hop_limit = 2;
        const Result result = tower.outside(in);
        CHECK(result.outcome == "forwarded");
        CHECK(result.action == XDP_REDIRECT);
        const Datagram out = read_or_fail(result);
        CHECK(out.source == call.flow.listener);
        CHECK(out.destination == call.flow.client);
        CHECK(out.payload == channel_data(channel, bytes(size)));
        CHECK(out.hop_limit == 1);
        CHECK(out.traffic_class == 0x2e);
        CHECK(out.to == client_mac);
        CHECK(out.from == inside_mac);
        if (client_v4)
          CHECK_FALSE(out.dont_fragment);
        else
          CHECK(out.flow_label == 0);
        sent += size;
      }
      const offload::Counts counts = tower.offload().counts(call.id);
      CHECK(counts.packets_to_client == std::size(sizes));
      CHECK(counts.bytes_to_client == sent);
      CHECK(counts.packets_to_peer == 0);
    }
  }
}

TEST_CASE("every value of the UDP checksum is updated right, and 0 never leaves") {
  NEEDS_NAMESPACE();
  for (const bool v4 : {true, false}) {
    for (const bool up : {true, false}) {
      CAPTURE(v4);
      CAPTURE(up);
      Tower tower;
      const Call call = tower.call(true, v4);
      std::size_t wrong = 0;
      Datagram d = up ? call.from_client(bytes(2)) : call.from_peer(bytes(2));
      for (unsigned i = 0; i < 0x10000; ++i) {
        store_be16(&d.payload[d.payload.size() - 2], static_cast<std::uint16_t>(i));
        const Result result = tower.run_uncounted(up ? tower.inside_index() : tower.outside_index(), frame(d));
        std::string why;
        const auto out = result.action == XDP_REDIRECT ? read(result.frame, why) : std::nullopt;
        if (!out || out->checksum != Checksum::whole) ++wrong;
      }
      CHECK(wrong == 0);
    }
  }
}

TEST_CASE("a whole checksum that looks unfinished is told from one that is, at every length") {
  NEEDS_NAMESPACE();
  for (const bool v4 : {true, false}) {
    CAPTURE(v4);
    Tower tower;
    const Call call = tower.call(v4, v4);
    const std::size_t at = 14 + (v4 ? 20 : 40) + 6;  // where the checksum stands
    for (std::size_t size = 2; size <= 1450; size += size < 140 ? 1 : 97) {
      CAPTURE(size);
      Datagram d = call.from_peer(bytes(size));
      store_be16(d.payload.data(), 0);
      const std::uint16_t without = load_be16(&frame(d)[at]);
      d.checksum = Checksum::partial;
      const std::uint16_t unfinished = load_be16(&frame(d)[at]);
      const std::uint32_t word = static_cast<std::uint16_t>(~unfinished) + std::uint32_t{without};
      store_be16(d.payload.data(), static_cast<std::uint16_t>((word & 0xffff) + (word >> 16)));
      // Equal but for a word of the data that makes the sum no longer hold.
      Datagram other = d;
      other.payload[1] = static_cast<std::uint8_t>(other.payload[1] + 1);
      CHECK(tower.outside(other).outcome == "passed_partial_checksum");
      d.checksum = Checksum::whole;
      REQUIRE(load_be16(&frame(d)[at]) == unfinished);
      const Result result = tower.outside(d);
      CHECK(result.outcome == "forwarded");
      CHECK(read_or_fail(result).checksum == Checksum::whole);
    }
  }
}

TEST_CASE("a datagram without a checksum stays without between IPv4 and IPv4") {
  NEEDS_NAMESPACE();
  Tower tower;
  const Call call = tower.call();
  Datagram in = call.from_client(bytes(100));
  in.checksum = Checksum::none;
  CHECK(read_or_fail(tower.inside(in)).checksum == Checksum::none);
  in = call.from_peer(bytes(100));
  in.checksum = Checksum::none;
  CHECK(read_or_fail(tower.outside(in)).checksum == Checksum::none);
}

TEST_CASE("a broken UDP checksum stays broken: it is updated and not made anew") {
  NEEDS_NAMESPACE();
  Tower tower;
  const Call call = tower.call();
  Octets in = frame(call.from_client(bytes(100)));
  in.back() ^= 1;
  const Result result = tower.inside(in);
  CHECK(result.outcome == "forwarded");
  std::string why;
  CHECK_FALSE(read(result.frame, why).has_value());
  CHECK(why == "UDP checksum");
}

TEST_CASE("the padding of a short Ethernet frame stays behind") {
  NEEDS_NAMESPACE();
  for (const bool client_v4 : {true, false}) {
    for (const bool peer_v4 : {true, false}) {
      Tower tower;
      const Call call = tower.call(client_v4, peer_v4);
      for (const bool up : {true, false}) {
        for (const std::size_t padding : {1, 17, 300}) {
          Octets in = frame(up ? call.from_client(bytes(1)) : call.from_peer(bytes(1)));
          in.insert(in.end(), padding, 0x55);
          const Datagram out = read_or_fail(up ? tower.inside(in) : tower.outside(in));
          CHECK(out.payload == (up ? bytes(1) : channel_data(channel, bytes(1))));
        }
      }
    }
  }
}

TEST_CASE("identifications of IPv4 are fresh, since what leaves without DF may be fragmented") {
  NEEDS_NAMESPACE();
  Tower tower;
  const Call call = tower.call();
  const auto first = read_or_fail(tower.inside(call.from_client(bytes(10)))).identification;
  std::size_t same = 0;
  for (int i = 0; i < 20; ++i) same += read_or_fail(tower.inside(call.from_client(bytes(10)))).identification == first;
  CHECK(same < 5);
}

TEST_CASE("a peer on the client's side: the frame turns round on its interface") {
  NEEDS_NAMESPACE();
  Tower tower;
  const Call call = tower.call("10.0.0.2:5000", "10.0.0.2:6000");
  for (const bool veth : {true, false}) {
    tower.offload().program().redirect_back(veth);
    const Result result = tower.inside(call.from_client(bytes(100)));
    CHECK(result.action == (veth ? XDP_REDIRECT : XDP_TX));
    const Datagram out = read_or_fail(result);
    CHECK(out.to == client_mac);
    CHECK(out.from == inside_mac);
  }
}

TEST_CASE("a peer may send what looks like ChannelData; it is told from a client by the addresses") {
  NEEDS_NAMESPACE();
  Tower tower;
  const Call call = tower.call();
  for (const Octets& payload :
       {channel_data(channel, bytes(9)), channel_data(channel, {}), Octets{0x40, 0x01}, Octets{0x40, 0x01, 0, 9}}) {
    const Datagram out = read_or_fail(tower.outside(call.from_peer(payload)));
    CHECK(out.payload == channel_data(channel, payload));
  }
}

TEST_CASE("two channels of one client go two ways, by their numbers") {
  NEEDS_NAMESPACE();
  Tower tower;
  const Call one = tower.call("10.0.0.2:5000", "10.0.1.2:6000", 0x4000),
             two = tower.call("10.0.0.2:5000", "10.0.1.2:6001", 0x7FFF);
  CHECK(read_or_fail(tower.inside(one.from_client(bytes(5)))).destination == one.flow.peer);
  CHECK(read_or_fail(tower.inside(two.from_client(bytes(5)))).destination == two.flow.peer);
  CHECK(read_or_fail(tower.outside(two.from_peer(bytes(5)))).payload == channel_data(0x7FFF, bytes(5)));
}

TEST_CASE("the longest datagram that the way takes is forwarded, and the next one goes up to be fragmented") {
  NEEDS_NAMESPACE();
  for (const bool client_v4 : {true, false}) {
    for (const bool peer_v4 : {true, false}) {
      CAPTURE(client_v4);
      CAPTURE(peer_v4);
      Tower tower;
      const Call call = tower.call(client_v4, peer_v4);
      const std::size_t most_up = 1500 - (peer_v4 ? 28 : 48), most_down = 1500 - (client_v4 ? 32 : 52);
      CHECK(tower.inside(call.from_client(bytes(most_up))).outcome == "forwarded");
      CHECK(tower.inside(call.from_client(bytes(most_up + 1))).outcome == "passed_too_big");
      CHECK(tower.outside(call.from_peer(bytes(most_down))).outcome == "forwarded");
      CHECK(tower.outside(call.from_peer(bytes(most_down + 1))).outcome == "passed_too_big");
    }
  }
}
