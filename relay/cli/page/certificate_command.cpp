// `radiotower certificate`: a certificate that phones take, by the operator's own CA, and what to do with it.
#include <fcntl.h>
#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <memory>

#include "../commands.h"
#include "../credentials.h"
#include "certificate.h"
#include "text.h"
#include "radiotower/base/calendar.h"

namespace radiotower::cli {

namespace {

using namespace certificate;
using page::refuse;

constexpr const char* command_name = "certificate";

struct Options {
  std::string ca, ca_key, password_file, make_ca, out = ".";
  std::vector<std::string> names, addresses, only_for;
  int days = default_days;
  bool rsa = false, force = false, no_passphrase = false;
};

/// What went wrong is in the files, not on the command line.
int failure(const std::string& why) {
  fmt::print(stderr, "radiotower {}: {}\n", command_name, why);
  return 1;
}

struct Output {
  std::string path, text;
  mode_t mode;
};

std::optional<std::string> read_file(const std::string& path, std::string& why) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  std::string text;
  char block[4096];
  ssize_t n = fd < 0 ? -1 : 1;
  while (n > 0 && text.size() < (1 << 20) && (n = read(fd, block, sizeof block)) > 0) text.append(block, static_cast<std::size_t>(n));
  if (n < 0) why = fmt::format("{}: {}", path, std::strerror(errno));
  if (fd >= 0) close(fd);
  OPENSSL_cleanse(block, sizeof block);
  return n < 0 ? std::nullopt : std::optional(text);
}

/// Whole or not at all: written under another name first. Without `force` it takes no other file's place, not even one that came this moment.
bool write_file(const Output& output, bool force, std::string& why) {
  const std::string draft = fmt::format("{}.{}.new", output.path, getpid());
  const int fd = open(draft.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, output.mode);
  const auto failed = [&] {
    why = errno == EEXIST ? fmt::format("{} is there already: --force writes a new one in its place", output.path)
                          : fmt::format("{}: {}", output.path, std::strerror(errno));
    if (fd >= 0) unlink(draft.c_str());
    return false;
  };
  if (fd < 0) return failed();
  std::string_view rest = output.text;
  bool good = fchmod(fd, output.mode) == 0;
  while (good && !rest.empty()) {
    const ssize_t n = write(fd, rest.data(), rest.size());
    if (n < 0 && errno == EINTR) continue;
    good = n > 0;
    if (good) rest.remove_prefix(static_cast<std::size_t>(n));
  }
  good = good && fsync(fd) == 0;
  if (close(fd) != 0 || !good) return failed();
  if (renameat2(AT_FDCWD, draft.c_str(), AT_FDCWD, output.path.c_str(), force ? 0 : RENAME_NOREPLACE) == 0) return true;
  if (force || errno != EINVAL) return failed();
  // A file system that cannot rename without replacing: a second name for the file, and then not the first.
  if (link(draft.c_str(), output.path.c_str()) != 0) return failed();
  unlink(draft.c_str());
  return true;
}

/// The passphrase of the CA's key: from its file, or from the terminal.
std::optional<std::string> passphrase(const Options& o, bool fresh, std::string& why) {
  std::string warning;
  if (!o.password_file.empty()) {
    auto read = read_password(o.password_file, why, warning);
    if (!warning.empty()) warn(warning);
    if (!read) why = "--ca-key-password-file: " + why;
    return read;
  }
  char typed[256] = {};
  const char* const prompt = fresh ? "passphrase for the CA's new key: " : "passphrase of the CA's key: ";
  const int done = EVP_read_pw_string_min(typed, fresh ? 4 : 0, sizeof typed - 1, prompt, fresh ? 1 : 0);
  std::optional<std::string> out;
  if (done == 0) out = std::string(typed);
  else why = "no passphrase: there is no terminal to ask at, or the two differ. --ca-key-password-file FILE takes it from a file";
  OPENSSL_cleanse(typed, sizeof typed);
  return out;
}

bool read_only_for(const std::vector<std::string>& words, OnlyFor& out, std::string& why) {
  for (const auto& word : words) {
    std::string no_range;
    if (const auto range = net::AddressRange::parse(word, no_range)) {
      if (!range->prefix_length()) return why = fmt::format("--only-for {}: a network is written like 192.168.0.0/24", word), false;
      out.networks.push_back(*range);
    } else if (word.find('/') != std::string::npos) {
      return why = fmt::format("--only-for {}: {}", word, no_range), false;
    } else if (!name_is_sound(word, why) || word.starts_with("*.")) {
      return why = fmt::format("--only-for {}: a DNS name without *, which stands for all below it, or a network like 192.168.0.0/24", word), false;
    } else {
      out.dns.push_back(word);
    }
  }
  return true;
}

bool read_names(const Options& o, Names& out, std::string& why) {
  for (const auto& name : o.names) {
    if (!name_is_sound(name, why)) return why = "--name: " + why, false;
    out.dns.push_back(name);
  }
  for (const auto& text : o.addresses) {
    const auto address = net::IpAddress::parse(text);
    if (!address) return why = fmt::format("--address: \"{}\" is no IP address, like 192.168.0.105", text), false;
    out.addresses.push_back(*address);
  }
  return true;
}

std::optional<Authority> authority_of(const Options& o, const OnlyFor& only_for, UnixSeconds now, std::vector<Output>& outputs, std::string& why) {
  if (!o.make_ca.empty()) {
    const auto password = o.no_passphrase ? std::optional<std::string>("") : passphrase(o, true, why);
    if (!password) return std::nullopt;
    auto made = make_authority(o.make_ca, o.rsa ? KeyType::rsa : KeyType::ec, ca_days, only_for, now, why);
    if (!made) return std::nullopt;
    outputs.push_back({o.out + "/ca-key.pem", to_pem(made->key.get(), *password), 0600});
    outputs.push_back({o.out + "/ca.pem", to_pem(made->certificate.get()), 0644});
    if (outputs[0].text.empty() || outputs[1].text.empty()) return refuse(why, "OpenSSL does not write the CA's key");
    return made;
  }
  const auto certificates = read_file(o.ca, why);
  const auto key = certificates ? read_file(o.ca_key, why) : std::nullopt;
  if (!key) return std::nullopt;
  const auto password = is_encrypted(*key) ? passphrase(o, false, why) : std::optional<std::string>("");
  if (!password) return std::nullopt;
  return read_authority(*certificates, *key, *password, now, why);
}

void explain_use(const Options& o, const Names& names) {
  const std::string host = names.addresses.empty() ? names.dns.front() : names.addresses.front().text();
  const std::string url_host = host.find(':') == std::string::npos ? host : "[" + host + "]";
  const std::string ca = o.make_ca.empty() ? o.ca : o.out + "/ca.pem";
  fmt::print(R"(
The relay (relay.toml), then systemctl reload radiotower-relay:
  install -m 0640 -g radiotower {0}/chain.pem {0}/key.pem /etc/radiotower/
  [listen]
  certificate = "chain.pem"
  private_key = "key.pem"
The notifier (notifier.toml), which runs as another user and takes copies of its own, then systemctl restart radiotower-notifier:
  install -m 0640 -g radiotower-notifier -D -t /etc/radiotower/notifier-tls {0}/chain.pem {0}/key.pem
  [tls]
  certificate = "/etc/radiotower/notifier-tls/chain.pem"
  private_key = "/etc/radiotower/notifier-tls/key.pem"
Mattermost behind nginx:
  ssl_certificate     /etc/nginx/chain.pem;
  ssl_certificate_key /etc/nginx/key.pem;

See it as a phone does:
  radiotower page --server {1} --secret-file /etc/radiotower/secrets --transport udp,tcp,tls --ca {2}
)", o.out, url_host, ca);
}

void explain_ca(const Options& o, X509* ca) {
  fmt::print(R"(
The CA on clients, once ({}; it is no secret, its key is):
  iPhone, iPad  open the file (radiotower page --ca offers it), install the profile in Settings, and then switch it on in
                Settings, General, About, Certificate Trust Settings: without that it counts for nothing
  Android       Settings, Security, Encryption & credentials, Install a certificate, CA certificate. Chrome takes it, other apps may not
  Firefox       Settings, Certificates, View Certificates, Authorities, Import. Firefox never uses turns: with an IP address
  Windows       certutil -addstore Root ca.pem, as administrator
  its SHA-256   {}
)", o.make_ca.empty() ? o.ca : o.out + "/ca.pem", fingerprint_of(ca));
}

int run_certificate(const Options& o) {
  std::string why;
  const UnixSeconds now = std::time(nullptr);
  if (o.make_ca.empty() && (o.ca.empty() || o.ca_key.empty()))
    return usage_error(command_name, "give the CA that issues it, --ca FILE and --ca-key FILE, or make one: --make-ca \"Office CA\"");
  if (!o.make_ca.empty() && (!o.ca.empty() || !o.ca_key.empty()))
    return usage_error(command_name, "--make-ca makes a CA, --ca takes one that is there: one of the two");
  if (o.make_ca.empty() && (!o.only_for.empty() || o.no_passphrase))
    return usage_error(command_name, "--only-for and --no-passphrase are about a new CA: they go with --make-ca");
  Names names;
  OnlyFor only_for;
  if (!read_names(o, names, why) || !read_only_for(o.only_for, only_for, why)) return usage_error(command_name, why);
  const bool wants_certificate = !names.dns.empty() || !names.addresses.empty();
  if (!wants_certificate && o.make_ca.empty())
    return usage_error(command_name, "say what it is for: --address 192.168.0.105, which phones use, and --name if there are DNS names");
  if (wants_certificate && names.addresses.empty()) warn("no --address: phones that reach the relay by its IP address will refuse this certificate");
  for (const auto& address : names.addresses)
    if (address.is_loopback()) warn(fmt::format("--address {}: that is each host's own, and no phone's way to the relay; give the address on the network", address.text()));

  // Before anybody types a passphrase. write_file() looks again.
  if (!o.force)
    for (const char* name : {"ca.pem", "ca-key.pem", "chain.pem", "key.pem"}) {
      const bool is_ca = name[0] == 'c' && name[1] == 'a', wanted = is_ca ? !o.make_ca.empty() : wants_certificate;
      if (wanted && access((o.out + "/" + name).c_str(), F_OK) == 0)
        return failure(is_ca ? fmt::format("{}/{} is there already: to issue a certificate by that CA, --ca {}/ca.pem --ca-key {}/ca-key.pem; --force puts a new CA in its place, which "
                                           "every client has to be given anew; --out DIR writes elsewhere", o.out, name, o.out, o.out)
                             : fmt::format("{}/{} is there already: --force writes a new one in its place, --out DIR writes elsewhere", o.out, name));
    }
  std::vector<Output> outputs;
  const auto authority = authority_of(o, only_for, now, outputs, why);
  if (!authority) return failure(why);
  X509* const ca = authority->certificate.get();
  std::optional<Issued> issued;
  if (wants_certificate) {
    issued = issue(*authority, names, o.rsa ? KeyType::rsa : KeyType::ec, o.days, now, why);
    if (!issued) return failure(why);
    outputs.push_back({o.out + "/key.pem", issued->key_pem, 0600});
    outputs.push_back({o.out + "/chain.pem", issued->chain_pem, 0644});
  }
  if (mkdir(o.out.c_str(), 0755) != 0 && errno != EEXIST) return failure(fmt::format("--out {}: {}", o.out, std::strerror(errno)));
  for (auto& output : outputs) {
    if (!write_file(output, o.force, why)) return failure(why);
    OPENSSL_cleanse(output.text.data(), output.text.size());
  }

  if (!o.make_ca.empty()) {
    fmt::print("CA \"{}\", until {}:\n  {}/ca.pem      for all clients\n  {}/ca-key.pem  stays here: whoever has it can be any server for them{}\n",
               subject_of(ca), utc_day(expiry_of(ca)), o.out, o.out, o.no_passphrase ? ". It has no passphrase" : "");
    if (o.only_for.empty()) fmt::print("  (--only-for 192.168.0.0/24,lan limits what it can vouch for, should its key ever be stolen)\n");
  }
  if (issued) {
    std::string for_whom;
    for (const auto& address : names.addresses) for_whom += (for_whom.empty() ? "" : ", ") + address.text();
    for (const auto& name : names.dns) for_whom += (for_whom.empty() ? "" : ", ") + name;
    fmt::print("certificate for {}, by \"{}\", until {}:\n  {}/chain.pem\n  {}/key.pem      mode 0600\n", for_whom, subject_of(ca),
               utc_day(issued->expires), o.out, o.out);
    explain_use(o, names);
  } else {
    fmt::print("next: radiotower certificate --ca {0}/ca.pem --ca-key {0}/ca-key.pem --address ADDRESS\n", o.out);
  }
  explain_ca(o, ca);
  return 0;
}

}  // namespace

void add_certificate_command(CLI::App& app, Run& run) {
  auto* command = app.add_subcommand("certificate", "issue a certificate that phones take, by your own CA");
  auto o = std::make_shared<Options>();
  command->add_option("--address", o->addresses, "an IP address that clients use, as it is")->type_name("ADDRESS")->delimiter(',');
  command->add_option("--name", o->names, "a DNS name that clients use")->type_name("NAME")->delimiter(',');
  command->add_option("--ca", o->ca, "the CA's certificate, and behind it those above it")->type_name("FILE");
  command->add_option("--ca-key", o->ca_key, "its key")->type_name("FILE");
  command->add_option("--ca-key-password-file", o->password_file, "the passphrase of the CA's key, - for standard input; default: asks")->type_name("FILE");
  command->add_option("--make-ca", o->make_ca, "make a CA of this name first, for ten years: ca.pem and ca-key.pem")->type_name("NAME");
  command->add_option("--only-for", o->only_for, "the new CA may vouch for these networks and for names below these alone, with commas")
      ->type_name("LIST")->delimiter(',');
  command->add_flag("--no-passphrase", o->no_passphrase, "the new CA's key is not encrypted");
  command->add_option("--days", o->days, "how long the certificate is good for; iPhones refuse more than 825")
      ->type_name("DAYS")->capture_default_str()->check(CLI::Range(1, most_days));
  command->add_option("--out", o->out, "the directory that files are written to: chain.pem and key.pem")->type_name("DIR")->capture_default_str();
  command->add_flag("--rsa", o->rsa, "RSA keys, for clients that know no P-256");
  command->add_flag("--force", o->force, "write over files that are there");
  command->footer("Examples:\n"
                  "  radiotower certificate --make-ca \"Office CA\" --only-for 192.168.0.0/24,lan --address 192.168.0.105 --name tower.lan\n"
                  "  radiotower certificate --ca ca.pem --ca-key ca-key.pem --address 192.168.0.105 --out /root/new");
  command->callback([o, &run] { run = [o] { return run_certificate(*o); }; });
}

}  // namespace radiotower::cli
