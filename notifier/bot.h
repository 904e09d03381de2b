// A bot's way to say something: one post a subject, edited as things go on, with details as a reply below it.
//
// Each Task is a short conversation with Mattermost's REST API: find the channel, look for what may be there already, post or edit, reply.
// All of it may be said twice: what was posted and whose answer was lost is found by its `radiotower_id` and edited instead of posted anew.
// May not know: the queue, rendering, clocks. Belongs to the thread of its Client, and must outlive no Client.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "notifier/mattermost.h"

namespace radiotower::notifier {

class Bot {
 public:
  struct Place {
    std::string post_id, channel_id;
  };
  struct Task {
    std::string channel;               // "builds", or "@alice"
    Json payload;                      // of render()
    std::optional<Place> edit;         // the post that tells about this subject already
    std::string identity;              // of the newest state, kept in the post's props
    std::vector<std::string> earlier;  // identities of older states that this one replaces
    bool may_be_there = false;         // an answer was lost: look before posting
    std::int64_t since = 0;            // where to look: unix milliseconds
    Json details;                      // a reply below the post; null: none
    std::string call;                  // "@build-cop": said in the reply when the post is edited, because an edit calls nobody
  };
  struct Result {
    Answer answer;
    std::optional<Place> place;  // where the subject is told of now; also when the reply failed
    bool created = false, edited = false, replied = false;
    unsigned requests = 0;  // that Mattermost was asked
  };
  using Done = std::function<void(Result)>;

  Bot(Client& client, std::string team);
  ~Bot();
  /// `done` is called by the client's turn(), once.
  void say(Task task, Done done);

 private:
  struct Conversation;
  struct Known;
  std::shared_ptr<Known> known_;
};

}  // namespace radiotower::notifier
