#include "control_socket.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <deque>
#include <list>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "clock.h"
#include "control_commands.h"
#include "socket_file.h"

namespace radiotower::daemon {

namespace {

using namespace std::chrono_literals;

struct Client {
  int descriptor = -1;
  Asker asker;
  std::string in, out;
  std::size_t sent = 0;  // of `out`
  std::optional<SessionLines> sessions;
  std::optional<EventFilter> events;
  Json events_id = nullptr;
  std::uint64_t lost = 0;  // events, since he was told last
  bool ended = false;      // he will ask no more than what is there already
  bool over = false;       // we have said our last: what waits for him goes out, then it is closed
  bool closed = false;
  Time asked_at{};         // the last request, or the beginning
  Time taken_at{};         // when something of `out` was taken last, or nothing waited

  std::size_t waiting() const { return out.size() - sent; }
  /// Nothing is asked of him while an answer is under way.
  bool may_ask() const { return !over && !sessions && waiting() == 0; }
  /// A whole request waits already, of the helping before.
  bool has_asked() const { return !closed && !events && may_ask() && in.find('\n') != std::string::npos; }
};

class Socket final : public ControlSocket, private EventSink {
 public:
  Socket(Operations& operations, Log& log, ControlBounds bounds) : operations_(operations), commands_(operations, log), bounds_(bounds) {}

  ~Socket() override {
    over_ = true;
    ring();
    if (thread_.joinable()) thread_.join();
    if (listens_) operations_.remove_sink(*this);
    for (const Client& client : clients_)
      if (!client.closed) ::close(client.descriptor);
    if (bell_ >= 0) ::close(bell_);
  }

  bool start(const std::string& path, std::string& why) {
    bell_ = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (bell_ < 0) {
      why = std::strerror(errno);
      return false;
    }
    if (!file_.open(path, why)) return false;
    thread_ = std::thread([this] { run(); });
    return true;
  }

 private:
  void ring() {
    const std::uint64_t one = 1;
    [[maybe_unused]] const ssize_t n = ::write(bell_, &one, sizeof one);
  }

  /// On a worker's thread: a copy under a short lock.
  void on_event(unsigned worker, const turn::Event& event) override {
    timespec now{};
    ::clock_gettime(CLOCK_REALTIME, &now);
    const std::int64_t at = std::int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1'000'000;
    bool was_empty = false;
    {
      const std::lock_guard lock(mutex_);
      if (told_.size() >= bounds_.events) {
        ++lost_;
        return;
      }
      was_empty = told_.empty();
      told_.push_back({worker, at, event});
    }
    if (was_empty) ring();
  }

  void run() {
    std::vector<pollfd> wait;
    while (!over_) {
      const Time now = steady_now();
      wait.clear();
      wait.push_back({bell_, POLLIN, 0});
      wait.push_back({file_.descriptor(), static_cast<short>(now < rest_until_ ? 0 : POLLIN), 0});
      for (const Client& client : clients_)
        wait.push_back({client.descriptor, static_cast<short>((!client.ended && (client.may_ask() || client.events) ? POLLIN : 0) | (client.waiting() != 0 ? POLLOUT : 0)), 0});
      const bool asked = std::any_of(clients_.begin(), clients_.end(), [](const Client& client) { return client.has_asked(); });
      ::poll(wait.data(), wait.size(), asked ? 0 : clients_.empty() && now >= rest_until_ ? -1 : 500);
      if (over_) break;
      std::uint64_t count = 0;
      if (wait[0].revents) [[maybe_unused]] const ssize_t n = ::read(bell_, &count, sizeof count);
      std::size_t i = 2;
      for (Client& client : clients_) {
        const short events = wait[i++].revents;
        if (events & (POLLIN | POLLHUP | POLLERR)) read(client);
        if (!client.closed && (events & POLLOUT)) flush(client);
      }
      if (wait[1].revents) accept();
      tell();
      for (Client& client : clients_)
        if (!client.closed) check_time(client, steady_now());
      clients_.remove_if([](const Client& client) { return client.closed; });
      listen_if_anybody_does();
    }
    tell();  // the workers have ended before: their last events
  }

  void accept() {
    for (std::size_t i = 0; i < bounds_.clients; ++i) {
      const int descriptor = ::accept4(file_.descriptor(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
      if (descriptor < 0) {
        if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR) rest_until_ = steady_now() + 500ms;  // out of descriptors
        return;
      }
      if (clients_.size() >= bounds_.clients) {
        const std::string line = error_line(fmt::format("{} clients are connected already, and there may be no more; end one of them", bounds_.clients)) + "\n";
        [[maybe_unused]] const ssize_t n = ::send(descriptor, line.data(), line.size(), MSG_NOSIGNAL);
        ::close(descriptor);
        continue;
      }
      Client client;
      client.descriptor = descriptor;
      ucred who{};
      socklen_t size = sizeof who;
      if (::getsockopt(descriptor, SOL_SOCKET, SO_PEERCRED, &who, &size) == 0) client.asker = {who.uid, who.gid, who.pid};
      client.asked_at = client.taken_at = steady_now();
      clients_.push_back(std::move(client));
    }
  }

  void close(Client& client) {
    ::close(client.descriptor);
    client.closed = true;
  }

  void say(Client& client, std::string_view line) {
    if (client.waiting() == 0) client.taken_at = steady_now();
    client.out.append(line).append(1, '\n');
  }

  /// One helping a turn: who never stops talking keeps neither the others waiting nor the end of the relay.
  void read(Client& client) {
    char bytes[16 * 1024];
    ssize_t n = -1;
    do n = ::recv(client.descriptor, bytes, sizeof bytes, 0);
    while (n < 0 && errno == EINTR);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) return end_of(client, n == 0);
    if (client.events || client.over) return;  // what a listener says is not heard
    client.in.append(bytes, static_cast<std::size_t>(n));
    obey(client);
  }

  /// He will ask no more. Who has closed his writing side alone still gets his answers (`echo ... | socat`), a listener his events no more.
  void end_of(Client& client, bool in_order) {
    if (!in_order || client.events) return close(client);
    client.ended = true;
    if (client.may_ask()) flush(client);
  }

  /// The first request that has come whole; the next one is of the next turn.
  void obey(Client& client) {
    if (over_ || client.closed || client.events || !client.may_ask()) return;
    std::size_t from = 0, end = client.in.find('\n');
    while (end != std::string::npos && client.in.find_first_not_of(" \t\r", from) == end) end = client.in.find('\n', from = end + 1);
    client.in.erase(0, from);
    if (end != std::string::npos) end -= from;
    if (end == std::string::npos || end >= bounds_.line) {
      if (client.in.size() >= bounds_.line) refuse(client, fmt::format("a request is longer than {} bytes", bounds_.line));
      else if (client.ended) flush(client);
      return;
    }
    const std::string line = client.in.substr(0, end);
    client.in.erase(0, end + 1);
    client.asked_at = steady_now();
    Answer answer = commands_.carry_out(line, client.asker);
    if (!answer.line.empty()) say(client, answer.line);
    client.sessions = std::move(answer.sessions);
    if (answer.events) {
      client.events = std::move(answer.events);
      client.events_id = std::move(answer.request_id);
      client.in.clear();
      listen_if_anybody_does();  // before he hears that he listens, so that nothing of what he does then is missed
    }
    flush(client);
  }

  void refuse(Client& client, const std::string& sentence) {
    client.in.clear();
    client.sessions.reset();
    say(client, error_line(sentence));
    client.over = true;
    flush(client);
  }

  void flush(Client& client) {
    while (true) {
      while (client.sessions && client.waiting() < bounds_.output / 2) {
        const auto line = client.sessions->next();
        if (line) say(client, *line);
        else client.sessions.reset();
      }
      if (client.waiting() == 0) break;
      const ssize_t n = ::send(client.descriptor, client.out.data() + client.sent, client.waiting(), MSG_NOSIGNAL);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0 && errno == EAGAIN) return;
      if (n < 0) return close(client);
      client.sent += static_cast<std::size_t>(n);
      client.taken_at = steady_now();
      if (client.sent == client.out.size() || client.sent > bounds_.output) {
        client.out.erase(0, client.sent);
        client.sent = 0;
      }
    }
    if (client.over || (client.ended && client.in.find('\n') == std::string::npos)) close(client);
  }

  /// Carries what workers have told to those who listen.
  void tell() {
    std::deque<ToldEvent> told;
    std::uint64_t lost = 0;
    {
      const std::lock_guard lock(mutex_);
      told.swap(told_);
      lost = std::exchange(lost_, 0);
    }
    for (Client& client : clients_) {
      if (client.closed) continue;
      if (client.events) {
        client.lost += lost;
        for (const ToldEvent& one : told) {
          if (!client.events->shows(one.event)) continue;
          if (client.waiting() >= bounds_.output) {
            ++client.lost;
            continue;
          }
          tell_loss(client);
          say(client, event_line(one, client.events_id));
        }
        if (client.waiting() < bounds_.output / 2) tell_loss(client);
        if (client.waiting() != 0) flush(client);
      } else if (client.may_ask()) {
        obey(client);  // what came while an answer was under way
      }
    }
  }

  void tell_loss(Client& client) {
    if (client.lost == 0) return;
    Json json = Json::object();
    if (!client.events_id.is_null()) json["id"] = client.events_id;
    json["event"] = "lost";
    json["count"] = std::exchange(client.lost, 0);
    say(client, json.dump());
  }

  void check_time(Client& client, Time now) {
    if (client.waiting() != 0) {
      if (now - client.taken_at >= (client.events ? bounds_.stalled_events : bounds_.stalled)) close(client);
    } else if (!client.events && !client.sessions && now - std::max(client.asked_at, client.taken_at) >= bounds_.idle) {
      refuse(client, fmt::format("nothing was asked for {} seconds", bounds_.idle.count() / 1000));
    }
  }

  /// Workers tell events only while somebody listens.
  void listen_if_anybody_does() {
    const bool anybody = std::any_of(clients_.begin(), clients_.end(), [](const Client& client) { return client.events && !client.closed; });
    if (anybody == listens_) return;
    listens_ = anybody;
    if (anybody) return operations_.add_sink(*this);
    operations_.remove_sink(*this);
    const std::lock_guard lock(mutex_);
    told_.clear();
    lost_ = 0;
  }

  Operations& operations_;
  ControlCommands commands_;
  const ControlBounds bounds_;
  SocketFile file_;
  int bell_ = -1;
  std::list<Client> clients_;  // of the thread, as all that follows
  bool listens_ = false;
  Time rest_until_{};
  std::atomic<bool> over_{false};
  std::mutex mutex_;
  std::deque<ToldEvent> told_;  // under mutex_
  std::uint64_t lost_ = 0;      // under mutex_
  std::thread thread_;
};

}  // namespace

std::unique_ptr<ControlSocket> ControlSocket::start(const OperatorSettings& settings, Operations& operations, Log& log, std::string& why, ControlBounds bounds) {
  auto socket = std::make_unique<Socket>(operations, log, bounds);
  if (!socket->start(settings.control_socket, why)) return nullptr;
  return socket;
}

}  // namespace radiotower::daemon
