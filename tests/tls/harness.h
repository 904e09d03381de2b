// What the tests of TLS share: certificates of a CA made on the spot, and a client over memory.
#pragma once

#include <doctest/doctest.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "radiotower/tls/session.h"

namespace radiotower::tls {

using Key = std::shared_ptr<EVP_PKEY>;
using Certificate = std::shared_ptr<X509>;

/// A folder for PEM files, gone with the test.
class Folder {
 public:
  Folder();
  ~Folder();
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

Key ec_key();
Key rsa_key(unsigned bits);

struct Wanted {
  std::string names = "DNS:turn.example.org";  // as in openssl.cnf: "DNS:a,IP:192.0.2.1"; empty: no such extension
  long from = -60, until = 3600;               // seconds from now
  const EVP_MD* digest = EVP_sha256();
  bool authority = false;
};
/// Signed by `issuer`, or by itself.
Certificate make_certificate(const Key& key, const Wanted& wanted, const Certificate& issuer = nullptr, const Key& issuer_key = nullptr);

void write_text(const std::string& file, std::string_view text);
std::string pem(const Certificate& certificate);
std::string pem(const Key& key, const EVP_CIPHER* cipher = nullptr);

/// A CA, and certificates of it in files of a folder.
struct Authority {
  Authority();
  CertificateFiles issue(const std::string& file, const Wanted& wanted = {}, Key key = ec_key());
  Folder folder;
  Key key;
  Certificate certificate;
};

std::shared_ptr<const Identity> load(const std::vector<CertificateFiles>& files);  // with success

/// The other side, with OpenSSL's own memory BIOs.
struct Client {
  struct Options {
    int lowest = TLS1_2_VERSION, highest = TLS1_3_VERSION;
    const char* server_name = nullptr;
    std::vector<std::string> alpn = {};
    const char* ciphers = nullptr;  // of TLS 1.2
    X509* trusted = nullptr;
  };
  explicit Client(const Options& options);
  Client() : Client(Options{}) {}

  bool shake_hands();                              // one step; true when done
  std::vector<std::uint8_t> take();                // what it wants to send
  void give(Bytes wire);                           // what it receives
  bool write(Bytes plain) { return SSL_write(ssl.get(), plain.data(), static_cast<int>(plain.size())) == static_cast<int>(plain.size()); }
  std::string read();                              // all that is there
  std::string peer() const;                        // the first DNS name of the server's certificate
  int alert = -1;                   // the last that came

  std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context{nullptr, SSL_CTX_free};
  std::unique_ptr<SSL, decltype(&SSL_free)> ssl{nullptr, SSL_free};
};

/// A session and what came out of it.
struct Server {
  explicit Server(std::shared_ptr<const Identity> identity) : session(std::move(identity)) {}
  /// Gives the bytes in pieces of `piece`, each from memory of its own that is gone afterwards.
  Session::Read give(Bytes wire, std::size_t piece = SIZE_MAX);
  std::vector<std::uint8_t> take() {
    std::vector<std::uint8_t> out;
    out.swap(session.outgoing());
    return out;
  }
  Session session;
  std::string received;
  std::size_t reads = 0;
  Session::Read last = Session::Read::want_more;
};

/// Until neither side has anything to say, or one has failed. True: both are open.
bool shake_hands(Client& client, Server& server, std::size_t piece = SIZE_MAX);
/// Whatever lies ready on either side goes to the other, until nothing does.
void carry(Client& client, Server& server, std::size_t piece = SIZE_MAX);

}  // namespace radiotower::tls
