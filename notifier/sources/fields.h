// Lenient access to what a sender wrote, and what several sources share. Private to notifier/sources and event.cpp. Nothing here throws
// but for want of memory: a field that is missing, null or of another type is empty.
#pragma once

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

#include "notifier/event.h"
#include "notifier/sources/source.h"

namespace radiotower::notifier {

// --- fields: text(body, "project", "name")
using Path = std::initializer_list<const char*>;
const Json& find(const Json& json, Path path);  // null where there is none; lives as long as `json`
std::string find_text(const Json& json, Path path);
std::string find_id(const Json& json, Path path);
std::optional<double> find_number(const Json& json, Path path);
const Json& find_list(const Json& json, Path path);  // an empty array where there is none

template <class... Keys> const Json& at(const Json& json, Keys... keys) { return find(json, {keys...}); }
/// Strings alone.
template <class... Keys> std::string text(const Json& json, Keys... keys) { return find_text(json, {keys...}); }
/// What names a thing: strings and whole numbers.
template <class... Keys> std::string id(const Json& json, Keys... keys) { return find_id(json, {keys...}); }
/// Finite numbers, also written as a string ("12.5").
template <class... Keys> std::optional<double> number(const Json& json, Keys... keys) { return find_number(json, {keys...}); }
template <class... Keys> const Json& list(const Json& json, Keys... keys) { return find_list(json, {keys...}); }
/// True alone: not 1, not "true".
template <class... Keys> bool flag(const Json& json, Keys... keys) { return find(json, {keys...}) == true; }

// --- texts
std::string first_of(std::initializer_list<std::string> texts);  // the first that is not empty
std::string first_line(std::string_view text);                   // without outer blanks
std::string last_lines(std::string_view text, std::size_t lines);
std::string blanks_for_underscores(std::string text);            // "script_failure" -> "script failure"
std::string lower_words(std::string_view text);                  // "RELEASE_BUNDLE" -> "release bundle"
std::string percent_decoded(const std::string& text);            // unchanged where the outcome is no UTF-8
std::string percent_encoded(std::string_view path);              // for a branch or a file in the path of a URL: "/" stays
std::string short_sha(const std::string& sha);                   // for a title
std::string counted(std::size_t n, std::string_view noun);       // "1 commit", "2 commits"
std::string joined(const Json& list, const char* key);           // "a, b": `key` of each, or each itself when that is null
/// At most so many bytes of UTF-8, never a part of a character.
void cut(std::string& text, std::size_t bytes);
bool is_utf8(std::string_view text);
std::string sha256_hex(std::string_view bytes);
std::optional<double> seconds_between(const std::string& from, const std::string& to);  // of ISO 8601 times
std::size_t whole(std::optional<double> number);                 // 0 for what is no count

// --- what events share
/// status_of() made wide: the words of all senders in any case, "-" and "_" alike; none when it is unknown.
Status lenient_status(std::string_view word);
/// A header that may go into a key: printable ASCII, at most 200 bytes; else empty.
std::string header(const Arrival& arrival, std::string_view name);
void add_fact(Event& event, const char* name, std::string value);  // nothing when it is empty
/// A fact that is a link: render takes "label, newline, URL" for that. (A value that is a URL is a link as it is.)
void add_link(Event& event, const char* name, const std::string& label, const std::string& url);
/// refs/heads/x, refs/tags/x or a bare name: branch, is_tag, on_default_branch.
void set_ref(Event& event, const std::string& ref, const std::string& default_branch);
bool is_zero_sha(std::string_view sha);  // git's "there is none"; also an empty one
/// Commits of a push as items, and the newest (the one that is `head`, else the last) as the event's commit.
void set_commits(Event& event, const Json& commits, const std::string& head, std::size_t total);
/// "12 commits", "New branch", "Tag deleted".
std::string push_title(const Event& event, std::size_t commits);

// --- the sources
Parsed parse_gitlab(const Arrival& arrival);
Parsed parse_jenkins(const Arrival& arrival);
Parsed parse_sonarqube(const Arrival& arrival);
Parsed parse_artifactory(const Arrival& arrival);
Parsed parse_forge(const Arrival& arrival);  // Gitea, Forgejo and GitHub
Parsed parse_alertmanager(const Arrival& arrival);
Parsed parse_slack(const Arrival& arrival);
Parsed parse_generic(const Arrival& arrival);
Event gitlab_common(const Json& body, const char* kind);  // project, actor, action, url
Parsed gitlab_small(const Json& body);                    // the kinds of gitlab_small.cpp; Dropped for the others
/// The small JSON for curl: {source?, project, branch, status, url, number, duration_s, commit, author, title, text, id?}. Is it one?
bool is_small_json(const Json& body);
Event from_small_json(const Json& body);

}  // namespace radiotower::notifier
