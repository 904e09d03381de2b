// Trains through the kernel, over loopback, by both loops: in (UDP_GRO), out (UDP_SEGMENT), and where they are refused.
#include <net/if.h>
#include <netinet/udp.h>
#include <sched.h>
#include <sys/ioctl.h>

#include <cerrno>
#include <thread>

#include "failing_calls.h"
#include "harness.h"

using namespace radiotower;
using namespace radiotower::io;
using namespace radiotower::io::testing;

namespace {

/// What a peer that takes trains hears: each with its segment size, 0 for a single one.
struct HeardTrain {
  std::size_t segment = 0;
  std::string bytes;
  bool operator==(const HeardTrain&) const = default;
};
std::vector<HeardTrain> hear_trains(const Socket& s) {
  std::vector<HeardTrain> all;
  for (;;) {
    HeardTrain train;
    train.bytes.resize(70000);
    iovec piece{train.bytes.data(), train.bytes.size()};
    alignas(cmsghdr) char control[256];
    msghdr m{};
    m.msg_iov = &piece;
    m.msg_iovlen = 1;
    m.msg_control = control;
    m.msg_controllen = sizeof control;
    const ssize_t n = recvmsg(s.descriptor(), &m, MSG_DONTWAIT);
    if (n < 0) return all;
    train.bytes.resize(static_cast<std::size_t>(n));
    for (cmsghdr* c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
      int size = 0;
      if (c->cmsg_level != IPPROTO_UDP || c->cmsg_type != UDP_GRO) continue;
      std::memcpy(&size, CMSG_DATA(c), sizeof size);
      train.segment = static_cast<std::size_t>(size);
    }
    all.push_back(train);
  }
}

void say_train(const Socket& from, const net::TransportAddress& to, const std::string& text, std::uint16_t segment) {
  sockaddr_in6 a;
  msghdr m{};
  m.msg_name = &a;
  m.msg_namelen = static_cast<socklen_t>(to.to_sockaddr(&a));
  iovec piece{const_cast<char*>(text.data()), text.size()};
  m.msg_iov = &piece;
  m.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof segment)] = {};
  m.msg_control = control;
  m.msg_controllen = sizeof control;
  cmsghdr* c = CMSG_FIRSTHDR(&m);
  c->cmsg_level = IPPROTO_UDP;
  c->cmsg_type = UDP_SEGMENT;
  c->cmsg_len = CMSG_LEN(sizeof segment);
  std::memcpy(CMSG_DATA(c), &segment, sizeof segment);
  REQUIRE(sendmsg(from.descriptor(), &m, 0) == static_cast<ssize_t>(text.size()));
}

std::string letters(std::size_t size) {
  std::string text;
  for (std::size_t i = 0; i < size; ++i) text += static_cast<char>('a' + i % 23);
  return text;
}

struct Bed {
  explicit Bed(const char* backend, const char* address = "127.0.0.1", bool peer_takes_trains = true)
      : loop(make(backend)), peer(udp(address, false, peer_takes_trains)) {
    if (!loop) return;
    ear = std::make_unique<Ear>(*loop);
    Socket mine = udp(address, true, true);
    at = local_address(mine);
    id = loop->add(std::move(mine), 7);
  }
  void send(std::string& text, std::uint16_t stride = 0, std::uint16_t skip = 0) {
    Outgoing out = outgoing(id, local_address(peer), text);
    out.stride = stride;
    out.skip = skip;
    loop->send(out);
  }
  std::vector<HeardTrain> heard(std::size_t bytes) {
    std::vector<HeardTrain> all;
    std::size_t sum = 0;
    turns(*loop, *ear, [&] {
      for (auto& one : hear_trains(peer)) {
        sum += one.bytes.size();
        all.push_back(one);
      }
      return sum >= bytes;
    });
    return all;
  }
  std::unique_ptr<Loop> loop;
  std::unique_ptr<Ear> ear;
  Socket peer;
  net::TransportAddress at;
  SocketId id = no_socket;
};

}  // namespace

TEST_CASE("a train arrives as one, with its stride, and every datagram of it is counted") {
  for (const char* backend : backends) {
    for (const char* address : {"127.0.0.1", "::1"}) {
      CAPTURE(backend);
      CAPTURE(address);
      Bed bed(backend, address);
      if (!bed.loop) continue;
      std::uint16_t segment = 1;
      bed.ear->on_each = [&](const Datagram& d) { segment = d.segment; };
      const std::string text = letters(8 * 1004 - 300);
      say_train(bed.peer, bed.at, text, 1004);
      CHECK(turns(*bed.loop, *bed.ear, [&] { return !bed.ear->heard.empty(); }));
      REQUIRE(bed.ear->heard.size() == 1);
      CHECK(bed.ear->heard[0].data == text);
      CHECK(segment == 1004);
      CHECK(bed.loop->counters().received == 8);
      CHECK(bed.loop->counters().trains_received == 1);
      say(bed.peer, bed.at, "alone");
      CHECK(turns(*bed.loop, *bed.ear, [&] { return bed.ear->heard.size() == 2; }));
      CHECK(segment == 0);
      CHECK(bed.loop->counters().received == 9);
    }
  }
}

TEST_CASE("a train leaves as one: heads are skipped, and the last may be shorter") {
  for (const char* backend : backends) {
    for (const char* address : {"127.0.0.1", "::1"}) {
      CAPTURE(backend);
      CAPTURE(address);
      Bed bed(backend, address);
      if (!bed.loop) continue;
      std::string text = "HEADaaaaaaHEADbbbbbbHEADcc";
      bed.send(text, 10, 4);
      CHECK(bed.heard(14) == std::vector<HeardTrain>{{6, "aaaaaabbbbbbcc"}});
      CHECK(bed.loop->turn(nanoseconds(0), *bed.ear));
      CHECK(bed.loop->counters().trains_sent == 1);
      CHECK(bed.loop->counters().sent == 3);
      CHECK(bed.loop->counters().trains_refused == 0);
    }
  }
}

TEST_CASE("neighbours of one flow leave as one train, in their order, also when other flows come between them") {
  for (const char* backend : backends) {
    CAPTURE(backend);
    Bed bed(backend);
    if (!bed.loop) continue;
    const Socket other = udp("127.0.0.1");
    std::string a = "aaaa", b = "bbbb", x = "xxxx", c = "cc", d = "dddd", train = "eeeeffff";
    bed.send(a);
    Outgoing between = outgoing(bed.id, local_address(other), x);
    bed.loop->send(between);
    bed.send(b);
    bed.loop->send(between);
    bed.send(c);      // shorter: it ends the train
    bed.send(d);      // and this begins another
    bed.send(train, 4);
    CHECK(bed.heard(22) == std::vector<HeardTrain>{{4, "aaaabbbbcc"}, {4, "ddddeeeeffff"}});
    CHECK(hear_all(other, 2) == std::vector<std::string>{"xxxx", "xxxx"});
    CHECK(bed.loop->turn(nanoseconds(0), *bed.ear));
    CHECK(bed.loop->counters().sent == 8);
    CHECK(bed.loop->counters().trains_sent == 2);  // two alone do not pay
  }
}

TEST_CASE("what was queued in one turn does not wait for what comes in the next") {
  for (const char* backend : backends) {
    CAPTURE(backend);
    Bed bed(backend);
    if (!bed.loop) continue;
    std::string a = "aaaa", b = "bbbb";
    bed.send(a);
    REQUIRE(bed.loop->turn(nanoseconds(0), *bed.ear));
    bed.send(b);
    REQUIRE(bed.loop->turn(nanoseconds(0), *bed.ear));
    CHECK(bed.heard(8) == std::vector<HeardTrain>{{0, "aaaa"}, {0, "bbbb"}});
  }
}

TEST_CASE("empty datagrams leave one by one, each of them") {
  for (const char* backend : backends) {
    CAPTURE(backend);
    Bed bed(backend, "127.0.0.1", false);
    if (!bed.loop) continue;
    std::string none, a = "aaaa", heads = "HEADaaHEADbbHEAD";
    bed.send(none);
    bed.send(none);
    bed.send(a);
    bed.send(none);
    bed.send(heads, 6, 4);
    for (int i = 0; i < 3; ++i) REQUIRE(bed.loop->turn(nanoseconds(0), *bed.ear));
    CHECK(hear_all(bed.peer, 7) == std::vector<std::string>{"", "", "aaaa", "", "aa", "bb", ""});
    CHECK(bed.loop->counters().sent == 7);
  }
}

TEST_CASE("the longest train there is, with heads put in front, arrives whole") {
  for (const char* backend : backends) {
    CAPTURE(backend);
    Bed bed(backend, "127.0.0.1", false);
    if (!bed.loop) continue;
    std::string text = letters(65000);
    Outgoing out = outgoing(bed.id, local_address(bed.peer), text);
    out.stride = 500;
    out.prefix_size = 4;
    out.prefix = {'H', 'E', 'A', 'D'};
    bed.loop->send(out);
    std::vector<std::string> got;
    turns(*bed.loop, *bed.ear, [&] {
      for (auto& one : hear_all(bed.peer)) got.push_back(one);
      return got.size() >= 130;
    });
    REQUIRE(got.size() == 130);
    for (std::size_t k = 0; k < got.size(); ++k) CHECK(got[k] == "HEAD" + text.substr(k * 500, 500));
  }
}

TEST_CASE("segments larger than the path's MTU leave one by one, and the destination is remembered") {
  for (const char* backend : backends) {
    CAPTURE(backend);
    Bed bed(backend, "127.0.0.1", false);
    if (!bed.loop) continue;
    // Loopback has an MTU of 65,536: the kernel refuses by its own bound only what we never build. So the refusal is made by hand.
    std::string text = letters(4000);
    const auto arrive = [&] {
      std::vector<std::string> got;
      turns(*bed.loop, *bed.ear, [&] {
        for (auto& one : hear_all(bed.peer)) got.push_back(one);
        return got.size() >= 4;
      });
      REQUIRE(got.size() == 4);
      for (std::size_t k = 0; k < 4; ++k) CHECK(got[k] == text.substr(k * 1000, 1000));
    };
    if (std::string_view(backend) != "epoll") continue;  // the ring's sends make no call that could be made to fail
    {
      const FailingCall refused(Call::sendmmsg, 1, EMSGSIZE);
      bed.send(text, 1000);
      arrive();
    }
    CHECK(bed.loop->counters().trains_refused == 1);
    const auto refusal = bed.loop->first_refusal();
    REQUIRE(refusal);
    CHECK(refusal->error == EMSGSIZE);
    CHECK(refusal->to == local_address(bed.peer));
    CHECK(refusal->segment == 1000);
    CHECK_FALSE(bed.loop->first_refusal());
    bed.send(text, 1000);
    arrive();
    CHECK(bed.loop->counters().trains_sent == 0);  // not tried again
    std::string smaller = letters(400);
    bed.send(smaller, 100);
    for (int i = 0; i < 2; ++i) REQUIRE(bed.loop->turn(nanoseconds(0), *bed.ear));
    CHECK(bed.loop->counters().trains_sent == 1);  // smaller ones fit
    CHECK(hear_all(bed.peer, 4).size() == 4);
    {
      const FailingCall refused(Call::sendmmsg, 1, EIO);  // a device without checksums: no train of this socket
      bed.send(smaller, 100);
      for (int i = 0; i < 2; ++i) REQUIRE(bed.loop->turn(nanoseconds(0), *bed.ear));
    }
    bed.send(smaller, 100);
    for (int i = 0; i < 2; ++i) REQUIRE(bed.loop->turn(nanoseconds(0), *bed.ear));
    CHECK(bed.loop->counters().trains_sent == 1);
    CHECK(hear_all(bed.peer, 8).size() == 8);
    CHECK(bed.loop->counters().send_too_large == 0);
  }
}

TEST_CASE("a path with a small MTU: trains of larger datagrams leave one by one, in fragments, and are not tried again; smaller ones leave as trains") {
  std::thread elsewhere([] {  // a network namespace of this thread's own, where loopback may have any MTU
    if (unshare(CLONE_NEWNET) != 0) {
      MESSAGE("no network namespace here: ", std::strerror(errno));
      return;
    }
    const int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    ifreq lo{};
    std::memcpy(lo.ifr_name, "lo", 3);
    lo.ifr_flags = IFF_UP;
    const bool is_up = ioctl(control, SIOCSIFFLAGS, &lo) == 0;
    lo.ifr_mtu = 1500;
    const bool is_small = ioctl(control, SIOCSIFMTU, &lo) == 0;
    close(control);
    REQUIRE(is_up);
    REQUIRE(is_small);
    for (const char* backend : backends) {
      CAPTURE(backend);
      Bed bed(backend, "127.0.0.1", false);
      if (!bed.loop) continue;
      std::string large = letters(8000), small = letters(4000);
      const auto arrive = [&](const std::string& text, std::size_t size) {
        std::vector<std::string> got;
        turns(*bed.loop, *bed.ear, [&] {
          for (auto& one : hear_all(bed.peer)) got.push_back(one);
          return got.size() >= text.size() / size;
        });
        REQUIRE(got.size() == text.size() / size);
        for (std::size_t k = 0; k < got.size(); ++k) CHECK(got[k] == text.substr(k * size, size));
      };
      for (int i = 0; i < 3; ++i) {
        bed.send(large, 2000);
        arrive(large, 2000);
        bed.send(small, 1000);
        arrive(small, 1000);
      }
      for (int i = 0; i < 2; ++i) REQUIRE(bed.loop->turn(nanoseconds(0), *bed.ear));
      CHECK(bed.loop->counters().trains_refused == 1);
      CHECK(bed.loop->counters().sent == 24);
      CHECK(bed.loop->counters().send_too_large == 0);
      const auto refusal = bed.loop->first_refusal();
      REQUIRE(refusal);
      CHECK((refusal->error == EMSGSIZE || refusal->error == EINVAL));
      CHECK(refusal->segment == 2000);
    }
  });
  elsewhere.join();
}

TEST_CASE("what the kernel drops since a receive buffer is full is counted for its socket") {
  for (const char* backend : backends) {
    CAPTURE(backend);
    auto loop = make(backend);
    if (!loop) continue;
    Ear ear(*loop);
    int error = 0;
    Socket mine = open_udp({*net::IpAddress::parse("127.0.0.1"), 0, 0}, {false, false, 4096, 0, true}, error);
    const auto at = local_address(mine);
    CHECK(receive_buffer(mine) >= 1024);
    const Socket peer = udp("127.0.0.1");
    for (int i = 0; i < 100; ++i) say(peer, at, letters(1000));
    const SocketId id = loop->add(std::move(mine), 1);
    CHECK(turns(*loop, ear, [&] { return !ear.heard.empty(); }));
    for (int i = 0; i < 3; ++i) REQUIRE(loop->turn(milliseconds(1), ear));
    const std::uint64_t lost = 100 - ear.heard.size();
    CHECK(lost > 0);
    CHECK(loop->counters().kernel_drops == 0);
    loop->count_kernel_drops();
    CHECK(loop->counters().kernel_drops == lost);
    CHECK(loop->kernel_drops(id) == lost);
    loop->remove(id);
    CHECK(loop->counters().kernel_drops == lost);
    CHECK(loop->kernel_drops(id) == 0);
  }
}
