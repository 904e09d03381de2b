#include "fake_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>

namespace radiotower::notifier {

namespace {

void require(bool good, const char* what) {
  if (!good) throw std::runtime_error(what);
}

void add_extension(X509* certificate, X509* issuer, int nid, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str());
  require(extension != nullptr, "extension");
  X509_add_ext(certificate, extension, -1);
  X509_EXTENSION_free(extension);
}

struct Stream {
  int descriptor;
  SSL* tls;
  long read(char* out, std::size_t size) const {
    return tls ? SSL_read(tls, out, static_cast<int>(size)) : recv(descriptor, out, size, 0);
  }
  void write(const std::string& bytes) const {
    if (bytes.empty()) return;
    if (tls) SSL_write(tls, bytes.data(), static_cast<int>(bytes.size()));
    else (void)send(descriptor, bytes.data(), bytes.size(), MSG_NOSIGNAL);
  }
};

bool read_request(const Stream& stream, std::string& buffer, FakeRequest& request) {
  char chunk[16384];
  std::size_t head_end;
  while ((head_end = buffer.find("\r\n\r\n")) == std::string::npos) {
    const long n = stream.read(chunk, sizeof chunk);
    if (n <= 0) return false;
    buffer.append(chunk, static_cast<std::size_t>(n));
    if (buffer.front() == 0x16) {  // a ClientHello, which servers of plain HTTP answer so
      stream.write("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
      return false;
    }
  }
  request.head = buffer.substr(0, head_end + 2);
  buffer.erase(0, head_end + 4);
  const auto blank = request.head.find(' ');
  request.method = request.head.substr(0, blank);
  request.path = request.head.substr(blank + 1, request.head.find(' ', blank + 1) - blank - 1);
  const auto length_at = request.head.find("Content-Length: ");
  const std::size_t length = length_at == std::string::npos ? 0 : std::strtoul(request.head.c_str() + length_at + 16, nullptr, 10);
  while (buffer.size() < length) {
    const long n = stream.read(chunk, sizeof chunk);
    if (n <= 0) return false;
    buffer.append(chunk, static_cast<std::size_t>(n));
  }
  request.body = buffer.substr(0, length);
  buffer.erase(0, length);
  return true;
}

}  // namespace

FakeReply answer(unsigned status, const std::string& body, const std::string& content_type, const std::string& headers) {
  return {.bytes = "HTTP/1.1 " + std::to_string(status) + " Word\r\nContent-Type: " + content_type + "\r\n" + headers +
                   "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body,
          .delay = {}, .close = false};
}

Identity::Identity(const Wish& wish, const Identity* issuer) : key(EVP_EC_gen("P-256")), certificate(X509_new()) {
  require(key && certificate, "key");
  static long serial = 1000;
  X509_set_version(certificate, 2);
  ASN1_INTEGER_set(X509_get_serialNumber(certificate), ++serial);
  X509_gmtime_adj(X509_getm_notBefore(certificate), 86400L * wish.valid_from_days);
  X509_gmtime_adj(X509_getm_notAfter(certificate), 86400L * wish.valid_until_days);
  X509_set_pubkey(certificate, key);
  X509_NAME* name = X509_get_subject_name(certificate);
  X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, reinterpret_cast<const unsigned char*>(wish.common_name.c_str()), -1, -1, 0);
  X509* signer = issuer ? issuer->certificate : certificate;
  X509_set_issuer_name(certificate, X509_get_subject_name(signer));
  add_extension(certificate, signer, NID_basic_constraints, wish.authority ? "critical,CA:TRUE" : "critical,CA:FALSE");
  std::string names;
  for (const auto& entry : wish.names) names += (names.empty() ? "" : ",") + entry;
  if (!names.empty()) add_extension(certificate, signer, NID_subject_alt_name, names);
  require(X509_sign(certificate, issuer ? issuer->key : key, EVP_sha256()) > 0, "sign");
}

Identity::~Identity() {
  X509_free(certificate);
  EVP_PKEY_free(key);
}

std::string Identity::pem() const {
  BIO* bio = BIO_new(BIO_s_mem());
  PEM_write_bio_X509(bio, certificate);
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  std::string text(data, static_cast<std::size_t>(size));
  BIO_free(bio);
  return text;
}

FakeServer::FakeServer(const Identity* identity) {
  if (identity) {
    tls_ = SSL_CTX_new(TLS_server_method());
    require(tls_ && SSL_CTX_use_certificate(tls_, identity->certificate) == 1 && SSL_CTX_use_PrivateKey(tls_, identity->key) == 1, "identity");
  }
  listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  require(bind(listener_, reinterpret_cast<sockaddr*>(&address), size) == 0 && listen(listener_, 64) == 0, "listen");
  getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
  port_ = ntohs(address.sin_port);
  thread_ = std::thread([this] { accept_all(); });
}

FakeServer::~FakeServer() {
  {
    const std::lock_guard lock(mutex_);
    end_ = true;
    for (auto& connection : connections_)
      if (connection.descriptor >= 0) shutdown(connection.descriptor, SHUT_RDWR);
  }
  ending_.notify_all();
  shutdown(listener_, SHUT_RDWR);
  thread_.join();
  for (auto& connection : connections_) connection.thread.join();
  close(listener_);
  SSL_CTX_free(tls_);
}

std::string FakeServer::url(const std::string& host) const { return std::string(tls_ ? "https" : "http") + "://" + host + ":" + std::to_string(port_); }

void FakeServer::next(FakeReply reply) {
  const std::lock_guard lock(mutex_);
  script_.push_back(std::move(reply));
}

void FakeServer::handle(std::function<FakeReply(const FakeRequest&)> handler) {
  const std::lock_guard lock(mutex_);
  handler_ = std::move(handler);
}

std::vector<FakeRequest> FakeServer::requests() const {
  const std::lock_guard lock(mutex_);
  return requests_;
}

std::vector<FakeRequest> FakeServer::posts() const {
  auto found = requests();
  std::erase_if(found, [](const FakeRequest& request) { return request.method == "GET"; });
  return found;
}

void FakeServer::accept_all() {
  for (;;) {
    const int descriptor = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (descriptor < 0) return;
    const std::lock_guard lock(mutex_);
    if (end_) {
      close(descriptor);
      return;
    }
    auto& connection = connections_.emplace_back();
    connection.descriptor = descriptor;
    connection.thread = std::thread([this, &connection] { serve(connection); });
  }
}

FakeReply FakeServer::reply_to(const FakeRequest& request) {
  std::function<FakeReply(const FakeRequest&)> handler;
  {
    const std::lock_guard lock(mutex_);
    requests_.push_back(request);
    handler = handler_;
    if (!handler) {
      if (request.method == "GET") return answer(200, R"({"status":"OK"})");
      if (script_.empty()) return ok();
      FakeReply reply = script_.front();
      script_.erase(script_.begin());
      return reply;
    }
  }
  return handler(request);
}

void FakeServer::serve(Connection& connection) {
  const int one = 1;
  setsockopt(connection.descriptor, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  Stream stream{connection.descriptor, tls_ ? SSL_new(tls_) : nullptr};
  if (stream.tls) SSL_set_fd(stream.tls, connection.descriptor);
  if (!stream.tls || SSL_accept(stream.tls) == 1) {
    std::string buffer;
    for (bool fresh = true;; fresh = false) {
      FakeRequest request;
      request.fresh = fresh;
      if (!read_request(stream, buffer, request)) break;
      const FakeReply reply = reply_to(request);
      if (reply.delay.count() > 0) {
        std::unique_lock lock(mutex_);
        if (ending_.wait_for(lock, reply.delay, [this] { return end_; })) break;
      }
      stream.write(reply.bytes);
      if (reply.close) break;
    }
  }
  SSL_free(stream.tls);
  const std::lock_guard lock(mutex_);
  close(connection.descriptor);
  connection.descriptor = -1;
}

TemporaryFolder::TemporaryFolder() {
  std::string pattern = (std::filesystem::temp_directory_path() / "notifier-test-XXXXXX").string();
  require(mkdtemp(pattern.data()) != nullptr, "folder");
  path_ = pattern;
}
TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}
std::string TemporaryFolder::write(const std::string& name, const std::string& text) const {
  std::ofstream(path_ + "/" + name) << text;
  return path_ + "/" + name;
}

}  // namespace radiotower::notifier
