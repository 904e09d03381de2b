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

/// Empties `text` and gives its memory back, which assigning an empty one would not.
void release(std::string& text) { std::string().swap(text); }

}  // namespace

void Connection::start(Connections::iterator place) {
  place_ = place;
  enter(phase_);
  run();
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

/// Sets the phase and with it the deadline and the list: connections without a whole head wait, in the order of becoming so.
void Connection::enter(Phase phase) {
  const bool was_busy = has_request();
  phase_ = phase;
  deadline_ = Clock::now() + patience();
  if (has_request() && !was_busy) loop_.busy.splice(loop_.busy.end(), loop_.waiting, place_);
  if (!has_request() && was_busy) loop_.waiting.splice(loop_.waiting.end(), loop_.busy, place_);
}

void Connection::run() {
  try {
    Need need = Need::nothing;
    while (need == Need::nothing) {
      switch (phase_) {
        case Phase::handshake: need = shake_hands(); break;
        case Phase::idle:
        case Phase::head: need = read_head(); break;
        case Phase::body: need = read_body(); break;
        case Phase::writing:
          need = write();
          if (phase_ == Phase::idle) return run_later();
          break;
        case Phase::lingering: need = discard(); break;
        case Phase::answering:
        case Phase::closed: return;
      }
    }
    wait(need);
  } catch (const std::exception& e) {  // memory has run out, or the handler threw: this connection's loss alone
    loop_.report(e.what(), text_of(client_));
    close();
  }
}

/// After the others: a client that always has one more request must not keep the thread.
void Connection::run_later() {
  if (loop_.stopping) return close();
  asio::post(loop_.io, [self = shared_from_this()] { self->run(); });
}

void Connection::wait(Need need) {
  if (need == Need::closed) return close();
  stream_.socket().async_wait(need == Need::readable ? tcp::socket::wait_read : tcp::socket::wait_write,
                              [self = shared_from_this()](const error_code& error) {
                                if (!error) self->run();
                              });
}

Need Connection::shake_hands() {
  std::string why;
  const Need need = stream_.shake_hands(why);
  if (!why.empty()) {
    count(loop_.counters.tls_failures);
    loop_.report(why, text_of(client_));
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
  search_ = {};
  if (refusal) return refuse(refusal);
  count(loop_.counters.requests);
  HttpRequest& request = reader_->request();
  request.from_loopback = client_.address().is_loopback();
  to_head_ = request.method == "HEAD";
  keep_alive_ = reader_->keep_alive();
  enter(Phase::body);
  if (const auto refused = loop_.on_head ? loop_.on_head(request) : std::nullopt) return answer(*refused, reader_->body_follows());
  if (reader_->complete()) return hand_over();
  if (loop_.held_bodies + reader_->length() > loop_.options.all_bodies) return refuse({503, "too many bodies are being read"});
  if (reader_->expects_continue() && in_.empty()) return say("HTTP/1.1 100 Continue\r\n\r\n", Phase::body);
  return Need::nothing;
}

Need Connection::read_body() {
  while (true) {
    if (!in_.empty()) {
      if (loop_.held_bodies + in_.size() > loop_.options.all_bodies) return refuse({503, "too many bodies are being read"});
      std::size_t used = 0;
      const Refusal refusal = reader_->read_body(in_, used);
      in_.erase(0, used);
      hold(reader_->request().body.size());
      if (refusal) return refuse(refusal);
      if (reader_->complete()) return hand_over();
    }
    std::size_t got = 0;
    if (const Need need = stream_.read(loop_.scratch, got); need != Need::nothing) return need;
    in_.append(loop_.scratch.data(), got);
  }
}

Need Connection::hand_over() {
  enter(Phase::answering);
  HttpRequest request = std::move(reader_->request());
  reader_.reset();
  // The answer comes back as a message to this thread; whoever is late finds another number, no connection, or no server.
  loop_.on_request(std::move(request), [loop = loop_.self, connection = weak_from_this(), number = ++request_number_](HttpAnswer answer) {
    if (const auto alive = loop.lock()) {
      asio::post(alive->io, [connection, number, answer = std::move(answer)]() mutable {
        if (const auto self = connection.lock()) self->answered(number, std::move(answer));
      });
    }
  });
  return Need::nothing;
}

void Connection::answered(std::uint64_t number, HttpAnswer given) {
  if (phase_ != Phase::answering || number != request_number_) return;
  answer(given, false);
  run();
}

Need Connection::answer(const HttpAnswer& answer, bool close) {
  if (close || loop_.stopping) keep_alive_ = false;
  reader_.reset();
  hold(0);
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

void Connection::expire() {
  if (phase_ == Phase::closed) return;
  if (phase_ != Phase::idle && phase_ != Phase::lingering) count(loop_.counters.timeouts);
  if (phase_ == Phase::head || phase_ == Phase::body) {
    refuse({408, "the request did not come in time"});
  } else if (phase_ == Phase::answering) {
    answer({503, "nobody answered in time\n", "text/plain; charset=utf-8", {{"Retry-After", "10"}}}, true);
  } else {
    return close();
  }
  stream_.socket().cancel();  // the wait that was for the request
  run();
}

/// Counts `bytes` as held by this connection's request.
void Connection::hold(std::size_t bytes) {
  loop_.held_bodies += bytes - held_;
  held_ = bytes;
}

void Connection::close() {
  if (phase_ == Phase::closed) return;
  const auto self = shared_from_this();  // the list's may be the last
  hold(0);
  error_code ignored;
  stream_.socket().close(ignored);
  (has_request() ? loop_.busy : loop_.waiting).erase(place_);
  phase_ = Phase::closed;
  loop_.counters.open.fetch_sub(1, std::memory_order_relaxed);
  loop_.end_if_empty();
}

}  // namespace radiotower::notifier
