#include "notifier/commands.h"

#include <curl/curl.h>
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <iostream>
#include <iterator>
#include <thread>

#include "notifier/mattermost.h"
#include "notifier/queue.h"
#include "notifier/render.h"
#include "notifier/routes.h"
#include "notifier/sources/source.h"
#include "notifier/text.h"
#include "radiotower/service/configuration.h"

namespace radiotower::notifier {

namespace {

UnixMilliseconds now_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

int complain(const std::string& what) {
  fmt::print(stderr, "radiotower-notifier: {}\n", what);
  return 1;
}

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
    std::transform(name.begin(), name.end(), name.begin(),
                   [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
    headers.emplace_back(std::move(name), std::move(value));
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
  Parsed parsed = parse(
      {source.name, source.format, find, *json, body, source.format == Format::generic ? &source.templates : nullptr});
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

std::unique_ptr<Queue> open_queue(const Settings& settings) {
  return std::make_unique<Queue>(open_queue_database(settings.queue, settings.state),
                                 fmt::format("command:{}", getpid()));
}

/// Runs `work` on the queue; mistakes of the database become one line.
template <typename Work>
int with_queue(const Settings& settings, Work&& work) {
  try {
    return work(*open_queue(settings));
  } catch (const std::exception& error) {
    return complain(
        fmt::format("the queue ({}): {}", settings.queue == "sqlite" ? settings.state : "PostgreSQL", error.what()));
  }
}

int post_to_queue(const Settings& settings, const Event& event) {
  return with_queue(settings, [&](Queue& queue) {
    std::string why;
    const auto results = queue.store(
        std::span(&event, 1), now_ms(),
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

/// One try. The status, or 0 with a sentence in `said`.
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
    if (status != 0 && status != 503)
      return complain(fmt::format("{} answered {}: {}", without_secret(url), status, for_terminal(said)));
    if (std::chrono::steady_clock::now() + pause >= patience) {
      complain(fmt::format("{}: {}", without_secret(url), for_terminal(said)));
      return 3;
    }
    std::this_thread::sleep_for(pause);
  }
}

}  // namespace

int post(const PostCommand& given, const Settings* settings) {
  PostCommand command = given;
  HeaderList headers;
  if (!parse_headers(command.headers, headers)) return 2;
  std::string body;
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
             event->status == Status::none ? "" : ", ", word(event->status));
  if (posts.empty()) fmt::print("not posted: {}\n", why);
  winsize size{};
  const bool terminal = isatty(1) && ioctl(1, TIOCGWINSZ, &size) == 0;
  (void)size;
  for (const Post& post : posts)
    fmt::print("\n#{} by {}\n{}\n", post.channel, post.route, for_terminal(render(post), terminal));
  return 0;
}

int send_test(const Settings& settings, const std::string& name) {
  const std::string channel = name.starts_with('#') ? name.substr(1) : name;
  try {
    Client client(settings.mattermost);
    std::optional<Answer> answer;
    const auto done = [&](Answer a) { answer = std::move(a); };
    const auto wait = [&] {
      while (!answer) client.turn(std::chrono::milliseconds(200));
    };
    const Json payload = {
        {"attachments",
         Json::array({{{"fallback", "Radiotower can post here."},
                       {"color", "#2fa44f"},
                       {"title", "Radiotower can post here."},
                       {"text", "A test of `radiotower-notifier send-test`: the way to this channel works."}}})}};
    if (settings.mattermost.bot()) {
      client.rest("GET", fmt::format("/teams/name/{}/channels/name/{}", settings.mattermost.team, channel), nullptr,
                  done);
      wait();
      if (answer->outcome == Outcome::delivered) {
        const Json body = {{"channel_id", answer->body.value("id", "")}, {"message", ""}, {"props", payload}};
        answer.reset();
        client.rest("POST", "/posts", body, done);
        wait();
      }
    } else {
      client.post_hook(channel, payload, done);
      wait();
    }
    if (answer->outcome != Outcome::delivered)
      return complain(fmt::format("#{}: {}", for_terminal(channel), answer->reason));
    fmt::print("Mattermost took it: look at #{}\n", for_terminal(channel));
    return 0;
  } catch (const std::exception& error) {
    return complain(error.what());
  }
}

namespace {

std::string when(UnixMilliseconds at) {
  const std::time_t whole = at / 1000;
  std::tm t{};
  localtime_r(&whole, &t);
  return fmt::format("{:04}-{:02}-{:02} {:02}:{:02}", t.tm_year + 1900, t.tm_mon + 1, t.tm_mday, t.tm_hour, t.tm_min);
}

std::string summary(const DeadLetter& letter) {
  try {
    const Event event = post_from_json(Json::parse(letter.json)).event;
    return for_terminal(fmt::format("{} {} {} {}", event.project, event.branch, event.title, word(event.status)));
  } catch (const std::exception&) {
    return "(unreadable)";
  }
}

}  // namespace

int dead_list(const Settings& settings) {
  return with_queue(settings, [&](Queue& queue) {
    std::int64_t after = 0;
    std::size_t total = 0;
    for (;;) {
      const auto letters = queue.dead(200, after);
      if (letters.empty()) break;
      for (const DeadLetter& letter : letters) {
        if (total++ == 0)
          fmt::print("{:>8}  {:16}  {:20}  {}\n", "id", "died", "channel", "what, and why it could not be posted");
        fmt::print("{:>8}  {:16}  {:20}  {}\n{:>50}{}\n", letter.id, when(letter.died), "#" + letter.channel,
                   summary(letter), "", for_terminal(letter.reason));
        after = letter.id;
      }
    }
    if (total == 0)
      fmt::print("no dead letters\n");
    else
      fmt::print("{} dead letter{}: `dead show ID`, `dead retry ID...|--all`, `dead drop ID...|--all`\n", total,
                 total == 1 ? "" : "s");
    return 0;
  });
}

int dead_show(const Settings& settings, std::int64_t id) {
  return with_queue(settings, [&](Queue& queue) {
    const auto letter = queue.dead_letter(id);
    if (!letter) return complain(fmt::format("there is no dead letter {}", id));
    fmt::print("{} for #{}: made {}, dead since {}, tried {} times\nreason: {}\n\n", letter->id, letter->channel,
               when(letter->made), when(letter->died), letter->attempts, for_terminal(letter->reason));
    fmt::print("{}\n", for_terminal(render(post_from_json(Json::parse(letter->json))), isatty(1) != 0));
    return 0;
  });
}

int dead_retry(const Settings& settings, const std::vector<std::int64_t>& ids, bool all) {
  if (ids.empty() && !all) return complain("which? ids of `dead list`, or --all");
  return with_queue(settings, [&](Queue& queue) {
    const std::size_t n = queue.retry_dead(all ? std::span<const std::int64_t>() : std::span(ids), now_ms());
    fmt::print("{} wait{} again; the running service posts {}\n", n, n == 1 ? "s" : "", n == 1 ? "it" : "them");
    return all || n == ids.size() ? 0 : complain(fmt::format("{} of the ids are no dead letters", ids.size() - n));
  });
}

int dead_drop(const Settings& settings, const std::vector<std::int64_t>& ids, bool all) {
  if (ids.empty() && !all) return complain("which? ids of `dead list`, or --all");
  return with_queue(settings, [&](Queue& queue) {
    std::vector<std::int64_t> these = ids;
    // Those that are there now: what dies meanwhile was not meant.
    for (std::int64_t after = 0; all;) {
      const auto letters = queue.dead(200, after);
      if (letters.empty()) break;
      for (const DeadLetter& letter : letters) these.push_back(after = letter.id);
    }
    const std::size_t n = queue.drop_dead(these);
    fmt::print("{} dropped\n", n);
    return all || n == ids.size() ? 0 : complain(fmt::format("{} of the ids are no dead letters", ids.size() - n));
  });
}

void describe(const Settings& settings) {
  const std::string scheme = settings.certificate.empty() ? "http" : "https";
  for (const Source& source : settings.sources)
    fmt::print("takes   {}://{}/v1/{} ({}{})\n", scheme, settings.listen.front(), source.name, name(source.format),
               source.open
                   ? ", from anyone"
                   : fmt::format(", {} secret{}", source.secrets.size(), source.secrets.size() == 1 ? "" : "s"));
  for (const Route& r : settings.routes)
    fmt::print("routes  {} -> {}\n", r.name, r.channel.empty() ? "dropped" : "#" + r.channel);
  if (settings.mattermost.bot())
    fmt::print("posts   to {} as a bot of team {}\n", without_secret(settings.mattermost.url),
               settings.mattermost.team);
  else if (settings.mattermost.hook == prints)
    fmt::print("posts   to stdout: hook = \"print\"\n");
  else if (!settings.mattermost.hook.empty())
    fmt::print("posts   to {}\n", without_secret(settings.mattermost.hook));
  for (const auto& [channel, hook] : settings.mattermost.hooks)
    fmt::print("posts   #{} to {}\n", channel, without_secret(hook));
  fmt::print("keeps   {}\n", settings.queue == "sqlite" ? settings.state + "/queue.sqlite" : "its queue in PostgreSQL");
}

}  // namespace radiotower::notifier
