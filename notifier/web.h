// What the notifier answers over HTTP: POST /v1/NAME for each source, GET /healthz, GET /metrics. Owns nothing of HTTP
// itself (http_server.h).
//
// The answers senders get: 200 stored, a duplicate, or dropped on purpose; 400 not this format; 401 no secret or a
// wrong one; 404, 405, 413, 415; 503 with Retry-After when it could not be stored. Never another 5xx: senders disable
// hooks that answer wrongly.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "notifier/http_server.h"
#include "notifier/intake.h"
#include "notifier/settings.h"
#include "radiotower/base/siphash.h"
#include "radiotower/service/exposition.h"
#include "radiotower/service/log.h"

namespace radiotower::notifier {

class Web {
 public:
  /// `metrics` makes the text of /metrics, `trouble` the reason for an unhealthy /healthz; both are called on the
  /// server's thread and return at once.
  Web(std::shared_ptr<const Settings> settings, Intake& intake, Log& log, std::function<std::string()> metrics,
      std::function<std::optional<std::string>()> trouble, const HashKey& key);

  std::optional<HttpAnswer> on_head(const HttpRequest& head);
  void on_request(HttpRequest&& request, Responder respond);
  /// Of the listener for metrics alone.
  std::optional<HttpAnswer> on_metrics_head(const HttpRequest& head);
  void on_metrics_request(HttpRequest&& request, Responder respond);

  void apply(std::shared_ptr<const Settings> settings) { settings_.store(std::move(settings)); }
  /// For /metrics: what came of each source.
  void add_metrics(Exposition& out) const;

 private:
  std::string nowhere(const Settings& settings, const HttpRequest& head) const;
  /// Logged, since "nothing arrives" is what people ask about; at most once a minute each.
  HttpAnswer refuse(const HttpRequest& head, unsigned status, const std::string& why);
  HttpAnswer refuse_secret(const Source& source, const HttpRequest& request, const std::string& why);
  void count(const std::string& source, const std::string& what);
  void take(const Source& source, HttpRequest&& request, Responder respond);
  const Source* find(const Settings& settings, std::string_view path) const;

  std::atomic<std::shared_ptr<const Settings>> settings_;
  Intake& intake_;
  Log& log_;
  std::function<std::string()> metrics_;
  std::function<std::optional<std::string>()> trouble_;
  LineLimit lines_;      // of known senders
  LineLimit strangers_;  // of who has shown no secret: their lines must not use up the others
  mutable std::mutex mutex_;
  std::map<std::pair<std::string, std::string>, std::uint64_t> counts_;  // (source, what): both from small sets of ours
};

/// "a%20b+c" -> "a b c" of application/x-www-form-urlencoded; nullopt when it is broken. The value of `name`, the first
/// one.
std::optional<std::string> form_value(std::string_view form, std::string_view name);

}  // namespace radiotower::notifier
