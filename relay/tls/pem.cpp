#include "pem.h"

#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace radiotower::tls {

namespace {

constexpr std::size_t longest_file = 1024 * 1024;

/// The bytes of a file, wiped in the end: they may be a key.
struct Content {
  Content() = default;
  Content(const Content&) = delete;
  Content& operator=(const Content&) = delete;
  ~Content() { OPENSSL_cleanse(bytes.data(), bytes.size()); }
  Handle<BIO, BIO_free> open() const { return Handle<BIO, BIO_free>(BIO_new_mem_buf(bytes.data(), static_cast<int>(bytes.size()))); }
  std::vector<char> bytes;
  mode_t mode = 0;
};

/// False with a sentence, which names what keeps most certificates from being read.
bool read_file(const char* what, const std::string& file, Content& content, std::string& why) {
  // Not blocking: the name of a pipe would hold the start for ever.
  const int descriptor = open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  struct stat found {};
  ssize_t got = -1;
  int error = errno;
  if (descriptor >= 0) {
    if (fstat(descriptor, &found) == 0 && S_ISREG(found.st_mode)) {
      content.bytes.resize(longest_file + 1);
      std::size_t size = 0;
      do {
        got = read(descriptor, content.bytes.data() + size, content.bytes.size() - size);
        if (got > 0) size += static_cast<std::size_t>(got);
      } while (got > 0 || (got < 0 && errno == EINTR));
      error = errno;
      content.bytes.resize(size);  // the rest was never written to
    } else {
      error = S_ISDIR(found.st_mode) ? EISDIR : EINVAL;
    }
    close(descriptor);
    content.mode = found.st_mode;
  }
  if (got == 0 && content.bytes.size() <= longest_file) return true;
  why = std::string("cannot read the ") + what + ' ' + file + ": " + (got == 0 ? "it is longer than 1 MiB" : std::strerror(error));
  if (error == EACCES && got != 0) why += "; it has to be readable for the user that the service runs as, and so do the folders above it";
  return false;
}

/// Instead of OpenSSL's own, which would ask at the terminal and wait.
int no_passphrase(char*, int, int, void* asked) {
  if (asked) *static_cast<bool*>(asked) = true;
  return -1;
}

bool read_certificates(const std::string& file, Pem& pem, std::string& why) {
  Content content;
  if (!read_file("certificate", file, content, why)) return false;
  ERR_clear_error();
  const auto in = content.open();
  pem.certificate.reset(in ? PEM_read_bio_X509_AUX(in.get(), nullptr, no_passphrase, nullptr) : nullptr);
  pem.chain.reset(sk_X509_new_null());
  if (!pem.certificate || !pem.chain) {
    const Errors errors;
    why = errors.has(ERR_LIB_PEM, PEM_R_NO_START_LINE) ? file + " holds no certificate in PEM form, as in -----BEGIN CERTIFICATE-----"
                                                       : "the certificate in " + file + " is damaged: " + errors.reason();
    return false;
  }
  while (X509* next = PEM_read_bio_X509(in.get(), nullptr, no_passphrase, nullptr)) {
    if (sk_X509_push(pem.chain.get(), next) <= 0) {
      X509_free(next);
      break;
    }
  }
  const Errors errors;  // the end of the file is one
  if (errors.has(ERR_LIB_PEM, PEM_R_NO_START_LINE)) return true;
  why = "certificate number " + std::to_string(sk_X509_num(pem.chain.get()) + 2) + " in " + file + " is damaged: " + errors.reason();
  return false;
}

bool read_key(const std::string& file, Pem& pem, std::string& why, std::vector<std::string>& warnings) {
  Content content;
  if (!read_file("private key", file, content, why)) return false;
  ERR_clear_error();
  bool asked = false;
  const auto in = content.open();
  pem.key.reset(in ? PEM_read_bio_PrivateKey(in.get(), nullptr, no_passphrase, &asked) : nullptr);
  const Errors errors;
  if (!pem.key) {
    if (asked) {
      why = "the private key " + file + " is protected by a passphrase, which nobody could type in: openssl pkey -in OLD -out NEW takes it off";
    } else {
      why = "the private key " + file + " cannot be used (" + errors.reason() + "): it takes PEM, as in -----BEGIN PRIVATE KEY-----";
    }
    return false;
  }
  // A group may: that is how a service of its own user gets to a key of root's.
  if (content.mode & (S_IROTH | S_IWOTH)) warnings.push_back("every user of this machine may read the private key " + file + ": chmod o-rwx takes that away");
  return true;
}

}  // namespace

Errors::Errors() {
  while (const unsigned long code = ERR_get_error()) codes_.push_back(code);
}
bool Errors::has(int library, int reason) const {
  return std::any_of(codes_.begin(), codes_.end(), [&](unsigned long c) { return ERR_GET_LIB(c) == library && ERR_GET_REASON(c) == reason; });
}
std::string Errors::reason() const {
  const char* text = codes_.empty() ? nullptr : ERR_reason_error_string(codes_.front());
  return text ? text : "for a reason that OpenSSL does not name";
}

bool read_pem(const CertificateFiles& files, Pem& pem, std::string& why, std::vector<std::string>& warnings) {
  if (!read_certificates(files.certificate, pem, why) || !read_key(files.private_key, pem, why, warnings)) return false;
  if (X509_check_private_key(pem.certificate.get(), pem.key.get()) == 1) return true;
  const Errors errors;
  why = "the private key " + files.private_key + " does not belong to the certificate " + files.certificate +
        ", whose file has to begin with the server's own certificate, before those of CAs";
  return false;
}

bool use(SSL_CTX* context, const CertificateFiles& files, const Pem& pem, std::string& why) {
  ERR_clear_error();
  if (SSL_CTX_use_cert_and_key(context, pem.certificate.get(), pem.key.get(), pem.chain.get(), 1) == 1) return true;
  const Errors errors;
  const bool weak = errors.has(ERR_LIB_SSL, SSL_R_EE_KEY_TOO_SMALL) || errors.has(ERR_LIB_SSL, SSL_R_CA_KEY_TOO_SMALL) ||
                    errors.has(ERR_LIB_SSL, SSL_R_CA_MD_TOO_WEAK);
  why = weak ? "the certificate in " + files.certificate + " is too weak (" + errors.reason() + "): it takes RSA of 2048 bits or an EC key, and SHA-256"
             : "the certificate in " + files.certificate + " cannot be used for TLS: " + errors.reason();
  return false;
}

}  // namespace radiotower::tls
