#include "radiotower/service/log.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <condition_variable>
#include <cstdlib>
#include <ctime>
#include <mutex>
#include <thread>
#include <utility>

namespace radiotower {

namespace {

std::string_view name(Priority priority) {
  switch (priority) {
    case Priority::error: return "error";
    case Priority::warning: return "warning";
    case Priority::notice: return "notice";
    case Priority::info: return "info";
    case Priority::debug: return "debug";
  }
  return "info";
}

void append_time(std::string& out, std::int64_t unix_milliseconds) {
  const std::time_t whole = unix_milliseconds / 1000;
  std::tm t{};
  gmtime_r(&whole, &t);
  fmt::format_to(std::back_inserter(out), "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", t.tm_year + 1900, t.tm_mon + 1, t.tm_mday,
                 t.tm_hour, t.tm_min, t.tm_sec, unix_milliseconds % 1000);
}

/// append_escaped, then what JSON wants of printable ASCII on top of it.
void append_json(std::string& out, std::string_view text, std::size_t limit) {
  std::string printable;
  append_escaped(printable, text, limit);
  out += '"';
  for (const char c : printable) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  out += '"';
}

std::int64_t wall_milliseconds() {
  timespec t{};
  clock_gettime(CLOCK_REALTIME, &t);
  return std::int64_t{t.tv_sec} * 1000 + t.tv_nsec / 1'000'000;
}

Time steady_now() { return Time(std::chrono::steady_clock::now().time_since_epoch()); }

}  // namespace

void append_escaped(std::string& out, std::string_view text, std::size_t limit) {
  static constexpr char digits[] = "0123456789abcdef";
  const std::size_t start = out.size();
  for (const char character : text) {
    const auto byte = static_cast<unsigned char>(character);
    const bool plain = byte >= 0x20 && byte < 0x7F && byte != '\\';
    if (out.size() - start + (plain ? 1 : 4) > limit) {
      out += "...";
      return;
    }
    if (plain) {
      out += character;
    } else {
      out += "\\x";
      out += digits[byte >> 4];
      out += digits[byte & 15];
    }
  }
}

std::string format_line(LineStyle style, std::int64_t unix_milliseconds, Priority priority, std::string_view event,
                        std::string_view sentence, Fields fields) {
  // What closes a line always fits: a value gets what is left, less this.
  constexpr std::size_t reserve = 64;
  std::string line;
  line.reserve(longest_line);
  const auto room = [&] { return line.size() + reserve < longest_line ? longest_line - reserve - line.size() : 0; };
  if (style.journal) fmt::format_to(std::back_inserter(line), "<{}>", static_cast<int>(priority));

  if (style.format == LogFormat::json) {
    line += R"({"time":")";
    append_time(line, unix_milliseconds);
    fmt::format_to(std::back_inserter(line), R"(","level":"{}","event":)", name(priority));
    append_json(line, event, 128);
    if (!sentence.empty()) {
      line += R"(,"message":)";
      append_json(line, sentence, std::min<std::size_t>(512, room() / 2));  // halved: each character may need a backslash
    }
    for (const auto& field : fields) {
      if (field.omit) continue;
      if (room() < field.key.size() + reserve) break;
      fmt::format_to(std::back_inserter(line), R"(,"{}":)", field.key);
      if (field.is_number) fmt::format_to(std::back_inserter(line), "{}", field.number);
      else append_json(line, field.text, std::min<std::size_t>(512, room() / 2));
    }
    line += "}\n";
    assert(line.size() <= longest_line);
    return line;
  }

  if (!style.journal) {
    append_time(line, unix_milliseconds);
    fmt::format_to(std::back_inserter(line), " {} ", name(priority));
  }
  append_escaped(line, event, 128);
  if (!sentence.empty()) {
    line += ": ";
    append_escaped(line, sentence, std::min<std::size_t>(1024, room()));
  }
  const bool bracketed =
      !sentence.empty() && std::any_of(fields.begin(), fields.end(), [](const Field& field) { return !field.omit; });
  std::string_view before = bracketed ? " [" : ": ";
  for (const auto& field : fields) {
    if (field.omit) continue;
    if (room() < field.key.size() + reserve) break;
    line += before;
    before = " ";
    fmt::format_to(std::back_inserter(line), "{}=", field.key);
    if (field.is_number) {
      fmt::format_to(std::back_inserter(line), "{}", field.number);
    } else {
      // Quotes where a blank or a quote inside could pass for the end of the value.
      const bool quoted = field.text.empty() || field.text.find_first_of(" \"=[]") != std::string_view::npos;
      std::string value;
      append_escaped(value, field.text, std::min<std::size_t>(512, room() / 2));
      if (quoted) {
        line += '"';
        for (const char c : value) {
          if (c == '"') line += '\\';
          line += c;
        }
        line += '"';
      } else {
        line += value;
      }
    }
  }
  if (bracketed) line += ']';
  line += '\n';
  assert(line.size() <= longest_line);
  return line;
}

bool is_journal(int descriptor) {
  const char* stream = std::getenv("JOURNAL_STREAM");
  struct stat status {};
  if (!stream || fstat(descriptor, &status) != 0) return false;
  return fmt::format("{}:{}", status.st_dev, status.st_ino) == stream;
}

// ---------------------------------------------------------------------------------------------------------------------

/// The queue is the bounded one of Dmitry Vyukov: each slot carries a sequence number that says whose turn it is, so that
/// writers take slots with one compare-exchange and never wait for the reader or for each other.
struct Log::State {
  struct Slot {
    std::atomic<std::size_t> sequence{0};
    std::uint16_t size = 0;
    std::array<char, longest_line> text;
  };

  explicit State(const Options& o)
      : options(o), level(o.level), slots(o.capacity), wake(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)), descriptor(o.descriptor) {
    assert(o.capacity >= 2 && (o.capacity & (o.capacity - 1)) == 0);
    for (std::size_t i = 0; i < slots.size(); ++i) slots[i].sequence.store(i, std::memory_order_relaxed);
    format = o.format;
    journal = is_journal(o.descriptor);
    // A descriptor of our own that does not block. A terminal or pipe can be opened anew, so that the flag is not
    // forced on everybody who shares it; a socket (the journal) takes a flag with each send instead.
    struct stat status {};
    if (fstat(descriptor, &status) == 0) {
      is_socket = S_ISSOCK(status.st_mode);
      if (S_ISFIFO(status.st_mode) || S_ISCHR(status.st_mode)) {
        own = open(fmt::format("/proc/self/fd/{}", descriptor).c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY | O_APPEND);
        if (own >= 0) descriptor = own;
      }
    }
  }
  ~State() {
    if (own >= 0) ::close(own);
    if (wake >= 0) ::close(wake);
  }

  bool push(std::string_view line) {
    std::size_t position = tail.load(std::memory_order_relaxed);
    for (;;) {
      Slot& slot = slots[position & (slots.size() - 1)];
      const auto lead = static_cast<std::ptrdiff_t>(slot.sequence.load(std::memory_order_acquire) - position);
      if (lead < 0) return false;  // full
      if (lead > 0) {
        position = tail.load(std::memory_order_relaxed);
        continue;
      }
      if (!tail.compare_exchange_weak(position, position + 1, std::memory_order_relaxed)) continue;
      slot.size = static_cast<std::uint16_t>(std::min(line.size(), slot.text.size()));
      std::copy_n(line.data(), slot.size, slot.text.data());
      slot.sequence.store(position + 1, std::memory_order_release);
      // Both sides exchange on `sleeping`, so either the reader sees the slot or we see it asleep.
      if (sleeping.exchange(false)) ring();
      return true;
    }
  }

  /// The thread's side: the oldest line, copied out so that its slot is free before the write.
  bool pop(std::string& line) {
    Slot& slot = slots[head & (slots.size() - 1)];
    if (slot.sequence.load(std::memory_order_acquire) != head + 1) return false;
    line.assign(slot.text.data(), slot.size);
    slot.sequence.store(head + slots.size(), std::memory_order_release);
    ++head;
    taken.store(head, std::memory_order_relaxed);
    return true;
  }

  void ring() {
    const std::uint64_t one = 1;
    [[maybe_unused]] const ssize_t n = ::write(wake, &one, sizeof one);  // full: it is awake anyway
  }
  void hush() {
    std::uint64_t count;
    [[maybe_unused]] const ssize_t n = ::read(wake, &count, sizeof count);
  }

  /// False: stopped before the line was out.
  bool write_out(std::string_view line) {
    while (!line.empty()) {
      const bool may_block = own < 0 && !is_socket;
      if (may_block && !writable()) return false;
      const ssize_t n = is_socket ? send(descriptor, line.data(), line.size(), MSG_DONTWAIT | MSG_NOSIGNAL)
                                  : ::write(descriptor, line.data(), line.size());
      if (n > 0) {
        line.remove_prefix(static_cast<std::size_t>(n));
      } else if (n < 0 && errno == EINTR) {
        continue;
      } else if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        if (!writable()) return false;
      } else {  // EPIPE, EIO, EBADF, ENOSPC: nobody there; the line is lost, the next one is tried again
        dropped.fetch_add(1, std::memory_order_relaxed);
        return true;
      }
    }
    return true;
  }

  /// Waits until the descriptor takes bytes; false when the log is closed and its patience is over.
  bool writable() {
    for (;;) {
      int timeout = -1;
      const bool stopping = stop.load();
      if (stopping) {
        const auto left = Time(nanoseconds(deadline.load())) - steady_now();
        timeout = static_cast<int>(std::max<std::int64_t>(0, std::chrono::duration_cast<milliseconds>(left).count()));
      }
      pollfd wait[2] = {{descriptor, POLLOUT, 0}, {stopping ? -1 : wake, POLLIN, 0}};
      const int ready = poll(wait, 2, timeout);
      if (ready < 0 && errno != EINTR) return true;
      if (wait[0].revents != 0) return true;  // an error shows itself in the write
      if (wait[1].revents != 0) hush();       // new lines, or the end: `stop` tells
      if (stopping && ready == 0) return false;
    }
  }

  void run() {
    if (options.on_thread_start) options.on_thread_start();
    std::string line;
    bool reader = true;
    while (reader) {
      while (reader && pop(line)) reader = write_out(line);
      if (!reader) break;
      const std::uint64_t lost = dropped.load(std::memory_order_relaxed);
      if (lost != reported) {
        const Field count("count", lost - reported);
        reported = lost;
        reader = write_out(format_line(style(), wall_milliseconds(), Priority::warning, "log lines dropped", "", {&count, 1}));
        // Nobody can be told that a line could not be written while none can be: tell it with the next line that arrives.
        if (reader && dropped.load(std::memory_order_relaxed) != lost) reported = lost - count.number;
      }
      if (stop.load() && !pending()) break;
      sleeping.exchange(true);
      if (!pending() && !stop.load()) {
        pollfd wait{wake, POLLIN, 0};
        poll(&wait, 1, -1);
      }
      sleeping.exchange(false);
      hush();
    }
    const std::lock_guard lock(mutex);
    complete = reader;
    done = true;
    ended.notify_all();
  }
  bool pending() const { return slots[head & (slots.size() - 1)].sequence.load(std::memory_order_acquire) == head + 1; }

  const Options options;
  std::atomic<LogFormat> format{LogFormat::text};
  bool journal = false;
  LineStyle style() const { return {format.load(std::memory_order_relaxed), journal}; }
  std::atomic<Priority> level;
  std::vector<Slot> slots;
  alignas(64) std::atomic<std::size_t> tail{0};
  alignas(64) std::atomic<std::size_t> taken{0};
  std::size_t head = 0;  // the thread's alone
  std::uint64_t reported = 0;
  std::atomic<std::uint64_t> dropped{0};
  std::atomic<bool> sleeping{false};
  std::atomic<bool> stop{false};
  std::atomic<std::int64_t> deadline{0};
  int wake;
  int descriptor;
  int own = -1;
  bool is_socket = false;
  std::thread thread;
  std::mutex mutex;
  std::condition_variable ended;
  bool done = false;
  bool complete = false;
};

Log::Log(Options options) : state_(std::make_shared<State>(options)) {
  state_->thread = std::thread([state = state_] { state->run(); });
}

Log::~Log() { close(milliseconds(300)); }

bool Log::wants(Priority priority) const { return priority <= state_->level.load(std::memory_order_relaxed); }
void Log::set_format(LogFormat format) { state_->format.store(format, std::memory_order_relaxed); }
void Log::set_level(Priority level) { state_->level.store(level, std::memory_order_relaxed); }
std::uint64_t Log::dropped() const { return state_->dropped.load(std::memory_order_relaxed); }

bool Log::has_room(std::size_t lines) const {
  const std::size_t queued = state_->tail.load(std::memory_order_relaxed) - state_->taken.load(std::memory_order_relaxed);
  return queued + lines <= state_->slots.size();
}

bool Log::write(Priority priority, std::string_view event, std::string_view sentence, Fields fields) {
  if (!wants(priority)) return true;
  if (state_->push(format_line(state_->style(), wall_milliseconds(), priority, event, sentence, fields))) return true;
  state_->dropped.fetch_add(1, std::memory_order_relaxed);
  return false;
}

bool Log::close(milliseconds patience) {
  if (!state_->thread.joinable()) return state_->complete;
  state_->deadline.store((steady_now() + patience).time_since_epoch().count());
  state_->stop.store(true);
  state_->ring();
  std::unique_lock lock(state_->mutex);
  // A little longer than the thread itself waits: only one stuck inside write(2) (a pipe that we could not open anew) is left behind.
  const bool done = state_->ended.wait_for(lock, patience + milliseconds(100), [&] { return state_->done; });
  const bool complete = done && state_->complete;
  lock.unlock();
  if (done) state_->thread.join();
  else state_->thread.detach();
  return complete;
}

bool LineLimit::admit(Bytes source, Time now, std::uint64_t& suppressed) {
  if (!started_ || now >= window_ends_) {
    started_ = true;
    window_ends_ = now + window_;
    lines_ = 0;
  }
  const std::uint64_t hash = siphash13(key_, source) | 1;  // 0 is an empty place
  Seen& seen = seen_[hash >> 1 & (seen_.size() - 1)];
  // A neighbour that falls into the same place takes it over: the bound on the class still holds.
  if ((!source.empty() && seen.hash == hash && now < seen.until) || lines_ >= lines_a_window_) {
    ++suppressed_;
    return false;
  }
  seen = {hash, now + window_};
  ++lines_;
  suppressed = std::exchange(suppressed_, 0);
  return true;
}

}  // namespace radiotower
