// From the body of a webhook to an Event: one pure function a format, no clock, no socket, no log.
//
// What a sender leaves out, sends as null or with another type than documented is not there, and the event is made of the rest; only
// a body that is not this format at all is malformed. A kind that is unknown, or that says nothing anybody would read, is dropped
// with a reason: docs/notifier.md lists them.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "notifier/event.h"

namespace radiotower::notifier {

enum class Format : std::uint8_t { gitlab, jenkins, sonarqube, artifactory, gitea, github, alertmanager, slack, generic };
std::optional<Format> format_of(std::string_view name);  // "gitlab", also a format's path: /v1/gitlab
std::string_view name(Format format);

struct Dropped {
  std::string reason;  // a short word for counters and docs: "unknown kind", "ping", "finalized follows" ...
};
struct Malformed {
  std::string why;  // a sentence for the sender, without any of its bytes
};
using Parsed = std::variant<Event, Dropped, Malformed>;

/// Finds a header by its lower-case name; empty when it is not there.
using FindHeader = std::function<std::string_view(std::string_view)>;

/// Templates of [sources.NAME] with format "generic": Mustache over the body, one a field; empty: not set.
struct GenericTemplate {
  std::string title, text, project, branch, status, url, author, commit, id;  // id: what a duplicate is known by
};

struct Arrival {
  std::string_view source;  // the section's name
  Format format = Format::generic;
  const FindHeader& header;
  const Json& body;
  std::string_view raw;  // the body's bytes: the identity of what carries no id of its own
  const GenericTemplate* generic = nullptr;
};

/// JSON as strictly as RFC 8259 writes it, at most 64 deep. nullopt: `why` is a sentence without any of the bytes.
std::optional<Json> parse_json(std::string_view body, std::string& why);

/// Never throws: what goes wrong inside is a Malformed.
Parsed parse(const Arrival& arrival);

}  // namespace radiotower::notifier
