// What fails below the loop, and what the loop makes of it.
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include <cerrno>
#include <cstddef>
#include <thread>

#include "failing_calls.h"
#include "faulty_loop.h"
#include "harness.h"

using namespace radiotower;
using namespace radiotower::io;
using namespace radiotower::io::testing;

TEST_CASE("open_udp: whatever call fails, the socket is empty and the errno is told") {
  const net::TransportAddress any{*net::IpAddress::parse("127.0.0.1"), 0, 0};
  int error = 0;
  {
    const FailingCall fault(Call::socket, 2, EMFILE);
    CHECK(open_udp(any, {}, error));
    CHECK(!open_udp(any, {}, error));
    CHECK(error == EMFILE);
    CHECK(open_udp(any, {}, error));
  }
  {
    const FailingCall fault(Call::bind, 1, EADDRINUSE);
    CHECK(!open_udp(any, {}, error));
    CHECK(error == EADDRINUSE);
  }
  {
    const FailingCall fault(Call::setsockopt, 1, ENOPROTOOPT);
    CHECK(!open_udp(any, {}, error));
    CHECK(error == ENOPROTOOPT);
  }
  {
    const Socket taken = open_udp(any, {}, error);
    CHECK(!open_udp(local_address(taken), {}, error));
    CHECK(error == EADDRINUSE);
  }
}

TEST_CASE("a receive buffer that may not be forced is asked for, and its refusal is no error") {
  int error = 0;
  UdpOptions options;
  options.receive_buffer = 1 << 20;
  const FailingCall fault(Call::setsockopt, 2, ENOMEM, 2);
  CHECK(open_udp({*net::IpAddress::parse("127.0.0.1"), 0, 0}, options, error));
  CHECK(error == 0);
}

TEST_CASE("a full table takes no more sockets, closes what it was given, and has room again when one goes") {
  for (const char* backend : backends) {
    CAPTURE(backend);
    LoopSettings settings;
    settings.max_sockets = 2;
    auto loop = make(backend, settings);
    if (!loop) continue;
    Ear ear(*loop);
    const SocketId first = loop->add(udp("127.0.0.1"), 1);
    CHECK(first != no_socket);
    CHECK(loop->add(udp("127.0.0.1"), 2) != no_socket);
    Socket third = udp("127.0.0.1");
    const auto at = local_address(third);
    CHECK(loop->add(std::move(third), 3) == no_socket);
    int error = 0;
    CHECK(open_udp(at, {}, error));  // its port is free
    CHECK(loop->sockets() == 2);
    loop->remove(first);
    CHECK(loop->add(udp("127.0.0.1"), 4) != no_socket);
    REQUIRE(loop->turn(nanoseconds(0), ear));
    CHECK(loop->armed() == 2);
  }
}

TEST_CASE("without descriptors no loop is made, and a sentence says why") {
  rlimit before{};
  REQUIRE(getrlimit(RLIMIT_NOFILE, &before) == 0);
  rlimit none = before;
  none.rlim_cur = 3;
  REQUIRE(setrlimit(RLIMIT_NOFILE, &none) == 0);
  std::string why_uring, why_epoll;
  const auto uring = make_uring_loop({}, why_uring);
  const auto epoll = make_epoll_loop({}, why_epoll);
  setrlimit(RLIMIT_NOFILE, &before);
  CHECK(!uring);
  CHECK(!epoll);
  CHECK(why_uring.find(": ") != std::string::npos);
  CHECK(why_epoll.find("Too many open files") != std::string::npos);
}

namespace {

/// From now on `call` fails with `error` on this thread, if its second argument is at least `from`: a filter is a thread's own.
bool refuse_on_this_thread(std::uint32_t call, std::uint32_t from, std::uint32_t error) {
  sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args[1])),  // its low half, on a little-endian machine
      BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, from, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog filter{static_cast<unsigned short>(std::size(program)), program};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

}  // namespace

TEST_CASE("where a container's seccomp profile refuses io_uring, it says so, and epoll works") {
  std::string why;
  bool filtered = false, refused = false, have_epoll = false;
  std::thread contained([&] {
    filtered = refuse_on_this_thread(SYS_io_uring_setup, 0, EPERM);
    std::string why_epoll;
    refused = !make_uring_loop({}, why);
    have_epoll = make_epoll_loop({}, why_epoll) != nullptr;
  });
  contained.join();
  CHECK(have_epoll);
  if (!filtered) return;  // no seccomp here
  CHECK(refused);
  CHECK(why.starts_with("io_uring_setup: Operation not permitted ("));
}

TEST_CASE("while the kernel takes no submissions, the ring's own queue fills, and what does not fit leaves by calls of its own") {
  std::thread contained([] {
    auto loop = make("io_uring");
    if (!loop) return;
    Ear ear(*loop);
    const SocketId id = loop->add(udp("127.0.0.1"), 1);
    Socket peer = udp("127.0.0.1");
    REQUIRE(loop->turn(nanoseconds(0), ear));
    if (!refuse_on_this_thread(SYS_io_uring_enter, 1, EAGAIN)) return;  // io_uring_enter(ring, to_submit, ...)
    std::vector<std::string> texts;
    for (int i = 0; i < 1200; ++i) texts.push_back(std::to_string(i));
    for (auto& text : texts) {
      loop->send(outgoing(id, local_address(peer), text));
      CHECK(loop->turn(nanoseconds(0), ear));
    }
    const auto got = hear_all(peer, texts.size() - 1024);
    CHECK(got == std::vector<std::string>(texts.begin() + 1024, texts.end()));
    CHECK(loop->counters().sent == got.size());
    loop->remove(id);
    CHECK(loop->turn(nanoseconds(0), ear));
    CHECK(loop->sockets() == 0);
  });
  contained.join();
}

TEST_CASE("a completion queue that overflows is counted, and nothing is lost with it") {
  LoopSettings settings;
  settings.completions = 1;  // as short as the ring allows
  auto loop = make("io_uring", settings);
  if (!loop) return;
  Ear ear(*loop);
  const SocketId id = loop->add(udp("127.0.0.1"), 1);
  const Socket peer = udp("127.0.0.1");
  std::string too_long(65535, 'x'), text = "text";
  for (int i = 0; i < 4000; ++i) loop->send(outgoing(id, local_address(peer), too_long));  // each fails, and says so
  loop->send(outgoing(id, local_address(peer), text));
  CHECK(turns(*loop, ear, [&] { return loop->counters().send_too_large == 4000; }));
  CHECK(loop->counters().completion_overflow > 0);
  CHECK(turns(*loop, ear, [&] { return loop->counters().sent == 1; }));
  CHECK(hear_all(peer, 1) == std::vector<std::string>{"text"});
  CHECK(turns(*loop, ear, [&] { return loop->armed() == loop->sockets(); }));
}

TEST_CASE("each errno of a send is counted where it belongs, and the next datagram leaves") {
  struct {
    int error;
    std::uint64_t LoopCounters::*counter;
  } const cases[] = {{EAGAIN, &LoopCounters::send_full},         {ENOBUFS, &LoopCounters::send_full},
                     {EPERM, &LoopCounters::send_unreachable},   {ENETUNREACH, &LoopCounters::send_unreachable},
                     {EMSGSIZE, &LoopCounters::send_too_large},  {EADDRNOTAVAIL, &LoopCounters::send_unreachable},
                     {ENOMEM, &LoopCounters::send_failed}};
  for (const char* backend : backends) {
    for (const auto& c : cases) {
      CAPTURE(backend);
      CAPTURE(c.error);
      auto loop = make(backend);
      if (!loop) continue;
      Ear ear(*loop);
      const SocketId id = loop->add(udp("127.0.0.1"), 1);
      const Socket peer = udp("127.0.0.1");
      std::string first = "first", second = "second";
      Outgoing out = outgoing(id, local_address(peer), first);
      // The epoll loop's batch, and the sends with DF of both, pass through the calls; twice, since some errors are tried again.
      out.dont_fragment = loop->name() == "io_uring";
      const FailingCall batch(Call::sendmmsg, 1, c.error, c.error == ENETUNREACH || c.error == EMSGSIZE ? 2 : 1);
      const FailingCall single(Call::sendmsg, 1, c.error, c.error == ENETUNREACH || c.error == EMSGSIZE ? 2 : 1);
      loop->send(out);
      out.bytes = {reinterpret_cast<std::uint8_t*>(second.data()), second.size()};
      loop->send(out);
      REQUIRE(loop->turn(nanoseconds(0), ear));
      CHECK(loop->counters().*c.counter == 1);
      CHECK(loop->counters().sent == 1);
      CHECK(hear_all(peer, 1) == std::vector<std::string>{"second"});
    }
  }
}

TEST_CASE("epoll: a receive that fails once is counted, and the next one finds the datagram") {
  auto loop = make("epoll");
  REQUIRE(loop);
  Ear ear(*loop);
  Socket mine = udp("127.0.0.1");
  const auto at = local_address(mine);
  loop->add(std::move(mine), 1);
  const Socket peer = udp("127.0.0.1");
  say(peer, at, "hello");
  const FailingCall fault(Call::recvmmsg, 1, ENOMEM);
  CHECK(turns(*loop, ear, [&] { return ear.heard.size() == 1; }));
  CHECK(loop->counters().receive_failed == 1);
}

namespace {

/// Runs in a network namespace of its own: lo with the MTU of an Ethernet, and fe80::1. False where that is not allowed.
template <typename Run>
bool in_own_network(Run run) {
  bool allowed = false;
  std::thread inside([&] {
    if (unshare(CLONE_NEWNET) != 0) return;
    const Socket s(::socket(AF_INET6, SOCK_DGRAM, 0));
    ifreq request{};
    std::strcpy(request.ifr_name, "lo");
    request.ifr_mtu = 1500;
    if (ioctl(s.descriptor(), SIOCSIFMTU, &request) != 0) return;
    request.ifr_flags = IFF_UP | IFF_LOOPBACK | IFF_RUNNING;
    if (ioctl(s.descriptor(), SIOCSIFFLAGS, &request) != 0) return;
    struct {
      in6_addr address;
      std::uint32_t prefix;
      int interface;
    } link_local{{{{0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}}}, 64, 1};
    if (ioctl(s.descriptor(), SIOCSIFADDR, &link_local) != 0) return;
    // The kernel finishes an IPv6 address in a worker of its own; until then nobody can bind to it.
    int error = EADDRNOTAVAIL;
    for (const auto end = std::chrono::steady_clock::now() + patience; error == EADDRNOTAVAIL && std::chrono::steady_clock::now() < end;) {
      if (open_udp({*net::IpAddress::parse("fe80::1"), 0, 1}, {}, error)) break;
      std::this_thread::sleep_for(milliseconds(2));
    }
    allowed = true;
    try {
      run();
    } catch (...) {  // doctest's own, of a REQUIRE that failed and has been reported
    }
  });
  inside.join();
  if (!allowed) MESSAGE("not allowed to make a network namespace here");
  return allowed;
}

}  // namespace

TEST_CASE("DF: a datagram over the MTU does not leave and its error is heard; without DF it leaves in fragments") {
  for (const char* backend : backends) {
    for (const char* address : {"127.0.0.1", "::1"}) {
      in_own_network([&] {
        CAPTURE(backend);
        CAPTURE(address);
        auto loop = make(backend);
        if (!loop) return;
        Ear ear(*loop);
        const SocketId id = loop->add(udp(address, true), 1);
        const Socket peer = udp(address);
        std::string text(3000, 'x');
        Outgoing out = outgoing(id, local_address(peer), text);
        out.dont_fragment = true;
        loop->send(out);
        CHECK(loop->counters().send_too_large == 1);
        CHECK(turns(*loop, ear, [&] { return !ear.errors.empty(); }));
        CHECK(!ear.errors.at(0).from_icmp);
        CHECK(ear.errors.at(0).mtu == 1500);
        CHECK(ear.errors.at(0).destination.ip == local_address(peer).ip);
        out.dont_fragment = false;
        loop->send(out);
        std::optional<std::string> got;
        CHECK(turns(*loop, ear, [&] { return (got = hear(peer)).has_value(); }));
        CHECK(got == text);
        CHECK(loop->armed() == 1);
      });
    }
  }
}

TEST_CASE("the scope of a link-local client makes the round trip") {
  for (const char* backend : backends) {
    in_own_network([&] {
      CAPTURE(backend);
      auto loop = make(backend);
      if (!loop) return;
      Ear ear(*loop);
      ear.echo = true;
      int error = 0;
      const net::TransportAddress link_local{*net::IpAddress::parse("fe80::1"), 0, 1};
      Socket mine = open_udp(link_local, {}, error);
      REQUIRE(mine);
      const auto at = local_address(mine);
      CHECK(at.scope == 1);
      loop->add(std::move(mine), 1);
      const Socket client = open_udp(link_local, {}, error);
      say(client, at, "hello");
      std::optional<std::string> back;
      CHECK(turns(*loop, ear, [&] { return (back = hear(client)).has_value(); }));
      CHECK(back == "hello");
      CHECK(ear.heard.at(0).from.scope == 1);
      const auto hosts = host_addresses();
      CHECK(std::any_of(hosts.begin(), hosts.end(), [&](const HostAddress& h) { return h.ip == at.ip && h.scope == 1 && h.interface == "lo"; }));
    });
  }
}

TEST_CASE("a send to where no route leads is counted as unreachable") {
  for (const char* backend : backends) {
    in_own_network([&] {
      CAPTURE(backend);
      auto loop = make(backend);
      if (!loop) return;
      Ear ear(*loop);
      const SocketId id = loop->add(udp("0.0.0.0"), 1);
      std::string text = "text";
      loop->send(outgoing(id, {*net::IpAddress::parse("192.0.2.1"), 9, 0}, text));  // this network has nothing but lo
      REQUIRE(loop->turn(nanoseconds(0), ear));
      CHECK(loop->counters().send_unreachable == 1);
      CHECK(loop->counters().sent == 0);
    });
  }
}

TEST_CASE("the faulty loop fails when it is told to, and is the real one otherwise") {
  FaultyLoop loop(make("epoll"));
  Ear ear(loop);
  loop.fail_add(2);
  Socket mine = udp("127.0.0.1");
  const auto at = local_address(mine);
  const SocketId id = loop.add(std::move(mine), 1);
  CHECK(id != no_socket);
  CHECK(loop.add(udp("127.0.0.1"), 2) == no_socket);
  const Socket peer = udp("127.0.0.1");
  std::string text = "text";
  loop.fail_send(1);
  loop.send(outgoing(id, local_address(peer), text));
  loop.send(outgoing(id, local_address(peer), text));
  REQUIRE(loop.turn(nanoseconds(0), ear));
  CHECK(hear_all(peer, 1).size() == 1);
  CHECK(loop.counters().send_full == 1);
  say(peer, at, "heard");
  CHECK(turns(loop, ear, [&] { return ear.heard.size() == 1; }));
  loop.deafen(id);
  CHECK(loop.armed() == 0);
  say(peer, at, "not heard");
  REQUIRE(loop.turn(milliseconds(1), ear));
  CHECK(ear.heard.size() == 1);
  loop.fail_turn(1);
  CHECK(!loop.turn(nanoseconds(0), ear));
}
