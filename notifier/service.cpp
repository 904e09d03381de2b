#include "notifier/service.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <mutex>

#include "notifier/clock.h"
#include "notifier/config.h"
#include "notifier/delivery.h"
#include "notifier/http_server.h"
#include "notifier/intake.h"
#include "notifier/web.h"
#include "radiotower/base/random.h"
#include "radiotower/service/configuration.h"
#include "radiotower/service/notify.h"

namespace radiotower::notifier {

namespace {

using std::chrono::milliseconds;

sigset_t signals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&set, signal);
  return set;
}

/// One process a state directory: who holds this may take what a predecessor left behind.
class StateLock {
 public:
  explicit StateLock(const std::string& state) {
    std::error_code error;
    std::filesystem::create_directory(state, error);
    if (!error) chmod(state.c_str(), 0700);
    const std::string path = state + "/lock";
    descriptor_ = open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    if (descriptor_ < 0)
      throw std::runtime_error(
          fmt::format("{} cannot be written: {} (state = \"...\" names a directory of the service's user)", path,
                      std::strerror(errno)));
    if (flock(descriptor_, LOCK_EX | LOCK_NB) != 0)
      throw std::runtime_error(fmt::format("another radiotower-notifier runs with the state in {}", state));
  }
  ~StateLock() {
    if (descriptor_ >= 0) close(descriptor_);
  }
  StateLock(const StateLock&) = delete;
  StateLock& operator=(const StateLock&) = delete;

 private:
  int descriptor_ = -1;
};

/// The first line of a small file; empty: there is none.
std::string first_line_of(const std::string& path) {
  std::string why;
  const auto file = read_file(path, 4096, why);
  return file ? file->text.substr(0, file->text.find('\n')) : std::string();
}

/// Whose lanes these are: made once for a state directory, so that who is started again after a crash takes back its own at once, and not when
/// the lease is over. The lock makes sure that there is one of us; the host's name and machine-id, that a copy on another host is another one.
std::string identity(const std::string& state, const RandomSource& random) {
  char host[256] = "";
  gethostname(host, sizeof host - 1);
  const std::string path = state + "/identity", here = fmt::format(" {} {}", host, first_line_of("/etc/machine-id"));
  if (const std::string kept = first_line_of(path); kept.size() > 32 && kept.substr(32) == here) return kept.substr(0, 32);
  std::uint8_t bytes[16];
  random({bytes, sizeof bytes});
  std::string made;
  for (const std::uint8_t byte : bytes) made += fmt::format("{:02x}", byte);
  const std::string text = made + here + "\n";
  const int file = open((path + ".new").c_str(), O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0600);
  const bool written = file >= 0 && write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  if (file >= 0) close(file);
  // On a full disk we are somebody new at each start, and the leases of who we were run out.
  if (written) rename((path + ".new").c_str(), path.c_str());
  return made;
}

/// What /metrics says of the queue: read by the main thread every few seconds, so that no scrape waits for the
/// database.
struct Gauges {
  std::mutex mutex;
  Depth depth;
  std::vector<std::pair<std::string, std::int64_t>> counters;
};

class Running {
 public:
  Running(std::shared_ptr<const Settings> settings, std::string config_path, Log& log)
      : settings_(std::move(settings)),
        config_path_(std::move(config_path)),
        log_(log),
        random_(system_random()),
        owner_(identity(settings_->state, random_)),
        watcher_(open_queue()),
        intake_(open_queue(), settings_, log, [this] { delivery_->wake(); }, hash_key()),
        web_(
            settings_, intake_, log, [this] { return metrics(); }, [this] { return trouble(); }, hash_key()) {
    if (settings_->queue == "sqlite") watcher_->take_over(unix_now());
    delivery_ = std::make_unique<Delivery>(open_queue(), settings_, log_, system_random());
    HttpServer::Options options;
    options.listen = settings_->listen;
    options.certificate = settings_->certificate;
    options.private_key = settings_->private_key;
    options.on_trouble = [this](std::string_view sentence, std::string_view client) {
      if (client.empty())
        log_.write(Priority::warning, "http", sentence);
      else
        log_.write(Priority::warning, "http", sentence, {{"client", client}});
    };
    server_ = std::make_unique<HttpServer>(
        options, [this](const HttpRequest& head) { return web_.on_head(head); },
        [this](HttpRequest&& request, Responder respond) { web_.on_request(std::move(request), std::move(respond)); });
    if (!settings_->metrics_listen.empty()) {
      HttpServer::Options own;
      own.listen = {settings_->metrics_listen};
      own.connections = 64;
      metrics_server_ = std::make_unique<HttpServer>(
          own, [this](const HttpRequest& head) { return web_.on_metrics_head(head); },
          [this](HttpRequest&& request, Responder respond) {
            web_.on_metrics_request(std::move(request), std::move(respond));
          });
    }
  }

  void run() {
    watch();
    delivery_->start();
    intake_.start();
    server_->start();
    if (metrics_server_) metrics_server_->start();
    log_.write(Priority::notice, "ready", "",
               {{"version", RADIOTOWER_VERSION},
                {"listen", fmt::format("{}", fmt::join(server_->bound(), ","))},
                {"tls", settings_->certificate.empty() ? "no" : "yes"},
                {"queue", settings_->queue == "sqlite" ? "sqlite" : "postgresql"},
                {"waiting", static_cast<std::uint64_t>(gauges_.depth.waiting)},
                {"dead", static_cast<std::uint64_t>(gauges_.depth.dead)}});
    notify::ready(fmt::format("listening on {}", fmt::join(server_->bound(), ", ")));
    loop();
    notify::stopping();
    log_.write(Priority::notice, "stopping", "nothing more is taken; the posts in hand are finished");
    server_->stop();
    intake_.stop();
    // As long as Mattermost may take for a post; TimeoutStopSec of the unit is longer.
    delivery_->stop(std::min(milliseconds(40'000), milliseconds(1000 * settings_->mattermost.timeout_s + 2000)));
    if (metrics_server_) metrics_server_->stop(100);
    watch();
    log_.write(Priority::notice, "stopped", "",
               {{"waiting", static_cast<std::uint64_t>(gauges_.depth.waiting)},
                {"dead", static_cast<std::uint64_t>(gauges_.depth.dead)}});
  }

 private:
  std::unique_ptr<Queue> open_queue() {
    return std::make_unique<Queue>(open_queue_database(settings_->queue, settings_->state), owner_);
  }

  HashKey hash_key() {
    HashKey key;
    random_({reinterpret_cast<std::uint8_t*>(&key), sizeof key});
    return key;
  }

  void loop() {
    const sigset_t set = signals();
    const auto interval = notify::watchdog_interval();
    auto looked = std::chrono::steady_clock::now(), beaten = looked;
    std::uint64_t intake_beat = 0, delivery_beat = 0, server_beat = 0;
    for (;;) {
      const timespec second{1, 0};
      const int signal = sigtimedwait(&set, nullptr, &second);
      if (signal == SIGTERM || signal == SIGINT) return;
      if (signal == SIGHUP) reload();
      const auto now = std::chrono::steady_clock::now();
      if (now - looked >= std::chrono::seconds(3)) {
        watch();
        looked = now;
      }
      // Only while all three threads move on: a stuck one is for systemd to end, and the queue is on disk.
      if (interval && now - beaten >= *interval / 4 && intake_.beats() != intake_beat &&
          delivery_->beats() != delivery_beat && server_->beats() != server_beat) {
        intake_beat = intake_.beats(), delivery_beat = delivery_->beats(), server_beat = server_->beats();
        beaten = now;
        notify::watchdog();
      }
    }
  }

  void reload() {
    notify::reloading();
    auto next = std::make_shared<Settings>();
    ConfigErrors errors;
    std::vector<std::string> notes;
    std::string why;
    if (!read_settings(config_path_, *next, errors, notes)) {
      for (const auto& error : errors) log_.write(Priority::error, "configuration", error.text());
      log_.write(Priority::error, "not reloaded", "the configuration has mistakes, named above; nothing has changed");
    } else {
      for (const auto& note : notes) log_.write(Priority::warning, "configuration", note);
      for (const auto& key : keys_that_need_a_restart(*started_, *next))
        log_.write(Priority::warning, "configuration",
                   fmt::format("{} has changed, which needs a restart; the rest is taken over", key));
      next->metrics_listen = started_->metrics_listen;
      if (!started_->certificate.empty() && !next->certificate.empty()) {
        if (!server_->reload_certificate(next->certificate, next->private_key, why))
          log_.write(Priority::error, "certificate", why + "; the one before stays");
        else if (!why.empty())
          log_.write(Priority::warning, "certificate", why);
      }
      settings_ = next;
      log_.set_level(log_level(*settings_));
      web_.apply(settings_);
      intake_.apply(settings_);
      delivery_->apply(settings_);
      log_.write(Priority::notice, "reloaded", "",
                 {{"sources", settings_->sources.size()}, {"routes", settings_->routes.size()}});
    }
    notify::ready(fmt::format("listening on {}", fmt::join(server_->bound(), ", ")));
  }

  void watch() {
    try {
      const Depth depth = watcher_->depth();
      auto counters = watcher_->counters();
      const std::lock_guard lock(gauges_.mutex);
      gauges_.depth = depth;
      gauges_.counters = std::move(counters);
    } catch (const SqlError&) {  // the intake says it; here the figures are old for a while
      try {
        watcher_->reconnect();
      } catch (const SqlError&) {
      }
    }
  }

  std::optional<std::string> trouble() const { return intake_.trouble(); }

  std::string metrics() {
    Exposition out;
    web_.add_metrics(out);
    const auto line = [&](MetricType type, const char* name, const char* help, auto value) { out.one(std::string("radiotower_notifier_") + name, type, help, value); };
    const DeliveryCounters& d = delivery_->counters();
    const auto read = [](const auto& counter) { return counter.load(std::memory_order_relaxed); };
    line(MetricType::Counter, "posts_total", "Posts that Mattermost took.", read(d.posts));
    line(MetricType::Counter, "digests_total", "Posts that told of several events.", read(d.digests));
    line(MetricType::Counter, "digested_events_total", "Events told in digests.", read(d.digested));
    line(MetricType::Counter, "edits_total", "Posts that were edited (bot).", read(d.edits));
    line(MetricType::Counter, "replies_total", "Replies in threads (bot).", read(d.replies));
    line(MetricType::Counter, "retries_total", "Tries that will be repeated.", read(d.retries));
    line(MetricType::Counter, "rate_limited_total", "Answers 429 of Mattermost.", read(d.rate_limited));
    line(MetricType::Counter, "refused_total", "Answers that no repetition would change (400, 403, 404 ...).", read(d.refused));
    line(MetricType::Counter, "tls_failures_total", "Connections refused for their certificate.", read(d.tls_failures));
    line(MetricType::Counter, "buried_total", "Posts that became dead letters.", read(d.buried));
    line(MetricType::Gauge, "last_success_timestamp_seconds", "When Mattermost last took a post.", read(d.last_success));
    line(MetricType::Gauge, "last_failure_timestamp_seconds", "When it last did not.", read(d.last_failure));
    const HttpCounters& h = server_->counters();
    line(MetricType::Counter, "http_requests_total", "HTTP requests read.", read(h.requests));
    line(MetricType::Counter, "http_bad_requests_total", "What was no HTTP as RFC 9112 writes it, or too large.",
         read(h.bad_requests));
    line(MetricType::Counter, "http_timeouts_total", "Connections closed for their slowness.", read(h.timeouts));
    line(MetricType::Counter, "http_refused_connections_total", "Connections closed or refused in favour of others.", read(h.refused));
    line(MetricType::Counter, "http_tls_failures_total", "TLS handshakes that failed.", read(h.tls_failures));
    line(MetricType::Gauge, "http_open_connections", "Connections open now.", read(h.open));
    const IntakeCounters& i = intake_.counters();
    line(MetricType::Counter, "commits_total", "Transactions that stored events.", read(i.commits));
    const std::lock_guard lock(gauges_.mutex);
    line(MetricType::Gauge, "queue_waiting", "Posts waiting.", gauges_.depth.waiting);
    line(MetricType::Gauge, "queue_sending", "Posts in flight.", gauges_.depth.sending);
    line(MetricType::Gauge, "queue_dead", "Dead letters.", gauges_.depth.dead);
    line(MetricType::Gauge, "queue_oldest_timestamp_seconds", "When the oldest waiting post was made; 0: none waits.",
         gauges_.depth.oldest / 1000);
    out.family("radiotower_notifier_queue_total", MetricType::Counter, "What happened in the queue since it exists; kept across restarts.");
    for (const auto& [name, n] : gauges_.counters) out.sample({{"what", name}}, n);
    line(MetricType::Counter, "log_lines_dropped_total", "Log lines that nobody read.", log_.dropped());
    return out.text();
  }

  std::shared_ptr<const Settings> settings_;
  const std::shared_ptr<const Settings> started_ = settings_;  // what is bound and open for life
  std::string config_path_;
  Log& log_;
  RandomSource random_;
  std::string owner_;
  Gauges gauges_;
  std::unique_ptr<Queue> watcher_;
  std::unique_ptr<Delivery> delivery_;  // before the intake, which wakes it
  Intake intake_;
  Web web_;
  std::unique_ptr<HttpServer> server_, metrics_server_;
};

}  // namespace

void raise_descriptor_limit() {
  // A connection costs one, and the default of a shell is 1,024.
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

void block_signals() {
  const sigset_t set = signals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  signal(SIGPIPE, SIG_IGN);
}

Priority log_level(const Settings& settings) {
  if (settings.log_level == "error") return Priority::error;
  if (settings.log_level == "warning") return Priority::warning;
  if (settings.log_level == "notice") return Priority::notice;
  return settings.log_level == "debug" ? Priority::debug : Priority::info;
}

int serve(std::shared_ptr<const Settings> settings, const std::string& config_path, Log& log) {
  try {
    const StateLock lock(settings->state);
    Running(std::move(settings), config_path, log).run();
    return 0;
  } catch (const std::exception& error) {
    log.write(Priority::error, "not started", error.what());
    return 1;
  }
}

}  // namespace radiotower::notifier
