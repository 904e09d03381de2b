#include "notifier/commands.h"

#include <curl/curl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <thread>

#include "notifier/bot.h"
#include "notifier/clock.h"
#include "notifier/command_queue.h"
#include "notifier/config.h"
#include "notifier/mattermost.h"
#include "notifier/quiet.h"
#include "notifier/render.h"
#include "notifier/routes.h"
#include "notifier/sources/fields.h"
#include "notifier/text.h"
#include "radiotower/base/encoding.h"
#include "radiotower/service/configuration.h"

namespace radiotower::notifier {

namespace {

/// All of stdin, at most what the service would take.
std::optional<std::string> read_stdin() {
  std::string body;
  char buffer[16384];
  for (ssize_t n; (n = read(0, buffer, sizeof buffer)) > 0;) {
    body.append(buffer, static_cast<std::size_t>(n));
    if (body.size() > (1 << 20)) return std::nullopt;
  }
  return body;
}

using HeaderList = std::vector<std::pair<std::string, std::string>>;

bool parse_headers(const std::vector<std::string>& lines, HeaderList& headers) {
  for (const std::string& line : lines) {
    const std::size_t colon = line.find(':');
    if (colon == std::string::npos || colon == 0 || line.find_first_of("\r\n") != std::string::npos) {
      complain(fmt::format("\"{}\" is no header: \"X-GitHub-Event: push\"", for_terminal(line)));
      return false;
    }
    std::string name = line.substr(0, colon),
                value = line.substr(std::min(line.find_first_not_of(' ', colon + 1), line.size()));
    headers.emplace_back(lower_case(name), std::move(value));
  }
  return true;
}

/// The source of the settings under that name, else one of that format.
std::optional<Source> find_source(const Settings* settings, const std::string& name) {
  if (settings)
    for (const Source& source : settings->sources)
      if (source.name == name) return source;
  if (const auto format = format_of(name)) return Source{name, *format, {}, true, {}};
  complain(
      fmt::format("there is no source \"{}\": a [sources.NAME] of the configuration, or gitlab, jenkins, sonarqube, "
                  "artifactory, gitea, github, alertmanager, slack, generic",
                  for_terminal(name)));
  return std::nullopt;
}

/// The event of a body; nullopt once the reason stands on stderr, with the exit status in `status`.
std::optional<Event> event_of(const Source& source, const HeaderList& headers, const std::string& body, int& status) {
  const FindHeader find = [&](std::string_view wanted) -> std::string_view {
    for (const auto& [name, value] : headers)
      if (name == wanted) return value;
    return {};
  };
  std::string why;
  status = 1;
  const auto json = parse_json(body, why);
  if (!json) {
    complain(why);
    return std::nullopt;
  }
  Parsed parsed = parse({source.name, source.format, find, *json, body, &source.templates});
  if (const auto* wrong = std::get_if<Malformed>(&parsed)) {
    complain(wrong->why);
    return std::nullopt;
  }
  if (const auto* dropped = std::get_if<Dropped>(&parsed)) {
    fmt::print("dropped on purpose: {}\n", dropped->reason);
    status = 0;
    return std::nullopt;
  }
  return std::get<Event>(std::move(parsed));
}

int post_to_queue(const Settings& settings, const Event& event) {
  return with_queue(settings, [&](Queue& queue) {
    std::string why;
    const auto results = queue.store(
        std::span(&event, 1), unix_now(),
        [&](const Event& e, const Change& change, std::string& reason) { return route(settings, e, change, reason); });
    switch (results.at(0).stored) {
      case Stored::stored: fmt::print("stored; the running service posts it\n"); break;
      case Stored::duplicate: fmt::print("a duplicate: it came before\n"); break;
      case Stored::unrouted: fmt::print("not posted: {}\n", results[0].why); break;
    }
    return 0;
  });
}

std::size_t keep(char* data, std::size_t size, std::size_t count, void* to) {
  auto& text = *static_cast<std::string*>(to);
  if (text.size() < 4096) text.append(data, std::min(size * count, 4096 - text.size()));
  return size * count;
}

constexpr long hopeless = -1;

/// One try. The status; or 0 with a sentence in `said`, or `hopeless` where it would always be that sentence.
long post_once(const PostCommand& command, const std::string& url, const std::string& secret, const HeaderList& headers,
               const std::string& body, std::string& said) {
  CURL* curl = curl_easy_init();
  curl_slist* list = curl_slist_append(nullptr, "Content-Type: application/json");
  list = curl_slist_append(list, "Expect:");
  if (!secret.empty()) list = curl_slist_append(list, ("Authorization: Bearer " + secret).c_str());
  for (const auto& [name, value] : headers) list = curl_slist_append(list, (name + ": " + value).c_str());
  char error[CURL_ERROR_SIZE] = "";
  said.clear();
  curl_easy_setopt(curl, CURLOPT_URL, url.c_str());
  curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(curl, CURLOPT_HTTPHEADER, list);
  curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body.data());
  curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(body.size()));
  curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, keep);
  curl_easy_setopt(curl, CURLOPT_WRITEDATA, &said);
  curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, error);
  curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl, CURLOPT_PROXY, "");
  curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, 10L);
  curl_easy_setopt(curl, CURLOPT_TIMEOUT, 30L);
  if (!command.ca_file.empty()) curl_easy_setopt(curl, CURLOPT_CAINFO, command.ca_file.c_str());
  const CURLcode result = curl_easy_perform(curl);
  long status = 0;
  if (result == CURLE_OK)
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
  else
    said = *error ? error : curl_easy_strerror(result);
  if (result == CURLE_PEER_FAILED_VERIFICATION)
    said += command.ca_file.empty() ? " (--ca-file names the city's own CA)"
                                    : fmt::format(" (what {} holds does not vouch for it)", command.ca_file);
  if (result == CURLE_SSL_CONNECT_ERROR && (said.find("wrong version number") != std::string::npos ||
                                            said.find("packet length too long") != std::string::npos)) {
    said = "it does not speak TLS at this port: write http:// instead of https://";
    status = hopeless;
  }
  curl_slist_free_all(list);
  curl_easy_cleanup(curl);
  return status;
}

int post_to_service(const PostCommand& command, const HeaderList& headers, const std::string& body) {
  std::string secret;
  if (!command.secret_file.empty()) {
    ConfigErrors errors;
    for_each_secret_line(command.secret_file, "", errors, [&](std::string_view line, int) {
      if (secret.empty()) secret = line;
    });
    for (const auto& error : errors) complain(error.text());
    if (!errors.empty()) return 1;
  } else if (const char* given = std::getenv("RADIOTOWER_NOTIFIER_SECRET")) {
    secret = given;
  }
  std::string url = command.url;
  while (url.ends_with('/')) url.pop_back();
  url += "/v1/" + command.source;
  const auto patience = std::chrono::steady_clock::now() + std::chrono::seconds(command.wait_s);
  std::string said;
  for (auto pause = std::chrono::milliseconds(500);; pause = std::min(pause * 2, std::chrono::milliseconds(5000))) {
    const long status = post_once(command, url, secret, headers, body, said);
    while (!said.empty() && said.back() == '\n') said.pop_back();
    if (status >= 200 && status < 300) {
      fmt::print("{}\n", for_terminal(said));
      return 0;
    }
    if (status == hopeless) return complain(fmt::format("{}: {}", without_secret(url), said));
    if (status != 0 && status != 503)
      return complain(fmt::format("{} answered {}: {}", without_secret(url), status, for_terminal(said)));
    if (std::chrono::steady_clock::now() + pause >= patience) {
      complain(fmt::format("{}: {}", without_secret(url), for_terminal(said)));
      return 3;
    }
    std::this_thread::sleep_for(pause);
  }
}

/// 2 once a sentence stands on stderr: a person's slip, which a service would take for a word of the sender's own.
int check_description(const PostCommand& command) {
  if (!command.status.empty() && lower_words(command.status) != "none" &&
      lenient_status(command.status) == Status::none) {
    complain(
        fmt::format("--status \"{}\" is not known: success, unstable, failed, canceled, skipped, running, pending or "
                    "waiting",
                    for_terminal(command.status)));
    return 2;
  }
  double seconds = 0;
  const char* const end = command.duration.data() + command.duration.size();
  const auto read = std::from_chars(command.duration.data(), end, seconds);
  if (!command.duration.empty() &&
      (read.ec != std::errc() || read.ptr != end || !std::isfinite(seconds) || seconds < 0)) {
    complain(fmt::format("--duration \"{}\" is no number of seconds: 95, or 1.5", for_terminal(command.duration)));
    return 2;
  }
  return 0;
}

}  // namespace

int post(const PostCommand& given, const Settings* settings) {
  PostCommand command = given;
  HeaderList headers;
  if (!parse_headers(command.headers, headers)) return 2;
  std::string body;
  if (const int wrong = check_description(command); wrong != 0) return wrong;
  const bool described = !command.text.empty() || !command.title.empty() || !command.status.empty();
  if (described) {
    Json json = Json::object();
    const std::pair<const char*, const std::string*> fields[] = {
        {"text", &command.text},     {"title", &command.title},     {"status", &command.status},
        {"url", &command.link},      {"project", &command.project}, {"branch", &command.branch},
        {"commit", &command.commit}, {"author", &command.author},   {"duration_s", &command.duration},
        {"number", &command.number}};
    for (const auto& [name, value] : fields)
      if (!value->empty()) json[name] = *value;
    body = json.dump(-1, ' ', false, Json::error_handler_t::replace);
    if (command.source.empty()) command.source = "generic";
  } else {
    if (command.source.empty()) {
      complain("--source says what the JSON on stdin is; or describe the post: --text ... --status failed");
      return 2;
    }
    auto read = read_stdin();
    if (!read) return complain("the event is longer than 1 MiB");
    body = std::move(*read);
  }
  if (!command.url.empty()) return post_to_service(command, headers, body);
  if (!settings) {
    complain(
        "where to? --url (or RADIOTOWER_NOTIFIER_URL) names a running service, --config the configuration of the one "
        "on this host");
    return 2;
  }
  const auto source = find_source(settings, command.source);
  if (!source) return 2;
  int status = 0;
  const auto event = event_of(*source, headers, body, status);
  return event ? post_to_queue(*settings, *event) : status;
}

namespace {

/// ", held back until 07:00" of a post that quiet hours would hold back now; of others by their hours.
std::string held_back(const Post& post) {
  if (!post.quiet) return {};
  const auto [from, to] = *post.quiet;
  if (end_of_quiet(*post.quiet, unix_now()) != 0) return fmt::format(", held back until {:02}:{:02}", to / 60, to % 60);
  return fmt::format(", held back from {:02}:{:02} until {:02}:{:02}", from / 60, from % 60, to / 60, to % 60);
}

}  // namespace

int preview(const Settings& settings, const std::string& source_name, const std::string& change_word,
            const std::vector<std::string>& header_lines) {
  HeaderList headers;
  if (!parse_headers(header_lines, headers)) return 2;
  const auto source = find_source(&settings, source_name);
  if (!source) return 2;
  const auto body = read_stdin();
  if (!body) return complain("the event is longer than 1 MiB");
  int status = 0;
  const auto event = event_of(*source, headers, *body, status);
  if (!event) return status;
  Change change;
  change.turn = Turn::first;
  if (event->history_key.empty()) change.turn = Turn::none;
  for (const Turn turn : {Turn::broken, Turn::still_failing, Turn::fixed})
    if (change_word == word(turn)) change = {turn, turn == Turn::still_failing ? 3u : 1u, 7200};
  std::string why;
  const auto posts = route(settings, *event, change, why);
  fmt::print("{} {} of {}{}{}\n", for_terminal(event->source), for_terminal(event->kind),
             event->project.empty() ? "no project" : for_terminal(event->project),
             event->status == Status::none ? "" : ", ", event->status == Status::none ? "" : word(event->status));
  if (posts.empty()) fmt::print("not posted: {}\n", why);
  for (const Post& post : posts)
    fmt::print("\n{} by {}{}\n{}\n", channel_as_shown(post.channel), post.route, held_back(post),
               for_terminal(render(post), isatty(1) != 0));
  return 0;
}

int send_test(const Settings& settings, const std::string& name) {
  const std::string channel = name.starts_with('#') ? name.substr(1) : name;
  if (!is_channel_name(channel)) {
    complain(
        fmt::format("\"{}\" is not the name of a channel in URLs: {}", for_terminal(channel), channel_name_in_short));
    return 2;
  }
  try {
    Client client(settings.mattermost);
    std::optional<Answer> answer;
    const Json payload = {
        {"attachments",
         Json::array({{{"fallback", "Radiotower can post here."},
                       {"color", "#2fa44f"},
                       {"title", "Radiotower can post here."},
                       {"text", "A test of `radiotower-notifier send-test`: the way to this channel works."}}})}};
    const bool bot = settings.mattermost.bot();
    Bot speaker(client, settings.mattermost.team);
    if (bot) {
      Bot::Task task;
      task.channel = channel;
      task.payload = payload;
      task.identity = fmt::format("send-test-{}-{}", getpid(), unix_now());  // Mattermost posts none twice
      speaker.say(std::move(task), [&](Bot::Result result) { answer = std::move(result.answer); });
    } else {
      client.post_hook(channel, payload, [&](Answer a) { answer = std::move(a); });
    }
    while (!answer) client.turn(std::chrono::milliseconds(200));
    const std::string shown = channel_as_shown(channel);
    if (answer->outcome == Outcome::delivered) {
      if (bot || settings.mattermost.hook != prints || settings.mattermost.hooks.contains(channel))
        fmt::print("Mattermost took it: look at {}\n", shown);
      return 0;
    }
    std::string what = fmt::format("{}: {}", shown, answer->reason);
    if (channel.starts_with('@') && answer->outcome == Outcome::refused)
      what += fmt::format("; or there is no user {}", channel.substr(1));
    return complain(what);
  } catch (const std::exception& error) {
    return complain(error.what());
  }
}

void describe(const Settings& settings) {
  const std::string scheme = settings.certificate.empty() ? "http" : "https";
  for (const Source& source : settings.sources)
    fmt::print("takes   {}://{}/v1/{} ({}{})\n", scheme, settings.listen.front(), source.name, name(source.format),
               source.open
                   ? ", from anyone"
                   : fmt::format(", {} secret{}", source.secrets.size(), source.secrets.size() == 1 ? "" : "s"));
  for (const Route& r : settings.routes)
    fmt::print("routes  {} -> {}\n", r.name, r.channel.empty() ? "dropped" : channel_as_shown(r.channel));
  if (settings.mattermost.bot())
    fmt::print("posts   to {} as a bot of team {}\n", without_secret(settings.mattermost.url),
               settings.mattermost.team);
  else if (settings.mattermost.hook == prints)
    fmt::print("posts   to stdout: hook = \"print\"\n");
  else if (!settings.mattermost.hook.empty())
    fmt::print("posts   to {}\n", without_secret(settings.mattermost.hook));
  for (const auto& [channel, hook] : settings.mattermost.hooks)
    if (!settings.mattermost.bot()) fmt::print("posts   {} to {}\n", channel_as_shown(channel), without_secret(hook));
  fmt::print("keeps   {}\n", settings.queue == "sqlite" ? settings.state + "/queue.sqlite" : "its queue in PostgreSQL");
}

}  // namespace radiotower::notifier
