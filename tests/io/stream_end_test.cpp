// Both loops, the same promises: how streams begin, fail and end.
#include <fcntl.h>
#include <sys/resource.h>

#include <set>

#include "failing_calls.h"
#include "stream_harness.h"

using namespace radiotower;
using namespace radiotower::io;
using namespace radiotower::io::testing;

TEST_CASE("an end is told once, after all bytes; the way out stays open until the stream is removed") {
  for (const char* backend : backends) {
    CAPTURE(backend);
    auto loop = make(backend);
    if (!loop) continue;
    StreamEar ear(*loop);
    const Pair p = pair_in(*loop, 9);
    const std::string text = pattern(100'000);
    push(p.outside, text);
    shutdown(p.outside.descriptor(), SHUT_WR);
    ear.at_end = [&](SocketId id) { CHECK(ear.said[id] == text); };
    CHECK(turns(*loop, ear, [&] { return !ear.ends.empty(); }));
    for (int i = 0; i < 5; ++i) REQUIRE(loop->turn(nanoseconds(0), ear));
    REQUIRE(ear.ends.size() == 1);
    CHECK(ear.ends[0].socket == p.id);
    CHECK(ear.ends[0].cookie == 9);
    CHECK(ear.ends[0].error == 0);
    CHECK(loop->armed() == loop->sockets());
    loop->resume(p.id);  // nothing begins again
    CHECK(write_text(*loop, p.id, "last words") == 10);
    loop->remove(p.id);
    std::string back;
    CHECK(turns(*loop, ear, [&] { return (back += pull(p.outside)) == "last words" && at_end(p.outside); }));
    CHECK(ear.ends.size() == 1);
    CHECK(write_text(*loop, p.id, "x") == -EBADF);
    CHECK(loop->stream_error(p.id) == EBADF);
  }
}

TEST_CASE("a reset is told as an errno, once; writing to it is an errno and no signal") {
  for (const char* backend : backends) {
    CAPTURE(backend);
    auto loop = make(backend);
    if (!loop) continue;
    StreamEar ear(*loop);
    Pair p = pair_in(*loop, 9), q = pair_in(*loop, 10);
    REQUIRE(loop->turn(nanoseconds(0), ear));
    reset(p.outside);
    CHECK(turns(*loop, ear, [&] { return !ear.ends.empty(); }));
    for (int i = 0; i < 5; ++i) REQUIRE(loop->turn(nanoseconds(0), ear));
    REQUIRE(ear.ends.size() == 1);
    CHECK(ear.ends[0].error == ECONNRESET);
    CHECK(write_text(*loop, p.id, "x") == -EPIPE);
    // Written to before the loop has looked: whoever meets the error first, the end tells it.
    reset(q.outside);
    CHECK(write_text(*loop, q.id, "x") < 0);
    CHECK(turns(*loop, ear, [&] { return ear.ends.size() == 2; }));
    CHECK(ear.ends[1].error != 0);
    CHECK(loop->armed() == loop->sockets());
  }
}

TEST_CASE("a connection that was reset before it was accepted, or while it is paused, harms nobody") {
  for (const char* backend : backends) {
    CAPTURE(backend);
    auto loop = make(backend);
    if (!loop) continue;
    StreamEar ear(*loop);
    Socket mine = listener();
    const auto at = local_address(mine);
    Socket hasty = connect_to(at);
    reset(hasty);
    loop->add_acceptor(std::move(mine), 1);
    const Socket after = connect_to(at);
    Pair p = pair_in(*loop, 9);
    loop->pause(p.id);
    for (int i = 0; i < 3; ++i) REQUIRE(loop->turn(nanoseconds(0), ear));
    reset(p.outside);
    push(after, "after");
    CHECK(turns(*loop, ear, [&] { return !ear.streams.empty() && ear.said[ear.streams.back()] == "after"; }));
    if (ear.streams.size() == 2) {  // the kernel hands it in, and then it ends
      CHECK(turns(*loop, ear, [&] { return !ear.ends.empty(); }));
      CHECK(ear.ends.at(0).error == ECONNRESET);
    }
    ear.ends.clear();
    const auto turns_before = loop->counters().turns;
    REQUIRE(loop->turn(milliseconds(20), ear));
    CHECK(loop->counters().turns == turns_before + 1);
    loop->resume(p.id);
    CHECK(turns(*loop, ear, [&] { return ear.ends.size() == 1; }));
    CHECK(ear.ends.at(0).error == ECONNRESET);
  }
}

TEST_CASE("removed in the midst of any callback, a stream is never heard of again, nor is its successor mistaken for it") {
  for (const char* backend : backends) {
    CAPTURE(backend);
    auto loop = make(backend);
    if (!loop) continue;
    StreamEar ear(*loop);
    std::set<SocketId> gone;
    std::vector<Pair> pairs;
    std::size_t chunks = 0;
    ear.each = [&](const Chunk& c) {
      CHECK(!gone.contains(c.socket));
      ++chunks;
      loop->remove(c.socket);
      gone.insert(c.socket);
      loop->pause(c.socket);
      loop->resume(c.socket);
      loop->want_writable(c.socket);
      loop->release(c.socket);
      pairs.push_back(pair_in(*loop, 2));  // takes its place at once
      CHECK(!gone.contains(pairs.back().id));
    };
    ear.at_end = [&](SocketId id) { CHECK(!gone.contains(id)); };
    ear.at_writable = [&](SocketId id) {
      CHECK(!gone.contains(id));
      loop->remove(id);
      gone.insert(id);
    };
    for (int i = 0; i < 20; ++i) pairs.push_back(pair_in(*loop, 1));
    const std::string text = pattern(200'000);
    for (int i = 0; i < 20; ++i) push(pairs[static_cast<std::size_t>(i)].outside, text);
    CHECK(turns(*loop, ear, [&] { return chunks == 20; }));
    CHECK(loop->sockets() == 20);
    for (std::size_t i = 20; i < 40; ++i) loop->want_writable(pairs[i].id);
    CHECK(turns(*loop, ear, [&] { return loop->sockets() == 0; }));
    CHECK(turns(*loop, ear, [&] { return loop->armed() == 0; }));
    CHECK(chunks == 20);
    CHECK(ear.ends.empty());
    CHECK(ear.released.empty());
    for (const Pair& p : pairs) CHECK(turns(*loop, ear, [&] { return at_end(p.outside); }));
  }
}

TEST_CASE("remove with a receive armed and a watch set closes the connection in the next turn, however long that waits") {
  for (const char* backend : backends) {
    CAPTURE(backend);
    auto loop = make(backend);
    if (!loop) continue;
    StreamEar ear(*loop);
    Pair p = pair_in(*loop, 1);
    while (write_text(*loop, p.id, std::string(1 << 16, 'x')) > 0) {}
    loop->want_writable(p.id);
    for (int i = 0; i < 3; ++i) REQUIRE(loop->turn(nanoseconds(0), ear));
    loop->remove(p.id);
    REQUIRE(loop->turn(milliseconds(50), ear));
    CHECK(loop->armed() == 0);
    CHECK(turns(*loop, ear, [&] { return pull(p.outside).empty() && at_end(p.outside); }));
    CHECK(ear.writable.empty());
  }
}

TEST_CASE("connecting: on_writable tells the outcome, stream_error() what it was, and no end comes before") {
  for (const char* backend : backends) {
    for (const char* address : {"127.0.0.1", "::1"}) {
      CAPTURE(backend);
      CAPTURE(address);
      auto loop = make(backend);
      if (!loop) continue;
      StreamEar ear(*loop);
      Socket mine = listener(address);
      const auto at = local_address(mine);
      const SocketId good = loop->add_stream(connect_to(at), 1);
      loop->want_writable(good);
      CHECK(turns(*loop, ear, [&] { return ear.writable[good] == 1; }));
      CHECK(loop->stream_error(good) == 0);
      Socket other(accept4(mine.descriptor(), nullptr, nullptr, SOCK_NONBLOCK));
      REQUIRE(other);
      push(other, "welcome");
      CHECK(turns(*loop, ear, [&] { return ear.said[good] == "welcome"; }));
      mine = Socket();

      int error = 0;
      Socket refused = connect_tcp({at.ip, 0, 0}, at, error);
      if (!refused) {
        CHECK(error == ECONNREFUSED);
        continue;
      }
      const SocketId bad = loop->add_stream(std::move(refused), 2);
      loop->want_writable(bad);
      ear.at_writable = [&](SocketId id) {
        CHECK(ear.ends.empty());
        CHECK(loop->stream_error(id) == ECONNREFUSED);
        CHECK(loop->stream_error(id) == ECONNREFUSED);
        loop->remove(id);
      };
      CHECK(turns(*loop, ear, [&] { return ear.writable[bad] == 1; }));
      for (int i = 0; i < 3; ++i) REQUIRE(loop->turn(nanoseconds(0), ear));
      CHECK(ear.ends.empty());
      CHECK(loop->sockets() == 1);

      ear.at_writable = nullptr;  // and who does not ask hears of the end
      refused = connect_tcp({at.ip, 0, 0}, at, error);
      REQUIRE(refused);
      const SocketId unasked = loop->add_stream(std::move(refused), 3);
      CHECK(turns(*loop, ear, [&] { return !ear.ends.empty(); }));
      REQUIRE(ear.ends.size() == 1);
      CHECK(ear.ends[0].socket == unasked);
      CHECK(ear.ends[0].error == ECONNREFUSED);
    }
  }
}

TEST_CASE("RFC 6062, 5.2: connections leave from a port that also listens") {
  TcpOptions options;
  options.reuse_port = true;
  const Socket relayed = listener("127.0.0.1", options), peer = listener();
  int error = 0;
  const Socket out = connect_tcp(local_address(relayed), local_address(peer), error);
  REQUIRE_MESSAGE(out, std::strerror(error));
  CHECK(local_address(out) == local_address(relayed));
  CHECK(!connect_tcp(local_address(peer), local_address(relayed), error));  // that one does not share
  CHECK(error == EADDRINUSE);
}

TEST_CASE("open_tcp_listener and connect_tcp: whatever call fails, the socket is empty and the errno is told") {
  const net::TransportAddress any{*net::IpAddress::parse("127.0.0.1"), 0, 0};
  const Socket taken = listener();
  int error = 0;
  CHECK(!open_tcp_listener(local_address(taken), {}, error));
  CHECK(error == EADDRINUSE);
  struct {
    Call call;
    int error;
  } const faults[] = {{Call::socket, EMFILE}, {Call::setsockopt, ENOPROTOOPT}, {Call::bind, EACCES}};
  for (const auto& f : faults) {
    {
      const FailingCall fault(f.call, 1, f.error);
      CHECK(!open_tcp_listener(any, {}, error));
      CHECK(error == f.error);
    }
    const FailingCall fault(f.call, 1, f.error);
    CHECK(!connect_tcp(any, local_address(taken), error));
    CHECK(error == f.error);
  }
}

TEST_CASE("out of descriptors or memory, connections wait and are accepted later, without spinning meanwhile") {
  for (const char* backend : backends) {
    for (const int error : {EMFILE, ENFILE, ENOMEM, ENOBUFS}) {
      CAPTURE(backend);
      CAPTURE(error);
      auto loop = make(backend);
      if (!loop) continue;
      StreamEar ear(*loop);
      Socket mine = listener();
      const auto at = local_address(mine);
      loop->add_acceptor(std::move(mine), 1);
      const FailingCall fault(Call::accept, 1, error, 2);
      const Socket peer = connect_to(at);
      const auto before = loop->counters().turns;
      for (int i = 0; i < 100 && ear.accepted == 0; ++i) REQUIRE(loop->turn(nanoseconds(-1), ear));  // it wakes by itself
      CHECK(ear.accepted == 1);
      CHECK(loop->counters().accept_failed == 2);
      CHECK(loop->counters().turns - before < 20);
      push(peer, "x");
      CHECK(turns(*loop, ear, [&] { return ear.said[ear.streams.at(0)] == "x"; }));
    }
  }
}

TEST_CASE("out of descriptors in earnest") {
  for (const char* backend : backends) {
    CAPTURE(backend);
    auto loop = make(backend);
    if (!loop) continue;
    StreamEar ear(*loop);
    Socket mine = listener();
    const auto at = local_address(mine);
    const SocketId acceptor = loop->add_acceptor(std::move(mine), 1);
    const Socket first = connect_to(at), second = connect_to(at);
    rlimit before{};
    REQUIRE(getrlimit(RLIMIT_NOFILE, &before) == 0);
    rlimit none = before;
    none.rlim_cur = static_cast<rlim_t>(second.descriptor()) + 1;
    REQUIRE(setrlimit(RLIMIT_NOFILE, &none) == 0);
    const bool failed = turns(*loop, ear, [&] { return loop->counters().accept_failed > 0; });
    setrlimit(RLIMIT_NOFILE, &before);
    CHECK(failed);
    CHECK(turns(*loop, ear, [&] { return ear.accepted == 2; }));
    CHECK(turns(*loop, ear, [&] { return loop->armed() == loop->sockets(); }));
    loop->remove(acceptor);
    REQUIRE(loop->turn(nanoseconds(0), ear));
    CHECK(loop->sockets() == 2);
  }
}

TEST_CASE("an acceptor may be removed while it accepts, and while it waits for descriptors") {
  for (const char* backend : backends) {
    CAPTURE(backend);
    auto loop = make(backend);
    if (!loop) continue;
    StreamEar ear(*loop);
    Socket mine = listener();
    const auto at = local_address(mine);
    SocketId acceptor = loop->add_acceptor(std::move(mine), 1);
    std::vector<Socket> peers;
    for (int i = 0; i < 5; ++i) peers.push_back(connect_to(at));
    ear.on_connection = [&](Socket) { loop->remove(acceptor); };
    CHECK(turns(*loop, ear, [&] { return ear.accepted > 0; }));
    for (int i = 0; i < 3; ++i) REQUIRE(loop->turn(nanoseconds(0), ear));
    CHECK(ear.accepted == 1);
    CHECK(loop->sockets() == 0);
    CHECK(loop->armed() == 0);
    for (const Socket& peer : peers) CHECK(turns(*loop, ear, [&] { return at_end(peer); }));

    mine = listener();
    const auto again = local_address(mine);
    acceptor = loop->add_acceptor(std::move(mine), 1);
    const Socket peer = connect_to(again);
    {
      const FailingCall fault(Call::accept, 1, EMFILE, 1000);
      CHECK(turns(*loop, ear, [&] { return loop->counters().accept_failed == 1; }));
    }
    loop->remove(acceptor);
    const Pair successor = pair_in(*loop, 2);
    push(successor.outside, "x");
    CHECK(turns(*loop, ear, [&] { return ear.said[successor.id] == "x"; }));
    for (int i = 0; i < 15; ++i) REQUIRE(loop->turn(milliseconds(10), ear));
    CHECK(loop->counters().accept_failed == 1);
    CHECK(loop->armed() == 1);
  }
}

TEST_CASE("what accept(2) reports of a connection that has gone is passed over") {
  for (const char* backend : backends) {
    CAPTURE(backend);
    auto loop = make(backend);
    if (!loop) continue;
    StreamEar ear(*loop);
    Socket mine = listener();
    const auto at = local_address(mine);
    loop->add_acceptor(std::move(mine), 1);
    for (const int error : {ECONNABORTED, EPROTO, ENETUNREACH, EPERM, EINTR}) {
      const FailingCall fault(Call::accept, 1, error);
      const std::size_t before = ear.accepted;
      const Socket peer = connect_to(at);
      CHECK(turns(*loop, ear, [&] { return ear.accepted == before + 1; }));
    }
    CHECK(loop->counters().accept_failed == 0);
  }
}

TEST_CASE("without receive buffers a stream waits, and goes on when they are back") {
  LoopSettings settings;
  settings.buffers = 8;
  auto loop = make("io_uring", settings);
  if (!loop) return;
  StreamEar ear(*loop);
  std::vector<Pair> pairs;
  for (int i = 0; i < 30; ++i) pairs.push_back(pair_in(*loop, 1));
  std::size_t sent = 0;
  for (int i = 0; i < 10; ++i) {
    for (const Pair& p : pairs) sent += push(p.outside, "0123456789");
    REQUIRE(loop->turn(nanoseconds(0), ear));
  }
  CHECK(turns(*loop, ear, [&] { return loop->counters().stream_bytes_received == sent; }));
  CHECK(loop->counters().out_of_buffers > 0);
  CHECK(turns(*loop, ear, [&] { return loop->armed() == loop->sockets(); }));
  CHECK(ear.ends.empty());
}

TEST_CASE("finish() puts a FIN behind what was written, and the stream goes on receiving") {
  for (const char* backend : backends) {
    CAPTURE(backend);
    auto loop = make(backend);
    if (!loop) continue;
    StreamEar ear(*loop);
    Pair p = pair_in(*loop, 1);
    REQUIRE(write_text(*loop, p.id, "last") == 4);
    loop->finish(p.id);
    pollfd waits{p.outside.descriptor(), POLLIN | POLLRDHUP, 0};
    REQUIRE(poll(&waits, 1, 30'000) == 1);
    std::string last;
    CHECK(turns(*loop, ear, [&] { return (last += pull(p.outside)) == "last" && at_end(p.outside); }));
    push(p.outside, "answer");
    CHECK(turns(*loop, ear, [&] { return ear.said[p.id] == "answer"; }));
    CHECK(ear.ends.empty());
    p.outside = Socket();
    CHECK(turns(*loop, ear, [&] { return ear.ends.size() == 1; }));
    CHECK(ear.ends.at(0).error == 0);
    loop->remove(p.id);
    loop->finish(p.id);  // gone: nothing
  }
}
