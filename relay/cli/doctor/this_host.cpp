// The host that this program runs on.
#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <liburing.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <pwd.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/timex.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <ctime>

#include "../client.h"
#include "../control/control_link.h"
#include "../wait.h"
#include "host.h"

namespace radiotower::cli {

namespace {

constexpr std::size_t longest_file = 4 << 20, longest_output = 32 << 20;
constexpr std::chrono::seconds command_patience{10};
constexpr std::chrono::milliseconds answer_patience{1500};

std::optional<unsigned> unsigned_of(std::string_view text) {
  unsigned number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

class ThisHost final : public Host {
 public:
  std::optional<FileStatus> status(const std::string& path, int& error) const override {
    struct stat found {};
    if (::stat(path.c_str(), &found) != 0) {
      error = errno;
      return std::nullopt;
    }
    return FileStatus{static_cast<unsigned>(found.st_mode & 07777), found.st_uid, found.st_gid, S_ISDIR(found.st_mode), found.st_mtim.tv_sec};
  }

  std::optional<std::string> resolve(const std::string& path, int& error) const override {
    const std::unique_ptr<char, decltype(&std::free)> real(::realpath(path.c_str(), nullptr), &std::free);
    if (real) return std::string(real.get());
    error = errno;
    return std::nullopt;
  }

  std::optional<std::string> read(const std::string& path, int& error) const override {
    const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
    std::string text;
    std::array<char, 16384> buffer;
    for (ssize_t got = file.number() < 0 ? -1 : 1; got != 0;) {
      if (got > 0) got = ::read(file.number(), buffer.data(), buffer.size());
      if (got < 0 && errno == EINTR && file.number() >= 0) {
        got = 1;
        continue;
      }
      if (got < 0) {
        error = errno;
        return std::nullopt;
      }
      text.append(buffer.data(), static_cast<std::size_t>(got));
      if (text.size() > longest_file) break;
    }
    return text;
  }

  std::vector<std::string> list(const std::string& folder) const override {
    std::vector<std::string> names;
    struct Close {
      void operator()(DIR* folder) const { ::closedir(folder); }
    };
    const std::unique_ptr<DIR, Close> open(::opendir(folder.c_str()));
    while (const dirent* entry = open ? ::readdir(open.get()) : nullptr)
      if (entry->d_name[0] != '.') names.emplace_back(entry->d_name);
    return names;
  }

  std::string link(const std::string& path) const override {
    std::array<char, PATH_MAX> target;
    const ssize_t length = ::readlink(path.c_str(), target.data(), target.size());
    return length < 0 ? std::string() : std::string(target.data(), static_cast<std::size_t>(length));
  }

  std::optional<HostUser> user(const std::string& text) const override {
    const std::size_t colon = text.find(':');
    const auto uid = unsigned_of(std::string_view(text).substr(0, colon));
    const passwd* found = uid ? ::getpwuid(*uid) : ::getpwnam(text.c_str());
    if (!found && !uid) return std::nullopt;
    HostUser user{found ? found->pw_name : "uid " + text.substr(0, colon), uid ? *uid : found->pw_uid, {}};
    if (colon != std::string::npos) {
      const auto gid = unsigned_of(std::string_view(text).substr(colon + 1));
      if (!gid) return std::nullopt;
      user.groups = {*gid};
      return user;
    }
    if (!found) return user;
    int count = 256;
    std::vector<gid_t> groups(static_cast<std::size_t>(count));
    if (::getgrouplist(found->pw_name, found->pw_gid, groups.data(), &count) < 0) count = 256;
    user.groups.assign(groups.begin(), groups.begin() + count);
    return user;
  }

  unsigned own_uid() const override { return ::geteuid(); }

  std::uint64_t own_descriptor_limit() const override {
    rlimit limit{};
    return ::getrlimit(RLIMIT_NOFILE, &limit) == 0 ? limit.rlim_max : 1024;
  }

  std::optional<CommandResult> run(const std::vector<std::string>& command) const override {
    std::string program;
    for (const char* folder : {"/usr/sbin/", "/usr/bin/", "/sbin/", "/bin/", "/usr/local/sbin/", "/usr/local/bin/"}) {
      program = folder + command.front();
      if (::access(program.c_str(), X_OK) == 0) break;
      program.clear();
    }
    int ends[2];
    if (program.empty() || ::pipe2(ends, O_CLOEXEC) != 0) return std::nullopt;
    const Fd out(ends[0]);
    Fd in(ends[1]);
    std::vector<char*> words;
    for (const auto& word : command) words.push_back(const_cast<char*>(word.c_str()));
    words.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, in.number(), 1);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
    std::string language = "LC_ALL=C", path = "PATH=/usr/sbin:/usr/bin:/sbin:/bin";
    std::array<char*, 3> environment{language.data(), path.data(), nullptr};
    pid_t child = 0;
    const int failed = ::posix_spawn(&child, program.c_str(), &actions, nullptr, words.data(), environment.data());
    posix_spawn_file_actions_destroy(&actions);
    if (failed != 0) return std::nullopt;
    in = Fd();
    CommandResult result;
    const auto deadline = Clock::now() + command_patience;
    bool ended = false;
    std::array<char, 16384> buffer;
    while (!ended && result.output.size() < longest_output && wait_for(out.number(), POLLIN, deadline)) {
      const ssize_t got = ::read(out.number(), buffer.data(), buffer.size());
      if (got < 0 && errno == EINTR) continue;
      ended = got <= 0;
      if (got > 0) result.output.append(buffer.data(), static_cast<std::size_t>(got));
    }
    if (!ended) ::kill(child, SIGKILL);
    int status = 0;
    while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    result.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128;
    if (!ended) return std::nullopt;
    return result;
  }

  std::vector<io::HostAddress> addresses() const override { return io::host_addresses(); }

  ClockState clock() const override {
    timex state{};
    const int result = ::adjtimex(&state);  // nothing is set: modes is 0
    ClockState clock{std::time(nullptr), std::nullopt};
    if (result >= 0) clock.synchronised = result != TIME_ERROR && (state.status & STA_UNSYNC) == 0;
    return clock;
  }

  std::string io_uring_refused() const override {
    io_uring ring{};
    const int result = io_uring_queue_init(8, &ring, 0);
    if (result < 0) return std::strerror(-result);
    io_uring_queue_exit(&ring);
    return {};
  }

  Answer ask(net::Transport transport, const net::TransportAddress& server) const override {
    const bool secure = transport == net::Transport::tls || transport == net::Transport::dtls;
    TlsOptions tls;
    if (secure) tls = {server.ip.text(), "", true, "stun.turn"};
    LinkFailure failure;
    auto link = open_link(transport, server, tls, answer_patience, failure);
    if (!link) return failure.what;
    Client client(std::move(link), server, Credential{}, system_random(), {answer_patience, std::chrono::milliseconds(200)});
    Outcome outcome;
    client.binding(outcome);
    // A refusal is an answer: authenticated_binding asks for credentials.
    if (outcome.ok() || outcome.failure == Failure::refused) return {};
    return outcome.detail.empty() ? "no answer to a Binding request" : outcome.detail;
  }

  std::optional<std::int64_t> configured_at(const std::string& control_socket, int process) const override {
    ControlLink link;
    std::string why;
    ucred peer{};
    socklen_t size = sizeof peer;
    if (!link.open(control_socket, why) || ::getsockopt(link.descriptor(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0 || peer.pid != process) return std::nullopt;
    if (!link.ask({{"command", "stats"}}, why)) return std::nullopt;
    const auto said = link.next(why, std::chrono::seconds(3));
    if (!said) return std::nullopt;
    const auto at = [&](const char* pointer) { return said->value(Json::json_pointer(pointer), std::int64_t{0}); };
    const std::int64_t last = std::max(at("/started_at"), at("/reloads/last_good_at"));
    return last == 0 ? std::nullopt : std::optional(last);
  }

  std::string certificate_shown(const net::TransportAddress& server) const override {
    std::string pem;
    int error = 0;
    const io::Socket socket = io::connect_tcp({server.ip.is_v4() ? net::IpAddress::v4(0U) : net::IpAddress{}, 0, 0}, server, error);
    if (!socket || !wait_for(socket.descriptor(), POLLOUT, Clock::now() + answer_patience)) return pem;
    // From here on the kernel keeps the time: a handshake is a few reads.
    const timeval patience{1, 500'000};
    ::fcntl(socket.descriptor(), F_SETFL, 0);
    ::setsockopt(socket.descriptor(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    SSL_CTX* context = SSL_CTX_new(TLS_client_method());
    SSL* ssl = context ? SSL_new(context) : nullptr;
    if (ssl && SSL_set_fd(ssl, socket.descriptor()) == 1 && SSL_connect(ssl) == 1) {
      X509* certificate = SSL_get1_peer_certificate(ssl);
      BIO* out = BIO_new(BIO_s_mem());
      char* text = nullptr;
      if (certificate && out && PEM_write_bio_X509(out, certificate) == 1) {
        const long size = BIO_get_mem_data(out, &text);
        pem.assign(text, static_cast<std::size_t>(size));
      }
      BIO_free(out);
      X509_free(certificate);
    }
    SSL_free(ssl);
    SSL_CTX_free(context);
    ERR_clear_error();
    return pem;
  }
};

}  // namespace

std::string Host::text(const std::string& path) const {
  int error = 0;
  std::string found = read(path, error).value_or("");
  const auto blank = [](char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; };
  while (!found.empty() && blank(found.back())) found.pop_back();
  while (!found.empty() && blank(found.front())) found.erase(found.begin());
  return found;
}

std::optional<std::int64_t> Host::number(const std::string& path) const {
  const std::string found = text(path);
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(found.data(), found.data() + found.size(), value);
  if (found.empty() || error != std::errc()) return std::nullopt;
  return value;
}

std::unique_ptr<Host> this_host() { return std::make_unique<ThisHost>(); }

}  // namespace radiotower::cli
