// From a Post to the JSON that Mattermost takes. Pure functions.
//
// A built-in post is one attachment: {fallback, color, title, title_link, text} and, above it, `text` for the mention alone. Colours are
// #RRGGBB, chosen by status; the status also stands in words, for those who don't see colours. No image, no icon, no author_link: each
// such URL would cost Mattermost 5 s in a network without a way out. `text` of an attachment is our Markdown around defused values.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "notifier/routes.h"

namespace radiotower::notifier {

/// {text?, username?, attachments?} without channel: valid for the webhook as it is; for REST, attachments go into props. At most
/// longest_post characters in each text, at most 200,000 bytes in all.
Json render(const Post& post);

/// One post for many of one channel, newest last: counts by kind, status, project and branch ("7 pipelines failed on main"), failures
/// first, with links to the newest of each; lines are bounded, and what is left out is counted.
Json render_digest(std::span<const Post> posts);

/// The details that go below the one post of a pipeline as a reply in its thread: failed jobs with their links. Null: nothing to add.
Json render_details(const Post& post);

/// What preview prints: the post as a person would read it, for a terminal of `width` columns; colours with ANSI where asked for. No
/// control character but newline comes from the payload.
std::string for_terminal(const Json& payload, bool colours, std::size_t width = 100);

/// True, or false with a sentence in `why`: the template is no Mustache, or asks for a variable that is not there. Variables, each defused:
/// title url link status change project branch commit commit_title author actor duration text kind action source, and the lists
/// items (name url link status detail) and facts (name value). `url` is for [label]({{url}}); what is empty is false.
/// `any_variable`: for templates over somebody else's JSON, whose names nobody knows beforehand.
bool check_template(std::string_view template_text, std::string& why, bool any_variable = false);

}  // namespace radiotower::notifier
