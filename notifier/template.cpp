// Mustache of a route's `template`. The template is the operator's, the values are strangers': each is defused before
// it is put in, none is ever read as a template itself (partials are not there), and neither look-ups nor output are
// without an end.
#include <array>
#include <exception>

#include <fmt/format.h>
#include <kainjow/mustache.hpp>

#include "notifier/phrases.h"

namespace radiotower::notifier {

namespace {

namespace mustache = kainjow::mustache;

constexpr std::size_t longest_template = 16'384;
constexpr std::size_t most_look_ups = 2000;
constexpr std::size_t most_items = 50;

struct TooMuch : std::exception {};

/// Collects what the template gives.
class Output {
 public:
  explicit Output(std::size_t most_bytes) : most_bytes_(most_bytes) {}
  Output& operator<<(const std::string& text) {
    text_.append(text, 0, most_bytes_ - text_.size());
    if (text_.size() == most_bytes_) throw TooMuch();
    return *this;
  }
  std::string& text() { return text_; }

 private:
  std::string text_;
  std::size_t most_bytes_;
};

class Context : public mustache::context<std::string> {
 public:
  using mustache::context<std::string>::context;
  const mustache::data* get(const std::string& name) const override {
    if (++look_ups_ > most_look_ups) throw TooMuch();
    const mustache::data* found = mustache::context<std::string>::get(name);
    if (found == nullptr && unknown_.empty()) unknown_ = name;
    return found;
  }
  // A value as a partial would be a template of a stranger, and could contain itself.
  const mustache::data* get_partial(const std::string&) const override { return nullptr; }
  const std::string& unknown() const { return unknown_; }

 private:
  mutable std::size_t look_ups_ = 0;
  mutable std::string unknown_;
};

/// An empty value is false, so that {{#branch}} … {{/branch}} leaves out what is not there.
mustache::data value(const std::string& text) { return text.empty() ? mustache::data(false) : mustache::data(text); }

mustache::data values_of(const Post& post) {
  const Event& event = post.event;
  const auto line = [](std::string_view text, std::size_t limit) { return value(markdown_line(text, limit)); };
  mustache::data values;
  values.set("title", line(full_title(event), 300));
  values.set("url", value(markdown_url(event.url)));
  values.set("link", value(link(event.title.empty() ? event.kind : full_title(event), event.url, 300)));
  values.set("status", value(std::string(word(event.status))));
  values.set("change", value(change_words(post.change, event.kind)));
  values.set("project", line(event.project, 150));
  values.set("branch", line(event.branch, 150));
  values.set("commit", line(event.commit, 40));
  values.set("commit_title", line(event.commit_title, 300));
  values.set("author", line(event.author, 100));
  values.set("actor", line(event.actor, 100));
  values.set("duration", value(event.duration_s ? duration_words(*event.duration_s).value_or("") : ""));
  values.set("text", line(event.text, 2000));
  values.set("kind", line(event.kind, 40));
  values.set("action", line(event.action, 40));
  values.set("source", line(event.source, 100));
  mustache::data items(mustache::data::type::list), facts(mustache::data::type::list);
  for (const Item& item : event.items) {
    if (items.list_value().size() == most_items) break;
    mustache::data entry;  // all four: a missing one would be looked for in the event
    entry.set("name", line(item.name, 200));
    entry.set("url", value(markdown_url(item.url)));
    entry.set("link", value(link(item.name, item.url, 200)));
    entry.set("status", value(std::string(word(item.status))));
    entry.set("detail", line(item.detail, 200));
    items.push_back(entry);
  }
  for (const auto& [name, text] : event.facts) {
    if (facts.list_value().size() == most_items) break;
    mustache::data entry;
    entry.set("name", line(name, 100));
    entry.set("value", value(fact_value(text, 200)));
    facts.push_back(entry);
  }
  values.set("items", items);
  values.set("facts", facts);
  return values;
}

/// At most `limit` characters, without half an escape at the end. (Output ends far behind them, so never within one
/// that stays.)
void cut(std::string& text, std::size_t limit) {
  if (characters(text) <= limit) return;
  std::size_t bytes = 0;
  for (std::size_t count = 0; bytes < text.size(); ++bytes) {
    if ((static_cast<unsigned char>(text[bytes]) & 0xC0) == 0x80) continue;
    if (++count == limit) break;
  }
  text.resize(bytes);
  const std::size_t end = text.find_last_not_of('\\');
  if ((text.size() - (end == std::string::npos ? 0 : end + 1)) % 2 == 1) text.pop_back();
  text += "…";
}

}  // namespace

std::optional<std::string> fill_template(const Post& post, std::size_t limit) {
  if (limit == 0 || post.template_text.size() > longest_template) return std::nullopt;
  Output out(4 * (limit + 1));
  try {
    mustache::mustache filled(post.template_text);
    if (!filled.is_valid()) return std::nullopt;
    filled.set_custom_escape([](const std::string& text) { return text; });
    const mustache::data values = values_of(post);
    Context context(&values);
    filled.render(static_cast<mustache::basic_context<std::string>&>(context), out);
  } catch (const TooMuch&) {  // what there is so far
  } catch (const std::exception&) {
    return std::nullopt;
  }
  std::string& text = out.text();
  cut(text, limit);
  if (text.find_first_not_of(" \t\r\n") == std::string::npos) return std::nullopt;
  return std::move(text);
}

bool check_template(std::string_view template_text, std::string& why, bool any_variable) {
  if (template_text.size() > longest_template) {
    why = fmt::format("it is longer than {} bytes", longest_template);
    return false;
  }
  if (const std::size_t brace = template_text.find("{{"); brace != std::string_view::npos) {
    for (std::size_t at = brace; at != std::string_view::npos; at = template_text.find("{{", at + 2)) {
      const std::size_t inside = template_text.find_first_not_of(" \t", at + 2);
      if (inside == std::string_view::npos || template_text[inside] != '>') continue;
      why = "it has a partial ({{> name}}), which is not supported";
      return false;
    }
  }
  Post sample;
  Event& event = sample.event;
  event.source = event.kind = event.action = event.project = event.branch = event.title = event.text = "x";
  event.commit = event.commit_title = event.author = event.actor = "x";
  event.url = "https://ci.example/1";
  event.status = Status::failed;
  event.duration_s = 1;
  event.items = {{"x", event.url, "x", Status::failed}};
  event.facts = {{"x", "x"}};
  sample.change.turn = Turn::broken;
  try {
    mustache::mustache filled{std::string(template_text)};
    if (!filled.is_valid()) {
      why = fmt::format("it is no Mustache: {}", filled.error_message());
      return false;
    }
    const mustache::data values = values_of(sample);
    Context context(&values);
    Output out(4 * longest_post);
    filled.render(static_cast<mustache::basic_context<std::string>&>(context), out);
    if (!any_variable && !context.unknown().empty()) {
      why = fmt::format("there is no variable \"{}\"", context.unknown());
      return false;
    }
  } catch (const TooMuch&) {
    why = "it gives more than a post can hold";
    return false;
  } catch (const std::exception&) {
    why = "it is no Mustache: a tag at its end is not closed";
    return false;
  }
  return true;
}

}  // namespace radiotower::notifier
