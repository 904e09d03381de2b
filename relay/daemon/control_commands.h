// What the control socket understands: a line in, lines out. Knows no sockets. docs/control.md is its manual.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "operations.h"
#include "radiotower/service/log.h"

namespace radiotower::daemon {

using Json = nlohmann::ordered_json;

/// Who asks (SO_PEERCRED).
struct Asker {
  std::uint32_t uid = 0, gid = 0;
  std::int32_t pid = 0;
  std::string text() const;  // "uid 0 pid 123"
};

/// Whether somebody who asks for `wanted` means `user`: the whole name, or the user part of a time-limited one ("alice" of
/// "1767225600:alice", whatever stands between them).
bool names_user(std::string_view wanted, std::string_view user);

/// Of an `events` stream: what it shows. Empty: everything.
struct EventFilter {
  std::vector<std::string> kinds;
  std::optional<std::string> user;
  bool shows(const turn::Event& event) const;
};

/// An event on its way to those who listen: copied on the worker's thread.
struct ToldEvent {
  unsigned worker = 0;
  std::int64_t unix_milliseconds = 0;
  turn::Event event;
};

/// One line for one event, without line feed.
std::string event_line(const ToldEvent& told, const Json& request_id);

/// The lines of `sessions`, made one by one, so that a long list is never held as text.
class SessionLines {
 public:
  SessionLines(std::vector<turn::AllocationFacts> all, std::size_t shown, unsigned silent, Json request_id)
      : all_(std::move(all)), shown_(shown), silent_(silent), request_id_(std::move(request_id)) {}
  /// The next line without line feed; the last one is the summary. nullopt: that was all.
  std::optional<std::string> next();

 private:
  std::vector<turn::AllocationFacts> all_;  // in order; the first `shown_` are
  std::size_t shown_ = 0, at_ = 0;
  unsigned silent_ = 0;  // workers whose allocations are missing
  bool over_ = false;
  Json request_id_;
};

struct Answer {
  std::string line;                        // without line feed; empty where `sessions` speaks
  std::optional<SessionLines> sessions;
  std::optional<EventFilter> events;       // the asker listens from now on, after `line`
  Json request_id = nullptr;
};

class ControlCommands {
 public:
  /// Both outlive it.
  ControlCommands(Operations& operations, Log& log) : operations_(operations), log_(log) {}

  /// One request. Takes as long as the workers, or a reload, take to answer.
  Answer carry_out(std::string_view line, const Asker& asker);

 private:
  Operations& operations_;
  Log& log_;
};

/// {"ok":false,"error":...}, with the id where there is one.
std::string error_line(std::string_view sentence, const Json& request_id = nullptr);

/// "2-17-1": worker, place and generation.
std::string session_id(const turn::AllocationFacts& facts);

}  // namespace radiotower::daemon
