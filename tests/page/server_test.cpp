// The page's server over loopback, as strangers and phones meet it.
#include "server.h"

#include <doctest/doctest.h>

#include <boost/asio/connect.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/write.hpp>
#include <chrono>
#include <ctime>
#include <thread>

#include "certificate.h"

using namespace radiotower::cli;
namespace asio = boost::asio;
using asio::ip::tcp;

namespace {

struct Posted {
  std::string body, address, user_agent;
};

class Harness {
 public:
  explicit Harness(asio::ssl::context* tls = nullptr, std::function<void(page::ServerSettings&)> change = {}) {
    page::ServerSettings settings;
    settings.token = token;
    settings.page = [](const std::string& nonce, const std::string&, const std::string&) { return "page " + nonce; };
    settings.result = [this](const std::string& body, const std::string& address, const std::string& agent) {
      posted.push_back({body, address, agent});
      return body == "refuse" ? 400U : 204U;
    };
    settings.tls = tls;
    settings.ca_certificate = "DER";
    if (change) change(settings);
    server_.emplace(io_, tcp::endpoint(asio::ip::make_address("127.0.0.1"), 0), settings);
    at_ = server_->endpoint();
    thread_ = std::thread([this] { io_.run(); });
  }
  ~Harness() {
    io_.stop();
    thread_.join();
  }

  tcp::socket connect() {
    tcp::socket socket(client_);
    socket.connect(at_);
    timeval patience{30, 0};
    setsockopt(socket.native_handle(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    return socket;
  }
  /// All that comes back until the server closes.
  std::string ask(const std::string& request) {
    tcp::socket socket = connect();
    boost::system::error_code error;
    asio::write(socket, asio::buffer(request), error);
    return rest(socket);
  }
  template <class Stream>
  static std::string rest(Stream& stream) {
    std::string answer;
    boost::system::error_code error;
    asio::read(stream, asio::dynamic_buffer(answer), error);
    return answer;
  }
  std::string get(const std::string& path) { return ask("GET " + path + " HTTP/1.1\r\nHost: x\r\n\r\n"); }
  std::string post(const std::string& path, const std::string& body, const std::string& type = "application/json") {
    return ask("POST " + path + " HTTP/1.1\r\nHost: x\r\nUser-Agent: phone\r\nContent-Type: " + type + "\r\nContent-Length: " +
               std::to_string(body.size()) + "\r\n\r\n" + body);
  }

  const std::string token = "abcdefgh23456789";
  const std::string root = "/" + token + "/";
  std::vector<Posted> posted;  // read after the answer came

 private:
  asio::io_context io_{1}, client_{1};
  std::optional<page::Server> server_;
  tcp::endpoint at_;
  std::thread thread_;
};

unsigned status(const std::string& answer) { return answer.size() > 12 ? static_cast<unsigned>(std::stoul(answer.substr(9, 3))) : 0; }
bool has(const std::string& answer, const std::string& text) { return answer.find(text) != std::string::npos; }

}  // namespace

TEST_CASE("the page is behind its token, and there is nothing else") {
  Harness server;
  CHECK(status(server.get(server.root)) == 200);
  CHECK(status(server.get("/" + server.token)) == 302);
  for (const std::string path : {"/", "/abcdefgh23456788/", "/abcdefgh2345678/", "/abcdefgh234567899/", "//abcdefgh23456789/",
                                 "/favicon.ico", "/ABCDEFGH23456789/", "abcdefgh23456789/"})
    CHECK_MESSAGE(status(server.get(path)) == 404, path);
  for (const char* path : {"x", "../", "result", "%2e%2e/", "ca.crt/"}) CHECK_MESSAGE(status(server.get(server.root + path)) == 404, path);
  CHECK(status(server.post("/wrongwrongwrong1/result", "{}")) == 404);
  CHECK(server.posted.empty());
}

TEST_CASE("the page is not kept, not framed, and runs no script but its own") {
  Harness server;
  const auto one = server.get(server.root), two = server.get(server.root);
  for (const char* header : {"Cache-Control: no-store", "default-src 'none'", "frame-ancestors 'none'",
                             "Referrer-Policy: no-referrer", "X-Content-Type-Options: nosniff"})
    CHECK_MESSAGE(has(one, header), header);
  const auto nonce = one.substr(one.find("page ") + 5);
  CHECK(nonce.size() == 20);
  CHECK(has(one, "script-src 'nonce-" + nonce + "'"));
  CHECK_FALSE(has(two, nonce));
}

TEST_CASE("a result goes on with who sent it, and its status comes back") {
  Harness server;
  CHECK(status(server.post(server.root + "result", "{\"a\": 1}")) == 204);
  CHECK(status(server.post(server.root + "result", "refuse")) == 400);
  REQUIRE(server.posted.size() == 2);
  CHECK(server.posted[0].body == "{\"a\": 1}");
  CHECK(server.posted[0].address == "127.0.0.1");
  CHECK(server.posted[0].user_agent == "phone");
}

TEST_CASE("only GET of the page and POST of a JSON result are served") {
  Harness server;
  CHECK(status(server.post(server.root, "{}")) == 405);
  CHECK(status(server.post(server.root + "result", "{}", "text/plain")) == 415);
  for (const char* method : {"PUT", "DELETE", "OPTIONS", "HEAD", "TRACE"})
    CHECK_MESSAGE(status(server.ask(std::string(method) + " " + server.root + " HTTP/1.1\r\nHost: x\r\n\r\n")) == 405, method);
  CHECK(server.posted.empty());
}

TEST_CASE("what is too large is refused, not read") {
  Harness server;
  CHECK(status(server.post(server.root + "result", std::string(9000, ' '))) == 413);
  CHECK(status(server.ask("GET " + server.root + " HTTP/1.1\r\nX: " + std::string(9000, 'x') + "\r\n\r\n")) == 431);
  const std::string post = "POST " + server.root + "result HTTP/1.1\r\nContent-Type: application/json\r\n";
  CHECK(status(server.ask(post + "Content-Length: 99999999999999999999\r\n\r\n")) == 400);
  CHECK(status(server.ask(post + "Transfer-Encoding: chunked\r\n\r\nffff\r\n" + std::string(0xffff, ' '))) == 413);
  CHECK(status(server.ask("\x16\x03\x01 this is TLS\r\n\r\n")) == 400);
  CHECK(server.posted.empty());
  CHECK(status(server.get(server.root)) == 200);
}

TEST_CASE("beyond so many from one address, a connection is closed unheard") {
  Harness server(nullptr, [](auto& settings) { settings.request_time = std::chrono::seconds(600), settings.connections_an_address = 3; });
  std::vector<tcp::socket> idle;
  for (int i = 0; i < 3; ++i) idle.push_back(server.connect());
  CHECK(server.get(server.root).empty());
}

TEST_CASE("who is slow is let go, and keeps nobody out") {
  Harness server(nullptr, [](auto& settings) { settings.request_time = std::chrono::seconds(1), settings.connections_an_address = 3; });
  std::vector<tcp::socket> idle;
  for (int i = 0; i < 3; ++i) idle.push_back(server.connect());
  boost::system::error_code gone;  // if this machine kept us waiting
  asio::write(idle[1], asio::buffer(std::string("GET ")), gone);
  for (auto& socket : idle) CHECK(Harness::rest(socket).empty());
  idle.clear();
  // What is left of them takes a moment to be taken away.
  std::string answer;
  for (const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30); answer.empty() && std::chrono::steady_clock::now() < end;)
    answer = server.get(server.root);
  CHECK(status(answer) == 200);
}

TEST_CASE("the CA can be had, as phones take it, if there is one") {
  Harness server;
  const auto answer = server.get(server.root + "ca.crt");
  CHECK(has(answer, "Content-Type: application/x-x509-ca-cert"));
  CHECK(answer.ends_with("\r\n\r\nDER"));
  Harness without(nullptr, [](auto& settings) { settings.ca_certificate.clear(); });
  CHECK(status(without.get(without.root + "ca.crt")) == 404);
}

TEST_CASE("over TLS it serves the same, with a certificate of ours") {
  std::string why;
  const auto ca = certificate::make_authority("Office CA", certificate::KeyType::ec, 30, {}, std::time(nullptr), why);
  REQUIRE(ca);
  certificate::Names names;
  names.addresses.push_back(*radiotower::net::IpAddress::parse("127.0.0.1"));
  const auto issued = certificate::issue(*ca, names, certificate::KeyType::ec, 20, std::time(nullptr), why);
  REQUIRE(issued);
  asio::ssl::context ours(asio::ssl::context::tls_server), theirs(asio::ssl::context::tls_client);
  ours.use_certificate_chain(asio::buffer(issued->chain_pem));
  ours.use_private_key(asio::buffer(issued->key_pem), asio::ssl::context::pem);
  theirs.add_certificate_authority(asio::buffer(certificate::to_pem(ca->certificate.get())));
  theirs.set_verify_mode(asio::ssl::verify_peer);
  Harness server(&ours);
  asio::ssl::stream<tcp::socket> stream(server.connect(), theirs);
  stream.set_verify_callback(asio::ssl::host_name_verification("127.0.0.1"));
  stream.handshake(asio::ssl::stream_base::client);
  asio::write(stream, asio::buffer("GET " + server.root + " HTTP/1.1\r\nHost: x\r\n\r\n"));
  CHECK(status(Harness::rest(stream)) == 200);
}

TEST_CASE("tokens differ") {
  const auto one = page::random_token(), two = page::random_token();
  CHECK(one.size() == 16);
  CHECK(one != two);
}
