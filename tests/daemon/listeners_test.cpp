// Listeners that a running relay opens and gives up.
#include <doctest/doctest.h>

#include "daemon/listeners.h"
#include "station.h"
#include "stream_station.h"

using namespace radiotower;
using namespace radiotower::daemon;
using namespace radiotower::daemon::test;

namespace {

/// Applies a reload to these listeners of UDP and TCP.
void relisten(Station& station, std::vector<net::TransportAddress> udp, std::vector<net::TransportAddress> tcp = {}) {
  std::string why;
  REQUIRE_MESSAGE(station.relay->open_listeners({std::move(udp), {}, std::move(tcp), {}}, why), why);
  station.relay->apply(make_settings(station.listener));
}

int connects(const net::TransportAddress& to) {
  int error = 0;
  io::Socket socket = io::connect_tcp(at("127.0.0.1"), to, error);
  REQUIRE(socket);
  pollfd wait{socket.descriptor(), POLLOUT, 0};
  REQUIRE(poll(&wait, 1, patience) == 1);
  socklen_t length = sizeof error;
  REQUIRE(getsockopt(socket.descriptor(), SOL_SOCKET, SO_ERROR, &error, &length) == 0);
  return error;
}

bool is_free(const net::TransportAddress& address) {
  int error = 0;
  return static_cast<bool>(io::open_udp(address, {}, error));
}

/// Until the relay has closed it: it looks every two seconds, and the kernel takes an io_uring apart behind our back.
bool becomes_free(Station& station, const net::TransportAddress& address) {
  return comes([&] {
    station.relay->tend();
    return is_free(address);
  });
}

}  // namespace

TEST_CASE("a reload opens a listener, and gives it up once its last allocation has ended") {
  for (const auto backend : backends) {
    Station station(backend, {}, 2);
    if (!station.works) continue;
    const auto more = free_address();
    relisten(station, {station.listener, more}, {more});
    CHECK(station.relay->listener_changes() == std::vector<std::string>{"listens on udp " + more.text(), "listens on tcp " + more.text()});
    Client alice(more), stranger(more);
    Udp peer("127.0.0.3");
    REQUIRE(alice.allocates() == 0);
    REQUIRE(alice.binds(0x4000, peer.address) == 0);
    stranger.syncs();
    CHECK(connects(more) == 0);

    relisten(station, {station.listener});
    CHECK(station.relay->listener_changes().size() == 2);
    CHECK(station.relay->settings().peers->judge(more, net::Family::ipv4).verdict != net::PeerVerdict::permitted);  // still ours (P25)
    CHECK(station.report().allocations == 1);  // and so every worker has heard of it
    alice.sends_channel(0x4000, "still here");
    CHECK(text(peer.receive()) == "still here");
    REQUIRE(alice.binds(0x4001, at("127.0.0.3", 9)) == 0);
    alice.syncs();
    std::array<std::uint8_t, 64> space{};
    stun::Writer writer(space, Class::request, Method::binding, stranger.next_id());
    stranger.socket.send(more, writer.bytes());
    REQUIRE(comes([&] { return station.report().dropped_retired != 0; }));
    CHECK(stranger.socket.quiet());
    CHECK(comes([&] { return connects(more) != 0; }));
    station.relay->tend();
    CHECK_FALSE(is_free(more));  // alice is there

    relisten(station, {station.listener, more});  // wanted again before it has closed: nothing is bound anew
    CHECK(station.relay->listener_changes() == std::vector<std::string>{"listens on udp " + more.text() + " again"});
    CHECK(station.report().allocations == 1);
    stranger.syncs();
    relisten(station, {station.listener});
    REQUIRE(alice.ends() == 0);
    CHECK(becomes_free(station, more));
    const auto report = station.report();
    CHECK(report.sockets == 2);  // the first listener of each worker
    Client bob(station.listener);
    REQUIRE(bob.allocates() == 0);
  }
}

TEST_CASE("listeners come and go a hundred times, and their places are used again") {
  Station station(Backend::automatic);
  REQUIRE(station.works);
  const auto more = free_address();
  for (int i = 0; i < 100; ++i) {
    relisten(station, {station.listener, more}, {more});
    Client(more).syncs();
    relisten(station, {station.listener});
  }
  CHECK(becomes_free(station, more));
  CHECK(station.report().sockets == 1);
  CHECK(station.report().listeners.size() == 1);
}

TEST_CASE("one listener that cannot be opened: none is, and nothing changes") {
  Station station(Backend::automatic);
  REQUIRE(station.works);
  Udp other("127.0.0.1");
  const auto more = free_address();
  std::string why;
  CHECK_FALSE(station.relay->open_listeners({{station.listener, more, other.address}, {}, {}, {}}, why));
  CHECK(why.find("cannot listen on " + other.address.text() + ": another program has it; `ss -ulpn") == 0);
  CHECK(is_free(more));
  station.relay->apply(make_settings(station.listener));  // of anybody: the listeners stay
  CHECK(station.relay->plan().listeners == std::vector{station.listener});
  Client(station.listener).syncs();
}

TEST_CASE("DTLS that a reload turns on and off: who has no session is answered while it is on") {
  for (const auto backend : backends) {
    Station station(backend);
    if (!station.works) continue;
    auto connections = std::make_shared<ConnectionSettings>();
    connections->identity = streams_test::identity();
    const auto turn = [&](std::vector<net::TransportAddress> dtls) {
      std::string why;
      REQUIRE(station.relay->open_listeners({{station.listener}, std::move(dtls), {}, {}}, why));
      station.relay->apply(make_settings(station.listener), connections);
      return station.report();
    };
    Udp stranger("127.0.0.1");
    const std::vector<std::uint8_t> record(40, 22);  // of DTLS, and of no session
    CHECK(turn({station.listener}).dtls.dtls_dropped_stranger == 0);
    stranger.send(station.listener, record);
    REQUIRE(comes([&] { return station.report().dtls.dtls_dropped_stranger != 0; }));
    CHECK(turn({}).dropped_retired == 0);
    stranger.send(station.listener, record);
    REQUIRE(comes([&] { return station.report().dropped_retired != 0; }));
    CHECK(station.report().dtls.dtls_dropped_stranger == 1);

    const auto alone = free_address();  // of DTLS and nothing else, and called that when it comes and when it goes
    turn({alone});
    CHECK(station.relay->listener_changes() == std::vector<std::string>{"listens on dtls " + alone.text()});
    turn({});
    REQUIRE(station.relay->listener_changes().size() == 1);
    CHECK(station.relay->listener_changes()[0].starts_with("no longer listens on dtls " + alone.text()));
  }
}

TEST_CASE("sockets of the service manager: the right one is found, and what is of no use is named") {
  const auto inherited = [](io::Socket socket, bool is_stream) {
    std::string why;
    auto bound = io::take_bound(socket.release(), why);
    REQUIRE_MESSAGE(bound, why);
    CHECK(bound->is_stream == is_stream);
    return std::make_shared<const io::BoundSocket>(std::move(*bound));
  };
  int error = 0;
  const auto udp = inherited(io::open_udp(at("127.0.0.1"), {}, error), false), udp_of_all = inherited(io::open_udp(at("0.0.0.0"), {}, error), false);
  const auto shared = inherited(io::open_udp(at("127.0.0.1"), {true, false, 0, 0}, error), false);
  const auto tcp = inherited(io::open_tcp_listener(at("0.0.0.0"), {}, error), true), spare = inherited(io::open_tcp_listener(at("127.0.0.1"), {}, error), true);
  Listeners listeners(3, 1 << 16, {udp, udp_of_all, shared, tcp, spare});
  const net::TransportAddress one{at("127.0.0.1").ip, tcp->address.port}, two{at("127.0.0.2").ip, tcp->address.port};
  std::string why;
  REQUIRE_MESSAGE(listeners.open({{udp->address, shared->address}, {}, {one, two}, {}}, why), why);
  const auto orders = listeners.settle();
  REQUIRE(orders.size() == 3);
  const auto count = [](const NextListeners& next, const net::TransportAddress& address) {
    return std::count_if(next.opened.begin(), next.opened.end(), [&](const Listener& listener) { return listener.address == address; });
  };
  for (const auto& order : orders) {
    CHECK(count(order, tcp->address) == 1);     // all accept from the one socket, which is of both addresses
    CHECK(count(order, shared->address) == 1);  // ReusePort=yes
  }
  CHECK(count(orders[0], udp->address) == 1);  // nobody changes his worker
  CHECK(count(orders[1], udp->address) + count(orders[2], udp->address) == 0);
  const auto unused = listeners.drop_unused();
  REQUIRE(unused.size() == 2);
  CHECK(unused[0].find("udp " + udp_of_all->address.text() + " from the service manager is not used: an answer over UDP") == 0);
  CHECK(unused[1].find("tcp " + spare->address.text() + " from the service manager is not used: [listen] has no such address") == 0);
  CHECK(listeners.inherited().size() == 3);
  why.clear();
  CHECK_FALSE(io::take_bound(open("/dev/null", O_RDONLY | O_CLOEXEC), why));
  CHECK(why == "is no socket");
}
