// The inside of HttpServer: its thread's loop and the connections on it. Private to http_server.cpp and http_connection.cpp.
#pragma once

#include <array>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "notifier/http_message.h"
#include "notifier/http_server.h"
#include "notifier/tls.h"

namespace radiotower::notifier {

using Clock = std::chrono::steady_clock;
using Endpoint = boost::asio::ip::tcp::endpoint;

inline void count(std::atomic<std::uint64_t>& counter) { counter.fetch_add(1, std::memory_order_relaxed); }
std::string text_of(const Endpoint& endpoint);

class Connection;

/// How much a connection is worth to us; each standing has its lists, in the order of becoming so.
enum class Standing : std::uint8_t {
  waiting,   // for the first byte of a request, or for a handshake: to lose one costs nobody a request
  unproven,  // a request has begun and nobody answers for it yet: its head or body is read, a refusal is written
  busy       // a request was handed over, until its answer is written
};
using Connections = std::list<std::shared_ptr<Connection>>;
template <typename List>
struct ByStanding {
  List& list(Standing standing) { return lists[static_cast<std::size_t>(standing)]; }
  std::size_t open() const { return lists[0].size() + lists[1].size() + lists[2].size(); }
  std::array<List, 3> lists;
};

/// Tokens that come back with time.
class Bucket {
 public:
  explicit Bucket(HttpServer::Rate rate) : rate_(rate), tokens_(rate.burst) {}
  bool has_one(Clock::time_point now) { return refill(now), tokens_ >= 1; }
  bool is_full(Clock::time_point now) { return refill(now), tokens_ >= rate_.burst; }
  void take_one() { tokens_ -= 1; }

 private:
  void refill(Clock::time_point now);

  HttpServer::Rate rate_;
  double tokens_;
  Clock::time_point refilled_{};
};

/// What comes from one IPv4 address, or from one IPv6 network of 64 bits, which is what a single customer is given.
struct Origin : ByStanding<std::list<Connection*>> {
  explicit Origin(HttpServer::Rate rate) : handshakes(rate) {}
  bool exempt = false;     // this machine: a proxy, whose connections are those of many
  std::size_t bodies = 0;  // bytes of those that are unproven
  Bucket handshakes;
};
/// Of connections that are open, and some seconds longer, until the bucket is full again. Those are few: what an origin's bucket gives,
/// the server's own gives as well.
using Origins = std::map<std::pair<bool, std::uint64_t>, Origin>;

/// The bound on what on_trouble is told, for each kind of sentence.
class Reporter {
 public:
  explicit Reporter(const HttpServer::Options& options) : options_(options) {}
  void tell(std::string_view sentence, const Endpoint* client, Clock::time_point now = Clock::now()) noexcept;

 private:
  struct Kind {
    std::string name;  // the sentence up to its first ':' or '('
    Clock::time_point minute{}, next{};
    unsigned told = 0;  // in that minute
    std::uint64_t untold = 0;
  };
  Kind& kind_of(std::string_view sentence);

  const HttpServer::Options& options_;
  std::vector<Kind> kinds_;
};

struct Listener {
  boost::asio::ip::tcp::acceptor acceptor;
  boost::asio::steady_timer pause;
  bool armed = false;  // something is under way that will accept the next connection
};

/// Everything that lives on the server's thread once it runs. The io_context comes first: it is destroyed last, and with it what waits in it.
struct Loop : ByStanding<Connections> {
  Loop(HttpServer::Options o, HttpServer::OnHead head, HttpServer::OnRequest request)
      : options(std::move(o)), on_head(std::move(head)), on_request(std::move(request)) {}

  void run();
  void listen(const std::string& where);
  void accept(Listener& listener);
  void accept_all();
  void take(boost::asio::ip::tcp::socket socket);
  Origin& origin_of(const boost::asio::ip::address& client);
  bool may_shake_hands(Origin& origin);
  void shake_hands_later(std::shared_ptr<Connection> connection);
  void shake_some_hands();
  bool make_room();
  void make_room_for_heads();
  bool make_room_for_body(Connection& wanting, std::size_t bytes);
  void sweep_later();
  void sweep();
  void give_memory_back();
  void begin_stop(std::chrono::milliseconds grace);
  void close_all();
  void end_if_empty();

  boost::asio::io_context io{1};
  const HttpServer::Options options;
  const HttpServer::OnHead on_head;
  const HttpServer::OnRequest on_request;
  std::weak_ptr<Loop> self;  // for Responders
  HttpCounters counters;
  std::atomic<std::uint64_t> beats{0};
  std::list<Listener> listeners;
  std::vector<std::string> bound;
  std::mutex certificate_mutex;
  std::shared_ptr<SSL_CTX> certificate;  // null: plain HTTP
  Reporter reporter{options};

  Origins origins;
  std::deque<std::shared_ptr<Connection>> handshakes;  // that can take a step
  Bucket handshake_starts{options.handshakes};
  std::size_t held_bodies = 0;  // bytes of bodies that are read or being answered
  std::size_t held_heads = 0;   // bytes of heads, and of what is not yet understood
  std::size_t peak = 0;         // of open connections since memory was last given back
  bool stopping = false, sweeping = false, shaking = false;
  boost::asio::steady_timer sweep_timer{io}, grace_timer{io};
  std::array<char, 16 * 1024> scratch{};  // every read ends here first: an idle connection owns no buffer
  std::thread thread;
};

/// One connection: a loop over its phases, left when it has to wait for the socket, the handler or its deadline.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(Loop& loop, Stream stream, const Endpoint& client, Origin& origin, bool tls)
      : loop_(loop), stream_(std::move(stream)), client_(client), origin_(origin), phase_(tls ? Phase::handshake : Phase::idle) {}

  void start();  // puts it into its lists; the caller's part ends here
  void run() noexcept;
  void expire() noexcept;        // it is late
  void give_up_body() noexcept;  // for the sake of others
  void close() noexcept;
  void answered(std::uint64_t number, const HttpAnswer& answer) noexcept;

  bool has_head() const { return phase_ >= Phase::body; }
  bool is_late(Clock::time_point now) const { return deadline_ <= now || is_too_slow(now); }
  Origin& origin() { return origin_; }
  std::size_t held_body() const { return held_body_; }
  Clock::time_point body_began() const { return body_began_; }
  /// Bytes of the body, each worth half as much after every sweep: what came in the last second or so.
  std::size_t progress() const { return progress_; }
  void fade() { progress_ /= 2; }

 private:
  enum class Phase : std::uint8_t { handshake, idle, head, body, answering, writing, lingering, closed };

  Standing standing() const;
  std::chrono::milliseconds patience() const;
  bool is_too_slow(Clock::time_point now) const;
  void enter(Phase phase);
  template <typename Step>
  void guarded(Step step) noexcept;
  void proceed();
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
  void turn_to_answer();
  void hold_body(std::size_t bytes);
  void hold_head(std::size_t bytes);
  std::size_t head_size() const;

  Loop& loop_;
  Stream stream_;
  const Endpoint client_;
  Origin& origin_;
  Connections::iterator place_{};  // in the loop's list
  std::list<Connection*>::iterator own_place_{};  // in the origin's
  Clock::time_point deadline_{}, body_began_{};
  Phase phase_, after_writing_ = Phase::idle;
  Standing listed_ = Standing::waiting;
  bool handed_over_ = false;  // the request; until the next begins
  bool to_head_ = false, keep_alive_ = false;
  std::uint64_t request_number_ = 0;
  std::size_t held_body_ = 0, held_head_ = 0;  // our part of the loop's
  std::size_t received_ = 0, progress_ = 0;    // of the body
  std::size_t discarded_ = 0;
  std::string in_;                         // read and not yet understood: at most a head and a read of 16 KiB
  std::string out_;                        // still to be written
  HeadSearch search_;
  std::unique_ptr<RequestReader> reader_;  // while a request is read
};

}  // namespace radiotower::notifier
