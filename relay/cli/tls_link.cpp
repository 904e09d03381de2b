#include "tls_link.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>

#include "radiotower/base/calendar.h"

namespace radiotower::cli {

namespace {

std::string joined(const std::vector<std::string>& texts) {
  std::string out;
  for (const auto& text : texts) out += (out.empty() ? "" : ", ") + text;
  return out;
}

std::string common_name(const X509_NAME* name) {
  std::array<char, 256> text{};
  return X509_NAME_get_text_by_NID(const_cast<X509_NAME*>(name), NID_commonName, text.data(), static_cast<int>(text.size())) > 0 ? text.data() : "";
}

int days_until(const ASN1_TIME* time) {
  int days = 0, seconds = 0;
  return ASN1_TIME_diff(&days, &seconds, nullptr, time) == 1 ? days : 0;
}

bool is_address(const std::string& name) { return net::IpAddress::parse(name).has_value(); }

/// What OpenSSL noted first, as a reader understands it. Empties its queue.
LinkFailure explain_handshake(bool datagrams, const net::TransportAddress& server, int saved_errno, bool ended) {
  LinkFailure out;
  out.step = datagrams ? "DTLS" : "TLS";
  const unsigned long code = ERR_peek_error();
  const int reason = ERR_GET_REASON(code);
  ERR_clear_error();
  if (code == 0 || reason == SSL_R_UNEXPECTED_EOF_WHILE_READING) {
    if (ended || code != 0) {
      out.what = fmt::format("{} closed the connection in the middle of the handshake", server.text());
      out.check = {"does this port speak TLS at all? turn: instead of turns:, or the other port", "is there a certificate in the server's configuration?"};
    } else {
      out.what = fmt::format("the handshake with {} failed: {}", server.text(), saved_errno == 0 ? "no answer" : std::strerror(saved_errno));
      out.check = {"the server's log"};
    }
    return out;
  }
  if (reason == SSL_R_WRONG_VERSION_NUMBER || reason == SSL_R_HTTP_REQUEST || reason == SSL_R_UNEXPECTED_MESSAGE) {
    out.what = fmt::format("what {} answers is no {}", server.text(), out.step);
    out.check = {"is this a port without TLS? turn: instead of turns:, or the other port", "the server's log"};
  } else if (reason == SSL_R_TLSV1_ALERT_PROTOCOL_VERSION || reason == SSL_R_UNSUPPORTED_PROTOCOL) {
    out.what = fmt::format("{} and this tool have no version of {} in common: it speaks neither 1.2 nor 1.3", server.text(), out.step);
    out.check = {"the server's version, and its limits on protocols"};
  } else if (reason == SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE) {
    out.what = fmt::format("{} refused the handshake: no cipher in common, or it has no certificate", server.text());
    out.check = {"the server's log"};
  } else {
    const char* text = ERR_reason_error_string(code);
    out.what = fmt::format("the handshake with {} failed: {}", server.text(), text ? text : "for a reason without a name");
    out.check = {"the server's log"};
  }
  return out;
}

class TlsLink final : public Link {
 public:
  TlsLink(Fd fd, bool datagrams, std::chrono::milliseconds timeout) : fd_(std::move(fd)), datagrams_(datagrams), timeout_(timeout) {}
  ~TlsLink() override {
    if (ssl_ && open_) SSL_shutdown(ssl_.get());
    ERR_clear_error();
  }

  bool shake_hands(const net::TransportAddress& server, const TlsOptions& options, std::vector<Step> steps, LinkFailure& failure) {
    steps_ = std::move(steps);
    const auto start = Clock::now();
    failure.step = datagrams_ ? "DTLS" : "TLS";
    ERR_clear_error();
    context_.reset(SSL_CTX_new(datagrams_ ? DTLS_client_method() : TLS_client_method()));
    if (!context_) return false;
    SSL_CTX_set_min_proto_version(context_.get(), datagrams_ ? DTLS1_2_VERSION : TLS1_2_VERSION);
    if (options.ca_file.empty()) {
      SSL_CTX_set_default_verify_paths(context_.get());
    } else if (SSL_CTX_load_verify_locations(context_.get(), options.ca_file.c_str(), nullptr) != 1) {
      ERR_clear_error();
      failure.what = fmt::format("--ca {}: no certificates in PEM form could be read from it", options.ca_file);
      failure.check = {"the file name, and that it begins with -----BEGIN CERTIFICATE-----"};
      return false;
    } else {
      // What is in the file is trusted, an intermediate CA without its root too, as clients do that somebody has made trust it.
      X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(context_.get()), X509_V_FLAG_PARTIAL_CHAIN);
    }
    ssl_.reset(SSL_new(context_.get()));
    if (!ssl_) return false;
    const bool address = is_address(options.name);
    if (address) {
      X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl_.get()), options.name.c_str());
    } else {
      SSL_set1_host(ssl_.get(), options.name.c_str());
      SSL_set_tlsext_host_name(ssl_.get(), options.name.c_str());
    }
    std::vector<unsigned char> alpn{static_cast<unsigned char>(options.alpn.size())};
    alpn.insert(alpn.end(), options.alpn.begin(), options.alpn.end());
    SSL_set_alpn_protos(ssl_.get(), alpn.data(), static_cast<unsigned>(alpn.size()));
    if (datagrams_) {
      BIO* bio = BIO_new_dgram(fd_.number(), BIO_NOCLOSE);
      BIO_ADDR* peer = BIO_ADDR_new();
      sockaddr_storage name{};
      socklen_t length = sizeof name;
      getpeername(fd_.number(), reinterpret_cast<sockaddr*>(&name), &length);
      BIO_ADDR_rawmake(peer, name.ss_family, name.ss_family == AF_INET ? static_cast<void*>(&reinterpret_cast<sockaddr_in*>(&name)->sin_addr) : static_cast<void*>(&reinterpret_cast<sockaddr_in6*>(&name)->sin6_addr),
                       name.ss_family == AF_INET ? 4 : 16, htons(server.port));
      BIO_ctrl(bio, BIO_CTRL_DGRAM_SET_CONNECTED, 0, peer);
      BIO_ADDR_free(peer);
      SSL_set_bio(ssl_.get(), bio, bio);
    } else {
      SSL_set_fd(ssl_.get(), fd_.number());
    }
    const auto deadline = start + timeout_;
    for (;;) {
      errno = 0;
      const int result = SSL_connect(ssl_.get());
      if (result == 1) break;
      const int saved = errno;
      const int error = SSL_get_error(ssl_.get(), result);
      if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) {
        if (wait(error == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT, deadline)) continue;
        failure.what = fmt::format("no {} answer from {} within {:g} s", failure.step, server.text(), static_cast<double>(timeout_.count()) / 1000);
        failure.check = {datagrams_ ? "does the server take DTLS? It is off by default in most" : "does this port speak TLS? turn: instead of turns:, or the other port",
                         "the server's log"};
        return false;
      }
      if (saved == ECONNREFUSED) {
        failure.what = fmt::format("nobody listens at {} over UDP (ICMP: port unreachable)", server.text());
        failure.check = {"does the server take DTLS, and on this port? It is off by default in most"};
        return false;
      }
      failure = explain_handshake(datagrams_, server, saved, error == SSL_ERROR_SYSCALL || error == SSL_ERROR_ZERO_RETURN);
      return false;
    }
    open_ = true;
    X509* certificate = SSL_get0_peer_certificate(ssl_.get());
    LinkFailure judgement = judge_certificate(SSL_get_verify_result(ssl_.get()), certificate, options.name, options.ca_file);
    Step step{failure.step, Clock::now() - start, "", ""};
    const int days = certificate ? days_until(X509_get0_notAfter(certificate)) : 0;
    step.detail = fmt::format("{}, {}, certificate for {}, {} days left", SSL_get_version(ssl_.get()), SSL_get_cipher(ssl_.get()),
                              certificate ? joined(names_of(certificate)) : "nobody", days);
    if (!judgement.what.empty()) {
      if (!options.insecure) {
        judgement.step = failure.step;
        failure = std::move(judgement);
        return false;
      }
      step.note = judgement.what + "; clients will refuse it (--insecure goes on)";
    } else if (days < 15) {
      step.note = fmt::format("the certificate runs out in {} days", days);
    }
    steps_.push_back(std::move(step));
    return true;
  }

  net::TransportAddress local() const override { return local_of(fd_.number()); }

  int send(Bytes message) override {
    const auto bytes = datagrams_ ? std::vector<std::uint8_t>(message.begin(), message.end()) : padded(message);
    const auto deadline = Clock::now() + timeout_;
    ERR_clear_error();
    for (std::size_t sent = 0; sent < bytes.size();) {
      const int n = SSL_write(ssl_.get(), bytes.data() + sent, static_cast<int>(bytes.size() - sent));
      if (n > 0) {
        sent += static_cast<std::size_t>(n);
        continue;
      }
      const int error = SSL_get_error(ssl_.get(), n);
      if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) return errno != 0 ? errno : EPIPE;
      if (!wait(error == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT, deadline)) return EAGAIN;
    }
    return 0;
  }

  Arrival receive(MutableBytes buffer, Clock::time_point deadline, std::size_t& size) override {
    for (;;) {
      if (!datagrams_) {
        switch (frames_.take(buffer, size)) {
          case Frames::Taken::message: return Arrival::message;
          case Frames::Taken::wrong: last_error_ = EBADMSG; return Arrival::failed;
          case Frames::Taken::nothing: break;
        }
      }
      std::array<std::uint8_t, 16384> chunk;
      ERR_clear_error();
      errno = 0;
      const int n = SSL_read(ssl_.get(), chunk.data(), static_cast<int>(chunk.size()));
      if (n > 0) {
        if (datagrams_) {
          size = std::min(static_cast<std::size_t>(n), buffer.size());
          std::copy_n(chunk.begin(), size, buffer.begin());
          return Arrival::message;
        }
        frames_.add(Bytes(chunk).first(static_cast<std::size_t>(n)));
        continue;
      }
      const int saved = errno;
      const int error = SSL_get_error(ssl_.get(), n);
      if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) {
        if (!wait(error == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT, deadline)) return Arrival::deadline;
        continue;
      }
      open_ = false;
      ERR_clear_error();
      if (saved == ECONNREFUSED) return Arrival::refused;
      return Arrival::closed;
    }
  }
  int last_error() const override { return last_error_; }
  bool is_reliable() const override { return !datagrams_; }
  const std::vector<Step>& steps() const override { return steps_; }

 private:
  /// DTLS sends again what was lost of a handshake when its timer says so.
  bool wait(short events, Clock::time_point deadline) {
    for (;;) {
      auto until = deadline;
      timeval left{};
      const bool timer = datagrams_ && DTLSv1_get_timeout(ssl_.get(), &left) == 1;
      if (timer) until = std::min(until, Clock::now() + std::chrono::seconds(left.tv_sec) + std::chrono::microseconds(left.tv_usec));
      if (wait_for(fd_.number(), events, until)) return true;
      if (timer && DTLSv1_handle_timeout(ssl_.get()) < 0) return false;
      if (Clock::now() >= deadline) return false;
    }
  }

  Fd fd_;
  const bool datagrams_;
  std::chrono::milliseconds timeout_;
  std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context_{nullptr, SSL_CTX_free};
  std::unique_ptr<SSL, decltype(&SSL_free)> ssl_{nullptr, SSL_free};
  bool open_ = false;
  std::vector<Step> steps_;
  Frames frames_;
  int last_error_ = 0;
};

}  // namespace

std::vector<std::string> names_of(X509* certificate) {
  std::vector<std::string> out;
  auto* names = static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr));
  for (int i = 0; names && i < sk_GENERAL_NAME_num(names); ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(names, i);
    if (name->type == GEN_DNS) {
      const std::string dns(reinterpret_cast<const char*>(ASN1_STRING_get0_data(name->d.dNSName)), static_cast<std::size_t>(ASN1_STRING_length(name->d.dNSName)));
      // An address in a DNS entry is a mistake that looks right, so it must not look like one in an IP entry.
      out.push_back(is_address(dns) ? "DNS:" + dns : dns);
    } else if (name->type == GEN_IPADD) {
      const auto* bytes = ASN1_STRING_get0_data(name->d.iPAddress);
      const int size = ASN1_STRING_length(name->d.iPAddress);
      if (size == 4) out.push_back(net::IpAddress::v4(bytes).text());
      else if (size == 16) out.push_back(net::IpAddress::v6(bytes).text());
    }
  }
  GENERAL_NAMES_free(names);
  return out;
}

LinkFailure judge_certificate(long result, X509* certificate, const std::string& name, const std::string& ca_file) {
  LinkFailure out;
  if (!certificate) {
    out.what = "the server showed no certificate";
    return out;
  }
  if (result == X509_V_OK) return out;
  const auto names = names_of(certificate);
  const std::string issuer = common_name(X509_get_issuer_name(certificate));
  switch (result) {
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
      if (names.empty()) {
        out.what = fmt::format("the certificate has no subject alternative names, so it is for nobody: clients ignore its common name \"{}\"",
                               common_name(X509_get_subject_name(certificate)));
      } else {
        out.what = fmt::format("the certificate is for {}, and not for {}", joined(names), name);
      }
      if (is_address(name)) {
        out.check = {fmt::format("a certificate whose subject alternative names hold the entry IP:{}; a DNS entry with the address in it does not do", name),
                     "or give clients one of the names that it is for, if they can resolve it"};
      } else {
        out.check = {fmt::format("a certificate whose subject alternative names hold DNS:{}", name), "or give clients one of the names that it is for"};
      }
      return out;
    case X509_V_ERR_CERT_HAS_EXPIRED: {
      const int days = days_until(X509_get0_notAfter(certificate));
      if (days < 0 || (days == 0 && X509_cmp_current_time(X509_get0_notAfter(certificate)) < 0)) {
        out.what = fmt::format("the certificate ran out {} days ago", -days);
      } else {
        out.what = "a certificate of the chain, a CA's, has run out";
      }
      out.check = {"a new certificate; a reload (SIGHUP) is enough for the server to take it", "this host's clock: it says " + utc_minute(std::time(nullptr))};
      return out;
    }
    case X509_V_ERR_CERT_NOT_YET_VALID:
      out.what = "the certificate is not valid yet";
      out.check = {"this host's clock: it says " + utc_minute(std::time(nullptr)), "the clock of the host that issued it"};
      return out;
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
      out.what = "the certificate is self-signed: no CA vouches for it";
      out.check = {"one from your own CA, which phones can be made to trust", "to trust exactly this one here: --ca with the certificate itself"};
      return out;
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
      out.what = fmt::format("the certificate was issued by \"{}\", which {} not vouch for", issuer, ca_file.empty() ? "the CAs that this host trusts do" : "the CAs in " + ca_file + " do");
      out.check = {ca_file.empty() ? "your own CA: --ca FILE; and it has to be on every phone" : "the CA in " + ca_file + ": is it the one that issued it?",
                   "an intermediate CA: the server's certificate file has to hold it behind its own certificate"};
      return out;
    default:
      out.what = fmt::format("the certificate is refused: {}", X509_verify_cert_error_string(result));
      out.check = {"the certificate, with: openssl x509 -text -in FILE"};
      return out;
  }
}

std::unique_ptr<Link> open_tls_link(Fd fd, bool datagrams, const net::TransportAddress& server, const TlsOptions& options, std::vector<Link::Step> steps,
                                    std::chrono::milliseconds timeout, LinkFailure& failure) {
  auto link = std::make_unique<TlsLink>(std::move(fd), datagrams, timeout);
  if (!link->shake_hands(server, options, std::move(steps), failure)) {
    if (failure.what.empty()) failure.what = "OpenSSL has no memory for a connection";
    return nullptr;
  }
  return link;
}

}  // namespace radiotower::cli
