#include "notifier/tls.h"

#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>
#include <vector>

namespace radiotower::notifier {

namespace {

/// Of handshake messages after the handshake (KeyUpdate; attempts to renegotiate). A client needs one in 2^24 records; each of the
/// other side's costs us new keys, and 27 bytes on the wire.
constexpr unsigned most_later_handshakes = 32;

void count_later_handshakes(int sent, int, int type, const void*, std::size_t, SSL* tls, void*) {
  const auto counter = static_cast<unsigned*>(SSL_get_app_data(tls));  // null until the handshake is done
  if (counter && sent == 0 && type == SSL3_RT_HANDSHAKE) ++*counter;
}

/// What OpenSSL has noted since the queue was last empty; it is empty then. The first entry is the cause, those after it are where it passed.
class Errors {
 public:
  Errors() {
    while (const unsigned long code = ERR_get_error()) codes_.push_back(code);
  }
  bool any() const { return !codes_.empty(); }
  bool has(int library, int reason) const {
    return std::any_of(codes_.begin(), codes_.end(), [&](unsigned long c) { return ERR_GET_LIB(c) == library && ERR_GET_REASON(c) == reason; });
  }
  std::string reason() const {
    const char* text = codes_.empty() ? nullptr : ERR_reason_error_string(codes_.front());
    return text ? text : "for a reason that OpenSSL does not name";
  }

 private:
  std::vector<unsigned long> codes_;
};

/// False with a sentence, which names what keeps most certificates from being read.
bool can_open(const char* what, const std::string& file, std::string& why) {
  const int descriptor = open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor >= 0) {
    close(descriptor);
    return true;
  }
  const int error = errno;
  why = std::string("cannot read the ") + what + ' ' + file + ": " + std::strerror(error);
  if (error == EACCES) why += "; it has to be readable for the user that the service runs as, and so do the folders above it";
  return false;
}

/// Instead of OpenSSL's own, which would ask at the terminal and wait.
int no_passphrase(char*, int, int, void* asked) {
  *static_cast<bool*>(asked) = true;
  return -1;
}

bool use_certificate(SSL_CTX* context, const std::string& file, std::string& why) {
  if (!can_open("certificate", file, why)) return false;
  if (SSL_CTX_use_certificate_chain_file(context, file.c_str()) == 1) return true;
  const Errors errors;
  if (errors.has(ERR_LIB_SSL, SSL_R_EE_KEY_TOO_SMALL) || errors.has(ERR_LIB_SSL, SSL_R_CA_MD_TOO_WEAK)) {
    why = "the certificate in " + file + " is too weak (" + errors.reason() + "): it takes RSA of 2048 bits or an EC key, and SHA-256";
  } else if (errors.has(ERR_LIB_PEM, PEM_R_NO_START_LINE)) {
    why = file + " holds no certificate in PEM form, as in -----BEGIN CERTIFICATE-----";
  } else {
    why = "the certificate in " + file + " is damaged: " + errors.reason();
  }
  return false;
}

bool use_key(SSL_CTX* context, const std::string& file, const std::string& certificate_file, std::string& why) {
  if (!can_open("private key", file, why)) return false;
  bool asked = false;
  SSL_CTX_set_default_passwd_cb(context, no_passphrase);
  SSL_CTX_set_default_passwd_cb_userdata(context, &asked);
  const bool read = SSL_CTX_use_PrivateKey_file(context, file.c_str(), SSL_FILETYPE_PEM) == 1;
  SSL_CTX_set_default_passwd_cb_userdata(context, nullptr);
  if (read && SSL_CTX_check_private_key(context) == 1) return true;
  const Errors errors;
  if (asked) {
    why = "the private key " + file + " is protected by a passphrase, which nobody could type in: openssl pkey -in OLD -out NEW takes it off";
  } else if (errors.has(ERR_LIB_X509, X509_R_KEY_VALUES_MISMATCH) || errors.has(ERR_LIB_X509, X509_R_KEY_TYPE_MISMATCH) || read) {
    why = "the private key " + file + " does not belong to the certificate " + certificate_file +
          ", whose file has to begin with the server's own certificate, before those of CAs";
  } else {
    why = "the private key " + file + " cannot be used (" + errors.reason() + "): it takes PEM, as in -----BEGIN PRIVATE KEY-----";
  }
  return false;
}

}  // namespace

std::shared_ptr<SSL_CTX> load_certificate(const std::string& certificate_file, const std::string& key_file, std::string& why) {
  why.clear();
  ERR_clear_error();
  std::shared_ptr<SSL_CTX> context(SSL_CTX_new(TLS_server_method()), SSL_CTX_free);
  if (!context) {
    why = "OpenSSL gives no context: " + Errors().reason();
    return nullptr;
  }
  SSL_CTX_set_min_proto_version(context.get(), TLS1_2_VERSION);
  SSL_CTX_set_cipher_list(context.get(), "ECDHE+AESGCM:ECDHE+CHACHA20");  // TLS 1.2; those of 1.3 are AEAD anyway
  SSL_CTX_set_options(context.get(), SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_TICKET | SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_NO_COMPRESSION);
  SSL_CTX_set_num_tickets(context.get(), 0);
  SSL_CTX_set_session_cache_mode(context.get(), SSL_SESS_CACHE_OFF);
  // An idle connection keeps no record buffers, and a write that did not fit may go on from another address.
  SSL_CTX_set_mode(context.get(), SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  // With it one read would go on through all the records that are no data: 700,000 KeyUpdates held the thread for 12 s.
  SSL_CTX_clear_mode(context.get(), SSL_MODE_AUTO_RETRY);
  SSL_CTX_set_msg_callback(context.get(), count_later_handshakes);
  if (!use_certificate(context.get(), certificate_file, why) || !use_key(context.get(), key_file, certificate_file, why)) return nullptr;

  const X509* certificate = SSL_CTX_get0_certificate(context.get());
  if (X509_cmp_current_time(X509_get0_notAfter(certificate)) < 0) why = "the certificate " + certificate_file + " has expired";
  if (X509_cmp_current_time(X509_get0_notBefore(certificate)) > 0) {
    why = "the certificate " + certificate_file + " is not valid yet, or the clock of this machine is behind";
  }
  return context;
}

Stream::Stream(boost::asio::ip::tcp::socket socket, SSL_CTX* context) : socket_(std::move(socket)), tls_(nullptr, SSL_free) {
  if (!context) return;
  later_handshakes_ = std::make_unique<unsigned>(0);
  tls_.reset(SSL_new(context));
  if (!tls_ || SSL_set_fd(tls_.get(), socket_.native_handle()) != 1) throw std::bad_alloc();
}

Need Stream::judge(int result) {
  switch (SSL_get_error(tls_.get(), result)) {
    case SSL_ERROR_WANT_READ: return Need::readable;
    case SSL_ERROR_WANT_WRITE: return Need::writable;
    default: return Need::closed;
  }
}

Need Stream::shake_hands(std::string& why) {
  if (!tls_) return Need::nothing;
  ERR_clear_error();
  const int result = SSL_accept(tls_.get());
  if (result == 1) {
    SSL_set_app_data(tls_.get(), later_handshakes_.get());
    return Need::nothing;
  }
  const Need need = judge(result);
  if (need != Need::closed) return need;
  const Errors errors;
  if (errors.has(ERR_LIB_SSL, SSL_R_HTTP_REQUEST)) {
    tls_.reset();
    became_plain_ = true;
    why = "it spoke plain HTTP to a port with TLS: the URL has to begin with https://";
    return Need::nothing;
  }
  if (errors.has(ERR_LIB_SSL, SSL_R_TLSV1_ALERT_UNKNOWN_CA) || errors.has(ERR_LIB_SSL, SSL_R_SSLV3_ALERT_BAD_CERTIFICATE) ||
      errors.has(ERR_LIB_SSL, SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN)) {
    why = "it does not trust our certificate (" + errors.reason() + "): the CA belongs into the sender's trust store";
  } else if (errors.any() && !errors.has(ERR_LIB_SSL, SSL_R_UNEXPECTED_EOF_WHILE_READING)) {  // that one: a port scan, a health check
    why = "the TLS handshake failed: " + errors.reason();
  }
  return Need::closed;
}

Need Stream::receive(std::span<char> into, std::size_t& got) {
  const ssize_t result = recv(socket_.native_handle(), into.data(), into.size(), 0);
  got = result > 0 ? static_cast<std::size_t>(result) : 0;
  if (result > 0) return Need::nothing;
  return result < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) ? Need::readable : Need::closed;
}

Need Stream::read(std::span<char> into, std::size_t& got) {
  if (!tls_) return receive(into, got);
  ERR_clear_error();
  const int result = SSL_read_ex(tls_.get(), into.data(), into.size(), &got);
  if (*later_handshakes_ > most_later_handshakes) return Need::closed;
  return result == 1 ? Need::nothing : judge(result);
}

Need Stream::write(std::string_view bytes, std::size_t& sent) {
  sent = 0;
  if (tls_) {
    ERR_clear_error();
    const int result = SSL_write_ex(tls_.get(), bytes.data(), bytes.size(), &sent);
    return result == 1 ? Need::nothing : judge(result);
  }
  const ssize_t result = send(socket_.native_handle(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
  if (result >= 0) {
    sent = static_cast<std::size_t>(result);
    return Need::nothing;
  }
  return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? Need::writable : Need::closed;
}

void Stream::end_writing() {
  if (tls_) {
    ERR_clear_error();
    SSL_shutdown(tls_.get());
  }
  shutdown(socket_.native_handle(), SHUT_WR);
}

Need Stream::discard(std::span<char> into, std::size_t& got) { return receive(into, got); }

}  // namespace radiotower::notifier
