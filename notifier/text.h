// Text from outside made harmless for Mattermost (and for a terminal). Pure functions; each returns valid UTF-8 whatever comes in.
//
// What is defused, and how it is known to hold, stands in docs/notifier.md ("Hostile text"): mentions (@all, @channel, @here, @user, also
// behind HTML entities and Markdown), <!channel>, <url|label>, Markdown of every kind, line starts, autolinks, images, hashtags,
// control characters (C0, C1), bidi controls (U+202A-202E, U+2066-2069, U+200E/F, U+061C), other invisible ones that hide text.
//
// A `limit` is one of code points of what is returned, escapes, fences and "…" included; of link() it is the label's.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace radiotower::notifier {

inline constexpr std::size_t longest_post = 16'383;  // characters (code points) of a text, Mattermost's limit

/// One line of Markdown that shows exactly `text`: newlines and tabs become blanks. Cut at `limit` characters, never inside a grapheme
/// (combining marks, ZWJ sequences, regional-indicator pairs), with "…" in place of what is missing.
std::string markdown_line(std::string_view text, std::size_t limit);

/// The same over several lines: a quote ("> " before each line), at most `lines`.
std::string markdown_quote(std::string_view text, std::size_t limit, std::size_t lines);

/// For places where Mattermost renders no Markdown but still looks for mentions and <!...>: an attachment's linked title, fallback, a
/// field's title, a user name. No backslashes; @ and < are defused with U+200B.
std::string plain_line(std::string_view text, std::size_t limit);

/// `text` in a code span whose fence is longer than any run of backticks in it. <!...> and <a|b> are defused there too.
std::string code_span(std::string_view text, std::size_t limit);

/// "[label](url)" for an http or https URL that has a host and no user info, else the label alone. The URL is percent-encoded where Markdown
/// would end it early. `label` is raw text.
std::string link(std::string_view label, std::string_view url, std::size_t limit);
/// The URL if it may stand in title_link (as above, at most 2,000 bytes); else empty.
std::string safe_url(std::string_view url);
/// safe_url() for "[label](here)": also without what would end a Markdown link, name a user or begin an entity.
std::string markdown_url(std::string_view url);

/// Markdown that somebody else wrote (Slack-shaped posts): its formatting stays; mentions, <!...>, images, bidi and control characters go.
/// Slack's <url|label> becomes a Markdown link. At most `limit` characters.
std::string defused_markdown(std::string_view text, std::size_t limit);

/// Code points.
std::size_t characters(std::string_view utf8);

/// For a terminal: no control characters at all but newline; nothing is escaped otherwise.
std::string for_terminal(std::string_view text);

}  // namespace radiotower::notifier
