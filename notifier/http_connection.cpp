#include <boost/asio/post.hpp>

#include "notifier/http_loop.h"

namespace radiotower::notifier {

namespace asio = boost::asio;
using boost::asio::ip::tcp;
using boost::system::error_code;
using std::chrono::milliseconds;

namespace {

constexpr std::size_t most_discarded = 64 * 1024;
constexpr milliseconds linger_for{1000};
/// What a field takes beyond its bytes: a pair of strings, in a vector that has grown by doubling, and malloc's own.
constexpr std::size_t bytes_a_field = 128;
constexpr std::size_t bytes_a_reader = 1024;

/// Empties `text` and gives its memory back, which assigning an empty one would not.
void release(std::string& text) { std::string().swap(text); }

}  // namespace

void Connection::start() {
  std::list<Connection*> own{this};
  Connections ours{shared_from_this()};  // what can throw is done before anything has changed
  own_place_ = own.begin();
  place_ = ours.begin();
  origin_.list(listed_).splice(origin_.list(listed_).end(), own);
  loop_.list(listed_).splice(loop_.list(listed_).end(), ours);
  count(loop_.counters.open);
  guarded([this] {
    enter(phase_);
    if (phase_ == Phase::handshake) return wait(Need::readable);
    proceed();
  });
}

Standing Connection::standing() const {
  if (phase_ <= Phase::idle) return Standing::waiting;
  return handed_over_ && phase_ != Phase::lingering ? Standing::busy : Standing::unproven;
}

milliseconds Connection::patience() const {
  const HttpServer::Options& o = loop_.options;
  switch (phase_) {
    case Phase::handshake:
    case Phase::head: return o.head_within;
    case Phase::idle: return o.idle_for;
    case Phase::body: return o.body_within;
    case Phase::answering: return o.answer_within;
    case Phase::writing: return o.taken_within;
    case Phase::lingering:
    case Phase::closed: break;
  }
  return linger_for;
}

/// Sets the phase and with it the deadline and the lists.
void Connection::enter(Phase phase) {
  phase_ = phase;
  deadline_ = Clock::now() + patience();
  const Standing now = standing();
  if (now == listed_) return;
  loop_.list(now).splice(loop_.list(now).end(), loop_.list(listed_), place_);
  origin_.list(now).splice(origin_.list(now).end(), origin_.list(listed_), own_place_);
  listed_ = now;
}

/// What is thrown here - memory has run out, the handler threw - is this connection's loss alone.
template <typename Step>
void Connection::guarded(Step step) noexcept {
  try {
    step();
  } catch (const std::exception& e) {
    loop_.reporter.tell(e.what(), &client_);
    close();
  } catch (...) {
    close();
  }
}

void Connection::run() noexcept {
  guarded([this] { proceed(); });
}

void Connection::proceed() {
  Need need = Need::nothing;
  bool answered = false;
  while (need == Need::nothing && !answered && phase_ != Phase::answering && phase_ != Phase::closed) {
    switch (phase_) {
      case Phase::handshake: need = shake_hands(); break;
      case Phase::idle:
      case Phase::head: need = read_head(); break;
      case Phase::body: need = read_body(); break;
      case Phase::writing:
        need = write();
        answered = phase_ == Phase::idle;
        break;
      case Phase::lingering: need = discard(); break;
      case Phase::answering:
      case Phase::closed: break;
    }
  }
  if (phase_ == Phase::closed || need == Need::closed) return close();
  if (in_.empty()) release(in_);
  hold_head(head_size());
  loop_.make_room_for_heads();  // which may be ours
  if (phase_ == Phase::closed) return;
  if (answered) return run_later();
  if (phase_ != Phase::answering) wait(need);
}

/// After the others: a client that always has one more request must not keep the thread.
void Connection::run_later() {
  if (loop_.stopping) return close();
  asio::post(loop_.io, [self = shared_from_this()] { self->run(); });
}

void Connection::wait(Need need) {
  stream_.socket().async_wait(need == Need::readable ? tcp::socket::wait_read : tcp::socket::wait_write,
                              [self = shared_from_this()](const error_code& error) {
                                if (error) return;
                                if (self->phase_ == Phase::handshake) return self->loop_.shake_hands_later(self);
                                self->run();
                              });
}

Need Connection::shake_hands() {
  std::string why;
  const Need need = stream_.shake_hands(why);
  if (!why.empty()) {
    count(loop_.counters.tls_failures);
    loop_.reporter.tell(why, &client_);
  }
  if (stream_.became_plain()) return refuse({400, "this port speaks HTTPS: the URL has to begin with https://"});
  if (need == Need::nothing) enter(Phase::idle);
  return need;
}

Need Connection::read_head() {
  while (true) {
    if (!in_.empty()) {
      if (phase_ == Phase::idle) enter(Phase::head);
      Refusal refusal;
      const std::size_t size = search_.look(in_, refusal);
      if (refusal) return refuse(refusal);
      if (size > 0) return take_head(size);
    }
    std::size_t got = 0;
    if (const Need need = stream_.read(loop_.scratch, got); need != Need::nothing) return need;
    in_.append(loop_.scratch.data(), got);
  }
}

Need Connection::take_head(std::size_t size) {
  reader_ = std::make_unique<RequestReader>(loop_.options.longest_body);
  const Refusal refusal = reader_->read_head(std::string_view(in_).substr(0, size));
  in_.erase(0, size);
  in_.shrink_to_fit();  // a head of 16 KiB must not hold its buffer while the body is awaited
  search_ = {};
  if (refusal) return refuse(refusal);
  count(loop_.counters.requests);
  HttpRequest& request = reader_->request();
  request.client = client_.address().to_string();
  request.from_loopback = client_.address().is_loopback();
  to_head_ = request.method == "HEAD";
  keep_alive_ = reader_->keep_alive();
  body_began_ = Clock::now();
  received_ = progress_ = 0;
  enter(Phase::body);
  if (const auto refused = loop_.on_head ? loop_.on_head(request) : std::nullopt) return answer(*refused, reader_->body_follows());
  if (reader_->complete()) return hand_over();
  if (reader_->expects_continue() && in_.empty()) return say("HTTP/1.1 100 Continue\r\n\r\n", Phase::body);
  return Need::nothing;
}

Need Connection::read_body() {
  while (true) {
    if (!in_.empty()) {
      const bool has_room = loop_.make_room_for_body(*this, in_.size());
      if (phase_ != Phase::body) return Need::closed;  // others needed room meanwhile
      if (!has_room) return refuse({503, "too many bodies are being read"});
      std::size_t used = 0;
      const Refusal refusal = reader_->read_body(in_, used);
      in_.erase(0, used);
      received_ += used;
      progress_ += used;
      hold_body(reader_->request().body.size());
      if (refusal) return refuse(refusal);
      if (reader_->complete()) return hand_over();
    }
    std::size_t got = 0;
    if (const Need need = stream_.read(loop_.scratch, got); need != Need::nothing) return need;
    in_.append(loop_.scratch.data(), got);
  }
}

Need Connection::hand_over() {
  origin_.bodies -= held_body_;
  handed_over_ = true;
  enter(Phase::answering);
  HttpRequest request = std::move(reader_->request());
  reader_.reset();
  // The answer comes back as a message to this thread; whoever is late finds another number, no connection, or no server.
  loop_.on_request(std::move(request), [loop = loop_.self, connection = weak_from_this(), number = ++request_number_](HttpAnswer answer) {
    if (const auto alive = loop.lock()) {
      asio::post(alive->io, [connection, number, answer = std::move(answer)] {
        if (const auto self = connection.lock()) self->answered(number, answer);
      });
    }
  });
  return Need::nothing;
}

void Connection::answered(std::uint64_t number, const HttpAnswer& given) noexcept {
  guarded([&] {
    if (phase_ != Phase::answering || number != request_number_) return;
    answer(given, false);
    proceed();
  });
}

Need Connection::answer(const HttpAnswer& answer, bool close) {
  if (close || loop_.stopping) keep_alive_ = false;
  reader_.reset();
  hold_body(0);
  return say(write_answer(answer, to_head_, keep_alive_), keep_alive_ ? Phase::idle : Phase::lingering);
}

Need Connection::refuse(const Refusal& refusal) {
  if (refusal.status == 503) {
    count(loop_.counters.refused);
  } else if (refusal.status != 408) {
    count(loop_.counters.bad_requests);
  }
  HttpAnswer refused{refusal.status, std::string(refusal.why) + '\n'};
  if (refusal.status == 503) refused.headers.emplace_back("Retry-After", "10");
  return answer(refused, true);
}

Need Connection::say(std::string bytes, Phase then) {
  out_ = std::move(bytes);
  after_writing_ = then;
  enter(Phase::writing);
  return Need::nothing;
}

Need Connection::write() {
  while (!out_.empty()) {
    std::size_t sent = 0;
    if (const Need need = stream_.write(out_, sent); need != Need::nothing) return need;
    out_.erase(0, sent);
  }
  release(out_);
  if (after_writing_ == Phase::idle) handed_over_ = false;
  enter(after_writing_);
  if (phase_ == Phase::idle) {
    to_head_ = false;
    in_.shrink_to_fit();
  } else if (phase_ == Phase::lingering) {
    release(in_);
    stream_.end_writing();
  }
  return Need::nothing;
}

/// Closing with bytes unread would send a reset, which may overtake the answer.
Need Connection::discard() {
  while (true) {
    std::size_t got = 0;
    if (const Need need = stream_.discard(loop_.scratch, got); need != Need::nothing) return need;
    discarded_ += got;
    if (discarded_ > most_discarded) return Need::closed;
  }
}

bool Connection::is_too_slow(Clock::time_point now) const {
  if (phase_ != Phase::body || now - body_began_ <= loop_.options.body_rate_after) return false;
  const std::chrono::duration<double> seconds = now - body_began_;
  return static_cast<double>(received_) < seconds.count() * static_cast<double>(loop_.options.body_rate);
}

void Connection::expire() noexcept {
  guarded([this] {
    if (phase_ == Phase::closed) return;
    if (phase_ != Phase::idle && phase_ != Phase::lingering) count(loop_.counters.timeouts);
    if (phase_ == Phase::head || phase_ == Phase::body) {
      refuse({408, "the request did not come in time"});
    } else if (phase_ == Phase::answering) {
      answer({503, "nobody answered in time\n", "text/plain; charset=utf-8", {{"Retry-After", "10"}}}, true);
    } else {
      return close();
    }
    turn_to_answer();
  });
}

void Connection::give_up_body() noexcept {
  guarded([this] {
    if (phase_ != Phase::body) return;
    refuse({503, "too many bodies are being read, and this one came slowest"});
    turn_to_answer();
  });
}

/// From a wait that was for the request.
void Connection::turn_to_answer() {
  error_code ignored;
  stream_.socket().cancel(ignored);
  proceed();
}

/// Counts `bytes` as held by this connection's body.
void Connection::hold_body(std::size_t bytes) {
  loop_.held_bodies += bytes - held_body_;
  if (!handed_over_) origin_.bodies += bytes - held_body_;
  held_body_ = bytes;
}

void Connection::hold_head(std::size_t bytes) {
  loop_.held_heads += bytes - held_head_;
  held_head_ = bytes;
}

/// Of a head, read or not, and what came behind it.
std::size_t Connection::head_size() const {
  std::size_t size = in_.capacity() > std::string().capacity() ? in_.capacity() : 0;
  if (!reader_) return size;
  for (const auto& [name, value] : reader_->request().headers) size += bytes_a_field + name.size() + value.size();
  return size + bytes_a_reader;
}

void Connection::close() noexcept {
  if (phase_ == Phase::closed) return;
  const auto self = shared_from_this();  // the list's may be the last
  hold_body(0);
  hold_head(0);
  error_code ignored;
  stream_.socket().close(ignored);
  origin_.list(listed_).erase(own_place_);
  loop_.list(listed_).erase(place_);
  phase_ = Phase::closed;
  loop_.counters.open.fetch_sub(1, std::memory_order_relaxed);
  loop_.end_if_empty();
}

}  // namespace radiotower::notifier
