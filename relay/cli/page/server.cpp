#include "server.h"

#include <openssl/crypto.h>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/ssl.hpp>

#include "radiotower/base/random.h"

namespace radiotower::cli::page {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using asio::ip::tcp;
using boost::system::error_code;
using Request = http::request<http::string_body>;
using Response = http::response<http::string_body>;

namespace {

std::string random_letters(std::size_t count) {
  static constexpr char letters[] = "abcdefghijkmnpqrstuvwxyz23456789";  // 32, without l, o, 0, 1
  std::array<std::uint8_t, 64> bytes{};
  system_random()(MutableBytes(bytes.data(), count));
  std::string out;
  for (std::size_t i = 0; i < count; ++i) out += letters[bytes[i] % 32];
  return out;
}

Response answer(http::status status, std::string body = {}, const char* type = "text/plain; charset=utf-8") {
  Response response(status, 11);
  response.set(http::field::content_type, type);
  response.set(http::field::cache_control, "no-store");
  response.set("X-Content-Type-Options", "nosniff");
  response.set("Referrer-Policy", "no-referrer");
  response.set(http::field::connection, "close");
  response.keep_alive(false);
  response.body() = std::move(body);
  response.prepare_payload();
  return response;
}

bool same(std::string_view a, std::string_view b) { return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0; }

}  // namespace

std::string random_token() { return random_letters(16); }

struct Server::State : std::enable_shared_from_this<Server::State> {
  State(asio::io_context& context, const tcp::endpoint& at, ServerSettings s) : io(context), settings(std::move(s)), acceptor(context) {
    acceptor.open(at.protocol());
    acceptor.set_option(tcp::acceptor::reuse_address(true));
    acceptor.bind(at);
    acceptor.listen(64);
  }

  asio::io_context& io;
  ServerSettings settings;
  tcp::acceptor acceptor;
  std::size_t open = 0;
  std::map<asio::ip::address, std::size_t> open_by_address;

  Response get(const std::string& path, const std::string& from, const std::string& agent) const {
    if (path.empty()) {
      const std::string nonce = random_letters(20);
      Response response = answer(http::status::ok, settings.page(nonce, from, agent), "text/html; charset=utf-8");
      response.set("Content-Security-Policy", "default-src 'none'; script-src 'nonce-" + nonce + "'; style-src 'nonce-" + nonce +
                                                  "'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'");
      response.set("X-Frame-Options", "DENY");
      return response;
    }
    if (path == "ca.crt" && !settings.ca_certificate.empty()) {
      Response response = answer(http::status::ok, settings.ca_certificate, "application/x-x509-ca-cert");
      response.set(http::field::content_disposition, "attachment; filename=\"ca.crt\"");
      return response;
    }
    return answer(http::status::not_found, "not found\n");
  }

  Response post(const Request& request, const std::string& from, const std::string& agent) const {
    // A page of another origin cannot send this type without asking first, and would get no yes.
    const auto type = request[http::field::content_type];
    if (std::string_view(type.data(), type.size()).substr(0, 16) != "application/json") return answer(http::status::unsupported_media_type);
    return answer(http::int_to_status(settings.result(request.body(), from, agent)));
  }

  Response respond(const Request& request, const std::string& from) const {
    const auto target = std::string_view(request.target().data(), request.target().size());
    const auto slash = target.find('/', 1);
    if (!target.starts_with('/') || !same(target.substr(1, (slash == std::string_view::npos ? target.size() : slash) - 1), settings.token))
      return answer(http::status::not_found, "not found\n");
    if (slash == std::string_view::npos) {  // without it the page's own paths would be others
      Response response = answer(http::status::found);
      response.set(http::field::location, "/" + settings.token + "/");
      return response;
    }
    const std::string path(target.substr(slash + 1)), agent(request[http::field::user_agent]);
    if (request.method() == http::verb::get) return get(path, from, agent);
    if (request.method() == http::verb::post && path == "result") return post(request, from, agent);
    return answer(http::status::method_not_allowed);
  }

  /// One request and its answer; both streams are a beast::tcp_stream at the bottom, whose clock bounds each step.
  template <class Stream>
  asio::awaitable<void> converse(Stream& stream, const std::string& from) {
    error_code error;
    beast::flat_buffer buffer(settings.header_bytes + settings.body_bytes);
    http::request_parser<http::string_body> parser;
    parser.header_limit(static_cast<std::uint32_t>(settings.header_bytes));
    parser.body_limit(settings.body_bytes);
    co_await http::async_read(stream, buffer, parser, asio::redirect_error(asio::use_awaitable, error));
    if (error && error.category() != make_error_code(http::error::bad_method).category()) co_return;
    if (error == http::error::end_of_stream || error == http::error::partial_message) co_return;
    Response response = error == http::error::body_limit     ? answer(http::status::payload_too_large)
                        : error == http::error::header_limit ? answer(http::status::request_header_fields_too_large)
                        : error == http::error::buffer_overflow ? answer(http::status::payload_too_large)
                        : error                              ? answer(http::status::bad_request)
                                                             : respond(parser.get(), from);
    beast::get_lowest_layer(stream).expires_after(settings.request_time);
    co_await http::async_write(stream, response, asio::redirect_error(asio::use_awaitable, error));
  }

  /// A connection counts for as long as this lives.
  struct Place {
    Place(std::shared_ptr<State> s, asio::ip::address a) : state(std::move(s)), address(a) { ++state->open, ++state->open_by_address[address]; }
    ~Place() {
      --state->open;
      if (--state->open_by_address[address] == 0) state->open_by_address.erase(address);
    }
    Place(const Place&) = delete;
    Place& operator=(const Place&) = delete;
    std::shared_ptr<State> state;
    asio::ip::address address;
  };

  asio::awaitable<void> serve(beast::tcp_stream stream, asio::ip::address address) {
    const Place place(shared_from_this(), address);
    // A mapped IPv4 address is shown as what it is.
    const std::string from = address.is_v6() && address.to_v6().is_v4_mapped() ? asio::ip::make_address_v4(asio::ip::v4_mapped, address.to_v6()).to_string()
                                                                               : address.to_string();
    error_code error;
    stream.expires_after(settings.request_time);
    if (settings.tls) {
      beast::ssl_stream<beast::tcp_stream> secure(std::move(stream), *settings.tls);
      co_await secure.async_handshake(asio::ssl::stream_base::server, asio::redirect_error(asio::use_awaitable, error));
      if (!error) co_await converse(secure, from);
      beast::get_lowest_layer(secure).expires_after(std::chrono::seconds(1));
      if (!error) co_await secure.async_shutdown(asio::redirect_error(asio::use_awaitable, error));
    } else {
      co_await converse(stream, from);
      stream.socket().shutdown(tcp::socket::shutdown_send, error);
      // What is still coming would turn our answer into a reset; a short look takes it away.
      stream.expires_after(std::chrono::seconds(1));
      std::array<char, 4096> rest;
      for (int i = 0; i < 64 && !error; ++i) co_await stream.async_read_some(asio::buffer(rest), asio::redirect_error(asio::use_awaitable, error));
    }
  }

  asio::awaitable<void> accept() {
    asio::steady_timer pause(io);
    while (acceptor.is_open()) {
      error_code error;
      tcp::socket socket = co_await acceptor.async_accept(asio::redirect_error(asio::use_awaitable, error));
      if (error == asio::error::operation_aborted) co_return;
      if (error) {  // out of descriptors, or a client that left again: not as fast as we can
        pause.expires_after(std::chrono::milliseconds(50));
        co_await pause.async_wait(asio::redirect_error(asio::use_awaitable, error));
        continue;
      }
      const auto remote = socket.remote_endpoint(error);
      if (error) continue;
      const auto address = remote.address();
      const auto count = open_by_address.find(address);
      if (open >= settings.connections || (count != open_by_address.end() && count->second >= settings.connections_an_address)) continue;  // closes it
      asio::co_spawn(io, [self = shared_from_this(), stream = beast::tcp_stream(std::move(socket)), address]() mutable -> asio::awaitable<void> {
        co_await self->serve(std::move(stream), address);
      }, asio::detached);
    }
  }
};

Server::Server(asio::io_context& io, const tcp::endpoint& at, ServerSettings settings) : state_(std::make_shared<State>(io, at, std::move(settings))) {
  asio::co_spawn(io, [state = state_]() -> asio::awaitable<void> { co_await state->accept(); }, asio::detached);
}

Server::~Server() {
  error_code ignored;
  state_->acceptor.close(ignored);
}

tcp::endpoint Server::endpoint() const { return state_->acceptor.local_endpoint(); }

}  // namespace radiotower::cli::page
