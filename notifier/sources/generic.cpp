// JSON of any shape: through the templates of its section, or, without any, the small JSON for curl.
//
// Kinds made: message, and build for a small JSON with a status and a number. Nothing is dropped.
#include <kainjow/mustache.hpp>

#include "notifier/sources/fields.h"

namespace radiotower::notifier {

namespace {

namespace mustache = kainjow::mustache;

constexpr std::size_t deepest = 16, most_values = 10'000, longest_output = 64 * 1024, most_lookups = 100'000;

/// Numbers and true are texts; null, false and "" are false, so that {{#x}} skips them and {{x}} writes nothing.
mustache::data to_data(const Json& json, std::size_t depth, std::size_t& values) {
  if (depth == 0 || values == 0) return false;
  --values;
  if (json.is_object()) {
    mustache::object object;
    for (const auto& [key, value] : json.items()) object.emplace(key, to_data(value, depth - 1, values));
    return object;
  }
  if (json.is_array()) {
    mustache::list list;
    for (const Json& value : json) list.push_back(to_data(value, depth - 1, values));
    return list;
  }
  const std::string written = json.is_string() ? text(json) : json.is_null() || json == false ? std::string() : json.dump();
  if (written.empty()) return false;
  return written;
}

struct TooMuch {};

/// Bounds the work: sections over long lists multiply. What stands in a line is held back by the library until the line ends, so values and
/// literals are counted here, where they are asked for, and not where they come out.
class BoundedContext : public mustache::context<std::string> {
 public:
  BoundedContext(const mustache::data* data, std::size_t template_size) : context(data), template_size_(template_size) {}
  const mustache::data* get(const std::string& name) const override {
    const mustache::data* const found = context::get(name);
    if (++lookups_ > most_lookups) throw TooMuch();
    if (found && found->is_string()) written_ += found->string_value().size();
    if (written_ > most_written) throw TooMuch();
    return found;
  }
  /// A round of a section: all of the template at most is written once more.
  void push(const mustache::data* data) override {
    written_ += template_size_;
    if (written_ > most_written) throw TooMuch();
    context::push(data);
  }
  // {{>name}} would take a sender's text for a template.
  const mustache::data* get_partial(const std::string&) const override { return nullptr; }

 private:
  static constexpr std::size_t most_written = 4 << 20;
  std::size_t template_size_;
  mutable std::size_t lookups_ = 0, written_ = 0;
};

/// Collects the outcome up to its bound.
class BoundedOutput {
 public:
  BoundedOutput& operator<<(const std::string& text) {
    text_ += text;
    if (text_.size() <= longest_output) return *this;
    cut(text_, longest_output);
    throw TooMuch();
  }
  std::string take() && { return std::move(text_); }

 private:
  std::string text_;
};
/// JOB_NAME of a Jenkins multibranch job is "folder/job/branch": the branch is told beside it, so it is no part of the project.
void cut_branch(std::string& project, const std::string& branch) {
  if (branch.empty()) return;
  if (const auto cut = branch.size() + 1; project.size() > cut && project.ends_with('/' + branch)) return project.resize(project.size() - cut);
  const auto last = project.rfind('/');  // "feature%2Fvalve"
  if (last != project.npos && last > 0 && percent_decoded(project.substr(last + 1)) == branch) project.resize(last);
}

std::string fill(const std::string& template_text, const mustache::data& data) {
  if (template_text.empty()) return {};
  mustache::mustache filled(template_text);
  filled.set_custom_escape([](const std::string& value) { return value; });  // text.h defuses the outcome, as any other text
  if (!filled.is_valid()) return {};
  BoundedContext context(&data, template_text.size());
  BoundedOutput output;
  bool cut = false;
  try {
    filled.render(static_cast<mustache::basic_context<std::string>&>(context), output);
  } catch (const TooMuch&) {
    cut = true;  // what there is so far
  }
  std::string out = std::move(output).take();
  return out.empty() && cut ? "…" : out;
}

}  // namespace

bool is_small_json(const Json& body) {
  for (const char* key : {"title", "text", "project", "status"}) {
    if (!text(body, key).empty()) return true;
  }
  return false;
}

Event from_small_json(const Json& body) {
  Event event;
  const std::string number = id(body, "number"), status = text(body, "status");
  event.kind = !status.empty() && !number.empty() ? "build" : "message";
  event.status = lenient_status(status);
  event.project = text(body, "project");
  set_ref(event, text(body, "branch"), "");
  cut_branch(event.project, event.branch);
  event.url = text(body, "url");
  event.duration_s = notifier::number(body, "duration_s");
  event.commit = text(body, "commit");
  event.author = text(body, "author");
  event.text = text(body, "text");
  event.title = first_of({first_line(text(body, "title")), number.empty() ? "" : "Build #" + number, first_line(event.text)});
  add_fact(event, "Source", text(body, "source"));
  if (event.status == Status::none && lower_words(status) != "none") add_fact(event, "Status", status);
  if (!event.project.empty()) {
    if (!number.empty()) event.subject = "build/" + event.project + '/' + event.branch + '#' + number;
    if (event.status != Status::none) event.history_key = "build/" + event.project + '/' + event.branch;
  }
  event.dedup_key = id(body, "id");
  return event;
}

Parsed parse_generic(const Arrival& arrival) {
  const GenericTemplate none;
  const GenericTemplate& templates = arrival.generic ? *arrival.generic : none;
  const auto all = {templates.title, templates.text, templates.project, templates.branch, templates.status, templates.url, templates.author,
                    templates.commit, templates.id};
  if (first_of(all).empty()) {
    if (!is_small_json(arrival.body)) return Malformed{"nothing to tell: no title, text, project or status, and no template for this source"};
    return from_small_json(arrival.body);
  }
  std::size_t values = most_values;
  const mustache::data data = to_data(arrival.body, deepest, values);
  Event event;
  event.kind = "message";
  event.title = first_line(fill(templates.title, data));
  event.text = fill(templates.text, data);
  event.project = first_line(fill(templates.project, data));
  set_ref(event, first_line(fill(templates.branch, data)), "");
  event.status = lenient_status(first_line(fill(templates.status, data)));
  event.url = first_line(fill(templates.url, data));
  event.author = first_line(fill(templates.author, data));
  event.commit = first_line(fill(templates.commit, data));
  event.dedup_key = first_line(fill(templates.id, data));
  if (event.title.empty()) event.title = first_line(event.text);
  if (event.title.empty()) return Malformed{"nothing to tell: the templates of this source find nothing in it"};
  if (!event.project.empty() && event.status != Status::none) event.history_key = "message/" + event.project + '/' + event.branch;
  return event;
}

}  // namespace radiotower::notifier
