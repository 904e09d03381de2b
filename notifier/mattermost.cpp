#include "notifier/mattermost.h"

#include <curl/curl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <deque>
#include <exception>
#include <stdexcept>
#include <utility>

#include "notifier/render.h"
#include "notifier/tls_report.h"

namespace radiotower::notifier {

namespace {

constexpr std::size_t largest_hook_answer = 64 << 10;
constexpr std::size_t largest_rest_answer = 4 << 20;  // the posts of a channel since a lost answer
constexpr long connect_timeout_s = 10, ping_timeout_s = 10;
// Mattermost and the proxies before it close idle connections after 60 s or more. One that is closed while a request is on its way to it is an
// answer lost, so that what has idled for long is not used again.
constexpr long longest_idle_s = 20;
constexpr long connections_a_host = 16;

template <typename T>
void set(CURL* easy, CURLoption option, T value) {
  if (const CURLcode code = curl_easy_setopt(easy, option, value); code != CURLE_OK)
    throw std::runtime_error(fmt::format("libcurl takes no option {}: {}", static_cast<int>(option), curl_easy_strerror(code)));
}

struct FreeList {
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};
using List = std::unique_ptr<curl_slist, FreeList>;

void append(List& list, const std::string& line) {
  curl_slist* longer = curl_slist_append(list.get(), line.c_str());
  if (!longer) throw std::bad_alloc();
  (void)list.release();  // the same list, with one more
  list.reset(longer);
}

void replace_all(std::string& text, std::string_view what) {
  if (what.empty()) return;
  for (std::size_t at = 0; (at = text.find(what, at)) != std::string::npos;) text.replace(at, what.size(), "...");
}

struct Authority {
  std::string shown, host;  // "chat.lan:8065", "chat.lan"
};
Authority authority_of(std::string_view url) {
  const auto start = url.find("://");
  if (start == std::string_view::npos) return {};
  Authority out;
  out.shown = url.substr(start + 3, url.find_first_of("/?#", start + 3) - start - 3);
  const auto colon = out.shown.find(':', out.shown.front() == '[' ? out.shown.find(']') : 0);
  out.host = out.shown.substr(0, colon);
  if (!out.host.empty() && out.host.front() == '[') out.host = out.host.substr(1, out.host.size() - 2);
  return out;
}

/// One request, and its easy handle that is used again.
struct Transfer {
  CURL* easy = nullptr;
  TlsReport tls;
  List headers;
  std::string url, secret, request, answer, retry_after;
  std::size_t sent = 0;  // bytes of the body that libcurl took: it asks for them when the head is on its way
  std::size_t answer_limit = 0;
  bool has_body = false, too_long = false, harmless_twice = false;
  char error[CURL_ERROR_SIZE] = {};
  std::function<Answer(unsigned, std::string_view, std::string_view, std::string_view)> judge;
  Client::Done done;

  ~Transfer() { curl_easy_cleanup(easy); }

  static std::size_t read(char* out, std::size_t size, std::size_t count, void* self) {
    auto& transfer = *static_cast<Transfer*>(self);
    const std::size_t n = std::min(size * count, transfer.request.size() - transfer.sent);
    std::memcpy(out, transfer.request.data() + transfer.sent, n);
    transfer.sent += n;
    return n;
  }
  /// libcurl repeats a request by itself when a connection that was used before ends without an answer - but that one may have been
  /// posted, which is ours to count. Without a way back to the body's first byte it can't.
  static int seek(void*, curl_off_t, int) { return CURL_SEEKFUNC_FAIL; }
  static std::size_t write(char* data, std::size_t size, std::size_t count, void* self) {
    auto& transfer = *static_cast<Transfer*>(self);
    const std::size_t room = transfer.answer_limit - transfer.answer.size(), n = size * count;
    transfer.answer.append(data, std::min(n, room));
    transfer.too_long = n > room;
    return transfer.too_long ? 0 : n;
  }
  static std::size_t header(char* data, std::size_t size, std::size_t count, void* self) {
    constexpr std::string_view name = "retry-after:";
    std::string_view line(data, size * count);
    if (line.size() > name.size() && std::equal(name.begin(), name.end(), line.begin(), [](char a, char b) { return a == (b | 0x20) || a == b; })) {
      line.remove_prefix(name.size());
      while (!line.empty() && line.front() == ' ') line.remove_prefix(1);
      while (!line.empty() && line.back() <= ' ') line.remove_suffix(1);
      static_cast<Transfer*>(self)->retry_after = line;
    }
    return size * count;
  }
  static CURLcode context_made(CURL*, void* context, void* self) {
    static_cast<Transfer*>(self)->tls.watch(static_cast<SSL_CTX*>(context));
    return CURLE_OK;
  }
};

}  // namespace

struct Client::State {
  explicit State(const Mattermost& given) : settings(given) {
    static const CURLcode global = [] {
      // With NOSIGNAL libcurl leaves it to the program: a write to a connection that was closed is an error of the call, not the process's end.
      std::signal(SIGPIPE, SIG_IGN);
      return curl_global_init(CURL_GLOBAL_DEFAULT);
    }();
    multi = global == CURLE_OK ? curl_multi_init() : nullptr;
    if (!multi) throw std::runtime_error("libcurl cannot be set up");
    curl_multi_setopt(multi, CURLMOPT_MAX_HOST_CONNECTIONS, connections_a_host);
    curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, 2 * connections_a_host);
  }
  ~State() {
    for (const auto& transfer : active) curl_multi_remove_handle(multi, transfer->easy);
    active.clear();
    // Connections go before the reports that their contexts point to.
    curl_multi_cleanup(multi);
  }

  std::unique_ptr<Transfer> take() {
    std::unique_ptr<Transfer> transfer;
    if (idle.empty()) {
      transfer = std::make_unique<Transfer>();
      transfer->easy = curl_easy_init();
      if (!transfer->easy) throw std::bad_alloc();
      return transfer;
    }
    transfer = std::move(idle.back());
    idle.pop_back();
    return transfer;
  }

  /// What holds for each request, whatever it is.
  void prepare(Transfer& transfer, long timeout_s) const {
    CURL* easy = transfer.easy;
    curl_easy_reset(easy);  // connections live in `multi`, and stay
    transfer.tls.clear();
    transfer.answer.clear();
    transfer.retry_after.clear();
    transfer.sent = 0;
    transfer.too_long = false;
    transfer.error[0] = 0;
    set(easy, CURLOPT_PRIVATE, static_cast<void*>(&transfer));
    set(easy, CURLOPT_ERRORBUFFER, transfer.error);
    set(easy, CURLOPT_NOSIGNAL, 1L);
    set(easy, CURLOPT_QUICK_EXIT, 1L);
    set(easy, CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
    set(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    set(easy, CURLOPT_FOLLOWLOCATION, 0L);
    set(easy, CURLOPT_NETRC, static_cast<long>(CURL_NETRC_IGNORED));
    set(easy, CURLOPT_PROXY, settings.proxy.c_str());  // "" turns off what the environment says
    set(easy, CURLOPT_NOPROXY, "");
    set(easy, CURLOPT_USERAGENT, "radiotower-notifier/" RADIOTOWER_VERSION);
    set(easy, CURLOPT_CONNECTTIMEOUT, std::min(connect_timeout_s, timeout_s));
    set(easy, CURLOPT_TIMEOUT, timeout_s);
    set(easy, CURLOPT_MAXAGE_CONN, longest_idle_s);
    set(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    set(easy, CURLOPT_SSL_VERIFYPEER, 1L);
    set(easy, CURLOPT_SSL_VERIFYHOST, 2L);
    set(easy, CURLOPT_SSLVERSION, static_cast<long>(CURL_SSLVERSION_TLSv1_2));
    if (!settings.ca_file.empty()) {
      set(easy, CURLOPT_CAINFO, settings.ca_file.c_str());
      set(easy, CURLOPT_CAPATH, static_cast<char*>(nullptr));
      set(easy, CURLOPT_CA_CACHE_TIMEOUT, 0L);  // a renewed file counts with the next connection
    }
    set(easy, CURLOPT_SSL_CTX_FUNCTION, &Transfer::context_made);
    set(easy, CURLOPT_SSL_CTX_DATA, static_cast<void*>(&transfer));
    set(easy, CURLOPT_WRITEFUNCTION, &Transfer::write);
    set(easy, CURLOPT_WRITEDATA, static_cast<void*>(&transfer));
    set(easy, CURLOPT_HEADERFUNCTION, &Transfer::header);
    set(easy, CURLOPT_HEADERDATA, static_cast<void*>(&transfer));
    set(easy, CURLOPT_URL, transfer.url.c_str());
  }

  void give_body(Transfer& transfer) const {
    CURL* easy = transfer.easy;
    append(transfer.headers, "Content-Type: application/json");
    append(transfer.headers, "Expect:");
    set(easy, CURLOPT_POST, 1L);
    set(easy, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(transfer.request.size()));
    set(easy, CURLOPT_READFUNCTION, &Transfer::read);
    set(easy, CURLOPT_READDATA, static_cast<void*>(&transfer));
    set(easy, CURLOPT_SEEKFUNCTION, &Transfer::seek);
    transfer.has_body = true;
  }

  void start(std::unique_ptr<Transfer> transfer) {
    set(transfer->easy, CURLOPT_HTTPHEADER, transfer->headers.get());
    if (const CURLMcode code = curl_multi_add_handle(multi, transfer->easy); code != CURLM_OK)
      throw std::runtime_error(fmt::format("libcurl takes no request: {}", curl_multi_strerror(code)));
    active.push_back(std::move(transfer));
  }

  const std::string& hook_of(const std::string& channel) const {
    const auto own = settings.hooks.find(channel);
    return own == settings.hooks.end() ? settings.hook : own->second;
  }

  std::string base_of(const std::string& channel) const {
    if (settings.bot()) return settings.url.substr(0, settings.url.find_last_not_of('/') + 1);
    const std::string& hook = hook_of(channel);
    return hook.substr(0, hook.rfind("/hooks/"));
  }

  Answer judge(Transfer& transfer, CURLcode code) const;
  std::string why_not(const Transfer& transfer, CURLcode code) const;

  Mattermost settings;
  std::vector<std::unique_ptr<Transfer>> idle, active;
  std::deque<std::pair<Done, Answer>> at_once;  // answers that need no request
  CURLM* multi = nullptr;
};

/// The sentence for a request that got no answer.
std::string Client::State::why_not(const Transfer& transfer, CURLcode code) const {
  const Authority at = authority_of(transfer.url);
  const std::string details = transfer.error[0] ? transfer.error : curl_easy_strerror(code);
  long system_error = 0;
  curl_easy_getinfo(transfer.easy, CURLINFO_OS_ERRNO, &system_error);
  switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST: return fmt::format("the name {} is not known here: check the URL and this host's DNS", at.host);
    case CURLE_COULDNT_RESOLVE_PROXY: return "the name of mattermost.proxy is not known here";
    case CURLE_COULDNT_CONNECT:
      return fmt::format("no connection to {}{}: is Mattermost running, and is this its port?", settings.proxy.empty() ? at.shown : "the proxy",
                         system_error ? fmt::format(" ({})", std::strerror(static_cast<int>(system_error))) : "");
    case CURLE_OPERATION_TIMEDOUT:
      return transfer.has_body && transfer.sent > 0
                 ? fmt::format("{} took the request and did not answer within {} s", at.shown, settings.timeout_s)
                 : fmt::format("no connection to {} in time: is it reachable from here, and is a firewall between?", at.shown);
    case CURLE_PEER_FAILED_VERIFICATION:
      if (std::string said = transfer.tls.explain(at.shown, at.host, settings.ca_file); !said.empty()) return said;
      if (std::string said = transfer.tls.explain_wrong_name(at.shown, at.host); !said.empty()) return said;
      return fmt::format("TLS with {}: {}", at.shown, details);
    case CURLE_SSL_CONNECT_ERROR:
      if (std::string said = transfer.tls.explain(at.shown, at.host, settings.ca_file); !said.empty()) return said;
      if (details.find("wrong version number") != std::string::npos || details.find("packet length too long") != std::string::npos)
        return fmt::format("{} speaks no TLS: its answer looks like plain HTTP; write http:// in the URL, or the port of TLS", at.shown);
      return fmt::format("TLS with {} failed: {}", at.shown, details);
    case CURLE_SSL_CACERT_BADFILE:
      try {
        if (!settings.ca_file.empty()) describe_ca_file(settings.ca_file);
      } catch (const std::runtime_error& e) {
        return e.what();
      }
      return fmt::format("TLS with {}: {}", at.shown, details);
    case CURLE_GOT_NOTHING:
    case CURLE_RECV_ERROR:
    case CURLE_SEND_ERROR:
    case CURLE_PARTIAL_FILE:
    case CURLE_SEND_FAIL_REWIND: return fmt::format("{} closed the connection before its answer was here", at.shown);
    default: return fmt::format("{}: {}", at.shown, details);
  }
}

Answer Client::State::judge(Transfer& transfer, CURLcode code) const {
  long status = 0;
  char* content_type = nullptr;
  curl_easy_getinfo(transfer.easy, CURLINFO_RESPONSE_CODE, &status);
  curl_easy_getinfo(transfer.easy, CURLINFO_CONTENT_TYPE, &content_type);
  Answer answer;
  // A status that says no is an answer, also when the rest of it is missing; a good one counts with its body alone.
  const bool answered = code == CURLE_OK || (transfer.too_long && status != 0) || status >= 300;
  if (answered) {
    answer = transfer.judge(static_cast<unsigned>(status), content_type ? content_type : "", transfer.answer, transfer.retry_after);
    if (transfer.too_long && answer.outcome == Outcome::again && status < 300) answer.reason += "; it is longer than any of Mattermost's";
  } else {
    // Only a whole body can become a post: its length is announced.
    const bool went_out = transfer.has_body && transfer.sent == transfer.request.size();
    answer.outcome = went_out && !transfer.harmless_twice ? Outcome::ambiguous : Outcome::again;
    answer.reason = why_not(transfer, code);
    answer.tls_failure = code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_CONNECT_ERROR || code == CURLE_SSL_CACERT_BADFILE;
  }
  replace_all(answer.reason, transfer.secret);
  replace_all(answer.reason, settings.token);
  return answer;
}

Client::Client(const Mattermost& settings) : state_(std::make_unique<State>(settings)) {
  if (!settings.ca_file.empty()) describe_ca_file(settings.ca_file);  // throws
}
Client::~Client() = default;

void Client::post_hook(const std::string& channel, const Json& payload, Done done) {
  const std::string& hook = state_->hook_of(channel);
  if (hook.empty()) {
    Answer answer;
    answer.outcome = Outcome::refused;
    answer.reason = "there is no hook for this channel: set mattermost.hook, or give it one in [mattermost.hooks]";
    state_->at_once.emplace_back(std::move(done), std::move(answer));
    return;
  }
  if (hook == prints) {
    fmt::print("\n{}{}\n{}\n", channel.starts_with('@') ? "" : "#", channel, for_terminal(payload, isatty(1) != 0));
    std::fflush(stdout);
    Answer answer;
    answer.outcome = Outcome::delivered;
    state_->at_once.emplace_back(std::move(done), std::move(answer));
    return;
  }
  auto transfer = state_->take();
  transfer->url = hook;
  transfer->secret = hook.substr(hook.rfind('/') + 1);
  // A hook of the channel's own posts where it is at home, also when it is locked to it or the channel is renamed.
  const bool own = state_->settings.hooks.contains(channel);
  if (own || channel.empty()) {
    transfer->request = payload.dump(-1, ' ', false, Json::error_handler_t::replace);
  } else {
    Json with_channel = payload;
    with_channel["channel"] = channel;
    transfer->request = with_channel.dump(-1, ' ', false, Json::error_handler_t::replace);
  }
  transfer->answer_limit = largest_hook_answer;
  transfer->harmless_twice = false;
  transfer->judge = [where = own ? std::string() : channel](unsigned status, std::string_view type, std::string_view body, std::string_view after) {
    return judge_hook(status, type, body, after, where);
  };
  transfer->done = std::move(done);
  transfer->headers.reset();
  state_->prepare(*transfer, state_->settings.timeout_s);
  state_->give_body(*transfer);
  state_->start(std::move(transfer));
}

void Client::rest(const char* method, const std::string& path, const Json& body, Done done) {
  auto transfer = state_->take();
  const std::string_view verb = method;
  transfer->url = state_->base_of({}) + "/api/v4" + path;
  transfer->secret = {};
  transfer->answer_limit = largest_rest_answer;
  transfer->harmless_twice = verb != "POST";
  transfer->judge = [what = fmt::format("{} {}", method, path.substr(0, path.find('?'))), harmless = verb != "POST"](
                        unsigned status, std::string_view type, std::string_view answer, std::string_view after) {
    Answer judged = judge_rest(status, type, answer, after, what);
    if (harmless && judged.outcome == Outcome::ambiguous) judged.outcome = Outcome::again;
    return judged;
  };
  transfer->done = std::move(done);
  transfer->headers.reset();
  append(transfer->headers, "Authorization: Bearer " + state_->settings.token);
  state_->prepare(*transfer, state_->settings.timeout_s);
  transfer->has_body = false;
  if (verb == "GET") {
    set(transfer->easy, CURLOPT_HTTPGET, 1L);
  } else {
    transfer->request = body.dump(-1, ' ', false, Json::error_handler_t::replace);
    state_->give_body(*transfer);
    if (verb != "POST") set(transfer->easy, CURLOPT_CUSTOMREQUEST, method);
  }
  state_->start(std::move(transfer));
}

void Client::ping(const std::string& channel, Done done) {
  auto transfer = state_->take();
  transfer->url = state_->base_of(channel) + "/api/v4/system/ping";
  transfer->secret = {};
  transfer->answer_limit = largest_hook_answer;
  transfer->harmless_twice = true;
  transfer->judge = [](unsigned status, std::string_view type, std::string_view body, std::string_view after) {
    Answer answer = judge_rest(status, type, body, after, "ping");
    if (status >= 200 && status < 500) answer.outcome = Outcome::delivered;
    return answer;
  };
  transfer->done = std::move(done);
  transfer->headers.reset();
  transfer->has_body = false;
  state_->prepare(*transfer, std::min<long>(ping_timeout_s, state_->settings.timeout_s));
  state_->start(std::move(transfer));
}

std::string Client::server_of(const std::string& channel) const { return without_secret(state_->base_of(channel)); }

void Client::turn(std::chrono::milliseconds patience) {
  State& state = *state_;
  int running = 0;
  const auto wait = state.at_once.empty() ? std::max<std::int64_t>(patience.count(), 0) : 0;
  curl_multi_perform(state.multi, &running);
  int waiting = 0;
  // What came to its end just now is told of first.
  std::vector<std::pair<Done, Answer>> finished;
  const auto collect = [&] {
    while (CURLMsg* message = curl_multi_info_read(state.multi, &waiting)) {
      if (message->msg != CURLMSG_DONE) continue;
      const auto found = std::find_if(state.active.begin(), state.active.end(), [&](const auto& t) { return t->easy == message->easy_handle; });
      if (found == state.active.end()) continue;
      std::unique_ptr<Transfer> transfer = std::move(*found);
      state.active.erase(found);
      const CURLcode code = message->data.result;
      Answer answer = state.judge(*transfer, code);
      curl_multi_remove_handle(state.multi, transfer->easy);
      finished.emplace_back(std::move(transfer->done), std::move(answer));
      transfer->done = nullptr;
      state.idle.push_back(std::move(transfer));
    }
  };
  collect();
  if (finished.empty() && wait > 0) {
    curl_multi_poll(state.multi, nullptr, 0, static_cast<int>(std::min<std::int64_t>(wait, 60'000)), nullptr);
    curl_multi_perform(state.multi, &running);
    collect();
  }
  while (!state.at_once.empty()) {
    finished.push_back(std::move(state.at_once.front()));
    state.at_once.pop_front();
  }
  std::exception_ptr first;
  for (auto& [done, answer] : finished) {
    try {
      done(std::move(answer));
    } catch (...) {  // the others are to hear of theirs all the same
      if (!first) first = std::current_exception();
    }
  }
  if (first) std::rethrow_exception(first);
}

void Client::wake() { curl_multi_wakeup(state_->multi); }

std::size_t Client::in_flight() const { return state_->active.size() + state_->at_once.size(); }

}  // namespace radiotower::notifier
