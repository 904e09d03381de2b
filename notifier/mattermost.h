// Mattermost's side: one request out, one judged answer back. libcurl; several at once on one thread.
//
// TLS is always verified (private CA by ca_file); redirects are never followed; no proxy but a configured one; only the configured hosts; hook
// and token are secrets and stand in no text this file makes.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "notifier/event.h"
#include "notifier/settings.h"

namespace radiotower::notifier {

enum class Outcome : std::uint8_t {
  delivered,
  again,      // surely not posted: no connection, TLS refused, 429, 5xx, a redirect, 200 that is not "ok"
  ambiguous,  // the request was sent and the answer lost: timeout or cut after the first byte went out
  refused,    // 400, 401, 403, 404, 405, 413, 414, 501 and other 4xx: again would be the same
};
struct Answer {
  Outcome outcome = Outcome::again;
  unsigned status = 0;                 // 0: no answer
  std::string reason;                  // a sentence for the operator, with what to do; no secret in it
  std::optional<std::chrono::seconds> retry_after;  // 429
  bool server_error = false;           // answered with 500: may be this post's own fault; bounded by the caller
  bool tls_failure = false;            // the connection was refused, for its certificates or another reason of TLS
  Json body;                           // REST: what came back; of a refusal {"id": ...} alone; null otherwise
};

/// What an answer means: pure, for tests. `channel`: empty where the hook posts to its own; `what`: the call, for the sentence.
Answer judge_hook(unsigned status, std::string_view content_type, std::string_view body, std::string_view retry_after, std::string_view channel);
Answer judge_rest(unsigned status, std::string_view content_type, std::string_view body, std::string_view retry_after, std::string_view what);

/// "https://host/hooks/<id>" as Mattermost's hooks are: https or http, a host, no user info, /hooks/ and an id of letters and digits at
/// the end. False: `why` with a hint (a dash in the id, "/hooks" missing, a channel's page pasted, a trailing slash).
bool check_hook(std::string_view url, std::string& why, std::string& hint);
bool check_base_url(std::string_view url, std::string& why, std::string& hint);
/// "https://host:port/…": what may be shown of a URL that ends in a secret. Also names a server: equal for all URLs of one.
std::string without_secret(std::string_view url);

class Client {
 public:
  explicit Client(const Mattermost& settings);  // throws std::runtime_error with a sentence: ca_file unreadable, holds no certificate
  ~Client();

  using Done = std::function<void(Answer)>;
  /// POST of a webhook payload ({channel?, text ...}). `done` is called by turn(), on the same thread.
  void post_hook(const std::string& channel, const Json& payload, Done done);
  /// A REST call with the bot's token: method, path below /api/v4, a body or null. Only a POST can be ambiguous.
  void rest(const char* method, const std::string& path, const Json& body, Done done);
  /// GET /api/v4/system/ping of the server behind `channel`'s hook: whether anybody is there, after an answer was lost. delivered: any HTTP
  /// answer below 500.
  void ping(const std::string& channel, Done done);
  /// without_secret() of the server that takes this channel's posts.
  std::string server_of(const std::string& channel) const;

  /// Moves transfers on, calls what is done, and waits up to `patience` for something to happen.
  void turn(std::chrono::milliseconds patience);
  void wake();  // from any thread: turn() returns
  std::size_t in_flight() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace radiotower::notifier
