#include "metrics_server.h"

#include <pthread.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <functional>
#include <list>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ip/v6_only.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/basic_stream.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <fmt/format.h>

#include "metrics_text.h"
#include "radiotower/net/host_header.h"
#include "socket_file.h"

namespace radiotower::daemon {

namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using boost::system::error_code;
using tcp = asio::ip::tcp;
using local = asio::local::stream_protocol;
using Stream = beast::basic_stream<asio::generic::stream_protocol>;
using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

constexpr std::size_t most_connections = 16;
constexpr unsigned most_requests = 1000;  // of one connection
constexpr std::uint32_t largest_head = 8 << 10;
constexpr auto first_request_within = 10s, next_request_within = 75s, taken_within = 10s, lingers_for = 1s;
constexpr auto between_snapshots = 50ms;
constexpr milliseconds patience{250};  // with a worker

using Answer = http::response<http::string_body>;
constexpr const char* plain_text = "text/plain; charset=utf-8";
constexpr const char* prometheus_text = "text/plain; version=0.0.4; charset=utf-8";
constexpr const char* front_page = "<!doctype html><title>radiotower</title><p><a href=\"/metrics\">/metrics</a>: the relay's figures, for Prometheus.</p>\n";

/// Asks for the figures; they come later, on the same thread.
using Figures = std::function<void(const std::string& text)>;
using AskForFigures = std::function<void(Figures)>;

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(asio::generic::stream_protocol::socket socket, const AskForFigures& ask, bool is_on_loopback)
      : stream_(std::move(socket)), ask_(ask), is_on_loopback_(is_on_loopback) {}

  void read() {
    waiting_since_ = Clock::now();
    parser_.emplace();
    parser_->header_limit(largest_head);
    stream_.expires_after(requests_ == 0 ? first_request_within : next_request_within);
    http::async_read_header(stream_, buffer_, *parser_, [self = shared_from_this()](const error_code& error, std::size_t) { self->on_head(error); });
  }
  /// Since when it has waited for a request, or for the client to close; none: it is being answered.
  const std::optional<Clock::time_point>& waiting_since() const { return waiting_since_; }
  void close() {
    error_code ignored;
    stream_.socket().close(ignored);
  }

 private:
  void on_head(const error_code& error) {
    waiting_since_.reset();
    if (error) {
      if (error == http::error::header_limit) return refuse(http::status::request_header_fields_too_large, "the head is too long");
      // What is no HTTP is told so; who has gone, or said nothing in time, is not.
      const bool is_of_http = error.category() == http::make_error_code(http::error::bad_method).category();
      if (is_of_http && error != http::error::end_of_stream && error != http::error::partial_message)
        return refuse(http::status::bad_request, "this is no HTTP request");
      return close();
    }
    const auto& head = parser_->get();
    if (head.chunked() || parser_->content_length().value_or(0) != 0) return refuse(http::status::bad_request, "a request has no body here");
    keep_ = head.keep_alive() && ++requests_ < most_requests;
    version_ = head.version();
    is_head_ = head.method() == http::verb::head;
    if (is_on_loopback_)
      for (const auto& field : head)
        if (field.name() == http::field::host && !net::names_this_host({field.value().data(), field.value().size()}))
          return answer(http::status::misdirected_request, plain_text,
                        "the figures are for this host alone: ask for localhost or an IP address, as http://127.0.0.1:9641/metrics; a proxy sets Host so\n");
    const auto target = std::string(head.target().substr(0, head.target().find('?')));
    if (target != "/metrics" && target != "/") return answer(http::status::not_found, plain_text, "nothing is here; the figures are at /metrics\n");
    if (head.method() != http::verb::get && !is_head_) return answer(http::status::method_not_allowed, plain_text, "only GET and HEAD here\n");
    if (target == "/") return answer(http::status::ok, "text/html; charset=utf-8", front_page);
    ask_([self = shared_from_this()](const std::string& text) { self->answer(http::status::ok, prometheus_text, text); });
  }

  void refuse(http::status status, const char* sentence) {
    keep_ = is_head_ = false;
    version_ = 11;
    answer(status, plain_text, std::string(sentence) + "\n");
  }

  void answer(http::status status, const char* type, std::string body) {
    answer_.emplace(status, version_);
    answer_->set(http::field::content_type, type);
    answer_->set(http::field::cache_control, "no-store");
    if (status == http::status::method_not_allowed) answer_->set(http::field::allow, "GET, HEAD");
    answer_->content_length(body.size());
    answer_->keep_alive(keep_);
    if (!is_head_) answer_->body() = std::move(body);
    serializer_.emplace(*answer_);
    stream_.expires_after(taken_within);
    const auto then = [self = shared_from_this()](const error_code& error, std::size_t) {
      if (error && error != http::error::need_buffer) return self->close();
      if (self->keep_) return self->read();
      error_code ignored;
      self->stream_.socket().shutdown(asio::socket_base::shutdown_send, ignored);
      self->stream_.expires_after(lingers_for);
      self->waiting_since_ = Clock::now();
      self->linger();
    };
    if (is_head_) http::async_write_header(stream_, *serializer_, then);
    else http::async_write(stream_, *serializer_, then);
  }

  /// Takes away what the client still sends: closed over it, the kernel would reset the connection, and the answer could be lost (RFC 9112 9.6).
  void linger() {
    stream_.async_read_some(asio::buffer(rest_), [self = shared_from_this()](const error_code& error, std::size_t) { error ? self->close() : self->linger(); });
  }

  Stream stream_;
  const AskForFigures& ask_;
  const bool is_on_loopback_;
  beast::flat_buffer buffer_{largest_head + 1024};
  std::optional<http::request_parser<http::empty_body>> parser_;
  std::optional<Answer> answer_;
  std::optional<http::response_serializer<http::string_body>> serializer_;
  std::optional<Clock::time_point> waiting_since_;
  unsigned requests_ = 0, version_ = 11;
  bool keep_ = false, is_head_ = false;
  std::array<char, 4096> rest_;
};

class Server final : public MetricsServer, private EventSink {
 public:
  Server(const OperatorSettings& settings, Operations& operations, Log& log) : operations_(operations), log_(log), coturn_names_(settings.coturn_names) {
    operations_.add_sink(*this);
  }
  ~Server() override {
    operations_.remove_sink(*this);
    io_.stop();
    if (thread_.joinable()) thread_.join();
  }

  bool listen(const std::string& where, std::string& why) {
    const bool is_path = where.starts_with("unix:");
    if (!(is_path ? listen_on_path(where.substr(5), why) : listen_on_address(where, why))) return false;
    if (tcp_) accept(*tcp_);
    if (local_) accept(*local_);
    thread_ = std::thread([this] { run(); });
    pthread_setname_np(thread_.native_handle(), "metrics");
    return true;
  }

  void apply(const OperatorSettings& settings) override { coturn_names_ = settings.coturn_names; }

 private:
  bool listen_on_address(const std::string& where, std::string& why) {
    const auto address = net::TransportAddress::parse(where);
    if (!address) return why = fmt::format("\"{}\" is no address; \"127.0.0.1:9641\" is one", where), false;
    is_on_loopback_ = address->ip.is_loopback();
    error_code error;
    const bool v6 = !address->ip.is_v4();
    const tcp::endpoint endpoint(asio::ip::make_address(address->ip.text(), error), address->port);
    tcp_.emplace(io_);
    if (!error) tcp_->open(endpoint.protocol(), error);
    if (!error) tcp_->set_option(tcp::acceptor::reuse_address(true), error);
    if (!error && v6) tcp_->set_option(asio::ip::v6_only(true), error);
    if (!error) tcp_->bind(endpoint, error);
    if (!error) tcp_->listen(most_connections, error);
    if (!error) return true;
    why = error == asio::error::address_in_use ? fmt::format("another program has {}; `ss -tlpn 'sport = :{}'` says which", where, address->port)
          : error.value() == EADDRNOTAVAIL     ? fmt::format("this host has no address {}; `ip address` shows what it has", address->ip.text())
                                               : fmt::format("cannot listen on {}: {}", where, error.message());
    return false;
  }

  bool listen_on_path(const std::string& path, std::string& why) {
    if (!file_.open(path, why)) return false;
    local_.emplace(io_, local(), file_.release());
    return true;
  }

  void run() {
    for (;;) {
      try {
        io_.run();
        return;
      } catch (const std::exception& error) {  // memory has run out: the connection is lost, and the next one may find some
        log_.write(Priority::warning, "metrics", error.what());
      }
    }
  }

  template <typename Acceptor>
  void accept(Acceptor& acceptor) {
    acceptor.async_accept([this, &acceptor](const error_code& error, typename Acceptor::protocol_type::socket socket) {
      if (error == asio::error::operation_aborted) return;
      if (!error) {
        take(std::move(socket));
        return accept(acceptor);
      }
      pause_.expires_after(100ms);  // out of descriptors, as a rule
      pause_.async_wait([this, &acceptor](const error_code& cancelled) {
        if (!cancelled) accept(acceptor);
      });
    });
  }

  void take(asio::generic::stream_protocol::socket socket) {
    connections_.remove_if([](const std::weak_ptr<Connection>& connection) { return connection.expired(); });
    if (connections_.size() >= most_connections) {
      std::shared_ptr<Connection> oldest;
      for (const auto& weak : connections_) {
        const auto connection = weak.lock();
        if (!connection || !connection->waiting_since()) continue;
        if (!oldest || *connection->waiting_since() < *oldest->waiting_since()) oldest = connection;
      }
      if (!oldest) return;  // all are being answered: the new one is closed
      oldest->close();
      connections_.remove_if([&](const std::weak_ptr<Connection>& connection) { return connection.lock() == oldest; });
    }
    const auto connection = std::make_shared<Connection>(std::move(socket), ask_, is_on_loopback_);
    connections_.push_back(connection);
    connection->read();
  }

  /// Who asks within 50 ms of the last snapshot waits for the next one, and all who wait get the same: it is of a moment after each of them has asked.
  void ask(Figures figures) {
    waiting_.push_back(std::move(figures));
    if (waiting_.size() > 1) return;
    timer_.expires_at(taken_at_ + between_snapshots);
    timer_.async_wait([this](const error_code& error) {
      if (!error) answer_all();
    });
  }

  void answer_all() {
    const auto waiting = std::exchange(waiting_, {});
    const Snapshot snapshot = take_snapshot();
    taken_at_ = Clock::now();
    const std::string text = metrics_text(snapshot, coturn_names_);
    for (const Figures& figures : waiting) figures(text);
  }

  Snapshot take_snapshot() {
    Snapshot snapshot;
    snapshot.standing = operations_.standing();
    last_.resize(snapshot.standing.workers);
    for (auto& worker : last_) worker.answered = false;
    for (auto& report : operations_.reports(patience)) {
      if (report.number >= last_.size()) continue;
      Snapshot::OfWorker& worker = last_[report.number];
      worker.answered = true;
      worker.report = std::move(report);
    }
    snapshot.workers = last_;
    snapshot.usage = operations_.usage();
    snapshot.offload = operations_.offload_outcomes();
    snapshot.log_lines_dropped = operations_.log_lines_dropped();
    const std::lock_guard lock(mutex_);
    snapshot.finished = finished_;
    snapshot.finished[snapshot.standing.realm] = std::exchange(snapshot.finished[""], {});
    snapshot.finished.erase("");
    return snapshot;
  }

  void on_event(unsigned, const turn::Event& event) override {
    if (event.kind != turn::Event::Kind::allocation_ended) return;
    const std::lock_guard lock(mutex_);
    FinishedTraffic& traffic = finished_[event.realm];
    traffic.packets_to_peer += event.packets_to_peer;
    traffic.bytes_to_peer += event.bytes_to_peer;
    traffic.packets_to_client += event.packets_to_client;
    traffic.bytes_to_client += event.bytes_to_client;
  }

  Operations& operations_;
  Log& log_;
  std::atomic<bool> coturn_names_;
  asio::io_context io_{1};  // goes after all that is bound to it
  std::mutex mutex_;
  std::map<std::string, FinishedTraffic, std::less<>> finished_;  // under mutex_; by realm, "": the default one
  std::vector<Snapshot::OfWorker> last_;                          // of the thread
  std::vector<Figures> waiting_;
  Clock::time_point taken_at_{};
  std::list<std::weak_ptr<Connection>> connections_;
  const AskForFigures ask_ = [this](Figures figures) { ask(std::move(figures)); };
  SocketFile file_;  // where it is a Unix socket
  std::optional<tcp::acceptor> tcp_;
  std::optional<local::acceptor> local_;
  bool is_on_loopback_ = false;
  asio::steady_timer timer_{io_}, pause_{io_};
  std::thread thread_;
};

}  // namespace

std::unique_ptr<MetricsServer> MetricsServer::start(const OperatorSettings& settings, Operations& operations, Log& log, std::string& why) {
  auto server = std::make_unique<Server>(settings, operations, log);
  if (!server->listen(settings.metrics_listen, why)) return nullptr;
  return server;
}

}  // namespace radiotower::daemon
