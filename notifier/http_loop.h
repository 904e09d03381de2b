// The inside of HttpServer: its thread's loop and the connections on it. Private to http_server.cpp and http_connection.cpp.
#pragma once

#include <array>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "notifier/http_message.h"
#include "notifier/http_server.h"
#include "notifier/tls.h"

namespace radiotower::notifier {

using Clock = std::chrono::steady_clock;

inline void count(std::atomic<std::uint64_t>& counter) { counter.fetch_add(1, std::memory_order_relaxed); }
std::string text_of(const boost::asio::ip::tcp::endpoint& endpoint);

class Connection;
using Connections = std::list<std::shared_ptr<Connection>>;

struct Listener {
  boost::asio::ip::tcp::acceptor acceptor;
  boost::asio::steady_timer pause;
};

/// Everything that lives on the server's thread once it runs. The io_context comes first: it is destroyed last, and with it what waits in it.
struct Loop {
  Loop(HttpServer::Options o, HttpServer::OnHead head, HttpServer::OnRequest request)
      : options(std::move(o)), on_head(std::move(head)), on_request(std::move(request)) {}

  void listen(const std::string& where);
  void accept(Listener& listener);
  void take(boost::asio::ip::tcp::socket socket);
  bool make_room();
  void sweep_later();
  void sweep();
  void begin_stop(std::chrono::milliseconds grace);
  void end_if_empty();
  void report(std::string_view sentence, std::string_view client);

  boost::asio::io_context io{1};
  const HttpServer::Options options;
  const HttpServer::OnHead on_head;
  const HttpServer::OnRequest on_request;
  std::weak_ptr<Loop> self;  // for Responders
  HttpCounters counters;
  std::list<Listener> listeners;
  std::vector<std::string> bound;
  std::mutex certificate_mutex;
  std::shared_ptr<SSL_CTX> certificate;  // null: plain HTTP

  Connections waiting;  // for a whole head, the longest first
  Connections busy;     // the others
  std::size_t held_bodies = 0;  // bytes of bodies that are read or being answered
  bool stopping = false, sweeping = false;
  Clock::time_point next_report{};
  boost::asio::steady_timer sweep_timer{io}, grace_timer{io};
  std::array<char, 16 * 1024> scratch{};  // every read ends here first: an idle connection owns no buffer
  std::thread thread;
};

/// One connection: a loop over its phases, left when it has to wait for the socket, the handler or its deadline.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(Loop& loop, Stream stream, const boost::asio::ip::tcp::endpoint& client, bool tls)
      : loop_(loop), stream_(std::move(stream)), client_(client), phase_(tls ? Phase::handshake : Phase::idle) {}

  void start(Connections::iterator place);  // `place`: in loop.waiting
  void run();
  void expire();  // the deadline has passed
  void close();
  void answered(std::uint64_t number, HttpAnswer answer);
  bool has_request() const { return phase_ >= Phase::body; }
  Clock::time_point deadline() const { return deadline_; }

 private:
  enum class Phase : std::uint8_t { handshake, idle, head, body, answering, writing, lingering, closed };

  std::chrono::milliseconds patience() const;
  void enter(Phase phase);
  void run_later();
  void wait(Need need);
  Need shake_hands();
  Need read_head();
  Need take_head(std::size_t size);
  Need read_body();
  Need hand_over();
  Need write();
  Need discard();
  Need say(std::string bytes, Phase then);
  Need answer(const HttpAnswer& answer, bool close);
  Need refuse(const Refusal& refusal);
  void hold(std::size_t bytes);

  Loop& loop_;
  Stream stream_;
  const boost::asio::ip::tcp::endpoint client_;
  Connections::iterator place_{};
  Clock::time_point deadline_{};
  Phase phase_, after_writing_ = Phase::idle;
  bool to_head_ = false, keep_alive_ = false;
  std::uint64_t request_number_ = 0;
  std::size_t held_ = 0;       // our part of loop_.held_bodies
  std::size_t discarded_ = 0;
  std::string in_;             // read and not yet understood: at most a head and a read of 16 KiB
  std::string out_;            // still to be written
  HeadSearch search_;
  std::unique_ptr<RequestReader> reader_;  // while a request is read
};

}  // namespace radiotower::notifier
