// The log: one line an event, as text or JSON, on one descriptor (stderr).
//
// Any thread writes; one thread of the log's own carries the lines out. Between them stands a queue of fixed size: when
// nobody reads the log, lines are dropped and counted, and no worker ever waits. Owns the queue and the thread, not the descriptor.
// May not know: sockets, settings, what an allocation is.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "radiotower/base/siphash.h"
#include "radiotower/base/time.h"

namespace radiotower {

enum class Priority : std::uint8_t { error = 3, warning = 4, notice = 5, info = 6, debug = 7 };  // syslog(3)'s numbers
enum class LogFormat : std::uint8_t { text, json };

/// One fact of a line. Text may hold any bytes from outside: it is escaped on the way. Lives as long as the call.
struct Field {
  Field(std::string_view k, std::string_view t) : key(k), text(t) {}
  Field(std::string_view k, const char* t) : key(k), text(t) {}
  Field(std::string_view k, const std::string& t) : key(k), text(t) {}
  Field(std::string_view k, std::uint64_t n) : key(k), number(n), is_number(true) {}
  Field(std::string_view k, std::uint32_t n) : Field(k, std::uint64_t{n}) {}
  /// Left out of the line when it is 0.
  static Field if_any(std::string_view k, std::uint64_t n) {
    Field field(k, n);
    field.omit = n == 0;
    return field;
  }
  static Field if_any(std::string_view k, std::string_view t) {  // likewise, when it is empty
    Field field(k, t);
    field.omit = t.empty();
    return field;
  }

  std::string_view key;  // our own: a lower-case word
  std::string_view text;
  std::uint64_t number = 0;
  bool is_number = false;
  bool omit = false;
};
using Fields = std::span<const Field>;

/// Only printable ASCII passes; every other byte, and the backslash, becomes \xNN. So a line cannot be forged, a terminal not
/// steered, and two different inputs never look the same. What exceeds `limit` characters is cut and marked with "...".
void append_escaped(std::string& out, std::string_view text, std::size_t limit = 512);

/// One line with its line feed; never longer than `longest_line`.
///   text: 2026-01-01T00:00:00.000Z warning peer refused: 10.1.2.3:8443 (rfc1918); add it to peers.allow [user=alice]
///   text: 2026-01-01T00:00:00.000Z info allocation made: user=alice client=192.0.2.1:5000
///   json: {"time":"2026-01-01T00:00:00.000Z","level":"info","event":"allocation made","user":"alice"}
/// With `journal` a line begins with <N>, and text carries no time and no level (sd-daemon(3)).
inline constexpr std::size_t longest_line = 2032;
struct LineStyle {
  LogFormat format = LogFormat::text;
  bool journal = false;
};
std::string format_line(LineStyle style, std::int64_t unix_milliseconds, Priority priority, std::string_view event,
                        std::string_view sentence, Fields fields);

/// Is this descriptor the journal's stream (JOURNAL_STREAM, systemd.exec(5))?
bool is_journal(int descriptor);

class Log {
 public:
  struct Options {
    LogFormat format = LogFormat::text;
    Priority level = Priority::info;  // what is less urgent is not written
    int descriptor = 2;
    std::size_t capacity = 1024;  // lines, a power of two
    std::function<void()> on_thread_start{};  // called once by the thread of the log: what it is to give up
  };
  explicit Log(Options options);
  ~Log();  // close(300 ms)
  Log(const Log&) = delete;
  Log& operator=(const Log&) = delete;

  /// Queues one line; never waits. False: the queue was full, and the line is counted as dropped.
  bool write(Priority priority, std::string_view event, std::string_view sentence, Fields fields = {});
  bool write(Priority priority, std::string_view event, std::string_view sentence, std::initializer_list<Field> fields) {
    return write(priority, event, sentence, Fields(fields.begin(), fields.size()));
  }
  void set_level(Priority level);
  void set_format(LogFormat format);
  bool wants(Priority priority) const;

  /// The queue has room for at least `lines` more right now. For the one who can wait: a worker that ends.
  bool has_room(std::size_t lines) const;
  std::uint64_t dropped() const;

  /// Writes what is queued and ends the thread. Waits no longer than `patience`: what a blocked reader has not taken by then
  /// is lost. True when everything was written.
  bool close(milliseconds patience);

 private:
  struct State;
  std::shared_ptr<State> state_;  // shared with the thread, which may be stuck in a write(2) when we leave
};

/// At most one line a source and window, and at most `lines_a_window` of one class. Fixed memory; one thread.
class LineLimit {
 public:
  LineLimit(const HashKey& key, seconds window, unsigned lines_a_window)
      : key_(key), window_(window), lines_a_window_(lines_a_window) {}

  /// True: write the line; `suppressed` then gets how many lines of this class were left out since the last one written.
  /// An empty `source`: the bound on the class alone.
  bool admit(Bytes source, Time now, std::uint64_t& suppressed);

 private:
  struct Seen {
    std::uint64_t hash = 0;
    Time until{};
  };
  HashKey key_;
  seconds window_;
  unsigned lines_a_window_;
  unsigned lines_ = 0;
  bool started_ = false;
  Time window_ends_{};
  std::uint64_t suppressed_ = 0;
  std::array<Seen, 256> seen_{};
};

}  // namespace radiotower
