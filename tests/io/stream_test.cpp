// Both loops, the same promises: what TCP streams say and are told.
#include <fcntl.h>
#include <netinet/tcp.h>

#include "stream_harness.h"

using namespace radiotower;
using namespace radiotower::io;
using namespace radiotower::io::testing;

TEST_CASE("connections are accepted over IPv4 and IPv6 with their source, and bytes go both ways") {
  for (const char* backend : backends) {
    for (const char* address : {"127.0.0.1", "::1"}) {
      CAPTURE(backend);
      CAPTURE(address);
      auto loop = make(backend);
      if (!loop) continue;
      StreamEar ear(*loop);
      Socket mine = listener(address);
      const auto at = local_address(mine);
      const SocketId acceptor = loop->add_acceptor(std::move(mine), 7);
      REQUIRE(acceptor != no_socket);
      const Socket peer = connect_to(at);
      REQUIRE(turns(*loop, ear, [&] { return ear.accepted == 1; }));
      CHECK(ear.last_from == local_address(peer));
      CHECK(ear.last_acceptor == acceptor);
      CHECK(ear.last_cookie == 7);
      const SocketId id = ear.streams.at(0);
      push(peer, "hello");
      CHECK(turns(*loop, ear, [&] { return ear.said[id] == "hello"; }));
      const iovec pieces[] = {{const_cast<char*>("ab"), 2}, {nullptr, 0}, {const_cast<char*>("cde"), 3}};
      CHECK(loop->write(id, pieces, 3) == 5);
      std::string back;
      CHECK(turns(*loop, ear, [&] { return (back += pull(peer)) == "abcde"; }));
      CHECK(loop->sockets() == 2);
      CHECK(turns(*loop, ear, [&] { return loop->armed() == 2; }));
      CHECK(loop->counters().accepted == 1);
      CHECK(loop->counters().stream_bytes_received == 5);
      CHECK(loop->counters().stream_bytes_sent == 5);
      CHECK(loop->counters().stream_writes == 1);
      CHECK(loop->counters().stream_writes_short == 0);
      loop->remove(id);
      loop->remove(acceptor);
      CHECK(turns(*loop, ear, [&] { return at_end(peer); }));
      CHECK(loop->sockets() == 0);
      CHECK(loop->armed() == 0);
      int error = 0;
      CHECK(open_tcp_listener(at, {}, error));  // its port is free
      CHECK(ear.ends.empty());
    }
  }
}

TEST_CASE("what is accepted has TCP_NODELAY and keep-alive, does not block and is closed on exec") {
  for (const char* backend : backends) {
    CAPTURE(backend);
    auto loop = make(backend);
    if (!loop) continue;
    StreamEar ear(*loop);
    Socket mine = listener(), got;
    const auto at = local_address(mine);
    ear.on_connection = [&](Socket s) { got = std::move(s); };
    loop->add_acceptor(std::move(mine), 1);
    const Socket peer = connect_to(at);
    REQUIRE(turns(*loop, ear, [&] { return static_cast<bool>(got); }));
    for (const Socket* s : std::initializer_list<const Socket*>{&got, &peer}) {
      const auto option = [&](int level, int name) {
        int value = 0;
        socklen_t length = sizeof value;
        CHECK(getsockopt(s->descriptor(), level, name, &value, &length) == 0);
        return value;
      };
      CHECK(option(IPPROTO_TCP, TCP_NODELAY) != 0);
      CHECK(option(SOL_SOCKET, SO_KEEPALIVE) != 0);
      CHECK(option(IPPROTO_TCP, TCP_KEEPIDLE) == 60);
      CHECK((fcntl(s->descriptor(), F_GETFL) & O_NONBLOCK) != 0);
      CHECK((fcntl(s->descriptor(), F_GETFD) & FD_CLOEXEC) != 0);
    }
  }
}

TEST_CASE("bytes that come split anywhere arrive in order, none lost or doubled") {
  for (const char* backend : backends) {
    CAPTURE(backend);
    auto loop = make(backend);
    if (!loop) continue;
    StreamEar ear(*loop);
    const std::string text = "0123456789abcdef";
    const Pair p = pair_in(*loop, 5);
    std::string expected;
    for (std::size_t cut = 1; cut < text.size(); ++cut) {
      for (const std::string_view part : {std::string_view(text).substr(0, cut), std::string_view(text).substr(cut)}) {
        push(p.outside, part);
        expected += part;
        CHECK(turns(*loop, ear, [&] { return ear.said[p.id] == expected; }));
      }
    }
  }
}

TEST_CASE("a received chunk stays as it was through the next turn, and may be written over") {
  for (const char* backend : backends) {
    CAPTURE(backend);
    LoopSettings settings;
    settings.buffers = 128;
    auto loop = make(backend, settings);
    if (!loop) continue;
    StreamEar ear(*loop);
    Pair p = pair_in(*loop, 5);
    std::vector<std::pair<MutableBytes, std::string>> last, now;
    ear.each = [&](const Chunk& c) {
      now.emplace_back(c.bytes, std::string(as_text(c.bytes)));
      c.bytes[0] ^= 1;
      now.back().second[0] = static_cast<char>(c.bytes[0]);
    };
    for (int i = 0; i < 600; ++i) {
      push(p.outside, std::to_string(i));
      now.clear();
      REQUIRE(loop->turn(milliseconds(10), ear));
      for (const auto& [bytes, text] : last) CHECK(std::string(as_text(bytes)) == text);
      last.swap(now);
    }
  }
}

TEST_CASE("a slow reader: short writes, one on_writable for each time it is asked for, every byte arrives") {
  for (const char* backend : backends) {
    CAPTURE(backend);
    auto loop = make(backend);
    if (!loop) continue;
    StreamEar ear(*loop);
    const Pair p = pair_in(*loop, 5);
    const std::string text = pattern(16 << 20);
    std::size_t done = 0;
    int asked = 0;
    const auto write_on = [&] {
      while (done < text.size()) {
        const auto n = write_text(*loop, p.id, std::string_view(text).substr(done, 100'000));
        REQUIRE(n >= 0);
        done += static_cast<std::size_t>(n);
        if (n < 100'000 && done < text.size()) {
          loop->want_writable(p.id);
          loop->want_writable(p.id);  // once asked is asked
          ++asked;
          return;
        }
      }
    };
    ear.at_writable = [&](SocketId) { write_on(); };
    write_on();
    CHECK(asked == 1);
    for (int i = 0; i < 5; ++i) REQUIRE(loop->turn(nanoseconds(0), ear));
    std::string got;
    for (const auto end = std::chrono::steady_clock::now() + patience; got.size() < text.size() && std::chrono::steady_clock::now() < end;) {
      const std::string more = pull(p.outside, 65536);
      REQUIRE(loop->turn(milliseconds(more.empty() ? 5 : 0), ear));
      got += more;
    }
    CHECK(got == text);
    CHECK(ear.writable[p.id] == asked);
    CHECK(loop->counters().stream_writes_short > 0);
    CHECK(loop->counters().stream_bytes_sent == text.size());
  }
}

TEST_CASE("a paused stream says nothing and holds its sender up; resumed, it goes on where it was") {
  for (const char* backend : backends) {
    CAPTURE(backend);
    auto loop = make(backend);
    if (!loop) continue;
    StreamEar ear(*loop);
    const Pair p = pair_in(*loop, 5);
    for (int i = 0; i < 3; ++i) REQUIRE(loop->turn(nanoseconds(0), ear));
    loop->pause(p.id);
    for (int i = 0; i < 3; ++i) REQUIRE(loop->turn(nanoseconds(0), ear));
    const std::string text = pattern(64 << 20);
    std::size_t sent = 0;
    for (int i = 0; i < 50; ++i) {
      sent += push(p.outside, std::string_view(text).substr(sent));
      REQUIRE(loop->turn(milliseconds(1), ear));
    }
    CHECK(sent < text.size());
    CHECK(ear.said[p.id].empty());
    CHECK(loop->armed() == loop->sockets());
    loop->pause(p.id);
    loop->resume(p.id);
    loop->resume(p.id);
    CHECK(turns(*loop, ear, [&] { return ear.said[p.id].size() == sent; }));
    loop->pause(p.id);  // and at once: nothing is lost where the two meet
    loop->resume(p.id);
    sent += push(p.outside, "end");
    CHECK(turns(*loop, ear, [&] { return ear.said[p.id].size() == sent; }));
    CHECK(std::string_view(ear.said[p.id]).substr(0, sent - 3) == std::string_view(text).substr(0, sent - 3));
    CHECK(turns(*loop, ear, [&] { return loop->armed() == loop->sockets(); }));
  }
}

TEST_CASE("pause from within on_chunk, at every chunk") {
  for (const char* backend : backends) {
    CAPTURE(backend);
    LoopSettings settings;
    settings.buffers = 16;
    auto loop = make(backend, settings);
    if (!loop) continue;
    StreamEar ear(*loop);
    const Pair p = pair_in(*loop, 5);
    const std::string text = pattern(4 << 20);
    ear.each = [&](const Chunk& c) { loop->pause(c.socket); };
    std::size_t sent = 0;
    for (const auto end = std::chrono::steady_clock::now() + patience; ear.said[p.id].size() < text.size() && std::chrono::steady_clock::now() < end;) {
      sent += push(p.outside, std::string_view(text).substr(sent));
      REQUIRE(loop->turn(nanoseconds(0), ear));
      loop->resume(p.id);
    }
    CHECK(ear.said[p.id] == text);
  }
}

TEST_CASE("a stream is released into another loop in full flow: no byte is lost or doubled") {
  for (const char* backend : backends) {
    CAPTURE(backend);
    auto first = make(backend), second = make(backend);
    if (!first || !second) continue;
    StreamEar ear1(*first), ear2(*second);
    const Pair p = pair_in(*first, 77);
    const std::string text = pattern(8 << 20);
    std::size_t sent = 0;
    std::string got;
    Loop* loops[] = {first.get(), second.get()};
    StreamEar* ears[] = {&ear1, &ear2};
    SocketId id = p.id;
    std::size_t here = 0, moves = 0;
    const auto end = std::chrono::steady_clock::now() + patience;
    for (int i = 0; got.size() < text.size() && std::chrono::steady_clock::now() < end; ++i) {
      sent += push(p.outside, std::string_view(text).substr(sent, 50'000));
      if (i % 3 == 0) {
        Loop& from = *loops[here];
        StreamEar& ear = *ears[here];
        from.release(id);
        from.release(id);
        from.pause(id);
        from.want_writable(id);
        CHECK(ear.released.empty());
        REQUIRE(turns(from, ear, [&] { return !ear.released.empty(); }));
        REQUIRE(ear.released.size() == 1);
        CHECK(ear.released[0].first == 77);
        got += std::exchange(ear.said[id], {});
        CHECK(from.sockets() == 0);
        CHECK(from.armed() == 0);
        here ^= 1;
        ++moves;
        id = loops[here]->add_stream(std::move(ear.released[0].second), 77);
        REQUIRE(id != no_socket);
        ear.released.clear();
      }
      REQUIRE(loops[here]->turn(nanoseconds(0), *ears[here]));
      got += std::exchange(ears[here]->said[id], {});
    }
    CHECK(got == text);
    CHECK(moves > 10);
    CHECK(ear1.ends.empty());
    CHECK(ear2.ends.empty());
  }
}

TEST_CASE("released from within on_chunk, paused or not yet heard of by the kernel; removed while it is on its way out") {
  for (const char* backend : backends) {
    CAPTURE(backend);
    auto loop = make(backend);
    if (!loop) continue;
    StreamEar ear(*loop);
    Pair talking = pair_in(*loop, 1), paused = pair_in(*loop, 2), fresh = pair_in(*loop, 3), gone = pair_in(*loop, 4);
    ear.each = [&](const Chunk& c) { loop->release(c.socket); };
    loop->release(fresh.id);
    loop->pause(paused.id);
    REQUIRE(loop->turn(nanoseconds(0), ear));
    loop->release(paused.id);
    push(talking.outside, "x");
    loop->release(gone.id);
    loop->remove(gone.id);
    CHECK(turns(*loop, ear, [&] { return ear.released.size() == 3; }));
    CHECK(ear.said[talking.id] == "x");
    CHECK(turns(*loop, ear, [&] { return at_end(gone.outside); }));
    CHECK(!at_end(talking.outside));
    CHECK(ear.released.size() == 3);
    CHECK(loop->sockets() == 0);
    CHECK(loop->armed() == 0);
  }
}

TEST_CASE("500 connections at once are all accepted and all heard") {
  for (const char* backend : backends) {
    CAPTURE(backend);
    auto loop = make(backend);
    if (!loop) continue;
    StreamEar ear(*loop);
    Socket mine = listener();
    const auto at = local_address(mine);
    loop->add_acceptor(std::move(mine), 1);
    std::vector<Socket> peers;
    for (int i = 0; i < 400; ++i) peers.push_back(connect_to(at));
    for (auto& peer : peers) push(peer, "first");
    CHECK(turns(*loop, ear, [&] { return ear.accepted == peers.size(); }));
    for (int i = 0; i < 100; ++i) peers.push_back(connect_to(at));
    CHECK(turns(*loop, ear, [&] { return ear.accepted == peers.size(); }));
    for (auto& peer : peers) push(peer, "word");
    const auto heard = [&] {
      return std::count_if(ear.said.begin(), ear.said.end(), [](const auto& s) { return s.second == "firstword" || s.second == "word"; });
    };
    CHECK(turns(*loop, ear, [&] { return heard() == 500; }));
    CHECK(turns(*loop, ear, [&] { return loop->armed() == 501; }));
    peers.clear();
    ear.at_end = [&](SocketId id) { loop->remove(id); };
    CHECK(turns(*loop, ear, [&] { return ear.ends.size() == 500; }));
    CHECK(loop->sockets() == 1);
    REQUIRE(loop->turn(nanoseconds(0), ear));
    CHECK(loop->armed() == 1);
  }
}

TEST_CASE("firehoses beside a trickle and a UDP socket, with few buffers: everyone is heard every few turns") {
  for (const char* backend : backends) {
    CAPTURE(backend);
    LoopSettings settings;
    settings.buffers = 256;
    auto loop = make(backend, settings);
    if (!loop) continue;
    StreamEar ear(*loop);
    std::vector<Pair> hoses;
    for (int i = 0; i < 3; ++i) hoses.push_back(pair_in(*loop, 1));
    const Pair trickle = pair_in(*loop, 2);
    Socket mine = udp("127.0.0.1");
    const auto at = local_address(mine);
    loop->add(std::move(mine), 3);
    const Socket peer = udp("127.0.0.1");
    const std::string much(1 << 20, 'x');
    std::size_t poured = 0;
    std::uint64_t early = 0;
    for (int i = 0; i < 300; ++i) {
      for (const Pair& hose : hoses) poured += push(hose.outside, much);
      push(trickle.outside, "t");
      say(peer, at, "u");
      REQUIRE(loop->turn(nanoseconds(0), ear));
      if (i == 99) early = loop->counters().chunks_received;
      CHECK(ear.said[trickle.id].size() + 3 > static_cast<std::size_t>(i));
      CHECK(ear.datagrams.size() + 3 > static_cast<std::size_t>(i));
    }
    CHECK(loop->counters().chunks_received - early < 200 * 16);  // four streams: about as many buffers a turn, though a burst may come now and then
    const auto heard = [&] {
      std::size_t all = 0;
      for (const Pair& hose : hoses) all += ear.said[hose.id].size();
      return all;
    };
    CHECK(turns(*loop, ear, [&] { return heard() == poured; }));
    CHECK(ear.said[trickle.id].size() == 300);
    CHECK(ear.datagrams.size() == 300);
  }
}
