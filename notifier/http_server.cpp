#include "notifier/http_server.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <boost/asio/ip/v6_only.hpp>
#include <boost/asio/post.hpp>
#include <charconv>
#include <stdexcept>

#include "notifier/http_loop.h"

namespace radiotower::notifier {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;
using std::chrono::milliseconds;

namespace {

constexpr int backlog = 4096;
constexpr milliseconds accept_pause{100};  // after an error of accept(2): descriptors have run out, and trying at once would spin

tcp::endpoint endpoint_of(const std::string& text) {
  const std::size_t colon = text.rfind(':');
  std::string host = text.substr(0, std::min(colon, text.size()));
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (bracketed) host = host.substr(1, host.size() - 2);
  error_code error;
  const auto address = asio::ip::make_address(host, error);
  std::uint16_t port = 0;
  const char* const end = text.data() + text.size();
  bool has_port = false;
  if (colon != std::string::npos) {
    const auto read = std::from_chars(text.data() + colon + 1, end, port);
    has_port = read.ec == std::errc() && read.ptr == end;
  }
  if (error || !has_port || address.is_v6() != bracketed) {
    throw std::runtime_error("\"" + text + "\" is no address to listen on: it takes an IP address and a port, as in 127.0.0.1:8066 or [::1]:8066");
  }
  return {address, port};
}

[[noreturn]] void cannot_listen(const std::string& where, const tcp::endpoint& endpoint, const error_code& error) {
  if (error == asio::error::address_in_use) throw std::runtime_error(where + " is in use by another program; ss -ltnp shows which");
  if (error == asio::error::access_denied) {
    throw std::runtime_error("no permission for port " + std::to_string(endpoint.port()) +
                             ": ports below 1024 take AmbientCapabilities=CAP_NET_BIND_SERVICE in the unit, or a port above");
  }
  if (error.value() == EADDRNOTAVAIL) throw std::runtime_error("cannot listen on " + where + ": no interface of this machine has that address");
  if (error.value() == EAFNOSUPPORT) throw std::runtime_error("cannot listen on " + where + ": this machine has no IPv6");
  throw std::runtime_error("cannot listen on " + where + ": " + error.message());
}

}  // namespace

std::string text_of(const tcp::endpoint& endpoint) {
  const std::string host = endpoint.address().to_string();
  return (endpoint.address().is_v6() ? '[' + host + ']' : host) + ':' + std::to_string(endpoint.port());
}

void Loop::listen(const std::string& where) {
  const tcp::endpoint endpoint = endpoint_of(where);
  tcp::acceptor acceptor(io);
  error_code error;
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error && endpoint.address().is_v6()) acceptor.set_option(asio::ip::v6_only(true), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(backlog, error);
  if (error) cannot_listen(where, endpoint, error);
  bound.push_back(text_of(acceptor.local_endpoint()));
  listeners.push_back({std::move(acceptor), asio::steady_timer(io)});
}

void Loop::accept(Listener& listener) {
  listener.acceptor.async_accept([this, &listener](const error_code& error, tcp::socket socket) {
    if (!listener.acceptor.is_open()) return;
    if (!error) take(std::move(socket));
    if (!error || error == asio::error::connection_aborted) return accept(listener);
    report("cannot accept connections: " + error.message() + (make_room() ? "; the one that waited longest was closed" : ""), {});
    listener.pause.expires_after(accept_pause);
    listener.pause.async_wait([this, &listener](const error_code& cancelled) {
      if (!cancelled && !stopping) accept(listener);
    });
  });
}

void Loop::take(tcp::socket socket) try {
  error_code error;
  const tcp::endpoint client = socket.remote_endpoint(error);
  if (!error) socket.native_non_blocking(true, error);
  if (error) return;  // it has left
  socket.set_option(tcp::no_delay(true), error);
  count(counters.accepted);
  if (waiting.size() + busy.size() >= options.connections && !make_room()) {
    count(counters.refused);
    return report("all connections are busy: a new one was turned away", text_of(client));
  }
  std::shared_ptr<SSL_CTX> context;
  {
    const std::lock_guard lock(certificate_mutex);
    context = certificate;
  }
  const auto connection = std::make_shared<Connection>(*this, Stream(std::move(socket), context.get()), client, context != nullptr);
  waiting.push_back(connection);
  count(counters.open);
  sweep_later();
  connection->start(std::prev(waiting.end()));
} catch (const std::bad_alloc&) {
  report("memory has run out: a new connection was turned away", {});
}

/// Closes the connection that has been longest without a whole head; it is the one that is the least loss to anybody.
bool Loop::make_room() {
  if (waiting.empty()) return false;
  count(counters.refused);
  const auto longest = waiting.front();
  longest->close();
  return true;
}

void Loop::sweep_later() {
  if (sweeping) return;
  sweeping = true;
  const auto shortest = std::min({options.head_within, options.body_within, options.answer_within, options.taken_within, options.idle_for});
  sweep_timer.expires_after(std::clamp(shortest / 4, milliseconds(5), milliseconds(250)));
  sweep_timer.async_wait([this](const error_code& cancelled) {
    sweeping = false;
    if (!cancelled) sweep();
  });
}

void Loop::sweep() {
  const auto now = Clock::now();
  std::vector<std::shared_ptr<Connection>> late;  // expire() changes the lists
  for (const Connections* list : {&waiting, &busy}) {
    for (const auto& connection : *list) {
      if (connection->deadline() <= now) late.push_back(connection);
    }
  }
  for (const auto& connection : late) connection->expire();
  if (!waiting.empty() || !busy.empty()) sweep_later();
}

void Loop::begin_stop(milliseconds grace) {
  stopping = true;
  error_code ignored;
  for (Listener& listener : listeners) {
    listener.acceptor.close(ignored);
    listener.pause.cancel();
  }
  while (!waiting.empty()) std::shared_ptr<Connection>(waiting.front())->close();
  grace_timer.expires_after(grace);
  grace_timer.async_wait([this](const error_code& cancelled) {
    if (cancelled) return;
    for (Connections* list : {&waiting, &busy}) {
      while (!list->empty()) std::shared_ptr<Connection>(list->front())->close();
    }
  });
  end_if_empty();
}

/// Without connections and timers the io_context has no work, and the thread ends.
void Loop::end_if_empty() {
  if (!stopping || !waiting.empty() || !busy.empty()) return;
  grace_timer.cancel();
  sweep_timer.cancel();
}

void Loop::report(std::string_view sentence, std::string_view client) {
  const auto now = Clock::now();
  if (!options.on_trouble || now < next_report) return;
  next_report = now + std::chrono::seconds(1);
  options.on_trouble(sentence, client);
}

struct HttpServer::State : Loop {
  using Loop::Loop;
};

HttpServer::HttpServer(Options options, OnHead on_head, OnRequest on_request)
    : state_(std::make_shared<State>(std::move(options), std::move(on_head), std::move(on_request))) {
  state_->self = state_;
  std::string why;
  if (!state_->options.certificate.empty() && !reload_certificate(why)) throw std::runtime_error(why);
  for (const std::string& where : state_->options.listen) state_->listen(where);
}

HttpServer::~HttpServer() { stop(); }

void HttpServer::start() {
  // Signals are for the program's own thread; SIGPIPE, of a write by OpenSSL to somebody who left, is for nobody.
  sigset_t every, before;
  sigfillset(&every);
  pthread_sigmask(SIG_SETMASK, &every, &before);
  state_->thread = std::thread([loop = state_.get()] {
    for (Listener& listener : loop->listeners) loop->accept(listener);
    loop->io.run();
  });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void HttpServer::stop(unsigned grace_ms) {
  if (!state_->thread.joinable()) return;
  asio::post(state_->io, [loop = state_.get(), grace_ms] { loop->begin_stop(milliseconds(grace_ms)); });
  state_->thread.join();
}

bool HttpServer::reload_certificate(std::string& why) {
  auto fresh = load_certificate(state_->options.certificate, state_->options.private_key, why);
  if (!fresh) return false;
  const std::lock_guard lock(state_->certificate_mutex);
  state_->certificate = std::move(fresh);
  return true;
}

const HttpCounters& HttpServer::counters() const { return state_->counters; }
std::vector<std::string> HttpServer::bound() const { return state_->bound; }

}  // namespace radiotower::notifier
