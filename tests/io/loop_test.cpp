// Both loops, the same promises: io_uring and epoll.
#include <csignal>
#include <pthread.h>

#include <atomic>
#include <thread>

#include "harness.h"

using namespace radiotower;
using namespace radiotower::io;
using namespace radiotower::io::testing;

TEST_CASE("H17: what arrives is handed over whole with its source, and can be sent back from where it lies") {
  for (const char* backend : backends) {
    for (const char* address : {"127.0.0.1", "::1"}) {
      CAPTURE(backend);
      CAPTURE(address);
      auto loop = make(backend);
      if (!loop) continue;
      Ear ear(*loop);
      ear.echo = true;
      Socket mine = udp(address);
      const auto at = local_address(mine);
      const SocketId id = loop->add(std::move(mine), 42);
      REQUIRE(id != no_socket);
      const Socket peer = udp(address);
      for (const std::string& text : {std::string("hello"), std::string(), std::string(65507, 'x'), std::string(1400, 'y')}) {
        ear.heard.clear();
        say(peer, at, text);
        std::optional<std::string> back;
        CHECK(turns(*loop, ear, [&] { return (back = hear(peer)).has_value(); }));
        CHECK(back == text);
        REQUIRE(ear.heard.size() == 1);
        CHECK(ear.heard[0].cookie == 42);
        CHECK(ear.heard[0].socket == id);
        CHECK(ear.heard[0].from == local_address(peer));
      }
      CHECK(loop->armed() == loop->sockets());
    }
  }
}

TEST_CASE("a prefix is put in front without a copy") {
  for (const char* backend : backends) {
    CAPTURE(backend);
    auto loop = make(backend);
    if (!loop) continue;
    Ear ear(*loop);
    ear.echo = ear.prefix = true;
    Socket mine = udp("127.0.0.1");
    const auto at = local_address(mine);
    loop->add(std::move(mine), 1);
    const Socket peer = udp("127.0.0.1");
    say(peer, at, "er");
    std::optional<std::string> back;
    CHECK(turns(*loop, ear, [&] { return (back = hear(peer)).has_value(); }));
    CHECK(back == "HEADer");
  }
}

TEST_CASE("a train is taken apart: every stride, skip and prefix") {
  for (const char* backend : backends) {
    CAPTURE(backend);
    auto loop = make(backend);
    if (!loop) continue;
    Ear ear(*loop);
    Socket mine = udp("127.0.0.1");
    const SocketId id = loop->add(std::move(mine), 1);
    const Socket peer = udp("127.0.0.1");
    for (const std::uint16_t stride : std::initializer_list<std::uint16_t>{0, 1, 5, 6, 8, 100}) {
      for (const std::uint16_t skip : std::initializer_list<std::uint16_t>{0, 2, 4, 6}) {
        for (const std::uint8_t prefix : std::initializer_list<std::uint8_t>{0, 4}) {
          for (const bool dont_fragment : {false, true}) {
            if (stride == 0 && skip != 0) continue;
            CAPTURE(stride);
            CAPTURE(skip);
            CAPTURE(prefix);
            CAPTURE(dont_fragment);
            std::string text = "....aaaabbbbccccddd";
            std::vector<std::string> expected;
            for (std::size_t k = 4; k < text.size(); k += stride ? stride : 100) {
              const std::string whole = text.substr(k, stride ? stride : std::string::npos);
              expected.push_back(std::string(prefix ? "HEAD" : "") + whole.substr(std::min<std::size_t>(skip, whole.size())));
            }
            Outgoing out = outgoing(id, local_address(peer), text);
            out.bytes = out.bytes.subspan(4);
            out.stride = stride;
            out.skip = skip;
            out.prefix_size = prefix;
            out.prefix = {'H', 'E', 'A', 'D'};
            out.dont_fragment = dont_fragment;
            loop->send(out);
            std::vector<std::string> got;
            turns(*loop, ear, [&] {
              while (const auto one = hear(peer)) got.push_back(*one);
              return got.size() >= expected.size();
            });
            std::sort(got.begin(), got.end());
            std::sort(expected.begin(), expected.end());
            CHECK(got == expected);
          }
        }
      }
    }
  }
}

TEST_CASE("sockets come and go by the hundred; one that is gone says nothing more") {
  for (const char* backend : backends) {
    CAPTURE(backend);
    auto loop = make(backend);
    if (!loop) continue;
    Ear ear(*loop);
    const Socket peer = udp("127.0.0.1");
    for (int round = 0; round < 3; ++round) {
      std::vector<SocketId> ids;
      std::vector<net::TransportAddress> at;
      for (std::uint64_t i = 0; i < 500; ++i) {
        Socket s = udp("127.0.0.1");
        at.push_back(local_address(s));
        ids.push_back(loop->add(std::move(s), i));
        REQUIRE(ids.back() != no_socket);
      }
      CHECK(loop->sockets() == 500);
      ear.heard.clear();
      REQUIRE(loop->turn(nanoseconds(0), ear));
      for (std::size_t i = 0; i < 500; ++i) say(peer, at[i], std::to_string(i));
      CHECK(turns(*loop, ear, [&] { return ear.heard.size() == 500; }));
      for (const auto& h : ear.heard) CHECK(h.data == std::to_string(h.cookie));
      ear.heard.clear();
      for (std::size_t i = 0; i < 500; ++i) say(peer, at[i], "late");
      for (const SocketId id : ids) loop->remove(id);
      for (int i = 0; i < 5; ++i) REQUIRE(loop->turn(milliseconds(1), ear));
      CHECK(ear.heard.empty());
      CHECK(loop->sockets() == 0);
      CHECK(loop->armed() == 0);
      for (const SocketId id : ids) loop->remove(id);  // twice does no harm
    }
  }
}

TEST_CASE("G01: an ICMP error is reported with its destination, and what is sent next to somebody else still leaves") {
  for (const char* backend : backends) {
    for (const char* address : {"127.0.0.1", "::1"}) {
      CAPTURE(backend);
      CAPTURE(address);
      auto loop = make(backend);
      if (!loop) continue;
      Ear ear(*loop);
      const Nobody held(address);
      const net::TransportAddress nobody = held.address;
      Socket mine = udp(address, true);
      const net::TransportAddress at = local_address(mine);
      const SocketId id = loop->add(std::move(mine), 9);
      const Socket peer = udp(address);
      std::string text = "text";
      for (int i = 0; i < 5; ++i) {
        loop->send(outgoing(id, nobody, text));
        loop->send(outgoing(id, local_address(peer), text));
        REQUIRE(loop->turn(milliseconds(1), ear));
        REQUIRE(loop->turn(milliseconds(1), ear));
      }
      CHECK(turns(*loop, ear, [&] { return ear.errors.size() >= 5; }));
      const bool v4 = nobody.ip.is_v4();
      for (const auto& e : ear.errors) {
        CHECK(e.from_icmp);
        CHECK(e.icmp_type == (v4 ? 3 : 1));  // destination unreachable
        CHECK(e.icmp_code == (v4 ? 3 : 4));  // port
        CHECK(e.destination == nobody);
        CHECK(e.cookie == 9);
        CHECK(e.socket == id);
      }
      CHECK(hear_all(peer, 5).size() == 5);
      CHECK(loop->counters().send_unreachable == 0);
      CHECK(turns(*loop, ear, [&] { return loop->armed() == loop->sockets(); }));
      say(peer, at, "still there?");
      CHECK(turns(*loop, ear, [&] { return !ear.heard.empty(); }));
    }
  }
}

TEST_CASE("a send that an ICMP error got in the way of is repeated with its own bytes, however few buffers there are") {
  for (const char* backend : backends) {
    CAPTURE(backend);
    LoopSettings settings;
    settings.buffers = 8;
    auto loop = make(backend, settings);
    if (!loop) continue;
    Ear ear(*loop);
    const Nobody held("127.0.0.1");
    const net::TransportAddress nobody = held.address;
    Socket mine = udp("127.0.0.1", true);
    const net::TransportAddress at = local_address(mine);
    const SocketId id = loop->add(std::move(mine), 1);
    const Socket source = udp("127.0.0.1"), peer = udp("127.0.0.1");
    std::string doomed = "doomed";
    ear.on_each = [&](const Datagram& d) {  // each is forwarded, right behind one that brings an ICMP error
      loop->send(outgoing(id, nobody, doomed));
      Outgoing out;
      out.socket = id;
      out.to = local_address(peer);
      out.bytes = d.bytes;
      loop->send(out);
    };
    std::vector<std::string> expected, got;
    for (int i = 0; i < 300; ++i) {
      expected.push_back("packet " + std::to_string(i));
      say(source, at, expected.back());
    }
    CHECK(turns(*loop, ear, [&] {
      for (auto& one : hear_all(peer)) got.push_back(std::move(one));
      return got.size() >= expected.size();
    }));
    // One that was in the way of an error leaves behind those of its turn that were not.
    std::sort(got.begin(), got.end());
    std::sort(expected.begin(), expected.end());
    CHECK(got == expected);
    // sendmmsg swallows the errno of a datagram that is not the first of its batch: the epoll loop sends again without knowing.
    if (loop->name() == "io_uring") CHECK(loop->counters().send_retried > 0);
    CHECK(turns(*loop, ear, [&] { return loop->armed() == loop->sockets(); }));
    CHECK(loop->counters().sent >= 300);
  }
}

TEST_CASE("a burst of more datagrams than there are buffers is survived, and nothing is lost that the sockets could hold") {
  for (const char* backend : backends) {
    CAPTURE(backend);
    LoopSettings settings;
    settings.buffers = 64;
    auto loop = make(backend, settings);
    if (!loop) continue;
    Ear ear(*loop);
    std::vector<net::TransportAddress> at;
    for (std::uint64_t i = 0; i < 20; ++i) {
      Socket mine = udp("127.0.0.1");
      at.push_back(local_address(mine));
      REQUIRE(loop->add(std::move(mine), i) != no_socket);
    }
    REQUIRE(loop->turn(nanoseconds(0), ear));
    const Socket peer = udp("127.0.0.1");
    for (int i = 0; i < 3000; ++i) say(peer, at[static_cast<std::size_t>(i) % 20], std::to_string(i));
    std::size_t most = 0, before = 0;
    CHECK(turns(*loop, ear, [&] {
      most = std::max(most, ear.heard.size() - std::exchange(before, ear.heard.size()));
      return ear.heard.size() == 3000;
    }));
    CHECK(most <= 64);
    std::vector<int> last(20, -1);
    for (const Heard& h : ear.heard) {  // in order for each socket
      const int i = std::stoi(h.data);
      CHECK(static_cast<std::uint64_t>(i) % 20 == h.cookie);
      CHECK(i > last[h.cookie]);
      last[h.cookie] = i;
    }
    if (loop->name() == "io_uring") CHECK(loop->counters().out_of_buffers > 0);
    CHECK(loop->counters().received == 3000);
    CHECK(turns(*loop, ear, [&] { return loop->armed() == loop->sockets(); }));
  }
}

TEST_CASE("more sends than any queue holds leave all the same") {
  for (const char* backend : backends) {
    CAPTURE(backend);
    auto loop = make(backend);
    if (!loop) continue;
    Ear ear(*loop);
    const SocketId id = loop->add(udp("127.0.0.1"), 1);
    std::vector<Socket> peers;
    for (int i = 0; i < 20; ++i) peers.push_back(udp("127.0.0.1"));
    std::vector<std::string> texts;
    for (int i = 0; i < 6000; ++i) texts.push_back(std::to_string(i));
    for (std::size_t i = 0; i < 6000; ++i) loop->send(outgoing(id, local_address(peers[i % 20]), texts[i]));
    REQUIRE(loop->turn(nanoseconds(0), ear));
    REQUIRE(loop->turn(nanoseconds(0), ear));
    for (std::size_t p = 0; p < 20; ++p) {
      const auto got = hear_all(peers[p], 300);
      REQUIRE(got.size() == 300);
      for (std::size_t k = 0; k < got.size(); ++k) CHECK(got[k] == texts[k * 20 + p]);
    }
    CHECK(loop->counters().sent == 6000);
  }
}

TEST_CASE("the receiver may send, add and remove while it is told something") {
  for (const char* backend : backends) {
    CAPTURE(backend);
    auto loop = make(backend);
    if (!loop) continue;
    Ear ear(*loop);
    const Socket peer = udp("127.0.0.1");
    std::vector<SocketId> added;
    const auto churn = [&](SocketId about) {
      loop->remove(about);
      for (int i = 0; i < 50; ++i) added.push_back(loop->add(udp("127.0.0.1"), 7));  // the table grows under its reader
    };
    ear.on_each = [&](const Datagram& d) { churn(d.socket); };
    ear.on_error = [&](const SocketError& e) { churn(e.socket); };

    Socket first = udp("127.0.0.1", true), second = udp("127.0.0.1", true);
    const auto first_at = local_address(first);
    const SocketId id = loop->add(std::move(first), 1), other = loop->add(std::move(second), 2);
    for (int i = 0; i < 10; ++i) say(peer, first_at, "x");
    std::string text = "text";
    const Nobody nobody("127.0.0.1");
    for (int i = 0; i < 5; ++i) loop->send(outgoing(other, nobody.address, text));
    CHECK(turns(*loop, ear, [&] { return !ear.heard.empty() && !ear.errors.empty(); }));
    for (int i = 0; i < 5; ++i) REQUIRE(loop->turn(milliseconds(1), ear));
    CHECK(ear.heard.size() == 1);  // the first removed its socket, and the other nine are never heard of
    CHECK(ear.errors.size() == 1);
    CHECK(loop->sockets() == 100);
    CHECK(loop->armed() == 100);
    for (const SocketId a : added) CHECK((a != id && a != other));
  }
}

TEST_CASE("what is queued on a socket leaves before it is removed, and its port is free after the next turn") {
  for (const char* backend : backends) {
    CAPTURE(backend);
    auto loop = make(backend);
    if (!loop) continue;
    Ear ear(*loop);
    const Socket peer = udp("127.0.0.1");
    Socket mine = udp("127.0.0.1");
    const auto at = local_address(mine);
    const SocketId id = loop->add(std::move(mine), 1);
    REQUIRE(loop->turn(nanoseconds(0), ear));
    std::string text = "farewell";
    loop->send(outgoing(id, local_address(peer), text));
    loop->remove(id);
    REQUIRE(loop->turn(milliseconds(1), ear));
    CHECK(hear_all(peer, 1) == std::vector<std::string>{"farewell"});
    int error = 0;
    CHECK(open_udp(at, {}, error));
    CHECK(error == 0);
  }
}

TEST_CASE("DF on one datagram") {
  for (const char* backend : backends) {
    CAPTURE(backend);
    auto loop = make(backend);
    if (!loop) continue;
    Ear ear(*loop);
    const SocketId id = loop->add(udp("127.0.0.1"), 1);
    const Socket peer = udp("127.0.0.1");
    std::string text = "whole";
    Outgoing out;
    out.socket = id;
    out.to = local_address(peer);
    out.bytes = {reinterpret_cast<std::uint8_t*>(text.data()), text.size()};
    out.dont_fragment = true;
    loop->send(out);
    std::optional<std::string> got;
    CHECK(turns(*loop, ear, [&] { return (got = hear(peer)).has_value(); }));
    CHECK(got == "whole");
  }
}

TEST_CASE("wake() ends a wait from another thread, also one without limit") {
  for (const char* backend : backends) {
    CAPTURE(backend);
    auto loop = make(backend);
    if (!loop) continue;
    Ear ear(*loop);
    for (int i = 1; i <= 3; ++i) {
      std::thread other([&] { loop->wake(); });
      while (ear.wakes < i) REQUIRE(loop->turn(nanoseconds(-1), ear));
      other.join();
    }
    loop->wake();
    loop->wake();  // before anybody waits: not lost
    CHECK(turns(*loop, ear, [&] { return ear.wakes >= 4; }));
    REQUIRE(loop->turn(nanoseconds(0), ear));
    REQUIRE(loop->turn(milliseconds(1), ear));  // nothing to tell: returns all the same
    CHECK(ear.heard.empty());
  }
}

namespace {
Loop* woken_by_signal = nullptr;
}

TEST_CASE("signals neither break a turn nor stop wake() from working inside their handler") {
  for (const char* backend : backends) {
    CAPTURE(backend);
    auto loop = make(backend);
    if (!loop) continue;
    Ear ear(*loop);
    woken_by_signal = loop.get();
    struct sigaction action {}, before {};
    action.sa_handler = [](int) { woken_by_signal->wake(); };
    sigaction(SIGUSR1, &action, &before);
    std::atomic<bool> done = false;
    const pthread_t self = pthread_self();
    std::thread other([&] {
      while (!done) {
        pthread_kill(self, SIGUSR1);
        std::this_thread::sleep_for(milliseconds(1));
      }
    });
    while (ear.wakes < 20) REQUIRE(loop->turn(nanoseconds(-1), ear));
    done = true;
    other.join();
    sigaction(SIGUSR1, &before, nullptr);
  }
}

TEST_CASE("sends to nowhere are counted and harm nobody") {
  for (const char* backend : backends) {
    CAPTURE(backend);
    auto loop = make(backend);
    if (!loop) continue;
    Ear ear(*loop);
    const SocketId id = loop->add(udp("127.0.0.1", true), 1);
    const Socket peer = udp("127.0.0.1");
    std::vector<std::uint8_t> bytes(65535, 'x');
    Outgoing out;
    out.socket = id;
    out.to = local_address(peer);
    out.bytes = bytes;  // S05: no datagram is that long
    loop->send(out);
    CHECK(turns(*loop, ear, [&] { return loop->counters().send_too_large == 1; }));
    loop->remove(id);
    loop->send(out);
    REQUIRE(loop->turn(milliseconds(1), ear));
  }
}

TEST_CASE("the addresses of this host include its loopback") {
  bool loopback = false;
  for (const auto& a : host_addresses()) loopback = loopback || a.ip.is_loopback();
  CHECK(loopback);
}
