#include "notifier/http_server.h"

#include <malloc.h>
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
constexpr int handshakes_a_turn = 8;       // a step takes up to a millisecond; between turns the other connections get theirs
constexpr milliseconds young_for{1000};    // a body is so long spared for its slowness
constexpr std::size_t worth_a_trim = 256;  // connections
constexpr std::size_t most_kinds = 16;
constexpr unsigned told_a_minute = 30;

Endpoint endpoint_of(const std::string& text) {
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

[[noreturn]] void cannot_listen(const std::string& where, const Endpoint& endpoint, const error_code& error) {
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

std::string text_of(const Endpoint& endpoint) {
  const std::string host = endpoint.address().to_string();
  return (endpoint.address().is_v6() ? '[' + host + ']' : host) + ':' + std::to_string(endpoint.port());
}

void Bucket::refill(Clock::time_point now) {
  const std::chrono::duration<double> seconds = now - std::exchange(refilled_, now);
  tokens_ = std::min(rate_.burst, tokens_ + seconds.count() * rate_.a_second);
}

/// Kinds beyond the bound, which takes a handler with many things to say, share the last.
Reporter::Kind& Reporter::kind_of(std::string_view sentence) {
  const std::string_view name = sentence.substr(0, sentence.find_first_of(":("));
  for (Kind& kind : kinds_) {
    if (kind.name == name) return kind;
  }
  return kinds_.size() < most_kinds ? kinds_.emplace_back(Kind{std::string(name)}) : kinds_.back();
}

void Reporter::tell(std::string_view sentence, const Endpoint* client, Clock::time_point now) noexcept try {
  if (!options_.on_trouble) return;
  Kind& kind = kind_of(sentence);
  if (now - kind.minute >= std::chrono::minutes(1)) kind.minute = now, kind.told = 0;
  if (now < kind.next || kind.told >= told_a_minute) {
    ++kind.untold;
    return;
  }
  kind.next = now + std::chrono::seconds(1);
  ++kind.told;
  std::string text(sentence);
  if (kind.untold > 0) text += " (and " + std::to_string(std::exchange(kind.untold, 0)) + " more like it)";
  options_.on_trouble(text, client ? text_of(*client) : std::string());
} catch (...) {  // memory has run out, and nobody can be told
}

/// Until all is stopped. What is thrown past a connection is for want of memory: whatever could not be armed then is armed again.
void Loop::run() {
  while (true) {
    try {
      accept_all();
      if (!sweeping) sweep_later();
      io.run();
      return;
    } catch (const std::exception& e) {
      reporter.tell(e.what(), nullptr);
    } catch (...) {
    }
    std::this_thread::sleep_for(milliseconds(10));
  }
}

void Loop::listen(const std::string& where) {
  const Endpoint endpoint = endpoint_of(where);
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
    listener.armed = false;
    if (!listener.acceptor.is_open()) return;
    if (!error) take(std::move(socket));
    if (!error || error == asio::error::connection_aborted) return accept(listener);
    const char* const remedy = make_room() ? "; the one that waited longest was closed" : "";
    reporter.tell("cannot accept connections: " + error.message() + remedy, nullptr);
    listener.pause.expires_after(accept_pause);
    listener.pause.async_wait([this, &listener](const error_code& cancelled) {
      listener.armed = false;
      if (!cancelled && !stopping) accept(listener);
    });
    listener.armed = true;
  });
  listener.armed = true;
}

void Loop::accept_all() {
  for (Listener& listener : listeners) {
    if (!listener.armed && !stopping) accept(listener);
  }
}

Origin& Loop::origin_of(const asio::ip::address& client) {
  std::uint64_t number = 0;
  if (client.is_v4()) {
    number = client.to_v4().to_uint();
  } else {
    const auto bytes = client.to_v6().to_bytes();
    for (std::size_t i = 0; i < 8; ++i) number = number << 8 | bytes[i];
  }
  const auto [place, is_new] = origins.try_emplace({client.is_v6(), number}, options.client_handshakes);
  if (is_new) place->second.exempt = client.is_loopback() && options.loopback_is_proxy;
  return place->second;
}

bool Loop::may_shake_hands(Origin& origin) {
  const auto now = Clock::now();
  // First the client's own, so that one does not use up what is for all.
  if (!origin.exempt && !origin.handshakes.has_one(now)) return false;
  if (!handshake_starts.has_one(now)) return false;
  handshake_starts.take_one();
  if (!origin.exempt) origin.handshakes.take_one();
  return true;
}

void Loop::take(tcp::socket socket) try {
  error_code error;
  const Endpoint client = socket.remote_endpoint(error);
  if (!error) socket.native_non_blocking(true, error);
  if (error) return;  // it has left
  socket.set_option(tcp::no_delay(true), error);
  count(counters.accepted);
  std::shared_ptr<SSL_CTX> context;
  {
    const std::lock_guard lock(certificate_mutex);
    context = certificate;
  }
  Origin& origin = origin_of(client.address());
  if (context && !may_shake_hands(origin)) {
    count(counters.refused);
    return reporter.tell("TLS handshakes are asked for faster than they are given: a new connection was turned away", &client);
  }
  auto &idle = origin.list(Standing::waiting), &unproven = origin.list(Standing::unproven);
  while (!origin.exempt && idle.size() + unproven.size() > 0 && idle.size() + unproven.size() >= options.connections_a_client) {
    count(counters.refused);
    (idle.empty() ? unproven : idle).front()->close();
  }
  if (open() >= options.connections && !make_room()) {
    count(counters.refused);
    return reporter.tell("all connections are busy: a new one was turned away", &client);
  }
  std::make_shared<Connection>(*this, Stream(std::move(socket), context.get()), client, origin, context != nullptr)->start();
  peak = std::max(peak, open());
} catch (const std::bad_alloc&) {
  reporter.tell("memory has run out: a new connection was turned away", nullptr);
}

void Loop::shake_hands_later(std::shared_ptr<Connection> connection) {
  handshakes.push_back(std::move(connection));
  if (shaking) return;
  asio::post(io, [this] { shake_some_hands(); });
  shaking = true;
}

void Loop::shake_some_hands() {
  shaking = false;
  for (int i = 0; i < handshakes_a_turn && !handshakes.empty(); ++i) {
    const auto connection = std::move(handshakes.front());
    handshakes.pop_front();
    connection->run();
  }
  if (handshakes.empty()) return;
  asio::post(io, [this] { shake_some_hands(); });
  shaking = true;
}

/// Closes the connection that is the least loss to anybody: the one that has waited longest for a request, or else the one whose request
/// has been unproven for longest. Never one whose request was handed over.
bool Loop::make_room() {
  for (const Standing standing : {Standing::waiting, Standing::unproven}) {
    if (list(standing).empty()) continue;
    count(counters.refused);
    list(standing).front()->close();
    return true;
  }
  return false;
}

void Loop::make_room_for_heads() {
  Connections& unproven = list(Standing::unproven);
  while (held_heads > options.all_heads && !unproven.empty()) {
    count(counters.refused);
    unproven.front()->close();
  }
}

namespace {

/// Gives up the slowest of `bodies` until `wanting` can read `bytes` more and a sixteenth of `most` is left for those to come, since
/// to look at all of them for every read would be too dear. False: there is no room, or `wanting` is the slowest.
template <typename List>
bool give_up_slowest(const List& bodies, const std::size_t& held, std::size_t most, Connection& wanting, std::size_t bytes) {
  if (held + bytes <= most) return true;
  struct Body {
    bool young;  // too young to be judged: only when there are no others, and never the one that has just come
    std::size_t progress;
    std::shared_ptr<Connection> connection;
  };
  std::vector<Body> slowest;
  const auto now = Clock::now();
  for (const auto& connection : bodies) {
    const bool mine = &*connection == &wanting;
    const bool young = connection->held_body() == 0 || now - connection->body_began() < young_for;
    if (mine ? young : connection->held_body() == 0) continue;
    slowest.push_back({young, connection->progress(), connection->shared_from_this()});
  }
  std::sort(slowest.begin(), slowest.end(), [](const Body& a, const Body& b) {
    return a.young != b.young ? b.young : a.progress < b.progress;
  });
  for (const Body& body : slowest) {
    if (held + bytes <= most - most / 16) break;
    if (body.connection.get() == &wanting) return held + bytes <= most;
    body.connection->give_up_body();
  }
  return held + bytes <= most;
}

}  // namespace

bool Loop::make_room_for_body(Connection& wanting, std::size_t bytes) {
  Origin& origin = wanting.origin();
  const std::size_t share = origin.exempt ? options.all_bodies / 2 : options.bodies_a_client;
  return give_up_slowest(origin.list(Standing::unproven), origin.bodies, std::max(share, options.longest_body), wanting, bytes) &&
         give_up_slowest(list(Standing::unproven), held_bodies, options.all_bodies, wanting, bytes);
}

void Loop::sweep_later() {
  const HttpServer::Options& o = options;
  const auto shortest = std::min({o.head_within, o.body_within, o.answer_within, o.taken_within, o.idle_for});
  sweep_timer.expires_after(std::clamp(shortest / 4, milliseconds(5), milliseconds(250)));
  sweep_timer.async_wait([this](const error_code& cancelled) {
    sweeping = false;
    if (!cancelled) sweep();
  });
  sweeping = true;
}

void Loop::sweep() {
  beats.fetch_add(1, std::memory_order_relaxed);
  if (stopping && open() == 0) return;
  sweep_later();  // first: whatever is thrown below, there is a next time
  accept_all();
  const auto now = Clock::now();
  std::vector<std::shared_ptr<Connection>> late;  // expire() changes the lists
  for (const Connections& each : lists) {
    for (const auto& connection : each) {
      if (connection->is_late(now)) late.push_back(connection);
    }
  }
  for (const auto& connection : late) connection->expire();
  for (const auto& connection : list(Standing::unproven)) connection->fade();
  for (auto next = origins.begin(); next != origins.end();) {
    const auto origin = next++;
    if (origin->second.open() == 0 && origin->second.handshakes.is_full(now)) origins.erase(origin);
  }
  give_memory_back();
}

/// After a peak: what thousands of connections have left in pieces, malloc would keep.
void Loop::give_memory_back() {
  if (peak < worth_a_trim || open() >= peak / 4) return;
  peak = open();
  malloc_trim(0);
}

void Loop::begin_stop(milliseconds grace) {
  stopping = true;
  error_code ignored;
  for (Listener& listener : listeners) {
    listener.acceptor.close(ignored);
    listener.pause.cancel();
  }
  for (Connections& each : lists) {
    for (auto next = each.begin(); next != each.end();) {
      const std::shared_ptr<Connection> connection = *next++;
      if (!connection->has_head()) connection->close();
    }
  }
  try {
    grace_timer.expires_after(grace);
    grace_timer.async_wait([this](const error_code& cancelled) {
      if (!cancelled) close_all();
    });
  } catch (const std::bad_alloc&) {
    close_all();
  }
  end_if_empty();
}

void Loop::close_all() {
  for (Connections& each : lists) {
    while (!each.empty()) each.front()->close();
  }
}

/// Without connections and timers the io_context has no work, and the thread ends.
void Loop::end_if_empty() {
  if (!stopping || open() > 0) return;
  grace_timer.cancel();
  sweep_timer.cancel();
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
  state_->thread = std::thread([loop = state_.get()] { loop->run(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void HttpServer::stop(unsigned grace_ms) {
  if (!state_->thread.joinable()) return;
  asio::post(state_->io, [loop = state_.get(), grace_ms] { loop->begin_stop(milliseconds(grace_ms)); });
  state_->thread.join();
}

bool HttpServer::reload_certificate(std::string& why) {
  return reload_certificate(state_->options.certificate, state_->options.private_key, why);
}

bool HttpServer::reload_certificate(const std::string& certificate, const std::string& private_key, std::string& why) {
  auto fresh = load_certificate(certificate, private_key, why);
  if (!fresh) return false;
  const std::lock_guard lock(state_->certificate_mutex);
  state_->certificate = std::move(fresh);
  return true;
}

const HttpCounters& HttpServer::counters() const { return state_->counters; }
std::uint64_t HttpServer::beats() const { return state_->beats.load(std::memory_order_relaxed); }
std::vector<std::string> HttpServer::bound() const { return state_->bound; }

}  // namespace radiotower::notifier
