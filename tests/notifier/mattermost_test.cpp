#include "notifier/mattermost.h"

#include <doctest/doctest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fake_server.h"

using namespace radiotower::notifier;
using namespace std::chrono_literals;

namespace {

constexpr const char* hook_id = "abcdefghijklmnopqrstuvwxyz";

bool holds(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

std::string error_body(const std::string& message) {
  return Json{{"id", "web.incoming_webhook.general.app_error"}, {"message", message}, {"detailed_error", ""}, {"status_code", 400}}.dump();
}

Answer hook(unsigned status, std::string_view body = "", std::string_view retry_after = "", std::string_view type = "application/json") {
  return judge_hook(status, type, body, retry_after, "builds");
}

/// A post that is seen to its end.
Answer post(Client& client, const std::string& channel = "builds") {
  std::optional<Answer> got;
  client.post_hook(channel, Json{{"text", "hello"}}, [&](Answer answer) { got = std::move(answer); });
  const auto end = std::chrono::steady_clock::now() + 60s;
  while (!got && std::chrono::steady_clock::now() < end) client.turn(100ms);
  REQUIRE(got);
  INFO(got->reason);
  CHECK_FALSE(holds(got->reason, hook_id));
  return *got;
}

Mattermost settings_for(const FakeServer& server, const std::string& ca_file = "", const std::string& host = "127.0.0.1") {
  Mattermost settings;
  settings.hook = server.url(host) + "/hooks/" + hook_id;
  settings.ca_file = ca_file;
  settings.timeout_s = 30;
  return settings;
}

std::string why_not_hook(const std::string& url) {
  std::string why, hint;
  if (check_hook(url, why, hint)) return "";
  CHECK_FALSE(hint.empty());
  CHECK_FALSE(holds(why + hint, hook_id));
  return why;
}

}  // namespace

TEST_CASE("only 200 with the two bytes ok is a success") {
  CHECK(hook(200, "ok").outcome == Outcome::delivered);
  CHECK(hook(200, "ok\n").outcome == Outcome::again);
  CHECK(hook(200, "").outcome == Outcome::again);
  CHECK(hook(201, "ok").outcome == Outcome::again);
  const Answer page = hook(200, "<!DOCTYPE html><html></html>", "", "text/html");
  CHECK(page.outcome == Outcome::again);
  CHECK(holds(page.reason, "a web page"));
  CHECK(holds(page.reason, "/hooks"));
}

TEST_CASE("what is judged as again, and what as refused") {
  for (const unsigned status : {301u, 302u, 307u, 308u, 408u, 429u, 500u, 503u, 520u}) {
    CAPTURE(status);
    CHECK(hook(status).outcome == Outcome::again);
    CHECK(hook(status).server_error == (status == 500));
    CHECK_FALSE(hook(status).reason.empty());
  }
  // A proxy that has lost Mattermost's answer; Mattermost itself knows whether it has posted.
  for (const unsigned status : {502u, 504u}) {
    CHECK(hook(status).outcome == Outcome::ambiguous);
    CHECK(holds(hook(status).reason, "proxy"));
  }
  for (const unsigned status : {400u, 401u, 403u, 404u, 405u, 410u, 413u, 414u, 415u, 501u}) {
    CAPTURE(status);
    CHECK(hook(status).outcome == Outcome::refused);
    CHECK_FALSE(hook(status).reason.empty());
  }
  CHECK(holds(hook(400, error_body("Invalid webhook.")).reason, "Invalid webhook."));
  CHECK(holds(hook(403, error_body("x")).reason, "Lock to this channel"));
  CHECK(holds(hook(404, error_body("x")).reason, "the name in the channel's URL"));
  CHECK(holds(hook(501, error_body("x")).reason, "Enable Incoming Webhooks"));
  CHECK(holds(hook(404, "<html>nginx</html>").reason, "not Mattermost's own"));
  CHECK(holds(hook(400, "Client sent an HTTP request to an HTTPS server.\n").reason, "https://"));
  CHECK(hook(400, "Client sent an HTTP request to an HTTPS server.\n").outcome == Outcome::again);
}

TEST_CASE("the hook's id in an error message goes no further") {
  for (const unsigned status : {400u, 403u, 404u, 409u, 500u, 501u}) {
    const Answer answer = hook(status, error_body(std::string("Failed to handle the payload for incoming webhook ") + hook_id + "."));
    CHECK_FALSE(holds(answer.reason, hook_id));
  }
  CHECK_FALSE(holds(hook(400, error_body("\x1b[2J\nforged")).reason, "\x1b"));
}

TEST_CASE("Retry-After as seconds or as a date, within an hour") {
  CHECK(hook(429, "limit exceeded\n", "7").retry_after == 7s);
  CHECK(hook(429, "", "0").retry_after == 1s);
  CHECK(hook(429, "", "-5").retry_after == 1s);
  CHECK(hook(429, "", "99999999999999999999").retry_after == 3600s);
  CHECK(hook(429, "", "Fri, 31 Dec 2100 23:59:59 GMT").retry_after == 3600s);
  CHECK(hook(429, "", "Thu, 01 Jan 1970 00:00:00 GMT").retry_after == 1s);
  CHECK_FALSE(hook(429, "", "soon").retry_after);
  CHECK_FALSE(hook(429).retry_after);
  CHECK_FALSE(hook(503, "", "7").retry_after);
}

TEST_CASE("REST: a body of JSON, and a sentence that names the call") {
  const Answer good = judge_rest(201, "application/json", R"({"id":"p1"})", "", "POST /posts");
  CHECK(good.outcome == Outcome::delivered);
  CHECK(good.body["id"] == "p1");
  CHECK(judge_rest(200, "text/html", "<html>", "", "x").outcome == Outcome::again);
  CHECK(judge_rest(401, "", error_body("Invalid or expired session"), "", "POST /posts").outcome == Outcome::refused);
  CHECK(holds(judge_rest(401, "", "", "", "POST /posts").reason, "POST /posts: the bot's token"));
  CHECK(holds(judge_rest(403, "", "", "", "x").reason, "add it to the team"));
  CHECK(judge_rest(500, "", "", "", "x").outcome == Outcome::again);
  CHECK(judge_rest(429, "", "", "3", "x").retry_after == 3s);
}

TEST_CASE("a hook's URL, and the mistakes that people make with it") {
  const std::string id = hook_id;
  for (const std::string good : {"https://chat.lan/hooks/", "http://10.0.0.5:8065/hooks/", "https://[fd00::5]:8065/hooks/", "https://chat.lan/sub/path/hooks/"})
    CHECK(why_not_hook(good + id) == "");
  CHECK(holds(why_not_hook(""), "no hook"));
  CHECK(holds(why_not_hook("chat.lan/hooks/" + id), "no scheme"));
  CHECK(holds(why_not_hook("mmost://chat.lan/" + id), "neither https nor http"));
  CHECK(holds(why_not_hook("https:///hooks/" + id), "no host"));
  CHECK(holds(why_not_hook("https://me:pw@chat.lan/hooks/" + id), "user name"));
  CHECK(holds(why_not_hook("https://chat.lan:port/hooks/" + id), "port"));
  CHECK(holds(why_not_hook("https://chat.lan:70000/hooks/" + id), "port"));
  CHECK(holds(why_not_hook("https://chat.lan/" + id), "no /hooks/"));
  CHECK(holds(why_not_hook("https://chat.lan/team/channels/builds"), "channel's page"));
  CHECK(holds(why_not_hook("https://chat.lan/hooks/" + id + "/"), "slash"));
  CHECK(holds(why_not_hook("https://chat.lan/hooks/abc-def"), "letters and digits"));
  CHECK(holds(why_not_hook("https://chat.lan/hooks/"), "missing"));
  CHECK(holds(why_not_hook("https://chat.lan/hooks/" + id + "?x=1"), "behind"));
  CHECK(holds(why_not_hook("https://chat.lan/hooks/" + id + " "), "blank"));
  CHECK(holds(why_not_hook("https://chat.lan/hooks/commands/" + id), "slash command"));
  CHECK(holds(why_not_hook("https://chat.lan/api/v4/hooks/" + id), "API"));

  std::string why, hint;
  CHECK(check_base_url("https://chat.lan:8065", why, hint));
  CHECK(check_base_url("https://chat.lan/sub/", why, hint));
  CHECK_FALSE(check_base_url("https://chat.lan/hooks/" + id, why, hint));
  CHECK_FALSE(check_base_url("https://chat.lan/api/v4", why, hint));
  CHECK_FALSE(check_base_url("chat.lan", why, hint));
  CHECK(without_secret("https://chat.lan:8065/hooks/" + id) == "https://chat.lan:8065/\u2026");
}

TEST_CASE("a post goes out as it is, with its channel, over a connection that is used again") {
  FakeServer server;
  auto settings = settings_for(server);
  settings.hooks["alerts"] = server.url() + "/hooks/zzzzzzzzzzzzzzzzzzzzzzzzzz";
  Client client(settings);
  CHECK(post(client).outcome == Outcome::delivered);
  CHECK(post(client, "alerts").outcome == Outcome::delivered);
  const auto got = server.requests();
  REQUIRE(got.size() == 2);
  CHECK(got[0].path == std::string("/hooks/") + hook_id);
  CHECK(Json::parse(got[0].body) == Json{{"text", "hello"}, {"channel", "builds"}});
  CHECK(holds(got[0].head, "Content-Type: application/json\r\n"));
  CHECK(holds(got[0].head, "User-Agent: radiotower-notifier/"));
  CHECK_FALSE(holds(got[0].head, "Expect:"));
  CHECK_FALSE(got[1].fresh);
  // A channel's own hook posts where it is at home: nothing can be wrong with a name.
  CHECK(got[1].path == "/hooks/zzzzzzzzzzzzzzzzzzzzzzzzzz");
  CHECK(Json::parse(got[1].body) == Json{{"text", "hello"}});
  CHECK(client.in_flight() == 0);
}

TEST_CASE("an answer that is lost after the request went out is ambiguous, and nothing is repeated unasked") {
  FakeServer server;
  Client client(settings_for(server));
  CHECK(post(client).outcome == Outcome::delivered);
  server.next(cut());  // on a connection that was used before: libcurl would send it once more by itself
  CHECK(post(client).outcome == Outcome::ambiguous);
  server.next(cut());
  CHECK(post(client).outcome == Outcome::ambiguous);
  server.next(cut_after_headers());
  CHECK(post(client).outcome == Outcome::ambiguous);
  CHECK(server.requests().size() == 4);
  server.next(hang());
  Mattermost hasty = settings_for(server);
  hasty.timeout_s = 1;
  Client impatient(hasty);
  Answer late = post(impatient);
  while (late.outcome == Outcome::again) late = post(impatient);  // it did not leave within that second
  CHECK(late.outcome == Outcome::ambiguous);
  CHECK(holds(late.reason, "did not answer within 1 s"));
  server.next({.bytes = "HTTP/1.1 500 X\r\nContent-Length: 99\r\n\r\nhalf", .delay = {}, .close = true});
  CHECK(post(client).outcome == Outcome::again);  // a status that says no is an answer, cut or not
}

TEST_CASE("nobody there, no redirect followed, no endless answer read") {
  const int held = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);  // bound, so that nobody else is; and does not listen
  sockaddr_in nobody{};
  nobody.sin_family = AF_INET;
  nobody.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof nobody;
  REQUIRE(bind(held, reinterpret_cast<sockaddr*>(&nobody), size) == 0);
  getsockname(held, reinterpret_cast<sockaddr*>(&nobody), &size);
  Mattermost settings;
  settings.hook = "http://127.0.0.1:" + std::to_string(ntohs(nobody.sin_port)) + "/hooks/" + hook_id;
  Client to_nobody(settings);
  const Answer refused = post(to_nobody);
  close(held);
  CHECK(refused.outcome == Outcome::again);
  CHECK(holds(refused.reason, "Connection refused"));

  FakeServer server;
  Client client(settings_for(server));
  server.next(answer(302, "", "text/html", "Location: " + server.url() + "/elsewhere\r\n"));
  const Answer redirected = post(client);
  CHECK(redirected.outcome == Outcome::again);
  CHECK(holds(redirected.reason, "redirect (302)"));
  server.next(answer(200, std::string(1 << 20, 'x')));
  CHECK(holds(post(client).reason, "longer than any"));
  CHECK(server.requests().size() == 2);

  std::optional<Answer> pong;
  client.ping("builds", [&](Answer answer) { pong = std::move(answer); });
  while (!pong) client.turn(100ms);
  CHECK(pong->outcome == Outcome::delivered);
  CHECK(server.requests().back().path == "/api/v4/system/ping");
}

TEST_CASE("what a refused certificate was, and what is to be done, stands in the reason") {
  const TemporaryFolder folder;
  const Identity root({.common_name = "City Root CA", .valid_until_days = 3650, .authority = true}, nullptr);
  const Identity namesake({.common_name = "City Root CA", .valid_until_days = 3650, .authority = true}, nullptr);
  const Identity old({.common_name = "Old Root", .valid_until_days = 900, .authority = true}, nullptr);
  const std::string city = folder.write("city-root-ca.pem", root.pem()), other = folder.write("old-root-ca.pem", old.pem());
  const auto reason = [](const Identity& identity, const std::string& ca_file, const std::string& host = "127.0.0.1") {
    FakeServer server(&identity);
    Client client(settings_for(server, ca_file, host));
    Answer answer = post(client);
    if (answer.outcome == Outcome::delivered) return std::string("delivered");
    CHECK(answer.outcome == Outcome::again);
    CHECK(answer.tls_failure);
    CHECK(server.requests().empty());
    CHECK(answer.reason.size() < 600);
    MESSAGE(answer.reason);
    return answer.reason;
  };
  const Identity chat({.common_name = "chat.city.example", .names = {"DNS:chat.city.example", "IP:127.0.0.1"}}, &root);
  CHECK(reason(chat, city) == "delivered");

  std::string said = reason(chat, other);
  for (const char* part : {"127.0.0.1:", "CN=chat.city.example", "names: chat.city.example, 127.0.0.1", "issued by CN=City Root CA", "old-root-ca.pem",
                           "1 certificate: CN=Old Root", "does not vouch for", "mattermost.ca_file"})
    CHECK(holds(said, part));
  CHECK(holds(reason(chat, ""), "the system's store does not vouch for"));
  CHECK(holds(reason(chat, folder.write("renewed.pem", namesake.pem())), "with another key"));

  const Identity lonely({.common_name = "mattermost", .names = {"IP:127.0.0.1"}}, nullptr);
  CHECK(holds(reason(lonely, city), "put this certificate itself into"));
  CHECK(reason(lonely, folder.write("itself.pem", lonely.pem())) == "delivered");

  const Identity elsewhere({.common_name = "wiki.city.example", .names = {"DNS:wiki.city.example", "DNS:docs.city.example", "IP:10.0.0.7"}}, &root);
  said = reason(elsewhere, city);
  CHECK(holds(said, "not made out to 127.0.0.1"));
  CHECK(holds(said, "wiki.city.example, docs.city.example, 10.0.0.7"));
  CHECK(holds(reason(elsewhere, city, "localhost"), "not made out to localhost"));

  const Identity expired({.common_name = "chat.city.example", .names = {"IP:127.0.0.1"}, .valid_from_days = -40, .valid_until_days = -2}, &root);
  CHECK(holds(reason(expired, city), "has expired on"));
  const Identity early({.common_name = "chat.city.example", .names = {"IP:127.0.0.1"}, .valid_from_days = 5}, &root);
  CHECK(holds(reason(early, city), "clock"));
  const Identity dead_root({.common_name = "Late Root", .valid_from_days = -40, .valid_until_days = -2, .authority = true}, nullptr);
  const Identity orphan({.common_name = "chat.city.example", .names = {"IP:127.0.0.1"}}, &dead_root);
  CHECK(holds(reason(orphan, folder.write("late.pem", dead_root.pem())), "its issuer CN=Late Root has expired"));

  FakeServer plain;
  Mattermost settings = settings_for(plain, city);
  settings.hook.replace(0, 4, "https");
  Client client(settings);
  const Answer answer = post(client);
  CHECK(answer.outcome == Outcome::again);
  CHECK(answer.tls_failure);
  CHECK(holds(answer.reason, "plain HTTP"));
}

TEST_CASE("a ca_file that is of no use is told of at once, and a renewed one counts without a restart") {
  const TemporaryFolder folder;
  Mattermost settings;
  settings.hook = std::string("https://127.0.0.1:1/hooks/") + hook_id;
  settings.ca_file = folder.path() + "/missing.pem";
  CHECK_THROWS_WITH(Client{settings}, doctest::Contains("No such file"));
  settings.ca_file = folder.write("empty.pem", "hello\n");
  CHECK_THROWS_WITH(Client{settings}, doctest::Contains("no certificate"));

  const Identity root({.common_name = "City Root CA", .authority = true}, nullptr), old({.common_name = "Old Root", .authority = true}, nullptr);
  const Identity chat({.common_name = "chat", .names = {"IP:127.0.0.1"}}, &root);
  FakeServer server(&chat);
  const std::string file = folder.write("ca.pem", old.pem());
  Client client(settings_for(server, file));
  CHECK(post(client).outcome == Outcome::again);
  folder.write("ca.pem", old.pem() + root.pem());
  CHECK(post(client).outcome == Outcome::delivered);
}

TEST_CASE("the bot's token is in the header and nowhere else") {
  FakeServer server;
  Mattermost settings;
  settings.url = server.url();
  settings.token = "tokentokentokentokentokent";
  Client client(settings);
  std::optional<Answer> got;
  server.handle([](const FakeRequest&) { return answer(403, R"({"id":"x.y","message":"no: tokentokentokentokentokent","status_code":403})"); });
  client.rest("PUT", "/posts/abc/patch", Json{{"message", "m"}}, [&](Answer answer) { got = std::move(answer); });
  while (!got) client.turn(100ms);
  CHECK(got->outcome == Outcome::refused);
  CHECK_FALSE(holds(got->reason, settings.token));
  const auto request = server.requests().at(0);
  CHECK(request.method == "PUT");
  CHECK(request.path == "/api/v4/posts/abc/patch");
  CHECK(holds(request.head, "Authorization: Bearer " + settings.token));
}
