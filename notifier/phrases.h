// The words of a post, shared by what renders one event and what renders many. All returned texts are harmless for the
// place that is named.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "notifier/render.h"
#include "notifier/text.h"

namespace radiotower::notifier {

inline constexpr std::size_t longest_title = 200;  // characters that a sentence shows of it

/// Where a phrase will stand: as Markdown, or in a place without it (a linked title, a fallback).
enum class Place : std::uint8_t { markdown, plain };
inline std::string shown(Place place, std::string_view text, std::size_t limit) {
  return place == Place::markdown ? markdown_line(text, limit) : plain_line(text, limit);
}

/// #RRGGBB.
std::string_view colour(Status status);
/// 0: nothing to worry about ... 3: failed. Orders a digest and chooses its colour.
int severity(const Event& event);
/// "failed", "passed", "is running"; of an alert "is firing", of a vulnerability "is open". Empty for none.
std::string_view verdict(const Event& event);
/// The same of several: "failed", "are running", "have warnings".
std::string verdict_of_many(const Event& event);
/// The same as a word alone: "failed", "passed", "running", "firing", "open".
std::string_view state(const Event& event);
/// state(), or what change_words() says where that holds the state: "still firing (2nd)".
std::string state_words(const Post& post);
/// "pipeline", "pipelines"; words of other sources are made harmless.
std::string kind_words(std::string_view kind, std::size_t count);
/// "3 min 12 s", "2 h 5 min", "3 d 4 h"; nullopt of what is no duration.
std::optional<std::string> duration_words(double seconds);
/// "broken", "still failing (3rd, for 2 h)", "fixed after 2 h"; of an alert "still firing (3rd)", "resolved after 2 h"; else empty.
std::string change_words(const Change& change, std::string_view kind);
/// The title with what belongs to it: "Quality gate City way for pull request 12". Raw text.
std::string full_title(const Event& event);
/// What happened in a few words: "Pipeline #1234 failed"; "Ada Quill pushed 3 commits to main".
std::string sentence(const Event& event, Place place);
/// Does sentence() or headline() say already who the author is, which branch it is, what this fact tells?
bool names_author(const Event& event);
bool shows_branch(const Event& event);
bool says_fact(const Event& event, std::string_view name, std::string_view value);
/// The value of a fact as Markdown. One that is an http(s) URL is a link to it; so is one made by add_link(): label, newline, URL.
std::string fact_value(std::string_view value, std::size_t limit);
/// "city/pump · main · Pipeline #1234 failed".
std::string headline(const Event& event, Place place);
/// "- [unit](…) – script failure"
std::string item_line(const Item& item, Status event_status);

/// Lines of Markdown that stay within longest_post together.
class Body {
 public:
  /// An empty line is left out. False: there was no room, and none is looked for any more.
  bool add(std::string_view line);
  /// An empty line in between: what follows a quote or a list and is no part of it.
  void separate() { separated_ = !text_.empty(); }
  std::string finish() &&;

 private:
  std::string text_;
  std::size_t count_ = 0;
  bool separated_ = false, full_ = false;
};

// The other kinds of posts, each in a file of its own.
Json render_slack(const Post& post);
/// nullopt: the template does not work, or gives nothing.
std::optional<std::string> fill_template(const Post& post, std::size_t limit);

}  // namespace radiotower::notifier
