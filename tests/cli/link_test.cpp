// Links over TCP, TLS and DTLS against a server of a few lines with a certificate made here.
#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <thread>

#include "client.h"
#include "tls_link.h"

using namespace radiotower;
using namespace radiotower::cli;

namespace {

constexpr std::chrono::milliseconds patience{30'000};
// OpenSSL writes to sockets without MSG_NOSIGNAL; programs that use it ignore the signal, as the tool does.
[[maybe_unused]] const auto without_sigpipe = std::signal(SIGPIPE, SIG_IGN);

struct Pair {
  EVP_PKEY* key = nullptr;
  X509* certificate = nullptr;
  ~Pair() {
    EVP_PKEY_free(key);
    X509_free(certificate);
  }
};

/// A certificate by `issuer`, or by itself. `names`: "DNS:tower.lan,IP:127.0.0.1"; days: how long it is good from an hour ago.
std::unique_ptr<Pair> issue(const char* common_name, const char* names, const Pair* issuer, int days = 30) {
  auto out = std::make_unique<Pair>();
  out->key = EVP_EC_gen("P-256");
  X509* x = out->certificate = X509_new();
  X509_set_version(x, 2);
  ASN1_INTEGER_set(X509_get_serialNumber(x), std::rand());
  X509_gmtime_adj(X509_getm_notBefore(x), days < 0 ? -86400L * 10 : -3600);
  X509_gmtime_adj(X509_getm_notAfter(x), 86400L * days);
  X509_set_pubkey(x, out->key);
  X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC, reinterpret_cast<const unsigned char*>(common_name), -1, -1, 0);
  X509_set_issuer_name(x, X509_get_subject_name(issuer ? issuer->certificate : x));
  const auto add = [&](int nid, const char* value) {
    X509_EXTENSION* e = X509V3_EXT_conf_nid(nullptr, nullptr, nid, const_cast<char*>(value));
    REQUIRE(e);
    X509_add_ext(x, e, -1);
    X509_EXTENSION_free(e);
  };
  if (!issuer) add(NID_basic_constraints, "critical,CA:TRUE");
  if (names) add(NID_subject_alt_name, names);
  X509_sign(x, issuer ? issuer->key : out->key, EVP_sha256());
  return out;
}

struct File {  // a certificate as a PEM file, gone with its test
  explicit File(X509* certificate) {
    path = (std::filesystem::temp_directory_path() / "radiotower-ca-XXXXXX").string();
    const int fd = mkstemp(path.data());
    std::FILE* f = fdopen(fd, "w");
    PEM_write_X509(f, certificate);
    std::fclose(f);
  }
  ~File() { unlink(path.c_str()); }
  std::string path;
};

/// Accepts one connection, shakes hands, and answers each message with itself until the end.
class Echo {
 public:
  Echo(const Pair* identity, std::function<void(int)> instead = {}) : instead_(std::move(instead)) {
    fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in any{};
    any.sin_family = AF_INET;
    any.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    REQUIRE(bind(fd_, reinterpret_cast<sockaddr*>(&any), sizeof any) == 0);
    REQUIRE(listen(fd_, 4) == 0);
    socklen_t length = sizeof any;
    getsockname(fd_, reinterpret_cast<sockaddr*>(&any), &length);
    address = {net::IpAddress::v4(0x7F000001), ntohs(any.sin_port), 0};
    if (identity) {
      context_ = SSL_CTX_new(TLS_server_method());
      SSL_CTX_use_certificate(context_, identity->certificate);
      SSL_CTX_use_PrivateKey(context_, identity->key);
    }
    thread_ = std::thread([this] { serve(); });
  }
  ~Echo() {
    shutdown(fd_, SHUT_RDWR);
    thread_.join();
    close(fd_);
    SSL_CTX_free(context_);
  }
  net::TransportAddress address;

 private:
  void serve() {
    const int one = accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC);
    if (one < 0) return;
    if (instead_) {
      instead_(one);
    } else {
      SSL* ssl = context_ ? SSL_new(context_) : nullptr;
      if (ssl) SSL_set_fd(ssl, one);
      std::vector<std::uint8_t> buffer(65536);
      if (!ssl || SSL_accept(ssl) == 1) {
        for (;;) {
          const auto n = ssl ? SSL_read(ssl, buffer.data(), static_cast<int>(buffer.size())) : static_cast<int>(recv(one, buffer.data(), buffer.size(), 0));
          if (n <= 0) break;
          // In two pieces: what a stream does with messages is its own affair.
          for (const auto& [from, size] : {std::pair(0, n / 2), std::pair(n / 2, n - n / 2)}) {
            if (size == 0) continue;
            if (ssl) SSL_write(ssl, buffer.data() + from, size);
            else if (::send(one, buffer.data() + from, static_cast<std::size_t>(size), MSG_NOSIGNAL) < 0) break;
          }
        }
      }
      ERR_clear_error();
      SSL_free(ssl);
    }
    close(one);
  }
  std::function<void(int)> instead_;
  int fd_ = -1;
  SSL_CTX* context_ = nullptr;
  std::thread thread_;
};

std::vector<std::uint8_t> channel_data(std::size_t size) {
  std::vector<std::uint8_t> out(4 + size);
  store_be16(out.data(), 0x4000);
  store_be16(out.data() + 2, static_cast<std::uint16_t>(size));
  for (std::size_t i = 0; i < size; ++i) out[4 + i] = static_cast<std::uint8_t>(i);
  return out;
}

void exchanges(Link& link) {
  std::vector<std::uint8_t> buffer(65'540);
  for (const std::size_t size : {0u, 1u, 2u, 3u, 4u, 1000u, 65'000u}) {
    const auto sent = channel_data(size);
    REQUIRE(link.send(sent) == 0);
    std::size_t got = 0;
    REQUIRE(link.receive(buffer, Clock::now() + patience, got) == Link::Arrival::message);
    CHECK(got == (sent.size() + 3) / 4 * 4);  // padded (RFC 8656, 12.5)
    CHECK(std::equal(sent.begin(), sent.end(), buffer.begin()));
  }
}

bool says(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

LinkFailure fails(net::Transport transport, const net::TransportAddress& server, const TlsOptions& options) {
  LinkFailure failure;
  CHECK_FALSE(open_link(transport, server, options, patience, failure));
  CHECK_FALSE(failure.what.empty());
  CHECK_FALSE(failure.check.empty());
  return failure;
}

}  // namespace

TEST_CASE("messages keep their bounds over TCP and TLS, however the bytes are cut") {
  LinkFailure failure;
  {
    Echo echo(nullptr);
    const auto link = open_link(net::Transport::tcp, echo.address, TlsOptions{}, patience, failure);
    REQUIRE(link);
    CHECK(link->is_reliable());
    CHECK(link->steps().size() == 1);
    exchanges(*link);
  }
  const auto ca = issue("Office CA", nullptr, nullptr);
  const auto tower = issue("tower", "DNS:tower.lan,IP:127.0.0.1", ca.get());
  const File file(ca->certificate);
  for (const char* name : {"tower.lan", "127.0.0.1"}) {
    Echo echo(tower.get());
    const auto link = open_link(net::Transport::tls, echo.address, {name, file.path}, patience, failure);
    INFO(failure.what);
    REQUIRE(link);
    REQUIRE(link->steps().size() == 2);
    CHECK(says(link->steps()[1].detail, "tower.lan, 127.0.0.1"));
    CHECK(link->steps()[1].note.empty());
    exchanges(*link);
  }
}

TEST_CASE("a certificate that a phone would refuse is refused, and the reason says what to do") {
  const auto ca = issue("Office CA", nullptr, nullptr);
  const File file(ca->certificate);
  const auto try_it = [&](const Pair* identity, const std::string& name, const std::string& ca_file) {
    Echo echo(identity);
    return fails(net::Transport::tls, echo.address, {name, ca_file});
  };
  const auto named = issue("tower", "DNS:tower.lan", ca.get());
  LinkFailure f = try_it(named.get(), "127.0.0.1", file.path);
  CHECK(f.what == "the certificate is for tower.lan, and not for 127.0.0.1");
  CHECK(says(f.check[0], "IP:127.0.0.1"));
  f = try_it(named.get(), "other.lan", file.path);
  CHECK(says(f.check[0], "DNS:other.lan"));
  const auto address_as_dns = issue("tower", "DNS:127.0.0.1", ca.get());
  f = try_it(address_as_dns.get(), "127.0.0.1", file.path);
  CHECK(f.what == "the certificate is for DNS:127.0.0.1, and not for 127.0.0.1");
  CHECK(says(f.check[0], "a DNS entry with the address in it does not do"));
  const auto nameless = issue("127.0.0.1", nullptr, ca.get());
  CHECK(says(try_it(nameless.get(), "127.0.0.1", file.path).what, "no subject alternative names"));
  const auto old = issue("tower", "IP:127.0.0.1", ca.get(), -3);
  CHECK(says(try_it(old.get(), "127.0.0.1", file.path).what, "ran out"));
  const auto other_ca = issue("Other CA", nullptr, nullptr);
  const auto foreign = issue("tower", "IP:127.0.0.1", other_ca.get());
  CHECK(says(try_it(foreign.get(), "127.0.0.1", file.path).what, "issued by \"Other CA\""));
  const auto alone = issue("tower", "IP:127.0.0.1", nullptr);
  CHECK(says(try_it(alone.get(), "127.0.0.1", file.path).what, "self-signed"));
  CHECK(says(try_it(named.get(), "tower.lan", "/nowhere.pem").what, "--ca /nowhere.pem"));

  Echo echo(named.get());  // and with --insecure it is told, and gone past
  LinkFailure failure;
  const auto link = open_link(net::Transport::tls, echo.address, {"127.0.0.1", file.path, true}, patience, failure);
  REQUIRE(link);
  CHECK(says(link->steps()[1].note, "is for tower.lan, and not for 127.0.0.1"));
  exchanges(*link);
}

TEST_CASE("a port that is not what the URL says is told apart") {
  {
    Echo plain(nullptr, [](int fd) {
      std::array<char, 64> in;
      if (recv(fd, in.data(), in.size(), 0) > 0) ::send(fd, "HTTP/1.1 400 Bad Request\r\n\r\n", 28, MSG_NOSIGNAL);
      while (recv(fd, in.data(), in.size(), 0) > 0) {}
    });
    CHECK(says(fails(net::Transport::tls, plain.address, {"127.0.0.1", ""}).what, "is no TLS"));
  }
  {
    Echo closes(nullptr, [](int fd) {
      std::array<char, 1024> in;
      recv(fd, in.data(), in.size(), 0);
    });
    const auto f = fails(net::Transport::tls, closes.address, {"127.0.0.1", ""});
    CHECK_MESSAGE((says(f.what, "closed the connection") || says(f.what, "eset") || says(f.what, "eof")), f.what);
  }
  const int fd = socket(AF_INET, SOCK_STREAM, 0);  // bound, but nobody listens
  sockaddr_in any{};
  any.sin_family = AF_INET;
  any.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  REQUIRE(bind(fd, reinterpret_cast<sockaddr*>(&any), sizeof any) == 0);
  const net::TransportAddress nobody = local_of(fd);
  CHECK(says(fails(net::Transport::tcp, nobody, TlsOptions{}).what, "nobody listens"));
  CHECK(says(fails(net::Transport::dtls, nobody, {"127.0.0.1", ""}).what, "nobody listens"));
  close(fd);
}

TEST_CASE("garbage on a stream ends it") {
  Echo garbage(nullptr, [](int fd) {
    std::array<char, 64> in;
    if (recv(fd, in.data(), in.size(), 0) > 0) ::send(fd, "\xFF\xFF\xFF\xFF", 4, MSG_NOSIGNAL);
    while (recv(fd, in.data(), in.size(), 0) > 0) {}
  });
  LinkFailure failure;
  const auto link = open_link(net::Transport::tcp, garbage.address, TlsOptions{}, patience, failure);
  REQUIRE(link);
  std::vector<std::uint8_t> buffer(65'540);
  std::size_t size = 0;
  REQUIRE(link->send(channel_data(4)) == 0);
  CHECK(link->receive(buffer, Clock::now() + patience, size) == Link::Arrival::failed);
}

TEST_CASE("a client over a stream sends a request once, and sees the connection end (RFC 8489, 6.2.2)") {
  Echo closes(nullptr, [](int fd) {
    std::array<char, 64> in;
    recv(fd, in.data(), in.size(), 0);
  });
  LinkFailure failure;
  auto link = open_link(net::Transport::tcp, closes.address, TlsOptions{}, patience, failure);
  REQUIRE(link);
  Client client(std::move(link), closes.address, {}, system_random(), {patience});
  Outcome outcome;
  CHECK_FALSE(client.binding(outcome));
  CHECK(outcome.failure == Failure::closed);
  CHECK(outcome.sends == 1);
}
