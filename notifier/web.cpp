#include "notifier/web.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "notifier/authenticate.h"
#include "notifier/clock.h"
#include "notifier/sources/source.h"
#include "radiotower/base/encoding.h"
#include "radiotower/net/address.h"
#include "radiotower/net/host_header.h"

namespace radiotower::notifier {

namespace {

HttpAnswer plain(unsigned status, std::string text) {
  HttpAnswer answer;
  answer.status = status;
  answer.body = std::move(text);
  if (!answer.body.empty()) answer.body += '\n';
  return answer;
}

HttpAnswer only(std::string_view methods) {
  HttpAnswer answer = plain(405, fmt::format("only {} here", methods));
  answer.headers.emplace_back("Allow", methods);
  return answer;
}

FindHeader finder(const HttpRequest& request) {
  return [&request](std::string_view name) { return request.header(name); };
}

bool is_form(std::string_view content_type) { return content_type.starts_with("application/x-www-form-urlencoded"); }

/// What senders of JSON say it is; nothing at all is taken for JSON too.
bool is_json(std::string_view content_type) {
  const std::string_view type = content_type.substr(0, content_type.find(';'));
  return type.empty() || type.starts_with("application/json") || type.find("+json") != std::string_view::npos ||
         type.starts_with("text/plain") || type.starts_with("text/json");
}

/// Behind a reverse proxy on this host everybody comes from loopback, but such proxies say so.
bool is_of_this_host(const HttpRequest& head) {
  return head.from_loopback && head.header("x-forwarded-for").empty() && head.header("forwarded").empty() && head.header("via").empty() &&
         net::names_this_host(head.header("host"));
}

std::optional<std::string> form_decoded(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '+') {
      out += ' ';
    } else if (text[i] != '%') {
      out += text[i];
    } else {
      const int high = i + 2 < text.size() ? hex_digit(text[i + 1]) : -1, low = i + 2 < text.size() ? hex_digit(text[i + 2]) : -1;
      if (high < 0 || low < 0) return std::nullopt;
      out += static_cast<char>(high * 16 + low);
      i += 2;
    }
  }
  return out;
}

}  // namespace

std::optional<std::string> form_value(std::string_view form, std::string_view name) {
  while (!form.empty()) {
    const std::size_t end = std::min(form.find('&'), form.size());
    const std::string_view pair = form.substr(0, end);
    form.remove_prefix(std::min(end + 1, form.size()));
    const std::size_t equals = pair.find('=');
    if (equals == std::string_view::npos || form_decoded(pair.substr(0, equals)) != name) continue;
    return form_decoded(pair.substr(equals + 1));
  }
  return std::nullopt;
}

Web::Web(std::shared_ptr<const Settings> settings, Intake& intake, Log& log, std::function<std::string()> metrics,
         std::function<std::optional<std::string>()> trouble, const HashKey& key)
    : settings_(std::move(settings)),
      intake_(intake),
      log_(log),
      metrics_(std::move(metrics)),
      trouble_(std::move(trouble)),
      lines_(key, seconds(60), 30), strangers_(key, seconds(60), 30) {}

const Source* Web::find(const Settings& settings, std::string_view path) const {
  if (!path.starts_with("/v1/")) return nullptr;
  path.remove_prefix(4);
  for (const Source& source : settings.sources)
    if (source.name == path) return &source;
  return nullptr;
}

std::optional<HttpAnswer> Web::on_head(const HttpRequest& head) {
  const auto settings = settings_.load();
  const bool reads = head.method == "GET" || head.method == "HEAD";
  if (head.path == "/healthz") return reads ? std::nullopt : std::optional(only("GET, HEAD"));
  if (head.path == "/metrics" && settings->metrics_listen.empty() && is_of_this_host(head))
    return reads ? std::nullopt : std::optional(only("GET, HEAD"));
  const Source* source = find(*settings, head.path);
  if (!source) return refuse(head, 404, nowhere(*settings, head));
  if (head.method != "POST") {
    HttpAnswer answer = refuse(head, 405, "webhooks are sent with POST");
    answer.headers.emplace_back("Allow", "POST");
    return answer;
  }
  const std::string_view type = head.header("content-type"), length = head.header("content-length");
  if (!is_json(type) && !is_form(type)) return refuse(head, 415, "JSON is expected (Content-Type: application/json)");
  if (!head.header("content-encoding").empty() && head.header("content-encoding") != "identity")
    return refuse(head, 415, "compressed bodies are not taken");
  // The server itself would say so too, but nobody would read of it.
  if (length.size() > 7 || (length.size() == 7 && length > "1048576")) return refuse(head, 413, "a body is at most 1 MiB long");
  if (!source->open) {
    const Verdict verdict = authenticate_head(source->format, source->secrets, finder(head), unix_now() / 1000);
    if (verdict != Verdict::good && verdict != Verdict::needs_body) return refuse_secret(*source, head, explain(source->format, verdict));
  }
  return std::nullopt;
}

void Web::on_request(HttpRequest&& request, Responder respond) {
  if (request.path == "/healthz") {
    const auto trouble = trouble_();
    // What is wrong may name files and hosts: for this host's own eyes.
    return respond(!trouble ? plain(200, "ok") : plain(503, is_of_this_host(request) ? *trouble : "events cannot be stored; the log says why"));
  }
  if (request.path == "/metrics") return on_metrics_request(std::move(request), std::move(respond));
  const auto settings = settings_.load();
  // Gone in a reload since its head was read.
  const Source* source = find(*settings, request.path);
  if (!source) return respond(plain(404, "nothing is here; sources are at /v1/NAME"));
  take(*source, std::move(request), std::move(respond));
}

void Web::take(const Source& source, HttpRequest&& request, Responder respond) {
  count(source.name, "received");
  const FindHeader header = finder(request);
  if (!source.open) {
    const Verdict verdict = authenticate(source.format, source.secrets, header, request.body, unix_now() / 1000);
    if (verdict != Verdict::good) return respond(refuse_secret(source, request, explain(source.format, verdict)));
  }
  const auto malformed = [&](const std::string& why) {
    count(source.name, "malformed");
    std::uint64_t more = 0;
    if (lines_.admit(as_bytes(source.name + why), steady_now(), more))
      log_.write(Priority::warning, "event refused", why, {{"source", source.name}});
    respond(plain(400, why));
  };
  if (is_form(request.header("content-type"))) {
    auto payload = form_value(request.body, "payload");
    if (!payload) return malformed("a form must carry the JSON in its field \"payload\"");
    request.body = std::move(*payload);
  }
  std::string why;
  const auto body = parse_json(request.body, why);
  if (!body) return malformed(why);
  Parsed parsed = parse({source.name, source.format, header, *body, request.body, &source.templates});
  if (const auto* wrong = std::get_if<Malformed>(&parsed)) return malformed(wrong->why);
  if (const auto* dropped = std::get_if<Dropped>(&parsed)) {
    count(source.name, "dropped: " + dropped->reason);
    std::uint64_t more = 0;
    if (lines_.admit(as_bytes(source.name + ' ' + dropped->reason), steady_now(), more))
      log_.write(Priority::info, "event dropped", dropped->reason, {{"source", source.name}, Field::if_any("more", more)});
    return respond(plain(200, "dropped: " + dropped->reason));
  }
  intake_.submit(std::get<Event>(std::move(parsed)),
                 [this, name = source.name, respond = std::move(respond)](Taken taken) {
                   const auto later = [](std::string text) {
                     HttpAnswer answer = plain(503, std::move(text));
                     answer.headers.emplace_back("Retry-After", "30");
                     return answer;
                   };
                   switch (taken) {
                     case Taken::stored: count(name, "stored"); return respond(plain(200, "stored"));
                     case Taken::duplicate:
                       count(name, "duplicate");
                       return respond(plain(200, "duplicate: it came before"));
                     case Taken::unrouted:
                       count(name, "unrouted");
                       return respond(plain(200, "dropped: no route posts it"));
                     case Taken::full:
                       count(name, "full");
                       return respond(later("the queue is full; nothing was kept"));
                     case Taken::failed:
                       count(name, "failed");
                       return respond(later("it could not be stored; nothing was kept"));
                   }
                 });
}

/// For who has mistyped a path: what there is.
std::string Web::nowhere(const Settings& settings, const HttpRequest& head) const {
  if (head.path == "/metrics") return "/metrics is for loopback: curl http://127.0.0.1:PORT/metrics on the notifier's host, or metrics_listen";
  std::string_view wanted = head.path;
  while (wanted.ends_with('/')) wanted.remove_suffix(1);
  wanted.remove_prefix(std::min(wanted.rfind('/') + 1, wanted.size()));
  const std::string lower = lower_case(wanted.substr(0, 64));
  for (const Source& source : settings.sources)
    if (source.name == lower) return fmt::format("nothing is here: did you mean /v1/{}?", source.name);
  if (format_of(lower)) return fmt::format("there is no [sources.{}] in the notifier's configuration", lower);
  return "nothing is here; sources are at /v1/NAME";
}

HttpAnswer Web::refuse(const HttpRequest& head, unsigned status, const std::string& why) {
  count("", fmt::format("{}", status));
  std::uint64_t more = 0;
  if (strangers_.admit(as_bytes(fmt::format("{} {}", status, head.path.substr(0, 100))), steady_now(), more))
    log_.write(Priority::warning, "request refused", why, {{"status", status}, {"method", head.method}, {"path", head.path}, {"client", head.client}, Field::if_any("more", more)});
  return plain(status, why);
}

HttpAnswer Web::refuse_secret(const Source& source, const HttpRequest& request, const std::string& why) {
  count(source.name, "unauthorized");
  std::uint64_t more = 0;
  if (strangers_.admit(as_bytes("secret " + source.name + ' ' + request.client), steady_now(), more))
    log_.write(Priority::warning, "secret refused", why, {{"source", source.name}, {"client", request.client}, Field::if_any("more", more)});
  HttpAnswer answer = plain(401, why);
  answer.headers.emplace_back("WWW-Authenticate", "Bearer realm=\"radiotower-notifier\"");
  return answer;
}

std::optional<HttpAnswer> Web::on_metrics_head(const HttpRequest& head) {
  if (head.path != "/metrics" && head.path != "/healthz") return plain(404, "/metrics is here");
  const auto own = net::TransportAddress::parse(settings_.load()->metrics_listen);
  if (own && own->ip.is_loopback() && !net::names_this_host(head.header("host")))
    return plain(421, "the figures are for this host alone: ask for localhost or an IP address, as http://127.0.0.1:PORT/metrics; a proxy sets Host so");
  return head.method == "GET" || head.method == "HEAD" ? std::nullopt : std::optional(only("GET, HEAD"));
}

void Web::on_metrics_request(HttpRequest&& request, Responder respond) {
  if (request.path == "/healthz") return on_request(std::move(request), std::move(respond));
  HttpAnswer answer;
  answer.content_type = "text/plain; version=0.0.4; charset=utf-8";
  answer.body = metrics_();
  respond(std::move(answer));
}

void Web::count(const std::string& source, const std::string& what) {
  const std::lock_guard lock(mutex_);
  ++counts_[{source, what}];
}

void Web::add_metrics(Exposition& out) const {
  out.family("radiotower_notifier_events_total", MetricType::Counter, "Requests of a source, by what became of them.");
  const std::lock_guard lock(mutex_);
  for (const auto& [key, n] : counts_) out.sample({{"source", key.first}, {"result", key.second}}, n);
}

}  // namespace radiotower::notifier
