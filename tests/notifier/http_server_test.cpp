#include "notifier/http_server.h"

#include <sys/resource.h>

#include <condition_variable>
#include <mutex>

#include "http_harness.h"

namespace radiotower::notifier {

namespace {

using Clock = std::chrono::steady_clock;

HttpServer::Options quick(std::chrono::milliseconds HttpServer::Options::*deadline) {  // one that a test can wait for
  HttpServer::Options options = patient();
  options.*deadline = 100ms;
  return options;
}

}  // namespace

TEST_CASE("an answer has its length, may not be stored, and names no server; HEAD gets it without the body") {
  House house;
  Client client(house.server);
  client.send(get);
  CHECK(client.answer() ==
        "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nContent-Type: text/plain; charset=utf-8\r\nCache-Control: no-store\r\n"
        "X-Content-Type-Options: nosniff\r\n\r\nGET / 0");
  client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
  CHECK(client.answer(true).find("Content-Length: 8\r\n") != std::string::npos);
  client.send(get);
  CHECK(client.status() == 200);  // nothing of a body came between
}

TEST_CASE("a line break in a field of ours begins no second one; 204 has no body") {
  House house(patient(), {}, [](HttpRequest&& request, Responder respond) {
    if (request.path == "/204") return respond({204, "unseen"});
    respond({405, "", "text/plain", {{"Allow", "POST\r\nSet-Cookie: a=b"}}});
  });
  Client client(house.server);
  client.send(get);
  const std::string answer = client.answer();
  CHECK(answer.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"));
  CHECK(answer.find("\r\nSet-Cookie") == std::string::npos);
  client.send("GET /204 HTTP/1.1\r\nHost: a\r\n\r\n");
  CHECK(client.answer().find("Content-Length") == std::string::npos);
  client.send(get);
  CHECK(client.status() == 405);
}

TEST_CASE("the handler gets names in lower case, values without outer blanks, path and query apart") {
  House house;
  Client client(house.server);
  client.send("POST /v1/x?a=1&b HTTP/1.1\r\nHost: a\r\nX-Gitlab-Token: \t se cret \r\nContent-Length: 5\r\n\r\nhello");
  CHECK(client.status() == 200);
  const std::lock_guard lock(house.mutex);
  const HttpRequest& request = house.seen.at(0);
  CHECK(request.method == "POST");
  CHECK(request.path == "/v1/x");
  CHECK(request.query == "a=1&b");
  CHECK(request.header("x-gitlab-token") == "se cret");
  CHECK(request.header("x-other").empty());
  CHECK(request.body == "hello");
  CHECK(request.client == "127.0.0.1");
  CHECK(request.from_loopback);
}

TEST_CASE("a request that arrives byte by byte is the same request") {
  House house;
  const std::string chunks = "3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n";
  for (const std::string& whole : {post(5) + "hello", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks}) {
    Client client(house.server);
    for (const char c : whole) {
      client.send({&c, 1});
      if (c == '\r' || c == '5') std::this_thread::sleep_for(1ms);  // now and then alone in its segment
    }
    CHECK(client.status() == 200);
    const std::lock_guard lock(house.mutex);
    CHECK(house.seen.back().body == "hello");
  }
}

TEST_CASE("on_head refuses before the body: closed when one would follow, kept when not; 100-continue is not said") {
  House house(patient(), [](const HttpRequest& head) -> std::optional<HttpAnswer> {
    if (head.path == "/") return std::nullopt;
    return HttpAnswer{401, "no"};
  });
  Client client(house.server);
  client.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n" + get);
  CHECK(client.status() == 401);
  CHECK(client.status() == 200);
  client.send(post(500'000, "Expect: 100-continue\r\n"));
  CHECK(client.status() == 401);
  client.send(std::string(30'000, 'x') + get);
  CHECK(client.closed());
  CHECK(house.calls() == 1);
}

TEST_CASE("a client that sends its body without listening still reads why it was refused") {
  House house(patient(), [](const HttpRequest&) { return HttpAnswer{401, "no"}; });
  for (int round = 0; round < 20; ++round) {
    Client client(house.server);
    client.send(post(60'000) + std::string(60'000, 'x'));
    std::this_thread::sleep_for(2ms);
    CHECK(client.status() == 401);
  }
}

TEST_CASE("100 Continue is said when the head is taken, and the body then read") {
  House house;
  Client client(house.server);
  client.send(post(5, "Expect: 100-continue\r\n"));
  CHECK(client.answer() == "HTTP/1.1 100 Continue\r\n\r\n");
  client.send("hello");
  CHECK(client.status() == 200);
}

TEST_CASE("an answer may come from another thread, twice, late, and after everybody is gone") {
  std::mutex mutex;
  std::condition_variable arrived;
  std::vector<Responder> responders;
  const auto take = [&] {
    std::unique_lock lock(mutex);
    REQUIRE(arrived.wait_for(lock, patience, [&] { return !responders.empty(); }));
    Responder responder = std::move(responders.back());
    responders.pop_back();
    return responder;
  };
  Responder last;
  {
    House house(patient(), {}, [&](HttpRequest&&, Responder respond) {
      const std::lock_guard lock(mutex);
      responders.push_back(std::move(respond));
      arrived.notify_one();
    });
    Client client(house.server);
    client.send(get + get);
    const Responder first = take();
    std::thread([&] { first({200, "one"}); }).join();
    CHECK(client.answer().ends_with("one"));
    const Responder second = take();
    first({200, "again"});  // of the request before: nobody hears it
    CHECK(client.silent_for(20ms));
    second({200, "two"});
    second({200, "three"});
    CHECK(client.answer().ends_with("two"));
    CHECK(client.silent_for(20ms));
    {
      Client leaver(house.server);
      leaver.send(get);
      last = take();
    }
    last({200, "too late"});
    client.send(get);
    last = take();
  }
  last({200, "the server is gone"});
}

TEST_CASE("deadlines are for the whole, however steadily bytes drip") {
  const auto drip = [](Client& client, std::string_view first, char c) {
    client.send(first);
    unsigned sent = 0;
    for (const auto end = Clock::now() + patience; client.silent_for(10ms) && Clock::now() < end; ++sent) client.send({&c, 1});
    CHECK(sent < 400);
  };
  {
    House house(quick(&HttpServer::Options::head_within));
    Client client(house.server);
    drip(client, "GET / HTTP/1.1\r\nX: ", 'x');
    CHECK(client.status() == 408);
    CHECK(house.server.counters().timeouts == 1);
  }
  House house(quick(&HttpServer::Options::body_within));
  Client client(house.server);
  drip(client, post(100'000), 'x');
  CHECK(client.status() == 408);
  CHECK(house.calls() == 0);
}

TEST_CASE("an idle connection is closed, an unanswered one gets 503") {
  {
    House house(quick(&HttpServer::Options::idle_for));
    Client idle(house.server);
    CHECK(idle.closed());
    CHECK(house.server.counters().timeouts == 0);
  }
  House house(quick(&HttpServer::Options::answer_within), {}, [](HttpRequest&&, const Responder&) {});
  Client unanswered(house.server);
  unanswered.send(get);
  CHECK(unanswered.answer().find("\r\nRetry-After: ") != std::string::npos);
  CHECK(unanswered.closed());
  CHECK(house.server.counters().timeouts == 1);
}

TEST_CASE("an answer that nobody reads is given up") {
  House house(quick(&HttpServer::Options::taken_within), {},
              [](HttpRequest&&, Responder respond) { respond({200, std::string(20 << 20, 'x')}); });
  Client client(house.server);
  client.send(get);
  CHECK(house.wait_for(house.server.counters().timeouts, 1) == 1);
  CHECK(house.wait_for(house.server.counters().open, 0) == 0);
}

TEST_CASE("beyond the bound the connection that has been longest without a head goes; busy ones stay") {
  HttpServer::Options options = patient();
  options.connections = 3;
  House house(options, {}, [](HttpRequest&& request, Responder respond) {
    if (request.path == "/") respond({200, "x"});
  });
  Client busy(house.server);
  busy.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
  house.wait_for(house.server.counters().requests, 1);
  Client oldest(house.server), other(house.server);
  house.wait_for(house.server.counters().accepted, 3);
  oldest.send(get);
  CHECK(oldest.status() == 200);  // is idle since now
  Client fourth(house.server);
  CHECK(other.closed());
  fourth.send(get);
  CHECK(fourth.status() == 200);
  Client fifth(house.server);
  CHECK(oldest.closed());
  for (Client* client : {&fourth, &fifth}) client->send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
  house.wait_for(house.server.counters().requests, 5);
  Client turned_away(house.server);
  CHECK(turned_away.closed());
  CHECK(house.server.counters().refused == 3);
  CHECK(house.server.counters().open == 3);
  CHECK(busy.silent_for(10ms));
}

TEST_CASE("stop() lets those finish whose head is read, closes the others, and ends in time") {
  Responder responder;
  std::atomic<bool> arrived = false;
  HttpServer::Options options = patient();
  options.listen = {"127.0.0.1:0"};
  HttpServer server(options, {}, [&](HttpRequest&&, Responder respond) {
    responder = std::move(respond);
    arrived = true;
  });
  server.start();
  Client idle(server), busy(server);
  busy.send(get);
  for (const auto end = Clock::now() + patience; !arrived && Clock::now() < end;) std::this_thread::sleep_for(1ms);
  REQUIRE(arrived);
  std::thread later([&] {
    std::this_thread::sleep_for(30ms);
    responder({200, "x"});
  });
  server.stop(static_cast<unsigned>(patience.count()));
  later.join();
  CHECK(idle.closed());
  CHECK(busy.answer().find("\r\nConnection: close\r\n") != std::string::npos);
  server.stop();
}

TEST_CASE("stop() waits no longer than it was told for an answer that never comes") {
  House house(patient(), {}, [](HttpRequest&&, const Responder&) {});
  Client client(house.server);
  client.send(get);
  house.wait_for(house.server.counters().requests, 1);
  const auto before = Clock::now();
  house.server.stop(50);
  CHECK(Clock::now() - before < patience);
  CHECK(client.closed());
}

TEST_CASE("what cannot be listened on is told in a sentence") {
  const auto sentence = [](const std::string& where) {
    HttpServer::Options options;
    options.listen = {where};
    try {
      HttpServer server(options, {}, {});
    } catch (const std::runtime_error& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  for (const char* bad : {"", ":", "8066", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536",
                          "::1:8066", "[127.0.0.1]:1", "localhost:8066", "[::1]", "127.0.0.1:-1"}) {
    CAPTURE(bad);
    CHECK(sentence(bad).find("is no address to listen on") != std::string::npos);
  }
  House house;
  CHECK(sentence(house.server.bound()[0]) == house.server.bound()[0] + " is in use by another program; ss -ltnp shows which");
  CHECK(sentence("192.0.2.1:0").find("no interface of this machine has that address") != std::string::npos);
}

TEST_CASE("IPv6 and IPv4 side by side on one port") {
  HttpServer::Options options;
  options.listen = {"127.0.0.1:0", "[::1]:0"};
  try {
    House house(options);
    CHECK(house.server.bound().at(1).starts_with("[::1]:"));
  } catch (const std::runtime_error& e) {
    MESSAGE("no IPv6 here: " << e.what());
  }
}

TEST_CASE("two thousand idle connections, and requests among them") {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  const std::size_t many = limit.rlim_cur > 4200 ? 2000 : 200;
  House house;
  std::vector<Client> clients;
  clients.reserve(many);
  for (std::size_t i = 0; i < many; ++i) clients.emplace_back(house.server);
  for (std::size_t i = 0; i < many; i += 100) clients[i].send(get);
  for (std::size_t i = 0; i < many; i += 100) CHECK(clients[i].status() == 200);
  CHECK(house.wait_for(house.server.counters().open, many) == many);
}

TEST_CASE("without descriptors the connection that waits longest makes room, and the operator is told") {
  std::mutex mutex;
  std::string told;
  HttpServer::Options options = patient();
  options.on_trouble = [&](std::string_view sentence, std::string_view) {
    const std::lock_guard lock(mutex);
    told = sentence;
  };
  House house(options);
  Client idle(house.server);
  REQUIRE(house.wait_for(house.server.counters().open, 1) == 1);
  const int lowest_free = dup(0);
  close(lowest_free);
  rlimit before{};
  getrlimit(RLIMIT_NOFILE, &before);
  const rlimit tight{static_cast<rlim_t>(lowest_free) + 1, before.rlim_max};
  REQUIRE(setrlimit(RLIMIT_NOFILE, &tight) == 0);
  Client client(house.server);  // takes the last one
  client.send(get);
  CHECK(client.status() == 200);
  setrlimit(RLIMIT_NOFILE, &before);
  CHECK(idle.closed());
  const std::lock_guard lock(mutex);
  CHECK(told.starts_with("cannot accept connections: Too many open files"));
}

TEST_CASE("what the handler throws costs its connection alone, and is told") {
  HttpServer::Options options = patient();
  std::atomic<int> told = 0;
  options.on_trouble = [&](std::string_view sentence, std::string_view client) { told += sentence == "oh" && client.starts_with("127.0.0.1:"); };
  House house(options, [](const HttpRequest& head) -> std::optional<HttpAnswer> {
    if (head.path == "/throw") throw std::runtime_error("oh");
    return std::nullopt;
  });
  Client client(house.server);
  client.send("GET /throw HTTP/1.1\r\nHost: a\r\n\r\n");
  CHECK(client.closed());
  CHECK(told == 1);
  Client other(house.server);
  other.send(get);
  CHECK(other.status() == 200);
}

}  // namespace radiotower::notifier
