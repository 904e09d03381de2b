// What answers of Mattermost mean, and what its URLs look like: the pure half of mattermost.h.
#include <curl/curl.h>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <ctime>

#include "notifier/mattermost.h"
#include "radiotower/base/encoding.h"

namespace radiotower::notifier {

namespace {

bool is_alphanumeric(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

/// Text of a server for a line of ours: printable ASCII, short, and without anything that could be an id of Mattermost, because error
/// messages since 10.x name the hook.
std::string harmless(std::string_view text) {
  constexpr std::size_t longest = 160, shortest_id = 16;
  std::string out;
  for (std::size_t i = 0; i < text.size() && out.size() < longest;) {
    const std::size_t word = i;
    while (i < text.size() && is_alphanumeric(text[i])) ++i;
    if (i - word >= shortest_id) out += "...";
    else out += text.substr(word, i - word);
    if (i < text.size()) {
      out += text[i] >= 0x20 && text[i] < 0x7F ? text[i] : ' ';
      ++i;
    }
  }
  if (out.size() > longest) out.resize(longest);
  return out;
}

struct Complaint {  // the error body of Mattermost
  bool is_mattermosts = false;
  std::string id, message;
};

Complaint complaint(std::string_view body) {
  const Json json = Json::parse(body, nullptr, false);
  if (!json.is_object() || !json.contains("message") || !json["message"].is_string()) return {};
  const auto id = json.find("id");
  return {true, id != json.end() && id->is_string() ? harmless(id->get_ref<const std::string&>()) : "",
          harmless(json["message"].get_ref<const std::string&>())};
}

/// How the server put it, for the end of a sentence.
std::string in_its_words(const Complaint& said) {
  if (!said.is_mattermosts) return "; the answer is not Mattermost's own: does something else answer at this address?";
  return said.message.empty() ? "" : fmt::format(" (it says: {})", said.message);
}

std::optional<std::chrono::seconds> waiting_time(std::string_view retry_after) {
  if (retry_after.empty()) return std::nullopt;
  constexpr std::int64_t shortest = 1, longest = 3600;  // whoever sends a mistake must not stop us for a year
  std::int64_t wait = 0;
  const auto [end, error] = std::from_chars(retry_after.data(), retry_after.data() + retry_after.size(), wait);
  if (error == std::errc::result_out_of_range) wait = longest;
  else if (error != std::errc{} || end != retry_after.data() + retry_after.size()) {
    const std::time_t until = curl_getdate(std::string(retry_after).c_str(), nullptr);
    if (until < 0) return std::nullopt;
    wait = until - std::time(nullptr);
  }
  return std::chrono::seconds(std::clamp(wait, shortest, longest));
}

bool is_tls_port_in_plain(std::string_view body) {
  const std::string said = lower_case(body.substr(0, 1000));
  return said.find("http request to an https server") != std::string::npos || said.find("http request was sent to https port") != std::string::npos;
}

Answer answer_of(Outcome outcome, unsigned status, std::string reason) {
  Answer answer;
  answer.outcome = outcome;
  answer.status = status;
  answer.reason = std::move(reason);
  return answer;
}
Answer refused(unsigned status, std::string reason) { return answer_of(Outcome::refused, status, std::move(reason)); }

/// What both ways out share: everything but 2xx and the meaning of 4xx. nullopt: not among these.
std::optional<Answer> judge_common(unsigned status, std::string_view body, std::string_view retry_after) {
  Answer answer = answer_of(Outcome::again, status, {});
  if (status == 429) {
    answer.retry_after = waiting_time(retry_after);
    answer.reason = answer.retry_after ? fmt::format("Mattermost's rate limit: it asks to wait {} s (429)", answer.retry_after->count())
                                       : "Mattermost's rate limit, without a word on how long (429)";
  } else if (status >= 500 && status != 501) {
    answer.server_error = status == 500;
    const Complaint said = complaint(body);
    // A proxy has lost Mattermost's answer: the post may be there.
    const bool lost = (status == 502 || status == 504) && !said.is_mattermosts;
    if (lost) answer.outcome = Outcome::ambiguous;
    answer.reason = status == 500 ? fmt::format("Mattermost failed inside (500){}", said.is_mattermosts ? in_its_words(said) : "")
                    : lost          ? fmt::format("the proxy before Mattermost had no answer of it ({})", status)
                                    : fmt::format("{} is not there just now ({})", said.is_mattermosts ? "Mattermost" : "Mattermost, behind its proxy,", status);
  } else if (status >= 300 && status < 400) {
    answer.reason = fmt::format("a redirect ({}), which is not followed: the URL in the settings must be the final one", status);
  } else if (status == 408 || status == 425) {
    answer.reason = fmt::format("the server did not take the request ({})", status);
  } else if (status == 400 && is_tls_port_in_plain(body)) {
    answer.reason = "plain HTTP was sent to a port that speaks TLS: write https:// in the URL";
  } else if (status < 200) {
    answer.reason = fmt::format("an answer that means nothing here ({})", status);
  } else {
    return std::nullopt;
  }
  return answer;
}

std::string place(std::string_view channel) { return channel.empty() ? "the hook's own channel" : fmt::format("\"{}\"", channel); }

bool is_html(std::string_view content_type, std::string_view body) {
  return lower_case(content_type).find("html") != std::string::npos || lower_case(body.substr(0, 15)).find("<!doctype") != std::string::npos || body.substr(0, 5) == "<html";
}

struct Url {
  bool ok = false;
  std::string scheme, host, port, path;
  bool has_query = false;
};

/// False: `why` and `hint` say so. Nothing of the path gets into them, because it may be the secret.
bool parse_url(std::string_view text, Url& url, std::string& why, std::string& hint) {
  const auto scheme_end = text.find("://");
  if (scheme_end == std::string_view::npos) {
    why = "the URL has no scheme";
    hint = "it begins with https:// (or http:// in a network you trust)";
    return false;
  }
  url.scheme = lower_case(text.substr(0, scheme_end));
  if (url.scheme != "https" && url.scheme != "http") {
    why = "the URL's scheme is neither https nor http";
    hint = "write https://";
    return false;
  }
  if (std::any_of(text.begin(), text.end(), [](char c) { return c <= 0x20 || c == 0x7F || c == '\\' || c == '"'; })) {
    why = "the URL holds a blank or another character that no URL may hold";
    hint = "copy it anew, without what stands around it";
    return false;
  }
  std::string_view rest = text.substr(scheme_end + 3);
  const auto path_start = std::min(rest.find_first_of("/?#"), rest.size());
  const std::string_view authority = rest.substr(0, path_start);
  rest.remove_prefix(path_start);
  if (authority.find('@') != std::string_view::npos) {
    why = "the URL holds a user name";
    hint = "leave out what stands before the @";
    return false;
  }
  const bool bracketed = !authority.empty() && authority.front() == '[';
  const auto host_end = bracketed ? authority.find(']') : authority.find(':');
  if (bracketed && host_end == std::string_view::npos) {
    why = "an IPv6 address stands between [ and ]";
    hint = "for example https://[fd00::5]:8065";
    return false;
  }
  const auto port_start = bracketed ? host_end + 1 : std::min(host_end, authority.size());
  url.host = authority.substr(0, port_start);
  std::string_view port = authority.substr(port_start);
  if (url.host.empty() || url.host == "[]") {
    why = "the URL has no host";
    hint = "for example https://chat.city.example/hooks/...";
    return false;
  }
  if (!port.empty()) {
    unsigned number = 0;
    const auto [end, error] = std::from_chars(port.data() + 1, port.data() + port.size(), number);
    if (port.front() != ':' || port.size() < 2 || error != std::errc{} || end != port.data() + port.size() || number == 0 || number > 65535) {
      why = "the URL's port is no number from 1 to 65535";
      hint = "Mattermost's own port is 8065; behind a proxy leave it out";
      return false;
    }
    url.port = port.substr(1);
  }
  const auto query = rest.find_first_of("?#");
  url.has_query = query != std::string_view::npos;
  url.path = rest.substr(0, query);
  return url.ok = true;
}

}  // namespace

Answer judge_hook(unsigned status, std::string_view content_type, std::string_view body, std::string_view retry_after, std::string_view channel) {
  if (status == 200 && body == "ok") return answer_of(Outcome::delivered, status, {});
  if (auto answer = judge_common(status, body, retry_after)) return *answer;
  if (status < 300) {
    return answer_of(Outcome::again, status,
                     fmt::format("{} instead of Mattermost's \"ok\" ({}): the URL leads past the webhooks; check host, port and the /hooks path",
                                 is_html(content_type, body) ? "a web page" : "another answer", status));
  }
  const Complaint said = complaint(body);
  switch (status) {
    case 400:
      return refused(status, fmt::format("Mattermost knows no such hook, or cannot read this post (400): was the webhook deleted, or its channel archived? "
                                         "See Integrations > Incoming Webhooks, and put the new URL into [mattermost]{}", in_its_words(said)));
    case 401:
      return refused(status, "something before Mattermost asks for a login (401): webhooks need none, so let the proxy pass /hooks");
    case 403:
      return refused(status, fmt::format("the hook may not post to {} (403): it is locked to its own channel (untick \"Lock to this channel\", or give this channel "
                                         "a hook of its own in [mattermost.hooks]), or its owner may not read that channel{}", place(channel), in_its_words(said)));
    case 404:
      return refused(status, channel.empty() || !said.is_mattermosts
                                 ? fmt::format("there is nothing to post to (404): the hook's channel is gone, or the URL is wrong{}", in_its_words(said))
                                 : fmt::format("there is no channel {} in the hook's team (404): what counts is the name in the channel's URL, not the one that is "
                                               "shown; or the hook's own channel is gone", place(channel)));
    case 405: return refused(status, "the URL is not that of a webhook (405): it ends in /hooks/ and the id, without anything behind it");
    case 413: return refused(status, "the post is too large for Mattermost or its proxy (413)");
    case 414: return refused(status, "the URL is too long for Mattermost (414)");
    case 501:
      return refused(status, "incoming webhooks are disabled (501): System Console > Integrations > Integration Management > Enable Incoming Webhooks");
    default: return refused(status, fmt::format("the post was refused ({}){}", status, in_its_words(said)));
  }
}

Answer judge_rest(unsigned status, std::string_view, std::string_view body, std::string_view retry_after, std::string_view what) {
  if (status >= 200 && status < 300) {
    Json json = Json::parse(body, nullptr, false);
    if (!json.is_object() && !json.is_array())
      return answer_of(Outcome::again, status,
                       fmt::format("{}: the answer is not JSON ({}): mattermost.url leads past Mattermost's API; check host, port and path", what, status));
    Answer answer = answer_of(Outcome::delivered, status, {});
    answer.body = std::move(json);
    return answer;
  }
  if (auto answer = judge_common(status, body, retry_after)) {
    answer->reason = fmt::format("{}: {}", what, answer->reason);
    return *answer;
  }
  const Complaint said = complaint(body);
  std::string reason;
  switch (status) {
    case 401: reason = "the bot's token is not accepted (401): it was revoked or is mistyped, or bot accounts are disabled in the System Console"; break;
    case 403: reason = "the bot may not do that (403): add it to the team and to the channel, and see that its role may post there"; break;
    case 404: reason = "not found (404): what counts is the name in the URL of team and channel, not the one that is shown; a private channel is seen by members alone, so add the bot to it"; break;
    case 405: reason = "Mattermost's API is not at this address (405): mattermost.url is https://HOST[:PORT][/SUBPATH], without /api"; break;
    case 413: reason = "too large for Mattermost or its proxy (413)"; break;
    case 501: reason = "this is disabled in the System Console (501)"; break;
    default: reason = fmt::format("refused ({})", status);
  }
  Answer answer = refused(status, fmt::format("{}: {}{}", what, reason, in_its_words(said)));
  answer.body = said.id.empty() ? Json() : Json{{"id", said.id}};
  return answer;
}

bool check_hook(std::string_view text, std::string& why, std::string& hint) {
  if (text.empty()) {
    why = "there is no hook";
    hint = "Mattermost: Integrations > Incoming Webhooks > Add, then copy its URL";
    return false;
  }
  Url url;
  if (!parse_url(text, url, why, hint)) return false;
  const auto fail = [&](const char* what, const char* advice) {
    why = what;
    hint = advice;
    return false;
  };
  if (url.has_query) return fail("a hook's URL has nothing behind a ? or #", "it ends in /hooks/ and the id");
  const auto hooks = url.path.rfind("/hooks/");
  if (hooks == std::string::npos) {
    if (url.path.find("/channels/") != std::string::npos || url.path.find("/messages/") != std::string::npos)
      return fail("this is the address of a channel's page, not of a webhook", "Mattermost: Integrations > Incoming Webhooks > Add, then copy its URL");
    if (url.path.find("/services/") != std::string::npos) return fail("this is a hook of Slack", "Mattermost's end in /hooks/ and an id");
    return fail("the path has no /hooks/", "a hook is https://HOST[:PORT][/SUBPATH]/hooks/ID");
  }
  const std::string_view id = std::string_view(url.path).substr(hooks + 7);
  if (id.substr(0, 9) == "commands/") return fail("this is the answer URL of a slash command, which ends after 30 minutes", "an incoming webhook ends in /hooks/ID");
  if (url.path.find("/api/v4/") != std::string::npos) return fail("this is the API for managing hooks, not a hook", "a hook is https://HOST[:PORT][/SUBPATH]/hooks/ID");
  if (id.empty()) return fail("the hook's id is missing", "copy the whole URL: /hooks/ and 26 letters and digits");
  if (id.back() == '/') return fail("a slash stands behind the hook's id", "Mattermost answers 405 to that: leave the slash out");
  if (!std::all_of(id.begin(), id.end(), is_alphanumeric)) return fail("the hook's id holds something else than letters and digits", "26 letters and digits, without dashes; copy the URL anew");
  return true;
}

bool check_base_url(std::string_view text, std::string& why, std::string& hint) {
  Url url;
  if (!parse_url(text, url, why, hint)) return false;
  hint = "https://HOST[:PORT][/SUBPATH], as people open Mattermost, without team, channel or /api";
  if (url.has_query) return why = "Mattermost's address has nothing behind a ? or #", false;
  if (url.path.find("/hooks") != std::string::npos) return why = "this is the URL of a webhook: it belongs into mattermost.hook", false;
  if (url.path.find("/api/") != std::string::npos || url.path.ends_with("/api")) return why = "the path of the API is added by itself", false;
  if (url.path.find("/channels/") != std::string::npos) return why = "this is the address of a channel's page", false;
  hint.clear();
  return true;
}

std::string without_secret(std::string_view text) {
  Url url;
  std::string why, hint;
  if (!parse_url(text, url, why, hint)) return "(no URL)";
  return fmt::format("{}://{}{}{}/\u2026", url.scheme, url.host, url.port.empty() ? "" : ":", url.port);
}

}  // namespace radiotower::notifier
