#include "http_harness.h"
#include "notifier/http_loop.h"

namespace radiotower::notifier {

namespace {

HttpServer::Options clients_apart() {  // 127.0.0.1 and 127.0.0.2 are two clients
  HttpServer::Options options = patient();
  options.loopback_is_proxy = false;
  return options;
}

const std::string slow = "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n";
HttpServer::OnRequest all_but_slow() {
  return [](HttpRequest&& request, Responder respond) {
    if (request.path != "/slow") respond({200, "x"});
  };
}

std::string long_head() {
  std::string fields;
  for (int i = 0; i < 95; ++i) fields += "X-Filler: " + std::string(150, 'x') + "\r\n";
  return post(1 << 20, fields);
}

}  // namespace

TEST_CASE("when nobody waits for a request, the oldest whose body is awaited makes room; never one that is answered") {
  HttpServer::Options options = patient();
  options.connections = 3;
  House house(options, {}, all_but_slow());
  Client busy(house.server);
  busy.send(slow);
  house.wait_for(house.server.counters().requests, 1);
  Client older(house.server), younger(house.server);
  older.send(post(100) + "x");
  house.wait_for(house.server.counters().requests, 2);
  younger.send(post(100) + "x");
  house.wait_for(house.server.counters().requests, 3);
  Client newcomer(house.server);
  newcomer.send(get);
  CHECK(newcomer.status() == 200);
  CHECK(older.closed());
  CHECK(younger.silent_for(10ms));
  newcomer.send(slow);
  house.wait_for(house.server.counters().requests, 5);
  Client last(house.server);
  last.send(get);
  CHECK(last.status() == 200);
  CHECK(younger.closed());
  CHECK(busy.silent_for(10ms));
}

TEST_CASE("heads of all connections together are bounded, whole ones and those that are not: the oldest go") {
  HttpServer::Options options = patient();
  options.all_heads = 200'000;
  House house(options);
  for (const std::string& head : {long_head() + "x", long_head().substr(0, 15'000)}) {
    std::vector<Client> clients;
    for (int i = 0; i < 40; ++i) {
      clients.emplace_back(house.server);
      clients.back().send(head);
    }
    CHECK(clients.front().closed());
    Client other(house.server);
    other.send(get);
    CHECK(other.status() == 200);
    CHECK(clients.back().silent_for(10ms));
    CHECK(house.becomes([&] { return house.server.counters().open <= 15; }));
    CHECK(house.server.counters().open >= 6);
    clients.clear();
    house.wait_for(house.server.counters().open, 1);
  }
}

TEST_CASE("a client has its share of connections; beyond it its own oldest goes, one that is answered does not count") {
  HttpServer::Options options = clients_apart();
  options.connections_a_client = 2;
  House house(options, {}, all_but_slow());
  Client other(house.server), busy(house.server, "127.0.0.2");
  busy.send(slow);
  house.wait_for(house.server.counters().requests, 1);
  Client with_body(house.server, "127.0.0.2");
  with_body.send(post(100) + "x");
  house.wait_for(house.server.counters().requests, 2);
  Client idle(house.server, "127.0.0.2");
  house.wait_for(house.server.counters().accepted, 4);
  CHECK(house.server.counters().refused == 0);
  Client third(house.server, "127.0.0.2");
  CHECK(idle.closed());  // it waits: no request is lost
  third.send(post(100) + "x");
  house.wait_for(house.server.counters().requests, 3);
  Client fourth(house.server, "127.0.0.2");
  CHECK(with_body.closed());
  CHECK(third.silent_for(10ms));
  CHECK(busy.silent_for(10ms));
  other.send(get);
  CHECK(other.status() == 200);
  CHECK(house.server.counters().refused == 2);
}

TEST_CASE("at the bound of all bodies the slowest gives way to who comes, with 503") {
  HttpServer::Options options = clients_apart();
  options.all_bodies = 100'000;
  House house(options);
  std::vector<Client> stalled;
  for (int i = 0; i < 3; ++i) {
    stalled.emplace_back(house.server);
    stalled.back().send(post(30'000) + std::string(24'000, 'x'));
  }
  house.wait_for(house.server.counters().requests, 3);
  Client steady(house.server);
  steady.send(post(50'000));
  // At each of eight sweeps it has sent something new. What the others sent counts half with each sweep.
  for (int i = 0; i < 8; ++i) {
    const auto before = house.server.beats();
    steady.send(std::string(2'500, 'x'));
    REQUIRE(house.becomes([&] { return house.server.beats() > before; }));
  }
  for (int i = 0; i < 3; ++i) {
    Client client(house.server);
    client.send(post(20'000) + std::string(20'000, 'x'));
    CHECK(client.status() == 200);
  }
  int gave_way = 0;
  for (Client& client : stalled) {
    if (client.silent_for(0ms)) continue;
    ++gave_way;
    CHECK(client.answer().find("\r\nRetry-After: ") != std::string::npos);
    CHECK(client.closed());
  }
  CHECK(gave_way == 1);  // room for one more is enough for three, one after the other
  CHECK(steady.silent_for(10ms));
}

TEST_CASE("a client has its share of bodies, and at its bound its own slowest gives way; this machine has half of all") {
  HttpServer::Options options = clients_apart();
  options.longest_body = 50'000;
  options.bodies_a_client = 50'000;
  House house(options);
  Client other(house.server);
  other.send(post(30'000) + std::string(24'000, 'x'));
  Client first(house.server, "127.0.0.2"), second(house.server, "127.0.0.2");
  for (Client* client : {&first, &second}) client->send(post(30'000) + std::string(24'000, 'x'));
  house.wait_for(house.server.counters().requests, 3);
  std::this_thread::sleep_for(20ms);
  Client third(house.server, "127.0.0.2");
  third.send(post(20'000) + std::string(20'000, 'x'));
  CHECK(third.status() == 200);
  CHECK(first.silent_for(0ms) != second.silent_for(0ms));
  CHECK(other.silent_for(10ms));

  options.loopback_is_proxy = true;
  options.all_bodies = 200'000;
  House proxied(options);
  std::vector<Client> clients;
  for (int i = 0; i < 4; ++i) {
    clients.emplace_back(proxied.server);
    clients.back().send(post(30'000) + std::string(24'000, 'x'));
  }
  proxied.wait_for(proxied.server.counters().requests, 4);
  std::this_thread::sleep_for(20ms);
  CHECK(proxied.server.counters().refused == 0);
  Client fifth(proxied.server);
  fifth.send(post(20'000) + std::string(20'000, 'x'));
  CHECK(fifth.status() == 200);
  CHECK(proxied.server.counters().refused == 1);
}

TEST_CASE("a body that comes too slowly on average is given up, one that keeps the pace is not") {
  HttpServer::Options options = patient();
  options.longest_body = options.all_bodies = options.bodies_a_client = 2'000'000;
  options.body_rate = 20'000;
  options.body_rate_after = 100ms;
  House house(options);
  Client fast(house.server), fades(house.server);
  fast.send(post(1'000'000) + std::string(900'000, 'x'));  // the pace of 45 s
  fades.send(post(50'000) + std::string(3'000, 'x'));
  CHECK(fades.status() == 408);
  CHECK(fast.silent_for(600ms));  // two more sweeps
  fast.send(std::string(100'000, 'x'));
  CHECK(fast.status() == 200);
  CHECK(house.server.counters().timeouts == 1);
}

TEST_CASE("the thread's beats go on without connections, and after what on_trouble throws") {
  HttpServer::Options options = patient();
  options.on_trouble = [](std::string_view, std::string_view) { throw std::bad_alloc(); };
  House house(options, [](const HttpRequest& head) -> std::optional<HttpAnswer> {
    if (head.path == "/throw") throw std::bad_alloc();
    if (head.path == "/number") throw 1;
    return std::nullopt;
  });
  for (const char* path : {"/throw", "/number"}) {
    Client client(house.server);
    client.send("GET " + std::string(path) + " HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK(client.closed());
  }
  const auto before = house.server.beats();
  CHECK(house.becomes([&] { return house.server.beats() > before; }));
}

TEST_CASE("of each kind of trouble one sentence a second is told and 30 a minute, and how many were left out") {
  std::vector<std::string> told;
  HttpServer::Options options;
  options.on_trouble = [&](std::string_view sentence, std::string_view) { told.emplace_back(sentence); };
  Reporter reporter(options);
  const auto start = Clock::now();
  for (int i = 0; i < 590; ++i) reporter.tell("failed: " + std::to_string(i), nullptr, start + i * 100ms);
  CHECK(told.size() == 30);
  CHECK(told.at(0) == "failed: 0");
  CHECK(told.at(1) == "failed: 10 (and 9 more like it)");
  reporter.tell("another kind", nullptr, start + 59s);
  CHECK(told.back() == "another kind");
  reporter.tell("failed: again", nullptr, start + 60s);
  CHECK(told.back() == "failed: again (and 299 more like it)");
  for (int i = 0; i < 1000; ++i) reporter.tell("kind " + std::to_string(i), nullptr, start + 120s);
  CHECK(told.size() <= 32 + 16);
}

TEST_CASE("a bucket gives its burst at once, then as fast as it is refilled") {
  const auto start = Clock::now();
  Bucket bucket({10, 3});
  const auto given = [&](Clock::time_point now) {
    int n = 0;
    for (; bucket.has_one(now); ++n) bucket.take_one();
    return n;
  };
  CHECK(given(start) == 3);
  CHECK(given(start + 50ms) == 0);
  CHECK(given(start + 210ms) == 2);
  CHECK_FALSE(bucket.is_full(start + 300ms));
  CHECK(bucket.is_full(start + 1s));
  CHECK(given(start + 1h) == 3);
}

}  // namespace radiotower::notifier
