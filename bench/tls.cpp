// What TLS costs by itself, over memory: a record each way, a handshake, and the bytes of sessions that are open or half open. Prints a line each.
#include <malloc.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "radiotower/tls/session.h"

using namespace radiotower;
using tls::Session;

namespace {

using Clock = std::chrono::steady_clock;
double nanoseconds(Clock::time_point since, std::size_t times) {
  return std::chrono::duration<double, std::nano>(Clock::now() - since).count() / static_cast<double>(times);
}
std::size_t in_use() {
  const auto m = mallinfo2();
  return m.uordblks + m.hblkhd;
}

std::shared_ptr<const tls::Identity> make_identity() {
  std::string folder = std::filesystem::temp_directory_path() / "bench-tls-XXXXXX", why;
  if (!mkdtemp(folder.data())) std::exit(1);
  const std::string certificate_file = folder + "/cert.pem", key_file = folder + "/key.pem";
  EVP_PKEY* key = EVP_EC_gen("P-256");
  X509* certificate = X509_new();
  X509_set_version(certificate, 2);
  X509_gmtime_adj(X509_getm_notBefore(certificate), -60);
  X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
  X509_set_pubkey(certificate, key);
  X509_EXTENSION* names = X509V3_EXT_conf_nid(nullptr, nullptr, NID_subject_alt_name, "DNS:bench.example.org");
  X509_add_ext(certificate, names, -1);
  X509_EXTENSION_free(names);
  X509_sign(certificate, key, EVP_sha256());
  if (std::FILE* out = std::fopen(certificate_file.c_str(), "w")) PEM_write_X509(out, certificate), std::fclose(out);
  if (std::FILE* out = std::fopen(key_file.c_str(), "w")) PEM_write_PrivateKey(out, key, nullptr, nullptr, 0, nullptr, nullptr), std::fclose(out);
  X509_free(certificate);
  EVP_PKEY_free(key);
  std::vector<std::string> warnings;
  auto identity = tls::Identity::load({{certificate_file, key_file}}, why, warnings);
  unlink(certificate_file.c_str());
  unlink(key_file.c_str());
  rmdir(folder.c_str());
  if (!identity) std::fprintf(stderr, "%s\n", why.c_str()), std::exit(1);
  return identity;
}

struct Client {
  explicit Client(SSL_CTX* context) : ssl(SSL_new(context), SSL_free) {
    SSL_set_bio(ssl.get(), BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    SSL_set_connect_state(ssl.get());
  }
  std::vector<std::uint8_t> take() {
    std::vector<std::uint8_t> out(BIO_ctrl_pending(SSL_get_wbio(ssl.get())));
    BIO_read(SSL_get_wbio(ssl.get()), out.data(), static_cast<int>(out.size()));
    return out;
  }
  std::unique_ptr<SSL, decltype(&SSL_free)> ssl;
};

std::vector<std::uint8_t> into(16'384);
Clock::duration spent{};  // in the server's own calls
double spent_nanoseconds() { return std::chrono::duration<double, std::nano>(spent).count(); }

void give(Session& session, Bytes wire) {
  const auto since = Clock::now();
  session.give(wire);
  std::size_t size = 0;
  while (session.read(into, size) == Session::Read::data) {
  }
  spent += Clock::now() - since;
}

/// `flights`: of the client that the server sees.
void shake_hands(Client& client, Session& session, int flights = 4) {
  for (; flights > 0 && !session.is_open(); --flights) {
    SSL_do_handshake(client.ssl.get());
    give(session, client.take());
    const auto& out = session.outgoing();
    BIO_write(SSL_get_rbio(client.ssl.get()), out.data(), static_cast<int>(out.size()));
    std::vector<std::uint8_t>().swap(session.outgoing());
  }
}

void measure(const std::shared_ptr<const tls::Identity>& identity, int version, const char* name) {
  const std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context(SSL_CTX_new(TLS_client_method()), SSL_CTX_free);
  SSL_CTX_set_min_proto_version(context.get(), version);
  SSL_CTX_set_max_proto_version(context.get(), version);
  const std::vector<std::uint8_t> plain(1000, 7);
  constexpr std::size_t records = 200'000, batch = 1000;
  Client client(context.get());
  Session session(identity);
  shake_hands(client, session);
  if (!session.is_open()) std::fprintf(stderr, "no handshake: %s\n", session.why().c_str()), std::exit(1);

  auto since = Clock::now();
  for (std::size_t i = 0; i < records; ++i) {
    session.write(plain);
    session.outgoing().clear();
  }
  std::printf("%s  write() of 1,000 bytes            %8.0f ns\n", name, nanoseconds(since, records));
  for (const bool single : {true, false}) {
    spent = {};
    for (std::size_t i = 0; i < records; i += batch) {
      for (std::size_t n = 0; n < batch; ++n) SSL_write(client.ssl.get(), plain.data(), static_cast<int>(plain.size()));
      const auto wire = client.take();
      const std::size_t piece = single ? wire.size() / batch : 65'536;
      for (std::size_t at = 0; at < wire.size(); at += piece) give(session, Bytes(wire).subspan(at, std::min(piece, wire.size() - at)));
    }
    std::printf("%s  read() of 1,000 bytes, %s %8.0f ns\n", name, single ? "one a receive" : "64 KiB a time", spent_nanoseconds() / records);
  }

  constexpr std::size_t sessions = 500;
  for (const int flights : {0, 1, 4}) {
    spent = {};
    std::vector<std::unique_ptr<Client>> clients;
    std::vector<std::unique_ptr<Session>> all;
    for (std::size_t i = 0; i < sessions; ++i) {
      clients.push_back(std::make_unique<Client>(context.get()));
      all.push_back(std::make_unique<Session>(identity));
      shake_hands(*clients.back(), *all.back(), flights);
      if (flights < 4) continue;
      SSL_write(clients.back()->ssl.get(), plain.data(), static_cast<int>(plain.size()));
      give(*all.back(), clients.back()->take());
      all.back()->write(plain);
      std::vector<std::uint8_t>().swap(all.back()->outgoing());
    }
    if (flights == 4) std::printf("%s  a handshake, the server's part    %8.0f ns\n", name, spent_nanoseconds() / sessions);
    const std::size_t before = in_use();
    all.clear();
    const char* const when = flights == 0 ? "before its first byte" : flights == 1 ? "after the hello" : "that is open, and idle";
    std::printf("%s  a session %-23s %8zu bytes\n", name, when, (before - in_use()) / sessions);
  }
}

}  // namespace

int main() {
  const auto identity = make_identity();
  measure(identity, TLS1_2_VERSION, "TLS 1.2");
  measure(identity, TLS1_3_VERSION, "TLS 1.3");
}
