#include "sessions_view.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <functional>
#include <utility>

#include <fmt/format.h>

#include "control_text.h"

namespace radiotower::cli {

namespace {

volatile std::sig_atomic_t interrupted = 0;
void on_interrupt(int) { interrupted = 1; }

std::uint64_t number(const Json& json, const char* name) {
  const auto found = json.find(name);
  return found != json.end() && found->is_number_unsigned() ? found->get<std::uint64_t>() : 0;
}

std::string text(const Json& json, const char* name) {
  const auto found = json.find(name);
  return found != json.end() && found->is_string() ? printable(found->get<std::string>()) : std::string();
}

std::uint64_t bytes_of(const Json& session) { return number(session, "bytes_to_peer") + number(session, "bytes_to_client"); }

struct Size {
  std::size_t columns = 0, rows = 0;
};
Size terminal_size() {
  winsize size{};
  if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return {80, 24};
  return {size.ws_col, size.ws_row};
}

/// Keys come one by one and unseen, the cursor is hidden; as it was when this goes.
class LiveTerminal {
 public:
  LiveTerminal() {
    struct sigaction action {};
    action.sa_handler = on_interrupt;  // without SA_RESTART: what waits is to notice
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) ::sigaction(signal, &action, nullptr);
    if (::isatty(STDIN_FILENO) && ::tcgetattr(STDIN_FILENO, &before_) == 0) {
      termios raw = before_;
      raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
      has_keys_ = ::tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
    }
    std::fputs("\x1b[?25l\x1b[2J", stdout);
  }
  ~LiveTerminal() {
    std::fputs("\x1b[?25h\n", stdout);
    std::fflush(stdout);
    if (has_keys_) ::tcsetattr(STDIN_FILENO, TCSANOW, &before_);
  }
  /// True: somebody wants to leave.
  bool wait(double seconds) const {
    const auto until = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
    while (!interrupted) {
      const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - std::chrono::steady_clock::now()).count();
      if (left <= 0) return false;
      pollfd keys{has_keys_ ? STDIN_FILENO : -1, POLLIN, 0};
      if (::poll(&keys, 1, static_cast<int>(left)) > 0) {
        char key = 0;
        if (::read(STDIN_FILENO, &key, 1) <= 0 || key == 'q' || key == 'Q') return true;
      }
    }
    return true;
  }

 private:
  termios before_{};
  bool has_keys_ = false;
};

struct Column {
  std::string_view name;
  bool right;
  std::size_t shrinks_to;  // 0: never cut
  int worth;               // the least goes first where there is no room
  std::function<std::string(const Json&)> cell;
};

constexpr std::string_view user_column = "USER";
constexpr std::size_t widest_ipv4 = 21;  // 255.255.255.255:65535: half an address tells nothing

/// A time-limited name that does not fit loses its expiry first: "~alice" tells more than "17956844~".
std::string clipped_user(const std::string& user, std::size_t width) {
  const std::size_t colon = user.find_first_not_of("0123456789");
  if (columns_of(user) <= width || width < 2 || colon == 0 || colon == std::string::npos || user[colon] != ':') return clipped(user, width);
  return "~" + clipped(std::string_view(user).substr(colon + 1), width - 1);
}

/// One look. False: `why`.
bool fetch(ControlLink& link, const SessionsOptions& o, bool everything, std::vector<Json>& sessions, Json& summary, std::string& why) {
  Json request = {{"command", "sessions"}};
  request.update(o.filter);
  request["sort"] = o.sort;
  if (o.limit != 0 && !everything) request["limit"] = o.limit;
  sessions.clear();
  if (!link.ask(request, why)) return false;
  while (true) {
    auto line = link.next(why);
    if (!line) return false;
    if (!line->contains("ok")) {
      sessions.push_back(std::move(*line));
      continue;
    }
    summary = std::move(*line);
    if (summary["ok"] == true) return true;
    why = text(summary, "error");
    return false;
  }
}

void put_in_order(std::vector<Json>& sessions, const Rates& rates, const SessionsOptions& o) {
  if (o.sort == "rate") std::stable_sort(sessions.begin(), sessions.end(), [&](const Json& a, const Json& b) { return rates.of(a) > rates.of(b); });
  if (o.limit != 0 && sessions.size() > o.limit) sessions.resize(o.limit);
}

std::string summary_text(std::uint64_t total, std::uint64_t shown, const Json& summary) {
  std::string said = total == 0 ? "no allocations" : plural(total, "allocation");
  if (shown < total) said += fmt::format(", {} of them shown", shown);
  if (const auto silent = number(summary, "workers_silent"); silent != 0) said += fmt::format("; {} did not answer: what allocations there are is not known", plural(silent, "worker"));
  return said;
}

void print_json(const std::vector<Json>& sessions, const Rates* rates, const Json& summary) {
  Json all = {{"ok", true}, {"total", summary.value("sessions", Json(0))}, {"whole", summary.value("whole", true)}, {"sessions", Json::array()}};
  if (summary.contains("workers_silent")) all["workers_silent"] = summary["workers_silent"];
  for (const Json& session : sessions) {
    all["sessions"].push_back(session);
    if (rates && rates->of(session) >= 0) all["sessions"].back()["bytes_per_second"] = static_cast<std::uint64_t>(rates->of(session));
  }
  fmt::print("{}\n", all.dump(-1, ' ', false, Json::error_handler_t::replace));
}

}  // namespace

void Rates::look(const std::vector<Json>& sessions, std::chrono::steady_clock::time_point now) {
  const double passed = std::chrono::duration<double>(now - looked_at_).count();
  looked_at_ = now;
  std::map<std::string, Seen> next;
  for (const Json& session : sessions) {
    Seen seen{bytes_of(session), -1};
    const std::string name = text(session, "session");
    if (const auto found = seen_.find(name); found != seen_.end() && passed > 0 && seen.bytes >= found->second.bytes)
      seen.rate = static_cast<double>(seen.bytes - found->second.bytes) / passed;
    next.emplace(name, seen);
  }
  seen_ = std::move(next);
}

double Rates::of(const Json& session) const {
  const auto found = seen_.find(text(session, "session"));
  return found == seen_.end() ? -1 : found->second.rate;
}

std::vector<std::string> sessions_table(const std::vector<Json>& sessions, const Rates* rates, std::size_t width) {
  std::vector<Column> columns = {
      {"SESSION", false, 0, 7, [](const Json& s) { return text(s, "session"); }},
      {user_column, false, 10, 9, [](const Json& s) { return text(s, "realm").empty() ? text(s, "user") : text(s, "user") + " in " + text(s, "realm"); }},
      {"CLIENT", false, widest_ipv4, 8, [](const Json& s) { return s.contains("client_is_away") ? "(away)" : text(s, "client"); }},
      {"VIA", false, 0, 4, [](const Json& s) { return text(s, "transport"); }},
      {"RELAYED", false, widest_ipv4, 3,
       [](const Json& s) {
         std::string all = text(s, "relayed");
         if (s.contains("relayed2")) all += "," + text(s, "relayed2");
         return text(s, "relay_transport") == "tcp" ? all + "/tcp" : all;
       }},
      {"AGE", true, 0, 5, [](const Json& s) { return duration_text(number(s, "age_seconds")); }},
      {"CHANNELS", true, 0, 1, [](const Json& s) { return fmt::format("{}", number(s, "channels")); }},
      {"TO PEER", true, 0, 6, [](const Json& s) { return bytes_text(static_cast<double>(number(s, "bytes_to_peer"))); }},
      {"TO CLIENT", true, 0, 6, [](const Json& s) { return bytes_text(static_cast<double>(number(s, "bytes_to_client"))); }},
  };
  if (rates)
    columns.push_back({"RATE", true, 0, 10, [rates](const Json& s) { return rates->of(s) < 0 ? "-" : bytes_text(rates->of(s)) + "/s"; }});

  std::vector<std::vector<std::string>> cells;
  for (const Json& session : sessions) {
    cells.emplace_back();
    for (const Column& column : columns) cells.back().push_back(column.cell(session));
  }
  std::vector<std::size_t> widths;
  for (std::size_t c = 0; c < columns.size(); ++c) {
    widths.push_back(columns_of(columns[c].name));
    for (const auto& row : cells) widths[c] = std::max(widths[c], columns_of(row[c]));
  }
  const std::vector<std::size_t> whole = widths;
  const auto total = [&] {
    std::size_t sum = 0;
    for (const std::size_t w : widths) sum += w == 0 ? 0 : w + 2;
    return sum < 2 ? 0 : sum - 2;
  };
  while (width != 0 && total() > width) {
    // The widest that may be cut loses a column; when none may, the one that is worth least goes.
    std::size_t widest = columns.size(), least = columns.size();
    for (std::size_t c = 0; c < columns.size(); ++c) {
      if (widths[c] == 0) continue;
      if (columns[c].shrinks_to != 0 && widths[c] > columns[c].shrinks_to && (widest == columns.size() || widths[c] > widths[widest])) widest = c;
      if (least == columns.size() || columns[c].worth < columns[least].worth) least = c;
    }
    if (widest != columns.size()) --widths[widest];
    else if (least != columns.size()) widths[least] = 0;
    else break;
  }
  // One that has gone leaves room for those that were cut before it.
  for (std::size_t c = 0; c < columns.size() && width != 0; ++c)
    while (widths[c] != 0 && widths[c] < whole[c] && total() < width) ++widths[c];
  std::vector<std::string> lines;
  const auto add = [&](const std::function<std::string(std::size_t)>& cell) {
    std::string line;
    for (std::size_t c = 0; c < columns.size(); ++c) {
      if (widths[c] == 0) continue;
      const std::string cut = columns[c].name == user_column ? clipped_user(cell(c), widths[c]) : clipped(cell(c), widths[c]);
      const std::string space(widths[c] - columns_of(cut), ' ');
      line += (line.empty() ? "" : "  ") + (columns[c].right ? space + cut : cut + space);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    lines.push_back(std::move(line));
  };
  add([&](std::size_t c) { return std::string(columns[c].name); });
  for (const auto& row : cells) add([&](std::size_t c) { return row[c]; });
  return lines;
}

int show_sessions(const SessionsOptions& o) {
  const auto failed = [](const std::string& why) {
    fmt::print(stderr, "radiotower sessions: {}\n", printable(why));
    return 1;
  };
  ControlLink link;
  std::string why;
  if (!link.open(o.socket, why)) return failed(why);
  const bool is_terminal = ::isatty(STDOUT_FILENO) != 0;
  std::vector<Json> sessions;
  Json summary;
  Rates rates;
  const bool has_rates = o.watch > 0 || o.sort == "rate";
  const auto look = [&] {
    if (!fetch(link, o, has_rates, sessions, summary, why)) return false;
    rates.look(sessions, std::chrono::steady_clock::now());
    put_in_order(sessions, rates, o);
    return true;
  };
  const auto total = [&] { return number(summary, "sessions"); };
  if (!look()) return failed(why);
  if (o.watch <= 0) {
    if (has_rates) {
      ::usleep(1'000'000);  // a rate takes two looks
      if (!look()) return failed(why);
    }
    if (o.json) {
      print_json(sessions, has_rates ? &rates : nullptr, summary);
      return 0;
    }
    if (total() != 0)
      for (const auto& line : sessions_table(sessions, has_rates ? &rates : nullptr, is_terminal ? terminal_size().columns : 0)) fmt::print("{}\n", line);
    fmt::print("{}\n", summary_text(total(), sessions.size(), summary));
    return 0;
  }
  if (o.json || !is_terminal) {
    while (true) {
      if (o.json) {
        print_json(sessions, &rates, summary);
      } else {
        if (total() != 0)
          for (const auto& line : sessions_table(sessions, &rates, 0)) fmt::print("{}\n", line);
        fmt::print("{}\n\n", summary_text(total(), sessions.size(), summary));
      }
      if (std::fflush(stdout) != 0) return 0;  // nobody reads on
      ::usleep(static_cast<useconds_t>(o.watch * 1e6));
      if (!look()) return failed(why);
    }
  }
  {
    const LiveTerminal terminal;
    while (!interrupted) {
      const Size size = terminal_size();
      const auto lines = sessions_table(sessions, &rates, size.columns);
      const std::size_t room = size.rows > 4 ? size.rows - 4 : 0;  // under the heading
      std::string frame = "\x1b[H";
      frame += clipped(fmt::format("{}   every {:g} s, q ends", summary_text(total(), std::min(sessions.size(), room), summary), o.watch), size.columns) + "\x1b[K\r\n\x1b[K\r\n";
      for (std::size_t i = 0; i < lines.size() && i <= room; ++i) frame += (i == 0 ? "\x1b[1m" + lines[i] + "\x1b[0m" : lines[i]) + "\x1b[K\r\n";
      std::fputs((frame + "\x1b[J").c_str(), stdout);
      std::fflush(stdout);
      if (terminal.wait(o.watch)) return 0;
      if (!look()) {
        if (why.empty()) return 0;  // a signal
        break;
      }
    }
  }
  return interrupted ? 0 : failed(why);
}

}  // namespace radiotower::cli
