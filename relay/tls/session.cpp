#include "radiotower/tls/session.h"

#include <openssl/bio.h>
#include <openssl/err.h>

#include <algorithm>
#include <cstring>
#include <new>

#include "pem.h"

namespace radiotower::tls {

namespace {

/// Of handshake messages after the handshake (KeyUpdate; attempts to renegotiate), beyond one for each `records_a_handshake` records of data. A client
/// needs one in 2^24 records; each of the other side's costs us new keys, and 27 bytes on the wire.
constexpr std::size_t most_later_handshakes = 32;
constexpr std::size_t records_a_handshake = 1024;
/// A call to read() ends after as many, so that records of one byte do not hold the thread.
constexpr int most_records_a_read = 64;
constexpr int most_idle_steps = 4;

/// What SSL and its BIO hold of an open session at rest, when it has no record buffers: measured with mallinfo2 (OpenSSL 3.0). For reports only.
constexpr std::size_t openssl_keeps = 13'500;

/// What is not TLS by its first byte. OpenSSL would take the SSLv2 form of a hello that offers TLS 1.2 (RFC 5246, E.2), and waits for five bytes.
const char* why_not_tls(std::uint8_t first) {
  if (first == SSL3_RT_HANDSHAKE || first == SSL3_RT_ALERT) return nullptr;
  if (first & 0x80) return "it began with the hello of SSLv2, which is not spoken here";
  if (first <= 3)
    return "it spoke STUN without TLS to a port with TLS: the client's URI has to begin with turn: or stun:, or its port to be the one for TLS";
  if (first >= 'A' && first <= 'Z') return "it spoke plain text, such as HTTP, to a port with TLS";
  return "what it sent is no TLS";
}

/// The cause in words that tell an operator what to do.
std::string sentence(const Errors& errors) {
  const auto ssl = [&](int reason) { return errors.has(ERR_LIB_SSL, reason); };
  if (ssl(SSL_R_UNSUPPORTED_PROTOCOL) || ssl(SSL_R_VERSION_TOO_LOW) || ssl(SSL_R_WRONG_SSL_VERSION) || ssl(SSL_R_TLSV1_ALERT_PROTOCOL_VERSION))
    return "it speaks neither TLS 1.2 nor 1.3";
  if (ssl(SSL_R_NO_SHARED_CIPHER)) return "it offers no cipher suite with AEAD and ephemeral keys of an elliptic curve for our type of certificate";
  if (ssl(SSL_R_NO_APPLICATION_PROTOCOL)) return "it speaks none of our protocols: with ALPN it has to offer stun.turn or stun.nat-discovery";
  if (ssl(SSL_R_TLSV1_ALERT_UNKNOWN_CA) || ssl(SSL_R_SSLV3_ALERT_BAD_CERTIFICATE) || ssl(SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN) ||
      ssl(SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED) || ssl(SSL_R_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE))
    return "it does not trust our certificate (" + errors.reason() + ")";
  return errors.any() ? "TLS failed: " + errors.reason() : "TLS failed without a reason that OpenSSL names";
}

void clear_errors() {  // OpenSSL keeps them by thread, and takes an old one for the cause of a later call
  if (ERR_peek_error()) ERR_clear_error();
}

}  // namespace

struct Session::Impl {
  enum class State : std::uint8_t { handshake, open, closed, failed };

  std::shared_ptr<const Identity> identity;
  Handle<SSL, SSL_free> ssl;
  Bytes wire;  // given and not taken
  std::vector<std::uint8_t> outgoing;
  std::string why;
  std::size_t later_handshakes = 0;
  std::size_t records = 0;  // of data
  State state = State::handshake;
  bool begun = false;    // its first byte was looked at
  bool closing = false;  // our close_notify is out

  Read fail(std::string sentence) {
    why = std::move(sentence);
    state = State::failed;
    wire = {};
    return Read::failed;
  }

  /// Nothing was given that is not taken. To ask OpenSSL costs a record buffer and a fifth of a record's time.
  bool is_dry() const { return wire.empty() && !SSL_has_pending(ssl.get()); }

  /// What a call that brought no data means.
  Read judge(int result) {
    switch (SSL_get_error(ssl.get(), result)) {
      case SSL_ERROR_WANT_READ: return Read::want_more;
      case SSL_ERROR_ZERO_RETURN:
        state = State::closed;
        wire = {};
        return Read::closed;
      case SSL_ERROR_SYSCALL: return fail("there was no memory for what TLS had to send");
      default: return fail(sentence(Errors()));
    }
  }

  Read shake_hands() {
    if (!begun && !wire.empty()) {
      begun = true;
      if (const char* no = why_not_tls(wire.front())) return fail(no);
    }
    clear_errors();
    const int result = SSL_do_handshake(ssl.get());
    if (result == 1) {
      state = State::open;
      return Read::data;
    }
    return judge(result);
  }

  static int give_bytes(BIO* bio, char* into, std::size_t size, std::size_t* got) {
    Impl& self = *static_cast<Impl*>(BIO_get_data(bio));
    BIO_clear_retry_flags(bio);
    *got = std::min(size, self.wire.size());
    if (*got == 0) {
      BIO_set_retry_read(bio);
      return -1;
    }
    std::memcpy(into, self.wire.data(), *got);
    self.wire = self.wire.subspan(*got);
    return 1;
  }

  static int take_bytes(BIO* bio, const char* from, std::size_t size, std::size_t* taken) {
    Impl& self = *static_cast<Impl*>(BIO_get_data(bio));
    BIO_clear_retry_flags(bio);
    *taken = 0;
    try {
      // Of the vector's own type: from char the library would copy byte by byte.
      const auto bytes = reinterpret_cast<const std::uint8_t*>(from);
      self.outgoing.insert(self.outgoing.end(), bytes, bytes + size);
    } catch (const std::bad_alloc&) {  // OpenSSL knows no exceptions
      return -1;
    }
    *taken = size;
    return 1;
  }

  static long control(BIO*, int command, long, void*) { return command == BIO_CTRL_FLUSH ? 1 : 0; }

  static const BIO_METHOD* method() {
    static const Handle<BIO_METHOD, BIO_meth_free> kept = [] {
      Handle<BIO_METHOD, BIO_meth_free> made(BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "span and vector"));
      if (!made || BIO_meth_set_read_ex(made.get(), give_bytes) != 1 || BIO_meth_set_write_ex(made.get(), take_bytes) != 1 ||
          BIO_meth_set_ctrl(made.get(), control) != 1)
        throw std::bad_alloc();
      return made;
    }();
    return kept.get();
  }

  static void count_later_handshakes(int sent, int, int type, const void*, std::size_t, SSL*, void* impl) {
    Impl& self = *static_cast<Impl*>(impl);
    if (sent == 0 && type == SSL3_RT_HANDSHAKE && self.state != State::handshake) ++self.later_handshakes;
  }
};

Session::Session(std::shared_ptr<const Identity> identity) : impl_(std::make_unique<Impl>()) {
  Impl& self = *impl_;
  self.identity = std::move(identity);
  clear_errors();
  self.ssl.reset(SSL_new(self.identity->for_streams()));
  BIO* bio = self.ssl ? BIO_new(Impl::method()) : nullptr;
  if (!bio) throw std::bad_alloc();
  BIO_set_data(bio, &self);
  BIO_set_init(bio, 1);
  SSL_set_bio(self.ssl.get(), bio, bio);
  SSL_set_msg_callback(self.ssl.get(), Impl::count_later_handshakes);
  SSL_set_msg_callback_arg(self.ssl.get(), &self);
  SSL_set_accept_state(self.ssl.get());
}

Session::~Session() = default;

void Session::give(Bytes wire) {
  if (impl_->state == Impl::State::handshake || impl_->state == Impl::State::open) impl_->wire = wire;
}

Session::Read Session::read(MutableBytes into, std::size_t& size) {
  Impl& self = *impl_;
  size = 0;
  if (self.state == Impl::State::failed) return Read::failed;
  if (self.state == Impl::State::closed) return Read::closed;
  if (self.state == Impl::State::handshake) {
    for (;;) {
      const std::size_t before = self.wire.size();
      const Read result = self.shake_hands();
      if (result == Read::data) break;
      if (result != Read::want_more || self.wire.empty()) return result;
      if (self.wire.size() == before) return self.fail("TLS does not go on with what there is");
    }
  }
  if (self.is_dry()) return Read::want_more;
  clear_errors();
  int idle_steps = 0;
  // Records without data are bounded: handshakes below, empty ones and warnings by OpenSSL.
  for (int records = 0; size < into.size() && (size == 0 || records < most_records_a_read); ++records) {
    std::size_t got = 0;
    const std::size_t before = self.wire.size();
    const int result = SSL_read_ex(self.ssl.get(), into.data() + size, into.size() - size, &got);
    if (self.later_handshakes > most_later_handshakes + self.records / records_a_handshake) {
      size = 0;
      return self.fail("it asked for new keys or a new handshake again and again");
    }
    size += got;
    if (result == 1) {
      ++self.records;
      if (self.is_dry()) return Read::data;
      continue;
    }
    const Read what = self.judge(result);
    if (what == Read::want_more && !self.wire.empty()) {
      // A record that was no data. After a request for new keys a step sends ours and takes nothing; more of them would be an endless loop.
      idle_steps = self.wire.size() == before ? idle_steps + 1 : 0;
      if (idle_steps <= most_idle_steps) continue;
      size = 0;
      return self.fail("TLS does not go on with what there is");
    }
    // What came before the end is handed out first; the next call says the end.
    return size > 0 ? Read::data : what;
  }
  return size > 0 ? Read::data : Read::want_more;
}

bool Session::write(Bytes plain) {
  Impl& self = *impl_;
  // The other side's close_notify ends its half alone (RFC 8446, 6.1): what it has asked is still answered.
  if ((self.state != Impl::State::open && self.state != Impl::State::closed) || self.closing) return false;
  if (plain.empty()) return true;
  clear_errors();
  std::size_t written = 0;
  const int result = SSL_write_ex(self.ssl.get(), plain.data(), plain.size(), &written);
  if (result == 1) return true;
  if (self.judge(result) == Read::closed) self.fail("TLS was closed");
  return false;
}

void Session::close() {
  Impl& self = *impl_;
  if (self.closing || (self.state != Impl::State::open && self.state != Impl::State::closed)) return;
  self.closing = true;
  clear_errors();
  SSL_shutdown(self.ssl.get());
}

std::vector<std::uint8_t>& Session::outgoing() { return impl_->outgoing; }
bool Session::is_open() const { return impl_->state == Impl::State::open && !impl_->closing; }
std::string_view Session::protocol() const { return impl_->state == Impl::State::handshake ? "" : SSL_get_version(impl_->ssl.get()); }
std::string_view Session::alpn() const {
  const unsigned char* name = nullptr;
  unsigned size = 0;
  SSL_get0_alpn_selected(impl_->ssl.get(), &name, &size);
  return {reinterpret_cast<const char*>(name), size};
}
std::string_view Session::server_name() const {
  const char* name = SSL_get_servername(impl_->ssl.get(), TLSEXT_NAMETYPE_host_name);
  return name ? name : std::string_view();
}
const std::string& Session::why() const { return impl_->why; }
std::size_t Session::bytes_kept() const { return sizeof(Impl) + impl_->outgoing.capacity() + impl_->why.capacity() + openssl_keeps; }

}  // namespace radiotower::tls
