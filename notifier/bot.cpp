#include "notifier/bot.h"

#include <fmt/format.h>

#include <algorithm>

namespace radiotower::notifier {

namespace {

constexpr const char* mark = "radiotower_id";  // in the props of each of our posts
// Between our clock and Mattermost's, when we look for what was posted "since".
constexpr std::int64_t clocks_differ_ms = 5 * 60 * 1000;

std::string escaped(std::string_view segment) {
  std::string out;
  for (const unsigned char c : segment) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_' || c == '.';
    if (plain) out += static_cast<char>(c);
    else out += fmt::format("%{:02X}", c);
  }
  return out;
}

std::string text_at(const Json& json, const char* key) {
  const auto found = json.is_object() ? json.find(key) : json.end();
  return json.is_object() && found != json.end() && found->is_string() ? found->get<std::string>() : std::string();
}

/// What render() made for a webhook, as REST takes it: attachments stand in the props, and a bot has its own name.
Json body_of(const Json& payload, const std::string& identity) {
  Json props{{mark, identity}};
  if (payload.contains("attachments")) props["attachments"] = payload["attachments"];
  return {{"message", text_at(payload, "text")}, {"props", std::move(props)}};
}

std::string with_call(const std::string& call, const std::string& text) { return call.empty() || text.empty() ? call + text : call + "\n" + text; }

}  // namespace

struct Bot::Known {
  Client& client;
  std::string team;
  std::string own_id;
  std::map<std::string, std::string> channels;  // name -> id; as many as routes name
};

struct Bot::Conversation : std::enable_shared_from_this<Bot::Conversation> {
  Conversation(std::shared_ptr<Known> k, Task t, Done d) : known(std::move(k)), task(std::move(t)), done(std::move(d)) {}

  using Next = void (Conversation::*)(Answer);
  void ask(const char* method, const std::string& path, const Json& body, Next next) {
    ++requests;
    known->client.rest(method, path, body, [self = shared_from_this(), next](Answer answer) { ((*self).*next)(std::move(answer)); });
  }

  void start() {
    if (!task.edit) return find_channel();
    place = task.edit;
    edit();
  }

  // --- the channel's id
  void find_channel() {
    const auto found = known->channels.find(task.channel);
    if (found != known->channels.end()) return channel_found(found->second);
    if (task.channel.empty() || task.channel.front() != '@')
      return ask("GET", fmt::format("/teams/name/{}/channels/name/{}", escaped(known->team), escaped(task.channel)), {}, &Conversation::told_channel);
    if (known->own_id.empty()) return ask("GET", "/users/me", {}, &Conversation::told_own_id);
    ask("GET", "/users/username/" + escaped(std::string_view(task.channel).substr(1)), {}, &Conversation::told_user);
  }
  void told_own_id(Answer answer) {
    if (answer.outcome != Outcome::delivered) return end(std::move(answer));
    known->own_id = text_at(answer.body, "id");
    if (known->own_id.empty()) return end(nonsense("GET /users/me"));
    find_channel();
  }
  void told_user(Answer answer) {
    if (answer.outcome != Outcome::delivered) return end(std::move(answer));
    ask("POST", "/channels/direct", Json::array({known->own_id, text_at(answer.body, "id")}), &Conversation::told_channel);
  }
  void told_channel(Answer answer) {
    if (answer.outcome == Outcome::ambiguous) answer.outcome = Outcome::again;  // nothing was posted, and asking twice does no harm
    if (answer.outcome != Outcome::delivered) return end(std::move(answer));
    const std::string id = text_at(answer.body, "id");
    if (id.empty()) return end(nonsense("the channel"));
    known->channels[task.channel] = id;
    channel_found(id);
  }
  void channel_found(const std::string& id) {
    channel_id = id;
    if (task.may_be_there) return look(&Conversation::told_posts);
    create();
  }

  // --- what is there already
  void look(Next next) { ask("GET", fmt::format("/channels/{}/posts?since={}", channel_id, task.since - clocks_differ_ms), {}, next); }
  /// The id of the post that has one of these identities; empty: none.
  static std::string find(const Json& body, const std::vector<std::string>& identities) {
    const auto posts = body.find("posts");
    if (posts == body.end() || !posts->is_object()) return {};
    for (const auto& [id, post] : posts->items()) {
      const auto props = post.is_object() ? post.find("props") : post.end();
      if (!post.is_object() || props == post.end() || post.value("delete_at", Json(0)) != 0) continue;
      if (std::find(identities.begin(), identities.end(), text_at(*props, mark)) != identities.end()) return id;
    }
    return {};
  }
  void told_posts(Answer answer) {
    if (answer.outcome == Outcome::refused) return create();  // who may not read may still write: one more is better than none
    if (answer.outcome != Outcome::delivered) return end(std::move(answer));
    std::vector<std::string> identities = task.earlier;
    identities.push_back(task.identity);
    const std::string id = find(answer.body, identities);
    if (id.empty()) return create();
    place = Place{id, channel_id};
    edit();
  }

  // --- the post itself
  void create() {
    Json body = body_of(task.payload, task.identity);
    body["channel_id"] = channel_id;
    body["pending_post_id"] = task.identity;  // Mattermost knows it for 30 s, and answers with the first post
    ask("POST", "/posts", body, &Conversation::told_created);
  }
  void told_created(Answer answer) {
    if (answer.outcome == Outcome::refused) known->channels.erase(task.channel);  // it may have gone, and come again with another id
    if (answer.outcome != Outcome::delivered) return end(std::move(answer));
    place = Place{text_at(answer.body, "id"), channel_id};
    if (place->post_id.empty()) return end(nonsense("POST /posts"));
    created = true;
    reply();
  }
  void edit() { ask("PUT", fmt::format("/posts/{}/patch", escaped(place->post_id)), body_of(task.payload, task.identity), &Conversation::told_edited); }
  void told_edited(Answer answer) {
    if (answer.outcome == Outcome::refused && answer.status != 401) {
      // Deleted by somebody, or too old to be edited: the next one tells on.
      place.reset();
      task.may_be_there = false;
      return find_channel();
    }
    if (answer.outcome != Outcome::delivered) return end(std::move(answer));
    edited = true;
    reply();
  }

  // --- the details below it
  std::string reply_identity() const { return task.identity + "-details"; }
  void reply() {
    if (created) task.call.clear();  // the post itself has called them
    if (task.details.is_null() && task.call.empty()) return succeed();
    channel_id = place->channel_id;
    if (task.may_be_there) return look(&Conversation::told_replies);
    send_reply();
  }
  void told_replies(Answer answer) {
    if (answer.outcome != Outcome::delivered && answer.outcome != Outcome::refused) return end(std::move(answer));
    if (answer.outcome == Outcome::delivered && !find(answer.body, {reply_identity()}).empty()) return succeed();
    send_reply();
  }
  void send_reply() {
    Json body = body_of(task.details.is_object() ? task.details : Json::object(), reply_identity());
    body["message"] = with_call(task.call, body["message"].get<std::string>());
    body["channel_id"] = place->channel_id;
    body["root_id"] = place->post_id;
    body["pending_post_id"] = reply_identity();
    ask("POST", "/posts", body, &Conversation::told_replied);
  }
  void told_replied(Answer answer) {
    if (answer.outcome == Outcome::refused) return succeed();  // the post tells what counts
    if (answer.outcome != Outcome::delivered) return end(std::move(answer));
    replied = true;
    succeed();
  }

  // --- the end
  static Answer nonsense(const char* what) {
    Answer answer;
    answer.reason = fmt::format("{}: the answer has no id: does something else than Mattermost answer there?", what);
    return answer;
  }
  void succeed() {
    Answer answer;
    answer.outcome = Outcome::delivered;
    end(std::move(answer));
  }
  void end(Answer answer) { done(Result{std::move(answer), place, created, edited, replied, requests}); }

  std::shared_ptr<Known> known;
  Task task;
  Done done;
  std::string channel_id;
  std::optional<Place> place;
  bool created = false, edited = false, replied = false;
  unsigned requests = 0;
};

Bot::Bot(Client& client, std::string team) : known_(std::make_shared<Known>(Known{client, std::move(team), {}, {}})) {}
Bot::~Bot() = default;

void Bot::say(Task task, Done done) { std::make_shared<Conversation>(known_, std::move(task), std::move(done))->start(); }

}  // namespace radiotower::notifier
