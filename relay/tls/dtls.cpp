#include "radiotower/tls/dtls.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/time.h>

#include <algorithm>
#include <cassert>
#include <mutex>
#include <new>
#include <unordered_map>
#include <utility>

#include "dtls_cookies.h"
#include "dtls_hello.h"
#include "dtls_wire.h"

namespace radiotower::tls {

namespace {

using namespace std::chrono_literals;

constexpr nanoseconds sweep_interval = 1s;
/// Of one handshake. OpenSSL keeps what comes before its ChangeCipherSpec, a hundred of 17 KB; a client sends one such record, and that again.
constexpr std::uint8_t most_early = 4;
constexpr nanoseconds quiet = 2s;  // after which a session's record buffers are given back

// As measured with OpenSSL 3.0 (tests/tls/dtls_test.cpp prints it): an open session without its record buffers, those, and what a handshake keeps.
constexpr std::size_t bytes_of_session = 36 << 10, bytes_of_buffers = 34 << 10, bytes_of_handshake = 12 << 10;

/// Where a context's SSL objects find the cookie that our own code has found good: OpenSSL must have read the same one.
int cookie_slot() {
  static const int slot = SSL_get_ex_new_index(0, nullptr, nullptr, nullptr, nullptr);
  return slot;
}

int is_the_cookie(SSL* ssl, const unsigned char* cookie, unsigned int size) {
  const auto* good = static_cast<const Bytes*>(SSL_get_ex_data(ssl, cookie_slot()));
  return good && equal_in_constant_time(*good, {cookie, size}) ? 1 : 0;
}
int makes_none(SSL*, unsigned char*, unsigned int*) { return 0; }

/// The workers share a context: the first of them to come sets it up, before any has a session of it.
void prepare(SSL_CTX* context) {
  static std::mutex mutex;
  static const int done_slot = SSL_CTX_get_ex_new_index(0, nullptr, nullptr, nullptr, nullptr);
  static char done;
  const std::lock_guard lock(mutex);
  if (SSL_CTX_get_ex_data(context, done_slot)) return;
  SSL_CTX_set_cookie_generate_cb(context, makes_none);
  SSL_CTX_set_cookie_verify_cb(context, is_the_cookie);
  SSL_CTX_set_ex_data(context, done_slot, &done);
}

HashKey drawn(const RandomSource& random) {
  HashKey key;
  random({reinterpret_cast<std::uint8_t*>(&key), sizeof key});
  return key;
}

struct Session {
  DtlsPath path;
  SSL* ssl = nullptr;
  std::shared_ptr<const Identity> identity;
  std::array<std::uint8_t, 32> client_random{};
  Time began{}, heard{}, send_again_at = never;
  bool open = false;
  bool kept = false;
  bool has_buffers = true;
  std::uint8_t early = 0;  // datagrams with records of a later epoch, in the handshake

  Session() = default;
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  ~Session() { SSL_free(ssl); }
};

struct Source {
  std::size_t sessions = 0, half_open = 0;  // the first counts both
};

struct PathHash {
  HashKey key;
  std::size_t operator()(const net::IpAddress& ip) const { return siphash13(key, ip.bytes); }
  std::size_t operator()(const DtlsPath& path) const {
    std::array<std::uint8_t, 24> bytes;
    std::copy(path.client.ip.bytes.begin(), path.client.ip.bytes.end(), bytes.begin());
    store_be32(bytes.data() + 16, std::uint32_t{path.client.port} << 16 ^ path.client.scope);
    store_be32(bytes.data() + 20, path.socket);
    return siphash13(key, bytes);
  }
};

}  // namespace

struct DtlsEndpoint::Impl {
  Impl(std::shared_ptr<const Identity> its_identity, const RandomSource& random)
      : cookies(random, cookie_period), limit(drawn(random), answers_per_second), handshake_limit(drawn(random), handshakes_per_second), sessions(0, PathHash{drawn(random)}), sources(0, sessions.hash_function()), peer(BIO_ADDR_new()) {
    if (!peer) throw std::bad_alloc();
    set_identity(std::move(its_identity));
  }
  ~Impl() {
    sessions.clear();
    BIO_ADDR_free(peer);
  }

  void set_identity(std::shared_ptr<const Identity> next) {
    prepare(next->for_datagrams());
    identity = std::move(next);
  }
  void on_datagram(const DtlsPath& path, Bytes datagram, Time now, DtlsOutput& out);
  void answer_stranger(const DtlsPath& path, const ClientHello& hello, Time now, DtlsOutput& out);
  void on_proved_hello(const DtlsPath& path, Bytes datagram, const ClientHello& hello, Time now, DtlsOutput& out);
  bool make_room(const DtlsPath& path, DtlsOutput& out);
  void work(Session& session, Bytes datagram, Time now, DtlsOutput& out);
  void opened(Session& session, Time now);
  void schedule(Session& session, Time now);
  void end(Session& session, bool with_notice, DtlsOutput& out);
  bool give_buffers(Session& session);

  std::shared_ptr<const Identity> identity;
  Cookies cookies;
  AddressLimit limit, handshake_limit;
  DtlsWire wire;
  std::unordered_map<DtlsPath, std::unique_ptr<Session>, PathHash> sessions;
  std::unordered_map<net::IpAddress, Source, PathHash> sources;  // of sessions
  std::vector<Session*> half_open;  // in the order in which they began, so of their deadlines
  BIO_ADDR* peer;                   // of no use, but DTLSv1_listen wants one
  Time half_open_due = never, swept_at{};
  std::size_t with_buffers = 0;
  std::vector<Session*> ending;  // scratch of expire()
  DtlsCounters counters;
};

// ---------------------------------------------------------------------------------------------------------------------
// Before there is a session.

void DtlsEndpoint::Impl::on_datagram(const DtlsPath& path, Bytes datagram, Time now, DtlsOutput& out) {
  if (begins_client_hello(datagram)) {  // whether there is a session or not: its client may have started anew (4.2.8)
    const auto hello = read_client_hello(datagram);
    if (!hello) {
      ++counters.dtls_dropped_stranger;  // K02
      return;
    }
    cookies.turn(now);
    if (!hello->knows_dtls_1_2 || !cookies.is_good(path, *hello)) return answer_stranger(path, *hello, now, out);
    return on_proved_hello(path, datagram, *hello, now, out);
  }
  const auto found = sessions.find(path);
  if (found == sessions.end()) {
    ++counters.dtls_dropped_stranger;  // K03
    return;
  }
  work(*found->second, datagram, now, out);
}

void DtlsEndpoint::Impl::answer_stranger(const DtlsPath& path, const ClientHello& hello, Time now, DtlsOutput& out) {
  if (!limit.allow(path.client.ip, now)) {
    ++counters.dtls_dropped_limit;
    return;
  }
  if (!hello.knows_dtls_1_2) {
    ++counters.dtls_dropped_version;
    return out.add_datagram(path, version_alert(hello));
  }
  ++counters.dtls_cookies_sent;
  if (!hello.cookie.empty()) ++counters.dtls_cookies_wrong;
  out.add_datagram(path, hello_verify_request(hello, cookies.make(path, hello)));
}

void DtlsEndpoint::Impl::on_proved_hello(const DtlsPath& path, Bytes datagram, const ClientHello& hello, Time now, DtlsOutput& out) {
  const auto found = sessions.find(path);
  if (found != sessions.end()) {
    // The same ClientHello again: OpenSSL knows what to make of it, and an open session drops it. Another one replaces the session.
    if (std::equal(hello.random.begin(), hello.random.end(), found->second->client_random.begin())) return work(*found->second, datagram, now, out);
  }
  if (!handshake_limit.allow(path.client.ip, now)) {
    ++counters.dtls_refused;
    return;
  }
  if (found != sessions.end()) {
    if (!found->second->open) ++counters.dtls_failed;
    end(*found->second, false, out);
  }
  if (!make_room(path, out)) {
    ++counters.dtls_refused;
    return;
  }
  auto session = std::make_unique<Session>();
  session->path = path;
  session->identity = identity;
  session->began = session->heard = now;
  std::copy(hello.random.begin(), hello.random.end(), session->client_random.begin());
  session->ssl = SSL_new(identity->for_datagrams());
  if (!session->ssl) {
    ERR_clear_error();
    ++counters.dtls_failed;
    return;
  }
  SSL* ssl = session->ssl;
  BIO_up_ref(wire.bio);
  SSL_set_bio(ssl, wire.bio, wire.bio);  // a reference for reading and writing in one
  SSL_set_options(ssl, SSL_OP_NO_QUERY_MTU | SSL_OP_COOKIE_EXCHANGE);
  SSL_set_mode(ssl, SSL_MODE_AUTO_RETRY);  // a read takes a datagram to its end, and there is no more than that
  SSL_set_accept_state(ssl);

  Bytes good = hello.cookie;
  SSL_set_ex_data(ssl, cookie_slot(), &good);
  wire.in = datagram;
  wire.path = &session->path;
  wire.out = nullptr;  // no word of its own before it has agreed
  const bool agreed = DTLSv1_listen(ssl, peer) == 1;
  if (!agreed) {  // OpenSSL reads this ClientHello in another way than we do
    ERR_clear_error();
    ++counters.dtls_failed;
    wire.in = {};
    return;
  }
  SSL_set_mtu(ssl, largest_flight_datagram);  // listening has begun it anew
  Session& made = *session;
  sessions.emplace(path, std::move(session));
  half_open.push_back(&made);
  Source& source = sources[path.client.ip.as_source()];
  ++source.sessions;
  ++source.half_open;
  ++with_buffers;
  work(made, {}, now, out);
  // The cookie is asked for once more while its ClientHello is read, and never again.
  if (const auto still = sessions.find(path); still != sessions.end()) SSL_set_ex_data(still->second->ssl, cookie_slot(), nullptr);
}

bool DtlsEndpoint::Impl::make_room(const DtlsPath& path, DtlsOutput& out) {
  const auto source = sources.find(path.client.ip.as_source());
  if (source != sources.end() && (source->second.half_open >= most_half_open_of_a_source || source->second.sessions >= most_sessions_of_a_source)) return false;
  if (half_open.size() >= most_half_open) {
    // The oldest: a good client is done within two round trips, so whoever fills this up evicts its own.
    ++counters.dtls_refused;
    end(*half_open.front(), false, out);
  }
  if (sessions.size() < most_sessions) return true;
  Session* quietest = nullptr;
  for (const auto& [key, session] : sessions)
    if (session->open && !session->kept && (!quietest || session->heard < quietest->heard)) quietest = session.get();
  if (!quietest) return false;
  end(*quietest, true, out);
  return true;
}

// ---------------------------------------------------------------------------------------------------------------------
// Sessions.

/// Everything that this datagram brings. The session may have ended when it returns.
void DtlsEndpoint::Impl::work(Session& session, Bytes datagram, Time now, DtlsOutput& out) {
  if (!give_buffers(session)) return;
  if (!session.open && !datagram.empty()) {
    std::size_t early = 0;
    datagram = front_of_flight(datagram, early);
    if (early < datagram.size() && session.early++ >= most_early) {
      session.early = most_early;
      datagram = datagram.first(early);
    }
    if (datagram.empty()) return;
  }
  wire.in = datagram;
  wire.path = &session.path;
  wire.out = &out;
  for (;;) {
    const MutableBytes room = out.message_room(session.path);
    std::size_t size = 0;
    ERR_clear_error();
    const int result = SSL_read_ex(session.ssl, room.data(), room.size(), &size);
    if (!session.open && SSL_is_init_finished(session.ssl)) opened(session, now);
    if (result == 1) {
      session.heard = now;
      out.add_message(session.path, room.first(size));
      // As a rule that was all of the datagram, and to hear so from another read costs as much as this one did.
      if (wire.in.empty() && SSL_has_pending(session.ssl) == 0) break;
      continue;
    }
    out.no_message();
    const int why = SSL_get_error(session.ssl, result);
    wire.in = {};
    if (why == SSL_ERROR_WANT_READ) break;
    ERR_clear_error();
    if (!session.open) ++counters.dtls_failed;
    return end(session, why == SSL_ERROR_ZERO_RETURN, out);
  }
  if (!session.open) schedule(session, now);
  wire.out = nullptr;
}

void DtlsEndpoint::Impl::opened(Session& session, Time now) {
  session.open = true;
  session.heard = now;
  session.send_again_at = never;
  half_open.erase(std::find(half_open.begin(), half_open.end(), &session));
  --sources[session.path.client.ip.as_source()].half_open;
  ++counters.dtls_handshakes;
  ++counters.dtls_sessions;
}

/// When the flight that we have sent goes out again, should nothing come.
void DtlsEndpoint::Impl::schedule(Session& session, Time now) {
  timeval left{};
  session.send_again_at = never;
  if (DTLSv1_get_timeout(session.ssl, &left) == 1) session.send_again_at = now + std::max<nanoseconds>(seconds(left.tv_sec) + microseconds(left.tv_usec), 20ms);
  half_open_due = std::min({half_open_due, session.send_again_at, session.began + handshake_deadline});
}

void DtlsEndpoint::Impl::end(Session& session, bool with_notice, DtlsOutput& out) {
  if (with_notice && session.open && give_buffers(session)) {
    wire.path = &session.path;
    wire.out = &out;
    ERR_clear_error();
    SSL_shutdown(session.ssl);
    ERR_clear_error();
  }
  wire.out = nullptr;
  wire.in = {};
  const auto source = sources.find(session.path.client.ip.as_source());
  if (!session.open) --source->second.half_open;
  if (--source->second.sessions == 0) sources.erase(source);
  if (session.open) {
    out.ended.push_back(session.path);
    --counters.dtls_sessions;
    ++counters.dtls_closed;
  } else {
    half_open.erase(std::find(half_open.begin(), half_open.end(), &session));
  }
  if (session.has_buffers) --with_buffers;
  sessions.erase(DtlsPath(session.path));
}

/// False: no memory, so the packet is lost and the session is not.
bool DtlsEndpoint::Impl::give_buffers(Session& session) {
  if (session.has_buffers) return true;
  session.has_buffers = SSL_alloc_buffers(session.ssl) == 1;
  if (session.has_buffers) ++with_buffers;
  else ERR_clear_error();
  return session.has_buffers;
}

// ---------------------------------------------------------------------------------------------------------------------

DtlsEndpoint::DtlsEndpoint(std::shared_ptr<const Identity> identity, RandomSource random) : impl_(std::make_unique<Impl>(std::move(identity), random)) {}
DtlsEndpoint::~DtlsEndpoint() = default;
void DtlsEndpoint::set_identity(std::shared_ptr<const Identity> identity) { impl_->set_identity(std::move(identity)); }

void DtlsEndpoint::from_client(const DtlsPath& path, Bytes bytes, std::uint16_t segment, Time now, DtlsOutput& out) {
  out.begin_call();
  const std::size_t step = segment ? segment : bytes.size();
  while (!bytes.empty()) {
    const std::size_t size = std::min(step, bytes.size());
    impl_->on_datagram(path, bytes.first(size), now, out);
    bytes = bytes.subspan(size);
  }
}

bool DtlsEndpoint::to_client(const DtlsPath& path, Bytes message, DtlsOutput& out) {
  const auto found = impl_->sessions.find(path);
  if (found == impl_->sessions.end() || !found->second->open) return false;
  if (message.size() > DtlsOutput::largest_message) {
    ++impl_->counters.dtls_dropped_too_large;
    return false;
  }
  if (message.empty()) return false;
  Session& session = *found->second;
  if (!impl_->give_buffers(session)) return false;
  impl_->wire.path = &session.path;
  impl_->wire.out = &out;
  std::size_t written = 0;
  ERR_clear_error();
  const bool good = SSL_write_ex(session.ssl, message.data(), message.size(), &written) == 1;
  impl_->wire.out = nullptr;
  if (!good) ERR_clear_error();
  return good;
}

void DtlsEndpoint::keep(const DtlsPath& path, bool has_reason, Time now) {
  const auto found = impl_->sessions.find(path);
  if (found == impl_->sessions.end()) return;
  found->second->kept = has_reason;
  found->second->heard = now;
}

void DtlsEndpoint::expire(Time now, DtlsOutput& out) {
  out.begin_call();
  Impl& d = *impl_;
  if (d.half_open_due <= now) {
    d.half_open_due = never;
    while (!d.half_open.empty() && d.half_open.front()->began + handshake_deadline <= now) {
      ++d.counters.dtls_timed_out;
      d.end(*d.half_open.front(), false, out);  // K05
    }
    d.ending.clear();
    for (Session* session : d.half_open) {
      if (session->send_again_at <= now) {
        d.wire.path = &session->path;
        d.wire.out = &out;
        ERR_clear_error();
        if (DTLSv1_handle_timeout(session->ssl) < 0) d.ending.push_back(session);
        d.wire.out = nullptr;
      }
      d.schedule(*session, now);
    }
    for (Session* session : d.ending) {
      ERR_clear_error();
      ++d.counters.dtls_failed;
      d.end(*session, false, out);
    }
  }
  if (d.sessions.empty() || now - d.swept_at < sweep_interval) return;
  d.swept_at = now;
  d.ending.clear();
  for (const auto& [path, session] : d.sessions) {
    if (!session->open) continue;
    if (!session->kept && now - session->heard >= idle_limit) {
      d.ending.push_back(session.get());
    } else if (session->has_buffers && now - session->heard >= quiet && SSL_free_buffers(session->ssl) == 1) {
      session->has_buffers = false;
      --d.with_buffers;
    }
  }
  for (Session* session : d.ending) d.end(*session, true, out);
}

Time DtlsEndpoint::next_expiry() const {
  return impl_->sessions.empty() ? never : std::min(impl_->half_open_due, impl_->swept_at + sweep_interval);
}

void DtlsEndpoint::close_all(DtlsOutput& out) {
  out.begin_call();
  while (!impl_->sessions.empty()) impl_->end(*impl_->sessions.begin()->second, true, out);
}

void DtlsEndpoint::for_each_client(const std::function<void(const net::TransportAddress&)>& visit) const {
  for (const auto& [path, session] : impl_->sessions)
    if (session->open) visit(path.client);
}

const DtlsCounters& DtlsEndpoint::counters() const { return impl_->counters; }
std::size_t DtlsEndpoint::half_open() const { return impl_->half_open.size(); }
std::size_t DtlsEndpoint::bytes_kept() const {
  return impl_->sessions.size() * bytes_of_session + impl_->with_buffers * bytes_of_buffers + impl_->half_open.size() * bytes_of_handshake;
}

}  // namespace radiotower::tls
